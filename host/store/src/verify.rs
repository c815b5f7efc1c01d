//! Verifying: every row opens, decodes and stands where it says; every index agrees with its rows; keys and owners are one to one;
//! and nothing is left of what is gone.
//!
//! A finding is a sentence that says what is wrong with what, whose it is, and where it stands. Nothing is repaired here.

mod audit;
mod deliveries;
mod plugins;
mod references;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use portcullis_core::{
    ApiKey, Binding, DecisionRecord, Org, OrgId, OutgoingMessage, PluginVersion, Session, SessionId,
};
use serde::de::DeserializeOwned;

use crate::commit::QuotaKind;
use crate::counters::{Hit, age_row_of};
use crate::counts::Counts;
use crate::error::ReadError;
use crate::idempotency::{CLAIM, REPLY_HEAD};
use crate::keyfile::Owner;
use crate::snapshot::{OwnerOf, Snapshot, owner_org, owner_session};
use crate::tables::{self, Definition, key, org_of, part, session_part};
use crate::{Shared, device, erase, messages};

/// What verifying found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// How many rows were read.
    pub rows: u64,
    /// What is wrong, in words; empty if nothing is.
    pub findings: Vec<String>,
}

/// Verifies a store that nobody writes to meanwhile.
pub(crate) fn verify(snapshot: &Snapshot) -> Result<Report, ReadError> {
    let mut check = Check { snapshot, report: Report::default(), counts: BTreeMap::new(), there: There::default() };
    check.those_there()?;
    check.sessions()?;
    check.api_keys()?;
    check.plugins()?;
    check.webhooks()?;
    check.messages()?;
    check.errands()?;
    check.confirmations()?;
    check.suspensions_and_tallies()?;
    check.secrets_and_publishers()?;
    check.org_rows()?;
    check.decisions()?;
    check.audit()?;
    check.events()?;
    check.deliveries()?;
    check.timers()?;
    check.kv()?;
    check.counters()?;
    check.idempotency_and_facts()?;
    check.owners()?;
    check.tombstones()?;
    check.bound_versions()?;
    check.unknown_tables()?;
    Ok(check.report)
}

use references::There;

type Pairs = BTreeSet<(Vec<u8>, Vec<u8>)>;

struct Check<'a> {
    snapshot: &'a Snapshot,
    report: Report,
    counts: BTreeMap<OrgId, Counts>,
    there: There,
}

impl Check<'_> {
    fn sessions(&mut self) -> Result<(), ReadError> {
        let (mut names, mut tokens, mut tokens_of) = (Pairs::new(), Pairs::new(), Pairs::new());
        let hashes = self.shared().ring.hashes.clone();
        self.json(tables::SESSIONS, 24, owner_session, |check, row, value, session: Session| {
            let name = hashes.instance_name(session.org, &session.names.instance_name);
            check.agree(tables::SESSIONS, row, &[&session.org.to_bytes(), &session.id.to_bytes()]);
            check.head(tables::SESSIONS, row, value, &[&session.generation.to_be_bytes(), &name]);
            check.count(session.org, QuotaKind::Sessions);
            names.insert((key(&[&session.org.to_bytes(), &name]), session.id.to_bytes().to_vec()));
            if let Some(token) = &session.token {
                let token = hashes.session_token(token).to_vec();
                tokens.insert((token.clone(), row.to_vec()));
                tokens_of.insert((row.to_vec(), token));
            }
        })?;
        self.index(tables::INSTANCE_NAMES, &names)?;
        self.index(tables::SESSION_TOKENS, &tokens)?;
        self.index(tables::TOKEN_OF_SESSION, &tokens_of)?;
        self.each(tables::DEVICES, |check, row, value| check.device(row, value))
    }

    fn device(&mut self, row: &[u8], value: &[u8]) {
        let (Some(owner), Some(org), Some(session), Some(kind)) =
            (owner_session(row, value), org_of(row), part(row, 16).map(SessionId::from_bytes), row.get(32))
        else {
            return self.find(tables::DEVICES, row, "has a key that is too short");
        };
        let Some(plain) = self.opens(tables::DEVICES, owner, row, row, value, 0) else { return };
        match device::contents(&plain) {
            Some((name, _)) => {
                let expected = device::row(&self.shared().ring.hashes, org, session, *kind, name);
                self.agree(tables::DEVICES, row, &[&expected]);
            }
            None => self.find(tables::DEVICES, row, "opens, but is cut short"),
        }
    }

    fn api_keys(&mut self) -> Result<(), ReadError> {
        let mut index = Pairs::new();
        let hashes = self.shared().ring.hashes.clone();
        self.json(tables::KEYS, 32, owner_org, |check, row, value, api_key: ApiKey| {
            let hash = hashes.api_key(&api_key.hash);
            check.agree(tables::KEYS, row, &[&api_key.org.to_bytes(), &api_key.id.to_bytes()]);
            check.head(tables::KEYS, row, value, &[&hash]);
            check.count(api_key.org, QuotaKind::Keys);
            index.insert((hash.to_vec(), row.to_vec()));
        })?;
        self.index(tables::KEY_HASHES, &index)
    }

    fn plugins(&mut self) -> Result<(), ReadError> {
        let (mut names, mut plugins, mut digests) = (Pairs::new(), BTreeSet::new(), BTreeSet::new());
        let hashes = self.shared().ring.hashes.clone();
        self.json(tables::PLUGINS, 48, owner_org, |check, row, value, version: PluginVersion| {
            let (org, plugin) = (version.org.to_bytes(), version.plugin.to_bytes());
            let name = hashes.plugin_name(version.org, &version.name);
            check.agree(tables::PLUGINS, row, &[&org, &plugin, &version.version.to_be_bytes()]);
            check.head(tables::PLUGINS, row, value, &[&version.digest, &name]);
            if plugins.insert((org, plugin)) {
                check.count(version.org, QuotaKind::Plugins);
            }
            digests.insert(key(&[&org, &version.digest]));
            names.insert((key(&[&org, &name]), plugin.to_vec()));
        })?;
        self.index(tables::PLUGIN_NAMES, &names)?;
        self.each(tables::COMPONENTS, |check, row, value| {
            if let Some(owner) = owner_org(row, value) {
                check.opens(tables::COMPONENTS, owner, row, row, value, 0);
            }
            digests.remove(row);
        })?;
        for row in digests {
            self.find(tables::COMPONENTS, &row, "is missing, but a plugin version names it");
        }
        Ok(())
    }

    fn messages(&mut self) -> Result<(), ReadError> {
        let (mut open, mut ages) = (Pairs::new(), Pairs::new());
        self.json(tables::MESSAGES, messages::HEAD, owner_session, |check, row, value, message: OutgoingMessage| {
            let head = messages::Head::of(&message);
            check.agree(tables::MESSAGES, row, &[&messages::row(message.org, message.session, message.id)]);
            check.head(tables::MESSAGES, row, value, &[&head.bytes()]);
            match head.age_row(row) {
                Some(age) => drop(ages.insert((age, Vec::new()))),
                None => {
                    check.count(message.org, QuotaKind::QueuedMessages);
                    open.insert((row.to_vec(), Vec::new()));
                }
            }
        })?;
        self.index(tables::MESSAGES_OPEN, &open)?;
        self.index(tables::MESSAGES_AGE, &ages)
    }

    fn org_rows(&mut self) -> Result<(), ReadError> {
        self.json(tables::ORGS, 8, owner_org, |check, row, value, org: Org| {
            check.agree(tables::ORGS, row, &[&org.id.to_bytes()]);
            check.head(tables::ORGS, row, value, &[&org.generation.to_be_bytes()]);
        })?;
        self.json(tables::BINDINGS, 8, owner_org, |check, row, value, binding: Binding| {
            check.agree(tables::BINDINGS, row, &[&binding.org.to_bytes(), &binding.id.to_bytes()]);
            check.head(tables::BINDINGS, row, value, &[&binding.generation.to_be_bytes()]);
            check.count(binding.org, QuotaKind::Bindings);
        })?;
        let mut counted = std::mem::take(&mut self.counts);
        self.each(tables::COUNTS, |check, row, value| {
            let expected = org_of(row).and_then(|org| counted.remove(&org)).unwrap_or_default();
            if Counts::parse(value) != expected {
                check.find(tables::COUNTS, row, "does not count what there is");
            }
        })?;
        for org in counted.keys() {
            self.find(tables::COUNTS, &org.to_bytes(), "is missing");
        }
        Ok(())
    }

    fn decisions(&mut self) -> Result<(), ReadError> {
        let mut records = BTreeSet::new();
        self.json(tables::DECISIONS, 0, owner_org, |check, row, _, record: DecisionRecord| {
            let (org, id) = (record.org.to_bytes(), record.id.to_bytes());
            check.agree(tables::DECISIONS, row, &[&org, &id]);
            records.insert(key(&[&org, &session_part(record.session), &id]));
        })?;
        self.each(tables::DECISION_RECORDS, |check, row, value| {
            if !records.remove(row) {
                check.find(tables::DECISION_RECORDS, row, "has no skeleton");
            }
            if let Some(owner) = owner_session(row, value).filter(|_| !value.is_empty()) {
                check.decodes::<DecisionRecord>(tables::DECISION_RECORDS, owner, row, row, value, 0);
            }
        })?;
        for row in records {
            self.find(tables::DECISION_RECORDS, &row, "is missing");
        }
        Ok(())
    }

    fn counters(&mut self) -> Result<(), ReadError> {
        let mut last: Option<(Vec<u8>, Hit)> = None;
        let mut ages = Pairs::new();
        self.each(tables::HITS, |check, row, _| {
            let (Some(counter), Some(hit)) = (row.get(..48), Hit::parse(row)) else {
                return check.find(tables::HITS, row, "has a key that is too short");
            };
            if let Some((_, before)) = last.as_ref().filter(|(before, _)| before == counter)
                && hit.ordinal != before.ordinal + 1
            {
                check.find(tables::HITS, row, "does not follow the hit before it");
            }
            last = Some((counter.to_vec(), hit));
            ages.extend(age_row_of(row).map(|row| (row, Vec::new())));
        })?;
        self.index(tables::HITS_AGE, &ages)
    }

    fn idempotency_and_facts(&mut self) -> Result<(), ReadError> {
        for (table, index) in [(tables::IDEMPOTENCY, tables::IDEMPOTENCY_AGE), (tables::FACTS, tables::FACTS_AGE)] {
            self.aged(table, index, |_, _, value| value.len() == 8 + 16 + 16)?;
        }
        self.aged(tables::REPLIES, tables::REPLIES_AGE, |check, row, value| {
            if let Some(owner) = value.get(CLAIM..).and_then(erase::owner_of) {
                // The answer about a session that is gone opens no more, and goes with its age.
                if check.shared().ring.live(owner).is_some() {
                    check.opens(tables::REPLIES, owner, row, row, value, REPLY_HEAD);
                }
                return true;
            }
            value.len() == CLAIM
        })
    }

    /// Rows that count for a while, and their index by age.
    fn aged(
        &mut self,
        table: Definition,
        index: Definition,
        is_sound: impl Fn(&mut Self, &[u8], &[u8]) -> bool,
    ) -> Result<(), ReadError> {
        let mut ages = Pairs::new();
        self.each(table, |check, row, value| match (row.split_at_checked(16), value.get(..8)) {
            (Some((org, hash)), Some(at)) if is_sound(check, row, value) => {
                ages.insert((key(&[org, at, hash]), Vec::new()));
            }
            _ => check.find(table, row, "has another length than it should"),
        })?;
        self.index(index, &ages)
    }

    /// Owners have keys, keys have owners.
    fn owners(&mut self) -> Result<(), ReadError> {
        let mut keyed: HashSet<Owner> = self.shared().ring.owners().into_iter().collect();
        keyed.remove(&Owner::org(OrgId::PLATFORM));
        for table in [tables::ORGS, tables::SESSIONS] {
            self.glance(table, |check, row, value| {
                let owner = owner_session(row, value);
                if !owner.is_some_and(|owner| keyed.remove(&owner)) {
                    check.find(table, row, "has no key of its own");
                }
            })?;
        }
        self.glance(tables::TOMBSTONES, |_, row, _| {
            if let Some(owner) = erase::owner_of(row) {
                keyed.remove(&owner);
            }
        })?;
        for Owner { org, session } in keyed {
            let whose = session.map_or_else(|| org.to_string(), |session| format!("{session} of {org}"));
            self.report.findings.push(format!("the key file holds a key of {whose}, who is not there"));
        }
        Ok(())
    }

    fn shared(&self) -> &Shared {
        &self.snapshot.shared
    }

    fn find(&mut self, table: Definition, row: &[u8], what: &str) {
        let (subject, place) = (words::subject(table, row), words::place(table, row));
        self.report.findings.push(format!("{subject} {what} ({place})"));
    }

    fn count(&mut self, org: OrgId, kind: QuotaKind) {
        self.counts.entry(org).or_default().add(kind, true);
    }

    /// Reads every row of a table. Each table is read in this way once.
    fn each(&mut self, table: Definition, mut see: impl FnMut(&mut Self, &[u8], &[u8])) -> Result<(), ReadError> {
        let of = words::owners_in(table);
        self.glance(table, |check, row, value| {
            check.report.rows += 1;
            if let Some(of) = of {
                check.owned(table, of, row, value);
            }
            see(check, row, value);
        })
    }

    /// As [`Check::each`], for rows that are read in another place as well.
    fn glance(&mut self, table: Definition, mut see: impl FnMut(&mut Self, &[u8], &[u8])) -> Result<(), ReadError> {
        for row in self.snapshot.table(table)?.range::<&[u8]>(..)? {
            let (row, value) = row?;
            see(self, row.value(), value.value());
        }
        Ok(())
    }

    /// Opens and decodes every row of a table.
    fn json<T: DeserializeOwned>(
        &mut self,
        table: Definition,
        head: usize,
        owner: OwnerOf,
        mut see: impl FnMut(&mut Self, &[u8], &[u8], T),
    ) -> Result<(), ReadError> {
        self.each(table, |check, row, value| {
            let Some(owner) = owner(row, value) else {
                return check.find(table, row, "is too short");
            };
            if let Some(decoded) = check.decodes(table, owner, row, row, value, head) {
                see(check, row, value, decoded);
            }
        })
    }

    fn decodes<T: DeserializeOwned>(
        &mut self,
        table: Definition,
        owner: Owner,
        row: &[u8],
        bound: &[u8],
        value: &[u8],
        head: usize,
    ) -> Option<T> {
        match self.snapshot.decode(table, owner, row, bound, value, head) {
            Ok(Some(decoded)) => return Some(decoded),
            Ok(None) => self.find(table, row, "has no key to open it"),
            Err(error) => self.unreadable(table, row, &error),
        }
        None
    }

    fn unreadable(&mut self, table: Definition, row: &[u8], error: &ReadError) {
        let what = match error {
            ReadError::Unopenable { .. } => "does not open: it is damaged, or stands where it was not put".to_owned(),
            ReadError::Undecodable { source, .. } => format!("opens, but does not hold what it should: {source}"),
            ReadError::Store(fault) => format!("cannot be read: {fault}"),
        };
        self.find(table, row, &what);
    }

    fn opens(
        &mut self,
        table: Definition,
        owner: Owner,
        row: &[u8],
        bound: &[u8],
        value: &[u8],
        head: usize,
    ) -> Option<Vec<u8>> {
        match self.snapshot.open(table, owner, row, bound, value, head) {
            Ok(Some(plain)) => return Some(plain),
            Ok(None) => self.find(table, row, "has no key to open it"),
            Err(error) => self.unreadable(table, row, &error),
        }
        None
    }

    fn agree(&mut self, table: Definition, row: &[u8], parts: &[&[u8]]) {
        if row != key(parts) {
            self.find(table, row, "holds something else than its key says");
        }
    }

    fn head(&mut self, table: Definition, row: &[u8], value: &[u8], parts: &[&[u8]]) {
        if !value.starts_with(&key(parts)) {
            self.find(table, row, "has a head that its contents contradict");
        }
    }

    /// Whether an index holds exactly these rows.
    fn index(&mut self, table: Definition, expected: &Pairs) -> Result<(), ReadError> {
        let mut found = Pairs::new();
        self.each(table, |_, row, value| {
            found.insert((row.to_vec(), value.to_vec()));
        })?;
        for (row, _) in expected.difference(&found) {
            self.find(table, row, "is missing or points elsewhere");
        }
        for (row, _) in found.difference(expected) {
            self.find(table, row, "points to nothing that says so");
        }
        Ok(())
    }
}
