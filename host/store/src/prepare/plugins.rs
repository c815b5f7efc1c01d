//! Preparing what plugins have and leave: timers, errands, keys, secrets, and what callers were asked for them.

use portcullis_core::{Confirmation, KvAccess, KvChange, PluginId, Publisher, Secret, Suspension, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Sealer, seal};
use crate::commit::{ErrandChange, QuotaKind, TimerChange};
use crate::error::CommitError;
use crate::kv::Place;
use crate::step::{KvEffect, KvStep, NEVER, Step};
use crate::tables::{self, key, session_part};
use crate::{confirmations, errands};

/// What a row of the table of secrets holds.
#[derive(Serialize, Deserialize)]
pub(crate) struct NamedSecret {
    pub(crate) name: String,
    pub(crate) value: Secret,
    pub(crate) at: Timestamp,
}

impl Sealer<'_> {
    pub(super) fn timer(&mut self, change: TimerChange) -> Result<(), CommitError> {
        if self.erases_org {
            return Ok(());
        }
        let (ring, org) = (self.ring, self.prepared.org);
        let row = |plugin: PluginId, name: &str| {
            key(&[&org.to_bytes(), &plugin.to_bytes(), &ring.hashes.plugin_key(org, plugin, name)])
        };
        let step = match change {
            TimerChange::Set(timer) => {
                self.own(timer.org)?;
                let key = row(timer.plugin, &timer.key);
                // A timer about a session that this commit erases goes with the others of that session.
                if timer.session.is_some_and(|session| self.erased.contains(&session)) {
                    return Ok(());
                }
                let data_key = self.key_about(timer.session)?;
                let head = [&timer.at.as_millis().to_be_bytes()[..], &session_part(timer.session)].concat();
                let value = seal(&data_key, tables::TIMERS, &key, &head, &timer)?;
                Step::SetTimer { key, due: timer.at, value }
            }
            TimerChange::Cancel { plugin, key } => Step::CancelTimer { key: row(plugin, &key), due: None },
            TimerChange::Fired { plugin, key, at } => Step::CancelTimer { key: row(plugin, &key), due: Some(at) },
        };
        self.prepared.steps.push(step);
        Ok(())
    }

    pub(super) fn kv(&mut self, access: KvAccess) -> Result<(), CommitError> {
        if self.erases_org {
            return Ok(());
        }
        let (org, plugin) = (self.prepared.org, access.plugin);
        let place = Place::of(&self.ring.hashes, org, plugin, &access.key);
        let goes = place.session.is_some_and(|session| self.erased.contains(&session));
        let change = match access.change {
            KvChange::Keep => KvEffect::Keep,
            KvChange::Remove => KvEffect::Remove,
            // What is kept for a session that this commit erases goes with the session.
            KvChange::Put { .. } if goes => KvEffect::Remove,
            KvChange::Put { value, expires } => {
                let name = access.key.as_bytes();
                let length = u16::try_from(name.len()).map_err(|_too_long| CommitError::KvQuota { plugin })?;
                let size =
                    u32::try_from(name.len() + value.len()).map_err(|_too_long| CommitError::KvQuota { plugin })?;
                let plain = [&length.to_be_bytes()[..], name, &value].concat();
                let data_key = self.key_about(place.session)?;
                let envelope = data_key.seal(tables::name(place.table()), &place.row, &[], &plain)?;
                KvEffect::Put { expires: expires.map_or(NEVER, Timestamp::as_millis), size, envelope }
            }
        };
        self.prepared.kv.push(KvStep { plugin, key: place.row, seen: access.seen, change });
        Ok(())
    }

    /// An errand about a session that this commit erases goes with the others of that session.
    pub(super) fn errand(&mut self, change: ErrandChange) -> Result<(), CommitError> {
        let org = self.prepared.org;
        let step = match change {
            ErrandChange::Put(row) => {
                self.own(row.org)?;
                if self.erases_org || row.session.is_some_and(|session| self.erased.contains(&session)) {
                    return Ok(());
                }
                let data_key = self.key_about(row.session)?;
                let key = errands::row(org, row.id);
                let head = [
                    &row.due.as_millis().to_be_bytes()[..],
                    &session_part(row.session),
                    &row.binding.to_bytes(),
                    &row.plugin.to_bytes(),
                    &[errands::kind(&row) as u8],
                ]
                .concat();
                let value = seal(&data_key, tables::ERRANDS, &key, &head, &row)?;
                Step::PutErrand { key, value }
            }
            ErrandChange::Remove(id) => Step::RemoveErrand { key: errands::row(org, id) },
        };
        self.prepared.steps.push(step);
        Ok(())
    }

    pub(super) fn confirmation(&mut self, row: &Confirmation) -> Result<Step, CommitError> {
        self.own(row.org)?;
        let data_key = match row.session {
            Some(session) => self.surviving(session)?,
            None => self.org_key()?,
        };
        let key = confirmations::row(&self.ring.hashes, row.org, &row.hash);
        let head = [&row.expires.as_millis().to_be_bytes()[..], &session_part(row.session)].concat();
        let value = seal(&data_key, tables::CONFIRMATIONS, &key, &head, row)?;
        Ok(Step::PutConfirmation { key, value })
    }

    pub(super) fn suspension(&mut self, row: &Suspension) -> Result<Step, CommitError> {
        self.own(row.org)?;
        let key = key(&[&row.org.to_bytes(), &row.binding.to_bytes(), &[u8::from(row.candidate)]]);
        let value = seal(&*self.org_key()?, tables::SUSPENSIONS, &key, &row.generation.to_be_bytes(), row)?;
        Ok(Step::PutSuspension { key, value })
    }

    pub(super) fn publisher(&mut self, row: &Publisher) -> Result<Step, CommitError> {
        self.own(row.org)?;
        let (table, key) = (tables::PUBLISHERS, key(&[&row.org.to_bytes(), &row.id.to_bytes()]));
        let value = seal(&*self.org_key()?, table, &key, &[], row)?;
        Ok(Step::PutCounted { table, of: QuotaKind::Publishers, key, value })
    }

    pub(super) fn secret(&mut self, plugin: PluginId, name: &str, value: Secret) -> Result<Step, CommitError> {
        let key = self.secret_row(plugin, name);
        let row = NamedSecret { name: name.to_owned(), value, at: self.prepared.now };
        let value = seal(&*self.org_key()?, tables::SECRETS, &key, &[], &row)?;
        Ok(Step::PutSecret { plugin, key, value })
    }

    pub(super) fn secret_row(&self, plugin: PluginId, name: &str) -> Vec<u8> {
        let org = self.prepared.org;
        key(&[&org.to_bytes(), &plugin.to_bytes(), &self.ring.hashes.secret_name(org, plugin, name)])
    }
}
