//! Dry runs: what would come of an operation, without doing it.
//!
//! The commit that an operation would come to is put together as it would be, and the writer asked whether it would hold.
//! What is only momentary is not looked at: places of operations and sends under way.

use portcullis_core::verdict::{Allowance, Limit};
use portcullis_core::{FollowUp, OutgoingMessage, Verdict};
use portcullis_store::{Commit, CommitError, KvQuota, Quota, QuotaKind, Write};

use crate::execute::{extend, has_made_up_name, limit_message, own_quota, take_rows};
use crate::outcome::{Done, Outcome};
use crate::plan::{self, Plan};
use crate::ruling::{Case, Question, Ruling};
use crate::undecided::{Undecided, Unsettled};
use crate::{Service, ServiceError};

impl Service {
    /// What the ruling would come to. What policy lets through can still be refused.
    pub(crate) async fn try_ruling(
        &self,
        question: &Question,
        case: &Case,
        mut ruling: Ruling,
    ) -> Result<Done, Undecided> {
        loop {
            match self.try_settling(question, case, &ruling).await {
                Err(Unsettled::Overdrawn(overdraft)) => {
                    self.overdrawn(question, case, &mut ruling, overdraft).await?;
                }
                Err(Unsettled::Failed(ServiceError::NameTaken)) if has_made_up_name(&question.operation) => break,
                Err(Unsettled::Failed(error)) => return Err(error.into()),
                // Somebody was faster; what they changed is the next try's to find out.
                Ok(()) | Err(Unsettled::Conflict | Unsettled::Wait(_)) => break,
            }
        }
        let first_round = ruling.record.and_then(|record| record.first_round);
        let verdict = match (plan::deferral(&ruling.verdict, question), ruling.verdict) {
            (Err(veto), _) => Verdict::Denied { denials: vec![*veto] },
            // Who only asks is told what would be amended, which is settled by now.
            (Ok(_), Verdict::Allowed(allowance)) => {
                let patches = first_round.map(|first| first.patches).unwrap_or_default();
                Verdict::Allowed(Allowance { patches, ..allowance })
            }
            (Ok(_), verdict) => verdict,
        };
        Ok(tried(case, verdict))
    }

    /// Whether the commit of the operation would hold: names are free, and quotas and limits have room.
    async fn try_settling(&self, question: &Question, case: &Case, ruling: &Ruling) -> Result<(), Unsettled> {
        let (Verdict::Allowed(allowance) | Verdict::Deferred { allowance, .. }) = &ruling.verdict else {
            return Ok(());
        };
        // What cannot wait is denied, and nothing of it is done.
        let Ok(due) = plan::deferral(&ruling.verdict, question) else { return Ok(()) };
        let log_out_first = allowance.follow_ups.iter().any(|extension| extension.follow_up == FollowUp::LogOutFirst);
        let mut commit = Commit::new(question.org, question.now);
        commit.kv = ruling.kv.iter().map(|(_, access)| access.clone()).collect();
        commit.kv_quota = KvQuota::from(&case.org.quotas);
        let mut limits: &[Limit] = &allowance.limits;
        // What a deferral asks for besides waits with it, but for its limits.
        let waiting = Allowance::default();
        let extending = if due.is_some() { &waiting } else { allowance };
        match plan::plan(case, &ruling.operation, due, question, log_out_first)? {
            Plan::Unchanged => {
                limits = &[];
                extend(question, case, &mut commit, extending);
            }
            Plan::Call(outgoing) => {
                if let Some(session) = &case.session {
                    let rates = self.rate_limits(question, case).await?;
                    commit.limits = outgoing.checks(&rates, session.id);
                }
                extend(question, case, &mut commit, extending);
            }
            Plan::Rows(rows) => {
                rows.join(&mut commit);
                extend(question, case, &mut commit, extending);
            }
            Plan::Webhooks(mut rows) => {
                commit.writes.extend(rows.session.take().map(Write::PutSession));
                take_rows(&mut commit, rows);
                extend(question, case, &mut commit, extending);
            }
            Plan::Change(mut moved, rows) => {
                if case.session.is_none() {
                    commit.quotas.push(Quota { of: QuotaKind::Sessions, max: case.org.quotas.sessions });
                }
                let (follow_ups, depth) = (&extending.follow_ups, question.depth());
                let link_of = |id| case.link_of(id);
                let extras =
                    plan::extend(&case.org, Some(&mut moved.session), follow_ups, question.now, depth, link_of);
                extras.join(&mut commit, Some(&moved.session));
                commit.writes.push(Write::PutSession(moved.session));
                take_rows(&mut commit, rows);
            }
        }
        let rates = commit.limits.len();
        commit.limits.extend(limits.iter().map(|limit| limit.check.clone()));
        match self.store.check(commit).await {
            Ok(()) => Ok(()),
            Err(CommitError::Limited { index, retry_after }) => {
                let limit = index.checked_sub(rates).and_then(|index| limits.get(index));
                // A send waits for its rate limit as long as its caller is patient.
                if limit.is_none() && question.now.after(retry_after) <= question.patience {
                    return Ok(());
                }
                Err(ServiceError::Limited { decision: None, message: limit_message(limit), retry_after }.into())
            }
            Err(error) => Err(own_quota(error.into(), case)),
        }
    }

    /// What would come of queueing a message. Its limits are looked at when it is sent.
    pub(crate) async fn try_queueing(
        &self,
        question: &Question,
        case: &Case,
        ruling: Ruling,
        message: OutgoingMessage,
    ) -> Result<Done, ServiceError> {
        if let Verdict::Allowed(_) | Verdict::Deferred { .. } = &ruling.verdict {
            let mut commit = Commit::new(question.org, question.now);
            commit.writes.push(Write::PutMessage(message));
            commit.quotas.push(Quota { of: QuotaKind::QueuedMessages, max: case.org.quotas.queued_messages });
            if let Err(Unsettled::Failed(error)) = self.store.check(commit).await.map_err(Unsettled::from) {
                return Err(error);
            }
        }
        Ok(tried(case, ruling.verdict))
    }
}

fn tried(case: &Case, verdict: Verdict) -> Done {
    Done { session: case.session.clone(), outcome: Outcome::DryRun(verdict), decision: None }
}
