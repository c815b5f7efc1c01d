//! What follows an operation off its path: observers, plugin timers, and the commits of their follow-ups.
//!
//! An observer is told after the commit and can no longer change what was decided.
//! A timer's firing, its plugin's writes and its follow-ups are one commit, so that a crash repeats all of it or none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::verdict::Extension;
use portcullis_core::{
    BindingId, DecisionId, ErrandId, Hook, OrgId, PluginFailure, Principal, Session, SessionId, Timestamp,
};
use portcullis_policy::{Ask, Link, Observed};
use portcullis_store::{Commit, CommitError, ErrandChange, Expectation, PluginTimer, Snapshot, TimerChange, Write};
use tokio::task::JoinSet;

use crate::execute::{Done, Outcome};
use crate::reads::OrgReads;
use crate::ruling::{Case, Question};
use crate::{Service, ServiceError, StoreFailure, chain, mint, plan};

/// How many operations' observers are at work at once.
pub(crate) const OBSERVERS_AT_ONCE: usize = 64;
/// How many due timers are looked at in one round, and how many of one organisation fire in it.
const TIMERS_AT_ONCE: usize = 1_024;
const TIMERS_OF_AN_ORG: usize = 8;
/// How often follow-ups are applied again because the session changed meanwhile.
const TRIES: usize = 4;
/// When a timer fires again whose plugin could not be asked.
const TIMER_RETRY: Duration = Duration::from_secs(60);

impl Service {
    /// Tells the observers how an operation ended, off its path.
    pub(crate) fn tell_observers(
        self: &Arc<Self>,
        question: &Question,
        case: Case,
        ended: &Result<Done, ServiceError>,
    ) {
        let links = self.links(Hook::Observer, question, &case);
        if links.is_empty() {
            return;
        }
        let Ok(place) = Arc::clone(&self.observing).try_acquire_owned() else {
            tracing::warn!(org = %question.org, "too many observers are at work; an operation is not observed");
            return;
        };
        let (service, ask, operation) = (Arc::clone(self), question.ask(&case), question.operation.clone());
        let session = question.operation.session().or_else(|| created(ended));
        let (outcome, depth) = (outcome(ended), question.depth());
        tokio::spawn(async move {
            service.load(&links, &case.snapshot).await;
            let reads = Arc::new(OrgReads { snapshot: case.snapshot, org: ask.org.id, now: ask.now });
            let told = service.runtime.observe(&links, &ask, &operation, &outcome, reads).await;
            for observed in told {
                service.follow(ask.org.id, session, &links, observed, Settles::Nothing, depth).await;
            }
            drop(place);
        });
    }

    /// Fires the timers that are due. Answers whether all could be.
    pub(crate) async fn fire_timers(self: &Arc<Self>, now: Timestamp) -> bool {
        let due = self.store.snapshot().and_then(|snapshot| snapshot.timers_due(now, TIMERS_AT_ONCE));
        match due {
            Ok(timers) => {
                let mut by_org: HashMap<OrgId, Vec<PluginTimer>> = HashMap::new();
                for timer in timers {
                    let ours = by_org.entry(timer.org).or_default();
                    if ours.len() < TIMERS_OF_AN_ORG {
                        ours.push(timer);
                    }
                }
                // Organisations beside each other; the timers of one in their order.
                let mut firing = JoinSet::new();
                for timers in by_org.into_values() {
                    let service = Arc::clone(self);
                    firing.spawn(async move {
                        let mut done = true;
                        for timer in timers {
                            done &= service.fire(timer, now).await;
                        }
                        done
                    });
                }
                firing.join_all().await.into_iter().all(|done| done)
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the due timers could not be read");
                false
            }
        }
    }

    async fn fire(self: &Arc<Self>, timer: PluginTimer, now: Timestamp) -> bool {
        let fired = TimerChange::Fired { plugin: timer.plugin, key: timer.key.clone(), at: timer.at };
        let found = match self.call_case(timer.org, timer.binding, timer.session) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(plugin = %timer.plugin, error = &error as &dyn std::error::Error, "a timer could not be read");
                return false;
            }
        };
        let Some(CallCase { snapshot, link, ask }) = found else {
            // Its binding or its organisation is gone, and with it whoever wanted to know.
            return self.commit_follow_up(timer.org, |commit| commit.timers.push(fired.clone())).await;
        };
        let links = [link];
        self.load(&links, &snapshot).await;
        let reads = Arc::new(OrgReads { snapshot, org: timer.org, now });
        let observed = self.runtime.fire_timer(&links[0], &ask, &timer.key, &timer.payload, reads).await;
        let change = match observed.result {
            Err(PluginFailure::Overloaded | PluginFailure::Unavailable) => {
                TimerChange::Set(PluginTimer { at: now.after(TIMER_RETRY), ..timer.clone() })
            }
            _ => fired,
        };
        self.follow(timer.org, timer.session, &links, observed, Settles::Timer(change), 0).await
    }

    /// What a binding's plugin is called with off the path of any operation; none if the binding or its organisation is gone.
    pub(crate) fn call_case(
        &self,
        org: OrgId,
        binding: BindingId,
        session: Option<SessionId>,
    ) -> Result<Option<CallCase>, ServiceError> {
        let epoch = self.chains.epoch();
        let snapshot = self.snapshot()?;
        let chain = self.chains.of(org, &snapshot, epoch)?;
        let session = match session {
            Some(id) => snapshot.session(org, id)?.map(Arc::new),
            None => None,
        };
        let now = self.now();
        let decision = mint::id(DecisionId::new, now);
        // A candidate decides for its share of the sessions here, too.
        let key = session.as_ref().map_or_else(|| decision.to_bytes(), |session| session.id.to_bytes());
        let link = chain::deciding(&chain, binding, key);
        let (Some(link), Some(org)) = (link, self.org(org)) else { return Ok(None) };
        let ask = Ask {
            decision,
            now,
            seed: mint::seed(),
            due_since: None,
            confirmed: None,
            principal: Principal::system(org.id),
            org,
            session,
            dry_run: false,
        };
        Ok(Some(CallCase { snapshot, link, ask }))
    }

    /// Commits what one plugin wants to follow, and with it that the errand or timer that made it speak is done.
    pub(crate) async fn follow(
        self: &Arc<Self>,
        org: OrgId,
        session: Option<SessionId>,
        links: &[Link],
        observed: Observed,
        settles: Settles,
        depth: u8,
    ) -> bool {
        self.log(org, &observed.logs);
        let Some(link) = links.iter().find(|link| link.binding.id == observed.binding) else { return true };
        let name = link.version.name.clone();
        let follow_ups: Vec<Extension> = match observed.result {
            Ok(follow_ups) => follow_ups
                .into_iter()
                .map(|follow_up| Extension { plugin: name.clone(), binding: observed.binding, follow_up })
                .collect(),
            Err(failure) => {
                tracing::warn!(%org, plugin = %name, failure = failure.code(), "a plugin failed off the path of an operation");
                self.count_failure(org, link, failure).await;
                Vec::new()
            }
        };
        if follow_ups.is_empty() && observed.kv.is_empty() && matches!(settles, Settles::Nothing) {
            return true;
        }
        for _ in 0..TRIES {
            let now = self.now();
            let current = match session {
                Some(id) => match self.store.snapshot().and_then(|snapshot| snapshot.session(org, id)) {
                    Ok(current) => current,
                    Err(_) => return false,
                },
                None => None,
            };
            let mut commit = Commit::new(org, now);
            let mut next = current.as_ref().map(|session| session.changed(now));
            // An organisation that is gone has nothing left to follow up on.
            let Some(owner) = self.org(org) else { return true };
            let extras = plan::extend(&owner, next.as_mut(), &follow_ups, now, depth, |_| Some(link.clone()));
            let moved = next.filter(|next| current.as_ref().is_some_and(|current| differs(current, next)));
            extras.join(&mut commit, moved.as_ref().or(current.as_ref()));
            match &settles {
                Settles::Nothing => {}
                Settles::Timer(change) => commit.timers.push(change.clone()),
                Settles::Errand(id) => {
                    commit.expect.push(Expectation::Errand(*id));
                    commit.errands.push(ErrandChange::Remove(*id));
                }
            }
            commit.kv.clone_from(&observed.kv);
            if let (Some(current), Some(next)) = (&current, &moved) {
                commit.expect.push(Expectation::Session(current.id, Some(current.generation)));
                commit.writes.push(Write::PutSession(next.clone()));
            }
            match self.write(commit, depth + 1).await {
                Err(CommitError::Conflict) => {}
                Err(error) => {
                    tracing::error!(%org, plugin = %name, error = &error as &dyn std::error::Error, "follow-ups were not committed");
                    // A fault of the store passes; everything else would come again for ever, and stand in the way of other timers.
                    return match (error, settles) {
                        (CommitError::Store(_) | CommitError::Closed, _) | (_, Settles::Nothing) => false,
                        (_, Settles::Timer(change)) => {
                            self.commit_follow_up(org, |commit| commit.timers.push(change)).await
                        }
                        (_, Settles::Errand(id)) => {
                            self.commit_follow_up(org, |commit| commit.errands.push(ErrandChange::Remove(id))).await
                        }
                    };
                }
                Ok(_) => {
                    if let Some(next) = moved {
                        self.publish(&Arc::new(next));
                    }
                    self.timers_stirred.notify_one();
                    return true;
                }
            }
        }
        tracing::warn!(%org, plugin = %name, "follow-ups were given up because the state that they rest on kept changing");
        // A timer or an errand that cannot be settled now is still there, and comes again.
        matches!(settles, Settles::Nothing)
    }

    async fn commit_follow_up(&self, org: OrgId, fill: impl FnOnce(&mut Commit)) -> bool {
        let mut commit = Commit::new(org, self.now());
        fill(&mut commit);
        match self.store.commit(commit).await {
            Ok(_) => true,
            Err(error) => {
                let error = ServiceError::Store(StoreFailure::Commit(error));
                tracing::error!(%org, error = &error as &dyn std::error::Error, "a timer was not taken out");
                false
            }
        }
    }
}

/// What a plugin is called with off the path of any operation.
pub(crate) struct CallCase {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) link: Link,
    pub(crate) ask: Ask,
}

/// What made a plugin speak, and is over once what it said is committed.
pub(crate) enum Settles {
    /// Nothing that is kept.
    Nothing,
    /// A timer.
    Timer(TimerChange),
    /// An errand.
    Errand(ErrandId),
}

/// Whether follow-ups changed more than the bookkeeping.
fn differs(current: &Session, next: &Session) -> bool {
    current.labels != next.labels || current.rate_policy != next.rate_policy
}

fn created(ended: &Result<Done, ServiceError>) -> Option<SessionId> {
    ended.as_ref().ok()?.session.as_ref().map(|session| session.id)
}

fn outcome(ended: &Result<Done, ServiceError>) -> portcullis_policy::Outcome {
    use portcullis_policy::Outcome as Told;
    match ended {
        Ok(done) => match &done.outcome {
            Outcome::Done
            | Outcome::Sent(_)
            | Outcome::Webhooks(_)
            | Outcome::Checked(_)
            | Outcome::Uploaded(..)
            | Outcome::Bound(_)
            | Outcome::DryRun(_) => Told::Done,
            Outcome::Unchanged => Told::Unchanged,
            Outcome::Deferred { until, .. } => Told::Deferred(*until),
        },
        Err(ServiceError::Vetoed { denials, .. }) => {
            Told::Denied(denials.first().map_or_else(String::new, |veto| veto.code.clone()))
        }
        Err(error) => Told::Refused(error.code().to_owned()),
    }
}
