//! Webhooks as a resource: an organisation's own, in the native form, beside those that the other dialects keep for a session.

use std::collections::BTreeMap;

use hyper::StatusCode;
use portcullis_core::webhook::{MAX_URL, RetryGrowth};
use portcullis_core::{EventFormat, Operation, RetryPolicy, Secret, SessionId, WebhookChange, WebhookId, WebhookSpec};
use portcullis_service::{MAX_OVERLAP, Outcome};
use portcullis_webhook::CheckError;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::view::{self, WebhookView};
use super::{decode, mismatch};
use crate::asked::{Answer, Asked, WaitFor};
use crate::dialect::common::MAX_SECRET;
use crate::dialect::{Problem, common, dry_run};
use crate::exchange::{Incoming, Reply};
use crate::openapi::schema::{FormatOf, GrowthOf, HeadersOf, Id, ToldOf, URL};
use crate::routes::EncodeContext;

/// The formats of webhooks of this dialect.
pub(crate) const FORMATS: [EventFormat; 2] = [EventFormat::Router, EventFormat::Standard];
/// The most names of events that a webhook lists.
const MAX_EVENTS: usize = 64;
/// The longest first wait between two tries, in seconds.
const MAX_DELAY: u32 = 3600;
/// The most tries of one delivery.
const MAX_ATTEMPTS: u32 = 30;

/// For how long a secret that was replaced signs beside its successor, in seconds.
const OVERLAP: u32 = 24 * 60 * 60;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WebhookBody {
    #[schemars(required, length(max = MAX_URL), regex(pattern = URL))]
    url: Option<String>,
    /// Names of events in the words of the format, or `*`.
    #[schemars(with = "Vec<ToldOf>", required, length(min = 1, max = MAX_EVENTS))]
    events: Option<Vec<String>>,
    /// In whose words events are told; `router` if it is left out.
    #[schemars(with = "Option<FormatOf>")]
    format: Option<String>,
    #[schemars(with = "Option<Id<SessionId>>")]
    session_id: Option<String>,
    /// What deliveries are signed with. The format `standard` takes a key, and makes one if there is none.
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
    /// Names of events in the words of the webhook's format, or `*`.
    #[schemars(with = "Option<Vec<ToldOf>>", length(max = MAX_EVENTS))]
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
    check_count(&events)?;
    let webhook = WebhookSpec {
        format: format(body.format.as_deref())?,
        url,
        events,
        headers: headers(body.custom_headers.unwrap_or_default())?,
        secret: secret(body.secret)?,
        retry: retry(body.retry_policy)?,
        active: body.active.unwrap_or(true),
        path_per_event: false,
        inline_media: false,
    };
    check(&webhook)?;
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
        check_count(events)?;
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
    operate(Operation::WebhookUpdate { webhook, within: None, change })
}

pub(super) fn delete(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::WebhookDelete { webhook: webhook_id(incoming)?, within: None })
}

/// Another secret.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "RotateSecretBody")]
pub(super) struct RotateBody {
    /// The new secret; one of the same kind is made if it is left out.
    #[schemars(length(min = 1, max = MAX_SECRET))]
    secret: Option<String>,
    /// For how many seconds the old one signs as well, in the format `standard`; a day if it is left out.
    #[schemars(range(min = 0, max = MAX_OVERLAP.as_secs()))]
    overlap_seconds: Option<u32>,
}

pub(super) fn rotate(incoming: &Incoming) -> Result<Asked, Problem> {
    let webhook = webhook_id(incoming)?;
    let body: RotateBody = decode::optional_body(incoming)?;
    let overlap_seconds = body.overlap_seconds.unwrap_or(OVERLAP);
    if u64::from(overlap_seconds) > MAX_OVERLAP.as_secs() {
        return Err(Problem::invalid(format!("overlapSeconds must be at most {}", MAX_OVERLAP.as_secs())));
    }
    let is_empty = body.secret.as_ref().is_some_and(String::is_empty);
    let secret = secret(body.secret)?;
    if is_empty {
        return Err(Problem::invalid("secret must not be empty; left out, one is made"));
    }
    operate(Operation::WebhookRotate { webhook, within: None, secret, overlap_seconds })
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

fn format(word: Option<&str>) -> Result<EventFormat, Problem> {
    match word {
        None => Ok(EventFormat::Router),
        Some(word) => {
            let known = FORMATS.into_iter().find(|format| format.name() == word);
            known.ok_or_else(|| Problem::invalid("format must be router or standard"))
        }
    }
}

/// Whether a new webhook can be told and signed. A secret that is to be made is good.
fn check(webhook: &WebhookSpec) -> Result<(), Problem> {
    match portcullis_webhook::check(webhook) {
        Err(CheckError::Unsigned) | Ok(()) => Ok(()),
        Err(CheckError::Event { name, .. }) => Err(Problem::invalid(format!("unknown event {name:?}"))),
        Err(error) => Err(Problem::invalid(format!("{}: {}", error.field(), error.told()))),
    }
}

/// Which names there are depends on the webhook's format, which is known where a change meets its webhook.
fn check_count(events: &[String]) -> Result<(), Problem> {
    if events.len() <= MAX_EVENTS {
        return Ok(());
    }
    Err(Problem::invalid(format!("events must list at most {MAX_EVENTS} names")))
}

fn headers(given: BTreeMap<String, String>) -> Result<BTreeMap<String, Secret>, Problem> {
    common::webhook_headers(given).map_err(Problem::invalid)
}

fn secret(given: Option<String>) -> Result<Option<Secret>, Problem> {
    common::webhook_secret(given).map_err(Problem::invalid)
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
pub(super) fn created(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    // The secret that was made is shown this once.
    changed(StatusCode::CREATED, &answer, context).with("cache-control", "no-store")
}

pub(super) fn webhook(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    match answer {
        Answer::Webhook(webhook, health) => {
            Reply::json(StatusCode::OK, &WebhookView::of(&webhook, context.now).faring(&health))
        }
        answer => changed(StatusCode::OK, &answer, context),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "an encoder of the table takes its answer")]
pub(super) fn rotated(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Operated(done) = &answer else { return mismatch() };
    match &done.outcome {
        Outcome::Webhooks(webhooks) if !webhooks.is_empty() => {
            let webhook = WebhookView::of(&webhooks[0], context.now).with_secret();
            // The secret is shown this once.
            Reply::json(StatusCode::OK, &webhook).with("cache-control", "no-store")
        }
        _ => changed(StatusCode::OK, &answer, context),
    }
}

fn changed(status: StatusCode, answer: &Answer, context: &EncodeContext<'_>) -> Reply {
    let Answer::Operated(done) = answer else { return mismatch() };
    match &done.outcome {
        Outcome::DryRun(verdict) => Reply::json(StatusCode::OK, &dry_run(verdict)),
        Outcome::Webhooks(webhooks) => match webhooks.first() {
            Some(webhook) if status == StatusCode::CREATED && webhook.spec.format == EventFormat::Standard => {
                Reply::json(status, &WebhookView::of(webhook, context.now).with_secret())
            }
            Some(webhook) => Reply::json(status, &WebhookView::of(webhook, context.now)),
            None => Reply::empty(StatusCode::NO_CONTENT),
        },
        _ => mismatch(),
    }
}

pub(super) fn listed(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Webhooks(webhooks) = answer else { return mismatch() };
    let views = webhooks.iter().map(|webhook| WebhookView::of(webhook, context.now));
    Reply::json(StatusCode::OK, &view::list(views, None))
}

#[cfg(test)]
mod test {
    use hyper::HeaderMap;
    use serde_json::{Value, json};

    use super::*;

    fn asking(body: &Value) -> Incoming {
        Incoming {
            headers: HeaderMap::new(),
            params: Vec::new(),
            query: Vec::new(),
            body: body.to_string().into(),
            document: None,
            ..Incoming::default()
        }
    }

    fn created_from(body: &Value) -> Result<WebhookSpec, String> {
        let mut body = body.clone();
        body["url"] = json!("https://example.com/hook");
        match create(&asking(&body)) {
            Ok(Asked::Operate { operation: Operation::WebhookCreate { webhook, .. }, .. }) => Ok(webhook),
            Ok(asked) => panic!("{asked:?}"),
            Err(problem) => Err(problem.message),
        }
    }

    #[test]
    fn every_event_of_a_format_can_be_asked_for() {
        for format in FORMATS {
            let names = portcullis_webhook::vocabulary(format);
            let webhook = created_from(&json!({ "format": format.name(), "events": names })).unwrap();
            assert_eq!((webhook.format, webhook.events.len()), (format, names.len()));
        }
    }

    #[test]
    fn a_webhook_is_of_one_format() {
        let check = |body: Value, expected: &str| {
            let why = created_from(&body).err().unwrap_or_default();
            assert!(why.contains(expected) && why.is_empty() == expected.is_empty(), "{body}: {why}");
        };
        check(json!({ "events": ["message.from_me"] }), "");
        check(json!({ "events": ["message.out"] }), "unknown event \"message.out\"");
        check(json!({ "events": ["message.out"], "format": "standard" }), "");
        check(json!({ "events": ["message.from_me"], "format": "standard" }), "unknown event");
        check(json!({ "events": ["*"], "format": "wawp" }), "format must be router or standard");
        check(json!({ "events": vec!["*"; MAX_EVENTS + 1] }), "at most 64");
        let standard = |secret: &str| json!({ "events": ["*"], "format": "standard", "secret": secret });
        check(standard(""), "");
        check(standard("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "");
        check(standard("hunter2"), "secret: a key begins with whsec_");
        check(standard("whsec_c2hvcnQ="), "secret: a shared key has 24 to 64 bytes");
        check(json!({ "events": ["*"], "secret": "hunter2" }), "");
        check(json!({ "events": ["*"], "secret": "x".repeat(MAX_SECRET + 1) }), "at most 256 bytes");
        let retry = json!({ "attempts": 3 });
        check(json!({ "events": ["*"], "format": "standard", "retryPolicy": retry }), "its own times of retry");
        check(json!({ "events": ["*"], "customHeaders": { "Webhook-Id": "x" } }), "the gateway's to send");
    }
}
