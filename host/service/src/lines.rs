//! Lines of operations that were overtaken: of each organisation, one is decided at a time.
//!
//! Whoever decides on what somebody else changed meanwhile decides again. Where many do that at once, each time one of them wins and all others have worked for nothing;
//! in a line each has only those to fear who have not been overtaken yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_core::OrgId;
use tokio::sync::OwnedMutexGuard;

/// How long an operation stands in line before it is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The lines of all organisations.
#[derive(Default)]
pub(crate) struct Lines {
    lines: Mutex<HashMap<OrgId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Lines {
    /// Waits until it is one's turn, which lasts until the answer is dropped; none if it does not come.
    pub(crate) async fn stand(&self, org: OrgId) -> Option<OwnedMutexGuard<()>> {
        let line = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            // A line in which nobody stands is nobody's.
            lines.retain(|_, line| Arc::strong_count(line) > 1);
            Arc::clone(lines.entry(org).or_default())
        };
        tokio::time::timeout(PATIENCE, line.lock_owned()).await.ok()
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[tokio::test]
    async fn each_organisation_has_a_line_of_its_own_that_goes_with_those_in_it() {
        let (lines, one, other) = (Lines::default(), OrgId::from_bytes([1; 16]), OrgId::from_bytes([2; 16]));
        let first = lines.stand(one).await.unwrap();
        assert!(tokio::time::timeout(Duration::ZERO, lines.stand(one)).await.is_err());
        let second = lines.stand(other).await;
        assert!(second.is_some());
        drop((first, second));
        assert!(lines.stand(one).await.is_some());
        assert_eq!(lines.lines.lock().unwrap().len(), 1);
    }
}
