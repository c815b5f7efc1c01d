//! Webhooks: one list for each session, read and replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};

use hyper::StatusCode;
use portcullis_core::{EventFormat, Operation, RetryPolicy, Secret, Webhook, WebhookSpec};
use portcullis_service::Outcome;
use portcullis_webhook::wawp::EVENTS;
use serde_json::{Value, json};

use super::sessions::after;
use super::{mismatch, operate, params, problem};
use crate::asked::{Answer, Asked};
use crate::dialect::{Problem, common};
use crate::exchange::{Incoming, Reply};
use crate::routes::EncodeContext;

/// The most webhooks in a list.
const MAX_WEBHOOKS: usize = 20;
/// The most events that a webhook lists.
const MAX_EVENTS: usize = 64;

/// The name that stands for all events.
const ALL: &str = "*";

pub(super) fn list(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Webhooks { of: Some((params::session(incoming)?, EventFormat::Wawp)) })
}

pub(super) fn replace(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = params::session(incoming)?;
    let given = match params::value(incoming, "webhooks") {
        None => return Err(problem::missing("webhooks")),
        Some(params::Given::Text(text)) => parse(text)?,
        Some(params::Given::Json(Value::String(text))) => parse(text)?,
        Some(params::Given::Json(value)) => value.clone(),
    };
    let Value::Array(entries) = given else {
        return Err(problem::invalid("webhooks must be an array, or one as a JSON text"));
    };
    if entries.len() > MAX_WEBHOOKS {
        return Err(problem::invalid(format!("webhooks must be at most {MAX_WEBHOOKS}")));
    }
    let named = |(at, entry)| spec(entry).map_err(|why: String| problem::invalid(format!("webhooks[{at}]: {why}")));
    let webhooks = entries.iter().enumerate().map(named).collect::<Result<_, _>>()?;
    operate(Operation::WebhookReplace { session, format: EventFormat::Wawp, webhooks })
}

fn parse(text: &str) -> Result<Value, Problem> {
    serde_json::from_str(text).map_err(|_| problem::invalid("webhooks is no JSON document"))
}

fn spec(entry: &Value) -> Result<WebhookSpec, String> {
    let fields = entry.as_object().ok_or("must be an object")?;
    let url = fields.get("url").and_then(Value::as_str).ok_or("url is required")?;
    common::webhook_url(url)?;
    let events = match fields.get("events") {
        Some(Value::Array(events)) if events.len() <= MAX_EVENTS => events,
        Some(Value::Array(_)) => return Err(format!("events must be at most {MAX_EVENTS}")),
        _ => return Err("events must be an array of names".to_owned()),
    };
    let events = events.iter().map(event).collect::<Result<BTreeSet<_>, _>>()?;
    Ok(WebhookSpec {
        format: EventFormat::Wawp,
        url: url.to_owned(),
        events: events.into_iter().map(str::to_owned).collect(),
        headers: BTreeMap::new(),
        secret: secret(fields.get("secret"))?,
        retry: RetryPolicy::default(),
        active: active(fields.get("is_active"))?,
        path_per_event: false,
        inline_media: false,
    })
}

fn event(name: &Value) -> Result<&'static str, String> {
    let mut known = std::iter::once(ALL).chain(EVENTS);
    let found = name.as_str().and_then(|name| known.find(|known| *known == name));
    found.ok_or_else(|| format!("there is no such event; known are {ALL}, {}", EVENTS.join(", ")))
}

/// What deliveries are signed with. Upstream knows no such field here, so nobody misses it.
fn secret(given: Option<&Value>) -> Result<Option<Secret>, String> {
    match given {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => common::webhook_secret(Some(text.clone())),
        Some(_) => Err("secret must be a text".to_owned()),
    }
}

/// Whether a webhook is active, which it is unless somebody says otherwise; in any of the ways in which clients say it.
fn active(given: Option<&Value>) -> Result<bool, String> {
    match given {
        None | Some(Value::Null) => Ok(true),
        Some(Value::Bool(active)) => Ok(*active),
        Some(Value::Number(number)) if number.as_u64() == Some(1) => Ok(true),
        Some(Value::Number(number)) if number.as_u64() == Some(0) => Ok(false),
        Some(Value::String(text)) if text == "true" || text == "1" => Ok(true),
        Some(Value::String(text)) if text == "false" || text == "0" => Ok(false),
        Some(_) => Err("is_active must be true, false, 1 or 0".to_owned()),
    }
}

// === replies ===

/// The list as it is, or as it became. The gateway has no webhook of its own, which upstream shows as `systemConfig`.
pub(super) fn listed(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    match answer {
        Answer::Webhooks(webhooks) => shown(&webhooks),
        Answer::Operated(done) => match &done.outcome {
            Outcome::Webhooks(webhooks) => shown(webhooks),
            Outcome::DryRun(_) => after(Answer::Operated(done), |_| mismatch()),
            _ => mismatch(),
        },
        _ => mismatch(),
    }
}

fn shown(webhooks: &[Webhook]) -> Reply {
    let webhook = |webhook: &Webhook| {
        let spec = &webhook.spec;
        json!({ "id": webhook.id, "url": spec.url, "events": spec.events, "is_active": webhook.is_told() })
    };
    let body = json!({
        "webhooks": webhooks.iter().map(webhook).collect::<Vec<_>>(),
        "systemConfig": { "url": null, "events": [], "is_active": false },
    });
    Reply::json(StatusCode::OK, &body)
}

#[cfg(test)]
mod test {
    use super::super::params::test::asking;
    use super::*;

    fn replaced(query: &str, body: &str) -> Result<Vec<WebhookSpec>, String> {
        match replace(&asking(query, body)) {
            Ok(Asked::Operate { operation: Operation::WebhookReplace { webhooks, format, .. }, .. }) => {
                assert_eq!(format, EventFormat::Wawp);
                Ok(webhooks)
            }
            Ok(asked) => panic!("{asked:?}"),
            Err(problem) => Err(problem.message),
        }
    }

    #[test]
    fn a_list_is_an_array_or_the_text_of_one() {
        let array = r#"[{"url": "https://example.com/", "events": ["message", "*", "message"], "is_active": 0}]"#;
        let in_query =
            format!("webhooks={}", percent_encoding::utf8_percent_encode(array, percent_encoding::NON_ALPHANUMERIC));
        let as_text = json!({ "webhooks": array }).to_string();
        for (query, body) in
            [("", format!(r#"{{"webhooks": {array}}}"#)), (in_query.as_str(), String::new()), ("", as_text)]
        {
            let [spec] = replaced(query, &body).unwrap().try_into().unwrap();
            assert_eq!(spec.url, "https://example.com/");
            assert_eq!(spec.events, ["*", "message"]);
            assert!(!spec.active);
        }
        assert!(replaced("webhooks=%5B%5D", "").unwrap().is_empty(), "an empty list takes all away");
    }

    #[test]
    fn whether_it_is_active_is_said_in_many_ways() {
        let check = |given: &str, expected: Option<bool>| {
            let given: Value = serde_json::from_str(given).unwrap();
            assert_eq!(active(Some(&given)).ok(), expected, "{given}");
        };
        check("true", Some(true));
        check("1", Some(true));
        check(r#""1""#, Some(true));
        check(r#""true""#, Some(true));
        check("null", Some(true));
        check("false", Some(false));
        check("0", Some(false));
        check(r#""0""#, Some(false));
        check("2", None);
        check("0.5", None);
        check(r#""yes""#, None);
        check("[]", None);
        assert_eq!(active(None), Ok(true));
    }

    #[test]
    fn every_event_can_be_listed() {
        let events: Vec<&str> = std::iter::once(ALL).chain(EVENTS).collect();
        let webhooks = json!({ "webhooks": [{ "url": "https://example.com", "events": events, "secret": "hush" }] });
        let [spec] = replaced("", &webhooks.to_string()).unwrap().try_into().unwrap();
        assert_eq!(spec.events.len(), EVENTS.len() + 1);
        assert_eq!(spec.secret, Some(Secret::new("hush")));
    }

    #[test]
    fn a_list_that_is_not_valid_says_which_entry_and_why() {
        let entry = json!({ "url": "https://example.com/", "events": [] });
        let many = vec![entry; MAX_WEBHOOKS + 1];
        let names = vec!["message"; MAX_EVENTS + 1];
        let check = |webhooks: Value, expected: &str| {
            let why = replaced("", &json!({ "webhooks": webhooks }).to_string()).unwrap_err();
            assert!(why.contains(expected), "{webhooks}: {why}");
        };
        check(Value::Null, "webhooks is required");
        check(json!({}), "must be an array");
        check(json!("{}"), "must be an array");
        check(json!("nonsense"), "no JSON document");
        check(json!(many), "at most 20");
        check(json!(["x"]), "webhooks[0]: must be an object");
        check(json!([{ "events": [] }]), "url is required");
        check(json!([{ "url": "ftp://example.com", "events": [] }]), "url must be an http or https URL");
        check(json!([{ "url": "https://example.com" }]), "events must be an array");
        check(json!([{ "url": "https://example.com", "events": ["messages"] }]), "no such event");
        check(json!([{ "url": "https://example.com", "events": names }]), "at most 64");
        check(json!([{ "url": "https://example.com", "events": [], "is_active": "on" }]), "is_active");
        check(json!([{ "url": "https://example.com", "events": [], "secret": 7 }]), "secret must be a text");
        let long = "x".repeat(common::MAX_SECRET + 1);
        check(json!([{ "url": "https://example.com", "events": [], "secret": long }]), "at most 256 bytes");
    }
}
