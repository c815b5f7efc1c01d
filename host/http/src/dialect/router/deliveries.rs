//! What webhooks were told: looked at, told again, and tried out.

use hyper::StatusCode;
use portcullis_core::operation::{Redelivery, RedeliveryOf};
use portcullis_core::{DeliveryId, DeliveryKey, Line, Operation, Timestamp, WebhookId};
use portcullis_service::{DeliveryFilter, Outcome};
use schemars::JsonSchema;
use serde::Deserialize;

use super::view::{self, DeliveryView, RedeliveredView, TestedView};
use super::{decode, mismatch};
use crate::asked::{Answer, Asked, WaitFor};
use crate::dialect::{Problem, dry_run};
use crate::exchange::{Incoming, Reply};
use crate::openapi::schema::{Id, Millis, RedeliveryWord};
use crate::routes::EncodeContext;

/// The words for which deliveries are listed.
pub(super) const FILTERS: [(&str, DeliveryFilter); 3] =
    [("all", DeliveryFilter::All), ("waiting", DeliveryFilter::Waiting), ("dead", DeliveryFilter::Dead)];

/// Which deliveries are told again.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "RedeliverBody")]
pub(super) struct RedeliverBody {
    /// Of what happened from then on.
    #[schemars(with = "Millis")]
    since: Timestamp,
    /// And before then; until now if it is left out.
    #[schemars(with = "Option<Millis>")]
    until: Option<Timestamp>,
    /// `dead` for those that were given up, which is usual; `missing` for all that was never taken; `all` for everything.
    #[schemars(with = "Option<RedeliveryWord>")]
    status: Option<String>,
    /// The `nextCursor` of the answer before, if there was one.
    #[schemars(with = "Option<Id<DeliveryId>>")]
    cursor: Option<String>,
}

pub(super) fn list(incoming: &Incoming) -> Result<Asked, Problem> {
    let filter = match incoming.query("status") {
        None => DeliveryFilter::All,
        Some(word) => {
            let known = FILTERS.iter().find(|(known, _)| *known == word);
            known.ok_or_else(|| Problem::invalid("status must be all, waiting or dead"))?.1
        }
    };
    let (before, limit) = (decode::cursor(incoming)?, decode::limit(incoming));
    Ok(Asked::Deliveries { webhook: webhook_id(incoming)?, filter, before, limit })
}

pub(super) fn get(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Delivery { webhook: webhook_id(incoming)?, delivery: delivery_id(incoming)? })
}

pub(super) fn replay_one(incoming: &Incoming) -> Result<Asked, Problem> {
    replay_of(webhook_id(incoming)?, RedeliveryOf::One(delivery_id(incoming)?))
}

pub(super) fn replay(incoming: &Incoming) -> Result<Asked, Problem> {
    let webhook = webhook_id(incoming)?;
    let RedeliverBody { since, until, status, cursor } = decode::body(incoming)?;
    let which = match status.as_deref() {
        None => Redelivery::Dead,
        Some(word) => {
            let known = Redelivery::EVERY.into_iter().find(|which| which.name() == word);
            known.ok_or_else(|| Problem::invalid("status must be dead, missing or all"))?
        }
    };
    if until.is_some_and(|until| until <= since) {
        return Err(Problem::invalid("until must be after since"));
    }
    let after = match cursor {
        None => None,
        Some(text) => {
            let of = text.parse().ok().and_then(|id| DeliveryKey::of(Line::Webhook(webhook), id));
            Some(of.ok_or_else(|| Problem::invalid("cursor is not one that an answer gave out"))?.place)
        }
    };
    replay_of(webhook, RedeliveryOf::Range { since, until, which, after })
}

fn replay_of(webhook: WebhookId, of: RedeliveryOf) -> Result<Asked, Problem> {
    let operation = Operation::WebhookReplay { webhook, within: None, of };
    Ok(Asked::Operate { operation, then: WaitFor::Nothing })
}

pub(super) fn test(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::TestWebhook { webhook: webhook_id(incoming)? })
}

fn webhook_id(incoming: &Incoming) -> Result<WebhookId, Problem> {
    decode::path_id(incoming, "id", "webhook")
}

fn delivery_id(incoming: &Incoming) -> Result<DeliveryId, Problem> {
    decode::path_id(incoming, "delivery", "delivery")
}

// === replies ===

pub(super) fn listed(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Deliveries(page) = answer else { return mismatch() };
    let next = page.next.map(|id| id.to_string());
    Reply::json(StatusCode::OK, &view::list(page.rows.iter().map(DeliveryView::of), next))
}

pub(super) fn delivery(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Delivery(row) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &DeliveryView::of(&row))
}

/// The line tries them soon, so nothing has come of it yet.
pub(super) fn replayed(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Operated(done) = answer else { return mismatch() };
    match &done.outcome {
        Outcome::DryRun(verdict) => Reply::json(StatusCode::OK, &dry_run(verdict)),
        Outcome::Replayed(again) => Reply::json(StatusCode::ACCEPTED, &RedeliveredView::of(again)),
        _ => mismatch(),
    }
}

pub(super) fn tested(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    match answer {
        Answer::DryRun(verdict) => Reply::json(StatusCode::OK, &dry_run(&verdict)),
        Answer::Tested { event, delivery } => {
            Reply::json(StatusCode::ACCEPTED, &TestedView { id: delivery, event_id: event })
        }
        _ => mismatch(),
    }
}

#[cfg(test)]
mod test {
    use hyper::HeaderMap;
    use serde_json::{Value, json};

    use super::*;

    fn asked(body: &Value) -> Result<RedeliveryOf, String> {
        let incoming = Incoming {
            headers: HeaderMap::new(),
            params: vec![("id", WebhookId::from_bytes([1; 16]).to_string())],
            query: Vec::new(),
            body: body.to_string().into(),
            document: None,
            session: None,
            ticket: None,
            until: None,
        };
        match replay(&incoming) {
            Ok(Asked::Operate { operation: Operation::WebhookReplay { of, .. }, .. }) => Ok(of),
            Ok(asked) => panic!("{asked:?}"),
            Err(problem) => Err(problem.message),
        }
    }

    #[test]
    fn a_range_is_of_the_dead_unless_it_says_otherwise() {
        let range = |which, until: Option<u64>| RedeliveryOf::Range {
            since: Timestamp::from_millis(5),
            until: until.map(Timestamp::from_millis),
            which,
            after: None,
        };
        assert_eq!(asked(&json!({ "since": 5 })), Ok(range(Redelivery::Dead, None)));
        for which in Redelivery::EVERY {
            let body = json!({ "since": 5, "until": 9, "status": which.name() });
            assert_eq!(asked(&body), Ok(range(which, Some(9))));
        }
        let check = |body: Value, expected: &str| {
            let why = asked(&body).unwrap_err();
            assert!(why.contains(expected), "{body}: {why}");
        };
        check(json!({}), "validation failed");
        check(json!({ "since": 5, "until": 5 }), "until must be after since");
        check(json!({ "since": 5, "status": "lost" }), "status must be dead, missing or all");
        check(json!({ "since": 5, "cursor": "evt_1" }), "cursor is not one");
    }
}
