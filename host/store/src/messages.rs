//! Remembered messages inside the writer's transaction: rows, the queue of those that are open, and the ages of the others.
//!
//! A message is in exactly one of the two indexes: `messages-open` for as long as something is still to happen to it, and
//! `messages-age` from then on, until it is old enough to be forgotten. What is open is never forgotten.

use std::time::Duration;

use portcullis_core::{MessageId, OrgId, OutgoingMessage, SessionId, Timestamp};

use crate::commit::{MessagePhase, QuotaKind};
use crate::counts::Counts;
use crate::error::StoreFault;
use crate::tables::{Prefix, Tables, heads, key, number, remove_prefix};

/// Bytes of the head of a row: phase, when it changed.
pub(crate) const HEAD: usize = 1 + 8;
/// For how long a message is kept to which nothing more will happen.
pub(crate) const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// At most so many old messages go with a new one.
const PRUNED_AT_ONCE: usize = 4;

/// The head of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) phase: MessagePhase,
    pub(crate) changed: Timestamp,
}

impl Head {
    pub(crate) fn of(message: &OutgoingMessage) -> Self {
        Self { phase: (&message.state).into(), changed: message.updated_at }
    }

    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let phase = MessagePhase::parse(*value.first()?)?;
        Some(Self { phase, changed: Timestamp::from_millis(number(value, 1)?) })
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        key(&[&[self.phase as u8], &self.changed.as_millis().to_be_bytes()])
    }

    /// The message's place among those to which nothing more will happen; `None` while it is open.
    pub(crate) fn age_row(self, row: &[u8]) -> Option<Vec<u8>> {
        let (org, rest) = row.split_at_checked(16).filter(|_| !self.phase.is_open())?;
        Some(key(&[org, &self.changed.as_millis().to_be_bytes(), rest]))
    }
}

/// The key of a message's row.
pub(crate) fn row(org: OrgId, session: SessionId, id: MessageId) -> Vec<u8> {
    key(&[&org.to_bytes(), &session.to_bytes(), &id.to_bytes()])
}

/// The phase of a message; `None` if there is no such message.
pub(crate) fn phase(tables: &Tables<'_>, row: &[u8]) -> Result<Option<MessagePhase>, StoreFault> {
    Ok(tables.messages.get(row)?.and_then(|value| Head::parse(value.value())).map(|head| head.phase))
}

/// Remembers a message or how far it has come. With a new one, a few old ones of its organisation go.
pub(crate) fn put(
    tables: &mut Tables<'_>,
    counts: &mut Counts,
    row: &[u8],
    value: &[u8],
    now: Timestamp,
) -> Result<(), StoreFault> {
    let old = tables.messages.insert(row, value)?.map(|old| Head::parse(old.value()));
    let is_new = old.is_none();
    leave(tables, counts, row, old.flatten())?;
    let Some(head) = Head::parse(value) else { return Ok(()) };
    match head.age_row(row) {
        Some(age) => tables.messages_age.insert(&age[..], &[][..])?,
        None => tables.messages_open.insert(row, &[][..])?,
    };
    counts.add(QuotaKind::QueuedMessages, head.phase.is_open());
    if is_new { prune(tables, &row[..16], now, PRUNED_AT_ONCE) } else { Ok(()) }
}

/// Removes the messages of a session.
pub(crate) fn remove_of_session(
    tables: &mut Tables<'_>,
    counts: &mut Counts,
    org: OrgId,
    session: SessionId,
) -> Result<(), StoreFault> {
    let own = Prefix::new(&[&org.to_bytes(), &session.to_bytes()]);
    for (row, head) in heads(&tables.messages, &own, HEAD)? {
        leave(tables, counts, &row, Head::parse(&head))?;
    }
    remove_prefix(&mut tables.messages, &own)
}

/// Takes a message out of the index that it stands in, and out of the count.
fn leave(tables: &mut Tables<'_>, counts: &mut Counts, row: &[u8], head: Option<Head>) -> Result<(), StoreFault> {
    let Some(head) = head else { return Ok(()) };
    match head.age_row(row) {
        Some(age) => tables.messages_age.remove(&age[..])?,
        None => tables.messages_open.remove(row)?,
    };
    if head.phase.is_open() {
        counts.take(QuotaKind::QueuedMessages);
    }
    Ok(())
}

/// Forgets the oldest messages of an organisation that are old enough, so many of them at most.
pub(crate) fn prune(tables: &mut Tables<'_>, org: &[u8], now: Timestamp, at_most: usize) -> Result<(), StoreFault> {
    let mut old = Vec::new();
    for age in tables.messages_age.range(Prefix::new(&[org]).span())?.take(at_most) {
        let (age, _) = age?;
        let changed = number(age.value(), 16).map(Timestamp::from_millis);
        if changed.is_none_or(|changed| now.since(changed) < KEPT) {
            break;
        }
        old.push(age.value().to_vec());
    }
    for age in old {
        tables.messages.remove(&key(&[org, &age[24..]])[..])?;
        tables.messages_age.remove(&age[..])?;
    }
    Ok(())
}
