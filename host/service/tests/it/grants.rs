//! What a plugin may use: what its version asks for, its binding grants, and the operator allows at most, whatever changes of these.

use std::time::Duration;

use portcullis_core::{AuditOutcome, Binding, BindingId, Candidate, Grant, Operation, OperationKind, SessionId};
use portcullis_service::{BindingChange, Call, OrgChange, Outcome, Replay, ServiceError};

use crate::guests::reading;
use crate::world::{CHURN, World};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl World {
    async fn update(&self, binding: BindingId, change: BindingChange) -> Result<(), ServiceError> {
        let permit = self.permit(OperationKind::BindingUpdate, None).await;
        self.service.update_binding(&permit, binding, change, Call::default()).await.map(drop)
    }

    async fn roll_back(&self, binding: BindingId) -> Result<Binding, ServiceError> {
        let permit = self.permit(OperationKind::BindingUpdate, None).await;
        bound(self.service.roll_back(&permit, binding, Call::default()).await?.outcome)
    }

    async fn promote(&self, binding: BindingId) -> Result<Binding, ServiceError> {
        let permit = self.permit(OperationKind::BindingUpdate, None).await;
        bound(self.service.promote(&permit, binding, Call::default()).await?.outcome)
    }

    async fn may_read(&self, session: SessionId) -> bool {
        self.execute(Operation::SessionQr { session }).await.is_ok()
    }

    async fn set_ceiling(&self, ceiling: Option<Vec<Grant>>) {
        self.change_org(OrgChange { plugin_ceiling: Some(ceiling), ..OrgChange::default() }).await;
    }
}

/// A ceiling that the operator lowers was once not noticed by bindings at work: the chain in which they stand was read before,
/// and stayed in memory with the old ceiling until somebody changed a binding or the gateway was restarted.
#[tokio::test]
async fn a_lowered_ceiling_holds_for_bindings_at_work_and_a_lifted_one_too() {
    let world = World::new().await;
    let (held, deleted) = (world.create().await, world.create().await);
    world.bind(CHURN.to_vec(), vec![], r#"{"grace":"P1D"}"#).await;
    // Its timer is set, and the chain has been read.
    world.tell("evt-1", "subscription.cancelled", held).await;
    world.set_ceiling(Some(vec![Grant::Kv, Grant::Sessions])).await;
    world.pass(3 * DAY).await;
    assert_eq!(world.status(held).await, "stopped", "a plugin asked for an operation beyond the operator's ceiling");

    world.set_ceiling(None).await;
    world.tell("evt-2", "subscription.cancelled", deleted).await;
    world.pass(3 * DAY).await;
    assert_eq!(world.status(deleted).await, "gone");
    let deletes = world.audit().await.into_iter().filter(|entry| entry.operation == OperationKind::SessionDelete);
    assert!(deletes.map(|entry| entry.outcome).any(|outcome| outcome == AuditOutcome::Done));
}

fn bound(outcome: Outcome) -> Result<Binding, ServiceError> {
    match outcome {
        Outcome::Bound(binding) => Ok(Binding::clone(&binding)),
        other => panic!("no binding: {other:?}"),
    }
}

fn grants(grants: &[Grant]) -> BindingChange {
    BindingChange { grants: Some(grants.to_vec()), ..BindingChange::default() }
}

fn version(version: u32) -> BindingChange {
    BindingChange { version: Some(version), ..BindingChange::default() }
}

fn candidate(version: u32, percent: u8) -> BindingChange {
    let candidate = Candidate { version, settings: None, percent };
    BindingChange { candidate: Some(Some(candidate)), ..BindingChange::default() }
}

/// The way back from a version that was granted more was once refused, because the version before does not ask for that.
/// It is the call of whoever has just found out that the new version is bad.
#[tokio::test]
async fn a_rollback_restores_the_grants_of_the_version_before() {
    let world = World::new().await;
    let binding = world.bind(reading(&[Grant::Kv]), vec![], "{}").await;
    let two = world.upload_version(reading(&[Grant::Kv, Grant::Lifecycle])).await;
    let change = BindingChange { version: Some(two), ..grants(&[Grant::Kv, Grant::Lifecycle]) };
    world.update(binding, change).await.unwrap();
    let first = world.roll_back(binding).await.unwrap();
    assert_eq!((first.version, first.grants), (1, vec![Grant::Kv]));
    let second = world.roll_back(binding).await.unwrap();
    assert_eq!((second.version, second.grants), (2, vec![Grant::Kv, Grant::Lifecycle]));
}

/// Promotions, rollbacks and new versions were refused for grants that nobody had named.
#[tokio::test]
async fn versions_that_want_less_and_lowered_ceilings_stand_in_nobodys_way() {
    let world = World::new().await;
    let session = world.create().await;
    let binding = world.bind(reading(&[Grant::Kv, Grant::Lifecycle]), vec![OperationKind::SessionQr], "{}").await;
    let less = world.upload_version(reading(&[Grant::Kv])).await;
    world.update(binding, candidate(less, 0)).await.unwrap();
    assert_eq!(world.promote(binding).await.unwrap().version, less);
    assert!(world.may_read(session).await);
    world.set_ceiling(Some(vec![Grant::Sessions])).await;
    assert_eq!(world.roll_back(binding).await.unwrap().version, 1);
    assert!(!world.may_read(session).await, "a plugin has a grant that is beyond the ceiling");
    world.update(binding, version(less)).await.unwrap();
    // To name again what is granted changes nothing.
    world.update(binding, grants(&[Grant::Kv])).await.unwrap();
    world.set_ceiling(None).await;
    assert!(world.may_read(session).await);
}

#[tokio::test]
async fn a_grant_that_is_named_anew_has_to_be_wanted_and_allowed() {
    let world = World::new().await;
    let binding = world.bind(reading(&[Grant::Kv]), vec![], "{}").await;
    let check = async |change, refused: Option<&str>| {
        let found = match world.update(binding, change).await {
            Err(ServiceError::Invalid { field: "grants", message }) => Some(message),
            other => other.map(|()| None).unwrap(),
        };
        assert_eq!(found.as_deref(), refused);
    };
    let both = [Grant::Kv, Grant::Lifecycle];
    check(grants(&both), Some("the plugin does not ask for the grant lifecycle")).await;
    // Its candidate does, so that its promotion finds it granted.
    let two = world.upload_version(reading(&both)).await;
    world.set_ceiling(Some(vec![Grant::Kv])).await;
    let wider = || BindingChange { grants: Some(both.to_vec()), ..candidate(two, 10) };
    check(wider(), Some("the operator lets no plugin have the grant lifecycle here")).await;
    world.set_ceiling(None).await;
    check(wider(), None).await;
}

/// A candidate once ran with all that its binding grants, also with what its own version never asked for.
#[tokio::test]
async fn a_candidate_has_only_grants_that_its_own_version_asks_for() {
    let world = World::new().await;
    let session = world.create().await;
    let binding = world.bind(reading(&[Grant::Kv]), vec![OperationKind::SessionQr], "{}").await;
    assert!(world.may_read(session).await);
    let modest = world.upload_version(reading(&[])).await;
    world.update(binding, candidate(modest, 100)).await.unwrap();
    assert!(!world.may_read(session).await, "a candidate reads without asking for it");
    assert_eq!(world.promote(binding).await.unwrap().grants, [Grant::Kv]);
    assert!(!world.may_read(session).await);
}

/// A replay once asked with all that a version wants and today's ceiling allows, not with what it could use then:
/// even the same version, asked about its own decision, gave another answer than it had given.
#[tokio::test]
async fn a_replay_asks_with_the_grants_of_the_time() {
    let world = World::new().await;
    let session = world.create().await;
    let binding = world.bind(reading(&[Grant::Kv]), vec![OperationKind::SessionQr], "{}").await;
    assert!(world.may_read(session).await);
    world.update(binding, grants(&[])).await.unwrap();
    assert!(!world.may_read(session).await);
    world.set_ceiling(Some(vec![])).await;
    let plugin = world.binding(binding).await.binding.plugin;
    let permit = world.permit(OperationKind::PluginReplay, None).await;
    let replay = Replay { last: 10, ..Replay::default() };
    let replayed = world.service.replay_plugin(&permit, plugin, replay).await.unwrap();
    assert_eq!((replayed.asked, replayed.same, replayed.not_exact), (2, 2, 0), "{:?}", replayed.changes);
}
