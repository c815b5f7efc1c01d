//! The error object, a superset of those that clients read, and what the service's errors are called in it.
//!
//! `{"code", "message", "status", "error"}`, always as JSON. Beside them, where there is more to say: `reason`, the gateway's own stable code of
//! what exactly happened; `decision_id`; `retry_after` in seconds; and what a policy says.

use hyper::StatusCode;
use portcullis_core::{Denial, Refusal};
use portcullis_service::{SendError, ServiceError};
use serde_json::{Value, json};

use super::view;
use crate::dialect::{Dialect, Fault, Problem, Told, confirmation, whole_seconds};
use crate::exchange::Reply;

/// The error object, with the details beside the rest.
pub(crate) fn envelope(problem: &Problem) -> Reply {
    let mut body = json!({
        "code": problem.code,
        "message": problem.message,
        "status": problem.status.as_u16(),
        "error": problem.status.canonical_reason(),
    });
    if let Some(Value::Object(details)) = &problem.details {
        for (name, value) in details {
            body[name] = value.clone();
        }
    }
    if let Some(seconds) = problem.retry_after {
        body["retry_after"] = json!(seconds);
    }
    Reply::json(problem.status, &body)
}

/// What the server found wrong.
pub(crate) fn fault(fault: &Fault) -> Problem {
    let unavailable = |message: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
    match fault {
        Fault::Unauthenticated => unauthenticated(),
        Fault::NoOrganisation => Problem::new(StatusCode::FORBIDDEN, "forbidden", "no active organisation"),
        Fault::NoKeys => unavailable("the identity provider does not answer").after(60),
        Fault::NoRoute { .. } => Problem::new(StatusCode::NOT_FOUND, "not_found", "route not found"),
        Fault::WrongMethod { allowed, .. } => {
            let message = format!("method not allowed; the path takes {allowed}");
            let mut problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
            problem.allow = Some(allowed.clone());
            problem
        }
        Fault::TargetTooLong => {
            Problem::new(StatusCode::URI_TOO_LONG, "invalid_parameter", "the request target is too long")
        }
        Fault::TooLarge { max } => {
            let message = format!("the body is larger than {max} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
        }
        Fault::BrokenBody => invalid("the body did not arrive whole"),
        Fault::SlowBody => {
            Problem::new(StatusCode::REQUEST_TIMEOUT, "invalid_parameter", "the body did not arrive in time")
        }
        Fault::Query(what) => invalid(what),
        Fault::NoSession => missing("instance_id"),
        Fault::UnknownSession { .. } => unknown_session(),
        Fault::TimedOut => unavailable("request timed out").after(1),
        Fault::NotReady => unavailable("not ready: the store does not answer"),
        Fault::Internal => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "internal server error"),
    }
}

/// A parameter that has to be there and is not.
pub(super) fn missing(name: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "missing_parameter", format!("{name} is required"))
}

/// A parameter, or all of them, that is not what it has to be.
pub(super) fn invalid(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_parameter", message)
}

/// A session that is not there, or of which the caller may not know. The words are upstream's.
pub(super) fn unknown_session() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "invalid_session", "Session does not exist")
}

/// A session with which nothing can be sent.
pub(super) fn not_connected(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "invalid_session", message)
}

/// A session that is linked to no account.
pub(super) fn not_linked(status: &str) -> Problem {
    not_connected(format!("session is linked to no account; its status is {status}"))
}

/// There is no code of the kind that was asked for, or not yet.
pub(super) fn no_code(status: &str) -> Problem {
    let message = format!("no such code to show; the session's status is {status}, try again later or restart it");
    Problem::new(StatusCode::BAD_REQUEST, "invalid_session_status", message)
}

/// Something behind the gateway failed.
pub(super) fn upstream(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, "wawp_upstream_error", message)
}

fn unauthenticated() -> Problem {
    let message = "missing or invalid access_token, or two different values for one credential";
    Problem::new(StatusCode::UNAUTHORIZED, "invalid_access_token", message)
}

/// What went wrong in the service, in this dialect.
pub(super) fn refuse(error: &ServiceError, told: &Told<'_>) -> Reply {
    let mut problem = from_service(error, told);
    // What does not exist, for this caller, is the same in every byte, whatever the reason is.
    let is_hidden =
        matches!(error, ServiceError::NotFound(_) | ServiceError::Denied(Denial::Hidden | Denial::Unauthenticated));
    if !is_hidden {
        let details = problem.details.get_or_insert_with(|| json!({}));
        details["reason"] = json!(error.code());
        if let Some(decision) = error.decision() {
            details["decision_id"] = json!(decision);
        }
    }
    Dialect::Wawp.problem(&problem)
}

fn from_service(error: &ServiceError, told: &Told<'_>) -> Problem {
    let message = error.to_string();
    let problem = |status, code| Problem::new(status, code, message.clone());
    match error {
        ServiceError::NotFound("session") | ServiceError::Denied(Denial::Hidden) => unknown_session(),
        ServiceError::NotFound(_) | ServiceError::EventGone => problem(StatusCode::NOT_FOUND, "not_found"),
        ServiceError::Denied(Denial::Unauthenticated) => unauthenticated(),
        ServiceError::Denied(Denial::Forbidden(_)) | ServiceError::Suspended => {
            problem(StatusCode::FORBIDDEN, "forbidden")
        }
        ServiceError::Refused(refusal) => {
            let message = refused(*refusal, told);
            Problem::new(StatusCode::BAD_REQUEST, "invalid_session_status", message)
        }
        ServiceError::Vetoed { denials, .. } => {
            let vetoes: Vec<Value> = denials
                .iter()
                .map(|veto| json!({ "plugin": veto.plugin, "code": veto.code, "message": veto.message }))
                .collect();
            let mut problem = problem(StatusCode::FORBIDDEN, "forbidden").with_details(json!({ "vetoes": vetoes }));
            problem.retry_after = denials.first().and_then(|veto| veto.retry_after);
            problem
        }
        ServiceError::ConfirmationRequired { prompts, token, rejected, .. } => {
            problem(StatusCode::PRECONDITION_REQUIRED, "confirmation_required")
                .with_details(json!({ "confirmation": confirmation(prompts, token.as_ref(), *rejected) }))
        }
        ServiceError::Limited { retry_after, .. } | ServiceError::Backlog { retry_after } => {
            problem(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded").after(whole_seconds(*retry_after))
        }
        ServiceError::IdempotencyMismatch => problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_parameter"),
        ServiceError::RequestUnderWay | ServiceError::AlreadyShown | ServiceError::ReplyLost => {
            problem(StatusCode::CONFLICT, "invalid_parameter")
        }
        ServiceError::Quota { .. } => problem(StatusCode::FORBIDDEN, "quota_reached"),
        ServiceError::Subscription { .. } => problem(StatusCode::FORBIDDEN, "subscription_required"),
        ServiceError::Send(SendError::NotConnected) => not_connected(message),
        ServiceError::Send(SendError::Refused | SendError::Unconfirmed) => upstream(message),
        ServiceError::Send(SendError::Limited) => problem(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
        ServiceError::Send(SendError::UnknownRecipient)
        | ServiceError::Invalid { .. }
        | ServiceError::IdempotencyKeyTaken
        | ServiceError::NameTaken
        | ServiceError::TokenTaken
        | ServiceError::Settings { .. }
        | ServiceError::NoCandidate
        | ServiceError::NoPrevious
        | ServiceError::SameMasterKey
        | ServiceError::UnderWay(_)
        | ServiceError::WebhookOff
        | ServiceError::InUse(_)
        | ServiceError::Admission(_)
        | ServiceError::Signature(_)
        | ServiceError::FactTaken
        | ServiceError::DryRun
        | ServiceError::Simulator(_) => invalid(message),
        ServiceError::Busy { retry_after } => {
            problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable").after(whole_seconds(*retry_after))
        }
        ServiceError::Contention | ServiceError::MasterKey(_) | ServiceError::Store(_) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable").after(1)
        }
    }
}

/// What cannot be done to a session in its state, with the status that its owner knows and what to do instead.
fn refused(refusal: Refusal, told: &Told<'_>) -> String {
    let what = match refusal {
        Refusal::NotRunning => "session is not running; start it first, or delete it",
        Refusal::AlreadyPaired => "session is linked already; log it out first",
        Refusal::NotPaired
        | Refusal::AlreadyPairing
        | Refusal::LoggingOut
        | Refusal::PendingDelete
        | Refusal::Removing
        | Refusal::NotPendingDelete => return refusal.to_string(),
    };
    match told.found {
        Some(session) => format!("{what} (its status was {})", view::status(session)),
        None => what.to_owned(),
    }
}

#[cfg(test)]
mod test {
    use std::time::Duration;

    use portcullis_core::verdict::{Prompt, Veto};
    use portcullis_core::{Capability, DecisionId, Secret, Status, Timestamp};

    use super::super::view::test::session_with;
    use super::*;
    use crate::exchange::Incoming;

    #[test]
    fn every_error_of_the_service_has_its_status_and_code() {
        let session = session_with(Status::Stopped);
        let told = Told {
            session: "3EB0BCB2E3D4",
            found: Some(&session),
            request: &Incoming::default(),
            path: "/v2/send/text",
        };
        let check = |error: ServiceError, status: u16, code: &str| {
            let reply = refuse(&error, &told);
            let body: Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(reply.status.as_u16(), status, "{body}");
            assert_eq!((&body["status"], &body["code"]), (&json!(status), &json!(code)), "{body}");
            assert!(body["message"].is_string() && body["error"].is_string(), "{body}");
            body
        };
        let decision = DecisionId::from_bytes([3; 16]);
        let retry_after = Duration::from_millis(2_500);
        check(ServiceError::NotFound("session"), 404, "invalid_session");
        check(ServiceError::NotFound("organisation"), 404, "not_found");
        check(Denial::Hidden.into(), 404, "invalid_session");
        check(Denial::Unauthenticated.into(), 401, "invalid_access_token");
        check(Denial::Forbidden(Capability::Manage).into(), 403, "forbidden");
        check(ServiceError::Suspended, 403, "forbidden");
        for refusal in Refusal::ALL {
            check(refusal.into(), 400, "invalid_session_status");
        }
        check(ServiceError::Quota { of: "sessions", max: 1 }, 403, "quota_reached");
        check(ServiceError::Subscription { what: "this" }, 403, "subscription_required");
        check(SendError::NotConnected.into(), 404, "invalid_session");
        check(SendError::Refused.into(), 502, "wawp_upstream_error");
        check(SendError::UnknownRecipient.into(), 400, "invalid_parameter");
        check(ServiceError::IdempotencyKeyTaken, 400, "invalid_parameter");
        check(ServiceError::Busy { retry_after }, 503, "unavailable");
        check(ServiceError::Contention, 503, "unavailable");

        let veto = Veto {
            plugin: "grace-delete".to_owned(),
            code: "legal_hold".to_owned(),
            message: "held".to_owned(),
            retry_after: None,
            failure: None,
        };
        let body = check(ServiceError::Vetoed { decision, denials: vec![veto] }, 403, "forbidden");
        assert_eq!((&body["vetoes"][0]["code"], &body["reason"]), (&json!("legal_hold"), &json!("vetoed")));
        assert_eq!(body["decision_id"], json!(decision));

        let message = "too many".to_owned();
        let body =
            check(ServiceError::Limited { decision: Some(decision), message, retry_after }, 429, "rate_limit_exceeded");
        assert_eq!((&body["retry_after"], &body["decision_id"]), (&json!(3), &json!(decision)));

        let prompt = Prompt {
            plugin: "p".to_owned(),
            prompt: "Sure?".to_owned(),
            expires: Timestamp::from_millis(9),
            answer: None,
        };
        let token = Some(Secret::new("token"));
        let asked = ServiceError::ConfirmationRequired { decision, prompts: vec![prompt], token, rejected: None };
        let body = check(asked, 428, "confirmation_required");
        assert_eq!(body["confirmation"], json!({ "token": "token", "prompt": "Sure?", "expires_at": 9 }));
    }

    #[test]
    fn what_is_hidden_is_what_does_not_exist() {
        let session = session_with(Status::Stopped);
        let told = Told {
            session: "3EB0BCB2E3D4",
            found: Some(&session),
            request: &Incoming::default(),
            path: "/v2/session/info",
        };
        let hidden = refuse(&Denial::Hidden.into(), &told);
        let unknown = Dialect::Wawp.fault(&Fault::UnknownSession { name: "3EB0BCB2E3D4".to_owned() });
        assert_eq!((hidden.status, hidden.body), (unknown.status, unknown.body));
    }

    #[test]
    fn a_refusal_names_the_status_that_the_caller_knows() {
        let session = session_with(Status::Stopped);
        let told = Told { session: "", found: Some(&session), request: &Incoming::default(), path: "" };
        assert!(refused(Refusal::NotRunning, &told).contains("STOPPED"));
        assert!(refused(Refusal::AlreadyPaired, &Told { found: None, ..told }).contains("log it out"));
    }
}
