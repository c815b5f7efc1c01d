//! What was answered holds, whatever else happened in the same moment. Each test begins with its story.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{Labels, Operation, OperationKind, Verdict};
use portcullis_service::{Call, Outcome};
use portcullis_testing::text::KV;
use portcullis_testing::{ANSWER, DATA, Guest};
use tokio::task::JoinSet;

use crate::guests::wanting;
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

/// The story: a gate counted in one key. Of many operations at once, one won each round, and after three rounds the others were given up,
/// though nothing was wrong with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_that_share_a_plugins_key_are_all_done() {
    let world = Arc::new(World::new().await);
    let binding = world.bind(keeping(), vec![OperationKind::SessionLabels], "{}").await;
    let mut sessions = Vec::new();
    for _ in 0..48 {
        sessions.push(world.create().await);
    }
    let mut labelling = JoinSet::new();
    for session in sessions {
        let world = Arc::clone(&world);
        let labels = Labels::from([("new".to_owned(), "yes".to_owned())]);
        labelling.spawn(async move { world.execute(Operation::SessionLabels { session, labels }).await.map(drop) });
    }
    for outcome in labelling.join_all().await {
        outcome.unwrap();
    }
    world.unbind(binding).await;
}

/// Reads a key, and writes it, in every call.
fn keeping() -> Vec<u8> {
    let key = format!("(i32.const {DATA}) (i32.const 1)");
    let body = format!(
        "(call $get {key} (i32.const 4096))
        (call $set {key} {key} (i32.const 0) (i64.const 0) (i32.const 4160))
        i32.const {ANSWER}"
    );
    wanting("kv", Guest::gate(&body).importing(KV).data("k")).named("keeping").build()
}
