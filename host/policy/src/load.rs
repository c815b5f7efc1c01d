//! How a component becomes a plugin at hand: from compiled code that was kept, or from the compiler.
//!
//! Whoever needs a plugin that is not at hand loads it. Those who need the same one wait for the same attempt; different ones are loaded side by side, a bounded number at once,
//! and one that fails or takes long is in nobody's way. A component that could not be made ready is not tried again at once: the compiler would be busy with nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_core::PluginClass;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use wasmtime::component::Component;

use crate::compile::{compile, instantiable, short};
use crate::loaded::Plugin;
use crate::{AdmissionError, Runtime, hex, machine};

const PAGE_BYTES: u64 = 64 << 10;
/// For how long a component that could not be made ready is not tried again.
const REST: Duration = Duration::from_secs(10);

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
    /// The attempt ended without an outcome.
    #[error("making the component {} ready came to no end", hex(.digest))]
    Abandoned {
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

/// How an attempt ended, once it has.
type Flight = watch::Receiver<Option<Outcome>>;
type Outcome = Result<(), Arc<LoadError>>;
/// What is attempted: a component may be acceptable in one class and not in the other.
type Wanted = ([u8; 32], PluginClass);

/// The attempts under way, and those that failed a short while ago.
#[derive(Default)]
pub(crate) struct Flights {
    under_way: Mutex<HashMap<Wanted, Flight>>,
    failed: Mutex<HashMap<Wanted, (Instant, Arc<LoadError>)>>,
}

impl Flights {
    /// The attempt at this component; if there is none, how to end the one that the caller has to begin.
    fn join(&self, wanted: Wanted) -> (Flight, Option<watch::Sender<Option<Outcome>>>) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = under_way.get(&wanted) {
            return (flight.clone(), None);
        }
        let (end, flight) = watch::channel(None);
        under_way.insert(wanted, flight.clone());
        (flight, Some(end))
    }

    fn end(&self, wanted: Wanted, outcome: &Outcome) {
        // Bytes that are missing or damaged cost nothing to look for again.
        if let Err(error) = outcome
            && matches!(**error, LoadError::Refused { .. })
        {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.insert(wanted, (Instant::now(), Arc::clone(error)));
        }
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&wanted);
    }

    fn failed(&self, wanted: &Wanted) -> Option<Arc<LoadError>> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|_, (when, _)| when.elapsed() < REST);
        failed.get(wanted).map(|(_, error)| Arc::clone(error))
    }
}

impl Runtime {
    /// Makes sure that the plugin with this digest is at hand: from kept code, or by compiling its `bytes` again.
    /// `bytes` may block; it is only called if they are needed.
    ///
    /// An attempt that has begun goes on when nobody waits for it any more, so whoever has no patience can come back later.
    ///
    /// # Errors
    /// If the bytes are not there or are no longer acceptable.
    pub async fn load(
        self: &Arc<Self>,
        digest: [u8; 32],
        class: PluginClass,
        bytes: impl FnOnce() -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<(), Arc<LoadError>> {
        if self.at_hand(&digest).is_some() {
            return Ok(());
        }
        let wanted = (digest, class);
        if let Some(error) = self.flights().failed(&wanted) {
            return Err(error);
        }
        let (mut flight, end) = self.flights().join(wanted);
        if let Some(end) = end {
            let (maker, runtime) = (Arc::clone(self), Arc::clone(self));
            // In a task of its own, so that a panic in it ends the attempt and leaves nobody waiting.
            let making = tokio::spawn(async move { maker.ready(digest, class, bytes).await });
            tokio::spawn(async move {
                let ready = making.await.unwrap_or(Err(LoadError::Abandoned { digest }));
                let outcome = ready.map(|plugin| runtime.keep(digest, plugin)).map_err(Arc::new);
                runtime.flights().end(wanted, &outcome);
                end.send_replace(Some(outcome));
            });
        }
        match flight.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            Ok(None) | Err(_) => Err(Arc::new(LoadError::Abandoned { digest })),
        }
    }

    async fn ready(
        &self,
        digest: [u8; 32],
        class: PluginClass,
        bytes: impl FnOnce() -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<Arc<Plugin>, LoadError> {
        if let Some(plugin) = self.at_hand(&digest) {
            return Ok(plugin);
        }
        let refused = |source| LoadError::Refused { digest, source };
        // The semaphores live as long as the runtime and are never closed; without a permit the work goes on all the same.
        let place = self.loading().acquire().await.ok();
        if let Some(component) = self.codes().find(self.engine(), digest).await {
            return self.plugin(&component, class).map_err(refused);
        }
        drop(place);
        // Those who wait for the large plugins' only place must not keep the others from theirs.
        let _large = if class == PluginClass::Large { self.loading_large().acquire().await.ok() } else { None };
        let _place = self.loading().acquire().await.ok();
        // Read from disk and digested where nothing waits for it. A reader that panics has no bytes.
        let read = move || bytes().map(|bytes| (<[u8; 32]>::from(Sha256::digest(&bytes)), bytes));
        let (found, bytes) =
            tokio::task::spawn_blocking(read).await.ok().flatten().ok_or(LoadError::Missing { digest })?;
        if found != digest {
            return Err(LoadError::Damaged { digest });
        }
        let (plugin, _) = self.build(digest, class, bytes).await.map_err(refused)?;
        Ok(plugin)
    }

    /// Makes an uploaded plugin, unless it is at hand already. Gives the bytes back.
    pub(crate) async fn make(
        &self,
        digest: [u8; 32],
        class: PluginClass,
        bytes: Vec<u8>,
    ) -> Result<(Arc<Plugin>, Vec<u8>), AdmissionError> {
        if let Some(plugin) = self.at_hand(&digest) {
            return Ok((plugin, bytes));
        }
        if let Some(component) = self.codes().find(self.engine(), digest).await {
            return Ok((self.plugin(&component, class)?, bytes));
        }
        // As above: never closed.
        let _place = self.uploading().acquire().await.ok();
        self.build(digest, class, bytes).await
    }

    async fn build(
        &self,
        digest: [u8; 32],
        class: PluginClass,
        bytes: Vec<u8>,
    ) -> Result<(Arc<Plugin>, Vec<u8>), AdmissionError> {
        let bounds = self.config().bounds(class);
        let (code, bytes) =
            compile(self.engine(), &self.config().compiler, &bounds, bytes).await.map_err(AdmissionError::Compile)?;
        self.codes().compiled();
        let code = Arc::new(code);
        let component = instantiable(self.engine(), Arc::clone(&code)).await.map_err(AdmissionError::Compile)?;
        let plugin = self.plugin(&component, class)?;
        self.codes().keep(digest, code).await;
        Ok((plugin, bytes))
    }

    fn plugin(&self, component: &Component, class: PluginClass) -> Result<Arc<Plugin>, AdmissionError> {
        self.check_resources(component, class)?;
        let plugin = Plugin::link(self.linker(), component)
            .map_err(|error| AdmissionError::Mismatched { why: short(&error) })?;
        Ok(Arc::new(plugin))
    }

    fn check_resources(&self, component: &Component, class: PluginClass) -> Result<(), AdmissionError> {
        let too_many = |what: String| AdmissionError::TooManyResources { what };
        let Some(needs) = component.resources_required() else {
            return Err(too_many("it instantiates modules that it imports, so its needs are unknown".to_owned()));
        };
        let memory = needs.max_initial_memory_size.unwrap_or(0).saturating_mul(PAGE_BYTES);
        let most = u64::try_from(self.config().bounds(class).memory_bytes).unwrap_or(u64::MAX);
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
