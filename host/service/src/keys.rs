//! API keys: made and revoked by the operator, or by an organisation for itself.

use std::sync::Arc;

use portcullis_core::{
    ApiKey, Capabilities, Capability, Denial, KeyId, OperationKind, OrgId, Permit, PrincipalKind, SessionId, Timestamp,
};
use portcullis_store::{Commit, Quota, QuotaKind, Write};

use crate::orgs::{admin_audit, check_name};
use crate::{Call, NewKey, Service, ServiceError};

/// How many times its quota of keys an organisation may have made, the dead ones included.
const DEAD_KEYS: u32 = 100;

/// What a new key is to be.
#[derive(Debug, Clone)]
pub struct KeyRequest {
    /// What its owner calls it.
    pub name: String,
    /// What it may do.
    pub capabilities: Capabilities,
    /// The only session that it may touch, if it is bound to one.
    pub session_scope: Option<SessionId>,
    /// When it ends, if it does.
    pub expires_at: Option<Timestamp>,
}

impl Service {
    /// Makes a key. Nobody can give what they do not have, and nobody can give `operate`.
    ///
    /// # Errors
    /// If a value breaks its bounds, the caller lacks a capability that it wants to give, the quota is used up, or the store fails.
    pub async fn create_key(&self, permit: &Permit, new: KeyRequest, call: &Call) -> Result<NewKey, ServiceError> {
        let org = permit.target().org;
        let owner = self.org(org).ok_or(ServiceError::NotFound("organisation"))?;
        check_name("name", &new.name)?;
        let now = self.now();
        let capabilities = new.capabilities;
        if capabilities.iter().next().is_none() || capabilities.allow(Capability::Operate) {
            let message = "capabilities must be one or more of read, send, manage, events, plugins, audit".to_owned();
            return Err(ServiceError::Invalid { field: "capabilities", message });
        }
        if let Some(lacking) =
            capabilities.iter().find(|capability| !permit.principal().capabilities.allow(*capability))
        {
            // Whoever wants to give what they do not have is told no, and that is written down.
            let denial = Denial::Forbidden(lacking);
            let (principal, target) = (permit.principal(), permit.target());
            Box::pin(self.audit_denial(principal, permit.kind(), target, call.request, denial)).await;
            return Err(denial.into());
        }
        if new.expires_at.is_some_and(|end| end <= now) {
            let message = "expiresAt must lie in the future".to_owned();
            return Err(ServiceError::Invalid { field: "expiresAt", message });
        }
        if let Some(session) = new.session_scope
            && self.views.get(org, session).is_none()
        {
            return Err(ServiceError::NotFound("session"));
        }
        let _alone = self.administering.lock().await;
        let keys = self.store.snapshot()?.keys(org)?;
        // Nothing is given for longer than the giver has it.
        let giver = match &permit.principal().kind {
            PrincipalKind::ApiKey { id } => keys.iter().find(|key| key.id == *id).and_then(|key| key.expires_at),
            _ => None,
        };
        let expires_at = match (new.expires_at, giver) {
            (Some(asked), Some(giver)) => Some(asked.min(giver)),
            (asked, giver) => asked.or(giver),
        };
        // Keys that open nothing any more do not count, but there is an end to how many of them are kept.
        let max = owner.quotas.keys;
        if keys.iter().filter(|key| key.is_live(now)).count() >= max as usize {
            return Err(ServiceError::Quota { of: "keys", max });
        }
        let made = NewKey::make(org, new.name, capabilities, new.session_scope, expires_at, now);
        let mut commit = Commit::new(org, now);
        commit.quotas.push(Quota { of: QuotaKind::Keys, max: max.saturating_mul(DEAD_KEYS) });
        commit.writes.push(Write::PutKey(made.key.clone()));
        commit.audit.push(admin_audit(
            permit,
            org,
            OperationKind::KeyCreate,
            made.key.id.to_string(),
            call.request,
            now,
        ));
        self.carry_out(call, commit).await?;
        self.keyring.put(made.key.clone());
        Ok(made)
    }

    /// Revokes a key, for good. Revoking it again changes nothing.
    ///
    /// # Errors
    /// If there is no such key, or the store fails.
    pub async fn revoke_key(&self, permit: &Permit, id: KeyId, call: &Call) -> Result<Arc<ApiKey>, ServiceError> {
        let org = permit.target().org;
        let now = self.now();
        let mut key = self.store.snapshot()?.key(org, id)?.ok_or(ServiceError::NotFound("key"))?;
        if key.revoked_at.is_some() {
            return Ok(Arc::new(key));
        }
        if org == OrgId::PLATFORM {
            return Err(ServiceError::InUse("the operator's key cannot be revoked over the API"));
        }
        key.revoked_at = Some(now);
        let mut commit = Commit::new(org, now);
        commit.writes.push(Write::PutKey(key.clone()));
        commit.audit.push(admin_audit(permit, org, OperationKind::KeyRevoke, id.to_string(), call.request, now));
        self.carry_out(call, commit).await?;
        self.keyring.put(key.clone());
        self.news.doors_changed();
        Ok(Arc::new(key))
    }
}
