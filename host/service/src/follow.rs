//! What follows an operation off its path: observers, plugin timers, and the commits of their follow-ups.
//!
//! An observer is told after the commit and can no longer change what was decided.
//! A timer's firing, its plugin's writes and its follow-ups are one commit, so that a crash repeats all of it or none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::verdict::Extension;
use portcullis_core::{DecisionId, Hook, OrgId, PluginFailure, Principal, Session, SessionId, Timestamp};
use portcullis_policy::{Ask, Link, LogLevel, LogLine, Observed};
use portcullis_store::{Commit, CommitError, Expectation, PluginTimer, Snapshot, TimerChange, Write};
use tokio::task::JoinSet;

use crate::execute::{Done, Outcome, domain_events, low_half};
use crate::reads::OrgReads;
use crate::ruling::{Case, Question};
use crate::{Service, ServiceError, StoreFailure, mint, plan};

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
        let outcome = outcome(ended);
        tokio::spawn(async move {
            service.load(&links, &case.snapshot).await;
            let reads = Arc::new(OrgReads { snapshot: case.snapshot, org: ask.org.id, now: ask.now });
            let told = service.runtime.observe(&links, &ask, &operation, &outcome, reads).await;
            for observed in told {
                service.follow(ask.org.id, session, &links, observed, None).await;
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
        let found = match self.timer_case(&timer) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(plugin = %timer.plugin, error = &error as &dyn std::error::Error, "a timer could not be read");
                return false;
            }
        };
        let Some((snapshot, link, ask)) = found else {
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
        self.follow(timer.org, timer.session, &links, observed, Some(change)).await
    }

    fn timer_case(&self, timer: &PluginTimer) -> Result<Option<(Arc<Snapshot>, Link, Ask)>, ServiceError> {
        let epoch = self.chains.epoch();
        let snapshot = self.snapshot()?;
        let chain = self.chains.of(timer.org, &snapshot, epoch)?;
        let link = chain.iter().find(|link| link.binding.id == timer.binding).cloned();
        let (Some(link), Some(org)) = (link, self.org(timer.org)) else { return Ok(None) };
        let session = match timer.session {
            Some(id) => snapshot.session(timer.org, id)?.map(Arc::new),
            None => None,
        };
        let now = self.now();
        let ask = Ask {
            decision: mint::id(DecisionId::new, now),
            now,
            seed: low_half(mint::random()),
            due_since: None,
            confirmed: None,
            principal: Principal::system(timer.org),
            org,
            session,
            dry_run: false,
        };
        Ok(Some((snapshot, link, ask)))
    }

    /// Commits what one plugin wants to follow, with the change of the timer that made it speak.
    async fn follow(
        self: &Arc<Self>,
        org: OrgId,
        session: Option<SessionId>,
        links: &[Link],
        observed: Observed,
        timer: Option<TimerChange>,
    ) -> bool {
        log(org, &observed.logs);
        let link = links.iter().find(|link| link.binding.id == observed.binding);
        let name = link.map_or_else(String::new, |link| link.version.name.clone());
        let follow_ups: Vec<Extension> = match observed.result {
            Ok(follow_ups) => follow_ups
                .into_iter()
                .map(|follow_up| Extension { plugin: name.clone(), binding: observed.binding, follow_up })
                .collect(),
            Err(failure) => {
                tracing::warn!(%org, plugin = %name, failure = failure.code(), "a plugin failed off the path of an operation");
                Vec::new()
            }
        };
        if follow_ups.is_empty() && observed.kv.is_empty() && timer.is_none() {
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
            let extras = plan::extend(&owner, next.as_mut(), &follow_ups, now, |_| Some(observed.plugin));
            let moved = next.filter(|next| current.as_ref().is_some_and(|current| differs(current, next)));
            commit.timers = extras.timers;
            commit.timers.extend(timer.clone());
            commit.kv.clone_from(&observed.kv);
            if let Some(about) = moved.as_ref().or(current.as_ref()) {
                commit.events = domain_events(about, now, extras.events);
            }
            if let (Some(current), Some(next)) = (&current, &moved) {
                commit.expect.push(Expectation::Session(current.id, Some(current.generation)));
                commit.writes.push(Write::PutSession(next.clone()));
            }
            match self.store.commit(commit).await {
                Err(CommitError::Conflict) => {}
                Err(error) => {
                    tracing::error!(%org, plugin = %name, error = &error as &dyn std::error::Error, "follow-ups were not committed");
                    // A fault of the store passes; everything else would come again for ever, and stand in the way of other timers.
                    return match (error, timer) {
                        (CommitError::Store(_) | CommitError::Closed, _) | (_, None) => false,
                        (_, Some(change)) => self.commit_follow_up(org, |commit| commit.timers.push(change)).await,
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
        // A timer that cannot be settled now is still there, and fires again.
        timer.is_none()
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
            Outcome::Done | Outcome::Sent(_) | Outcome::Webhooks(_) | Outcome::Checked(_) | Outcome::DryRun(_) => {
                Told::Done
            }
            Outcome::Unchanged => Told::Unchanged,
            Outcome::Deferred { until, .. } => Told::Deferred(*until),
        },
        Err(ServiceError::Vetoed { denials, .. }) => {
            Told::Denied(denials.first().map_or_else(String::new, |veto| veto.code.clone()))
        }
        Err(error) => Told::Refused(error.code().to_owned()),
    }
}

/// A plugin's log goes to the gateway's, under the plugin's name.
pub(crate) fn log(org: OrgId, lines: &[LogLine]) {
    for line in lines {
        let (plugin, message) = (line.plugin, line.message.as_str());
        match line.level {
            LogLevel::Debug => tracing::debug!(target: "plugin", %org, %plugin, "{message}"),
            LogLevel::Info => tracing::info!(target: "plugin", %org, %plugin, "{message}"),
            LogLevel::Warn => tracing::warn!(target: "plugin", %org, %plugin, "{message}"),
            LogLevel::Error => tracing::error!(target: "plugin", %org, %plugin, "{message}"),
        }
    }
}
