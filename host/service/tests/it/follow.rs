//! What follows an operation: timers that a plugin set, and what observers want.

use std::time::Duration;

use portcullis_core::operation::CreateSession;
use portcullis_core::{AuditOutcome, Mode, Operation, OperationKind, SessionId};
use portcullis_service::{BindingChange, ServiceError};
use portcullis_testing::{ANSWER, DATA, Guest};

use crate::world::{START, World};

const HOUR: Duration = Duration::from_secs(3600);

/// A plugin that sets a timer for an hour after the world's beginning whenever a session is created, emits an event when it fires,
/// and labels every session that it observes. The layouts are those of the canonical ABI for the contract's types.
fn clockwork() -> Vec<u8> {
    clockwork_that(None)
}

/// The same with another body of its timer's function.
fn clockwork_that(fires: Option<&str>) -> Vec<u8> {
    let due = START.after(HOUR).as_millis();
    // The text at DATA, in pieces: a name, a document, a label's key and value.
    let (name, json, key, value) = (DATA, DATA + 6, DATA + 8, DATA + 12);
    let before = format!(
        "(i32.store8 (i32.const {ANSWER}) (i32.const 6))
         (i32.store (i32.const {list}) (i32.const 1024)) (i32.store (i32.const {length}) (i32.const 1))
         (i32.store8 (i32.const 1024) (i32.const 2))
         (i32.store (i32.const 1032) (i32.const {key})) (i32.store (i32.const 1036) (i32.const 4))
         (i64.store (i32.const 1040) (i64.const {due}))
         (i32.store (i32.const 1048) (i32.const {value})) (i32.store (i32.const 1052) (i32.const 3))
         i32.const {ANSWER}",
        list = ANSWER + 8,
        length = ANSWER + 12,
    );
    let answering = |function: &str, list: u32, element: u32, case: u32, first: (u32, u32), second: (u32, u32)| {
        format!(
            "(func (export \"portcullis:policy/{function}\") (param i32) (result i32)
                (i32.store (i32.const {list}) (i32.const {element})) (i32.store (i32.const {count}) (i32.const 1))
                (i32.store8 (i32.const {element}) (i32.const {case}))
                (i32.store (i32.const {a}) (i32.const {})) (i32.store (i32.const {b}) (i32.const {}))
                (i32.store (i32.const {c}) (i32.const {})) (i32.store (i32.const {d}) (i32.const {}))
                i32.const {list})",
            first.0,
            first.1,
            second.0,
            second.1,
            count = list + 4,
            a = element + 8,
            b = element + 12,
            c = element + 16,
            d = element + 20,
        )
    };
    let fired = match fires {
        None => answering("timer@0.1.0#fired", 640, 1536, 1, (name, 6), (json, 2)),
        Some(body) => {
            format!("(func (export \"portcullis:policy/timer@0.1.0#fired\") (param i32) (result i32) {body})")
        }
    };
    let mut guest = Guest::gate(&before)
        .data("ticked{}seenyes")
        .with(&fired)
        .with(&answering("observer@0.1.0#after", 656, 1664, 4, (key, 4), (value, 3)))
        .with(
            "(func (export \"portcullis:policy/observer@0.1.0#on-event\") (param i32) (result i32)
                (i32.store (i32.const 672) (i32.const 0)) (i32.store (i32.const 676) (i32.const 0)) i32.const 672)",
        );
    guest.exports = vec!["describe", "gate", "timer", "observer"];
    guest.name = "clockwork".into();
    guest.build()
}

impl World {
    async fn bind_clockwork(&self) {
        self.bind(clockwork(), vec![OperationKind::SessionCreate], "{}").await;
    }

    fn ticks(&self) -> usize {
        self.events().iter().filter(|name| **name == "plugin.event").count()
    }

    async fn wait_until_observed(&self, session: SessionId) {
        self.settle().await;
        let session = self.session(session).await.unwrap();
        assert!(session.labels.contains_key("seen"), "{:?}", session.labels);
    }
}

#[tokio::test]
async fn a_timer_fires_once_when_it_is_due_and_an_observer_sees_the_operation() {
    let world = World::new().await;
    world.bind_clockwork().await;
    let session = world.create().await;
    world.wait_until_observed(session).await;
    world.pass(HOUR - Duration::from_secs(1)).await;
    assert_eq!(world.ticks(), 0);
    world.pass(HOUR).await;
    assert_eq!(world.ticks(), 1);
}

#[tokio::test]
async fn a_timer_survives_a_crash() {
    let mut world = World::new().await;
    world.bind_clockwork().await;
    let session = world.create().await;
    world.wait_until_observed(session).await;
    world.crash().await;
    world.pass(2 * HOUR).await;
    assert_eq!(world.ticks(), 1);
}

/// A timer is part of the operation's commit: an operation that is refused leaves none behind.
#[tokio::test]
async fn a_refused_operation_sets_no_timer() {
    let world = World::new().await;
    world.bind_clockwork().await;
    let create = CreateSession { rate_policy: Some("no-such".into()), ..CreateSession::default() };
    let refused = world.execute(Operation::SessionCreate(create)).await;
    assert!(matches!(refused, Err(ServiceError::Invalid { .. })), "{refused:?}");
    world.pass(2 * HOUR).await;
    assert_eq!(world.ticks(), 0);
}

/// A timer that was due while its binding was off was taken out, and its plugin never knew.
#[tokio::test]
async fn a_timer_that_is_due_while_its_binding_is_off_fires_when_it_is_on_again() {
    let mut world = World::new().await;
    let binding = world.bind(clockwork(), vec![OperationKind::SessionCreate], "{}").await;
    let session = world.create().await;
    world.wait_until_observed(session).await;
    let to = |mode| BindingChange { mode: Some(mode), ..BindingChange::default() };
    world.change_binding(binding, to(Mode::Off)).await;
    world.pass(3 * HOUR).await;
    world.crash().await;
    world.change_binding(binding, to(Mode::Enforce)).await;
    assert_eq!(world.ticks(), 0);
    world.pass(HOUR).await;
    assert_eq!(world.ticks(), 1);
}

/// A timer whose plugin failed at it was over, and nothing but a line in the log said so.
#[tokio::test]
async fn a_timer_that_its_plugin_fails_at_comes_again_and_is_given_up_in_the_audit() {
    let world = World::new().await;
    world.bind(clockwork_that(Some("unreachable")), vec![OperationKind::SessionCreate], "{}").await;
    let session = world.create().await;
    world.wait_until_observed(session).await;
    let timers = || world.store.snapshot().unwrap().timers_due(world.org, START.after(10 * HOUR), 9).unwrap();
    world.pass(HOUR + Duration::from_secs(60)).await;
    assert!(matches!(&timers()[..], [timer] if timer.attempts > 1), "{:?}", timers());
    world.pass(HOUR).await;
    assert_eq!(timers(), []);
    let audit = world.audit().await;
    let untold = audit.iter().filter(|entry| entry.operation == OperationKind::EventTell).collect::<Vec<_>>();
    let trapped = AuditOutcome::Refused { code: "plugin_trap".into() };
    assert!(matches!(&untold[..], [entry] if entry.outcome == trapped), "{untold:?}");
}
