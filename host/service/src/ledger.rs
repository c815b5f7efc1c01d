//! The audit as it is read: page by page, whole and in order for whoever keeps a copy, and the receipts in it.

use std::fmt;
use std::sync::Arc;

use portcullis_core::{AuditEnd, AuditOutcome, OperationKind, OrgId, Permit, Receipt, SessionId};
use portcullis_store::{AuditLine, ChainEnd};
use sha2::{Digest, Sha256};

use crate::queries::expect;
use crate::{Page, Service, ServiceError};

/// How many lines are read at once of a long audit.
const AT_ONCE: usize = 256;

/// A receipt with what it takes to verify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReceipt {
    /// The receipt.
    pub receipt: Receipt,
    /// An ed25519 signature of its text, in base64.
    pub signature: String,
    /// The gateway's public key, in base64.
    pub public_key: String,
}

/// The end of an export with what it takes to verify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedEnd {
    /// The end.
    pub end: AuditEnd,
    /// An ed25519 signature of its text, in base64.
    pub signature: String,
    /// The gateway's public key, in base64.
    pub public_key: String,
}

/// The lines of an audit in their order, read a few at a time for as long as somebody takes them.
///
/// Lines are only ever appended, so the end is where the audit ended when this was asked for.
pub struct AuditExport {
    service: Arc<Service>,
    org: OrgId,
    /// Only what is about this session.
    session: Option<SessionId>,
    /// The number of the last line that was read.
    after: u64,
    end: ChainEnd,
    /// Over all that was told.
    digest: Sha256,
}

impl Service {
    /// The audit, newest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn audit(&self, permit: &Permit, before: Option<u64>, limit: usize) -> Result<Page<AuditLine>, ServiceError> {
        expect(permit, OperationKind::AuditRead)?;
        let found = self.store.snapshot()?.audit(permit.target().org, before, limit + 1)?;
        Ok(Page::cut(found, limit))
    }

    /// The audit in order, from the line after the number `after` on, and no more than `limit` lines of it;
    /// or what of it is about the permit's session.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn export_audit(
        self: &Arc<Self>,
        permit: &Permit,
        after: u64,
        limit: Option<u64>,
    ) -> Result<AuditExport, ServiceError> {
        expect(permit, OperationKind::AuditRead)?;
        let target = permit.target();
        let snapshot = self.store.snapshot()?;
        let mut end = snapshot.audit_end(target.org)?;
        if let Some(last) = limit.map(|limit| after.saturating_add(limit)).filter(|last| *last < end.number) {
            let line = snapshot.audit_after(target.org, last.saturating_sub(1), 1)?.into_iter().next();
            end = line.map_or(end, |line| ChainEnd { number: line.number, link: line.link });
        }
        Ok(AuditExport {
            service: Arc::clone(self),
            org: target.org,
            session: target.session,
            after,
            end,
            digest: Sha256::new(),
        })
    }

    /// The receipt of a session that was erased in the organisation.
    ///
    /// # Errors
    /// If there is none, or the store cannot be read.
    pub fn receipt(&self, permit: &Permit, session: SessionId) -> Result<SignedReceipt, ServiceError> {
        expect(permit, OperationKind::AuditRead)?;
        self.signed(self.store.snapshot()?.receipt(permit.target().org, session)?)
    }

    /// The receipt of an organisation that was erased, in the platform's audit.
    ///
    /// # Errors
    /// If there is none, or the store cannot be read.
    pub fn receipt_of_org(&self, permit: &Permit, org: OrgId) -> Result<SignedReceipt, ServiceError> {
        expect(permit, OperationKind::AuditRead)?;
        if permit.target().org != OrgId::PLATFORM {
            return Err(ServiceError::NotFound("receipt"));
        }
        self.signed(self.store.snapshot()?.receipt_of_org(org)?)
    }

    fn signed(&self, line: Option<AuditLine>) -> Result<SignedReceipt, ServiceError> {
        match line.map(|line| line.entry.outcome) {
            Some(AuditOutcome::Erased { receipt, signature }) => {
                Ok(SignedReceipt { receipt: *receipt, signature, public_key: self.store.signer().public_key() })
            }
            _ => Err(ServiceError::NotFound("receipt")),
        }
    }
}

impl fmt::Debug for AuditExport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AuditExport").field("org", &self.org).field("after", &self.after).finish_non_exhaustive()
    }
}

impl AuditExport {
    /// The next lines; none at the end.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn more(&mut self) -> Result<Option<Vec<AuditLine>>, ServiceError> {
        if self.after >= self.end.number {
            return Ok(None);
        }
        let mut lines = self.service.store.snapshot()?.audit_after(self.org, self.after, AT_ONCE)?;
        lines.retain(|line| line.number <= self.end.number);
        self.after = lines.last().map_or(self.end.number, |line| line.number);
        if let Some(session) = self.session {
            lines.retain(|line| line.entry.session == Some(session));
        }
        Ok(Some(lines))
    }

    /// Lines were told in these words, which the signature at the end covers.
    pub fn told(&mut self, lines: &[u8]) {
        self.digest.update(lines);
    }

    /// Where it ends, signed.
    #[must_use]
    pub fn end(&self) -> SignedEnd {
        let digest = self.digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let end = AuditEnd { org: self.org, number: self.end.number, hash: self.end.hash(), digest };
        let signer = self.service.store.signer();
        SignedEnd { signature: signer.sign(end.signed_text().as_bytes()), public_key: signer.public_key(), end }
    }
}
