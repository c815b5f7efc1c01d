//! Replays and scans: what a version of a plugin would have answered, and what it would answer.

use hyper::StatusCode;
use portcullis_core::{BindingId, Decision, DecisionId, OperationKind, PluginFailure, SessionId, Timestamp};
use portcullis_service::{
    Change, DecisionQuery, MOST_REPLAYED, MOST_SCANNED, Replay, Replayed, Scan, ScanRow, Scanned,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bindings::hooks;
use super::decisions::ENDINGS;
use super::explain::camel;
use super::plugins::plugin_id;
use super::{decode, mismatch};
use crate::asked::{Answer, Asked};
use crate::dialect::Problem;
use crate::exchange::{Incoming, Reply};
use crate::openapi::schema::{HookOf, Id, Millis, Open, OperationOf, ScannableOf, VerdictOf};
use crate::routes::EncodeContext;

/// How many decisions are replayed unless the caller says otherwise.
const USUALLY_REPLAYED: usize = 100;
/// How many sessions a page of a scan has unless the caller says otherwise.
const USUALLY_SCANNED: usize = 100;

// === requests ===

#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReplayBody {
    /// Which version; the newest if it is left out.
    version: Option<u32>,
    /// The settings; those of the time of each decision if they are left out.
    #[schemars(with = "Option<Open>")]
    settings: Option<Value>,
    /// How many decisions, the newest first.
    #[schemars(range(min = 1, max = MOST_REPLAYED))]
    last: Option<u32>,
    #[schemars(with = "Option<Id<SessionId>>")]
    session: Option<String>,
    #[schemars(with = "Option<HookOf>")]
    operation: Option<String>,
    #[schemars(with = "Option<VerdictOf>")]
    verdict: Option<String>,
    #[schemars(with = "Option<Id<BindingId>>")]
    binding: Option<String>,
    #[schemars(with = "Option<Millis>")]
    since: Option<Timestamp>,
    #[schemars(with = "Option<Millis>")]
    until: Option<Timestamp>,
}

pub(super) fn replay(incoming: &Incoming) -> Result<Asked, Problem> {
    let plugin = plugin_id(incoming)?;
    let body: ReplayBody = decode::optional_body(incoming)?;
    let last = body.last.map_or(Ok(USUALLY_REPLAYED), |last| bounded("last", last, MOST_REPLAYED))?;
    if body.verdict.as_deref().is_some_and(|word| !ENDINGS.contains(&word)) {
        return Err(Problem::invalid(format!("verdict must be one of {}", ENDINGS.join(", "))));
    }
    let query = DecisionQuery {
        session: body.session.map(|text| decode::id("session", &text)).transpose()?,
        operation: operation(body.operation)?,
        ending: body.verdict,
        plugin: None,
        binding: body.binding.map(|text| decode::id("binding", &text)).transpose()?,
        since: body.since,
        until: body.until,
    };
    let settings = body.settings.map(|value| value.to_string());
    Ok(Asked::Replay { plugin, replay: Replay { version: body.version, settings, last, query } })
}

#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PluginScanBody {
    /// Which version; the newest if it is left out.
    version: Option<u32>,
    #[schemars(with = "Option<Open>")]
    settings: Option<Value>,
    /// About which operation; about each that the plugin wants and a session's id says in full, if it is left out.
    #[schemars(with = "Option<ScannableOf>")]
    operation: Option<String>,
    /// Where the page begins: the `nextCursor` of the one before.
    #[schemars(with = "Option<Id<SessionId>>")]
    cursor: Option<String>,
    /// How many sessions.
    #[schemars(range(min = 1, max = MOST_SCANNED))]
    limit: Option<u32>,
}

pub(super) fn scan(incoming: &Incoming) -> Result<Asked, Problem> {
    let plugin = plugin_id(incoming)?;
    let body: PluginScanBody = decode::optional_body(incoming)?;
    let scan = Scan {
        version: body.version,
        settings: body.settings.map(|value| value.to_string()),
        operation: operation(body.operation)?,
        after: body.cursor.map(|text| decode::id("cursor", &text)).transpose()?,
        limit: body.limit.map_or(Ok(USUALLY_SCANNED), |limit| bounded("limit", limit, MOST_SCANNED))?,
    };
    Ok(Asked::Scan { plugin, scan })
}

fn operation(name: Option<String>) -> Result<Option<OperationKind>, Problem> {
    let kinds = name.map(|name| hooks(&[name])).transpose()?;
    Ok(kinds.and_then(|kinds| kinds.first().copied()))
}

fn bounded(field: &'static str, asked: u32, most: usize) -> Result<usize, Problem> {
    let asked = usize::try_from(asked).unwrap_or(usize::MAX);
    if (1..=most).contains(&asked) {
        return Ok(asked);
    }
    Err(Problem::invalid(format!("{field} must be 1 to {most}")))
}

// === replies ===

/// What would change.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Replay")]
pub(super) struct ReplayedView<'a> {
    /// Which version was asked.
    version: u32,
    /// How many answers were asked for.
    asked: usize,
    /// How many would be the same.
    same: usize,
    /// How many would be others.
    changed: usize,
    /// How many could not be found out, because the version reads what was not recorded.
    not_exact: usize,
    /// How many decisions were left out because their session was erased.
    erased: usize,
    /// How many were left out because what the plugins saw was too large to be recorded.
    too_large: usize,
    /// Whether the plugin never took part, so that it was asked about whatever its hooks fit.
    never_asked: bool,
    /// Whether all that was asked for was looked at in time.
    complete: bool,
    changes: Vec<ChangeView<'a>>,
}

/// An answer that would be another.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ReplayedChange")]
struct ChangeView<'a> {
    #[schemars(with = "Id<DecisionId>")]
    decision_id: DecisionId,
    #[schemars(with = "Millis")]
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<SessionId>>")]
    session_id: Option<SessionId>,
    #[schemars(with = "OperationOf")]
    operation: OperationKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<BindingId>>")]
    binding: Option<BindingId>,
    /// What the plugin answered, if it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<SaidView>,
    /// What it would have answered.
    after: SaidView,
    /// What all answers folded to, in a word.
    verdict_before: &'a str,
    /// What they would have folded to.
    verdict_after: &'a str,
}

/// One answer: a decision, or the code of a failure.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SaidAnswer")]
struct SaidView {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Open>")]
    decision: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
}

impl SaidView {
    fn of(result: &Result<Decision, PluginFailure>) -> Self {
        Self {
            decision: result.as_ref().ok().map(|decision| camel(json!(decision))),
            failure: result.as_ref().err().map(|failure| failure.code()),
        }
    }
}

impl<'a> ReplayedView<'a> {
    fn of(replayed: &'a Replayed) -> Self {
        let change = |change: &'a Change| ChangeView {
            decision_id: change.decision,
            at: change.at,
            session_id: change.session,
            operation: change.operation,
            binding: change.binding,
            before: change.before.as_ref().map(SaidView::of),
            after: SaidView::of(&change.after),
            verdict_before: change.verdict_before,
            verdict_after: change.verdict_after,
        };
        Self {
            version: replayed.version,
            asked: replayed.asked,
            same: replayed.same,
            changed: replayed.changes.len(),
            not_exact: replayed.not_exact,
            erased: replayed.erased,
            too_large: replayed.too_large,
            never_asked: replayed.never_asked,
            complete: replayed.complete,
            changes: replayed.changes.iter().map(change).collect(),
        }
    }
}

/// What would be answered about a page of sessions.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Scan")]
pub(super) struct ScannedView<'a> {
    /// Which version was asked.
    version: u32,
    /// How many sessions were looked at.
    sessions: usize,
    /// How often each kind of answer would be given.
    answers: &'a std::collections::BTreeMap<&'static str, usize>,
    /// What would be denied, put off, asked back or fail.
    rows: Vec<RowView>,
    /// Where the next page begins; this was the last if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<SessionId>>")]
    next_cursor: Option<SessionId>,
}

/// An operation that would not simply be done.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ScannedRow")]
struct RowView {
    #[schemars(with = "Id<SessionId>")]
    session_id: SessionId,
    #[schemars(with = "OperationOf")]
    operation: OperationKind,
    answer: SaidView,
}

impl<'a> ScannedView<'a> {
    fn of(scanned: &'a Scanned) -> Self {
        let row = |row: &ScanRow| RowView {
            session_id: row.session,
            operation: row.operation,
            answer: SaidView::of(&row.answer),
        };
        Self {
            version: scanned.version,
            sessions: scanned.sessions,
            answers: &scanned.answers,
            rows: scanned.rows.iter().map(row).collect(),
            next_cursor: scanned.next,
        }
    }
}

pub(super) fn replayed(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Replayed(replayed) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &ReplayedView::of(&replayed))
}

pub(super) fn scanned(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Scanned(scanned) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &ScannedView::of(&scanned))
}
