//! Hostile, careless and honest guests, each asked through the public interface of the runtime.

mod admission;
mod classes;
mod codes;
mod gates;
mod http;
mod imports;
mod others;
mod rehearsals;
mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{
    Answer, Binding, BindingId, Capabilities, DecisionId, FailureFold, Grant, KvEntry, Mode, Operation, OperationKind,
    Org, OrgId, PluginClass, PluginId, PluginRequest, PluginRules, PluginVersion, PolicyReadError, PolicyReads,
    Principal, Quotas, RequestFlaw, Secret, Selector, Session, SessionId, Timestamp, Window,
};
use portcullis_testing::Guest;

use crate::{Ask, ChainRun, Link, Runtime, RuntimeConfig};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn org_id() -> OrgId {
    OrgId::from_bytes([7; 16])
}

fn plugin_id() -> PluginId {
    PluginId::from_bytes([8; 16])
}

fn session_id() -> SessionId {
    SessionId::from_bytes([9; 16])
}

/// Bounds by the clock are wide here: tests share the machine, and fuel is what they are about.
fn config() -> RuntimeConfig {
    RuntimeConfig {
        gate_wall: Duration::from_secs(5),
        chain_wall: Duration::from_secs(20),
        background_wall: Duration::from_secs(5),
        calls_in_all: 8,
        calls_per_org: 4,
        ..RuntimeConfig::default()
    }
}

fn runtime() -> Arc<Runtime> {
    Runtime::new(config()).unwrap()
}

fn ask() -> Ask {
    Ask {
        decision: DecisionId::new(NOW, 1),
        now: NOW,
        seed: 42,
        due_since: None,
        confirmed: None,
        principal: Principal::system(org_id()),
        org: Arc::new(Org {
            id: org_id(),
            name: "Acme".into(),
            plan: portcullis_core::Plan::default(),
            quotas: Quotas::default(),
            labels: [("tier".to_owned(), "gold".to_owned())].into(),
            plugin_rules: PluginRules::default(),
            suspended: false,
            erasing: false,
            generation: 1,
            created_at: NOW,
            updated_at: NOW,
        }),
        session: None,
        dry_run: false,
    }
}

fn delete() -> Operation {
    Operation::SessionDelete { session: session_id() }
}

/// Admits the guest and binds it.
async fn bind(runtime: &Runtime, guest: &Guest) -> Link {
    bind_with(runtime, guest, Mode::Enforce, &[]).await
}

async fn bind_with(runtime: &Runtime, guest: &Guest, mode: Mode, grants: &[Grant]) -> Link {
    let admitted = runtime.admit(org_id(), guest.build(), PluginClass::Standard).await.unwrap();
    let version = PluginVersion {
        plugin: plugin_id(),
        org: org_id(),
        version: 1,
        name: admitted.name,
        declared_version: admitted.declared_version,
        description: admitted.description,
        digest: admitted.digest,
        size: admitted.size,
        contract: admitted.contract,
        exports: admitted.exports,
        settings_schema: admitted.settings_schema,
        hooks: admitted.hooks,
        events: admitted.events,
        wants: admitted.wants,
        class: PluginClass::Standard,
        signer: None,
        uploaded_at: NOW,
    };
    let binding = Binding {
        id: BindingId::from_bytes([3; 16]),
        org: org_id(),
        plugin: plugin_id(),
        version: 1,
        hooks: vec![],
        mode,
        settings: "{}".into(),
        on_failure: FailureFold::Deny,
        order: 0,
        grants: grants.to_vec(),
        http_hosts: Vec::new(),
        selector: Selector::default(),
        authority: Capabilities::all(),
        candidate: None,
        previous: None,
        wall_millis: None,
        generation: 1,
        created_at: NOW,
        updated_at: NOW,
    };
    Link::new(0, Arc::new(binding), Arc::new(version))
}

async fn run(runtime: &Runtime, link: &Link) -> ChainRun {
    runtime.gate(std::slice::from_ref(link), &ask(), &delete(), Arc::new(Snapshot::default())).await
}

async fn answer(runtime: &Runtime, link: &Link) -> Answer {
    run(runtime, link).await.answers.remove(0)
}

/// What plugins read in tests.
#[derive(Default)]
struct Snapshot {
    kv: BTreeMap<String, KvEntry>,
    sessions: Vec<Session>,
    secrets: BTreeMap<String, Secret>,
    fails: bool,
    /// Whether there is a way out.
    sends: bool,
}

impl Snapshot {
    fn check(&self) -> Result<(), PolicyReadError> {
        if self.fails { Err(PolicyReadError("the disk is gone".into())) } else { Ok(()) }
    }
}

impl PolicyReads for Snapshot {
    fn kv(&self, _plugin: PluginId, key: &str) -> Result<Option<KvEntry>, PolicyReadError> {
        self.check()?;
        Ok(self.kv.get(key).cloned())
    }

    fn kv_keys(
        &self,
        _plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, PolicyReadError> {
        let past = |key: &&String| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after);
        Ok(self.kv.keys().filter(past).take(limit).cloned().collect())
    }

    fn session(&self, id: SessionId) -> Result<Option<Session>, PolicyReadError> {
        Ok(self.sessions.iter().find(|session| session.id == id).cloned())
    }

    fn sessions(&self, after: Option<SessionId>, limit: usize) -> Result<Vec<Session>, PolicyReadError> {
        let past = |session: &&Session| after.is_none_or(|after| session.id > after);
        Ok(self.sessions.iter().filter(past).take(limit).cloned().collect())
    }

    fn secret(&self, owner: OrgId, plugin: PluginId, name: &str) -> Result<Option<Secret>, PolicyReadError> {
        self.check()?;
        assert_eq!((owner, plugin), (org_id(), plugin_id()));
        Ok(self.secrets.get(name).cloned())
    }

    fn usage(&self, _operation: OperationKind, _window: Window) -> Result<u64, PolicyReadError> {
        Ok(3)
    }

    fn check_request(&self, request: &PluginRequest) -> Result<String, RequestFlaw> {
        self.host(request)
    }
}
