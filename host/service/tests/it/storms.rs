//! Plugins that never have enough: each of their ways to make the gateway go on and on ends where the contract says.

use std::time::Duration;

use portcullis_core::{Labels, Operation, OperationKind, PrincipalKind, Verdict};
use portcullis_service::{Call, GivenToken, ServiceError};
use portcullis_testing::text::words;
use portcullis_testing::{DATA, Guest};

use crate::guests::{asking, timing};
use crate::world::World;

/// Sets its timer in the gate, and again whenever it fires, always for long ago.
fn storming() -> Vec<u8> {
    const LIST: u32 = 1024;
    let timer = [2, 0, DATA, 1, 0, 0, DATA, 1];
    let stores: String = (0..)
        .zip(timer)
        .map(|(index, word): (u32, u32)| {
            format!("(i32.store offset={} (i32.const {LIST}) (i32.const {word}))", index * 4)
        })
        .collect();
    let again = format!(
        "(func (export \"portcullis:policy/timer@0.1.0#fired\") (param i32) (result i32) {stores} {})",
        words(&[LIST, 1])
    );
    let mut guest =
        Guest::gate(&format!("{stores} {}", words(&[6, 0, LIST, 1]))).data("t").with(&again).named("storming");
    guest.exports = vec!["describe", "gate", "timer"];
    guest.build()
}

/// Asks the caller back in every call, with a question that is never the same: the seed's last bits are in it.
fn doubting() -> Vec<u8> {
    let letter = DATA + 4;
    let question = words(&[4, 0, DATA, 5, 0, 1_000, 0]);
    let body = format!(
        "(i32.store8 (i32.const {letter}) (i32.add (i32.const 65) (i32.and (i32.load8_u offset=24 (local.get $args)) (i32.const 15))))
        {question}"
    );
    Guest::gate(&body).data("sure?").named("doubting").build()
}

#[tokio::test]
async fn a_plugin_that_answers_operations_with_operations_is_stopped_at_the_second() {
    let world = World::new().await;
    let session = world.create().await;
    let hooks = vec![OperationKind::SessionLabels, OperationKind::SessionStop];
    world.bind(asking(session), hooks, "{}").await;
    let labels = Labels::from([("new".to_owned(), "yes".to_owned())]);
    world.execute(Operation::SessionLabels { session, labels }).await.unwrap();
    world.pass(Duration::from_secs(3_600)).await;

    let asked = world.audit().await;
    let mut depths: Vec<u8> = asked
        .iter()
        .filter_map(|entry| match entry.actor {
            PrincipalKind::Plugin { depth, .. } => Some(depth),
            _ => None,
        })
        .collect();
    depths.sort_unstable();
    assert_eq!(depths, [1, 2], "{asked:#?}");
    let last = world.decisions().await.swap_remove(0);
    let Verdict::Denied { denials } = &last.verdict else { panic!("not denied: {:?}", last.verdict) };
    assert_eq!(denials[0].code, "request_too_deep");
}

#[tokio::test]
async fn a_timer_that_sets_itself_again_fires_once_a_second_and_in_nobodys_way() {
    let world = World::new().await;
    let other = world.other_org().await;
    let (session, theirs) = (world.create().await, other.create().await);
    let hooks = vec![OperationKind::SessionLabels];
    let binding = world.bind(storming(), hooks.clone(), "{}").await;
    let theirs_too = other.bind(timing(), hooks, "{}").await;
    let labels = || Labels::from([("new".to_owned(), "yes".to_owned())]);
    world.execute(Operation::SessionLabels { session, labels: labels() }).await.unwrap();
    other.execute(Operation::SessionLabels { session: theirs, labels: labels() }).await.unwrap();
    let began = world.service.now();
    let mut fired = 0;
    let mut next = world.service.next_wake();
    while let Some(at) = next.filter(|at| at.since(began) <= Duration::from_secs(60)) {
        world.clock.advance(at.since(world.service.now()));
        world.service.tick().await;
        fired += 1;
        next = world.service.next_wake();
        assert!(fired <= 130, "the gateway does nothing else any more");
    }
    let timers =
        world.store.snapshot().unwrap().timers_due(world.org, began.after(Duration::from_secs(120)), 10).unwrap();
    assert_eq!(timers.len(), 1, "one timer is one timer");
    world.unbind(binding).await;
    other.unbind(theirs_too).await;
    world.pass(Duration::from_secs(5)).await;
    assert_eq!(world.service.next_wake(), None, "what is unbound storms no more");
}

/// The story: a plugin set a timer and had no function for it. It was looked at every half minute for ever, and all else of its binding waited behind.
#[tokio::test]
async fn a_timer_that_its_plugin_cannot_hear_is_taken_out() {
    let world = World::new().await;
    let session = world.create().await;
    world.bind(timing(), vec![OperationKind::SessionLabels], "{}").await;
    let labels = Labels::from([("new".to_owned(), "yes".to_owned())]);
    world.execute(Operation::SessionLabels { session, labels }).await.unwrap();
    world.pass(Duration::from_secs(5)).await;
    assert_eq!(world.service.next_wake(), None);
    let last = world.audit().await.swap_remove(0);
    assert_eq!((last.actor.clone(), last.session), (PrincipalKind::System, Some(session)), "{last:?}");
    assert!(format!("{:?}", last.outcome).contains("not_exported"), "{last:?}");
}

#[tokio::test]
async fn a_plugin_that_always_asks_again_keeps_its_own_caller_and_nothing_else() {
    let world = World::new().await;
    let session = world.create().await;
    let binding = world.bind(doubting(), vec![OperationKind::SessionStart], "{}").await;
    let mut given = None;
    for _ in 0..20 {
        let call = Call { confirmation: given.take(), ..Call::default() };
        let permit = world.permit(OperationKind::SessionStart, Some(session)).await;
        let start = Operation::SessionStart { session, when_unpaired: portcullis_core::operation::WhenUnpaired::Pair };
        match world.service.execute(&permit, start, call).await {
            Err(ServiceError::ConfirmationRequired { token: Some(token), .. }) => {
                given = Some(GivenToken { token, answer: None });
            }
            // It has asked the same as the last time, and was answered.
            Ok(_) => return world.unbind(binding).await,
            other => panic!("neither asked nor done: {other:?}"),
        }
        world.pass(Duration::from_secs(1)).await;
    }
    assert_eq!(world.status(session).await, "stopped");
}
