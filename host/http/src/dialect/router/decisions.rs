//! Recorded decisions, and facts that organisations tell.

use hyper::StatusCode;
use portcullis_core::{OperationKind, SessionId, Timestamp};
use portcullis_service::{DecisionQuery, NewFact};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::explain::DecisionView;
use super::view::{self, FactView};
use super::{decode, mismatch};
use crate::asked::{Answer, Asked};
use crate::dialect::Problem;
use crate::exchange::{Incoming, Reply};
use crate::openapi::schema::{AnyValue, Id, Millis};
use crate::routes::EncodeContext;

/// The words for how a decision can end.
pub(crate) const ENDINGS: [&str; 6] = ["allowed", "denied", "confirmation-required", "deferred", "limited", "refused"];

/// The parameters by which decisions are found.
const FILTERS: [&str; 10] =
    ["session", "operation", "verdict", "plugin", "binding", "since", "until", "limit", "cursor", "org"];

pub(super) fn list(incoming: &Incoming) -> Result<Asked, Problem> {
    // Whoever misspells a filter must not take all decisions for those that were looked for.
    if let Some((unknown, _)) = incoming.query.iter().find(|(name, _)| !FILTERS.contains(&name.as_str())) {
        return Err(Problem::invalid(format!("unexpected query parameter {unknown:?}")));
    }
    let query = query(incoming)?;
    Ok(Asked::Decisions { query, before: decode::cursor(incoming)?, limit: decode::limit(incoming) })
}

/// Which decisions are meant, by the query.
pub(super) fn query(incoming: &Incoming) -> Result<DecisionQuery, Problem> {
    let said = |name: &str| incoming.query(name).filter(|text| !text.is_empty());
    let millis = |name: &'static str| {
        let parse = |text: &str| {
            let millis = text.parse::<u64>().ok().and_then(|millis| Timestamp::try_from(millis).ok());
            millis.ok_or_else(|| Problem::invalid(format!("{name} must be in milliseconds since the epoch")))
        };
        said(name).map(parse).transpose()
    };
    let operation = |text: &str| {
        let kind = OperationKind::from_name(text).filter(|kind| kind.row().hookable);
        kind.ok_or_else(|| Problem::invalid(format!("there is no operation {text:?} that policy is asked about")))
    };
    let ending = |text: &str| match ENDINGS.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(Problem::invalid(format!("verdict must be one of {}", ENDINGS.join(", ")))),
    };
    Ok(DecisionQuery {
        session: said("session").map(|text| decode::id("session", text)).transpose()?,
        operation: said("operation").map(operation).transpose()?,
        ending: said("verdict").map(ending).transpose()?,
        plugin: said("plugin").map(|text| decode::id("plugin", text)).transpose()?,
        binding: said("binding").map(|text| decode::id("binding", text)).transpose()?,
        since: millis("since")?,
        until: millis("until")?,
    })
}

pub(super) fn get(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Decision { decision: decode::path_id(incoming, "id", "decision")? })
}

pub(super) fn decisions(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Decisions(page) = answer else { return mismatch() };
    let next = page.next.map(|id| id.to_string());
    Reply::json(StatusCode::OK, &view::list(page.decisions.iter().map(DecisionView::of), next))
}

pub(super) fn decision(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Decision(record) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &DecisionView::of(&record))
}

// === facts ===

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FactBody {
    /// The teller's own id, under which a fact is told once within 30 days.
    #[schemars(regex(pattern = "^[!-~]{1,128}$"))]
    id: String,
    /// The fact's name. Those that begin with `session.`, `message.`, `plugin.` or `policy.` are the gateway's own.
    #[schemars(regex(pattern = "^[a-zA-Z0-9._-]{1,128}$"))]
    name: String,
    #[schemars(with = "Option<Id<SessionId>>")]
    session: Option<String>,
    /// When it happened; now if that is left out.
    #[schemars(with = "Option<Millis>")]
    at: Option<Timestamp>,
    /// Its payload, at most 32 KiB of JSON.
    #[schemars(with = "AnyValue")]
    #[serde(default)]
    data: Value,
}

pub(super) fn tell(incoming: &Incoming) -> Result<Asked, Problem> {
    let FactBody { id, name, session, at, data } = decode::body(incoming)?;
    let session = session.map(|text| decode::id("session", &text)).transpose()?;
    Ok(Asked::Tell(NewFact { id, name, session, at, data }))
}

/// 202 for a fact that plugins are to be told of, 200 for one that was told before.
pub(super) fn told(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Told(fact) = answer else { return mismatch() };
    let status = if fact.known { StatusCode::OK } else { StatusCode::ACCEPTED };
    Reply::json(status, &FactView::of(&fact))
}
