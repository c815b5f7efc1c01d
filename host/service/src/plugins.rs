//! Plugins: uploaded, admitted, and kept as immutable versions.

use std::sync::Arc;

use portcullis_core::{AuditOutcome, Operation, OperationKind, Permit, PluginClass, PluginId, PluginVersion};
use portcullis_store::Commit;
use sha2::{Digest, Sha256};

use crate::orgs::admin_audit;
use crate::outcome::Novelty;
use crate::rollout::unchanged;
use crate::{Call, Done, Outcome, Service, ServiceError, Signature, mint};

/// What is uploaded.
#[derive(Debug, Clone, Default)]
pub struct Upload {
    /// The component.
    pub bytes: Vec<u8>,
    /// How much it may use.
    pub class: PluginClass,
    /// Who vouches for it.
    pub signature: Option<Signature>,
}

impl Service {
    /// Admits a component and keeps it as the next version of the plugin that it says it is.
    /// The same bytes again are the same version; with a signature they become a signed one.
    /// Of more versions than are kept, the oldest goes that no binding needs.
    ///
    /// # Errors
    /// If a signature is wrong or missing, the component is not admitted, a quota is used up, or the store fails.
    pub async fn upload_plugin(
        self: &Arc<Self>,
        permit: &Permit,
        upload: Upload,
        call: Call,
    ) -> Result<Done, ServiceError> {
        let org = permit.target().org;
        let Upload { bytes, class, signature } = upload;
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        let known = self.store.snapshot()?.plugins(org)?.into_iter().find(|version| version.digest == digest);
        // Whether a signature is right is known sooner than whether the component is.
        let signer = match (&signature, known.as_ref().and_then(|known| known.signer)) {
            (None, Some(signer)) => Some(signer),
            _ => self.signer(org, signature.as_ref(), &digest)?,
        };
        let admitted = self.runtime.admit(org, bytes, class).await?;
        let now = self.now();
        if let Some(known) = known {
            if known.signer != signer {
                let signed = PluginVersion { signer, ..known };
                return self.administer(permit, Operation::PluginUpload(Box::new(signed)), None, call).await;
            }
            return Ok(unchanged(Outcome::Uploaded(Box::new(known), Novelty::Known), &call));
        }
        let version = PluginVersion {
            plugin: mint::id(PluginId::new, now),
            org,
            // The commit finds the number, and the plugin of this name.
            version: 1,
            name: admitted.name,
            declared_version: admitted.declared_version,
            description: admitted.description,
            digest: admitted.digest,
            size: admitted.size,
            contract: admitted.contract,
            exports: admitted.exports,
            settings_schema: admitted.settings_schema,
            hooks: admitted.hooks,
            events: admitted.events,
            class,
            signer,
            wants: admitted.wants,
            uploaded_at: now,
        };
        self.administer(permit, Operation::PluginUpload(Box::new(version)), Some(admitted.bytes), call).await
    }

    /// As [`Service::upload_plugin`], for a caller who does not wait: what becomes of it is in the list of plugins, or in the audit.
    pub async fn upload_in_background(self: &Arc<Self>, permit: &Permit, upload: Upload, call: Call) {
        let (request, noted) = (call.request, call.noted.clone());
        let Err(error) = self.upload_plugin(permit, upload, call).await else { return };
        if noted.is_set() {
            return;
        }
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
        self: &Arc<Self>,
        permit: &Permit,
        plugin: PluginId,
        call: Call,
    ) -> Result<Done, ServiceError> {
        // Nobody is asked about what is not there.
        if self.store.snapshot()?.plugin_versions(permit.target().org, plugin)?.is_empty() {
            return Err(ServiceError::NotFound("plugin"));
        }
        let done = self.administer(permit, Operation::PluginDelete { plugin }, None, call).await?;
        if matches!(done.outcome, Outcome::Done) {
            self.plugin_logs.forget(plugin);
        }
        Ok(done)
    }
}
