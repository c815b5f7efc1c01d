//! Verifying events, webhooks, and what is remembered of deliveries.

use std::collections::BTreeMap;

use portcullis_core::{DeliveryRecord, DomainEvent, EventKind, Webhook};

use super::{Check, Pairs};
use crate::commit::QuotaKind;
use crate::deliveries::{self, Listed};
use crate::error::ReadError;
use crate::keyfile::Owner;
use crate::outbox;
use crate::seal::Scope;
use crate::snapshot::owner_in_head;
use crate::tables::{self, key, number, org_of, part, session_of, session_part};
use crate::webhooks;

impl Check<'_> {
    pub(super) fn webhooks(&mut self) -> Result<(), ReadError> {
        let (mut of_sessions, mut rows) = (Pairs::new(), BTreeMap::new());
        self.json(tables::WEBHOOKS, webhooks::HEAD, owner_in_head, |check, row, value, webhook: Webhook| {
            let (org, id) = (webhook.org.to_bytes(), webhook.id.to_bytes());
            check.agree(tables::WEBHOOKS, row, &[&org, &id]);
            check.head(tables::WEBHOOKS, row, value, &[&webhooks::head(&webhook)]);
            check.count(webhook.org, QuotaKind::Webhooks);
            of_sessions.insert((key(&[&org, &session_part(webhook.session), &id]), Vec::new()));
            rows.insert(row.to_vec(), webhook.is_told());
        })?;
        self.index(tables::SESSION_WEBHOOKS, &of_sessions)?;
        self.each(tables::PROGRESS, |check, row, _| {
            if rows.remove(row).is_none() {
                check.find(tables::PROGRESS, row, "is of a webhook that is not there");
            }
        })?;
        for (row, _) in rows.into_iter().filter(|(_, told)| *told) {
            self.find(tables::PROGRESS, &row, "is missing");
        }
        Ok(())
    }

    pub(super) fn events(&mut self) -> Result<(), ReadError> {
        let (mut order, mut last) = (BTreeMap::new(), BTreeMap::<Vec<u8>, u64>::new());
        self.each(tables::EVENTS, |check, row, value| {
            let (Some((owned, place)), Some(id), Some(kind), Some(ordinal), Some(scope)) =
                (row.split_at_checked(32), value.get(..16), value.get(16), number(value, 17), value.get(outbox::HEAD))
            else {
                return check.find(tables::EVENTS, row, "is too short");
            };
            let (Some(org), Some(session)) = (org_of(row), part(row, 16)) else { return };
            let owner = Owner { org, session: session_of(session).filter(|_| *scope != Scope::Org as u8) };
            let event =
                check.decodes::<DomainEvent>(tables::EVENTS, owner, row, &key(&[owned, id]), value, outbox::HEAD);
            if event.is_some_and(|event| EventKind::parse(*kind) != Some(event.body.kind())) {
                check.find(tables::EVENTS, row, "has a head that its contents contradict");
            }
            order.insert(key(&[&row[..16], place]), (session, *kind));
            for (end, number) in [(owned, ordinal), (&row[..16], number(place, 0).unwrap_or_default())] {
                let last = last.entry(end.to_vec()).or_default();
                *last = number.max(*last);
            }
        })?;
        self.each(tables::OUTBOX, |check, row, value| {
            let said = outbox::parse(value).map(|(session, kind, _)| (session, kind as u8));
            if order.remove(row) != said {
                check.find(tables::OUTBOX, row, "points to no event that says so");
            }
        })?;
        for row in order.into_keys() {
            self.find(tables::OUTBOX, &row, "is missing");
        }
        self.each(tables::OUTBOX_ENDS, |check, row, value| {
            if org_of(row).is_none_or(|org| check.snapshot.shared.ring.live(Owner::org(org)).is_none()) {
                check.find(tables::OUTBOX_ENDS, row, "is of an organisation that is not there");
            }
            if last.remove(row).is_some_and(|last| number(value, 0) < Some(last)) {
                check.find(tables::OUTBOX_ENDS, row, "comes before what was given out");
            }
        })?;
        // Nothing was given out where only events stand that do not count, and of that there is no row.
        for (row, _) in last.into_iter().filter(|(_, last)| *last > 0) {
            self.find(tables::OUTBOX_ENDS, &row, "is missing");
        }
        Ok(())
    }

    pub(super) fn deliveries(&mut self) -> Result<(), ReadError> {
        let (mut due, mut dead) = (Pairs::new(), Pairs::new());
        self.each(tables::DELIVERIES, |check, row, value| {
            let (Some(of), Some(id), Some(session), Some(scope)) = (
                deliveries::key_of(row),
                part(value, deliveries::SESSION + 16),
                part(value, deliveries::SESSION),
                value.get(deliveries::HEAD),
            ) else {
                return check.find(tables::DELIVERIES, row, "is too short");
            };
            let Some(org) = org_of(row) else { return };
            let owner = Owner { org, session: session_of(session).filter(|_| *scope != Scope::Org as u8) };
            // What is remembered about a session that is gone opens no more, and is forgotten with its age.
            if check.snapshot.shared.ring.live(owner).is_some() {
                let bound = deliveries::bound(org, of.line, id, of.part);
                check.decodes::<DeliveryRecord>(tables::DELIVERIES, owner, row, &bound, value, deliveries::HEAD);
            }
            match Listed::of(row, value) {
                Listed::Due(row) => drop(due.insert((row, Vec::new()))),
                Listed::Dead(row) => drop(dead.insert((row, Vec::new()))),
                Listed::Nowhere if deliveries::state(value).is_none() => {
                    check.find(tables::DELIVERIES, row, "is in no known state");
                }
                Listed::Nowhere => {}
            }
        })?;
        self.index(tables::DELIVERIES_DUE, &due)?;
        self.index(tables::DEAD_LETTERS, &dead)
    }
}
