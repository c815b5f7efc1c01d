//! The page behind a temporary link: a person without an account sees the rotating QR code of one session until it is linked.
//!
//! ```text
//! GET /temp-qr/{token}          html, or dead_html with 404      both with headers
//! GET /temp-qr/{token}/events   server-sent events               PageEvent::sse, until one that is_last
//! ```
//!
//! The page is the same for everybody: what it shows comes with the events, and it knows neither token nor key.
//! It finds its events at its own address, and asks nothing else of anybody.
//! A stream that is refused is answered by loading the page again, so that a dead link explains itself in one place.

use portcullis_core::Timestamp;
use serde_json::{Value, json};

// The parts of the page. They hold no text of anybody else, so that putting them together needs no escaping.
const HTML: &str = include_str!("page.html");
const DEAD: &str = include_str!("dead.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Something that the page is told. It may hold a credential, so it is not `Debug`.
pub(crate) enum PageEvent {
    /// Linking has begun and there is no code yet.
    Waiting,
    /// A QR code to scan.
    Qr {
        /// A picture of it, as a `data:` URL.
        image: String,
        /// When the next one replaces it.
        expires_at: Timestamp,
        /// The gateway's time. The page counts down from the difference, because its own clock may be wrong.
        now: Timestamp,
    },
    /// A code to type on the phone.
    Code {
        /// The code as people read it, `ABCD-1234`.
        code: String,
    },
    /// WhatsApp asks for a passkey on the phone.
    Passkey,
    /// The session is linked.
    Linked {
        /// What the account calls itself, if it is known.
        name: Option<String>,
    },
    /// Nothing more will come.
    Dead {
        /// Why.
        reason: DeadReason,
    },
}

/// Why a link shows nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeadReason {
    /// Its time is over.
    Expired,
    /// It was withdrawn, or replaced by another one.
    Revoked,
    /// There is no such link, or no such session any more.
    Gone,
    /// Nobody linked the session in time, or WhatsApp refused.
    Failed,
}

impl PageEvent {
    /// The bytes of one server-sent event.
    pub(crate) fn sse(&self) -> String {
        let (name, data) = match self {
            Self::Waiting => ("waiting", json!({})),
            Self::Qr { image, expires_at, now } => {
                ("qr", json!({ "image": image, "expiresAt": expires_at, "now": now }))
            }
            Self::Code { code } => ("code", json!({ "code": code })),
            Self::Passkey => ("passkey", json!({})),
            Self::Linked { name: None } => ("linked", json!({})),
            Self::Linked { name: Some(name) } => ("linked", json!({ "name": name })),
            Self::Dead { reason } => ("dead", reason.to_json()),
        };
        // JSON has its line breaks escaped, so the data is one line whatever a name holds.
        format!("event: {name}\ndata: {data}\n\n")
    }

    /// Whether the stream ends with this event.
    pub(crate) fn is_last(&self) -> bool {
        matches!(self, Self::Linked { .. } | Self::Dead { .. })
    }
}

impl DeadReason {
    /// The word for it on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Gone => "gone",
            Self::Failed => "failed",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Expired => "This link has expired",
            Self::Revoked => "This link was withdrawn",
            Self::Gone => "This link does not work",
            Self::Failed => "Linking did not succeed",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Expired => "Links work for a short time only. Ask whoever sent it for a new one.",
            Self::Revoked => "It was replaced or taken back. Ask whoever sent it for a new one.",
            Self::Gone => "It may be incomplete, used already, or too old. Ask whoever sent it for a new one.",
            Self::Failed => {
                "No phone was linked in time, or WhatsApp refused it. Ask whoever sent the link to start again."
            }
        }
    }

    /// The page shows the words that it is sent, so that they are written down once.
    fn to_json(self) -> Value {
        json!({ "reason": self.name(), "title": self.title(), "text": self.text() })
    }
}

/// The page. `nonce` is new for every answer, and the one that its [`headers`] name.
pub(crate) fn html(nonce: &str) -> String {
    HTML.replace("{{style}}", STYLE).replace("{{script}}", SCRIPT).replace("{{nonce}}", nonce)
}

/// The page of a link that shows nothing any more, to be sent with 404. It has no script.
pub(crate) fn dead_html(nonce: &str, reason: DeadReason) -> String {
    DEAD.replace("{{style}}", STYLE)
        .replace("{{title}}", reason.title())
        .replace("{{text}}", reason.text())
        .replace("{{nonce}}", nonce)
}

/// What the page may do: run its own script and style, show pictures it was sent, and ask its own server.
pub(crate) fn csp(nonce: &str) -> String {
    format!(
        "default-src 'none'; img-src data:; connect-src 'self'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// The headers of either page. Its address is a credential: it is neither kept, nor sent on, nor indexed.
pub(crate) fn headers(nonce: &str) -> [(&'static str, String); 6] {
    [
        ("content-type", "text/html; charset=utf-8".to_owned()),
        ("content-security-policy", csp(nonce)),
        ("referrer-policy", "no-referrer".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
        ("cache-control", "no-store".to_owned()),
        ("x-robots-tag", "noindex".to_owned()),
    ]
}

#[cfg(test)]
mod test;
