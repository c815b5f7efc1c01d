//! The machine as a golden matrix, and its invariants under random inputs.

use std::fmt::Write;
use std::time::Duration;

use expect_test::expect_file;
use proptest::prelude::*;

use super::*;
use crate::receipt::Notify;
use crate::session::{LoggedOutBy, RemovalStep};
use crate::{Names, OrgId, Removal, SessionId};

const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

fn device() -> Device {
    Device { jid: "628123456789@s.whatsapp.net".into(), lid: None, push_name: None }
}

fn session(status: Status, intent: Intent, linked: bool) -> Session {
    let mut session =
        Session::new(SessionId::from_bytes([1; 16]), OrgId::from_bytes([2; 16]), Names::new(7, None), NOW);
    session.last_attempt = Attempt::default().next();
    session.status = status;
    session.intent = intent;
    session.device = linked.then(device);
    session
}

fn removed(due: Timestamp) -> Intent {
    Intent::Removed { due, reason: "grace".into(), since: NOW, was_running: true }
}

/// Every status in its sensible forms.
fn sessions() -> Vec<(&'static str, Session)> {
    let attempt = Attempt::default().next();
    let deadline = NOW;
    let pairing = |method| Status::Pairing { attempt, method, code: None, deadline };
    let running = Intent::Running;
    vec![
        ("new", Session { last_attempt: Attempt::default(), ..session(Status::Stopped, Intent::Stopped, false) }),
        ("stopped", session(Status::Stopped, Intent::Stopped, false)),
        ("stopped+linked", session(Status::Stopped, Intent::Stopped, true)),
        ("starting", session(Status::Starting { attempt, deadline, tries: 0 }, running.clone(), true)),
        ("pairing-qr", session(pairing(PairingMethod::Qr), running.clone(), false)),
        ("pairing-code", session(pairing(PairingMethod::Code), running.clone(), false)),
        ("pairing-passkey", session(pairing(PairingMethod::Passkey), running.clone(), false)),
        ("online", session(Status::Online { attempt }, running.clone(), true)),
        (
            "reconnecting",
            session(Status::Reconnecting { attempt, since: NOW, tries: 0, deadline }, running.clone(), true),
        ),
        (
            "logged-out",
            session(Status::LoggedOut { by: LoggedOutBy::Phone, unlink: Unlink::Confirmed }, running.clone(), false),
        ),
        (
            "logging-out",
            session(Status::LoggedOut { by: LoggedOutBy::Api, unlink: Unlink::UnderWay }, Intent::Stopped, true),
        ),
        (
            "logging-out+unsure",
            session(Status::LoggedOut { by: LoggedOutBy::Api, unlink: Unlink::UnderWay }, Intent::Stopped, false),
        ),
        ("failed", session(failed(FailureCause::PairingExpired, None), running.clone(), false)),
        ("failed+linked", session(failed(FailureCause::Replaced, None), running.clone(), true)),
        ("failed+retry", session(failed(FailureCause::Unreachable, Some(Retry { at: NOW, tries: 2 })), running, true)),
        ("pending-delete", session(Status::Stopped, removed(NOW.after(Duration::from_secs(60))), true)),
        (
            "removing-unlink",
            session(Status::Removing { step: RemovalStep::Unlink { attempt, deadline } }, removed(NOW), true),
        ),
        (
            "removing-unlink+unsure",
            session(Status::Removing { step: RemovalStep::Unlink { attempt, deadline } }, removed(NOW), false),
        ),
        ("removing-notify", session(Status::Removing { step: RemovalStep::Notify { deadline } }, removed(NOW), false)),
        ("removing-erase", session(Status::Removing { step: RemovalStep::Erase }, removed(NOW), false)),
    ]
}

fn named(name: &str) -> Session {
    sessions().into_iter().find(|(known, _)| *known == name).expect("a session of the table").1
}

fn failed(cause: FailureCause, retry: Option<Retry>) -> Status {
    Status::Failed { cause, retry }
}

fn facts() -> Vec<Fact> {
    let code = PairingCode { text: Secret::new("2@x"), expires_at: NOW.after(Duration::from_secs(20)), ordinal: 0 };
    vec![
        Fact::CodeIssued { method: PairingMethod::Qr, code },
        Fact::PasskeyRequested,
        Fact::CodesExhausted,
        Fact::Linked { device: device() },
        Fact::Connected,
        Fact::Disconnected,
        Fact::LoggedOut,
        Fact::NotLinked,
        Fact::Unlinked { confirmed: true },
        Fact::Identified { device: Device { push_name: Some("Ada".into()), ..device() } },
        Fact::Ended { cause: FailureCause::Replaced, until: None },
        Fact::Ended { cause: FailureCause::Unreachable, until: None },
        Fact::Limited { limit: AccountLimit { code: "463".into(), until: None, since: NOW } },
        Fact::Lost,
    ]
}

fn requests() -> Vec<(&'static str, Request)> {
    let later = NOW.after(Duration::from_secs(3600));
    let phone = Secret::new("628123456789");
    vec![
        ("start", Request::Start { pair: false }),
        ("start+pair", Request::Start { pair: true }),
        ("stop", Request::Stop),
        ("restart", Request::Restart { pair: false, connect: false }),
        ("restart+connect", Request::Restart { pair: false, connect: true }),
        ("restart+pair", Request::Restart { pair: true, connect: true }),
        ("logout", Request::Logout { connect: false }),
        ("logout+connect", Request::Logout { connect: true }),
        ("delete", Request::Delete { due: NOW, reason: String::new() }),
        ("delete+grace", Request::Delete { due: later, reason: "grace".into() }),
        ("postpone", Request::Postpone { since: NOW, due: later, reason: "again".into() }),
        ("cancel-delete", Request::CancelDelete { since: NOW, code: "hold".into(), reason: "hold".into() }),
        ("restore", Request::Restore),
        ("qr", Request::Qr),
        ("code", Request::PairingCode { phone: phone.clone(), switch: false }),
        ("code+switch", Request::PairingCode { phone, switch: true }),
    ]
}

fn inputs() -> Vec<(String, Input)> {
    let attempt = Attempt::default().next();
    let requests = requests().into_iter().map(|(name, request)| (name.to_owned(), Input::Request(request)));
    let facts = facts()
        .into_iter()
        .map(|fact| (format!("fact {}", fact_name(&fact)), Input::Engine(EngineFact { attempt, fact })));
    requests
        .chain(facts)
        .chain([("deadline".to_owned(), Input::Deadline), ("notified".to_owned(), Input::Notified)])
        .collect()
}

fn fact_name(fact: &Fact) -> String {
    match fact {
        Fact::Ended { cause, .. } => format!("ended {}", cause.name()),
        fact => fact.name().to_owned(),
    }
}

fn describe(answer: Result<Step, Refusal>) -> String {
    match answer {
        Err(refusal) => format!("refused {}", refusal.code()),
        Ok(Step::Unchanged) => "-".to_owned(),
        Ok(Step::Moved(moved)) => {
            let mut text = moved.session.status.name().to_owned();
            if let Status::Removing { step } = &moved.session.status {
                let step = match step {
                    RemovalStep::Unlink { .. } => "unlink",
                    RemovalStep::Notify { .. } => "notify",
                    RemovalStep::Erase => "erase",
                };
                write!(text, "/{step}").expect("a string takes all text");
            }
            if matches!(moved.session.intent, Intent::Removed { .. }) && moved.session.delete_due().is_some() {
                text.push_str(" (delete pending)");
            }
            for effect in &moved.effects {
                write!(text, " +{}", effect.name()).expect("a string takes all text");
            }
            for event in &moved.events {
                write!(text, " !{}", event.name()).expect("a string takes all text");
            }
            if let Status::Failed { retry: Some(retry), .. } = &moved.session.status {
                let wait = retry.at.since(NOW).as_secs();
                write!(text, " (try {} in {wait} s)", retry.tries).expect("a string takes all text");
            }
            if let Some(unlink) = moved.unlinked {
                write!(text, " ({})", unlink.name()).expect("a string takes all text");
            }
            text
        }
    }
}

/// Status × input, so that a change of behaviour is a readable change of a file.
/// `-` means unchanged, `+` an effect, `!` an event.
#[test]
fn lifecycle_matrix() {
    let mut table = String::new();
    for (name, session) in sessions() {
        writeln!(table, "{name}").expect("a string takes all text");
        for (input_name, input) in inputs() {
            let answer = describe(step(&session, input, NOW));
            writeln!(table, "    {input_name:<28}{answer}").expect("a string takes all text");
        }
    }
    expect_file!["../../golden/lifecycle.txt"].assert_eq(&table);
}

fn any_input() -> impl Strategy<Value = (Input, u64)> {
    let inputs: Vec<Input> = inputs().into_iter().map(|(_, input)| input).collect();
    (prop::sample::select(inputs), 0u64..120_000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn invariants_hold_under_any_inputs(inputs in prop::collection::vec(any_input(), 0..60), pick in 0usize..20) {
        let mut now = NOW;
        let mut session = sessions().swap_remove(pick).1;
        for (input, pause) in inputs {
            now = now.after(Duration::from_millis(pause));
            // A random fact mostly comes from the run that is alive.
            let input = match input {
                Input::Engine(EngineFact { fact, .. }) => {
                    Input::Engine(EngineFact { attempt: session.status.attempt().unwrap_or(session.last_attempt), fact })
                }
                other => other,
            };
            let erasing = matches!(session.status, Status::Removing { step: RemovalStep::Erase });
            let Ok(Step::Moved(moved)) = step(&session, input, now) else { continue };
            let next = &moved.session;
            prop_assert!(!erasing, "something moved a session whose erasure had begun");
            prop_assert_eq!(next.generation, session.generation + 1);
            prop_assert!(next.last_attempt >= session.last_attempt, "an attempt number was given twice");
            if let Some(attempt) = next.status.attempt() {
                prop_assert!(attempt <= next.last_attempt);
            }
            // What begins a run begins the newest one, and only for a status that waits for it.
            for effect in &moved.effects {
                if let Effect::Launch { attempt } | Effect::Pair { attempt, .. } = effect {
                    prop_assert_eq!(next.status.attempt(), Some(*attempt));
                    prop_assert!(*attempt > session.last_attempt);
                }
            }
            // A run that the status no longer stands for is ended, unlinks the device, or has ended by its own account.
            if let Some(old) = session.status.attempt()
                && next.status.attempt() != Some(old)
            {
                let dealt_with = moved.effects.iter().any(|effect| matches!(effect,
                    Effect::Halt { attempt } | Effect::Unlink { attempt } if *attempt == old));
                let ended_itself = matches!(next.status, Status::Failed { .. } | Status::Removing { .. })
                    || moved.effects.iter().any(|effect| matches!(effect,
                        Effect::Launch { .. } | Effect::Pair { .. } | Effect::Unlink { .. }));
                prop_assert!(dealt_with || ended_itself, "run {:?} was forgotten: {:?}", old, moved.effects);
            }
            // Every status that waits for something has a deadline.
            if let Status::Starting { .. } | Status::Pairing { .. } | Status::Reconnecting { .. } = next.status {
                prop_assert!(next.status.deadline().is_some(), "waiting without a deadline");
            }
            // Nothing comes back that nobody wants, or that has nothing to come back with.
            if let Status::Failed { retry: Some(_), .. } = next.status {
                prop_assert!(next.intent == Intent::Running && next.device.is_some(), "a try that nobody wants");
            }
            let online = matches!(next.status, Status::Online { .. });
            prop_assert!(!online || next.device.is_some(), "online without a device");
            let removing = matches!(next.status, Status::Removing { .. });
            prop_assert!(!removing || matches!(next.intent, Intent::Removed { .. }), "removing without being asked");
            session = moved.session;
        }
    }

    /// Left alone, every session comes to rest: deadlines alone lead out of every waiting status. One whose trouble can pass is tried
    /// again for ever, at long intervals.
    #[test]
    fn deadlines_lead_to_rest(pick in 0usize..20) {
        let mut session = sessions().swap_remove(pick).1;
        for _ in 0..32 {
            let Some(deadline) = session.status.deadline() else { return Ok(()) };
            if matches!(session.status, Status::Failed { retry: Some(Retry { tries: 8.., .. }), .. }) {
                return Ok(());
            }
            if let Ok(Step::Moved(moved)) = step(&session, Input::Deadline, deadline) {
                session = moved.session;
            }
        }
        prop_assert!(false, "still waiting: {:?}", session.status);
    }
}

#[test]
fn a_stale_fact_changes_nothing() {
    let stale = Attempt::default();
    for (name, session) in sessions() {
        for fact in facts() {
            let what = fact.name();
            let answer = step(&session, Input::Engine(EngineFact { attempt: stale, fact }), NOW);
            assert_eq!(answer, Ok(Step::Unchanged), "{name} moved on a stale {what}");
        }
    }
}

/// A logout that crashed between its commit and the engine's call must still reach WhatsApp.
#[test]
fn reconciliation_unlinks_again_after_a_crash() {
    let logging_out = named("logging-out");
    let found = reconcile(&logging_out, None);
    assert_eq!(found.effects, [Effect::Unlink { attempt: logging_out.last_attempt }]);
    assert_eq!(reconcile(&logging_out, Some(logging_out.last_attempt)), Reconciliation::default());
}

#[test]
fn reconciliation_ends_runs_that_nobody_wants() {
    let stray = Attempt::default().next().next();
    for (name, session) in sessions() {
        let found = reconcile(&session, Some(stray));
        assert_eq!(found.effects.first(), Some(&Effect::Halt { attempt: stray }), "{name} keeps a stray run");
    }
}

/// The story: an outage of six minutes left every session failed for good, until somebody started each of them again.
#[test]
fn a_linked_session_is_tried_again_with_growing_pauses_until_it_connects() {
    let mut session = named("starting");
    let mut now = NOW;
    let mut pauses = Vec::new();
    let fact =
        |session: &Session, fact| Input::Engine(EngineFact { attempt: session.status.attempt().expect("a run"), fact });
    let moved = |session: &Session, input, now| match step(session, input, now) {
        Ok(Step::Moved(moved)) => moved.session,
        other => panic!("{other:?}"),
    };
    for _ in 0..8 {
        session = moved(&session, fact(&session, Fact::Ended { cause: FailureCause::Unreachable, until: None }), now);
        let at = session.status.deadline().expect("another try");
        pauses.push(at.since(now).as_secs());
        now = at;
        session = moved(&session, Input::Deadline, now);
        assert!(matches!(session.status, Status::Starting { .. }));
    }
    assert_eq!(pauses, [15, 30, 60, 120, 240, 480, 900, 900]);
    session = moved(&session, fact(&session, Fact::Connected), now);
    session = moved(&session, fact(&session, Fact::Disconnected), now);
    let ended = Fact::Ended { cause: FailureCause::Unreachable, until: None };
    session = moved(&session, fact(&session, ended), now);
    assert_eq!(session.status.deadline(), Some(now.after(FIRST_RETRY)), "what has connected begins anew");
    let stopped = moved(&session, Input::Request(Request::Stop), now);
    assert_eq!(stopped.status.deadline(), None, "what is stopped stays so");
}

/// The story: WhatsApp banned an account and named an end that was over at once; the gateway knocked seven times in eight seconds.
#[test]
fn a_ban_is_waited_for_whatever_end_it_names() {
    let session = named("online");
    let ended = |until| {
        let fact = Fact::Ended { cause: FailureCause::Banned, until };
        let attempt = session.status.attempt().expect("a run");
        match step(&session, Input::Engine(EngineFact { attempt, fact }), NOW) {
            Ok(Step::Moved(moved)) => moved.session.status.deadline(),
            other => panic!("{other:?}"),
        }
    };
    let in_a_day = NOW.after(Duration::from_secs(86_400));
    assert_eq!(ended(Some(NOW)), Some(NOW.after(LAST_RETRY)));
    assert_eq!(ended(Some(in_a_day)), Some(in_a_day));
    assert_eq!(ended(None), None, "a ban without an end waits for somebody");
}

/// The story: a delete had unlinked the device and told its receivers when it was taken back, and the session was shown as stopped.
#[test]
fn a_delete_that_is_taken_back_after_the_unlink_leaves_a_session_that_is_logged_out() {
    for (unlink, status) in
        [(Unlink::Confirmed, "logged-out"), (Unlink::NotConfirmed, "logged-out"), (Unlink::NotLinked, "stopped")]
    {
        let mut session = named("removing-notify");
        session.removal = Some(Removal {
            asked_at: NOW,
            due_at: NOW,
            began_at: NOW,
            decision: None,
            unlink,
            notify: Notify::UnderWay,
        });
        let Ok(Step::Moved(back)) = step(&session, Input::Request(Request::Restore), NOW) else { panic!("{unlink:?}") };
        assert_eq!(
            (back.session.status.name(), back.unlinked.is_some()),
            (status, status == "logged-out"),
            "{unlink:?}"
        );
    }
}

/// The story: a gateway that was killed in the middle of a delete was away for longer than an unlink may take, and gave it up at its
/// start, without having asked WhatsApp.
#[test]
fn an_unlink_that_was_interrupted_has_all_its_time_again() {
    let session = named("removing-unlink");
    let attempt = session.status.attempt().expect("a run");
    let later = NOW.after(Duration::from_secs(3600));
    match step(&session, Input::Engine(EngineFact { attempt, fact: Fact::Lost }), later) {
        Ok(Step::Moved(moved)) => assert_eq!(moved.session.status.deadline(), Some(later.after(UNLINK_TIMEOUT))),
        other => panic!("{other:?}"),
    }
}

/// The story: a due delete was being decided while its session was restored, and deleted anew.
#[test]
fn what_was_decided_about_one_delete_does_not_touch_another() {
    let pending = named("pending-delete");
    let since = NOW.after(Duration::from_secs(1));
    let cancel = Request::CancelDelete { since, code: "hold".into(), reason: "hold".into() };
    assert_eq!(step(&pending, Input::Request(cancel), NOW), Ok(Step::Unchanged));
    let postpone = Request::Postpone { since, due: since, reason: "later".into() };
    assert_eq!(step(&pending, Input::Request(postpone), NOW), Ok(Step::Unchanged));
}

#[test]
fn a_delete_asked_again_keeps_the_earlier_time() {
    let pending = named("pending-delete");
    let delete = |due| step(&pending, Input::Request(Request::Delete { due, reason: String::new() }), NOW);
    assert_eq!(delete(NOW.after(Duration::from_secs(3600))), Ok(Step::Unchanged));
    let Ok(Step::Moved(moved)) = delete(NOW.after(Duration::from_secs(5))) else {
        panic!("an earlier time was ignored")
    };
    assert_eq!(moved.session.delete_due(), Some(NOW.after(Duration::from_secs(5))));
}
