//! Idempotency keys inside the writer's transaction: to which message, or to which reply, a key has led, for a day.
//!
//! A message's record holds ids only, so erasing a session leaves it: the key then leads to a message that is gone, and stays in use
//! until its day is over. That is right, because the message may have been sent before it went.
//!
//! Of every other operation the key is taken in the commit that does it, and the reply joins it before anybody hears of it. A crash in
//! between leaves a key without a reply: the operation was done, is not done again, and nobody was told anything else. Such a key leads
//! to ids of what was done, from which most replies can be made again.
//! Replies lie under the key of the session that they are about, and go with it.

use std::time::Duration;

use portcullis_core::{DecisionId, OrgId, SessionId, Timestamp};

use crate::aged::{self, Aged};
use crate::commit::Deed;
use crate::error::{CommitError, StoreFault};
use crate::step::{Prepared, Remembered, SealedReply, Taken};
use crate::tables::{Tables, key, part};

/// For how long a key leads to its message or reply.
pub(crate) const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of a reply's row before what is sealed: those of its key, org and session whose key has sealed it.
pub(crate) const REPLY_HEAD: usize = CLAIM + 16 + 16;
/// Bytes of the row of a key that has no reply: time, digest of the request, what was done.
pub(crate) const CLAIM: usize = DEED + 16 + 16 + 16 + 1;
/// Where it says what was done: the ids of a session, of a thing and of a decision, zeros for none, and whether it was so already.
const DEED: usize = 8 + 32;

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
    let Deed { session, thing, decision, was_so } = taken.deed;
    let session = session.map(SessionId::to_bytes).unwrap_or_default();
    let decision = decision.map(DecisionId::to_bytes).unwrap_or_default();
    let rest = key(&[&taken.digest, &session, &thing.unwrap_or_default(), &decision, &[u8::from(was_so)]]);
    aged.put(taken.org, &taken.hash, taken.at, &rest)
}

/// What was done under a key; none if the row is too short to say it.
pub(crate) fn deed(value: &[u8]) -> Option<Deed> {
    // No id is zero, because none is made at time zero.
    let id = |at| part::<16>(value, at).map(|id| Some(id).filter(|id| *id != [0; 16]));
    Some(Deed {
        session: id(DEED)?.map(SessionId::from_bytes),
        thing: id(DEED + 16)?,
        decision: id(DEED + 32)?.map(DecisionId::from_bytes),
        was_so: *value.get(DEED + 48)? != 0,
    })
}

/// Forgets old keys of either kind with what they lead to, so many of each at most.
pub(crate) fn forget(tables: &mut Tables<'_>, org: OrgId, now: Timestamp, at_most: usize) -> Result<(), StoreFault> {
    let mut messages = Aged { rows: &mut tables.idempotency, ages: &mut tables.idempotency_age, kept: KEPT };
    messages.forget(org, now, at_most)?;
    let mut replies = Aged { rows: &mut tables.replies, ages: &mut tables.replies_age, kept: KEPT };
    replies.forget(org, now, at_most)
}

/// Adds the reply to a key that was taken for the same request, and is there still.
pub(crate) fn keep(tables: &mut Tables<'_>, reply: &SealedReply) -> Result<(), StoreFault> {
    let row = key(&[&reply.org.to_bytes(), &reply.hash]);
    let taken = tables.replies.get(&row)?.map(|taken| taken.value().to_vec());
    let Some(taken) = taken.filter(|taken| taken.len() == CLAIM && taken[8..DEED] == reply.digest) else {
        return Ok(());
    };
    tables.replies.insert(&row, &key(&[&taken, &reply.owner, &reply.envelope]))?;
    Ok(())
}
