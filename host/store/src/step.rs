//! What a commit is once it is prepared: checks to make and steps to take, with everything encoded, hashed and sealed.
//!
//! [`crate::prepare`] makes one on its caller's thread; [`crate::apply`] checks and applies it on the writer's.
//! Nothing here holds text: where a step has to find a row by a name, it has the name's keyed hash.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use portcullis_core::{BindingId, EventKind, Line, MessageId, OrgId, PluginId, SessionId, Timestamp, Window};

use crate::commit::{Deed, DeliveryPlace, Expectation, KvQuota, Quota, QuotaKind, TallyChange};
use crate::counters::Counter;
use crate::deliveries::LINE;
use crate::keyfile::Owner;
use crate::keyring::Reserved;
use crate::seal::DataKey;
use crate::tables::Definition;

/// A commit, ready for the writer.
pub(crate) struct Prepared {
    /// Whether only to tell whether it would hold.
    pub(crate) only_checked: bool,
    pub(crate) org: OrgId,
    pub(crate) now: Timestamp,
    pub(crate) expect: Vec<Expectation>,
    pub(crate) quotas: Vec<Quota>,
    pub(crate) limits: Vec<Limit>,
    /// The distinct counters to hit.
    pub(crate) hits: BTreeSet<Counter>,
    /// The living keys with which rows were sealed.
    pub(crate) uses: HashMap<Owner, Arc<DataKey>>,
    /// Keys for owners who are made by this commit.
    pub(crate) reserved: Vec<Reserved>,
    pub(crate) steps: Vec<Step>,
    pub(crate) audit: Vec<SealedEntry>,
    pub(crate) events: Vec<SealedEvent>,
    pub(crate) queued: Vec<Queued>,
    pub(crate) kv: Vec<KvStep>,
    pub(crate) kv_quota: KvQuota,
    pub(crate) tallies: Vec<TallyChange>,
    /// The hash of a fact's id, and what is kept under it.
    pub(crate) fact: Option<([u8; 16], Vec<u8>)>,
    pub(crate) idempotency: Option<Remembered>,
    pub(crate) claim: Option<Taken>,
    pub(crate) reply: Option<SealedReply>,
}

/// A counter's bound.
pub(crate) struct Limit {
    pub(crate) counter: Counter,
    pub(crate) window: Window,
    pub(crate) max: u64,
}

/// One change of rows, sealed.
pub(crate) enum Step {
    /// A row without index or count.
    Put {
        table: Definition,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    /// A row without index or count is taken out.
    Remove {
        table: Definition,
        key: Vec<u8>,
    },
    /// All such rows that begin so.
    RemoveAll {
        table: Definition,
        prefix: Vec<u8>,
    },
    PutSession {
        id: SessionId,
        name: [u8; 16],
        token: Option<[u8; 32]>,
        value: Vec<u8>,
    },
    EraseSession {
        id: SessionId,
    },
    PutKey {
        id: [u8; 16],
        hash: [u8; 32],
        value: Vec<u8>,
    },
    PutPlugin {
        id: PluginId,
        version: u32,
        name: [u8; 16],
        value: Vec<u8>,
    },
    RemovePluginVersion {
        id: PluginId,
        version: u32,
    },
    RemovePlugin {
        id: PluginId,
    },
    /// A row without index that is counted.
    PutCounted {
        table: Definition,
        of: QuotaKind,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    /// Such a row is taken out.
    RemoveCounted {
        table: Definition,
        of: QuotaKind,
        key: Vec<u8>,
    },
    RemoveBinding {
        id: BindingId,
    },
    PutSuspension {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    PutSecret {
        plugin: PluginId,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    PutConfirmation {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    RemoveConfirmation {
        key: Vec<u8>,
    },
    PutErrand {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    RemoveErrand {
        key: Vec<u8>,
    },
    PutWebhook {
        id: [u8; 16],
        session: [u8; 16],
        value: Vec<u8>,
    },
    RemoveWebhook {
        id: [u8; 16],
    },
    PutMessage {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    SetTimer {
        key: Vec<u8>,
        due: Timestamp,
        value: Vec<u8>,
    },
    /// Only if it is set for `due`, where that is given; that it was when the commit came is checked then.
    CancelTimer {
        key: Vec<u8>,
        due: Option<Timestamp>,
    },
    ForgetExpired {
        at_most: usize,
    },
    ForgetDecisions {
        before: Timestamp,
        at_most: usize,
    },
    ForgetEvents {
        through: u64,
        at_most: usize,
    },
    KeepDelivery {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    RemoveDelivery {
        key: Vec<u8>,
    },
    Progress {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    ForgetDeliveries {
        line: Line,
        through: u64,
        at_most: usize,
    },
    EraseOrg,
}

/// An event that has no place yet. Its ordinal is written into its value when it gets one.
pub(crate) struct SealedEvent {
    pub(crate) session: [u8; 16],
    pub(crate) kind: EventKind,
    pub(crate) counts: bool,
    pub(crate) at: Timestamp,
    pub(crate) value: Vec<u8>,
}

/// An entry of the audit that has no number yet.
pub(crate) struct SealedEntry {
    pub(crate) org: OrgId,
    pub(crate) id: [u8; 16],
    pub(crate) envelope: Vec<u8>,
}

/// A delivery that has no place yet.
pub(crate) struct Queued {
    pub(crate) line: [u8; LINE],
    pub(crate) at: DeliveryPlace,
    pub(crate) part: u8,
    pub(crate) value: Vec<u8>,
}

/// What an idempotency key leads to.
pub(crate) struct Remembered {
    pub(crate) hash: [u8; 16],
    pub(crate) at: Timestamp,
    pub(crate) session: SessionId,
    pub(crate) message: MessageId,
}

/// An idempotency key that an operation takes.
pub(crate) struct Taken {
    pub(crate) org: OrgId,
    pub(crate) hash: [u8; 16],
    pub(crate) at: Timestamp,
    pub(crate) digest: [u8; 32],
    pub(crate) deed: Deed,
}

/// The reply to which a key leads.
pub(crate) struct SealedReply {
    pub(crate) org: OrgId,
    pub(crate) hash: [u8; 16],
    pub(crate) digest: [u8; 32],
    /// Org and session whose key has sealed it.
    pub(crate) owner: Vec<u8>,
    pub(crate) envelope: Vec<u8>,
}

/// One access to a plugin's keys.
pub(crate) struct KvStep {
    pub(crate) plugin: PluginId,
    pub(crate) key: Vec<u8>,
    pub(crate) seen: Option<Option<u64>>,
    pub(crate) change: KvEffect,
}

/// What becomes of a plugin's key.
pub(crate) enum KvEffect {
    Keep,
    Put { expires: u64, size: u32, envelope: Vec<u8> },
    Remove,
}

/// The expiry of what does not expire.
pub(crate) const NEVER: u64 = u64::MAX;
