//! What plugins are asked: the questions, in the words of the core.

use std::sync::Arc;

use portcullis_core::{
    Binding, DecisionId, EventId, Org, PluginVersion, Principal, RateLimits, Session, SessionId, Timestamp,
};

/// Everything that a decision may depend on, besides the operation, the binding's settings and what the plugin reads.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The decision that the calls belong to.
    pub decision: DecisionId,
    /// The only clock that plugins see.
    pub now: Timestamp,
    /// The only randomness that plugins see.
    pub seed: u64,
    /// Set when a deferred operation has come due: since when it has been asked for.
    pub due_since: Option<Timestamp>,
    /// The confirmation that the caller gave, if one was asked.
    pub confirmed: Option<Confirmed>,
    /// Who asks.
    pub principal: Principal,
    /// In whose organisation.
    pub org: Arc<Org>,
    /// The session as it is before the operation; none for a creation.
    pub session: Option<Arc<Session>>,
    /// Whether the answer is only wanted, and nothing will be done.
    pub dry_run: bool,
}

/// A confirmation that a caller gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    /// When.
    pub at: Timestamp,
    /// What the caller typed, if an answer was asked.
    pub answer: Option<String>,
}

/// One place in a chain: a binding and the plugin version that it binds.
#[derive(Debug, Clone)]
pub struct Link {
    /// The place; the fold goes by it.
    pub position: u32,
    /// The binding.
    pub binding: Arc<Binding>,
    /// The version that is asked.
    pub version: Arc<PluginVersion>,
    /// Whether the version is the binding's candidate, and not the one that is bound.
    pub candidate: bool,
    /// Whether it failed too often to be asked: it answers [`PluginFailure::Suspended`](portcullis_core::PluginFailure::Suspended).
    pub suspended: bool,
    /// Whether it is only asked beside another version, to compare the two: what it wants to keep, to follow and to log is dropped.
    pub shadow: bool,
}

impl Link {
    /// A place whose plugin is asked and whose answer counts.
    #[must_use]
    pub fn new(position: u32, binding: Arc<Binding>, version: Arc<PluginVersion>) -> Self {
        Self { position, binding, version, candidate: false, suspended: false, shadow: false }
    }
}

/// Something that happened, for observers; without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Such as `session.status`, or the organisation's own name for it.
    pub name: String,
    /// When.
    pub at: Timestamp,
    /// To which session.
    pub session: Option<SessionId>,
    /// A JSON document. Whoever builds it leaves credentials out; a QR code is one.
    pub json: String,
}

/// What a session has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PaceUsage {
    /// Sends in the last 60 seconds.
    pub sends_last_minute: u64,
    /// Sends since midnight UTC.
    pub sends_today: u64,
    /// Group calls in the last 60 seconds.
    pub group_calls_last_minute: u64,
    /// Group calls since midnight UTC.
    pub group_calls_today: u64,
    /// Number checks in the last 60 seconds.
    pub checks_last_minute: u64,
    /// Number checks since midnight UTC.
    pub checks_today: u64,
}

/// The rate limits that a plugin gave a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// The limits.
    pub limits: RateLimits,
    /// Until when they hold unless something in the context changes.
    pub valid_until: Timestamp,
}
