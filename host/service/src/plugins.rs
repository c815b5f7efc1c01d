//! Plugins: uploaded, admitted, and kept as immutable versions.

use portcullis_core::{AuditOutcome, OperationKind, Permit, PluginId, PluginVersion, RequestId};
use portcullis_store::{Commit, Quota, QuotaKind, Write};

use crate::orgs::{admin_audit, admin_error};
use crate::{Service, ServiceError, mint};

/// How many versions of one plugin are kept.
const MAX_VERSIONS: u32 = 50;

/// An upload that was admitted.
#[derive(Debug, Clone)]
pub struct Uploaded {
    /// The version.
    pub version: PluginVersion,
    /// Whether the same bytes were there already.
    pub known: bool,
}

impl Service {
    /// Admits a component and keeps it as the next version of the plugin that it says it is.
    /// The same bytes again are the same version.
    ///
    /// # Errors
    /// If the component is not admitted, a quota is used up, or the store fails.
    pub async fn upload_plugin(
        &self,
        permit: &Permit,
        bytes: Vec<u8>,
        request: Option<RequestId>,
    ) -> Result<Uploaded, ServiceError> {
        let org = permit.target().org;
        let quotas = self.org(org).map(|org| org.quotas.clone()).unwrap_or_default();
        let admitted = self.runtime.admit(org, bytes).await?;
        let now = self.now();
        let snapshot = self.store.snapshot()?;
        let versions = snapshot.plugins(org)?;
        if let Some(known) = versions.iter().find(|version| version.digest == admitted.digest) {
            return Ok(Uploaded { version: known.clone(), known: true });
        }
        let named: Vec<_> = versions.iter().filter(|version| version.name == admitted.name).collect();
        if named.len() >= MAX_VERSIONS as usize {
            return Err(ServiceError::Quota { of: "versions of one plugin", max: MAX_VERSIONS });
        }
        let plugin = named.first().map_or_else(|| mint::id(PluginId::new, now), |version| version.plugin);
        let version = PluginVersion {
            plugin,
            org,
            version: named.iter().map(|version| version.version).max().unwrap_or(0) + 1,
            name: admitted.name,
            declared_version: admitted.declared_version,
            description: admitted.description,
            digest: admitted.digest,
            size: admitted.size,
            contract: admitted.contract,
            exports: admitted.exports,
            settings_schema: admitted.settings_schema,
            hooks: admitted.hooks,
            wants: admitted.wants,
            uploaded_at: now,
        };
        let mut commit = Commit::new(org, now);
        if named.is_empty() {
            commit.quotas.push(Quota { of: QuotaKind::Plugins, max: quotas.plugins });
        }
        commit.writes.push(Write::PutComponent { digest: version.digest, bytes: admitted.bytes });
        commit.writes.push(Write::PutPlugin(version.clone()));
        commit.audit.push(admin_audit(permit, org, OperationKind::PluginUpload, plugin.to_string(), request, now));
        self.store.commit(commit).await.map_err(admin_error)?;
        Ok(Uploaded { version, known: false })
    }

    /// As [`Service::upload_plugin`], for a caller who does not wait: what becomes of it is in the list of plugins, or in the audit.
    pub async fn upload_in_background(&self, permit: &Permit, bytes: Vec<u8>, request: Option<RequestId>) {
        let Err(error) = self.upload_plugin(permit, bytes, request).await else { return };
        let (org, now) = (permit.target().org, self.now());
        let mut commit = Commit::new(org, now);
        let mut entry = admin_audit(permit, org, OperationKind::PluginUpload, String::new(), request, now);
        entry.subject = None;
        entry.outcome = AuditOutcome::Refused { code: error.code().to_owned() };
        commit.audit.push(entry);
        if let Err(error) = self.store.commit(commit).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a refused upload was not audited");
        }
    }

    /// Deletes a plugin with all its versions, unless something binds it.
    ///
    /// # Errors
    /// If there is no such plugin, a binding uses it, or the store fails.
    pub async fn delete_plugin(
        &self,
        permit: &Permit,
        plugin: PluginId,
        request: Option<RequestId>,
    ) -> Result<(), ServiceError> {
        let org = permit.target().org;
        let _alone = self.administering.lock().await;
        let snapshot = self.store.snapshot()?;
        if snapshot.plugin_versions(org, plugin)?.is_empty() {
            return Err(ServiceError::NotFound("plugin"));
        }
        if snapshot.bindings(org)?.iter().any(|binding| binding.plugin == plugin) {
            return Err(ServiceError::InUse("a binding uses this plugin; delete the binding first"));
        }
        let now = self.now();
        let mut commit = Commit::new(org, now);
        commit.writes.push(Write::RemovePlugin(plugin));
        commit.audit.push(admin_audit(permit, org, OperationKind::PluginDelete, plugin.to_string(), request, now));
        self.store.commit(commit).await.map_err(admin_error).map(drop)
    }
}
