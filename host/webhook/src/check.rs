//! What an endpoint can be: whatever passes here can be told and signed.

use portcullis_core::{EventFormat, RetryPolicy, WebhookSpec};

use crate::secret::Key;
use crate::{KeyError, vocabulary};

/// The header whose value the Evolution format signs tokens with, and which is never sent.
pub(crate) const JWT_KEY: &str = "jwt_key";

/// Headers that are the gateway's to send, or that are about one connection only.
const RESERVED: [&str; 13] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// The beginnings of headers by which receivers know a delivery.
const RESERVED_PREFIXES: [&str; 3] = ["webhook-", "x-webhook-", "x-wawp-"];

/// What is wrong with an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Its format tells no such event.
    #[error("there is no event {name:?} in the format {}", .format.name())]
    Event {
        /// The name.
        name: String,
        /// The format.
        format: EventFormat,
    },
    /// Its format has to be signed, and there is nothing to sign with.
    #[error("a webhook of the format standard needs a secret")]
    Unsigned,
    /// Its secret is none of its format's keys.
    #[error("the secret is no key")]
    Secret(#[source] KeyError),
    /// Its format has times of its own for further attempts.
    #[error("a webhook of the format standard has its own times of retry")]
    Retry,
}

impl CheckError {
    /// What is wrong in one sentence, with its reason.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Secret(why) => why.to_string(),
            error => error.to_string(),
        }
    }

    /// The field of the native dialect in which it is.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Event { .. } => "events",
            Self::Unsigned | Self::Secret(_) => "secret",
            Self::Retry => "retryPolicy",
        }
    }
}

/// Whether an endpoint can be told what it wants, and signed for.
///
/// # Errors
/// What is wrong with it.
pub fn check(spec: &WebhookSpec) -> Result<(), CheckError> {
    let known = vocabulary(spec.format);
    if let Some(name) = spec.events.iter().find(|name| *name != "*" && !known.contains(&name.as_str())) {
        return Err(CheckError::Event { name: name.clone(), format: spec.format });
    }
    if spec.format != EventFormat::Standard {
        return Ok(());
    }
    if spec.retry != RetryPolicy::default() {
        return Err(CheckError::Retry);
    }
    // This comes last, because a missing secret can still be made.
    let secret = spec.secret.as_ref().ok_or(CheckError::Unsigned)?;
    Key::parse(secret.reveal()).map(drop).map_err(CheckError::Secret)
}

/// Whether a header is the gateway's to send.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    RESERVED.contains(&name.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a header only promises what is so anyway: that bodies are JSON. Clients of Evolution's say it out of habit.
#[must_use]
pub fn promises_json(name: &str, value: &str) -> bool {
    let kind = value.split(';').next().unwrap_or_default().trim();
    name.eq_ignore_ascii_case("content-type") && kind.eq_ignore_ascii_case("application/json")
}
