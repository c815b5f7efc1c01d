//! Plugins' keys inside the writer's transaction: versions, expiry and the quota of each plugin in each organisation.
//!
//! What a plugin keeps under `session:<id>:<rest>` is that session's: it lies in a table of its own, under the session's
//! key, and goes with the session. It counts towards the same quota, and in everything else it is as other keys are.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use portcullis_core::{OrgId, PluginId, SessionId, Timestamp};

use crate::commit::KvQuota;
use crate::error::{CommitError, StoreFault};
use crate::keyfile::Owner;
use crate::keyring::{Keyring, Opened};
use crate::seal::Hashes;
use crate::step::{KvEffect, Prepared};
use crate::tables::{Definition, Prefix, Rows, Tables, heads, key, number, org_of, part, remove_prefix};
use crate::{step::KvStep, tables};

/// Bytes of the head of a row: version, expiry, size.
pub(crate) const HEAD: usize = 8 + 8 + 4;
/// Bytes of the key of a row; that of a session's row has the session besides.
const KEY: usize = 16 + 16 + 16;
/// Bytes of a usage: keys, bytes, last version.
const USAGE: usize = 4 + 8 + 8;

/// How much a plugin keeps in an organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvUsage {
    /// Keys, expired ones included until they are written again or room is needed.
    pub keys: u32,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// The last version that one of its keys got. It outlives the keys: no version is given twice, so that a key which was
    /// removed and made anew is never taken for the one that was seen.
    pub version: u64,
}

impl KvUsage {
    pub(crate) fn parse(value: &[u8]) -> Self {
        Self {
            keys: part(value, 0).map_or(0, u32::from_be_bytes),
            bytes: number(value, 4).unwrap_or_default(),
            version: number(value, 12).unwrap_or_default(),
        }
    }

    pub(crate) fn add(&mut self, size: u32) {
        self.keys += 1;
        self.bytes += u64::from(size);
    }

    fn take(&mut self, size: u32) {
        self.keys = self.keys.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(size));
    }

    fn write(self, usages: &mut Rows<'_>, owner: &[u8]) -> Result<(), StoreFault> {
        if self == Self::default() {
            usages.remove(owner)?;
        } else {
            let value = key(&[&self.keys.to_be_bytes(), &self.bytes.to_be_bytes(), &self.version.to_be_bytes()]);
            usages.insert(owner, &value)?;
        }
        Ok(())
    }

    fn fits(self, quota: KvQuota) -> bool {
        self.keys <= quota.keys && self.bytes <= quota.bytes
    }
}

/// The head of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) version: u64,
    pub(crate) expires: u64,
    pub(crate) size: u32,
}

impl Head {
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        Some(Self {
            version: number(value, 0)?,
            expires: number(value, 8)?,
            size: u32::from_be_bytes(part(value, 16)?),
        })
    }

    pub(crate) fn lives(&self, now: Timestamp) -> bool {
        now.as_millis() < self.expires
    }
}

/// Where a plugin's key has its row.
pub(crate) struct Place {
    /// The session that the key belongs to.
    pub(crate) session: Option<SessionId>,
    /// The row's key.
    pub(crate) row: Vec<u8>,
}

impl Place {
    pub(crate) fn of(hashes: &Hashes, org: OrgId, plugin: PluginId, name: &str) -> Self {
        let (owner, hash) = ([org.to_bytes(), plugin.to_bytes()].concat(), hashes.plugin_key(org, plugin, name));
        let session = session_of(name);
        let row = match session {
            Some(session) => key(&[&owner, &session.to_bytes(), &hash]),
            None => key(&[&owner, &hash]),
        };
        Self { session, row }
    }

    pub(crate) fn table(&self) -> Definition {
        if self.session.is_some() { tables::SESSION_KV } else { tables::KV }
    }
}

/// The session that a plugin's key belongs to, if it is of the form that says so.
fn session_of(name: &str) -> Option<SessionId> {
    name.strip_prefix("session:")?.split_once(':')?.0.parse().ok()
}

/// Whose key seals a row of either table, by the row's own key.
pub(crate) fn owner(row: &[u8]) -> Option<Owner> {
    let session = if row.len() > KEY { Some(SessionId::from_bytes(part(row, 32)?)) } else { None };
    Some(Owner { org: org_of(row)?, session })
}

/// Removes what a plugin keeps in an organisation.
pub(crate) fn remove_of_plugin(tables: &mut Tables<'_>, org: OrgId, plugin: PluginId) -> Result<(), StoreFault> {
    let owner = key(&[&org.to_bytes(), &plugin.to_bytes()]);
    if tables.kv_usage.remove(&owner[..])?.is_some() {
        remove_prefix(&mut tables.kv, &Prefix::new(&[&owner]))?;
        remove_prefix(&mut tables.session_kv, &Prefix::new(&[&owner]))?;
    }
    Ok(())
}

/// Removes what all plugins keep for a session. Who keeps anything has a usage, so no other plugin is looked at.
pub(crate) fn remove_of_session(tables: &mut Tables<'_>, org: OrgId, session: SessionId) -> Result<(), StoreFault> {
    for (owner, usage) in heads(&tables.kv_usage, &Prefix::new(&[&org.to_bytes()]), USAGE)? {
        let own = Prefix::new(&[&owner, &session.to_bytes()]);
        let kept = heads(&tables.session_kv, &own, HEAD)?;
        if kept.is_empty() {
            continue;
        }
        let mut usage = KvUsage::parse(&usage);
        kept.iter().filter_map(|(_, head)| Head::parse(head)).for_each(|head| usage.take(head.size));
        remove_prefix(&mut tables.session_kv, &own)?;
        usage.write(&mut tables.kv_usage, &owner)?;
    }
    Ok(())
}

/// Brings what was kept for sessions under their organisations' keys, before they had rows of their own, under the keys
/// of the sessions. What was kept for a session that is gone goes too.
pub(crate) fn give_to_sessions(tables: &mut Tables<'_>, ring: &Keyring) -> Result<(), StoreFault> {
    let (from, to) = (tables::name(tables::KV), tables::name(tables::SESSION_KV));
    let (mut given, mut versions) = (Vec::new(), BTreeMap::<Vec<u8>, u64>::new());
    for row in tables.kv.range(..)? {
        let (row, value) = row?;
        let (row, value) = (row.value(), value.value());
        let (Some(owner), Some(plugin)) = (owner(row), part(row, 16).map(PluginId::from_bytes)) else { continue };
        let last = versions.entry(row[..32].to_vec()).or_default();
        *last = Head::parse(value).map_or(*last, |head| head.version.max(*last));
        let Opened::Plain(plain) = ring.open(owner, from, row, value, HEAD) else { continue };
        let place = name_in(&plain).map(|(name, _)| Place::of(&ring.hashes, owner.org, plugin, name));
        if let Some(place) = place.filter(|place| place.session.is_some()) {
            given.push((row.to_vec(), value[..HEAD].to_vec(), plain, place, owner.org));
        }
    }
    for (row, head, plain, place, org) in given {
        tables.kv.remove(&row[..])?;
        let session = Owner { org, session: place.session };
        let is_there = tables.sessions.get(&session.key()[..])?.is_some();
        if let Some(data_key) = ring.live(session).filter(|_| is_there) {
            let value = data_key.seal(to, &place.row, &head, &plain)?;
            tables.session_kv.insert(&place.row[..], &value[..])?;
        } else if let Some(head) = Head::parse(&head) {
            let mut usage = usage(&tables.kv_usage, &row[..32])?;
            usage.take(head.size);
            usage.write(&mut tables.kv_usage, &row[..32])?;
        }
    }
    for (owner, version) in versions {
        KvUsage { version, ..usage(&tables.kv_usage, &owner)? }.write(&mut tables.kv_usage, &owner)?;
    }
    Ok(())
}

/// The key and the value that an opened row holds; `None` if it is cut short.
pub(crate) fn name_in(plain: &[u8]) -> Option<(&str, &[u8])> {
    let length = part(plain, 0).map(u16::from_be_bytes)?;
    let (name, value) = plain[2..].split_at_checked(length.into())?;
    Some((str::from_utf8(name).ok()?, value))
}

/// Whether every key is as it was seen.
pub(crate) fn check_seen(tables: &Tables<'_>, commit: &Prepared) -> Result<(), CommitError> {
    for access in &commit.kv {
        let Some(seen) = access.seen else { continue };
        let head = head(rows(tables, access), &access.key)?.filter(|head| head.lives(commit.now));
        if head.map(|head| head.version) != seen {
            return Err(CommitError::Conflict);
        }
    }
    Ok(())
}

/// Whether every plugin stays within its quota; expired keys do not count against it. A plugin that keeps no more than before
/// always does, also if the quota is less by now.
pub(crate) fn check_quota(tables: &Tables<'_>, commit: &Prepared) -> Result<(), CommitError> {
    let quota = commit.kv_quota;
    for (plugin, Change { before, after }) in projected(tables, commit)? {
        let grows = after.keys > before.keys || after.bytes > before.bytes;
        if grows && !after.fits(quota) && !without_expired(tables, commit, plugin, after)?.fits(quota) {
            return Err(CommitError::KvQuota { plugin });
        }
    }
    Ok(())
}

/// Makes the changes. Where room is short, expired keys go first.
pub(crate) fn apply(tables: &mut Tables<'_>, commit: &Prepared) -> Result<(), StoreFault> {
    let org = commit.org.to_bytes();
    let crowded: Vec<PluginId> = projected(tables, commit)?
        .into_iter()
        .filter(|(_, change)| !change.after.fits(commit.kv_quota))
        .map(|(plugin, _)| plugin)
        .collect();
    let mut usages = BTreeMap::new();
    for access in &commit.kv {
        let row = key(&[&org, &access.plugin.to_bytes()]);
        if let Entry::Vacant(vacant) = usages.entry(access.plugin) {
            let mut usage = usage(&tables.kv_usage, &row)?;
            if crowded.contains(&access.plugin) {
                for (expired, head) in expired(tables, &row, commit.now)? {
                    let rows = if expired.len() > KEY { &mut tables.session_kv } else { &mut tables.kv };
                    rows.remove(&expired[..])?;
                    usage.take(head.size);
                }
            }
            vacant.insert(usage);
        }
        let Some(usage) = usages.get_mut(&access.plugin) else { continue };
        let old = match &access.change {
            KvEffect::Keep => continue,
            KvEffect::Remove => {
                rows_mut(tables, access).remove(&access.key[..])?.and_then(|row| Head::parse(row.value()))
            }
            KvEffect::Put { expires, size, envelope } => {
                let old = head(rows(tables, access), &access.key)?;
                usage.version += 1;
                let value =
                    [&usage.version.to_be_bytes()[..], &expires.to_be_bytes(), &size.to_be_bytes(), envelope].concat();
                rows_mut(tables, access).insert(&access.key[..], &value[..])?;
                usage.add(*size);
                old
            }
        };
        if let Some(old) = old {
            usage.take(old.size);
        }
    }
    for (plugin, usage) in usages {
        usage.write(&mut tables.kv_usage, &key(&[&org, &plugin.to_bytes()]))?;
    }
    Ok(())
}

/// What a plugin keeps, and what it would.
struct Change {
    before: KvUsage,
    after: KvUsage,
}

/// What each plugin of the commit would keep.
fn projected(tables: &Tables<'_>, commit: &Prepared) -> Result<BTreeMap<PluginId, Change>, StoreFault> {
    let mut usages: BTreeMap<PluginId, Change> = BTreeMap::new();
    let mut changed: BTreeMap<&[u8], Option<u32>> = BTreeMap::new();
    for access in &commit.kv {
        let size = match &access.change {
            KvEffect::Keep => continue,
            KvEffect::Remove => None,
            KvEffect::Put { size, .. } => Some(*size),
        };
        if let Entry::Vacant(vacant) = usages.entry(access.plugin) {
            let row = key(&[&commit.org.to_bytes(), &access.plugin.to_bytes()]);
            let before = usage(&tables.kv_usage, &row)?;
            vacant.insert(Change { before, after: before });
        }
        let Some(Change { after: usage, .. }) = usages.get_mut(&access.plugin) else { continue };
        let old = match changed.insert(&access.key, size) {
            Some(earlier) => earlier,
            None => head(rows(tables, access), &access.key)?.map(|head| head.size),
        };
        if let Some(size) = size {
            usage.add(size);
        }
        if let Some(old) = old {
            usage.take(old);
        }
    }
    Ok(usages)
}

fn without_expired(
    tables: &Tables<'_>,
    commit: &Prepared,
    plugin: PluginId,
    mut usage: KvUsage,
) -> Result<KvUsage, StoreFault> {
    let row = key(&[&commit.org.to_bytes(), &plugin.to_bytes()]);
    for (expired, head) in expired(tables, &row, commit.now)? {
        let changes = |access: &&KvStep| access.key == expired && !matches!(access.change, KvEffect::Keep);
        // What the commit itself writes or removes has been reckoned with.
        if commit.kv.iter().find(changes).is_none() {
            usage.take(head.size);
        }
    }
    Ok(usage)
}

fn expired(tables: &Tables<'_>, plugin: &[u8], now: Timestamp) -> Result<Vec<(Vec<u8>, Head)>, StoreFault> {
    let mut expired = Vec::new();
    for rows in [&tables.kv, &tables.session_kv] {
        for row in rows.range(Prefix::new(&[plugin]).span())? {
            let (key, value) = row?;
            if let Some(head) = Head::parse(value.value()).filter(|head| !head.lives(now)) {
                expired.push((key.value().to_vec(), head));
            }
        }
    }
    Ok(expired)
}

fn rows<'a, 'txn>(tables: &'a Tables<'txn>, access: &KvStep) -> &'a Rows<'txn> {
    if access.key.len() > KEY { &tables.session_kv } else { &tables.kv }
}

fn rows_mut<'a, 'txn>(tables: &'a mut Tables<'txn>, access: &KvStep) -> &'a mut Rows<'txn> {
    if access.key.len() > KEY { &mut tables.session_kv } else { &mut tables.kv }
}

fn head(rows: &Rows<'_>, key: &[u8]) -> Result<Option<Head>, StoreFault> {
    Ok(rows.get(key)?.and_then(|row| Head::parse(row.value())))
}

fn usage(rows: &Rows<'_>, row: &[u8]) -> Result<KvUsage, StoreFault> {
    Ok(rows.get(row)?.map_or_else(KvUsage::default, |row| KvUsage::parse(row.value())))
}
