//! Errands inside the writer's transaction: rows, their count, and the index by which the next ones are found.

use portcullis_core::{ErrandId, OrgId};

use crate::commit::QuotaKind;
use crate::counts::Counts;
use crate::error::StoreFault;
use crate::tables::{Prefix, Tables, heads, key};

/// Bytes of the head of a row: due, session or zeros, binding, plugin.
pub(crate) const HEAD: usize = 8 + 16 + 16 + 16;

/// The key of an errand's row.
pub(crate) fn row(org: OrgId, id: ErrandId) -> Vec<u8> {
    key(&[&org.to_bytes(), &id.to_bytes()])
}

/// An errand's place in the index; `None` if the row is too short to be one.
pub(crate) fn due_row(row: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let (org, id) = row.split_at_checked(16)?;
    Some(key(&[org, value.get(..8)?, id]))
}

/// Keeps an errand, or moves the one with its id.
pub(crate) fn put(tables: &mut Tables<'_>, counts: &mut Counts, row: &[u8], value: &[u8]) -> Result<(), StoreFault> {
    let old = tables.errands.insert(row, value)?.map(|old| due_row(row, old.value()));
    counts.add(QuotaKind::Errands, old.is_none());
    if let Some(old) = old.flatten() {
        tables.errands_due.remove(&old[..])?;
    }
    if let Some(due) = due_row(row, value) {
        tables.errands_due.insert(&due[..], &[][..])?;
    }
    Ok(())
}

/// Removes an errand, if it is there.
pub(crate) fn remove(tables: &mut Tables<'_>, counts: &mut Counts, row: &[u8]) -> Result<(), StoreFault> {
    let old = tables.errands.remove(row)?.map(|old| due_row(row, old.value()));
    if let Some(old) = old {
        counts.take(QuotaKind::Errands);
        if let Some(due) = old {
            tables.errands_due.remove(&due[..])?;
        }
    }
    Ok(())
}

/// Whom errands go with.
#[derive(Clone, Copy)]
pub(crate) enum Of {
    Session([u8; 16]),
    Binding([u8; 16]),
    Plugin([u8; 16]),
}

/// Removes the errands of a session, a binding or a plugin. It looks at all errands of the organisation, which are bounded.
pub(crate) fn remove_all(tables: &mut Tables<'_>, counts: &mut Counts, org: OrgId, of: Of) -> Result<(), StoreFault> {
    let (part, at) = match of {
        Of::Session(id) => (id, 8),
        Of::Binding(id) => (id, 24),
        Of::Plugin(id) => (id, 40),
    };
    for (row, head) in heads(&tables.errands, &Prefix::new(&[&org.to_bytes()]), HEAD)? {
        if head.get(at..at + 16) == Some(&part[..]) {
            remove(tables, counts, &row)?;
        }
    }
    Ok(())
}
