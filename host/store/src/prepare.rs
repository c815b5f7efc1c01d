//! Preparing a commit on its caller's thread: everything is encoded, hashed and sealed before the writer sees it.
//!
//! There is one writer and there are many callers, so whatever can be done here is not done there.
//! What was sealed here is good only as long as the keys it was sealed with are the living ones; the writer checks that
//! first, and answers with a conflict if they are not.

mod deliveries;
pub(crate) mod plugins;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use portcullis_core::{
    AuditEntry, DecisionRecord, DeviceChange, DomainEvent, OrgId, OutgoingMessage, SessionId, Timestamp, Webhook,
};
use serde::Serialize;

use crate::commit::{
    Claim, Commit, FACT_BYTES, FactRecord, IDEMPOTENCY_KEY_BYTES, IdempotencyRecord, KeptReply, KvQuota, QuotaKind,
    Write,
};
use crate::error::CommitError;
use crate::keyfile::Owner;
use crate::keyring::Keyring;
use crate::seal::DataKey;
use crate::step::{Limit, Prepared, Remembered, SealedEntry, SealedEvent, SealedReply, Step, Taken};
use crate::tables::{self, Definition, key, session_part};
use crate::{confirmations, counters, device, erase, messages, migrations, outbox, webhooks};

/// About how many bytes a row has; most have fewer, and a session's has more.
const ROW: usize = 1_024;

/// Seals a commit.
pub(crate) fn prepare(ring: &Arc<Keyring>, commit: Commit) -> Result<Prepared, CommitError> {
    let mut sealer = Sealer::new(ring, commit.org, commit.now, &commit.writes)?;
    sealer.prepared.expect = commit.expect;
    sealer.prepared.quotas = commit.quotas;
    sealer.prepared.kv_quota = commit.kv_quota;
    for limit in commit.limits {
        let counter = counters::counter(&ring.hashes, commit.org, &limit.counter);
        sealer.prepared.limits.push(Limit { counter, window: limit.window, max: limit.max });
        sealer.prepared.hits.insert(counter);
    }
    if let Some(done) = commit.done {
        let counter = counters::operation_counter(done);
        sealer.prepared.hits.insert(counters::counter(&ring.hashes, commit.org, &counter));
    }
    for write in commit.writes {
        sealer.write(write)?;
    }
    for entry in &commit.audit {
        sealer.audit(entry)?;
    }
    if let Some(record) = commit.decision {
        sealer.decision(record)?;
    }
    for event in &commit.events {
        sealer.event(event)?;
    }
    for change in commit.deliveries {
        sealer.delivery(change)?;
    }
    for change in commit.timers {
        sealer.timer(change)?;
    }
    for change in commit.errands {
        sealer.errand(change)?;
    }
    for access in commit.kv {
        sealer.kv(access)?;
    }
    if let Some(fact) = &commit.fact {
        sealer.fact(fact);
    }
    if !sealer.erases_org {
        sealer.prepared.tallies = commit.tallies;
    }
    if let Some(claim) = &commit.claim {
        sealer.claim(claim);
    }
    if let Some(reply) = &commit.reply {
        sealer.reply(reply)?;
    }
    if let Some(record) = &commit.idempotency {
        sealer.idempotency(record);
    }
    Ok(sealer.finish())
}

/// Seals changes of a device's state.
pub(crate) fn prepare_device(
    ring: &Arc<Keyring>,
    org: OrgId,
    session: SessionId,
    changes: Vec<DeviceChange>,
) -> Result<Prepared, CommitError> {
    let mut sealer = Sealer::new(ring, org, Timestamp::default(), &[])?;
    let data_key = sealer.living(Owner::session(org, session))?;
    let row = |kind: u8, name: &[u8]| device::row(&ring.hashes, org, session, kind, name);
    let (org, session) = (org.to_bytes(), session.to_bytes());
    for change in changes {
        let table = tables::DEVICES;
        sealer.prepared.steps.push(match change {
            DeviceChange::Put { kind, name, value } => {
                let key = row(kind, &name);
                let value = data_key.seal(tables::name(table), &key, &[], &device::plain(&name, &value))?;
                Step::Put { table, key, value }
            }
            DeviceChange::Remove { kind, name } => Step::Remove { table, key: row(kind, &name) },
            DeviceChange::RemoveAll { kind } => Step::RemoveAll { table, prefix: key(&[&org, &session, &[kind]]) },
            DeviceChange::Clear => Step::RemoveAll { table, prefix: key(&[&org, &session]) },
        });
    }
    Ok(sealer.finish())
}

struct Sealer<'a> {
    ring: &'a Arc<Keyring>,
    /// Sessions that this commit erases: what is told about them is the organisation's.
    erased: BTreeSet<SessionId>,
    /// Nothing of the organisation is kept.
    erases_org: bool,
    prepared: Prepared,
}

impl<'a> Sealer<'a> {
    fn new(ring: &'a Arc<Keyring>, org: OrgId, now: Timestamp, writes: &[Write]) -> Result<Self, CommitError> {
        let mut sealer = Self {
            ring,
            erased: BTreeSet::new(),
            erases_org: false,
            prepared: Prepared {
                only_checked: false,
                org,
                now,
                expect: Vec::new(),
                quotas: Vec::new(),
                limits: Vec::new(),
                hits: BTreeSet::new(),
                uses: HashMap::new(),
                reserved: Vec::new(),
                steps: Vec::with_capacity(writes.len() + 4),
                audit: Vec::new(),
                events: Vec::new(),
                queued: Vec::new(),
                kv: Vec::new(),
                kv_quota: KvQuota::default(),
                tallies: Vec::new(),
                fact: None,
                idempotency: None,
                claim: None,
                reply: None,
            },
        };
        for write in writes {
            match write {
                Write::PutOrg(_) => sealer.introduce(Owner::org(org))?,
                Write::PutSession(session) => sealer.introduce(Owner::session(org, session.id))?,
                Write::EraseSession(id) => {
                    // A session whose key is lost cannot be read, but it can go.
                    sealer.living(Owner::session(org, *id)).ok();
                    sealer.erased.insert(*id);
                }
                Write::EraseOrg if org == OrgId::PLATFORM => return Err(CommitError::UnknownOrg(org)),
                Write::EraseOrg => sealer.erases_org = true,
                Write::PutKey(_)
                | Write::PutPlugin(_)
                | Write::PutComponent { .. }
                | Write::RemovePlugin(_)
                | Write::RemovePluginVersion { .. }
                | Write::PutBinding(_)
                | Write::RemoveBinding(_)
                | Write::PutSuspension(_)
                | Write::RemoveSuspensions(_)
                | Write::PutSecret { .. }
                | Write::RemoveSecret { .. }
                | Write::PutPublisher(_)
                | Write::RemovePublisher(_)
                | Write::PutConfirmation(_)
                | Write::RemoveConfirmation(_)
                | Write::PutWebhook(_)
                | Write::RemoveWebhook(_)
                | Write::PutMessage(_)
                | Write::ForgetDevice(_)
                | Write::ForgetDecisions { .. }
                | Write::ForgetEvents { .. }
                | Write::ForgetExpired { .. }
                | Write::RotationIsTold
                | Write::ForgetDeliveries { .. } => {}
            }
        }
        // Whatever a commit writes, its organisation must be there.
        sealer.org_key()?;
        Ok(sealer)
    }

    fn finish(mut self) -> Prepared {
        if self.erases_org {
            self.prepared.hits.clear();
        }
        self.prepared
    }

    /// Reserves a key if the owner has none.
    fn introduce(&mut self, owner: Owner) -> Result<(), CommitError> {
        let known = self.prepared.reserved.iter().any(|reserved| reserved.owner == owner);
        if !known && self.ring.live(owner).is_none() {
            self.prepared.reserved.push(self.ring.reserve(owner)?);
        }
        Ok(())
    }

    /// The key that seals for this owner.
    fn living(&mut self, owner: Owner) -> Result<Arc<DataKey>, CommitError> {
        if let Some(reserved) = self.prepared.reserved.iter().find(|reserved| reserved.owner == owner) {
            return Ok(reserved.key.clone());
        }
        if let Some(used) = self.prepared.uses.get(&owner) {
            return Ok(used.clone());
        }
        let Some(living) = self.ring.live(owner) else {
            return Err(owner.session.map_or(CommitError::UnknownOrg(owner.org), CommitError::UnknownSession));
        };
        self.prepared.uses.insert(owner, living.clone());
        Ok(living)
    }

    fn org_key(&mut self) -> Result<Arc<DataKey>, CommitError> {
        self.living(Owner::org(self.prepared.org))
    }

    /// The key for what is told about a session, if it is about one.
    fn key_about(&mut self, session: Option<SessionId>) -> Result<Arc<DataKey>, CommitError> {
        match session {
            Some(id) if !self.erased.contains(&id) => self.living(Owner::session(self.prepared.org, id)),
            _ => self.org_key(),
        }
    }

    fn own(&self, found: OrgId) -> Result<(), CommitError> {
        let org = self.prepared.org;
        if found == org { Ok(()) } else { Err(CommitError::ForeignRow { org, found }) }
    }

    fn write(&mut self, write: Write) -> Result<(), CommitError> {
        let org = self.prepared.org.to_bytes();
        let step = match write {
            Write::PutOrg(row) => {
                self.own(row.id)?;
                let (table, key) = (tables::ORGS, org.to_vec());
                let value = seal(&*self.org_key()?, table, &key, &row.generation.to_be_bytes(), &row)?;
                Step::Put { table, key, value }
            }
            Write::PutSession(row) => {
                self.own(row.org)?;
                let data_key = self.living(Owner::session(row.org, row.id))?;
                let name = self.ring.hashes.instance_name(row.org, &row.names.instance_name);
                let head = [&row.generation.to_be_bytes()[..], &name].concat();
                let key = key(&[&org, &row.id.to_bytes()]);
                let value = seal(&data_key, tables::SESSIONS, &key, &head, &row)?;
                let token = row.token.as_ref().map(|token| self.ring.hashes.session_token(token));
                Step::PutSession { id: row.id, name, token, value }
            }
            Write::EraseSession(id) => Step::EraseSession { id },
            Write::ForgetDevice(id) => Step::RemoveAll { table: tables::DEVICES, prefix: key(&[&org, &id.to_bytes()]) },
            Write::PutKey(row) => {
                self.own(row.org)?;
                let hash = self.ring.hashes.api_key(&row.hash);
                let id = row.id.to_bytes();
                let value = seal(&*self.org_key()?, tables::KEYS, &key(&[&org, &id]), &hash, &row)?;
                Step::PutKey { id, hash, value }
            }
            Write::PutPlugin(row) => {
                self.own(row.org)?;
                let name = self.ring.hashes.plugin_name(row.org, &row.name);
                let head = [&row.digest[..], &name].concat();
                let key = key(&[&org, &row.plugin.to_bytes(), &row.version.to_be_bytes()]);
                let value = seal(&*self.org_key()?, tables::PLUGINS, &key, &head, &row)?;
                Step::PutPlugin { id: row.plugin, version: row.version, name, value }
            }
            Write::PutComponent { digest, bytes } => {
                let (table, key) = (tables::COMPONENTS, key(&[&org, &digest]));
                let value = self.org_key()?.seal(tables::name(table), &key, &[], &bytes)?;
                Step::Put { table, key, value }
            }
            Write::RemovePluginVersion { plugin, version } => Step::RemovePluginVersion { id: plugin, version },
            Write::RemovePlugin(id) => Step::RemovePlugin { id },
            Write::PutBinding(row) => {
                self.own(row.org)?;
                let (table, key) = (tables::BINDINGS, key(&[&org, &row.id.to_bytes()]));
                let value = seal(&*self.org_key()?, table, &key, &row.generation.to_be_bytes(), &row)?;
                Step::PutCounted { table, of: QuotaKind::Bindings, key, value }
            }
            Write::RemoveBinding(id) => Step::RemoveBinding { id },
            Write::PutWebhook(_)
            | Write::PutMessage(_)
            | Write::PutSuspension(_)
            | Write::PutSecret { .. }
            | Write::PutPublisher(_)
            | Write::PutConfirmation(_)
                if self.erases_org =>
            {
                return Ok(());
            }
            Write::PutSuspension(row) => self.suspension(&row)?,
            Write::RemoveSuspensions(id) => {
                Step::RemoveAll { table: tables::SUSPENSIONS, prefix: key(&[&org, &id.to_bytes()]) }
            }
            Write::PutSecret { plugin, name, value } => self.secret(plugin, &name, value)?,
            Write::RemoveSecret { plugin, name } => {
                Step::Remove { table: tables::SECRETS, key: self.secret_row(plugin, &name) }
            }
            Write::PutPublisher(row) => self.publisher(&row)?,
            Write::RemovePublisher(id) => {
                let (table, key) = (tables::PUBLISHERS, key(&[&org, &id.to_bytes()]));
                Step::RemoveCounted { table, of: QuotaKind::Publishers, key }
            }
            Write::PutConfirmation(row) => self.confirmation(&row)?,
            Write::RemoveConfirmation(hash) => {
                let key = confirmations::row(&self.ring.hashes, self.prepared.org, &hash);
                Step::RemoveConfirmation { key }
            }
            Write::PutWebhook(row) => self.webhook(&row)?,
            Write::RemoveWebhook(id) => Step::RemoveWebhook { id: id.to_bytes() },
            Write::PutMessage(row) => self.message(&row)?,
            Write::ForgetDecisions { before, at_most } => Step::ForgetDecisions { before, at_most },
            Write::ForgetEvents { through, at_most } => Step::ForgetEvents { through: through.0, at_most },
            Write::ForgetDeliveries { line, through, at_most } => {
                Step::ForgetDeliveries { line, through: through.0, at_most }
            }
            Write::ForgetExpired { at_most } => Step::ForgetExpired { at_most },
            Write::RotationIsTold => Step::Remove { table: tables::META, key: migrations::SETTLED_ROW.to_vec() },
            Write::EraseOrg => Step::EraseOrg,
        };
        self.prepared.steps.push(step);
        Ok(())
    }

    /// A webhook is sealed by whoever's end is its own end.
    fn webhook(&mut self, row: &Webhook) -> Result<Step, CommitError> {
        self.own(row.org)?;
        let data_key = match row.session {
            Some(session) => self.surviving(session)?,
            None => self.org_key()?,
        };
        let (id, session) = (row.id.to_bytes(), session_part(row.session));
        let head = webhooks::head(row);
        let value = seal(&data_key, tables::WEBHOOKS, &key(&[&row.org.to_bytes(), &id]), &head, row)?;
        Ok(Step::PutWebhook { id, session, value })
    }

    fn message(&mut self, row: &OutgoingMessage) -> Result<Step, CommitError> {
        self.own(row.org)?;
        let data_key = self.surviving(row.session)?;
        let key = messages::row(row.org, row.session, row.id);
        let value = seal(&data_key, tables::MESSAGES, &key, &messages::Head::of(row).bytes(), row)?;
        Ok(Step::PutMessage { key, value })
    }

    /// The key of a session that this commit does not erase.
    fn surviving(&mut self, session: SessionId) -> Result<Arc<DataKey>, CommitError> {
        if self.erased.contains(&session) {
            return Err(CommitError::UnknownSession(session));
        }
        self.living(Owner::session(self.prepared.org, session))
    }

    fn audit(&mut self, entry: &AuditEntry) -> Result<(), CommitError> {
        if entry.org != OrgId::PLATFORM {
            self.own(entry.org)?;
            if self.erases_org {
                return Ok(());
            }
        }
        let data_key = self.living(Owner::org(entry.org))?;
        let (org, id) = (entry.org, entry.id.to_bytes());
        let envelope = seal(&data_key, tables::AUDIT, &key(&[&org.to_bytes(), &id]), &[], entry)?;
        self.prepared.audit.push(SealedEntry { org, id, envelope });
        Ok(())
    }

    fn decision(&mut self, record: DecisionRecord) -> Result<(), CommitError> {
        self.own(record.org)?;
        if self.erases_org {
            return Ok(());
        }
        let (org, id) = (record.org.to_bytes(), record.id.to_bytes());
        let (table, row) = (tables::DECISION_RECORDS, key(&[&org, &session_part(record.session), &id]));
        let value = if record.session.is_some_and(|session| self.erased.contains(&session)) {
            Vec::new()
        } else {
            seal(&*self.key_about(record.session)?, table, &row, &[], &record)?
        };
        self.prepared.steps.push(Step::Put { table, key: row, value });
        let (table, row) = (tables::DECISIONS, key(&[&org, &id]));
        let value = seal(&*self.org_key()?, table, &row, &[], &erase::skeleton(record))?;
        self.prepared.steps.push(Step::Put { table, key: row, value });
        Ok(())
    }

    fn event(&mut self, event: &DomainEvent) -> Result<(), CommitError> {
        self.own(event.org)?;
        if self.erases_org {
            return Ok(());
        }
        // What says nothing personal is the organisation's to keep, so that the news of a deletion outlives the session.
        let data_key = self.key_about(event.session.filter(|_| !event.body.outlives_session()))?;
        let (session, id, kind) = (session_part(event.session), event.id.to_bytes(), event.body.kind());
        let bound = key(&[&event.org.to_bytes(), &session, &id]);
        let value = seal(&data_key, tables::EVENTS, &bound, &outbox::head(id, kind), event)?;
        self.prepared.events.push(SealedEvent { session, kind, counts: event.body.counts(), at: event.at, value });
        Ok(())
    }

    fn fact(&mut self, fact: &FactRecord) {
        debug_assert!(fact.id.len() <= FACT_BYTES, "the front refuses longer ids");
        if !self.erases_org {
            let (org, hashes) = (self.prepared.org, &self.ring.hashes);
            let kept = key(&[&fact.event.to_bytes(), &hashes.fact_content(org, &fact.content)]);
            self.prepared.fact = Some((hashes.fact(org, &fact.id), kept));
        }
    }

    fn claim(&mut self, claim: &Claim) {
        debug_assert!(claim.key.len() <= IDEMPOTENCY_KEY_BYTES, "the front refuses longer keys");
        let Claim { org, at, digest, deed, .. } = *claim;
        let hash = self.ring.hashes.idempotency(org, &claim.key);
        self.prepared.claim = Some(Taken { org, hash, at, digest, deed });
    }

    fn reply(&mut self, kept: &KeptReply) -> Result<(), CommitError> {
        let KeptReply { org, digest, about, .. } = *kept;
        let hash = self.ring.hashes.idempotency(org, &kept.key);
        let owner = Owner { org: about.0, session: about.1 };
        let data_key = self.living(owner)?;
        let bound = key(&[&org.to_bytes(), &hash]);
        let envelope = data_key.seal(tables::name(tables::REPLIES), &bound, &[], &kept.reply)?;
        self.prepared.reply = Some(SealedReply { org, hash, digest, owner: owner.key(), envelope });
        Ok(())
    }

    fn idempotency(&mut self, record: &IdempotencyRecord) {
        debug_assert!(record.key.len() <= IDEMPOTENCY_KEY_BYTES, "the front refuses longer keys");
        if self.erases_org {
            return;
        }
        let hash = self.ring.hashes.idempotency(self.prepared.org, &record.key);
        let IdempotencyRecord { session, message, at, .. } = *record;
        self.prepared.idempotency = Some(Remembered { hash, at, session, message });
    }
}

fn seal<T: Serialize>(
    data_key: &DataKey,
    table: Definition,
    bound: &[u8],
    head: &[u8],
    row: &T,
) -> Result<Vec<u8>, CommitError> {
    let table = tables::name(table);
    data_key.seal_written(table, bound, head, ROW, |value| {
        serde_json::to_writer(value, row).map_err(|source| CommitError::Encode { table, source: Arc::new(source) })
    })
}
