//! The error envelope, and what the service's errors are called in it.

use hyper::StatusCode;
use portcullis_service::ServiceError;
use serde_json::{Value, json};

use crate::dialect::Problem;
use crate::exchange::Reply;

/// `{"error": {"code", "message", "details"?}}`.
pub(crate) fn encode_problem(problem: &Problem) -> Reply {
    let mut error = json!({ "code": problem.code, "message": problem.message });
    if let Some(details) = &problem.details {
        error["details"] = details.clone();
    }
    let mut reply = Reply::json(problem.status, &json!({ "error": error }));
    if let Some(seconds) = problem.retry_after {
        reply = reply.with("retry-after", &seconds.to_string());
    }
    if let Some(methods) = &problem.allow {
        reply = reply.with("allow", methods);
    }
    reply
}

/// What went wrong in the service, in this dialect. The service's own stable code goes into `details.reason`.
pub(crate) fn from_service(error: &ServiceError) -> Problem {
    let message = error.to_string();
    let reason = error.code();
    let because = |status, code| Problem::new(status, code, message.clone()).with_details(json!({ "reason": reason }));
    match error {
        ServiceError::NotFound(_) => Problem::not_found(message),
        ServiceError::Denied(denial) => match denial {
            portcullis_core::Denial::Unauthenticated => Problem::unauthenticated(),
            portcullis_core::Denial::Forbidden(_) => Problem::new(StatusCode::FORBIDDEN, "forbidden", message),
            portcullis_core::Denial::Hidden => Problem::not_found(message),
        },
        ServiceError::Suspended => because(StatusCode::FORBIDDEN, "forbidden"),
        ServiceError::Refused(refusal) => {
            use portcullis_core::Refusal;
            match refusal {
                Refusal::NotPaired | Refusal::NotRunning => because(StatusCode::BAD_REQUEST, "validation_error"),
                Refusal::AlreadyPaired
                | Refusal::AlreadyPairing
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
        ServiceError::ConfirmationRequired { decision, prompts } => {
            let prompts: Vec<Value> = prompts
                .iter()
                .map(|prompt| json!({ "plugin": prompt.plugin, "prompt": prompt.prompt, "expiresAt": prompt.expires }))
                .collect();
            Problem::new(StatusCode::PRECONDITION_REQUIRED, "confirmation_required", message)
                .with_details(json!({ "decisionId": decision, "prompts": prompts }))
        }
        ServiceError::Limited { decision, retry_after, .. } => {
            let seconds = seconds(*retry_after);
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
        ServiceError::NameTaken | ServiceError::InUse(_) => because(StatusCode::CONFLICT, "conflict"),
        ServiceError::Invalid { field, .. } => Problem::invalid(message).with_details(json!({ "field": field })),
        ServiceError::Settings { problems } => {
            let problems: Vec<Value> =
                problems.iter().map(|(field, message)| json!({ "field": field, "message": message })).collect();
            let details = json!({ "reason": reason, "problems": problems });
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", message).with_details(details)
        }
        ServiceError::Admission(_) => admission(reason, message),
        ServiceError::Send(portcullis_service::SendError::NotConnected) => {
            Problem::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", message)
        }
        ServiceError::Send(portcullis_service::SendError::Refused) => {
            because(StatusCode::BAD_REQUEST, "validation_error")
        }
        ServiceError::Simulator(_) => because(StatusCode::CONFLICT, "conflict"),
        ServiceError::Busy { retry_after } => {
            let mut problem = because(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
            problem.retry_after = Some(seconds(*retry_after));
            problem
        }
        ServiceError::Contention | ServiceError::Store(_) => {
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

/// Whole seconds, rounded up: who comes back then does not come too early.
fn seconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}
