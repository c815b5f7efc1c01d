//! Ways to be told of events.

use std::collections::BTreeMap;

use portcullis_core::delivery::AttemptOutcome;
use portcullis_core::webhook::RetryGrowth;
use portcullis_core::{
    DeliveryAttempt, DeliveryId, DeliveryKey, DeliveryState, EventFormat, EventId, Line, OrgId, Secret, SessionId,
    Timestamp, Webhook, WebhookId,
};
use portcullis_service::{DeliveryRow, Redelivered, WebhookHealth};
use schemars::JsonSchema;
use serde::Serialize;

use crate::openapi::schema::{DeliveryStateOf, Id, Millis, WebhookStateOf};

/// A webhook. Secrets are not shown, but for one that was made just now; of headers, which often are secrets, only the names.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Webhook")]
pub(in super::super) struct WebhookView<'a> {
    #[schemars(with = "Id<WebhookId>")]
    id: WebhookId,
    #[schemars(with = "Id<OrgId>")]
    organization_id: OrgId,
    /// The only session that it hears of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<SessionId>>")]
    session_id: Option<SessionId>,
    url: &'a str,
    events: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    custom_headers: BTreeMap<&'a str, &'static str>,
    /// Left out where the format has its own times of retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_policy: Option<RetryView>,
    active: bool,
    /// Since when it is told nothing although it is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    disabled_at: Option<Timestamp>,
    /// Why: `gone` if its receiver answered 410, `failing` if it has taken nothing for days.
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_reason: Option<&'static str>,
    /// In whose words events are told.
    format: &'static str,
    /// Whether deliveries are signed.
    signed: bool,
    /// How it fares; shown of one webhook, and not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<HealthView>,
    /// What deliveries are signed with; shown once, when it is replaced or, in the format `standard`, made.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    #[serde(skip)]
    given: Option<&'a Secret>,
    /// Until when the secret before signs as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    previous_secret_until: Option<Timestamp>,
    /// With what receivers verify, if the secret is a private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    #[schemars(with = "Millis")]
    created_at: Timestamp,
    #[schemars(with = "Millis")]
    updated_at: Timestamp,
}

/// What happens when nobody takes a delivery.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RetryPolicy")]
struct RetryView {
    /// How the waits between tries grow: `constant`, `linear` or `exponential`.
    policy: &'static str,
    delay_seconds: u32,
    attempts: u32,
}

impl<'a> WebhookView<'a> {
    pub(in super::super) fn of(webhook: &'a Webhook, now: Timestamp) -> Self {
        let spec = &webhook.spec;
        let is_standard = spec.format == EventFormat::Standard;
        let growth = match spec.retry.growth {
            RetryGrowth::Constant => "constant",
            RetryGrowth::Linear => "linear",
            RetryGrowth::Exponential => "exponential",
        };
        Self {
            id: webhook.id,
            organization_id: webhook.org,
            session_id: webhook.session,
            url: &spec.url,
            events: &spec.events,
            custom_headers: spec.headers.keys().map(|name| (name.as_str(), portcullis_core::webhook::MASKED)).collect(),
            retry_policy: (!is_standard).then_some(RetryView {
                policy: growth,
                delay_seconds: spec.retry.delay_seconds,
                attempts: spec.retry.attempts,
            }),
            active: spec.active,
            disabled_at: webhook.disabled.map(|disabled| disabled.at),
            disabled_reason: webhook.disabled.map(|disabled| disabled.why.name()),
            format: spec.format.name(),
            signed: spec.secret.is_some(),
            health: None,
            given: spec.secret.as_ref(),
            secret: None,
            previous_secret_until: webhook.retired.as_ref().map(|retired| retired.until).filter(|until| *until > now),
            public_key: spec.secret.as_ref().filter(|_| is_standard).and_then(portcullis_webhook::public_key),
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
        }
    }

    /// With the secret that its owner has to give to the receiver.
    pub(in super::super) fn with_secret(self) -> Self {
        Self { secret: self.given.map(Secret::reveal), ..self }
    }

    /// With how it fares.
    pub(in super::super) fn faring(self, health: &WebhookHealth) -> Self {
        let WebhookHealth { state, failing_since, waiting, dead } = *health;
        Self { health: Some(HealthView { state: state.name(), failing_since, waiting, dead }), ..self }
    }
}

/// How a webhook fares.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "WebhookHealth")]
struct HealthView {
    #[schemars(with = "WebhookStateOf")]
    state: &'static str,
    /// Since when its receiver takes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    failing_since: Option<Timestamp>,
    /// How many messages it is still to be told, counted up to 1000.
    #[schemars(range(min = 0, max = 1000))]
    waiting: usize,
    /// How many were given up, counted up to 1000.
    #[schemars(range(min = 0, max = 1000))]
    dead: usize,
}

/// What is remembered of a message to a webhook.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "WebhookDelivery")]
pub(in super::super) struct DeliveryView<'a> {
    #[schemars(with = "Id<DeliveryId>")]
    id: DeliveryId,
    /// The event that it tells.
    #[schemars(with = "Id<EventId>")]
    event_id: EventId,
    /// By which its receiver knows it: another one than the event's where one event is several messages.
    #[schemars(with = "Id<EventId>")]
    message_id: EventId,
    /// The event's name in the words of the webhook's format; left out if the event is not kept any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<SessionId>>")]
    session_id: Option<SessionId>,
    #[schemars(with = "DeliveryStateOf")]
    status: &'static str,
    /// When it happened.
    #[schemars(with = "Millis")]
    created_at: Timestamp,
    #[schemars(with = "Millis")]
    updated_at: Timestamp,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    next_attempt_at: Option<Timestamp>,
    /// The latest 32 attempts, oldest first.
    attempts: Vec<AttemptView<'a>>,
}

/// One attempt at telling a message.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DeliveryAttempt")]
struct AttemptView<'a> {
    #[schemars(with = "Millis")]
    at: Timestamp,
    took_ms: u64,
    /// The status of the answer, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// The beginning of its body, up to 1 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    /// Why there was no answer, by a stable word.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> DeliveryView<'a> {
    pub(in super::super) fn of(row: &'a DeliveryRow) -> Self {
        let DeliveryRow { id, name, message, delivery } = row;
        let next = match delivery.state {
            // What goes out before everything else was due from the beginning.
            DeliveryState::Waiting { due } => Some(due.max(delivery.at)),
            DeliveryState::Delivered | DeliveryState::Dead => None,
        };
        Self {
            id: *id,
            event_id: delivery.id,
            message_id: *message,
            event: *name,
            session_id: delivery.session,
            status: delivery.state.name(),
            created_at: delivery.at,
            updated_at: delivery.changed_at,
            next_attempt_at: next,
            attempts: delivery.record.attempts.iter().map(AttemptView::of).collect(),
        }
    }
}

impl<'a> AttemptView<'a> {
    fn of(attempt: &'a DeliveryAttempt) -> Self {
        let (status, body, error) = match &attempt.outcome {
            AttemptOutcome::Answered { status, body } => {
                (Some(*status), Some(body.as_str()).filter(|body| !body.is_empty()), None)
            }
            AttemptOutcome::Failed { error } => (None, None, Some(error.as_str())),
        };
        Self { at: attempt.at, took_ms: attempt.took_ms, status, body, error }
    }
}

/// Deliveries that are tried again.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Redelivered")]
pub(in super::super) struct RedeliveredView {
    /// How many.
    replayed: usize,
    /// What to pass as `cursor` to go on; left out at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<DeliveryId>>")]
    next_cursor: Option<DeliveryId>,
}

impl RedeliveredView {
    pub(in super::super) fn of(again: &Redelivered) -> Self {
        // Only the place counts.
        let line = Line::Webhook(WebhookId::from_bytes([0; 16]));
        let next = again.next.map(|place| DeliveryKey { line, place, part: 0 }.within_line());
        Self { replayed: again.count, next_cursor: next }
    }
}

/// The delivery with which a webhook is tried out.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "WebhookTest")]
pub(in super::super) struct TestedView {
    /// The delivery, which shows what came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<DeliveryId>>")]
    pub(in super::super) id: Option<DeliveryId>,
    #[schemars(with = "Id<EventId>")]
    pub(in super::super) event_id: EventId,
}

/// A ticket for the stream of events.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RealtimeTicket")]
pub(in super::super) struct TicketView<'a> {
    pub(in super::super) ticket: &'a str,
    /// Within how many seconds it has to be used; once.
    pub(in super::super) expires_in_seconds: u64,
    /// The address of the stream, with the ticket in it.
    pub(in super::super) url: String,
}
