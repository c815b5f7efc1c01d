//! What the policy path adds to a call of a component: a gate through the runtime, against the same component called by wasmtime alone.
//!
//! Both sides make a fresh store and instance for every call, from a pool with the same settings, bound by fuel and epoch.
//! The runtime adds what a gate needs: the context and the operation as values, a permit, the imports' state, the deadline, and the checked answer.
//! Prints `ratio policy/raw = x.xx`; the goal is at most 1.3.

#![expect(clippy::print_stdout, reason = "the ratio is what the benchmark is for")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use portcullis_core::{
    Binding, BindingId, DecisionId, FailureFold, KvEntry, Mode, Operation, OperationKind, Org, OrgId, Plan, PluginId,
    PluginVersion, PolicyReadError, PolicyReads, Principal, Quotas, Selector, Session, SessionId, Timestamp, Window,
};
use portcullis_policy::{Ask, Link, Runtime, RuntimeConfig};
use portcullis_testing::Guest;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// The contract's types, with wasmtime's own bindings: what a host without Portcullis would write.
mod raw {
    wasmtime::component::bindgen!({
        path: "../../wit/0.1.0",
        inline: "
            package portcullis:raw;
            world gated {
                include portcullis:policy/gating@0.1.0;
            }
        ",
        world: "portcullis:raw/gated",
        exports: { default: async },
    });
}

use raw::portcullis::policy::types;

fn main() {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bytes = Guest::allowing().build();
    let mut criterion = Criterion::default().configure_from_args().measurement_time(Duration::from_secs(8));

    let engine = raw_engine();
    let component = Component::from_binary(&engine, &bytes).expect("a component");
    let linker = Linker::<()>::new(&engine);
    let gated = raw::GatedPre::new(linker.instantiate_pre(&component).expect("no imports")).expect("a gate");
    let (context, operation) = raw_question();
    let raw_call = async || {
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        store.set_fuel(20_000_000).expect("fuel is on");
        let instance = gated.instantiate_async(&mut store).await.expect("an instance");
        let gate = instance.portcullis_policy_gate();
        black_box(gate.call_before(&mut store, &context, &operation).await.expect("an answer"));
    };

    let runtime = Runtime::new(RuntimeConfig::default()).expect("a runtime");
    let link = tokio.block_on(bind(&runtime, bytes));
    let (ask, delete) = (ask(), Operation::SessionDelete { session: SessionId::from_bytes([9; 16]) });
    let reads: Arc<dyn PolicyReads> = Arc::new(Nothing);
    let policy_call = async || {
        let run = runtime.gate(std::slice::from_ref(&link), &ask, &delete, Arc::clone(&reads)).await;
        assert!(black_box(run).answers[0].result.is_ok());
    };

    criterion.bench_function("gate/raw", |bencher| bencher.iter(|| tokio.block_on(raw_call())));
    criterion.bench_function("gate/policy", |bencher| bencher.iter(|| tokio.block_on(policy_call())));

    // Taken in turns, so that a noisy neighbour disturbs both sides alike.
    let (mut raw_times, mut policy_times) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        raw_times.push(time(|| (0..200).for_each(|_| tokio.block_on(raw_call()))));
        policy_times.push(time(|| (0..200).for_each(|_| tokio.block_on(policy_call()))));
    }
    let (raw, policy) = (median(raw_times) / 200, median(policy_times) / 200);
    println!("raw {raw:?}, policy {policy:?}");
    println!("ratio policy/raw = {:.2} (goal <= 1.3)", policy.as_secs_f64() / raw.as_secs_f64());
}

fn time(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn raw_engine() -> Engine {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(64)
        .total_core_instances(512)
        .total_memories(128)
        .total_tables(256)
        .total_stacks(64)
        .max_memory_size(16 << 20)
        .linear_memory_keep_resident(1 << 20)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        .consume_fuel(true)
        .cranelift_nan_canonicalization(true)
        .wasm_backtrace_max_frames(None)
        .async_stack_size(1 << 20)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config).expect("an engine")
}

fn raw_question() -> (types::Context, types::Operation) {
    let context = types::Context {
        decision_id: DecisionId::new(NOW, 1).to_string(),
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
            id: OrgId::from_bytes([7; 16]).to_string(),
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

async fn bind(runtime: &Runtime, bytes: Vec<u8>) -> Link {
    let org = OrgId::from_bytes([7; 16]);
    let plugin = PluginId::from_bytes([8; 16]);
    let admitted = runtime.admit(org, bytes).await.expect("the guest is a plugin");
    let version = PluginVersion {
        plugin,
        org,
        version: 1,
        name: admitted.name,
        declared_version: admitted.declared_version,
        description: admitted.description,
        digest: admitted.digest,
        size: admitted.size,
        contract: admitted.contract,
        exports: admitted.exports,
        settings_schema: None,
        hooks: vec![],
        wants: vec![],
        uploaded_at: NOW,
    };
    let binding = Binding {
        id: BindingId::from_bytes([3; 16]),
        org,
        plugin,
        version: 1,
        hooks: vec![],
        mode: Mode::Enforce,
        settings: "{}".into(),
        on_failure: FailureFold::Deny,
        order: 0,
        grants: vec![],
        selector: Selector::default(),
        generation: 1,
        created_at: NOW,
        updated_at: NOW,
    };
    Link { position: 0, binding: Arc::new(binding), version: Arc::new(version) }
}

fn ask() -> Ask {
    let org = OrgId::from_bytes([7; 16]);
    Ask {
        decision: DecisionId::new(NOW, 1),
        now: NOW,
        seed: 42,
        due_since: None,
        confirmed: None,
        principal: Principal::system(org),
        org: Arc::new(Org {
            id: org,
            name: "Acme".into(),
            plan: Plan::default(),
            quotas: Quotas::default(),
            labels: portcullis_core::Labels::new(),
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

/// A snapshot in which there is nothing to read.
struct Nothing;

impl PolicyReads for Nothing {
    fn kv(&self, _plugin: PluginId, _key: &str) -> Result<Option<KvEntry>, PolicyReadError> {
        Ok(None)
    }

    fn kv_keys(&self, _: PluginId, _: &str, _: Option<&str>, _: usize) -> Result<Vec<String>, PolicyReadError> {
        Ok(Vec::new())
    }

    fn session(&self, _id: SessionId) -> Result<Option<Session>, PolicyReadError> {
        Ok(None)
    }

    fn sessions(&self, _after: Option<SessionId>, _limit: usize) -> Result<Vec<Session>, PolicyReadError> {
        Ok(Vec::new())
    }

    fn usage(&self, _operation: OperationKind, _window: Window) -> Result<u64, PolicyReadError> {
        Ok(0)
    }
}
