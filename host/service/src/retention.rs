//! Retention: what has been kept for long enough is forgotten, a little at a time.

use std::sync::{Arc, PoisonError};

use portcullis_core::OrgId;
use portcullis_store::{Commit, Write};

use crate::Service;

/// How many rows one commit forgets, so that none holds the writer up for long.
const AT_ONCE: usize = 500;

impl Service {
    /// Forgets the decisions of every organisation that are older than they are kept.
    pub async fn forget_decisions(self: &Arc<Self>) {
        let Some(kept) = self.decisions_kept else { return };
        let orgs: Vec<OrgId> = {
            let orgs = self.orgs.read().unwrap_or_else(PoisonError::into_inner);
            orgs.keys().copied().collect()
        };
        let before = self.now().before(kept);
        for org in orgs {
            loop {
                let oldest = self.store.snapshot().and_then(|snapshot| snapshot.oldest_decision(org));
                if !matches!(oldest, Ok(Some(at)) if at < before) {
                    break;
                }
                let mut commit = Commit::new(org, self.now());
                commit.writes.push(Write::ForgetDecisions { before, at_most: AT_ONCE });
                if let Err(error) = self.store.commit(commit).await {
                    tracing::error!(%org, error = &error as &dyn std::error::Error, "old decisions were not forgotten");
                    break;
                }
            }
        }
    }
}
