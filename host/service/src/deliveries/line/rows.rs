//! What is remembered: deliveries that wait for another try, farewells before all of them.

use std::sync::Arc;

use portcullis_core::{Delivered, Delivery, Line, Timestamp};
use portcullis_store::DeliveryChange;

use super::super::attempt::Trial;
use super::super::farewell;
use super::{Came, Ended, Work};

/// How many farewells are tried at once. They wait for nothing else, but an organisation can end many sessions in a moment.
const FAREWELLS: usize = 32;

impl Work<'_> {
    /// Begins attempts of what is remembered and due, and finds out when to look again. Farewells begin in any case.
    pub(super) fn start_rows(&mut self, now: Timestamp, rests: bool) -> Result<(), Ended> {
        let snapshot = Arc::clone(&self.snapshot);
        let mut is_all = true;
        let due = snapshot.deliveries_due(self.org, self.line, now, self.rows.len() + self.health.width.max(4))?;
        for of in due {
            if self.rows.contains(&of) {
                continue;
            }
            let Some(known) = snapshot.delivery(self.org, of)? else {
                // It went with its session, and only its row is left.
                self.ledger.push(DeliveryChange::Remove(of));
                self.rows.insert(of);
                continue;
            };
            if self.is_unwanted(&known)? {
                self.farewell_done(&known);
                self.ledger.push(DeliveryChange::Remove(of));
                self.rows.insert(of);
                continue;
            }
            let slots = &self.service.deliveries.slots;
            let slot = match farewell::is_first(&known) {
                true => (self.farewells < FAREWELLS).then(|| slots.take_anyway(self.org)),
                false if rests || self.trying >= self.health.width => None,
                false => slots.take(self.org, self.trying),
            };
            let Some(slot) = slot else {
                is_all = false;
                break;
            };
            self.farewells += usize::from(farewell::is_first(&known));
            let known = Box::new(known);
            let (session, webhook) = (known.session, self.webhook.clone());
            let snapshot = Arc::clone(&snapshot);
            let trial = Trial { org: self.org, of, session, webhook, known: Some(known.clone()), snapshot, slot };
            let service = Arc::clone(self.service);
            self.rows.insert(of);
            self.trying += 1;
            self.under_way.push(Box::pin(async move {
                let tried = trial.run(&service).await;
                Came::Row(of, known, tried)
            }));
        }
        // What is due and under way is looked at again when that is kept; what waits for room, at the next occasion.
        let first = snapshot.next_delivery(self.org, self.line)?;
        self.rows_due = first.filter(|first| *first > now || !is_all);
        Ok(())
    }

    /// Whether something that is remembered is told to nobody any more, because its receiver's owner has taken the webhook
    /// away. What went with a session was not taken away: its farewell is told to the receiver that it had.
    fn is_unwanted(&self, known: &Delivery) -> Result<bool, Ended> {
        if self.webhook.is_some() || matches!(self.line, Line::Plugin(_)) {
            return Ok(false);
        }
        let Delivered::Farewell(Some(farewell)) = &known.record.what else { return Ok(true) };
        let Some(session) = farewell.webhook.session else { return Ok(true) };
        Ok(self.snapshot.session(self.org, session)?.is_some())
    }
}
