//! Ports: traits through which crates of one floor meet without seeing each other.

use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::{OperationKind, OrgId, PluginId, PluginRequest, Secret, Session, SessionId, Timestamp, Window};

/// The longest name of a row of a device's state.
pub const DEVICE_NAME_BYTES: usize = 256;
/// The longest value of a row of a device's state.
pub const DEVICE_VALUE_BYTES: usize = 1024 * 1024;

/// Where an engine keeps the credentials of a linked device, and whatever else it must not forget.
///
/// A row has a kind and a name. What the kinds are is the engine's business; they are told apart because rows of one kind
/// can be seen and removed together.
///
/// Implemented by `store`, used by `engine`. Names and values are sealed with the session's key and go with it.
/// All methods block: on disk for a read, until the change is durable for a write. Call them off the async workers.
pub trait DeviceStore: Send + Sync {
    /// The value of one row.
    ///
    /// # Errors
    /// If the session is gone or the store fails.
    fn read(&self, org: OrgId, session: SessionId, kind: u8, name: &[u8]) -> Result<Option<Vec<u8>>, DeviceStoreError>;

    /// Shows the name and the value of every row of a kind, in no particular order, all as of one point in time.
    ///
    /// # Errors
    /// If the session is gone or the store fails; some rows may have been shown by then.
    fn each(
        &self,
        org: OrgId,
        session: SessionId,
        kind: u8,
        see: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), DeviceStoreError>;

    /// The names and values of all rows of a kind. For kinds of which there are few; see [`DeviceStore::each`].
    ///
    /// # Errors
    /// If the session is gone or the store fails.
    fn list(&self, org: OrgId, session: SessionId, kind: u8) -> Result<Vec<DeviceRow>, DeviceStoreError> {
        let mut rows = Vec::new();
        self.each(org, session, kind, &mut |name, value| rows.push((name.to_vec(), value.to_vec())))?;
        Ok(rows)
    }

    /// Makes all `changes`, in their order, in one durable step.
    ///
    /// # Errors
    /// If the session is gone, a row is too long, or the store fails; then nothing is changed.
    fn write(&self, org: OrgId, session: SessionId, changes: Vec<DeviceChange>) -> Result<(), DeviceStoreError>;
}

/// The name and the value of a row of a device's state.
pub type DeviceRow = (Vec<u8>, Vec<u8>);

/// One change of a device's stored state.
#[derive(Clone, PartialEq, Eq)]
pub enum DeviceChange {
    /// Keep `value` under `kind` and `name`.
    Put {
        /// What kind of row it is.
        kind: u8,
        /// At most [`DEVICE_NAME_BYTES`].
        name: Vec<u8>,
        /// At most [`DEVICE_VALUE_BYTES`].
        value: Vec<u8>,
    },
    /// Forget one row.
    Remove {
        /// What kind of row it is.
        kind: u8,
        /// Its name.
        name: Vec<u8>,
    },
    /// Forget all rows of a kind.
    RemoveAll {
        /// The kind.
        kind: u8,
    },
    /// Forget everything of this session's device.
    Clear,
}

/// Names are people and values are keys, so only their lengths are shown.
impl std::fmt::Debug for DeviceChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Put { kind, name, value } => {
                write!(f, "Put(kind {kind}, name of {} bytes, value of {} bytes)", name.len(), value.len())
            }
            Self::Remove { kind, name } => write!(f, "Remove(kind {kind}, name of {} bytes)", name.len()),
            Self::RemoveAll { kind } => write!(f, "RemoveAll(kind {kind})"),
            Self::Clear => f.write_str("Clear"),
        }
    }
}

/// Why a device's state could not be read or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceStoreError {
    /// The session does not exist, or no longer.
    #[error("the session is gone")]
    Gone,
    /// A name or a value is longer than rows may be.
    #[error("a row of kind {kind} is too long: a name of {name} bytes and a value of {value} bytes")]
    TooLong {
        /// What kind of row it is.
        kind: u8,
        /// How long its name is.
        name: usize,
        /// How long its value is.
        value: usize,
    },
    /// The store failed; the text is for the log.
    #[error("the device store failed: {0}")]
    Failed(String),
}

/// What a plugin may read while it decides, all of it as of one point in time and within one organisation.
///
/// Implemented by `service` over a snapshot of the store, used by `policy`.
/// The methods may block for a read from disk, never for a write.
pub trait PolicyReads: Send + Sync {
    /// The live value under a plugin's key.
    ///
    /// # Errors
    /// If the store fails.
    fn kv(&self, plugin: PluginId, key: &str) -> Result<Option<KvEntry>, PolicyReadError>;

    /// At most `limit` live keys of a plugin with this prefix, in order, from the one after `after` on.
    ///
    /// # Errors
    /// If the store fails.
    fn kv_keys(
        &self,
        plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, PolicyReadError>;

    /// One session of the organisation.
    ///
    /// # Errors
    /// If the store fails.
    fn session(&self, id: SessionId) -> Result<Option<Session>, PolicyReadError>;

    /// At most `limit` sessions of the organisation, oldest first, from the one after `after` on.
    ///
    /// # Errors
    /// If the store fails.
    fn sessions(&self, after: Option<SessionId>, limit: usize) -> Result<Vec<Session>, PolicyReadError>;

    /// The secret with this name that the plugin's owner keeps for it.
    ///
    /// # Errors
    /// If the store fails.
    fn secret(&self, owner: OrgId, plugin: PluginId, name: &str) -> Result<Option<Secret>, PolicyReadError>;

    /// How many operations of this kind were done in the organisation within the window.
    ///
    /// # Errors
    /// If the store fails.
    fn usage(&self, operation: OperationKind, window: Window) -> Result<u64, PolicyReadError>;

    /// The host to which a request would go, if the gateway's way out takes it. Nothing is looked up, and nothing sent.
    ///
    /// # Errors
    /// If there is no way out, or not for this request.
    fn check_request(&self, _request: &PluginRequest) -> Result<String, RequestFlaw> {
        Err(RequestFlaw::NoWayOut)
    }
}

/// Why a request of a plugin's is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestFlaw {
    /// The gateway delivers nothing.
    #[error("there is no way out")]
    NoWayOut,
    /// It is not written as it must be, or the operator lets nothing go there; the text is for the plugin.
    #[error("{0}")]
    Refused(String),
}

/// The store failed under a plugin's read; the text is for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a read for a plugin failed: {0}")]
pub struct PolicyReadError(pub String);

/// A value that a plugin keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvEntry {
    /// The value.
    pub value: Vec<u8>,
    /// Grows with every write of the key, from 1.
    pub version: u64,
    /// From when on the key counts as absent.
    pub expires: Option<Timestamp>,
}

/// A buffered change of a plugin's keys, or a read on which its answer rests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvAccess {
    /// The plugin.
    pub plugin: PluginId,
    /// The key.
    pub key: String,
    /// The version that was seen: `None` if it was not looked at, `Some(None)` if the key was absent.
    /// The commit goes through only if it still is so.
    pub seen: Option<Option<u64>>,
    /// What to change.
    pub change: KvChange,
}

/// What to change about a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvChange {
    /// Nothing: the key was only read.
    Keep,
    /// Set its value.
    Put {
        /// The value.
        value: Vec<u8>,
        /// From when on it counts as absent.
        expires: Option<Timestamp>,
    },
    /// Remove it.
    Remove,
}

/// Where the gateway's time comes from.
///
/// Implemented in `service` by the system's clock, and by a clock that moves only when it is told to (the demo's and the tests').
pub trait Clock: Send + Sync {
    /// The time.
    fn now(&self) -> Timestamp;

    /// Completes once the time is `at` or later; it may complete early.
    fn reach(&self, at: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}
