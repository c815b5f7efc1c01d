//! Reading the outbox: what has happened in an organisation, from any place on.

use portcullis_core::{DomainEvent, EventId, EventKind, OrgId, OutboxPlace, SessionId, Timestamp};

use super::Snapshot;
use crate::error::ReadError;
use crate::keyfile::Owner;
use crate::outbox::{self, HEAD};
use crate::seal::Scope;
use crate::tables::{self, Definition, Prefix, key, number, part, session_of, session_part};

/// What can be said of an event without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Where it stands.
    pub place: OutboxPlace,
    /// The session that it is about.
    pub session: Option<SessionId>,
    /// What kind of event it is.
    pub kind: EventKind,
}

/// An event with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedEvent {
    /// Where it stands in its organisation's outbox.
    pub place: OutboxPlace,
    /// Its ordinal within its session, or among those events of its organisation that are about no session; the first is 1. An event that
    /// does not count ([`portcullis_core::EventBody::counts`]) has that of the event before it.
    pub seq: u64,
    /// The event.
    pub event: DomainEvent,
}

impl Snapshot {
    /// The last place of an organisation's outbox that was given out.
    pub fn outbox_end(&self, org: OrgId) -> Result<OutboxPlace, ReadError> {
        let row = self.table(tables::OUTBOX_ENDS)?.get(&outbox::end_row(org, None)[..])?;
        Ok(OutboxPlace(row.and_then(|row| number(row.value(), 0)).unwrap_or_default()))
    }

    /// At most `limit` events of an organisation, unopened, from the one after `after` on; of one session only, if one is named.
    pub fn outbox_after(
        &self,
        org: OrgId,
        session: Option<SessionId>,
        after: OutboxPlace,
        limit: usize,
    ) -> Result<Vec<OutboxEntry>, ReadError> {
        if session.is_some() {
            return self.outbox_about(org, session, after, limit);
        }
        let own = Prefix::new(&[&org.to_bytes()]);
        self.entries(tables::OUTBOX, &own, after, limit, |place, value| {
            let (session, kind, _) = outbox::parse(value)?;
            Some(OutboxEntry { place, session: session_of(session), kind })
        })
    }

    /// At most `limit` events about one session, or about none, unopened, from the one after `after` on.
    pub fn outbox_about(
        &self,
        org: OrgId,
        session: Option<SessionId>,
        after: OutboxPlace,
        limit: usize,
    ) -> Result<Vec<OutboxEntry>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes(), &session_part(session)]);
        self.entries(tables::EVENTS, &own, after, limit, |place, value| {
            Some(OutboxEntry { place, session, kind: EventKind::parse(*value.get(16)?)? })
        })
    }

    fn entries(
        &self,
        table: Definition,
        own: &Prefix,
        after: OutboxPlace,
        limit: usize,
        parse: impl Fn(OutboxPlace, &[u8]) -> Option<OutboxEntry>,
    ) -> Result<Vec<OutboxEntry>, ReadError> {
        let after = key(&[own.bytes(), &after.0.to_be_bytes()]);
        let mut found = Vec::new();
        for row in self.table(table)?.range::<&[u8]>(own.after(Some(&after)))?.take(limit) {
            let (row, value) = row?;
            let place = number(row.value(), own.bytes().len()).map(OutboxPlace);
            let entry = place.and_then(|place| parse(place, value.value()));
            found.push(entry.ok_or_else(|| ReadError::unopenable(table, row.value()))?);
        }
        Ok(found)
    }

    /// Whether something has happened after a place that an organisation's, or one session's, listeners may want to hear of.
    pub fn outbox_has_after(
        &self,
        org: OrgId,
        session: Option<SessionId>,
        after: OutboxPlace,
    ) -> Result<bool, ReadError> {
        Ok(!self.outbox_after(org, session, after, 1)?.is_empty())
    }

    /// The event at a place; none if it was forgotten, or erased with its session.
    pub fn event_at(
        &self,
        org: OrgId,
        session: Option<SessionId>,
        place: OutboxPlace,
    ) -> Result<Option<PlacedEvent>, ReadError> {
        let (table, session_bytes) = (tables::EVENTS, session_part(session));
        let row = key(&[&org.to_bytes(), &session_bytes, &place.0.to_be_bytes()]);
        let Some(value) = self.table(table)?.get(&row[..])? else { return Ok(None) };
        let value = value.value();
        let (Some(id), Some(seq), Some(scope)) = (value.get(..16), number(value, 17), value.get(HEAD)) else {
            return Err(ReadError::unopenable(table, &row));
        };
        let owner = Owner { org, session: session.filter(|_| *scope != Scope::Org as u8) };
        let event = self.decode(table, owner, &row, &key(&[&org.to_bytes(), &session_bytes, id]), value, HEAD)?;
        Ok(event.map(|event| PlacedEvent { place, seq, event }))
    }

    /// At most `limit` events of an organisation in the order of their commits, from the one after `after` on.
    pub fn events_after(&self, org: OrgId, after: OutboxPlace, limit: usize) -> Result<Vec<PlacedEvent>, ReadError> {
        let mut found = Vec::new();
        for entry in self.outbox_after(org, None, after, limit)? {
            found.extend(self.event_at(org, entry.session, entry.place)?);
        }
        Ok(found)
    }

    /// The place of an event, if it is among the latest `among` of its organisation.
    pub fn place_of(&self, org: OrgId, id: EventId, among: usize) -> Result<Option<OutboxPlace>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes()]);
        let events = self.table(tables::EVENTS)?;
        for row in self.table(tables::OUTBOX)?.range::<&[u8]>(own.span())?.rev().take(among) {
            let (row, value) = row?;
            let Some(place) = row.value().get(16..) else { continue };
            let Some(session) = part::<16>(value.value(), 0) else { continue };
            let event = events.get(&key(&[&org.to_bytes(), &session, place])[..])?;
            if event.is_some_and(|event| event.value().get(..16) == Some(&id.to_bytes()[..])) {
                return Ok(number(place, 0).map(OutboxPlace));
            }
        }
        Ok(None)
    }

    /// The first place of an organisation's outbox, and when what stands there happened.
    pub fn outbox_begin(&self, org: OrgId) -> Result<Option<(OutboxPlace, Timestamp)>, ReadError> {
        self.outbox_at(org, OutboxPlace(0))
    }

    /// The last place before which everything happened before `at`, or nearly so: what was committed at about the same time
    /// may have happened in another order.
    pub fn outbox_before(&self, org: OrgId, at: Timestamp) -> Result<OutboxPlace, ReadError> {
        let (mut low, mut high) = (0, self.outbox_end(org)?.0);
        // Everything up to `low` was before `at`, and everything beyond `high` was not.
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            match self.outbox_at(org, OutboxPlace(middle))? {
                Some((place, when)) if when < at => low = place.0.max(middle),
                Some(_) | None => high = middle - 1,
            }
        }
        Ok(OutboxPlace(low))
    }

    /// The first event at a place or after it, and when it happened.
    fn outbox_at(&self, org: OrgId, from: OutboxPlace) -> Result<Option<(OutboxPlace, Timestamp)>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes()]);
        let from = key(&[&org.to_bytes(), &from.0.to_be_bytes()]);
        let Some(row) = self.table(tables::OUTBOX)?.range::<&[u8]>(own.from(&from))?.next() else { return Ok(None) };
        let (row, value) = row?;
        match (number(row.value(), 16), outbox::parse(value.value())) {
            (Some(place), Some((_, _, at))) => Ok(Some((OutboxPlace(place), at))),
            _ => Err(ReadError::unopenable(tables::OUTBOX, row.value())),
        }
    }
}
