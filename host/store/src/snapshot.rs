//! Reading: everything as of one point in time.
//!
//! A [`Snapshot`] is one read transaction. It sees every commit that was answered before it was taken, and none that came after.
//! It costs a few microseconds and blocks nobody; but it keeps old pages alive, so it should not be kept for long.
//!
//! What a session's or an organisation's key had sealed is gone with the key, also for snapshots that are older:
//! such rows read as absent.

mod audit;
mod decisions;
mod deliveries;
mod messages;
mod outbox;
mod plugins;
mod policy;

pub use audit::AuditLine;
pub use decisions::{DecisionFilter, DecisionPage};
pub use deliveries::{DeliveryFilter, DeliveryPage};
pub use outbox::{OutboxEntry, PlacedEvent};

use std::sync::Arc;

use portcullis_core::{ApiKey, Binding, BindingId, KeyId, Org, OrgId, PluginId, PluginVersion, Session, SessionId};
use redb::{ReadOnlyTable, ReadTransaction};
use serde::de::DeserializeOwned;

use crate::Shared;
use crate::error::ReadError;
use crate::keyfile::Owner;
use crate::keyring::Opened;
use crate::tables::{self, Definition, NO_SESSION, Prefix, Span, key, org_of, part, session_of};

/// The state of the store at one point in time.
pub struct Snapshot {
    pub(crate) transaction: ReadTransaction,
    pub(crate) shared: Arc<Shared>,
}

type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;

// === Organisations and sessions ===

impl Snapshot {
    /// One organisation.
    ///
    /// # Errors
    /// As every method here: if the store fails, or a row does not open or decode.
    pub fn org(&self, org: OrgId) -> Result<Option<Org>, ReadError> {
        self.get(tables::ORGS, Owner::org(org), &org.to_bytes(), 8)
    }

    /// At most `limit` organisations in the order of their ids, from the one after `after` on: the operator's own listing.
    pub fn orgs(&self, after: Option<OrgId>, limit: usize) -> Result<Vec<Org>, ReadError> {
        let after = after.map(OrgId::to_bytes);
        let all = Prefix::new(&[]);
        self.list(tables::ORGS, all.after(after.as_ref().map(|org| &org[..])), false, limit, 8, owner_org)
    }

    /// One session.
    pub fn session(&self, org: OrgId, id: SessionId) -> Result<Option<Session>, ReadError> {
        let row = key(&[&org.to_bytes(), &id.to_bytes()]);
        self.get(tables::SESSIONS, Owner::session(org, id), &row, 24)
    }

    /// The session with this instance name.
    pub fn session_by_instance_name(&self, org: OrgId, name: &str) -> Result<Option<Session>, ReadError> {
        let row = key(&[&org.to_bytes(), &self.shared.ring.hashes.instance_name(org, name)]);
        match self.table(tables::INSTANCE_NAMES)?.get(&row[..])?.and_then(|id| part(id.value(), 0)) {
            Some(id) => self.session(org, SessionId::from_bytes(id)),
            None => Ok(None),
        }
    }

    /// At most `limit` sessions, oldest first, from the one after `after` on.
    pub fn sessions(&self, org: OrgId, after: Option<SessionId>, limit: usize) -> Result<Vec<Session>, ReadError> {
        let (own, after) = (Prefix::new(&[&org.to_bytes()]), after.map(|id| key(&[&org.to_bytes(), &id.to_bytes()])));
        self.list(tables::SESSIONS, own.after(after.as_deref()), false, limit, 24, owner_session)
    }

    /// At most `limit` sessions, newest first, from the one before `before` on.
    pub fn sessions_newest(
        &self,
        org: OrgId,
        before: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Session>, ReadError> {
        let (own, before) = (Prefix::new(&[&org.to_bytes()]), before.map(|id| key(&[&org.to_bytes(), &id.to_bytes()])));
        self.list(tables::SESSIONS, own.before(before.as_deref()), true, limit, 24, owner_session)
    }

    /// Every session of every organisation, for boot.
    pub fn every_session(&self, mut each: impl FnMut(Session)) -> Result<(), ReadError> {
        self.every(tables::SESSIONS, 24, owner_session, &mut each)
    }
}

// === Keys, plugins and bindings ===

impl Snapshot {
    /// The API key with this SHA-256, whosever it is.
    pub fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<ApiKey>, ReadError> {
        let hash = self.shared.ring.hashes.api_key(hash);
        let Some(row) = self.table(tables::KEY_HASHES)?.get(&hash[..])? else { return Ok(None) };
        let row = row.value();
        let Some(org) = org_of(row) else { return Err(ReadError::unopenable(tables::KEY_HASHES, &hash)) };
        self.get(tables::KEYS, Owner::org(org), row, 32)
    }

    /// Every API key of every organisation, for boot.
    pub fn every_key(&self, mut each: impl FnMut(ApiKey)) -> Result<(), ReadError> {
        self.every(tables::KEYS, 32, owner_org, &mut each)
    }

    /// The API keys of an organisation, oldest first.
    pub fn keys(&self, org: OrgId) -> Result<Vec<ApiKey>, ReadError> {
        self.all(tables::KEYS, org, &[], 32)
    }

    /// One API key.
    pub fn key(&self, org: OrgId, id: KeyId) -> Result<Option<ApiKey>, ReadError> {
        self.get(tables::KEYS, Owner::org(org), &key(&[&org.to_bytes(), &id.to_bytes()]), 32)
    }

    /// Every version of every plugin of an organisation.
    pub fn plugins(&self, org: OrgId) -> Result<Vec<PluginVersion>, ReadError> {
        self.all(tables::PLUGINS, org, &[], 48)
    }

    /// Every version of a plugin, oldest first.
    pub fn plugin_versions(&self, org: OrgId, plugin: PluginId) -> Result<Vec<PluginVersion>, ReadError> {
        self.all(tables::PLUGINS, org, &plugin.to_bytes(), 48)
    }

    /// One version of a plugin.
    pub fn plugin(&self, org: OrgId, plugin: PluginId, version: u32) -> Result<Option<PluginVersion>, ReadError> {
        let row = key(&[&org.to_bytes(), &plugin.to_bytes(), &version.to_be_bytes()]);
        self.get(tables::PLUGINS, Owner::org(org), &row, 48)
    }

    /// The component with this SHA-256.
    pub fn component(&self, org: OrgId, digest: [u8; 32]) -> Result<Option<Vec<u8>>, ReadError> {
        self.plain(tables::COMPONENTS, Owner::org(org), &key(&[&org.to_bytes(), &digest]), 0)
    }

    /// The bindings of an organisation, oldest first.
    pub fn bindings(&self, org: OrgId) -> Result<Vec<Binding>, ReadError> {
        self.all(tables::BINDINGS, org, &[], 8)
    }

    /// One binding.
    pub fn binding(&self, org: OrgId, id: BindingId) -> Result<Option<Binding>, ReadError> {
        self.get(tables::BINDINGS, Owner::org(org), &key(&[&org.to_bytes(), &id.to_bytes()]), 8)
    }
}

// === Rows ===

/// Who owns a row, by its key and value.
pub(crate) type OwnerOf = fn(&[u8], &[u8]) -> Option<Owner>;

pub(crate) fn owner_org(key: &[u8], _: &[u8]) -> Option<Owner> {
    org_of(key).map(Owner::org)
}

pub(crate) fn owner_session(key: &[u8], _: &[u8]) -> Option<Owner> {
    owner_session_or_org(key)
}

/// For tables whose heads name the session after 8 bytes.
pub(crate) fn owner_in_head(key: &[u8], value: &[u8]) -> Option<Owner> {
    Some(Owner { org: org_of(key)?, session: session_of(part(value, 8)?) })
}

fn owner_session_or_org(key: &[u8]) -> Option<Owner> {
    Some(Owner { org: org_of(key)?, session: session_of(part(key, 16).unwrap_or(NO_SESSION)) })
}

impl Snapshot {
    pub(crate) fn table(&self, definition: Definition) -> Result<Table, ReadError> {
        Ok(self.transaction.open_table(definition)?)
    }

    /// What a row holds; `None` if its key is destroyed.
    pub(crate) fn open(
        &self,
        table: Definition,
        owner: Owner,
        row: &[u8],
        bound: &[u8],
        value: &[u8],
        head: usize,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        match self.shared.ring.open(owner, tables::name(table), bound, value, head) {
            Opened::Plain(plain) => Ok(Some(plain)),
            Opened::Gone => Ok(None),
            Opened::Broken => Err(ReadError::unopenable(table, row)),
        }
    }

    /// What a row of JSON holds; `None` if its key is destroyed.
    pub(crate) fn decode<T: DeserializeOwned>(
        &self,
        table: Definition,
        owner: Owner,
        row: &[u8],
        bound: &[u8],
        value: &[u8],
        head: usize,
    ) -> Result<Option<T>, ReadError> {
        let Some(plain) = self.open(table, owner, row, bound, value, head)? else { return Ok(None) };
        serde_json::from_slice(&plain).map(Some).map_err(|source| ReadError::undecodable(table, row, source))
    }

    fn get<T: DeserializeOwned>(
        &self,
        table: Definition,
        owner: Owner,
        row: &[u8],
        head: usize,
    ) -> Result<Option<T>, ReadError> {
        match self.table(table)?.get(row)? {
            Some(value) => self.decode(table, owner, row, row, value.value(), head),
            None => Ok(None),
        }
    }

    fn plain(&self, table: Definition, owner: Owner, row: &[u8], head: usize) -> Result<Option<Vec<u8>>, ReadError> {
        match self.table(table)?.get(row)? {
            Some(value) => self.open(table, owner, row, row, value.value(), head),
            None => Ok(None),
        }
    }

    /// All of an organisation's rows whose keys go on with `rest`.
    fn all<T: DeserializeOwned>(
        &self,
        table: Definition,
        org: OrgId,
        rest: &[u8],
        head: usize,
    ) -> Result<Vec<T>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes(), rest]);
        self.list(table, own.span(), false, usize::MAX, head, owner_org)
    }

    fn list<T: DeserializeOwned>(
        &self,
        table: Definition,
        span: Span<'_>,
        newest_first: bool,
        limit: usize,
        head: usize,
        owner: OwnerOf,
    ) -> Result<Vec<T>, ReadError> {
        let rows = self.table(table)?;
        let mut range = rows.range::<&[u8]>(span)?;
        let mut found = Vec::new();
        while found.len() < limit {
            let Some(row) = (if newest_first { range.next_back() } else { range.next() }) else { break };
            let (row, value) = row?;
            found.extend(self.decode_owned(table, row.value(), value.value(), head, owner)?);
        }
        Ok(found)
    }

    fn every<T: DeserializeOwned>(
        &self,
        table: Definition,
        head: usize,
        owner: OwnerOf,
        each: &mut impl FnMut(T),
    ) -> Result<(), ReadError> {
        for row in self.table(table)?.range::<&[u8]>(..)? {
            let (row, value) = row?;
            if let Some(decoded) = self.decode_owned(table, row.value(), value.value(), head, owner)? {
                each(decoded);
            }
        }
        Ok(())
    }

    fn decode_owned<T: DeserializeOwned>(
        &self,
        table: Definition,
        row: &[u8],
        value: &[u8],
        head: usize,
        owner: OwnerOf,
    ) -> Result<Option<T>, ReadError> {
        let owner = owner(row, value).ok_or_else(|| ReadError::unopenable(table, row))?;
        self.decode(table, owner, row, row, value, head)
    }
}
