//! Suspension: a plugin that fails too often within an organisation is not asked there any more, until its binding changes.
//!
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
/// How many bindings' failures are remembered; beyond that those are forgotten whose last one is over.
const REMEMBERED: usize = 10_000;

/// When which binding failed in whose operations.
#[derive(Default)]
pub(crate) struct Failures(Mutex<HashMap<(OrgId, BindingId), VecDeque<Timestamp>>>);

impl Failures {
    /// Counts a failure. Answers whether it is the one that suspends.
    fn count(&self, org: OrgId, binding: BindingId, now: Timestamp) -> bool {
        let is_recent = |at: &Timestamp| now.since(*at) < WITHIN;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.retain(|_, failures| failures.back().is_some_and(is_recent));
        }
        let failures = all.entry((org, binding)).or_default();
        while failures.front().is_some_and(|at| !is_recent(at)) {
            failures.pop_front();
        }
        failures.push_back(now);
        if failures.len() < FAILURES {
            return false;
        }
        all.remove(&(org, binding));
        true
    }
}

impl Service {
    /// Counts what failed in a round of answers, and suspends whose measure is full.
    pub(crate) async fn count_failures(&self, org: OrgId, links: &[Link], answers: &[Answer]) {
        for answer in answers {
            if let Err(failure) = answer.result {
                self.count_failure(org, links, answer.binding, answer.shadow, failure).await;
            }
        }
    }

    /// Counts one failure.
    pub(crate) async fn count_failure(
        &self,
        org: OrgId,
        links: &[Link],
        binding: BindingId,
        shadow: bool,
        failure: PluginFailure,
    ) {
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
        let now = self.now();
        // A candidate in the shadow harms nobody by failing; its divergence is counted.
        if !of_its_own || shadow || !self.failures.count(org, binding, now) {
            return;
        }
        let Some(link) = links.iter().find(|link| link.binding.id == binding && !link.shadow) else { return };
        let mut commit = Commit::new(org, now);
        commit.writes.push(Write::PutSuspension(Suspension {
            org,
            binding,
            generation: link.binding.generation,
            since: now,
            failure: failure.code().to_owned(),
        }));
        let entry = |of: OrgId| AuditEntry {
            id: mint::id(AuditId::new, now),
            org: of,
            at: now,
            actor: PrincipalKind::System,
            request: None,
            operation: OperationKind::BindingUpdate,
            session: None,
            subject: Some(binding.to_string()),
            outcome: AuditOutcome::Refused { code: PluginFailure::Suspended.code().to_owned() },
            decision: None,
        };
        commit.audit.push(entry(org));
        if link.binding.org != org {
            // The platform's own plugin: whoever runs the gateway has to know.
            commit.audit.push(entry(link.binding.org));
        }
        commit.events.push(DomainEvent {
            id: mint::id(EventId::new, now),
            org,
            session: None,
            at: now,
            generation: 0,
            body: EventBody::PluginSuspended { plugin: link.version.name.clone() },
        });
        match self.write(commit, 0).await {
            Ok(_) => {
                tracing::warn!(%org, %binding, plugin = %link.version.name, "a plugin failed too often and is suspended");
                self.chains.changed(org);
            }
            Err(error) => {
                tracing::error!(%org, %binding, error = &error as &dyn std::error::Error, "a plugin was not suspended");
            }
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_twentieth_failure_within_a_minute_suspends_and_slower_ones_never_do() {
        let (org, binding) = (OrgId::from_bytes([1; 16]), BindingId::from_bytes([2; 16]));
        let check = |apart: u64, suspends_at: Option<u64>| {
            let failures = Failures::default();
            let found =
                (1..=100).find(|nth| failures.count(org, binding, Timestamp::from_millis(1_000_000 + nth * apart)));
            assert_eq!(found, suspends_at, "{apart} ms apart");
        };
        check(0, Some(20));
        check(3_000, Some(20));
        // Nineteen intervals of 3.2 seconds are more than a minute.
        check(3_200, None);
        check(60_000, None);
    }

    #[test]
    fn organisations_and_bindings_are_counted_apart() {
        let failures = Failures::default();
        let now = Timestamp::from_millis(1);
        for byte in 0..10 {
            for _ in 0..19 {
                assert!(!failures.count(OrgId::from_bytes([byte; 16]), BindingId::from_bytes([2; 16]), now));
                assert!(!failures.count(OrgId::from_bytes([byte; 16]), BindingId::from_bytes([3; 16]), now));
            }
        }
        assert!(failures.count(OrgId::from_bytes([5; 16]), BindingId::from_bytes([3; 16]), now));
    }
}
