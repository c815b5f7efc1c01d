//! Plugins inside the writer's transaction: their versions and components, their secrets, and what goes with them.

use std::collections::BTreeSet;

use portcullis_core::{OrgId, PluginId};

use crate::bindings::everywhere;
use crate::commit::QuotaKind;
use crate::counts::Counts;
use crate::error::{CommitError, StoreFault};
use crate::step::{Prepared, Step};
use crate::tables::{Prefix, Tables, heads, key, part, remove_prefix};
use crate::{counters, deliveries, errands, kv, timers};

/// How many secrets a plugin may have.
pub const SECRETS_MAX: u32 = 32;

/// Adds a version of a plugin.
pub(crate) fn put(
    tables: &mut Tables<'_>,
    counts: &mut Counts,
    org: OrgId,
    (id, version, name): (PluginId, u32, [u8; 16]),
    value: &[u8],
) -> Result<(), StoreFault> {
    let (org, id) = (org.to_bytes(), id.to_bytes());
    let first = tables.plugins.range(Prefix::new(&[&org, &id]).span())?.next().is_none();
    counts.add(QuotaKind::Plugins, first);
    tables.plugins.insert(&key(&[&org, &id, &version.to_be_bytes()])[..], value)?;
    tables.plugin_names.insert(&key(&[&org, &name])[..], &id[..])?;
    Ok(())
}

/// Removes one version of a plugin, and its component if no other version uses it.
pub(crate) fn remove_version(
    tables: &mut Tables<'_>,
    org: OrgId,
    id: PluginId,
    version: u32,
) -> Result<(), StoreFault> {
    let owner = org.to_bytes();
    let removed = tables.plugins.remove(&key(&[&owner, &id.to_bytes(), &version.to_be_bytes()])[..])?;
    let digest = removed.and_then(|row| part::<32>(row.value(), 0));
    let Some(digest) = digest else { return Ok(()) };
    let is_used = heads(&tables.plugins, &Prefix::new(&[&owner]), 32)?.iter().any(|(_, other)| other[..] == digest);
    if !is_used {
        tables.components.remove(&key(&[&owner, &digest])[..])?;
    }
    Ok(())
}

/// Removes a plugin with everything that it has; one of the platform has it in every organisation.
pub(crate) fn remove(tables: &mut Tables<'_>, counts: &mut Counts, org: OrgId, id: PluginId) -> Result<(), StoreFault> {
    let owner = org.to_bytes();
    let plugin = Prefix::new(&[&owner, &id.to_bytes()]);
    let versions = heads(&tables.plugins, &plugin, 48)?;
    remove_prefix(&mut tables.plugins, &plugin)?;
    for (_, head) in &versions {
        tables.plugin_names.remove(&key(&[&owner, &head[32..]])[..])?;
    }
    let used: BTreeSet<Vec<u8>> =
        heads(&tables.plugins, &Prefix::new(&[&owner]), 32)?.into_iter().map(|(_, digest)| digest).collect();
    for (_, head) in &versions {
        if !used.contains(&head[..32]) {
            tables.components.remove(&key(&[&owner, &head[..32]])[..])?;
        }
    }
    if !versions.is_empty() {
        counts.take(QuotaKind::Plugins);
    }
    remove_prefix(&mut tables.secrets, &plugin)?;
    everywhere(tables, counts, org, |tables, counts, org| {
        timers::remove_of_plugin(tables, org, id)?;
        kv::remove_of_plugin(tables, org, id)?;
        counters::remove_of(tables, org, id.to_bytes())?;
        deliveries::remove_waiting(tables, org, id)?;
        errands::remove_all(tables, counts, org, errands::Of::Plugin(id))
    })
}

/// Whether every secret has a plugin, and no plugin would have too many.
pub(crate) fn check_secrets(tables: &Tables<'_>, commit: &Prepared) -> Result<(), CommitError> {
    let org = commit.org.to_bytes();
    for step in &commit.steps {
        let Step::PutSecret { plugin, .. } = step else { continue };
        let own = Prefix::new(&[&org, &plugin.to_bytes()]);
        let is_new = |step: &Step| matches!(step, Step::PutPlugin { id, .. } if id == plugin);
        if tables.plugins.range(own.span())?.next().is_none() && !commit.steps.iter().any(is_new) {
            return Err(CommitError::Conflict);
        }
        let mut secrets = BTreeSet::new();
        for row in tables.secrets.range(own.span())? {
            secrets.insert(row?.0.value().to_vec());
        }
        for step in &commit.steps {
            match step {
                Step::PutSecret { plugin: of, key, .. } if of == plugin => drop(secrets.insert(key.clone())),
                Step::Remove { key, .. } => drop(secrets.remove(key)),
                _ => {}
            }
        }
        if secrets.len() > SECRETS_MAX as usize {
            return Err(CommitError::SecretQuota { plugin: *plugin });
        }
    }
    Ok(())
}
