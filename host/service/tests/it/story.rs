//! The main job: a session's life under a policy, told by its statuses, its audit and its events.

use std::time::Duration;

use expect_test::expect;
use portcullis_core::operation::{CreateSession, WhenStopped};
use portcullis_core::{Operation, OperationKind, Verdict};
use portcullis_engine::simulated::{FIRST_QR, NEXT_QR};
use portcullis_service::{Call, Outcome, ServiceError, SimulatorAct};

use crate::world::World;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_session_is_paired_deferred_restored_held_and_deleted_when_due() {
    let world = World::new().await;
    world.bind_grace("PT72H").await;
    let session = world.online().await;

    let done = world.execute(Operation::SessionDelete { session }).await.unwrap();
    let Outcome::Deferred { until, .. } = done.outcome else { panic!("not deferred: {:?}", done.outcome) };
    assert_eq!(until.since(world.service.now()), 72 * HOUR);
    assert_eq!(world.status(session).await, "stopped");
    world.pass(71 * HOUR).await;
    assert_eq!(world.status(session).await, "stopped");

    world.execute(Operation::SessionRestore { session }).await.unwrap();
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.status(session).await, "online", "a restore brings back what was running");

    world.label(session, &[("legal-hold", "case 4711")]).await;
    let vetoed = world.execute(Operation::SessionDelete { session }).await;
    let Err(ServiceError::Vetoed { decision, denials }) = vetoed else { panic!("not vetoed: {vetoed:?}") };
    assert_eq!(denials[0].code, "legal_hold");
    let record = world.decisions().await.into_iter().find(|record| record.id == decision).unwrap();
    assert!(matches!(record.verdict, Verdict::Denied { .. }) && record.answers.len() == 1 && record.input.is_some());
    assert_eq!(world.status(session).await, "online");

    world.label(session, &[]).await;
    world.execute(Operation::SessionDelete { session }).await.unwrap();
    world.pass(73 * HOUR).await;
    assert_eq!(world.status(session).await, "gone");

    // The receipt's id is the store's own, and says nothing of the order within a millisecond.
    let mut audit = world.audit().await;
    audit.sort_by_key(|entry| (entry.outcome.name() == "erased", entry.id));
    let audit: Vec<_> =
        audit.iter().map(|entry| format!("{} {}", entry.operation.name(), entry.outcome.name())).collect();
    expect![[r#"
        org.create done
        key.create done
        plugin.upload done
        binding.create done
        session.create done
        session.start done
        session.delete deferred
        session.restore done
        session.labels done
        session.delete vetoed
        session.labels done
        session.delete deferred
        session.delete done
        session.delete erased"#]]
    .assert_eq(&audit.join("\n"));
    expect![[r#"
        session.created
        session.status
        session.status
        session.status
        session.status
        session.restored
        session.status
        session.status
        session.status
        session.deleting
        session.status
        session.deleted"#]]
    .assert_eq(&world.events().join("\n"));
}

/// A legal hold can come after the delete: at the end of the grace period policy is asked again.
#[tokio::test]
async fn a_hold_put_on_in_the_grace_period_cancels_the_delete() {
    let world = World::new().await;
    world.bind_grace("PT1H").await;
    let session = world.online().await;
    world.execute(Operation::SessionDelete { session }).await.unwrap();
    world.label(session, &[("legal-hold", "true")]).await;
    world.pass(2 * HOUR).await;
    assert_eq!(world.status(session).await, "online");
    assert!(world.events().contains(&"session.delete-cancelled"));
}

#[tokio::test]
async fn without_a_policy_a_delete_is_carried_out_at_once() {
    let world = World::new().await;
    let session = world.online().await;
    world.execute(Operation::SessionDelete { session }).await.unwrap();
    assert_eq!(world.status(session).await, "removing", "the device is being unlinked");
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.status(session).await, "gone");
    let again = world.execute(Operation::SessionDelete { session }).await;
    assert!(matches!(again, Err(ServiceError::NotFound("session"))), "{again:?}");
}

#[tokio::test]
async fn a_dry_run_answers_and_changes_nothing() {
    let world = World::new().await;
    world.bind_grace("PT1H").await;
    let session = world.create().await;
    let (audit, events) = (world.audit().await.len(), world.events().len());
    let permit = world.permit(OperationKind::SessionDelete, Some(session)).await;
    let call = Call { dry_run: true, ..Call::default() };
    let done = world.service.execute(&permit, Operation::SessionDelete { session }, call).await.unwrap();
    assert!(matches!(done.outcome, Outcome::DryRun(Verdict::Deferred { .. })), "{:?}", done.outcome);
    assert_eq!((world.audit().await.len(), world.events().len()), (audit, events));
    assert!(world.session(session).await.unwrap().delete_due().is_none());
}

#[tokio::test]
async fn qr_codes_run_out_and_the_session_fails() {
    let world = World::new().await;
    let session = world.create().await;
    world.execute(Operation::SessionQr { session }).await.unwrap();
    world.pass(FIRST_QR + NEXT_QR * 4).await;
    assert_eq!(world.status(session).await, "pairing");
    world.pass(NEXT_QR).await;
    assert_eq!(world.status(session).await, "failed");
    assert_eq!(world.events().iter().filter(|name| **name == "session.qr").count(), 6);
}

#[tokio::test]
async fn the_phone_and_the_network_have_their_say() {
    let world = World::new().await;
    let session = world.online().await;
    world.simulate(session, SimulatorAct::Disconnect { outage: None }).await;
    assert_eq!(world.status(session).await, "reconnecting");
    world.pass(Duration::from_secs(5)).await;
    assert_eq!(world.status(session).await, "online");
    world.simulate(session, SimulatorAct::Limit { code: "463".into() }).await;
    assert_eq!(world.session(session).await.unwrap().account_limit.as_ref().unwrap().code, "463");
    let (from, text) = ("49123456789@s.whatsapp.net".into(), "hello".into());
    world.simulate(session, SimulatorAct::Receive { from, text }).await;
    world.simulate(session, SimulatorAct::Unlink).await;
    assert_eq!(world.status(session).await, "logged-out");
    assert!(world.session(session).await.unwrap().device.is_none());
    assert!(world.events().contains(&"message.in"));
}

#[tokio::test]
async fn a_logout_is_done_even_if_the_session_is_stopped() {
    let world = World::new().await;
    let session = world.online().await;
    world.execute(Operation::SessionStop { session }).await.unwrap();
    let logout = Operation::SessionLogout { session, when_stopped: WhenStopped::Connect };
    world.execute(logout).await.unwrap();
    world.pass(Duration::from_secs(1)).await;
    let session = world.session(session).await.unwrap();
    assert!(session.device.is_none() && session.status.name() == "logged-out", "{session:?}");
}

#[tokio::test]
async fn a_creation_can_begin_to_pair_in_the_same_commit() {
    let world = World::new().await;
    let create = CreateSession { start: true, ..CreateSession::default() };
    let done = world.execute(Operation::SessionCreate(create)).await.unwrap();
    let session = done.session.unwrap();
    assert_eq!((session.status.name(), session.generation), ("pairing", 1));
}
