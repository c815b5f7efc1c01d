//! A line at work: what one receiver is told, for as long as there is something to tell it now.
//!
//! It ends when there is nothing more, when its receiver rests, or when others wait for its place; what it knows then
//! stands in the store, but for how its receiver fares.

mod came;
mod rows;

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use portcullis_core::{
    Delivered, Delivery, DeliveryKey, DeliveryRecord, DeliveryState, EventKind, Line, OrgId, OutboxPlace, Timestamp,
    Webhook,
};
use portcullis_store::{Commit, CommitError, DeliveryChange, Progress, ReadError, Snapshot};
use portcullis_webhook::wanted;

use super::attempt::{Trial, Tried};
use super::health::Health;
use super::window::{Item, Part, Window};
use super::{REST, Turn};
use crate::Service;

/// How much of the outbox is read at once.
const READ_AT_ONCE: usize = 256;
/// How many deliveries end a turn while others wait for it.
const TURN: usize = 1_024;
/// How long a line stays at work while its receiver rests.
const PATIENCE: Duration = Duration::from_secs(15);
/// How far a line looks before that alone is kept.
const FAR: u64 = 4_096;

/// Works until there is nothing to do now. Answers when there will be.
pub(super) async fn work(service: &Arc<Service>, turn: &Turn) -> Option<Timestamp> {
    let again = Some(service.now().after(REST));
    match Work::begin(service, turn) {
        Ok(mut work) => match work.run(turn).await {
            Ok(next) => next,
            Err(Ended::Gone) => None,
            Err(Ended::Failed) => again,
        },
        Err(error) => {
            tracing::error!(org = %turn.org, error = &error as &dyn std::error::Error, "a line of deliveries could not be read");
            again
        }
    }
}

/// Why a line cannot go on.
enum Ended {
    /// Its organisation is gone.
    Gone,
    /// The store failed it.
    Failed,
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a line of deliveries could not be read");
        Self::Failed
    }
}

/// Something that is under way. Attempts run in the line's own task: one wake-up takes in whatever has come back.
type UnderWay = Pin<Box<dyn Future<Output = Came> + Send>>;

/// What comes back of it.
enum Came {
    /// Something out of the outbox was tried.
    Item(Item, Tried),
    /// Something that is remembered was.
    Row(DeliveryKey, Box<Delivery>, Tried),
    /// What the ledger held is kept, or is not.
    Kept(Vec<DeliveryChange>, Result<(), CommitError>),
}

struct Work<'a> {
    service: &'a Arc<Service>,
    org: OrgId,
    line: Line,
    /// The receiver, if it is a webhook that is there and is told.
    webhook: Option<Arc<Webhook>>,
    /// Whether what is remembered may be tried: not while the webhook is disabled.
    rows_wait: bool,
    window: Window,
    /// Remembered deliveries that are being tried, or for which their sessions wait in the window.
    rows: HashSet<DeliveryKey>,
    /// How many farewells are being tried.
    farewells: usize,
    /// How many attempts are under way.
    trying: usize,
    under_way: FuturesUnordered<UnderWay>,
    health: Health,
    /// How far it has come, as it is kept.
    kept: Progress,
    /// Since when the receiver takes nothing.
    failing_since: Option<Timestamp>,
    /// What is to be kept.
    ledger: Vec<DeliveryChange>,
    is_keeping: bool,
    /// How many deliveries came to an end in this turn.
    settled: usize,
    /// Whether something may have come since the outbox and the webhook were read.
    is_stale: bool,
    /// What is read of the store, until something may have come or was kept: an old one holds its space.
    snapshot: Arc<Snapshot>,
    /// After this place nothing is remembered there.
    remembered_through: OutboxPlace,
    /// When the queue of what is remembered is to be read again; never, if nothing waits.
    rows_due: Option<Timestamp>,
}

impl<'a> Work<'a> {
    fn begin(service: &'a Arc<Service>, turn: &Turn) -> Result<Self, ReadError> {
        let (org, line) = (turn.org, turn.line);
        let health = service.health(org, line);
        let snapshot = service.snapshot_read()?;
        let mut kept = Progress::default();
        if let Line::Webhook(id) = line {
            kept = snapshot.progress(org, id)?.unwrap_or_default();
        }
        Ok(Self {
            service,
            org,
            line,
            webhook: None,
            rows_wait: false,
            window: Window::new(kept.through.max(health.looked_through), false),
            rows: HashSet::new(),
            farewells: 0,
            trying: 0,
            under_way: FuturesUnordered::new(),
            health,
            kept,
            failing_since: kept.failing_since,
            ledger: Vec::new(),
            is_keeping: false,
            settled: 0,
            is_stale: true,
            remembered_through: snapshot.remembered_through(org, line)?,
            snapshot,
            rows_due: None,
        })
    }

    async fn run(&mut self, turn: &Turn) -> Result<Option<Timestamp>, Ended> {
        loop {
            let now = self.service.now();
            if std::mem::take(&mut self.is_stale) {
                self.renew()?;
                self.rows_due = Some(now);
                self.reload()?;
            }
            let is_over = self.settled >= TURN && self.service.deliveries.agenda.is_crowded();
            let rests = self.health.rests_until > now;
            let mut next = None;
            if !is_over {
                next = self.start(now, rests)?;
            }
            self.flush();
            if self.under_way.is_empty() {
                let patience = PATIENCE.mul_f64(self.scale().max(f64::MIN_POSITIVE));
                let leaves =
                    is_over || self.webhook.is_none() || (rests && self.health.rests_until.since(now) > patience);
                if leaves || (self.window.is_empty() && next.is_none_or(|next| next.since(now) > patience)) {
                    return self.leave(now, is_over, next).await;
                }
            }
            let wake = [next, rests.then_some(self.health.rests_until), self.window.next_held()];
            let wake = wake.into_iter().flatten().filter(|at| *at > now).min();
            tokio::select! {
                Some(came) = self.under_way.next() => self.take(came)?,
                () = turn.stirred.notified() => self.is_stale = true,
                () = self.service.clock.reach(wake.unwrap_or(Timestamp::MAX)), if wake.is_some() => {}
            }
            while let Some(Some(came)) = self.under_way.next().now_or_never() {
                self.take(came)?;
            }
        }
    }

    fn renew(&mut self) -> Result<(), ReadError> {
        self.snapshot = self.service.snapshot_read()?;
        self.remembered_through = self.snapshot.remembered_through(self.org, self.line)?;
        Ok(())
    }

    /// Reads what the receiver is now.
    fn reload(&mut self) -> Result<(), Ended> {
        let Line::Webhook(id) = self.line else { return Ok(()) };
        let snapshot = Arc::clone(&self.snapshot);
        let stored = snapshot.progress(self.org, id)?.unwrap_or_default();
        if stored.through > self.kept.through.max(self.window.read_through()) {
            // It was made active again, and what happened before is not for it.
            self.kept.through = stored.through;
            self.begin_anew(stored.through, false);
            self.webhook = None;
        }
        let found = snapshot.webhook(self.org, id)?;
        self.rows_wait = found.as_ref().is_some_and(|webhook| !webhook.is_told());
        let told = found.filter(Webhook::is_told).map(Arc::new);
        let is_new_place = |known: &Arc<Webhook>| told.as_ref().is_some_and(|told| told.spec.url != known.spec.url);
        if self.webhook.as_ref().is_some_and(is_new_place) {
            // How another receiver fared says nothing about this one.
            self.failing_since = None;
        }
        let elsewhere = |webhook: &Arc<Webhook>| Some(webhook.session) != told.as_ref().map(|told| told.session);
        if self.webhook.as_ref().is_none_or(elsewhere) {
            // What was read for another session, or for nobody, is not for it.
            let of_one = told.as_ref().is_some_and(|webhook| webhook.session.is_some());
            self.begin_anew(self.window.through().max(self.kept.through), of_one);
        }
        self.webhook = told;
        Ok(())
    }

    /// Fills the window anew. What was in it and is remembered no longer waits there.
    fn begin_anew(&mut self, after: OutboxPlace, of_one: bool) {
        for (place, part) in self.window.begin_anew(after, of_one) {
            self.rows.remove(&DeliveryKey { line: self.line, place, part });
        }
    }

    /// Begins as many attempts as the receiver is given at once. Answers when something that is remembered is due next.
    fn start(&mut self, now: Timestamp, rests: bool) -> Result<Option<Timestamp>, Ended> {
        if self.rows_wait {
            return Ok(None);
        }
        if self.rows_due.is_some_and(|due| due <= now) {
            self.start_rows(now, rests)?;
        }
        let next = self.rows_due.filter(|due| *due > now);
        let Some(webhook) = self.webhook.clone() else { return Ok(next) };
        if rests {
            return Ok(next);
        }
        self.window.release(now);
        self.fill(&webhook)?;
        while self.trying < self.health.width
            && self.window.has_next()
            && let Some(slot) = self.service.deliveries.slots.take(self.org, self.trying)
            && let Some(item) = self.window.next()
        {
            let of = DeliveryKey { line: self.line, place: item.place, part: item.part };
            let (session, webhook) = (item.about, Some(Arc::clone(&webhook)));
            let snapshot = Arc::clone(&self.snapshot);
            let trial = Trial { org: self.org, of, session, webhook, known: None, snapshot, slot };
            let service = Arc::clone(self.service);
            self.trying += 1;
            self.under_way.push(Box::pin(async move {
                let tried = trial.run(&service).await;
                Came::Item(item, tried)
            }));
        }
        Ok(next)
    }

    /// Reads on in the outbox while there is room.
    fn fill(&mut self, webhook: &Webhook) -> Result<(), Ended> {
        let snapshot = &*Arc::clone(&self.snapshot);
        for (about, after) in self.window.unread() {
            let limit = self.window.at_once();
            let entries = snapshot.outbox_about(self.org, about, after, limit)?;
            let is_all = entries.len() < limit;
            let mut parts = Vec::with_capacity(entries.len());
            for entry in entries {
                parts.push((entry.place, self.parts(snapshot, webhook, entry.place, entry.kind)?));
            }
            let resumed: Vec<_> = parts.iter().flat_map(|(place, parts)| resumed(*place, parts)).collect();
            self.window.read_more(about, parts, is_all);
            self.take_up(resumed);
        }
        let mut room = self.window.room();
        while room >= READ_AT_ONCE / 2 {
            let after = self.window.read_through();
            let entries = snapshot.outbox_after(self.org, webhook.session, after, READ_AT_ONCE)?;
            let count = entries.len();
            for entry in entries {
                let parts = self.parts(snapshot, webhook, entry.place, entry.kind)?;
                let resumed: Vec<_> = resumed(entry.place, &parts).collect();
                self.window.read(entry.place, entry.session, parts);
                self.take_up(resumed);
            }
            if count < READ_AT_ONCE {
                break;
            }
            room = self.window.room();
        }
        Ok(())
    }

    /// The parts of an event that are to be delivered. What is remembered already was read before a restart, and only what its
    /// session still waits for is taken up again; the end of a session has a delivery from the beginning.
    fn parts(
        &self,
        snapshot: &Snapshot,
        webhook: &Webhook,
        place: OutboxPlace,
        kind: EventKind,
    ) -> Result<Vec<Part>, Ended> {
        let mut parts = Vec::new();
        if kind == EventKind::Deleted {
            return Ok(parts);
        }
        for part in wanted(&webhook.spec, kind) {
            let of = DeliveryKey { line: self.line, place, part };
            if place > self.remembered_through || !snapshot.is_remembered(self.org, of)? {
                parts.push((part, Vec::new()));
            } else if let Some(known) = snapshot.delivery(self.org, of)?
                && known.record.is_held
                && matches!(known.state, DeliveryState::Waiting { .. })
                && !self.rows.contains(&of)
            {
                parts.push((part, known.record.attempts));
            }
        }
        Ok(parts)
    }

    /// What the window has room for of what is remembered waits there from now on.
    fn take_up(&mut self, resumed: Vec<(OutboxPlace, u8)>) {
        for (place, part) in resumed.into_iter().filter(|(place, part)| self.window.has(*place, *part)) {
            self.rows.insert(DeliveryKey { line: self.line, place, part });
        }
    }

    fn take(&mut self, came: Came) -> Result<(), Ended> {
        match came {
            Came::Item(item, tried) => {
                self.trying -= 1;
                self.item_tried(item, tried)
            }
            Came::Row(of, known, tried) => {
                self.trying -= 1;
                self.row_tried(of, &known, tried)
            }
            Came::Kept(changes, Ok(())) => {
                self.is_keeping = false;
                // What is kept as it is now may be tried again when it is due again, and no sooner; unless it is in the window still,
                // or more has come of it meanwhile.
                let later: HashSet<DeliveryKey> = self.ledger.iter().filter_map(key_of).collect();
                for of in changes.iter().filter_map(key_of) {
                    if !self.window.has(of.place, of.part) && !later.contains(&of) {
                        self.rows.remove(&of);
                    }
                }
                self.renew()?;
                self.rows_due = Some(Timestamp::default());
                Ok(())
            }
            // A session went meanwhile. What is about it goes when the rest is prepared again.
            Came::Kept(changes, Err(CommitError::Conflict)) => {
                self.is_keeping = false;
                let later = std::mem::replace(&mut self.ledger, changes);
                self.ledger.extend(later);
                Ok(())
            }
            Came::Kept(_, Err(CommitError::UnknownOrg(_))) => Err(Ended::Gone),
            Came::Kept(_, Err(error)) => {
                tracing::error!(org = %self.org, error = &error as &dyn std::error::Error, "what came of deliveries was not kept");
                Err(Ended::Failed)
            }
        }
    }

    /// Keeps what is in the ledger and how far the line has come, unless something is being kept already.
    fn flush(&mut self) {
        if self.is_keeping {
            return;
        }
        let progress =
            Progress { through: self.window.through().max(self.kept.through), failing_since: self.failing_since };
        let is_far = progress.through.0 - self.kept.through.0 >= FAR;
        let is_news = progress.failing_since != self.kept.failing_since;
        if self.ledger.is_empty() && !is_far && !is_news {
            return;
        }
        let mut changes = std::mem::take(&mut self.ledger);
        if let Line::Webhook(webhook) = self.line
            && progress != self.kept
        {
            changes.push(DeliveryChange::Progress { webhook, progress });
            self.kept = progress;
        }
        let mut commit = Commit::new(self.org, self.service.now());
        commit.deliveries.clone_from(&changes);
        let store = self.service.store.clone();
        self.is_keeping = true;
        // Sealing it all takes a while, in which attempts go on.
        let kept = tokio::spawn(async move { store.commit(commit).await.map(drop) });
        self.under_way.push(Box::pin(async move {
            let kept = kept.await.unwrap_or_else(|ended| match ended.try_into_panic() {
                Ok(panicked) => std::panic::resume_unwind(panicked),
                // The process ends, and this with it.
                Err(_cancelled) => Err(CommitError::Closed),
            });
            Came::Kept(changes, kept)
        }));
    }

    /// Ends the turn. Answers when the line is to be looked at again.
    async fn leave(
        &mut self,
        now: Timestamp,
        is_over: bool,
        next: Option<Timestamp>,
    ) -> Result<Option<Timestamp>, Ended> {
        for (item, until) in self.window.take_held() {
            self.put_aside(item, until)?;
        }
        while !self.ledger.is_empty() || !self.under_way.is_empty() {
            self.flush();
            if let Some(came) = self.under_way.next().await {
                self.take(came)?;
            }
        }
        self.health.looked_through = self.window.through();
        self.service.keep_health(self.org, self.line, self.health, self.kept.through);
        Ok(if is_over {
            Some(now)
        } else if self.health.rests_until > now && !self.is_done()? {
            Some(self.health.rests_until)
        } else {
            next
        })
    }

    /// Whether the line has nothing more but what is remembered and not due.
    fn is_done(&self) -> Result<bool, Ended> {
        let snapshot = self.service.store.snapshot()?;
        let more = match &self.webhook {
            Some(webhook) => snapshot.outbox_has_after(self.org, webhook.session, self.window.through())?,
            None => false,
        };
        let due = snapshot.next_delivery(self.org, self.line)?.is_some();
        Ok(!more && !due)
    }

    /// Remembers something that was held, so that it can be held no longer.
    fn put_aside(&mut self, item: Item, due: Timestamp) -> Result<(), Ended> {
        let found = self.service.store.snapshot()?.event_at(self.org, item.about, item.place)?;
        let Some(placed) = found else { return Ok(()) };
        let mut record = DeliveryRecord::new(Delivered::Event);
        item.failed.into_iter().for_each(|attempt| record.fail(attempt));
        let delivery = Delivery {
            id: placed.event.id,
            session: item.about,
            state: DeliveryState::Waiting { due },
            at: placed.event.at,
            changed_at: self.service.now(),
            record,
        };
        let of = DeliveryKey { line: self.line, place: item.place, part: item.part };
        self.ledger.push(DeliveryChange::Keep(of, Arc::new(delivery)));
        Ok(())
    }

    fn scale(&self) -> f64 {
        self.service.deliveries.config.as_ref().map_or(1.0, |config| config.retry_scale)
    }
}

/// The parts of an event that were tried before.
fn resumed(place: OutboxPlace, parts: &[Part]) -> impl Iterator<Item = (OutboxPlace, u8)> {
    parts.iter().filter(|(_, failed)| !failed.is_empty()).map(move |(part, _)| (place, *part))
}

/// What a change is about.
fn key_of(change: &DeliveryChange) -> Option<DeliveryKey> {
    match change {
        DeliveryChange::Keep(of, _) | DeliveryChange::Remove(of) => Some(*of),
        DeliveryChange::Queue { .. } | DeliveryChange::Progress { .. } => None,
    }
}
