//! What plugins say off the path of any operation, to what they are told and to timers of theirs, and the commits of what follows.
//!
//! What made a plugin speak and what follows from its words are over in one commit, so that a crash repeats all of it or none.
//! Where something else changed what the plugin read, or took back what it was told, it is asked again from how things are then.
//! What fails comes again, later each time, and in the end is given up with a line in the audit.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::verdict::Extension;
use portcullis_core::{
    BindingId, DecisionId, Errand, ErrandBody, Hook, Line, OrgId, PluginFailure, Principal, Session, SessionId,
    Timestamp,
};
use portcullis_policy::{Ask, Event, Link, Observed};
use portcullis_store::{
    Commit, CommitError, ErrandChange, Expectation, PluginTimer, ReadError, Snapshot, TimerChange, Write,
};

use crate::errands::{not_told, undone, untold};
use crate::reads::OrgReads;
use crate::{Service, ServiceError, chain, mint, plan, requests};

/// How often a plugin is asked again at once because what it read has changed.
const TRIES: usize = 4;
/// How often something is tried that fails.
const FAILURES: u32 = 10;
/// How long something waits that has failed; twice as long each time.
const RETRY: Duration = Duration::from_secs(2);
/// When something comes again that others were in the way of.
pub(crate) const AGAIN: Duration = Duration::from_secs(2);
/// When something comes again whose plugin could not be asked by no fault of its own.
const UNASKED: Duration = Duration::from_secs(30);
/// When something comes again whose binding is off or suspended.
pub(crate) const AWAY: Duration = Duration::from_secs(5 * 60);
/// The code of follow-ups that the store does not take, because the plugin would have more than it may.
const TOO_MUCH: &str = "follow_ups_not_kept";
/// The code of a timer whose plugin has no function for it.
const NO_TIMERS: &str = "not_exported";

/// What makes a plugin speak.
pub(crate) enum Work {
    /// What it is told, or asked for.
    Errand(Errand),
    /// A timer of its own.
    Timer(PluginTimer),
}

/// How a try at it ended.
pub(crate) enum Ended {
    /// It is done and taken out, or somebody else has taken it out.
    Settled,
    /// It is done and still to be taken out; or there is nobody left to do it for.
    Over,
    /// It will not be done; the code says why.
    Refused(String),
    /// It failed, and is tried again unless that happens too often. The code says how.
    Failed { code: &'static str, wait: Option<Duration> },
    /// It comes again after so long, however often that happens.
    Later(Duration),
}

/// The store did not take how a try ended; so nothing has changed.
pub(crate) struct NotKept;

/// Whether a binding's plugin can be called.
pub(crate) enum Called {
    /// It can, with this.
    Here(Box<CallCase>),
    /// Not now: the binding is off or suspended.
    Away,
    /// Never again: the binding or the organisation is gone.
    Gone,
}

/// What a plugin is called with off the path of any operation.
pub(crate) struct CallCase {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) link: Link,
    ask: Ask,
}

/// How the commit of what follows ended.
enum Followed {
    Done,
    /// What it rests on has changed.
    Conflict,
    Ended(Ended),
}

impl Work {
    pub(crate) fn binding(&self) -> BindingId {
        match self {
            Self::Errand(errand) => errand.binding,
            Self::Timer(timer) => timer.binding,
        }
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        match self {
            Self::Errand(errand) => errand.session,
            Self::Timer(timer) => timer.session,
        }
    }

    fn org(&self) -> OrgId {
        match self {
            Self::Errand(errand) => errand.org,
            Self::Timer(timer) => timer.org,
        }
    }

    /// How many plugin requests lie between a caller's operation and what comes of it.
    fn depth(&self) -> u8 {
        match self {
            Self::Errand(errand) => errand.depth,
            Self::Timer(_) => 0,
        }
    }

    fn attempts(&self) -> u32 {
        match self {
            Self::Errand(errand) => errand.attempts,
            Self::Timer(timer) => timer.attempts,
        }
    }

    /// Whether it is still to be done as it says.
    fn stands(&self, snapshot: &Snapshot) -> Result<bool, ReadError> {
        Ok(match self {
            Self::Errand(errand) => snapshot.errand(errand.org, errand.id)?.is_some(),
            Self::Timer(timer) => {
                snapshot.timer(timer.org, timer.plugin, &timer.key)?.is_some_and(|now| now.at == timer.at)
            }
        })
    }

    /// Takes it out in the commit of what it comes to, which holds only if it still stands.
    fn settle(&self, commit: &mut Commit) {
        match self {
            Self::Errand(errand) => {
                commit.expect.push(Expectation::Errand(errand.id));
                commit.errands.push(ErrandChange::Remove(errand.id));
            }
            Self::Timer(timer) => {
                let (plugin, key, at) = (timer.plugin, timer.key.clone(), timer.at);
                commit.timers.push(TimerChange::Fired { plugin, key, at });
            }
        }
    }

    /// Puts it off in a commit, which holds only if it still stands.
    fn put_off(&self, commit: &mut Commit, due: Timestamp, attempts: u32) {
        match self {
            Self::Errand(errand) => {
                commit.expect.push(Expectation::Errand(errand.id));
                commit.errands.push(ErrandChange::Put(Errand { due, attempts, ..errand.clone() }));
            }
            Self::Timer(timer) => {
                self.settle(commit);
                commit.timers.push(TimerChange::Set(PluginTimer { at: due, attempts, ..timer.clone() }));
            }
        }
    }

    /// Takes it out in a commit although it was not done, and says so.
    fn give_up(&self, commit: &mut Commit, code: String) {
        let entry = match self {
            Self::Errand(errand) => match &errand.body {
                ErrandBody::Request { operation } => undone(errand, operation, code, commit.now),
                ErrandBody::Tell { .. } | ErrandBody::After(_) => untold(errand, &code, commit.now),
            },
            Self::Timer(timer) => not_told((timer.org, timer.session, timer.binding), &code, commit.now),
        };
        commit.audit.push(entry);
        self.settle(commit);
    }
}

impl Service {
    /// Tries it once, and commits what comes of that. Answers whether something could be committed, and for how long
    /// nothing else has to be tried of the same binding.
    pub(crate) async fn work(self: &Arc<Self>, work: &Work) -> Result<Option<Duration>, NotKept> {
        let ended = match work {
            Work::Errand(errand) => match &errand.body {
                ErrandBody::Request { operation } => self.request(errand, operation).await,
                ErrandBody::Tell { .. } | ErrandBody::After(_) => self.speak(work).await,
            },
            Work::Timer(_) => self.speak(work).await,
        };
        let held = match ended {
            Ended::Later(wait) if wait > AGAIN => Some(wait),
            _ => None,
        };
        self.end(work, ended).await.map(|()| held)
    }

    /// Commits how a try ended.
    pub(crate) async fn end(&self, work: &Work, ended: Ended) -> Result<(), NotKept> {
        let now = self.now();
        let mut commit = Commit::new(work.org(), now);
        match ended {
            Ended::Settled => return Ok(()),
            Ended::Over => work.settle(&mut commit),
            Ended::Refused(code) => work.give_up(&mut commit, code),
            Ended::Failed { code, .. } if work.attempts() + 1 >= FAILURES => work.give_up(&mut commit, code.to_owned()),
            Ended::Failed { wait, .. } => {
                let wait = wait.unwrap_or_else(|| RETRY * 2_u32.saturating_pow(work.attempts()));
                work.put_off(&mut commit, now.after(wait), work.attempts() + 1);
            }
            Ended::Later(wait) => work.put_off(&mut commit, now.after(wait), work.attempts()),
        }
        match self.store.commit(commit).await {
            // It was taken out by the commit of what it came to, or taken back, or went with its session.
            Ok(_) | Err(CommitError::Conflict | CommitError::UnknownSession(_) | CommitError::UnknownOrg(_)) => Ok(()),
            Err(error) => {
                let (org, binding) = (work.org(), work.binding());
                tracing::error!(%org, %binding, error = &error as &dyn std::error::Error, "an errand or a timer was not changed");
                Err(NotKept)
            }
        }
    }

    /// Has a plugin speak, and commits what it wants to follow together with the end of what made it.
    async fn speak(self: &Arc<Self>, work: &Work) -> Ended {
        for _ in 0..TRIES {
            let dealt = match work {
                Work::Errand(Errand { body: ErrandBody::After(ended), .. }) => Some(
                    ended.operation.session().map_or_else(|| ended.decision.to_bytes(), |session| session.to_bytes()),
                ),
                _ => None,
            };
            let case = match self.called(work.org(), work.binding(), work.session(), dealt) {
                Ok(Called::Here(case)) => *case,
                Ok(Called::Away) => return Ended::Later(AWAY),
                Ok(Called::Gone) => return Ended::Over,
                Err(_) => return Ended::Later(AGAIN),
            };
            match work.stands(&case.snapshot) {
                Ok(true) => {}
                Ok(false) => return Ended::Settled,
                Err(_) => return Ended::Later(AGAIN),
            }
            let has_timers = case.link.version.exports.iter().any(|export| export == Hook::Timer.interface());
            if matches!(work, Work::Timer(_)) && !has_timers {
                // Another version has set it, or one that cannot hear it.
                return Ended::Refused(NO_TIMERS.to_owned());
            }
            let Some(observed) = self.tell(work, &case).await else { return Ended::Over };
            match self.follow(work, case, observed).await {
                Followed::Done => return Ended::Settled,
                Followed::Ended(ended) => return ended,
                Followed::Conflict => {}
            }
        }
        Ended::Later(AGAIN)
    }

    /// Calls the plugin; none if it does not export what would be called.
    async fn tell(&self, work: &Work, case: &CallCase) -> Option<Observed> {
        let CallCase { snapshot, link, ask } = case;
        let links = [link.clone()];
        self.load(&links, snapshot).await;
        let reads = Arc::new(OrgReads {
            snapshot: Arc::clone(snapshot),
            org: work.org(),
            now: ask.now,
            outbound: self.deliveries.outbound(),
        });
        let told = match work {
            Work::Timer(timer) => {
                return Some(self.runtime.fire_timer(link, ask, &timer.key, &timer.payload, reads).await);
            }
            Work::Errand(errand) => match &errand.body {
                ErrandBody::Request { .. } => return None,
                ErrandBody::Tell { event, name, at, about, json } => {
                    let event = Event { id: *event, name: name.clone(), at: *at, session: *about, json: json.clone() };
                    self.runtime.observe_event(&links, ask, &event, reads).await
                }
                ErrandBody::After(ended) => {
                    let ask = Ask {
                        decision: ended.decision,
                        principal: ended.principal.clone(),
                        due_since: ended.due_since,
                        session: ended.before.clone().map(Arc::new),
                        ..ask.clone()
                    };
                    self.runtime.observe(&links, &ask, &ended.operation, &ended.outcome, reads).await
                }
            },
        };
        told.into_iter().next()
    }

    /// What a binding's plugin is called with off the path of any operation.
    /// Whether its candidate is called goes by `dealt`, or else by the session; what has neither is dealt out anew.
    pub(crate) fn called(
        &self,
        org: OrgId,
        binding: BindingId,
        session: Option<SessionId>,
        dealt: Option<[u8; 16]>,
    ) -> Result<Called, ServiceError> {
        let Some(owner) = self.org(org) else { return Ok(Called::Gone) };
        let epoch = self.chains.epoch();
        let snapshot = self.snapshot()?;
        let chain = self.chains.of(org, &snapshot, epoch)?;
        let session = match session {
            Some(id) => snapshot.session(org, id)?.map(Arc::new),
            None => None,
        };
        let now = self.now();
        let decision = mint::id(DecisionId::new, now);
        let own = || session.as_ref().map_or_else(|| decision.to_bytes(), |session| session.id.to_bytes());
        let link = match chain::deciding(&chain, binding, dealt.unwrap_or_else(own)) {
            Some(_) if is_suspended(&chain, binding) => return Ok(Called::Away),
            Some(link) => link,
            // A binding that is there and not in the chain is off.
            None if snapshot.binding(org, binding)?.is_some() => return Ok(Called::Away),
            None if snapshot.binding(OrgId::PLATFORM, binding)?.is_some() => return Ok(Called::Away),
            None => return Ok(Called::Gone),
        };
        let ask = Ask {
            decision,
            now,
            seed: mint::seed(),
            due_since: None,
            confirmed: None,
            principal: Principal::system(org),
            org: owner,
            session,
            dry_run: false,
        };
        Ok(Called::Here(Box::new(CallCase { snapshot, link, ask })))
    }

    /// Commits what a plugin wants to follow, and with it that what made it speak is over.
    async fn follow(&self, work: &Work, case: CallCase, observed: Observed) -> Followed {
        let CallCase { link, ask, .. } = case;
        let (org, plugin) = (work.org(), &link.version.name);
        self.log(org, &observed.logs);
        let follow_ups: Vec<Extension> = match observed.result {
            Ok(follow_ups) => follow_ups
                .into_iter()
                .map(|follow_up| Extension { plugin: plugin.clone(), binding: observed.binding, follow_up })
                .collect(),
            Err(failure) => return Followed::Ended(self.failed(org, &link, failure).await),
        };
        let now = self.now();
        let current = ask.session;
        let mut commit = Commit::new(org, now);
        let mut next = current.as_ref().map(|session| session.changed(now));
        let extras = plan::extend(&ask.org, next.as_mut(), &follow_ups, now, work.depth(), |_| Some(link.clone()));
        let moved = next.filter(|next| current.as_ref().is_some_and(|current| differs(current, next)));
        extras.join(&mut commit, moved.as_ref().or(current.as_deref()));
        work.settle(&mut commit);
        commit.kv = observed.kv;
        let sends = !observed.requests.is_empty();
        requests::queue(&mut commit, &link, current.as_ref().map(|session| session.id), observed.requests);
        if let (Some(current), Some(next)) = (&current, &moved) {
            commit.expect.push(Expectation::Session(current.id, Some(current.generation)));
            commit.writes.push(Write::PutSession(next.clone()));
        }
        match self.write(commit, work.depth() + 1).await {
            Ok(_) => {
                if sends {
                    self.deliveries.stir(org, Line::Plugin(link.binding.plugin), now);
                }
                if let Some(next) = moved {
                    self.publish(&Arc::new(next));
                }
                Followed::Done
            }
            // A session that is gone has taken along what was about it; the next look finds that.
            Err(CommitError::Conflict | CommitError::UnknownSession(_)) => Followed::Conflict,
            Err(CommitError::UnknownOrg(_)) => Followed::Ended(Ended::Over),
            Err(error) => {
                tracing::error!(%org, %plugin, error = &error as &dyn std::error::Error, "follow-ups were not committed");
                Followed::Ended(match error {
                    // A fault of the store passes.
                    CommitError::Store(_) | CommitError::Closed => Ended::Later(AGAIN),
                    _ => Ended::Failed { code: TOO_MUCH, wait: None },
                })
            }
        }
    }

    /// What a plugin's failure means for what it was called for.
    async fn failed(&self, org: OrgId, link: &Link, failure: PluginFailure) -> Ended {
        let (plugin, code) = (&link.version.name, failure.code());
        tracing::warn!(%org, %plugin, failure = code, "a plugin failed off the path of an operation");
        self.count_failure(org, link, failure).await;
        match failure {
            PluginFailure::Trap
            | PluginFailure::Fuel
            | PluginFailure::Deadline
            | PluginFailure::Memory
            | PluginFailure::BadOutput
            | PluginFailure::Quota => Ended::Failed { code, wait: None },
            PluginFailure::Suspended => Ended::Later(AWAY),
            PluginFailure::Unavailable | PluginFailure::Overloaded => Ended::Later(UNASKED),
        }
    }
}

/// Whether a binding is suspended, whichever of its versions would be called.
fn is_suspended(chain: &[Link], binding: BindingId) -> bool {
    chain.iter().any(|link| link.binding.id == binding && link.suspended)
}

/// Whether follow-ups changed more than the bookkeeping.
fn differs(current: &Session, next: &Session) -> bool {
    current.labels != next.labels || current.rate_policy != next.rate_policy
}
