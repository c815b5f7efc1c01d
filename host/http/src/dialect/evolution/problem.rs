//! The error envelope, and what the service's errors are called in it.
//!
//! `{"status", "error", "response": {"message"}}`: the status again, its reason, and a text in a list; what a body has wrong is a
//! list in that list. The recorded decision and a plugin's own code stand beside the message.

use hyper::StatusCode;
use portcullis_core::{Denial, Refusal};
use portcullis_service::{SendError, ServiceError};
use serde_json::{Value, json};

use super::{jid, schema};
use crate::dialect::{Dialect, Fault, Problem, Told, confirmation, whole_seconds};
use crate::exchange::Reply;

/// What a session that is being deleted answers.
pub(super) const REMOVING: &str = "Deletion in progress";

/// A problem in its envelope.
pub(crate) fn envelope(problem: &Problem) -> Reply {
    let response = problem.details.clone().unwrap_or_else(|| json!({ "message": [problem.message] }));
    let body = json!({ "status": problem.status.as_u16(), "error": problem.code, "response": response });
    Reply::json(problem.status, &body)
}

/// What the server found wrong.
pub(crate) fn fault(fault: &Fault) -> Problem {
    let unavailable = |message: &str| rejected(StatusCode::SERVICE_UNAVAILABLE, message).after(1);
    match fault {
        Fault::Unauthenticated => unauthenticated(),
        // A path that is there with another method is not there, as clients of this dialect know it.
        Fault::NoRoute { method, target } | Fault::WrongMethod { method, target, .. } => {
            rejected(StatusCode::NOT_FOUND, format!("Cannot {method} {target}"))
        }
        Fault::TargetTooLong => rejected(StatusCode::URI_TOO_LONG, "the request target is too long"),
        Fault::TooLarge { max } => {
            rejected(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {max} bytes"))
        }
        Fault::BrokenBody => bad("the body did not arrive whole"),
        Fault::SlowBody => rejected(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
        Fault::Query(what) => bad(what.as_str()),
        Fault::NoSession => bad("\"instanceName\" not provided."),
        Fault::UnknownSession { name } => unknown(name),
        Fault::TimedOut => unavailable("request timed out"),
        Fault::NotReady => unavailable("not ready: the store does not answer"),
        // Tokens of people open nothing in this dialect.
        Fault::NoOrganisation => unauthenticated(),
        Fault::NoKeys => unavailable("the identity provider does not answer"),
        Fault::Internal => plain(StatusCode::INTERNAL_SERVER_ERROR, "internal server error"),
    }
}

/// A request whose content is wrong.
pub(super) fn bad(text: impl Into<String>) -> Problem {
    rejected(StatusCode::BAD_REQUEST, text)
}

/// A request whose content is wrong, in the words that clients know, and why.
pub(super) fn because(text: &str, why: impl Into<String>) -> Problem {
    bad(text).with_details(json!({ "message": [text, why.into()] }))
}

/// A body whose form is wrong.
pub(super) fn invalid(errors: &[String]) -> Problem {
    let text = errors.join("; ");
    bad(text).with_details(json!({ "message": [errors] }))
}

/// A body that is no JSON. Its reason is the one that clients of this dialect know, though it is their fault.
pub(super) fn no_json(error: &str) -> Problem {
    let message = format!("the body is no JSON document: {error}");
    let mut problem = plain(StatusCode::BAD_REQUEST, &message);
    problem.code = "Internal Server Error";
    problem
}

/// What went wrong in the service.
pub(crate) fn refuse(error: &ServiceError, told: &Told<'_>) -> Reply {
    Dialect::Evolution.problem(&from_service(error, told))
}

/// The same where a session is connected: what its state does not allow is no error of HTTP's, as clients of this dialect know it.
pub(super) fn refuse_connecting(error: &ServiceError, told: &Told<'_>) -> Reply {
    match error {
        ServiceError::Refused(refusal) => {
            Reply::json(StatusCode::OK, &json!({ "error": true, "message": refused(*refusal, told.session) }))
        }
        error => refuse(error, told),
    }
}

/// The same where a session is created: its name stands in the body.
pub(super) fn refuse_creating(error: &ServiceError, told: &Told<'_>) -> Reply {
    match error {
        ServiceError::NameTaken => {
            let body = schema::again(told.request);
            let name = schema::text(&body, "instanceName").unwrap_or_default().trim();
            let text = format!("This name \"{name}\" is already in use.");
            Dialect::Evolution.problem(&rejected(StatusCode::FORBIDDEN, text))
        }
        error => refuse(error, told),
    }
}

/// The same where a text is sent: who does not take it is named.
pub(super) fn refuse_sending(error: &ServiceError, told: &Told<'_>) -> Reply {
    match error {
        ServiceError::Send(SendError::UnknownRecipient) => {
            let body = schema::again(told.request);
            Dialect::Evolution.problem(&nobody(schema::text(&body, "number").unwrap_or_default()))
        }
        error => refuse(error, told),
    }
}

/// Nobody takes messages under this number.
pub(super) fn nobody(number: &str) -> Problem {
    let jid = jid::from_number(number);
    if jid.ends_with("@g.us") {
        return rejected(StatusCode::NOT_FOUND, "Group not found");
    }
    let row = json!({ "jid": jid, "exists": false, "number": number });
    bad("the recipient is not on WhatsApp").with_details(json!({ "message": [row] }))
}

/// No instance has this name, or the caller may not know.
fn unknown(name: &str) -> Problem {
    rejected(StatusCode::NOT_FOUND, format!("The \"{name}\" instance does not exist"))
}

fn unauthenticated() -> Problem {
    plain(StatusCode::UNAUTHORIZED, "Unauthorized")
}

/// A text in a list.
pub(super) fn rejected(status: StatusCode, text: impl Into<String>) -> Problem {
    Problem::new(status, status.canonical_reason().unwrap_or("Error"), text)
}

/// A text in no list.
fn plain(status: StatusCode, text: &str) -> Problem {
    rejected(status, text).with_details(json!({ "message": text }))
}

/// What a session's state does not allow.
pub(super) fn refused(refusal: Refusal, name: &str) -> String {
    match refusal {
        Refusal::NotPaired | Refusal::NotRunning => format!("The \"{name}\" instance is not connected"),
        Refusal::AlreadyPaired => format!("The \"{name}\" instance is already connected"),
        Refusal::LoggingOut => format!("The \"{name}\" instance is being logged out"),
        Refusal::AlreadyPairing => format!("The \"{name}\" instance is already connecting"),
        Refusal::PendingDelete => format!("The \"{name}\" instance is scheduled for deletion"),
        Refusal::NotPendingDelete => format!("The \"{name}\" instance is not scheduled for deletion"),
        Refusal::Removing => REMOVING.to_owned(),
    }
}

fn from_service(error: &ServiceError, told: &Told<'_>) -> Problem {
    let text = error.to_string();
    match error {
        ServiceError::NotFound(_) if !told.session.is_empty() => unknown(told.session),
        ServiceError::NotFound(_) | ServiceError::EventGone => rejected(StatusCode::NOT_FOUND, text),
        ServiceError::Denied(denial) => match denial {
            Denial::Forbidden(_) => rejected(StatusCode::FORBIDDEN, text),
            Denial::Hidden if !told.session.is_empty() => unknown(told.session),
            // Who is bound to one session and asks for what is about all of them has the wrong key.
            Denial::Unauthenticated | Denial::Hidden => unauthenticated(),
        },
        ServiceError::Suspended | ServiceError::Quota { .. } | ServiceError::Subscription { .. } => {
            rejected(StatusCode::FORBIDDEN, text)
        }
        ServiceError::Refused(refusal) => bad(refused(*refusal, told.session)),
        ServiceError::Vetoed { decision, denials } => {
            let mut response = json!({ "message": [text], "decisionId": decision });
            if let Some(veto) = denials.first() {
                response["code"] = json!(veto.code);
                response["plugin"] = json!(veto.plugin);
            }
            let vetoes =
                denials.iter().map(|veto| json!({ "plugin": veto.plugin, "code": veto.code, "message": veto.message }));
            response["vetoes"] = vetoes.collect();
            let mut problem = rejected(StatusCode::FORBIDDEN, text).with_details(response);
            problem.retry_after = denials.first().and_then(|veto| veto.retry_after);
            problem
        }
        ServiceError::ConfirmationRequired { decision, prompts, token, rejected: why } => {
            let confirmation = confirmation(prompts, token.as_ref(), *why);
            let response = json!({ "message": [text], "decisionId": decision, "confirmation": confirmation });
            rejected(StatusCode::PRECONDITION_REQUIRED, text).with_details(response)
        }
        ServiceError::Limited { decision, retry_after, .. } => {
            let mut response = json!({ "message": [text] });
            if let Some(decision) = decision {
                response["decisionId"] = json!(decision);
            }
            let problem = rejected(StatusCode::TOO_MANY_REQUESTS, text).with_details(response);
            problem.after(whole_seconds(*retry_after))
        }
        ServiceError::NameTaken => rejected(StatusCode::FORBIDDEN, text),
        ServiceError::Invalid { field: "url", .. } => because("Invalid \"url\" property", text),
        ServiceError::Invalid { field: "proxy", .. } => because("Invalid proxy", text),
        ServiceError::TokenTaken
        | ServiceError::Invalid { .. }
        | ServiceError::Settings { .. }
        | ServiceError::Signature(_)
        | ServiceError::Admission(_)
        | ServiceError::Send(SendError::Refused | SendError::UnknownRecipient) => bad(text),
        ServiceError::Send(SendError::Limited) => rejected(StatusCode::TOO_MANY_REQUESTS, text),
        ServiceError::Send(SendError::Unconfirmed) => rejected(StatusCode::SERVICE_UNAVAILABLE, text),
        ServiceError::Send(SendError::NotConnected) => bad("Error: Connection Closed"),
        ServiceError::IdempotencyMismatch => rejected(StatusCode::UNPROCESSABLE_ENTITY, text),
        ServiceError::IdempotencyKeyTaken
        | ServiceError::RequestUnderWay
        | ServiceError::AlreadyShown
        | ServiceError::ReplyLost
        | ServiceError::NoCandidate
        | ServiceError::NoPrevious
        | ServiceError::SameMasterKey
        | ServiceError::UnderWay(_)
        | ServiceError::InUse(_)
        | ServiceError::WebhookOff
        | ServiceError::FactTaken
        | ServiceError::DryRun
        | ServiceError::Simulator(_) => rejected(StatusCode::CONFLICT, text),
        ServiceError::Backlog { retry_after } => {
            rejected(StatusCode::TOO_MANY_REQUESTS, text).after(whole_seconds(*retry_after))
        }
        ServiceError::Busy { retry_after } => {
            rejected(StatusCode::SERVICE_UNAVAILABLE, text).after(whole_seconds(*retry_after))
        }
        ServiceError::Contention | ServiceError::MasterKey(_) | ServiceError::Store(_) => {
            rejected(StatusCode::SERVICE_UNAVAILABLE, text).after(1)
        }
    }
}

/// What only was to be tried.
pub(super) fn dry_run(verdict: &portcullis_core::Verdict) -> Reply {
    success(StatusCode::OK, &crate::dialect::dry_run(verdict))
}

/// The envelope of what was done and has nothing to show.
pub(super) fn success(status: StatusCode, response: &Value) -> Reply {
    Reply::json(status, &json!({ "status": "SUCCESS", "error": false, "response": response }))
}

#[cfg(test)]
mod test {
    use std::time::Duration;

    use bytes::Bytes;
    use hyper::HeaderMap;
    use portcullis_core::verdict::Prompt;
    use portcullis_core::{Capability, DecisionId, Secret, Timestamp};

    use super::*;
    use crate::exchange::Incoming;

    /// A request with this body.
    fn request(body: &Value) -> Incoming {
        Incoming {
            headers: HeaderMap::new(),
            params: Vec::new(),
            query: Vec::new(),
            body: Bytes::from(body.to_string()),
            ..Incoming::default()
        }
    }

    #[track_caller]
    fn check(refuse: crate::dialect::Refuse, error: &ServiceError, status: u16, message: &Value) -> Value {
        let request = request(&json!({ "instanceName": " t1 ", "number": "+62 855" }));
        let reply = refuse(error, &Told { session: "t1", found: None, request: &request, path: "" });
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!((reply.status.as_u16(), &body["response"]["message"]), (status, message), "{error:?}");
        assert_eq!(body["status"], status);
        body["response"].clone()
    }

    #[test]
    fn errors_of_the_service_have_their_statuses_and_texts() {
        let soon = Duration::from_millis(1500);
        let gone = json!(["The \"t1\" instance does not exist"]);
        let limited = || ServiceError::Limited { decision: None, message: "slow down".to_owned(), retry_after: soon };
        check(refuse, &ServiceError::NotFound("session"), 404, &gone);
        check(refuse, &Denial::Hidden.into(), 404, &gone);
        check(refuse, &Denial::Unauthenticated.into(), 401, &json!("Unauthorized"));
        let missing = json!(["missing required capability: manage"]);
        check(refuse, &Denial::Forbidden(Capability::Manage).into(), 403, &missing);
        check(
            refuse,
            &ServiceError::Quota { of: "sessions", max: 1 },
            403,
            &json!(["quota reached: at most 1 sessions"]),
        );
        check(refuse, &ServiceError::TokenTaken, 400, &json!(["this token cannot be used; choose another"]));
        check(refuse, &Refusal::Removing.into(), 400, &json!(["Deletion in progress"]));
        check(refuse, &Refusal::NotRunning.into(), 400, &json!(["The \"t1\" instance is not connected"]));
        check(refuse, &SendError::NotConnected.into(), 400, &json!(["Error: Connection Closed"]));
        check(refuse, &limited(), 429, &json!(["slow down"]));
        check(refuse_connecting, &limited(), 429, &json!(["slow down"]));
        let busy = json!(["too many operations are under way; try again"]);
        check(refuse, &ServiceError::Busy { retry_after: soon }, 503, &busy);
        check(refuse_creating, &ServiceError::NameTaken, 403, &json!(["This name \"t1\" is already in use."]));
        let nobody = json!([{ "jid": "62855@s.whatsapp.net", "exists": false, "number": "+62 855" }]);
        check(refuse_sending, &SendError::UnknownRecipient.into(), 400, &nobody);
    }

    #[test]
    fn a_question_stands_beside_its_message() {
        let decision = DecisionId::from_bytes([7; 16]);
        let prompt = Prompt {
            plugin: "p".to_owned(),
            prompt: "Sure?".to_owned(),
            expires: Timestamp::from_millis(5),
            answer: None,
        };
        let token = Some(Secret::new("once"));
        let error = ServiceError::ConfirmationRequired { decision, prompts: vec![prompt], token, rejected: None };
        let response = check(refuse_connecting, &error, 428, &json!(["confirmation required"]));
        assert_eq!(response["decisionId"], json!(decision));
        assert_eq!(response["confirmation"], json!({ "token": "once", "prompt": "Sure?", "expires_at": 5 }));
    }

    #[test]
    fn what_a_state_does_not_allow_is_no_error_where_instances_connect() {
        let told = Told { session: "t1", found: None, request: &request(&json!({})), path: "" };
        let reply = refuse_connecting(&Refusal::NotRunning.into(), &told);
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(body, json!({ "error": true, "message": "The \"t1\" instance is not connected" }));
    }
}
