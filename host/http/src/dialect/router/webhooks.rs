//! Webhooks as a resource: an organisation's own, in the native form, beside those that the other dialects keep for a session.

use std::collections::BTreeMap;

use hyper::StatusCode;
use portcullis_core::webhook::{MAX_URL, RetryGrowth};
use portcullis_core::{EventFormat, Operation, RetryPolicy, Secret, SessionId, WebhookChange, WebhookId, WebhookSpec};
use portcullis_service::Outcome;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::view::{self, WebhookView};
use super::{decode, mismatch};
use crate::asked::{Answer, Asked, WaitFor};
use crate::dialect::{Problem, common, dry_run};
use crate::exchange::{Incoming, Reply};
use crate::openapi::schema::{EventOf, GrowthOf, HeadersOf, Id, URL};
use crate::routes::EncodeContext;

/// The names of events in the native form, besides `*` for all.
/// Source: the router's schema of events; those of Portcullis's own come last.
pub(crate) const EVENTS: [&str; 31] = [
    "session.status",
    "auth.qr",
    "auth.code",
    "message",
    "message.from_me",
    "message.edited",
    "message.revoked",
    "message.reaction",
    "message.status",
    "poll.vote",
    "poll.recap",
    "presence.update",
    "group.update",
    "group.participant",
    "chat.update",
    "contact.update",
    "call.incoming",
    "newsletter.update",
    "session.created",
    "session.linked",
    "session.unlinked",
    "session.limited",
    "session.settings",
    "session.labels",
    "session.delete-scheduled",
    "session.restored",
    "session.delete-cancelled",
    "session.deleted",
    "policy.denied",
    "plugin.event",
    "fact",
];
/// The most names of events that a webhook lists.
const MAX_EVENTS: usize = 64;
/// The longest first wait between two tries, in seconds.
const MAX_DELAY: u32 = 3600;
/// The most tries of one delivery.
const MAX_ATTEMPTS: u32 = 30;
/// The longest secret, in bytes.
const MAX_SECRET: usize = 256;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WebhookBody {
    #[schemars(required, length(max = MAX_URL), regex(pattern = URL))]
    url: Option<String>,
    #[schemars(with = "Vec<EventOf>", required, length(min = 1, max = MAX_EVENTS))]
    events: Option<Vec<String>>,
    #[schemars(with = "Option<Id<SessionId>>")]
    session_id: Option<String>,
    #[schemars(length(max = MAX_SECRET))]
    secret: Option<String>,
    #[schemars(with = "Option<HeadersOf>")]
    custom_headers: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "decode::object")]
    #[schemars(with = "Option<RetryBody>")]
    retry_policy: Option<RetryBody>,
    active: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WebhookPatch {
    #[schemars(length(max = MAX_URL), regex(pattern = URL))]
    url: Option<String>,
    #[schemars(with = "Option<Vec<EventOf>>", length(max = MAX_EVENTS))]
    events: Option<Vec<String>>,
    /// Left out, the webhook hears of all sessions from then on.
    #[schemars(with = "Option<Id<SessionId>>")]
    session_id: Option<String>,
    /// Left out, the secret stays; `null` takes it away.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<String>", length(max = MAX_SECRET))]
    secret: Option<Option<String>>,
    #[schemars(with = "Option<HeadersOf>")]
    custom_headers: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "decode::object")]
    #[schemars(with = "Option<RetryBody>")]
    retry_policy: Option<RetryBody>,
    active: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RetryBody {
    #[schemars(with = "Option<GrowthOf>")]
    policy: Option<String>,
    #[schemars(range(min = 1, max = MAX_DELAY))]
    delay_seconds: Option<u32>,
    #[schemars(range(min = 1, max = MAX_ATTEMPTS))]
    attempts: Option<u32>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}

pub(super) fn create(incoming: &Incoming) -> Result<Asked, Problem> {
    let body: WebhookBody = decode::body(incoming)?;
    let url = body.url.filter(|url| !url.is_empty()).ok_or_else(|| Problem::invalid("url is required"))?;
    common::webhook_url(&url).map_err(Problem::invalid)?;
    let events = body.events.filter(|events| !events.is_empty());
    let events = events.ok_or_else(|| Problem::invalid("events is required"))?;
    check_events(&events)?;
    let webhook = WebhookSpec {
        format: EventFormat::Router,
        url,
        events,
        headers: headers(body.custom_headers.unwrap_or_default())?,
        secret: secret(body.secret)?,
        retry: retry(body.retry_policy)?,
        active: body.active.unwrap_or(true),
        path_per_event: false,
        inline_media: false,
    };
    let session = session(body.session_id)?;
    operate(Operation::WebhookCreate { session, webhook })
}

pub(super) fn list(_incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Webhooks { of: None })
}

pub(super) fn get(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Webhook { webhook: webhook_id(incoming)? })
}

pub(super) fn update(incoming: &Incoming) -> Result<Asked, Problem> {
    let webhook = webhook_id(incoming)?;
    let body: WebhookPatch = decode::body(incoming)?;
    if let Some(url) = &body.url {
        common::webhook_url(url).map_err(Problem::invalid)?;
    }
    if let Some(events) = &body.events {
        check_events(events)?;
    }
    let change = WebhookChange {
        session: session(body.session_id)?,
        url: body.url,
        events: body.events,
        headers: body.custom_headers.map(headers).transpose()?,
        secret: body.secret.map(secret).transpose()?,
        retry: body.retry_policy.map(|policy| retry(Some(policy))).transpose()?,
        active: body.active,
    };
    operate(Operation::WebhookUpdate { webhook, change })
}

pub(super) fn delete(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::WebhookDelete { webhook: webhook_id(incoming)? })
}

fn operate(operation: Operation) -> Result<Asked, Problem> {
    Ok(Asked::Operate { operation, then: WaitFor::Nothing })
}

fn webhook_id(incoming: &Incoming) -> Result<WebhookId, Problem> {
    decode::path_id(incoming, "id", "webhook")
}

fn session(text: Option<String>) -> Result<Option<SessionId>, Problem> {
    text.filter(|text| !text.is_empty()).map(|text| decode::id("sessionId", &text)).transpose()
}

fn check_events(events: &[String]) -> Result<(), Problem> {
    if events.len() > MAX_EVENTS {
        return Err(Problem::invalid(format!("events must list at most {MAX_EVENTS} names")));
    }
    match events.iter().find(|name| *name != "*" && !EVENTS.contains(&name.as_str())) {
        Some(unknown) => Err(Problem::invalid(format!("unknown event {unknown:?}"))),
        None => Ok(()),
    }
}

fn headers(given: BTreeMap<String, String>) -> Result<BTreeMap<String, Secret>, Problem> {
    common::webhook_headers(given).map_err(Problem::invalid)
}

fn secret(given: Option<String>) -> Result<Option<Secret>, Problem> {
    let given = given.filter(|text| !text.is_empty());
    if given.as_ref().is_some_and(|text| text.len() > MAX_SECRET) {
        return Err(Problem::invalid(format!("secret must be at most {MAX_SECRET} bytes")));
    }
    Ok(given.map(Secret::new))
}

fn retry(given: Option<RetryBody>) -> Result<RetryPolicy, Problem> {
    let usual = RetryPolicy::default();
    let Some(RetryBody { policy, delay_seconds, attempts }) = given else { return Ok(usual) };
    let growth = match policy.as_deref() {
        None | Some("exponential") => RetryGrowth::Exponential,
        Some("constant") => RetryGrowth::Constant,
        Some("linear") => RetryGrowth::Linear,
        Some(_) => return Err(Problem::invalid("retryPolicy.policy must be exponential, linear or constant")),
    };
    let delay_seconds = delay_seconds.unwrap_or(usual.delay_seconds);
    let attempts = attempts.unwrap_or(usual.attempts);
    if !(1..=MAX_DELAY).contains(&delay_seconds) || !(1..=MAX_ATTEMPTS).contains(&attempts) {
        let message =
            format!("retryPolicy takes a delaySeconds of 1 to {MAX_DELAY} and attempts of 1 to {MAX_ATTEMPTS}");
        return Err(Problem::invalid(message));
    }
    Ok(RetryPolicy { growth, delay_seconds, attempts })
}

// === replies ===

#[expect(clippy::needless_pass_by_value, reason = "an encoder of the table takes its answer")]
pub(super) fn created(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    changed(StatusCode::CREATED, &answer)
}

pub(super) fn webhook(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    match answer {
        Answer::Webhook(webhook) => Reply::json(StatusCode::OK, &WebhookView::of(&webhook)),
        answer => changed(StatusCode::OK, &answer),
    }
}

fn changed(status: StatusCode, answer: &Answer) -> Reply {
    let Answer::Operated(done) = answer else { return mismatch() };
    match &done.outcome {
        Outcome::DryRun(verdict) => Reply::json(StatusCode::OK, &dry_run(verdict)),
        Outcome::Webhooks(webhooks) => match webhooks.first() {
            Some(webhook) => Reply::json(status, &WebhookView::of(webhook)),
            None => Reply::empty(StatusCode::NO_CONTENT),
        },
        _ => mismatch(),
    }
}

pub(super) fn listed(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Webhooks(webhooks) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &view::list(webhooks.iter().map(WebhookView::of), None))
}
