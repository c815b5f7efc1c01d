//! Deletes that are due, and policies that make their being due expensive.

use std::time::Duration;

use portcullis_core::{AuditOutcome, Operation, OperationKind, PrincipalKind, Verdict};
use portcullis_service::Outcome;

use crate::guests::putting_off;
use crate::world::World;

/// The story: a policy put off a due delete by a millisecond, and then again, and the gateway asked it for ever: hundreds of decisions a second,
/// in the one loop that drove all organisations' sessions.
#[tokio::test]
async fn a_policy_that_puts_off_by_nothing_is_asked_again_after_a_minute() {
    let world = World::new().await;
    let session = world.create().await;
    let binding = world.bind(putting_off(1), vec![OperationKind::SessionDelete], "{}").await;
    let done = world.execute(Operation::SessionDelete { session }).await.unwrap();
    assert!(matches!(done.outcome, Outcome::Deferred { .. }), "{:?}", done.outcome);

    let asked = async || {
        let decisions = world.decisions().await;
        decisions.iter().filter(|decision| matches!(decision.verdict, Verdict::Deferred { .. })).count()
    };
    assert_eq!(asked().await, 1);
    world.pass(Duration::from_secs(59)).await;
    assert_eq!(asked().await, 2, "once it was due");
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(asked().await, 12, "once a minute");

    world.unbind(binding).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.status(session).await, "gone");
}

/// The story: the audit said that a due delete was put off to when its policy had said, which was another time than the one at which the
/// policy was asked again.
#[tokio::test]
async fn the_audit_says_until_when_a_due_delete_is_put_off() {
    let world = World::new().await;
    let session = world.create().await;
    world.bind(putting_off(1), vec![OperationKind::SessionDelete], "{}").await;
    world.execute(Operation::SessionDelete { session }).await.unwrap();
    world.pass(Duration::from_secs(10)).await;

    let due = world.session(session).await.unwrap().delete_due().unwrap();
    let put_off = world.audit().await.into_iter().find(|entry| entry.actor == PrincipalKind::System).unwrap();
    assert_eq!(put_off.outcome, AuditOutcome::Deferred { until: due });
}

/// The story: who asked for a deletion that was under way already was answered, and stood in no audit.
#[tokio::test]
async fn whoever_asks_for_a_deletion_that_is_under_way_stands_in_the_audit() {
    let world = World::new().await;
    let session = world.online().await;
    for outcome in [AuditOutcome::Done, AuditOutcome::Unchanged] {
        world.execute(Operation::SessionDelete { session }).await.unwrap();
        assert_eq!(world.status(session).await, "removing");
        let last = world.audit().await.into_iter().next().unwrap();
        assert_eq!((last.operation, last.outcome), (OperationKind::SessionDelete, outcome));
    }
}

#[tokio::test]
async fn deletes_of_many_sessions_and_organisations_are_carried_out_when_they_are_due() {
    let world = World::new().await;
    let other = world.other_org().await;
    for world in [&world, &other] {
        world.bind_grace("PT1H").await;
        for _ in 0..20 {
            let session = world.create().await;
            world.execute(Operation::SessionDelete { session }).await.unwrap();
        }
    }
    world.pass(Duration::from_secs(3599)).await;
    assert_eq!(world.service.statuses().values().sum::<u64>(), 40);
    world.pass(Duration::from_secs(1)).await;
    world.settle().await;
    assert_eq!(world.service.statuses().values().sum::<u64>(), 0);
}
