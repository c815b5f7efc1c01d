//! Preparing deliveries: each is sealed under the key with which it is to go.

use portcullis_core::{Delivered, Delivery, Line};

use super::{Sealer, seal};
use crate::commit::DeliveryChange;
use crate::deliveries::{bound, head, line_part, progress_value, row};
use crate::error::CommitError;
use crate::step::{Queued, Step};
use crate::tables::{self, key, session_part};

impl Sealer<'_> {
    pub(super) fn delivery(&mut self, change: DeliveryChange) -> Result<(), CommitError> {
        if self.erases_org {
            return Ok(());
        }
        let org = self.prepared.org;
        let step = match change {
            DeliveryChange::Queue { line, at, part, delivery } => {
                let value = self.delivery_value(line, part, &delivery)?;
                self.prepared.queued.push(Queued { line: line_part(line), at, part, value });
                return Ok(());
            }
            DeliveryChange::Keep(of, delivery) => {
                let key = row(org, of);
                match self.delivery_value(of.line, of.part, &delivery) {
                    Ok(value) => Step::KeepDelivery { key, value },
                    // Its session has gone meanwhile, and what is remembered about it with it.
                    Err(CommitError::UnknownSession(_)) => Step::RemoveDelivery { key },
                    Err(error) => return Err(error),
                }
            }
            DeliveryChange::Remove(of) => Step::RemoveDelivery { key: row(org, of) },
            DeliveryChange::Progress { webhook, progress } => Step::Progress {
                key: key(&[&org.to_bytes(), &webhook.to_bytes()]),
                value: progress_value(progress.through.0, progress.failing_since),
            },
        };
        self.prepared.steps.push(step);
        Ok(())
    }

    fn delivery_value(&mut self, line: Line, part: u8, delivery: &Delivery) -> Result<Vec<u8>, CommitError> {
        // A farewell is to be told when its session is gone.
        let owner = delivery.session.filter(|_| !matches!(delivery.record.what, Delivered::Farewell(_)));
        let data_key = self.key_about(owner)?;
        let id = delivery.id.to_bytes();
        let head = head(delivery.state, delivery.at, delivery.changed_at, session_part(delivery.session), id);
        let bound = bound(self.prepared.org, line, id, part);
        seal(&data_key, tables::DELIVERIES, &bound, &head, &delivery.record)
    }
}
