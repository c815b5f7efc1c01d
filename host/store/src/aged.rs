//! Rows that count for a while: a table whose values begin with a time, and its index by age, to forget the oldest.
//!
//! Idempotency keys and the ids of facts are such rows. With each new one, a few go that count no longer; and as whoever makes no new
//! ones would keep the old ones for ever, somebody comes round and forgets them.

use std::time::Duration;

use portcullis_core::{OrgId, Timestamp};
use redb::ReadableTable;

use crate::error::{ReadError, StoreFault};
use crate::tables::{Prefix, Rows, key, number};

/// At most so many old rows go with a new one.
const PRUNED_AT_ONCE: usize = 4;

/// A table of such rows with its index.
pub(crate) struct Aged<'a, 'txn> {
    pub(crate) rows: &'a mut Rows<'txn>,
    pub(crate) ages: &'a mut Rows<'txn>,
    /// For how long a row counts.
    pub(crate) kept: Duration,
}

/// Whether the oldest of these rows of an organisation counts no longer.
pub(crate) fn has_old(
    ages: &impl ReadableTable<&'static [u8], &'static [u8]>,
    org: OrgId,
    now: Timestamp,
    kept: Duration,
) -> Result<bool, ReadError> {
    let Some(oldest) = ages.range::<&[u8]>(Prefix::new(&[&org.to_bytes()]).span())?.next() else { return Ok(false) };
    Ok(!counts(&oldest?.0.value()[16..], now, kept))
}

/// Whether a row with this value still counts at `now`.
pub(crate) fn counts(value: &[u8], now: Timestamp, kept: Duration) -> bool {
    number(value, 0).is_some_and(|at| Timestamp::from_millis(at).after(kept) > now)
}

impl Aged<'_, '_> {
    /// Makes or replaces a row that counts from `at` on, and forgets a few that count no longer.
    pub(crate) fn put(mut self, org: OrgId, hash: &[u8; 16], at: Timestamp, rest: &[u8]) -> Result<(), StoreFault> {
        self.forget(org, at, PRUNED_AT_ONCE)?;
        let org = org.to_bytes();
        let age = |at: &[u8]| key(&[&org, at, hash]);
        let at = at.as_millis().to_be_bytes();
        let replaced = self.rows.insert(&key(&[&org, hash])[..], &key(&[&at, rest])[..])?;
        if let Some(replaced) = replaced {
            self.ages.remove(&age(&replaced.value()[..8])[..])?;
        }
        self.ages.insert(&age(&at)[..], &[][..])?;
        Ok(())
    }

    /// Forgets the oldest rows that count no longer, so many of them at most.
    pub(crate) fn forget(&mut self, org: OrgId, now: Timestamp, at_most: usize) -> Result<(), StoreFault> {
        let org = org.to_bytes();
        let mut old = Vec::new();
        for row in self.ages.range(Prefix::new(&[&org]).span())?.take(at_most) {
            let (row, _) = row?;
            if counts(&row.value()[16..], now, self.kept) {
                break;
            }
            old.push(row.value().to_vec());
        }
        for row in old {
            self.rows.remove(&key(&[&org, &row[24..]])[..])?;
            self.ages.remove(&row[..])?;
        }
        Ok(())
    }
}
