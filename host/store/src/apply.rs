//! Checking a commit and applying it, inside the writer's transaction.
//!
//! All checks come before the first write. A commit that is refused has therefore written nothing, and one that is applied
//! can only be stopped by the disk, which stops its whole batch.
//! The transaction's own state is what is checked, so two commits of one batch conflict as they would one after the other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use portcullis_core::{OrgId, PluginId, SessionId};

use crate::audit::Chains;
use crate::commit::{Expectation, Quota, QuotaKind};
use crate::counts::Counts;
use crate::error::{CommitError, StoreFault};
use crate::keyfile::Owner;
use crate::keyring::Keyring;
use crate::seal::DataKey;
use crate::step::{Prepared, Step};
use crate::tables::{self, Prefix, Tables, key, number, part};
use crate::{
    bindings, confirmations, counters, decisions, deliveries, erase, errands, facts, idempotency, kv, messages, outbox,
    plugins, timers, tokens, webhooks,
};

/// What a batch has changed about keys so far. The keyring hears of it when the batch is through.
pub(crate) struct Batch<'a> {
    pub(crate) ring: &'a Keyring,
    /// Owners who got their key in this batch.
    pub(crate) made: HashMap<Owner, Arc<DataKey>>,
    /// Owners whose rows were removed in this batch.
    pub(crate) doomed: HashSet<Owner>,
    /// Where outboxes end.
    pub(crate) ends: outbox::Ends,
    /// Where audits end.
    pub(crate) chains: Chains,
}

impl Batch<'_> {
    /// The key with which rows of this owner must be sealed by now.
    pub(crate) fn living(&self, owner: Owner) -> Option<Arc<DataKey>> {
        if self.doomed.contains(&owner) {
            return None;
        }
        self.made.get(&owner).cloned().or_else(|| self.ring.live(owner))
    }
}

/// Whether all that the commit asks for holds.
pub(crate) fn check(tables: &Tables<'_>, batch: &Batch<'_>, commit: &Prepared) -> Result<(), CommitError> {
    let sealed_well =
        commit.uses.iter().all(|(owner, used)| batch.living(*owner).is_some_and(|key| Arc::ptr_eq(&key, used)));
    let new_indeed = commit.reserved.iter().all(|reserved| batch.living(reserved.owner).is_none());
    if !sealed_well || !new_indeed {
        return Err(CommitError::Conflict);
    }
    for reserved in &commit.reserved {
        // Who is being erased cannot be made anew before the old key is destroyed.
        if tables.tombstones.get(&reserved.owner.key()[..])?.is_some() {
            return Err(CommitError::Conflict);
        }
    }
    for expectation in &commit.expect {
        if !holds(tables, batch, commit.org, *expectation)? {
            return Err(CommitError::Conflict);
        }
    }
    kv::check_seen(tables, commit)?;
    timers::check_fired(tables, commit)?;
    idempotency::check(tables, commit)?;
    facts::check(tables, commit)?;
    check_quotas(tables, commit)?;
    check_rows(tables, commit)?;
    check_limits(tables, commit)?;
    plugins::check_secrets(tables, commit)?;
    timers::check(tables, commit)?;
    if let Some(plugin) = deliveries::check(tables, commit)? {
        return Err(CommitError::RequestQuota { plugin });
    }
    errands::check(tables, commit)?;
    kv::check_quota(tables, commit)
}

/// Makes the commit's changes; the place of its last event.
pub(crate) fn apply(
    tables: &mut Tables<'_>,
    batch: &mut Batch<'_>,
    commit: &mut Prepared,
) -> Result<Option<u64>, StoreFault> {
    let org = commit.org;
    for reserved in &commit.reserved {
        batch.ring.file.put(reserved.owner, &reserved.key)?;
        batch.made.insert(reserved.owner, reserved.key.clone());
    }
    let mut counts = Counts::read(&tables.counts, org)?;
    let before = counts;
    for step in std::mem::take(&mut commit.steps) {
        apply_step(tables, batch, &mut counts, commit, step)?;
    }
    kv::apply(tables, commit)?;
    for counter in &commit.hits {
        counters::hit(tables, org, counter, commit.now)?;
    }
    counters::forget(tables, org, commit.now, commit.hits.len())?;
    for change in &commit.tallies {
        bindings::tally(tables, org, change)?;
    }
    if let Some(record) = &commit.idempotency {
        idempotency::remember(tables, org, record)?;
    }
    if let Some(taken) = &commit.claim {
        idempotency::take(tables, taken)?;
    }
    if let Some(reply) = &commit.reply {
        idempotency::keep(tables, reply)?;
    }
    if let Some((fact, kept)) = &commit.fact {
        facts::remember(tables, org, (fact, kept), commit.now)?;
    }
    for entry in &commit.audit {
        batch.chains.append(tables, entry)?;
    }
    // The events come last: those of an erased session that were there before are gone by now.
    let mut places = Vec::with_capacity(commit.events.len());
    for event in &mut commit.events {
        places.push(outbox::put(tables, &mut batch.ends, org, event)?);
    }
    for queued in &commit.queued {
        deliveries::queue(tables, org, queued, &places, |tables| batch.ends.next_place(tables, org))?;
    }
    if counts != before {
        counts.write(&mut tables.counts, org)?;
    }
    Ok(places.last().copied())
}

fn apply_step(
    tables: &mut Tables<'_>,
    batch: &mut Batch<'_>,
    counts: &mut Counts,
    commit: &Prepared,
    step: Step,
) -> Result<(), StoreFault> {
    let org = commit.org.to_bytes();
    match step {
        Step::Put { table, key, value } => {
            tables.table(table).insert(&key[..], &value[..])?;
        }
        Step::Remove { table, key } => {
            tables.table(table).remove(&key[..])?;
        }
        Step::RemoveAll { table, prefix } => tables::remove_prefix(tables.table(table), &Prefix::new(&[&prefix]))?,
        Step::PutSession { id, name, token, value } => {
            tokens::put(tables, commit.org, id, token)?;
            let old = tables.sessions.insert(&key(&[&org, &id.to_bytes()])[..], &value[..])?;
            let old_name = old.and_then(|row| part::<16>(row.value(), 8));
            counts.add(QuotaKind::Sessions, old_name.is_none());
            if old_name != Some(name) {
                if let Some(old_name) = old_name {
                    tables.instance_names.remove(&key(&[&org, &old_name])[..])?;
                }
                tables.instance_names.insert(&key(&[&org, &name])[..], &id.to_bytes()[..])?;
            }
        }
        Step::EraseSession { id } => {
            erase::session(tables, batch, counts, commit.org, id, commit.now)?;
            counts.take(QuotaKind::Sessions);
        }
        Step::PutKey { id, hash, value } => {
            let old = tables.keys.insert(&key(&[&org, &id])[..], &value[..])?;
            let old_hash = old.and_then(|row| part::<32>(row.value(), 0));
            counts.add(QuotaKind::Keys, old_hash.is_none());
            if old_hash != Some(hash) {
                if let Some(old_hash) = old_hash {
                    tables.key_hashes.remove(&old_hash[..])?;
                }
                tables.key_hashes.insert(&hash[..], &key(&[&org, &id])[..])?;
            }
        }
        Step::PutPlugin { id, version, name, value } => {
            plugins::put(tables, counts, commit.org, (id, version, name), &value)?;
        }
        Step::RemovePluginVersion { id, version } => plugins::remove_version(tables, commit.org, id, version)?,
        Step::RemovePlugin { id } => plugins::remove(tables, counts, commit.org, id)?,
        Step::PutCounted { table, of, key, value } => {
            let new = tables.table(table).insert(&key[..], &value[..])?.is_none();
            counts.add(of, new);
        }
        Step::RemoveCounted { table, of, key } => {
            if tables.table(table).remove(&key[..])?.is_some() {
                counts.take(of);
            }
        }
        Step::RemoveBinding { id } => bindings::remove(tables, batch, counts, commit.org, id)?,
        Step::PutSuspension { key, value } => bindings::suspend(tables, commit.org, &key, &value)?,
        Step::PutSecret { key, value, .. } => {
            tables.secrets.insert(&key[..], &value[..])?;
        }
        Step::PutConfirmation { key, value } => confirmations::put(tables, counts, &key, &value, commit.now)?,
        Step::RemoveConfirmation { key } => confirmations::remove(tables, counts, &key)?,
        Step::PutErrand { key, value } => errands::put(tables, counts, &key, &value)?,
        Step::RemoveErrand { key } => errands::remove(tables, counts, &key)?,
        Step::PutWebhook { id, session, value } => {
            let end = batch.ends.place(tables, commit.org)?;
            webhooks::put(tables, counts, commit.org, (id, session), &value, end)?;
        }
        Step::RemoveWebhook { id } => webhooks::remove(tables, counts, commit.org, id)?,
        Step::PutMessage { key, value } => messages::put(tables, counts, &key, &value, commit.now)?,
        Step::SetTimer { key, due, value } => timers::set(tables, &key, due, &value)?,
        Step::CancelTimer { key, due } => timers::cancel(tables, &key, due)?,
        Step::ForgetDecisions { before, at_most } => decisions::forget(tables, batch, commit.org, before, at_most)?,
        Step::ForgetEvents { through, at_most } => {
            outbox::forget(tables, &mut batch.ends, commit.org, through, at_most)?;
        }
        Step::KeepDelivery { key, value } => deliveries::keep(tables, &key, &value)?,
        Step::RemoveDelivery { key } => deliveries::remove(tables, &key)?,
        Step::Progress { key, value } => deliveries::progress(tables, &key, &value)?,
        Step::ForgetDeliveries { line, through, at_most } => {
            deliveries::forget(tables, commit.org, line, through, at_most)?;
        }
        Step::ForgetExpired { at_most } => {
            idempotency::forget(tables, commit.org, commit.now, at_most)?;
            facts::forget(tables, commit.org, commit.now, at_most)?;
            messages::prune(tables, &org, commit.now, at_most)?;
            confirmations::forget(tables, counts, &org, commit.now, at_most)?;
        }
        Step::EraseOrg => {
            erase::org(tables, batch, commit.org, commit.now)?;
            batch.ends.forget_org(commit.org);
            batch.chains.forget_org(commit.org);
            *counts = Counts::default();
        }
    }
    Ok(())
}

/// Names and tokens are free, versions are new, and what is erased is there.
fn check_rows(tables: &Tables<'_>, commit: &Prepared) -> Result<(), CommitError> {
    let org = commit.org.to_bytes();
    let erased: BTreeSet<SessionId> = commit
        .steps
        .iter()
        .filter_map(|step| if let Step::EraseSession { id } = step { Some(*id) } else { None })
        .collect();
    let removed: BTreeSet<PluginId> = commit
        .steps
        .iter()
        .filter_map(|step| if let Step::RemovePlugin { id } = step { Some(*id) } else { None })
        .collect();
    let mut session_names = BTreeMap::new();
    let mut plugin_names = BTreeMap::new();
    tokens::check(tables, commit, &erased)?;
    for step in &commit.steps {
        match step {
            Step::PutSession { id, name, .. } => {
                let holder = tables.instance_names.get(&key(&[&org, name])[..])?.and_then(|row| part(row.value(), 0));
                let holder = holder.map(SessionId::from_bytes).filter(|holder| !erased.contains(holder));
                let within = *session_names.entry(*name).or_insert(*id);
                if holder.is_some_and(|holder| holder != *id) || within != *id {
                    return Err(CommitError::NameTaken);
                }
            }
            Step::EraseSession { id } => {
                if tables.sessions.get(&key(&[&org, &id.to_bytes()])[..])?.is_none() {
                    return Err(CommitError::UnknownSession(*id));
                }
            }
            Step::PutKey { id, hash, .. } => {
                let row = key(&[&org, id]);
                // Nobody draws the same 256 bits twice: this is a key put into the wrong organisation or under a second id.
                if tables.key_hashes.get(&hash[..])?.is_some_and(|holder| holder.value() != row) {
                    return Err(CommitError::Conflict);
                }
            }
            Step::PutPlugin { id, version, name, value } if !removed.contains(id) => {
                let row = tables.plugins.get(&key(&[&org, &id.to_bytes(), &version.to_be_bytes()])[..])?;
                // What is kept of a version may change, its component may not.
                if row.is_some_and(|row| row.value().get(..32) != value.get(..32)) {
                    return Err(CommitError::Conflict);
                }
                let holder = tables.plugin_names.get(&key(&[&org, name])[..])?.and_then(|row| part(row.value(), 0));
                let holder = holder.map(PluginId::from_bytes).filter(|holder| !removed.contains(holder));
                let within = *plugin_names.entry(*name).or_insert(*id);
                if holder.is_some_and(|holder| holder != *id) || within != *id {
                    return Err(CommitError::NameTaken);
                }
            }
            Step::PutPlugin { .. }
            | Step::Put { .. }
            | Step::Remove { .. }
            | Step::RemoveAll { .. }
            | Step::RemovePlugin { .. }
            | Step::RemovePluginVersion { .. }
            | Step::PutCounted { .. }
            | Step::RemoveCounted { .. }
            | Step::RemoveBinding { .. }
            | Step::PutSuspension { .. }
            | Step::PutSecret { .. }
            | Step::PutConfirmation { .. }
            | Step::RemoveConfirmation { .. }
            | Step::PutErrand { .. }
            | Step::RemoveErrand { .. }
            | Step::PutWebhook { .. }
            | Step::RemoveWebhook { .. }
            | Step::PutMessage { .. }
            | Step::SetTimer { .. }
            | Step::CancelTimer { .. }
            | Step::ForgetDecisions { .. }
            | Step::ForgetExpired { .. }
            | Step::ForgetEvents { .. }
            | Step::KeepDelivery { .. }
            | Step::RemoveDelivery { .. }
            | Step::Progress { .. }
            | Step::ForgetDeliveries { .. }
            | Step::EraseOrg => {}
        }
    }
    Ok(())
}

/// The organisation has fewer rows of each kind than it may have.
fn check_quotas(tables: &Tables<'_>, commit: &Prepared) -> Result<(), CommitError> {
    if commit.quotas.is_empty() {
        return Ok(());
    }
    let counts = Counts::read(&tables.counts, commit.org)?;
    for Quota { of, max } in commit.quotas.iter().copied() {
        let held = counts.of(of);
        let is_full = held >= max
            && (of != QuotaKind::Confirmations || confirmations::open(tables, commit.org, held, commit.now)? >= max);
        if is_full {
            return Err(CommitError::Quota { of, max });
        }
    }
    Ok(())
}

/// All counters are below their bounds; if not, the one that takes longest to free is named.
fn check_limits(tables: &Tables<'_>, commit: &Prepared) -> Result<(), CommitError> {
    let mut worst: Option<(usize, std::time::Duration)> = None;
    for (index, limit) in commit.limits.iter().enumerate() {
        let full = counters::full_for(&tables.hits, commit.org, &limit.counter, limit.window, limit.max, commit.now)?;
        if let Some(wait) = full.filter(|wait| worst.is_none_or(|(_, longest)| *wait > longest)) {
            worst = Some((index, wait));
        }
    }
    match worst {
        Some((index, retry_after)) => Err(CommitError::Limited { index, retry_after }),
        None => Ok(()),
    }
}

fn holds(tables: &Tables<'_>, batch: &Batch<'_>, org: OrgId, expectation: Expectation) -> Result<bool, StoreFault> {
    let org_part = org.to_bytes();
    let (row, expected) = match expectation {
        Expectation::Session(id, generation) => {
            (tables.sessions.get(&key(&[&org_part, &id.to_bytes()])[..])?, generation)
        }
        Expectation::Org(generation) => (tables.orgs.get(&org_part[..])?, generation),
        Expectation::Binding(id, generation) => {
            (tables.bindings.get(&key(&[&org_part, &id.to_bytes()])[..])?, generation)
        }
        Expectation::Webhook(id, generation) => {
            (tables.webhooks.get(&key(&[&org_part, &id.to_bytes()])[..])?, generation)
        }
        Expectation::Message { session, id, state } => {
            return Ok(messages::phase(tables, &messages::row(org, session, id))? == state);
        }
        Expectation::Errand(id) => return Ok(tables.errands.get(&errands::row(org, id)[..])?.is_some()),
        Expectation::Confirmation(hash) => {
            let row = confirmations::row(&batch.ring.hashes, org, &hash);
            return Ok(tables.confirmations.get(&row[..])?.is_some());
        }
    };
    Ok(row.and_then(|row| number(row.value(), 0)) == expected)
}
