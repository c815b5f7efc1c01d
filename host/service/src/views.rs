//! The published views: every session as of its last commit, in memory.
//!
//! Reads, watchers and the timer wheel look here and never at the disk.
//! A view is published after its commit is durable, so nobody sees what a crash could take back;
//! publishing keeps the newer of two generations, so it does not matter which of two commits is published first.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use portcullis_core::{OrgId, Session, SessionId, Timestamp};
use tokio::sync::watch;

/// All sessions of the gateway.
#[derive(Default)]
pub(crate) struct Views {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    sessions: HashMap<SessionId, watch::Sender<View>>,
    by_org: HashMap<OrgId, BTreeSet<SessionId>>,
    wakes: BTreeSet<(Timestamp, SessionId)>,
}

/// A session, or that it is gone.
pub(crate) type View = Option<Arc<Session>>;

impl Views {
    /// Makes `session` visible unless a newer one is.
    pub(crate) fn publish(&self, session: Arc<Session>) {
        let mut inner = self.write();
        let id = session.id;
        let org = session.org;
        let wake = session.wake_at();
        let sender = inner.sessions.entry(id).or_insert_with(|| watch::Sender::new(None));
        let current = sender.borrow().clone();
        if current.as_ref().is_some_and(|current| current.generation >= session.generation) {
            return;
        }
        sender.send_replace(Some(session));
        if let Some(at) = current.and_then(|current| current.wake_at()) {
            inner.wakes.remove(&(at, id));
        }
        if let Some(at) = wake {
            inner.wakes.insert((at, id));
        }
        inner.by_org.entry(org).or_default().insert(id);
    }

    /// Takes a session away for good; its watchers learn that it is gone.
    pub(crate) fn remove(&self, org: OrgId, id: SessionId) {
        let mut inner = self.write();
        if let Some(sender) = inner.sessions.remove(&id) {
            let last = sender.send_replace(None);
            if let Some(at) = last.and_then(|session| session.wake_at()) {
                inner.wakes.remove(&(at, id));
            }
        }
        if let Some(ids) = inner.by_org.get_mut(&org) {
            ids.remove(&id);
            if ids.is_empty() {
                inner.by_org.remove(&org);
            }
        }
    }

    /// The session, if it exists in this organisation.
    pub(crate) fn get(&self, org: OrgId, id: SessionId) -> View {
        let session = self.read().sessions.get(&id)?.borrow().clone();
        session.filter(|session| session.org == org)
    }

    /// The session wherever it is, for reports of its engine.
    pub(crate) fn find(&self, id: SessionId) -> View {
        self.read().sessions.get(&id)?.borrow().clone()
    }

    /// Follows a session of this organisation.
    pub(crate) fn watch(&self, org: OrgId, id: SessionId) -> Option<watch::Receiver<View>> {
        let receiver = self.read().sessions.get(&id)?.subscribe();
        let ours = receiver.borrow().as_ref().is_some_and(|session| session.org == org);
        ours.then_some(receiver)
    }

    /// At most `limit` sessions of an organisation, newest first, from the one before `before` on.
    pub(crate) fn newest(&self, org: OrgId, before: Option<SessionId>, limit: usize) -> Vec<Arc<Session>> {
        let inner = self.read();
        let Some(ids) = inner.by_org.get(&org) else { return Vec::new() };
        ids.iter()
            .rev()
            .filter(|id| before.is_none_or(|before| **id < before))
            .filter_map(|id| inner.sessions.get(id)?.borrow().clone())
            .take(limit)
            .collect()
    }

    /// How many sessions an organisation has.
    pub(crate) fn count(&self, org: OrgId) -> usize {
        self.read().by_org.get(&org).map_or(0, BTreeSet::len)
    }

    /// Sessions that have to be looked at by `now`, earliest first.
    pub(crate) fn due(&self, now: Timestamp) -> Vec<Arc<Session>> {
        let inner = self.read();
        inner
            .wakes
            .iter()
            .take_while(|(at, _)| *at <= now)
            .filter_map(|(_, id)| inner.sessions.get(id)?.borrow().clone())
            .collect()
    }

    /// When the next session has to be looked at.
    pub(crate) fn next_wake(&self) -> Option<Timestamp> {
        self.read().wakes.first().map(|(at, _)| *at)
    }

    /// Every session there is.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.read().sessions.values().filter_map(|sender| sender.borrow().clone()).collect()
    }

    // Nothing panics while it holds the lock; a poisoned one would only repeat a panic that was reported.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod test {
    use std::time::Duration;

    use portcullis_core::{Names, Status, session::FailureCause};

    use super::*;

    const ORG: OrgId = OrgId::from_bytes([1; 16]);

    fn session(byte: u8, generation: u64) -> Session {
        let mut session =
            Session::new(SessionId::from_bytes([byte; 16]), ORG, Names::new(1, None), Timestamp::default());
        session.generation = generation;
        session
    }

    #[test]
    fn an_older_generation_never_replaces_a_newer_one() {
        let views = Views::default();
        views.publish(Arc::new(session(1, 5)));
        views.publish(Arc::new(session(1, 4)));
        assert_eq!(views.get(ORG, SessionId::from_bytes([1; 16])).map(|session| session.generation), Some(5));
    }

    #[test]
    fn another_organisation_sees_nothing() {
        let views = Views::default();
        views.publish(Arc::new(session(1, 1)));
        let stranger = OrgId::from_bytes([2; 16]);
        assert!(views.get(stranger, SessionId::from_bytes([1; 16])).is_none());
        assert!(views.watch(stranger, SessionId::from_bytes([1; 16])).is_none());
        assert!(views.newest(stranger, None, 10).is_empty());
    }

    #[test]
    fn wakes_follow_the_sessions() {
        let views = Views::default();
        let mut waiting = session(1, 1);
        let attempt = waiting.last_attempt.next();
        let deadline = Timestamp::from_millis(100);
        waiting.status = Status::Starting { attempt, deadline };
        views.publish(Arc::new(waiting.clone()));
        assert_eq!(views.next_wake(), Some(deadline));
        assert_eq!(views.due(Timestamp::from_millis(99)).len(), 0);
        assert_eq!(views.due(deadline.after(Duration::from_millis(1))).len(), 1);
        waiting.generation = 2;
        waiting.status = Status::Failed { cause: FailureCause::StartTimeout };
        views.publish(Arc::new(waiting));
        assert_eq!(views.next_wake(), None);
    }
}
