//! The policy path beside Extism, both doing the same work in one process, in turns.
//!
//! The work: a host has what is asked as values of its own; the guest denies if the session carries the label `legal-hold`; the host gets a decision.
//! Extism takes and gives bytes, so its host writes JSON and reads JSON; its guest looks for the label in the text, which is less than a parser would do.
//! Both guests are written by hand, so that what is compared is the way there and back. Both are bound by fuel, time and memory.
//!
//! The policy path always makes a fresh instance. Extism is measured both ways: a fresh plugin for every call, and one that is kept.
//! Goals: at least ten times as fast as Extism's fresh plugin, and at most twice as slow as the one that is kept.

#[path = "../../../host/policy/tests/hostile/bed.rs"]
#[allow(dead_code, reason = "shared with the attacks, which use all of it")]
mod bed;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use extism::{CompiledPlugin, Manifest, Plugin, PluginBuilder, Wasm};
use portcullis_core::session::Names;
use portcullis_core::{Labels, PolicyReads, Session};
use portcullis_policy::{Ask, Link, Runtime, RuntimeConfig};
use portcullis_testing::{ANSWER, DATA, Guest};
use serde_json::{Value, json};

const FUEL: u64 = 20_000_000;
const WALL: Duration = Duration::from_secs(2);
const PAGES: u32 = 256;
const LABEL: &str = "legal-hold";

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--seconds").skip(1);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(10);
    let ours = Ours::new();
    let compiled = compiled();
    let mut kept = Plugin::new_from_compiled(&compiled).expect("a plugin");

    for held in [false, true] {
        let ask = ask(held);
        assert_eq!(ours.denies(&ask), held, "our guest does its work");
        assert_eq!(call(&mut kept, &ask), held, "their guest does its work");
    }
    let ask = ask(false);
    let mut times: [Vec<Duration>; 3] = Default::default();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        times[0].push(time(200, || assert!(!black_box(ours.denies(&ask)))));
        times[1].push(time(200, || assert!(!black_box(call(&mut kept, &ask)))));
        times[2].push(time(20, || {
            let mut fresh = Plugin::new_from_compiled(&compiled).expect("a plugin");
            black_box(call(&mut fresh, &ask));
        }));
    }
    let [ours, reused, fresh] = times.map(median);
    println!("portcullis, fresh instance   {ours:>10.2?}");
    println!("extism 1.30, kept plugin     {reused:>10.2?}");
    println!("extism 1.30, fresh plugin    {fresh:>10.2?}");
    let ratio = |over: Duration, under: Duration| over.as_secs_f64() / under.as_secs_f64();
    println!("fresh extism / portcullis    {:>9.1}x   (goal >= 10)", ratio(fresh, ours));
    println!("portcullis / kept extism     {:>9.2}x   (goal <= 2)", ratio(ours, reused));
}

fn time(calls: u32, mut work: impl FnMut()) -> Duration {
    let began = Instant::now();
    (0..calls).for_each(|_| work());
    began.elapsed() / calls
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// What is asked: a delete of a session with three labels, of which one may be the one that holds it.
fn ask(held: bool) -> Ask {
    let labels: Labels =
        ["team", if held { LABEL } else { "region" }, "tier"].map(|key| (key.into(), "x".into())).into();
    let session = Session::new(bed::session_id(), bed::org_id(), Names::new(7, None), bed::NOW);
    Ask { session: Some(Arc::new(Session { labels, ..session })), ..bed::ask() }
}

/// The policy path.
struct Ours {
    tokio: tokio::runtime::Runtime,
    runtime: Arc<Runtime>,
    link: Link,
    reads: Arc<dyn PolicyReads>,
}

impl Ours {
    fn new() -> Self {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let runtime = Runtime::new(RuntimeConfig { gate_wall: WALL, ..RuntimeConfig::default() }).expect("a runtime");
        let admitted = tokio.block_on(bed::admit(&runtime, guest())).expect("the guest is a plugin");
        let link = bed::bind(admitted, &[]);
        Self { tokio, runtime, link, reads: Arc::new(bed::Snapshot::default()) }
    }

    fn denies(&self, ask: &Ask) -> bool {
        let (links, reads) = (std::slice::from_ref(&self.link), Arc::clone(&self.reads));
        let run = self.tokio.block_on(self.runtime.gate(links, ask, &bed::delete(), reads));
        matches!(run.answers[0].result, Ok(portcullis_core::Decision::Deny { .. }))
    }
}

/// Denies if a label of the session's has this key. The session's labels are a list at 196 in what is given.
fn guest() -> Vec<u8> {
    let len = LABEL.len();
    let body = format!(
        "(local $label i32) (local $left i32) (local $byte i32)
        (local.set $label (i32.load offset=196 (local.get $args)))
        (local.set $left (i32.load offset=200 (local.get $args)))
        (block $none (loop $next
            (br_if $none (i32.eqz (local.get $left)))
            (block $other
                (br_if $other (i32.ne (i32.load offset=4 (local.get $label)) (i32.const {len})))
                (local.set $byte (i32.const 0))
                (loop $same
                    (br_if $other (i32.ne
                        (i32.load8_u (i32.add (i32.load (local.get $label)) (local.get $byte)))
                        (i32.load8_u (i32.add (i32.const {DATA}) (local.get $byte)))))
                    (br_if $same (i32.lt_u (local.tee $byte (i32.add (local.get $byte) (i32.const 1))) (i32.const {len}))))
                (i32.store8 (i32.const {ANSWER}) (i32.const 1))
                (i32.store offset=8 (i32.const {ANSWER}) (i32.const {DATA}))
                (i32.store offset=12 (i32.const {ANSWER}) (i32.const {len}))
                (return (i32.const {ANSWER})))
            (local.set $label (i32.add (local.get $label) (i32.const 16)))
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br $next)))
        i32.const {ANSWER}"
    );
    Guest::gate(&body).data(LABEL).build()
}

/// The same guest for Extism: looks for the label in the text, and answers with a text.
fn compiled() -> CompiledPlugin {
    let answer = |text: &str, local: &str| {
        let stores: String = text
            .bytes()
            .enumerate()
            .map(|(at, byte)| {
                format!("(call $store_u8 (i64.add (local.get {local}) (i64.const {at})) (i32.const {byte}))")
            })
            .collect();
        let len = text.len();
        format!(
            "(local.set {local} (call $alloc (i64.const {len}))) {stores} (call $output_set (local.get {local}) (i64.const {len}))"
        )
    };
    let text = format!(
        "(module
            (import \"extism:host/env\" \"alloc\" (func $alloc (param i64) (result i64)))
            (import \"extism:host/env\" \"store_u8\" (func $store_u8 (param i64 i32)))
            (import \"extism:host/env\" \"input_length\" (func $input_length (result i64)))
            (import \"extism:host/env\" \"input_load_u64\" (func $input_load_u64 (param i64) (result i64)))
            (import \"extism:host/env\" \"input_load_u8\" (func $input_load_u8 (param i64) (result i32)))
            (import \"extism:host/env\" \"output_set\" (func $output_set (param i64 i64)))
            (memory 4)
            (data (i32.const 0) \"\\\"{LABEL}\\\"\")
            (func (export \"before\") (result i32)
                (local $len i64) (local $at i64) (local $i i32) (local $byte i32) (local $out i64)
                (local.set $len (call $input_length))
                ;; Copies the input, eight bytes at a time and the rest one by one, as a development kit does.
                (block $rest (loop $copy
                    (br_if $rest (i64.gt_u (i64.add (local.get $at) (i64.const 8)) (local.get $len)))
                    (i64.store (i32.add (i32.const 4096) (i32.wrap_i64 (local.get $at))) (call $input_load_u64 (local.get $at)))
                    (local.set $at (i64.add (local.get $at) (i64.const 8)))
                    (br $copy)))
                (block $done (loop $copy
                    (br_if $done (i64.ge_u (local.get $at) (local.get $len)))
                    (i32.store8 (i32.add (i32.const 4096) (i32.wrap_i64 (local.get $at))) (call $input_load_u8 (local.get $at)))
                    (local.set $at (i64.add (local.get $at) (i64.const 1)))
                    (br $copy)))
                (block $none (loop $next
                    (br_if $none (i32.ge_u (local.get $i) (i32.wrap_i64 (local.get $len))))
                    (local.set $byte (i32.const 0))
                    (block $other (loop $same
                        (br_if $other (i32.ne
                            (i32.load8_u (i32.add (i32.const 4096) (i32.add (local.get $i) (local.get $byte))))
                            (i32.load8_u (local.get $byte))))
                        (br_if $same (i32.lt_u (local.tee $byte (i32.add (local.get $byte) (i32.const 1))) (i32.const {})))
                        {}
                        (return (i32.const 0))))
                    (local.set $i (i32.add (local.get $i) (i32.const 1)))
                    (br $next)))
                {}
                (i32.const 0)))",
        LABEL.len() + 2,
        answer(r#"{"deny":{"code":"legal-hold"}}"#, "$out"),
        answer(r#"{"allow":{}}"#, "$out"),
    );
    let module = wat::parse_str(text).expect("the guest is valid text");
    let mut manifest = Manifest::new([Wasm::data(module)]).with_timeout(WALL);
    manifest.memory.max_pages = Some(PAGES);
    let builder = PluginBuilder::new(manifest).with_wasi(false).with_fuel_limit(FUEL);
    CompiledPlugin::new(builder).expect("the guest compiles")
}

/// Asks Extism's guest: the values as JSON there, and the decision as JSON back.
fn call(plugin: &mut Plugin, ask: &Ask) -> bool {
    let session = ask.session.as_deref();
    let document = json!({
        "context": {
            "decisionId": ask.decision,
            "now": ask.now,
            "seed": ask.seed,
            "principal": { "kind": "system", "capabilities": ["read", "send", "manage", "events", "plugins", "audit", "operate"] },
            "org": { "id": ask.org.id, "name": ask.org.name, "plan": "free", "planActive": false, "labels": ask.org.labels },
            "session": session.map(|session| json!({
                "id": session.id,
                "instanceName": session.names.instance_name,
                "labels": session.labels,
                "intent": "stopped",
                "status": "stopped",
                "ratePolicy": session.rate_policy,
                "createdAt": session.created_at,
            })),
            "dryRun": ask.dry_run,
            "settings": "{}",
        },
        "operation": { "name": "session.delete" },
    });
    let answer: Vec<u8> = plugin.call("before", document.to_string()).expect("an answer");
    let decision: Value = serde_json::from_slice(&answer).expect("the answer is JSON");
    decision.get("deny").is_some()
}
