//! The data of a gateway that was killed, looked at with the store itself: what is written together has to agree.
//!
//! The audit and the outbox are read on from where the last look ended, so that long runs stay linear.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use portcullis_core::{
    AuditEntry, AuditOutcome, EventBody, Intent, OperationKind, OrgId, OutboxPlace, PluginId, RequestId, Session,
    SessionId, Status, Timestamp, Window,
};
use portcullis_store::{ReadError, Snapshot, Store, StoreOptions};

use super::journal::{Fault, Journal, What};
use super::kept::{Kept, Life};
use super::sessions::Message;
use super::{RunError, now};

/// How many rows are read at once.
const PAGE: usize = 500;
/// How long ago something may have been due that was not done yet, in milliseconds.
const SLACK: u64 = 15_000;
/// The longest run over which operations are counted, in milliseconds.
const DAY: u64 = 24 * 60 * 60 * 1000;

/// What is known of an organisation from the workers who work in it.
pub(super) struct Known<'a> {
    pub(super) kept: Vec<&'a Kept>,
    /// Sessions whose facts have been followed, with whether they are cancelled, and the plugin that keeps them.
    pub(super) subscribers: Vec<(&'a str, bool, &'a str)>,
    /// Other sessions that are there.
    pub(super) others: Vec<&'a str>,
    /// Sessions that have gone since the last look.
    pub(super) gone: Vec<&'a str>,
    pub(super) messages: Vec<&'a Message>,
    /// Facts that were acknowledged since the last look, with their sessions.
    pub(super) told: Vec<&'a (String, String)>,
    /// The plugin that counts labels in its keys.
    pub(super) counter: Option<&'a str>,
}

/// What was read of an organisation so far.
#[derive(Default)]
struct Seen {
    audit: u64,
    place: OutboxPlace,
    requests: HashSet<RequestId>,
    sends: HashMap<RequestId, Send>,
    sessions: HashMap<SessionId, Tally>,
    texts: HashMap<String, usize>,
    facts: HashMap<String, usize>,
    /// Labels that were set, anew or as they were.
    labelled: u64,
    /// News of the end of sessions.
    deletions: usize,
}

/// What the audit says of a message.
#[derive(Debug)]
struct Send {
    /// Whether it was acknowledged as sent, or refused; none if it was not answered, or was to wait.
    expected: Option<bool>,
    /// Lines that say it was done, less those that say it was not.
    out: i32,
    /// The first of them.
    #[expect(dead_code, reason = "whoever reads of a fault wants to see it")]
    entry: AuditEntry,
}

/// How often the audit says that something was done to a session, and how often the outbox does.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    created: (usize, usize),
    labels: (usize, usize),
    settings: (usize, usize),
    policy: (usize, usize),
    /// Receipts of its erasure, and news of it.
    erased: (usize, usize),
    seq: u64,
}

/// Looks at the data over and over.
pub(super) struct Inside {
    journal: Journal,
    began: u64,
    seen: HashMap<OrgId, Seen>,
    /// The organisation whose receiver is told of deletions.
    told: OrgId,
    deletions: usize,
}

impl Inside {
    pub(super) fn new(journal: Journal, told: OrgId) -> Self {
        Self { journal, began: now(), seen: HashMap::new(), told, deletions: 0 }
    }

    /// Looks at everything. `settled` says that nothing was on its way when the gateway was killed.
    pub(super) fn look(&mut self, data: &Path, orgs: &[(OrgId, Known<'_>)], settled: bool) -> Result<(), RunError> {
        let failed = |error: &dyn std::error::Error| RunError::Data(error.to_string());
        let store = Store::open(data, StoreOptions::default()).map_err(|error| failed(&error))?;
        for finding in store.verify().map_err(|error| failed(&error))?.findings {
            self.journal.fault(Fault::Finding, finding);
        }
        let snapshot = store.snapshot().map_err(|error| failed(&error))?;
        for (org, known) in orgs {
            let mut seen = self.seen.remove(org).unwrap_or_default();
            let looked = self.look_at(&snapshot, *org, known, &mut seen, settled);
            if *org == self.told {
                self.deletions = seen.deletions;
            }
            self.seen.insert(*org, seen);
            looked.map_err(|error| failed(&error))?;
        }
        let ours: HashSet<String> = orgs.iter().map(|(org, _)| org.to_string()).collect();
        for (request, what) in self.journal.take_missing(|org| ours.contains(org)) {
            self.journal.fault(Fault::Lost, format!("{what:?} was acknowledged as {request} and is not in the audit"));
        }
        self.journal.all_was_read(|org| ours.contains(org));
        if settled {
            self.nothing_waits(&snapshot, orgs).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// How many sessions of the first organisation are told to be gone, as far as was looked.
    pub(super) fn deletions(&self) -> usize {
        self.deletions
    }

    fn look_at(
        &self,
        snapshot: &Snapshot,
        org: OrgId,
        known: &Known<'_>,
        seen: &mut Seen,
        settled: bool,
    ) -> Result<(), ReadError> {
        self.read_audit(snapshot, org, seen)?;
        self.read_outbox(snapshot, org, seen)?;
        let sessions: HashMap<String, Session> = snapshot
            .sessions(org, None, usize::MAX)?
            .into_iter()
            .map(|session| (session.id.to_string(), session))
            .collect();
        self.sessions_agree(known, seen, &sessions, settled);
        self.counts_agree(snapshot, org, known, seen)?;
        if settled {
            for (session, cancelled, plugin) in &known.subscribers {
                self.plugin_agrees(snapshot, org, session, *cancelled, plugin)?;
            }
        }
        Ok(())
    }

    /// Every line of the audit is explained by one call, and has the decision that it names.
    fn read_audit(&self, snapshot: &Snapshot, org: OrgId, seen: &mut Seen) -> Result<(), ReadError> {
        let mut fresh = Vec::<AuditEntry>::new();
        loop {
            let page = snapshot.audit_after(org, seen.audit, PAGE)?;
            let Some(last) = page.last() else { break };
            seen.audit = last.number;
            fresh.extend(page.into_iter().map(|line| line.entry));
        }
        for entry in &fresh {
            self.is_explained(entry, seen);
            if let Some(decision) = entry.decision {
                let record = snapshot.decision(org, decision)?;
                let agrees = record.is_some_and(|record| {
                    let ended = match &entry.outcome {
                        AuditOutcome::Done
                        | AuditOutcome::Unchanged
                        | AuditOutcome::Unlinked { .. }
                        | AuditOutcome::Erased { .. } => &["allowed"][..],
                        // No policy is asked about these.
                        AuditOutcome::Begun | AuditOutcome::LeftOut { .. } => &[],
                        AuditOutcome::Deferred { .. } => &["deferred"],
                        AuditOutcome::Vetoed { .. } => &["denied", "confirmation-required"],
                        AuditOutcome::Refused { code } if code == "confirmation_required" => &["confirmation-required"],
                        AuditOutcome::Refused { .. } | AuditOutcome::Denied { .. } => &["limited", "refused"],
                    };
                    record.operation == entry.operation
                        && (record.session == entry.session || record.session.is_none())
                        && ended.contains(&record.ending())
                });
                if !agrees {
                    self.torn(format!("the decision of {entry:?} is not there, or says something else"));
                }
            }
            seen.note(entry);
        }
        self.sends_agree(seen);
        Ok(())
    }

    fn is_explained(&self, entry: &AuditEntry, seen: &mut Seen) {
        // What timers, plugins and deletions do has no request.
        let Some(request) = entry.request else { return };
        let mut what = What {
            org: entry.org.to_string(),
            operation: entry.operation.name(),
            session: entry.session.map(|session| session.to_string()),
        };
        if entry.operation == OperationKind::SessionCreate {
            what.session = None;
        }
        let done = matches!(entry.outcome, AuditOutcome::Done | AuditOutcome::Deferred { .. });
        let kept = done || matches!(entry.outcome, AuditOutcome::Unchanged);
        if entry.operation == OperationKind::MessageSend {
            return self.send_is_explained(entry, request, &what, seen);
        }
        if !seen.requests.insert(request) {
            self.journal.fault(Fault::Duplicated, format!("a request has two lines in the audit: {entry:?}"));
            return;
        }
        let text = request.to_string();
        match self.journal.take_answered(&text) {
            Some((asked, acknowledged)) => {
                if asked != what {
                    self.torn(format!("{asked:?} is in the audit as {entry:?}"));
                }
                if done && !acknowledged {
                    self.torn(format!("{asked:?} was refused, and was done: {entry:?}"));
                }
                if acknowledged && !kept {
                    self.torn(format!("{asked:?} was acknowledged, and not done: {entry:?}"));
                }
            }
            None if self.journal.is_prepared(&text)
                || self.journal.take_queued(&text).is_some_and(|asked| asked == what)
                || self.journal.take_unanswered(&what, kept) => {}
            None => self.journal.fault(Fault::Duplicated, format!("nobody has asked for {entry:?}")),
        }
    }

    /// A send is counted and written down before WhatsApp is asked, and a second line says if it was not taken:
    /// so lines that say it was done and lines that say it was not come by turns.
    fn send_is_explained(&self, entry: &AuditEntry, request: RequestId, what: &What, seen: &mut Seen) {
        let text = request.to_string();
        let send = seen.sends.entry(request).or_insert_with(|| {
            let answered = self.journal.take_answered(&text);
            let is_known = answered.as_ref().is_some_and(|(asked, _)| asked == what)
                || self.journal.take_queued(&text).as_ref() == Some(what)
                || self.journal.take_unanswered(what, true);
            if !is_known {
                self.journal.fault(Fault::Duplicated, format!("nobody has asked for {entry:?}"));
            }
            Send { expected: answered.map(|(_, acknowledged)| acknowledged), out: 0, entry: entry.clone() }
        });
        send.out += if entry.outcome == AuditOutcome::Done { 1 } else { -1 };
    }

    fn sends_agree(&self, seen: &Seen) {
        for send in seen.sends.values() {
            let fits = match send.expected {
                Some(true) => send.out == 1,
                // A refusal before anything was counted has a line of its own.
                Some(false) => send.out <= 0,
                None => (-1..=1).contains(&send.out),
            };
            if !fits {
                self.torn(format!("a message has other lines in the audit than were answered: {send:?}"));
            }
        }
    }

    fn read_outbox(&self, snapshot: &Snapshot, org: OrgId, seen: &mut Seen) -> Result<(), ReadError> {
        loop {
            // What is read is counted unopened: erased events are gaps.
            let entries = snapshot.outbox_after(org, None, seen.place, PAGE)?;
            let Some(last) = entries.last() else { return Ok(()) };
            seen.place = last.place;
            for entry in entries {
                let Some(placed) = snapshot.event_at(org, entry.session, entry.place)? else { continue };
                let event = placed.event;
                if let EventBody::Fact { id, .. } = &event.body {
                    *seen.facts.entry(id.clone()).or_default() += 1;
                }
                if let EventBody::MessageOut { text: Some(text), .. } = &event.body {
                    *seen.texts.entry(text.clone()).or_default() += 1;
                }
                let Some(session) = event.session else { continue };
                let tally = seen.sessions.entry(session).or_default();
                match event.body {
                    EventBody::SessionCreated => tally.created.1 += 1,
                    EventBody::LabelsChanged => tally.labels.1 += 1,
                    EventBody::SettingsChanged => tally.settings.1 += 1,
                    EventBody::RatePolicyChanged { .. } => tally.policy.1 += 1,
                    EventBody::Deleted => {
                        tally.erased.1 += 1;
                        seen.deletions += 1;
                    }
                    _ => {}
                }
                if placed.seq < tally.seq {
                    self.torn(format!("event {} of {session} comes after event {}", placed.seq, tally.seq));
                }
                tally.seq = placed.seq;
            }
        }
    }

    /// Sessions are those that were acknowledged, and what audit and outbox say of each is the same.
    fn sessions_agree(&self, known: &Known<'_>, seen: &mut Seen, there: &HashMap<String, Session>, settled: bool) {
        let here = |kept: &&&Kept| kept.life.sure() == Some(&Life::Here);
        for kept in known.kept.iter().filter(here) {
            if !there.contains_key(&kept.id) {
                self.journal.fault(Fault::Lost, format!("the session {} is not in the data", kept.id));
            }
        }
        if settled {
            let mut told: HashSet<&str> = known.kept.iter().map(|kept| kept.id.as_str()).collect();
            told.extend(known.others.iter().chain(known.subscribers.iter().map(|(id, ..)| id)));
            for id in there.keys().filter(|id| !told.contains(id.as_str())) {
                self.journal.fault(Fault::Duplicated, format!("nobody knows of the session {id}"));
            }
        }
        for (id, session) in there {
            let tally = seen.sessions.get(&session.id).copied().unwrap_or_default();
            let Tally { created, labels, settings, policy, erased, .. } = tally;
            let is_going = matches!(session.status, Status::Removing { .. });
            let pairs = [created, labels, settings, policy];
            if created != (1, 1) || pairs.iter().any(|(audit, outbox)| audit != outbox) {
                self.torn(format!("audit and outbox do not agree about {id}: {tally:?}"));
            }
            if erased.0 > 0 || (erased.1 > 0 && !is_going) {
                self.torn(format!("{id} is there although it is told to be gone: {tally:?}"));
            }
        }
        for id in &known.gone {
            let session = id.parse::<SessionId>().ok();
            let tally = session.and_then(|session| seen.sessions.remove(&session)).unwrap_or_default();
            if tally.erased != (1, 1) {
                self.torn(format!("{id} is gone, with other than one receipt and one event: {tally:?}"));
            }
        }
        for message in known.messages.iter().filter(|message| there.contains_key(&message.session)) {
            let out = seen.texts.get(&message.text).copied().unwrap_or_default();
            if out < message.least {
                self.journal.fault(Fault::Lost, format!("{message:?} has not gone out"));
            } else if out > message.most {
                self.journal.fault(Fault::Duplicated, format!("{message:?} has gone out {out} times"));
            }
        }
        for (session, fact) in known.told.iter().filter(|(session, _)| there.contains_key(session)) {
            match seen.facts.get(fact) {
                Some(1) => {}
                Some(_) => self.journal.fault(Fault::Duplicated, format!("the fact {fact} of {session} is told twice")),
                None => self.journal.fault(Fault::Lost, format!("the fact {fact} of {session} is not told")),
            }
        }
    }

    /// Counters and what a plugin counts in its own keys are as the audit says.
    fn counts_agree(&self, snapshot: &Snapshot, org: OrgId, known: &Known<'_>, seen: &Seen) -> Result<(), ReadError> {
        let at = Timestamp::from_millis(now());
        if now() - self.began < DAY {
            let counted = snapshot.usage(org, OperationKind::SessionLabels, Window::Sliding(DAY), at)?;
            if counted != seen.labelled {
                self.torn(format!("{org} has set labels {} times, and {counted} are counted", seen.labelled));
            }
        }
        let Some(plugin) = known.counter.and_then(|plugin| plugin.parse::<PluginId>().ok()) else { return Ok(()) };
        let entry = snapshot.kv(org, plugin, super::world::COUNT, at)?;
        let kept = entry.and_then(|entry| entry.value.try_into().ok()).map_or(0, u64::from_le_bytes);
        if kept != seen.labelled {
            self.torn(format!("{org} has set labels {} times, and its plugin has kept {kept}", seen.labelled));
        }
        Ok(())
    }

    /// What a plugin keeps of a subscription and the timer that it has set say the same, and what it was told.
    fn plugin_agrees(
        &self,
        snapshot: &Snapshot,
        org: OrgId,
        session: &str,
        cancelled: bool,
        plugin: &str,
    ) -> Result<(), ReadError> {
        let Ok(plugin) = plugin.parse::<PluginId>() else { return Ok(()) };
        let at = Timestamp::from_millis(now());
        let ledger = snapshot.kv(org, plugin, &format!("session:{session}:ledger"), at)?;
        let ledger = ledger.and_then(|entry| serde_json::from_slice::<serde_json::Value>(&entry.value).ok());
        let kept = ledger.is_some_and(|ledger| ledger["cancelled"]["is"] == true);
        let timer = snapshot.timer(org, plugin, &format!("session:{session}"))?.is_some();
        if (kept, timer) != (cancelled, cancelled) {
            self.torn(format!("{session} is cancelled {cancelled}, its plugin keeps {kept}, and a timer {timer}"));
        }
        Ok(())
    }

    /// Nothing is left on its way.
    fn nothing_waits(&self, snapshot: &Snapshot, orgs: &[(OrgId, Known<'_>)]) -> Result<(), ReadError> {
        let before = Timestamp::from_millis(now().saturating_sub(SLACK));
        let stuck = |what: String| self.journal.fault(Fault::Stuck, what);
        snapshot.every_session(|session| {
            let overdue = session.status.deadline().is_some_and(|deadline| deadline < before);
            let undeleted = matches!(session.intent, Intent::Removed { due, .. } if due < before);
            if overdue || undeleted {
                stuck(format!("{} stays {:?}, wanted {:?}", session.id, session.status, session.intent));
            }
        })?;
        for (org, _) in orgs {
            for errand in snapshot.errands_due(*org, before, 1)? {
                stuck(format!("an errand of {org} was not done: {errand:?}"));
            }
            for timer in snapshot.timers_due(*org, before, 1)? {
                stuck(format!("a timer of {org} has not fired: {timer:?}"));
            }
        }
        snapshot.every_open_message(|message| {
            let waited = Duration::from_millis(now().saturating_sub(message.updated_at.as_millis()));
            if message.state.name() == "sending" && waited.as_millis() > u128::from(SLACK) {
                stuck(format!("the message {} stays as it is being sent", message.id));
            }
        })
    }

    fn torn(&self, what: String) {
        self.journal.fault(Fault::Torn, what);
    }
}

impl Seen {
    fn note(&mut self, entry: &AuditEntry) {
        let done = entry.outcome == AuditOutcome::Done;
        let kept = done || entry.outcome == AuditOutcome::Unchanged;
        if entry.operation == OperationKind::SessionLabels && kept {
            self.labelled += 1;
        }
        let Some(session) = entry.session else { return };
        let tally = self.sessions.entry(session).or_default();
        match (entry.operation, &entry.outcome) {
            (OperationKind::SessionCreate, _) if done => tally.created.0 += 1,
            (OperationKind::SessionLabels, _) if done => tally.labels.0 += 1,
            (OperationKind::SessionSettings | OperationKind::SessionProxy, _) if done => tally.settings.0 += 1,
            (OperationKind::SessionRatePolicy, _) if done => tally.policy.0 += 1,
            (OperationKind::SessionDelete, AuditOutcome::Erased { .. }) => tally.erased.0 += 1,
            _ => {}
        }
    }
}
