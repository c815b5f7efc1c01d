//! Rehearsals: a call that was recorded is made again from its record alone, and what the record does not tell is never made up.

use std::sync::Arc;

use expect_test::expect_file;
use portcullis_core::session::Names;
use portcullis_core::{Decision, Grant, KvEntry, Mode, PluginClass, PluginFailure, Secret, Session};
use portcullis_testing::{ANSWER, DATA, Guest};
use serde_json::{Value, json};

use super::{NOW, Snapshot, ask, bind_with, delete, org_id, plugin_id, runtime, session_id};
use crate::{
    Link, PaceUsage, Pacing, ReadsFrom, RecordedInput, RecordedLink, Rehearsal, RehearsalError, Rehearsed, Runtime,
    Said, Script,
};

const IMPORTS: &str = "
    (import \"portcullis:policy/kv@0.1.0\" \"get\" (func $get (param i32 i32 i32)))
    (import \"portcullis:policy/kv@0.1.0\" \"set\" (func $set (param i32 i32 i32 i32 i32 i64 i32)))
    (import \"portcullis:policy/kv@0.1.0\" \"list\" (func $keys (param i32 i32 i32 i32 i32 i32)))
    (import \"portcullis:policy/sessions@0.1.0\" \"get\" (func $session (param i32 i32 i32)))
    (import \"portcullis:policy/sessions@0.1.0\" \"list\" (func $sessions (param i32 i32 i32 i32)))
    (import \"portcullis:policy/sessions@0.1.0\" \"count\" (func $count (param i32 i32 i32)))
    (import \"portcullis:policy/sessions@0.1.0\" \"usage\" (func $usage (param i32 i32 i32 i64 i32)))
    (import \"portcullis:policy/secrets@0.1.0\" \"hmac-sha256\" (func $hmac (param i32 i32 i32 i32 i32)))
    (import \"portcullis:policy/log@0.1.0\" \"write\" (func $log (param i32 i32 i32)))";

const GRANTS: [Grant; 3] = [Grant::Kv, Grant::Sessions, Grant::Secrets];

/// Where `session.delete` and the id of the session lie behind the first letters of [`Guest::data`].
const OPERATION: u32 = DATA + 16;
const SESSION: u32 = DATA + 32;

/// Reads everything that can be read, logs a part of the code under the secret, and denies with the value of the key `k` as its message,
/// and usage and counts as its time to wait.
/// `twist` is done before.
fn curious(twist: &str) -> Guest {
    let body = format!(
        "{twist}
        (call $get (i32.const {DATA}) (i32.const 1) (i32.const 4096))
        (call $keys (i32.const {DATA}) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4160))
        (call $session (i32.const {SESSION}) (i32.const 31) (i32.const 4224))
        (call $sessions (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4608))
        (call $count (i32.const 0) (i32.const 0) (i32.const 4672))
        (call $usage (i32.const {OPERATION}) (i32.const 14) (i32.const 0) (i64.const 60000) (i32.const 4736))
        (call $hmac (i32.const {DATA}) (i32.const 1) (i32.const {DATA}) (i32.const 2) (i32.const 4800))
        (i64.store (i32.const 5100) (i64.or
            (i64.and (i64.load (i32.load (i32.const 4804))) (i64.const 0x0f0f0f0f0f0f0f0f))
            (i64.const 0x6060606060606060)))
        (call $log (i32.const 1) (i32.const 5100) (i32.const 8))
        (i32.store8 (i32.const {ANSWER}) (i32.const 1))
        (i32.store (i32.const {code}) (i32.const {DATA}))
        (i32.store (i32.const {code_len}) (i32.const 1))
        (i32.store (i32.const {message}) (i32.load (i32.const 4112)))
        (i32.store (i32.const {message_len}) (i32.load (i32.const 4116)))
        (i32.store8 (i32.const {wait}) (i32.const 1))
        (i64.store (i32.const {seconds}) (i64.add (i64.load (i32.const 4680)) (i64.load (i32.const 4744))))
        i32.const {ANSWER}",
        code = ANSWER + 8,
        code_len = ANSWER + 12,
        message = ANSWER + 16,
        message_len = ANSWER + 20,
        wait = ANSWER + 24,
        seconds = ANSWER + 32,
    );
    let id = session_id().to_string();
    assert_eq!(id.len(), 31);
    Guest::gate(&body).importing(IMPORTS).data(&format!("kv______________session.delete__{id}"))
}

/// Writes `v` under a second key, which is no read.
fn write() -> String {
    format!(
        "(call $set (i32.const {}) (i32.const 1) (i32.const {DATA}) (i32.const 2) (i32.const 0) (i64.const 0) (i32.const 5000))",
        DATA + 1
    )
}

fn snapshot() -> Snapshot {
    let mut session = Session::new(session_id(), org_id(), Names::new(7, Some("shop".into())), NOW);
    session.labels.insert("team".to_owned(), "red".to_owned());
    let entry = |value: &str| KvEntry { value: value.as_bytes().to_vec(), version: 4, expires: None };
    Snapshot {
        sends: false,
        kv: [("k".to_owned(), entry("told by the store")), ("k2".to_owned(), entry("x"))].into(),
        sessions: vec![session],
        secrets: [("k".to_owned(), Secret::new("hush"))].into(),
        fails: false,
    }
}

async fn rehearse(runtime: &Runtime, link: &Link, question: Script, reads: ReadsFrom) -> Rehearsed {
    let rehearsal = Rehearsal {
        digest: link.version.digest,
        class: PluginClass::Standard,
        org: org_id(),
        owner: org_id(),
        plugin: plugin_id(),
        grants: &link.binding.grants,
        http_hosts: &[],
        question,
        reads,
    };
    runtime.rehearse(rehearsal).await.unwrap()
}

/// Records a live call.
async fn recorded(runtime: &Runtime, link: &Link) -> (crate::ChainRun, RecordedInput) {
    let run = runtime.gate(std::slice::from_ref(link), &ask(), &delete(), Arc::new(snapshot())).await;
    let input = RecordedInput::parse(&run.input().unwrap()).unwrap();
    (run, input)
}

fn from(link: &RecordedLink) -> ReadsFrom {
    ReadsFrom::Recorded(link.reads.clone())
}

#[tokio::test]
async fn a_recorded_call_is_made_again_from_its_record_alone() {
    let runtime = runtime();
    let link = bind_with(&runtime, &curious(&write()), Mode::Enforce, &GRANTS).await;
    let (run, input) = recorded(&runtime, &link).await;
    let live = &run.answers[0];
    // Three operations in the window, and one session.
    let denial = Decision::Deny { code: "k".into(), message: "told by the store".into(), retry_after: Some(4) };
    assert_eq!(live.result, Ok(denial.clone()));
    assert_eq!(input.links[0].grants, GRANTS);

    for _ in 0..2 {
        let script = input.before(&input.links[0], None);
        let again = rehearse(&runtime, &link, script, from(&input.links[0])).await;
        assert_eq!(again.result, Ok(Said::Decision(denial.clone())));
        assert_eq!((again.fuel, again.memory, again.unrecorded), (live.fuel, live.memory, None));
        assert!(again.kv.iter().eq(run.kv.iter().map(|(_, access)| access)));
        assert_eq!(again.logs[0].1, run.logs[0].message, "the code under the secret is the same");
        let told = json!({ "deny": { "code": "k", "message": "told by the store", "retry-after": 4 } });
        assert_eq!(again.answer, Some(told));
    }
}

#[tokio::test]
async fn the_record_is_in_the_contracts_words() {
    let runtime = runtime();
    let link = bind_with(&runtime, &curious(&write()), Mode::Enforce, &GRANTS).await;
    let session = snapshot().sessions.remove(0);
    let ask = crate::Ask { session: Some(Arc::new(session)), ..ask() };
    let run = runtime.gate(&[link], &ask, &delete(), Arc::new(snapshot())).await;
    let input: Value = serde_json::from_str(&run.input().unwrap()).unwrap();
    let text = serde_json::to_string_pretty(&input).unwrap() + "\n";
    expect_file!["../../golden/recorded-input.json"].assert_eq(&text);
    assert!(!text.contains("hush"));
}

#[tokio::test]
async fn a_candidate_that_reads_more_than_was_recorded_is_not_answered_for() {
    let runtime = runtime();
    let link = bind_with(&runtime, &curious(""), Mode::Enforce, &GRANTS).await;
    let (_, input) = recorded(&runtime, &link).await;
    let script = || input.before(&input.links[0], None);
    let get = |key: u32, len: u32| format!("(call $get (i32.const {key}) (i32.const {len}) (i32.const 4096))");
    let usage = |operation: u32, len: u32, millis: u32| {
        format!(
            "(call $usage (i32.const {operation}) (i32.const {len}) (i32.const 0) (i64.const {millis}) (i32.const 4736))"
        )
    };
    let cases = [
        ("the same read again", get(DATA, 1), None),
        ("another key", get(DATA + 1, 1), Some(r#"kv {"key":"v"}"#)),
        (
            "another window",
            usage(OPERATION, 14, 1),
            Some(r#"usage {"operation":"session.delete","window":{"sliding":1}}"#),
        ),
        (
            "another status",
            "(call $count (i32.const 1) (i32.const 3) (i32.const 4672))".to_owned(),
            Some(r#"count {"status":"online"}"#),
        ),
    ];
    for (what, twist, missing) in cases {
        let candidate = bind_with(&runtime, &curious(&twist), Mode::Enforce, &GRANTS).await;
        let answer = rehearse(&runtime, &candidate, script(), from(&input.links[0])).await;
        assert_eq!(answer.unrecorded.as_deref(), missing, "{what}");
        if missing.is_some() {
            assert_eq!((answer.result, answer.answer), (Err(PluginFailure::Unavailable), None), "{what}");
        } else {
            assert!(matches!(answer.result, Ok(Said::Decision(Decision::Deny { .. }))), "{what}");
        }
    }
}

#[tokio::test]
async fn a_record_that_was_cut_or_changed_answers_nothing() {
    let runtime = runtime();
    let link = bind_with(&runtime, &curious(""), Mode::Enforce, &GRANTS).await;
    let (_, input) = recorded(&runtime, &link).await;
    let reads = &input.links[0].reads;
    for index in 0..reads.len() {
        let mut cut = reads.clone();
        let gone = cut.remove(index);
        let script = input.before(&input.links[0], None);
        let answer = rehearse(&runtime, &link, script, ReadsFrom::Recorded(cut)).await;
        let read = gone["read"].as_str().unwrap();
        assert!(answer.unrecorded.is_some_and(|missing| missing.starts_with(read)), "without {gone}");
    }
}

#[tokio::test]
async fn a_new_call_reads_a_snapshot() {
    let runtime = runtime();
    let link = bind_with(&runtime, &curious(""), Mode::Enforce, &GRANTS).await;
    let (_, input) = recorded(&runtime, &link).await;
    let mut other = snapshot();
    other.kv.insert("k".to_owned(), KvEntry { value: b"another".to_vec(), version: 1, expires: None });
    let script = input.before(&input.links[0], None);
    let answer = rehearse(&runtime, &link, script, ReadsFrom::Live(Arc::new(other))).await;
    assert!(matches!(answer.result, Ok(Said::Decision(Decision::Deny { message, .. })) if message == "another"));
}

#[tokio::test]
async fn settings_can_be_others_than_were_recorded() {
    let runtime = runtime();
    let link = bind_with(&runtime, &curious(""), Mode::Enforce, &GRANTS).await;
    let (_, input) = recorded(&runtime, &link).await;
    let context = |script: Script| match script {
        Script::Before { context, .. } => context,
        other => panic!("{other:?}"),
    };
    let own = context(input.before(&input.links[0], None));
    assert_eq!((&own["settings"], &own["binding-id"]), (&json!("{}"), &json!(link.binding.id)));
    let other = context(input.before(&input.links[0], Some("{\"a\":1}")));
    assert_eq!(other["settings"], "{\"a\":1}");
}

#[tokio::test]
async fn every_function_can_be_rehearsed() {
    let runtime = runtime();
    let link = bind_with(&runtime, &curious(""), Mode::Enforce, &GRANTS).await;
    let (_, input) = recorded(&runtime, &link).await;
    let Script::Before { context, operation } = input.before(&input.links[0], None) else { panic!("a gate") };
    let guest = |interface: &'static str, function: &str, params: &str, words: &[u32]| {
        let store = |(index, word): (usize, &u32)| {
            format!("(i32.store offset={} (i32.const {ANSWER}) (i32.const {word}))", index * 4)
        };
        let stores: String = words.iter().enumerate().map(store).collect();
        let one = |function: &str| {
            format!(
                "(func (export \"portcullis:policy/{interface}@0.1.0#{function}\") (param {params}) (result i32) {stores} i32.const {ANSWER})"
            )
        };
        let body = function.split(' ').map(one).collect();
        Guest { exports: vec!["describe", interface], body, ..Guest::allowing() }
    };
    let follow_up = Ok(Said::FollowUps(vec![portcullis_core::FollowUp::LogOutFirst]));
    let limits: [u32; 12] = [1, 0, 11, 12, 13, 14, 15, 16, 17, 18, 5, 0];
    let usage = PaceUsage::default();
    let event = json!({ "id": "evt", "name": "subscription.cancelled", "at": 7, "session": null, "json": "{}" });
    let cases = [
        (guest("settings", "validate", "i32 i32", &[0]), Script::Describe, Ok(Said::Description)),
        (
            guest("settings", "validate", "i32 i32", &[0]),
            Script::Validate { settings: "{}".into() },
            Ok(Said::Problems(vec![])),
        ),
        (
            guest("observer", "after on-event", "i32", &[8192, 1]),
            Script::After { context: context.clone(), operation, outcome: json!({ "deferred": 9 }) },
            follow_up.clone(),
        ),
        (
            guest("observer", "after on-event", "i32", &[8192, 1]),
            Script::OnEvent { context: context.clone(), event },
            follow_up.clone(),
        ),
        (
            guest("timer", "fired", "i32", &[8192, 1]),
            Script::Fired { context: context.clone(), key: "k".into(), payload: "p".into() },
            follow_up,
        ),
        (
            guest("pace", "limits", "i32", &limits),
            Script::Limits { context, usage: crate::words::to_json(&crate::convert::ask::usage(usage)) },
            Ok(Said::Pacing(Some(Pacing {
                limits: portcullis_core::RateLimits {
                    send_message_per_minute: 11,
                    send_message_daily_cap: 12,
                    account_protection_seconds: 13,
                    concurrent_limit: 14,
                    group_req_per_minute: 15,
                    group_daily_cap: 16,
                    check_req_per_minute: 17,
                    check_daily_cap: 18,
                },
                valid_until: portcullis_core::Timestamp::from_millis(5),
            }))),
        ),
    ];
    for (guest, script, expected) in cases {
        let link = bind_with(&runtime, &guest, Mode::Enforce, &[]).await;
        let name = format!("{script:?}");
        let rehearsed = rehearse(&runtime, &link, script, ReadsFrom::Recorded(vec![])).await;
        assert_eq!(rehearsed.result, expected, "{name}");
        assert!(rehearsed.answer.is_some(), "{name}");
    }
}

#[tokio::test]
async fn a_question_that_cannot_be_put_says_why() {
    let runtime = runtime();
    let link = bind_with(&runtime, &curious(""), Mode::Enforce, &GRANTS).await;
    let (_, input) = recorded(&runtime, &link).await;
    let Script::Before { context, operation } = input.before(&input.links[0], None) else { panic!("a gate") };
    let ask = async |digest, question| {
        let rehearsal = Rehearsal {
            digest,
            class: PluginClass::Standard,
            org: org_id(),
            owner: org_id(),
            plugin: plugin_id(),
            grants: &[],
            http_hosts: &[],
            question,
            reads: ReadsFrom::Recorded(vec![]),
        };
        runtime.rehearse(rehearsal).await.unwrap_err()
    };
    assert_eq!(ask([0; 32], Script::Describe).await, RehearsalError::NotAtHand);
    let fired = Script::Fired { context: context.clone(), key: String::new(), payload: String::new() };
    assert_eq!(ask(link.version.digest, fired).await, RehearsalError::NotExported { function: "timer.fired" });
    let mut odd = operation.clone();
    odd["detail"] = json!({ "session-labels": [{ "key": "a" }] });
    let error = ask(link.version.digest, Script::Before { context, operation: odd }).await;
    assert_eq!(error.to_string(), "the operation is none of the contract: detail.session-labels[0].value is missing");
    let error = ask(link.version.digest, Script::Before { context: json!({}), operation }).await;
    assert_eq!(error.code(), "invalid_input");
    assert_eq!(RecordedInput::parse("{").unwrap_err().code(), "invalid_input");
}
