//! What a policy can do to an operation, in every dialect: a golden file over outcomes made by hand.
//!
//! Most of these come about rarely; a client meets them for the first time when it matters.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use expect_test::expect_file;
use portcullis_core::verdict::{Allowance, Prompt, Veto};
use portcullis_core::{
    DecisionId, Intent, Names, OperationKind, OrgId, Secret, Session, SessionId, Timestamp, Verdict,
};
use portcullis_service::{Done, Outcome, ServiceError};
use serde_json::Value;

use super::{Dialect, Told};
use crate::asked::Answer;
use crate::exchange::{Incoming, Reply};
use crate::routes::{EncodeContext, Route};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const DECISION: DecisionId = DecisionId::from_bytes([7; 16]);

fn refusals() -> Vec<(&'static str, ServiceError)> {
    let veto = |code: &str, retry_after| Veto {
        plugin: "house-rules".to_owned(),
        code: code.to_owned(),
        message: "the subscription has not ended".to_owned(),
        retry_after,
        failure: None,
    };
    let prompt = |text: &str, seconds| Prompt {
        plugin: "confirm-delete".to_owned(),
        prompt: text.to_owned(),
        expires: NOW.after(Duration::from_secs(seconds)),
        answer: None,
    };
    let limited = |decision, message: &str| ServiceError::Limited {
        decision,
        message: message.to_owned(),
        retry_after: Duration::from_millis(2_500),
    };
    vec![
        ("vetoed", ServiceError::Vetoed { decision: DECISION, denials: vec![veto("in_subscription", None)] }),
        (
            "vetoed twice, with advice",
            ServiceError::Vetoed { decision: DECISION, denials: vec![veto("first", Some(60)), veto("second", None)] },
        ),
        ("limited by the rate policy", limited(None, "send rate limit exceeded")),
        ("limited by a plugin", limited(Some(DECISION), "at most 10 deletes a minute")),
        (
            "to be confirmed",
            ServiceError::ConfirmationRequired {
                decision: DECISION,
                prompts: vec![prompt("Type the session's name.", 600)],
                token: Some(Secret::new("conf_1")),
                rejected: None,
            },
        ),
        (
            "to be confirmed, for two reasons and without a token",
            ServiceError::ConfirmationRequired {
                decision: DECISION,
                prompts: vec![prompt("Type the session's name.", 600), prompt("Really?", 300)],
                token: None,
                rejected: None,
            },
        ),
        ("without an active plan", ServiceError::Subscription { what: "this rate policy" }),
        ("in too large a crowd", ServiceError::Busy { retry_after: Duration::from_secs(1) }),
    ]
}

fn session() -> Session {
    let names = Names::new(0x0123_4567_89ab_cdef_0123_3eb0_bcb2_e3d4, Some("sales".to_owned()));
    let mut session = Session::new(SessionId::from_bytes([1; 16]), OrgId::from_bytes([2; 16]), names, NOW);
    session.intent = Intent::Removed {
        due: NOW.after(Duration::from_secs(3600)),
        reason: "grace period".to_owned(),
        since: NOW,
        was_running: false,
    };
    session
}

fn outcomes() -> Vec<(&'static str, Outcome)> {
    let veto = Veto {
        plugin: "house-rules".to_owned(),
        code: "in_subscription".to_owned(),
        message: "the subscription has not ended".to_owned(),
        retry_after: None,
        failure: None,
    };
    vec![
        (
            "put off",
            Outcome::Deferred { until: NOW.after(Duration::from_secs(3600)), reason: "grace period".to_owned() },
        ),
        ("tried, and allowed", Outcome::DryRun(Verdict::Allowed(Allowance::default()))),
        ("tried, and denied", Outcome::DryRun(Verdict::Denied { denials: vec![veto] })),
    ]
}

fn route(dialect: Dialect, operation: OperationKind) -> Route {
    dialect.routes().into_iter().find(|route| route.operation == operation).expect("every dialect has it")
}

fn write(golden: &mut String, what: &str, dialect: Dialect, reply: &Reply) {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let retry_after = reply.headers.iter().find(|(name, _)| *name == "retry-after");
    let retry_after = retry_after.map(|(_, value)| format!(" retry-after: {}", value.to_str().unwrap_or_default()));
    let status = reply.status.as_u16();
    writeln!(golden, "\n{what}, {}: {status}{}\n{body:#}", dialect.name(), retry_after.unwrap_or_default())
        .expect("a string takes all text");
}

#[test]
fn what_policy_does_to_an_operation_has_a_form_in_every_dialect() {
    let (mut golden, request, session) = (String::new(), Incoming::default(), Arc::new(session()));
    for (what, error) in refusals() {
        for dialect in Dialect::ALL {
            let route = route(dialect, OperationKind::MessageSend);
            let told = Told { session: "sales", found: None, request: &request, path: route.path };
            write(&mut golden, what, dialect, &(route.refuse)(&error, &told));
        }
    }
    for (what, outcome) in outcomes() {
        for dialect in Dialect::ALL {
            let route = route(dialect, OperationKind::SessionDelete);
            let context = EncodeContext {
                gateway_id: "gateway",
                simulated: false,
                public_url: "https://gateway.example.com",
                now: NOW,
                session: "sales",
                found: Some(&session),
                request: &request,
                plan_active: true,
                may_manage: true,
            };
            let done = Done { session: Some(Arc::clone(&session)), outcome: outcome.clone(), decision: Some(DECISION) };
            write(&mut golden, what, dialect, &(route.encode)(&context, Answer::Operated(done)));
        }
    }
    expect_file!["../../golden/outcomes.txt"].assert_eq(golden.trim_start());
}
