//! Reading remembered messages, and what idempotency keys lead to.

use std::time::Duration;

use portcullis_core::{MessageId, OrgId, OutgoingMessage, SessionId, Timestamp};

use super::{Snapshot, owner_session};
use crate::aged;
use crate::commit::{KnownReply, KnownRequest};
use crate::erase;
use crate::error::ReadError;
use crate::facts;
use crate::idempotency::{self, CLAIM, REPLY_HEAD};
use crate::keyfile::Owner;
use crate::messages::{self, HEAD};
use crate::tables::{self, Prefix, key, part};

impl Snapshot {
    /// One remembered message.
    pub fn message(&self, org: OrgId, session: SessionId, id: MessageId) -> Result<Option<OutgoingMessage>, ReadError> {
        let row = messages::row(org, session, id);
        self.get(tables::MESSAGES, Owner::session(org, session), &row, HEAD)
    }

    /// At most `limit` remembered messages of a session, newest first, from the one before `before` on.
    pub fn messages(
        &self,
        org: OrgId,
        session: SessionId,
        before: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<OutgoingMessage>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes(), &session.to_bytes()]);
        let before = before.map(|id| messages::row(org, session, id));
        self.list(tables::MESSAGES, own.before(before.as_deref()), true, limit, HEAD, owner_session)
    }

    /// Every message of every organisation that is queued or being sent, for boot: those of one session in the order in
    /// which they were asked for.
    pub fn every_open_message(&self, mut each: impl FnMut(OutgoingMessage)) -> Result<(), ReadError> {
        let rows = self.table(tables::MESSAGES)?;
        for row in self.table(tables::MESSAGES_OPEN)?.range::<&[u8]>(..)? {
            let (row, _) = row?;
            let row = row.value();
            let Some(value) = rows.get(row)? else { continue };
            if let Some(message) = self.decode_owned(tables::MESSAGES, row, value.value(), HEAD, owner_session)? {
                each(message);
            }
        }
        Ok(())
    }

    /// The request that an idempotency key stands for since 24 hours at most, if it is not one for a message.
    pub fn request(&self, org: OrgId, name: &str, now: Timestamp) -> Result<Option<KnownRequest>, ReadError> {
        let row = key(&[&org.to_bytes(), &self.shared.ring.hashes.idempotency(org, name)]);
        let Some(value) = self.table(tables::REPLIES)?.get(&row[..])? else { return Ok(None) };
        let value = value.value();
        if !idempotency::holds(value, now) {
            return Ok(None);
        }
        let digest = part(value, 8).ok_or_else(|| ReadError::unopenable(tables::REPLIES, &row))?;
        let reply = match value.get(CLAIM..).and_then(erase::owner_of) {
            None => {
                let deed = idempotency::deed(value);
                KnownReply::Unkept(deed.ok_or_else(|| ReadError::unopenable(tables::REPLIES, &row))?)
            }
            Some(owner) => match self.open(tables::REPLIES, owner, &row, &row, value, REPLY_HEAD)? {
                Some(reply) => KnownReply::Kept(reply),
                None => KnownReply::Gone,
            },
        };
        Ok(Some(KnownRequest { digest, reply }))
    }

    /// Whether an organisation has something that [`crate::Write::ForgetExpired`] would forget.
    pub fn has_expired(&self, org: OrgId, now: Timestamp) -> Result<bool, ReadError> {
        for (ages, kept) in [
            (tables::IDEMPOTENCY_AGE, idempotency::KEPT),
            (tables::REPLIES_AGE, idempotency::KEPT),
            (tables::FACTS_AGE, facts::KEPT),
            (tables::MESSAGES_AGE, messages::KEPT),
            (tables::CONFIRMATIONS_AGE, Duration::ZERO),
        ] {
            if aged::has_old(&self.table(ages)?, org, now, kept)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The session and the message to which an idempotency key has led within the last 24 hours.
    ///
    /// The message may be gone: erasing a session takes its messages, and leaves what leads there, which is ids only.
    /// The key is in use all the same, and a commit that brings it is refused until its day is over: the message may
    /// have been sent before it went. Whoever finds no message here says so, and does not try again.
    pub fn idempotency(
        &self,
        org: OrgId,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<(SessionId, MessageId)>, ReadError> {
        let row = key(&[&org.to_bytes(), &self.shared.ring.hashes.idempotency(org, name)]);
        let rows = self.table(tables::IDEMPOTENCY)?;
        let Some(value) = rows.get(&row[..])? else { return Ok(None) };
        let value = value.value();
        if !idempotency::holds(value, now) {
            return Ok(None);
        }
        let (Some(session), Some(message)) = (part(value, 8), part(value, 24)) else {
            return Err(ReadError::unopenable(tables::IDEMPOTENCY, &row));
        };
        Ok(Some((SessionId::from_bytes(session), MessageId::from_bytes(message))))
    }
}
