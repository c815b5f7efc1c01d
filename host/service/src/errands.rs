//! Errands of plugins: events that they are told, and operations that they ask for.
//!
//! An errand is committed with what it follows from, and taken out in the commit of what it comes to: a crash loses none and repeats none.
//! What comes of an errand is one deeper than what it follows from, and beyond [`MAX_DEPTH`] nothing follows any more; so no chain of plugins goes on for ever.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::errand::MAX_DEPTH;
use portcullis_core::{
    AuditEntry, AuditId, AuditOutcome, Capabilities, Capability, DomainEvent, Errand, ErrandBody, ErrandId, Grant,
    KvChange, Labels, Operation, OrgId, PluginFailure, Principal, PrincipalKind, SessionId, Target, Timestamp,
};
use portcullis_policy::{Event, Link};
use portcullis_store::{Commit, CommitError, Committed, ErrandChange, Expectation, KvQuota, QuotaKind, Write};
use tokio::task::JoinSet;

use crate::follow::{CallCase, Settles};
use crate::reads::OrgReads;
use crate::ruling::Question;
use crate::{Service, ServiceError, mint};

/// How many errands may wait in an organisation. Events that find more are not told.
pub(crate) const MOST_WAITING: u32 = 10_000;
/// How many errands are looked at in one round.
const AT_ONCE: usize = 256;
/// How often an errand is tried.
const TRIES: u32 = 10;
/// How long an errand waits after it was tried in vain; twice as long each time.
const RETRY: Duration = Duration::from_secs(2);

impl Service {
    /// Makes a commit, in which the plugins that listen to its events get their errands.
    /// `depth` is how many plugin requests lie between it and a caller's operation.
    pub(crate) async fn write(&self, mut commit: Commit, depth: u8) -> Result<Committed, CommitError> {
        if !commit.events.is_empty() && depth <= MAX_DEPTH {
            self.queue_tellings(&mut commit, depth);
        }
        let has_errands = !commit.errands.is_empty();
        let org = commit.org;
        if let Some(org) = self.org(org).filter(|_| !commit.kv.is_empty()) {
            commit.kv_quota = KvQuota::from(&org.quotas);
        }
        let changes_what_is_kept = commit.kv.iter().any(|access| access.change != KvChange::Keep);
        let committed = self.store.commit(commit).await?;
        if changes_what_is_kept {
            self.paces.keep_changed(org);
        }
        if has_errands {
            self.errands_stirred.notify_one();
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
        if snapshot.count(commit.org, QuotaKind::Errands).is_ok_and(|waiting| waiting >= MOST_WAITING) {
            tracing::warn!(org = %commit.org, "too many errands wait; plugins are not told of an event");
            return;
        }
        let erased = commit.writes.iter().find_map(|write| match write {
            Write::EraseSession(id) => Some(*id),
            _ => None,
        });
        for event in &commit.events {
            let labels = self.labels_of(commit, event.session);
            for link in chain.iter().filter(listens) {
                if link.version.hears(event.body.told_name()) && !link.shadow && link.binding.selector.chooses(&labels)
                {
                    let lives = event.session.filter(|id| erased != Some(*id));
                    if event.session.is_some() && lives.is_none() && !event.body.outlives_session() {
                        continue;
                    }
                    commit.errands.push(ErrandChange::Put(telling(link, event, lives, depth, commit.now)));
                }
            }
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

    /// Runs the errands that are due, organisations beside each other. Answers whether all could be read.
    pub(crate) async fn run_errands(self: &Arc<Self>, now: Timestamp) -> bool {
        let due = self.store.snapshot().and_then(|snapshot| snapshot.errands_due(now, AT_ONCE));
        let errands = match due {
            Ok(errands) => errands,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the due errands could not be read");
                return false;
            }
        };
        let mut by_org: HashMap<OrgId, Vec<Errand>> = HashMap::new();
        for errand in errands {
            by_org.entry(errand.org).or_default().push(errand);
        }
        let mut running = JoinSet::new();
        for errands in by_org.into_values() {
            let service = Arc::clone(self);
            running.spawn(async move {
                // Those of one organisation in their order.
                for errand in errands {
                    service.run_errand(errand).await;
                }
            });
        }
        running.join_all().await;
        true
    }

    async fn run_errand(self: &Arc<Self>, errand: Errand) {
        let ended = match &errand.body {
            ErrandBody::Tell { .. } => self.tell(&errand).await,
            ErrandBody::Request { operation } => self.request(&errand, operation).await,
        };
        match ended {
            Ended::Settled => {}
            Ended::Over => self.drop_errand(&errand, None).await,
            Ended::Refused(code) => self.drop_errand(&errand, Some(code)).await,
            Ended::Again(_) if errand.attempts + 1 >= TRIES => {
                self.drop_errand(&errand, Some("gave_up".to_owned())).await;
            }
            Ended::Again(after) => {
                let wait = after.unwrap_or_else(|| RETRY * 2_u32.saturating_pow(errand.attempts));
                let again = Errand { attempts: errand.attempts + 1, due: self.now().after(wait), ..errand.clone() };
                self.change_errand(&errand, ErrandChange::Put(again), None).await;
            }
        }
    }

    /// Tells a plugin of an event, and commits what it wants to follow together with the errand's end.
    async fn tell(self: &Arc<Self>, errand: &Errand) -> Ended {
        let ErrandBody::Tell { event, name, at, about, json } = &errand.body else { return Ended::Over };
        let found = match self.errand_case(errand) {
            Ok(Some(found)) => found,
            // Its binding or its organisation is gone, and with it whoever wanted to know.
            Ok(None) => return Ended::Over,
            Err(_) => return Ended::Again(None),
        };
        let CallCase { snapshot, link, ask } = found;
        let links = [link];
        self.load(&links, &snapshot).await;
        let event = Event { id: *event, name: name.clone(), at: *at, session: *about, json: json.clone() };
        let reads = Arc::new(OrgReads { snapshot, org: errand.org, now: ask.now });
        let Some(observed) = self.runtime.observe_event(&links, &ask, &event, reads).await.pop() else {
            return Ended::Over;
        };
        if let Err(PluginFailure::Overloaded | PluginFailure::Unavailable) = observed.result {
            return Ended::Again(None);
        }
        let settles = Settles::Errand(errand.id);
        match self.follow(errand.org, errand.session, &links, observed, settles, errand.depth).await {
            true => Ended::Settled,
            false => Ended::Again(None),
        }
    }

    /// Asks for an operation as a plugin: authorised, gated and audited like any other.
    async fn request(self: &Arc<Self>, errand: &Errand, operation: &Operation) -> Ended {
        let principal = match self.errand_case(errand) {
            Ok(Some(CallCase { link, .. })) if link.binding.grants.contains(&Grant::Lifecycle) => {
                plugin_principal(errand, link.binding.authority)
            }
            // The binding is gone or no longer grants it: what it asked for is not done.
            Ok(_) => return Ended::Refused("not_granted".to_owned()),
            Err(_) => return Ended::Again(None),
        };
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
                Ended::Again(Some(retry_after))
            }
            Err(ServiceError::Contention | ServiceError::Store(_)) => Ended::Again(None),
            Err(error) => Ended::Refused(error.code().to_owned()),
        }
    }

    fn errand_case(&self, errand: &Errand) -> Result<Option<CallCase>, ServiceError> {
        self.call_case(errand.org, errand.binding, errand.session)
    }

    async fn drop_errand(&self, errand: &Errand, refused: Option<String>) {
        let entry = match (refused, &errand.body) {
            (Some(code), ErrandBody::Request { operation }) => Some(AuditEntry {
                id: mint::id(AuditId::new, self.now()),
                org: errand.org,
                at: self.now(),
                actor: PrincipalKind::Plugin { id: errand.plugin, depth: errand.depth },
                request: None,
                operation: operation.kind(),
                session: operation.session(),
                subject: Some(errand.binding.to_string()),
                outcome: AuditOutcome::Refused { code },
                decision: None,
            }),
            (Some(code), ErrandBody::Tell { name, .. }) => {
                tracing::warn!(org = %errand.org, binding = %errand.binding, event = %name, code, "a plugin was not told of an event");
                None
            }
            (None, _) => None,
        };
        self.change_errand(errand, ErrandChange::Remove(errand.id), entry).await;
    }

    async fn change_errand(&self, errand: &Errand, change: ErrandChange, entry: Option<AuditEntry>) {
        let mut commit = Commit::new(errand.org, self.now());
        commit.expect.push(Expectation::Errand(errand.id));
        commit.errands.push(change);
        commit.audit.extend(entry);
        match self.store.commit(commit).await {
            // It was taken out by the commit of what it came to, or went with its session.
            Ok(_) | Err(CommitError::Conflict | CommitError::UnknownSession(_) | CommitError::UnknownOrg(_)) => {}
            Err(error) => {
                tracing::error!(errand = %errand.id, error = &error as &dyn std::error::Error, "an errand was not changed");
            }
        }
    }
}

/// How a try at an errand ended.
enum Ended {
    /// It is done and taken out.
    Settled,
    /// It is done, or there is nobody left to do it for.
    Over,
    /// It will not be done; the code says why.
    Refused(String),
    /// It may be done later.
    Again(Option<Duration>),
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
