//! Pacing: the named rate policy of a session, and those that there are.

use hyper::StatusCode;
use portcullis_core::{Operation, RateLimits, RatePolicy, Session, rate};
use serde_json::{Value, json};

use super::sessions::after;
use super::{mismatch, operate, params, problem};
use crate::asked::{Answer, Asked};
use crate::dialect::Problem;
use crate::exchange::{Incoming, Reply};
use crate::routes::EncodeContext;

/// The longest slug, in bytes.
const MAX_SLUG: usize = 64;

pub(super) fn get(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::RatePolicy { session: params::session(incoming)? })
}

pub(super) fn choose(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = params::session(incoming)?;
    let slug = params::required(incoming, &["policy_slug"])?;
    if slug.len() > MAX_SLUG {
        return Err(problem::invalid(format!("policy_slug must be at most {MAX_SLUG} bytes")));
    }
    operate(Operation::SessionRatePolicy { session, slug })
}

// === replies ===

pub(super) fn policy(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::RatePolicy { session, current, policies, plan_active, .. } = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &shown(&session, &current, policies, plan_active))
}

/// The policy that was chosen is in force at once.
pub(super) fn chosen(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    after(answer, |session| match rate::built_in_policy(&session.rate_policy) {
        Some(current) => {
            let body = shown(session, current, rate::built_in_policies(), context.plan_active);
            Reply::json(StatusCode::OK, &body)
        }
        None => mismatch(),
    })
}

fn shown(session: &Session, current: &RatePolicy, policies: &[RatePolicy], plan_active: bool) -> Value {
    let free: Vec<_> = policies.iter().filter(|policy| policy.free).map(|policy| &policy.slug).collect();
    let policy = |policy: &RatePolicy| {
        json!({
            "slug": policy.slug,
            "name": policy.name,
            "available": policy.free || plan_active,
            "is_free": policy.free,
            "limits": limits(&policy.limits),
        })
    };
    json!({
        "instance_id": session.names.instance_id,
        "current_policy": current.slug,
        "policy_slug": current.slug,
        "limits": limits(&current.limits),
        "policies": policies.iter().map(policy).collect::<Vec<_>>(),
        "free_policies": free,
        "has_active_plan": plan_active,
    })
}

/// Every limit by its name on the wire, which is the core's own; zero means unlimited.
fn limits(limits: &RateLimits) -> Value {
    json!(limits)
}

#[cfg(test)]
mod test {
    use portcullis_core::Status;

    use super::super::params::test::asking;
    use super::super::view::test::session_with;
    use super::*;

    #[test]
    fn a_policy_is_chosen_by_its_slug() {
        let check = |query: &str, body: &str, expected: Option<&str>| {
            let found = match choose(&asking(query, body)) {
                Ok(Asked::Operate { operation: Operation::SessionRatePolicy { slug, .. }, .. }) => Some(slug),
                Ok(asked) => panic!("{asked:?}"),
                Err(_) => None,
            };
            assert_eq!(found.as_deref(), expected, "{query} {body}");
        };
        check("policy_slug=strict", "", Some("strict"));
        check("", r#"{"policy_slug": "strict"}"#, Some("strict"));
        check("", "", None);
        check("", r#"{"policy_slug": ["strict"]}"#, None);
        check(&format!("policy_slug={}", "x".repeat(65)), "", None);
    }

    #[test]
    fn what_is_not_free_is_available_with_a_plan_only() {
        let session = session_with(Status::Stopped);
        let policies = rate::built_in_policies();
        for plan_active in [false, true] {
            let body = shown(&session, &policies[0], policies, plan_active);
            assert_eq!(body["free_policies"], json!(["strict", "standard_policy"]));
            for policy in body["policies"].as_array().unwrap() {
                let is_free = policy["is_free"].as_bool().unwrap();
                assert_eq!(policy["available"], json!(is_free || plan_active), "{policy}");
                assert_eq!(policy["limits"].as_object().unwrap().len(), 8);
            }
        }
    }
}
