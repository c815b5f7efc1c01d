//! Deliveries: how events reach those who want to hear of them.
//!
//! ```text
//! commit ─ happened ─▶ who hears of it ─▶ agenda ─▶ a line at work ─▶ attempts ─▶ ledger ─▶ commit
//!                                           ▲              │
//!                                           └── next look ─┘
//! ```
//!
//! A *line* is all that is delivered to one receiver. At work, it reads its organisation's outbox from where the receiver has
//! come to, a window of bounded size, and tries what its sessions have next: in order within a session, side by side otherwise.
//! What came of it is kept together with how far the receiver has come, in one commit. A crash before that commit tells
//! some events again, and loses none.
//!
//! *Invariants.* Memory is bounded by the lines at work, whatever the backlog: what waits, waits in the store.
//! A receiver that does not answer holds up its own line only, and of that only the session whose event it is.

mod agenda;
mod attempt;
mod disabling;
mod farewell;
mod health;
mod line;
mod requesting;
mod slots;
mod window;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_core::{DomainEvent, Line, OrgId, SessionId, Timestamp, WebhookId};
use portcullis_net::Outbound;
use portcullis_store::{ReadError, Snapshot};

use crate::Service;
use agenda::{Agenda, Turn};
use health::Health;
use slots::Slots;

/// How often every line is looked at, however quiet it is.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// How long a line is left alone whose store failed it.
const REST: Duration = Duration::from_secs(1);

/// How deliveries are made.
#[derive(Debug, Clone)]
pub struct DeliveryConfig {
    /// The way out.
    pub outbound: Outbound,
    /// Where the gateway is reached, for those formats that tell.
    pub server_url: Option<String>,
    /// By how much waits between attempts are shorter or longer than their formats say; 1 outside of tests.
    pub retry_scale: f64,
    /// How long one attempt may take at most; formats that promise less take less.
    pub timeout: Duration,
}

/// What is known of deliveries besides what is kept.
pub(crate) struct Deliveries {
    /// Nothing is delivered without it.
    config: Option<DeliveryConfig>,
    agenda: Agenda,
    slots: Arc<Slots>,
    /// How receivers fare, for those with whom not all is well, and how far lines have looked that wanted nothing.
    health: Mutex<HashMap<(OrgId, Line), Health>>,
    /// Where something has happened that nobody was told of yet.
    news: Mutex<HashSet<(OrgId, Option<SessionId>)>>,
    /// Farewells that are still to be tried for the first time.
    farewells: farewell::Awaited,
}

impl Deliveries {
    pub(crate) fn new(config: Option<DeliveryConfig>) -> Self {
        Self {
            config,
            agenda: Agenda::default(),
            slots: Arc::default(),
            health: Mutex::default(),
            news: Mutex::default(),
            farewells: farewell::Awaited::default(),
        }
    }

    /// The way out, if there is one.
    pub(crate) fn outbound(&self) -> Option<Outbound> {
        self.config.as_ref().map(|config| config.outbound.clone())
    }

    /// Events were committed. Who hears of them is found out later, off the path of whoever waits for the commit.
    pub(crate) fn happened(&self, org: OrgId, sessions: impl Iterator<Item = Option<SessionId>>) {
        if self.config.is_none() {
            return;
        }
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        news.extend(sessions.map(|session| (org, session)));
        drop(news);
        self.agenda.stirred.notify_one();
    }

    /// There is something for a line.
    pub(crate) fn stir(&self, org: OrgId, line: Line, at: Timestamp) {
        if self.config.is_some() {
            self.agenda.note(org, line, at);
        }
    }

    /// The receivers of these webhooks do not rest any longer: somebody expects them to answer now.
    pub(crate) fn rouse(&self, org: OrgId, webhooks: impl IntoIterator<Item = WebhookId>) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        for webhook in webhooks {
            if let Some(health) = health.get_mut(&(org, Line::Webhook(webhook))) {
                health.rests_until = Timestamp::default();
            }
        }
    }

    /// Until when the receiver of a line is left alone.
    pub(crate) fn rests_until(&self, org: OrgId, line: Line) -> Timestamp {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.get(&(org, line)).map(|health| health.rests_until).unwrap_or_default()
    }

    fn take_news(&self) -> HashSet<(OrgId, Option<SessionId>)> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A line at work; it is looked at again once this is dropped, whatever has ended the work.
struct AtWork {
    service: Arc<Service>,
    turn: Turn,
    next: Option<Timestamp>,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.service.deliveries.agenda.end(self.turn.org, self.turn.line, self.next);
    }
}

impl Service {
    /// Delivers what there is to deliver, for as long as it is awaited. [`Service::run`] does so beside everything else.
    pub async fn run_deliveries(self: Arc<Self>) {
        if self.deliveries.config.is_none() {
            return;
        }
        let mut look_at = self.now();
        loop {
            let now = self.now();
            if now >= look_at {
                let service = Arc::clone(&self);
                // Looking at every webhook takes a while where there are many, and blocks.
                let looked = tokio::task::spawn_blocking(move || service.look_at_lines());
                if !matches!(looked.await, Ok(Ok(()))) {
                    tracing::error!("what is to be delivered could not be read; it is looked for again soon");
                }
                look_at = now.after(LOOK_EVERY);
            }
            self.hear(now);
            while let Some(turn) = self.deliveries.agenda.begin(now) {
                let again = Some(now.after(REST));
                let mut at_work = AtWork { service: Arc::clone(&self), turn, next: again };
                tokio::spawn(async move {
                    let AtWork { service, turn, .. } = &at_work;
                    at_work.next = line::work(service, turn).await;
                    drop(at_work);
                });
            }
            let next = self.deliveries.agenda.next().map_or(look_at, |at| at.min(look_at));
            tokio::select! {
                () = self.deliveries.agenda.stirred.notified() => {}
                () = self.clock.reach(next) => {}
            }
        }
    }

    /// What the store holds now, for a line to read in for a while.
    fn snapshot_read(&self) -> Result<Arc<Snapshot>, ReadError> {
        self.store.snapshot().map(Arc::new)
    }

    /// Finds out who hears of what has happened.
    fn hear(&self, now: Timestamp) {
        let news = self.deliveries.take_news();
        if news.is_empty() {
            return;
        }
        let heard = self.store.snapshot().and_then(|snapshot| {
            for (org, session) in &news {
                let hearing = snapshot.webhooks_told_of(*org, *session)?;
                hearing.into_iter().for_each(|webhook| self.deliveries.agenda.note(*org, Line::Webhook(webhook), now));
            }
            Ok(())
        });
        if let Err(error) = heard {
            tracing::error!(error = &error as &dyn std::error::Error, "who hears of an event could not be read");
            let mut kept = self.deliveries.news.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend(news);
        }
    }

    /// Notes every line that has something to deliver: after a start, when nobody has told of any, and every now and then.
    fn look_at_lines(&self) -> Result<(), ReadError> {
        let (snapshot, now) = (self.store.snapshot()?, self.now());
        let mut told: Vec<(OrgId, WebhookId, Option<SessionId>)> = Vec::new();
        snapshot.every_told_webhook(|org, webhook, session| told.push((org, webhook, session)))?;
        let lines: HashSet<_> = told.iter().map(|(org, webhook, _)| (*org, Line::Webhook(*webhook))).collect();
        // How those fared who are told nothing more is of no use to anybody.
        self.deliveries.health.lock().unwrap_or_else(PoisonError::into_inner).retain(|line, _| lines.contains(line));
        for (org, webhook, session) in told {
            let line = Line::Webhook(webhook);
            let through = snapshot.progress(org, webhook)?.unwrap_or_default().through;
            if snapshot.outbox_has_after(org, session, self.looked_through(org, line).max(through))? {
                self.deliveries.agenda.note(org, line, now);
            }
        }
        snapshot.every_waiting_line(|org, line, due| self.deliveries.agenda.note(org, line, due))
    }
}

/// The sessions of events, each once for every event.
pub(crate) fn sessions_of(events: &[DomainEvent]) -> Vec<Option<SessionId>> {
    events.iter().map(|event| event.session).collect()
}
