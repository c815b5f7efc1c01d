//! What is to become so, as one value: everything that a commit checks and everything that it changes.
//!
//! `service` reads a [`crate::Snapshot`], decides, and hands over one [`Commit`].
//! Its checks and its changes are one step: either all of it is durable when [`crate::Store::commit`] answers, or nothing of it is there.

mod known;

use std::fmt;
use std::sync::Arc;

use portcullis_core::{
    ApiKey, AuditEntry, Binding, BindingId, Confirmation, DecisionRecord, Delivery, DeliveryKey, DomainEvent, Errand,
    ErrandId, KvAccess, LimitCheck, Line, MessageId, MessageState, OperationKind, Org, OrgId, OutboxPlace,
    OutgoingMessage, PluginId, PluginVersion, Publisher, PublisherId, Quotas, Secret, Session, SessionId, Suspension,
    Timestamp, Webhook, WebhookId,
};
use serde::{Deserialize, Serialize};

pub use known::{
    Claim, Deed, FACT_BYTES, FactRecord, IDEMPOTENCY_KEY_BYTES, IdempotencyRecord, KeptReply, KnownFact, KnownReply,
    KnownRequest,
};

/// One step of an organisation's history.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Whose step it is; every row in it is this organisation's.
    /// Only audit entries may also be the platform's, [`OrgId::PLATFORM`].
    pub org: OrgId,
    /// When it is taken.
    pub now: Timestamp,
    /// What it rests on.
    pub expect: Vec<Expectation>,
    /// Counters that must not be full. All are checked together, then each distinct counter is hit once, at `now`.
    pub limits: Vec<LimitCheck>,
    /// Kinds of rows of which the organisation must have fewer than so many before this commit.
    pub quotas: Vec<Quota>,
    /// Rows to write and remove, in this order.
    pub writes: Vec<Write>,
    /// Entries of the audit.
    pub audit: Vec<AuditEntry>,
    /// The policy decision that led here.
    pub decision: Option<DecisionRecord>,
    /// Events for the outbox, in this order.
    pub events: Vec<DomainEvent>,
    /// Timers of plugins to set and take back.
    pub timers: Vec<TimerChange>,
    /// What is to be delivered, and how that went.
    pub deliveries: Vec<DeliveryChange>,
    /// What plugins are to be told or have asked for, and what of that is done.
    pub errands: Vec<ErrandChange>,
    /// What plugins read and change of their keys. What they saw joins the expectations.
    pub kv: Vec<KvAccess>,
    /// How much each plugin may keep after this commit, if it changes anything of it.
    pub kv_quota: KvQuota,
    /// How candidates have answered beside what is bound.
    pub tallies: Vec<TallyChange>,
    /// A fact that the organisation tells with this commit. It must not have told one under the same id within the last 30 days.
    pub fact: Option<FactRecord>,
    /// The message to which the request's idempotency key leads from now on. The key must not be in use.
    pub idempotency: Option<IdempotencyRecord>,
    /// The idempotency key of the request that asks for something else than a message. It must not be in use.
    pub claim: Option<Claim>,
    /// What the request with such a key was answered.
    pub reply: Option<KeptReply>,
    /// The kind of operation that is done with this commit, for usage windows.
    pub done: Option<OperationKind>,
}

impl Commit {
    /// A commit that checks and changes nothing yet.
    #[must_use]
    pub fn new(org: OrgId, now: Timestamp) -> Self {
        Self {
            org,
            now,
            expect: Vec::new(),
            limits: Vec::new(),
            quotas: Vec::new(),
            writes: Vec::new(),
            audit: Vec::new(),
            decision: None,
            events: Vec::new(),
            timers: Vec::new(),
            deliveries: Vec::new(),
            errands: Vec::new(),
            kv: Vec::new(),
            kv_quota: KvQuota::default(),
            tallies: Vec::new(),
            fact: None,
            idempotency: None,
            claim: None,
            reply: None,
            done: None,
        }
    }
}

/// Something that must still be so. `None` for a generation means that the row must not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// The session is at this generation.
    Session(SessionId, Option<u64>),
    /// The organisation is at this generation.
    Org(Option<u64>),
    /// The binding is at this generation.
    Binding(BindingId, Option<u64>),
    /// The webhook is at this generation.
    Webhook(WebhookId, Option<u64>),
    /// The message is in this phase, so that of two who would take it on one does.
    Message {
        /// The session that sends it.
        session: SessionId,
        /// The message.
        id: MessageId,
        /// Where it must be; `None` means that it must not exist.
        state: Option<MessagePhase>,
    },
    /// The errand is there, so that it is carried out once.
    Errand(ErrandId),
    /// The confirmation with this SHA-256 of its token is there, so that it is given once.
    Confirmation([u8; 32]),
}

/// How far a remembered message is, without what goes with it: [`MessageState`] in one byte of a row's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessagePhase {
    /// It waits for its turn.
    Queued = 0,
    /// It is on its way.
    Sending = 1,
    /// WhatsApp has it.
    Sent = 2,
    /// It failed.
    Failed = 3,
}

impl MessagePhase {
    /// Whether something is still to happen to the message.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Sending)
    }

    pub(crate) fn parse(byte: u8) -> Option<Self> {
        [Self::Queued, Self::Sending, Self::Sent, Self::Failed].into_iter().find(|phase| *phase as u8 == byte)
    }
}

impl From<&MessageState> for MessagePhase {
    fn from(state: &MessageState) -> Self {
        match state {
            MessageState::Queued => Self::Queued,
            MessageState::Sending => Self::Sending,
            MessageState::Sent { .. } => Self::Sent,
            MessageState::Failed { .. } => Self::Failed,
        }
    }
}

/// A bound on how many rows of a kind an organisation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The kind.
    pub of: QuotaKind,
    /// There must be fewer than this, before the commit's own writes.
    pub max: u32,
}

/// How much one plugin may keep in an organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvQuota {
    /// Keys.
    pub keys: u32,
    /// Bytes of keys and values together.
    pub bytes: u64,
}

impl From<&Quotas> for KvQuota {
    fn from(quotas: &Quotas) -> Self {
        Self { keys: quotas.kv_keys, bytes: quotas.kv_bytes.into() }
    }
}

impl Default for KvQuota {
    /// That of an organisation for which nobody said otherwise.
    fn default() -> Self {
        Self::from(&Quotas::default())
    }
}

/// The kinds of rows that are counted for quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaKind {
    /// Sessions, pending deletes included.
    Sessions,
    /// API keys, revoked ones included.
    Keys,
    /// Plugins, however many versions they have.
    Plugins,
    /// Bindings.
    Bindings,
    /// Webhooks, those of single sessions included.
    Webhooks,
    /// Messages that are queued or being sent.
    QueuedMessages,
    /// Errands.
    Errands,
    /// Confirmations that can still be given.
    Confirmations,
    /// Publishers.
    Publishers,
}

impl QuotaKind {
    /// Every kind, in the order of the counts table.
    pub const ALL: [QuotaKind; 9] = [
        Self::Sessions,
        Self::Keys,
        Self::Plugins,
        Self::Bindings,
        Self::Webhooks,
        Self::QueuedMessages,
        Self::Errands,
        Self::Confirmations,
        Self::Publishers,
    ];
}

impl fmt::Display for QuotaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sessions => "sessions",
            Self::Keys => "keys",
            Self::Plugins => "plugins",
            Self::Bindings => "bindings",
            Self::Webhooks => "webhooks",
            Self::QueuedMessages => "queued messages",
            Self::Errands => "errands",
            Self::Confirmations => "open confirmations",
            Self::Publishers => "publishers",
        })
    }
}

/// One change of rows.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "most writes are of sessions, so a box would cost more often than it saves"
)]
pub enum Write {
    /// Make or replace the organisation itself.
    PutOrg(Org),
    /// Make or replace a session. Its instance name must be free in the organisation, and its token in the whole gateway.
    PutSession(Session),
    /// Remove a session and every row of it, its webhooks and messages among them, and doom its key.
    /// Of its events those stay that say nothing personal ([`portcullis_core::EventBody::outlives_session`]) and those of
    /// this same commit; of its decisions the skeletons.
    EraseSession(SessionId),
    /// Forget the credentials of the device that a session was linked to.
    ForgetDevice(SessionId),
    /// Make or replace an API key.
    PutKey(ApiKey),
    /// Add a version of a plugin, or change what is kept of one; a version that exists with another component is a conflict.
    PutPlugin(PluginVersion),
    /// Keep a component.
    PutComponent {
        /// SHA-256 of it.
        digest: [u8; 32],
        /// The component.
        bytes: Vec<u8>,
    },
    /// Remove all versions of a plugin, its keys, timers, errands, counters and secrets, and the components that no other plugin here uses.
    /// Of a plugin of the platform, keys, timers, errands and counters go in every organisation.
    RemovePlugin(PluginId),
    /// Remove one version of a plugin that has others, and its component if no other version here uses it.
    RemovePluginVersion {
        /// The plugin.
        plugin: PluginId,
        /// The version.
        version: u32,
    },
    /// Make or replace a binding.
    PutBinding(Binding),
    /// Remove a binding with its timers, errands, suspension and tallies; of a binding of the platform, those in every organisation.
    RemoveBinding(BindingId),
    /// Ask the bound version of a binding, or its candidate, no longer. Suspensions of bindings that have changed or gone since they were suspended go with it.
    PutSuspension(Suspension),
    /// Ask a binding's version and candidate again.
    RemoveSuspensions(BindingId),
    /// Make or replace a secret of a plugin of this organisation; at most [`crate::SECRETS_MAX`] for each plugin.
    PutSecret {
        /// The plugin, which must be there.
        plugin: PluginId,
        /// Its name.
        name: String,
        /// The secret.
        value: Secret,
    },
    /// Remove a secret.
    RemoveSecret {
        /// The plugin.
        plugin: PluginId,
        /// Its name.
        name: String,
    },
    /// Make or replace a publisher.
    PutPublisher(Publisher),
    /// Remove a publisher.
    RemovePublisher(PublisherId),
    /// Keep what a caller was asked, until it ends. With it, a few go that have ended.
    PutConfirmation(Confirmation),
    /// Forget what a caller was asked, by the SHA-256 of its token.
    RemoveConfirmation([u8; 32]),
    /// Make or replace a webhook. It may move to another session, or to none.
    PutWebhook(Webhook),
    /// Remove a webhook.
    RemoveWebhook(WebhookId),
    /// Remember a message, or how far it has come. Once nothing more will happen to it, it stays for 24 hours.
    PutMessage(OutgoingMessage),
    /// Forget the oldest decisions of the organisation.
    ForgetDecisions {
        /// Those that were made before then.
        before: Timestamp,
        /// So many of them and no more; each is opened on the writer's thread.
        at_most: usize,
    },
    /// Take the oldest events of the organisation out of its outbox, up to and including this place.
    ForgetEvents {
        /// The last place that is no longer needed.
        through: OutboxPlace,
        /// So many of them and no more.
        at_most: usize,
    },
    /// Forget the oldest deliveries of a line, those that wait among them, up to and including this place.
    ForgetDeliveries {
        /// The line.
        line: Line,
        /// The last place that is no longer needed.
        through: OutboxPlace,
        /// So many of them and no more.
        at_most: usize,
    },
    /// Forget the oldest of what counts no longer: idempotency keys with their replies, ids of facts, messages to which nothing more
    /// happens, and confirmations that have ended.
    ForgetExpired {
        /// So many of each and no more.
        at_most: usize,
    },
    /// The audit says from now on how a change of the master key was ended that was cut short.
    RotationIsTold,
    /// Remove the organisation with everything it owns, and doom its key and those of its sessions.
    /// What else the commit writes for the organisation is not kept.
    EraseOrg,
}

/// A change of deliveries, or of how far a webhook has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryChange {
    /// Put a new delivery into a line.
    Queue {
        /// The line.
        line: Line,
        /// At which place.
        at: DeliveryPlace,
        /// Which part of the event.
        part: u8,
        /// The delivery.
        delivery: Arc<Delivery>,
    },
    /// Keep a delivery as it is now. One about a session that is gone goes instead.
    Keep(DeliveryKey, Arc<Delivery>),
    /// There is nothing more to be remembered.
    Remove(DeliveryKey),
    /// A webhook has come this far; what is said of one that is gone counts nowhere.
    Progress {
        /// The webhook.
        webhook: WebhookId,
        /// How far.
        progress: Progress,
    },
}

/// Where a new delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryPlace {
    /// At the place of the commit's event with this index.
    Event(usize),
    /// At a place of its own, behind everything.
    Next,
}

/// How far a webhook has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Everything up to here is delivered or remembered, or is not for it.
    pub through: OutboxPlace,
    /// Since when its receiver has taken nothing that it was given.
    pub failing_since: Option<Timestamp>,
}

/// A change of a plugin's timers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimerChange {
    /// Set a timer, or move the one with the same plugin and key.
    Set(PluginTimer),
    /// Take a timer back, if there is one.
    Cancel {
        /// The plugin.
        plugin: PluginId,
        /// The timer's key.
        key: String,
    },
    /// Take a timer out that has fired. The commit is a conflict if it is not set for that time any more; and what the same
    /// commit sets under its key stays.
    Fired {
        /// The plugin.
        plugin: PluginId,
        /// The timer's key.
        key: String,
        /// For when it was set when it fired.
        at: Timestamp,
    },
}

/// A durable timer of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginTimer {
    /// In whose organisation.
    pub org: OrgId,
    /// The plugin.
    pub plugin: PluginId,
    /// The binding under which it was set.
    pub binding: BindingId,
    /// Its key, unique within plugin and organisation.
    pub key: String,
    /// When it fires.
    pub at: Timestamp,
    /// What it hands back.
    pub payload: String,
    /// The session it is about; the timer goes with it.
    pub session: Option<SessionId>,
    /// How often its plugin has failed at it.
    pub attempts: u32,
}

/// A change of errands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "most changes put one, so a box would cost more often than it saves")]
pub enum ErrandChange {
    /// Keep an errand, or put it off. One about a session that this commit erases goes with the session.
    Put(Errand),
    /// It is done, or never will be.
    Remove(ErrandId),
}

/// How a candidate answered once, beside the version that is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TallyChange {
    /// The binding; what is said of one that is gone counts nowhere.
    pub binding: BindingId,
    /// The candidate's version.
    pub candidate_version: u32,
    /// Whether it answered differently.
    pub diverged: bool,
}

/// A commit that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The place of the commit's last event, if it had any.
    pub last_event: Option<OutboxPlace>,
}

/// An erasure that reached its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erased {
    /// In whose organisation.
    pub org: OrgId,
    /// The session; `None` if it was the organisation itself.
    pub session: Option<SessionId>,
    /// When the deletion was asked for.
    pub since: Timestamp,
    /// SHA-256 over the overwritten key slot, in hexadecimal.
    pub slot_digest: String,
}
