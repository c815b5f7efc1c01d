//! Suspension: a version that fails too often within an organisation is not asked there any more, until its binding changes.
//!
//! The version that a binding binds and its candidate are counted and suspended apart: a candidate that fails gives its share of the
//! sessions back, and leaves the healthy version alone.
//! Failures are counted in memory, the suspension itself is durable. It holds within the organisation in whose calls the plugin failed:
//! nobody can switch off a platform plugin for others by making it fail for themselves.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use portcullis_core::{
    Answer, AuditEntry, AuditId, AuditOutcome, BindingId, DomainEvent, EventBody, EventId, OperationKind, OrgId,
    PluginFailure, PrincipalKind, Suspension, Timestamp,
};
use portcullis_policy::Link;
use portcullis_store::{Commit, Write};

use crate::{Service, mint};

/// How many failures within [`WITHIN`] suspend a plugin.
const FAILURES: usize = 20;
const WITHIN: Duration = Duration::from_secs(60);
/// How many versions' failures are remembered; beyond that those are forgotten whose last one is over.
const REMEMBERED: usize = 10_000;

/// When what failed in whose operations.
#[derive(Default)]
pub(crate) struct Failures(Mutex<HashMap<Failing, VecDeque<Timestamp>>>);

/// What fails: one version of a binding as it is, in one organisation. What a binding did before it was changed is not held against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Failing {
    org: OrgId,
    binding: BindingId,
    generation: u64,
    candidate: bool,
}

impl Failures {
    /// Counts a failure. Answers whether it is the one that suspends.
    fn count(&self, failing: Failing, now: Timestamp) -> bool {
        let is_recent = |at: &Timestamp| now.since(*at) < WITHIN;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.retain(|_, failures| failures.back().is_some_and(is_recent));
        }
        let failures = all.entry(failing).or_default();
        while failures.front().is_some_and(|at| !is_recent(at)) {
            failures.pop_front();
        }
        failures.push_back(now);
        if failures.len() < FAILURES {
            return false;
        }
        all.remove(&failing);
        true
    }
}

impl Service {
    /// Counts what failed in a round of answers, and suspends whose measure is full.
    pub(crate) async fn count_failures(&self, org: OrgId, links: &[Link], answers: &[Answer]) {
        for answer in answers {
            let Err(failure) = answer.result else { continue };
            let asked = |link: &&Link| link.binding.id == answer.binding && link.shadow == answer.shadow;
            if let Some(link) = links.iter().find(asked) {
                self.count_failure(org, link, failure).await;
            }
        }
    }

    /// Counts one failure.
    pub(crate) async fn count_failure(&self, org: OrgId, link: &Link, failure: PluginFailure) {
        let of_its_own = match failure {
            PluginFailure::Trap
            | PluginFailure::Fuel
            | PluginFailure::Deadline
            | PluginFailure::Memory
            | PluginFailure::BadOutput
            | PluginFailure::Quota => true,
            // These are the host's doing, or its load's.
            PluginFailure::Unavailable | PluginFailure::Suspended | PluginFailure::Overloaded => false,
        };
        let (now, binding, generation) = (self.now(), link.binding.id, link.binding.generation);
        let failing = Failing { org, binding, generation, candidate: link.candidate };
        // Who is only asked in the shadow harms nobody by failing; its divergence is counted.
        if !of_its_own || link.shadow || !self.failures.count(failing, now) {
            return;
        }
        let suspension = Suspension {
            org,
            binding,
            candidate: link.candidate,
            version: link.version.version,
            generation,
            since: now,
            failure: failure.code().to_owned(),
        };
        let mut commit = told(org, link, org, now);
        commit.writes.push(Write::PutSuspension(suspension));
        if let Err(error) = self.write(commit, 0).await {
            tracing::error!(%org, %binding, error = &error as &dyn std::error::Error, "a plugin was not suspended");
            return;
        }
        let (plugin, version) = (&link.version.name, link.version.version);
        tracing::warn!(%org, %binding, %plugin, version, "a plugin failed too often and is suspended");
        self.chains.changed(org);
        if link.binding.org != org {
            // The platform's own plugin: whoever runs the gateway has to know, and their events are no organisation's.
            if let Err(error) = self.write(told(link.binding.org, link, org, now), 0).await {
                tracing::error!(%org, %binding, error = &error as &dyn std::error::Error, "nobody was told of a suspension");
            }
        }
    }
}

/// A commit by which `hearer` knows that a version is suspended within `org`: an entry in the audit, and an event.
fn told(hearer: OrgId, link: &Link, org: OrgId, now: Timestamp) -> Commit {
    let mut commit = Commit::new(hearer, now);
    commit.audit.push(AuditEntry {
        id: mint::id(AuditId::new, now),
        org: hearer,
        at: now,
        actor: PrincipalKind::System,
        request: None,
        operation: OperationKind::BindingUpdate,
        session: None,
        subject: Some(link.binding.id.to_string()),
        outcome: AuditOutcome::Refused { code: PluginFailure::Suspended.code().to_owned() },
        decision: None,
    });
    commit.events.push(DomainEvent {
        id: mint::id(EventId::new, now),
        org: hearer,
        session: None,
        at: now,
        generation: 0,
        device: None,
        body: EventBody::PluginSuspended { plugin: link.version.name.clone(), version: link.version.version, org },
    });
    commit
}

#[cfg(test)]
mod test {
    use super::*;

    fn failing(org: u8, binding: u8) -> Failing {
        let (org, binding) = (OrgId::from_bytes([org; 16]), BindingId::from_bytes([binding; 16]));
        Failing { org, binding, generation: 1, candidate: false }
    }

    #[test]
    fn the_twentieth_failure_within_a_minute_suspends_and_slower_ones_never_do() {
        let check = |apart: u64, suspends_at: Option<u64>| {
            let failures = Failures::default();
            let found =
                (1..=100).find(|nth| failures.count(failing(1, 2), Timestamp::from_millis(1_000_000 + nth * apart)));
            assert_eq!(found, suspends_at, "{apart} ms apart");
        };
        check(0, Some(20));
        check(3_000, Some(20));
        // Nineteen intervals of 3.2 seconds are more than a minute.
        check(3_200, None);
        check(60_000, None);
    }

    #[test]
    fn organisations_bindings_their_states_and_their_candidates_are_counted_apart() {
        let failures = Failures::default();
        let now = Timestamp::from_millis(1);
        let apart = |org: u8| {
            let one = failing(org, 2);
            [one, failing(org, 3), Failing { generation: 2, ..one }, Failing { candidate: true, ..one }]
        };
        for one in (0..10).flat_map(apart) {
            for _ in 0..19 {
                assert!(!failures.count(one, now), "{one:?}");
            }
        }
        assert!(failures.count(failing(5, 3), now));
    }
}
