//! What is kept of who did what, and of why policy said what it said.

use serde::{Deserialize, Serialize};

use crate::verdict::Amendment;
use crate::{
    Answer, AuditId, DecisionId, OperationKind, OrgId, PrincipalKind, Receipt, RequestId, SessionId, Timestamp, Unlink,
    Verdict,
};

/// One line of an organisation's audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its id.
    pub id: AuditId,
    /// In whose organisation.
    pub org: OrgId,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: PrincipalKind,
    /// In which request, if a caller asked.
    pub request: Option<RequestId>,
    /// What.
    pub operation: OperationKind,
    /// To which session.
    pub session: Option<SessionId>,
    /// To which other thing, by its id.
    pub subject: Option<String>,
    /// With what end.
    pub outcome: AuditOutcome,
    /// The decision that led to it, if policy was asked.
    pub decision: Option<DecisionId>,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum AuditOutcome {
    /// It was done.
    Done,
    /// It was begun; another line says how it ended, unless the gateway did not live to see that.
    Begun,
    /// It was so already.
    Unchanged,
    /// It was put off.
    Deferred {
        /// Until when.
        until: Timestamp,
    },
    /// Policy denied it.
    Vetoed {
        /// The first denial's code.
        code: String,
    },
    /// The lifecycle, a quota or a limit refused it.
    Refused {
        /// The refusal's code.
        code: String,
    },
    /// The caller was not allowed to ask.
    Denied {
        /// The denial's code.
        code: String,
    },
    /// A logout reached its end.
    Unlinked {
        /// Whether WhatsApp has heard of it.
        unlink: Unlink,
    },
    /// A deletion reached its end.
    Erased {
        /// What is kept of it.
        receipt: Box<Receipt>,
        /// An ed25519 signature of [`Receipt::signed_text`], in base64.
        signature: String,
    },
    /// A restore has left it out, because its key is destroyed: it was erased after the backup was made.
    LeftOut {
        /// Of when the backup is.
        backup_at: Timestamp,
    },
}

impl AuditOutcome {
    /// The stable word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Begun => "begun",
            Self::Unchanged => "unchanged",
            Self::Deferred { .. } => "deferred",
            Self::Vetoed { .. } => "vetoed",
            Self::Refused { .. } => "refused",
            Self::Denied { .. } => "denied",
            Self::Unlinked { .. } => "unlinked",
            Self::Erased { .. } => "erased",
            Self::LeftOut { .. } => "left-out",
        }
    }
}

/// Everything that is kept of one run of the policy chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Its id; the caller gets it with every answer that policy shaped.
    pub id: DecisionId,
    /// In whose organisation.
    pub org: OrgId,
    /// About which session.
    pub session: Option<SessionId>,
    /// When the chain was asked; the `now` that every plugin saw.
    pub at: Timestamp,
    /// The random seed that every plugin saw.
    pub seed: u64,
    /// Who asked.
    pub actor: PrincipalKind,
    /// What was asked.
    pub operation: OperationKind,
    /// Whether a grace period had ended.
    pub due_since: Option<Timestamp>,
    /// What the plugins saw of operation, session and organisation: a JSON document without credentials.
    /// `None` if it was larger than the record may be, and after the session was erased.
    pub input: Option<String>,
    /// Every plugin's answer, in the order of the chain.
    pub answers: Vec<Answer>,
    /// The round before, if plugins amended the operation: input, answers and verdict are then about what it became.
    #[serde(default)]
    pub first_round: Option<FirstRound>,
    /// What the answers fold to.
    pub verdict: Verdict,
    /// What kept the operation from being done although the verdict lets it through.
    #[serde(default)]
    pub stopped: Option<Stop>,
}

/// What was asked about an operation as its asker wanted it, before plugins amended it and every plugin was asked again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstRound {
    /// What the plugins saw; `None` if it was larger than the record may be.
    pub input: Option<String>,
    /// Every plugin's answer, in the order of the chain.
    pub answers: Vec<Answer>,
    /// The patches that were applied, in the order of the chain, each with the name of its plugin.
    pub patches: Vec<Amendment>,
}

/// What can stop an operation that policy lets through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Stop {
    /// A counter was full.
    Limited {
        /// The plugin that bound the operation to it; none for the session's own rate policy.
        plugin: Option<String>,
        /// After how many milliseconds there is room.
        retry_millis: u64,
    },
    /// The lifecycle, a quota or the gateway itself refused it.
    Refused {
        /// The refusal's code.
        code: String,
    },
}

impl Stop {
    /// The stable word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Limited { .. } => "limited",
            Self::Refused { .. } => "refused",
        }
    }
}

impl DecisionRecord {
    /// The stable word for how it ended: the verdict's, unless something else stopped the operation.
    #[must_use]
    pub fn ending(&self) -> &'static str {
        self.stopped.as_ref().map_or_else(|| self.verdict.name(), Stop::name)
    }
}
