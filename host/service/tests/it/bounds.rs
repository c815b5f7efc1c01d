//! Quotas, rate limits and back-pressure hold, also when many ask at once.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::operation::{CreateSession, WhenUnpaired};
use portcullis_core::{AuditOutcome, Operation, OperationKind, OrgId, Principal, Target};
use portcullis_service::{Call, OrgChange, QuotaChange, ServiceError};
use tokio::task::JoinSet;

use crate::guests::allowing;
use crate::world::World;

#[tokio::test]
async fn a_session_quota_is_exact_under_concurrency() {
    let world = Arc::new(World::new().await);
    world.set_quotas(QuotaChange { sessions: Some(10), ..QuotaChange::default() }).await;
    let mut creating = JoinSet::new();
    for _ in 0..40 {
        let world = Arc::clone(&world);
        creating
            .spawn(async move { world.execute(Operation::SessionCreate(CreateSession::default())).await.map(drop) });
    }
    let mut made = 0;
    while let Some(created) = creating.join_next().await {
        match created.unwrap() {
            Ok(()) => made += 1,
            Err(ServiceError::Quota { of: "sessions", max: 10 }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(made, 10);
}

/// The story: a commit that the writer refuses is refused with its line of the audit, so what a quota or a name that is taken stood in the
/// way of was written down nowhere.
#[tokio::test]
async fn what_a_quota_or_a_taken_name_refuses_stands_in_the_audit_with_its_decision() {
    let world = World::new().await;
    world.bind(allowing(), vec![OperationKind::SessionCreate], "{}").await;
    let create = |name: &str| {
        world.execute(Operation::SessionCreate(CreateSession {
            instance_name: Some(name.into()),
            ..CreateSession::default()
        }))
    };
    let refused = async |code: &str| {
        let last = world.audit().await.into_iter().next().unwrap();
        assert_eq!(last.outcome, AuditOutcome::Refused { code: code.into() });
        let decision = world.decisions().await.into_iter().find(|record| Some(record.id) == last.decision).unwrap();
        assert_eq!(decision.ending(), "refused");
    };
    create("front-desk").await.unwrap();
    assert!(matches!(create("front-desk").await, Err(ServiceError::NameTaken)));
    refused("name_taken").await;
    world.set_quotas(QuotaChange { sessions: Some(1), ..QuotaChange::default() }).await;
    assert!(matches!(create("back-desk").await, Err(ServiceError::Quota { .. })));
    refused("quota_reached").await;
}

#[tokio::test]
async fn sends_are_bounded_by_the_rate_policy_and_free_up_with_time() {
    let world = World::new().await;
    let session = world.online().await;
    world.execute(Operation::SessionRatePolicy { session, slug: "strict".into() }).await.unwrap();
    let mut sent = 0;
    for _ in 0..60 {
        match world.send(session).await {
            Ok(_) => sent += 1,
            Err(ServiceError::Limited { retry_after, .. }) => {
                assert!(retry_after > Duration::ZERO);
                world.pass(Duration::from_secs(1)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    // 60 tries in about 54 seconds of virtual time, ten seconds apart and five a minute.
    assert_eq!(sent, 5);
    world.pass(Duration::from_secs(60)).await;
    assert!(world.send(session).await.is_ok());
}

#[tokio::test]
async fn many_sends_at_once_do_not_pass_the_limit() {
    let world = Arc::new(World::new().await);
    let session = world.online().await;
    world.execute(Operation::SessionRatePolicy { session, slug: "high_throughput".into() }).await.unwrap();
    let mut sending = JoinSet::new();
    for _ in 0..64 {
        let world = Arc::clone(&world);
        sending.spawn(async move { world.send(session).await.is_ok() });
    }
    let sent = sending.join_all().await.into_iter().filter(|sent| *sent).count();
    // A gap of one second lets one through at one moment.
    assert_eq!(sent, 1);
}

#[tokio::test]
async fn a_session_that_is_not_connected_sends_nothing_and_counts_nothing() {
    let world = World::new().await;
    let session = world.create().await;
    assert!(matches!(world.send(session).await, Err(ServiceError::Send(_))));
    assert_eq!(world.service.sends(world.org, session).unwrap(), (0, 0));
}

#[tokio::test]
async fn concurrent_deletes_of_one_session_are_one_deletion() {
    let world = Arc::new(World::new().await);
    world.bind_grace("PT1H").await;
    let session = world.create().await;
    let mut deleting = JoinSet::new();
    for _ in 0..16 {
        let world = Arc::clone(&world);
        deleting.spawn(async move { world.execute(Operation::SessionDelete { session }).await });
    }
    while let Some(deleted) = deleting.join_next().await {
        match deleted.unwrap() {
            Ok(_) | Err(ServiceError::Contention) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    let scheduled = world.events().iter().filter(|name| **name == "session.delete-scheduled").count();
    assert_eq!(scheduled, 1);
}

#[tokio::test]
async fn an_organisation_without_places_is_told_when_to_come_back() {
    let world = World::new().await;
    world.set_quotas(QuotaChange { concurrency: Some(0), ..QuotaChange::default() }).await;
    let refused = world.execute(Operation::SessionCreate(CreateSession::default())).await;
    assert!(matches!(refused, Err(ServiceError::Busy { retry_after }) if retry_after > Duration::ZERO), "{refused:?}");
}

#[tokio::test]
async fn a_suspended_organisation_may_only_read() {
    let world = World::new().await;
    let session = world.create().await;
    world.change_org(OrgChange { suspended: Some(true), ..OrgChange::default() }).await;
    let target = Target::session(world.org, session);
    let read = world.service.permit(&world.owner, OperationKind::SessionRead, target, None).await;
    assert!(read.is_ok());
    let start = world.service.permit(&world.owner, OperationKind::SessionStart, target, None).await;
    assert!(matches!(start, Err(ServiceError::Suspended)), "{start:?}");
}

#[tokio::test]
async fn an_erased_organisation_is_gone_with_its_sessions_and_keys() {
    let world = World::new().await;
    let session = world.online().await;
    let target = Target::org(world.org);
    let permit = world.service.permit(&Principal::operator(), OperationKind::OrgDelete, target, None).await.unwrap();
    world.service.erase_org(&permit, &Call::default()).await.unwrap();
    let read =
        world.service.permit(&world.owner, OperationKind::SessionRead, Target::session(world.org, session), None).await;
    assert!(matches!(read, Err(ServiceError::NotFound(_))), "{read:?}");
    let orgs = world
        .service
        .permit(&Principal::operator(), OperationKind::OrgRead, Target::org(OrgId::PLATFORM), None)
        .await
        .unwrap();
    assert!(world.service.list_orgs(&orgs, None, 10).unwrap().entries.is_empty());
    world.settle().await;
}

#[tokio::test]
async fn an_unpaired_start_is_refused_and_audited() {
    let world = World::new().await;
    let session = world.create().await;
    let start = Operation::SessionStart { session, when_unpaired: WhenUnpaired::Refuse };
    assert!(matches!(world.execute(start).await, Err(ServiceError::Refused(_))));
    let last = world.audit().await.swap_remove(0);
    assert_eq!((last.operation, last.outcome.name()), (OperationKind::SessionStart, "refused"));
}
