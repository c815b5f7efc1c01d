//! Reading what hangs on plugins and bindings: errands, confirmations, suspensions, tallies, secrets and publishers.

use std::collections::BTreeMap;

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
use crate::tables::{self, Definition, Prefix, key, number, part};

/// The indexes in which what is due is found, organisation by organisation.
const QUEUES: [Definition; 2] = [tables::ERRANDS_DUE, tables::TIMERS_DUE];

impl Snapshot {
    /// At most `limit` errands of an organisation that are due, the longest overdue first.
    pub fn errands_due(&self, org: OrgId, now: Timestamp, limit: usize) -> Result<Vec<Errand>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes()]);
        let mut found = Vec::new();
        for row in self.table(tables::ERRANDS_DUE)?.range::<&[u8]>(own.span())? {
            let (row, _) = row?;
            let (Some(at), Some(id)) = (number(row.value(), 16), part::<16>(row.value(), 24)) else {
                return Err(ReadError::unopenable(tables::ERRANDS_DUE, row.value()));
            };
            if found.len() == limit || at > now.as_millis() {
                break;
            }
            found.extend(self.errand(org, ErrandId::from_bytes(id))?);
        }
        Ok(found)
    }

    /// When an organisation's next errand or timer is due.
    pub fn next_due(&self, org: OrgId) -> Result<Option<Timestamp>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes()]);
        let mut next = None;
        for queue in QUEUES {
            let first = self.table(queue)?.range::<&[u8]>(own.span())?.next().transpose()?;
            next = next.into_iter().chain(first.and_then(|(row, _)| number(row.value(), 16))).min();
        }
        Ok(next.map(Timestamp::from_millis))
    }

    /// Every organisation that has errands or timers, and when the first of them is due.
    /// It takes two looks for each, however many they have; so no backlog stands in the way of another organisation.
    pub fn backlogs(&self) -> Result<BTreeMap<OrgId, Timestamp>, ReadError> {
        let mut found = BTreeMap::new();
        for queue in QUEUES {
            let (rows, all) = (self.table(queue)?, Prefix::new(&[]));
            let mut span = all.span();
            let mut own;
            while let Some((first, _)) = rows.range::<&[u8]>(span)?.next().transpose()? {
                let (Some(org), Some(at)) = (tables::org_of(first.value()), number(first.value(), 16)) else {
                    return Err(ReadError::unopenable(queue, first.value()));
                };
                let at = Timestamp::from_millis(at);
                let known = found.entry(org).or_insert(at);
                *known = at.min(*known);
                own = Prefix::new(&[&org.to_bytes()]);
                span = own.beyond();
            }
        }
        Ok(found)
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
}
