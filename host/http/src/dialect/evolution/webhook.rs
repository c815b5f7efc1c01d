//! The webhook of an instance: one, which is set as a whole.

use std::collections::BTreeMap;

use hyper::StatusCode;
use portcullis_core::webhook::{MAX_URL, RetryGrowth};
use portcullis_core::{EventFormat, Operation, RetryPolicy, WebhookSpec};
use portcullis_service::Outcome;
pub(super) use portcullis_webhook::evolution::EVENTS;
use serde_json::{Map, Value};

use super::schema::{self, Field, Kind, List, Schema};
use super::{instance_session, mismatch, operate, problem, view};
use crate::asked::{Answer, Asked};
use crate::dialect::{Problem, common};
use crate::exchange::{Incoming, Reply};
use crate::routes::EncodeContext;

/// What happens when nobody takes a delivery, as clients of this dialect know it.
const RETRY: RetryPolicy = RetryPolicy { growth: RetryGrowth::Exponential, delay_seconds: 5, attempts: 10 };

/// A list of events.
pub(super) const EVENT_LIST: List = List { of: Kind::Choice(&EVENTS), count: (0, 64), unique: false, said: None };

/// A webhook in the body that creates its instance.
pub(super) const FIRST: Schema = &[
    Field::new("enabled", Kind::Flag),
    Field::required("url", Kind::Text),
    Field::new("headers", Kind::Map),
    Field::new("byEvents", Kind::Flag),
    Field::new("webhookByEvents", Kind::Flag),
    Field::new("base64", Kind::Flag),
    Field::new("webhookBase64", Kind::Flag),
    Field::new("events", Kind::List(&EVENT_LIST)),
];
/// A webhook that is set.
const LATER: Schema = &[
    Field::required("enabled", Kind::Flag),
    Field::required("url", Kind::Text),
    Field::new("headers", Kind::Map),
    Field::new("byEvents", Kind::Flag),
    Field::new("webhookByEvents", Kind::Flag),
    Field::new("base64", Kind::Flag),
    Field::new("webhookBase64", Kind::Flag),
    Field::new("events", Kind::List(&EVENT_LIST)),
];
const SET: Schema = &[Field::required("webhook", Kind::Object(LATER))];

pub(super) fn set(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = instance_session(incoming)?;
    let body = schema::read(incoming, SET)?;
    let nothing = Map::new();
    let webhook = spec(schema::object(&body, "webhook").unwrap_or(&nothing))?;
    operate(Operation::WebhookReplace { session, format: EventFormat::Evolution, webhooks: vec![webhook] })
}

pub(super) fn find(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Webhooks { of: Some((instance_session(incoming)?, EventFormat::Evolution)) })
}

/// What a checked body wants of a webhook. No events means all; one that is off hears of none.
pub(super) fn spec(fields: &Map<String, Value>) -> Result<WebhookSpec, Problem> {
    let active = fields.get("enabled").and_then(Value::as_bool).unwrap_or(true);
    let url = schema::text(fields, "url").unwrap_or_default();
    if active {
        common::webhook_url(url).map_err(|why| problem::because("Invalid \"url\" property", why))?;
    } else if url.len() > MAX_URL {
        // Clients turn a webhook off with any text for its URL, so it only has to be short enough to keep.
        return Err(problem::because("Invalid \"url\" property", format!("url must be at most {MAX_URL} bytes")));
    }
    let events = schema::texts(fields, "events").filter(|events| !events.is_empty()).unwrap_or_else(|| vec!["*"]);
    Ok(WebhookSpec {
        format: EventFormat::Evolution,
        url: url.to_owned(),
        events: if active { events.into_iter().map(str::to_owned).collect() } else { Vec::new() },
        headers: common::webhook_headers(headers(fields)?)
            .map_err(|why| problem::because("Invalid \"headers\" property", why))?,
        secret: None,
        retry: RETRY,
        active,
        path_per_event: schema::flag(fields, "byEvents") || schema::flag(fields, "webhookByEvents"),
        inline_media: schema::flag(fields, "base64") || schema::flag(fields, "webhookBase64"),
    })
}

fn headers(fields: &Map<String, Value>) -> Result<BTreeMap<String, String>, Problem> {
    let Some(headers) = schema::object(fields, "headers") else { return Ok(BTreeMap::new()) };
    let header = |(name, value): (&String, &Value)| match value {
        Value::String(value) => Ok((name.clone(), value.clone())),
        Value::Number(_) | Value::Bool(_) => Ok((name.clone(), value.to_string())),
        _ => Err(problem::because("Invalid \"headers\" property", format!("the header {name:?} is no text"))),
    };
    headers.iter().map(header).collect()
}

pub(super) fn was_set(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Operated(done) = answer else { return mismatch() };
    match &done.outcome {
        Outcome::DryRun(verdict) => problem::dry_run(verdict),
        Outcome::Webhooks(webhooks) => match webhooks.first() {
            Some(webhook) => Reply::json(StatusCode::CREATED, &view::webhook(webhook, uuid(context))),
            None => mismatch(),
        },
        _ => mismatch(),
    }
}

pub(super) fn found(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Webhooks(webhooks) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &webhooks.first().map(|webhook| view::webhook(webhook, uuid(context))))
}

fn uuid<'a>(context: &EncodeContext<'a>) -> Option<&'a str> {
    context.found.map(|session| session.names.uuid.as_str())
}

#[cfg(test)]
mod test {
    use serde_json::json;

    use super::*;

    fn parsed(webhook: &Value) -> Result<WebhookSpec, Problem> {
        spec(webhook.as_object().unwrap())
    }

    #[test]
    fn events_are_all_unless_some_are_named_and_none_when_it_is_off() {
        let events = |webhook: Value| parsed(&webhook).unwrap().events;
        let url = "https://example.com";
        assert_eq!(events(json!({ "enabled": true, "url": url })), ["*"]);
        assert_eq!(events(json!({ "url": url, "events": [] })), ["*"]);
        assert_eq!(events(json!({ "url": url, "events": ["CALL"] })), ["CALL"]);
        assert!(events(json!({ "enabled": false, "url": "off", "events": ["CALL"] })).is_empty());
    }

    #[test]
    fn flags_have_two_names() {
        for name in ["byEvents", "webhookByEvents"] {
            assert!(parsed(&json!({ "url": "http://h", name: true })).unwrap().path_per_event, "{name}");
        }
        for name in ["base64", "webhookBase64"] {
            assert!(parsed(&json!({ "url": "http://h", name: true })).unwrap().inline_media, "{name}");
        }
    }

    #[test]
    fn who_promises_json_is_not_turned_away() {
        let webhook = json!({ "url": "http://h", "headers": { "Content-Type": "application/json", "jwt_key": "k" } });
        assert_eq!(parsed(&webhook).unwrap().headers.len(), 2);
    }

    #[test]
    fn what_cannot_be_delivered_to_is_refused() {
        let message = |webhook: Value| parsed(&webhook).unwrap_err().message;
        for url in ["", "off", "ftp://h", "https://user:secret@h"] {
            assert_eq!(message(json!({ "url": url })), "Invalid \"url\" property", "{url}");
        }
        let long = "x".repeat(MAX_URL + 1);
        assert_eq!(message(json!({ "enabled": false, "url": long })), "Invalid \"url\" property");
        for headers in [json!({ "a b": "x" }), json!({ "a": ["x"] }), json!({ "a": "x\r\ny" }), json!({ "Host": "x" })]
        {
            let webhook = json!({ "url": "http://h", "headers": headers });
            assert_eq!(message(webhook), "Invalid \"headers\" property", "{headers}");
        }
    }

    #[test]
    fn every_event_can_be_set() {
        let Kind::Choice(known) = EVENT_LIST.of else { panic!("events are a closed list") };
        assert_eq!(known, portcullis_webhook::vocabulary(EventFormat::Evolution));
        let spec = parsed(&json!({ "url": "http://h", "events": known })).unwrap();
        assert_eq!(portcullis_webhook::check(&spec), Ok(()));
    }
}
