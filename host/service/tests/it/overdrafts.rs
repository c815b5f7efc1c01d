//! A plugin that wants more than it may keep, be woken for, or ask for, has failed: nobody else has, and its binding's `onFailure` stands in.

use std::time::Duration;

use portcullis_core::{
    BindingId, Errand, ErrandBody, ErrandId, FailureFold, KvAccess, KvChange, Labels, Operation, OperationKind,
    PluginFailure, PluginId, SessionId, Verdict,
};
use portcullis_service::{BindingChange, Call, Done, QuotaChange, ServiceError};
use portcullis_store::{Commit, ErrandChange, PluginTimer, TimerChange};
use portcullis_testing::text::KV;
use portcullis_testing::{ANSWER, DATA, Guest};

use crate::guests::{allowing, asking, timing, wanting};
use crate::world::World;

/// Keeps `v` under the key `k` in every call, and allows.
fn keeping() -> Vec<u8> {
    let value = DATA + 1;
    let body = format!(
        "(call $set (i32.const {DATA}) (i32.const 1) (i32.const {value}) (i32.const 1) (i32.const 0) (i64.const 0) (i32.const 4096))
        i32.const {ANSWER}"
    );
    wanting("kv", Guest::gate(&body).importing(KV).data("kv")).named("keeping").build()
}

impl World {
    /// Leaves a plugin as many keys as it may have, `k` not among them.
    async fn fill_keys(&self, plugin: PluginId) {
        let access = |key: String, change| KvAccess { plugin, key, seen: None, change };
        let put = || KvChange::Put { value: vec![1], expires: None };
        let mut commit = Commit::new(self.org, self.service.now());
        commit.kv.push(access("k".into(), KvChange::Remove));
        commit.kv.extend((0..1_000).map(|number| access(number.to_string(), put())));
        self.store.commit(commit).await.unwrap();
    }

    async fn make_room(&self, plugin: PluginId) {
        let mut commit = Commit::new(self.org, self.service.now());
        commit.kv.push(KvAccess { plugin, key: "7".into(), seen: None, change: KvChange::Remove });
        self.store.commit(commit).await.unwrap();
    }

    async fn fill_timers(&self, binding: BindingId) {
        let (plugin, now) = (self.plugin_of(binding), self.service.now());
        let at = now.after(Duration::from_secs(1_000_000));
        let mut commit = Commit::new(self.org, now);
        commit.timers.extend((0..1_000).map(|number| {
            let (key, payload) = (number.to_string(), String::new());
            TimerChange::Set(PluginTimer {
                org: self.org,
                plugin,
                binding,
                key,
                at,
                payload,
                session: None,
                attempts: 0,
            })
        }));
        self.store.commit(commit).await.unwrap();
    }

    /// Leaves a plugin as many requests as it may have, all of them for later.
    async fn fill_requests(&self, binding: BindingId, session: SessionId) {
        let (plugin, now) = (self.plugin_of(binding), self.service.now());
        let due = now.after(Duration::from_secs(1_000_000));
        let mut commit = Commit::new(self.org, now);
        commit.errands.extend((0..1_000).map(|number| {
            let (id, org) = (ErrandId::new(now, number), self.org);
            let body = ErrandBody::Request { operation: Box::new(Operation::SessionStop { session }) };
            ErrandChange::Put(Errand { id, org, binding, plugin, session: None, depth: 1, due, attempts: 0, body })
        }));
        self.store.commit(commit).await.unwrap();
    }

    async fn fold(&self, binding: BindingId, on_failure: FailureFold) {
        let permit = self.permit(OperationKind::BindingUpdate, None).await;
        let change = BindingChange { on_failure: Some(on_failure), ..BindingChange::default() };
        self.service.update_binding(&permit, binding, change, Call::default()).await.unwrap();
    }

    /// Gives a session a label that it has not had yet.
    async fn relabel(&self, session: SessionId, value: &str) -> Result<Done, ServiceError> {
        let labels = Labels::from([("label".to_owned(), value.to_owned())]);
        self.execute(Operation::SessionLabels { session, labels }).await
    }

    /// How the answers of the last decision failed, in the order of the chain.
    async fn last_failures(&self) -> Vec<Option<PluginFailure>> {
        let last = self.decisions().await.swap_remove(0);
        last.answers.iter().map(|answer| answer.result.as_ref().err().copied()).collect()
    }
}

/// The code of the first denial.
fn denial(result: Result<Done, ServiceError>) -> String {
    match result {
        Err(ServiceError::Vetoed { denials, .. }) => denials[0].code.clone(),
        other => panic!("not denied: {other:?}"),
    }
}

/// Once a gate had all the keys that it may have, every operation that it was asked about answered that the store was
/// unavailable, whatever its binding said about failures, and nothing was written down.
#[tokio::test]
async fn a_gate_that_keeps_too_much_folds_by_its_binding_and_is_recorded() {
    let world = World::new().await;
    let session = world.create().await;
    let hooks = vec![OperationKind::SessionLabels];
    world.bind(allowing(), hooks.clone(), "{}").await;
    let binding = world.bind(keeping(), hooks, "{}").await;
    let plugin = world.plugin_of(binding);
    world.relabel(session, "a").await.unwrap();
    world.fill_keys(plugin).await;

    assert_eq!(denial(world.relabel(session, "b").await), "plugin_quota");
    assert_eq!(world.last_failures().await, [None, Some(PluginFailure::Quota)]);
    assert_eq!(world.audit().await.swap_remove(0).outcome.name(), "vetoed");

    world.fold(binding, FailureFold::Allow).await;
    world.relabel(session, "c").await.unwrap();
    assert_eq!(world.session(session).await.unwrap().labels["label"], "c");
    assert_eq!(world.last_failures().await, [None, Some(PluginFailure::Quota)]);
    let kept = || world.store.snapshot().unwrap().kv(world.org, plugin, "k", world.service.now()).unwrap();
    assert_eq!(kept(), None);

    world.make_room(plugin).await;
    world.relabel(session, "d").await.unwrap();
    assert_eq!(world.last_failures().await, [None, None]);
    assert!(kept().is_some());
}

#[tokio::test]
async fn a_plugin_that_overdraws_too_often_is_suspended() {
    let world = World::new().await;
    let session = world.create().await;
    let binding = world.bind(keeping(), vec![OperationKind::SessionLabels], "{}").await;
    world.fill_keys(world.plugin_of(binding)).await;
    for number in 0..20 {
        assert_eq!(denial(world.relabel(session, &number.to_string()).await), "plugin_quota");
    }
    assert_eq!(denial(world.relabel(session, "last").await), "plugin_suspended");
}

#[tokio::test]
async fn a_gate_that_sets_too_many_timers_folds_by_its_binding() {
    let world = World::new().await;
    let session = world.create().await;
    let binding = world.bind(timing(), vec![OperationKind::SessionLabels], "{}").await;
    world.fill_timers(binding).await;
    assert_eq!(denial(world.relabel(session, "a").await), "plugin_quota");
    world.fold(binding, FailureFold::Allow).await;
    world.relabel(session, "b").await.unwrap();
    assert_eq!(world.last_failures().await, [Some(PluginFailure::Quota)]);
}

#[tokio::test]
async fn a_gate_that_asks_for_too_much_folds_by_its_binding() {
    let world = World::new().await;
    let session = world.online().await;
    let binding = world.bind(asking(session), vec![OperationKind::SessionLabels], "{}").await;
    world.fill_requests(binding, session).await;
    assert_eq!(denial(world.relabel(session, "a").await), "plugin_quota");
    world.fold(binding, FailureFold::Allow).await;
    world.relabel(session, "b").await.unwrap();
    assert_eq!(world.last_failures().await, [Some(PluginFailure::Quota)]);
    world.settle().await;
    assert_eq!(world.status(session).await, "online");

    let done = ErrandChange::Remove(ErrandId::new(world.service.now(), 7));
    let mut commit = Commit::new(world.org, world.service.now());
    commit.errands.push(done);
    world.store.commit(commit).await.unwrap();
    world.relabel(session, "c").await.unwrap();
    world.settle().await;
    assert_eq!(world.status(session).await, "stopped");
}

#[tokio::test]
async fn the_operator_says_how_much_plugins_may_keep() {
    let world = World::new().await;
    let session = world.create().await;
    world.bind(keeping(), vec![OperationKind::SessionLabels], "{}").await;
    let allow = async |kv_keys, kv_bytes| {
        world
            .set_quotas(QuotaChange { kv_keys: Some(kv_keys), kv_bytes: Some(kv_bytes), ..QuotaChange::default() })
            .await;
    };
    allow(0, 1_000).await;
    assert_eq!(denial(world.relabel(session, "a").await), "plugin_quota");
    allow(1, 1).await;
    assert_eq!(denial(world.relabel(session, "a").await), "plugin_quota");
    allow(1, 2).await;
    world.relabel(session, "a").await.unwrap();
}

#[tokio::test]
async fn a_dry_run_answers_as_the_call_whose_plugin_overdraws() {
    let world = World::new().await;
    let session = world.online().await;
    let hooks = || vec![OperationKind::SessionLabels];
    let labels = Labels::from([("label".to_owned(), "a".to_owned())]);
    let relabelling = || Operation::SessionLabels { session, labels: labels.clone() };
    for component in [keeping(), timing(), asking(session)] {
        let binding = world.bind(component, hooks(), "{}").await;
        let tried = world.attempt(relabelling()).await;
        assert!(matches!(tried, Ok(Verdict::Allowed(_))), "{tried:?}");
        world.fill_keys(world.plugin_of(binding)).await;
        world.fill_timers(binding).await;
        world.fill_requests(binding, session).await;
        let Ok(Verdict::Denied { denials }) = world.attempt(relabelling()).await else { panic!("not denied") };
        assert_eq!(denials[0].failure, Some(PluginFailure::Quota));
        world.fold(binding, FailureFold::Allow).await;
        let tried = world.attempt(relabelling()).await;
        assert!(matches!(tried, Ok(Verdict::Allowed(_))), "{tried:?}");
        world.unbind(binding).await;
    }
}

/// Such a delete was tried again every second, for ever.
#[tokio::test]
async fn a_due_delete_waits_for_a_gate_that_keeps_too_much() {
    let world = World::new().await;
    let session = world.create().await;
    world.bind_grace("PT1H").await;
    let binding = world.bind(keeping(), vec![OperationKind::SessionDelete], "{}").await;
    world.execute(Operation::SessionDelete { session }).await.unwrap();
    world.fill_keys(world.plugin_of(binding)).await;
    world.pass(Duration::from_secs(3600)).await;
    assert_eq!(world.status(session).await, "stopped");
    let due = world.session(session).await.unwrap().delete_due().unwrap();
    assert_eq!(due.since(world.service.now()), Duration::from_secs(300));
    world.make_room(world.plugin_of(binding)).await;
    world.pass(Duration::from_secs(300)).await;
    assert_eq!(world.status(session).await, "gone");
}
