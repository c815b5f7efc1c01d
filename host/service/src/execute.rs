//! The way of an operation: snapshot, policy, commit, publish, effects. In that order, and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::errand::Outcome as Ended;
use portcullis_core::lifecycle::Move;
use portcullis_core::verdict::{Allowance, Limit};
use portcullis_core::{
    AuditEntry, AuditOutcome, DecisionId, DecisionRecord, Denial, DomainEvent, EventBody, EventId, FollowUp, Intent,
    Operation, OrgId, Permit, Session, Status, Stop, Timestamp, Verdict,
};
use portcullis_store::{Commit, CommitError, Expectation, Quota, QuotaKind, Write};

use crate::outcome::{Call, Done, Outcome};
use crate::plan::{self, Plan};
use crate::ruling::{Case, Question, Ruling};
use crate::undecided::{Undecided, Unsettled};
use crate::{Service, ServiceError, StoreFailure, administer, confirming, effects, mint, observing, webhooks};

/// How often an operation is decided because what it rests on changed meanwhile.
const TRIES: usize = 8;
/// How often it is decided beside all others; from then on it stands in its organisation's line.
const FREE_TRIES: usize = 2;
/// When to come back after finding no place.
pub(crate) const BUSY_RETRY: Duration = Duration::from_secs(1);
/// How long a due delete waits after a gate failed or asked for more time than it named.
pub(crate) const DUE_RETRY: Duration = Duration::from_secs(300);

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
        // A permit is for one kind of operation on one target; whoever passes another one has a bug, and still gets nothing done.
        if permit.kind() != operation.kind() || permit.target().session != operation.session() {
            return Err(Denial::Hidden.into());
        }
        let now = self.now();
        let patience = now.after(self.send_patience);
        self.ask_in_place(Question { patience, ..Question::asked(permit, operation, call, now) }).await
    }

    /// Decides a question until a commit holds.
    pub(crate) async fn decide(self: &Arc<Self>, question: &Question) -> Result<Done, Undecided> {
        let mut turn = None;
        for tried in 0..TRIES {
            if tried == FREE_TRIES {
                turn = Some(self.lines.stand(question.org).await.ok_or(Undecided::Failed(ServiceError::Contention))?);
            }
            let case = self.case(question)?;
            if let Some(session) = case.session.as_ref().filter(|session| is_settled(question, session)) {
                let outcome = match question.dry_run {
                    true => Outcome::DryRun(Verdict::Allowed(Allowance::default())),
                    false => Outcome::Unchanged,
                };
                // Whoever asked for it stands in the audit, also if nothing had to be decided; the gateway itself asks for nothing new.
                if !question.dry_run && question.due_since.is_none() {
                    let mut commit = Commit::new(question.org, question.now);
                    commit.audit.push(question.audit(AuditOutcome::Unchanged, None, None));
                    let written = self.commit_claiming(commit, question.claim.as_ref()).await;
                    written.map_err(|error| ServiceError::Store(StoreFailure::Commit(error)))?;
                }
                return Ok(Done { session: Some(Arc::clone(session)), outcome, decision: None });
            }
            let mut ruling = self.rule(question, &case).await?;
            if question.dry_run {
                return self.try_ruling(question, &case, ruling).await;
            }
            let settled = loop {
                match self.settle(question, &case, &ruling).await {
                    Err(Unsettled::Overdrawn(overdraft)) => {
                        self.overdrawn(question, &case, &mut ruling, overdraft).await?;
                    }
                    settled => break settled,
                }
            };
            let settled = match settled {
                // A plugin that failed is not in the ruling that is settled.
                Err(Unsettled::Conflict | Unsettled::Overdrawn(_)) => continue,
                // A name that was made here and is taken is made anew; one that the caller chose is theirs to change.
                Err(Unsettled::Failed(ServiceError::NameTaken)) if has_made_up_name(&question.operation) => continue,
                Err(Unsettled::Wait(wait)) => return Err(Undecided::Wait(wait)),
                Err(Unsettled::Failed(error)) => {
                    self.tell_failed(question, &case, &ruling, &error).await;
                    Err(error)
                }
                Ok(done) => Ok(done),
            };
            return settled.map_err(Undecided::Failed);
        }
        drop(turn);
        Err(Undecided::Failed(ServiceError::Contention))
    }

    pub(crate) fn case(&self, question: &Question) -> Result<Case, ServiceError> {
        let epoch = self.chains.epoch();
        let snapshot = self.snapshot()?;
        let org = match question.org {
            OrgId::PLATFORM => Some(administer::platform(question.now)),
            org => snapshot.org(org)?.filter(|org| !org.erasing),
        };
        let org = Arc::new(org.ok_or(ServiceError::NotFound("organisation"))?);
        let session = match question.operation.session() {
            None => None,
            Some(id) => Some(Arc::new(snapshot.session(question.org, id)?.ok_or(ServiceError::NotFound("session"))?)),
        };
        let chain = self.chains.of(question.org, &snapshot, epoch)?;
        Ok(Case { snapshot, org, session, chain, way_out: self.deliveries.outbound() })
    }

    /// Commits what the ruling comes to, and acts on it.
    async fn settle(self: &Arc<Self>, question: &Question, case: &Case, ruling: &Ruling) -> Result<Done, Unsettled> {
        let mut commit = Commit::new(question.org, question.now);
        if question.org != OrgId::PLATFORM {
            commit.expect.push(Expectation::Org(Some(case.org.generation)));
        }
        if let Some(session) = &case.session {
            commit.expect.push(Expectation::Session(session.id, Some(session.generation)));
        }
        commit.decision.clone_from(&ruling.record);
        // How a candidate compares counts whatever becomes of the operation.
        commit.tallies.clone_from(&ruling.tallies);
        let decision = ruling.record.as_ref().map(|record| record.id);

        let no_allowance = Allowance::default();
        let allowance = match &ruling.verdict {
            Verdict::Denied { denials } => {
                self.tell_ended(question, case, &mut commit, observing::denied(denials), None);
                return self.veto(question, commit, denials.clone()).await;
            }
            Verdict::ConfirmationRequired { prompts } => {
                let asked = Ended::Refused("confirmation_required".to_owned());
                self.tell_ended(question, case, &mut commit, asked, None);
                return Err(self.ask_back(question, commit, ruling, prompts, case.session.as_deref()).await);
            }
            Verdict::Deferred { allowance, .. } | Verdict::Allowed(allowance) => allowance,
        };
        let due = match plan::deferral(&ruling.verdict, question) {
            Ok(due) => due,
            Err(veto) => {
                stop(&mut commit, &veto.code);
                self.tell_ended(question, case, &mut commit, Ended::Denied(veto.code.clone()), None);
                return self.veto(question, commit, vec![*veto]).await;
            }
        };
        let log_out_first = allowance.follow_ups.iter().any(|extension| extension.follow_up == FollowUp::LogOutFirst);
        let planned = match plan::plan(case, &ruling.operation, due.clone(), question, log_out_first) {
            Ok(planned) => planned,
            Err(error) => {
                self.tell_ended(question, case, &mut commit, Ended::Refused(error.code().to_owned()), None);
                return self.refuse(question, commit, error, decision).await;
            }
        };
        confirming::use_up(question, ruling, &mut commit);
        self.end_errand(question, &mut commit);
        commit.kv = ruling.kv.iter().map(|(_, access)| access.clone()).collect();
        match planned {
            Plan::Unchanged => {
                commit.audit.push(question.audit(AuditOutcome::Unchanged, decision, None));
                // Nothing is done, so nothing is counted; but what was decided is remembered, and what it asks for besides is done.
                let extended =
                    extend(question, case, &mut commit, if due.is_some() { &no_allowance } else { allowance });
                let (outcome, told) = match case.session.as_ref().and_then(|session| session.delete_due()) {
                    Some(until) if due.is_some() => {
                        let reason = due.map(|(_, reason)| reason).unwrap_or_default();
                        (Outcome::Deferred { until, reason }, Ended::Deferred(until))
                    }
                    _ => (Outcome::Unchanged, Ended::Unchanged),
                };
                self.tell_ended(question, case, &mut commit, told, None);
                self.write_claiming(commit, question.depth(), question.claim.as_ref()).await?;
                if let Some(session) = &extended {
                    self.publish(session);
                }
                Ok(Done { session: extended.or_else(|| case.session.clone()), outcome, decision })
            }
            Plan::Call(outgoing) => self.call(question, case, commit, outgoing, allowance).await,
            Plan::Rows(rows) => self.settle_rows(question, case, commit, rows, allowance).await,
            Plan::Webhooks(mut rows) => {
                let touched = rows.session.take();
                commit.writes.extend(touched.clone().map(Write::PutSession));
                let subject = rows.subject.map(|webhook| webhook.to_string());
                self.deliveries.rouse(question.org, rows.roused());
                let outcome = take_rows(&mut commit, rows);
                commit.audit.push(AuditEntry { subject, ..question.audit(AuditOutcome::Done, decision, None) });
                commit.done = Some(question.operation.kind());
                commit.limits = allowance.limits.iter().map(|limit| limit.check.clone()).collect();
                let extended = extend(question, case, &mut commit, allowance).or_else(|| touched.map(Arc::new));
                self.tell_ended(question, case, &mut commit, Ended::Done, None);
                self.commit_limited(commit, &allowance.limits, question)
                    .await
                    .map_err(|error| own_quota(error, case))?;
                if let Some(session) = &extended {
                    self.publish(session);
                }
                let session = extended.or_else(|| case.session.clone());
                Ok(Done { session, outcome, decision })
            }
            Plan::Change(moved, rows) => {
                take_rows(&mut commit, rows);
                // What a deferral asks for besides waits with it. A limit does not: who asks is counted when they ask,
                // or a grace period would be a way around every quota. A delete that is put off again has been counted.
                let limits = if question.due_since.is_none() { allowance.limits.clone() } else { Vec::new() };
                let deferred = Allowance { limits, ..Allowance::default() };
                let allowance = if due.is_some() { &deferred } else { allowance };
                let mut moved = *moved;
                if matches!(question.operation, Operation::SessionDelete { .. }) && question.due_since.is_none() {
                    // When the delete is due nobody is there to be asked again.
                    moved.session.confirmed_delete.clone_from(&ruling.given);
                }
                self.change(question, case, commit, moved, allowance, due, decision).await
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
        let (follow_ups, depth) = (&allowance.follow_ups, question.depth());
        let extras = plan::extend(&case.org, Some(&mut moved.session), follow_ups, now, depth, |id| case.link_of(id));
        commit.limits = allowance.limits.iter().map(|limit| limit.check.clone()).collect();

        if let Some(removal) = moved.session.removal.as_mut().filter(|removal| removal.began_at == now) {
            removal.decision = decision;
        }
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
        commit.audit.extend(moved.unlinked.map(|unlink| effects::unlinked(&session, unlink, now)));
        commit.events = domain_events(&session, question.now, moved.events);
        extras.join(&mut commit, Some(&session));
        // The session comes before what belongs to it.
        commit.writes.insert(0, Write::PutSession(Session::clone(&session)));
        effects::forget(&mut commit, &session, &moved.effects);
        let ended = match &told {
            Outcome::Deferred { until, .. } => Ended::Deferred(*until),
            _ => Ended::Done,
        };
        if ended == Ended::Done {
            commit.done = Some(question.operation.kind());
        }
        self.tell_ended(question, case, &mut commit, ended, Some(session.id));
        self.commit_limited(commit, &allowance.limits, question).await.map_err(|error| own_quota(error, case))?;
        self.publish(&session);
        self.perform(&session, moved.effects).await;
        // Effects may have moved the session on already.
        let session = self.views.get(question.org, session.id).unwrap_or(session);
        Ok(Done { session: Some(session), outcome: told, decision })
    }

    pub(crate) async fn veto(
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
            device: None,
            body: EventBody::PolicyDenied { operation: question.operation.kind().name().to_owned(), code },
        }];
        self.end_errand(question, &mut commit);
        self.write(commit, question.depth()).await?;
        question.told.set();
        question.noted.set();
        Err(ServiceError::Vetoed { decision: question.decision, denials }.into())
    }

    async fn refuse(
        &self,
        question: &Question,
        mut commit: Commit,
        error: ServiceError,
        decision: Option<DecisionId>,
    ) -> Result<Done, Unsettled> {
        stop(&mut commit, error.code());
        commit.audit.push(question.audit(AuditOutcome::Refused { code: error.code().to_owned() }, decision, None));
        self.end_errand(question, &mut commit);
        self.write(commit, question.depth()).await?;
        question.told.set();
        question.noted.set();
        Err(error.into())
    }

    /// What a used-up limit means to the caller; audited, because a caller was told no.
    /// The decision would be lost with the commit that it stopped, so it is recorded here.
    pub(crate) async fn limited(
        &self,
        question: &Question,
        limit: Option<&Limit>,
        retry_after: Duration,
        record: Option<DecisionRecord>,
    ) -> ServiceError {
        let decision = record.as_ref().map(|record| record.id);
        let mut commit = Commit::new(question.org, question.now);
        // A session that was not created has no key to seal with.
        let retry_millis = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        let stopped = Stop::Limited { plugin: limit.map(|limit| limit.plugin.clone()), retry_millis };
        commit.decision = record.map(|record| DecisionRecord {
            session: question.operation.session(),
            stopped: Some(stopped),
            ..record
        });
        commit.audit.push(question.audit(AuditOutcome::Refused { code: "rate_limited".to_owned() }, decision, None));
        match self.store.commit(commit).await {
            Ok(_) => question.noted.set(),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a refusal was not audited");
            }
        }
        ServiceError::Limited { decision: limit.and(decision), message: limit_message(limit), retry_after }
    }

    pub(crate) async fn commit_limited(
        &self,
        commit: Commit,
        limits: &[Limit],
        question: &Question,
    ) -> Result<(), Unsettled> {
        let record = commit.decision.clone().filter(|_| !limits.is_empty());
        match self.write_claiming(commit, question.depth(), question.claim.as_ref()).await {
            Ok(_) => Ok(()),
            Err(CommitError::Limited { index, retry_after }) => {
                Err(self.limited(question, limits.get(index), retry_after, record).await.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn commit(&self, commit: Commit) -> Result<(), Unsettled> {
        self.store.commit(commit).await?;
        Ok(())
    }

    /// Makes a committed session visible, and the driver look at its deadlines.
    pub(crate) fn publish(&self, session: &Arc<Session>) {
        self.views.publish(session);
        self.stirred.notify_one();
        self.deletes_stirred.notify_one();
        self.queue.stirred.notify_one();
    }
}

/// What a used-up limit says to the caller: the plugin's own words, if it is a plugin's.
pub(crate) fn limit_message(limit: Option<&Limit>) -> String {
    limit.map_or_else(|| "send rate limit exceeded".to_owned(), |limit| limit.message.clone())
}

/// Records that the operation was not done although policy lets it through.
fn stop(commit: &mut Commit, code: &str) {
    if let Some(record) = &mut commit.decision {
        record.stopped = Some(Stop::Refused { code: code.to_owned() });
    }
}

/// A commit of several webhooks asks for fewer than the quota to be there before; the caller is told the quota.
pub(crate) fn own_quota(error: Unsettled, case: &Case) -> Unsettled {
    match error {
        Unsettled::Failed(ServiceError::Quota { of: "webhooks", .. }) => {
            ServiceError::Quota { of: "webhooks", max: case.org.quotas.webhooks }.into()
        }
        error => error,
    }
}

/// Puts changes of webhooks into a commit that has no events yet; what the caller is shown of them is handed back.
pub(crate) fn take_rows(commit: &mut Commit, rows: webhooks::Rows) -> Outcome {
    debug_assert!(commit.events.is_empty() || rows.events.is_empty(), "places are counted from the first event on");
    commit.writes.extend(rows.writes);
    commit.events.extend(rows.events);
    commit.deliveries.extend(rows.deliveries);
    commit.expect.extend(rows.expect);
    commit.quotas.extend(rows.quota);
    rows.outcome.unwrap_or(Outcome::Webhooks(rows.shown))
}

/// Adds the follow-ups of an operation that leaves its session as it is, or has none; they may change the session after all.
pub(crate) fn extend(
    question: &Question,
    case: &Case,
    commit: &mut Commit,
    allowance: &Allowance,
) -> Option<Arc<Session>> {
    if allowance.follow_ups.is_empty() {
        return None;
    }
    let session = case.session.as_ref();
    let mut next = session.map(|session| session.changed(question.now));
    let (now, depth) = (question.now, question.depth());
    let extras = plan::extend(&case.org, next.as_mut(), &allowance.follow_ups, now, depth, |id| case.link_of(id));
    let changed = next.filter(|next| {
        session.is_some_and(|session| next.labels != session.labels || next.rate_policy != session.rate_policy)
    });
    extras.join(commit, changed.as_ref().or_else(|| session.map(Arc::as_ref)));
    let changed = changed?;
    commit.writes.push(Write::PutSession(changed.clone()));
    Some(Arc::new(changed))
}

/// Events of one session's move.
pub(crate) fn domain_events(session: &Session, now: Timestamp, bodies: Vec<EventBody>) -> Vec<DomainEvent> {
    bodies.into_iter().map(|body| DomainEvent::of(session, mint::id(EventId::new, now), now, body)).collect()
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

pub(crate) fn has_made_up_name(operation: &Operation) -> bool {
    matches!(operation, Operation::SessionCreate(create) if create.instance_name.is_none())
}
