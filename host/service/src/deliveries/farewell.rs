//! Farewells: the news of a session's end, which reaches its receivers although all else of the session goes.
//!
//! In the commit that says it, every receiver gets a delivery that holds what the telling needs. It stands in front of
//! everything else in its line. The session is erased when every receiver was tried once, or when that takes too long;
//! from then on the deliveries are all that is left of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_core::delivery::Farewell;
use portcullis_core::{
    Delivered, Delivery, DeliveryRecord, DeliveryState, EventKind, Input, Line, OrgId, SessionId, Timestamp,
};
use portcullis_store::{Commit, DeliveryChange, DeliveryPlace, ReadError, Write};

use crate::Service;

/// When farewells are due: before everything else.
pub(super) const FIRST: Timestamp = Timestamp::from_millis(0);

/// Whether it is a farewell that was not tried yet.
pub(super) fn is_first(known: &Delivery) -> bool {
    known.state == DeliveryState::Waiting { due: FIRST }
}

/// How many receivers of a session's farewell were not tried yet.
#[derive(Default)]
pub(super) struct Awaited(Mutex<HashMap<(OrgId, SessionId), usize>>);

impl Awaited {
    fn add(&self, org: OrgId, session: SessionId, receivers: usize) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((org, session)).or_default() += receivers;
    }

    /// One was tried. Answers whether it was the last.
    fn tried(&self, org: OrgId, session: SessionId) -> bool {
        let mut awaited = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left) = awaited.get_mut(&(org, session)) else { return false };
        *left = left.saturating_sub(1);
        if *left == 0 {
            awaited.remove(&(org, session));
            return true;
        }
        false
    }

    fn forget(&self, org: OrgId, session: SessionId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(org, session));
    }

    fn are_any(&self, org: OrgId, session: SessionId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&(org, session))
    }
}

/// The lines of a commit's farewells.
pub(crate) struct Farewells(Vec<(SessionId, Line)>);

impl Service {
    /// Adds a delivery to the commit for everybody who wants to hear of a session's end that it tells.
    ///
    /// # Errors
    /// If its receivers cannot be read. Without them the end of the session would reach nobody.
    pub(crate) fn say_farewell(&self, commit: &mut Commit) -> Result<Farewells, ReadError> {
        let mut lines = Vec::new();
        let ending: Vec<usize> = (0..commit.events.len())
            .filter(|index| commit.events[*index].body.kind() == EventKind::Deleted)
            .filter(|_| self.deliveries.config.is_some())
            .collect();
        for index in ending {
            let event = &commit.events[index];
            let (org, at, id) = (event.org, event.at, event.id);
            let Some(session) = event.session else { continue };
            let written = commit.writes.iter().find_map(|write| match write {
                Write::PutSession(written) if written.id == session => Some(written.names.clone()),
                _ => None,
            });
            let names = written.or_else(|| Some(self.views.get(org, session)?.names.clone()));
            let Some(names) = names else { continue };
            let snapshot = self.store.snapshot()?;
            let (own, of_all) = (snapshot.session_webhooks(org, session)?, snapshot.org_webhooks(org)?);
            for webhook in own.into_iter().chain(of_all).filter(|webhook| webhook.is_told()) {
                let line = Line::Webhook(webhook.id);
                for part in portcullis_webhook::wanted(&webhook.spec, EventKind::Deleted) {
                    let farewell = Farewell { webhook: webhook.clone(), names: names.clone() };
                    let delivery = Delivery {
                        id,
                        session: Some(session),
                        state: DeliveryState::Waiting { due: FIRST },
                        at,
                        changed_at: commit.now,
                        record: DeliveryRecord::new(Delivered::Farewell(Some(Box::new(farewell)))),
                    };
                    let (at, delivery) = (DeliveryPlace::Event(index), Arc::new(delivery));
                    commit.deliveries.push(DeliveryChange::Queue { line, at, part, delivery });
                    lines.push((session, line));
                }
            }
        }
        for (session, _) in &lines {
            self.deliveries.farewells.add(commit.org, *session, 1);
        }
        Ok(Farewells(lines))
    }

    /// The commit of these farewells is durable, or is not.
    pub(crate) fn farewells_said(&self, org: OrgId, said: &Farewells, durable: bool) {
        for (session, line) in &said.0 {
            if durable {
                self.deliveries.stir(org, *line, FIRST);
            } else {
                self.deliveries.farewells.forget(org, *session);
            }
        }
    }

    /// Whether the receivers of a session's farewell are still to be tried.
    pub(crate) fn awaits_farewells(&self, org: OrgId, session: SessionId) -> bool {
        self.deliveries.farewells.are_any(org, session)
    }

    /// A receiver of a session's farewell was tried; the session goes on with its end when all were.
    pub(super) fn farewell_tried(self: &Arc<Self>, org: OrgId, session: SessionId) {
        if self.deliveries.farewells.tried(org, session) {
            let service = Arc::clone(self);
            tokio::spawn(async move { service.input(org, session, Input::Notified).await });
        }
    }
}
