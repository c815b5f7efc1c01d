//! Reading what hangs on plugins and bindings: errands, confirmations, suspensions, tallies, secrets and publishers.

use portcullis_core::{
    BindingId, Confirmation, Errand, ErrandId, EventId, OrgId, PluginId, Publisher, PublisherId, Secret, Suspension,
    Tally, Timestamp,
};

use super::{Snapshot, owner_in_head};
use crate::bindings::{self, tally_of};
use crate::commit::{KnownFact, QuotaKind};
use crate::confirmations;
use crate::counts::Counts;
use crate::errands::{self, HEAD};
use crate::error::ReadError;
use crate::facts;
use crate::keyfile::Owner;
use crate::prepare::plugins::NamedSecret;
use crate::tables::{self, Prefix, key, number, part};

/// At most so many errands of one organisation are due at once, however many wait.
pub const ERRANDS_OF_AN_ORG: usize = 8;

impl Snapshot {
    /// At most `limit` errands that are due, and at most [`ERRANDS_OF_AN_ORG`] of each organisation: first the longest
    /// overdue of every organisation, then the next of each. So no backlog stands in the way of another organisation.
    pub fn errands_due(&self, now: Timestamp, limit: usize) -> Result<Vec<Errand>, ReadError> {
        let mut due = Vec::new();
        self.each_backlog(|org, rows| {
            for (rank, row) in rows.take(ERRANDS_OF_AN_ORG).enumerate() {
                let (row, _) = row?;
                let (Some(at), Some(id)) = (number(row.value(), 16), part::<16>(row.value(), 24)) else {
                    return Err(ReadError::unopenable(tables::ERRANDS_DUE, row.value()));
                };
                if at > now.as_millis() {
                    break;
                }
                due.push((rank, at, id, org));
            }
            Ok(())
        })?;
        due.sort_unstable();
        due.truncate(limit);
        let mut found = Vec::with_capacity(due.len());
        for (_, _, id, org) in due {
            found.extend(self.errand(org, ErrandId::from_bytes(id))?);
        }
        Ok(found)
    }

    /// When the next errand is due.
    pub fn next_errand(&self) -> Result<Option<Timestamp>, ReadError> {
        let mut next: Option<u64> = None;
        self.each_backlog(|_, mut rows| {
            let first = rows.next().transpose()?.and_then(|(row, _)| number(row.value(), 16));
            next = next.into_iter().chain(first).min();
            Ok(())
        })?;
        Ok(next.map(Timestamp::from_millis))
    }

    /// One errand.
    pub fn errand(&self, org: OrgId, id: ErrandId) -> Result<Option<Errand>, ReadError> {
        let row = errands::row(org, id);
        match self.table(tables::ERRANDS)?.get(&row[..])? {
            Some(value) => self.decode_owned(tables::ERRANDS, &row, value.value(), HEAD, owner_in_head),
            None => Ok(None),
        }
    }

    /// What a caller was asked, by the SHA-256 of its token; also if it has ended and was not forgotten yet.
    pub fn confirmation(&self, org: OrgId, hash: &[u8; 32]) -> Result<Option<Confirmation>, ReadError> {
        let row = confirmations::row(&self.shared.ring.hashes, org, hash);
        let (table, head) = (tables::CONFIRMATIONS, confirmations::HEAD);
        match self.table(table)?.get(&row[..])? {
            Some(value) => self.decode_owned(table, &row, value.value(), head, owner_in_head),
            None => Ok(None),
        }
    }

    /// How many rows of a kind an organisation has.
    pub fn count(&self, org: OrgId, kind: QuotaKind) -> Result<u32, ReadError> {
        let row = self.table(tables::COUNTS)?.get(&org.to_bytes()[..])?;
        Ok(row.map_or(0, |row| Counts::parse(row.value()).of(kind)))
    }

    /// The bindings that are not asked in an organisation, for as long as they stay at the generation that is named.
    pub fn suspensions(&self, org: OrgId) -> Result<Vec<Suspension>, ReadError> {
        self.all(tables::SUSPENSIONS, org, &[], bindings::HEAD)
    }

    /// How a candidate compares with what its binding binds, over all organisations.
    pub fn tally(&self, binding: BindingId, candidate_version: u32) -> Result<Tally, ReadError> {
        let own = Prefix::new(&[&binding.to_bytes(), &candidate_version.to_be_bytes()]);
        let mut sum = Tally::default();
        for row in self.table(tables::TALLIES)?.range::<&[u8]>(own.span())? {
            let (asked, diverged) = tally_of(row?.1.value());
            sum.asked += asked;
            sum.diverged += diverged;
        }
        Ok(sum)
    }

    /// What is known of the fact that an organisation has told under this id, compared with this content.
    pub fn fact(&self, org: OrgId, id: &str, content: &[u8], now: Timestamp) -> Result<Option<KnownFact>, ReadError> {
        let hashes = &self.shared.ring.hashes;
        let row = key(&[&org.to_bytes(), &hashes.fact(org, id)]);
        let rows = self.table(tables::FACTS)?;
        let Some(value) = rows.get(&row[..])? else { return Ok(None) };
        let value = value.value();
        if !facts::counts(value, now) {
            return Ok(None);
        }
        let (Some(at), Some(event), Some(kept)) = (number(value, 0), part(value, 8), part::<16>(value, 24)) else {
            return Err(ReadError::unopenable(tables::FACTS, &row));
        };
        let same = kept == hashes.fact_content(org, content);
        Ok(Some(KnownFact { at: Timestamp::from_millis(at), event: EventId::from_bytes(event), same }))
    }

    /// A plugin's secret.
    pub fn secret(&self, org: OrgId, plugin: PluginId, name: &str) -> Result<Option<Secret>, ReadError> {
        let hash = self.shared.ring.hashes.secret_name(org, plugin, name);
        let row = key(&[&org.to_bytes(), &plugin.to_bytes(), &hash]);
        let found: Option<NamedSecret> = self.get(tables::SECRETS, Owner::org(org), &row, 0)?;
        Ok(found.map(|secret| secret.value))
    }

    /// The names of a plugin's secrets in order, and when each was put there.
    pub fn secret_names(&self, org: OrgId, plugin: PluginId) -> Result<Vec<(String, Timestamp)>, ReadError> {
        let found: Vec<NamedSecret> = self.all(tables::SECRETS, org, &plugin.to_bytes(), 0)?;
        let mut names: Vec<_> = found.into_iter().map(|secret| (secret.name, secret.at)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The publishers of an organisation, oldest first.
    pub fn publishers(&self, org: OrgId) -> Result<Vec<Publisher>, ReadError> {
        self.all(tables::PUBLISHERS, org, &[], 0)
    }

    /// One publisher.
    pub fn publisher(&self, org: OrgId, id: PublisherId) -> Result<Option<Publisher>, ReadError> {
        self.get(tables::PUBLISHERS, Owner::org(org), &key(&[&org.to_bytes(), &id.to_bytes()]), 0)
    }

    /// Goes through the organisations that have errands: one look for each, however many errands it has.
    fn each_backlog(
        &self,
        mut each: impl FnMut(OrgId, redb::Range<'_, &'static [u8], &'static [u8]>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let (rows, all) = (self.table(tables::ERRANDS_DUE)?, Prefix::new(&[]));
        let mut span = all.span();
        let mut own;
        loop {
            let Some(first) = rows.range::<&[u8]>(span)?.next().transpose()? else { return Ok(()) };
            let Some(org) = tables::org_of(first.0.value()) else {
                return Err(ReadError::unopenable(tables::ERRANDS_DUE, first.0.value()));
            };
            own = Prefix::new(&[&org.to_bytes()]);
            each(org, rows.range::<&[u8]>(own.span())?)?;
            span = own.beyond();
        }
    }
}
