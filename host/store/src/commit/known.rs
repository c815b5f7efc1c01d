//! What is known again: facts by their ids, and requests by their idempotency keys.

use portcullis_core::{DecisionId, EventId, MessageId, OrgId, SessionId, Timestamp};

/// A fact that an organisation has told. Its id leads to the event that it became for 30 days; nothing of the fact itself is kept here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactRecord {
    /// The id that the organisation gave it, at most [`FACT_BYTES`] long.
    pub id: String,
    /// Everything that was told, as bytes that are the same for the same fact. Only a keyed hash of them is kept.
    pub content: Vec<u8>,
    /// The event that it became.
    pub event: EventId,
}

/// What is kept of a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownFact {
    /// When it was told.
    pub at: Timestamp,
    /// The event that it became.
    pub event: EventId,
    /// Whether it has the content that was asked about.
    pub same: bool,
}

/// The longest id of a fact, in bytes; whoever takes facts refuses longer ones.
pub const FACT_BYTES: usize = 128;

/// Which message a request with an idempotency key has led to.
/// It holds for 24 hours in the whole organisation. No answer is kept: it is made again from the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// The caller's key, at most [`IDEMPOTENCY_KEY_BYTES`] long.
    pub key: String,
    /// The session that sends the message.
    pub session: SessionId,
    /// The message.
    pub message: MessageId,
    /// When it was asked for.
    pub at: Timestamp,
}

/// An idempotency key that stands for one request from now on, for 24 hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The caller's own organisation, in which the key holds.
    pub org: OrgId,
    /// The key, at most [`IDEMPOTENCY_KEY_BYTES`] long.
    pub key: String,
    /// A digest of the request, by which another one with the same key is known.
    pub digest: [u8; 32],
    /// When it was asked for.
    pub at: Timestamp,
    /// What the commit does, by which the reply can be made again if it is not kept.
    pub deed: Deed,
}

/// What was done, as far as ids say it: enough to find what became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deed {
    /// The session that it was done to, or that it made.
    pub session: Option<SessionId>,
    /// The id of whatever else it made or changed, such as a webhook's.
    pub thing: Option<[u8; 16]>,
    /// The decision that let it happen.
    pub decision: Option<DecisionId>,
    /// Whether it was so already.
    pub was_so: bool,
}

/// The reply to a request that has taken its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptReply {
    /// The caller's own organisation.
    pub org: OrgId,
    /// The key.
    pub key: String,
    /// The digest of the request.
    pub digest: [u8; 32],
    /// The organisation that the reply is about, or one of its sessions; it lies under that one's key.
    pub about: (OrgId, Option<SessionId>),
    /// The reply, which whoever asks again gets byte for byte.
    pub reply: Vec<u8>,
}

/// What is kept of a request with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRequest {
    /// The digest of the request.
    pub digest: [u8; 32],
    /// What it was answered.
    pub reply: KnownReply,
}

/// What is known of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownReply {
    /// This was it.
    Kept(Vec<u8>),
    /// None is kept: the gateway was stopped between the operation and its reply, or the reply could not be kept. This was done.
    Unkept(Deed),
    /// It went with the session that it was about.
    Gone,
}

/// The longest idempotency key, in bytes; whoever takes requests refuses longer ones.
pub const IDEMPOTENCY_KEY_BYTES: usize = 255;
