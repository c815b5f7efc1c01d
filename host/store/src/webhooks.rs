//! Webhooks inside the writer's transaction: rows, their count, and the index of those that hear of one session only.

use portcullis_core::{OrgId, SessionId};

use crate::commit::QuotaKind;
use crate::counts::Counts;
use crate::error::StoreFault;
use crate::tables::{NO_SESSION, Prefix, Tables, heads, key, part, remove_prefix};

/// Bytes of the head of a row: generation, session or zeros.
pub(crate) const HEAD: usize = 8 + 16;

/// Makes or replaces a webhook, which may have been another session's until now.
pub(crate) fn put(
    tables: &mut Tables<'_>,
    counts: &mut Counts,
    org: OrgId,
    id: [u8; 16],
    session: [u8; 16],
    value: &[u8],
) -> Result<(), StoreFault> {
    let org = org.to_bytes();
    let old = tables.webhooks.insert(&key(&[&org, &id])[..], value)?.map(|row| session_of_head(row.value()));
    counts.add(QuotaKind::Webhooks, old.is_none());
    if let Some(old) = old.filter(|old| *old != session) {
        tables.session_webhooks.remove(&key(&[&org, &old, &id])[..])?;
    }
    if session != NO_SESSION {
        tables.session_webhooks.insert(&key(&[&org, &session, &id])[..], &[][..])?;
    }
    Ok(())
}

/// Removes a webhook, if it is there.
pub(crate) fn remove(tables: &mut Tables<'_>, counts: &mut Counts, org: OrgId, id: [u8; 16]) -> Result<(), StoreFault> {
    let org = org.to_bytes();
    let old = tables.webhooks.remove(&key(&[&org, &id])[..])?.map(|row| session_of_head(row.value()));
    if let Some(old) = old {
        counts.take(QuotaKind::Webhooks);
        tables.session_webhooks.remove(&key(&[&org, &old, &id])[..])?;
    }
    Ok(())
}

/// Removes the webhooks that hear of this session only.
pub(crate) fn remove_of_session(
    tables: &mut Tables<'_>,
    counts: &mut Counts,
    org: OrgId,
    session: SessionId,
) -> Result<(), StoreFault> {
    let org = org.to_bytes();
    let own = Prefix::new(&[&org, &session.to_bytes()]);
    for (row, _) in heads(&tables.session_webhooks, &own, 0)? {
        if tables.webhooks.remove(&key(&[&org, &row[32..]])[..])?.is_some() {
            counts.take(QuotaKind::Webhooks);
        }
    }
    remove_prefix(&mut tables.session_webhooks, &own)
}

fn session_of_head(value: &[u8]) -> [u8; 16] {
    part(value, 8).unwrap_or(NO_SESSION)
}
