//! Bindings inside the writer's transaction: what hangs on them goes with them.
//!
//! A binding of the platform works in every organisation, so what hangs on it lies in all of them.

use portcullis_core::{Binding, BindingId, OrgId, PluginId};

use crate::apply::Batch;
use crate::commit::{QuotaKind, TallyChange};
use crate::counts::Counts;
use crate::error::StoreFault;
use crate::keyfile::Owner;
use crate::seal::Envelope;
use crate::tables::{self, Prefix, Tables, heads, key, number, org_of, remove_prefix};
use crate::{errands, timers};

/// Bytes of the head of a row, and of a suspension's: the binding's generation.
pub(crate) const HEAD: usize = 8;

/// Removes a binding with its timers, errands, suspension and tallies, if it is there.
pub(crate) fn remove(
    tables: &mut Tables<'_>,
    batch: &Batch<'_>,
    counts: &mut Counts,
    org: OrgId,
    id: BindingId,
) -> Result<(), StoreFault> {
    let row = key(&[&org.to_bytes(), &id.to_bytes()]);
    let Some(value) = tables.bindings.remove(&row[..])?.map(|value| value.value().to_vec()) else { return Ok(()) };
    counts.take(QuotaKind::Bindings);
    remove_prefix(&mut tables.suspensions, &Prefix::new(&[&row]))?;
    remove_prefix(&mut tables.tallies, &Prefix::new(&[&id.to_bytes()]))?;
    let plugin = plugin_of(batch, org, &row, &value);
    everywhere(tables, counts, org, |tables, counts, org| {
        // What hangs on a damaged binding stays: nobody is asked for it any more, and it goes when it is due.
        let Some(plugin) = plugin else { return Ok(()) };
        timers::remove_of_binding(tables, batch, org, plugin, id)?;
        errands::remove_all(tables, counts, org, errands::Of::Binding(plugin, id))
    })
}

/// Suspends a version of a binding; the organisation's suspensions that hold no longer go.
pub(crate) fn suspend(tables: &mut Tables<'_>, org: OrgId, row: &[u8], value: &[u8]) -> Result<(), StoreFault> {
    for (old, head) in heads(&tables.suspensions, &Prefix::new(&[&org.to_bytes()]), HEAD)? {
        let Some(id) = old.get(16..32) else { continue };
        let generation = match generation(tables, org, id)? {
            Some(own) => Some(own),
            None => generation(tables, OrgId::PLATFORM, id)?,
        };
        if generation.is_none_or(|generation| head != generation.to_be_bytes()) {
            tables.suspensions.remove(&old[..])?;
        }
    }
    tables.suspensions.insert(row, value)?;
    Ok(())
}

/// Counts how a candidate answered, if its binding is still there.
pub(crate) fn tally(tables: &mut Tables<'_>, org: OrgId, change: &TallyChange) -> Result<(), StoreFault> {
    let binding = change.binding.to_bytes();
    if generation(tables, org, &binding)?.is_none() && generation(tables, OrgId::PLATFORM, &binding)?.is_none() {
        return Ok(());
    }
    let row = key(&[&binding, &change.candidate_version.to_be_bytes(), &org.to_bytes()]);
    let (asked, diverged) = tables.tallies.get(&row[..])?.map_or((0, 0), |row| tally_of(row.value()));
    let value = [asked + 1, diverged + u64::from(change.diverged)].map(u64::to_be_bytes).concat();
    tables.tallies.insert(&row[..], &value[..])?;
    Ok(())
}

/// What a tally's row says: how many were asked, and how many diverged.
pub(crate) fn tally_of(value: &[u8]) -> (u64, u64) {
    (number(value, 0).unwrap_or_default(), number(value, 8).unwrap_or_default())
}

/// Does something in the organisation, or, for the platform, in every one.
/// `counts` are those of `org`, which are written later.
pub(crate) fn everywhere(
    tables: &mut Tables<'_>,
    counts: &mut Counts,
    org: OrgId,
    mut act: impl FnMut(&mut Tables<'_>, &mut Counts, OrgId) -> Result<(), StoreFault>,
) -> Result<(), StoreFault> {
    act(tables, counts, org)?;
    if org != OrgId::PLATFORM {
        return Ok(());
    }
    let others: Vec<OrgId> =
        heads(&tables.orgs, &Prefix::new(&[]), 0)?.iter().filter_map(|(row, _)| org_of(row)).collect();
    for other in others {
        let mut counts = Counts::read(&tables.counts, other)?;
        let before = counts;
        act(tables, &mut counts, other)?;
        if counts != before {
            counts.write(&mut tables.counts, other)?;
        }
    }
    Ok(())
}

fn generation(tables: &Tables<'_>, org: OrgId, id: &[u8]) -> Result<Option<u64>, StoreFault> {
    Ok(tables.bindings.get(&key(&[&org.to_bytes(), id])[..])?.and_then(|row| number(row.value(), 0)))
}

/// Which plugin a binding binds; `None` if its row does not open.
fn plugin_of(batch: &Batch<'_>, org: OrgId, row: &[u8], value: &[u8]) -> Option<PluginId> {
    let envelope = Envelope::parse(value.get(HEAD..)?)?;
    let plain = batch.living(Owner::org(org))?.open(tables::name(tables::BINDINGS), row, &envelope)?;
    serde_json::from_slice::<Binding>(&plain).ok().map(|binding| binding.plugin)
}
