//! Bindings: plugin versions put to work. A change takes effect for the next operation.

use std::sync::Arc;

use portcullis_core::{
    Binding, BindingId, FailureFold, Grant, Mode, OperationKind, Permit, PluginId, PluginVersion, RequestId, Selector,
};
use portcullis_policy::SettingsError;
use portcullis_store::{Commit, Expectation, Quota, QuotaKind, Write};

use crate::orgs::{admin_audit, admin_error, check_labels};
use crate::{Service, ServiceError, mint};

/// What a new binding is to be.
#[derive(Debug, Clone)]
pub struct NewBinding {
    /// The plugin.
    pub plugin: PluginId,
    /// Which version; the newest if none is named.
    pub version: Option<u32>,
    /// The operations for which it is asked; empty means those that the plugin wants.
    pub hooks: Vec<OperationKind>,
    /// Whether its answers count.
    pub mode: Mode,
    /// Its settings, a JSON document.
    pub settings: String,
    /// What stands for an answer that did not come.
    pub on_failure: FailureFold,
    /// Place in the chain.
    pub order: i32,
    /// What it may use; all that the plugin wants if none are named.
    pub grants: Option<Vec<Grant>>,
    /// For which sessions it works.
    pub selector: Selector,
}

/// What to change about a binding; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct BindingChange {
    /// Another version; an older one is a rollback.
    pub version: Option<u32>,
    /// Other hooks.
    pub hooks: Option<Vec<OperationKind>>,
    /// Another mode.
    pub mode: Option<Mode>,
    /// Other settings.
    pub settings: Option<String>,
    /// Another fold of failures.
    pub on_failure: Option<FailureFold>,
    /// Another place.
    pub order: Option<i32>,
    /// Other grants.
    pub grants: Option<Vec<Grant>>,
    /// Another selector.
    pub selector: Option<Selector>,
}

impl Service {
    /// Binds a plugin version.
    ///
    /// # Errors
    /// If there is no such version, the plugin does not accept the settings, a value breaks its bounds, a quota is used up, or the store fails.
    pub async fn create_binding(
        &self,
        permit: &Permit,
        new: NewBinding,
        request: Option<RequestId>,
    ) -> Result<Arc<Binding>, ServiceError> {
        let org = permit.target().org;
        let versions = self.store.snapshot()?.plugin_versions(org, new.plugin)?;
        let version = match new.version {
            Some(number) => versions.into_iter().find(|version| version.version == number),
            None => versions.into_iter().max_by_key(|version| version.version),
        };
        let version = version.ok_or(ServiceError::NotFound("plugin"))?;
        let now = self.now();
        let binding = Binding {
            id: mint::id(BindingId::new, now),
            org,
            plugin: new.plugin,
            version: version.version,
            hooks: new.hooks,
            mode: new.mode,
            settings: new.settings,
            on_failure: new.on_failure,
            order: new.order,
            grants: new.grants.unwrap_or_else(|| version.wants.clone()),
            selector: new.selector,
            generation: 1,
            created_at: now,
            updated_at: now,
        };
        self.check_binding(&binding, &version, true).await?;
        let quota =
            self.org(org).map(|org| org.quotas.bindings).unwrap_or_else(|| portcullis_core::Quotas::default().bindings);
        let _alone = self.administering.lock().await;
        self.still_there(&binding)?;
        let mut commit = Commit::new(org, now);
        commit.expect.push(Expectation::Binding(binding.id, None));
        commit.quotas.push(Quota { of: QuotaKind::Bindings, max: quota });
        commit.writes.push(Write::PutBinding(binding.clone()));
        commit.audit.push(admin_audit(permit, org, OperationKind::BindingCreate, binding.id.to_string(), request, now));
        self.store.commit(commit).await.map_err(admin_error)?;
        self.chains.changed(org);
        Ok(Arc::new(binding))
    }

    /// Changes a binding.
    ///
    /// # Errors
    /// As [`Service::create_binding`].
    pub async fn update_binding(
        &self,
        permit: &Permit,
        id: BindingId,
        change: BindingChange,
        request: Option<RequestId>,
    ) -> Result<Arc<Binding>, ServiceError> {
        let org = permit.target().org;
        let snapshot = self.store.snapshot()?;
        let current = snapshot.binding(org, id)?.ok_or(ServiceError::NotFound("binding"))?;
        let now = self.now();
        let mut binding = current.clone();
        binding.version = change.version.unwrap_or(binding.version);
        binding.hooks = change.hooks.unwrap_or(binding.hooks);
        binding.mode = change.mode.unwrap_or(binding.mode);
        binding.settings = change.settings.unwrap_or(binding.settings);
        binding.on_failure = change.on_failure.unwrap_or(binding.on_failure);
        binding.order = change.order.unwrap_or(binding.order);
        binding.grants = change.grants.unwrap_or(binding.grants);
        binding.selector = change.selector.unwrap_or(binding.selector);
        binding.generation += 1;
        binding.updated_at = now;
        let version =
            snapshot.plugin(org, binding.plugin, binding.version)?.ok_or(ServiceError::NotFound("plugin version"))?;
        // A plugin that is broken can still be switched off.
        let same = binding.version == current.version && binding.settings == current.settings;
        self.check_binding(&binding, &version, !same).await?;
        let _alone = self.administering.lock().await;
        self.still_there(&binding)?;
        let mut commit = Commit::new(org, now);
        commit.expect.push(Expectation::Binding(id, Some(current.generation)));
        commit.writes.push(Write::PutBinding(binding.clone()));
        commit.audit.push(admin_audit(permit, org, OperationKind::BindingUpdate, id.to_string(), request, now));
        self.store.commit(commit).await.map_err(admin_error)?;
        self.chains.changed(org);
        Ok(Arc::new(binding))
    }

    /// Removes a binding.
    ///
    /// # Errors
    /// If there is no such binding, or the store fails.
    pub async fn delete_binding(
        &self,
        permit: &Permit,
        id: BindingId,
        request: Option<RequestId>,
    ) -> Result<(), ServiceError> {
        let org = permit.target().org;
        let current = self.store.snapshot()?.binding(org, id)?.ok_or(ServiceError::NotFound("binding"))?;
        let now = self.now();
        let mut commit = Commit::new(org, now);
        commit.expect.push(Expectation::Binding(id, Some(current.generation)));
        commit.writes.push(Write::RemoveBinding(id));
        commit.audit.push(admin_audit(permit, org, OperationKind::BindingDelete, id.to_string(), request, now));
        self.store.commit(commit).await.map_err(admin_error)?;
        self.chains.changed(org);
        Ok(())
    }

    /// The version may have been deleted while the plugin was asked about its settings.
    fn still_there(&self, binding: &Binding) -> Result<(), ServiceError> {
        let found = self.store.snapshot()?.plugin(binding.org, binding.plugin, binding.version)?;
        found.map(drop).ok_or(ServiceError::NotFound("plugin"))
    }

    async fn check_binding(
        &self,
        binding: &Binding,
        version: &PluginVersion,
        ask_plugin: bool,
    ) -> Result<(), ServiceError> {
        if let Some(unhooked) = binding.hooks.iter().find(|kind| !kind.row().hookable) {
            let message = format!("{} cannot be hooked", unhooked.name());
            return Err(ServiceError::Invalid { field: "hooks", message });
        }
        if let Some(unasked) = binding.grants.iter().find(|grant| !version.wants.contains(grant)) {
            let message = format!("the plugin does not ask for the grant {}", unasked.name());
            return Err(ServiceError::Invalid { field: "grants", message });
        }
        check_labels(&binding.selector.0)?;
        if !ask_plugin {
            return Ok(());
        }
        let owner = binding.org;
        let (snapshot, digest) = (self.snapshot()?, version.digest);
        let load = self.runtime.load(digest, move || snapshot.component(owner, digest).ok().flatten()).await;
        if let Err(error) = load {
            tracing::warn!(plugin = %version.plugin, error = &error as &dyn std::error::Error, "a plugin could not be loaded");
        }
        match self.runtime.validate_settings(version, &binding.settings, owner).await {
            Ok(()) => Ok(()),
            Err(error) => Err(settings_error(error)),
        }
    }
}

fn settings_error(error: SettingsError) -> ServiceError {
    match error {
        SettingsError::Refused { problems } => ServiceError::Settings {
            problems: problems.into_iter().map(|problem| (problem.field, problem.message)).collect(),
        },
        error => ServiceError::Invalid { field: "settings", message: error.to_string() },
    }
}
