//! Messages on their way out.

use portcullis_core::{MessageId, MessageState, OutgoingMessage, SessionId, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use crate::openapi::schema::{Id, Millis};

/// What is said of a message that was asked for.
#[derive(Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SentMessage")]
pub(in super::super) struct SentView<'a> {
    mode: SendMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_message_id: Option<&'a str>,
    /// `sent` or `failed`; left out while it is on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    timestamp: Option<Timestamp>,
    /// The stable code of the error that it failed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<MessageId>>")]
    outbox_id: Option<MessageId>,
    /// Whether it was asked for before, under the same `Idempotency-Key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed: Option<bool>,
}

/// Whether the answer waited for WhatsApp.
#[derive(Serialize, JsonSchema, Default)]
#[serde(rename_all = "kebab-case")]
enum SendMode {
    /// It did.
    #[default]
    Sync,
    /// It did not.
    Async,
}

impl<'a> SentView<'a> {
    /// A message that WhatsApp has.
    pub(in super::super) fn sent(message: &'a str, at: Timestamp) -> Self {
        Self { wa_message_id: Some(message), status: Some("sent"), timestamp: Some(at), ..Self::default() }
    }

    /// A message that waits for its turn.
    pub(in super::super) fn queued(message: MessageId) -> Self {
        Self { mode: SendMode::Async, outbox_id: Some(message), ..Self::default() }
    }

    /// A message that was asked for under the same key before.
    pub(in super::super) fn replayed(message: &'a OutgoingMessage) -> Self {
        let view = match &message.state {
            MessageState::Queued | MessageState::Sending => Self::queued(message.id),
            MessageState::Sent { message, at } => Self::sent(message, *at),
            MessageState::Failed { code } => Self { status: Some("failed"), reason: Some(code), ..Self::default() },
        };
        Self { outbox_id: Some(message.id), replayed: Some(true), ..view }
    }
}

/// What became of a message.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Message")]
pub(in super::super) struct MessageView<'a> {
    #[schemars(with = "Id<MessageId>")]
    outbox_id: MessageId,
    #[schemars(with = "Id<SessionId>")]
    session_id: SessionId,
    to: &'a str,
    /// `queued`, `sending`, `sent` or `failed`.
    status: &'static str,
    #[schemars(with = "Millis")]
    created_at: Timestamp,
    #[schemars(with = "Millis")]
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    timestamp: Option<Timestamp>,
    /// The stable code of the error that it failed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> MessageView<'a> {
    pub(in super::super) fn of(message: &'a OutgoingMessage) -> Self {
        let mut view = Self {
            outbox_id: message.id,
            session_id: message.session,
            to: &message.content.to,
            status: message.state.name(),
            created_at: message.created_at,
            updated_at: message.updated_at,
            wa_message_id: None,
            timestamp: None,
            reason: None,
        };
        match &message.state {
            MessageState::Sent { message, at } => {
                view.wa_message_id = Some(message);
                view.timestamp = Some(*at);
            }
            MessageState::Failed { code } => view.reason = Some(code),
            MessageState::Queued | MessageState::Sending => {}
        }
        view
    }
}
