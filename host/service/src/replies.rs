//! Idempotency keys of requests: the second request with a key is answered as the first one was, and does nothing.
//!
//! The key is taken in the commit that does what is asked, so nothing is done twice, whatever happens. The reply joins it in a commit
//! of its own before the caller hears of it: whoever was told something is told the same again. A crash between the two leaves a key
//! whose reply nobody has heard. Then the key's row says by ids what was done, and the reply is made again from what is there.
//! Only what was done takes its key. A request that was refused or vetoed has done nothing, and may be made again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_core::{AuditOutcome, BindingId, OrgId, PublisherId, SessionId, WebhookId};
use portcullis_store::{Claim, Commit, CommitError, Committed, Deed, KeptReply, KnownReply};

use crate::error::StoreFailure;
use crate::{Service, ServiceError};

/// The longest reply that is kept, in bytes.
const LONGEST: usize = 256 * 1024;

/// The idempotency key of one request.
#[derive(Debug)]
pub struct RequestKey {
    /// The caller's own organisation, in which the key holds.
    org: OrgId,
    key: String,
    digest: [u8; 32],
    /// Whether the request has taken it.
    is_taken: AtomicBool,
    under_way: Arc<UnderWay>,
}

/// The keys of requests that are under way.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Mutex<HashSet<(OrgId, String)>>);

/// What a request with an idempotency key comes to.
#[derive(Debug)]
pub enum Keyed {
    /// It is the first, and takes the key if it does anything.
    First(Arc<RequestKey>),
    /// It was made before, and this was its reply.
    Again(Vec<u8>),
    /// It was made before and has done this. Its reply is not kept; whoever makes it again keeps it.
    Unkept(Arc<RequestKey>, Deed),
}

impl RequestKey {
    /// The caller's own organisation.
    #[must_use]
    pub fn org(&self) -> OrgId {
        self.org
    }
}

impl Drop for RequestKey {
    fn drop(&mut self) {
        let mut under_way = self.under_way.0.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.remove(&(self.org, std::mem::take(&mut self.key)));
    }
}

impl Service {
    /// Looks whether a request was made before under its idempotency key. `digest` is of everything that makes it this request.
    ///
    /// # Errors
    /// If another request has taken the key, if the same one is under way, if its reply went with its session or is shown once,
    /// or if the store cannot be read.
    pub fn keyed(&self, org: OrgId, key: &str, digest: [u8; 32]) -> Result<Keyed, ServiceError> {
        let under_way = Arc::clone(&self.under_way);
        if !under_way.0.lock().unwrap_or_else(PoisonError::into_inner).insert((org, key.to_owned())) {
            return Err(ServiceError::RequestUnderWay);
        }
        // From here on it is given back when this is dropped.
        let request = RequestKey { org, key: key.to_owned(), digest, is_taken: AtomicBool::new(false), under_way };
        let (snapshot, now) = (self.store.snapshot()?, self.now());
        if snapshot.idempotency(org, key, now)?.is_some() {
            return Err(ServiceError::IdempotencyMismatch);
        }
        match snapshot.request(org, key, now)? {
            None => Ok(Keyed::First(Arc::new(request))),
            Some(known) if known.digest != digest => Err(ServiceError::IdempotencyMismatch),
            Some(known) => match known.reply {
                KnownReply::Kept(reply) if reply.is_empty() => Err(ServiceError::AlreadyShown),
                KnownReply::Kept(reply) => Ok(Keyed::Again(reply)),
                KnownReply::Unkept(deed) => {
                    request.is_taken.store(true, Ordering::Release);
                    Ok(Keyed::Unkept(Arc::new(request), deed))
                }
                KnownReply::Gone => Err(ServiceError::NotFound("reply; what it was about is erased")),
            },
        }
    }

    /// Whether an organisation is there, if only to be erased.
    #[must_use]
    pub fn has_org(&self, id: OrgId) -> bool {
        self.orgs.read().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }

    /// Keeps what a request was answered, if it has taken its key; `about` is whose the reply is, an organisation's or a session's.
    /// An empty reply stands for one that is shown once and never again.
    ///
    /// # Errors
    /// If the store fails. Then the key leads to what was done, and to no reply; so does that of a reply that is too long.
    pub async fn keep_reply(
        &self,
        request: &RequestKey,
        about: (OrgId, Option<SessionId>),
        reply: Vec<u8>,
    ) -> Result<(), ServiceError> {
        if !request.is_taken.load(Ordering::Acquire) || reply.len() > LONGEST {
            return Ok(());
        }
        let mut commit = Commit::new(request.org, self.now());
        let RequestKey { org, key, digest, .. } = request;
        commit.reply = Some(KeptReply { org: *org, key: key.clone(), digest: *digest, about, reply });
        match self.store.commit(commit).await {
            // Its session is gone already, and the reply would have gone with it: what was done leads to nothing any more.
            Ok(_) | Err(CommitError::UnknownSession(_) | CommitError::UnknownOrg(_) | CommitError::Conflict) => Ok(()),
            Err(error) => Err(ServiceError::Store(StoreFailure::Commit(error))),
        }
    }

    /// [`Service::write`], which takes the key of the request as well.
    pub(crate) async fn write_claiming(
        &self,
        mut commit: Commit,
        depth: u8,
        claim: Option<&Arc<RequestKey>>,
    ) -> Result<Committed, CommitError> {
        take(&mut commit, claim);
        let committed = Box::pin(self.write(commit, depth)).await?;
        taken(claim);
        Ok(committed)
    }

    /// The same for a commit that leaves nothing to be done.
    pub(crate) async fn commit_claiming(
        &self,
        mut commit: Commit,
        claim: Option<&Arc<RequestKey>>,
    ) -> Result<Committed, CommitError> {
        take(&mut commit, claim);
        let committed = self.store.commit(commit).await?;
        taken(claim);
        Ok(committed)
    }
}

fn take(commit: &mut Commit, claim: Option<&Arc<RequestKey>>) {
    // What comes of one request in several commits takes the key with the first of them.
    let claim = claim.filter(|claim| !claim.is_taken.load(Ordering::Acquire));
    let deed = deed(commit);
    commit.claim =
        claim.map(|claim| Claim { org: claim.org, key: claim.key.clone(), digest: claim.digest, at: commit.now, deed });
}

/// What a commit does, as its own line of the audit says it.
fn deed(commit: &Commit) -> Deed {
    let Some(line) = commit.audit.first() else { return Deed::default() };
    let thing = |text: &str| {
        let webhook = || text.parse().map(WebhookId::to_bytes).ok();
        let binding = || text.parse().map(BindingId::to_bytes).ok();
        let publisher = || text.parse().map(PublisherId::to_bytes).ok();
        let org = || text.parse().map(OrgId::to_bytes).ok();
        webhook().or_else(binding).or_else(publisher).or_else(org)
    };
    Deed {
        session: line.session,
        thing: line.subject.as_deref().and_then(thing),
        decision: line.decision,
        was_so: line.outcome == AuditOutcome::Unchanged,
    }
}

fn taken(claim: Option<&Arc<RequestKey>>) {
    if let Some(claim) = claim {
        claim.is_taken.store(true, Ordering::Release);
    }
}
