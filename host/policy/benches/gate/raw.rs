//! The floor: the same components with wasmtime's own bindings, as a host without Portcullis would call them.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use portcullis_core::{BindingId, DecisionId, KvEntry};
use wasmtime::component::{Component, HasSelf, Linker, ResourceTable};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::bed::{NOW, org_id};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/0.1.0",
        inline: "
            package portcullis:raw;
            world gated {
                import portcullis:policy/kv@0.1.0;
                include portcullis:policy/gating@0.1.0;
            }
        ",
        world: "portcullis:raw/gated",
        exports: { default: async },
    });
}

use bindings::portcullis::policy::{kv, types};

/// The most of a guest's memory.
const MEMORY: usize = 128 << 20;
/// As much fuel as any guest of the benchmark needs.
const FUEL: u64 = 10_000_000_000;

/// An engine and a linker.
pub(crate) struct Floor {
    engine: Engine,
    linker: Linker<State>,
    context: types::Context,
    operation: types::Operation,
    kept: Arc<BTreeMap<String, KvEntry>>,
}

/// A component that is ready to be called.
pub(crate) struct RawPlugin(bindings::GatedPre<State>);

impl Floor {
    pub(crate) fn new() -> Self {
        let engine = engine();
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).expect("WASI links");
        kv::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state).expect("kv links");
        let (context, operation) = question();
        Self { engine, linker, context, operation, kept: Arc::default() }
    }

    /// Compiles a component.
    pub(crate) fn plugin(&self, bytes: &[u8]) -> RawPlugin {
        let component = Component::from_binary(&self.engine, bytes).expect("a component");
        // What is of a later release than the linker's own counts as unknown, though it links; so traps come second.
        let pre = self.linker.instantiate_pre(&component).unwrap_or_else(|_unlinked| {
            let mut linker = self.linker.clone();
            linker.define_unknown_imports_as_traps(&component).expect("the rest links to traps");
            linker.instantiate_pre(&component).expect("it links")
        });
        RawPlugin(bindings::GatedPre::new(pre).expect("a gate"))
    }

    /// Asks the gate, in a fresh store and instance.
    pub(crate) async fn call(&self, plugin: &RawPlugin) {
        let state = State { kept: Arc::clone(&self.kept), written: BTreeMap::new(), wasi: None };
        let mut store = Store::new(&self.engine, state);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        store.set_fuel(FUEL).expect("fuel is on");
        let instance = plugin.0.instantiate_async(&mut store).await.expect("an instance");
        let gate = instance.portcullis_policy_gate();
        black_box(gate.call_before(&mut store, &self.context, &self.operation).await.expect("an answer"));
    }
}

/// What a store holds: a snapshot, what was written, and WASI once it is used.
struct State {
    kept: Arc<BTreeMap<String, KvEntry>>,
    written: BTreeMap<String, Vec<u8>>,
    wasi: Option<Box<(WasiCtx, ResourceTable)>>,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let fresh = || Box::new((WasiCtx::builder().build(), ResourceTable::new()));
        let (ctx, table) = &mut **self.wasi.get_or_insert_with(fresh);
        WasiCtxView { ctx, table }
    }
}

impl types::Host for State {}

impl kv::Host for State {
    fn get(&mut self, key: String) -> Result<Option<kv::Entry>, types::HostError> {
        let kept = self.kept.get(&key);
        Ok(kept.map(|entry| kv::Entry { value: entry.value.clone(), version: entry.version }))
    }

    fn set(&mut self, key: String, value: Vec<u8>, _expires: Option<u64>) -> Result<(), types::HostError> {
        self.written.insert(key, value);
        Ok(())
    }

    fn compare_and_set(
        &mut self,
        _key: String,
        _version: Option<u64>,
        _value: Vec<u8>,
        _expires: Option<u64>,
    ) -> Result<(), types::HostError> {
        Err(types::HostError::Unavailable)
    }

    fn remove(&mut self, _key: String) -> Result<bool, types::HostError> {
        Err(types::HostError::Unavailable)
    }

    fn list(&mut self, _prefix: String, _cursor: Option<String>) -> Result<Vec<String>, types::HostError> {
        Err(types::HostError::Unavailable)
    }
}

/// As the runtime sets its own up, see `machine`.
fn engine() -> Engine {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(64)
        .total_core_instances(512)
        .total_memories(128)
        .total_tables(256)
        .total_stacks(64)
        .max_memory_size(MEMORY)
        .table_elements(20_000)
        .linear_memory_keep_resident(1 << 20)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        .consume_fuel(true)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_backtrace_max_frames(None)
        .max_wasm_stack(512 << 10)
        .async_stack_size(1 << 20)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config).expect("an engine")
}

/// The same as the runtime is asked, in the bindings' types.
fn question() -> (types::Context, types::Operation) {
    let context = types::Context {
        decision_id: DecisionId::new(NOW, 1).to_string(),
        binding_id: BindingId::from_bytes([3; 16]).to_string(),
        now: NOW.as_millis(),
        seed: 42,
        phase: types::Phase::Requested,
        confirmed: None,
        principal: types::Principal {
            kind: types::PrincipalKind::System,
            id: None,
            capabilities: ["read", "send", "manage", "events", "plugins", "audit", "operate"].map(Into::into).into(),
            session_scope: None,
        },
        org: types::Org {
            id: org_id().to_string(),
            name: "Acme".into(),
            plan: "free".into(),
            plan_active: false,
            labels: vec![],
            quotas: ["sessions", "keys", "plugins", "bindings", "concurrency"].map(|name| (name.into(), 100)).into(),
        },
        session: None,
        dry_run: false,
        settings: "{}".into(),
    };
    (context, types::Operation { name: "session.delete".into(), detail: types::Detail::Plain })
}
