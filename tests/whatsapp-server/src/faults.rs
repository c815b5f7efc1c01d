//! What goes wrong until it is told not to. A new set replaces the one before; none at all is the usual state.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Standing faults. A kind of question is the namespace of its `<iq>`, or that with the tag of its first child:
/// `w:p`, `usync`, `md:remove-companion-device`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// New connections are closed as soon as they are made.
    pub refuse_connects: bool,
    /// New connections are accepted, and then nothing is said on them.
    pub half_open: Option<HalfOpen>,
    /// Milliseconds that everything waits which the server sends.
    pub delay_ms: u64,
    /// Kinds of questions that are neither heeded nor answered.
    pub unanswered: BTreeSet<String>,
    /// Kinds of questions that are answered with an error of that code.
    pub errors: BTreeMap<String, u16>,
    /// Connections of linked devices are dropped after that many nodes of theirs, which are still heeded.
    pub close_after: Option<u32>,
    /// Messages are taken and delivered, and their senders not told so.
    pub withhold_acks: bool,
    /// Messages are refused with that error; 463 is an account's limit.
    pub refuse_messages: Option<u16>,
    /// Logins are refused so.
    pub refuse_logins: Option<Failure>,
    /// Milliseconds from a pairing to its 515, in place of the configured ones.
    pub restart_delay_ms: Option<u64>,
    /// A phone that links a device does not send it the key of its settings.
    pub withhold_key: bool,
    /// Phones read messages, and acknowledge none.
    pub withhold_receipts: bool,
    /// What devices say of messages that they have got is lost on its way.
    pub lose_receipts: bool,
    /// Only these numbers meet the faults of linked devices; empty means all.
    pub only: BTreeSet<u64>,
}

/// How far a connection comes on which nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HalfOpen {
    /// It is accepted, and no more.
    Tcp,
    /// It becomes a WebSocket, and no more.
    Websocket,
}

/// How a login is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// 401 is linked no more, 402 a temporary ban, 403 a locked account, 405 an outdated client, 503 no service.
    pub reason: u16,
    /// Why somebody is banned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// For how many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire: Option<u64>,
}

impl Faults {
    /// Whether the faults of linked devices are meant for this number.
    pub(crate) fn concern(&self, number: u64) -> bool {
        self.only.is_empty() || self.only.contains(&number)
    }
}
