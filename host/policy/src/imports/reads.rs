//! What a call reads: where it comes from, and what is kept of it for the record. A decision can be replayed only if its reads can be.
//!
//! A live call reads the store's snapshot. A replay reads what another call has recorded: the same question gets the same answer, in any order,
//! and a question that nobody asked then ends the call, because any answer would be made up.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_core::{KvEntry, OperationKind, OrgId, PluginId, PolicyReads, SessionId, Window};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::secrets;
use crate::bindings::portcullis::policy::types::{Session, Status};
use crate::failure::{HostReadFailed, Unrecorded};
use crate::{convert, words};

/// The most bytes of a recorded input; what is larger cannot be replayed.
pub(crate) const RECORD_BYTES: usize = 64 << 10;
/// The most sessions of one page.
pub(crate) const SESSIONS_PAGE: usize = 100;
/// The most sessions that one call may have the host look at.
pub(crate) const LOOKED_AT: usize = 10_000;

/// One read and what it gave.
#[derive(Serialize)]
#[serde(tag = "read", rename_all = "kebab-case")]
pub(crate) enum Read {
    Kv {
        key: String,
        entry: Option<Kept>,
    },
    KvKeys {
        prefix: String,
        after: Option<String>,
        /// How many were asked for: with fewer keys than that there were no more.
        limit: usize,
        keys: Vec<String>,
    },
    /// Whether there is a session, for a key that belongs to it.
    SessionExists {
        id: String,
        exists: bool,
    },
    Session {
        id: String,
        session: Option<Session>,
    },
    Sessions {
        after: Option<String>,
        sessions: Vec<Session>,
    },
    Count {
        status: Option<Status>,
        /// None if there were too many to count.
        count: Option<u64>,
    },
    Usage {
        operation: String,
        window: Window,
        count: u64,
    },
    Hmac {
        name: String,
        /// SHA-256 of the data, in hexadecimal.
        data: String,
        /// The code, in base64; none if there is no such secret.
        mac: Option<String>,
    },
}

/// A kept value, as text.
#[derive(Serialize)]
pub(crate) struct Kept {
    base64: String,
    version: u64,
}

impl From<&KvEntry> for Kept {
    fn from(entry: &KvEntry) -> Self {
        Self { base64: STANDARD.encode(&entry.value), version: entry.version }
    }
}

/// The reads of one call, in order.
#[derive(Default)]
pub(crate) struct Reads {
    list: Vec<Read>,
    bytes: usize,
}

impl Reads {
    /// Records a read of about `bytes` bytes.
    pub(crate) fn record(&mut self, bytes: usize, read: impl FnOnce() -> Read) {
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(32);
        if self.bytes <= RECORD_BYTES {
            self.list.push(read());
        }
    }

    /// The reads; none if they are too large to be recorded.
    pub(crate) fn into_list(self) -> Option<Vec<Read>> {
        (self.bytes <= RECORD_BYTES).then_some(self.list)
    }
}

/// Where a call's reads come from.
#[derive(Clone)]
pub(crate) enum Source {
    /// The store, as of one point in time.
    Live(Arc<dyn PolicyReads>),
    /// What an earlier call recorded.
    Recorded(Arc<Recorded>),
}

/// Ends the call: the store failed, or the record does not tell.
#[derive(Debug)]
pub(crate) enum NotRead {
    Failed(HostReadFailed),
    Unrecorded(Unrecorded),
}

impl From<portcullis_core::PolicyReadError> for NotRead {
    fn from(error: portcullis_core::PolicyReadError) -> Self {
        Self::Failed(HostReadFailed(error))
    }
}

impl From<NotRead> for wasmtime::Error {
    fn from(error: NotRead) -> Self {
        match error {
            NotRead::Failed(error) => error.into(),
            NotRead::Unrecorded(error) => error.into(),
        }
    }
}

impl Source {
    pub(crate) fn kv(&self, plugin: PluginId, key: &str) -> Result<Option<KvEntry>, NotRead> {
        match self {
            Self::Live(live) => Ok(live.kv(plugin, key)?),
            Self::Recorded(record) => record.kv(key),
        }
    }

    pub(crate) fn kv_keys(
        &self,
        plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, NotRead> {
        match self {
            Self::Live(live) => Ok(live.kv_keys(plugin, prefix, after, limit)?),
            Self::Recorded(record) => record.kv_keys(prefix, after, limit),
        }
    }

    pub(crate) fn session_exists(&self, id: SessionId) -> Result<bool, NotRead> {
        match self {
            Self::Live(live) => Ok(live.session(id)?.is_some()),
            Self::Recorded(record) => record.told("session-exists", &json!({ "id": id.to_string() }), "exists"),
        }
    }

    pub(crate) fn session(&self, id: SessionId) -> Result<Option<Session>, NotRead> {
        match self {
            Self::Live(live) => Ok(live.session(id)?.as_ref().map(convert::ask::session)),
            Self::Recorded(record) => record.told("session", &json!({ "id": id.to_string() }), "session"),
        }
    }

    pub(crate) fn sessions(&self, after: Option<SessionId>) -> Result<Vec<Session>, NotRead> {
        match self {
            Self::Live(live) => Ok(live.sessions(after, SESSIONS_PAGE)?.iter().map(convert::ask::session).collect()),
            Self::Recorded(record) => {
                record.told("sessions", &json!({ "after": after.map(|id| id.to_string()) }), "sessions")
            }
        }
    }

    /// How many sessions have this status; none if there are too many to count.
    pub(crate) fn count(&self, status: Option<Status>) -> Result<Option<u64>, NotRead> {
        let live = match self {
            Self::Live(live) => live,
            Self::Recorded(record) => {
                return record.told("count", &json!({ "status": words::to_json(&status) }), "count");
            }
        };
        let (mut after, mut looked_at, mut count) = (None, 0, 0);
        loop {
            let page = live.sessions(after, SESSIONS_PAGE)?;
            looked_at += page.len();
            let counted = |session: &&portcullis_core::Session| {
                status.is_none_or(|status| convert::ask::status(&session.status) == status)
            };
            count += u64::try_from(page.iter().filter(counted).count()).unwrap_or(u64::MAX);
            match page.last() {
                Some(last) if page.len() == SESSIONS_PAGE && looked_at < LOOKED_AT => after = Some(last.id),
                Some(_) if page.len() == SESSIONS_PAGE => return Ok(None),
                _ => return Ok(Some(count)),
            }
        }
    }

    pub(crate) fn usage(&self, operation: OperationKind, window: Window) -> Result<u64, NotRead> {
        match self {
            Self::Live(live) => Ok(live.usage(operation, window)?),
            Self::Recorded(record) => {
                record.told("usage", &json!({ "operation": operation.name(), "window": window }), "count")
            }
        }
    }

    /// The code of `data` under a secret; none if there is no such secret. `digest` is the data's, in hexadecimal.
    pub(crate) fn hmac(
        &self,
        owner: OrgId,
        plugin: PluginId,
        name: &str,
        data: &[u8],
        digest: &str,
    ) -> Result<Option<Vec<u8>>, NotRead> {
        match self {
            Self::Live(live) => {
                Ok(live.secret(owner, plugin, name)?.map(|secret| secrets::hmac(secret.reveal().as_bytes(), data)))
            }
            Self::Recorded(record) => {
                let wanted = json!({ "name": name, "data": digest });
                let mac: Option<String> = record.told("hmac", &wanted, "mac")?;
                let decode = |mac| STANDARD.decode(mac).map_err(|_| unrecorded("hmac", &wanted));
                mac.map(decode).transpose()
            }
        }
    }
}

/// The reads of an earlier call, as it recorded them.
pub(crate) struct Recorded(pub(crate) Vec<Value>);

impl Recorded {
    /// The first read of this name with all that is wanted.
    fn find(&self, read: &str, wanted: &Value) -> Result<&Map<String, Value>, NotRead> {
        let fits = |given: &&Map<String, Value>| {
            given.get("read").and_then(Value::as_str) == Some(read)
                && wanted.as_object().is_some_and(|wanted| {
                    wanted.iter().all(|(key, value)| given.get(key).unwrap_or(&Value::Null) == value)
                })
        };
        self.0.iter().filter_map(Value::as_object).find(fits).ok_or_else(|| unrecorded(read, wanted))
    }

    /// What a read gave.
    fn told<T: DeserializeOwned>(&self, read: &str, wanted: &Value, field: &str) -> Result<T, NotRead> {
        let told = self.find(read, wanted)?.get(field).cloned().unwrap_or(Value::Null);
        words::from_json(told).map_err(|_| unrecorded(read, wanted))
    }

    fn kv(&self, key: &str) -> Result<Option<KvEntry>, NotRead> {
        let wanted = json!({ "key": key });
        let entry = match self.find("kv", &wanted)?.get("entry") {
            None | Some(Value::Null) => return Ok(None),
            Some(entry) => entry,
        };
        let value = entry["base64"].as_str().and_then(|text| STANDARD.decode(text).ok());
        match (value, entry["version"].as_u64()) {
            (Some(value), Some(version)) => Ok(Some(KvEntry { value, version, expires: None })),
            _ => Err(unrecorded("kv", &wanted)),
        }
    }

    fn kv_keys(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, NotRead> {
        let wanted = json!({ "prefix": prefix, "after": after });
        let mut keys: Vec<String> = self.told("kv-keys", &wanted, "keys")?;
        let asked: usize = self.told("kv-keys", &wanted, "limit")?;
        // A longer page than was read then may have keys that nobody saw.
        if limit > asked && keys.len() >= asked {
            return Err(unrecorded("kv-keys", &wanted));
        }
        keys.truncate(limit);
        Ok(keys)
    }
}

pub(super) fn unrecorded(read: &str, wanted: &Value) -> NotRead {
    NotRead::Unrecorded(Unrecorded(format!("{read} {wanted}")))
}
