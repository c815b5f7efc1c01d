//! How many calls may be under way: of each organisation, and in all.
//!
//! The pool never queues; it fails. So nobody instantiates without a permit, and there are no more permits than places in the pool.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_core::OrgId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Organisations whose permits are all at home are forgotten beyond this many.
const REMEMBERED_ORGS: usize = 1024;

/// The permits of all organisations.
pub(crate) struct Permits {
    all: Arc<Semaphore>,
    per_org: usize,
    orgs: Mutex<HashMap<OrgId, Arc<Semaphore>>>,
    patience: Duration,
}

/// The right to have one instance on an organisation's behalf; ends when dropped.
pub(crate) struct Permit {
    org: OrgId,
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// A place among an organisation's own that nobody has among all; ends when dropped.
pub(crate) struct OwnPermit {
    _own: OwnedSemaphorePermit,
}

impl Permit {
    /// Whose permit it is.
    pub(crate) fn org(&self) -> OrgId {
        self.org
    }

    /// Gives the place among all back, and keeps that among the organisation's own.
    pub(crate) fn into_own(self) -> OwnPermit {
        OwnPermit { _own: self._own }
    }
}

impl Permits {
    /// `in_all` permits, `per_org` of which one organisation can hold; who finds none waits no longer than `patience`.
    pub(crate) fn new(in_all: usize, per_org: usize, patience: Duration) -> Self {
        Self { all: Arc::new(Semaphore::new(in_all)), per_org, orgs: Mutex::default(), patience }
    }

    /// A permit for a call of `org`, or none if too many are under way.
    pub(crate) async fn take(&self, org: OrgId) -> Option<Permit> {
        let mine = self.of(org);
        // The organisation's own first, so that one that queues for itself takes nothing from the others.
        if let (Ok(own), Ok(all)) = (Arc::clone(&mine).try_acquire_owned(), Arc::clone(&self.all).try_acquire_owned()) {
            return Some(Permit { org, _own: own, _all: all });
        }
        let both = async {
            let own = mine.acquire_owned().await.ok()?;
            let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Permit { org, _own: own, _all: all })
        };
        tokio::time::timeout(self.patience, both).await.ok().flatten()
    }

    fn of(&self, org: OrgId) -> Arc<Semaphore> {
        let mut orgs = self.orgs.lock().unwrap_or_else(PoisonError::into_inner);
        if orgs.len() > REMEMBERED_ORGS {
            // A semaphore that somebody else holds has a permit out, or is about to.
            orgs.retain(|_, permits| Arc::strong_count(permits) > 1);
        }
        Arc::clone(orgs.entry(org).or_insert_with(|| Arc::new(Semaphore::new(self.per_org))))
    }
}
