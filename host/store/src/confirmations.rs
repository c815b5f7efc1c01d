//! Confirmations inside the writer's transaction: rows, their count, and their ends, by which the oldest are forgotten.
//!
//! One that has ended counts against no quota, though it may lie there until new ones push it out.

use portcullis_core::{OrgId, SessionId, Timestamp};

use crate::commit::QuotaKind;
use crate::counts::Counts;
use crate::error::StoreFault;
use crate::seal::Hashes;
use crate::tables::{Prefix, Tables, heads, key, number};

/// Bytes of the head of a row: end, session or zeros.
pub(crate) const HEAD: usize = 8 + 16;
/// At most so many that have ended go with a new one.
const PRUNED_AT_ONCE: usize = 4;

/// The key of a confirmation's row.
pub(crate) fn row(hashes: &Hashes, org: OrgId, hash: &[u8; 32]) -> Vec<u8> {
    key(&[&org.to_bytes(), &hashes.confirmation(org, hash)])
}

/// A confirmation's place in the index; `None` if the row is too short to be one.
pub(crate) fn age_row(row: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let (org, hash) = row.split_at_checked(16)?;
    Some(key(&[org, value.get(..8)?, hash]))
}

/// Keeps a confirmation, and forgets a few that have ended.
pub(crate) fn put(
    tables: &mut Tables<'_>,
    counts: &mut Counts,
    row: &[u8],
    value: &[u8],
    now: Timestamp,
) -> Result<(), StoreFault> {
    forget(tables, counts, &row[..16], now, PRUNED_AT_ONCE)?;
    let old = tables.confirmations.insert(row, value)?.map(|old| age_row(row, old.value()));
    counts.add(QuotaKind::Confirmations, old.is_none());
    if let Some(old) = old.flatten() {
        tables.confirmations_age.remove(&old[..])?;
    }
    if let Some(age) = age_row(row, value) {
        tables.confirmations_age.insert(&age[..], &[][..])?;
    }
    Ok(())
}

/// Forgets the oldest that have ended, so many of them at most.
pub(crate) fn forget(
    tables: &mut Tables<'_>,
    counts: &mut Counts,
    org: &[u8],
    now: Timestamp,
    at_most: usize,
) -> Result<(), StoreFault> {
    ended(tables, org, now, at_most)?.iter().try_for_each(|ended| remove(tables, counts, ended))
}

/// Removes a confirmation, if it is there.
pub(crate) fn remove(tables: &mut Tables<'_>, counts: &mut Counts, row: &[u8]) -> Result<(), StoreFault> {
    let old = tables.confirmations.remove(row)?.map(|old| age_row(row, old.value()));
    if let Some(old) = old {
        counts.take(QuotaKind::Confirmations);
        if let Some(age) = old {
            tables.confirmations_age.remove(&age[..])?;
        }
    }
    Ok(())
}

/// Removes the confirmations about a session. It looks at all of the organisation, which are bounded.
pub(crate) fn remove_of_session(
    tables: &mut Tables<'_>,
    counts: &mut Counts,
    org: OrgId,
    session: SessionId,
) -> Result<(), StoreFault> {
    for (row, head) in heads(&tables.confirmations, &Prefix::new(&[&org.to_bytes()]), HEAD)? {
        if head.get(8..) == Some(&session.to_bytes()[..]) {
            remove(tables, counts, &row)?;
        }
    }
    Ok(())
}

/// How many confirmations of an organisation can still be given, if it has `held` rows of them.
pub(crate) fn open(tables: &Tables<'_>, org: OrgId, held: u32, now: Timestamp) -> Result<u32, StoreFault> {
    let ended = ended(tables, &org.to_bytes(), now, held as usize)?.len();
    Ok(held.saturating_sub(u32::try_from(ended).unwrap_or(u32::MAX)))
}

/// The rows of at most so many confirmations that have ended, the oldest first.
fn ended(tables: &Tables<'_>, org: &[u8], now: Timestamp, at_most: usize) -> Result<Vec<Vec<u8>>, StoreFault> {
    let mut ended = Vec::new();
    for age in tables.confirmations_age.range(Prefix::new(&[org]).span())?.take(at_most) {
        let (age, _) = age?;
        let age = age.value();
        if number(age, 16).is_some_and(|end| now.as_millis() < end) {
            break;
        }
        ended.push(key(&[org, age.get(24..).unwrap_or_default()]));
    }
    Ok(ended)
}
