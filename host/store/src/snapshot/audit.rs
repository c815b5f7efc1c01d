//! Reading the audit: its lines, newest first or in order, and the receipts among them.

use portcullis_core::{AuditEntry, AuditId, OrgId, SessionId};

use super::Snapshot;
use crate::audit::{ChainEnd, HEAD};
use crate::error::ReadError;
use crate::keyfile::Owner;
use crate::seal::hex;
use crate::tables::{self, Prefix, key, number, part};

/// One line of an organisation's audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    /// Its place in the chain, from 1.
    pub number: u64,
    /// What binds it to all lines before it; see [`ChainEnd::next`].
    pub link: [u8; 32],
    /// The entry's id.
    pub id: AuditId,
    /// The entry as it is sealed.
    pub envelope: Vec<u8>,
    /// What it says.
    pub entry: AuditEntry,
}

impl AuditLine {
    /// The link in hexadecimal, as it is told.
    #[must_use]
    pub fn hash(&self) -> String {
        hex(&self.link)
    }
}

impl Snapshot {
    /// At most `limit` lines of the audit, newest first, from the one before the number `before` on.
    pub fn audit(&self, org: OrgId, before: Option<u64>, limit: usize) -> Result<Vec<AuditLine>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes()]);
        let before = before.map(|number| key(&[&org.to_bytes(), &number.to_be_bytes()]));
        let mut found = Vec::new();
        for row in self.table(tables::AUDIT)?.range::<&[u8]>(own.before(before.as_deref()))?.rev().take(limit) {
            let (row, value) = row?;
            found.extend(self.line(org, row.value(), value.value())?);
        }
        Ok(found)
    }

    /// At most `limit` lines of the audit in their order, from the one after the number `after` on.
    pub fn audit_after(&self, org: OrgId, after: u64, limit: usize) -> Result<Vec<AuditLine>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes()]);
        let after = key(&[&org.to_bytes(), &after.to_be_bytes()]);
        let mut found = Vec::new();
        for row in self.table(tables::AUDIT)?.range::<&[u8]>(own.after(Some(&after)))?.take(limit) {
            let (row, value) = row?;
            found.extend(self.line(org, row.value(), value.value())?);
        }
        Ok(found)
    }

    /// Where an organisation's audit ends.
    pub fn audit_end(&self, org: OrgId) -> Result<ChainEnd, ReadError> {
        let end = self.table(tables::AUDIT_ENDS)?.get(&org.to_bytes()[..])?;
        Ok(end.and_then(|end| ChainEnd::parse(end.value())).unwrap_or_default())
    }

    /// The line with the receipt of a session, in its organisation's audit.
    pub fn receipt(&self, org: OrgId, session: SessionId) -> Result<Option<AuditLine>, ReadError> {
        self.receipt_of(org, session.to_bytes())
    }

    /// The line with the receipt of an organisation, in the platform's audit.
    pub fn receipt_of_org(&self, org: OrgId) -> Result<Option<AuditLine>, ReadError> {
        self.receipt_of(OrgId::PLATFORM, org.to_bytes())
    }

    fn receipt_of(&self, org: OrgId, subject: [u8; 16]) -> Result<Option<AuditLine>, ReadError> {
        let org_part = org.to_bytes();
        let Some(place) = self.table(tables::RECEIPTS)?.get(&key(&[&org_part, &subject])[..])? else { return Ok(None) };
        let row = key(&[&org_part, place.value()]);
        match self.table(tables::AUDIT)?.get(&row[..])? {
            Some(value) => self.line(org, &row, value.value()),
            None => Err(ReadError::unopenable(tables::AUDIT, &row)),
        }
    }

    fn line(&self, org: OrgId, row: &[u8], value: &[u8]) -> Result<Option<AuditLine>, ReadError> {
        let (Some(number), Some(link), Some(id)) = (number(row, 16), part(value, 0), part(value, 32)) else {
            return Err(ReadError::unopenable(tables::AUDIT, row));
        };
        let bound = key(&[&org.to_bytes(), &id]);
        let entry = self.decode(tables::AUDIT, Owner::org(org), row, &bound, value, HEAD)?;
        let (id, envelope) = (AuditId::from_bytes(id), value[HEAD..].to_vec());
        Ok(entry.map(|entry| AuditLine { number, link, id, envelope, entry }))
    }
}
