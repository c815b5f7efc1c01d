//! Idempotency keys inside the writer's transaction: to which message a key has led, for a day.
//!
//! A record holds ids only, so erasing a session leaves it: the key then leads to a message that is gone, and stays in use
//! until its day is over. That is right, because the message may have been sent before it went.

use std::time::Duration;

use portcullis_core::{OrgId, Timestamp};

use crate::aged::{self, Aged};
use crate::error::{CommitError, StoreFault};
use crate::step::{Prepared, Remembered};
use crate::tables::{Tables, key};

/// For how long a key leads to its message.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

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
    aged::counts(value, now, KEPT)
}

/// Records to which message a key has led, and forgets a few old keys.
pub(crate) fn remember(tables: &mut Tables<'_>, org: OrgId, record: &Remembered) -> Result<(), StoreFault> {
    let rest = key(&[&record.session.to_bytes(), &record.message.to_bytes()]);
    let aged = Aged { rows: &mut tables.idempotency, ages: &mut tables.idempotency_age, kept: KEPT };
    aged.put(org, &record.hash, record.at, &rest)
}
