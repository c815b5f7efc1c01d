//! Reading deliveries: what waits, what was given up, and how far webhooks have come.

use portcullis_core::{
    Delivery, DeliveryKey, DeliveryState, EventId, Line, OrgId, OutboxPlace, SessionId, Timestamp, Webhook, WebhookId,
};

use super::{Snapshot, owner_in_head};
use crate::commit::Progress;
use crate::deliveries::{self, HEAD, LINE, bound, line_of, line_part};
use crate::error::ReadError;
use crate::keyfile::Owner;
use crate::seal::Scope;
use crate::tables::{self, NO_SESSION, Prefix, key, number, org_of, part, session_of};
use crate::webhooks;

/// Which deliveries of a line are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryFilter {
    /// All that are remembered.
    All,
    /// Those that wait to be tried again.
    Waiting,
    /// Those that were given up.
    Dead,
}

/// Some deliveries of a line, newest first. A page may be short though there are more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPage {
    /// The deliveries.
    pub deliveries: Vec<(DeliveryKey, Delivery)>,
    /// Before which the next page begins; none if this was the last.
    pub next: Option<(OutboxPlace, u8)>,
}

/// How many rows are looked at for one page.
const LOOKS: usize = 5_000;

impl Snapshot {
    /// The webhooks of an organisation that hear of all its sessions.
    pub fn org_webhooks(&self, org: OrgId) -> Result<Vec<Webhook>, ReadError> {
        self.webhooks_hearing(org, NO_SESSION)
    }

    /// The webhooks that hear of this session only, oldest first.
    pub fn session_webhooks(&self, org: OrgId, session: SessionId) -> Result<Vec<Webhook>, ReadError> {
        self.webhooks_hearing(org, session.to_bytes())
    }

    fn webhooks_hearing(&self, org: OrgId, session: [u8; 16]) -> Result<Vec<Webhook>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes(), &session]);
        let mut found = Vec::new();
        for row in self.table(tables::SESSION_WEBHOOKS)?.range::<&[u8]>(own.span())? {
            let (row, _) = row?;
            if let Some(id) = part(row.value(), 32) {
                found.extend(self.webhook(org, WebhookId::from_bytes(id))?);
            }
        }
        Ok(found)
    }

    /// The webhooks that are told of events of this session, or of none, unopened.
    pub fn webhooks_told_of(&self, org: OrgId, session: Option<SessionId>) -> Result<Vec<WebhookId>, ReadError> {
        let (index, rows) = (self.table(tables::SESSION_WEBHOOKS)?, self.table(tables::WEBHOOKS)?);
        let mut found = Vec::new();
        let own = session.map(SessionId::to_bytes);
        for hearing in [Some(NO_SESSION), own].into_iter().flatten() {
            let own = Prefix::new(&[&org.to_bytes(), &hearing]);
            for row in index.range::<&[u8]>(own.span())? {
                let (row, _) = row?;
                let Some(id) = part::<16>(row.value(), 32) else { continue };
                let webhook = rows.get(&key(&[&org.to_bytes(), &id])[..])?;
                if webhook.is_some_and(|webhook| webhooks::is_told(webhook.value())) {
                    found.push(WebhookId::from_bytes(id));
                }
            }
        }
        Ok(found)
    }

    /// Every webhook of every organisation that is told of events, unopened, and the session that it hears of if it does not of all.
    pub fn every_told_webhook(
        &self,
        mut each: impl FnMut(OrgId, WebhookId, Option<SessionId>),
    ) -> Result<(), ReadError> {
        for row in self.table(tables::WEBHOOKS)?.range::<&[u8]>(..)? {
            let (row, value) = row?;
            let (row, value) = (row.value(), value.value());
            let (Some(org), Some(id), Some(session)) = (org_of(row), part(row, 16), part(value, 8)) else {
                return Err(ReadError::unopenable(tables::WEBHOOKS, row));
            };
            if webhooks::is_told(value) {
                each(org, WebhookId::from_bytes(id), session_of(session));
            }
        }
        Ok(())
    }

    /// How far a webhook has come; nothing is known of one that was never told anything.
    pub fn progress(&self, org: OrgId, webhook: WebhookId) -> Result<Option<Progress>, ReadError> {
        let row = self.table(tables::PROGRESS)?.get(&key(&[&org.to_bytes(), &webhook.to_bytes()])[..])?;
        Ok(row.and_then(|row| {
            let since = number(row.value(), 8).filter(|since| *since != 0);
            let through = OutboxPlace(number(row.value(), 0)?);
            Some(Progress { through, failing_since: since.map(Timestamp::from_millis) })
        }))
    }

    /// At most `limit` deliveries of a line that are due, the longest overdue first.
    pub fn deliveries_due(
        &self,
        org: OrgId,
        line: Line,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<DeliveryKey>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes(), &line_part(line)]);
        let mut found = Vec::new();
        for row in self.table(tables::DELIVERIES_DUE)?.range::<&[u8]>(own.span())?.take(limit) {
            let (row, _) = row?;
            let row = row.value();
            let (Some(due), Some(place)) = (number(row, 16 + LINE), number(row, 16 + LINE + 8)) else {
                return Err(ReadError::unopenable(tables::DELIVERIES_DUE, row));
            };
            if due > now.as_millis() {
                break;
            }
            let part = row.last().copied().unwrap_or_default();
            found.push(DeliveryKey { line, place: OutboxPlace(place), part });
        }
        Ok(found)
    }

    /// When the first delivery of a line that waits is due.
    pub fn next_delivery(&self, org: OrgId, line: Line) -> Result<Option<Timestamp>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes(), &line_part(line)]);
        let first = self.table(tables::DELIVERIES_DUE)?.range::<&[u8]>(own.span())?.next().transpose()?;
        Ok(first.and_then(|(row, _)| number(row.value(), 16 + LINE)).map(Timestamp::from_millis))
    }

    /// Every line of every organisation in which something waits, and when the first of it is due: one look for each.
    pub fn every_waiting_line(&self, mut each: impl FnMut(OrgId, Line, Timestamp)) -> Result<(), ReadError> {
        let (rows, all) = (self.table(tables::DELIVERIES_DUE)?, Prefix::new(&[]));
        let mut span = all.span();
        let mut own;
        while let Some((row, _)) = rows.range::<&[u8]>(span)?.next().transpose()? {
            let row = row.value();
            let (Some(org), Some(line), Some(due)) =
                (org_of(row), row.get(16..).and_then(line_of), number(row, 16 + LINE))
            else {
                return Err(ReadError::unopenable(tables::DELIVERIES_DUE, row));
            };
            each(org, line, Timestamp::from_millis(due));
            own = Prefix::new(&[&row[..16 + LINE]]);
            span = own.beyond();
        }
        Ok(())
    }

    /// A delivery that is remembered; none if it is not, or went with its session.
    pub fn delivery(&self, org: OrgId, of: DeliveryKey) -> Result<Option<Delivery>, ReadError> {
        let row = deliveries::row(org, of);
        match self.table(tables::DELIVERIES)?.get(&row[..])? {
            Some(value) => self.opened_delivery(org, of, &row, value.value()),
            None => Ok(None),
        }
    }

    /// Whether a delivery is remembered, whatever of it can still be read.
    pub fn is_remembered(&self, org: OrgId, of: DeliveryKey) -> Result<bool, ReadError> {
        Ok(self.table(tables::DELIVERIES)?.get(&deliveries::row(org, of)[..])?.is_some())
    }

    /// The place of the latest event of which a line remembers a delivery.
    pub fn remembered_through(&self, org: OrgId, line: Line) -> Result<OutboxPlace, ReadError> {
        let own = Prefix::new(&[&org.to_bytes(), &line_part(line)]);
        let last = self.table(tables::DELIVERIES)?.range::<&[u8]>(own.span())?.next_back().transpose()?;
        let place = last.and_then(|(row, _)| number(row.value(), own.bytes().len()));
        Ok(place.map(OutboxPlace).unwrap_or_default())
    }

    /// At most `limit` deliveries of a line, newest first, from the one before `before` on. Those of the future come in the
    /// order in which they are due, and from the beginning.
    pub fn deliveries(
        &self,
        org: OrgId,
        line: Line,
        filter: DeliveryFilter,
        before: Option<(OutboxPlace, u8)>,
        limit: usize,
    ) -> Result<Vec<(DeliveryKey, Delivery)>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes(), &line_part(line)]);
        let before = before.map(|(place, part)| key(&[own.bytes(), &place.0.to_be_bytes(), &[part]]));
        let keys: Vec<Option<DeliveryKey>> = match filter {
            DeliveryFilter::Waiting => {
                self.deliveries_due(org, line, Timestamp::MAX, limit)?.into_iter().map(Some).collect()
            }
            DeliveryFilter::All | DeliveryFilter::Dead => {
                let table = if filter == DeliveryFilter::All { tables::DELIVERIES } else { tables::DEAD_LETTERS };
                let rows = self.table(table)?;
                let found = rows.range::<&[u8]>(own.before(before.as_deref()))?.rev().take(limit);
                found.map(|row| Ok(deliveries::key_of(row?.0.value()))).collect::<Result<_, ReadError>>()?
            }
        };
        let mut found = Vec::with_capacity(keys.len());
        for of in keys.into_iter().flatten() {
            found.extend(self.delivery(org, of)?.map(|delivery| (of, delivery)));
        }
        Ok(found)
    }

    /// At most `limit` deliveries of a line, newest first, from the one before `before` on.
    pub fn delivery_page(
        &self,
        org: OrgId,
        line: Line,
        filter: DeliveryFilter,
        before: Option<(OutboxPlace, u8)>,
        limit: usize,
    ) -> Result<DeliveryPage, ReadError> {
        let own = Prefix::new(&[&org.to_bytes(), &line_part(line)]);
        let before = before.map(|(place, part)| key(&[own.bytes(), &place.0.to_be_bytes(), &[part]]));
        let rows =
            self.table(if filter == DeliveryFilter::Dead { tables::DEAD_LETTERS } else { tables::DELIVERIES })?;
        let (mut found, mut last, mut next) = (Vec::new(), None, None);
        for (looked, row) in rows.range::<&[u8]>(own.before(before.as_deref()))?.rev().enumerate() {
            if found.len() >= limit || looked >= LOOKS {
                next = last;
                break;
            }
            let (row, value) = row?;
            let Some(of) = deliveries::key_of(row.value()) else { continue };
            last = Some((of.place, of.part));
            let waits = || matches!(deliveries::state(value.value()), Some(DeliveryState::Waiting { .. }));
            if filter != DeliveryFilter::Waiting || waits() {
                found.extend(self.delivery(org, of)?.map(|delivery| (of, delivery)));
            }
        }
        Ok(DeliveryPage { deliveries: found, next })
    }

    /// At most `limit` deliveries of a line that were given up, oldest first, beyond one place and up to another.
    pub fn dead_letters(
        &self,
        org: OrgId,
        line: Line,
        after: OutboxPlace,
        through: OutboxPlace,
        limit: usize,
    ) -> Result<Vec<DeliveryKey>, ReadError> {
        if after >= through {
            return Ok(Vec::new());
        }
        let own = key(&[&org.to_bytes(), &line_part(line)]);
        let first = key(&[&own, &after.0.to_be_bytes(), &[u8::MAX]]);
        let last = key(&[&own, &through.0.to_be_bytes(), &[u8::MAX]]);
        let rows = self.table(tables::DEAD_LETTERS)?;
        let mut found = Vec::new();
        for row in rows.range::<&[u8]>(&first[..]..=&last[..])?.take(limit) {
            found.extend(deliveries::key_of(row?.0.value()));
        }
        Ok(found)
    }

    /// The place of the oldest delivery of a line that is remembered.
    pub fn first_delivery(&self, org: OrgId, line: Line) -> Result<Option<OutboxPlace>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes(), &line_part(line)]);
        let first = self.table(tables::DELIVERIES)?.range::<&[u8]>(own.span())?.next().transpose()?;
        Ok(first.and_then(|(row, _)| number(row.value(), 16 + LINE)).map(OutboxPlace))
    }

    /// Every line of an organisation of which something is remembered: one look for each.
    pub fn remembered_lines(&self, org: OrgId) -> Result<Vec<Line>, ReadError> {
        let rows = self.table(tables::DELIVERIES)?;
        let all = Prefix::new(&[&org.to_bytes()]);
        let mut found = Vec::new();
        let mut span = all.span();
        let mut own;
        while let Some((row, _)) = rows.range::<&[u8]>(span)?.next().transpose()? {
            let row = row.value();
            if org_of(row) != Some(org) {
                break;
            }
            found.extend(row.get(16..).and_then(line_of));
            own = Prefix::new(&[&row[..16 + LINE]]);
            span = own.beyond();
        }
        Ok(found)
    }

    fn opened_delivery(
        &self,
        org: OrgId,
        of: DeliveryKey,
        row: &[u8],
        value: &[u8],
    ) -> Result<Option<Delivery>, ReadError> {
        let table = tables::DELIVERIES;
        let broken = || ReadError::unopenable(table, row);
        let state = deliveries::state(value).ok_or_else(broken)?;
        let time = |at| number(value, at).map(Timestamp::from_millis).ok_or_else(broken);
        let session = session_of(part(value, deliveries::SESSION).ok_or_else(broken)?);
        let id: [u8; 16] = part(value, deliveries::SESSION + 16).ok_or_else(broken)?;
        let scope = value.get(HEAD).ok_or_else(broken)?;
        let owner = Owner { org, session: session.filter(|_| *scope != Scope::Org as u8) };
        let record = self.decode(table, owner, row, &bound(org, of.line, id, of.part), value, HEAD)?;
        let (at, changed_at, id) = (time(9)?, time(17)?, EventId::from_bytes(id));
        Ok(record.map(|record| Delivery { id, session, state, at, changed_at, record }))
    }

    /// One webhook.
    pub fn webhook(&self, org: OrgId, id: WebhookId) -> Result<Option<Webhook>, ReadError> {
        let row = key(&[&org.to_bytes(), &id.to_bytes()]);
        match self.table(tables::WEBHOOKS)?.get(&row[..])? {
            Some(value) => self.decode_owned(tables::WEBHOOKS, &row, value.value(), webhooks::HEAD, owner_in_head),
            None => Ok(None),
        }
    }

    /// The webhooks of an organisation, those of single sessions among them, oldest first.
    pub fn webhooks(&self, org: OrgId) -> Result<Vec<Webhook>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes()]);
        self.list(tables::WEBHOOKS, own.span(), false, usize::MAX, webhooks::HEAD, owner_in_head)
    }
}
