//! Idempotency keys inside the writer's transaction: to which message a key has led, for a day.
//!
//! A record holds ids only, so erasing a session leaves it: the key then leads to a message that is gone, and stays in use
//! until its day is over. That is right, because the message may have been sent before it went.

use std::time::Duration;

use portcullis_core::{OrgId, Timestamp};
use redb::ReadableTable;

use crate::error::{CommitError, StoreFault};
use crate::step::{Prepared, Remembered};
use crate::tables::{Prefix, Tables, key, number};

/// For how long a key leads to its message.
pub(crate) const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// At most so many old keys go with a new one.
const PRUNED_AT_ONCE: usize = 4;

/// Whether the commit's key is free.
pub(crate) fn check(tables: &Tables<'_>, commit: &Prepared) -> Result<(), CommitError> {
    let Some(record) = &commit.idempotency else { return Ok(()) };
    let there = tables.idempotency.get(&key(&[&commit.org.to_bytes(), &record.hash])[..])?;
    match there.is_some_and(|row| holds(row.value(), record.at)) {
        true => Err(CommitError::Conflict),
        false => Ok(()),
    }
}

/// Whether a record still counts at `now`.
pub(crate) fn holds(value: &[u8], now: Timestamp) -> bool {
    number(value, 0).is_some_and(|at| now.since(Timestamp::from_millis(at)) < KEPT)
}

/// Records to which message a key has led, and forgets a few old keys.
pub(crate) fn remember(tables: &mut Tables<'_>, org: OrgId, record: &Remembered) -> Result<(), StoreFault> {
    let org = org.to_bytes();
    let age = |at: &[u8]| key(&[&org, at, &record.hash]);
    let mut old = Vec::new();
    for row in tables.idempotency_age.range::<&[u8]>(Prefix::new(&[&org]).span())?.take(PRUNED_AT_ONCE) {
        let (row, _) = row?;
        if holds(&row.value()[16..], record.at) {
            break;
        }
        old.push(row.value().to_vec());
    }
    for row in old {
        tables.idempotency.remove(&key(&[&org, &row[24..]])[..])?;
        tables.idempotency_age.remove(&row[..])?;
    }
    let at = record.at.as_millis().to_be_bytes();
    let value = key(&[&at, &record.session.to_bytes(), &record.message.to_bytes()]);
    let replaced = tables.idempotency.insert(&key(&[&org, &record.hash])[..], &value[..])?;
    if let Some(replaced) = replaced {
        tables.idempotency_age.remove(&age(&replaced.value()[..8])[..])?;
    }
    tables.idempotency_age.insert(&age(&at)[..], &[][..])?;
    Ok(())
}
