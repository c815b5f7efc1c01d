//! The ratios: chains, a plugin that keeps something, one rule in several languages, many plugins in turn, and two threads.

use std::cell::Cell;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{Grant, Operation, PluginClass, PolicyReads};
use portcullis_policy::{Ask, ClassBounds, Link, Runtime, RuntimeConfig};
use portcullis_testing::{ANSWER, DATA, Guest};
use tokio::runtime::Runtime as Tokio;

use crate::bed::{Snapshot, admit, ask, bind, bind_class, delete, org_id};
use crate::measure::{compare, median, time};
use crate::raw::{Floor, RawPlugin};

/// What the whole path may cost, of what the bare call does.
const GOAL: f64 = 1.3;
/// How many plugins are called in turn.
const MANY: usize = 1000;

/// What the runtime is asked.
pub(crate) struct Question {
    ask: Ask,
    operation: Operation,
    reads: Arc<dyn PolicyReads>,
}

impl Default for Question {
    fn default() -> Self {
        Self { ask: ask(), operation: delete(), reads: Arc::new(Snapshot::default()) }
    }
}

impl Question {
    /// Asks a chain, all of which must answer.
    pub(crate) async fn ask(&self, runtime: &Runtime, links: &[Link]) {
        let run = runtime.gate(links, &self.ask, &self.operation, Arc::clone(&self.reads)).await;
        let failure = black_box(run).answers.into_iter().find_map(|answer| answer.result.err());
        assert_eq!(failure, None, "a gate failed");
    }
}

/// Uploads and binds a component.
pub(crate) async fn upload(runtime: &Runtime, bytes: Vec<u8>, grants: &[Grant]) -> Link {
    bind(admit(runtime, bytes).await.expect("the component is a plugin"), grants)
}

fn runtime() -> Arc<Runtime> {
    let walls = Duration::from_secs(10);
    let usual = RuntimeConfig::default();
    let large = ClassBounds { gate_wall: walls, ..usual.large };
    let config = RuntimeConfig { gate_wall: walls, chain_wall: walls, loaded_plugins: MANY + 24, large, ..usual };
    Runtime::new(config).expect("a runtime")
}

/// A chain of gates that allow everything, against as many bare calls.
pub(crate) fn chains(tokio: &Tokio) {
    let (floor, runtime, question) = (Floor::new(), runtime(), Question::default());
    for length in [1, 4, 16] {
        let guests: Vec<Vec<u8>> = (0..length).map(|n| Guest::allowing().named(&format!("p{n}")).build()).collect();
        let plugins: Vec<RawPlugin> = guests.iter().map(|bytes| floor.plugin(bytes)).collect();
        let links: Vec<Link> = guests.into_iter().map(|bytes| tokio.block_on(upload(&runtime, bytes, &[]))).collect();
        let raw = async || {
            for plugin in &plugins {
                floor.call(plugin).await;
            }
        };
        compare(
            &format!("a chain of {length}"),
            Some(GOAL),
            || tokio.block_on(raw()),
            || tokio.block_on(question.ask(&runtime, &links)),
        );
    }
}

/// A gate that reads two keys and writes one.
pub(crate) fn keeping(tokio: &Tokio) {
    let body = format!(
        "(call $get (i32.const {DATA}) (i32.const 5) (i32.const 4096))
        (call $get (i32.const {DATA}) (i32.const 6) (i32.const 4096))
        (call $set (i32.const {DATA}) (i32.const 7) (i32.const {DATA}) (i32.const 4) (i32.const 0) (i64.const 0) (i32.const 4160))
        i32.const {ANSWER}"
    );
    let imports = "
        (import \"portcullis:policy/kv@0.1.0\" \"get\" (func $get (param i32 i32 i32)))
        (import \"portcullis:policy/kv@0.1.0\" \"set\" (func $set (param i32 i32 i32 i32 i32 i64 i32)))";
    let bytes = Guest::gate(&body).importing(imports).data("counted").build();
    one(tokio, "two reads and a write", PluginClass::Standard, Some(GOAL), bytes);
}

/// One rule in several languages, from the built examples.
pub(crate) fn languages(tokio: &Tokio) {
    for language in ["rust", "js", "python", "c"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/examples/{language}.wasm"));
        match std::fs::read(&path) {
            Ok(bytes) => one(tokio, &format!("the example in {language}"), PluginClass::Large, None, bytes),
            Err(_) => println!("SKIPPED: the example in {language}; build it with plugins/examples/build {language}"),
        }
    }
}

fn one(tokio: &Tokio, name: &str, class: PluginClass, goal: Option<f64>, bytes: Vec<u8>) {
    let (floor, runtime, question) = (Floor::new(), runtime(), Question::default());
    let plugin = floor.plugin(&bytes);
    let admitted = tokio.block_on(runtime.admit(org_id(), bytes, class)).expect("the component is a plugin");
    let links = [bind_class(admitted, class, &[Grant::Kv])];
    let (raw, policy) = (|| tokio.block_on(floor.call(&plugin)), || tokio.block_on(question.ask(&runtime, &links)));
    compare(name, goal, raw, policy);
}

/// Different plugins in turn, so that nothing of one is warm when it is called again.
pub(crate) fn in_turn(tokio: &Tokio) {
    let (floor, runtime, question) = (Floor::new(), runtime(), Question::default());
    let (mut plugins, mut links) = (Vec::new(), Vec::new());
    for n in 0..MANY {
        let bytes = Guest::allowing().named(&format!("p{n}")).build();
        plugins.push(floor.plugin(&bytes));
        links.push(tokio.block_on(upload(&runtime, bytes, &[])));
    }
    let (turn, at) = (Cell::new(0), Cell::new(0));
    let next = |turn: &Cell<usize>| {
        turn.set((turn.get() + 1) % MANY);
        turn.get()
    };
    compare(
        &format!("{MANY} plugins in turn"),
        Some(GOAL),
        || tokio.block_on(floor.call(&plugins[next(&turn)])),
        || tokio.block_on(question.ask(&runtime, std::slice::from_ref(&links[next(&at)]))),
    );
}

/// How much more two threads get done than one, each with an executor of its own and both with one runtime.
pub(crate) fn two_threads(tokio: &Tokio) {
    let (floor, runtime, question) = (Floor::new(), runtime(), Question::default());
    let bytes = Guest::allowing().build();
    let plugin = floor.plugin(&bytes);
    let links = [tokio.block_on(upload(&runtime, bytes, &[]))];
    let raw = speedup(&|tokio| tokio.block_on(floor.call(&plugin)));
    let policy = speedup(&|tokio| tokio.block_on(question.ask(&runtime, &links)));
    println!("{:<44} {raw:>11.2}x {policy:>11.2}x         (goal >= 1.8x)", "two threads against one");
}

fn speedup(work: &(impl Fn(&Tokio) + Sync)) -> f64 {
    const CALLS: u32 = 2000;
    let run = || {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        (0..CALLS).for_each(|_| work(&tokio));
    };
    let mut ratios = Vec::new();
    for _ in 0..30 {
        let alone = time(|| std::thread::scope(|scope| drop(scope.spawn(run))));
        let both = time(|| {
            std::thread::scope(|scope| {
                scope.spawn(run);
                scope.spawn(run);
            });
        });
        // As a duration, so that the same median serves.
        ratios.push(Duration::from_secs_f64(2.0 * alone.as_secs_f64() / both.as_secs_f64()));
    }
    median(ratios).as_secs_f64()
}
