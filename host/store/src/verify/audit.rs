//! The audit: lines follow each other without a gap, each is bound to those before it, and receipts are where they are looked for.

use std::collections::BTreeMap;

use portcullis_core::{AuditEntry, AuditOutcome, OrgId, SessionId};

use super::Check;
use crate::audit::{ChainEnd, HEAD};
use crate::error::ReadError;
use crate::keyfile::Owner;
use crate::tables::{self, key, number, org_of, part};

impl Check<'_> {
    pub(super) fn audit(&mut self) -> Result<(), ReadError> {
        let (mut ends, mut receipts) = (BTreeMap::<OrgId, ChainEnd>::new(), BTreeMap::new());
        self.each(tables::AUDIT, |check, row, value| {
            let (Some(org), Some(at), Some(link), Some(id)) =
                (org_of(row), number(row, 16), part::<32>(value, 0), part::<16>(value, 32))
            else {
                return check.find(tables::AUDIT, row, "is too short");
            };
            let before = ends.get(&org).copied().unwrap_or_default();
            let expected = before.next(org, id, &value[HEAD..]);
            if at != before.number + 1 {
                check.find(tables::AUDIT, row, "does not follow the line before it: one is missing");
            } else if expected.link != link {
                check.find(tables::AUDIT, row, "is not bound to the lines before it: it, or one of them, was changed");
            }
            ends.insert(org, ChainEnd { number: at, link });
            let bound = key(&[&org.to_bytes(), &id]);
            let entry = check.decodes::<AuditEntry>(tables::AUDIT, Owner::org(org), row, &bound, value, HEAD);
            let Some(entry) = entry else { return };
            if entry.org != org || entry.id.to_bytes() != id {
                check.find(tables::AUDIT, row, "holds an entry that belongs elsewhere");
            }
            if let AuditOutcome::Erased { receipt, .. } = &entry.outcome {
                let about = receipt.session.map_or_else(|| receipt.org.to_bytes(), SessionId::to_bytes);
                // Whoever has been erased twice is found by the last receipt.
                receipts.insert(key(&[&org.to_bytes(), &about]), at.to_be_bytes().to_vec());
            }
        })?;
        let ends =
            ends.into_iter().map(|(org, end)| (org.to_bytes().to_vec(), key(&[&end.number.to_be_bytes(), &end.link])));
        self.index(tables::AUDIT_ENDS, &ends.collect())?;
        self.index(tables::RECEIPTS, &receipts.into_iter().collect())
    }
}
