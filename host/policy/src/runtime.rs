//! The runtime: one engine, one linker, the plugins at hand, and the bounds that all calls share.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::Timestamp;
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::admission::Uploads;
use crate::call::CallState;
use crate::code_cache::Codes;
use crate::load::Flights;
use crate::loaded::{Plugin, Shelf};
use crate::machine::{self, Ticker};
use crate::permits::Permits;
use crate::slices::Slices;
use crate::walls::{Walls, WallsError};
use crate::{CodeStats, RuntimeConfig, imports};

/// How many uploads are compiled at once, of all organisations.
const UPLOADS_AT_ONCE: usize = 2;
/// How many schemas judge settings at once, of all organisations.
const JUDGED_AT_ONCE: usize = 4;
/// How long settings wait to be judged.
const JUDGING_PATIENCE: Duration = Duration::from_secs(5);
/// How many plugins that were admitted before are made ready at once. Uploads have places of their own and are never in the way.
const LOADS_AT_ONCE: usize = 4;

/// Why the runtime could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The engine refused its settings.
    #[error("the plugin engine could not be set up")]
    Engine(#[source] wasmtime::Error),
    /// The imports could not be linked.
    #[error("the plugins' imports could not be linked")]
    Imports(#[source] wasmtime::Error),
    /// The thread that makes guests yield could not be started.
    #[error("the thread that makes plugins yield could not be started")]
    Ticker(#[source] std::io::Error),
    /// The machine has no room for plugins.
    #[error("the machine has no room for plugins")]
    Walls(#[source] WallsError),
}

/// Runs policy plugins.
pub struct Runtime {
    config: RuntimeConfig,
    engine: Engine,
    linker: Linker<CallState>,
    walls: Walls,
    shelf: Shelf,
    permits: Permits,
    slices: Arc<Slices>,
    codes: Codes,
    judging: Permits,
    uploads: Uploads,
    uploading: Semaphore,
    flights: Flights,
    loading: Semaphore,
    loading_large: Semaphore,
    ticker: Ticker,
}

impl Runtime {
    /// A runtime with no plugin at hand.
    ///
    /// Raises the process's soft limit of open files to the hard one: every plugin at hand keeps a file open.
    ///
    /// # Errors
    /// If the engine cannot be set up on this machine, or the machine has no room for plugins.
    pub fn new(config: RuntimeConfig) -> Result<Arc<Self>, RuntimeError> {
        let walls = Walls::measure(&config).map_err(RuntimeError::Walls)?;
        let engine = machine::running_engine(&config).map_err(RuntimeError::Engine)?;
        let linker = imports::linker(&engine).map_err(RuntimeError::Imports)?;
        let ticker = Ticker::start(&engine).map_err(RuntimeError::Ticker)?;
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(Arc::new(Self {
            shelf: Shelf::new(walls.plugins),
            permits: Permits::new(config.calls_in_all, config.calls_per_org, config.patience),
            slices: Arc::new(Slices::new(cores, config.patience)),
            codes: Codes::new(config.cache.as_ref(), &engine),
            judging: Permits::new(JUDGED_AT_ONCE, 1, JUDGING_PATIENCE),
            uploads: Uploads::default(),
            uploading: Semaphore::new(UPLOADS_AT_ONCE),
            flights: Flights::default(),
            loading: Semaphore::new(LOADS_AT_ONCE),
            loading_large: Semaphore::new(1),
            walls,
            ticker,
            config,
            engine,
            linker,
        }))
    }

    /// How many plugins the machine has room for, and why.
    #[must_use]
    pub fn walls(&self) -> Walls {
        self.walls
    }

    /// How often compiled code was made, found and refused, since the runtime began.
    #[must_use]
    pub fn code_stats(&self) -> CodeStats {
        self.codes.stats()
    }

    pub(crate) fn config(&self) -> &RuntimeConfig {
        &self.config
    }

    pub(crate) fn ticker(&self) -> &Ticker {
        &self.ticker
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn linker(&self) -> &Linker<CallState> {
        &self.linker
    }

    pub(crate) fn permits(&self) -> &Permits {
        &self.permits
    }

    pub(crate) fn slices(&self) -> &Arc<Slices> {
        &self.slices
    }

    pub(crate) fn codes(&self) -> &Codes {
        &self.codes
    }

    /// Places for schemas that judge settings, each in a process of its own.
    pub(crate) fn judging(&self) -> &Permits {
        &self.judging
    }

    pub(crate) fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// Places for uploads that are compiled.
    pub(crate) fn uploading(&self) -> &Semaphore {
        &self.uploading
    }

    pub(crate) fn flights(&self) -> &Flights {
        &self.flights
    }

    /// Places for plugins that are made ready again.
    pub(crate) fn loading(&self) -> &Semaphore {
        &self.loading
    }

    /// The one place for a large plugin that is compiled again, because its compiler takes gigabytes.
    pub(crate) fn loading_large(&self) -> &Semaphore {
        &self.loading_large
    }

    /// The plugin with this digest, if it is at hand.
    pub(crate) fn at_hand(&self, digest: &[u8; 32]) -> Option<Arc<Plugin>> {
        self.shelf.get(digest)
    }

    /// Puts a plugin at hand.
    pub(crate) fn keep(&self, digest: [u8; 32], plugin: Arc<Plugin>) {
        self.shelf.put(digest, plugin);
    }

    /// The state of a call that belongs to no binding: nothing is granted, and time does not matter.
    pub(crate) fn bare_state(&self, class: portcullis_core::PluginClass) -> CallState {
        CallState::new(&self.config.bounds(class), Timestamp::from_millis(0), 0, None)
    }
}
