//! The request of one attempt: where it goes, its headers with their signatures, and its body.
//!
//! Headers of the endpoint's owner come first and cannot say what is the gateway's to say.

use aws_lc_rs::hmac::{self, HMAC_SHA256, HMAC_SHA512};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use portcullis_core::{EventFormat, Secret, Timestamp, Webhook, WebhookSpec};
use serde_json::json;

use crate::check::{JWT_KEY, is_reserved};
use crate::secret::Key;
use crate::{KeyError, Message};

/// For how long a token of the Evolution format is good, in seconds.
const TOKEN_LIFETIME: u64 = 600;
const AGENT: &str = concat!("Portcullis/", env!("CARGO_PKG_VERSION"));

/// One attempt at a delivery: a POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where it goes.
    pub url: String,
    /// Headers; their values can be credentials.
    pub headers: Vec<(String, Secret)>,
    /// A JSON document.
    pub body: Vec<u8>,
}

/// Why there is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The format has to be signed, and there is nothing to sign with.
    #[error("the webhook has no secret to sign with")]
    Unsigned,
    /// The secret is none of the format's keys.
    #[error("the secret of the webhook is no key")]
    Key(#[source] KeyError),
}

/// The request of an attempt that begins now.
///
/// # Errors
/// If it cannot be signed, which [`crate::check`] keeps from happening.
pub fn request(webhook: &Webhook, message: &Message, now: Timestamp) -> Result<Request, RequestError> {
    let spec = &webhook.spec;
    let mut headers = Headers(Vec::new());
    let token = spec.headers.iter().find(|(name, _)| is_token(spec.format, name)).map(|(_, key)| key);
    for (name, value) in &spec.headers {
        let replaced = is_token(spec.format, name) || (token.is_some() && name.eq_ignore_ascii_case("authorization"));
        if !replaced && !is_reserved(name) {
            headers.add(name, value.reveal());
        }
    }
    if !spec.headers.keys().any(|name| name.eq_ignore_ascii_case("user-agent")) {
        headers.add("user-agent", AGENT);
    }
    headers.add("content-type", "application/json");
    match spec.format {
        EventFormat::Standard => sign_standard(webhook, message, now, &mut headers)?,
        EventFormat::Router | EventFormat::Wawp | EventFormat::Evolution => {
            headers.add("x-webhook-request-id", &message.id);
            headers.add("x-webhook-timestamp", &now.as_millis().to_string());
            match (spec.format, token) {
                (EventFormat::Evolution, Some(key)) => {
                    headers.add("authorization", &format!("Bearer {}", token_of(key, now)));
                }
                (EventFormat::Evolution, None) => {}
                _ => sign_body(spec, message, &mut headers),
            }
        }
    }
    Ok(Request { url: url(spec, message), headers: headers.0, body: message.body.clone() })
}

struct Headers(Vec<(String, Secret)>);

impl Headers {
    fn add(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), Secret::new(value)));
    }
}

fn is_token(format: EventFormat, name: &str) -> bool {
    format == EventFormat::Evolution && name.eq_ignore_ascii_case(JWT_KEY)
}

/// The signatures of Standard Webhooks, also with a secret that was replaced a short while ago.
fn sign_standard(
    webhook: &Webhook,
    message: &Message,
    now: Timestamp,
    headers: &mut Headers,
) -> Result<(), RequestError> {
    let secret = webhook.spec.secret.as_ref().ok_or(RequestError::Unsigned)?;
    let retired = webhook.retired.as_ref().filter(|retired| now < retired.until).map(|retired| &retired.secret);
    let seconds = now.as_millis() / 1000;
    let mut signed = format!("{}.{seconds}.", message.id).into_bytes();
    signed.extend_from_slice(&message.body);
    let current = Key::parse(secret.reveal()).map_err(RequestError::Key)?;
    // The retired secret may be from before the endpoint had this format.
    let retired = retired.and_then(|secret| Key::parse(secret.reveal()).ok());
    let signatures: Vec<String> = [Some(current), retired].iter().flatten().map(|key| key.sign(&signed)).collect();
    headers.add("webhook-id", &message.id);
    headers.add("webhook-timestamp", &seconds.to_string());
    headers.add("webhook-signature", &signatures.join(" "));
    Ok(())
}

/// The signatures of the router and of Wawp, which hold the body only.
fn sign_body(spec: &WebhookSpec, message: &Message, headers: &mut Headers) {
    let Some(secret) = &spec.secret else { return };
    let mac = |algorithm| {
        let key = hmac::Key::new(algorithm, secret.reveal().as_bytes());
        hex(hmac::sign(&key, &message.body).as_ref())
    };
    headers.add("x-webhook-hmac", &mac(HMAC_SHA512));
    headers.add("x-webhook-hmac-algorithm", "sha512");
    if spec.format == EventFormat::Wawp {
        headers.add("x-wawp-signature", &mac(HMAC_SHA256));
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| DIGITS[usize::from(digit)]).collect()
}

/// A token of the Evolution format: a JWT that lives for ten minutes.
fn token_of(key: &Secret, now: Timestamp) -> String {
    let seconds = now.as_millis() / 1000;
    let part = |json: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let head = part(json!({ "alg": "HS256", "typ": "JWT" }));
    let claims = part(json!({
        "iat": seconds,
        "exp": seconds + TOKEN_LIFETIME,
        "app": "evolution",
        "action": "webhook",
    }));
    let signed = format!("{head}.{claims}");
    let tag = hmac::sign(&hmac::Key::new(HMAC_SHA256, key.reveal().as_bytes()), signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
}

/// The endpoint's URL, with the event's name as a last step of its path if its owner wants that: `connection.update` is `/connection-update`.
fn url(spec: &WebhookSpec, message: &Message) -> String {
    if !spec.path_per_event {
        return spec.url.clone();
    }
    let end = spec.url.find(['?', '#']).unwrap_or(spec.url.len());
    let (path, query) = spec.url.split_at(end);
    format!("{}/{}{query}", path.trim_end_matches('/'), message.name.replace(['.', '_'], "-"))
}
