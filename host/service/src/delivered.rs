//! What webhooks were told, and telling it again: how a receiver fares, what is remembered of its deliveries, and which of them
//! are tried again because somebody asks for it.
//!
//! A delivery that is tried again is its row with another state, made where there was none; the line finds it like any other
//! that is due. So a crash repeats nothing, and the receiver knows what it has had by the ids, which stay the same.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_core::operation::{Redelivery, RedeliveryOf};
use portcullis_core::{
    Delivered, Delivery, DeliveryId, DeliveryKey, DeliveryRecord, DeliveryState, DomainEvent, EventBody, EventId, Line,
    OperationKind, OrgId, OutboxPlace, Permit, SessionId, Timestamp, Webhook, WebhookId,
};
use portcullis_store::{
    DeliveryChange, DeliveryFilter, DeliveryPlace, Expectation, OutboxEntry, PlacedEvent, Snapshot,
};
use portcullis_webhook::{About, Telling, message, message_id, parts, wanted};

use crate::queries::expect;
use crate::ruling::Case;
use crate::webhooks::{Rows, found};
use crate::{Outcome, Service, ServiceError, mint};

/// How many deliveries are taken up again by one request, give or take the parts of one event.
const AGAIN_AT_ONCE: usize = 1_000;
/// How many events one request looks at.
const LOOKS: usize = 5_000;
/// How many of them are read at once.
const READ_AT_ONCE: usize = 250;
/// How far it is counted what waits and what was given up.
const COUNTED: usize = 1_000;

/// Deliveries that are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redelivered {
    /// How many.
    pub count: usize,
    /// The place beyond which there may be more.
    pub next: Option<OutboxPlace>,
}

/// What is remembered of a delivery to a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRow {
    /// Its id within the webhook.
    pub id: DeliveryId,
    /// The name under which the webhook's format tells it; none if the event is not kept any more.
    pub name: Option<&'static str>,
    /// The id by which the receiver knows the message.
    pub message: EventId,
    /// The delivery.
    pub delivery: Delivery,
}

/// Some deliveries, newest first. A page may be short though there are more.
#[derive(Debug, Clone)]
pub struct DeliveryRows {
    /// The deliveries.
    pub rows: Vec<DeliveryRow>,
    /// What the next page begins after; none if this was the last.
    pub next: Option<DeliveryId>,
}

/// How a webhook fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebhookHealth {
    /// In a word.
    pub state: WebhookState,
    /// Since when its receiver takes nothing.
    pub failing_since: Option<Timestamp>,
    /// How many messages it is still to be told, begun or not, as far as they are counted.
    pub waiting: usize,
    /// How many were given up, as far as they are counted.
    pub dead: usize,
}

/// How a webhook fares, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WebhookState {
    /// All is well, as far as anybody knows.
    Ok,
    /// Its receiver did not take what it was told last.
    Failing,
    /// Its receiver is left alone for a while.
    Resting,
    /// It is told nothing, because its receiver is gone or took nothing for days.
    Disabled,
    /// It is told nothing, because its owner does not want it to be.
    Inactive,
}

impl WebhookState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Failing, Self::Resting, Self::Disabled, Self::Inactive];

    /// The stable word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failing => "failing",
            Self::Resting => "resting",
            Self::Disabled => "disabled",
            Self::Inactive => "inactive",
        }
    }
}

impl Service {
    /// Deliveries to a webhook, newest first, from the one before `before` on. Who may see one session only sees what is about it.
    ///
    /// # Errors
    /// If there is no such webhook, or the store cannot be read.
    pub fn deliveries(
        &self,
        permit: &Permit,
        webhook: WebhookId,
        filter: DeliveryFilter,
        before: Option<DeliveryId>,
        limit: usize,
    ) -> Result<DeliveryRows, ServiceError> {
        expect(permit, OperationKind::WebhookRead)?;
        let (webhook, target) = (self.seen_webhook(permit, webhook)?, permit.target());
        let (line, snapshot) = (Line::Webhook(webhook.id), self.store.snapshot()?);
        let before = before.and_then(|id| DeliveryKey::of(line, id)).map(|of| (of.place, of.part));
        let page = snapshot.delivery_page(target.org, line, filter, before, limit)?;
        let mut rows = Vec::with_capacity(page.deliveries.len());
        for (of, delivery) in page.deliveries {
            if target.session.is_none() || delivery.session == target.session {
                rows.push(row(&snapshot, &webhook, of, delivery)?);
            }
        }
        let next = page.next.map(|(place, part)| DeliveryKey { line, place, part }.within_line());
        Ok(DeliveryRows { rows, next })
    }

    /// One delivery to a webhook.
    ///
    /// # Errors
    /// If there is no such webhook or delivery, or the store cannot be read.
    pub fn delivery(&self, permit: &Permit, webhook: WebhookId, id: DeliveryId) -> Result<DeliveryRow, ServiceError> {
        expect(permit, OperationKind::WebhookRead)?;
        let (webhook, target) = (self.seen_webhook(permit, webhook)?, permit.target());
        let snapshot = self.store.snapshot()?;
        let (of, delivery) = known(&snapshot, &webhook, id, target.session)?;
        row(&snapshot, &webhook, of, delivery)
    }

    /// How a webhook fares.
    ///
    /// # Errors
    /// If there is no such webhook, or the store cannot be read.
    pub fn webhook_health(&self, permit: &Permit, webhook: WebhookId) -> Result<WebhookHealth, ServiceError> {
        expect(permit, OperationKind::WebhookRead)?;
        let webhook = self.seen_webhook(permit, webhook)?;
        let (org, line, snapshot) = (webhook.org, Line::Webhook(webhook.id), self.store.snapshot()?);
        let progress = snapshot.progress(org, webhook.id)?.unwrap_or_default();
        let state = if !webhook.spec.active {
            WebhookState::Inactive
        } else if webhook.disabled.is_some() {
            WebhookState::Disabled
        } else if self.deliveries.rests_until(org, line) > self.now() {
            WebhookState::Resting
        } else if progress.failing_since.is_some() {
            WebhookState::Failing
        } else {
            WebhookState::Ok
        };
        let mut waiting = snapshot.deliveries_due(org, line, Timestamp::MAX, COUNTED)?.len();
        if webhook.is_told() && waiting < COUNTED {
            let through = progress.through.max(self.looked_through(org, line));
            for entry in snapshot.outbox_after(org, webhook.session, through, COUNTED)? {
                for part in told_in_order(&webhook, &entry) {
                    let of = DeliveryKey { line, place: entry.place, part };
                    waiting += usize::from(!snapshot.is_remembered(org, of)?);
                }
            }
        }
        let dead = snapshot.dead_letters(org, line, OutboxPlace(0), OutboxPlace(u64::MAX), COUNTED)?.len();
        let failing_since = progress.failing_since.filter(|_| webhook.is_told());
        Ok(WebhookHealth { state, failing_since, waiting: waiting.min(COUNTED), dead })
    }

    /// The delivery with which a webhook was tried out, if it can still be found.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn test_delivery(
        &self,
        org: OrgId,
        webhook: WebhookId,
        event: EventId,
    ) -> Result<Option<DeliveryId>, ServiceError> {
        let place = self.store.snapshot()?.place_of(org, event, COUNTED)?;
        Ok(place.map(|place| DeliveryKey { line: Line::Webhook(webhook), place, part: 0 }.within_line()))
    }
}

/// The parts of an event that a webhook is told when its line comes to it. The end of a session has a delivery of its own.
fn told_in_order(webhook: &Webhook, entry: &OutboxEntry) -> impl Iterator<Item = u8> {
    let is_farewell = entry.kind == portcullis_core::EventKind::Deleted;
    wanted(&webhook.spec, entry.kind).filter(move |_| !is_farewell)
}

fn row(
    snapshot: &Snapshot,
    webhook: &Webhook,
    of: DeliveryKey,
    delivery: Delivery,
) -> Result<DeliveryRow, ServiceError> {
    let before = OutboxPlace(of.place.0.saturating_sub(1));
    let entry = snapshot.outbox_about(webhook.org, delivery.session, before, 1)?;
    let kind = entry.first().filter(|entry| entry.place == of.place).map(|entry| entry.kind);
    let name = kind.and_then(|kind| parts(webhook.spec.format, kind).get(usize::from(of.part)).copied());
    Ok(DeliveryRow { id: of.within_line(), name, message: message_id(delivery.id, of.part), delivery })
}

fn known(
    snapshot: &Snapshot,
    webhook: &Webhook,
    id: DeliveryId,
    within: Option<SessionId>,
) -> Result<(DeliveryKey, Delivery), ServiceError> {
    let missing = ServiceError::NotFound("delivery");
    let Some(of) = DeliveryKey::of(Line::Webhook(webhook.id), id) else { return Err(missing) };
    let known = snapshot.delivery(webhook.org, of)?;
    let seen = known.filter(|delivery| within.is_none() || delivery.session == within);
    seen.map(|delivery| (of, delivery)).ok_or(missing)
}

/// An event that one webhook is told and nobody else.
pub(crate) fn test(
    id: WebhookId,
    within: Option<SessionId>,
    case: &Case,
    now: Timestamp,
) -> Result<Rows, ServiceError> {
    let webhook = found(id, within, case)?;
    if !webhook.is_told() {
        return Err(ServiceError::WebhookOff);
    }
    let event = DomainEvent {
        id: mint::id(EventId::new, now),
        org: case.org.id,
        session: webhook.session,
        at: now,
        generation: 0,
        device: None,
        body: EventBody::WebhookTest { webhook: id },
    };
    let delivery = Arc::new(Delivery {
        id: event.id,
        session: webhook.session,
        state: DeliveryState::Waiting { due: now },
        at: now,
        changed_at: now,
        record: DeliveryRecord::new(Delivered::Event),
    });
    let (line, at) = (Line::Webhook(id), DeliveryPlace::Event(0));
    Ok(Rows {
        outcome: Some(Outcome::Tested(event.id)),
        events: vec![event],
        deliveries: vec![DeliveryChange::Queue { line, at, part: 0, delivery }],
        expect: vec![Expectation::Webhook(id, Some(webhook.generation))],
        subject: Some(id),
        ..Rows::default()
    })
}

/// Deliveries that are tried again.
pub(crate) fn replay(
    id: WebhookId,
    within: Option<SessionId>,
    of: RedeliveryOf,
    case: &Case,
    now: Timestamp,
) -> Result<Rows, ServiceError> {
    let webhook = found(id, within, case)?;
    let snapshot = &case.snapshot;
    let mut again = Again { snapshot, webhook: &webhook, now, abouts: HashMap::new(), changes: Vec::new() };
    let next = match of {
        RedeliveryOf::One(delivery) => {
            let (of, delivery) = known(snapshot, &webhook, delivery, within)?;
            if !again.one(of, delivery)? {
                return Err(ServiceError::EventGone);
            }
            None
        }
        RedeliveryOf::Range { since, until, which, after } => {
            let begin = snapshot.outbox_before(webhook.org, since)?.max(after.unwrap_or_default());
            let end = match until {
                None => snapshot.outbox_end(webhook.org)?,
                Some(until) => snapshot.outbox_before(webhook.org, until)?,
            };
            match which {
                Redelivery::Dead => again.dead(begin, end, within)?,
                Redelivery::Missing | Redelivery::All => again.told(begin, end, which)?,
            }
        }
    };
    Ok(Rows {
        outcome: Some(Outcome::Replayed(Redelivered { count: again.changes.len(), next })),
        deliveries: again.changes,
        expect: vec![Expectation::Webhook(id, Some(webhook.generation))],
        subject: Some(id),
        ..Rows::default()
    })
}

/// Deliveries of one webhook that are taken up again.
struct Again<'a> {
    snapshot: &'a Snapshot,
    webhook: &'a Webhook,
    now: Timestamp,
    /// What is known of the sessions that were met; none of those that are gone.
    abouts: HashMap<SessionId, Option<About>>,
    changes: Vec<DeliveryChange>,
}

impl Again<'_> {
    /// Those that were given up. Answers where there may be more.
    fn dead(
        &mut self,
        begin: OutboxPlace,
        end: OutboxPlace,
        within: Option<SessionId>,
    ) -> Result<Option<OutboxPlace>, ServiceError> {
        let (org, line) = (self.webhook.org, Line::Webhook(self.webhook.id));
        let mut found = self.snapshot.dead_letters(org, line, begin, end, AGAIN_AT_ONCE + 1)?;
        // An event of which not all parts would be taken up is left for the next time.
        let next = found.get(AGAIN_AT_ONCE).map(|of| OutboxPlace(of.place.0 - 1));
        found.retain(|of| next.is_none_or(|next| of.place <= next));
        for of in found {
            let known = self.snapshot.delivery(org, of)?;
            if let Some(known) = known.filter(|known| within.is_none() || known.session == within) {
                self.one(of, known)?;
            }
        }
        Ok(next)
    }

    /// Those of the events that the webhook wants, whether anything is remembered of them or not.
    fn told(
        &mut self,
        begin: OutboxPlace,
        mut end: OutboxPlace,
        which: Redelivery,
    ) -> Result<Option<OutboxPlace>, ServiceError> {
        let (org, id) = (self.webhook.org, self.webhook.id);
        if self.webhook.is_told() {
            // Its line will come to the rest by itself.
            end = end.min(self.snapshot.progress(org, id)?.unwrap_or_default().through);
        }
        let (mut at, mut looked) = (begin, 0);
        while at < end {
            if looked >= LOOKS {
                return Ok(Some(at));
            }
            let entries = self.snapshot.outbox_after(org, self.webhook.session, at, READ_AT_ONCE)?;
            let is_last = entries.len() < READ_AT_ONCE;
            looked += READ_AT_ONCE;
            for entry in entries {
                if entry.place > end {
                    return Ok(None);
                }
                if self.changes.len() >= AGAIN_AT_ONCE {
                    return Ok(Some(at));
                }
                self.event(&entry, which)?;
                at = entry.place;
            }
            if is_last {
                break;
            }
        }
        Ok(None)
    }

    /// One event, with all of its parts.
    fn event(&mut self, entry: &OutboxEntry, which: Redelivery) -> Result<(), ServiceError> {
        for part in wanted(&self.webhook.spec, entry.kind) {
            let of = DeliveryKey { line: Line::Webhook(self.webhook.id), place: entry.place, part };
            match self.snapshot.delivery(self.webhook.org, of)? {
                // It is taken, or on its way.
                Some(known) if which == Redelivery::Missing && known.state != DeliveryState::Dead => {}
                Some(known) => drop(self.one(of, known)?),
                None => {
                    let Some(placed) = self.tellable(of, entry.session, None)? else { continue };
                    let is_gone = matches!(self.about(entry.session)?, (Some(_), None));
                    // Nothing about a session that is gone could be kept in any other way.
                    let what = if is_gone { Delivered::Farewell(None) } else { Delivered::Event };
                    let (id, at) = (placed.event.id, placed.event.at);
                    let (session, record) = (entry.session, DeliveryRecord::new(what));
                    let state = DeliveryState::Dead;
                    self.take_up(of, Delivery { id, session, state, at, changed_at: self.now, record });
                }
            }
        }
        Ok(())
    }

    /// One that is remembered. Answers whether there is still something to tell.
    fn one(&mut self, of: DeliveryKey, known: Delivery) -> Result<bool, ServiceError> {
        let is_tellable = self.tellable(of, known.session, Some(&known.record.what))?.is_some();
        if is_tellable {
            self.take_up(of, known);
        }
        Ok(is_tellable)
    }

    fn take_up(&mut self, of: DeliveryKey, mut delivery: Delivery) {
        // What is due already keeps its place in the line, at the front of which farewells are waited for.
        let due = match delivery.state {
            DeliveryState::Waiting { due } => due.min(self.now),
            DeliveryState::Delivered | DeliveryState::Dead => self.now,
        };
        delivery.state = DeliveryState::Waiting { due };
        delivery.changed_at = self.now;
        delivery.record.failures = 0;
        self.changes.push(DeliveryChange::Keep(of, Arc::new(delivery)));
    }

    /// The event, if it is still kept and the webhook's format has something to say of it.
    fn tellable(
        &mut self,
        of: DeliveryKey,
        session: Option<SessionId>,
        what: Option<&Delivered>,
    ) -> Result<Option<PlacedEvent>, ServiceError> {
        let Some(placed) = self.snapshot.event_at(self.webhook.org, session, of.place)? else { return Ok(None) };
        let about = match what {
            Some(Delivered::Farewell(Some(kept))) => Some(About { names: kept.names.clone(), device: None }),
            _ => self.about(session)?.1,
        };
        let telling =
            Telling { event: &placed.event, seq: placed.seq, about: about.as_ref(), server_url: None, engine: "" };
        let is_told = message(&self.webhook.spec, of.part, &telling).is_some();
        Ok(is_told.then_some(placed))
    }

    /// A session, and what is told of it if it is still there.
    fn about(&mut self, session: Option<SessionId>) -> Result<(Option<SessionId>, Option<About>), ServiceError> {
        let Some(id) = session else { return Ok((None, None)) };
        if let Some(about) = self.abouts.get(&id) {
            return Ok((session, about.clone()));
        }
        let about = self.snapshot.session(self.webhook.org, id)?.as_ref().map(About::from);
        self.abouts.insert(id, about.clone());
        Ok((session, about))
    }
}
