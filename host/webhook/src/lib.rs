//! Webhooks: what receivers are told of an event, how it is signed, and when it is told again.
//!
//! ```text
//! event ─ wanted ─▶ parts ─ message ─▶ Message          once for each part that an endpoint wants
//!       Message ─ request ─▶ Request ─▶ the way out     once for each attempt: signatures hold the time
//!       status ─ after_failure ─▶ Again, Dead, Disable
//! ```
//!
//! Whoever delivers keeps the order, the queue and the clock; nothing here has a clock, randomness or IO.
//! Each format is a module with its names and its payloads: [`native`] tells the router's and that of Standard Webhooks,
//! which are two envelopes around the same payloads. A kind of event can have several parts in a format, each under a name of its own.

mod about;
mod check;
pub mod evolution;
pub mod native;
mod request;
mod schedule;
mod secret;
pub mod wawp;

use aws_lc_rs::digest::{SHA256, digest};
use portcullis_core::{Device, DomainEvent, EventFormat, EventId, EventKind, Timestamp, WebhookSpec};
use serde::Serialize;

pub use about::About;
pub use check::{CheckError, check, is_reserved, promises_json};
pub use request::{Request, RequestError, request};
pub use schedule::{
    Failure, HOLD, MAX_WAIT, Next, Timeouts, after_failure, attempts, is_taken, keeps_order, retry_after, timeouts,
};
pub use secret::{KeyError, mint, mint_like, public_key};

/// Everything on which the telling of an event rests.
#[derive(Debug, Clone, Copy)]
pub struct Telling<'a> {
    /// The event.
    pub event: &'a DomainEvent,
    /// The how-manieth event of its session it is, or of its organisation if it has no session; from 1.
    pub seq: u64,
    /// The session; none for events of the organisation, and if nothing is known of it any more.
    pub about: Option<&'a About>,
    /// Where the gateway is reached.
    pub server_url: Option<&'a str>,
    /// What receivers of the formats that name it are told of the engine.
    pub engine: &'static str,
}

impl Telling<'_> {
    /// The device that the session was linked to when it happened. Events that outlive their sessions do not say, and
    /// are told with what is known now.
    fn device(&self) -> Option<&Device> {
        let now = || self.about?.device.as_ref().filter(|_| self.event.body.outlives_session());
        self.event.device.as_ref().or_else(now)
    }
}

/// One message to post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The same over every attempt and restart, and of no other message: receivers know doubles by it.
    pub id: String,
    /// Under which name the body tells it.
    pub name: &'static str,
    /// A JSON document.
    pub body: Vec<u8>,
}

/// The names under which a format tells a kind of event, in order; those to which an endpoint subscribes.
/// Each is a part with a message and a delivery of its own.
#[must_use]
pub fn parts(format: EventFormat, kind: EventKind) -> &'static [&'static str] {
    match format {
        EventFormat::Router => native::router_parts(kind),
        EventFormat::Standard => native::standard_parts(kind),
        EventFormat::Wawp => wawp::parts(kind),
        EventFormat::Evolution => evolution::parts(kind),
    }
}

/// Every name to which an endpoint of the format can subscribe, besides `*` for all.
#[must_use]
pub fn vocabulary(format: EventFormat) -> &'static [&'static str] {
    match format {
        EventFormat::Router => &native::EVENTS,
        EventFormat::Standard => native::standard_names(),
        EventFormat::Wawp => &wawp::EVENTS,
        EventFormat::Evolution => &evolution::EVENTS,
    }
}

/// Which parts of a kind of event an endpoint wants. A test is told to whom it tries, and wanted by nobody.
pub fn wanted(spec: &WebhookSpec, kind: EventKind) -> impl Iterator<Item = u8> {
    let is_wanted = move |name: &str| {
        kind != EventKind::WebhookTest && spec.events.iter().any(|event| event == "*" || event == name)
    };
    (0..).zip(parts(spec.format, kind)).filter(move |(_, name)| is_wanted(name)).map(|(part, _)| part)
}

/// One part of an event in the format of an endpoint; none if the format has nothing to say of this very event.
#[must_use]
pub fn message(spec: &WebhookSpec, part: u8, telling: &Telling<'_>) -> Option<Message> {
    match spec.format {
        EventFormat::Router => native::router(part, telling),
        EventFormat::Standard => native::standard(part, telling),
        EventFormat::Wawp => wawp::message(part, telling),
        EventFormat::Evolution => evolution::message(part, telling, &spec.url),
    }
}

/// The id of one part of an event. The first part has the event's own; others have the same time of birth.
#[must_use]
pub fn message_id(event: EventId, part: u8) -> EventId {
    if part == 0 {
        return event;
    }
    let bytes = event.to_bytes();
    let hash = digest(&SHA256, &[bytes.as_slice(), &[part]].concat());
    let born = bytes[..6].iter().fold(0, |millis, byte| millis << 8 | u64::from(*byte));
    let random = hash.as_ref()[..10].iter().fold(0, |random, byte| random << 8 | u128::from(*byte));
    EventId::new(Timestamp::from_millis(born), random)
}

/// A message of which the body is this document.
fn posted(id: EventId, name: &'static str, body: &impl Serialize) -> Option<Message> {
    let body = serde_json::to_vec(body).ok()?;
    Some(Message { id: id.to_string(), name, body })
}

#[cfg(test)]
mod test;
