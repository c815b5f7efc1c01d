//! The published views: every session as of its last commit, in memory.
//!
//! Reads, watchers and the timer wheel look here and never at the disk.
//! A view is published after its commit is durable, so nobody sees what a crash could take back;
//! publishing keeps the newer of two generations, so it does not matter which of two commits is published first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use portcullis_core::{OrgId, Secret, Session, SessionId, Timestamp};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

/// All sessions of the gateway.
#[derive(Default)]
pub(crate) struct Views {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    sessions: HashMap<SessionId, watch::Sender<View>>,
    by_org: HashMap<OrgId, OrgViews>,
    /// When a status has to be looked at again without anybody asking.
    deadlines: BTreeSet<(Timestamp, SessionId)>,
    /// When a delete is due, of each organisation.
    deletes: HashMap<OrgId, BTreeSet<(Timestamp, SessionId)>>,
    /// Whose temporary link or token hashes to this. Looking up a hash takes a time that tells nothing of any secret.
    by_secret: HashMap<[u8; 32], SessionId>,
}

/// The sessions of one organisation, by their names.
#[derive(Default)]
struct OrgViews {
    ids: BTreeSet<SessionId>,
    by_instance_id: HashMap<String, SessionId>,
    by_instance_name: HashMap<String, SessionId>,
}

/// A name of a session within its organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionName<'a> {
    /// 12 upper-case hexadecimal characters.
    InstanceId(&'a str),
    /// The name that its maker chose.
    InstanceName(&'a str),
}

/// A session, or that it is gone.
pub(crate) type View = Option<Arc<Session>>;

impl Views {
    /// Makes `session` visible unless a newer one is.
    pub(crate) fn publish(&self, session: &Arc<Session>) {
        let mut inner = self.write();
        let inner = &mut *inner;
        let (id, org) = (session.id, session.org);
        let current = inner.sessions.get(&id).and_then(|sender| sender.borrow().clone());
        if current.as_ref().is_some_and(|current| current.generation >= session.generation) {
            return;
        }
        if let Some(current) = &current {
            inner.forget_times(current);
        }
        if let Some(at) = session.status.deadline() {
            inner.deadlines.insert((at, id));
        }
        if let Some(at) = session.delete_due() {
            inner.deletes.entry(org).or_default().insert((at, id));
        }
        let before = current.as_deref().map(secrets);
        let secrets = secrets(session);
        if before != Some(secrets) {
            for hash in before.into_iter().flatten().flatten() {
                forget(&mut inner.by_secret, &hash, id);
            }
            inner.by_secret.extend(secrets.into_iter().flatten().map(|hash| (hash, id)));
        }
        if current.is_none() {
            let ours = inner.by_org.entry(org).or_default();
            ours.ids.insert(id);
            // Names are made with the session and never change.
            ours.by_instance_id.insert(session.names.instance_id.clone(), id);
            ours.by_instance_name.insert(session.names.instance_name.clone(), id);
        }
        let sender = inner.sessions.entry(id).or_insert_with(|| watch::Sender::new(None));
        sender.send_replace(Some(Arc::clone(session)));
    }

    /// Takes a session away for good; its watchers learn that it is gone.
    pub(crate) fn remove(&self, org: OrgId, id: SessionId) {
        let mut inner = self.write();
        if let Some(sender) = inner.sessions.remove(&id) {
            let Some(last) = sender.send_replace(None) else { return };
            inner.forget_times(&last);
            for hash in secrets(&last).into_iter().flatten() {
                forget(&mut inner.by_secret, &hash, id);
            }
            if let Some(ours) = inner.by_org.get_mut(&org) {
                ours.ids.remove(&id);
                forget(&mut ours.by_instance_id, &last.names.instance_id, id);
                forget(&mut ours.by_instance_name, &last.names.instance_name, id);
                if ours.ids.is_empty() {
                    inner.by_org.remove(&org);
                }
            }
        }
    }

    /// The session with this name.
    pub(crate) fn named(&self, org: OrgId, name: SessionName<'_>) -> Option<SessionId> {
        let inner = self.read();
        let ours = inner.by_org.get(&org)?;
        match name {
            SessionName::InstanceId(id) => ours.by_instance_id.get(id),
            SessionName::InstanceName(name) => ours.by_instance_name.get(name),
        }
        .copied()
    }

    /// The session whose temporary link or token this is; the caller asks which of the two, and whether it still opens anything.
    pub(crate) fn of_secret(&self, text: &str) -> View {
        let inner = self.read();
        let id = inner.by_secret.get(&hash(text))?;
        inner.sessions.get(id)?.borrow().clone()
    }

    /// How many sessions have which status, by its name.
    pub(crate) fn statuses(&self) -> BTreeMap<&'static str, u64> {
        let inner = self.read();
        let mut counts = BTreeMap::new();
        for session in inner.sessions.values() {
            if let Some(session) = session.borrow().as_deref() {
                *counts.entry(session.status.name()).or_default() += 1;
            }
        }
        counts
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
        let Some(ours) = inner.by_org.get(&org) else { return Vec::new() };
        ours.ids
            .iter()
            .rev()
            .filter(|id| before.is_none_or(|before| **id < before))
            .filter_map(|id| inner.sessions.get(id)?.borrow().clone())
            .take(limit)
            .collect()
    }

    /// How many sessions an organisation has.
    pub(crate) fn count(&self, org: OrgId) -> usize {
        self.read().by_org.get(&org).map_or(0, |ours| ours.ids.len())
    }

    /// Sessions whose status has to be looked at by `now`, earliest first.
    pub(crate) fn overdue(&self, now: Timestamp) -> Vec<Arc<Session>> {
        let inner = self.read();
        inner.up_to(&inner.deadlines, now).collect()
    }

    /// When the status of a session has to be looked at next.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.read().deadlines.first().map(|(at, _)| *at)
    }

    /// At most `limit` sessions of an organisation whose deletes are due by `now`, earliest first.
    pub(crate) fn deletes_due(&self, org: OrgId, now: Timestamp, limit: usize) -> Vec<Arc<Session>> {
        let inner = self.read();
        inner.deletes.get(&org).map(|deletes| inner.up_to(deletes, now).take(limit).collect()).unwrap_or_default()
    }

    /// When the next delete of each organisation is due.
    pub(crate) fn next_deletes(&self) -> Vec<(OrgId, Timestamp)> {
        let inner = self.read();
        inner.deletes.iter().filter_map(|(org, deletes)| Some((*org, deletes.first()?.0))).collect()
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

impl Inner {
    fn forget_times(&mut self, session: &Session) {
        if let Some(at) = session.status.deadline() {
            self.deadlines.remove(&(at, session.id));
        }
        if let Some(at) = session.delete_due()
            && let Some(deletes) = self.deletes.get_mut(&session.org)
        {
            deletes.remove(&(at, session.id));
            if deletes.is_empty() {
                self.deletes.remove(&session.org);
            }
        }
    }

    fn up_to<'a>(
        &'a self,
        times: &'a BTreeSet<(Timestamp, SessionId)>,
        now: Timestamp,
    ) -> impl Iterator<Item = Arc<Session>> + 'a {
        times.iter().take_while(move |(at, _)| *at <= now).filter_map(|(_, id)| self.sessions.get(id)?.borrow().clone())
    }
}

/// What led to a session leads there no more. What was free again may have gone to another session, which keeps it.
fn forget<K: Eq + Hash>(index: &mut HashMap<K, SessionId>, key: &K, id: SessionId) {
    if index.get(key) == Some(&id) {
        index.remove(key);
    }
}

/// The hashes of what opens something of a session.
fn secrets(session: &Session) -> [Option<[u8; 32]>; 2] {
    let hash = |secret: &Secret| hash(secret.reveal());
    [session.token.as_ref().map(hash), session.link.as_ref().map(|link| hash(&link.token))]
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod test {
    use std::time::Duration;

    use portcullis_core::{Intent, Names, Status, session::FailureCause};

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
        views.publish(&Arc::new(session(1, 5)));
        views.publish(&Arc::new(session(1, 4)));
        assert_eq!(views.get(ORG, SessionId::from_bytes([1; 16])).map(|session| session.generation), Some(5));
    }

    /// The story: a session was deleted, another one was made with its token and its name, and only then was the first one's
    /// view taken away.
    #[test]
    fn a_token_and_a_name_that_went_to_another_session_still_lead_to_it() {
        let views = Views::default();
        let (first, second) = (SessionId::from_bytes([1; 16]), SessionId::from_bytes([2; 16]));
        for byte in [1, 2] {
            let mut session = session(byte, 1);
            session.token = Some(Secret::new("a-token"));
            views.publish(&Arc::new(session));
        }
        let name = session(1, 1).names.instance_name;
        let found = || {
            let opened = views.of_secret("a-token").map(|session| session.id);
            (opened, views.named(ORG, SessionName::InstanceName(&name)))
        };
        views.remove(ORG, first);
        assert_eq!(found(), (Some(second), Some(second)));
        views.remove(ORG, second);
        assert_eq!(found(), (None, None));
    }

    #[test]
    fn another_organisation_sees_nothing() {
        let views = Views::default();
        views.publish(&Arc::new(session(1, 1)));
        let stranger = OrgId::from_bytes([2; 16]);
        assert!(views.get(stranger, SessionId::from_bytes([1; 16])).is_none());
        assert!(views.watch(stranger, SessionId::from_bytes([1; 16])).is_none());
        assert!(views.newest(stranger, None, 10).is_empty());
    }

    #[test]
    fn deadlines_follow_the_sessions() {
        let views = Views::default();
        let mut waiting = session(1, 1);
        let attempt = waiting.last_attempt.next();
        let deadline = Timestamp::from_millis(100);
        waiting.status = Status::Starting { attempt, deadline, tries: 0 };
        views.publish(&Arc::new(waiting.clone()));
        assert_eq!(views.next_deadline(), Some(deadline));
        assert_eq!(views.overdue(Timestamp::from_millis(99)).len(), 0);
        assert_eq!(views.overdue(deadline.after(Duration::from_millis(1))).len(), 1);
        waiting.generation = 2;
        waiting.status = Status::Failed { cause: FailureCause::StartTimeout, retry: None };
        views.publish(&Arc::new(waiting));
        assert_eq!(views.next_deadline(), None);
    }

    #[test]
    fn pending_deletes_follow_the_sessions() {
        let views = Views::default();
        let due = Timestamp::from_millis(100);
        let mut leaving = session(1, 1);
        leaving.intent = Intent::Removed { due, reason: String::new(), since: due, was_running: false };
        views.publish(&Arc::new(leaving.clone()));
        assert_eq!(views.next_deletes(), [(ORG, due)]);
        assert_eq!(views.deletes_due(ORG, Timestamp::from_millis(99), 8).len(), 0);
        assert_eq!(views.deletes_due(ORG, due, 8).len(), 1);
        assert_eq!(views.deletes_due(ORG, due, 0).len(), 0);
        leaving.generation = 2;
        leaving.intent = Intent::Stopped;
        views.publish(&Arc::new(leaving));
        assert_eq!(views.next_deletes(), []);
    }
}
