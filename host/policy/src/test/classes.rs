//! Classes, suspended bindings and shadows: who gets how much, and whose answer counts.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{Binding, Decision, Grant, Mode, PluginClass, PluginFailure};
use portcullis_testing::{ANSWER, DATA, Guest};

use super::{Snapshot, answer, ask, bind, bind_with, config, delete, org_id, run, runtime};
use crate::{ClassBounds, Link, Outcome, PaceUsage, Runtime, RuntimeConfig};

/// Bounds by the clock are as wide as those of the standard class in tests.
fn classes() -> RuntimeConfig {
    let config = config();
    let (gate_wall, background_wall) = (config.gate_wall, config.background_wall);
    RuntimeConfig { large: ClassBounds { gate_wall, background_wall, ..config.large }, ..config }
}

fn of_class(link: &Link, class: PluginClass) -> Link {
    let mut version = (*link.version).clone();
    version.class = class;
    Link { version: Arc::new(version), ..link.clone() }
}

fn bound_as(link: &Link, change: impl FnOnce(&mut Binding)) -> Link {
    let mut binding = (*link.binding).clone();
    change(&mut binding);
    Link { binding: Arc::new(binding), ..link.clone() }
}

#[tokio::test]
async fn a_large_plugin_may_use_more() {
    let runtime = Runtime::new(classes()).unwrap();
    let memory =
        format!("(if (i32.eq (memory.grow (i32.const 300)) (i32.const -1)) (then unreachable)) i32.const {ANSWER}");
    let fuel = format!(
        "(local $left i32) (local.set $left (i32.const 6000000))
        (loop $again (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        i32.const {ANSWER}"
    );
    for (body, failure) in [(memory, PluginFailure::Memory), (fuel, PluginFailure::Fuel)] {
        let standard = bind(&runtime, &Guest::gate(&body)).await;
        assert_eq!(answer(&runtime, &standard).await.result, Err(failure));
        let large = of_class(&standard, PluginClass::Large);
        assert_eq!(answer(&runtime, &large).await.result, Ok(Decision::Allow));
    }
}

#[tokio::test]
async fn a_large_component_is_admitted_in_its_class_only() {
    let runtime = Runtime::new(RuntimeConfig { component_bytes: 100, memory_bytes: 1 << 16, ..classes() }).unwrap();
    let admit = async |class| runtime.admit(org_id(), Guest::allowing().build(), class).await.map_err(|e| e.code());
    assert_eq!(admit(PluginClass::Standard).await, Err("payload_too_large"));
    assert!(admit(PluginClass::Large).await.is_ok());
    let immense =
        Runtime::new(RuntimeConfig { large: ClassBounds { component_bytes: 100, ..classes().large }, ..classes() });
    let refused = immense.unwrap().admit(org_id(), Guest::allowing().build(), PluginClass::Large).await;
    assert_eq!(refused.unwrap_err().code(), "payload_too_large");
}

#[tokio::test]
async fn a_binding_can_have_a_wall_time_of_its_own() {
    let config = RuntimeConfig { gate_fuel: u64::MAX, gate_wall: Duration::from_secs(60), ..classes() };
    let runtime = Runtime::new(config).unwrap();
    let link = bind(&runtime, &Guest::gate("(loop $again (br $again)) unreachable")).await;
    let link = bound_as(&link, |binding| binding.wall_millis = Some(20));
    assert_eq!(answer(&runtime, &link).await.result, Err(PluginFailure::Deadline));
}

#[tokio::test]
async fn who_is_suspended_is_not_asked_and_answers_so() {
    let runtime = runtime();
    let suspended = |link: Link| Link { suspended: true, ..link };
    // A guest that is asked would trap.
    let gate = suspended(bind(&runtime, &Guest::gate("unreachable")).await);
    assert_eq!(answer(&runtime, &gate).await.result, Err(PluginFailure::Suspended));
    // A plugin need not be at hand for that.
    assert_eq!(answer(&super::runtime(), &gate).await.result, Err(PluginFailure::Suspended));
    let reads = || Arc::new(Snapshot::default());
    // What it would not have been asked it does not answer either.
    assert_eq!(runtime.observe(std::slice::from_ref(&gate), &ask(), &delete(), &Outcome::Done, reads()).await, []);
    assert_eq!(runtime.pace(&gate, &ask(), PaceUsage::default(), reads()).await, Ok(None));
    let off = bound_as(&gate, |binding| binding.mode = Mode::Off);
    assert_eq!(run(&runtime, &off).await.answers, []);

    let body = "(func (export \"portcullis:policy/timer@0.1.0#fired\") (param i32) (result i32) unreachable)";
    let timer = Guest { exports: vec!["describe", "timer"], body: body.into(), ..Guest::allowing() };
    let timer = suspended(bind(&runtime, &timer).await);
    let fired = runtime.fire_timer(&timer, &ask(), "k", "", reads()).await;
    assert_eq!((fired.result, fired.logs), (Err(PluginFailure::Suspended), vec![]));
}

#[tokio::test]
async fn a_shadow_answers_and_leaves_no_other_trace() {
    let body = format!(
        "(call $set (i32.const {DATA}) (i32.const 1) (i32.const {DATA}) (i32.const 1) (i32.const 0) (i64.const 0) (i32.const 4096))
        (call $write (i32.const 1) (i32.const {DATA}) (i32.const 1))
        i32.const {ANSWER}"
    );
    let guest = Guest::gate(&body).data("k").importing(
        "(import \"portcullis:policy/kv@0.1.0\" \"set\" (func $set (param i32 i32 i32 i32 i32 i64 i32)))
        (import \"portcullis:policy/log@0.1.0\" \"write\" (func $write (param i32 i32 i32)))",
    );
    let runtime = runtime();
    let live = bind_with(&runtime, &guest, Mode::Enforce, &[Grant::Kv]).await;
    let shadow = Link { shadow: true, ..live.clone() };
    let run = runtime.gate(&[live, shadow], &ask(), &delete(), Arc::new(Snapshot::default())).await;
    assert_eq!(run.answers.iter().map(|answer| answer.shadow).collect::<Vec<_>>(), [false, true]);
    assert_eq!(run.answers[0].result, run.answers[1].result);
    assert_eq!(run.answers[0].fuel, run.answers[1].fuel);
    assert_eq!((run.kv.len(), run.logs.len()), (1, 1));
    // The record has both, so that both can be asked again.
    let input = crate::RecordedInput::parse(&run.input().unwrap()).unwrap();
    assert_eq!(input.links.iter().map(|link| link.shadow).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn what_a_shadow_wants_to_follow_is_not_done() {
    let words = format!(
        "(i32.store (i32.const {ANSWER}) (i32.const 8192)) (i32.store offset=4 (i32.const {ANSWER}) (i32.const 1)) i32.const {ANSWER}"
    );
    let function =
        |name| format!("(func (export \"portcullis:policy/observer@0.1.0#{name}\") (param i32) (result i32) {words})");
    let body = function("after") + &function("on-event");
    let guest = Guest { exports: vec!["describe", "observer"], body, ..Guest::allowing() };
    let runtime = runtime();
    let link = bind(&runtime, &guest).await;
    let shadow = Link { shadow: true, ..link.clone() };
    let told = runtime.observe(&[link, shadow], &ask(), &delete(), &Outcome::Done, Arc::new(Snapshot::default())).await;
    let follow_ups: Vec<_> = told.into_iter().map(|observed| observed.result.unwrap().len()).collect();
    assert_eq!(follow_ups, [1, 0]);
}
