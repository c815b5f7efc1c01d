//! Idempotency keys inside the writer's transaction: to which message, or to which reply, a key has led, for a day.
//!
//! A message's record holds ids only, so erasing a session leaves it: the key then leads to a message that is gone, and stays in use
//! until its day is over. That is right, because the message may have been sent before it went.
//!
//! Of every other operation the key is taken in the commit that does it, and the reply joins it before anybody hears of it. A crash in
//! between leaves a key without a reply: the operation was done, is not done again, and nobody was told anything else.
//! Replies lie under the key of the session that they are about, and go with it.

use std::time::Duration;

use portcullis_core::{OrgId, Timestamp};

use crate::aged::{self, Aged};
use crate::error::{CommitError, StoreFault};
use crate::step::{Prepared, Remembered, SealedReply, Taken};
use crate::tables::{Tables, key};

/// For how long a key leads to its message or reply.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of a reply's row before what is sealed: time, digest of the request, org and session whose key has sealed it.
pub(crate) const REPLY_HEAD: usize = CLAIM + 16 + 16;
/// Bytes of the row of a key that has no reply: time, digest of the request.
pub(crate) const CLAIM: usize = 8 + 32;

/// Whether the commit's keys are free.
pub(crate) fn check(tables: &Tables<'_>, commit: &Prepared) -> Result<(), CommitError> {
    let message = commit.idempotency.as_ref().map(|record| (commit.org, record.hash, record.at));
    let claim = commit.claim.as_ref().map(|taken| (taken.org, taken.hash, taken.at));
    for (org, hash, at) in message.into_iter().chain(claim) {
        let row = key(&[&org.to_bytes(), &hash]);
        for rows in [&tables.idempotency, &tables.replies] {
            if rows.get(&row)?.is_some_and(|row| holds(row.value(), at)) {
                return Err(CommitError::Conflict);
            }
        }
    }
    Ok(())
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

/// Takes a key for an operation, and forgets a few old ones.
pub(crate) fn take(tables: &mut Tables<'_>, taken: &Taken) -> Result<(), StoreFault> {
    let aged = Aged { rows: &mut tables.replies, ages: &mut tables.replies_age, kept: KEPT };
    aged.put(taken.org, &taken.hash, taken.at, &taken.digest)
}

/// Adds the reply to a key that was taken for the same request, and is there still.
pub(crate) fn keep(tables: &mut Tables<'_>, reply: &SealedReply) -> Result<(), StoreFault> {
    let row = key(&[&reply.org.to_bytes(), &reply.hash]);
    let taken = tables.replies.get(&row)?.map(|taken| taken.value().to_vec());
    let Some(taken) = taken.filter(|taken| taken.len() == CLAIM && taken[8..] == reply.digest) else { return Ok(()) };
    tables.replies.insert(&row, &key(&[&taken, &reply.owner, &reply.envelope]))?;
    Ok(())
}
