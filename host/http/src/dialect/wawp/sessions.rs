//! Sessions: made, started, stopped, restarted, logged out, deleted and read.

use std::time::Duration;

use hyper::StatusCode;
use portcullis_core::operation::{CreateSession, WhenStopped, WhenUnpaired};
use portcullis_core::session::PairingMethod;
use portcullis_core::{Intent, Operation, Session, Status};
use portcullis_service::Outcome;
use serde_json::{Value, json};

use super::{mismatch, operate, params, problem, told, view};
use crate::asked::{Answer, Asked, WaitFor};
use crate::dialect::{Problem, dry_run};
use crate::exchange::{Incoming, Reply};
use crate::routes::EncodeContext;

/// How long a delete waits for its receipt.
const DELETE_WAIT: Duration = Duration::from_secs(20);

pub(super) fn create(incoming: &Incoming) -> Result<Asked, Problem> {
    params::check_body(incoming).map_err(problem::invalid)?;
    operate(Operation::SessionCreate(CreateSession::default()))
}

pub(super) fn start(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::SessionStart { session: params::session(incoming)?, when_unpaired: WhenUnpaired::Pair })
}

pub(super) fn stop(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::SessionStop { session: params::session(incoming)? })
}

pub(super) fn restart(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::SessionRestart {
        session: params::session(incoming)?,
        when_unpaired: WhenUnpaired::Pair,
        when_stopped: WhenStopped::Connect,
    })
}

pub(super) fn logout(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::SessionLogout { session: params::session(incoming)?, when_stopped: WhenStopped::Refuse })
}

pub(super) fn delete(incoming: &Incoming) -> Result<Asked, Problem> {
    let operation = Operation::SessionDelete { session: params::session(incoming)? };
    Ok(Asked::Operate { operation, then: WaitFor::Gone(DELETE_WAIT) })
}

pub(super) fn get(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Session { session: params::session(incoming)? })
}

// === replies ===

pub(super) fn created(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    after(answer, |session| {
        let mut body = view::session(session, context);
        body.session_name = Some(&session.names.wawp_name);
        Reply::json(StatusCode::CREATED, &body)
    })
}

pub(super) fn session(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    after(answer, |session| Reply::json(StatusCode::OK, &view::session(session, context)))
}

pub(super) fn logged_out(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    after(answer, |session| Reply::json(StatusCode::OK, &ended(session, view::status(session))))
}

/// 200 once the session is gone; 202 while it waits to be deleted or is being deleted, which is a delete that is due now.
pub(super) fn deleted(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    if let Answer::Gone(_) = answer {
        return match context.found {
            Some(session) => Reply::json(StatusCode::OK, &ended(session, "DELETED")),
            // It was gone before anybody heard of it, and its name with it; the request says the rest.
            None => Reply::json(StatusCode::OK, &json!({ "status": "DELETED", "instance_id": context.session })),
        };
    }
    after(answer, |session| {
        let mut body = ended(session, "PENDING_DELETE");
        if let Intent::Removed { due, .. } = session.intent {
            body["delete_at"] = json!(view::iso(due));
        }
        Reply::json(StatusCode::ACCEPTED, &body)
    })
}

/// The session, with a picture of its code for whoever may link it.
pub(super) fn info(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Session(session) = answer else { return mismatch() };
    let mut body = view::session(&session, context);
    if let Status::Pairing { method: PairingMethod::Qr, code: Some(code), .. } = &session.status
        && context.may_manage
        && let Ok(picture) = portcullis_qr::data_url(code.text.reveal())
    {
        body.qr = Some(picture);
        // A code is a credential: no cache may keep it.
        return Reply::json(StatusCode::OK, &body).with("cache-control", "no-store");
    }
    Reply::json(StatusCode::OK, &body)
}

/// The linked account. Which kind of phone it is, WhatsApp does not tell.
pub(super) fn me(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Session(session) = answer else { return mismatch() };
    let Some(device) = session.linked_device() else {
        return told(&problem::not_linked(view::status(&session)));
    };
    let mut body = view::me(device);
    body["platform"] = Value::Null;
    Reply::json(StatusCode::OK, &body)
}

/// What is left to say about a session that is done with.
fn ended(session: &Session, status: &str) -> Value {
    json!({ "name": session.names.wawp_name, "status": status, "instance_id": session.names.instance_id })
}

/// The reply about a session as an operation left it; or about what only was to be tried.
pub(super) fn after(answer: Answer, show: impl FnOnce(&Session) -> Reply) -> Reply {
    let Answer::Operated(done) = answer else { return mismatch() };
    match (&done.outcome, &done.session) {
        (Outcome::DryRun(verdict), _) => Reply::json(StatusCode::OK, &dry_run(verdict)),
        (_, Some(session)) => show(session),
        // It was deleted while the reply waited.
        (_, None) => told(&problem::unknown_session()),
    }
}

#[cfg(test)]
mod test {
    use std::sync::Arc;

    use super::super::view::test::{context, pairing, session_with};
    use super::*;

    fn body(reply: &Reply) -> Value {
        serde_json::from_slice(&reply.body).unwrap()
    }

    #[test]
    fn only_who_may_link_a_session_sees_its_code() {
        let session = Arc::new(session_with(pairing(PairingMethod::Qr, Some("2@code"))));
        let shown = info(&context(), Answer::Session(Arc::clone(&session)));
        assert!(body(&shown)["qr"].as_str().unwrap().starts_with("data:image/png;base64,"));
        assert!(shown.headers.iter().any(|(name, value)| *name == "cache-control" && value == "no-store"));
        let reader = EncodeContext { may_manage: false, ..context() };
        assert_eq!(body(&info(&reader, Answer::Session(session)))["qr"], Value::Null);
    }

    #[test]
    fn a_code_to_type_is_no_picture() {
        let session = Arc::new(session_with(pairing(PairingMethod::Code, Some("ABCD-1234"))));
        let shown = body(&info(&context(), Answer::Session(session)));
        assert_eq!((&shown["status"], &shown["qr"]), (&json!("SCAN_QR_CODE"), &Value::Null));
    }
}
