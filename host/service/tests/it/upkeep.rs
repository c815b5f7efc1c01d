//! What the operator does about everything at once: known, done once, and not kept for longer than promised, whenever the process dies.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use portcullis_core::{AuditOutcome, Clock, OperationKind, OrgId, Principal, PrincipalKind, Target};
use portcullis_service::{Call, Keyed};
use portcullis_store::{Claim, Commit, Deed};

use crate::world::World;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl World {
    /// What the platform's audit says of an operation, the oldest line first: who did it, and how it ended.
    fn lines(&self, operation: OperationKind) -> Vec<(PrincipalKind, AuditOutcome)> {
        let lines = self.store.snapshot().unwrap().audit_after(OrgId::PLATFORM, 0, 999).unwrap();
        let lines = lines.into_iter().map(|line| line.entry).filter(|entry| entry.operation == operation);
        lines.map(|entry| (entry.actor, entry.outcome)).collect()
    }

    /// Goes so far and no further, and then the process dies.
    async fn dies_after<T>(&mut self, rounds: usize, mut work: Pin<Box<impl Future<Output = T>>>) {
        let mut left = rounds;
        poll_fn(|context| {
            // Not only when there is something to hear: most of it happens in other threads.
            context.waker().wake_by_ref();
            if left == 0 || work.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            left -= 1;
            Poll::Pending
        })
        .await;
        drop(work);
        // What was handed to the writer is done.
        self.store.commit(Commit::new(OrgId::PLATFORM, self.clock.now())).await.unwrap();
        self.crash().await;
    }
}

/// The story: that an organisation goes was committed, and then who had asked for it. A crash in between lost that.
#[tokio::test]
async fn who_asked_for_the_end_of_an_organisation_is_known_whenever_the_process_dies() {
    let (mut gone, mut there) = (0, 0);
    for rounds in (0..200).step_by(3) {
        let mut world = World::new().await;
        world.online().await;
        let (service, org) = (Arc::clone(&world.service), world.org);
        let target = Target::org(org);
        let permit = service.permit(&Principal::operator(), OperationKind::OrgDelete, target, None).await.unwrap();
        let call = Call::default();
        world.dies_after(rounds, Box::pin(service.erase_org(&permit, &call))).await;
        let asked = world.lines(OperationKind::OrgDelete);
        let is_there = world.store.snapshot().unwrap().org(org).unwrap();
        assert!(is_there.as_ref().is_none_or(|org| !org.erasing), "{rounds} rounds into it, the start did not go on");
        if is_there.is_some() {
            there += 1;
            assert_eq!(asked, [], "{rounds} rounds into it");
        } else {
            gone += 1;
            assert_eq!(asked[0], (PrincipalKind::Operator, AuditOutcome::Done), "{rounds} rounds into it");
            let receipts = asked.iter().filter(|(_, outcome)| matches!(outcome, AuditOutcome::Erased { .. })).count();
            assert_eq!((asked.len(), receipts), (2, 1), "{rounds} rounds into it");
        }
    }
    assert!(gone > 0 && there > 0, "it was always gone, or never: {gone}, {there}");
}

/// The story: the key of a request was taken when the master key had been changed. Whoever asked again after a crash changed it once
/// more, and who had asked first was known to nobody.
#[tokio::test]
async fn a_master_key_is_changed_once_for_one_key_and_who_asked_is_known() {
    let (mut begun, mut never) = (0, 0);
    for rounds in (0..60).step_by(2) {
        let mut world = World::new().await;
        let service = Arc::clone(&world.service);
        let kind = OperationKind::MasterKeyRotate;
        let target = Target::org(OrgId::PLATFORM);
        let permit = service.permit(&Principal::operator(), kind, target, None).await.unwrap();
        let Ok(Keyed::First(request)) = service.keyed(OrgId::PLATFORM, "key", [1; 32]) else { panic!("it is taken") };
        let call = Call { claim: Some(request), ..Call::default() };
        world.dies_after(rounds, Box::pin(service.rotate_master_key(&permit, &call))).await;
        drop(call);
        let lines = world.lines(kind);
        match world.service.keyed(OrgId::PLATFORM, "key", [1; 32]) {
            Ok(Keyed::First(_)) => {
                never += 1;
                assert_eq!(lines, [], "{rounds} rounds into it, something was done and can be done again");
            }
            Ok(Keyed::Unkept(..)) => {
                begun += 1;
                assert_eq!(lines[0], (PrincipalKind::Operator, AuditOutcome::Begun), "{rounds} rounds into it");
                assert!(lines[1..].iter().all(|line| *line == (PrincipalKind::Operator, AuditOutcome::Done)));
                assert!(lines.len() <= 2, "{lines:?}");
            }
            other => panic!("{rounds} rounds into it: {other:?}"),
        }
    }
    assert!(begun > 0 && never > 0, "it was always begun, or never: {begun}, {never}");
}

#[tokio::test]
async fn a_change_of_the_master_key_has_a_line_when_it_begins_and_one_when_it_ends() {
    let world = World::new().await;
    let kind = OperationKind::MasterKeyRotate;
    let permit = world.service.permit(&Principal::operator(), kind, Target::org(OrgId::PLATFORM), None).await.unwrap();
    world.service.rotate_master_key(&permit, &Call::default()).await.unwrap();
    let operator = PrincipalKind::Operator;
    assert_eq!(world.lines(kind), [(operator.clone(), AuditOutcome::Begun), (operator, AuditOutcome::Done)]);
}

/// The story: replies were forgotten when their organisation made new keys, and of one that made none they were kept for good.
#[tokio::test]
async fn what_a_quiet_organisation_was_answered_is_forgotten_after_a_day() {
    let world = World::new().await;
    let platform = world.platform();
    for (of, org) in [(&world, world.org), (&platform, OrgId::PLATFORM)] {
        for number in 0..3 {
            let mut commit = Commit::new(org, of.clock.now());
            commit.claim = Some(Claim {
                org,
                key: format!("key {number}"),
                digest: [1; 32],
                at: commit.now,
                deed: Deed::default(),
            });
            of.store.commit(commit).await.unwrap();
        }
    }
    let rows = || world.store.verify().unwrap().rows;
    let before = rows();
    let has_expired = |org| world.store.snapshot().unwrap().has_expired(org, world.clock.now()).unwrap();
    world.clock.advance(DAY - Duration::from_millis(1));
    world.service.forget_expired().await;
    assert_eq!(rows(), before, "something went before its time");
    world.clock.advance(Duration::from_millis(1));
    assert!(has_expired(world.org) && has_expired(OrgId::PLATFORM));
    world.service.forget_expired().await;
    assert!(!has_expired(world.org) && !has_expired(OrgId::PLATFORM));
    // A key and its age, of each.
    assert_eq!(rows(), before - 2 * 6);
}
