//! Who is asking: keys to principals, principals to permits.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use portcullis_core::{
    ApiKey, AuditEntry, AuditId, AuditOutcome, Capabilities, Capability, Denial, KeyId, OperationKind, OrgId, Permit,
    Principal, PrincipalKind, RequestId, Target, Timestamp, authorize,
};
use portcullis_store::{Commit, Write};
use sha2::{Digest, Sha256};

use crate::{Service, ServiceError, StoreFailure, mint};

/// A key at the one moment at which its text is known.
#[derive(Debug)]
pub struct NewKey {
    /// What is kept of it.
    pub key: ApiKey,
    /// Its text, shown once.
    pub text: String,
}

/// What a person is within the organisation that they came for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserRoles {
    /// They run the gateway.
    Operator,
    /// An owner or administrator of the organisation.
    Owner,
    /// A member.
    Member,
    /// Nothing.
    None,
}

/// Every key's record, by the hash of its text.
#[derive(Default)]
pub(crate) struct Keyring {
    keys: RwLock<HashMap<[u8; 32], Arc<ApiKey>>>,
}

impl Keyring {
    pub(crate) fn put(&self, key: ApiKey) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).insert(key.hash, Arc::new(key));
    }

    pub(crate) fn forget_org(&self, org: OrgId) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).retain(|_, key| key.org != org);
    }

    fn get(&self, hash: &[u8; 32]) -> Option<Arc<ApiKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }

    fn has_operator(&self, now: Timestamp) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.values().any(|key| key.org == OrgId::PLATFORM && key.is_live(now))
    }
}

/// What every key's text begins with, and no token of a session.
pub const KEY_PREFIX: &str = "wa_";

/// A new key's text: `wa_` and 256 random bits in hexadecimal.
fn new_text() -> String {
    format!("{KEY_PREFIX}{:032x}{:032x}", mint::random(), mint::random())
}

impl NewKey {
    /// Makes a key; nothing is kept of it yet.
    pub(crate) fn make(
        org: OrgId,
        name: String,
        capabilities: Capabilities,
        session_scope: Option<portcullis_core::SessionId>,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let text = new_text();
        let key = ApiKey {
            id: mint::id(KeyId::new, now),
            org,
            name,
            capabilities,
            session_scope,
            hash: Sha256::digest(text.as_bytes()).into(),
            expires_at,
            revoked_at: None,
            created_at: now,
        };
        Self { key, text }
    }
}

impl Service {
    /// Who comes with this key.
    ///
    /// The key is looked up by its hash, so the time that this takes tells nothing about any key's text.
    ///
    /// # Errors
    /// [`Denial::Unauthenticated`] for a key that is unknown, expired or revoked, or whose organisation is gone.
    pub fn authenticate(&self, text: &str) -> Result<Principal, Denial> {
        let hash = Sha256::digest(text.as_bytes()).into();
        let key = self.keyring.get(&hash).ok_or(Denial::Unauthenticated)?;
        if !key.is_live(self.now()) {
            return Err(Denial::Unauthenticated);
        }
        if key.org == OrgId::PLATFORM {
            return Ok(Principal::operator());
        }
        if self.org(key.org).is_none() {
            return Err(Denial::Unauthenticated);
        }
        Ok(key.principal())
    }

    /// A caller of some time ago, as they are now: a key may have been revoked since, and an organisation erased.
    ///
    /// # Errors
    /// [`Denial::Unauthenticated`] if they would not be let in any more, or nobody can say.
    pub fn as_of_now(&self, principal: &Principal) -> Result<Principal, Denial> {
        if principal.org != OrgId::PLATFORM && self.org(principal.org).is_none() {
            return Err(Denial::Unauthenticated);
        }
        let PrincipalKind::ApiKey { id } = &principal.kind else { return Ok(principal.clone()) };
        let found = self.store.snapshot().and_then(|snapshot| snapshot.key(principal.org, *id));
        let key = found.ok().flatten().filter(|key| key.is_live(self.now())).ok_or(Denial::Unauthenticated)?;
        Ok(key.principal())
    }

    /// Who comes with this token of a session.
    ///
    /// # Errors
    /// [`Denial::Unauthenticated`] for a token that no session has.
    pub fn authenticate_session_token(&self, text: &str) -> Result<Principal, Denial> {
        let found = self.views.of_secret(text);
        let session = found.filter(|session| session.token.as_ref().is_some_and(|token| token.reveal() == text));
        let session = session.filter(|session| self.org(session.org).is_some()).ok_or(Denial::Unauthenticated)?;
        Ok(Principal::session_token(session.org, session.id))
    }

    /// Who comes with a token that the identity provider has signed, by its claims.
    ///
    /// # Errors
    /// [`Denial::Unauthenticated`] if the token names no organisation that there is, and its bearer is no operator.
    pub fn user(&self, subject: String, org: Option<&str>, roles: UserRoles) -> Result<Principal, Denial> {
        let kind = PrincipalKind::User { subject };
        let org = org.and_then(|text| text.parse().ok()).filter(|org| self.org(*org).is_some());
        match (org, roles) {
            (org, UserRoles::Operator) => {
                let org = org.unwrap_or(OrgId::PLATFORM);
                Ok(Principal { org, kind, session_scope: None, capabilities: Capabilities::all() })
            }
            (Some(org), UserRoles::Owner) => {
                let capabilities = Capability::ALL.into_iter().filter(|one| *one != Capability::Operate).collect();
                Ok(Principal { org, kind, session_scope: None, capabilities })
            }
            (Some(org), UserRoles::Member) => {
                let capabilities = [Capability::Read, Capability::Send, Capability::Events].into_iter().collect();
                Ok(Principal { org, kind, session_scope: None, capabilities })
            }
            (None, UserRoles::Owner | UserRoles::Member) | (_, UserRoles::None) => Err(Denial::Unauthenticated),
        }
    }

    /// Permits `principal` an operation, or says why not. A denial is audited in the caller's own organisation.
    ///
    /// # Errors
    /// [`ServiceError::Denied`]; [`ServiceError::Suspended`] for a change in a suspended organisation;
    /// [`ServiceError::NotFound`] if the operator names an organisation that does not exist.
    pub async fn permit(
        &self,
        principal: &Principal,
        kind: OperationKind,
        target: Target,
        request: Option<RequestId>,
    ) -> Result<Permit, ServiceError> {
        let denial = match authorize(principal, kind, target) {
            Ok(permit) => {
                let suspended = self.org(target.org).map(|org| org.suspended);
                return match suspended {
                    None if target.org != OrgId::PLATFORM => Err(ServiceError::NotFound("organisation")),
                    Some(true) if kind.row().mutates && !principal.is_operator() => Err(ServiceError::Suspended),
                    _ => Ok(permit),
                };
            }
            Err(denial) => denial,
        };
        Box::pin(self.audit_denial(principal, kind, target, request, denial)).await;
        Err(denial.into())
    }

    pub(crate) async fn audit_denial(
        &self,
        principal: &Principal,
        kind: OperationKind,
        target: Target,
        request: Option<RequestId>,
        denial: Denial,
    ) {
        let outcome = AuditOutcome::Denied { code: denial.code().to_owned() };
        self.audit_no(principal, kind, target, request, outcome).await;
    }

    /// Leaves a line about a request that came to nothing before any commit could say so: the last resort of whoever has asked,
    /// so that no refusal goes unwritten. A denial stands in the caller's own organisation, a refusal in the one that was acted in.
    pub async fn audit_no(
        &self,
        principal: &Principal,
        kind: OperationKind,
        target: Target,
        request: Option<RequestId>,
        outcome: AuditOutcome,
    ) {
        let now = self.now();
        // The operator acts in other organisations, whose lines are theirs; one that is not there has no audit.
        let refused = matches!(outcome, AuditOutcome::Refused { .. });
        let acted_in = refused && principal.is_operator() && self.org(target.org).is_some();
        let org = if acted_in { target.org } else { principal.org };
        let mut commit = Commit::new(org, now);
        commit.audit.push(AuditEntry {
            id: mint::id(AuditId::new, now),
            org,
            at: now,
            actor: principal.kind.clone(),
            request,
            operation: kind,
            // Another organisation's id says nothing in this one's audit.
            session: target.session.filter(|_| target.org == org),
            subject: None,
            outcome,
            decision: None,
        });
        // What could not be written down is still a no.
        if let Err(error) = self.store.commit(commit).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a denial or a refusal was not audited");
        }
    }

    /// A new key for the operator, whatever others there are; [`Service::keep_operator_key`] makes it the only one.
    #[must_use]
    pub fn another_operator_key(&self) -> NewKey {
        NewKey::make(OrgId::PLATFORM, "operator".to_owned(), Capabilities::all(), None, None, self.now())
    }

    /// A new key for the operator if there is none that still opens anything.
    /// It opens nothing before [`Service::keep_operator_key`], so that it can be written down first: a crash in between costs only a key that nobody uses.
    #[must_use]
    pub fn new_operator_key(&self) -> Option<NewKey> {
        let now = self.now();
        let missing = !self.keyring.has_operator(now);
        missing.then(|| self.another_operator_key())
    }

    /// Lets the operator's key open the gateway, and no other key of the operator's from then on.
    ///
    /// # Errors
    /// If it cannot be stored.
    pub async fn keep_operator_key(&self, new: &NewKey) -> Result<(), ServiceError> {
        let now = self.now();
        let mut commit = Commit::new(OrgId::PLATFORM, now);
        let mut keys: Vec<_> = self.store.snapshot()?.keys(OrgId::PLATFORM)?;
        keys.retain(|key| key.is_live(now) && key.id != new.key.id);
        for key in &mut keys {
            key.revoked_at = Some(now);
        }
        keys.push(new.key.clone());
        commit.writes.extend(keys.iter().cloned().map(Write::PutKey));
        commit.audit.push(AuditEntry {
            id: mint::id(AuditId::new, now),
            org: OrgId::PLATFORM,
            at: now,
            actor: PrincipalKind::System,
            request: None,
            operation: OperationKind::KeyCreate,
            session: None,
            subject: Some(new.key.id.to_string()),
            outcome: AuditOutcome::Done,
            decision: None,
        });
        self.store.commit(commit).await.map_err(|error| ServiceError::Store(StoreFailure::Commit(error)))?;
        keys.into_iter().for_each(|key| self.keyring.put(key));
        self.news.doors_changed();
        Ok(())
    }
}
