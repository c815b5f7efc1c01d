//! Plugins' keys inside the writer's transaction: versions, expiry and the quota of each plugin in each organisation.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use portcullis_core::{PluginId, Timestamp};
use redb::ReadableTable;

use crate::error::{CommitError, StoreFault};
use crate::step::{KvEffect, Prepared};
use crate::tables::{Prefix, Rows, Tables, key, number, part};

/// How many keys a plugin may keep in an organisation.
pub const KV_MAX_KEYS: u32 = 1_000;
/// How many bytes its keys and values may have together.
pub const KV_MAX_BYTES: u64 = 1024 * 1024;

/// Bytes of the head of a row: version, expiry, size.
pub(crate) const HEAD: usize = 8 + 8 + 4;

/// How much a plugin keeps in an organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvUsage {
    /// Keys, expired ones included until they are written again or room is needed.
    pub keys: u32,
    /// Bytes of keys and values.
    pub bytes: u64,
}

impl KvUsage {
    pub(crate) fn parse(value: &[u8]) -> Self {
        Self { keys: part(value, 0).map_or(0, u32::from_be_bytes), bytes: number(value, 4).unwrap_or_default() }
    }

    pub(crate) fn add(&mut self, size: u32) {
        self.keys += 1;
        self.bytes += u64::from(size);
    }

    fn take(&mut self, size: u32) {
        self.keys = self.keys.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(size));
    }

    fn fits(self) -> bool {
        self.keys <= KV_MAX_KEYS && self.bytes <= KV_MAX_BYTES
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

/// Whether every key is as it was seen.
pub(crate) fn check_seen(tables: &Tables<'_>, commit: &Prepared) -> Result<(), CommitError> {
    for access in &commit.kv {
        let Some(seen) = access.seen else { continue };
        let head = head(&tables.kv, &access.key)?.filter(|head| head.lives(commit.now));
        if head.map(|head| head.version) != seen {
            return Err(CommitError::Conflict);
        }
    }
    Ok(())
}

/// Whether every plugin stays within its quota; expired keys do not count against it.
pub(crate) fn check_quota(tables: &Tables<'_>, commit: &Prepared) -> Result<(), CommitError> {
    for (plugin, usage) in projected(tables, commit)? {
        if !usage.fits() && !without_expired(tables, commit, plugin, usage)?.fits() {
            return Err(CommitError::KvQuota { plugin });
        }
    }
    Ok(())
}

/// Makes the changes. Where room is short, expired keys go first.
pub(crate) fn apply(tables: &mut Tables<'_>, commit: &Prepared) -> Result<(), StoreFault> {
    let org = commit.org.to_bytes();
    let crowded: Vec<PluginId> =
        projected(tables, commit)?.into_iter().filter(|(_, usage)| !usage.fits()).map(|(plugin, _)| plugin).collect();
    let mut usages = BTreeMap::new();
    for access in &commit.kv {
        let row = key(&[&org, &access.plugin.to_bytes()]);
        if let Entry::Vacant(vacant) = usages.entry(access.plugin) {
            let mut usage = usage(&tables.kv_usage, &row)?;
            if crowded.contains(&access.plugin) {
                for (expired, head) in expired(&tables.kv, &row, commit.now)? {
                    tables.kv.remove(&expired[..])?;
                    usage.take(head.size);
                }
            }
            vacant.insert(usage);
        }
        let Some(usage) = usages.get_mut(&access.plugin) else { continue };
        let old = match &access.change {
            KvEffect::Keep => continue,
            KvEffect::Remove => tables.kv.remove(&access.key[..])?.and_then(|row| Head::parse(row.value())),
            KvEffect::Put { expires, size, envelope } => {
                let old = head(&tables.kv, &access.key)?;
                let version = old.map_or(1, |old| old.version + 1);
                let value =
                    [&version.to_be_bytes()[..], &expires.to_be_bytes(), &size.to_be_bytes(), envelope].concat();
                tables.kv.insert(&access.key[..], &value[..])?;
                usage.add(*size);
                old
            }
        };
        if let Some(old) = old {
            usage.take(old.size);
        }
    }
    for (plugin, usage) in usages {
        let row = key(&[&org, &plugin.to_bytes()]);
        if usage == KvUsage::default() {
            tables.kv_usage.remove(&row[..])?;
        } else {
            let value = [&usage.keys.to_be_bytes()[..], &usage.bytes.to_be_bytes()].concat();
            tables.kv_usage.insert(&row[..], &value[..])?;
        }
    }
    Ok(())
}

/// What each plugin of the commit would keep.
fn projected(tables: &Tables<'_>, commit: &Prepared) -> Result<BTreeMap<PluginId, KvUsage>, StoreFault> {
    let mut usages: BTreeMap<PluginId, KvUsage> = BTreeMap::new();
    let mut changed: BTreeMap<&[u8], Option<u32>> = BTreeMap::new();
    for access in &commit.kv {
        let size = match &access.change {
            KvEffect::Keep => continue,
            KvEffect::Remove => None,
            KvEffect::Put { size, .. } => Some(*size),
        };
        if let Entry::Vacant(vacant) = usages.entry(access.plugin) {
            let row = key(&[&commit.org.to_bytes(), &access.plugin.to_bytes()]);
            vacant.insert(usage(&tables.kv_usage, &row)?);
        }
        let Some(usage) = usages.get_mut(&access.plugin) else { continue };
        let old = match changed.insert(&access.key, size) {
            Some(earlier) => earlier,
            None => head(&tables.kv, &access.key)?.map(|head| head.size),
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
    for (expired, head) in expired(&tables.kv, &row, commit.now)? {
        let changes = |access: &&crate::step::KvStep| access.key == expired && !matches!(access.change, KvEffect::Keep);
        // What the commit itself writes or removes has been reckoned with.
        if commit.kv.iter().find(changes).is_none() {
            usage.take(head.size);
        }
    }
    Ok(usage)
}

fn expired(rows: &Rows<'_>, plugin: &[u8], now: Timestamp) -> Result<Vec<(Vec<u8>, Head)>, StoreFault> {
    let mut expired = Vec::new();
    for row in rows.range::<&[u8]>(Prefix::new(&[plugin]).span())? {
        let (key, value) = row?;
        if let Some(head) = Head::parse(value.value()).filter(|head| !head.lives(now)) {
            expired.push((key.value().to_vec(), head));
        }
    }
    Ok(expired)
}

fn head(rows: &Rows<'_>, key: &[u8]) -> Result<Option<Head>, StoreFault> {
    Ok(rows.get(key)?.and_then(|row| Head::parse(row.value())))
}

fn usage(rows: &Rows<'_>, row: &[u8]) -> Result<KvUsage, StoreFault> {
    Ok(rows.get(row)?.map_or_else(KvUsage::default, |row| KvUsage::parse(row.value())))
}
