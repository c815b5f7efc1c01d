//! Telling observers how an operation ended: an errand for each of them, in the commit with which it ends.
//!
//! So what was done is told, whatever happens to the gateway after the commit; and nothing of it is on the operation's path but a row.
//! An operation that no commit ended, because a quota or a limit was in its way, is told of in a commit of its own; so is its
//! line of the audit, if the commit that was refused had it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portcullis_core::errand::{Ended, Outcome};
use portcullis_core::message::INTERRUPTED;
use portcullis_core::verdict::Veto;
use portcullis_core::{
    AuditOutcome, DecisionRecord, Errand, ErrandBody, ErrandId, Hook, Operation, OrgId, SessionId, Stop, Timestamp,
};
use portcullis_engine::SendError;
use portcullis_store::{Commit, CommitError, ErrandChange};

use crate::ruling::{Case, Question, Ruling};
use crate::{Service, ServiceError, mint};

/// How long nobody doubts that WhatsApp is still being asked; no call takes as long.
const IN_DOUBT: Duration = Duration::from_secs(60 * 60);

/// Whether a commit tells of a question's end.
#[derive(Default)]
pub(crate) struct Told(AtomicBool);

impl Told {
    /// Such a commit was made.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Errands whose operation has begun and not ended. Until it has they say that it was interrupted, and are not due for long.
#[must_use]
pub(crate) struct Unended(Vec<Errand>);

impl Unended {
    /// Says in a commit how it ended.
    pub(crate) fn end(self, commit: &mut Commit, outcome: &Outcome) {
        for mut errand in self.0 {
            errand.due = commit.now;
            if let ErrandBody::After(ended) = &mut errand.body {
                ended.outcome = outcome.clone();
            }
            commit.errands.push(ErrandChange::Put(errand));
        }
    }

    /// Says in a commit that it was not begun after all.
    pub(crate) fn never(self, commit: &mut Commit) {
        commit.errands.extend(self.0.into_iter().map(|errand| ErrandChange::Remove(errand.id)));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Service {
    /// Adds what observers are told to the commit with which an operation ends; `session` is the one that it makes.
    pub(crate) fn tell_ended(
        &self,
        question: &Question,
        case: &Case,
        commit: &mut Commit,
        outcome: Outcome,
        session: Option<SessionId>,
    ) {
        let errands = self.tellings(question, case, outcome, session, commit.now);
        self.queue(commit, errands, &case.snapshot);
    }

    /// Adds to the commit before WhatsApp is asked that nobody knows how that ended, should the gateway end meanwhile.
    pub(crate) fn tell_begun(&self, question: &Question, case: &Case, commit: &mut Commit) -> Unended {
        let interrupted = Outcome::Refused(INTERRUPTED.to_owned());
        let errands = self.tellings(question, case, interrupted, None, commit.now);
        let errands = errands.into_iter().map(|errand| Errand { due: errand.due.after(IN_DOUBT), ..errand }).collect();
        let before = commit.errands.len();
        self.queue(commit, errands, &case.snapshot);
        let queued = commit.errands[before..].iter().filter_map(|change| match change {
            ErrandChange::Put(errand) => Some(errand.clone()),
            ErrandChange::Remove(_) => None,
        });
        Unended(queued.collect())
    }

    /// Tells of an operation that failed, unless the commit of its failure has done so.
    pub(crate) async fn tell_failed(&self, question: &Question, case: &Case, ruling: &Ruling, error: &ServiceError) {
        // A queued message that cannot be sent now has not failed.
        let goes_on = question.is_from_queue()
            && matches!(
                error,
                ServiceError::Limited { .. } | ServiceError::Busy { .. } | ServiceError::Send(SendError::NotConnected)
            );
        if question.told.is_set() || goes_on {
            return;
        }
        let mut commit = Commit::new(question.org, question.now);
        if is_refused_by_the_writer(error) {
            let code = error.code().to_owned();
            commit.decision = ruling
                .record
                .clone()
                .map(|record| DecisionRecord { stopped: Some(Stop::Refused { code: code.clone() }), ..record });
            let decision = commit.decision.as_ref().map(|record| record.id);
            commit.audit.push(question.audit(AuditOutcome::Refused { code }, decision, None));
        }
        self.tell_ended(question, case, &mut commit, Outcome::Refused(error.code().to_owned()), None);
        if commit.errands.is_empty() && commit.audit.is_empty() {
            return;
        }
        let has_line = !commit.audit.is_empty();
        match self.write(commit, question.depth()).await {
            Ok(_) if has_line => question.noted.set(),
            // Whatever is about a session goes with it.
            Ok(_) | Err(CommitError::UnknownSession(_) | CommitError::UnknownOrg(_)) => {}
            Err(error) => {
                tracing::error!(org = %question.org, error = &error as &dyn std::error::Error, "observers are not told of a failure");
            }
        }
    }

    /// Says how a call of WhatsApp ended that no other commit tells of.
    pub(crate) async fn tell_outcome(&self, question: &Question, unended: Unended, outcome: &Outcome) {
        if unended.is_empty() {
            return;
        }
        let mut commit = Commit::new(question.org, self.now());
        unended.end(&mut commit, outcome);
        if let Err(error) = self.write(commit, question.depth()).await {
            tracing::error!(org = %question.org, error = &error as &dyn std::error::Error, "observers are not told how a call of WhatsApp ended");
        }
    }

    fn tellings(
        &self,
        question: &Question,
        case: &Case,
        outcome: Outcome,
        created: Option<SessionId>,
        now: Timestamp,
    ) -> Vec<Errand> {
        let mut links = self.links(Hook::Observer, question, case);
        links.retain(|link| !link.suspended);
        if links.is_empty() || question.org == OrgId::PLATFORM {
            return Vec::new();
        }
        // A session that is deleted takes along whatever lies under its key, so of it only what may stay is told.
        let is_gone = matches!(question.operation, Operation::SessionDelete { .. }) && outcome == Outcome::Done;
        let session = question.operation.session().or(created).filter(|_| !is_gone);
        let before = case.session.as_deref();
        let ended = Ended {
            decision: question.decision,
            principal: question.principal.clone(),
            operation: question.operation.clone(),
            due_since: question.due_since,
            before: if is_gone { before.map(portcullis_core::Session::bare) } else { before.cloned() },
            outcome,
        };
        let errands = links.iter().map(|link| Errand {
            id: mint::id(ErrandId::new, now),
            org: question.org,
            binding: link.binding.id,
            plugin: link.binding.plugin,
            session,
            depth: question.depth(),
            due: now,
            attempts: 0,
            body: ErrandBody::After(Box::new(ended.clone())),
        });
        errands.collect()
    }
}

/// Whether the writer refused the commit of an operation as a whole, and with it all that it would have recorded.
fn is_refused_by_the_writer(error: &ServiceError) -> bool {
    matches!(error, ServiceError::Quota { .. } | ServiceError::NameTaken | ServiceError::TokenTaken)
}

/// How an operation ended that plugins denied.
pub(crate) fn denied(denials: &[Veto]) -> Outcome {
    Outcome::Denied(denials.first().map_or_else(String::new, |veto| veto.code.clone()))
}

/// How WhatsApp's answer is told.
pub(crate) fn answered<T>(answer: &Result<T, SendError>) -> Outcome {
    match answer {
        Ok(_) => Outcome::Done,
        Err(error) => Outcome::Refused(ServiceError::Send(*error).code().to_owned()),
    }
}
