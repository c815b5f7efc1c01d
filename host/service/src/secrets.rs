//! Secrets of plugins: put there by their owner, used by the plugin through handles, and shown to nobody.

use portcullis_core::{OperationKind, Permit, PluginId, Secret, Timestamp};
use portcullis_store::{Commit, CommitError, SECRETS_MAX, Write};

use crate::orgs::{admin_audit, admin_error};
use crate::queries::expect;
use crate::{Call, Service, ServiceError};

/// The longest secret, in bytes.
const MAX_SECRET: usize = 4 << 10;
/// The longest name of a secret, in bytes.
const MAX_NAME: usize = 64;

/// A secret, as far as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretName {
    /// Its name.
    pub name: String,
    /// When it was put there.
    pub at: Timestamp,
}

impl Service {
    /// Keeps a secret for a plugin, in the place of one that has its name.
    ///
    /// # Errors
    /// If there is no such plugin, a value breaks its bounds, the plugin has as many as it may, or the store fails.
    pub async fn put_secret(
        &self,
        permit: &Permit,
        plugin: PluginId,
        name: String,
        value: Secret,
        call: &Call,
    ) -> Result<(), ServiceError> {
        expect(permit, OperationKind::SecretPut)?;
        check_name(&name)?;
        if value.reveal().is_empty() || value.reveal().len() > MAX_SECRET {
            let message = format!("value must have 1 to {MAX_SECRET} bytes");
            return Err(ServiceError::Invalid { field: "value", message });
        }
        let org = permit.target().org;
        let _alone = self.administering.lock().await;
        self.own_plugin(permit, plugin)?;
        let mut commit = Commit::new(org, self.now());
        let subject = format!("{plugin}/{name}");
        commit.audit.push(admin_audit(permit, org, OperationKind::SecretPut, subject, call.request, commit.now));
        commit.writes.push(Write::PutSecret { plugin, name, value });
        self.carry_out_or(call, commit, |error| match error {
            CommitError::SecretQuota { .. } => ServiceError::Quota { of: "secrets of one plugin", max: SECRETS_MAX },
            error => admin_error(error),
        })
        .await
    }

    /// Removes a secret.
    ///
    /// # Errors
    /// If there is no such plugin or secret, or the store fails.
    pub async fn delete_secret(
        &self,
        permit: &Permit,
        plugin: PluginId,
        name: String,
        call: &Call,
    ) -> Result<(), ServiceError> {
        expect(permit, OperationKind::SecretDelete)?;
        let org = permit.target().org;
        let _alone = self.administering.lock().await;
        self.own_plugin(permit, plugin)?;
        if self.store.snapshot()?.secret(org, plugin, &name)?.is_none() {
            return Err(ServiceError::NotFound("secret"));
        }
        let mut commit = Commit::new(org, self.now());
        let subject = format!("{plugin}/{name}");
        commit.audit.push(admin_audit(permit, org, OperationKind::SecretDelete, subject, call.request, commit.now));
        commit.writes.push(Write::RemoveSecret { plugin, name });
        self.carry_out(call, commit).await
    }

    /// The names of a plugin's secrets.
    ///
    /// # Errors
    /// If there is no such plugin, or the store cannot be read.
    pub fn secrets(&self, permit: &Permit, plugin: PluginId) -> Result<Vec<SecretName>, ServiceError> {
        expect(permit, OperationKind::PluginRead)?;
        self.own_plugin(permit, plugin)?;
        let names = self.store.snapshot()?.secret_names(permit.target().org, plugin)?;
        Ok(names.into_iter().map(|(name, at)| SecretName { name, at }).collect())
    }

    /// Whether the organisation has the plugin.
    pub(crate) fn own_plugin(&self, permit: &Permit, plugin: PluginId) -> Result<(), ServiceError> {
        match self.store.snapshot()?.plugin_versions(permit.target().org, plugin)?.is_empty() {
            true => Err(ServiceError::NotFound("plugin")),
            false => Ok(()),
        }
    }
}

fn check_name(name: &str) -> Result<(), ServiceError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    let message = format!("a secret's name must be 1 to {MAX_NAME} of the characters a-z, A-Z, 0-9, '.', '_' and '-'");
    Err(ServiceError::Invalid { field: "name", message })
}
