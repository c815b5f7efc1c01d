//! What the policy path adds to a call of a component: gates through the runtime, against the same components called by wasmtime alone.
//!
//! Both sides make a fresh store and instance for every call, from a pool with the same settings, bound by fuel and epoch, with the same inputs.
//! The runtime adds what a gate needs: permits, the imports' state, the deadline, the checked answer and its record.
//! They are measured in turns and compared by medians, so that a noisy neighbour disturbs both sides alike.
//!
//! `cases` are the ratios and `many` what a thousand plugins of a thousand organisations take; `raw` is the floor.

#![expect(clippy::print_stdout, reason = "ratios are what the benchmark is for")]

#[expect(dead_code, reason = "shared with the attacks, which use all of it")]
#[path = "../../tests/hostile/bed.rs"]
mod bed;
mod cases;
mod many;
mod measure;
mod raw;

use std::time::Duration;

use criterion::Criterion;
use portcullis_policy::{Runtime, RuntimeConfig};
use portcullis_testing::Guest;

fn main() {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut criterion = Criterion::default().configure_from_args().measurement_time(Duration::from_secs(5));
    let bytes = Guest::allowing().build();
    let floor = raw::Floor::new();
    let plugin = floor.plugin(&bytes);
    let runtime = Runtime::new(RuntimeConfig::default()).expect("a runtime");
    let link = tokio.block_on(cases::upload(&runtime, bytes, &[]));
    let question = cases::Question::default();
    criterion.bench_function("gate/raw", |bencher| bencher.iter(|| tokio.block_on(floor.call(&plugin))));
    criterion.bench_function("gate/policy", |bencher| {
        bencher.iter(|| tokio.block_on(question.ask(&runtime, std::slice::from_ref(&link))));
    });
    drop((runtime, floor));

    println!("\n{:<44} {:>12} {:>12} {:>7}", "", "raw", "policy", "ratio");
    cases::chains(&tokio);
    cases::keeping(&tokio);
    cases::languages(&tokio);
    cases::in_turn(&tokio);
    cases::two_threads(&tokio);
    many::report(&tokio);
}
