//! Deliveries: what is told to a receiver outside, and how that went.
//!
//! What a receiver has not been told yet needs no row: it is read from its organisation's events, from where the receiver has come to.
//! A row is made when something is to be remembered: that an event was taken, that it is to be tried again, that it was given up.
//! Farewells and requests of plugins are rows from the beginning, because they hold what is told nowhere else.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::session::Names;
use crate::{BindingId, DeliveryId, EventId, PluginId, SessionId, Timestamp, Webhook, WebhookId};

/// The most attempts of one delivery that are remembered, the latest of them.
pub const ATTEMPTS_KEPT: usize = 32;
/// The most bytes of a receiver's answer that are remembered.
pub const ANSWER_KEPT: usize = 1024;

/// A place in an organisation's outbox. Places grow in the order of commits, which the ids of events need not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OutboxPlace(pub u64);

impl fmt::Display for OutboxPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who stands in one line: all that is delivered to one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// What a webhook is told.
    Webhook(WebhookId),
    /// What a plugin sends.
    Plugin(PluginId),
}

/// Which delivery of an organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryKey {
    /// In whose line it stands.
    pub line: Line,
    /// The place of what is delivered.
    pub place: OutboxPlace,
    /// Which of the messages that the receiver's format makes of one event.
    pub part: u8,
}

impl DeliveryKey {
    /// The id by which callers know it. It is unique within its line only, and counts nothing but an organisation's own events.
    #[must_use]
    pub fn within_line(self) -> DeliveryId {
        DeliveryId::from_bytes((u128::from(self.place.0) << 8 | u128::from(self.part)).to_be_bytes())
    }

    /// The delivery of a line with this id; none if no delivery can have it.
    #[must_use]
    pub fn of(line: Line, id: DeliveryId) -> Option<Self> {
        let number = u128::from_be_bytes(id.to_bytes());
        let place = OutboxPlace(u64::try_from(number >> 8).ok()?);
        let part = u8::try_from(number & 0xFF).ok()?;
        Some(Self { line, place, part })
    }
}

/// A delivery that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The id of the event, or the request's own.
    pub id: EventId,
    /// The session that it is about.
    pub session: Option<SessionId>,
    /// How far it is.
    pub state: DeliveryState,
    /// When what is delivered came about.
    pub at: Timestamp,
    /// When the delivery last changed.
    pub changed_at: Timestamp,
    /// What is delivered, and how that went.
    pub record: DeliveryRecord,
}

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// It will be tried.
    Waiting {
        /// When.
        due: Timestamp,
    },
    /// The receiver has taken it.
    Delivered,
    /// It was given up. It is kept to be looked at and tried again.
    Dead,
}

impl DeliveryState {
    /// The stable word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

/// What is delivered, and how that went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRecord {
    /// What is delivered.
    pub what: Delivered,
    /// How often it has failed in this round of tries; replaying it begins another.
    pub failures: u32,
    /// Whether its session waits for it while it waits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_held: bool,
    /// The latest attempts, oldest first.
    pub attempts: Vec<Attempt>,
}

impl DeliveryRecord {
    /// What has not been tried yet.
    #[must_use]
    pub fn new(what: Delivered) -> Self {
        Self { what, failures: 0, is_held: false, attempts: Vec::new() }
    }

    /// Remembers an attempt that has failed.
    pub fn fail(&mut self, attempt: Attempt) {
        self.failures = self.failures.saturating_add(1);
        self.push(attempt);
    }

    /// Remembers an attempt, and forgets the oldest if there are too many.
    pub fn push(&mut self, attempt: Attempt) {
        if self.attempts.len() >= ATTEMPTS_KEPT {
            self.attempts.remove(0);
        }
        self.attempts.push(attempt);
    }
}

/// What is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivered {
    /// The event at the delivery's place, to the webhook as it is then.
    Event,
    /// The event at the delivery's place, about a session that will be gone, to a webhook that may be gone with it.
    /// Once it is told, nothing is kept of what the telling needed.
    Farewell(Option<Box<Farewell>>),
    /// A request of a plugin.
    Request(Box<PluginRequest>),
}

/// What the news of a session's end needs besides the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {
    /// The receiver.
    pub webhook: Webhook,
    /// What the session was called.
    pub names: Names,
}

/// A request that a plugin has sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRequest {
    /// The binding for which it was sent.
    pub binding: BindingId,
    /// The method, such as `POST`.
    pub method: String,
    /// An absolute address.
    pub url: String,
    /// Headers, in order.
    pub headers: Vec<(String, String)>,
    /// Headers whose values are secrets of the plugin, by the names of the secrets.
    pub secret_headers: Vec<(String, String)>,
    /// The body.
    #[serde(with = "body")]
    pub body: Vec<u8>,
}

impl PluginRequest {
    /// Forgets what only the sending needed.
    pub fn forget_contents(&mut self) {
        self.headers.iter_mut().for_each(|(_, value)| value.clear());
        self.body.clear();
    }
}

/// One attempt to deliver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: AttemptOutcome,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AttemptOutcome {
    /// There was an answer.
    Answered {
        /// Its status.
        status: u16,
        /// The beginning of its body, as text.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        body: String,
    },
    /// There was none.
    Failed {
        /// A stable word for why.
        error: String,
    },
}

impl AttemptOutcome {
    /// Whether the receiver has taken what was delivered.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Answered { status: 200..=299, .. })
    }
}

/// Bytes as text where they are text, which they mostly are.
mod body {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Body {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        match str::from_utf8(bytes) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Body::Bytes(bytes.to_vec()).serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Ok(match Body::deserialize(deserializer)? {
            Body::Text(text) => text.into_bytes(),
            Body::Bytes(bytes) => bytes,
        })
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn attempt(at: u64, outcome: AttemptOutcome) -> Attempt {
        Attempt { at: Timestamp::from_millis(at), took_ms: 3, outcome }
    }

    #[test]
    fn what_is_kept_of_a_delivery_reads_back_as_it_was() {
        let answered = AttemptOutcome::Answered { status: 503, body: "later".into() };
        let failed = AttemptOutcome::Failed { error: "connect_timeout".into() };
        let request = PluginRequest {
            binding: BindingId::from_bytes([1; 16]),
            method: "POST".into(),
            url: "https://example.org/".into(),
            headers: vec![("a".into(), "b".into())],
            secret_headers: Vec::new(),
            body: vec![0xff, 0],
        };
        for what in [Delivered::Event, Delivered::Request(Box::new(request))] {
            let record = DeliveryRecord {
                what,
                is_held: true,
                failures: 2,
                attempts: vec![attempt(1, answered.clone()), attempt(2, failed.clone())],
            };
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<DeliveryRecord>(&text).unwrap(), record, "{text}");
        }
    }

    #[test]
    fn a_delivery_is_found_again_by_its_id() {
        let line = Line::Webhook(WebhookId::from_bytes([1; 16]));
        for (place, part) in [(1, 0), (300, 255), (u64::MAX, 7)] {
            let of = DeliveryKey { line, place: OutboxPlace(place), part };
            let text = of.within_line().to_string();
            assert_eq!(DeliveryKey::of(line, text.parse().unwrap()), Some(of), "{text}");
        }
        assert_eq!(DeliveryKey::of(line, DeliveryId::from_bytes([0x70; 16])), None);
    }

    #[test]
    fn only_the_latest_attempts_are_remembered() {
        let mut record = DeliveryRecord::new(Delivered::Event);
        for at in 0..100 {
            record.push(attempt(at, AttemptOutcome::Answered { status: 500, body: String::new() }));
        }
        assert_eq!(record.attempts.len(), ATTEMPTS_KEPT);
        assert_eq!(record.attempts.last().unwrap().at, Timestamp::from_millis(99));
    }

    #[test]
    fn only_statuses_of_success_are_taken() {
        let taken = |status| AttemptOutcome::Answered { status, body: String::new() }.is_taken();
        assert!(taken(200) && taken(299) && !taken(199) && !taken(300) && !taken(410));
        assert!(!AttemptOutcome::Failed { error: String::new() }.is_taken());
    }
}
