//! The error envelope, and what the service's errors are called in it.

use hyper::StatusCode;
use portcullis_core::{Capability, Denial};
use portcullis_service::{ServiceError, SignatureError};
use serde_json::{Value, json};

use crate::dialect::{Dialect, Fault, Problem, Told, confirmation, whole_seconds};
use crate::exchange::Reply;

/// `{"error": {"code", "message", "details"?}}`.
pub(crate) fn envelope(problem: &Problem) -> Reply {
    let mut error = json!({ "code": problem.code, "message": problem.message });
    if let Some(details) = &problem.details {
        error["details"] = details.clone();
    }
    Reply::json(problem.status, &json!({ "error": error }))
}

/// What the server found wrong.
pub(crate) fn fault(fault: &Fault) -> Problem {
    let unavailable = |message: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "gateway_unavailable", message);
    match fault {
        Fault::Unauthenticated => Problem::unauthenticated(),
        Fault::NoOrganisation => Problem::new(StatusCode::FORBIDDEN, "forbidden", "no active organization"),
        Fault::NoKeys => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the identity provider does not answer")
                .after(60)
        }
        Fault::NoRoute { .. } => Problem::not_found("route not found"),
        Fault::WrongMethod { allowed, .. } => {
            let mut problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "validation_error", "method not allowed");
            problem.allow = Some(allowed.clone());
            problem
        }
        Fault::TargetTooLong => {
            Problem::new(StatusCode::URI_TOO_LONG, "validation_error", "the request target is too long")
        }
        Fault::TooLarge { max } => {
            let message = format!("the body is larger than {max} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
        }
        Fault::BrokenBody => Problem::invalid("the body did not arrive whole"),
        Fault::SlowBody => {
            Problem::new(StatusCode::REQUEST_TIMEOUT, "validation_error", "the body did not arrive in time")
        }
        Fault::Query(what) => Problem::malformed(std::slice::from_ref(what)),
        Fault::NoSession | Fault::UnknownSession { .. } => Problem::not_found("session not found"),
        Fault::TimedOut => unavailable("request timed out").after(1),
        Fault::NotReady => unavailable("not ready: the store does not answer"),
        Fault::Internal => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal server error"),
    }
}

impl Problem {
    pub(super) fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "missing or invalid credentials")
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// A request whose content is wrong; `message` is the domain's own.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "validation_error", message)
    }

    /// A request whose form is wrong.
    pub(super) fn malformed(errors: &[String]) -> Self {
        Self::invalid("validation failed").with_details(json!({ "errors": errors }))
    }
}

/// What went wrong in the service, in this dialect's envelope.
pub(crate) fn refuse(error: &ServiceError, told: &Told<'_>) -> Reply {
    if matches!(error, ServiceError::Denied(Denial::Hidden)) {
        // The same words as for an id that nobody has.
        return Dialect::Router.problem(&from_service(&ServiceError::NotFound(hidden_noun(told.path))));
    }
    if let ServiceError::Denied(Denial::Forbidden(Capability::Operate)) = error {
        // The dialect has words of its own for what only the operator may.
        let message = match told.path {
            "/api/v1/admin/sessions" => Some("super_admin required"),
            "/api/v1/realtime/ticket" => Some("firehose requires super_admin"),
            _ => None,
        };
        if let Some(message) = message {
            return Dialect::Router.problem(&Problem::new(StatusCode::FORBIDDEN, "forbidden", message));
        }
    }
    Dialect::Router.problem(&from_service(error))
}

fn hidden_noun(path: &str) -> &'static str {
    match path.split('/').nth(3) {
        Some("sessions") => "session",
        Some("orgs") => "organisation",
        Some("plugins") => "plugin",
        Some("bindings") => "binding",
        Some("publishers") => "publisher",
        Some("events") => "session",
        Some("decisions") => "decision",
        Some("webhooks") => "webhook",
        _ => "resource",
    }
}

/// What went wrong in the service, in this dialect. The service's own stable code goes into `details.reason`.
fn from_service(error: &ServiceError) -> Problem {
    let message = error.to_string();
    let reason = error.code();
    let because = |status, code| Problem::new(status, code, message.clone()).with_details(json!({ "reason": reason }));
    match error {
        ServiceError::NotFound(_) => Problem::not_found(message),
        ServiceError::Denied(denial) => match denial {
            Denial::Unauthenticated => Problem::unauthenticated(),
            Denial::Forbidden(_) => Problem::new(StatusCode::FORBIDDEN, "forbidden", message),
            Denial::Hidden => Problem::not_found(message),
        },
        ServiceError::Suspended => because(StatusCode::FORBIDDEN, "forbidden"),
        ServiceError::Refused(refusal) => {
            use portcullis_core::Refusal;
            match refusal {
                Refusal::NotPaired | Refusal::NotRunning => because(StatusCode::BAD_REQUEST, "validation_error"),
                Refusal::AlreadyPaired
                | Refusal::AlreadyPairing
                | Refusal::LoggingOut
                | Refusal::PendingDelete
                | Refusal::Removing
                | Refusal::NotPendingDelete => because(StatusCode::CONFLICT, "conflict"),
            }
        }
        ServiceError::Vetoed { decision, denials } => {
            let vetoes: Vec<Value> = denials
                .iter()
                .map(|veto| json!({ "plugin": veto.plugin, "code": veto.code, "message": veto.message }))
                .collect();
            let retry_after = denials.first().and_then(|veto| veto.retry_after);
            let mut details = json!({ "reason": reason, "decisionId": decision, "vetoes": vetoes });
            if let Some(veto) = denials.first() {
                details["code"] = json!(veto.code);
                details["plugin"] = json!(veto.plugin);
            }
            let mut problem = Problem::new(StatusCode::FORBIDDEN, "forbidden", message).with_details(details);
            problem.retry_after = retry_after;
            problem
        }
        ServiceError::ConfirmationRequired { decision, prompts, token, rejected } => {
            let prompts_of = prompts.as_slice();
            let prompts: Vec<Value> = prompts
                .iter()
                .map(|prompt| json!({ "plugin": prompt.plugin, "prompt": prompt.prompt, "expiresAt": prompt.expires }))
                .collect();
            Problem::new(StatusCode::PRECONDITION_REQUIRED, "confirmation_required", message).with_details(json!({
                "decisionId": decision,
                "prompts": prompts,
                "confirmation": confirmation(prompts_of, token.as_ref(), *rejected),
            }))
        }
        ServiceError::Limited { decision, retry_after, .. } => {
            let seconds = whole_seconds(*retry_after);
            let mut details = json!({ "retryAfterSeconds": seconds });
            if let Some(decision) = decision {
                details["decisionId"] = json!(decision);
            }
            let mut problem =
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message).with_details(details);
            problem.retry_after = Some(seconds);
            problem
        }
        ServiceError::Quota { .. } => because(StatusCode::FORBIDDEN, "forbidden"),
        ServiceError::Subscription { .. } => because(StatusCode::FORBIDDEN, "forbidden"),
        ServiceError::EventGone => because(StatusCode::NOT_FOUND, "not_found"),
        ServiceError::NameTaken
        | ServiceError::WebhookOff
        | ServiceError::TokenTaken
        | ServiceError::IdempotencyKeyTaken
        | ServiceError::RequestUnderWay
        | ServiceError::AlreadyShown
        | ServiceError::ReplyLost
        | ServiceError::FactTaken
        | ServiceError::NoCandidate
        | ServiceError::NoPrevious
        | ServiceError::SameMasterKey
        | ServiceError::UnderWay(_)
        | ServiceError::InUse(_) => because(StatusCode::CONFLICT, "conflict"),
        ServiceError::IdempotencyMismatch => because(StatusCode::UNPROCESSABLE_ENTITY, "unprocessable"),
        ServiceError::Invalid { field, .. } => Problem::invalid(message).with_details(json!({ "field": field })),
        ServiceError::Settings { problems } => {
            let problems: Vec<Value> =
                problems.iter().map(|(field, message)| json!({ "field": field, "message": message })).collect();
            let details = json!({ "reason": reason, "problems": problems });
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", message).with_details(details)
        }
        ServiceError::Admission(_) => admission(reason, message),
        ServiceError::Signature(SignatureError::Invalid) => because(StatusCode::BAD_REQUEST, "validation_error"),
        ServiceError::Signature(SignatureError::Required) => because(StatusCode::FORBIDDEN, "forbidden"),
        ServiceError::Backlog { retry_after } => {
            because(StatusCode::TOO_MANY_REQUESTS, "rate_limited").after(whole_seconds(*retry_after))
        }
        ServiceError::Send(portcullis_service::SendError::NotConnected) => {
            because(StatusCode::NOT_IMPLEMENTED, "not_implemented")
        }
        ServiceError::Send(
            portcullis_service::SendError::Refused | portcullis_service::SendError::UnknownRecipient,
        ) => because(StatusCode::BAD_REQUEST, "validation_error"),
        ServiceError::Send(portcullis_service::SendError::Limited) => {
            because(StatusCode::TOO_MANY_REQUESTS, "rate_limited")
        }
        ServiceError::Send(portcullis_service::SendError::Unconfirmed) => {
            because(StatusCode::SERVICE_UNAVAILABLE, "unavailable")
        }
        ServiceError::Simulator(_) | ServiceError::DryRun => because(StatusCode::CONFLICT, "conflict"),
        ServiceError::Busy { retry_after } => {
            let mut problem = because(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
            problem.retry_after = Some(whole_seconds(*retry_after));
            problem
        }
        ServiceError::Contention | ServiceError::MasterKey(_) | ServiceError::Store(_) => {
            let mut problem = because(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
            problem.retry_after = Some(1);
            problem
        }
    }
}

/// A component that was not admitted, by the policy crate's stable code.
fn admission(reason: &'static str, message: String) -> Problem {
    let (status, code) = match reason {
        "payload_too_large" => (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"),
        "not_a_component" | "malformed_component" => (StatusCode::BAD_REQUEST, "validation_error"),
        "upload_in_progress" => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        _ => (StatusCode::UNPROCESSABLE_ENTITY, "unprocessable"),
    };
    let mut problem = Problem::new(status, code, message).with_details(json!({ "reason": reason }));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        problem.retry_after = Some(5);
    }
    problem
}
