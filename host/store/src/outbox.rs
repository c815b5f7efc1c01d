//! The outbox inside the writer's transaction: an organisation's events in the order of their commits, and where it ends.
//!
//! Places and ordinals are given out here, because only the writer knows the order. The last ones given out are rows of their
//! own: what is forgotten leaves no gap to be filled again, and a batch writes each of them once, however many events it has.

use std::collections::HashMap;

use portcullis_core::{DeliveryState, EventKind, OrgId, SessionId, Timestamp};

use crate::error::StoreFault;
use crate::seal::Scope;
use crate::step::SealedEvent;
use crate::tables::{NO_SESSION, Prefix, Rows, Tables, key, number, part};
use crate::{deliveries, webhooks};

/// Bytes of the head of an event's row: its id, its kind, its ordinal.
pub(crate) const HEAD: usize = 16 + 1 + 8;
/// Where the ordinal stands in a head.
const ORDINAL: usize = 16 + 1;

/// The last places and ordinals that were given out, as far as this batch has asked or changed them.
#[derive(Default)]
pub(crate) struct Ends {
    /// By organisation, and by session (or none) for ordinals.
    known: HashMap<(OrgId, Option<[u8; 16]>), u64>,
}

impl Ends {
    /// The last place of an organisation's outbox.
    pub(crate) fn place(&mut self, tables: &Tables<'_>, org: OrgId) -> Result<u64, StoreFault> {
        Ok(*self.last(tables, org, None)?)
    }

    /// The next place of an organisation's outbox.
    pub(crate) fn next_place(&mut self, tables: &Tables<'_>, org: OrgId) -> Result<u64, StoreFault> {
        let last = self.last(tables, org, None)?;
        *last += 1;
        Ok(*last)
    }

    /// The ordinal of an event. One that does not count has that of the event before it.
    fn ordinal(&mut self, tables: &Tables<'_>, org: OrgId, event: &SealedEvent) -> Result<u64, StoreFault> {
        let last = self.last(tables, org, Some(event.session))?;
        *last += u64::from(event.counts);
        Ok(*last)
    }

    /// An organisation is gone, and a new one of the same id would begin anew.
    pub(crate) fn forget_org(&mut self, org: OrgId) {
        self.known.retain(|(of, _), _| *of != org);
    }

    /// Makes the ends those of the store.
    pub(crate) fn write(&self, tables: &mut Tables<'_>) -> Result<(), StoreFault> {
        for ((org, session), last) in &self.known {
            let row = end_row(*org, session.as_ref());
            if end(&tables.outbox_ends, &row)? != *last {
                tables.outbox_ends.insert(&row, &last.to_be_bytes())?;
            }
        }
        Ok(())
    }

    fn last(&mut self, tables: &Tables<'_>, org: OrgId, session: Option<[u8; 16]>) -> Result<&mut u64, StoreFault> {
        use std::collections::hash_map::Entry;
        Ok(match self.known.entry((org, session)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(end(&tables.outbox_ends, &end_row(org, session.as_ref()))?),
        })
    }
}

/// Writes an event behind all others of its organisation; its place.
pub(crate) fn put(
    tables: &mut Tables<'_>,
    ends: &mut Ends,
    org: OrgId,
    event: &mut SealedEvent,
) -> Result<u64, StoreFault> {
    let place = ends.next_place(tables, org)?;
    let ordinal = ends.ordinal(tables, org, event)?;
    event.value[ORDINAL..HEAD].copy_from_slice(&ordinal.to_be_bytes());
    let (org, place_part) = (org.to_bytes(), place.to_be_bytes());
    tables.events.insert(&key(&[&org, &event.session, &place_part]), &event.value)?;
    let entry = key(&[&event.session, &[event.kind as u8], &event.at.as_millis().to_be_bytes()]);
    tables.outbox.insert(&key(&[&org, &place_part]), &entry)?;
    Ok(place)
}

/// The head of an event's row whose ordinal is not known yet.
pub(crate) fn head(id: [u8; 16], kind: EventKind) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..16].copy_from_slice(&id);
    head[16] = kind as u8;
    head
}

/// How far everybody has come who is told of a session.
pub(crate) fn told_through(tables: &Tables<'_>, org: OrgId, session: SessionId) -> Result<Vec<Listener>, StoreFault> {
    let org = org.to_bytes();
    let mut listeners = Vec::new();
    for of in [NO_SESSION, session.to_bytes()] {
        for row in tables.session_webhooks.range(Prefix::new(&[&org, &of]).span())? {
            let (row, _) = row?;
            let webhook = key(&[&org, &row.value()[32..]]);
            if !tables.webhooks.get(&webhook)?.is_some_and(|row| webhooks::is_told(row.value())) {
                continue;
            }
            let through = tables.progress.get(&webhook)?.and_then(|progress| number(progress.value(), 0));
            let line = key(&[&org, &[0], &webhook[16..]]);
            let has_waiting = tables.deliveries_due.range(Prefix::new(&[&line]).span())?.next().is_some();
            listeners.push(Listener { line, through: through.unwrap_or_default(), has_waiting });
        }
    }
    Ok(listeners)
}

/// A webhook that is told of a session.
pub(crate) struct Listener {
    /// Its line, as it begins keys.
    line: Vec<u8>,
    /// Everything up to here is delivered or remembered.
    through: u64,
    /// Whether anything waits for another try.
    has_waiting: bool,
}

impl Listener {
    /// Whether an event was not told yet.
    fn waits_for(&self, tables: &Tables<'_>, place: u64) -> Result<bool, StoreFault> {
        if place > self.through || !self.has_waiting {
            return Ok(place > self.through);
        }
        let parts = Prefix::new(&[&self.line, &place.to_be_bytes()]);
        for row in tables.deliveries.range(parts.span())? {
            if matches!(deliveries::state(row?.1.value()), Some(DeliveryState::Waiting { .. })) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Takes the events of a session out that its key has sealed. Answers how many of them some listener was not told yet.
pub(crate) fn remove_of_session(
    tables: &mut Tables<'_>,
    org: OrgId,
    session: [u8; 16],
    listeners: &[Listener],
) -> Result<u64, StoreFault> {
    let org = org.to_bytes();
    let own = Prefix::new(&[&org, &session]);
    let mut removed = Vec::new();
    for row in tables.events.range(own.span())? {
        let (row, value) = row?;
        if value.value().get(HEAD) != Some(&(Scope::Org as u8)) {
            removed.push(row.value().to_vec());
        }
    }
    let mut untold = 0;
    for row in removed {
        let place = number(&row, 32).unwrap_or_default();
        for listener in listeners {
            if listener.waits_for(tables, place)? {
                untold += 1;
                break;
            }
        }
        tables.events.remove(&row)?;
        tables.outbox.remove(&key(&[&org, &row[32..]]))?;
    }
    Ok(untold)
}

/// Takes the oldest events of an organisation out, up to a place, and no more than so many.
pub(crate) fn forget(
    tables: &mut Tables<'_>,
    ends: &mut Ends,
    org: OrgId,
    through: u64,
    at_most: usize,
) -> Result<(), StoreFault> {
    let org_part = org.to_bytes();
    let (first, last) = (key(&[&org_part, &0_u64.to_be_bytes()]), key(&[&org_part, &through.to_be_bytes()]));
    let mut rows = Vec::new();
    for row in tables.outbox.range(&first[..]..=&last[..])?.take(at_most) {
        let (row, value) = row?;
        rows.push((row.value().to_vec(), part::<16>(value.value(), 0).unwrap_or(NO_SESSION)));
    }
    for (row, session) in rows {
        tables.outbox.remove(&row)?;
        tables.events.remove(&key(&[&org_part, &session, &row[16..]]))?;
        let own = Prefix::new(&[&org_part, &session]);
        let gone = session != NO_SESSION
            && tables.sessions.get(&key(&[&org_part, &session]))?.is_none()
            && tables.events.range(own.span())?.next().is_none();
        if gone {
            // Nothing will happen any more to a session that is gone, so that nobody asks for its ordinals.
            ends.known.remove(&(org, Some(session)));
            tables.outbox_ends.remove(&key(&[&org_part, &session]))?;
        }
    }
    Ok(())
}

/// What the outbox says of an event: its session or zeros, its kind, and when it was.
pub(crate) fn parse(entry: &[u8]) -> Option<([u8; 16], EventKind, Timestamp)> {
    Some((part(entry, 0)?, EventKind::parse(*entry.get(16)?)?, Timestamp::from_millis(number(entry, 17)?)))
}

pub(crate) fn end_row(org: OrgId, session: Option<&[u8; 16]>) -> Vec<u8> {
    key(&[&org.to_bytes(), session.map_or(&[][..], |session| &session[..])])
}

fn end(rows: &Rows<'_>, row: &[u8]) -> Result<u64, StoreFault> {
    Ok(rows.get(row)?.and_then(|row| number(row.value(), 0)).unwrap_or_default())
}
