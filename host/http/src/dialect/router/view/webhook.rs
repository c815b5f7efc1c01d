//! Ways to be told of events.

use std::collections::BTreeMap;

use portcullis_core::webhook::RetryGrowth;
use portcullis_core::{EventFormat, OrgId, Secret, SessionId, Timestamp, Webhook, WebhookId};
use schemars::JsonSchema;
use serde::Serialize;

use crate::openapi::schema::{Id, Millis};

/// A webhook. Secrets are not shown, but for the one that was made with the webhook; of headers, which often are secrets, only the names.
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
    /// What deliveries of the format `standard` are signed with; shown once, when the webhook is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
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
    pub(in super::super) fn of(webhook: &'a Webhook) -> Self {
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
            secret: None,
            public_key: spec.secret.as_ref().filter(|_| is_standard).and_then(portcullis_webhook::public_key),
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
        }
    }

    /// A webhook that was made just now, with the secret that its owner has to give to the receiver.
    pub(in super::super) fn made(webhook: &'a Webhook) -> Self {
        let secret = webhook.spec.secret.as_ref().filter(|_| webhook.spec.format == EventFormat::Standard);
        Self { secret: secret.map(Secret::reveal), ..Self::of(webhook) }
    }
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
