//! Verifying that nothing is left of what is gone: what rows name is there.
//!
//! A session's rows go with it, an organisation's rows go with it, and what hangs on a plugin or a binding goes with that.
//! Audit, skeletons of decisions, places of the outbox and idempotency keys outlive a session, and what is remembered of
//! deliveries does, too, because none of it opens any more.

use std::collections::{BTreeSet, HashSet};

use portcullis_core::{Binding, OrgId};
use redb::TableHandle;

use super::Check;
use super::words::Of;
use crate::error::ReadError;
use crate::keyfile::Owner;
use crate::snapshot::owner_org;
use crate::tables::{self, Definition, key, org_of, part};
use crate::{bindings, erase};

/// Who is there.
#[derive(Default)]
pub(super) struct There {
    orgs: HashSet<OrgId>,
    /// With their organisations.
    sessions: HashSet<[u8; 32]>,
}

impl Check<'_> {
    /// Who is there, which every row is held against when it is read.
    pub(super) fn those_there(&mut self) -> Result<(), ReadError> {
        let mut there = There { orgs: HashSet::from([OrgId::PLATFORM]), sessions: HashSet::new() };
        self.glance(tables::ORGS, |_, row, _| there.orgs.extend(org_of(row)))?;
        self.glance(tables::SESSIONS, |_, row, _| there.sessions.extend(part::<32>(row, 0)))?;
        self.there = there;
        Ok(())
    }

    /// A row is of an organisation and a session that are there.
    pub(super) fn owned(&mut self, table: Definition, of: Of, row: &[u8], value: &[u8]) {
        let Some(org) = org_of(row) else { return self.find(table, row, "has a key that is too short") };
        if !self.there.orgs.contains(&org) {
            return self.find(table, row, "is of an organisation that is not there");
        }
        let Some(session) = of.session(row, value) else { return };
        let own: Option<[u8; 32]> = part(&key(&[&org.to_bytes(), &session.to_bytes()]), 0);
        if own.is_none_or(|own| !self.there.sessions.contains(&own)) {
            self.find(table, row, &format!("is of {session}, which is not there"));
        }
    }

    /// What plugins are bound, suspended or entrusted with is there.
    pub(super) fn bound_versions(&mut self) -> Result<(), ReadError> {
        let (mut versions, mut plugins, mut bound) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        self.glance(tables::PLUGINS, |_, row, _| {
            versions.insert(row.to_vec());
            plugins.extend(row.get(..32).map(<[u8]>::to_vec));
        })?;
        self.glance(tables::BINDINGS, |check, row, value| {
            bound.insert(row.to_vec());
            let Some(owner) = owner_org(row, value) else { return };
            // What does not open was said where the binding itself is verified.
            let binding = check.snapshot.decode::<Binding>(tables::BINDINGS, owner, row, row, value, bindings::HEAD);
            let Ok(Some(binding)) = binding else { return };
            let candidate = binding.candidate.as_ref().map(|candidate| candidate.version);
            for version in std::iter::once(binding.version).chain(candidate) {
                let named = key(&[&binding.org.to_bytes(), &binding.plugin.to_bytes(), &version.to_be_bytes()]);
                if !versions.contains(&named) {
                    let what = format!("binds version {version} of {}, which is not there", binding.plugin);
                    check.find(tables::BINDINGS, row, &what);
                }
            }
        })?;
        self.glance(tables::SECRETS, |check, row, _| {
            let platform = row.get(16..32).map(|plugin| key(&[&OrgId::PLATFORM.to_bytes(), plugin]));
            let is_there = row.get(..32).is_some_and(|own| plugins.contains(own));
            if !is_there && platform.is_none_or(|plugin| !plugins.contains(&plugin)) {
                check.find(tables::SECRETS, row, "is of a plugin that is not there");
            }
        })?;
        self.glance(tables::SUSPENSIONS, |check, row, _| {
            let platform = row.get(16..32).map(|binding| key(&[&OrgId::PLATFORM.to_bytes(), binding]));
            let is_there = row.get(..32).is_some_and(|own| bound.contains(own));
            if !is_there && platform.is_none_or(|binding| !bound.contains(&binding)) {
                check.find(tables::SUSPENSIONS, row, "is of a binding that is not there");
            }
        })
    }

    /// Erasures that are under way say whose key is to go, and the rows of that owner are gone.
    pub(super) fn tombstones(&mut self) -> Result<(), ReadError> {
        self.each(tables::TOMBSTONES, |check, row, value| {
            let (Some(owner), 64..) = (erase::owner_of(row), value.len()) else {
                return check.find(tables::TOMBSTONES, row, "has another length than it should");
            };
            let (slot, generation) = (part(value, 0).map(u32::from_be_bytes), part(value, 4).map(u32::from_be_bytes));
            // A key that is gone already was destroyed before a crash; another one in its place would be somebody else's.
            if let Some(held) = check.shared().ring.any(owner)
                && (Some(held.slot), Some(held.generation)) != (slot, generation)
            {
                check.find(tables::TOMBSTONES, row, "names another slot of the key file than its owner's key has");
            }
            let (table, own) = match owner {
                Owner { org, session: None } => (tables::ORGS, org.to_bytes().to_vec()),
                Owner { .. } => (tables::SESSIONS, row.to_vec()),
            };
            let is_there = check.snapshot.table(table).and_then(|rows| Ok(rows.get(&own[..])?.is_some()));
            if is_there.unwrap_or_default() {
                check.find(tables::TOMBSTONES, row, "is of somebody whose rows are still there");
            }
        })
    }

    /// There is no table that this version does not know: what is in it would be left behind by every erasure.
    pub(super) fn unknown_tables(&mut self) -> Result<(), ReadError> {
        let known: BTreeSet<_> = tables::ALL.iter().map(|table| tables::name(*table)).collect();
        for table in self.snapshot.transaction.list_tables()? {
            if !known.contains(table.name()) {
                self.report
                    .findings
                    .push(format!("there is a table {}, which this version does not know", table.name()));
            }
        }
        Ok(())
    }
}
