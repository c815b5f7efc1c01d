//! Which organisations' errands and timers are due, and who works them off.
//!
//! An organisation that has something due gets a task of its own, which does a batch of it and stands in line again. No organisation
//! waits for another's plugins, as long as fewer are at work than may be; and one with a great backlog comes once in every round.
//! The agenda is only a list of where to look: what is due stands in the store, and is looked through every now and then.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_core::{BindingId, OrgId, SessionId, Timestamp};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::drive::RECONCILE_EVERY;
use crate::follow::{Ended, NotKept, Work};
use crate::{Service, ServiceError};

/// How many organisations' backlogs are worked off at once.
const ORGS_AT_ONCE: usize = 256;
/// How many errands, and how many timers, of an organisation are done before its next turn.
const BATCH: usize = 16;
/// How much of one organisation is done at once: fewer than it may have calls under way, so that its gates find a place.
const AT_ONCE: usize = 4;
/// How long an organisation is left alone whose backlog could not be read or changed.
const REST: Duration = Duration::from_secs(1);

/// Whom something is for, and about which session: what is about the same is done in its order.
type About = (BindingId, Option<SessionId>);

/// When which organisation has something due.
#[derive(Default)]
pub(crate) struct Agenda {
    inner: Mutex<Inner>,
    /// Rung when something may be due earlier than was thought.
    stirred: Notify,
}

#[derive(Default)]
struct Inner {
    /// Those who wait, by when they are to be looked at.
    line: BTreeSet<(Timestamp, OrgId)>,
    waiting: HashMap<OrgId, Timestamp>,
    /// Those who are at work, and when something became due for them meanwhile.
    at_work: HashMap<OrgId, Option<Timestamp>>,
}

impl Inner {
    fn put(&mut self, org: OrgId, at: Timestamp) {
        if let Some(meanwhile) = self.at_work.get_mut(&org) {
            *meanwhile = meanwhile.iter().copied().chain([at]).min();
            return;
        }
        let before = self.waiting.get(&org).copied();
        if before.is_none_or(|before| at < before) {
            if let Some(before) = before {
                self.line.remove(&(before, org));
            }
            self.line.insert((at, org));
            self.waiting.insert(org, at);
        }
    }
}

impl Agenda {
    /// Something of an organisation's is due then.
    pub(crate) fn note(&self, org: OrgId, at: Timestamp) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).put(org, at);
        self.stirred.notify_one();
    }

    /// Takes on the organisation that has waited longest of those that are due.
    fn begin(&self, now: Timestamp) -> Option<OrgId> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, org) = *inner.line.first().filter(|(at, _)| *at <= now)?;
        inner.line.remove(&(at, org));
        inner.waiting.remove(&org);
        inner.at_work.insert(org, None);
        Some(org)
    }

    /// An organisation is no longer at work, and to be looked at again then.
    fn end(&self, org: OrgId, next: Option<Timestamp>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let meanwhile = inner.at_work.remove(&org).flatten();
        if let Some(at) = next.into_iter().chain(meanwhile).min() {
            inner.put(org, at);
        }
        self.stirred.notify_one();
    }

    /// When the first of those who wait is due.
    fn next(&self) -> Option<Timestamp> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).line.first().map(|(at, _)| *at)
    }
}

/// An organisation at work; it stands in line again once this is dropped, whatever has ended the work.
struct Turn {
    service: Arc<Service>,
    org: OrgId,
    next: Option<Timestamp>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.service.agenda.end(self.org, self.next);
    }
}

impl Service {
    /// Works off what is due of errands and timers, beside everything else.
    pub(crate) async fn drive_backlogs(self: Arc<Self>) {
        let mut working = JoinSet::new();
        let mut look_at = self.now();
        loop {
            let now = self.now();
            if now >= look_at {
                self.look_through_backlogs();
                look_at = now.after(RECONCILE_EVERY);
            }
            while working.try_join_next().is_some() {}
            while working.len() < ORGS_AT_ONCE
                && let Some(org) = self.agenda.begin(now)
            {
                working.spawn(Arc::clone(&self).take_turn(org));
            }
            // While all places are taken there is only to wait for one.
            let next = self.agenda.next().filter(|_| working.len() < ORGS_AT_ONCE);
            let next = next.map_or(look_at, |at| at.min(look_at));
            tokio::select! {
                () = self.agenda.stirred.notified() => {}
                () = self.clock.reach(next) => {}
                Some(_) = working.join_next() => {}
            }
        }
    }

    /// Works off a batch of an organisation's backlog.
    async fn take_turn(self: Arc<Self>, org: OrgId) {
        let mut turn = Turn { service: Arc::clone(&self), org, next: Some(self.now().after(REST)) };
        let worked = self.work_off(org, self.now()).await;
        let now = self.now();
        // Who is not through stands behind all who are due by now.
        let next = self.store.snapshot().and_then(|snapshot| snapshot.next_due(org));
        turn.next = match next {
            Ok(next) => next.map(|at| at.max(if worked { now } else { now.after(REST) })),
            Err(_) => Some(now.after(REST)),
        };
    }

    /// Notes what every organisation has.
    fn look_through_backlogs(&self) {
        match self.store.snapshot().and_then(|snapshot| snapshot.backlogs()) {
            Ok(backlogs) => {
                // Who is at work is looked at when the work is done.
                let mut inner = self.agenda.inner.lock().unwrap_or_else(PoisonError::into_inner);
                for (org, at) in backlogs {
                    if !inner.at_work.contains_key(&org) {
                        inner.put(org, at);
                    }
                }
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "what is due for plugins could not be read");
            }
        }
    }

    /// When the first errand or timer is due.
    pub(crate) fn next_backlog(&self) -> Option<Timestamp> {
        let backlogs = self.store.snapshot().and_then(|snapshot| snapshot.backlogs());
        backlogs.ok().and_then(|backlogs| backlogs.into_values().min())
    }

    /// Works off a batch of every organisation's backlog. Answers whether all of it could be read and changed.
    pub(crate) async fn work_off_all(self: &Arc<Self>, now: Timestamp) -> bool {
        let Ok(backlogs) = self.store.snapshot().and_then(|snapshot| snapshot.backlogs()) else { return false };
        let mut working = JoinSet::new();
        for (org, _) in backlogs.into_iter().filter(|(_, at)| *at <= now) {
            let service = Arc::clone(self);
            working.spawn(async move { service.work_off(org, now).await });
        }
        working.join_all().await.into_iter().all(|done| done)
    }

    async fn work_off(self: &Arc<Self>, org: OrgId, now: Timestamp) -> bool {
        let lines = match self.lines(org, now) {
            Ok(lines) => lines,
            Err(error) => {
                tracing::error!(%org, error = &error as &dyn std::error::Error, "what is due for plugins could not be read");
                return false;
            }
        };
        let (mut working, mut all) = (JoinSet::new(), true);
        for line in lines {
            if working.len() >= AT_ONCE {
                all &= working.join_next().await.is_none_or(|done| done.unwrap_or(false));
            }
            let service = Arc::clone(self);
            working.spawn(async move { service.work_off_line(line).await.is_ok() });
        }
        while let Some(done) = working.join_next().await {
            all &= done.unwrap_or(false);
        }
        all
    }

    /// What is due of an organisation, in lines: what is about one session for one binding is done in its order.
    fn lines(&self, org: OrgId, now: Timestamp) -> Result<Vec<Vec<Work>>, ServiceError> {
        let snapshot = self.store.snapshot()?;
        let timers = snapshot.timers_due(org, now, BATCH)?.into_iter().map(Work::Timer);
        let errands = snapshot.errands_due(org, now, BATCH)?.into_iter().map(Work::Errand);
        let mut lines: Vec<(About, Vec<Work>)> = Vec::new();
        for work in timers.chain(errands) {
            let about = (work.binding(), work.session());
            match lines.iter_mut().find(|(found, _)| *found == about) {
                Some((_, line)) => line.push(work),
                None => lines.push((about, vec![work])),
            }
        }
        Ok(lines.into_iter().map(|(_, line)| line).collect())
    }

    async fn work_off_line(self: Arc<Self>, line: Vec<Work>) -> Result<(), NotKept> {
        let mut held = None;
        for work in line {
            match held {
                // What keeps one waiting keeps the others of its binding waiting.
                Some(wait) => self.end(&work, Ended::Later(wait)).await?,
                None => held = self.work(&work).await?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn org(byte: u8) -> OrgId {
        OrgId::from_bytes([byte; 16])
    }

    /// Whoever is not through stands behind those who are due, so that a backlog that never ends is in nobody's way.
    #[test]
    fn organisations_take_turns() {
        let agenda = Agenda::default();
        agenda.note(org(1), at(1));
        agenda.note(org(2), at(5));
        agenda.note(org(3), at(90));
        assert_eq!(agenda.begin(at(10)), Some(org(1)));
        agenda.end(org(1), Some(at(10)));
        assert_eq!(agenda.begin(at(10)), Some(org(2)));
        assert_eq!(agenda.begin(at(10)), Some(org(1)));
        assert_eq!(agenda.begin(at(10)), None);
        assert_eq!(agenda.next(), Some(at(90)));
    }

    #[test]
    fn what_becomes_due_during_a_turn_is_not_forgotten() {
        let agenda = Agenda::default();
        agenda.note(org(1), at(1));
        assert_eq!(agenda.begin(at(1)), Some(org(1)));
        agenda.note(org(1), at(7));
        agenda.note(org(1), at(9));
        assert_eq!(agenda.begin(at(9)), None, "it is at work");
        agenda.end(org(1), Some(at(8)));
        assert_eq!(agenda.next(), Some(at(7)));
        // The earliest of several times counts, and each organisation stands in the line once.
        agenda.note(org(1), at(3));
        agenda.note(org(1), at(20));
        assert_eq!(agenda.begin(at(3)), Some(org(1)));
        agenda.end(org(1), None);
        assert_eq!((agenda.next(), agenda.begin(at(99))), (None, None));
    }
}
