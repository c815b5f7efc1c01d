//! Errands: what a plugin still has to be told, or has asked for, kept until it is done.
//!
//! An errand is written in the commit of what it follows from, and taken out in the commit of what it comes to.
//! So a crash loses none, and none is carried out twice.

use serde::{Deserialize, Serialize};

use crate::{
    BindingId, DecisionId, ErrandId, EventId, Operation, OrgId, PluginId, Principal, Session, SessionId, Timestamp,
};

/// How many plugin requests may lie between an operation and the caller's that led to it.
pub const MAX_DEPTH: u8 = 2;

/// One errand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errand {
    /// Its id; errands of an organisation are run in the order of their ids.
    pub id: ErrandId,
    /// In whose organisation.
    pub org: OrgId,
    /// The binding that is told, or that asked.
    pub binding: BindingId,
    /// Its plugin.
    pub plugin: PluginId,
    /// The session that it is about; it goes with the session.
    pub session: Option<SessionId>,
    /// How many plugin requests lie between a caller's operation and what comes of this.
    pub depth: u8,
    /// When it may be run next.
    pub due: Timestamp,
    /// How often it has failed.
    pub attempts: u32,
    /// What it is.
    pub body: ErrandBody,
}

/// What an errand is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "errand", rename_all = "kebab-case")]
pub enum ErrandBody {
    /// The plugin is to be told of an event.
    Tell {
        /// The event's id.
        event: EventId,
        /// Its name.
        name: String,
        /// When it happened.
        at: Timestamp,
        /// The session to which it happened, also if that is gone since.
        about: Option<SessionId>,
        /// A JSON document without credentials.
        json: String,
    },
    /// The plugin is to be told how an operation ended.
    After(Box<Ended>),
    /// The plugin asked for an operation.
    Request {
        /// The operation.
        operation: Box<Operation>,
    },
}

/// An operation that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The decision that its gates were asked for.
    pub decision: DecisionId,
    /// Who asked for it.
    pub principal: Principal,
    /// What was asked for.
    pub operation: Operation,
    /// If it had been deferred and was due: since when it was wanted.
    pub due_since: Option<Timestamp>,
    /// The session as it was before; none for a creation.
    pub before: Option<Session>,
    /// How it ended.
    pub outcome: Outcome,
}

/// How an operation ended, for observers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was so already.
    Unchanged,
    /// It was put off until then.
    Deferred(Timestamp),
    /// Policy denied it, with this code.
    Denied(String),
    /// The gateway refused it, with this code.
    Refused(String),
}
