//! News: whoever follows an organisation's events learns at once that there are more of them.
//!
//! ```text
//! commit with events ─▶ tell(org, place) ─▶ every Follower of the organisation looks at the outbox again
//! ```
//!
//! Nothing is handed over here but the word that it is worth looking: the store's outbox is the only source of events, and whoever
//! follows it keeps nothing but the place that they have come to. So nothing waits in memory for those who read slowly, and who
//! comes back with their place goes on where they were.
//! News can be missed only by who is not there. A commit whose caller went away before it could tell of it is seen at the next look,
//! which followers take now and then anyway.
//!
//! The doors are the other half: streams are let in once and stay for long, so they are told when anybody may no longer be let in,
//! and ask again for themselves ([`Service::may_follow`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_core::{
    Denial, EventId, EventKind, OperationKind, OrgId, OutboxPlace, Permit, PrincipalKind, Session, SessionId,
    Timestamp, authorize,
};
use portcullis_store::PlacedEvent;
use tokio::sync::{broadcast, watch};

use crate::queries::expect;
use crate::{Service, ServiceError};

/// How many events one look passes over at most, so that it never takes long.
const LOOK: usize = 256;
/// How many organisations' news may wait for who follows all of them, before they have to look at every one.
const UNHEARD: usize = 1024;

/// Who is told of what.
pub(crate) struct News {
    /// The last place of each organisation that somebody follows.
    orgs: Mutex<HashMap<OrgId, watch::Sender<OutboxPlace>>>,
    /// Which organisation has news.
    all: broadcast::Sender<OrgId>,
    /// That a key, a person or an organisation may no longer be let in.
    doors: watch::Sender<()>,
}

impl Default for News {
    fn default() -> Self {
        Self { orgs: Mutex::default(), all: broadcast::Sender::new(UNHEARD), doors: watch::Sender::new(()) }
    }
}

impl News {
    /// Tells that an organisation's events go up to `place`.
    pub(crate) fn tell(&self, org: OrgId, place: Option<OutboxPlace>) {
        let Some(place) = place else { return };
        if let Some(told) = self.orgs().get(&org) {
            // Commits are answered to tasks of their own, which may come here in another order.
            told.send_if_modified(|last| {
                let is_news = *last < place;
                *last = place.max(*last);
                is_news
            });
        }
        // An error says that nobody follows everything.
        let _ = self.all.send(org);
    }

    /// Tells that somebody may no longer be let in.
    pub(crate) fn doors_changed(&self) {
        self.doors.send_replace(());
    }

    fn follow(self: &Arc<Self>, org: OrgId) -> Follower {
        let heard = self.orgs().entry(org).or_insert_with(|| watch::Sender::new(OutboxPlace(0))).subscribe();
        Follower { news: Arc::clone(self), org, heard }
    }

    // Nothing panics while it holds the lock; a poisoned one would only repeat a panic that was reported.
    fn orgs(&self) -> MutexGuard<'_, HashMap<OrgId, watch::Sender<OutboxPlace>>> {
        self.orgs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears when an organisation has new events. Look first, then wait: what is new is new since it was made.
pub struct Follower {
    news: Arc<News>,
    org: OrgId,
    heard: watch::Receiver<OutboxPlace>,
}

impl Follower {
    /// Completes once there are events that were not heard of before. Nothing is lost if it is dropped instead.
    pub async fn news(&mut self) {
        if self.heard.changed().await.is_err() {
            // The sender stays for as long as this does.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut orgs = self.news.orgs();
        if orgs.get(&self.org).is_some_and(|told| told.receiver_count() <= 1) {
            orgs.remove(&self.org);
        }
    }
}

/// Hears when any organisation has new events.
pub struct Everybody {
    heard: broadcast::Receiver<OrgId>,
}

impl Everybody {
    /// The next organisation that has events; none if there were too many to name, and all have to be looked at.
    pub async fn news(&mut self) -> Option<OrgId> {
        match self.heard.recv().await {
            Ok(org) => Some(org),
            Err(broadcast::error::RecvError::Lagged(_)) => None,
            // The sender lives in the service.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// What one look at an outbox came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Everything up to this place was looked at.
    pub through: OutboxPlace,
    /// Whether there may be more behind it.
    pub more: bool,
    /// If events right behind the place that was asked for are no longer there, the last one of them:
    /// they were forgotten, or erased with their sessions.
    pub missing: Option<OutboxPlace>,
}

impl Service {
    /// Follows the events of the permit's organisation.
    ///
    /// # Errors
    /// As [`Service::may_follow`].
    pub fn follow_events(&self, permit: &Permit) -> Result<Follower, ServiceError> {
        self.may_follow(permit)?;
        Ok(self.news.follow(permit.target().org))
    }

    /// Follows the events of all organisations, as the operator.
    ///
    /// # Errors
    /// As [`Service::may_follow`], and if the caller is not the operator.
    pub fn follow_everybody(&self, permit: &Permit) -> Result<Everybody, ServiceError> {
        self.may_follow(permit)?;
        authorize(permit.principal(), OperationKind::AllSessionsRead, permit.target())?;
        Ok(Everybody { heard: self.news.all.subscribe() })
    }

    /// Whether somebody who was permitted to follow events still is: their key may have been revoked since,
    /// and their organisation suspended or erased.
    ///
    /// # Errors
    /// What they would be told if they came now.
    pub fn may_follow(&self, permit: &Permit) -> Result<(), ServiceError> {
        expect(permit, OperationKind::EventRead)?;
        let (principal, target) = (self.as_of_now(permit.principal())?, permit.target());
        authorize(&principal, OperationKind::EventRead, target)?;
        match self.org(target.org) {
            None if target.org != OrgId::PLATFORM => Err(Denial::Unauthenticated.into()),
            Some(org) if org.suspended && !principal.is_operator() => Err(ServiceError::Suspended),
            _ => Ok(()),
        }
    }

    /// Tells whenever somebody, whoever it is, may no longer be let in.
    #[must_use]
    pub fn doors(&self) -> watch::Receiver<()> {
        self.news.doors.subscribe()
    }

    /// When the key ends with which somebody came, if it does.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn end_of_key(&self, permit: &Permit) -> Result<Option<Timestamp>, ServiceError> {
        let PrincipalKind::ApiKey { id } = &permit.principal().kind else { return Ok(None) };
        Ok(self.store.snapshot()?.key(permit.principal().org, *id)?.and_then(|key| key.expires_at))
    }

    /// The last place of the organisation's events.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn events_end(&self, permit: &Permit) -> Result<OutboxPlace, ServiceError> {
        expect(permit, OperationKind::EventRead)?;
        Ok(self.store.snapshot()?.outbox_end(permit.target().org)?)
    }

    /// The place of an event that is among the latest `among` of the organisation.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn place_of_event(
        &self,
        permit: &Permit,
        event: EventId,
        among: usize,
    ) -> Result<Option<OutboxPlace>, ServiceError> {
        expect(permit, OperationKind::EventRead)?;
        Ok(self.store.snapshot()?.place_of(permit.target().org, event, among)?)
    }

    /// Looks at the events of the permit's organisation, or of its session, from the one behind `after` on.
    ///
    /// `wants` is asked of each before it is opened. `take` is given those that it wants, and answers whether there is room for
    /// another one. A look is short: who wants more looks again, from [`Stretch::through`] on.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn look_at_events(
        &self,
        permit: &Permit,
        after: OutboxPlace,
        mut wants: impl FnMut(OutboxPlace, EventKind) -> bool,
        mut take: impl FnMut(PlacedEvent) -> bool,
    ) -> Result<Stretch, ServiceError> {
        expect(permit, OperationKind::EventRead)?;
        let (org, session) = (permit.target().org, permit.target().session);
        let snapshot = self.store.snapshot()?;
        let end = snapshot.outbox_end(org)?;
        let first = snapshot.outbox_begin(org)?.map_or(OutboxPlace(end.0 + 1), |(first, _)| first);
        let missing = (first.0 > after.0 + 1).then(|| OutboxPlace(first.0 - 1));
        let entries = snapshot.outbox_after(org, session, after, LOOK)?;
        let is_full = entries.len() == LOOK;
        for entry in &entries {
            let wanted = wants(entry.place, entry.kind);
            let event = if wanted { snapshot.event_at(org, entry.session, entry.place)? } else { None };
            if event.is_some_and(|event| !take(event)) {
                return Ok(Stretch { through: entry.place, more: true, missing });
            }
        }
        // Behind the last of a session's events there may be many of others, which need not be passed over again.
        let last = entries.last().map_or(after, |last| last.place);
        let through = if is_full { last } else { end.max(after) };
        Ok(Stretch { through, more: is_full, missing })
    }

    /// Whether the session of the permit is still there.
    #[must_use]
    pub fn is_there(&self, permit: &Permit) -> bool {
        let target = permit.target();
        target.session.is_none_or(|session| self.views.get(target.org, session).is_some())
    }

    /// The session that an event is about, as it is now, for those who tell of it.
    #[must_use]
    pub fn seen_session(&self, org: OrgId, session: SessionId) -> Option<Arc<Session>> {
        self.views.get(org, session)
    }

    /// Every organisation that has events, the platform first.
    #[must_use]
    pub fn all_orgs(&self) -> Vec<OrgId> {
        let orgs = self.orgs.read().unwrap_or_else(PoisonError::into_inner);
        let theirs = orgs.values().filter(|org| !org.erasing).map(|org| org.id);
        std::iter::once(OrgId::PLATFORM).chain(theirs.filter(|id| *id != OrgId::PLATFORM)).collect()
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const ORG: OrgId = OrgId::from_bytes([1; 16]);

    fn is_kept(news: &News) -> bool {
        news.orgs().contains_key(&ORG)
    }

    #[tokio::test]
    async fn every_follower_hears_and_nothing_is_kept_for_nobody() {
        let news = Arc::new(News::default());
        news.tell(ORG, Some(OutboxPlace(1)));
        assert!(!is_kept(&news), "nobody follows");
        let (mut one, mut other) = (news.follow(ORG), news.follow(ORG));
        news.tell(ORG, Some(OutboxPlace(2)));
        tokio::join!(one.news(), other.news());
        drop(one);
        assert!(is_kept(&news), "somebody still follows");
        drop(other);
        assert!(!is_kept(&news));
    }

    #[tokio::test]
    async fn what_is_told_late_is_no_news() {
        let news = Arc::new(News::default());
        let mut follower = news.follow(ORG);
        news.tell(ORG, Some(OutboxPlace(5)));
        follower.news().await;
        news.tell(ORG, Some(OutboxPlace(4)));
        news.tell(ORG, None);
        assert!(!follower.heard.has_changed().unwrap());
        news.tell(ORG, Some(OutboxPlace(6)));
        follower.news().await;
    }

    #[tokio::test]
    async fn who_follows_everybody_is_told_when_there_was_too_much_to_name() {
        let news = Arc::new(News::default());
        let mut everybody = Everybody { heard: news.all.subscribe() };
        for place in 0..=UNHEARD as u64 {
            news.tell(ORG, Some(OutboxPlace(place)));
        }
        assert_eq!(everybody.news().await, None);
        assert_eq!(everybody.news().await, Some(ORG));
    }
}
