//! The runtime: one engine, one linker, the plugins at hand, and the bounds that all calls share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{OrgId, PluginFailure, PluginVersion, Timestamp};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, Semaphore};
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use crate::admission::Uploads;
use crate::call::{Budget, CallState, Question, Reply};
use crate::compile::{compile, short};
use crate::loaded::{Plugin, Shelf};
use crate::machine::{self, Ticker};
use crate::permits::Permits;
use crate::{AdmissionError, imports};

/// The most bytes of a settings document.
const SETTINGS_BYTES: usize = 64 << 10;
/// How many uploads are compiled at once, of all organisations.
const UPLOADS_AT_ONCE: usize = 2;
const PAGE_BYTES: u64 = 64 << 10;

/// How plugins are run, and within which bounds.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Who compiles components.
    pub compiler: Compiler,
    /// Units of fuel of one call inside a request; about one for each instruction. The deterministic bound.
    pub gate_fuel: u64,
    /// Wall time of one call inside a request; the outer bound.
    pub gate_wall: Duration,
    /// Wall time of all calls of one chain of gates together.
    pub chain_wall: Duration,
    /// Units of fuel of one call off the request path: at upload, of observers and of timers.
    pub background_fuel: u64,
    /// Wall time of one call off the request path.
    pub background_wall: Duration,
    /// Bytes of linear memory of one call.
    pub memory_bytes: usize,
    /// Bytes of a component.
    pub component_bytes: usize,
    /// Time to compile one component.
    pub compile_wall: Duration,
    /// Bytes of memory to compile one component.
    pub compile_memory: u64,
    /// Calls of one organisation under way at once.
    pub calls_per_org: usize,
    /// Calls under way at once; sizes the pool of instances.
    pub calls_in_all: usize,
    /// How long a call may wait for one of these places.
    pub patience: Duration,
    /// Plugins at hand at once. Each takes a file descriptor and some memory maps.
    pub loaded_plugins: usize,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            compiler: Compiler::InProcess,
            // About 5 ms of a tight loop, so that a spin ends by fuel long before it ends by the clock.
            gate_fuel: 20_000_000,
            gate_wall: Duration::from_millis(50),
            chain_wall: Duration::from_millis(500),
            background_fuel: 200_000_000,
            background_wall: Duration::from_secs(2),
            memory_bytes: 16 << 20,
            component_bytes: 2 << 20,
            compile_wall: Duration::from_secs(30),
            compile_memory: 512 << 20,
            calls_per_org: 8,
            calls_in_all: 64,
            patience: Duration::from_millis(250),
            loaded_plugins: 1024,
        }
    }
}

/// Who compiles components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// This process; for tests and tools that compile what they trust.
    InProcess,
    /// A child process that can be killed.
    Child {
        /// A binary that calls [`crate::compile_child`] under [`crate::COMPILE_SUBCOMMAND`].
        executable: PathBuf,
    },
}

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
}

/// Why a plugin could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its bytes are not there.
    #[error("the component {} is not there", hex(.digest))]
    Missing {
        /// SHA-256 of the component.
        digest: [u8; 32],
    },
    /// Its bytes are others than were admitted.
    #[error("the bytes of the component {} are not its own", hex(.digest))]
    Damaged {
        /// SHA-256 of the component.
        digest: [u8; 32],
    },
    /// It was admitted once and is not now.
    #[error("the component {} could not be made ready", hex(.digest))]
    Refused {
        /// SHA-256 of the component.
        digest: [u8; 32],
        /// Why.
        #[source]
        source: AdmissionError,
    },
}

/// Why settings were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// They are larger than is kept.
    #[error("the settings have {size} bytes and {SETTINGS_BYTES} are allowed")]
    TooLarge {
        /// What came.
        size: usize,
    },
    /// They are not JSON.
    #[error("the settings are not a JSON document: {why}")]
    NotJson {
        /// Where and how.
        why: String,
    },
    /// The plugin refused them.
    #[error("the plugin refused the settings, for {} reasons", .problems.len())]
    Refused {
        /// Why, by field.
        problems: Vec<SettingsProblem>,
    },
    /// The plugin failed over them.
    #[error("the plugin failed to validate the settings")]
    Failed(#[source] PluginFailure),
}

impl SettingsError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "settings_too_large",
            Self::NotJson { .. } => "settings_not_json",
            Self::Refused { .. } => "settings_refused",
            Self::Failed(failure) => failure.code(),
        }
    }
}

/// What a plugin says is wrong with a field of its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsProblem {
    /// Where, as a JSON Pointer; empty for the document as a whole.
    pub field: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

/// Runs policy plugins. Share it behind an `Arc`.
pub struct Runtime {
    config: RuntimeConfig,
    engine: Engine,
    linker: Linker<CallState>,
    shelf: Shelf,
    permits: Permits,
    uploads: Uploads,
    uploading: Semaphore,
    /// Held while a plugin that was admitted before is compiled again: in turn, so that none is compiled twice.
    loading: Mutex<()>,
    ticker: Ticker,
}

impl Runtime {
    /// A runtime with no plugin at hand.
    ///
    /// # Errors
    /// If the engine cannot be set up on this machine.
    pub fn new(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        let engine = machine::running_engine(&config).map_err(RuntimeError::Engine)?;
        let linker = imports::linker(&engine).map_err(RuntimeError::Imports)?;
        let ticker = Ticker::start(&engine).map_err(RuntimeError::Ticker)?;
        Ok(Self {
            shelf: Shelf::new(config.loaded_plugins),
            permits: Permits::new(config.calls_in_all, config.calls_per_org, config.patience),
            uploads: Uploads::default(),
            uploading: Semaphore::new(UPLOADS_AT_ONCE),
            loading: Mutex::default(),
            ticker,
            config,
            engine,
            linker,
        })
    }

    /// Makes sure that the plugin with this digest is at hand, compiling its `bytes` again if it is not, as after a restart.
    ///
    /// # Errors
    /// If the bytes are not there or are no longer acceptable.
    pub async fn load(
        &self,
        digest: [u8; 32],
        bytes: impl FnOnce() -> Option<Vec<u8>> + Send,
    ) -> Result<(), LoadError> {
        if self.shelf.get(&digest).is_some() {
            return Ok(());
        }
        let _turn = self.loading.lock().await;
        if self.shelf.get(&digest).is_some() {
            return Ok(());
        }
        let bytes = bytes().ok_or(LoadError::Missing { digest })?;
        if <[u8; 32]>::from(Sha256::digest(&bytes)) != digest {
            return Err(LoadError::Damaged { digest });
        }
        let (plugin, _) = self.build(bytes).await.map_err(|source| LoadError::Refused { digest, source })?;
        self.shelf.put(digest, plugin);
        Ok(())
    }

    /// Checks settings for a plugin version: a JSON document of bounded size that the plugin, if it validates settings, accepts.
    ///
    /// # Errors
    /// What is wrong with them, by field if the plugin says so; or how the plugin failed, which is [`PluginFailure::Unavailable`] if it was not loaded.
    pub async fn validate_settings(
        &self,
        version: &PluginVersion,
        settings: &str,
        org: OrgId,
    ) -> Result<(), SettingsError> {
        if settings.len() > SETTINGS_BYTES {
            return Err(SettingsError::TooLarge { size: settings.len() });
        }
        serde_json::from_str::<serde::de::IgnoredAny>(settings)
            .map_err(|error| SettingsError::NotJson { why: error.to_string() })?;
        let plugin = self.shelf.get(&version.digest).ok_or(SettingsError::Failed(PluginFailure::Unavailable))?;
        if plugin.validate.is_none() {
            return Ok(());
        }
        let permit = self.permits.take(org).await;
        let _permit = permit.ok_or(SettingsError::Failed(PluginFailure::Overloaded))?;
        let budget = Budget::background(&self.config);
        match self.call(&plugin, self.bare_state(), budget, Question::Validate(settings)).await.result {
            Ok(Reply::Validated(Ok(()))) => Ok(()),
            Ok(Reply::Validated(Err(problems))) => {
                let problem = |problem: crate::bindings::portcullis::policy::settings::Problem| SettingsProblem {
                    field: problem.field,
                    message: problem.message,
                };
                Err(SettingsError::Refused { problems: problems.into_iter().map(problem).collect() })
            }
            Ok(_) => Err(SettingsError::Failed(PluginFailure::BadOutput)),
            Err(failure) => Err(SettingsError::Failed(failure)),
        }
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

    pub(crate) fn permits(&self) -> &Permits {
        &self.permits
    }

    pub(crate) fn uploads(&self) -> &Uploads {
        &self.uploads
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
    pub(crate) fn bare_state(&self) -> CallState {
        CallState::new(&self.config, Timestamp::from_millis(0), 0, None)
    }

    /// Makes an uploaded plugin, unless it is at hand already. Gives the bytes back.
    pub(crate) async fn make(
        &self,
        digest: [u8; 32],
        bytes: Vec<u8>,
    ) -> Result<(Arc<Plugin>, Vec<u8>), AdmissionError> {
        if let Some(plugin) = self.shelf.get(&digest) {
            return Ok((plugin, bytes));
        }
        // The semaphore lives as long as the runtime and is never closed; without a permit the work goes on all the same.
        let _turn = self.uploading.acquire().await.ok();
        self.build(bytes).await
    }

    async fn build(&self, bytes: Vec<u8>) -> Result<(Arc<Plugin>, Vec<u8>), AdmissionError> {
        let (component, bytes) = compile(&self.engine, &self.config, bytes).await.map_err(AdmissionError::Compile)?;
        self.check_resources(&component)?;
        let plugin = Plugin::link(&self.linker, &component)
            .map_err(|error| AdmissionError::Mismatched { why: short(&error) })?;
        Ok((Arc::new(plugin), bytes))
    }

    fn check_resources(&self, component: &Component) -> Result<(), AdmissionError> {
        let too_many = |what: String| AdmissionError::TooManyResources { what };
        let Some(needs) = component.resources_required() else {
            return Err(too_many("it instantiates modules that it imports, so its needs are unknown".to_owned()));
        };
        let memory = needs.max_initial_memory_size.unwrap_or(0).saturating_mul(PAGE_BYTES);
        let most = u64::try_from(self.config.memory_bytes).unwrap_or(u64::MAX);
        if needs.num_memories > machine::MEMORIES {
            return Err(too_many(format!("{} memories, of {}", needs.num_memories, machine::MEMORIES)));
        }
        if memory > most {
            return Err(too_many(format!("a memory of {memory} bytes, of {most}")));
        }
        if needs.num_tables > machine::TABLES {
            return Err(too_many(format!("{} tables, of {}", needs.num_tables, machine::TABLES)));
        }
        let table = needs.max_initial_table_size.unwrap_or(0);
        if usize::try_from(table).map_or(true, |table| table > machine::TABLE_ELEMENTS) {
            return Err(too_many(format!("a table of {table} elements, of {}", machine::TABLE_ELEMENTS)));
        }
        Ok(())
    }
}

fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
