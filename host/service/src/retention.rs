//! Retention: what has been kept for long enough is forgotten, a little at a time.

use std::sync::{Arc, PoisonError};

use portcullis_core::{Line, OrgId, OutboxPlace};
use portcullis_store::{Commit, Write};

use crate::Service;

/// How many rows one commit forgets, so that none holds the writer up for long.
const AT_ONCE: usize = 500;
/// How many commits one round makes for one organisation to forget what counts no longer. The rest goes with the next.
const ROUND: usize = 20;

impl Service {
    /// Forgets the decisions of every organisation that are older than they are kept.
    pub async fn forget_decisions(self: &Arc<Self>) {
        let Some(kept) = self.decisions_kept else { return };
        let before = self.now().before(kept);
        for org in self.org_ids() {
            loop {
                let oldest = self.store.snapshot().and_then(|snapshot| snapshot.oldest_decision(org));
                if !matches!(oldest, Ok(Some(at)) if at < before) {
                    break;
                }
                if !self.forget(org, Write::ForgetDecisions { before, at_most: AT_ONCE }).await {
                    break;
                }
            }
        }
    }

    /// Forgets the events of every organisation that are older than they are kept, and what is remembered of their deliveries.
    /// What waits to be delivered is given up with that.
    pub async fn forget_events(self: &Arc<Self>) {
        let before = self.now().before(self.events_kept);
        for org in self.org_ids().into_iter().chain([OrgId::PLATFORM]) {
            let through = match self.store.snapshot().and_then(|snapshot| snapshot.outbox_before(org, before)) {
                Ok(through) if through > OutboxPlace::default() => through,
                _ => continue,
            };
            while self.has_event_through(org, through) {
                if !self.forget(org, Write::ForgetEvents { through, at_most: AT_ONCE }).await {
                    break;
                }
            }
            let lines = self.store.snapshot().and_then(|snapshot| snapshot.remembered_lines(org));
            for line in lines.unwrap_or_default() {
                while self.remembers_through(org, line, through) {
                    if !self.forget(org, Write::ForgetDeliveries { line, through, at_most: AT_ONCE }).await {
                        break;
                    }
                }
            }
        }
    }

    /// Forgets what every organisation's idempotency keys led to and whatever else counts no longer. New ones push the old ones out as
    /// well, but of an organisation that is quiet nothing would go.
    pub async fn forget_expired(self: &Arc<Self>) {
        let now = self.now();
        for org in self.org_ids().into_iter().chain([OrgId::PLATFORM]) {
            for _ in 0..ROUND {
                let has_expired = self.store.snapshot().and_then(|snapshot| snapshot.has_expired(org, now));
                if !matches!(has_expired, Ok(true))
                    || !self.forget(org, Write::ForgetExpired { at_most: AT_ONCE }).await
                {
                    break;
                }
            }
        }
    }

    fn has_event_through(&self, org: OrgId, through: OutboxPlace) -> bool {
        let first = self.store.snapshot().and_then(|snapshot| snapshot.outbox_begin(org));
        matches!(first, Ok(Some((place, _))) if place <= through)
    }

    fn remembers_through(&self, org: OrgId, line: Line, through: OutboxPlace) -> bool {
        let first = self.store.snapshot().and_then(|snapshot| snapshot.first_delivery(org, line));
        matches!(first, Ok(Some(place)) if place <= through)
    }

    /// Makes a commit that forgets something. Answers whether it could.
    async fn forget(&self, org: OrgId, write: Write) -> bool {
        let mut commit = Commit::new(org, self.now());
        commit.writes.push(write);
        match self.store.commit(commit).await {
            Ok(_) => true,
            Err(error) => {
                tracing::error!(%org, error = &error as &dyn std::error::Error, "what is old was not forgotten");
                false
            }
        }
    }

    fn org_ids(&self) -> Vec<OrgId> {
        let orgs = self.orgs.read().unwrap_or_else(PoisonError::into_inner);
        orgs.keys().copied().collect()
    }
}
