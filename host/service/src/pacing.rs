//! How fast a session may send: the limits of its named policy or of pacing plugins, and its sends under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_core::rate::{built_in_policies, send_counter};
use portcullis_core::{Hook, Mode, OrgId, RateLimits, RatePolicy, Session, SessionId, Window};
use portcullis_policy::PaceUsage;

use crate::reads::OrgReads;
use crate::ruling::{Case, Question};
use crate::{Service, ServiceError};

impl Service {
    /// The limits under which a send happens: those of the pacing plugins, the strictest in each field, or else the named policy's.
    /// A pacing plugin that fails leaves the named policy in force, which is never looser than what the session was given.
    pub(crate) async fn rate_limits(&self, question: &Question, case: &Case) -> Result<RateLimits, ServiceError> {
        let Some(session) = &case.session else { return Err(ServiceError::NotFound("session")) };
        let named = named_policy(session).limits;
        let links = self.links(Hook::Pace, question, case);
        if links.is_empty() {
            return Ok(named);
        }
        self.load(&links, &case.snapshot).await;
        let counter = send_counter(session.id);
        let count = |window| case.snapshot.counter(question.org, &counter, window, question.now);
        let usage =
            PaceUsage { sends_last_minute: count(Window::Sliding(60_000))?, sends_today: count(Window::UtcDay)? };
        let ask = question.ask(case);
        let mut paced: Option<RateLimits> = None;
        for link in &links {
            let reads =
                Arc::new(OrgReads { snapshot: Arc::clone(&case.snapshot), org: question.org, now: question.now });
            match self.runtime.pace(link, &ask, usage, reads).await {
                Ok(Some(pacing)) if link.binding.mode == Mode::Enforce => {
                    paced = Some(paced.map_or(pacing.limits, |limits| limits.stricter(pacing.limits)));
                }
                Ok(_) => {}
                Err(failure) => {
                    tracing::warn!(plugin = %link.version.name, failure = failure.code(), "a pacing plugin failed");
                }
            }
        }
        Ok(paced.unwrap_or(named))
    }

    /// The named policies that sessions can choose from.
    #[must_use]
    pub fn rate_policies(&self) -> Vec<RatePolicy> {
        built_in_policies()
    }

    /// The limits of a session's named policy.
    #[must_use]
    pub fn rate_policy_of(&self, session: &Session) -> RatePolicy {
        named_policy(session)
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

    /// Takes one of a session's places for sends under way; zero places means that there is no bound.
    pub(crate) fn begin_sending(&self, session: SessionId, at_most: u32) -> Option<Sending> {
        let mut sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = sending.entry(session).or_default();
        if at_most > 0 && *under_way >= at_most {
            return None;
        }
        *under_way += 1;
        Some(Sending { all: Arc::clone(&self.sending), session })
    }
}

/// A send under way; its place is given back when this is dropped.
pub(crate) struct Sending {
    all: Arc<Mutex<HashMap<SessionId, u32>>>,
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
    }
}

/// The named policy of a session. A policy that is no longer known is replaced by the strictest.
fn named_policy(session: &Session) -> RatePolicy {
    let mut policies = built_in_policies();
    let index = policies.iter().position(|policy| policy.slug == session.rate_policy).unwrap_or(0);
    policies.swap_remove(index)
}
