//! Deletes that are due: policy is asked again, as the system, and they are carried out, put off or cancelled.
//!
//! Guests run here, so every organisation has a lane of its own: one whose policies take their time delays nobody but itself.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{Input, Intent, Operation, OrgId, Principal, Request, Session, Timestamp};
use tokio::task::JoinSet;

use crate::execute::DUE_RETRY;
use crate::outcome::{Done, Outcome};
use crate::ruling::Question;
use crate::{Service, ServiceError};

/// How many due deletes of one organisation are decided at once.
const AT_ONCE: usize = 8;
/// The shortest time for which a delete that a limit stands in the way of is put off.
const LEAST_WAIT: Duration = Duration::from_secs(10);
/// How often pending deletes are looked at, however far away they are.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// For how long an organisation rests whose deletes could not be decided.
const REST: Duration = Duration::from_secs(1);

impl Service {
    /// When the next delete is due.
    pub(crate) fn next_delete(&self) -> Option<Timestamp> {
        self.views.next_deletes().into_iter().map(|(_, due)| due).min()
    }

    /// Carries out what is due, beside everything else, for as long as the gateway runs.
    pub(crate) async fn drive_deletes(self: Arc<Self>) {
        let mut lanes = JoinSet::new();
        let mut busy = HashSet::new();
        loop {
            let now = self.now();
            let mut next = now.after(LOOK_EVERY);
            for (org, due) in self.views.next_deletes() {
                if due > now {
                    next = next.min(due);
                } else if busy.insert(org) {
                    let service = Arc::clone(&self);
                    lanes.spawn(async move {
                        if !service.carry_out_deletes_of(org, now).await {
                            service.clock.reach(service.now().after(REST)).await;
                        }
                        org
                    });
                }
            }
            tokio::select! {
                Some(lane) = lanes.join_next() => match lane {
                    Ok(org) => {
                        busy.remove(&org);
                    }
                    // Whose lane it was is not known any more. Lanes that run twice for a while do no harm: a delete is decided against its generation.
                    Err(error) => {
                        tracing::error!(%error, "due deletes of an organisation came to no end");
                        busy.clear();
                    }
                },
                () = self.deletes_stirred.notified() => {}
                () = self.clock.reach(next) => {}
            }
        }
    }

    /// Carries out what is due now. Answers whether all of it could be decided.
    pub(crate) async fn carry_out_due_deletes(self: &Arc<Self>, now: Timestamp) -> bool {
        let mut lanes = JoinSet::new();
        for (org, due) in self.views.next_deletes() {
            if due <= now {
                let service = Arc::clone(self);
                lanes.spawn(async move { service.carry_out_deletes_of(org, now).await });
            }
        }
        let decided = lanes.join_all().await;
        decided.into_iter().all(|all| all)
    }

    /// Carries out the first deletes of an organisation that are due.
    async fn carry_out_deletes_of(self: &Arc<Self>, org: OrgId, now: Timestamp) -> bool {
        let mut deciding = JoinSet::new();
        for session in self.views.deletes_due(org, now, AT_ONCE) {
            let service = Arc::clone(self);
            deciding.spawn(async move { Box::pin(service.carry_out_delete(&session, now)).await });
        }
        let mut all = true;
        while let Some(decided) = deciding.join_next().await {
            all &= decided.unwrap_or(false);
        }
        all
    }

    /// A delete is due: policy is asked again, as the system, and carried out, put off or cancelled.
    async fn carry_out_delete(self: &Arc<Self>, session: &Session, now: Timestamp) -> bool {
        let Intent::Removed { since, .. } = session.intent else { return true };
        let operation = Operation::SessionDelete { session: session.id };
        let question = Question {
            due_since: Some(since),
            confirmed: session.confirmed_delete.clone(),
            ..Question::new(session.org, Principal::system(session.org), operation, now)
        };
        let later = |reason: String| Request::Postpone { since, due: now.after(DUE_RETRY), reason };
        let next = match Box::pin(self.decide(&question)).await.map_err(ServiceError::from) {
            Ok(Done { outcome: Outcome::Done | Outcome::Unchanged | Outcome::Deferred { .. }, .. }) => return true,
            Ok(Done {
                outcome:
                    Outcome::Sent(_)
                    | Outcome::Webhooks(_)
                    | Outcome::Replayed(_)
                    | Outcome::Tested(_)
                    | Outcome::Checked(_)
                    | Outcome::Uploaded(..)
                    | Outcome::Bound(_)
                    | Outcome::DryRun(_),
                ..
            })
            | Err(ServiceError::NotFound(_)) => {
                return true;
            }
            Err(ServiceError::Vetoed { denials, .. }) => match denials.into_iter().next() {
                Some(veto) if veto.failure.is_none() => {
                    Request::CancelDelete { since, code: veto.code, reason: veto.message }
                }
                Some(veto) => later(veto.message),
                None => later(String::new()),
            },
            Err(ServiceError::ConfirmationRequired { .. }) => Request::CancelDelete {
                since,
                code: "confirmation_required".to_owned(),
                reason: "the confirmation that a policy asks for was not given".to_owned(),
            },
            Err(ServiceError::Limited { message, retry_after, .. }) => {
                Request::Postpone { since, due: now.after(retry_after.max(LEAST_WAIT)), reason: message }
            }
            Err(error) => {
                tracing::error!(session = %session.id, error = &error as &dyn std::error::Error, "a due delete was not decided");
                return false;
            }
        };
        self.input(session.org, session.id, Input::Request(next)).await
    }
}
