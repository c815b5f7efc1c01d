//! Everything that nobody asks for: engine reports, deadlines, due deletes and reconciliation.
//!
//! [`Service::tick`] does what is due now and is all that a test needs to step through time;
//! [`Service::run`] calls it whenever something may be due.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use portcullis_core::lifecycle::{self, Move};
use portcullis_core::{EngineFact, EventBody, Fact, Input, OrgId, SessionId, Step, Timestamp, step};
use portcullis_engine::{Command, IncomingText, Progress, Report, ReportBody, Task};
use portcullis_store::{Commit, CommitError, Expectation, Write};
use tokio::task::JoinSet;

use crate::execute::domain_events;
use crate::{Service, ServiceError, StoreFailure, effects};

/// How often an input is applied again because the session changed meanwhile.
const TRIES: usize = 8;
/// How often everything is looked at, however quiet it is.
pub(crate) const RECONCILE_EVERY: Duration = Duration::from_secs(30);
/// How often what has been kept for long enough is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60 * 60);
/// How long a session is left alone after a change before reconciliation doubts it: its effects may still be under way.
const SETTLING: Duration = Duration::from_secs(5);
/// How many sessions are moved at once by a tick.
const AT_ONCE: usize = 256;

impl Service {
    /// Drives the gateway until `shutdown` completes. Call [`Service::recover`] first.
    pub async fn run(self: Arc<Self>, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let preloading = Arc::clone(&self);
        let messages = tokio::spawn(Arc::clone(&self).run_queue());
        let deletes = tokio::spawn(Arc::clone(&self).drive_deletes());
        let backlogs = tokio::spawn(Arc::clone(&self).drive_backlogs());
        let deliveries = tokio::spawn(Arc::clone(&self).run_deliveries());
        tokio::spawn(async move { preloading.preload().await });
        let mut reconcile_at = self.now().after(RECONCILE_EVERY);
        let mut forget_at = self.now();
        loop {
            let worked = self.tick_sessions().await;
            if self.now() >= reconcile_at {
                self.reconcile(SETTLING).await;
                reconcile_at = self.now().after(RECONCILE_EVERY);
            }
            if self.now() >= forget_at {
                self.forget_decisions().await;
                self.forget_events().await;
                self.forget_expired().await;
                forget_at = self.now().after(FORGET_EVERY);
            }
            // Work that failed is still due; a moment's rest keeps a broken disk from becoming a busy loop.
            let rest = if worked { Timestamp::default() } else { self.now().after(Duration::from_secs(1)) };
            let due = self.next_session_wake().map_or(reconcile_at, |at| at.max(rest).min(reconcile_at));
            if due <= self.now() {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = &mut shutdown => {
                    messages.abort();
                    deletes.abort();
                    backlogs.abort();
                    deliveries.abort();
                    return;
                }
                () = self.engine.ready() => {}
                () = self.stirred.notified() => {}
                () = self.clock.reach(due) => {}
            }
        }
    }

    /// Makes good what a crash left behind. Called once, before anything is asked of the service.
    pub async fn recover(self: &Arc<Self>) {
        if let Err(error) = self.finish_erasures().await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "erasures could not be finished; the next reconciliation tries again"
            );
        }
        self.finish_org_erasures().await;
        self.tell_settled_rotation().await;
        self.fail_interrupted().await;
        self.reconcile(Duration::ZERO).await;
    }

    /// Has every bound plugin at hand, so that no operation waits for a compiler after a start.
    async fn preload(&self) {
        let orgs: Vec<OrgId> = {
            let orgs = self.orgs.read().unwrap_or_else(PoisonError::into_inner);
            [OrgId::PLATFORM].into_iter().chain(orgs.keys().copied()).collect()
        };
        for org in orgs {
            let epoch = self.chains.epoch();
            let Ok(snapshot) = self.snapshot() else { return };
            if let Ok(chain) = self.chains.of(org, &snapshot, epoch) {
                self.load(&chain, &snapshot).await;
            }
        }
    }

    /// Compares every session with what runs for it, and mends the difference.
    /// Sessions that changed within `settling` are left alone.
    pub async fn reconcile(self: &Arc<Self>, settling: Duration) {
        let now = self.now();
        let all: Vec<SessionId> = self.views.all().iter().map(|session| session.id).collect();
        for id in all {
            // In this order: the engine is told after the session is shown, so that a run is never newer than what is shown.
            let alive = self.engine.run(id);
            let Some(session) = self.views.find(id) else { continue };
            if settling > Duration::ZERO && now.since(session.updated_at) < settling {
                continue;
            }
            let found = lifecycle::reconcile(&session, alive);
            self.perform(&session, found.effects).await;
            if let Some(attempt) = found.lost {
                let lost = Input::Engine(EngineFact { attempt, fact: Fact::Lost });
                self.input(session.org, session.id, lost).await;
            }
        }
        for (session, attempt) in self.engine.runs() {
            if self.views.find(session).is_none() {
                // Nobody owns this run any more; whose it was does not matter for ending it.
                let command = Command { org: OrgId::PLATFORM, session, task: Task::Halt { attempt } };
                let (engine, now) = (Arc::clone(&self.engine), self.now());
                let _ = tokio::task::spawn_blocking(move || engine.perform(command, now)).await;
            }
        }
    }

    /// Does everything that is due now. Answers whether all of it could be done.
    pub async fn tick(self: &Arc<Self>) -> bool {
        let backlogs = self.work_off_all(self.now()).await;
        let messages = self.send_queued().await;
        let deletes = self.carry_out_due_deletes(self.now()).await;
        self.tick_sessions().await && backlogs && messages && deletes
    }

    /// Does all that is due for sessions. No guest code runs here.
    async fn tick_sessions(self: &Arc<Self>) -> bool {
        let now = self.now();
        let mut by_session: BTreeMap<SessionId, Vec<Report>> = BTreeMap::new();
        let unrecorded = std::mem::take(&mut *self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner));
        for report in unrecorded.into_iter().chain(self.engine.poll(now)) {
            by_session.entry(report.session).or_default().push(report);
        }
        let mut all_done = true;
        let mut moving = JoinSet::new();
        for reports in by_session.into_values() {
            let service = Arc::clone(self);
            all_done &= room(&mut moving).await;
            moving.spawn(async move {
                // Reports of one session in their order; sessions beside each other.
                let mut reports = reports.into_iter();
                while let Some(report) = reports.next() {
                    if !service.observe(report.clone()).await {
                        // What could not be recorded comes first the next time; nobody will tell it again.
                        let kept = std::iter::once(report).chain(reports);
                        service.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).extend(kept);
                        return false;
                    }
                }
                true
            });
        }
        for session in self.views.overdue(now) {
            let service = Arc::clone(self);
            all_done &= room(&mut moving).await;
            moving.spawn(async move { service.input(session.org, session.id, Input::Deadline).await });
        }
        while let Some(done) = moving.join_next().await {
            all_done &= done.unwrap_or(false);
        }
        all_done
    }

    /// When [`Service::tick`] will have something by time alone.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        [self.next_session_wake(), self.next_delete(), self.next_backlog(), self.next_queued()]
            .into_iter()
            .flatten()
            .min()
    }

    fn next_session_wake(&self) -> Option<Timestamp> {
        let unrecorded = !self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        let again = unrecorded.then(|| self.now());
        [self.views.next_deadline(), self.engine.next_wake(), again].into_iter().flatten().min()
    }

    /// Takes one report of the engine.
    async fn observe(self: &Arc<Self>, report: Report) -> bool {
        let recorded = self.record(&report).await;
        if recorded {
            self.engine.recorded(&report);
        }
        recorded
    }

    async fn record(self: &Arc<Self>, report: &Report) -> bool {
        let body = match report.body.clone() {
            ReportBody::Fact(fact) => return self.input(report.org, report.session, Input::Engine(fact)).await,
            ReportBody::TextIn(IncomingText { id, from, sender, name, at, text }) => {
                EventBody::MessageIn { message: id, from, sender, name, sent_at: Some(at), text }
            }
            ReportBody::Progress(Progress { messages, chat, stage }) => {
                EventBody::MessageStatus { messages, chat, stage }
            }
        };
        let Some(session) = self.views.get(report.org, report.session) else { return true };
        let now = self.now();
        let mut commit = Commit::new(report.org, now);
        commit.events = domain_events(&session, now, vec![body]);
        report_failure(session.id, self.write(commit, 0).await.map(drop))
    }

    /// Applies an input that policy has no say in. Answers whether it could be applied.
    pub(crate) async fn input(self: &Arc<Self>, org: OrgId, id: SessionId, input: Input) -> bool {
        match self.try_input(org, id, &input).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(session = %id, error = &error as &dyn std::error::Error, "an input was not applied");
                false
            }
        }
    }

    async fn try_input(self: &Arc<Self>, org: OrgId, id: SessionId, input: &Input) -> Result<(), ServiceError> {
        for _ in 0..TRIES {
            let now = self.now();
            let Some(session) = self.store.snapshot()?.session(org, id)? else { return Ok(()) };
            let Move { session: next, effects, events, unlinked } = match step(&session, input.clone(), now)? {
                Step::Unchanged => return Ok(()),
                Step::Moved(moved) => *moved,
            };
            let mut commit = Commit::new(org, now);
            commit.expect.push(Expectation::Session(id, Some(session.generation)));
            commit.events = domain_events(&next, now, events);
            commit.writes.push(Write::PutSession(next.clone()));
            commit.audit.extend(unlinked.map(|unlink| effects::unlinked(&next, unlink, now)));
            effects::forget(&mut commit, &next, &effects);
            match self.write(commit, 0).await {
                Err(CommitError::Conflict) => {}
                Err(CommitError::UnknownSession(_) | CommitError::UnknownOrg(_)) => return Ok(()),
                Err(error) => return Err(ServiceError::Store(StoreFailure::Commit(error))),
                Ok(_) => {
                    let next = Arc::new(next);
                    self.publish(&next);
                    self.perform(&next, effects).await;
                    return Ok(());
                }
            }
        }
        Err(ServiceError::Contention)
    }
}

/// Waits until another task may begin.
async fn room(moving: &mut JoinSet<bool>) -> bool {
    if moving.len() < AT_ONCE {
        return true;
    }
    moving.join_next().await.is_none_or(|done| done.unwrap_or(false))
}

fn report_failure(session: SessionId, result: Result<(), CommitError>) -> bool {
    match result {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%session, error = &error as &dyn std::error::Error, "an event was not recorded");
            false
        }
    }
}
