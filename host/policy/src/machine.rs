//! The engine: which code is compiled and how, where it runs, and what makes it yield.
//!
//! Two groups of settings are kept apart. [`tunables`] decide what compiled code looks like; the process that compiles and the process that runs must agree on them, so they have no parameters.
//! The allocator decides where instances live; only the process that runs has one.
//! The pool with resident pages and `pagemap_scan` is what makes a fresh instance per call cheap: without it a call changes the address space, and two threads together are slower than one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::RuntimeConfig;

/// The most memories of one component, which share what one call may hold. JavaScript and Python have three if their WASI is stubbed within the component.
pub(crate) const MEMORIES: u32 = 4;
/// The most tables of one component. A component with WASI has two; JavaScript has three.
pub(crate) const TABLES: u32 = 4;
/// The most elements of one table.
pub(crate) const TABLE_ELEMENTS: usize = 20_000;
/// The most core instances of one component. A component with WASI has four: itself, the adapter, and two that tie them together;
/// JavaScript has twice as many, and what passes values between its inner components; Python with stubs has 38.
pub(crate) const CORE_INSTANCES: u32 = 64;

/// How often a running guest lets others run.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// How much of a memory stays with its slot between calls.
const RESIDENT_MEMORY: usize = 1 << 20;
const RESIDENT_TABLE: usize = 64 << 10;
const WASM_STACK: usize = 512 << 10;
const ASYNC_STACK: usize = 1 << 20;

/// What decides how compiled code looks.
pub(crate) fn tunables() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // With it every call of a component costs twice as much, and the contract has no concurrent calls.
        .concurrency_support(false)
        .epoch_interruption(true)
        .consume_fuel(true)
        // A proposal that no toolchain of plugins needs, and whose memories the bounds below do not speak about.
        .wasm_memory64(false)
        // What passes values between the components within a component has both their memories; JavaScript is built so.
        .wasm_multi_memory(true)
        // The same inputs give the same answer on every machine.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        // A trap is reported by its kind; walking the stack for every hostile guest is work for nothing.
        .wasm_backtrace_max_frames(None)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(ASYNC_STACK);
    config
}

/// An engine that compiles and runs nothing.
pub(crate) fn compiling_engine() -> wasmtime::Result<Engine> {
    let mut config = tunables();
    // An upload gets one core, not all of them.
    config.parallel_compilation(false);
    Engine::new(&config)
}

/// The engine that runs plugins.
///
/// Without enough address space for the pool, instances are allocated one by one; slower, but with the same tunables, so that compiled code fits either way.
pub(crate) fn running_engine(config: &RuntimeConfig) -> wasmtime::Result<Engine> {
    let mut pooled = tunables();
    pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config)));
    match Engine::new(&pooled) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::warn!(%error, "no pool for plugin instances; they are allocated one by one, which is slower");
            Engine::new(&tunables())
        }
    }
}

fn pool(config: &RuntimeConfig) -> PoolingAllocationConfig {
    let calls = u32::try_from(config.calls_in_all).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(calls)
        .total_core_instances(calls.saturating_mul(CORE_INSTANCES))
        .total_memories(calls.saturating_mul(MEMORIES))
        .total_tables(calls.saturating_mul(TABLES))
        .total_stacks(calls)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_tables_per_module(TABLES)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(config.memory_bytes.max(config.large.memory_bytes))
        .linear_memory_keep_resident(RESIDENT_MEMORY)
        .table_keep_resident(RESIDENT_TABLE)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// The thread that makes time pass for guests, a tick at a time.
///
/// It ticks while calls are under way and for a short while after, so that a busy gateway never wakes it and an idle one never hears of it.
pub(crate) struct Ticker {
    shared: Arc<Ticking>,
    thread: Thread,
}

/// What the calls and the ticker know of each other.
#[derive(Default)]
struct Ticking {
    /// Calls under way.
    calls: AtomicUsize,
    /// Whether the thread sleeps, or is about to: whoever begins a call then wakes it.
    parked: AtomicBool,
    /// Whether the thread is to end.
    ended: AtomicBool,
}

/// How many quiet ticks come before the ticker sleeps.
const QUIET: u32 = 200;

impl Ticker {
    /// Starts the thread.
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Ticking::default());
        let (ticking, engine) = (Arc::clone(&shared), engine.weak());
        let handle = std::thread::Builder::new().name("policy-ticker".to_owned()).spawn(move || {
            let mut quiet = 0;
            while !ticking.ended.load(Ordering::SeqCst) {
                if ticking.calls.load(Ordering::SeqCst) > 0 {
                    quiet = 0;
                } else if quiet < QUIET {
                    quiet += 1;
                } else {
                    // Announced first and looked at again, so that a call that begins in between is either seen here or wakes the thread.
                    ticking.parked.store(true, Ordering::SeqCst);
                    if ticking.calls.load(Ordering::SeqCst) == 0 && !ticking.ended.load(Ordering::SeqCst) {
                        std::thread::park();
                    }
                    ticking.parked.store(false, Ordering::SeqCst);
                    quiet = 0;
                }
                std::thread::park_timeout(TICK);
                let Some(engine) = engine.upgrade() else { break };
                engine.increment_epoch();
            }
        })?;
        Ok(Self { shared, thread: handle.thread().clone() })
    }

    /// Has time pass until the answer is dropped.
    pub(crate) fn tick(&self) -> Calling<'_> {
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Calling { ticker: self }
    }

    /// Whether the thread waits to be woken by a call.
    #[cfg(test)]
    pub(crate) fn sleeps(&self) -> bool {
        self.shared.parked.load(Ordering::SeqCst)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// A call under way.
pub(crate) struct Calling<'a> {
    ticker: &'a Ticker,
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        self.ticker.shared.calls.fetch_sub(1, Ordering::SeqCst);
    }
}
