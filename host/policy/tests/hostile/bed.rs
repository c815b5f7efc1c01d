//! What plugins are asked with in the attacks and the benchmarks: an organisation, a session, a snapshot to read, and bindings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{
    Answer, Binding, BindingId, Capabilities, DecisionId, FailureFold, Grant, KvEntry, Labels, Mode, Operation,
    OperationKind, Org, OrgId, Plan, PluginClass, PluginId, PluginRules, PluginVersion, PolicyReadError, PolicyReads,
    Principal, Quotas, Secret, Selector, Session, SessionId, Timestamp, Window,
};
use portcullis_policy::{AdmissionError, Admitted, Ask, ChainRun, Link, Runtime, RuntimeConfig};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
pub(crate) const GATE_FUEL: u64 = 2_000_000;
pub(crate) const BACKGROUND_FUEL: u64 = 20_000_000;
pub(crate) const MEMORY: usize = 16 << 20;
/// How many instances the pool has in the attacks. Few, so that one that is not given back is missed soon.
pub(crate) const PLACES: usize = 3;

pub(crate) fn org_id() -> OrgId {
    OrgId::from_bytes([7; 16])
}

pub(crate) fn plugin_id() -> PluginId {
    PluginId::from_bytes([8; 16])
}

pub(crate) fn session_id() -> SessionId {
    SessionId::from_bytes([9; 16])
}

/// Small budgets of fuel, because a spin has to end many times; wide ones by the clock, because tests share the machine.
pub(crate) fn config() -> RuntimeConfig {
    RuntimeConfig {
        gate_fuel: GATE_FUEL,
        gate_wall: Duration::from_secs(20),
        chain_wall: Duration::from_secs(60),
        background_fuel: BACKGROUND_FUEL,
        background_wall: Duration::from_secs(20),
        memory_bytes: MEMORY,
        calls_in_all: PLACES,
        calls_per_org: PLACES,
        loaded_plugins: 8,
        ..RuntimeConfig::default()
    }
}

pub(crate) fn ask() -> Ask {
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
            plan: Plan::default(),
            quotas: Quotas::default(),
            labels: Labels::new(),
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

pub(crate) fn delete() -> Operation {
    Operation::SessionDelete { session: session_id() }
}

/// Uploads a component of the standard class for the organisation.
pub(crate) async fn admit(runtime: &Runtime, bytes: Vec<u8>) -> Result<Admitted, AdmissionError> {
    runtime.admit(org_id(), bytes, PluginClass::Standard).await
}

/// Makes sure that a plugin is at hand.
pub(crate) async fn load(runtime: &Arc<Runtime>, link: &Link, bytes: &[u8]) {
    let bytes = bytes.to_vec();
    let loaded = runtime.load(link.version.digest, link.version.class, move || Some(bytes)).await;
    loaded.expect("it was admitted before");
}

/// Binds what was admitted in the standard class, as the organisation's only plugin.
pub(crate) fn bind(admitted: Admitted, grants: &[Grant]) -> Link {
    bind_class(admitted, PluginClass::Standard, grants)
}

/// The same in any class.
pub(crate) fn bind_class(admitted: Admitted, class: PluginClass, grants: &[Grant]) -> Link {
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
        class,
        signer: None,
        uploaded_at: NOW,
    };
    let binding = Binding {
        id: BindingId::from_bytes([3; 16]),
        org: org_id(),
        plugin: plugin_id(),
        version: 1,
        hooks: vec![],
        mode: Mode::Enforce,
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

/// Asks a chain of gates about a delete.
pub(crate) async fn gate(runtime: &Runtime, links: &[Link]) -> ChainRun {
    runtime.gate(links, &ask(), &delete(), Arc::new(Snapshot::default())).await
}

/// Asks one gate about a delete.
pub(crate) async fn answer(runtime: &Runtime, link: &Link) -> Answer {
    gate(runtime, std::slice::from_ref(link)).await.answers.remove(0)
}

/// What plugins read.
#[derive(Default)]
pub(crate) struct Snapshot {
    pub(crate) kv: BTreeMap<String, KvEntry>,
}

impl PolicyReads for Snapshot {
    fn kv(&self, plugin: PluginId, key: &str) -> Result<Option<KvEntry>, PolicyReadError> {
        assert_eq!(plugin, plugin_id(), "a plugin read as another one");
        Ok(self.kv.get(key).cloned())
    }

    fn kv_keys(
        &self,
        plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, PolicyReadError> {
        assert_eq!(plugin, plugin_id(), "a plugin listed as another one");
        let past = |key: &&String| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after);
        Ok(self.kv.keys().filter(past).take(limit).cloned().collect())
    }

    fn session(&self, _id: SessionId) -> Result<Option<Session>, PolicyReadError> {
        Ok(None)
    }

    fn sessions(&self, _after: Option<SessionId>, _limit: usize) -> Result<Vec<Session>, PolicyReadError> {
        Ok(Vec::new())
    }

    fn secret(&self, owner: OrgId, plugin: PluginId, _name: &str) -> Result<Option<Secret>, PolicyReadError> {
        assert_eq!((owner, plugin), (org_id(), plugin_id()), "a plugin used another one's secrets");
        Ok(None)
    }

    fn usage(&self, _operation: OperationKind, _window: Window) -> Result<u64, PolicyReadError> {
        Ok(3)
    }
}
