//! Every kind of ending and of answer, as people read it.

use std::fmt::Write;

use expect_test::expect_file;

use super::*;
use crate::{
    BindingId, DecisionId, FirstRound, KeyId, Labels, LimitCheck, Operation, OperationKind, PluginFailure, PluginId,
    PrincipalKind, PublisherId, SessionId, Timestamp, fold,
};

const NOW: Timestamp = Timestamp::from_millis(1_769_850_000_000);
const LATER: Timestamp = Timestamp::from_millis(1_770_109_200_000);
const SESSION: SessionId = SessionId::from_bytes([5; 16]);

fn answer(position: u32, name: &str, result: Result<Decision, PluginFailure>) -> Answer {
    Answer {
        position,
        binding: BindingId::from_bytes([1; 16]),
        owner: OrgId::from_bytes([1; 16]),
        plugin: PluginId::from_bytes([1; 16]),
        plugin_name: name.to_owned(),
        version: 3,
        digest: [0xab; 32],
        signer: None,
        mode: Mode::Enforce,
        shadow: false,
        on_failure: FailureFold::Deny,
        result,
        fuel: 0,
        micros: 0,
        memory: 0,
    }
}

fn said(position: u32, name: &str, decision: Decision) -> Answer {
    answer(position, name, Ok(decision))
}

fn record(answers: Vec<Answer>) -> DecisionRecord {
    DecisionRecord {
        id: DecisionId::from_bytes([2; 16]),
        org: OrgId::from_bytes([1; 16]),
        session: Some(SESSION),
        at: NOW,
        seed: 7,
        actor: PrincipalKind::ApiKey { id: KeyId::from_bytes([9; 16]) },
        operation: OperationKind::SessionDelete,
        due_since: None,
        input: None,
        first_round: None,
        verdict: fold(&answers),
        answers,
        stopped: None,
    }
}

fn deny(code: &str, message: &str) -> Decision {
    Decision::Deny { code: code.into(), message: message.into(), retry_after: None }
}

fn defer(until: Timestamp, reason: &str) -> Decision {
    Decision::Defer { until, reason: reason.into() }
}

fn quota() -> Decision {
    let check = |counter: &str, window, max| LimitCheck { counter: counter.into(), window, max };
    Decision::Limit {
        limits: vec![check("deletes", Window::Sliding(60_000), 10), check("deletes-of-the-day", Window::UtcDay, 100)],
        message: "this organisation deletes at most 10 sessions a minute".into(),
    }
}

fn cases() -> Vec<(&'static str, DecisionRecord)> {
    let allowed = || said(0, "name-rules", Decision::Allow);
    let every_follow_up = vec![
        FollowUp::LogOutFirst,
        FollowUp::EmitEvent { name: "churn.noticed".into(), json: "{}".into() },
        FollowUp::SetTimer { key: "remind".into(), at: LATER, payload: String::new() },
        FollowUp::CancelTimer { key: "old".into() },
        FollowUp::SetLabel { key: "state".into(), value: "leaving".into() },
        FollowUp::RemoveLabel { key: "trial".into() },
        FollowUp::SetRatePolicy { slug: "strict".into() },
        FollowUp::Request { operation: Box::new(Operation::SessionStop { session: SESSION }) },
    ];
    let create = Patch::SessionCreate {
        display_name: Some("Another".into()),
        set_labels: Labels::from([("plan".into(), "free".into())]),
        remove_labels: vec!["vip".into()],
        rate_policy: Some("strict".into()),
    };
    let confirm = |answer: Option<&str>| Decision::Confirm {
        prompt: "Type the session's name.".into(),
        expires: LATER,
        answer: answer.map(str::to_owned),
    };
    vec![
        ("allowed, by the platform's signed plugin and an unsigned one", {
            let mut first = allowed();
            first.owner = OrgId::PLATFORM;
            first.signer = Some(PublisherId::from_bytes([3; 16]));
            record(vec![first, said(1, "office-hours", Decision::Allow)])
        }),
        ("denied twice, and put off in vain", {
            let hold = deny("legal_hold", "The session is under a legal hold.");
            let late =
                Decision::Deny { code: "too_late".into(), message: "not at night".into(), retry_after: Some(3600) };
            record(vec![said(0, "grace", defer(LATER, "three days")), said(1, "hold", hold), said(2, "hours", late)])
        }),
        ("put off, by the latest of three", {
            let sooner = defer(NOW.after(std::time::Duration::from_secs(60)), "a minute");
            let same = defer(LATER, "the same");
            record(vec![said(0, "minute", sooner), said(1, "grace", defer(LATER, "three days")), said(2, "twin", same)])
        }),
        ("due after a grace period", {
            let mut due = record(vec![said(0, "grace", Decision::Allow)]);
            due.actor = PrincipalKind::System;
            due.due_since = Some(Timestamp::from_millis(1_769_590_800_000));
            due
        }),
        (
            "to be confirmed",
            record(vec![allowed(), said(1, "confirm-delete", confirm(Some("sales"))), said(2, "two", confirm(None))]),
        ),
        ("bound to limits", record(vec![said(0, "delete-quota", quota())])),
        ("stopped by a limit", {
            let mut stopped = record(vec![said(0, "delete-quota", quota())]);
            stopped.stopped = Some(Stop::Limited { plugin: Some("delete-quota".into()), retry_millis: 41_300 });
            stopped
        }),
        ("stopped by the rate policy", {
            let mut stopped = record(vec![allowed()]);
            stopped.stopped = Some(Stop::Limited { plugin: None, retry_millis: 500 });
            stopped
        }),
        ("refused by the lifecycle after policy let it through", {
            let mut refused = record(vec![allowed()]);
            refused.stopped = Some(Stop::Refused { code: "removing".into() });
            refused
        }),
        ("put off although it cannot wait", {
            let mut refused = record(vec![said(0, "grace", defer(LATER, "three days"))]);
            refused.stopped = Some(Stop::Refused { code: "cannot_wait".into() });
            refused
        }),
        ("extended", record(vec![said(0, "churn", Decision::Extend { follow_ups: every_follow_up })])),
        ("amended, and asked again", {
            let amend = || said(0, "house-rules", Decision::Amend { patch: create.clone() });
            let mut monitor = said(2, "watch", deny("no", "never"));
            monitor.mode = Mode::Monitor;
            let mut amended = record(vec![amend(), said(1, "name-rules", Decision::Allow), monitor.clone()]);
            (amended.operation, amended.session) = (OperationKind::SessionCreate, None);
            let mut lenient = answer(1, "name-rules", Err(PluginFailure::Trap));
            lenient.on_failure = FailureFold::Allow;
            amended.first_round = Some(FirstRound {
                input: None,
                answers: vec![amend(), lenient, monitor],
                patches: vec![Amendment { plugin: "house-rules".into(), patch: create.clone() }],
            });
            amended
        }),
        ("amended, and then denied", {
            let text = Patch::MessageSend { text: "another".into() };
            let mut amended =
                record(vec![said(0, "polite", Decision::Allow), said(1, "quiet", deny("quiet", "not now"))]);
            amended.operation = OperationKind::MessageSend;
            amended.first_round = Some(FirstRound {
                input: None,
                answers: vec![
                    said(0, "polite", Decision::Amend { patch: text.clone() }),
                    said(1, "quiet", Decision::Allow),
                ],
                patches: vec![Amendment { plugin: "polite".into(), patch: text }],
            });
            amended
        }),
        ("amended in two ways at once", {
            let slug = |slug: &str| Decision::Amend { patch: Patch::SessionRatePolicy { slug: slug.into() } };
            record(vec![said(0, "a", slug("strict")), said(1, "b", slug("unlimited"))])
        }),
        ("failures, and what stood in", {
            let mut lenient = answer(1, "lenient", Err(PluginFailure::Deadline));
            lenient.on_failure = FailureFold::Allow;
            record(vec![answer(0, "strict", Err(PluginFailure::Fuel)), lenient])
        }),
        ("a shadow and a monitor", {
            let mut shadow = said(0, "grace", deny("hold", "held"));
            (shadow.shadow, shadow.version) = (true, 4);
            let mut monitor = said(1, "watch", deny("no", "never"));
            monitor.mode = Mode::Monitor;
            record(vec![shadow, said(0, "grace", Decision::Allow), monitor])
        }),
        ("what is left after the session was erased", {
            let mut erased = record(vec![said(0, "hold", deny("legal_hold", ""))]);
            erased.answers.clear();
            erased
        }),
    ]
}

#[test]
fn every_ending_is_explained() {
    let mut text = String::new();
    for (title, record) in cases() {
        writeln!(text, "=== {title}: {} ===", record.ending()).expect("a string takes all text");
        for sentence in why(&record) {
            writeln!(text, "{sentence}").expect("a string takes all text");
        }
        text.push('\n');
    }
    expect_file!["../../golden/why.txt"].assert_eq(text.trim_end_matches('\n'));
}

#[test]
fn every_sentence_ends() {
    for (title, record) in cases() {
        for sentence in why(&record) {
            assert!(sentence.ends_with('.') && !sentence.ends_with(".."), "{title}: {sentence}");
        }
    }
}
