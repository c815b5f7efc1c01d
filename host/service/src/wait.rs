//! Waiting for a session to become something, without polling.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{OrgId, Session, SessionId};

use crate::Service;

/// How a wait ended.
#[derive(Debug, Clone)]
pub enum Waited {
    /// The session became what was waited for.
    Reached(Arc<Session>),
    /// The session is gone.
    Gone,
    /// Time ran out; this is what it was then.
    TimedOut(Arc<Session>),
}

impl Service {
    /// Waits until `reached` holds of a session, or it is gone, or `at_most` has passed.
    /// A session that is not there is gone.
    pub async fn wait_for(
        &self,
        org: OrgId,
        session: SessionId,
        at_most: Duration,
        reached: impl Fn(&Session) -> bool,
    ) -> Waited {
        let Some(mut views) = self.views.watch(org, session) else { return Waited::Gone };
        let deadline = self.now().after(at_most);
        let timeout = self.clock.reach(deadline);
        tokio::pin!(timeout);
        loop {
            let current = views.borrow_and_update().clone();
            let Some(current) = current else { return Waited::Gone };
            if reached(&current) {
                return Waited::Reached(current);
            }
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return Waited::Gone },
                () = &mut timeout => return Waited::TimedOut(current),
            }
        }
    }
}
