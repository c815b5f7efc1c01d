//! Dry runs: what would come of an operation, without doing it.

use portcullis_core::Verdict;
use portcullis_store::{Commit, Quota, QuotaKind, Write};

use crate::execute::{Done, Outcome, has_made_up_name, own_quota, take_rows};
use crate::plan::{self, Plan};
use crate::ruling::{Case, Question, Ruling};
use crate::undecided::{Undecided, Unsettled};
use crate::{Service, ServiceError};

impl Service {
    /// What the ruling would come to. What policy lets through can still be refused.
    pub(crate) async fn try_ruling(&self, question: &Question, case: &Case, ruling: Ruling) -> Result<Done, Undecided> {
        if let (Verdict::Allowed(_) | Verdict::Deferred { .. }, Ok(due)) =
            (&ruling.verdict, plan::deferral(&ruling.verdict, &question.operation))
        {
            let planned = plan::plan(case, &ruling.operation, due, question, false)?;
            self.try_plan(question, case, planned).await?;
        }
        Ok(Done { session: case.session.clone(), outcome: Outcome::DryRun(ruling.verdict), decision: None })
    }

    /// Whether the rows of a plan could be committed: names are free, and quotas have room.
    async fn try_plan(&self, question: &Question, case: &Case, planned: Plan) -> Result<(), Undecided> {
        let mut commit = Commit::new(question.org, question.now);
        match planned {
            Plan::Unchanged | Plan::Call(_) => return Ok(()),
            Plan::Rows(rows) => rows.join(&mut commit),
            Plan::Webhooks(mut rows) => {
                commit.writes.extend(rows.session.take().map(Write::PutSession));
                take_rows(&mut commit, rows);
            }
            Plan::Change(moved, rows) => {
                if case.session.is_none() {
                    commit.quotas.push(Quota { of: QuotaKind::Sessions, max: case.org.quotas.sessions });
                }
                commit.writes.push(Write::PutSession(moved.session));
                take_rows(&mut commit, rows);
            }
        }
        match self.store.check(commit).await.map_err(|error| own_quota(error.into(), case)) {
            Ok(()) => Ok(()),
            Err(Unsettled::Failed(ServiceError::NameTaken)) if has_made_up_name(&question.operation) => Ok(()),
            Err(Unsettled::Failed(error)) => Err(error.into()),
            // Somebody was faster; what they changed is the next try's to find out.
            Err(Unsettled::Conflict | Unsettled::Wait(_) | Unsettled::Overdrawn(_)) => Ok(()),
        }
    }
}
