//! Reading what plugins keep: keys, timers, and the counters that bound everybody.

use portcullis_core::{KvEntry, OperationKind, OrgId, PluginId, Timestamp, Window};

use super::{Snapshot, owner_in_head};
use crate::commit::PluginTimer;
use crate::error::ReadError;
use crate::kv::{HEAD, Head, KvUsage, Place};
use crate::step::NEVER;
use crate::tables::{self, Definition, Prefix, key, number};
use crate::{counters, kv, timers};

impl Snapshot {
    /// The live value under a plugin's key.
    pub fn kv(&self, org: OrgId, plugin: PluginId, name: &str, now: Timestamp) -> Result<Option<KvEntry>, ReadError> {
        let place = Place::of(&self.shared.ring.hashes, org, plugin, name);
        let rows = self.table(place.table())?;
        let Some(value) = rows.get(&place.row[..])? else { return Ok(None) };
        Ok(self.kv_row(place.table(), &place.row, value.value(), now)?.map(|(_, entry)| entry))
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
        for table in [tables::KV, tables::SESSION_KV] {
            for row in self.table(table)?.range::<&[u8]>(own.span())? {
                let (row, value) = row?;
                if let Some((name, _)) = self.kv_row(table, row.value(), value.value(), now)?
                    && name.starts_with(prefix)
                    && after.is_none_or(|after| name.as_str() > after)
                {
                    names.push(name);
                }
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
        let counter = counters::counter(&self.shared.ring.hashes, org, counter);
        Ok(counters::count(&self.table(tables::HITS)?, org, &counter, window, now)?)
    }

    /// At most `limit` timers of an organisation that are due, the longest overdue first.
    pub fn timers_due(&self, org: OrgId, now: Timestamp, limit: usize) -> Result<Vec<PluginTimer>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes()]);
        let mut found = Vec::new();
        for row in self.table(tables::TIMERS_DUE)?.range::<&[u8]>(own.span())? {
            let (due, _) = row?;
            let due = due.value();
            let (Some(at), Some(rest)) = (number(due, 16), due.get(24..)) else {
                return Err(ReadError::unopenable(tables::TIMERS_DUE, due));
            };
            if found.len() == limit || at > now.as_millis() {
                break;
            }
            found.extend(self.timer_in(&key(&[&org.to_bytes(), rest]))?);
        }
        Ok(found)
    }

    /// The timer that a plugin has set under this key.
    pub fn timer(&self, org: OrgId, plugin: PluginId, name: &str) -> Result<Option<PluginTimer>, ReadError> {
        let hash = self.shared.ring.hashes.plugin_key(org, plugin, name);
        self.timer_in(&key(&[&org.to_bytes(), &plugin.to_bytes(), &hash]))
    }

    fn timer_in(&self, row: &[u8]) -> Result<Option<PluginTimer>, ReadError> {
        match self.table(tables::TIMERS)?.get(row)? {
            Some(value) => self.decode_owned(tables::TIMERS, row, value.value(), timers::HEAD, owner_in_head),
            None => Ok(None),
        }
    }

    pub(crate) fn kv_row(
        &self,
        table: Definition,
        row: &[u8],
        value: &[u8],
        now: Timestamp,
    ) -> Result<Option<(String, KvEntry)>, ReadError> {
        let unopenable = || ReadError::unopenable(table, row);
        let owner = kv::owner(row).ok_or_else(unopenable)?;
        let head = Head::parse(value).ok_or_else(unopenable)?;
        if !head.lives(now) {
            return Ok(None);
        }
        let Some(plain) = self.open(table, owner, row, row, value, HEAD)? else { return Ok(None) };
        let (name, value) = kv::name_in(&plain).ok_or_else(unopenable)?;
        let expires = (head.expires != NEVER).then(|| Timestamp::from_millis(head.expires));
        Ok(Some((name.to_owned(), KvEntry { value: value.to_vec(), version: head.version, expires })))
    }
}
