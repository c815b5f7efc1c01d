//! Rows that count for a while: a table whose values begin with a time, and its index by age, to forget the oldest.
//!
//! Idempotency keys and the ids of facts are such rows. With each new one, a few go that count no longer.

use std::time::Duration;

use portcullis_core::{OrgId, Timestamp};

use crate::error::StoreFault;
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

/// Whether a row with this value still counts at `now`.
pub(crate) fn counts(value: &[u8], now: Timestamp, kept: Duration) -> bool {
    number(value, 0).is_some_and(|at| now.since(Timestamp::from_millis(at)) < kept)
}

impl Aged<'_, '_> {
    /// Makes or replaces a row that counts from `at` on, and forgets a few that count no longer.
    pub(crate) fn put(self, org: OrgId, hash: &[u8; 16], at: Timestamp, rest: &[u8]) -> Result<(), StoreFault> {
        let org = org.to_bytes();
        let age = |at: &[u8]| key(&[&org, at, hash]);
        let mut old = Vec::new();
        for row in self.ages.range(Prefix::new(&[&org]).span())?.take(PRUNED_AT_ONCE) {
            let (row, _) = row?;
            if counts(&row.value()[16..], at, self.kept) {
                break;
            }
            old.push(row.value().to_vec());
        }
        for row in old {
            self.rows.remove(&key(&[&org, &row[24..]])[..])?;
            self.ages.remove(&row[..])?;
        }
        let at = at.as_millis().to_be_bytes();
        let replaced = self.rows.insert(&key(&[&org, hash])[..], &key(&[&at, rest])[..])?;
        if let Some(replaced) = replaced {
            self.ages.remove(&age(&replaced.value()[..8])[..])?;
        }
        self.ages.insert(&age(&at)[..], &[][..])?;
        Ok(())
    }
}
