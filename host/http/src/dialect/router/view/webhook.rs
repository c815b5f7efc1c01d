//! Ways to be told of events.

use std::collections::BTreeMap;

use portcullis_core::webhook::RetryGrowth;
use portcullis_core::{OrgId, SessionId, Timestamp, Webhook, WebhookId};
use schemars::JsonSchema;
use serde::Serialize;

use crate::openapi::schema::{Id, Millis};

/// A webhook. Secrets are never shown; of headers, which often are secrets, only the names.
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
    retry_policy: RetryView,
    active: bool,
    /// In whose words events are told.
    format: &'static str,
    /// Whether deliveries are signed.
    signed: bool,
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
            retry_policy: RetryView {
                policy: growth,
                delay_seconds: spec.retry.delay_seconds,
                attempts: spec.retry.attempts,
            },
            active: spec.active,
            format: spec.format.name(),
            signed: spec.secret.is_some(),
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
        }
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
