//! The way of an operation: snapshot, policy, commit, publish, effects. In that order, and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::lifecycle::Move;
use portcullis_core::verdict::{Allowance, Limit};
use portcullis_core::{
    AuditEntry, AuditId, AuditOutcome, DecisionId, DomainEvent, EventBody, EventId, Intent, Operation, Permit,
    RequestId, Session, Status, Timestamp, Verdict,
};
use portcullis_engine::Sent;
use portcullis_store::{Commit, CommitError, Expectation, Quota, QuotaKind, Write};

use crate::plan::{self, Plan};
use crate::ruling::{Case, Question, Ruling};
use crate::{Service, ServiceError, StoreFailure, mint};

/// How often an operation is decided again because the session changed meanwhile.
const TRIES: usize = 3;
/// When to come back after finding no place.
const BUSY_RETRY: Duration = Duration::from_secs(1);
/// How long a due delete waits after a gate failed or asked for more time than it named.
pub(crate) const DUE_RETRY: Duration = Duration::from_secs(300);

/// How an operation is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Call {
    /// The request that asks.
    pub request: Option<RequestId>,
    /// Whether only the answer is wanted.
    pub dry_run: bool,
}

/// An operation that was done, or did not have to be.
#[derive(Debug, Clone)]
pub struct Done {
    /// The session as it is now; for a dry run of a creation there is none.
    pub session: Option<Arc<Session>>,
    /// How it ended.
    pub outcome: Outcome,
    /// The decision that led to it, if policy was asked.
    pub decision: Option<DecisionId>,
}

/// How an operation ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was so already.
    Unchanged,
    /// It was put off.
    Deferred {
        /// Until when.
        until: Timestamp,
        /// Why.
        reason: String,
    },
    /// A message was sent.
    Sent(Sent),
    /// Nothing was done, because only the answer was wanted.
    DryRun(Verdict),
}

impl Service {
    /// Does an operation on a session, if policy agrees.
    ///
    /// # Errors
    /// Every way of not doing it; see [`ServiceError`].
    pub async fn execute(
        self: &Arc<Self>,
        permit: &Permit,
        operation: Operation,
        call: Call,
    ) -> Result<Done, ServiceError> {
        debug_assert_eq!(permit.kind(), operation.kind(), "a permit is for one kind of operation");
        debug_assert_eq!(permit.target().session, operation.session(), "a permit is for one target");
        let question = Question {
            decision: mint::id(DecisionId::new, self.now()),
            now: self.now(),
            seed: low_half(mint::random()),
            request: call.request,
            principal: permit.principal().clone(),
            org: permit.target().org,
            operation,
            due_since: None,
            dry_run: call.dry_run,
        };
        let quota = self.org(question.org).map_or(0, |org| org.quotas.concurrency);
        let _place =
            self.places.enter(question.org, quota).map_err(|_full| ServiceError::Busy { retry_after: BUSY_RETRY })?;
        self.decide(&question).await
    }

    /// Decides a question until a commit holds.
    pub(crate) async fn decide(self: &Arc<Self>, question: &Question) -> Result<Done, ServiceError> {
        for _ in 0..TRIES {
            let case = self.case(question)?;
            if let Some(session) = case.session.as_ref().filter(|session| is_settled(question, session)) {
                let outcome = match question.dry_run {
                    true => Outcome::DryRun(Verdict::Allowed(Allowance::default())),
                    false => Outcome::Unchanged,
                };
                return Ok(Done { session: Some(Arc::clone(session)), outcome, decision: None });
            }
            let ruling = self.rule(question, &case).await?;
            if question.dry_run {
                // What policy lets through can still be refused.
                if let (Verdict::Allowed(_) | Verdict::Deferred { .. }, Ok(due)) =
                    (&ruling.verdict, plan::deferral(&ruling.verdict, &question.operation))
                {
                    plan::plan(case.session.as_ref(), &ruling.operation, due, question)?;
                }
                return Ok(Done { session: case.session, outcome: Outcome::DryRun(ruling.verdict), decision: None });
            }
            let settled = match self.settle(question, &case, ruling).await {
                Err(Unsettled::Conflict) => continue,
                // A name that was made here and is taken is made anew; one that the caller chose is theirs to change.
                Err(Unsettled::Failed(ServiceError::NameTaken)) if has_made_up_name(&question.operation) => continue,
                Err(Unsettled::Failed(error)) => Err(error),
                Ok(done) => Ok(done),
            };
            self.tell_observers(question, case, &settled);
            return settled;
        }
        Err(ServiceError::Contention)
    }

    fn case(&self, question: &Question) -> Result<Case, ServiceError> {
        let epoch = self.chains.epoch();
        let snapshot = self.snapshot()?;
        let org = snapshot
            .org(question.org)?
            .filter(|org| !org.erasing)
            .map(Arc::new)
            .ok_or(ServiceError::NotFound("organisation"))?;
        let session = match question.operation.session() {
            None => None,
            Some(id) => Some(Arc::new(snapshot.session(question.org, id)?.ok_or(ServiceError::NotFound("session"))?)),
        };
        let chain = self.chains.of(question.org, &snapshot, epoch)?;
        Ok(Case { snapshot, org, session, chain })
    }

    /// Commits what the ruling comes to, and acts on it.
    async fn settle(self: &Arc<Self>, question: &Question, case: &Case, ruling: Ruling) -> Result<Done, Unsettled> {
        let mut commit = Commit::new(question.org, question.now);
        commit.expect.push(Expectation::Org(Some(case.org.generation)));
        if let Some(session) = &case.session {
            commit.expect.push(Expectation::Session(session.id, Some(session.generation)));
        }
        commit.decision.clone_from(&ruling.record);
        let decision = ruling.record.as_ref().map(|record| record.id);

        let no_allowance = Allowance::default();
        let allowance = match &ruling.verdict {
            Verdict::Denied { denials } => return self.veto(question, commit, denials.clone()).await,
            Verdict::ConfirmationRequired { prompts } => {
                let refused = AuditOutcome::Refused { code: "confirmation_required".to_owned() };
                commit.audit.push(question.audit(refused, decision, None));
                self.commit(commit).await?;
                let error =
                    ServiceError::ConfirmationRequired { decision: question.decision, prompts: prompts.clone() };
                return Err(error.into());
            }
            Verdict::Deferred { allowance, .. } | Verdict::Allowed(allowance) => allowance,
        };
        let due = match plan::deferral(&ruling.verdict, &question.operation) {
            Ok(due) => due,
            Err(veto) => return self.veto(question, commit, vec![*veto]).await,
        };
        let planned = match plan::plan(case.session.as_ref(), &ruling.operation, due.clone(), question) {
            Ok(planned) => planned,
            Err(error) => return self.refuse(question, commit, error, decision).await,
        };
        commit.kv = ruling.kv;
        match planned {
            Plan::Unchanged => {
                commit.audit.push(question.audit(AuditOutcome::Unchanged, decision, None));
                // Nothing is done, so nothing is counted; but what was decided is remembered, and what it asks for besides is done.
                let extended =
                    extend(question, case, &mut commit, if due.is_some() { &no_allowance } else { allowance });
                self.commit(commit).await?;
                if let Some(session) = &extended {
                    self.publish(session);
                }
                let outcome = match case.session.as_ref().and_then(|session| session.delete_due()) {
                    Some(until) if due.is_some() => {
                        Outcome::Deferred { until, reason: due.map(|(_, reason)| reason).unwrap_or_default() }
                    }
                    _ => Outcome::Unchanged,
                };
                Ok(Done { session: extended.or_else(|| case.session.clone()), outcome, decision })
            }
            Plan::Send(send) => self.send(question, case, commit, send, allowance, decision).await,
            Plan::Change(moved) => {
                let allowance = if due.is_some() { &no_allowance } else { allowance };
                self.change(question, case, commit, *moved, allowance, due, decision).await
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "these are the parts of one commit, put together in one place")]
    async fn change(
        self: &Arc<Self>,
        question: &Question,
        case: &Case,
        mut commit: Commit,
        mut moved: Move,
        allowance: &Allowance,
        due: Option<(Timestamp, String)>,
        decision: Option<DecisionId>,
    ) -> Result<Done, Unsettled> {
        let now = question.now;
        let extras =
            plan::extend(question.org, Some(&mut moved.session), &allowance.follow_ups, now, |id| case.plugin_of(id));
        moved.events.extend(extras.events);
        commit.timers = extras.timers;
        commit.limits = allowance.limits.iter().map(|limit| limit.check.clone()).collect();

        let session = Arc::new(moved.session);
        if case.session.is_none() {
            // What was decided about a session's birth is sealed with its key, and goes with it.
            if let Some(record) = &mut commit.decision {
                record.session = Some(session.id);
            }
            commit.expect.push(Expectation::Session(session.id, None));
            commit.quotas.push(Quota { of: QuotaKind::Sessions, max: case.org.quotas.sessions });
        }
        let (outcome, told) = match due {
            Some((until, reason)) => (AuditOutcome::Deferred { until }, Outcome::Deferred { until, reason }),
            None => (AuditOutcome::Done, Outcome::Done),
        };
        commit.audit.push(question.audit(outcome, decision, Some(session.id)));
        commit.events = domain_events(&session, question.now, moved.events);
        commit.writes.push(Write::PutSession(Session::clone(&session)));
        if matches!(told, Outcome::Done) {
            commit.done = Some(question.operation.kind());
        }
        self.commit_limited(commit, &allowance.limits, question, decision).await?;
        self.publish(&session);
        self.perform(&session, moved.effects).await;
        // Effects may have moved the session on already.
        let session = self.views.get(question.org, session.id).unwrap_or(session);
        Ok(Done { session: Some(session), outcome: told, decision })
    }

    /// Counts and records a send, then sends.
    async fn send(
        self: &Arc<Self>,
        question: &Question,
        case: &Case,
        mut commit: Commit,
        send: portcullis_core::operation::SendText,
        allowance: &Allowance,
        decision: Option<DecisionId>,
    ) -> Result<Done, Unsettled> {
        let Some(session) = &case.session else { return Err(ServiceError::NotFound("session").into()) };
        let Status::Online { attempt } = session.status else {
            return Err(ServiceError::Send(portcullis_engine::SendError::NotConnected).into());
        };
        let limits = self.rate_limits(question, case).await?;
        let Some(_sending) = self.begin_sending(session.id, limits.concurrent_limit) else {
            return Err(self.limited(question, None, BUSY_RETRY, decision).await.into());
        };
        let plugin_limits = &allowance.limits;
        let rate_checks = limits.send_checks(session.id);
        let rate_count = rate_checks.len();
        commit.limits = rate_checks;
        commit.limits.extend(plugin_limits.iter().map(|limit| limit.check.clone()));
        commit.audit.push(question.audit(AuditOutcome::Done, decision, Some(session.id)));
        commit.done = Some(question.operation.kind());
        let extended = extend(question, case, &mut commit, allowance);
        match self.store.commit(commit).await {
            Ok(_) => {
                if let Some(session) = &extended {
                    self.publish(session);
                }
            }
            Err(CommitError::Limited { index, retry_after }) => {
                let limit = index.checked_sub(rate_count).and_then(|index| plugin_limits.get(index));
                return Err(self.limited(question, limit, retry_after, decision).await.into());
            }
            Err(error) => return Err(error.into()),
        }
        let text = portcullis_engine::OutgoingText { to: send.to.clone(), text: send.text, reply_to: send.reply_to };
        let sent = match self.engine.send_text(session.id, attempt, text, question.now).await {
            Ok(sent) => sent,
            Err(error) => {
                // It was counted, because it might have gone out; the audit says that it did not.
                let error = ServiceError::Send(error);
                let mut told = Commit::new(question.org, self.now());
                let refused = AuditOutcome::Refused { code: error.code().to_owned() };
                told.audit.push(question.audit(refused, decision, Some(session.id)));
                self.commit(told).await?;
                return Err(error.into());
            }
        };
        let mut told = Commit::new(question.org, self.now());
        let body = EventBody::MessageOut { message: sent.id.clone(), to: send.to };
        told.events = domain_events(session, self.now(), vec![body]);
        // The message is out: that its event could not be written must not make the caller send it again.
        if let Err(error) = self.store.commit(told).await {
            tracing::error!(session = %session.id, error = &error as &dyn std::error::Error, "the event of a sent message was lost");
        }
        let session = extended.unwrap_or_else(|| Arc::clone(session));
        Ok(Done { session: Some(session), outcome: Outcome::Sent(sent), decision })
    }

    async fn veto(
        &self,
        question: &Question,
        mut commit: Commit,
        denials: Vec<portcullis_core::verdict::Veto>,
    ) -> Result<Done, Unsettled> {
        let code = denials.first().map_or_else(String::new, |veto| veto.code.clone());
        let decision = commit.decision.as_ref().map(|record| record.id);
        commit.audit.push(question.audit(AuditOutcome::Vetoed { code: code.clone() }, decision, None));
        commit.events = vec![DomainEvent {
            id: mint::id(EventId::new, question.now),
            org: question.org,
            session: question.operation.session(),
            at: question.now,
            generation: 0,
            body: EventBody::PolicyDenied { operation: question.operation.kind().name().to_owned(), code },
        }];
        self.commit(commit).await?;
        Err(ServiceError::Vetoed { decision: question.decision, denials }.into())
    }

    async fn refuse(
        &self,
        question: &Question,
        mut commit: Commit,
        error: ServiceError,
        decision: Option<DecisionId>,
    ) -> Result<Done, Unsettled> {
        commit.audit.push(question.audit(AuditOutcome::Refused { code: error.code().to_owned() }, decision, None));
        self.commit(commit).await?;
        Err(error.into())
    }

    /// What a used-up limit means to the caller; audited, because a caller was told no.
    async fn limited(
        &self,
        question: &Question,
        limit: Option<&Limit>,
        retry_after: Duration,
        decision: Option<DecisionId>,
    ) -> ServiceError {
        let mut commit = Commit::new(question.org, question.now);
        commit.audit.push(question.audit(AuditOutcome::Refused { code: "rate_limited".to_owned() }, decision, None));
        if let Err(error) = self.store.commit(commit).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a refusal was not audited");
        }
        let message = limit.map_or_else(|| "send rate limit exceeded".to_owned(), |limit| limit.message.clone());
        ServiceError::Limited { decision: limit.and(decision), message, retry_after }
    }

    async fn commit_limited(
        &self,
        commit: Commit,
        limits: &[Limit],
        question: &Question,
        decision: Option<DecisionId>,
    ) -> Result<(), Unsettled> {
        match self.store.commit(commit).await {
            Ok(_) => Ok(()),
            Err(CommitError::Limited { index, retry_after }) => {
                Err(self.limited(question, limits.get(index), retry_after, decision).await.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn commit(&self, commit: Commit) -> Result<(), Unsettled> {
        self.store.commit(commit).await?;
        Ok(())
    }

    /// Makes a committed session visible, and the driver look at its deadlines.
    pub(crate) fn publish(&self, session: &Arc<Session>) {
        self.views.publish(Arc::clone(session));
        self.stirred.notify_one();
        self.timers_stirred.notify_one();
    }
}

/// Why an operation is not settled yet, or never will be.
pub(crate) enum Unsettled {
    /// What it rests on has changed; decide again.
    Conflict,
    /// It is over.
    Failed(ServiceError),
}

impl From<ServiceError> for Unsettled {
    fn from(error: ServiceError) -> Self {
        Self::Failed(error)
    }
}

impl From<CommitError> for Unsettled {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict => Self::Conflict,
            CommitError::Quota { of, max } => Self::Failed(ServiceError::Quota { of: quota_name(of), max }),
            CommitError::NameTaken => Self::Failed(ServiceError::NameTaken),
            CommitError::UnknownOrg(_) => Self::Failed(ServiceError::NotFound("organisation")),
            CommitError::UnknownSession(_) => Self::Failed(ServiceError::NotFound("session")),
            error => Self::Failed(ServiceError::Store(StoreFailure::Commit(error))),
        }
    }
}

/// What there can be too much of, as the caller is told.
pub(crate) fn quota_name(of: QuotaKind) -> &'static str {
    match of {
        QuotaKind::Sessions => "sessions",
        QuotaKind::Keys => "keys",
        QuotaKind::Plugins => "plugins",
        QuotaKind::Bindings => "bindings",
    }
}

impl Question {
    fn audit(
        &self,
        outcome: AuditOutcome,
        decision: Option<DecisionId>,
        session: Option<portcullis_core::SessionId>,
    ) -> AuditEntry {
        AuditEntry {
            id: mint::id(AuditId::new, self.now),
            org: self.org,
            at: self.now,
            actor: self.principal.kind.clone(),
            request: self.request,
            operation: self.operation.kind(),
            session: session.or_else(|| self.operation.session()),
            subject: None,
            outcome,
            decision,
        }
    }
}

/// Adds the follow-ups of an operation that leaves its session as it is; they may change the session after all.
fn extend(question: &Question, case: &Case, commit: &mut Commit, allowance: &Allowance) -> Option<Arc<Session>> {
    let session = case.session.as_ref().filter(|_| !allowance.follow_ups.is_empty())?;
    let mut next = session.changed(question.now);
    let extras =
        plan::extend(question.org, Some(&mut next), &allowance.follow_ups, question.now, |id| case.plugin_of(id));
    commit.timers = extras.timers;
    let changed = next.labels != session.labels || next.rate_policy != session.rate_policy;
    commit.events = domain_events(if changed { &next } else { session }, question.now, extras.events);
    changed.then(|| {
        commit.writes.push(Write::PutSession(next.clone()));
        Arc::new(next)
    })
}

/// Events of one session's move.
pub(crate) fn domain_events(session: &Session, now: Timestamp, bodies: Vec<EventBody>) -> Vec<DomainEvent> {
    let event = |body| DomainEvent {
        id: mint::id(EventId::new, now),
        org: session.org,
        session: Some(session.id),
        at: now,
        generation: session.generation,
        body,
    };
    bodies.into_iter().map(event).collect()
}

/// Whether a delete needs no decision: it is under way already, or it was due and has been taken back, put off or asked for anew since.
fn is_settled(question: &Question, session: &Session) -> bool {
    let is_delete = matches!(question.operation, Operation::SessionDelete { .. });
    match (&session.status, &session.intent, question.due_since) {
        (Status::Removing { .. }, ..) => is_delete,
        (_, Intent::Removed { since, due, .. }, Some(wanted)) => is_delete && (*since != wanted || *due > question.now),
        (_, Intent::Running | Intent::Stopped, Some(_)) => is_delete,
        (.., None) => false,
    }
}

fn has_made_up_name(operation: &Operation) -> bool {
    matches!(operation, Operation::SessionCreate(create) if create.instance_name.is_none())
}

/// 64 of 128 random bits.
pub(crate) fn low_half(bits: u128) -> u64 {
    u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default()
}
