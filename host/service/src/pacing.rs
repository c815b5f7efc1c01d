//! How fast a session may send: the limits of its named policy or of pacing plugins, and its sends under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_core::rate::{
    DEFAULT_POLICY, built_in_policies, built_in_policy, check_counter, group_counter, send_counter,
};
use portcullis_core::{
    BindingId, Hook, Mode, Org, OrgId, RateLimits, RatePolicy, Session, SessionId, Timestamp, Window,
};
use portcullis_policy::PaceUsage;
use tokio::sync::Notify;

use crate::reads::OrgReads;
use crate::ruling::{Case, Question};
use crate::{Service, ServiceError};

/// The longest time that a pacing plugin's answer is kept.
const LONGEST_PACE: Duration = Duration::from_secs(60 * 60);
/// How many sessions' paces are kept.
const REMEMBERED_PACES: usize = 10_000;

impl Service {
    /// The limits under which a send happens: those of the pacing plugins, the strictest in each field, or else the named policy's.
    /// An organisation's own plugins can be no looser than the policies that its plan lets it choose; the platform's are free.
    /// A pacing plugin that fails leaves the named policy in force, which is never looser than what the session was given.
    pub(crate) async fn rate_limits(&self, question: &Question, case: &Case) -> Result<RateLimits, ServiceError> {
        let Some(session) = &case.session else { return Err(ServiceError::NotFound("session")) };
        let named = effective_policy(session, &case.org).limits;
        let links = self.links(Hook::Pace, question, case);
        if links.is_empty() {
            return Ok(named);
        }
        // The inputs of a pace: whoever changes one of them has it asked anew.
        let inputs = Inputs {
            session: session.generation,
            org: case.org.generation,
            kept: self.paces.kept(question.org),
            bindings: links
                .iter()
                .map(|link| (link.binding.id, link.binding.generation, link.version.version))
                .collect(),
        };
        if let Some(limits) = self.paces.get(session.id, &inputs, question.now) {
            return Ok(limits.unwrap_or(named));
        }
        self.load_for_request(&links, &case.snapshot).await;
        let count = |counter: String| -> Result<(u64, u64), ServiceError> {
            let of = |window| case.snapshot.counter(question.org, &counter, window, question.now);
            Ok((of(Window::Sliding(60_000))?, of(Window::UtcDay)?))
        };
        let (sends_last_minute, sends_today) = count(send_counter(session.id))?;
        let (group_calls_last_minute, group_calls_today) = count(group_counter(session.id))?;
        let (checks_last_minute, checks_today) = count(check_counter(session.id))?;
        let usage = PaceUsage {
            sends_last_minute,
            sends_today,
            group_calls_last_minute,
            group_calls_today,
            checks_last_minute,
            checks_today,
        };
        let ask = question.ask(case);
        let mut paced: Option<RateLimits> = None;
        // An answer holds as long as every plugin's does; a failure is not an answer, and is not kept.
        let mut valid_until = Some(question.now.after(LONGEST_PACE));
        for link in &links {
            let reads = Arc::new(OrgReads {
                snapshot: Arc::clone(&case.snapshot),
                org: question.org,
                now: question.now,
                outbound: None,
            });
            match self.runtime.pace(link, &ask, usage, reads).await {
                Ok(Some(pacing)) if link.binding.mode == Mode::Enforce => {
                    let limits = match link.binding.org {
                        OrgId::PLATFORM => pacing.limits,
                        _ => pacing.limits.stricter(loosest_policy(&case.org).limits),
                    };
                    paced = Some(paced.map_or(limits, |others| others.stricter(limits)));
                    valid_until = valid_until.map(|until| until.min(pacing.valid_until));
                }
                // That a plugin leaves it to the named policy may change with the next send.
                Ok(_) => valid_until = None,
                Err(failure) => {
                    valid_until = None;
                    self.count_failure(question.org, link, failure).await;
                    tracing::warn!(plugin = %link.version.name, failure = failure.code(), "a pacing plugin failed");
                }
            }
        }
        if let Some(until) = valid_until {
            self.paces.put(session.id, inputs, paced, until, question.now);
        }
        Ok(paced.unwrap_or(named))
    }

    /// The named policies that sessions can choose from.
    #[must_use]
    pub fn rate_policies(&self) -> &'static [RatePolicy] {
        built_in_policies()
    }

    /// The named policy that is in force for a session.
    #[must_use]
    pub fn rate_policy_of(&self, session: &Session) -> &'static RatePolicy {
        match self.org(session.org) {
            Some(org) => effective_policy(session, &org),
            None => named_policy(&session.rate_policy),
        }
    }

    /// Whether an organisation has an active plan.
    #[must_use]
    pub fn has_active_plan(&self, org: OrgId) -> bool {
        self.org(org).is_some_and(|org| org.plan.active)
    }

    /// How much of its limits a session has used: sends in the last minute and today.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn sends(&self, org: OrgId, session: SessionId) -> Result<(u64, u64), ServiceError> {
        let snapshot = self.snapshot()?;
        let (counter, now) = (send_counter(session), self.now());
        Ok((
            snapshot.counter(org, &counter, Window::Sliding(60_000), now)?,
            snapshot.counter(org, &counter, Window::UtcDay, now)?,
        ))
    }

    /// How many of a session's sends are under way.
    pub(crate) fn sends_under_way(&self, session: SessionId) -> u32 {
        let sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        sending.get(&session).copied().unwrap_or_default()
    }

    /// Takes one of a session's places for sends under way; zero places means that there is no bound.
    pub(crate) fn begin_sending(&self, session: SessionId, at_most: u32) -> Option<Sending> {
        let mut sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = sending.entry(session).or_default();
        if at_most > 0 && *under_way >= at_most {
            return None;
        }
        *under_way += 1;
        Some(Sending { all: Arc::clone(&self.sending), freed: Arc::clone(&self.turns.freed), session })
    }
}

/// What pacing plugins last said of sessions.
#[derive(Default)]
pub(crate) struct Paces {
    by_session: Mutex<HashMap<SessionId, Pace>>,
    /// How often plugins have changed what they keep, by organisation.
    kept: Mutex<HashMap<OrgId, u64>>,
}

/// The limits of one session, until when they hold, and on what they rest.
struct Pace {
    inputs: Inputs,
    limits: Option<RateLimits>,
    until: Timestamp,
}

/// What limits rest on besides usage; a plugin that wants to hear of every send says so by how long its answer holds.
#[derive(PartialEq, Eq)]
struct Inputs {
    session: u64,
    org: u64,
    kept: u64,
    bindings: Vec<(BindingId, u64, u32)>,
}

impl Paces {
    /// Plugins have changed what they keep in an organisation: what they said before rests on something else.
    pub(crate) fn keep_changed(&self, org: OrgId) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner).entry(org).or_default() += 1;
    }

    fn kept(&self, org: OrgId) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&org).copied().unwrap_or_default()
    }

    fn get(&self, session: SessionId, inputs: &Inputs, now: Timestamp) -> Option<Option<RateLimits>> {
        let paces = self.by_session.lock().unwrap_or_else(PoisonError::into_inner);
        paces.get(&session).filter(|pace| pace.inputs == *inputs && now < pace.until).map(|pace| pace.limits)
    }

    fn put(&self, session: SessionId, inputs: Inputs, limits: Option<RateLimits>, until: Timestamp, now: Timestamp) {
        let mut paces = self.by_session.lock().unwrap_or_else(PoisonError::into_inner);
        if paces.len() >= REMEMBERED_PACES {
            paces.retain(|_, pace| now < pace.until);
        }
        if paces.len() < REMEMBERED_PACES {
            paces.insert(session, Pace { inputs, limits, until });
        }
    }
}

/// A send under way; its place is given back when this is dropped.
pub(crate) struct Sending {
    all: Arc<Mutex<HashMap<SessionId, u32>>>,
    freed: Arc<Notify>,
    session: SessionId,
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut sending = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = sending.get_mut(&self.session) {
            *under_way -= 1;
            if *under_way == 0 {
                sending.remove(&self.session);
            }
        }
        drop(sending);
        self.freed.notify_waiters();
    }
}

/// The policy that is in force: the one that was chosen, or the usual one once the plan that it needs is no longer active.
fn effective_policy(session: &Session, org: &Org) -> &'static RatePolicy {
    let chosen = named_policy(&session.rate_policy);
    if is_open(chosen, org) { chosen } else { named_policy(DEFAULT_POLICY) }
}

/// The loosest policy that an organisation could choose for its sessions.
fn loosest_policy(org: &Org) -> &'static RatePolicy {
    let policies = built_in_policies();
    policies.iter().rev().find(|policy| is_open(policy, org)).unwrap_or(&policies[0])
}

fn is_open(policy: &RatePolicy, org: &Org) -> bool {
    policy.free || org.plan.active
}

/// The policy with this slug. One that is no longer known is replaced by the strictest.
fn named_policy(slug: &str) -> &'static RatePolicy {
    built_in_policy(slug).unwrap_or_else(|| &built_in_policies()[0])
}
