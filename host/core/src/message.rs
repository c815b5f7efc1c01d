//! Outgoing messages that are remembered: those that wait to be sent, and those whose caller may ask again.
//!
//! A message that was asked for with an idempotency key, or without waiting for it, is a row of its own.
//! It is sent at most once: a gateway that ends while a message is [`MessageState::Sending`] cannot know whether it went out, and says so.

use serde::{Deserialize, Serialize};

use crate::confirmation::Given;
use crate::operation::SendText;
use crate::{MessageId, OrgId, Principal, RequestId, SessionId, Timestamp};

/// The code of a message that was being sent when the gateway ended.
pub const INTERRUPTED: &str = "interrupted";

/// An outgoing message and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutgoingMessage {
    /// Its id.
    pub id: MessageId,
    /// Whose it is.
    pub org: OrgId,
    /// The session that sends it.
    pub session: SessionId,
    /// Who asked for it, and on whose behalf it is sent.
    pub asked_by: Principal,
    /// The request that asked.
    pub request: Option<RequestId>,
    /// What is sent.
    pub content: SendText,
    /// What was confirmed when it was asked for, for when it is sent.
    #[serde(default)]
    pub confirmed: Option<Given>,
    /// How far it is.
    pub state: MessageState,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub updated_at: Timestamp,
}

/// How far an outgoing message is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum MessageState {
    /// It waits for its turn.
    Queued,
    /// It is counted and on its way.
    Sending,
    /// WhatsApp has it.
    Sent {
        /// WhatsApp's id of the message.
        message: String,
        /// When.
        at: Timestamp,
    },
    /// It will not be sent, or may have been: see the code.
    Failed {
        /// The stable code of the error.
        code: String,
    },
}

impl MessageState {
    /// Whether nothing more will happen to the message.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Sent { .. } | Self::Failed { .. })
    }

    /// The stable word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Sent { .. } => "sent",
            Self::Failed { .. } => "failed",
        }
    }
}
