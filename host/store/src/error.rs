//! What can go wrong, by what was being done.
//!
//! | doing | error |
//! |---|---|
//! | opening a data directory | [`OpenError`] |
//! | reading a snapshot | [`ReadError`] |
//! | committing | [`CommitError`] |
//!
//! [`StoreFault`] stands in each of them for a failure of what lies below: redb, the key file, the operating system.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{OrgId, PluginId, SessionId};

use crate::QuotaKind;
use crate::seal::hex;
use crate::tables::{self, Definition};

/// Why a data directory could not be opened. Nothing in it was changed, except by a failure in the middle of a first boot.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or looked at.
    #[error("cannot use the data directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has the directory open.
    #[error("the data directory {} is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// There is data, but no master key to open it.
    #[error("there is data, but no master key at {}; restore it, a new one cannot open the data", path.display())]
    MasterKeyMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The master key's file does not hold 64 hexadecimal characters.
    #[error("the master key at {} is not 64 hexadecimal characters", path.display())]
    MasterKeyMalformed {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may use the master key's file.
    #[error("the master key at {} has mode {mode:04o}; it must be 0600", path.display())]
    MasterKeyExposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The master key's file cannot be read or made.
    #[error("cannot read or make the master key at {}", path.display())]
    MasterKey {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key file was sealed under another master key.
    #[error("the master key is not the one under which the key file was sealed; nothing was changed")]
    WrongMasterKey,
    /// A restore into the directory was not finished.
    #[error("a restore into {} was not finished; remove what is in it and restore again", path.display())]
    RestoreCutShort {
        /// The directory.
        path: PathBuf,
    },
    /// There is data, but no key file.
    #[error("there is data, but no key file; restore the newest one")]
    KeyFileMissing,
    /// There are keys of organisations or sessions, but no data.
    #[error("the key file holds {keys} keys, but there is no data; restore the data or remove the key file")]
    DataMissing {
        /// How many keys there are.
        keys: usize,
    },
    /// The key file is not one, or is damaged in its header.
    #[error("the key file is damaged: {0}")]
    KeyFileDamaged(&'static str),
    /// The key file or the data was written by a newer version.
    #[error("the data has format {found}, this version knows formats up to {known}; use a newer version")]
    NewerFormat {
        /// The format of what is there.
        found: u64,
        /// The newest format that this version knows.
        known: u64,
    },
    /// The writer's thread could not be started.
    #[error("cannot start the writer's thread")]
    Thread(#[source] std::io::Error),
    /// The data cannot be read.
    #[error("cannot read the data")]
    Read(#[source] ReadError),
    /// What lies below failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// Why the master key could not be changed. Unless it is [`RotateError::Store`], everything is as it was;
/// and then a later change, or the next opening, ends what was begun.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The key is in use already.
    #[error("the new master key is the one in use")]
    SameKey,
    /// The store has no master key of its own to change, and none was given.
    #[error("the store does not keep its master key itself, so that the new one has to be given")]
    NotOwn,
    /// The store has its own master key and takes none from elsewhere.
    #[error("the store keeps its master key itself, and takes no other")]
    Own,
    /// Another change is under way.
    #[error("the master key is being changed already")]
    UnderWay,
    /// The file of the new key cannot be made or read.
    #[error("cannot keep the new master key")]
    Keep(#[source] Box<OpenError>),
    /// What lies below failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// Why a backup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It cannot be read.
    #[error("cannot read the backup")]
    Read(#[source] std::io::Error),
    /// It does not begin as one.
    #[error("this is no backup")]
    NoBackup,
    /// A newer version made it.
    #[error("the backup has format {found}, this version knows formats up to {known}; use a newer version")]
    Newer {
        /// Its format.
        found: u64,
        /// The newest that is known.
        known: u64,
    },
    /// It ends too early.
    #[error("the backup is cut off: it was not made to its end")]
    CutOff,
    /// It has something in it that no backup has.
    #[error("the backup is damaged: something in it is no part of a backup")]
    Malformed,
    /// It is not what its digest says.
    #[error("the backup is damaged: its digest or its counts are wrong")]
    Damaged,
    /// It is whole, but not as the gateway made it.
    #[error("the backup was changed after it was made")]
    Forged,
}

/// Why a backup could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Slots of the key file are damaged. Whose keys they held would seem to have been erased.
    #[error("{} slots of the key file are damaged, the first of them number {}; use another copy of it", slots.len(), slots.first().copied().unwrap_or_default())]
    DamagedSlots {
        /// Their numbers.
        slots: Vec<u32>,
    },
    /// There is something where it is to go.
    #[error("{} is not empty; a backup is restored into a new directory", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The directory cannot be made or written.
    #[error("cannot make the data directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key file cannot be read.
    #[error("cannot read the key file {}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Backup and key file come from two gateways.
    #[error("the backup and the key file are not of the same gateway")]
    Foreign,
    /// The key file was taken before the backup.
    #[error("the key file is older than the backup, and lacks keys of what is in it; use one that was taken after it")]
    OlderKeys,
    /// The backup is not acceptable.
    #[error(transparent)]
    Backup(BackupError),
    /// What was restored does not open.
    #[error(transparent)]
    Open(OpenError),
    /// What was restored cannot be read.
    #[error("cannot read what was restored")]
    Read(#[from] ReadError),
    /// What lies below failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A row does not open under its owner's key, or is cut short.
    #[error("the row {key} of table {table} does not open")]
    Unopenable {
        /// The table.
        table: &'static str,
        /// The row's key in hexadecimal.
        key: String,
    },
    /// A row opens, but does not hold what its table says.
    #[error("the row {key} of table {table} does not decode")]
    Undecodable {
        /// The table.
        table: &'static str,
        /// The row's key in hexadecimal.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// What lies below failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// Why a commit was not made. Whatever the reason, nothing of it was kept, unless it is [`CommitError::Store`]:
/// then the disk failed in the middle of making it durable, and only reopening tells whether it was.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// Something that the commit rests on has changed, or its idempotency key came into use; run again from a new snapshot.
    #[error("what the commit rests on has changed")]
    Conflict,
    /// A counter is full.
    #[error("limit {index} of the commit is reached")]
    Limited {
        /// Which of the commit's limits; the one that takes longest to free, if there are several.
        index: usize,
        /// When it frees.
        retry_after: Duration,
    },
    /// The organisation has as many rows of a kind as it may have.
    #[error("the organisation has its {max} {of} already")]
    Quota {
        /// The kind.
        of: QuotaKind,
        /// How many it may have.
        max: u32,
    },
    /// Another session has the instance name, or another plugin the plugin name, in this organisation.
    #[error("the name is taken in this organisation")]
    NameTaken,
    /// Another session of the gateway has the token.
    #[error("the token is taken by another session")]
    TokenTaken,
    /// A plugin's keys or values would take more than it may keep.
    #[error("plugin {plugin} would keep more than it may")]
    KvQuota {
        /// The plugin.
        plugin: PluginId,
    },
    /// A plugin would have more timers in the organisation than [`crate::TIMERS_MAX`].
    #[error("plugin {plugin} would have more timers than it may")]
    TimerQuota {
        /// The plugin.
        plugin: PluginId,
    },
    /// A plugin would have asked for more operations that are still to be done than [`crate::REQUESTS_MAX`].
    #[error("plugin {plugin} would wait for more operations than it may")]
    RequestQuota {
        /// The plugin.
        plugin: PluginId,
    },
    /// A plugin would have more secrets than [`crate::SECRETS_MAX`].
    #[error("plugin {plugin} would have more secrets than it may")]
    SecretQuota {
        /// The plugin.
        plugin: PluginId,
    },
    /// The organisation has told the fact before.
    #[error("the fact is known already")]
    FactKnown,
    /// There is no such organisation, or no longer.
    #[error("there is no organisation {0}")]
    UnknownOrg(OrgId),
    /// There is no such session, or no longer.
    #[error("there is no session {0}")]
    UnknownSession(SessionId),
    /// A row of one organisation stands in the commit of another.
    #[error("a row of {found} stands in a commit of {org}")]
    ForeignRow {
        /// Whose commit it is.
        org: OrgId,
        /// Whose row it is.
        found: OrgId,
    },
    /// A row could not be written as JSON.
    #[error("a row of table {table} cannot be encoded")]
    Encode {
        /// The table.
        table: &'static str,
        /// Why.
        source: Arc<serde_json::Error>,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// What lies below failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// A failure of redb, of the key file or of the system's random numbers.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{doing} failed")]
pub struct StoreFault {
    doing: &'static str,
    source: Arc<dyn std::error::Error + Send + Sync>,
}

impl StoreFault {
    /// What was being done.
    #[must_use]
    pub fn doing(&self) -> &'static str {
        self.doing
    }

    /// For `map_err`: wraps what came from below.
    pub(crate) fn of<E: std::error::Error + Send + Sync + 'static>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self { doing, source: Arc::new(source) }
    }
}

impl From<ReadError> for StoreFault {
    fn from(source: ReadError) -> Self {
        match source {
            ReadError::Store(fault) => fault,
            source => Self { doing: "reading what a commit has to hold", source: Arc::new(source) },
        }
    }
}

/// Makes `?` work on redb's own errors inside functions that return a [`StoreFault`].
macro_rules! from_redb {
    ($($error:ident $doing:literal;)*) => {$(
        impl From<redb::$error> for StoreFault {
            fn from(source: redb::$error) -> Self {
                Self { doing: $doing, source: Arc::new(source) }
            }
        }
        impl From<redb::$error> for ReadError {
            fn from(source: redb::$error) -> Self {
                Self::Store(source.into())
            }
        }
        impl From<redb::$error> for CommitError {
            fn from(source: redb::$error) -> Self {
                Self::Store(source.into())
            }
        }
    )*};
}

from_redb! {
    TransactionError "beginning a transaction";
    TableError "opening a table";
    StorageError "reading or writing a row";
    CommitError "making a transaction durable";
    SetDurabilityError "choosing the durability of a transaction";
}

impl ReadError {
    pub(crate) fn unopenable(table: Definition, key: &[u8]) -> Self {
        Self::Unopenable { table: tables::name(table), key: hex(key) }
    }

    pub(crate) fn undecodable(table: Definition, key: &[u8], source: serde_json::Error) -> Self {
        Self::Undecodable { table: tables::name(table), key: hex(key), source }
    }
}
