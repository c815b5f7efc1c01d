//! Looking at the service: everything that is compared, in the model's words.

use std::sync::atomic::Ordering;

use portcullis_core::session::{LoggedOutBy, PairingMethod, RemovalStep};
use portcullis_core::{
    AuditEntry, AuditOutcome, Clock, DecisionRecord, DeviceStore, DomainEvent, EventBody, Intent, OperationKind,
    Session, SessionId, Status, Timestamp, Window,
};
use portcullis_engine::Engine;
use portcullis_service::DecisionQuery;
use portcullis_store::QuotaKind;

use crate::gateway::{Gateway, LATEST};
use crate::plain::Face;
use crate::sight::Sight;
use crate::state::{State, Wish};
use crate::steps::{How, MINUTE};

/// So many new entries of the audit are expected; if there are more, they are read again.
const FEW: usize = 6;

impl Gateway {
    pub(crate) async fn look(&mut self, answer: String) -> Sight {
        let mut sight = Sight { answer, ..Sight::default() };
        let (store, org) = (self.world.store.clone(), self.world.org);
        let snapshot = store.snapshot().unwrap();
        for (index, id) in self.sessions.clone().into_iter().enumerate() {
            let shown = self.world.session(id).await;
            // What is shown is what was committed; what has not changed since was compared then.
            if shown.as_ref().map(|session| session.generation) != self.compared.get(&id).copied() {
                let stored = snapshot.session(org, id).unwrap();
                if shown.as_deref() != stored.as_ref() {
                    sight.oddities.push(format!("session {index} is shown as {shown:?} and stored as {stored:?}"));
                }
                match &shown {
                    Some(session) => self.compared.insert(id, session.generation),
                    None => self.compared.remove(&id),
                };
            }
            sight.faces.push(shown.map(|session| self.face(&session)));
            let credentials = store.read(org, id, 0, b"simulated-device");
            sight.links.push(matches!(credentials, Ok(Some(_))));
            sight.alive.push(self.engine.run(id).map(|attempt| attempt.number()));
            sight.news.push(Vec::new());
        }
        let events = snapshot.events_after(org, self.read, 1_000).unwrap();
        for placed in events {
            self.read = placed.place;
            let text = self.event(&placed.event);
            match placed.event.session.map(|id| self.index(id)) {
                Some(Some(index)) => sight.news[index].push(text),
                Some(None) => sight.oddities.push(format!("news of a session that nobody knows: {text}")),
                None => sight.house_news.push(text),
            }
        }
        let wakes = self.world.service.next_wake();
        sight.wakes = wakes.map(|at| self.relative(at));
        let permit = self.world.permit(OperationKind::SessionRead, None).await;
        let listed = self.world.service.sessions(&permit, None, 100).entries;
        sight.listed = listed.iter().filter_map(|session| self.index(session.id)).collect();
        sight.listed.sort_unstable();
        sight.counted = snapshot.count(org, QuotaKind::Sessions).unwrap() as usize;
        let now = self.world.clock.now();
        let deletes = snapshot.usage(org, OperationKind::SessionDelete, Window::Sliding(MINUTE), now).unwrap();
        sight.deletes = usize::try_from(deletes).unwrap();
        sight.audit = self.new_audit().await;
        sight.decisions = self.new_decisions().await;
        self.looked = now;
        LATEST.fetch_max(now.as_millis(), Ordering::Relaxed);
        sight
    }

    fn index(&self, id: SessionId) -> Option<usize> {
        self.sessions.iter().position(|known| *known == id)
    }

    fn about(&self, session: Option<SessionId>) -> String {
        match session.map(|id| self.index(id)) {
            None => "-".to_owned(),
            Some(None) => "unknown".to_owned(),
            Some(Some(index)) => index.to_string(),
        }
    }

    async fn new_audit(&mut self) -> Vec<String> {
        let permit = self.world.permit(OperationKind::AuditRead, None).await;
        let mut most = self.audited.len() + FEW;
        // Ids begin with their time, so all that is new stands before what is older than the last look.
        let entries = loop {
            let lines = self.world.service.audit(&permit, None, most).unwrap().entries;
            let entries: Vec<AuditEntry> = lines.into_iter().map(|line| line.entry).collect();
            if entries.len() < most || entries.iter().any(|entry| entry.at < self.looked) {
                break entries;
            }
            most *= 4;
        };
        let is_new = |entry: &AuditEntry| entry.at >= self.looked && !self.audited.contains(&entry.id);
        let new: Vec<_> = entries.iter().filter(|entry| is_new(entry)).collect();
        let mut lines: Vec<_> = new.iter().map(|entry| self.audit_line(entry)).collect();
        lines.sort();
        let now = self.world.clock.now();
        self.audited = entries.iter().filter(|entry| entry.at >= now).map(|entry| entry.id).collect();
        lines
    }

    fn audit_line(&self, entry: &AuditEntry) -> String {
        let outcome = match &entry.outcome {
            AuditOutcome::Done => "done".to_owned(),
            AuditOutcome::Unchanged => "unchanged".to_owned(),
            AuditOutcome::Begun => "begun".to_owned(),
            AuditOutcome::LeftOut { .. } => "left out".to_owned(),
            AuditOutcome::Deferred { until } => format!("deferred {}", self.relative(*until)),
            AuditOutcome::Vetoed { code } => format!("vetoed {code}"),
            AuditOutcome::Refused { code } => format!("refused {code}"),
            AuditOutcome::Denied { code } => format!("denied {code}"),
            AuditOutcome::Unlinked { unlink } => format!("unlinked {}", unlink.name()),
            AuditOutcome::Erased { receipt, .. } => format!("erased since {}", self.relative(receipt.asked_at)),
        };
        let (who, operation, about) = (self.word_for(&entry.actor), entry.operation.name(), self.about(entry.session));
        format!("{who} {operation} {about} {outcome} at {}", self.relative(entry.at))
    }

    async fn new_decisions(&mut self) -> Vec<String> {
        let permit = self.world.permit(OperationKind::DecisionRead, None).await;
        let query = DecisionQuery { since: Some(self.looked), ..DecisionQuery::default() };
        let records = self.world.service.decisions(&permit, &query, None, 1_000).unwrap().decisions;
        let new = records.iter().filter(|record| !self.decided.contains(&record.id));
        let mut lines: Vec<_> = new.map(|record| self.decision_line(record)).collect();
        lines.sort();
        let now = self.world.clock.now();
        self.decided = records.iter().filter(|record| record.at >= now).map(|record| record.id).collect();
        lines
    }

    fn decision_line(&self, record: &DecisionRecord) -> String {
        let phase = if record.due_since.is_some() { "due" } else { "requested" };
        let (operation, about) = (record.operation.name(), self.about(record.session));
        format!("{operation} {about} {} {phase} at {}", record.ending(), self.relative(record.at))
    }

    fn event(&self, event: &DomainEvent) -> String {
        let name = event.body.name();
        let what = match &event.body {
            EventBody::StatusChanged { from, to, cause, by } => {
                let by = by.map(|by| if by == LoggedOutBy::Api { "api" } else { "phone" });
                format!("{name} {from} {to} {}", cause.map(|cause| cause.name()).or(by).unwrap_or_default())
            }
            EventBody::PairingCodeIssued { code, .. } => format!("{name} {}", code.ordinal),
            EventBody::AccountLimited { limit } => format!("{name} {}", limit.code),
            EventBody::Unlinked { unlink } => format!("{name} {}", unlink.name()),
            EventBody::RatePolicyChanged { slug } => format!("{name} {slug}"),
            EventBody::DeleteScheduled { due, .. } => format!("{name} {}", self.relative(*due)),
            EventBody::DeleteCancelled { code, .. } | EventBody::MessageFailed { code, .. } => format!("{name} {code}"),
            EventBody::PolicyDenied { operation, code } => format!("{name} {operation} {code}"),
            _ => name.to_owned(),
        };
        format!("{what} (generation {}, at {})", event.generation, self.relative(event.at))
    }

    fn face(&self, session: &Session) -> Face {
        let at = |at: Timestamp| self.relative(at);
        let wish = match session.intent {
            Intent::Running => Wish::Run,
            Intent::Stopped => Wish::Rest,
            Intent::Removed { due, since, was_running, .. } => {
                Wish::Gone { due: at(due), since: at(since), ran: was_running }
            }
        };
        let run = session.status.attempt().map_or(0, |attempt| attempt.number());
        let state = match &session.status {
            Status::Stopped => State::Stopped,
            Status::Starting { deadline, tries, .. } => State::Starting { run, by: at(*deadline), tries: *tries },
            Status::Pairing { method, code, deadline, .. } => {
                let how = match method {
                    PairingMethod::Qr => How::Qr,
                    PairingMethod::Code => How::Code,
                    PairingMethod::Passkey => How::Passkey,
                };
                let code = code.as_ref().map(|code| (code.ordinal, at(code.expires_at)));
                State::Pairing { run, how, code, by: at(*deadline) }
            }
            Status::Online { .. } => State::Online { run },
            Status::Reconnecting { since, tries, deadline, .. } => {
                State::Reconnecting { run, since: at(*since), tries: *tries, by: at(*deadline) }
            }
            Status::LoggedOut { by, unlink } => {
                let by = if *by == LoggedOutBy::Api { "api" } else { "phone" };
                State::LoggedOut { by, unlink: unlink.name() }
            }
            Status::Failed { cause, retry } => {
                State::Failed(cause.name(), retry.map(|retry| (at(retry.at), retry.tries)))
            }
            Status::Removing { step: RemovalStep::Unlink { deadline, .. } } => {
                State::Unlinking { run, by: at(*deadline) }
            }
            Status::Removing { .. } => State::Going,
        };
        Face {
            wish,
            state,
            runs: session.last_attempt.number(),
            linked: session.device.is_some(),
            held: session.labels.contains_key("legal-hold"),
            policy: session.rate_policy.clone(),
            limit: session.account_limit.as_ref().map(|limit| limit.code.clone()),
            generation: session.generation,
            changed: at(session.updated_at),
            online_at: session.last_connected_at.map(at),
        }
    }
}
