//! Gates: every way to misbehave ends the call as its own kind of failure, and the next call is served as ever.

use std::time::Duration;

use portcullis_core::{Decision, Mode, PluginClass, PluginFailure};
use portcullis_testing::{ANSWER, DATA, Guest};

use super::{Runtime, answer, ask, bind, bind_with, config, delete, run, runtime};
use crate::RuntimeConfig;

/// Asks the guest, and then one that allows.
async fn fails(runtime: &Runtime, guest: &Guest, expected: PluginFailure) {
    let allowing = bind(runtime, &Guest::allowing()).await;
    let link = bind(runtime, guest).await;
    for _ in 0..3 {
        assert_eq!(answer(runtime, &link).await.result, Err(expected));
        assert_eq!(answer(runtime, &allowing).await.result, Ok(Decision::Allow));
    }
}

const SPIN: &str = "(loop $again (br $again)) unreachable";

#[tokio::test]
async fn a_guest_that_allows_is_heard() {
    let runtime = runtime();
    let link = bind(&runtime, &Guest::allowing()).await;
    let answer = answer(&runtime, &link).await;
    assert_eq!(answer.result, Ok(Decision::Allow));
    assert_eq!(answer.memory, 4 << 16);
    assert!(answer.fuel > 0 && answer.plugin_name == "guest");
}

#[tokio::test]
async fn a_denial_arrives_with_its_words() {
    // deny(1) at ANSWER: code and message are `no` at DATA, and there is a retry-after of 9.
    let store = |offset: u32, value: u32| format!("(i32.store (i32.const {}) (i32.const {value}))", ANSWER + offset);
    let body: String = [(0, 1), (8, DATA), (12, 2), (16, DATA), (20, 2), (24, 1), (32, 9)]
        .into_iter()
        .map(|(offset, value)| store(offset, value))
        .collect();
    let runtime = runtime();
    let link = bind(&runtime, &Guest::gate(&format!("{body} i32.const {ANSWER}")).data("no")).await;
    let denial = Decision::Deny { code: "no".into(), message: "no".into(), retry_after: Some(9) };
    assert_eq!(answer(&runtime, &link).await.result, Ok(denial));
}

#[tokio::test]
async fn a_spin_ends_by_fuel() {
    fails(&runtime(), &Guest::gate(SPIN), PluginFailure::Fuel).await;
}

#[tokio::test]
async fn a_spin_in_the_start_function_is_found_at_upload() {
    let guest = Guest::allowing().with(&format!("(func $start {SPIN}) (start $start)"));
    let error = runtime().admit(super::org_id(), guest.build(), PluginClass::Standard).await.unwrap_err();
    assert_eq!(error.code(), "describe_failed");
}

#[tokio::test]
async fn a_spin_with_fuel_to_burn_ends_by_the_clock_and_lets_others_run() {
    let config = RuntimeConfig { gate_fuel: u64::MAX, gate_wall: Duration::from_millis(20), ..config() };
    // One thread serves everything, so that a guest that did not yield would stop the test.
    fails(&Runtime::new(config).unwrap(), &Guest::gate(SPIN), PluginFailure::Deadline).await;
}

/// The ticker sleeps while no plugin is called; a guest that spins after that must still be made to yield.
#[tokio::test]
async fn a_spin_ends_by_its_deadline_also_after_a_quiet_time() {
    let runtime = Runtime::new(RuntimeConfig { gate_fuel: u64::MAX / 2, ..RuntimeConfig::default() }).unwrap();
    while !runtime.ticker().sleeps() {
        tokio::task::yield_now().await;
    }
    fails(&runtime, &Guest::gate(SPIN), PluginFailure::Deadline).await;
}

#[tokio::test]
async fn a_chain_whose_time_is_up_asks_nobody_else() {
    let config = RuntimeConfig {
        gate_fuel: u64::MAX,
        gate_wall: Duration::from_millis(30),
        chain_wall: Duration::from_millis(20),
        ..config()
    };
    let runtime = Runtime::new(config).unwrap();
    let links = [bind(&runtime, &Guest::gate(SPIN)).await, bind(&runtime, &Guest::allowing()).await];
    let run = runtime.gate(&links, &ask(), &delete(), std::sync::Arc::new(super::Snapshot::default())).await;
    assert_eq!(run.answers.len(), 2);
    assert!(run.answers.iter().all(|answer| answer.result == Err(PluginFailure::Deadline)));
}

#[tokio::test]
async fn memory_without_end_is_refused_and_the_trap_named_for_it() {
    let greedy =
        Guest::gate("(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable");
    fails(&runtime(), &greedy, PluginFailure::Memory).await;
}

#[tokio::test]
async fn a_trap_is_a_trap() {
    fails(&runtime(), &Guest::gate("unreachable"), PluginFailure::Trap).await;
}

#[tokio::test]
async fn a_recursion_without_end_is_a_trap() {
    let deep = Guest::gate("call $deep").with("(func $deep (result i32) (i32.add (call $deep) (i32.const 1)))");
    fails(&runtime(), &deep, PluginFailure::Trap).await;
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_refused_before_it_is_copied() {
    // A denial whose message claims to be 200,000 bytes.
    let body = format!(
        "(i32.store8 (i32.const {ANSWER}) (i32.const 1))
        (i32.store (i32.const {}) (i32.const {DATA}))
        (i32.store (i32.const {}) (i32.const 200000))
        i32.const {ANSWER}",
        ANSWER + 16,
        ANSWER + 20,
    );
    fails(&runtime(), &Guest::gate(&body), PluginFailure::BadOutput).await;
}

#[tokio::test]
async fn an_answer_outside_the_contract_is_refused() {
    let runtime = runtime();
    // A case that the variant does not have, an address outside of the memory, and a denial without a code.
    let no_such_case = format!("(i32.store8 (i32.const {ANSWER}) (i32.const 99)) i32.const {ANSWER}");
    let no_code = format!("(i32.store8 (i32.const {ANSWER}) (i32.const 1)) i32.const {ANSWER}");
    for body in [no_such_case.as_str(), "i32.const -8", &no_code] {
        fails(&runtime, &Guest::gate(body), PluginFailure::BadOutput).await;
    }
}

#[tokio::test]
async fn the_reason_of_a_failure_is_in_the_plugins_log() {
    let runtime = runtime();
    let link = bind(&runtime, &Guest::gate("unreachable")).await;
    let logs = run(&runtime, &link).await.logs;
    assert_eq!(logs.len(), 1);
    assert!(logs[0].message.contains("unreachable"), "{}", logs[0].message);
}

#[tokio::test]
async fn the_same_question_costs_the_same_and_is_answered_the_same() {
    let runtime = runtime();
    // Deny or allow by the seed in the context, which lies 24 bytes into the arguments.
    let body = format!(
        "(i32.store8 (i32.const {ANSWER}) (i32.and (i32.load (i32.add (local.get $args) (i32.const 24))) (i32.const 1)))
        (i32.store (i32.const {}) (i32.const {DATA}))
        (i32.store (i32.const {}) (i32.const 1))
        i32.const {ANSWER}",
        ANSWER + 8,
        ANSWER + 12,
    );
    let link = bind(&runtime, &Guest::gate(&body).data("x")).await;
    let first = answer(&runtime, &link).await;
    for _ in 0..5 {
        let again = answer(&runtime, &link).await;
        assert_eq!((&again.result, again.fuel, again.memory), (&first.result, first.fuel, first.memory));
    }
    let odd = crate::Ask { seed: 43, ..ask() };
    let run = runtime
        .gate(std::slice::from_ref(&link), &odd, &delete(), std::sync::Arc::new(super::Snapshot::default()))
        .await;
    assert!(matches!(run.answers[0].result, Ok(Decision::Deny { .. })), "{:?}", run.answers[0].result);
    assert_eq!(first.result, Ok(Decision::Allow));
}

#[tokio::test]
async fn who_is_off_or_has_no_gate_is_not_asked_and_who_is_missing_is_unavailable() {
    let runtime = runtime();
    let off = bind_with(&runtime, &Guest::allowing(), Mode::Off, &[]).await;
    assert!(run(&runtime, &off).await.answers.is_empty());

    let mut no_gate = Guest::allowing();
    no_gate.exports = vec!["describe", "timer"];
    no_gate.body =
        "(func (export \"portcullis:policy/timer@0.1.0#fired\") (param i32) (result i32) i32.const 512)".into();
    let no_gate = bind(&runtime, &no_gate).await;
    assert!(run(&runtime, &no_gate).await.answers.is_empty());

    let elsewhere = super::runtime();
    let guest = Guest { name: "elsewhere".into(), ..Guest::allowing() };
    let missing = bind(&elsewhere, &guest).await;
    assert_eq!(answer(&runtime, &missing).await.result, Err(PluginFailure::Unavailable));
    let bytes = guest.build();
    runtime.load(missing.version.digest, PluginClass::Standard, || Some(bytes)).await.unwrap();
    assert_eq!(answer(&runtime, &missing).await.result, Ok(Decision::Allow));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_callers_than_places_wait_for_their_turn_or_are_told_so() {
    let runtime = runtime();
    let link = bind(&runtime, &Guest::allowing()).await;
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let (runtime, link) = (std::sync::Arc::clone(&runtime), link.clone());
            tokio::spawn(async move { answer(&runtime, &link).await.result })
        })
        .collect();
    for call in calls {
        // Never a full pool, which would be `Unavailable`.
        assert!(matches!(call.await.unwrap(), Ok(Decision::Allow) | Err(PluginFailure::Overloaded)));
    }
}

#[tokio::test]
async fn an_organisation_that_uses_up_its_places_is_told_so() {
    let config = RuntimeConfig { calls_per_org: 0, patience: Duration::ZERO, ..config() };
    let elsewhere = runtime();
    let link = bind(&elsewhere, &Guest::allowing()).await;
    let runtime = Runtime::new(config).unwrap();
    let bytes = Guest::allowing().build();
    runtime.load(link.version.digest, PluginClass::Standard, || Some(bytes)).await.unwrap();
    assert_eq!(answer(&runtime, &link).await.result, Err(PluginFailure::Overloaded));
}
