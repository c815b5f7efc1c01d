//! What was answered holds, whatever else happened in the same moment. Each test begins with its story.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{Labels, Operation, OperationKind, Verdict};
use portcullis_service::{Call, Outcome};
use tokio::task::JoinSet;

use crate::world::World;

/// The story: a delete fell due while its session was being restored. The restore was answered with success, the due delete
/// lost the race for the commit, looked again, found a session that nobody wanted deleted, and deleted it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_was_answered_is_not_followed_by_a_deletion() {
    let world = Arc::new(World::new().await);
    world.bind_grace("PT1H").await;
    let mut sessions = Vec::new();
    for _ in 0..40 {
        let session = world.create().await;
        world.execute(Operation::SessionDelete { session }).await.unwrap();
        sessions.push(session);
    }
    world.clock.advance(Duration::from_secs(3600));
    let mut restoring = JoinSet::new();
    for session in sessions {
        let world = Arc::clone(&world);
        restoring.spawn(async move { (session, world.execute(Operation::SessionRestore { session }).await.is_ok()) });
    }
    world.settle().await;
    let restored = restoring.join_all().await;
    world.settle().await;
    for (session, restored) in restored {
        let status = world.status(session).await;
        assert_eq!(restored, status != "gone", "restored: {restored}, and then {status}");
    }
}

/// The story: an operation that had begun before a binding was made finished after it, read the chain from its old snapshot,
/// and left that chain behind for all operations that came after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_that_was_answered_rules_from_the_next_operation_on() {
    let world = Arc::new(World::new().await);
    let busy = world.create().await;
    let quiet = world.create().await;
    let mut labelling = JoinSet::new();
    for task in 0..3 {
        let world = Arc::clone(&world);
        labelling.spawn(async move {
            for turn in 0..200 {
                let labels = Labels::from([("turn".to_owned(), format!("{task}-{turn}"))]);
                // Losing against the others is no failure here.
                let _ = world.execute(Operation::SessionLabels { session: busy, labels }).await;
            }
        });
    }
    for _ in 0..20 {
        world.bind_grace("PT1H").await;
        assert!(matches!(world.would_delete(quiet).await, Verdict::Deferred { .. }), "a binding was ignored");
        for binding in world.bindings().await {
            let permit = world.permit(OperationKind::BindingDelete, None).await;
            world.service.delete_binding(&permit, binding, Call::default()).await.unwrap();
        }
        assert!(matches!(world.would_delete(quiet).await, Verdict::Allowed(_)), "a binding that is gone still ruled");
    }
    labelling.join_all().await;
}

impl World {
    /// What policy would say to a delete.
    async fn would_delete(&self, session: portcullis_core::SessionId) -> Verdict {
        let permit = self.permit(OperationKind::SessionDelete, Some(session)).await;
        let call = Call { dry_run: true, ..Call::default() };
        let done = self.service.execute(&permit, Operation::SessionDelete { session }, call).await.unwrap();
        match done.outcome {
            Outcome::DryRun(verdict) => verdict,
            other => panic!("a dry run did something: {other:?}"),
        }
    }

    async fn bindings(&self) -> Vec<portcullis_core::BindingId> {
        let permit = self.permit(OperationKind::PluginRead, None).await;
        self.service.list_bindings(&permit).unwrap().into_iter().map(|state| state.binding.id).collect()
    }
}
