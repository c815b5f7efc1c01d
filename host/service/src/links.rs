//! Temporary links: whoever holds one follows a session until it is linked, and can do nothing else.

use std::sync::Arc;

use portcullis_core::{Operation, OperationKind, OrgId, Principal, Session, SessionId, Target, Timestamp};
use tokio::sync::watch;

use crate::{Call, Service, ServiceError};

/// A session as the holder of a link to it follows it.
#[derive(Debug, Clone)]
pub struct Followed {
    /// Whose it is.
    pub org: OrgId,
    /// The session.
    pub session: SessionId,
    /// From when on the link opens nothing.
    pub expires_at: Timestamp,
    /// The session as it is, and as it becomes; none once it is gone.
    pub views: watch::Receiver<Option<Arc<Session>>>,
}

impl Service {
    /// What a link leads to; none if it leads nowhere, any more.
    #[must_use]
    pub fn follow_link(&self, token: &str) -> Option<Followed> {
        let session = self.views.of_secret(token)?;
        let link = session.active_link(self.now()).filter(|link| link.token.reveal() == token)?;
        let views = self.views.watch(session.org, session.id)?;
        Some(Followed { org: session.org, session: session.id, expires_at: link.expires_at, views })
    }

    /// Has codes made for the holder of a link, as policy allows.
    ///
    /// # Errors
    /// Every way of not doing it; see [`ServiceError`].
    pub async fn pair_by_link(self: &Arc<Self>, followed: &Followed) -> Result<(), ServiceError> {
        let principal = Principal::link(followed.org, followed.session);
        let target = Target::session(followed.org, followed.session);
        let permit = self.permit(&principal, OperationKind::SessionQr, target, None).await?;
        let operation = Operation::SessionQr { session: followed.session };
        self.execute(&permit, operation, Call::default()).await.map(drop)
    }

    /// Waits for a point in time, as the gateway's clock has it.
    pub async fn reach(&self, at: Timestamp) {
        self.clock.reach(at).await;
    }
}
