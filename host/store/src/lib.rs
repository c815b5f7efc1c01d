//! Durable, sealed state in redb: commits as data through one writer.
//!
//! ```text
//! Store::snapshot ─▶ Snapshot ─▶ (the caller decides) ─▶ Commit ─▶ Store::commit
//!                                                                     │ seal on the caller's thread   prepare, seal
//!                                                                     ▼
//!                                                                   writer ─▶ check, apply ─▶ durable ─▶ answer
//! ```
//!
//! - *Commits are data.* A [`Commit`] says what it rests on and what it changes. Nobody outside holds a transaction.
//! - *One writer.* One thread checks and applies commits, many in one transaction, and answers only when they are durable.
//! - *Sealed.* Every row is sealed under the key of its organisation or session. Keys lie in a file of their own, in slots that
//!   are destroyed in place; erasing a session destroys its key, and with it every copy of what it had sealed.
//!
//! The first stop for a reader is `tables`, the schema; then `writer`, `apply` and `erase`.
//!
//! A data directory holds three files:
//!
//! | file | holds |
//! |---|---|
//! | `portcullis.redb` | the rows |
//! | `keys` | the data keys, sealed under the master key |
//! | `master-key` | the master key, readable by its owner only, unless whoever opens the store brings one |

mod aged;
mod apply;
mod audit;
mod backup;
mod bindings;
mod commit;
mod confirmations;
mod counters;
mod counts;
mod decisions;
mod deliveries;
mod device;
mod erase;
mod errands;
mod error;
mod facts;
mod held;
mod idempotency;
mod keyfile;
mod keyring;
mod kv;
mod master;
mod messages;
mod migrations;
mod open;
mod outbox;
mod plugins;
mod prepare;
mod rotation;
mod seal;
mod snapshot;
mod step;
mod tables;
mod timers;
mod tokens;
mod verify;
mod webhooks;
mod writer;

#[cfg(test)]
mod test;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use portcullis_core::Timestamp;
use redb::{Database, ReadableDatabase};
use tokio::sync::{Semaphore, oneshot};

pub use audit::{ChainEnd, Signer};
pub use backup::restore::{Restored, restore};
pub use backup::{Backup, BackupInfo, inspect_backup};
pub use commit::{
    Claim, Commit, Committed, Deed, DeliveryChange, DeliveryPlace, Erased, ErrandChange, Expectation, FACT_BYTES,
    FactRecord, IDEMPOTENCY_KEY_BYTES, IdempotencyRecord, KeptReply, KnownFact, KnownReply, KnownRequest, KvQuota,
    MessagePhase, PluginTimer, Progress, Quota, QuotaKind, TallyChange, TimerChange, Write,
};
pub use deliveries::PLUGIN_REQUESTS_MAX;
pub use errands::REQUESTS_MAX;
pub use error::{BackupError, CommitError, OpenError, ReadError, RestoreError, RotateError, StoreFault};
pub use kv::KvUsage;
pub use master::{MasterKey, MasterKeys};
pub use plugins::SECRETS_MAX;
pub use rotation::{Rotation, Settled};
pub use snapshot::{
    AuditLine, DecisionFilter, DecisionPage, DeliveryFilter, DeliveryPage, OutboxEntry, PlacedEvent, Snapshot,
};
pub use timers::TIMERS_MAX;
pub use verify::Report;
pub use writer::CommitMode;

use keyring::Keyring;
use writer::{Job, Reply, Writer};

/// How many commits of tasks may wait at once; more wait before they are queued.
const QUEUE: usize = 1_024;

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// How transactions are made durable.
    pub commit_mode: CommitMode,
    /// How much memory redb may use for pages.
    pub cache_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { commit_mode: CommitMode::default(), cache_bytes: 256 * 1024 * 1024 }
    }
}

/// The gateway's durable state. Clones are the same store; it closes when the last one is dropped.
#[derive(Clone)]
pub struct Store(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    queue: Arc<Semaphore>,
    writer: Writer,
    /// The directory in which the store has its own master key, if it has one.
    own_keys: Option<PathBuf>,
    /// Held while the master key is being changed.
    rotating: Arc<Semaphore>,
}

/// What snapshots and the writer have in common.
struct Shared {
    database: Arc<Database>,
    ring: Arc<Keyring>,
}

impl Store {
    /// Opens the store in `dir`, and makes it if there is none.
    ///
    /// # Errors
    /// If another process has it open, if a part of it is missing or does not fit the others, or if it cannot be read.
    /// A store that exists is never replaced by a new one.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<Self, OpenError> {
        Self::open_under(dir, options, &MasterKeys::Own)
    }

    /// The same, with a master key that may come from elsewhere.
    ///
    /// # Errors
    /// As [`Store::open`]. Under a master key that does not fit nothing is changed.
    pub fn open_under(dir: &Path, options: StoreOptions, keys: &MasterKeys) -> Result<Self, OpenError> {
        open::directory(dir, options, keys)
    }

    /// A store that is gone when it is dropped, for tests and nothing else.
    ///
    /// # Errors
    /// If the system gives no random numbers or no thread.
    pub fn in_memory() -> Result<Self, OpenError> {
        open::in_memory(StoreOptions::default())
    }

    /// Everything as it is now.
    ///
    /// # Errors
    /// If redb cannot begin a read.
    pub fn snapshot(&self) -> Result<Snapshot, ReadError> {
        Ok(Snapshot { transaction: self.shared().database.begin_read()?, shared: self.shared().clone() })
    }

    /// Whether the last transaction could be made durable. After a fault of the disk nothing can be committed until the store is opened again.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writer().is_healthy()
    }

    /// Makes a commit, and returns once it is durable.
    /// Dropping the future does not take a commit back that is queued already.
    ///
    /// # Errors
    /// See [`CommitError`]; but for a failure of the disk, nothing was changed then.
    pub async fn commit(&self, commit: Commit) -> Result<Committed, CommitError> {
        // The place in the queue comes first: what is sealed should not wait long and grow stale.
        let permit = self.0.queue.clone().acquire_owned().await.map_err(|_closed| CommitError::Closed)?;
        let prepared = Box::new(prepare::prepare(&self.shared().ring, commit)?);
        let (reply, answer) = oneshot::channel();
        self.writer().send(Job::Commit(prepared, Reply::Task(reply, permit)))?;
        answer.await.unwrap_or(Err(CommitError::Closed))
    }

    /// Whether a commit would hold now. It changes nothing, and promises nothing about later.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn check(&self, commit: Commit) -> Result<(), CommitError> {
        let permit = self.0.queue.clone().acquire_owned().await.map_err(|_closed| CommitError::Closed)?;
        let mut prepared = Box::new(prepare::prepare(&self.shared().ring, commit)?);
        prepared.only_checked = true;
        let (reply, answer) = oneshot::channel();
        self.writer().send(Job::Commit(prepared, Reply::Task(reply, permit)))?;
        answer.await.unwrap_or(Err(CommitError::Closed)).map(drop)
    }

    /// Makes a commit and blocks until it is durable. Not for async workers.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit_blocking(&self, commit: Commit) -> Result<Committed, CommitError> {
        let prepared = Box::new(prepare::prepare(&self.shared().ring, commit)?);
        let (reply, answer) = sync_channel(1);
        self.writer().send(Job::Commit(prepared, Reply::Thread(reply)))?;
        answer.recv().unwrap_or(Err(CommitError::Closed))
    }

    /// Finishes every erasure that was committed: destroys the keys, then writes receipts into the audit.
    /// Call it after a commit with [`Write::EraseSession`] or [`Write::EraseOrg`], and at boot. Calling it again changes nothing.
    ///
    /// # Errors
    /// If the key file or redb fails; the next call goes on from there.
    pub async fn finish_erasures(&self, now: Timestamp) -> Result<Vec<Erased>, CommitError> {
        let permit = self.0.queue.clone().acquire_owned().await.map_err(|_closed| CommitError::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.writer().send(Job::FinishErasures(now, Reply::Task(reply, permit)))?;
        answer.await.unwrap_or(Err(CommitError::Closed))
    }

    /// A backup of everything as it is now, to be taken piece by piece.
    ///
    /// # Errors
    /// If redb cannot begin a read.
    pub fn backup(&self, now: Timestamp) -> Result<Backup, ReadError> {
        Backup::of(self.snapshot()?, now)
    }

    /// Reads everything there is, and says in words what is wrong with it.
    ///
    /// # Errors
    /// If redb fails; rows that are damaged are findings.
    pub fn verify(&self) -> Result<Report, ReadError> {
        verify::verify(&self.snapshot()?)
    }

    /// Whoever signs receipts, and what is exported of audits.
    #[must_use]
    pub fn signer(&self) -> Signer {
        Signer::new(&self.shared().ring.hashes)
    }

    /// A key for what stands outside the store. Each purpose has a key of its own, the same at every opening and under every
    /// master key.
    #[must_use]
    pub fn derive_key(&self, purpose: &str) -> [u8; 32] {
        self.shared().ring.hashes.lent(purpose)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    fn writer(&self) -> &Writer {
        &self.0.writer
    }
}
