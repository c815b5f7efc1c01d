//! What came of attempts: what they mean for their delivery and for its receiver, and what is put down of them.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{Delivered, Delivery, DeliveryKey, DeliveryRecord, DeliveryState, DisabledBecause, Line};
use portcullis_store::DeliveryChange;
use portcullis_webhook::{Failure, Next, after_failure, keeps_order};

use super::super::attempt::{Done, Tried};
use super::super::disabling::FAILING_FOR;
use super::super::farewell;
use super::super::window::Item;
use super::{Ended, Work};
use crate::mint;

impl Work<'_> {
    pub(super) fn item_tried(&mut self, mut item: Item, tried: Tried) -> Result<(), Ended> {
        let done = match tried {
            Tried::Unread => return Err(Ended::Failed),
            // Only what is remembered can wait for anything but its receiver.
            Tried::Nothing | Tried::Never(_) | Tried::Later(_) => {
                self.window.settle(&item);
                return Ok(());
            }
            Tried::Done(done) => *done,
        };
        let next = self.judge(&done, u32::try_from(item.failed.len()).unwrap_or(u32::MAX));
        let now = self.service.now();
        let of = DeliveryKey { line: self.line, place: item.place, part: item.part };
        let mut record = DeliveryRecord::new(Delivered::Event);
        item.failed.iter().cloned().for_each(|attempt| record.fail(attempt));
        let (id, session, at) = (done.id, item.about, done.at);
        let known = Delivery { id, session, state: DeliveryState::Dead, at, changed_at: now, record };
        let took = Duration::from_millis(done.attempt.took_ms);
        // What is not the window's any more is tried again by itself, without holding up its session.
        if let Some(Next::Again { after }) = next
            && self.window.is_of_now(&item)
            && keeps_order(item.held + took, after)
        {
            item.held += took + after;
            item.failed.push(done.attempt.clone());
            let mut kept = known;
            kept.record.fail(done.attempt);
            kept.record.is_held = true;
            let due = now.after(after.mul_f64(self.scale()));
            kept.state = DeliveryState::Waiting { due };
            self.ledger.push(DeliveryChange::Keep(of, Arc::new(kept)));
            self.rows.insert(of);
            self.window.hold(item, due);
            return Ok(());
        }
        self.window.settle(&item);
        self.record(of, known, done, next);
        Ok(())
    }

    /// A farewell was tried, or is told to nobody; its session goes on with its end when there is no other.
    pub(super) fn farewell_done(&self, known: &Delivery) {
        if farewell::is_first(known)
            && let Some(session) = known.session
        {
            self.service.farewell_tried(self.org, session);
        }
    }

    pub(super) fn row_tried(&mut self, of: DeliveryKey, known: &Delivery, tried: Tried) -> Result<(), Ended> {
        self.farewells -= usize::from(farewell::is_first(known));
        self.farewell_done(known);
        match tried {
            Tried::Unread => return Err(Ended::Failed),
            Tried::Nothing => self.ledger.push(DeliveryChange::Remove(of)),
            Tried::Never(done) => self.record(of, known.clone(), *done, Some(Next::Dead)),
            Tried::Later(wait) => {
                let now = self.service.now();
                let state = DeliveryState::Waiting { due: now.after(wait) };
                let kept = Delivery { state, changed_at: now, ..known.clone() };
                self.ledger.push(DeliveryChange::Keep(of, Arc::new(kept)));
            }
            Tried::Done(done) => {
                let next = self.judge(&done, known.record.failures);
                self.record(of, known.clone(), *done, next);
            }
        }
        Ok(())
    }

    /// How a delivery goes on after an attempt, of which so many had failed before; not at all if it was taken.
    fn judge(&mut self, done: &Done, failed_before: u32) -> Option<Next> {
        let now = self.service.now();
        let failure = match &done.result {
            Ok(()) => {
                self.health.took(Duration::from_millis(done.attempt.took_ms));
                self.failing_since = None;
                return None;
            }
            Err(failure) => failure,
        };
        let wished = match failure {
            Failure::Status { status: 429 | 503, retry_after } => *retry_after,
            Failure::Status { .. } | Failure::NoAnswer => None,
        };
        // A plugin has many receivers: that one of them fails says nothing about the others.
        if matches!(self.line, Line::Webhook(_)) {
            self.health.failed(now, wished, self.scale());
        }
        let since = *self.failing_since.get_or_insert(now);
        let retry = self.webhook.as_ref().map(|webhook| webhook.spec.retry).unwrap_or_default();
        let next = after_failure(done.format, &retry, failed_before.saturating_add(1), failure, mint::seed());
        if let Line::Webhook(id) = self.line {
            let why = match next {
                Next::Disable => Some(DisabledBecause::Gone),
                _ if now.since(since) >= FAILING_FOR => Some(DisabledBecause::Failing),
                _ => None,
            };
            if let Some(why) = why {
                let (service, org) = (Arc::clone(self.service), self.org);
                self.rows_wait = true;
                tokio::spawn(async move { service.disable_webhook(org, id, why).await });
            }
        }
        Some(next)
    }

    /// Puts down what came of a delivery.
    fn record(&mut self, of: DeliveryKey, known: Delivery, done: Done, next: Option<Next>) {
        let (now, mut record) = (self.service.now(), known.record);
        let state = match next {
            None => {
                record.push(done.attempt);
                // What was kept for the telling is not needed any more.
                match &mut record.what {
                    Delivered::Farewell(needed) => *needed = None,
                    Delivered::Request(request) => request.forget_contents(),
                    Delivered::Event => {}
                }
                DeliveryState::Delivered
            }
            Some(next) => {
                record.fail(done.attempt);
                match next {
                    Next::Again { after } => DeliveryState::Waiting { due: now.after(after.mul_f64(self.scale())) },
                    Next::Dead | Next::Disable => DeliveryState::Dead,
                }
            }
        };
        self.settled += 1;
        let kept = Delivery { state, changed_at: now, record, ..known };
        self.ledger.push(DeliveryChange::Keep(of, Arc::new(kept)));
    }
}
