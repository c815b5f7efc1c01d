//! Timers of plugins inside the writer's transaction: rows, the queue by which the next ones are found, and how many each
//! plugin has set in each organisation.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use portcullis_core::{BindingId, OrgId, PluginId, SessionId, Timestamp};

use crate::apply::Batch;
use crate::commit::PluginTimer;
use crate::counts;
use crate::error::{CommitError, StoreFault};
use crate::seal::Envelope;
use crate::snapshot::owner_in_head;
use crate::step::{Prepared, Step};
use crate::tables::{self, Prefix, Tables, heads, key, number, part, remove_prefix};

/// How many timers a plugin may have set in an organisation.
pub const TIMERS_MAX: u32 = 1_000;

/// Bytes of the head of a row: due, session or zeros.
pub(crate) const HEAD: usize = 8 + 16;
/// Bytes of the key of a row that say whose it is: org, plugin.
const OWNER: usize = 16 + 16;

/// A timer's place in the index: its organisation, when it is due, and the rest of its row's key.
pub(crate) fn due_row(row: &[u8], due: &[u8]) -> Vec<u8> {
    let (org, rest) = row.split_at(row.len().min(16));
    key(&[org, due, rest])
}

/// Whether every timer that has fired is still set for when it fired: who takes it back meanwhile is not ignored.
pub(crate) fn check_fired(tables: &Tables<'_>, commit: &Prepared) -> Result<(), CommitError> {
    for step in &commit.steps {
        if let Step::CancelTimer { key, due: Some(due) } = step
            && set_for(tables, key)? != Some(due.as_millis())
        {
            return Err(CommitError::Conflict);
        }
    }
    Ok(())
}

/// Whether no plugin would have too many timers. A commit that sets no more than it takes back always holds.
pub(crate) fn check(tables: &Tables<'_>, commit: &Prepared) -> Result<(), CommitError> {
    let mut due_of: BTreeMap<&[u8], Option<u64>> = BTreeMap::new();
    let mut more: BTreeMap<&[u8], i64> = BTreeMap::new();
    for step in &commit.steps {
        let (row, due) = match step {
            Step::SetTimer { key, due, .. } => (key, Some(*due)),
            Step::CancelTimer { key, due } => (key, *due),
            _ => continue,
        };
        let before = match due_of.entry(row) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(vacant) => *vacant.insert(set_for(tables, row)?),
        };
        let after = match step {
            Step::SetTimer { due, .. } => Some(due.as_millis()),
            _ if due.is_none_or(|due| before == Some(due.as_millis())) => None,
            _ => before,
        };
        due_of.insert(row, after);
        *more.entry(&row[..OWNER]).or_default() += i64::from(after.is_some()) - i64::from(before.is_some());
    }
    for (owner, more) in more.into_iter().filter(|(_, more)| *more > 0) {
        if i64::from(counts::held(&tables.timer_counts, owner)?) + more > i64::from(TIMERS_MAX) {
            let plugin = part(owner, 16).map(PluginId::from_bytes).expect("the slice is so long");
            return Err(CommitError::TimerQuota { plugin });
        }
    }
    Ok(())
}

/// Sets a timer, or moves the one with its key.
pub(crate) fn set(tables: &mut Tables<'_>, row: &[u8], due: Timestamp, value: &[u8]) -> Result<(), StoreFault> {
    let old = tables.timers.insert(row, value)?.map(|old| number(old.value(), 0));
    if old.is_none() {
        counts::add(&mut tables.timer_counts, &row[..OWNER], 1)?;
    }
    if let Some(old) = old.flatten() {
        tables.timers_due.remove(&due_row(row, &old.to_be_bytes())[..])?;
    }
    tables.timers_due.insert(&due_row(row, &due.as_millis().to_be_bytes())[..], &[][..])?;
    Ok(())
}

/// Takes a timer back, if it is set, and if it is set for `due` where that is given.
pub(crate) fn cancel(tables: &mut Tables<'_>, row: &[u8], due: Option<Timestamp>) -> Result<(), StoreFault> {
    match set_for(tables, row)? {
        Some(at) if due.is_none_or(|due| due.as_millis() == at) => remove(tables, row, at),
        _ => Ok(()),
    }
}

/// Removes the timers about a session. It looks at all timers of the organisation.
pub(crate) fn remove_of_session(tables: &mut Tables<'_>, org: OrgId, session: SessionId) -> Result<(), StoreFault> {
    for (row, head) in heads(&tables.timers, &Prefix::new(&[&org.to_bytes()]), HEAD)? {
        if head.get(8..) == Some(&session.to_bytes()[..]) {
            remove(tables, &row, number(&head, 0).unwrap_or_default())?;
        }
    }
    Ok(())
}

/// Removes the timers that a plugin has set in an organisation.
pub(crate) fn remove_of_plugin(tables: &mut Tables<'_>, org: OrgId, plugin: PluginId) -> Result<(), StoreFault> {
    let owner = key(&[&org.to_bytes(), &plugin.to_bytes()]);
    if tables.timer_counts.remove(&owner[..])?.is_none() {
        return Ok(());
    }
    let own = Prefix::new(&[&owner]);
    for (row, due) in heads(&tables.timers, &own, 8)? {
        tables.timers_due.remove(&due_row(&row, &due)[..])?;
    }
    remove_prefix(&mut tables.timers, &own)
}

/// Removes the timers that a plugin has set in an organisation under one of its bindings.
/// Under which binding a timer was set stands under its seal, so all timers of the plugin are opened.
pub(crate) fn remove_of_binding(
    tables: &mut Tables<'_>,
    batch: &Batch<'_>,
    org: OrgId,
    plugin: PluginId,
    binding: BindingId,
) -> Result<(), StoreFault> {
    let owner = key(&[&org.to_bytes(), &plugin.to_bytes()]);
    if counts::held(&tables.timer_counts, &owner)? == 0 {
        return Ok(());
    }
    let mut found = Vec::new();
    for row in tables.timers.range(Prefix::new(&[&owner]).span())? {
        let (row, value) = row?;
        let (row, value) = (row.value(), value.value());
        if open(batch, row, value).is_some_and(|timer| timer.binding == binding) {
            found.push((row.to_vec(), number(value, 0).unwrap_or_default()));
        }
    }
    found.into_iter().try_for_each(|(row, due)| remove(tables, &row, due))
}

fn remove(tables: &mut Tables<'_>, row: &[u8], due: u64) -> Result<(), StoreFault> {
    tables.timers_due.remove(&due_row(row, &due.to_be_bytes())[..])?;
    tables.timers.remove(row)?;
    counts::add(&mut tables.timer_counts, &row[..OWNER], -1)
}

fn set_for(tables: &Tables<'_>, row: &[u8]) -> Result<Option<u64>, StoreFault> {
    Ok(tables.timers.get(row)?.and_then(|row| number(row.value(), 0)))
}

fn open(batch: &Batch<'_>, row: &[u8], value: &[u8]) -> Option<PluginTimer> {
    let key = batch.living(owner_in_head(row, value)?)?;
    let plain = key.open(tables::name(tables::TIMERS), row, &Envelope::parse(value.get(HEAD..)?)?)?;
    serde_json::from_slice(&plain).ok()
}
