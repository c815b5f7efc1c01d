//! `kv`: reads of the snapshot under the call's own writes, which are buffered for the operation's commit.
//!
//! Every key that was looked at comes back with the version that was seen, so that the commit fails if somebody else changed it meanwhile.
//! Keys that a listing merely passed by are not looked at: a plugin whose answer rests on one reads it.

use std::collections::BTreeMap;

use portcullis_core::{Grant, KvAccess, KvChange, KvEntry, PluginId, SessionId, Timestamp};

use super::reads::{NotRead, Read, Source};
use crate::bindings::portcullis::policy::kv::{Entry, Host};
use crate::bindings::portcullis::policy::types::HostError;
use crate::call::CallState;

const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 64 << 10;
/// The most keys of one listing.
const PAGE: usize = 100;
/// The most bytes that one call may write, keys included: as many as a plugin may usually keep.
const WRITTEN: usize = 1 << 20;
/// The most keys that one call may look at or change.
const TOUCHED: usize = 1000;

/// The keys that a call has looked at or changed.
#[derive(Default)]
pub(crate) struct KvBuffer {
    /// How many bytes the call would write.
    written: usize,
    touched: BTreeMap<String, Touched>,
    /// The sessions to which keys belong, and whether they exist.
    owners: BTreeMap<SessionId, bool>,
}

/// One key, as this call sees it.
struct Touched {
    /// What lay under it before the call; the outer `None` means that nobody has looked.
    before: Option<Option<KvEntry>>,
    change: KvChange,
}

impl Touched {
    /// How many bytes it would write.
    fn written(&self, key: &str) -> usize {
        match &self.change {
            KvChange::Put { value, .. } => key.len() + value.len(),
            KvChange::Keep | KvChange::Remove => 0,
        }
    }

    fn entry(&self) -> Option<Entry> {
        let before = self.before.as_ref().and_then(Option::as_ref);
        match &self.change {
            KvChange::Keep => before.map(|entry| Entry { value: entry.value.clone(), version: entry.version }),
            KvChange::Put { value, .. } => {
                Some(Entry { value: value.clone(), version: before.map_or(0, |entry| entry.version) + 1 })
            }
            KvChange::Remove => None,
        }
    }
}

impl KvBuffer {
    /// What the commit has to expect and to change.
    pub(crate) fn into_accesses(self, plugin: PluginId) -> Vec<KvAccess> {
        let access = |(key, touched): (String, Touched)| KvAccess {
            plugin,
            key,
            seen: touched.before.map(|before| before.map(|entry| entry.version)),
            change: touched.change,
        };
        self.touched.into_iter().map(access).collect()
    }
}

/// Either half of a host function's answer: an error for the guest, or one that ends the call.
enum Stop {
    Guest(HostError),
    Call(NotRead),
}

impl From<HostError> for Stop {
    fn from(error: HostError) -> Self {
        Self::Guest(error)
    }
}

impl From<NotRead> for Stop {
    fn from(error: NotRead) -> Self {
        Self::Call(error)
    }
}

fn answer<T>(result: Result<T, Stop>) -> wasmtime::Result<Result<T, HostError>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Stop::Guest(error)) => Ok(Err(error)),
        Err(Stop::Call(error)) => Err(error.into()),
    }
}

impl CallState {
    fn kv_side(&self) -> Result<(PluginId, &Source), HostError> {
        self.granted(Grant::Kv).map(|bound| (bound.plugin, &bound.reads))
    }

    /// The key, looked up if this call has not done so yet.
    fn look(&mut self, key: &str) -> Result<&mut Touched, Stop> {
        self.check_key(key)?;
        let (plugin, reads) = self.kv_side()?;
        let seen = self.kv.touched.get(key).is_some_and(|touched| touched.before.is_some());
        let found = if seen { None } else { Some(reads.kv(plugin, key)?) };
        if let Some(entry) = &found {
            let bytes = key.len() + entry.as_ref().map_or(0, |entry| entry.value.len() * 4 / 3);
            self.reads.record(bytes, || Read::Kv { key: key.to_owned(), entry: entry.as_ref().map(Into::into) });
        }
        let touched = self.touch(key)?;
        if let Some(entry) = found {
            touched.before = Some(entry);
        }
        Ok(touched)
    }

    fn touch(&mut self, key: &str) -> Result<&mut Touched, HostError> {
        if self.kv.touched.len() >= TOUCHED && !self.kv.touched.contains_key(key) {
            return Err(HostError::Quota(format!("one call may touch {TOUCHED} keys")));
        }
        let fresh = || Touched { before: None, change: KvChange::Keep };
        Ok(self.kv.touched.entry(key.to_owned()).or_insert_with(fresh))
    }

    /// Whether the plugin may have this key at all: a session's keys go with the session, so there are none without it.
    fn check_key(&mut self, key: &str) -> Result<(), Stop> {
        let (_, reads) = self.kv_side()?;
        if key.is_empty() || key.len() > KEY_BYTES {
            return Err(HostError::Invalid(format!("a key has 1 to {KEY_BYTES} bytes")).into());
        }
        let Some(owner) = owner(key)? else { return Ok(()) };
        let exists = match self.kv.owners.get(&owner) {
            Some(exists) => *exists,
            None => {
                let exists = reads.session_exists(owner)?;
                let id = owner.to_string();
                self.reads.record(id.len(), || Read::SessionExists { id, exists });
                self.kv.owners.insert(owner, exists);
                exists
            }
        };
        if exists { Ok(()) } else { Err(HostError::NotFound.into()) }
    }

    fn put(&mut self, key: &str, value: Vec<u8>, expires: Option<u64>) -> Result<(), Stop> {
        self.check_key(key)?;
        if value.len() > VALUE_BYTES {
            return Err(HostError::Invalid(format!("a value has at most {VALUE_BYTES} bytes")).into());
        }
        let expires = expires.map(Timestamp::from_millis);
        if expires.is_some_and(|expires| expires <= self.now) {
            return Err(HostError::Invalid("expires must lie in the future".to_owned()).into());
        }
        // What the quota would refuse in the commit must not fill the host's memory until then.
        let before = self.kv.touched.get(key).map_or(0, |touched| touched.written(key));
        let written = self.kv.written - before + key.len() + value.len();
        if written > WRITTEN {
            return Err(HostError::Quota(format!("one call may write {WRITTEN} bytes")).into());
        }
        self.touch(key)?.change = KvChange::Put { value, expires };
        self.kv.written = written;
        Ok(())
    }

    fn swap(&mut self, key: &str, version: Option<u64>, value: Vec<u8>, expires: Option<u64>) -> Result<(), Stop> {
        if self.look(key)?.entry().map(|entry| entry.version) != version {
            return Err(HostError::Conflict.into());
        }
        self.put(key, value, expires)
    }

    fn keys(&mut self, prefix: String, after: Option<String>) -> Result<Vec<String>, Stop> {
        let (plugin, reads) = self.kv_side()?;
        if prefix.len() > KEY_BYTES || after.as_ref().is_some_and(|after| after.len() > KEY_BYTES) {
            return Err(HostError::Invalid(format!("a key has at most {KEY_BYTES} bytes")).into());
        }
        // The call's own removals must not shorten the page, so that many more are read.
        let removed = |touched: &&Touched| matches!(touched.change, KvChange::Remove);
        let most = PAGE + self.kv.touched.values().filter(removed).count();
        let stored = reads.kv_keys(plugin, &prefix, after.as_deref(), most)?;
        let own = self.kv.touched.iter().filter(|(key, touched)| {
            let past = after.as_ref().is_none_or(|after| *key > after);
            past && key.starts_with(&prefix) && matches!(touched.change, KvChange::Put { .. })
        });
        let mut keys: Vec<String> = own.map(|(key, _)| key.clone()).collect();
        keys.extend(
            stored
                .iter()
                .filter(|key| self.kv.touched.get(*key).is_none_or(|touched| matches!(touched.change, KvChange::Keep)))
                .cloned(),
        );
        keys.sort_unstable();
        keys.truncate(PAGE);
        self.reads.record(stored.iter().map(|key| key.len() + 3).sum(), || Read::KvKeys {
            prefix,
            after,
            limit: most,
            keys: stored,
        });
        Ok(keys)
    }
}

/// The session to which a key of the form `session:<id>:<rest>` belongs.
fn owner(key: &str) -> Result<Option<SessionId>, HostError> {
    let Some(rest) = key.strip_prefix("session:") else { return Ok(None) };
    let named = rest.split_once(':').and_then(|(id, _)| id.parse::<SessionId>().ok().filter(|it| it.to_string() == id));
    match named {
        Some(id) => Ok(Some(id)),
        None => Err(HostError::Invalid("after session: a key goes on with a session's id and a colon".to_owned())),
    }
}

impl Host for CallState {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Entry>, HostError>> {
        self.spend(1)?;
        answer(self.look(&key).map(|touched| touched.entry()))
    }

    fn set(&mut self, key: String, value: Vec<u8>, expires: Option<u64>) -> wasmtime::Result<Result<(), HostError>> {
        self.spend(1)?;
        answer(self.put(&key, value, expires))
    }

    fn compare_and_set(
        &mut self,
        key: String,
        version: Option<u64>,
        value: Vec<u8>,
        expires: Option<u64>,
    ) -> wasmtime::Result<Result<(), HostError>> {
        self.spend(1)?;
        answer(self.swap(&key, version, value, expires))
    }

    fn remove(&mut self, key: String) -> wasmtime::Result<Result<bool, HostError>> {
        self.spend(1)?;
        answer(self.look(&key).map(|touched| {
            let was_there = touched.entry().is_some();
            touched.change =
                if touched.before.as_ref().is_some_and(Option::is_some) { KvChange::Remove } else { KvChange::Keep };
            was_there
        }))
    }

    fn list(&mut self, prefix: String, cursor: Option<String>) -> wasmtime::Result<Result<Vec<String>, HostError>> {
        self.spend(10)?;
        answer(self.keys(prefix, cursor))
    }
}
