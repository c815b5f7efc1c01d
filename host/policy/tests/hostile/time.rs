//! Attacks on time: whatever a guest does instead of answering, fuel ends it, and where fuel does not grow with the work the clock does.

use std::time::Duration;

use portcullis_core::PluginFailure;
use portcullis_policy::RuntimeConfig;
use portcullis_testing::text::{
    CLOCK, KV, LOG, SESSIONS, before, core, describe, description, exporting, for_ever, realloc, times, zero,
};
use portcullis_testing::{Guest, encode};

use crate::attack::{Asked, Attack, End, attack, check, check_within, upload};
use crate::bed::config;

/// Fuel to burn, so that only the clock ends a call.
fn by_the_clock() -> RuntimeConfig {
    let wall = Duration::from_millis(50);
    RuntimeConfig {
        gate_fuel: u64::MAX / 2,
        gate_wall: wall,
        background_fuel: u64::MAX / 2,
        background_wall: wall,
        ..config()
    }
}

fn spin() -> String {
    for_ever("")
}

/// A description, a gate and a `cabi_realloc` with these bodies.
fn module(described: &str, gated: &str, allocated: &str) -> Vec<u8> {
    let parts = format!("{} {} {} {}", description(), describe(described), before(gated), realloc(allocated));
    encode(&core(&parts), &["describe", "gate"])
}

#[tokio::test]
async fn spins_end_by_fuel_wherever_they_are() {
    let bump = "i32.const 4096";
    let post = |interface: &str| {
        format!("(func (export \"cabi_post_portcullis:policy/{interface}\") (param i32) (loop $again (br $again)))")
    };
    let heavy_start = format!("(func $start (local $i i32) {}) (start $start)", times(500_000, ""));
    let table = "(table 1 funcref) (elem (i32.const 0) $self) (type $f (func (result i32)))";
    let attacks = [
        attack("a spin in the gate", &Guest::gate(&spin()), End::FUEL),
        upload("a spin in describe", module(&spin(), &zero(), bump), End::Undescribed(PluginFailure::Fuel)),
        upload("a spin in cabi_realloc", module("i32.const 64", &zero(), &spin()), End::FUEL),
        attack("a spin after the answer", &Guest::allowing().with(&post("gate@0.1.0#before")), End::FUEL),
        attack(
            "a spin after the description",
            &Guest::allowing().with(&post("describe@0.1.0#describe")),
            End::Undescribed(PluginFailure::Fuel),
        ),
        attack(
            "a spin at the start",
            &Guest::allowing().with(&format!("(func $start {}) (start $start)", spin())),
            End::Undescribed(PluginFailure::Fuel),
        ),
        attack("a start that only an upload can afford", &Guest::allowing().with(&heavy_start), End::FUEL),
        attack(
            "a tail call for ever",
            &Guest::gate("(return_call $self)").with("(func $self (result i32) (return_call $self))"),
            End::FUEL,
        ),
        attack(
            "an indirect tail call for ever",
            &Guest::gate("(return_call $self)")
                .with(&format!("{table} (func $self (type $f) (return_call_indirect (type $f) (i32.const 0)))")),
            End::FUEL,
        ),
        attack(
            "a spin over a branch table",
            &Guest::gate(
                "(local $n i32)
                (loop $again
                    (local.set $n (i32.add (local.get $n) (i32.const 1)))
                    (br_table $again $again $again $again (i32.and (local.get $n) (i32.const 3))))
                unreachable",
            ),
            End::FUEL,
        ),
        attack(
            "divisions for ever",
            &Guest::gate(&format!(
                "(local $n i64) (local.set $n (i64.const -1)) {}",
                for_ever("(local.set $n (i64.or (i64.div_u (local.get $n) (i64.const 3)) (i64.const -7)))")
            )),
            End::FUEL,
        ),
        attack(
            "vectors for ever",
            &Guest::gate(&format!(
                "(local $v v128) {}",
                for_ever("(local.set $v (f64x2.sqrt (f64x2.add (local.get $v) (v128.const f64x2 2 3))))")
            )),
            End::FUEL,
        ),
        attack("growing a memory by nothing", &Guest::gate(&for_ever("(drop (memory.grow (i32.const 0)))")), End::FUEL),
        attack("a spin in settings", &exporting("settings", &["validate"], "i32 i32", &spin()), End::FUEL)
            .asking(Asked::Settings),
        attack("a spin in an observer", &observing(&spin()), End::FUEL).asking(Asked::After),
        attack("a spin at an event", &observing(&spin()), End::FUEL).asking(Asked::Event),
        attack("a spin in a timer", &exporting("timer", &["fired"], "i32", &spin()), End::FUEL).asking(Asked::Timer),
        attack("a spin in pace", &exporting("pace", &["limits"], "i32", &spin()), End::FUEL).asking(Asked::Pace),
    ];
    check(&attacks).await;
}

fn observing(body: &str) -> Guest {
    exporting("observer", &["after", "on-event"], "i32", body)
}

#[tokio::test]
async fn recursion_ends_at_the_end_of_the_stack() {
    let deep = "(func $deep (result i32) (i32.add (call $deep) (i32.const 1)))";
    let wide: String = (0..200).map(|n| format!("(local $l{n} i64)")).collect();
    let table = "(table 1 funcref) (elem (i32.const 0) $deep) (type $f (func (result i32)))";
    let attacks = [
        attack("a recursion", &Guest::gate("call $deep").with(deep), End::TRAP),
        attack(
            "a recursion through a table",
            &Guest::gate("call $deep").with(&format!(
                "{table} (func $deep (type $f) (i32.add (call_indirect (type $f) (i32.const 0)) (i32.const 1)))"
            )),
            End::TRAP,
        ),
        attack(
            "a recursion of two",
            &Guest::gate("call $one").with(
                "(func $one (result i32) (i32.add (call $two) (i32.const 1)))
                (func $two (result i32) (i32.add (call $one) (i32.const 1)))",
            ),
            End::TRAP,
        ),
        attack(
            "a recursion of wide frames",
            &Guest::gate("call $wide").with(&format!(
                "(func $wide (result i32) {wide} (local.set $l7 (i64.extend_i32_u (call $wide)))
                    (i32.add (call $wide) (i32.wrap_i64 (local.get $l7))))"
            )),
            End::TRAP,
        ),
    ];
    check(&attacks).await;
}

#[tokio::test]
async fn floods_of_calls_to_the_host_end_by_fuel() {
    let flood = |name, imports: &str, call: &str| {
        attack(name, &Guest::gate(&for_ever(call)).importing(imports).data("session.delete"), End::FUEL)
    };
    let attacks = [
        flood("a flood of lines", LOG, "(call $log (i32.const 1) (i32.const 0) (i32.const 1024))"),
        flood("a flood of reads", KV, "(call $get (i32.const 64) (i32.const 1) (i32.const 4096))"),
        flood(
            "a flood of writes",
            KV,
            "(call $set (i32.const 64) (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 0) (i64.const 0) (i32.const 4096))",
        ),
        flood("a flood of removals", KV, "(call $remove (i32.const 64) (i32.const 1) (i32.const 4096))"),
        flood(
            "a flood of listings",
            KV,
            "(call $list (i32.const 64) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4096))",
        ),
        flood("a flood of counts", SESSIONS, "(call $count (i32.const 0) (i32.const 0) (i32.const 4096))"),
        flood(
            "a flood of pages",
            SESSIONS,
            "(call $sessions (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4096))",
        ),
        flood(
            "a flood of usage",
            SESSIONS,
            "(call $usage (i32.const 2048) (i32.const 14) (i32.const 1) (i64.const 0) (i32.const 4096))",
        ),
        flood("a flood of looks at the clock", CLOCK, "(drop (call $ticks))"),
    ];
    check(&attacks).await;
}

/// Waiting costs no time, because none passes within a call.
#[tokio::test]
async fn waiting_is_over_at_once() {
    let century = 3_153_600_000_000_000_000_i64;
    let wait = |name, body: String| attack(name, &Guest::gate(&body).importing(CLOCK), End::ALLOWED);
    let attacks: [Attack; 3] = [
        wait("a sleep of a century", format!("(call $block (call $after (i64.const {century}))) {}", zero())),
        wait("a sleep until the end of time", format!("(call $block (call $at (i64.const -1))) {}", zero())),
        wait(
            "a poll of two that never come",
            format!(
                "(i32.store (i32.const 4096) (call $after (i64.const {century})))
                (i32.store (i32.const 4100) (call $at (i64.const -1)))
                (call $poll (i32.const 4096) (i32.const 2) (i32.const 4104)) {}",
                zero()
            ),
        ),
    ];
    check(&attacks).await;
}

/// Filling and copying cost fuel by the byte, so that they end where a spin would.
#[tokio::test]
async fn bulk_operations_end_by_fuel() {
    let large = "(drop (memory.grow (i32.const 200)))";
    let table = "(table $t 20000 funcref)";
    let attacks = [
        attack(
            "filling all memory for ever",
            &Guest::gate(&format!(
                "{large} {}",
                for_ever("(memory.fill (i32.const 65536) (i32.const 7) (i32.const 13000000))")
            )),
            End::FUEL,
        ),
        attack(
            "copying all memory for ever",
            &Guest::gate(&format!(
                "{large} {}",
                for_ever("(memory.copy (i32.const 65536) (i32.const 65537) (i32.const 13000000))")
            )),
            End::FUEL,
        ),
        attack(
            "copying a table for ever",
            &Guest::gate(&for_ever("(table.copy (i32.const 0) (i32.const 1) (i32.const 19999))")).with(table),
            End::FUEL,
        ),
        attack(
            "filling a table for ever",
            &Guest::gate(&for_ever("(table.fill $t (i32.const 0) (ref.null func) (i32.const 20000))")).with(table),
            End::FUEL,
        ),
        attack(
            "unpacking a segment for ever",
            &Guest::gate(&for_ever("(memory.init $s (i32.const 4096) (i32.const 0) (i32.const 60000))"))
                .with(&format!("(data $s \"{}\")", "x".repeat(60_000))),
            End::FUEL,
        ),
        attack(
            "growing a table for ever",
            &Guest::gate(&for_ever("(drop (table.grow $t (ref.null func) (i32.const 1)))")).with(table),
            End::FUEL,
        ),
    ];
    check(&attacks).await;
}

/// A guest that has more fuel than time has to be ended by the clock.
#[tokio::test]
async fn what_costs_more_than_its_fuel_ends_by_the_clock() {
    let attacks = [
        attack("a spin with fuel to burn", &Guest::gate(&spin()), End::DEADLINE),
        // What the host does for a call is bounded besides, so that a flood of calls still ends at the same place.
        attack(
            "lines with fuel to burn",
            &Guest::gate(&for_ever("(call $log (i32.const 1) (i32.const 0) (i32.const 65000))")).importing(LOG),
            End::FUEL,
        ),
        attack("an observer with fuel to burn", &observing(&spin()), End::DEADLINE).asking(Asked::After),
    ];
    check_within(by_the_clock(), &attacks).await;
}

/// One thread serves all; a guest that spins for a second must not keep an honest one from its answer.
#[tokio::test]
async fn a_guest_that_spins_lets_others_run() {
    use crate::bed::{PLACES, admit, answer, bind};
    let _turn = crate::attack::turn().await;
    let config = RuntimeConfig {
        gate_wall: Duration::from_secs(1),
        chain_wall: Duration::from_secs(2),
        calls_in_all: PLACES + 1,
        calls_per_org: PLACES + 1,
        ..by_the_clock()
    };
    let runtime = portcullis_policy::Runtime::new(config).unwrap();
    let spinning = bind(admit(&runtime, Guest::gate(&spin()).build()).await.unwrap(), &[]);
    let honest = bind(admit(&runtime, Guest::allowing().build()).await.unwrap(), &[]);
    let answers = async {
        for _ in 0..20 {
            assert_eq!(answer(&runtime, &honest).await.result, Ok(portcullis_core::Decision::Allow));
        }
    };
    let spins = async { tokio::join!(answer(&runtime, &spinning), answer(&runtime, &spinning)) };
    tokio::select! {
        biased;
        (one, other) = spins => panic!("the honest had to wait for {:?} and {:?}", one.result, other.result),
        () = answers => {}
    }
}
