//! Counters: hits in windows, counted by the writer alone and therefore exactly.
//!
//! A hit is a row whose key ends in its time and its ordinal. Neither ever goes down within a counter: a hit whose time
//! lies before the last one's is recorded at the last one's. So a window is a span of rows, and how many they are is the
//! difference of its two ends, however full the window is.

use std::time::Duration;

use portcullis_core::{OperationKind, OrgId, Timestamp, Window};
use redb::ReadableTable;

use crate::error::StoreFault;
use crate::tables::{Prefix, Rows, key, number};

/// For how long a hit is kept at least; no window reaches further back.
pub(crate) const KEPT: Duration = Duration::from_secs(25 * 60 * 60);
/// At most so many old hits go with a new one.
const PRUNED_AT_ONCE: usize = 4;
/// Where the time stands in a key: after org and counter.
const TIME: usize = 32;

/// The counter of operations of a kind that were done.
pub(crate) fn operation_counter(kind: OperationKind) -> String {
    format!("op:{}", kind.name())
}

/// How many hits of a counter the window holds.
pub(crate) fn count<T>(
    rows: &T,
    org: OrgId,
    counter: &[u8; 16],
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
    counter: &[u8; 16],
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

/// Records a hit, and forgets a few that are too old for every window.
pub(crate) fn hit(rows: &mut Rows<'_>, org: OrgId, counter: &[u8; 16], now: Timestamp) -> Result<(), StoreFault> {
    let prefix = Prefix::new(&[&org.to_bytes(), counter]);
    let last = match rows.range(prefix.span())?.next_back() {
        Some(row) => Hit::parse(row?.0.value()),
        None => None,
    };
    let next = last.map_or(Hit { at: now, ordinal: 1 }, |last| Hit { at: now.max(last.at), ordinal: last.ordinal + 1 });
    let mut old = Vec::new();
    for row in rows.range(prefix.span())?.take(PRUNED_AT_ONCE) {
        let (key, _) = row?;
        if Hit::parse(key.value()).is_none_or(|hit| now.since(hit.at) < KEPT) {
            break;
        }
        old.push(key.value().to_vec());
    }
    for key in old {
        rows.remove(&key[..])?;
    }
    rows.insert(&next.key(org, counter)[..], &[][..])?;
    Ok(())
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

    fn key(self, org: OrgId, counter: &[u8; 16]) -> Vec<u8> {
        key(&[&org.to_bytes(), counter, &self.at.as_millis().to_be_bytes(), &self.ordinal.to_be_bytes()])
    }
}

/// The first and the last hit in a window.
fn ends<T>(
    rows: &T,
    org: OrgId,
    counter: &[u8; 16],
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
fn start_of(org: OrgId, counter: &[u8; 16], window: Window, now: Timestamp) -> Vec<u8> {
    let after = window.counts_after(now).as_millis();
    key(&[&org.to_bytes(), counter, &(after + 1).to_be_bytes()])
}
