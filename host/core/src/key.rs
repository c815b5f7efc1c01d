//! API keys: shown once, stored as a hash.

use serde::{Deserialize, Serialize};

use crate::{Capabilities, KeyId, OrgId, Principal, PrincipalKind, SessionId, Timestamp};

/// What is kept of an API key. The key itself is not kept: its owner saw it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// The key's id, by which it is listed and revoked.
    pub id: KeyId,
    /// Whose key it is.
    pub org: OrgId,
    /// What its owner calls it.
    pub name: String,
    /// What it may do; never `operate`.
    pub capabilities: Capabilities,
    /// If set, the only session it may touch or see.
    pub session_scope: Option<SessionId>,
    /// SHA-256 of the key's text.
    pub hash: [u8; 32],
    /// From when on it no longer opens anything.
    pub expires_at: Option<Timestamp>,
    /// Since when it is revoked; a revoked key stays listed until its organisation is erased.
    pub revoked_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl ApiKey {
    /// Whether the key opens anything at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// Who comes with this key.
    #[must_use]
    pub fn principal(&self) -> Principal {
        Principal {
            org: self.org,
            kind: PrincipalKind::ApiKey { id: self.id },
            session_scope: self.session_scope,
            capabilities: self.capabilities,
        }
    }
}
