//! Erasing: how a session, or an organisation, goes for good.
//!
//! 1. *Rows.* One transaction removes every row of the owner and leaves a tombstone: whose key is to be destroyed, which
//!    slot holds it, and a digest of that slot. The owner's key is doomed: it seals nothing any more.
//! 2. *Key.* The slot is overwritten in place and synced. From here on no copy of the data file opens what it had sealed.
//! 3. *Receipt.* One transaction writes an audit entry with the slot's digest and drops the tombstone.
//!
//! A crash between any two of these leaves the tombstone, and [`finish`] goes on from there; doing a step again changes nothing.
//! The receipt of a session stands in its organisation's audit, that of an organisation in the platform's.

use std::sync::Arc;

use portcullis_core::{
    AuditEntry, AuditId, AuditOutcome, DecisionRecord, Intent, OperationKind, OrgId, PrincipalKind, Receipt, Removal,
    Session, SessionId, Timestamp, Verdict, verdict::Allowance,
};
use redb::{Database, ReadableDatabase};
use sha2::{Digest, Sha256};

use crate::apply::Batch;
use crate::audit::{Chains, Signer};
use crate::commit::Erased;
use crate::counts::Counts;
use crate::error::{CommitError, StoreFault};
use crate::keyfile::Owner;
use crate::keyring::Keyring;
use crate::seal::{Envelope, hex, random};
use crate::tables::{self, Prefix, Tables, heads, key, number, part, remove_prefix, session_of};
use crate::writer::{CommitMode, begin};
use crate::{confirmations, counters, errands, kv, messages, outbox, timers, tokens, webhooks};

/// What is left to be destroyed.
struct Tombstone {
    owner: Owner,
    slot: u32,
    generation: u32,
    /// When the deletion was asked for.
    since: Timestamp,
    /// When the rows went.
    removed_at: Timestamp,
    /// How many events went that some receiver had not been told.
    discarded: u64,
    /// SHA-256 of the slot as it was.
    digest: [u8; 32],
    /// How the deletion of a session went until then.
    removal: Option<Removal>,
}

impl Tombstone {
    fn parse(key: &[u8], value: &[u8]) -> Option<Self> {
        Some(Self {
            owner: owner_of(key)?,
            slot: part(value, 0).map(u32::from_be_bytes)?,
            generation: part(value, 4).map(u32::from_be_bytes)?,
            since: Timestamp::from_millis(number(value, 8)?),
            removed_at: Timestamp::from_millis(number(value, 16)?),
            discarded: number(value, 24)?,
            digest: part(value, 32)?,
            removal: value.get(64..).and_then(|json| serde_json::from_slice(json).ok()),
        })
    }

    fn value(&self) -> Vec<u8> {
        key(&[
            &self.slot.to_be_bytes(),
            &self.generation.to_be_bytes(),
            &self.since.as_millis().to_be_bytes(),
            &self.removed_at.as_millis().to_be_bytes(),
            &self.discarded.to_be_bytes(),
            &self.digest,
            &self.removal.as_ref().and_then(|removal| serde_json::to_vec(removal).ok()).unwrap_or_default(),
        ])
    }
}

/// The owner that a tombstone's key names.
pub(crate) fn owner_of(key: &[u8]) -> Option<Owner> {
    Some(Owner { org: part(key, 0).map(OrgId::from_bytes)?, session: session_of(part(key, 16)?) })
}

/// Removes every row of a session.
pub(crate) fn session(
    tables: &mut Tables<'_>,
    batch: &mut Batch<'_>,
    counts: &mut Counts,
    org: OrgId,
    id: SessionId,
    now: Timestamp,
) -> Result<(), StoreFault> {
    let owner = Owner::session(org, id);
    let (org_part, session) = (org.to_bytes(), id.to_bytes());
    let row = key(&[&org_part, &session]);
    let own = Prefix::new(&[&row]);
    let removed = tables.sessions.remove(&row[..])?.map(|row| row.value().to_vec());
    let known = removed.as_deref().and_then(|value| known(batch, owner, &row, value));
    let told_through = outbox::told_through(tables, org, id)?;
    let discarded = outbox::remove_of_session(tables, org, session, &told_through)?;
    let (since, removal) = known.unwrap_or((now, None));
    bury(tables, batch, Grave { owner, since, removed_at: now, discarded, removal })?;
    if let Some(name) = removed.as_deref().and_then(|value| part::<16>(value, 8)) {
        tables.instance_names.remove(&key(&[&org_part, &name])[..])?;
    }
    tokens::put(tables, org, id, None)?;
    webhooks::remove_of_session(tables, counts, org, id)?;
    messages::remove_of_session(tables, counts, org, id)?;
    remove_prefix(&mut tables.devices, &own)?;
    for (record, _) in heads(&tables.decision_records, &own, 0)? {
        tables.decision_records.insert(&record[..], &[][..])?;
    }
    timers::remove_of_session(tables, org, id)?;
    errands::remove_all(tables, counts, org, errands::Of::Session(id))?;
    confirmations::remove_of_session(tables, counts, org, id)?;
    kv::remove_of_session(tables, org, id)?;
    counters::remove_of(tables, org, session)
}

/// Removes every row of an organisation.
pub(crate) fn org(
    tables: &mut Tables<'_>,
    batch: &mut Batch<'_>,
    org: OrgId,
    now: Timestamp,
) -> Result<(), StoreFault> {
    let org_part = org.to_bytes();
    let own = Prefix::new(&[&org_part]);
    for (row, _) in heads(&tables.sessions, &own, 0)? {
        if let Some(id) = part(&row, 16) {
            bury(tables, batch, Grave::of(Owner::session(org, SessionId::from_bytes(id)), now))?;
        }
    }
    for (_, hash) in heads(&tables.keys, &own, 32)? {
        tables.key_hashes.remove(&hash[..])?;
    }
    for (_, token) in heads(&tables.token_of_session, &own, 32)? {
        tables.session_tokens.remove(&token[..])?;
    }
    for (timer, due) in heads(&tables.timers, &own, 8)? {
        tables.timers_due.remove(&timers::due_row(&timer, &due)[..])?;
    }
    for rows in [
        &mut tables.orgs,
        &mut tables.counts,
        &mut tables.sessions,
        &mut tables.instance_names,
        &mut tables.token_of_session,
        &mut tables.devices,
        &mut tables.keys,
        &mut tables.plugins,
        &mut tables.plugin_names,
        &mut tables.components,
        &mut tables.bindings,
        &mut tables.suspensions,
        &mut tables.secrets,
        &mut tables.publishers,
        &mut tables.confirmations,
        &mut tables.confirmations_age,
        &mut tables.errands,
        &mut tables.errands_due,
        &mut tables.errands_of_plugin,
        &mut tables.errands_of_session,
        &mut tables.request_counts,
        &mut tables.facts,
        &mut tables.facts_age,
        &mut tables.webhooks,
        &mut tables.session_webhooks,
        &mut tables.messages,
        &mut tables.messages_open,
        &mut tables.messages_age,
        &mut tables.decisions,
        &mut tables.decision_records,
        &mut tables.audit,
        &mut tables.audit_ends,
        &mut tables.receipts,
        &mut tables.events,
        &mut tables.outbox,
        &mut tables.outbox_ends,
        &mut tables.progress,
        &mut tables.deliveries,
        &mut tables.deliveries_due,
        &mut tables.dead_letters,
        &mut tables.timers,
        &mut tables.timer_counts,
        &mut tables.session_kv,
        &mut tables.kv,
        &mut tables.kv_usage,
        &mut tables.hits,
        &mut tables.hits_age,
        &mut tables.idempotency,
        &mut tables.idempotency_age,
        &mut tables.replies,
        &mut tables.replies_age,
    ] {
        remove_prefix(rows, &own)?;
    }
    tables.tallies.retain_in(.., |row| !row.ends_with(&org_part))?;
    bury(tables, batch, Grave::of(Owner::org(org), now))
}

/// Destroys the keys of all tombstones, writes receipts and drops the tombstones.
pub(crate) fn finish(
    database: &Database,
    ring: &Arc<Keyring>,
    mode: CommitMode,
    now: Timestamp,
) -> Result<Vec<Erased>, CommitError> {
    let mut tombstones = Vec::new();
    for row in database.begin_read()?.open_table(tables::TOMBSTONES)?.range::<&[u8]>(..)? {
        let (key, value) = row?;
        tombstones.extend(Tombstone::parse(key.value(), value.value()));
    }
    if tombstones.is_empty() {
        return Ok(Vec::new());
    }
    // An organisation's key goes after those of its sessions are gone for certain.
    let (sessions, orgs): (Vec<_>, Vec<_>) = tombstones.iter().partition(|tombstone| tombstone.owner.session.is_some());
    for group in [sessions, orgs] {
        let mut overwritten = false;
        for tombstone in group {
            // If the key is not on the ring, its slot was overwritten before a crash, and may be another owner's by now.
            let held = ring
                .any(tombstone.owner)
                .is_some_and(|key| key.slot == tombstone.slot && key.generation == tombstone.generation);
            if held {
                ring.file.destroy(tombstone.slot, tombstone.generation)?;
                overwritten = true;
            }
        }
        if overwritten {
            ring.file.sync()?;
        }
    }
    let transaction = begin(database, mode)?;
    let mut erased = Vec::with_capacity(tombstones.len());
    {
        let mut tables = Tables::of(&transaction);
        let mut chains = Chains::default();
        let signer = Signer::new(&ring.hashes);
        for tombstone in &tombstones {
            let slot_digest = hex(&tombstone.digest);
            write_receipt(&mut tables, &mut chains, ring, &signer, tombstone, now)?;
            tables.tombstones.remove(&tombstone.owner.key()[..])?;
            let Owner { org, session } = tombstone.owner;
            erased.push(Erased { org, session, since: tombstone.since, slot_digest });
        }
        chains.write(&mut tables)?;
    }
    transaction.commit()?;
    for tombstone in &tombstones {
        ring.forget(tombstone.owner);
    }
    Ok(erased)
}

fn write_receipt(
    tables: &mut Tables<'_>,
    chains: &mut Chains,
    ring: &Keyring,
    signer: &Signer,
    tombstone: &Tombstone,
    now: Timestamp,
) -> Result<(), StoreFault> {
    let Owner { org, session } = tombstone.owner;
    let (audit_org, operation, subject, about) = match session {
        Some(id) => (org, OperationKind::SessionDelete, None, id.to_bytes()),
        None => (OrgId::PLATFORM, OperationKind::OrgDelete, Some(org.to_string()), org.to_bytes()),
    };
    // The sessions of an organisation that goes itself have no audit left to stand in.
    let Some(data_key) = ring.live(Owner::org(audit_org)) else { return Ok(()) };
    let mut unique = [0; 16];
    random(&mut unique)?;
    let removal = tombstone.removal.as_ref();
    let receipt = Receipt {
        org,
        session,
        asked_at: tombstone.since,
        due_at: removal.map(|removal| removal.due_at),
        began_at: removal.map(|removal| removal.began_at),
        decision: removal.and_then(|removal| removal.decision),
        unlink: removal.map(|removal| removal.unlink),
        notify: removal.map(|removal| removal.notify),
        events_discarded: tombstone.discarded,
        rows_removed_at: tombstone.removed_at,
        key_destroyed_at: now,
        slot_digest: hex(&tombstone.digest),
    };
    let signature = signer.sign(receipt.signed_text().as_bytes());
    let entry = AuditEntry {
        id: AuditId::new(now, u128::from_be_bytes(unique)),
        org: audit_org,
        at: now,
        actor: PrincipalKind::System,
        request: None,
        operation,
        session,
        subject,
        decision: receipt.decision,
        outcome: AuditOutcome::Erased { receipt: Box::new(receipt), signature },
    };
    let number = chains.put(tables, &data_key, &entry)?;
    let audit_org_part = audit_org.to_bytes();
    tables.receipts.insert(&key(&[&audit_org_part, &about]), &number.to_be_bytes())?;
    Ok(())
}

/// The part of a decision that outlives its session: no input, no answers of any round, and of the verdict no text and nothing that it would have changed.
pub(crate) fn skeleton(mut record: DecisionRecord) -> DecisionRecord {
    record.input = None;
    record.answers = Vec::new();
    record.first_round = None;
    match &mut record.verdict {
        Verdict::Allowed(allowance) => *allowance = Allowance::default(),
        Verdict::Denied { denials } => denials.iter_mut().for_each(|denial| denial.message.clear()),
        Verdict::ConfirmationRequired { prompts } => prompts.iter_mut().for_each(|prompt| {
            prompt.prompt.clear();
            prompt.answer = None;
        }),
        Verdict::Deferred { reason, allowance, .. } => {
            reason.clear();
            *allowance = Allowance::default();
        }
    }
    record
}

/// Whose key is to be destroyed, and what is to be said of it.
struct Grave {
    owner: Owner,
    since: Timestamp,
    removed_at: Timestamp,
    discarded: u64,
    removal: Option<Removal>,
}

impl Grave {
    /// One of which nothing more is known.
    fn of(owner: Owner, now: Timestamp) -> Self {
        Self { owner, since: now, removed_at: now, discarded: 0, removal: None }
    }
}

/// Leaves a tombstone for the owner's key, and dooms the key.
fn bury(tables: &mut Tables<'_>, batch: &mut Batch<'_>, grave: Grave) -> Result<(), StoreFault> {
    let Grave { owner, since, removed_at, discarded, removal } = grave;
    // An owner whose slot was damaged has rows but no key: nothing of it opens already.
    if let Some(data_key) = batch.living(owner) {
        let (slot, generation) = (data_key.slot, data_key.generation);
        let digest = Sha256::digest(batch.ring.file.bytes(slot)?).into();
        let tombstone = Tombstone { owner, slot, generation, since, removed_at, discarded, digest, removal };
        tables.tombstones.insert(&owner.key()[..], &tombstone.value()[..])?;
    }
    batch.doomed.insert(owner);
    Ok(())
}

/// When the deletion was asked for and how it went, as the session's row says.
fn known(batch: &Batch<'_>, owner: Owner, row: &[u8], value: &[u8]) -> Option<(Timestamp, Option<Removal>)> {
    let envelope = Envelope::parse(value.get(24..)?)?;
    let plain = batch.living(owner)?.open(tables::name(tables::SESSIONS), row, &envelope)?;
    let session: Session = serde_json::from_slice(&plain).ok()?;
    match session.intent {
        Intent::Removed { since, .. } => Some((since, session.removal)),
        Intent::Running | Intent::Stopped => None,
    }
}
