//! Deliveries inside the writer's transaction: rows, the queue of those that wait, the list of those that were given up,
//! and how far webhooks have come.

use portcullis_core::{DeliveryKey, DeliveryState, Line, OrgId, PluginId, Timestamp, WebhookId};

use crate::commit::DeliveryPlace;
use crate::error::StoreFault;
use crate::step::{Prepared, Queued};
use crate::tables::{Prefix, Tables, key, number, part};

/// Bytes of the head of a row: state, due, time, when it changed, session or zeros, id.
pub(crate) const HEAD: usize = 1 + 8 + 8 + 8 + 16 + 16;
/// Where a session stands in a head.
pub(crate) const SESSION: usize = 1 + 8 + 8 + 8;
/// Bytes of a line in keys.
pub(crate) const LINE: usize = 1 + 16;
/// Bytes of a row's key.
const ROW: usize = 16 + LINE + 8 + 1;

/// How much of a plugin's requests may wait in an organisation.
pub const PLUGIN_REQUESTS_MAX: usize = 1_000;

const WAITING: u8 = 0;
const DELIVERED: u8 = 1;
const DEAD: u8 = 2;

/// A line as it stands in keys.
pub(crate) fn line_part(line: Line) -> [u8; LINE] {
    let (tag, id) = match line {
        Line::Webhook(id) => (0, id.to_bytes()),
        Line::Plugin(id) => (1, id.to_bytes()),
    };
    let mut part = [tag; LINE];
    part[1..].copy_from_slice(&id);
    part
}

/// The line that stands in a key.
pub(crate) fn line_of(bytes: &[u8]) -> Option<Line> {
    let id = part(bytes, 1)?;
    match bytes.first()? {
        0 => Some(Line::Webhook(WebhookId::from_bytes(id))),
        1 => Some(Line::Plugin(PluginId::from_bytes(id))),
        _ => None,
    }
}

/// The key of a delivery's row.
pub(crate) fn row(org: OrgId, of: DeliveryKey) -> Vec<u8> {
    key(&[&org.to_bytes(), &line_part(of.line), &of.place.0.to_be_bytes(), &[of.part]])
}

/// What a row's envelope is bound to. The place is not known when a delivery is sealed together with its event.
pub(crate) fn bound(org: OrgId, line: Line, id: [u8; 16], part: u8) -> Vec<u8> {
    key(&[&org.to_bytes(), &line_part(line), &id, &[part]])
}

/// The beginning of a row's value.
pub(crate) fn head(
    state: DeliveryState,
    at: Timestamp,
    changed_at: Timestamp,
    session: [u8; 16],
    id: [u8; 16],
) -> [u8; HEAD] {
    let (state, due) = match state {
        DeliveryState::Waiting { due } => (WAITING, due),
        DeliveryState::Delivered => (DELIVERED, Timestamp::default()),
        DeliveryState::Dead => (DEAD, Timestamp::default()),
    };
    let mut head = [0; HEAD];
    head[0] = state;
    head[1..9].copy_from_slice(&due.as_millis().to_be_bytes());
    head[9..17].copy_from_slice(&at.as_millis().to_be_bytes());
    head[17..25].copy_from_slice(&changed_at.as_millis().to_be_bytes());
    head[25..41].copy_from_slice(&session);
    head[41..].copy_from_slice(&id);
    head
}

/// How far a delivery is, by the head of its row.
pub(crate) fn state(value: &[u8]) -> Option<DeliveryState> {
    match *value.first()? {
        WAITING => Some(DeliveryState::Waiting { due: Timestamp::from_millis(number(value, 1)?) }),
        DELIVERED => Some(DeliveryState::Delivered),
        DEAD => Some(DeliveryState::Dead),
        _ => None,
    }
}

/// Where a row stands in the indexes: the one of those that wait, or the one of those that were given up.
pub(crate) enum Listed {
    Due(Vec<u8>),
    Dead(Vec<u8>),
    Nowhere,
}

impl Listed {
    pub(crate) fn of(row: &[u8], value: &[u8]) -> Self {
        match (row.split_at_checked(16 + LINE), state(value)) {
            (Some((line, place)), Some(DeliveryState::Waiting { .. })) => Self::Due(key(&[line, &value[1..9], place])),
            (Some(_), Some(DeliveryState::Dead)) => Self::Dead(row.to_vec()),
            _ => Self::Nowhere,
        }
    }
}

/// Keeps a delivery as it is now.
pub(crate) fn put(tables: &mut Tables<'_>, row: &[u8], value: &[u8]) -> Result<(), StoreFault> {
    let old = tables.deliveries.insert(row, value)?.map(|old| Listed::of(row, old.value()));
    unlist(tables, old)?;
    match Listed::of(row, value) {
        Listed::Due(due) => drop(tables.deliveries_due.insert(&due, &[])?),
        Listed::Dead(dead) => drop(tables.dead_letters.insert(&dead, &[])?),
        Listed::Nowhere => {}
    }
    Ok(())
}

/// Keeps a delivery as it is now. A request of a plugin that has gone meanwhile is not kept anew.
pub(crate) fn keep(tables: &mut Tables<'_>, row: &[u8], value: &[u8]) -> Result<(), StoreFault> {
    let is_request = matches!(row.get(16..).and_then(line_of), Some(Line::Plugin(_)));
    if is_request && tables.deliveries.get(row)?.is_none() {
        return Ok(());
    }
    put(tables, row, value)
}

/// Forgets what waits of a plugin, which is no more than may wait. The rest is forgotten with its age.
pub(crate) fn remove_waiting(tables: &mut Tables<'_>, org: OrgId, plugin: PluginId) -> Result<(), StoreFault> {
    let own = key(&[&org.to_bytes(), &line_part(Line::Plugin(plugin))]);
    let mut rows = Vec::new();
    for due in tables.deliveries_due.range(Prefix::new(&[&own]).span())? {
        let (due, _) = due?;
        // The time stands between the line and the place.
        if let Some(place) = due.value().get(16 + LINE + 8..) {
            rows.push(key(&[&own, place]));
        }
    }
    for row in rows {
        remove(tables, &row)?;
    }
    Ok(())
}

/// Forgets a delivery, if it is there.
pub(crate) fn remove(tables: &mut Tables<'_>, row: &[u8]) -> Result<(), StoreFault> {
    let old = tables.deliveries.remove(row)?.map(|old| Listed::of(row, old.value()));
    unlist(tables, old)
}

fn unlist(tables: &mut Tables<'_>, old: Option<Listed>) -> Result<(), StoreFault> {
    match old {
        Some(Listed::Due(due)) => drop(tables.deliveries_due.remove(&due)?),
        Some(Listed::Dead(dead)) => drop(tables.dead_letters.remove(&dead)?),
        Some(Listed::Nowhere) | None => {}
    }
    Ok(())
}

/// Puts a delivery into its line at the place of its event, or at one of its own.
pub(crate) fn queue(
    tables: &mut Tables<'_>,
    org: OrgId,
    queued: &Queued,
    places: &[u64],
    own: impl FnOnce(&Tables<'_>) -> Result<u64, StoreFault>,
) -> Result<(), StoreFault> {
    let place = match queued.at {
        DeliveryPlace::Event(index) => match places.get(index) {
            Some(place) => *place,
            // Nothing of an organisation that goes is kept, its events as little as their deliveries.
            None => return Ok(()),
        },
        DeliveryPlace::Next => own(tables)?,
    };
    let row = key(&[&org.to_bytes(), &queued.line, &place.to_be_bytes(), &[queued.part]]);
    put(tables, &row, &queued.value)
}

/// Whether no plugin would have too many requests waiting; the one that would.
pub(crate) fn check(tables: &Tables<'_>, commit: &Prepared) -> Result<Option<PluginId>, StoreFault> {
    for (index, queued) in commit.queued.iter().enumerate() {
        let Some(Line::Plugin(plugin)) = line_of(&queued.line) else { continue };
        if commit.queued[..index].iter().any(|earlier| earlier.line == queued.line) {
            continue;
        }
        let more = commit.queued.iter().filter(|other| other.line == queued.line).count();
        let own = Prefix::new(&[&commit.org.to_bytes(), &queued.line]);
        let waiting = tables.deliveries_due.range(own.span())?.take(PLUGIN_REQUESTS_MAX + 1).count();
        if waiting + more > PLUGIN_REQUESTS_MAX {
            return Ok(Some(plugin));
        }
    }
    Ok(None)
}

/// Says how far a webhook has come, if it is still there. It never goes back: one that was made active again meanwhile hears of
/// what comes after that.
pub(crate) fn progress(tables: &mut Tables<'_>, row: &[u8], value: &[u8]) -> Result<(), StoreFault> {
    let known = tables.progress.get(row)?.map(|known| known.value().to_vec());
    let Some(known) = known else { return Ok(()) };
    if known.get(..8) > value.get(..8) {
        let value = key(&[&known[..8], value.get(8..).unwrap_or_default()]);
        tables.progress.insert(row, &value)?;
    } else {
        tables.progress.insert(row, value)?;
    }
    Ok(())
}

/// A webhook hears of what comes after this place.
pub(crate) fn begin_after(tables: &mut Tables<'_>, row: &[u8], place: u64) -> Result<(), StoreFault> {
    tables.progress.insert(row, &progress_value(place, None))?;
    Ok(())
}

/// What is kept of how far a webhook has come.
pub(crate) fn progress_value(through: u64, failing_since: Option<Timestamp>) -> Vec<u8> {
    key(&[&through.to_be_bytes(), &failing_since.unwrap_or_default().as_millis().to_be_bytes()])
}

/// Forgets what is remembered of a line up to a place, but for what still waits, and no more than so many.
pub(crate) fn forget(
    tables: &mut Tables<'_>,
    org: OrgId,
    line: Line,
    through: u64,
    at_most: usize,
) -> Result<(), StoreFault> {
    let (org, line) = (org.to_bytes(), line_part(line));
    let first = key(&[&org, &line]);
    let last = key(&[&org, &line, &through.to_be_bytes(), &[u8::MAX]]);
    let mut rows = Vec::new();
    for row in tables.deliveries.range(&first[..]..=&last[..])?.take(at_most) {
        rows.push(row?.0.value().to_vec());
    }
    for row in rows {
        remove(tables, &row)?;
    }
    Ok(())
}

/// The parts of a row's key after its organisation.
pub(crate) fn key_of(row: &[u8]) -> Option<DeliveryKey> {
    if row.len() != ROW {
        return None;
    }
    let line = line_of(row.get(16..16 + LINE)?)?;
    let place = portcullis_core::OutboxPlace(number(row, 16 + LINE)?);
    Some(DeliveryKey { line, place, part: *row.last()? })
}
