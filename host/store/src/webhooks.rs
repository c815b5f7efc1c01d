//! Webhooks inside the writer's transaction: rows, their count, and the index of whom they hear of.

use portcullis_core::{OrgId, SessionId, Webhook};

use crate::commit::QuotaKind;
use crate::counts::Counts;
use crate::deliveries;
use crate::error::StoreFault;
use crate::tables::{NO_SESSION, Prefix, Tables, heads, key, part, remove_prefix, session_part};

/// Bytes of the head of a row: generation, session or zeros, whether it is told.
pub(crate) const HEAD: usize = TOLD + 1;
/// Where it stands in a head whether the webhook is told.
pub(crate) const TOLD: usize = 8 + 16;

/// Makes or replaces a webhook, which may have been another session's until now.
/// One that is told from now on, and was not before, hears of what comes after `end`.
pub(crate) fn put(
    tables: &mut Tables<'_>,
    counts: &mut Counts,
    org: OrgId,
    (id, session): ([u8; 16], [u8; 16]),
    value: &[u8],
    end: u64,
) -> Result<(), StoreFault> {
    let org = org.to_bytes();
    let row = key(&[&org, &id]);
    let old = tables.webhooks.insert(&row, value)?.map(|old| (session_of_head(old.value()), is_told(old.value())));
    counts.add(QuotaKind::Webhooks, old.is_none());
    if let Some((old, _)) = old.filter(|(old, _)| *old != session) {
        tables.session_webhooks.remove(&key(&[&org, &old, &id]))?;
    }
    tables.session_webhooks.insert(&key(&[&org, &session, &id]), &[])?;
    if is_told(value) && !old.is_some_and(|(_, was_told)| was_told) {
        deliveries::begin_after(tables, &row, end)?;
    }
    Ok(())
}

/// Removes a webhook, if it is there. What is remembered of its deliveries is forgotten with their age.
pub(crate) fn remove(tables: &mut Tables<'_>, counts: &mut Counts, org: OrgId, id: [u8; 16]) -> Result<(), StoreFault> {
    let org = org.to_bytes();
    let row = key(&[&org, &id]);
    let old = tables.webhooks.remove(&row)?.map(|old| session_of_head(old.value()));
    if let Some(old) = old {
        counts.take(QuotaKind::Webhooks);
        tables.session_webhooks.remove(&key(&[&org, &old, &id]))?;
        tables.progress.remove(&row)?;
    }
    Ok(())
}

/// The head of a webhook's row.
pub(crate) fn head(webhook: &Webhook) -> Vec<u8> {
    let told = [u8::from(webhook.is_told())];
    key(&[&webhook.generation.to_be_bytes(), &session_part(webhook.session), &told])
}

/// Whether a webhook is told of events, by the head of its row.
pub(crate) fn is_told(value: &[u8]) -> bool {
    value.get(TOLD) == Some(&1)
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
        let webhook = key(&[&org, &row[32..]]);
        if tables.webhooks.remove(&webhook)?.is_some() {
            counts.take(QuotaKind::Webhooks);
        }
        tables.progress.remove(&webhook)?;
    }
    remove_prefix(&mut tables.session_webhooks, &own)
}

fn session_of_head(value: &[u8]) -> [u8; 16] {
    part(value, 8).unwrap_or(NO_SESSION)
}
