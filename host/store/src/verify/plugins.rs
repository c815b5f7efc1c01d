//! Verifying what plugins have and leave: timers, keys, errands, secrets, suspensions, tallies, and what callers were asked.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_core::{Confirmation, Errand, OrgId, PluginId, Publisher, Suspension, Timestamp};

use super::{Check, Pairs};
use crate::commit::{PluginTimer, QuotaKind};
use crate::error::ReadError;
use crate::kv::{Head, KvUsage, Place};
use crate::prepare::plugins::NamedSecret;
use crate::snapshot::{owner_in_head, owner_org};
use crate::tables::{self, key, org_of, part, session_part};
use crate::{bindings, confirmations, errands, timers};

impl Check<'_> {
    pub(super) fn errands(&mut self) -> Result<(), ReadError> {
        let (mut due, mut of_plugins, mut of_sessions) = (Pairs::new(), Pairs::new(), Pairs::new());
        let mut requests = BTreeMap::<Vec<u8>, u32>::new();
        self.json(tables::ERRANDS, errands::HEAD, owner_in_head, |check, row, value, errand: Errand| {
            let (at, session) = (errand.due.as_millis().to_be_bytes(), session_part(errand.session));
            check.agree(tables::ERRANDS, row, &[&errands::row(errand.org, errand.id)]);
            let (binding, plugin) = (errand.binding.to_bytes(), errand.plugin.to_bytes());
            let parts: [&[u8]; 5] = [&at, &session, &binding, &plugin, &[errands::kind(&errand) as u8]];
            check.head(tables::ERRANDS, row, value, &parts);
            check.count(errand.org, QuotaKind::Errands);
            if let Some(places) = errands::Places::of(row, value) {
                due.insert((places.due, Vec::new()));
                of_plugins.insert((places.of_plugin, Vec::new()));
                of_sessions.extend(places.of_session.map(|place| (place, Vec::new())));
                places.asker.into_iter().for_each(|asker| *requests.entry(asker).or_default() += 1);
            }
        })?;
        self.index(tables::ERRANDS_DUE, &due)?;
        self.index(tables::ERRANDS_OF_PLUGIN, &of_plugins)?;
        self.index(tables::ERRANDS_OF_SESSION, &of_sessions)?;
        self.index(tables::REQUEST_COUNTS, &counted(requests))
    }

    pub(super) fn confirmations(&mut self) -> Result<(), ReadError> {
        let mut ages = Pairs::new();
        let hashes = self.shared().ring.hashes.clone();
        let (table, head) = (tables::CONFIRMATIONS, confirmations::HEAD);
        self.json(table, head, owner_in_head, |check, row, value, asked: Confirmation| {
            check.agree(table, row, &[&confirmations::row(&hashes, asked.org, &asked.hash)]);
            let parts: [&[u8]; 2] = [&asked.expires.as_millis().to_be_bytes(), &session_part(asked.session)];
            check.head(table, row, value, &parts);
            check.count(asked.org, QuotaKind::Confirmations);
            ages.extend(confirmations::age_row(row, value).map(|row| (row, Vec::new())));
        })?;
        self.index(tables::CONFIRMATIONS_AGE, &ages)
    }

    pub(super) fn suspensions_and_tallies(&mut self) -> Result<(), ReadError> {
        self.json(tables::SUSPENSIONS, bindings::HEAD, owner_org, |check, row, value, suspension: Suspension| {
            let (org, binding) = (suspension.org.to_bytes(), suspension.binding.to_bytes());
            check.agree(tables::SUSPENSIONS, row, &[&org, &binding, &[u8::from(suspension.candidate)]]);
            check.head(tables::SUSPENSIONS, row, value, &[&suspension.generation.to_be_bytes()]);
        })?;
        let mut bound = BTreeSet::new();
        self.glance(tables::BINDINGS, |_, row, _| {
            bound.insert(row.to_vec());
        })?;
        let platform = OrgId::PLATFORM.to_bytes();
        self.each(tables::TALLIES, |check, row, value| {
            let (Some(binding), Some(org), 16) = (row.get(..16), row.get(20..), value.len()) else {
                return check.find(tables::TALLIES, row, "is too short");
            };
            let (asked, diverged) = bindings::tally_of(value);
            if diverged > asked {
                check.find(tables::TALLIES, row, "counts more differences than questions");
            }
            if !bound.contains(&key(&[org, binding])) && !bound.contains(&key(&[&platform, binding])) {
                check.find(tables::TALLIES, row, "counts for a binding that is gone");
            }
        })
    }

    pub(super) fn secrets_and_publishers(&mut self) -> Result<(), ReadError> {
        let hashes = self.shared().ring.hashes.clone();
        self.json(tables::SECRETS, 0, owner_org, |check, row, _, secret: NamedSecret| {
            let (Some(org), Some(plugin)) = (org_of(row), part(row, 16).map(PluginId::from_bytes)) else {
                return check.find(tables::SECRETS, row, "is too short");
            };
            let hash = hashes.secret_name(org, plugin, &secret.name);
            check.agree(tables::SECRETS, row, &[&org.to_bytes(), &plugin.to_bytes(), &hash]);
        })?;
        self.json(tables::PUBLISHERS, 0, owner_org, |check, row, _, publisher: Publisher| {
            check.agree(tables::PUBLISHERS, row, &[&publisher.org.to_bytes(), &publisher.id.to_bytes()]);
            check.count(publisher.org, QuotaKind::Publishers);
        })
    }

    pub(super) fn timers(&mut self) -> Result<(), ReadError> {
        let (mut due, mut counts) = (Pairs::new(), BTreeMap::<Vec<u8>, u32>::new());
        self.json(tables::TIMERS, timers::HEAD, owner_in_head, |check, row, value, timer: PluginTimer| {
            let at = timer.at.as_millis().to_be_bytes();
            check.head(tables::TIMERS, row, value, &[&at, &session_part(timer.session)]);
            *counts.entry(key(&[&timer.org.to_bytes(), &timer.plugin.to_bytes()])).or_default() += 1;
            due.insert((timers::due_row(row, &at), Vec::new()));
        })?;
        self.index(tables::TIMERS_DUE, &due)?;
        self.index(tables::TIMER_COUNTS, &counted(counts))
    }

    pub(super) fn kv(&mut self) -> Result<(), ReadError> {
        let mut usages: BTreeMap<Vec<u8>, KvUsage> = BTreeMap::new();
        let hashes = self.shared().ring.hashes.clone();
        for table in [tables::KV, tables::SESSION_KV] {
            self.each(table, |check, row, value| {
                let plugin = part(row, 16).map(PluginId::from_bytes);
                let (Some(org), Some(plugin), Some(head)) = (org_of(row), plugin, Head::parse(value)) else {
                    return check.find(table, row, "is too short");
                };
                let usage = usages.entry(row[..32].to_vec()).or_default();
                usage.add(head.size);
                usage.version = usage.version.max(head.version);
                // At time zero nothing has expired.
                match check.snapshot.kv_row(table, row, value, Timestamp::default()) {
                    Ok(Some((name, entry))) => {
                        if name.len() + entry.value.len() != head.size as usize {
                            check.find(table, row, "has another size than its head says");
                        }
                        check.agree(table, row, &[&Place::of(&hashes, org, plugin, &name).row]);
                    }
                    Ok(None) => check.find(table, row, "has no key to open it"),
                    Err(error) => check.unreadable(table, row, &error),
                }
            })?;
        }
        self.each(tables::KV_USAGE, |check, row, value| {
            let (found, usage) = (usages.remove(row).unwrap_or_default(), KvUsage::parse(value));
            if (found.keys, found.bytes) != (usage.keys, usage.bytes) || found.version > usage.version {
                check.find(tables::KV_USAGE, row, "does not add up");
            }
        })?;
        for row in usages.keys() {
            self.find(tables::KV_USAGE, row, "is missing");
        }
        Ok(())
    }
}

/// The rows of a table that counts.
fn counted(counts: BTreeMap<Vec<u8>, u32>) -> Pairs {
    counts.into_iter().map(|(owner, count)| (owner, count.to_be_bytes().to_vec())).collect()
}
