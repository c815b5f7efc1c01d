//! What happens to an instance: connect, restart, read, log out, delete.

use std::time::Duration;

use hyper::StatusCode;
use portcullis_core::operation::{WhenStopped, WhenUnpaired};
use portcullis_core::{Operation, Secret, Session, Status};
use portcullis_service::Outcome;
use serde_json::json;

use super::schema::{self, Field, Kind, Schema};
use super::{create, instance_session, message, mismatch, operate, problem, view};
use crate::asked::{Answer, Asked, SessionFilter, WaitFor};
use crate::dialect::{Dialect, Problem};
use crate::exchange::{Incoming, Reply};
use crate::routes::EncodeContext;

/// How long an answer waits for a code.
const CODE_WAIT: WaitFor = WaitFor::PairingCode(Duration::from_secs(2));
/// How long a delete waits for its receipt.
const DELETE_WAIT: WaitFor = WaitFor::Gone(Duration::from_secs(20));
/// The longest name, id or number that is looked for, in bytes.
const MAX_FILTER: usize = 512;

const PRESENCE: Schema = &[Field::required("presence", Kind::Choice(message::PRESENCES))];

pub(super) fn connect(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = instance_session(incoming)?;
    match incoming.query("number").filter(|number| !number.is_empty()) {
        Some(number) => Ok(Asked::PairOrStart { session, phone: Secret::new(create::phone(number)?), then: CODE_WAIT }),
        None => {
            let operation = Operation::SessionStart { session, when_unpaired: WhenUnpaired::Pair };
            Ok(Asked::Operate { operation, then: CODE_WAIT })
        }
    }
}

pub(super) fn restart(incoming: &Incoming) -> Result<Asked, Problem> {
    let operation = Operation::SessionRestart {
        session: instance_session(incoming)?,
        when_unpaired: WhenUnpaired::Pair,
        when_stopped: WhenStopped::Refuse,
    };
    Ok(Asked::Operate { operation, then: CODE_WAIT })
}

pub(super) fn get(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Session { session: instance_session(incoming)? })
}

/// The first of the three that is there decides.
pub(super) fn list(incoming: &Incoming) -> Result<Asked, Problem> {
    let given = |name: &str| incoming.query(name).filter(|text| !text.is_empty());
    let filter = if let Some(name) = given("instanceName") {
        SessionFilter::InstanceName(name.to_owned())
    } else if let Some(id) = given("instanceId") {
        SessionFilter::Uuid(id.to_owned())
    } else if let Some(number) = given("number") {
        SessionFilter::Phone(number.chars().filter(char::is_ascii_digit).collect())
    } else {
        SessionFilter::All
    };
    if wanted(incoming).is_some_and(|text| text.len() > MAX_FILTER) {
        return Err(problem::bad(format!("what is looked for must be at most {MAX_FILTER} bytes")));
    }
    Ok(Asked::FindSessions(filter))
}

/// What is looked for; none if all are listed.
fn wanted(incoming: &Incoming) -> Option<&str> {
    let given = |name: &str| incoming.query(name).filter(|text| !text.is_empty());
    given("instanceName").or_else(|| given("instanceId")).or_else(|| given("number"))
}

pub(super) fn set_presence(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = instance_session(incoming)?;
    let presence = message::presence(&schema::read(incoming, PRESENCE)?);
    operate(Operation::PresenceSet { session, chat: None, presence, hold_millis: 0 })
}

pub(super) fn logout(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = instance_session(incoming)?;
    operate(Operation::SessionLogout { session, when_stopped: WhenStopped::Refuse })
}

pub(super) fn delete(incoming: &Incoming) -> Result<Asked, Problem> {
    let operation = Operation::SessionDelete { session: instance_session(incoming)? };
    Ok(Asked::Operate { operation, then: DELETE_WAIT })
}

pub(super) fn verify(_incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Nothing)
}

// === replies ===

/// The state of what is connected, and otherwise what the phone has to be shown.
pub(super) fn connecting(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    show(answer, |session| match session.status {
        Status::Online { .. } => view::instance_state(session),
        _ => view::code(session),
    })
}

/// The state of what is linked, and otherwise what the phone has to be shown.
pub(super) fn restarting(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    show(answer, |session| {
        if session.linked_device().is_none() {
            return view::code(session);
        }
        let mut view = view::instance_state(session);
        view["instance"]["status"] = view["instance"]["state"].clone();
        view
    })
}

fn show(answer: Answer, view: impl Fn(&Session) -> serde_json::Value) -> Reply {
    let Answer::Operated(done) = answer else { return mismatch() };
    match (&done.outcome, &done.session) {
        (Outcome::DryRun(verdict), _) => problem::dry_run(verdict),
        (_, Some(session)) => Reply::json(StatusCode::OK, &view(session)),
        (_, None) => mismatch(),
    }
}

pub(super) fn state(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Session(session) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &view::instance_state(&session))
}

pub(super) fn listed(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Found(found) = answer else { return mismatch() };
    if let (true, Some(wanted)) = (found.is_empty(), wanted(context.request)) {
        let text = format!("Instance \"{wanted}\" not found");
        return Dialect::Evolution.problem(&problem::rejected(StatusCode::NOT_FOUND, text));
    }
    let rows: Vec<_> = found.iter().map(|session| view::row(session, context)).collect();
    Reply::json(StatusCode::OK, &rows)
}

pub(super) fn logged_out(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Operated(done) = answer else { return mismatch() };
    match &done.outcome {
        Outcome::DryRun(verdict) => problem::dry_run(verdict),
        // It was logged out already, which clients of this dialect know as an error.
        Outcome::Unchanged => {
            let text = problem::refused(portcullis_core::Refusal::NotRunning, context.session);
            Dialect::Evolution.problem(&problem::bad(text))
        }
        _ => problem::success(StatusCode::OK, &json!({ "message": "Instance logged out" })),
    }
}

/// 200 once the instance is gone; 202 while it waits to be deleted, or its deletion takes longer than the answer can wait.
pub(super) fn deleted(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let done = match answer {
        Answer::Gone(_) => return problem::success(StatusCode::OK, &json!({ "message": "Instance deleted" })),
        Answer::Operated(done) => done,
        _ => return mismatch(),
    };
    let due = match &done.outcome {
        Outcome::DryRun(verdict) => return problem::dry_run(verdict),
        Outcome::Unchanged => return Dialect::Evolution.problem(&problem::bad(problem::REMOVING)),
        Outcome::Deferred { until, .. } => *until,
        _ => context.now,
    };
    let response = json!({ "message": "Instance scheduled for deletion", "deleteAt": view::iso(due) });
    problem::success(StatusCode::ACCEPTED, &response)
}

#[expect(clippy::needless_pass_by_value, reason = "an encoder of the table takes its answer")]
pub(super) fn verified(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Permitted = answer else { return mismatch() };
    let body = json!({
        "status": 200,
        "message": "Credentials are valid",
        "facebookAppId": null,
        "facebookConfigId": null,
        "facebookUserToken": null,
    });
    Reply::json(StatusCode::OK, &body)
}
