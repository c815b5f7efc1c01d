//! What guests may call: grants, buffered writes, bounded logs, and a WASI that leads nowhere.

use std::sync::Arc;

use portcullis_core::{Decision, Grant, KvAccess, KvChange, KvEntry, Mode, PluginFailure};
use portcullis_testing::{ANSWER, DATA, Guest};

use super::{Snapshot, ask, bind, bind_with, delete, plugin_id, run, runtime};
use crate::{ChainRun, Link, LogLevel, Runtime};

const KV: &str = "
    (import \"portcullis:policy/kv@0.1.0\" \"get\" (func $get (param i32 i32 i32)))
    (import \"portcullis:policy/kv@0.1.0\" \"set\" (func $set (param i32 i32 i32 i32 i32 i64 i32)))";

/// Reads `k`, sets it to `v`, and denies with the code `x` if either gave an error.
fn keeper() -> Guest {
    let body = format!(
        "(call $get (i32.const {DATA}) (i32.const 1) (i32.const 4096))
        (call $set (i32.const {DATA}) (i32.const 1) (i32.const {}) (i32.const 1) (i32.const 0) (i64.const 0) (i32.const 4160))
        (i32.store8 (i32.const {ANSWER}) (i32.or (i32.load8_u (i32.const 4096)) (i32.load8_u (i32.const 4160))))
        (i32.store (i32.const {}) (i32.const {}))
        (i32.store (i32.const {}) (i32.const 1))
        i32.const {ANSWER}",
        DATA + 1,
        ANSWER + 8,
        DATA + 2,
        ANSWER + 12,
    );
    Guest::gate(&body).importing(KV).data("kvx")
}

fn entry() -> KvEntry {
    KvEntry { value: b"old".to_vec(), version: 4, expires: None }
}

async fn run_over(runtime: &Runtime, link: &Link, snapshot: Snapshot) -> ChainRun {
    runtime.gate(std::slice::from_ref(link), &ask(), &delete(), Arc::new(snapshot)).await
}

#[tokio::test]
async fn writes_come_back_with_the_versions_that_were_seen() {
    let runtime = runtime();
    let link = bind_with(&runtime, &keeper(), Mode::Enforce, &[Grant::Kv]).await;
    let written = |seen| {
        let change = KvChange::Put { value: b"v".to_vec(), expires: None };
        (link.binding.id, KvAccess { plugin: plugin_id(), key: "k".into(), seen: Some(seen), change })
    };
    let run = run_over(&runtime, &link, Snapshot::default()).await;
    assert_eq!((&run.answers[0].result, run.kv.clone()), (&Ok(Decision::Allow), vec![written(None)]));

    let snapshot = Snapshot { kv: [("k".to_owned(), entry())].into(), ..Snapshot::default() };
    let run = run_over(&runtime, &link, snapshot).await;
    assert_eq!(run.kv, [written(Some(4))]);
    let input: serde_json::Value = serde_json::from_str(&run.input().unwrap()).unwrap();
    assert_eq!(input["links"][0]["reads"][0]["entry"]["base64"], "b2xk");
    assert_eq!(input["operation"]["name"], "session.delete");
    assert_eq!(input["context"]["seed"], 42);
}

#[tokio::test]
async fn what_is_not_granted_is_an_error_that_the_guest_can_handle() {
    let runtime = runtime();
    let link = bind(&runtime, &keeper()).await;
    let run = run(&runtime, &link).await;
    assert!(matches!(&run.answers[0].result, Ok(Decision::Deny { code, .. }) if code == "x"));
    assert_eq!(run.kv, []);
}

#[tokio::test]
async fn a_monitoring_plugin_writes_nothing() {
    let runtime = runtime();
    let link = bind_with(&runtime, &keeper(), Mode::Monitor, &[Grant::Kv]).await;
    let run = run(&runtime, &link).await;
    assert_eq!((&run.answers[0].result, run.kv), (&Ok(Decision::Allow), vec![]));
}

#[tokio::test]
async fn a_store_that_fails_makes_the_plugin_unavailable_and_not_guilty() {
    let runtime = runtime();
    let link = bind_with(&runtime, &keeper(), Mode::Enforce, &[Grant::Kv]).await;
    let run = run_over(&runtime, &link, Snapshot { fails: true, ..Snapshot::default() }).await;
    assert_eq!(run.answers[0].result, Err(PluginFailure::Unavailable));
    assert_eq!(run.kv, []);
    assert!(!run.logs[0].message.contains("disk"), "the store's own words are not the plugin's to read");
}

#[tokio::test]
async fn reads_that_are_too_large_are_not_recorded() {
    let runtime = runtime();
    let link = bind_with(&runtime, &keeper(), Mode::Enforce, &[Grant::Kv]).await;
    let large = KvEntry { value: vec![0; 60_000], ..entry() };
    let run = run_over(&runtime, &link, Snapshot { kv: [("k".to_owned(), large)].into(), ..Snapshot::default() }).await;
    assert_eq!(run.answers[0].result, Ok(Decision::Allow));
    assert_eq!(run.input(), None);
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut_and_counted() {
    let body = format!(
        "(local $left i32) (local.set $left (i32.const 1000))
        (loop $again
            (call $write (i32.const 1) (i32.const {DATA}) (i32.const 2000))
            (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        i32.const {ANSWER}"
    );
    let guest = Guest::gate(&body)
        .importing("(import \"portcullis:policy/log@0.1.0\" \"write\" (func $write (param i32 i32 i32)))");
    let runtime = runtime();
    let link = bind(&runtime, &guest).await;
    let logs = run(&runtime, &link).await.logs;
    assert_eq!(logs.len(), 65);
    assert!(logs[..64].iter().all(|line| line.level == LogLevel::Info && line.message.len() == 1024));
    assert_eq!(logs[64].message, "936 more lines were dropped");
}

#[tokio::test]
async fn a_string_that_is_too_long_for_an_import_ends_the_call() {
    let guest = Guest::gate("(call $write (i32.const 1) (i32.const 0) (i32.const 200000)) i32.const 512")
        .importing("(import \"portcullis:policy/log@0.1.0\" \"write\" (func $write (param i32 i32 i32)))");
    let runtime = runtime();
    let link = bind(&runtime, &guest).await;
    assert_eq!(super::answer(&runtime, &link).await.result, Err(PluginFailure::BadOutput));
}

#[tokio::test]
async fn time_stands_still_and_chance_repeats() {
    // Waits for a century, then denies if the clock has moved, and logs eight random bytes.
    let body = format!(
        "(call $block (call $subscribe (i64.const 3153600000000000000)))
        (i64.store (i32.const {DATA}) (i64.or (i64.and (call $random) (i64.const 0x0f0f0f0f0f0f0f0f)) (i64.const 0x6060606060606060)))
        (call $write (i32.const 1) (i32.const {DATA}) (i32.const 8))
        (i32.store8 (i32.const {ANSWER}) (i64.ne (call $now) (i64.const 0)))
        i32.const {ANSWER}"
    );
    let guest = Guest::gate(&body).importing(
        "(import \"wasi:clocks/monotonic-clock@0.2.6\" \"now\" (func $now (result i64)))
        (import \"wasi:clocks/monotonic-clock@0.2.6\" \"subscribe-duration\" (func $subscribe (param i64) (result i32)))
        (import \"wasi:io/poll@0.2.6\" \"[method]pollable.block\" (func $block (param i32)))
        (import \"wasi:random/random@0.2.6\" \"get-random-u64\" (func $random (result i64)))
        (import \"portcullis:policy/log@0.1.0\" \"write\" (func $write (param i32 i32 i32)))",
    );
    let runtime = runtime();
    let link = bind(&runtime, &guest).await;
    let (first, again) = (run(&runtime, &link).await, run(&runtime, &link).await);
    assert_eq!(first.answers[0].result, Ok(Decision::Allow));
    assert_eq!(first.logs, again.logs);
    assert_eq!(first.answers[0].fuel, again.answers[0].fuel);
    let other = crate::Ask { seed: 43, ..ask() };
    let other = runtime.gate(&[link], &other, &delete(), Arc::new(Snapshot::default())).await;
    assert_ne!(first.logs, other.logs);
}

/// Calls an import with these arguments and denies with 10 times its result's case, plus the case of its error, as the time to wait.
fn caller(imports: &str, call: &str, error_at: u32) -> Guest {
    let body = format!(
        "{call}
        (i32.store8 (i32.const {ANSWER}) (i32.const 1))
        (i32.store (i32.const {code}) (i32.const {DATA}))
        (i32.store (i32.const {code_len}) (i32.const 1))
        (i32.store8 (i32.const {wait}) (i32.const 1))
        (i64.store (i32.const {seconds}) (i64.extend_i32_u (i32.add
            (i32.mul (i32.const 10) (i32.load8_u (i32.const 4096)))
            (i32.mul (i32.load8_u (i32.const 4096)) (i32.load8_u (i32.const {error}))))))
        i32.const {ANSWER}",
        code = ANSWER + 8,
        code_len = ANSWER + 12,
        wait = ANSWER + 24,
        seconds = ANSWER + 32,
        error = 4096 + error_at,
    );
    Guest::gate(&body).importing(imports)
}

const GRANTED: u64 = 0;
const NOT_GRANTED: u64 = 10;
const NOT_FOUND: u64 = 11;
const INVALID: u64 = 12;

async fn told(runtime: &Runtime, link: &Link, snapshot: Snapshot) -> u64 {
    match run_over(runtime, link, snapshot).await.answers.remove(0).result {
        Ok(Decision::Deny { retry_after: Some(told), .. }) => told,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_sessions_keys_are_there_only_with_the_session() {
    let runtime = runtime();
    let session = || {
        let names = portcullis_core::session::Names::new(7, None);
        portcullis_core::Session::new(super::session_id(), super::org_id(), names, super::NOW)
    };
    let here = super::session_id();
    let gone = portcullis_core::SessionId::from_bytes([1; 16]);
    let cases = [
        (format!("session:{here}:warmth"), GRANTED),
        (format!("session:{here}:"), GRANTED),
        (format!("session:{gone}:warmth"), NOT_FOUND),
        (format!("session:{}:warmth", here.to_string().to_lowercase()), INVALID),
        (format!("session:{here}"), INVALID),
        ("session:".to_owned(), INVALID),
        ("sessions:all".to_owned(), GRANTED),
    ];
    for (key, expected) in cases {
        let len = key.len();
        let get = format!("(call $get (i32.const {DATA}) (i32.const {len}) (i32.const 4096))");
        let set = format!(
            "(call $set (i32.const {DATA}) (i32.const {len}) (i32.const {DATA}) (i32.const 1) (i32.const 0) (i64.const 0) (i32.const 4096))"
        );
        for (call, error_at) in [(get, 8), (set, 4)] {
            let guest = caller(KV, &call, error_at).data(&key);
            let link = bind_with(&runtime, &guest, Mode::Enforce, &[Grant::Kv]).await;
            let snapshot = Snapshot { sessions: vec![session()], ..Snapshot::default() };
            let run = run_over(&runtime, &link, snapshot).await;
            assert_eq!(run.kv.len(), usize::from(expected == GRANTED), "{key}");
            let snapshot = Snapshot { sessions: vec![session()], ..Snapshot::default() };
            assert_eq!(told(&runtime, &link, snapshot).await, expected, "{key}");
        }
    }
}

#[tokio::test]
async fn a_secret_is_used_and_never_seen() {
    let runtime = runtime();
    let imports =
        "(import \"portcullis:policy/secrets@0.1.0\" \"hmac-sha256\" (func $hmac (param i32 i32 i32 i32 i32)))";
    let snapshot = || Snapshot {
        secrets: [("signing".to_owned(), portcullis_core::Secret::new("Jefe"))].into(),
        ..Snapshot::default()
    };
    let named = |name: &str| {
        let call = format!(
            "(call $hmac (i32.const {DATA}) (i32.const {}) (i32.const {DATA}) (i32.const 1) (i32.const 4096))",
            name.len()
        );
        caller(imports, &call, 4).data(&format!("{name}x"))
    };
    let longest = "n".repeat(64);
    let longer = "n".repeat(65);
    let cases = [("signing", GRANTED), ("other", NOT_FOUND), (&longest, NOT_FOUND), (&longer, INVALID), ("", INVALID)];
    for (name, expected) in cases {
        let link = bind_with(&runtime, &named(name), Mode::Enforce, &[Grant::Secrets]).await;
        assert_eq!(told(&runtime, &link, snapshot()).await, expected, "{name}");
    }
    let link = bind(&runtime, &named("signing")).await;
    assert_eq!(told(&runtime, &link, snapshot()).await, NOT_GRANTED);
    let link = bind_with(&runtime, &named("signing"), Mode::Enforce, &[Grant::Secrets]).await;
    let input = run_over(&runtime, &link, snapshot()).await.input().unwrap();
    assert!(input.contains("hmac") && !input.contains("Jefe"), "{input}");
    let run = run_over(&runtime, &link, Snapshot { fails: true, ..Snapshot::default() }).await;
    assert_eq!(run.answers[0].result, Err(PluginFailure::Unavailable));
}
