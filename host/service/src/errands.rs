//! Errands of plugins: events and ends of operations that they are told, and operations that they ask for.
//!
//! An errand is committed with what it follows from, and taken out in the commit of what it comes to: a crash loses none and repeats none.
//! How it is run, and when again, stands in [`follow`](crate::follow).
//! What comes of an errand is one deeper than what it follows from, and beyond [`MAX_DEPTH`] nothing follows any more; so no chain of plugins goes on for ever.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::errand::MAX_DEPTH;
use portcullis_core::{
    AuditEntry, AuditId, AuditOutcome, BindingId, Capabilities, Capability, DeliveryState, DomainEvent, Errand,
    ErrandBody, ErrandId, Grant, KvChange, Labels, Line, Operation, OperationKind, OrgId, Principal, PrincipalKind,
    SessionId, Target, Timestamp, WebhookId,
};
use portcullis_policy::Link;
use portcullis_store::{
    Commit, CommitError, Committed, DeliveryChange, ErrandChange, Expectation, KvQuota, QuotaKind, Snapshot,
    TimerChange, Write,
};

use crate::deliveries::sessions_of;
use crate::follow::{AGAIN, AWAY, Called, Ended};
use crate::ruling::Question;
use crate::{Service, ServiceError, mint};

/// How many errands may wait in an organisation. What happens when there are more is not told, and that is audited.
pub(crate) const MOST_WAITING: u32 = 10_000;

/// Why something that was asked for is not done: nothing refused it, and it did not get through.
const GAVE_UP: &str = "gave_up";

impl Service {
    /// Makes a commit, in which the plugins that listen to its events get their errands.
    /// `depth` is how many plugin requests lie between it and a caller's operation.
    pub(crate) async fn write(&self, mut commit: Commit, depth: u8) -> Result<Committed, CommitError> {
        if !commit.events.is_empty() && depth <= MAX_DEPTH {
            self.queue_tellings(&mut commit, depth);
        }
        let (org, due) = (commit.org, next_due(&commit));
        if let Some(org) = self.org(org).filter(|_| !commit.kv.is_empty()) {
            commit.kv_quota = KvQuota::from(&org.quotas);
        }
        let changes_what_is_kept = commit.kv.iter().any(|access| access.change != KvChange::Keep);
        let written = commit.writes.iter().filter_map(hook_of).map(Line::Webhook);
        let lines: BTreeSet<_> = written.chain(commit.deliveries.iter().filter_map(line_of)).collect();
        let farewells = self.say_farewell(&mut commit).map_err(|error| {
            tracing::error!(%org, error = &error as &dyn std::error::Error, "who is told of a session's end could not be read");
            CommitError::Store(error.into())
        })?;
        let told = sessions_of(&commit.events);
        let committed = self.store.commit(commit).await;
        self.farewells_said(org, &farewells, committed.is_ok());
        let committed = committed?;
        self.news.tell(org, committed.last_event);
        if !told.is_empty() {
            self.deliveries.happened(org, told.into_iter());
        }
        for line in lines {
            self.deliveries.stir(org, line, self.now());
        }
        if changes_what_is_kept {
            self.paces.keep_changed(org);
        }
        if let Some(due) = due {
            self.agenda.note(org, due);
        }
        Ok(committed)
    }

    /// Adds an errand for every plugin that wants to be told of an event of the commit.
    fn queue_tellings(&self, commit: &mut Commit, depth: u8) {
        let epoch = self.chains.epoch();
        let Ok(snapshot) = self.store.snapshot() else { return };
        // A chain that cannot be read is the next operation's trouble; the event itself must not be lost over it.
        let Ok(chain) = self.chains.of(commit.org, &snapshot, epoch) else { return };
        let listens = |link: &&Link| !link.version.events.is_empty() && !link.suspended;
        if !chain.iter().any(|link| listens(&link)) {
            return;
        }
        let erased = commit.writes.iter().find_map(|write| match write {
            Write::EraseSession(id) => Some(*id),
            _ => None,
        });
        let mut tellings = Vec::new();
        for event in &commit.events {
            let labels = self.labels_of(commit, event.session);
            for link in chain.iter().filter(listens) {
                if link.version.hears(event.body.told_name()) && !link.shadow && link.binding.selector.chooses(&labels)
                {
                    let lives = event.session.filter(|id| erased != Some(*id));
                    if event.session.is_some() && lives.is_none() && !event.body.outlives_session() {
                        continue;
                    }
                    tellings.push(telling(link, event, lives, depth, commit.now));
                }
            }
        }
        self.queue(commit, tellings, &snapshot);
    }

    /// Adds errands to a commit; if too many wait already, only that these do not.
    pub(crate) fn queue(&self, commit: &mut Commit, errands: Vec<Errand>, snapshot: &Snapshot) {
        let is_full = || snapshot.count(commit.org, QuotaKind::Errands).is_ok_and(|waiting| waiting >= MOST_WAITING);
        if !errands.is_empty() && is_full() {
            let code = ServiceError::Backlog { retry_after: Duration::ZERO }.code();
            commit.audit.extend(errands.iter().map(|errand| untold(errand, code, commit.now)));
        } else {
            commit.errands.extend(errands.into_iter().map(ErrandChange::Put));
        }
    }

    /// The labels of an event's session: as the commit leaves them, or as they are.
    fn labels_of(&self, commit: &Commit, session: Option<SessionId>) -> Labels {
        let Some(id) = session else { return Labels::new() };
        let written = commit.writes.iter().find_map(|write| match write {
            Write::PutSession(session) if session.id == id => Some(session.labels.clone()),
            _ => None,
        });
        written.or_else(|| self.views.get(commit.org, id).map(|session| session.labels.clone())).unwrap_or_default()
    }

    /// Takes the errand of a question out in the commit that ends it.
    pub(crate) fn end_errand(&self, question: &Question, commit: &mut Commit) {
        if let Some(errand) = question.errand {
            commit.expect.push(Expectation::Errand(errand));
            commit.errands.push(ErrandChange::Remove(errand));
        }
    }

    /// Asks for an operation as a plugin: authorised, gated and audited like any other.
    pub(crate) async fn request(self: &Arc<Self>, errand: &Errand, operation: &Operation) -> Ended {
        let authority = match self.called(errand.org, errand.binding, errand.session, None) {
            Ok(Called::Here(case)) if case.link.binding.grants.contains(&Grant::Lifecycle) => {
                case.link.binding.authority
            }
            // The binding is gone or no longer grants it: what it asked for is not done.
            Ok(Called::Here(_) | Called::Gone) => return Ended::Refused("not_granted".to_owned()),
            Ok(Called::Away) => return Ended::Later(AWAY),
            Err(_) => return Ended::Later(AGAIN),
        };
        let principal = plugin_principal(errand, authority);
        let target = Target { org: errand.org, session: operation.session() };
        if let Err(error) = self.permit(&principal, operation.kind(), target, None).await {
            return Ended::Refused(error.code().to_owned());
        }
        let question =
            Question { errand: Some(errand.id), ..Question::new(errand.org, principal, operation.clone(), self.now()) };
        match self.ask_in_place(question).await {
            // The commit took it out; where nothing was committed it is still there.
            Ok(_) => Ended::Over,
            Err(ServiceError::Busy { retry_after } | ServiceError::Limited { retry_after, .. }) => {
                Ended::Failed { code: GAVE_UP, wait: Some(retry_after) }
            }
            Err(ServiceError::Contention | ServiceError::Store(_)) => Ended::Failed { code: GAVE_UP, wait: None },
            Err(error) => Ended::Refused(error.code().to_owned()),
        }
    }
}

/// What a plugin may do by itself: what whoever made its grants may, but for what makes plugins and organisations.
fn plugin_principal(errand: &Errand, authority: Capabilities) -> Principal {
    let may = [Capability::Read, Capability::Send, Capability::Manage].into_iter();
    Principal {
        org: errand.org,
        kind: PrincipalKind::Plugin { id: errand.plugin, depth: errand.depth },
        session_scope: None,
        capabilities: may.filter(|capability| authority.allow(*capability)).collect(),
    }
}

/// An operation that a plugin asks for, as an errand.
pub(crate) fn asking(
    link: &Link,
    org: OrgId,
    operation: &Operation,
    session: Option<SessionId>,
    depth: u8,
    now: Timestamp,
) -> Errand {
    Errand {
        id: mint::id(ErrandId::new, now),
        org,
        binding: link.binding.id,
        plugin: link.binding.plugin,
        session,
        depth: depth + 1,
        due: now,
        attempts: 0,
        body: ErrandBody::Request { operation: Box::new(operation.clone()) },
    }
}

fn telling(link: &Link, event: &DomainEvent, session: Option<SessionId>, depth: u8, now: Timestamp) -> Errand {
    Errand {
        id: mint::id(ErrandId::new, now),
        org: event.org,
        binding: link.binding.id,
        plugin: link.binding.plugin,
        session,
        depth,
        due: now,
        attempts: 0,
        body: ErrandBody::Tell {
            event: event.id,
            name: event.body.told_name().to_owned(),
            at: event.at,
            about: event.session,
            json: event.body.document().to_string(),
        },
    }
}

/// That a plugin is not told what the errand says, or not again.
pub(crate) fn untold(errand: &Errand, code: &str, now: Timestamp) -> AuditEntry {
    not_told((errand.org, errand.session, errand.binding), code, now)
}

/// That a plugin is not told something about a session.
pub(crate) fn not_told(
    (org, session, binding): (OrgId, Option<SessionId>, BindingId),
    code: &str,
    now: Timestamp,
) -> AuditEntry {
    AuditEntry {
        id: mint::id(AuditId::new, now),
        org,
        at: now,
        actor: PrincipalKind::System,
        request: None,
        operation: OperationKind::EventTell,
        session,
        subject: Some(binding.to_string()),
        outcome: AuditOutcome::Refused { code: code.to_owned() },
        decision: None,
    }
}

/// That an operation is not done which a plugin asked for.
pub(crate) fn undone(errand: &Errand, operation: &Operation, code: String, now: Timestamp) -> AuditEntry {
    AuditEntry {
        actor: PrincipalKind::Plugin { id: errand.plugin, depth: errand.depth },
        operation: operation.kind(),
        session: operation.session(),
        outcome: AuditOutcome::Refused { code },
        ..untold(errand, "", now)
    }
}

/// The webhook that a write makes, changes or takes away.
fn hook_of(write: &Write) -> Option<WebhookId> {
    match write {
        Write::PutWebhook(webhook) => Some(webhook.id),
        Write::RemoveWebhook(id) => Some(*id),
        _ => None,
    }
}

/// The line in which a commit has something wait.
fn line_of(change: &DeliveryChange) -> Option<Line> {
    match change {
        DeliveryChange::Queue { line, .. } => Some(*line),
        DeliveryChange::Keep(of, delivery) => {
            matches!(delivery.state, DeliveryState::Waiting { .. }).then_some(of.line)
        }
        DeliveryChange::Remove(_) | DeliveryChange::Progress { .. } => None,
    }
}

/// When the first of a commit's errands and timers is due.
fn next_due(commit: &Commit) -> Option<Timestamp> {
    let errands = commit.errands.iter().filter_map(|change| match change {
        ErrandChange::Put(errand) => Some(errand.due),
        ErrandChange::Remove(_) => None,
    });
    let timers = commit.timers.iter().filter_map(|change| match change {
        TimerChange::Set(timer) => Some(timer.at),
        TimerChange::Cancel { .. } | TimerChange::Fired { .. } => None,
    });
    errands.chain(timers).min()
}
