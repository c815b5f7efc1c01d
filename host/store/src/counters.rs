//! Counters: hits in windows, counted by the writer alone and therefore exactly.
//!
//! A hit is a row whose key ends in its time and its ordinal. Neither ever goes down within a counter: a hit whose time
//! lies before the last one's is recorded at the last one's. So a window is a span of rows, and how many they are is the
//! difference of its two ends, however full the window is.
//!
//! The key says first whose the counter is, so that a session's and a plugin's go with them. All other hits go by their age,
//! which an index knows by the hour: names of counters are free, so a counter may never be hit again.

use std::collections::BTreeSet;
use std::time::Duration;

use portcullis_core::rate::CounterOwner;
use portcullis_core::{OperationKind, OrgId, Timestamp, Window};
use redb::ReadableTable;

use crate::error::StoreFault;
use crate::seal::Hashes;
use crate::tables::{NO_SESSION, Prefix, Rows, Tables, key, number, part, remove_prefix};

/// For how long a hit is kept at least; no window reaches further back.
pub(crate) const KEPT: Duration = Duration::from_secs(25 * 60 * 60);
/// At most so many old hits go with a new one.
const PRUNED_AT_ONCE: usize = 4;
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Where the time stands in a key: after org and counter.
const TIME: usize = 16 + 32;

/// A counter within its organisation: the session or the plugin whose it is, or zeros, and the hash of its name (16).
pub(crate) type Counter = [u8; 32];

/// The counter with this name.
pub(crate) fn counter(hashes: &Hashes, org: OrgId, name: &str) -> Counter {
    let owner = match CounterOwner::of(name) {
        CounterOwner::Org => NO_SESSION,
        CounterOwner::Session(session) => session.to_bytes(),
        CounterOwner::Plugin(plugin) => plugin.to_bytes(),
    };
    let mut counter = [0; 32];
    counter[..16].copy_from_slice(&owner);
    counter[16..].copy_from_slice(&hashes.counter(org, name));
    counter
}

/// The counter of operations of a kind that were done.
pub(crate) fn operation_counter(kind: OperationKind) -> String {
    format!("op:{}", kind.name())
}

/// How many hits of a counter the window holds.
pub(crate) fn count<T>(
    rows: &T,
    org: OrgId,
    counter: &Counter,
    window: Window,
    now: Timestamp,
) -> Result<u64, StoreFault>
where
    T: ReadableTable<&'static [u8], &'static [u8]>,
{
    Ok(ends(rows, org, counter, window, now)?.map_or(0, |(first, last)| last.ordinal - first.ordinal + 1))
}

/// How long the counter stays full; `None` if the window holds fewer than `max` hits.
pub(crate) fn full_for(
    rows: &Rows<'_>,
    org: OrgId,
    counter: &Counter,
    window: Window,
    max: u64,
    now: Timestamp,
) -> Result<Option<Duration>, StoreFault> {
    let Some((first, last)) = ends(rows.opened()?, org, counter, window, now)? else {
        return Ok((max == 0).then(|| window.frees_in(now, now)));
    };
    let held = last.ordinal - first.ordinal + 1;
    if held < max {
        return Ok(None);
    }
    if max == 0 {
        return Ok(Some(window.frees_in(last.at, now)));
    }
    // The window is free again once so few of its hits are left that one more fits.
    let ordinal = first.ordinal + (held - max);
    let prefix = Prefix::new(&[&org.to_bytes(), counter]);
    let start = start_of(org, counter, window, now);
    for row in rows.range(prefix.from(&start))? {
        let (key, _) = row?;
        if let Some(hit) = Hit::parse(key.value()).filter(|hit| hit.ordinal >= ordinal) {
            return Ok(Some(window.frees_in(hit.at, now)));
        }
    }
    Ok(Some(window.frees_in(last.at, now)))
}

/// Records a hit.
pub(crate) fn hit(tables: &mut Tables<'_>, org: OrgId, counter: &Counter, now: Timestamp) -> Result<(), StoreFault> {
    let prefix = Prefix::new(&[&org.to_bytes(), counter]);
    let last = match tables.hits.range(prefix.span())?.next_back() {
        Some(row) => Hit::parse(row?.0.value()),
        None => None,
    };
    let next = last.map_or(Hit { at: now, ordinal: 1 }, |last| Hit { at: now.max(last.at), ordinal: last.ordinal + 1 });
    tables.hits.insert(&next.key(org, counter), &[])?;
    // One row for all hits of a counter within an hour keeps the index small.
    if last.is_none_or(|last| hour(last.at) != hour(next.at)) {
        tables.hits_age.insert(&next.age_row(org, counter), &[])?;
    }
    Ok(())
}

/// Forgets a few of the organisation's oldest hits that count in no window any more, whosever they are: more than the
/// `new` ones that come with the same commit, so that counters with ever new names do not grow the store for ever.
pub(crate) fn forget(tables: &mut Tables<'_>, org: OrgId, now: Timestamp, new: usize) -> Result<(), StoreFault> {
    let own = Prefix::new(&[&org.to_bytes()]);
    let mut left = new * PRUNED_AT_ONCE;
    while left > 0 {
        let Some(oldest) = tables.hits_age.range(own.span())?.next() else { return Ok(()) };
        let age_row = oldest?.0.value().to_vec();
        let (Some(since), Some(counter)) = (number(&age_row, 16), age_row.get(24..)) else { return Ok(()) };
        let end = Timestamp::from_millis(since).after(HOUR);
        if now.since(end) < KEPT {
            return Ok(());
        }
        let start = key(&[&org.to_bytes(), counter]);
        let end = key(&[&start, &end.as_millis().to_be_bytes()]);
        let mut old = Vec::new();
        // One more than may go tells whether the hour is over with them.
        for row in tables.hits.range(&start[..]..&end[..])?.take(left + 1) {
            old.push(row?.0.value().to_vec());
        }
        let is_last = old.len() <= left;
        old.truncate(left);
        left -= old.len().max(1);
        for row in old {
            tables.hits.remove(&row)?;
        }
        if is_last {
            tables.hits_age.remove(&age_row)?;
        }
    }
    Ok(())
}

/// Removes the counters of a session or a plugin in an organisation.
pub(crate) fn remove_of(tables: &mut Tables<'_>, org: OrgId, owner: [u8; 16]) -> Result<(), StoreFault> {
    let own = Prefix::new(&[&org.to_bytes(), &owner]);
    let mut ages = BTreeSet::new();
    for row in tables.hits.range(own.span())? {
        let (row, _) = row?;
        ages.extend(age_row_of(row.value()));
    }
    for row in ages {
        tables.hits_age.remove(&row)?;
    }
    remove_prefix(&mut tables.hits, &own)
}

/// The row of the index by age that leads to a hit, by the hit's key; `None` if that is too short.
pub(crate) fn age_row_of(row: &[u8]) -> Option<Vec<u8>> {
    let org = OrgId::from_bytes(part(row, 0)?);
    Some(Hit::parse(row)?.age_row(org, &part(row, 16)?))
}

/// The beginning of an hour.
fn hour(at: Timestamp) -> u64 {
    let millis = at.as_millis();
    millis - millis % (60 * 60 * 1000)
}

#[derive(Clone, Copy)]
pub(crate) struct Hit {
    pub(crate) at: Timestamp,
    pub(crate) ordinal: u64,
}

impl Hit {
    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        Some(Self { at: Timestamp::from_millis(number(key, TIME)?), ordinal: number(key, TIME + 8)? })
    }

    fn key(self, org: OrgId, counter: &Counter) -> Vec<u8> {
        key(&[&org.to_bytes(), counter, &self.at.as_millis().to_be_bytes(), &self.ordinal.to_be_bytes()])
    }

    fn age_row(self, org: OrgId, counter: &Counter) -> Vec<u8> {
        key(&[&org.to_bytes(), &hour(self.at).to_be_bytes(), counter])
    }
}

/// The first and the last hit in a window.
fn ends<T>(
    rows: &T,
    org: OrgId,
    counter: &Counter,
    window: Window,
    now: Timestamp,
) -> Result<Option<(Hit, Hit)>, StoreFault>
where
    T: ReadableTable<&'static [u8], &'static [u8]>,
{
    let prefix = Prefix::new(&[&org.to_bytes(), counter]);
    let start = start_of(org, counter, window, now);
    let mut span = rows.range::<&[u8]>(prefix.from(&start))?;
    let Some(first) = span.next() else { return Ok(None) };
    let first = Hit::parse(first?.0.value());
    let last = match span.next_back() {
        Some(last) => Hit::parse(last?.0.value()),
        None => first,
    };
    Ok(first.zip(last))
}

/// The least key of a hit that counts.
fn start_of(org: OrgId, counter: &Counter, window: Window, now: Timestamp) -> Vec<u8> {
    let after = window.counts_after(now).as_millis();
    key(&[&org.to_bytes(), counter, &(after + 1).to_be_bytes()])
}
