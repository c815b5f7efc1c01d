//! What receivers verify, by the vectors and the verifiers of others.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use expect_test::expect;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use portcullis_core::webhook::RetiredSecret;
use standardwebhooks::Webhook as Verifier;

use super::*;
use crate::secret::Key;

/// The seed and the public key of the second test vector of RFC 8032, section 7.1.
const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
const PUBLIC: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn private_key() -> Secret {
    Secret::new(format!("whsk_{}", BASE64_STANDARD.encode(bytes(SEED))))
}

fn posting(body: &str) -> Message {
    Message { id: EventId::new(NOW, 7).to_string(), name: "session.status", body: body.as_bytes().to_vec() }
}

fn header(request: &Request, name: &str) -> Option<String> {
    let found = request.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.reveal().to_owned())
}

fn signed(format: EventFormat, secret: &Secret) -> Webhook {
    webhook(WebhookSpec { secret: Some(secret.clone()), ..spec(format, &["*"]) })
}

fn header_map(request: &Request) -> HeaderMap {
    let header = |(name, value): &(String, Secret)| {
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value.reveal()).unwrap())
    };
    request.headers.iter().map(header).collect()
}

#[test]
fn the_published_vector_of_waha_is_met() {
    let body = r#"{"event":"message","session":"default","engine":"WEBJS"}"#;
    for format in [EventFormat::Wawp, EventFormat::Router] {
        let request = request(&signed(format, &Secret::new("my-secret-key")), &posting(body), NOW).unwrap();
        let expected = "208f8a55dde9e05519e898b10b89bf0d0b3b0fdf11fdbf09b6b90476301b98d8097c462b2b17a6ce93b6b47a136cf2e78a33a63f6752c2c1631777076153fa89";
        assert_eq!(header(&request, "X-Webhook-Hmac").as_deref(), Some(expected));
        assert_eq!(header(&request, "X-Webhook-Hmac-Algorithm").as_deref(), Some("sha512"));
    }
}

/// The vector that the libraries of Standard Webhooks test themselves with.
#[test]
fn the_published_vector_of_standard_webhooks_is_met() {
    let webhook = signed(EventFormat::Standard, &Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    let id = "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned();
    let message = Message { id, name: "test", body: br#"{"test": 2432232314}"#.to_vec() };
    let request = request(&webhook, &message, Timestamp::from_millis(1_614_265_330_999)).unwrap();
    assert_eq!(header(&request, "webhook-timestamp").as_deref(), Some("1614265330"));
    let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    assert_eq!(header(&request, "webhook-signature").as_deref(), Some(expected));
}

/// The published verifier looks at the clock, so these are signed now.
#[test]
#[expect(clippy::disallowed_methods, reason = "the verifier has no other clock")]
fn the_published_verifier_is_content() {
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    let now = Timestamp::from_millis(0).after(std::time::SystemTime::now().duration_since(epoch).unwrap());
    let (old, new) = (mint([1; 32]), mint([2; 32]));
    let retired = RetiredSecret { secret: old.clone(), until: now.after(std::time::Duration::from_secs(1)) };
    let webhook = Webhook { retired: Some(retired), ..signed(EventFormat::Standard, &new) };
    let message = posting(r#"{"type":"session.status","data":{"payload":{"status":"working"}}}"#);
    let sent = request(&webhook, &message, now).unwrap();
    for secret in [&old, &new] {
        Verifier::new(secret.reveal()).unwrap().verify(&sent.body, &header_map(&sent)).unwrap();
    }
    assert!(Verifier::new(mint([3; 32]).reveal()).unwrap().verify(&sent.body, &header_map(&sent)).is_err());
    assert!(Verifier::new(new.reveal()).unwrap().verify(b"{}", &header_map(&sent)).is_err());
}

#[test]
fn a_retired_secret_signs_until_its_end() {
    let (old, new) = (mint([1; 32]), private_key());
    let count = |until: u64| {
        let retired = RetiredSecret { secret: old.clone(), until: Timestamp::from_millis(until) };
        let webhook = Webhook { retired: Some(retired), ..signed(EventFormat::Standard, &new) };
        let signatures = header(&request(&webhook, &posting("{}"), NOW).unwrap(), "webhook-signature").unwrap();
        signatures.split(' ').map(|one| one.split_once(',').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(count(NOW.as_millis() + 1), ["v1a", "v1"]);
    assert_eq!(count(NOW.as_millis()), ["v1a"]);
}

#[test]
fn a_key_pair_signs_as_rfc_8032_says() {
    let key = Key::parse(private_key().reveal()).unwrap();
    let expected = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
    assert_eq!(key.sign(&[0x72]), format!("v1a,{}", BASE64_STANDARD.encode(bytes(expected))));
    let public = public_key(&private_key()).unwrap();
    assert_eq!(public, format!("whpk_{}", BASE64_STANDARD.encode(bytes(PUBLIC))));

    let message = posting(r#"{"type":"session.deleted"}"#);
    let request = request(&signed(EventFormat::Standard, &private_key()), &message, NOW).unwrap();
    let text = format!("{}.1767225600.{}", message.id, r#"{"type":"session.deleted"}"#);
    let signature = header(&request, "webhook-signature").unwrap();
    let signature = BASE64_STANDARD.decode(signature.strip_prefix("v1a,").unwrap()).unwrap();
    let public = BASE64_STANDARD.decode(public.strip_prefix("whpk_").unwrap()).unwrap();
    UnparsedPublicKey::new(&ED25519, public).verify(text.as_bytes(), &signature).unwrap();
}

#[test]
fn keys_are_of_their_form() {
    let encoded = |prefix: &str, bytes: &[u8]| format!("{prefix}{}", BASE64_STANDARD.encode(bytes));
    let check = |text: &str, expected: Option<KeyError>| assert_eq!(Key::parse(text).err(), expected, "{text}");
    check(mint([7; 32]).reveal(), None);
    check(&encoded("whsec_", &[7; 24]), None);
    check(&encoded("whsec_", &[7; 64]), None);
    check(&encoded("whsec_", &[7; 23]), Some(KeyError::SharedLength(23)));
    check(&encoded("whsec_", &[7; 65]), Some(KeyError::SharedLength(65)));
    check("whsec_", Some(KeyError::SharedLength(0)));
    check("whsec_not base64", Some(KeyError::Base64));
    check("hunter2", Some(KeyError::Prefix));
    check("whpk_AAAA", Some(KeyError::Prefix));
    check(&encoded("whsk_", &[7; 32]), None);
    check(&encoded("whsk_", &[7; 31]), Some(KeyError::Private));
    check(&encoded("whsk_", &[7; 64]), Some(KeyError::Private));
    let (seed, public) = (bytes(SEED), bytes(PUBLIC));
    check(&encoded("whsk_", &[seed, public].concat()), None);
    assert_eq!(public_key(&mint([7; 32])), None);
}

#[test]
fn what_cannot_be_signed_is_not_sent() {
    let unsigned = webhook(spec(EventFormat::Standard, &["*"]));
    assert_eq!(request(&unsigned, &posting("{}"), NOW), Err(RequestError::Unsigned));
    let odd = signed(EventFormat::Standard, &Secret::new("hunter2"));
    assert_eq!(request(&odd, &posting("{}"), NOW), Err(RequestError::Key(KeyError::Prefix)));
}

#[test]
fn evolutions_receivers_get_a_token_that_lives_for_ten_minutes() {
    let headers = [("JWT_key", "sesame"), ("Authorization", "Basic x"), ("X-Mine", "1")];
    let headers = headers.map(|(name, value)| (name.to_owned(), Secret::new(value))).into();
    let webhook = webhook(WebhookSpec { headers, ..spec(EventFormat::Evolution, &["*"]) });
    let request = request(&webhook, &posting("{}"), NOW).unwrap();
    assert_eq!(header(&request, "jwt_key"), None);
    assert_eq!(header(&request, "x-mine").as_deref(), Some("1"));
    assert_eq!(request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("authorization")).count(), 1);
    let token = header(&request, "authorization").unwrap();
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_exp = false;
    let key = DecodingKey::from_secret(b"sesame");
    let claims = decode::<Value>(token.strip_prefix("Bearer ").unwrap(), &key, &validation).unwrap().claims;
    let seconds = NOW.as_millis() / 1000;
    let expected = serde_json::json!({ "iat": seconds, "exp": seconds + 600, "app": "evolution", "action": "webhook" });
    assert_eq!(claims, expected);
}

#[test]
fn an_events_name_can_be_a_step_of_the_path() {
    let check = |url: &str, name: &'static str, expected: &str| {
        let spec = WebhookSpec { path_per_event: true, url: url.to_owned(), ..spec(EventFormat::Evolution, &["*"]) };
        let message = Message { name, ..posting("{}") };
        assert_eq!(request(&webhook(spec), &message, NOW).unwrap().url, expected);
    };
    check("https://h", "connection.update", "https://h/connection-update");
    check("https://h/", "qrcode.updated", "https://h/qrcode-updated");
    check("https://h/hook?x=1", "send.message", "https://h/hook/send-message?x=1");
    check("https://h/hook", "group-participants.update", "https://h/hook/group-participants-update");
}

#[test]
fn requests_have_these_headers() {
    let mut golden = String::new();
    for format in FORMATS {
        let headers = [("X-Mine", "1"), ("Content-Type", "text/plain"), ("webhook-id", "mine"), ("Host", "elsewhere")];
        let headers = headers.map(|(name, value)| (name.to_owned(), Secret::new(value))).into();
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let spec = WebhookSpec { headers, secret: Some(secret), ..spec(format, &["*"]) };
        let request = request(&webhook(spec), &posting("{}"), NOW).unwrap();
        writeln!(golden, "=== {} {}", format.name(), request.url).unwrap();
        for (name, value) in &request.headers {
            writeln!(golden, "{name}: {}", value.reveal()).unwrap();
        }
    }
    expect![[r#"
        === router https://example.com/hook?of=acme
        X-Mine: 1
        user-agent: Portcullis/0.1.0
        content-type: application/json
        x-webhook-request-id: evt_01KDVDNA3R0000000000000007
        x-webhook-timestamp: 1767225600120
        x-webhook-hmac: 93773bc7b17d3d79d723c76412576a2d7a70fd1cd9249881d820b5059d304a898342229e1e17836d1ccb9538ed37c36f009215c67bd241733f7e39525fc22999
        x-webhook-hmac-algorithm: sha512
        === standard https://example.com/hook?of=acme
        X-Mine: 1
        user-agent: Portcullis/0.1.0
        content-type: application/json
        webhook-id: evt_01KDVDNA3R0000000000000007
        webhook-timestamp: 1767225600
        webhook-signature: v1,aXkO27Ea0vJmvvKB6i/adOH69yNmMknr/SgP+wzds0s=
        === wawp https://example.com/hook?of=acme
        X-Mine: 1
        user-agent: Portcullis/0.1.0
        content-type: application/json
        x-webhook-request-id: evt_01KDVDNA3R0000000000000007
        x-webhook-timestamp: 1767225600120
        x-webhook-hmac: 93773bc7b17d3d79d723c76412576a2d7a70fd1cd9249881d820b5059d304a898342229e1e17836d1ccb9538ed37c36f009215c67bd241733f7e39525fc22999
        x-webhook-hmac-algorithm: sha512
        x-wawp-signature: 6cbbcdf2c8016ca85b50543b19e8e121ef16137967bdfa3ce660972922bafaeb
        === evolution https://example.com/hook?of=acme
        X-Mine: 1
        user-agent: Portcullis/0.1.0
        content-type: application/json
        x-webhook-request-id: evt_01KDVDNA3R0000000000000007
        x-webhook-timestamp: 1767225600120
    "#]].assert_eq(&golden);
}
