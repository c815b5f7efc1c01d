//! Facts inside the writer's transaction: an organisation tells each of its own facts once.
//!
//! A fact is known by the id that the organisation gave it. The id counts for 30 days and leads to the event that the fact became;
//! of the fact itself there is a keyed hash, to tell a repetition from another fact.

use std::time::Duration;

use portcullis_core::{OrgId, Timestamp};

use crate::aged::{self, Aged};
use crate::error::{CommitError, StoreFault};
use crate::step::Prepared;
use crate::tables::{Tables, key};

/// For how long a fact is known.
pub(crate) const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Whether the commit's fact is new.
pub(crate) fn check(tables: &Tables<'_>, commit: &Prepared) -> Result<(), CommitError> {
    let Some((fact, _)) = &commit.fact else { return Ok(()) };
    let there = tables.facts.get(&key(&[&commit.org.to_bytes(), fact])[..])?;
    match there.is_some_and(|row| counts(row.value(), commit.now)) {
        true => Err(CommitError::FactKnown),
        false => Ok(()),
    }
}

/// Whether a fact is still known at `now`.
pub(crate) fn counts(value: &[u8], now: Timestamp) -> bool {
    aged::counts(value, now, KEPT)
}

/// Knows a fact from now on, and forgets a few old ones.
pub(crate) fn remember(
    tables: &mut Tables<'_>,
    org: OrgId,
    (fact, kept): (&[u8; 16], &[u8]),
    now: Timestamp,
) -> Result<(), StoreFault> {
    let aged = Aged { rows: &mut tables.facts, ages: &mut tables.facts_age, kept: KEPT };
    aged.put(org, fact, now, kept)
}

/// Forgets old ones, so many of them at most.
pub(crate) fn forget(tables: &mut Tables<'_>, org: OrgId, now: Timestamp, at_most: usize) -> Result<(), StoreFault> {
    Aged { rows: &mut tables.facts, ages: &mut tables.facts_age, kept: KEPT }.forget(org, now, at_most)
}
