//! Reading what plugins keep: keys, timers, and the counters that bound everybody.

use portcullis_core::{KvEntry, OperationKind, OrgId, PluginId, Timestamp, Window};

use super::{Snapshot, owner_in_head};
use crate::commit::PluginTimer;
use crate::counters;
use crate::error::ReadError;
use crate::keyfile::Owner;
use crate::kv::{HEAD, Head, KvUsage};
use crate::step::NEVER;
use crate::tables::{self, Prefix, key, number, part};

impl Snapshot {
    /// The live value under a plugin's key.
    pub fn kv(&self, org: OrgId, plugin: PluginId, name: &str, now: Timestamp) -> Result<Option<KvEntry>, ReadError> {
        let hash = self.shared.ring.hashes.plugin_key(org, plugin, name);
        let row = key(&[&org.to_bytes(), &plugin.to_bytes(), &hash]);
        let rows = self.table(tables::KV)?;
        let Some(value) = rows.get(&row[..])? else { return Ok(None) };
        Ok(self.kv_row(org, &row, value.value(), now)?.map(|(_, entry)| entry))
    }

    /// At most `limit` live keys of a plugin with this prefix, in order, from the one after `after` on.
    /// Keys are stored hashed, so this opens all of the plugin's keys, of which there are few enough.
    pub fn kv_keys(
        &self,
        org: OrgId,
        plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<String>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes(), &plugin.to_bytes()]);
        let mut names = Vec::new();
        for row in self.table(tables::KV)?.range::<&[u8]>(own.span())? {
            let (row, value) = row?;
            if let Some((name, _)) = self.kv_row(org, row.value(), value.value(), now)?
                && name.starts_with(prefix)
                && after.is_none_or(|after| name.as_str() > after)
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        names.truncate(limit);
        Ok(names)
    }

    /// How much a plugin keeps in an organisation.
    pub fn kv_usage(&self, org: OrgId, plugin: PluginId) -> Result<KvUsage, ReadError> {
        let row = key(&[&org.to_bytes(), &plugin.to_bytes()]);
        Ok(self
            .table(tables::KV_USAGE)?
            .get(&row[..])?
            .map_or_else(KvUsage::default, |row| KvUsage::parse(row.value())))
    }

    /// How many operations of a kind were done in an organisation within the window.
    /// No window reaches further back than 25 hours.
    pub fn usage(&self, org: OrgId, kind: OperationKind, window: Window, now: Timestamp) -> Result<u64, ReadError> {
        self.counter(org, &counters::operation_counter(kind), window, now)
    }

    /// How many hits of a counter the window holds. No window reaches further back than 25 hours.
    pub fn counter(&self, org: OrgId, counter: &str, window: Window, now: Timestamp) -> Result<u64, ReadError> {
        let counter = self.shared.ring.hashes.counter(org, counter);
        Ok(counters::count(&self.table(tables::HITS)?, org, &counter, window, now)?)
    }

    /// At most `limit` timers that are due, the longest overdue first.
    pub fn timers_due(&self, now: Timestamp, limit: usize) -> Result<Vec<PluginTimer>, ReadError> {
        let end = (now.as_millis() + 1).to_be_bytes();
        let rows = self.table(tables::TIMERS)?;
        let mut found = Vec::new();
        for row in self.table(tables::TIMERS_DUE)?.range::<&[u8]>(..&end[..])? {
            if found.len() == limit {
                break;
            }
            let (due, _) = row?;
            let row = &due.value()[8..];
            let Some(value) = rows.get(row)? else { continue };
            let Some(owner) = owner_in_head(row, value.value()) else {
                return Err(ReadError::unopenable(tables::TIMERS, row));
            };
            found.extend(self.decode(tables::TIMERS, owner, row, row, value.value(), 24)?);
        }
        Ok(found)
    }

    /// When the next timer is due.
    pub fn next_timer(&self) -> Result<Option<Timestamp>, ReadError> {
        let first = self.table(tables::TIMERS_DUE)?.range::<&[u8]>(..)?.next().transpose()?;
        Ok(first.and_then(|(due, _)| number(due.value(), 0)).map(Timestamp::from_millis))
    }

    pub(crate) fn kv_row(
        &self,
        org: OrgId,
        row: &[u8],
        value: &[u8],
        now: Timestamp,
    ) -> Result<Option<(String, KvEntry)>, ReadError> {
        let unopenable = || ReadError::unopenable(tables::KV, row);
        let head = Head::parse(value).ok_or_else(unopenable)?;
        if !head.lives(now) {
            return Ok(None);
        }
        let Some(plain) = self.open(tables::KV, Owner::org(org), row, row, value, HEAD)? else { return Ok(None) };
        let length = part(&plain, 0).map(u16::from_be_bytes).ok_or_else(unopenable)?;
        let (name, value) = plain[2..].split_at_checked(length.into()).ok_or_else(unopenable)?;
        let name = String::from_utf8(name.to_vec()).map_err(|_not_text| unopenable())?;
        let expires = (head.expires != NEVER).then(|| Timestamp::from_millis(head.expires));
        Ok(Some((name, KvEntry { value: value.to_vec(), version: head.version, expires })))
    }
}
