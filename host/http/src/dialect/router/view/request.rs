//! Requests of plugins. No secret is shown, and no value of a header.

use portcullis_core::delivery::AttemptOutcome;
use portcullis_core::{BindingId, Delivered, Delivery, DeliveryAttempt, DeliveryState, EventId, SessionId, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use crate::openapi::schema::{Id, Millis};

/// A request of a plugin, and what became of it.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PluginRequest")]
pub(in super::super) struct RequestView<'a> {
    /// What the receiver finds as its `idempotency-key`.
    #[schemars(with = "Id<EventId>")]
    id: EventId,
    #[schemars(with = "Id<BindingId>")]
    binding: BindingId,
    /// The session that it is about, with which it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<SessionId>>")]
    session: Option<SessionId>,
    /// `waiting`, `delivered` or `dead`.
    status: &'static str,
    /// When it is tried next.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    due_at: Option<Timestamp>,
    method: &'a str,
    url: &'a str,
    /// The names of its headers.
    headers: Vec<&'a str>,
    /// The names of headers whose values are secrets.
    secret_headers: Vec<&'a str>,
    #[schemars(with = "Millis")]
    created_at: Timestamp,
    #[schemars(with = "Millis")]
    updated_at: Timestamp,
    /// The latest attempts, oldest first.
    attempts: Vec<RequestAttemptView<'a>>,
}

/// One attempt at a request.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PluginRequestAttempt")]
struct RequestAttemptView<'a> {
    #[schemars(with = "Millis")]
    at: Timestamp,
    /// How long it took, in milliseconds.
    took_ms: u64,
    /// What was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// The beginning of the answer's body; not kept if the request had secrets.
    #[serde(skip_serializing_if = "str::is_empty")]
    body: &'a str,
    /// A stable word for why there was no answer, or no attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> RequestView<'a> {
    /// None if it is no request.
    pub(in super::super) fn of(delivery: &'a Delivery) -> Option<Self> {
        let Delivered::Request(request) = &delivery.record.what else { return None };
        let names = |headers: &'a [(String, String)]| headers.iter().map(|(name, _)| name.as_str()).collect();
        Some(Self {
            id: delivery.id,
            binding: request.binding,
            session: delivery.session,
            status: delivery.state.name(),
            due_at: match delivery.state {
                DeliveryState::Waiting { due } => Some(due),
                DeliveryState::Delivered | DeliveryState::Dead => None,
            },
            method: &request.method,
            url: &request.url,
            headers: names(&request.headers),
            secret_headers: names(&request.secret_headers),
            created_at: delivery.at,
            updated_at: delivery.changed_at,
            attempts: delivery.record.attempts.iter().map(RequestAttemptView::of).collect(),
        })
    }
}

impl<'a> RequestAttemptView<'a> {
    fn of(attempt: &'a DeliveryAttempt) -> Self {
        let (status, body, error) = match &attempt.outcome {
            AttemptOutcome::Answered { status, body } => (Some(*status), body.as_str(), None),
            AttemptOutcome::Failed { error } => (None, "", Some(error.as_str())),
        };
        Self { at: attempt.at, took_ms: attempt.took_ms, status, body, error }
    }
}
