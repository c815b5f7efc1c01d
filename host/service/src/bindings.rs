//! Bindings: plugin versions put to work. A change takes effect for the next operation.

use std::sync::Arc;

use portcullis_core::{
    Binding, BindingId, Candidate, FailureFold, Grant, HOST_RULES_MAX, HostRule, Mode, Operation, OperationKind, OrgId,
    Permit, PluginFailure, PluginId, PluginVersion, Selector,
};
use portcullis_policy::SettingsError;

use crate::execute::BUSY_RETRY;
use crate::orgs::check_labels;
use crate::{Call, Done, Service, ServiceError, mint};

/// The longest wall time of one call that an organisation can give its own binding, in milliseconds.
const MAX_WALL: u32 = 250;
/// The same for bindings of the platform.
const MAX_WALL_OF_PLATFORM: u32 = 2_000;

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
    /// What it may use; all that the plugin wants if nothing is said.
    pub grants: Option<Vec<Grant>>,
    /// The hosts to which it may send requests.
    pub http_hosts: Vec<HostRule>,
    /// For which sessions it works.
    pub selector: Selector,
    /// Wall time of one call, in milliseconds; the gateway's usual bound if there is none.
    pub wall_millis: Option<u32>,
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
    /// Other hosts to which it may send requests.
    pub http_hosts: Option<Vec<HostRule>>,
    /// Another selector.
    pub selector: Option<Selector>,
    /// Another bound on the wall time of one call; none within is the gateway's usual one.
    pub wall_millis: Option<Option<u32>>,
    /// Another candidate; none within takes it back.
    pub candidate: Option<Option<Candidate>>,
}

impl BindingChange {
    fn apply(self, current: &Binding) -> Binding {
        let mut binding = current.clone();
        let version = self.version.unwrap_or(binding.version);
        let settings = self.settings.unwrap_or_else(|| binding.settings.clone());
        binding.rebind(version, settings);
        binding.hooks = self.hooks.unwrap_or(binding.hooks);
        binding.mode = self.mode.unwrap_or(binding.mode);
        binding.on_failure = self.on_failure.unwrap_or(binding.on_failure);
        binding.order = self.order.unwrap_or(binding.order);
        binding.grants = self.grants.unwrap_or(binding.grants);
        binding.http_hosts = self.http_hosts.unwrap_or(binding.http_hosts);
        binding.selector = self.selector.unwrap_or(binding.selector);
        binding.wall_millis = self.wall_millis.unwrap_or(binding.wall_millis);
        binding.candidate = self.candidate.unwrap_or(binding.candidate);
        binding
    }
}

impl Service {
    /// Binds a plugin version.
    ///
    /// # Errors
    /// If there is no such version, the plugin does not accept the settings, a value breaks its bounds, a quota is used up, or the store fails.
    pub async fn create_binding(
        self: &Arc<Self>,
        permit: &Permit,
        new: NewBinding,
        call: Call,
    ) -> Result<Done, ServiceError> {
        let org = permit.target().org;
        let versions = self.store.snapshot()?.plugin_versions(org, new.plugin)?;
        let version = match new.version {
            Some(number) => versions.into_iter().find(|version| version.version == number),
            None => versions.into_iter().max_by_key(|version| version.version),
        };
        let missing = if new.version.is_some() { "plugin version" } else { "plugin" };
        let version = version.ok_or(ServiceError::NotFound(missing))?;
        let now = self.now();
        let named = new.grants.clone().unwrap_or_default();
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
            grants: new.grants.unwrap_or_else(|| self.usual_grants(&version)),
            http_hosts: new.http_hosts,
            selector: new.selector,
            authority: permit.principal().capabilities,
            candidate: None,
            previous: None,
            wall_millis: new.wall_millis,
            generation: 1,
            created_at: now,
            updated_at: now,
        };
        self.check_binding(&binding, None, &named).await?;
        self.administer(permit, Operation::BindingCreate(Box::new(binding)), None, call).await
    }

    /// Changes a binding.
    ///
    /// # Errors
    /// As [`Service::create_binding`].
    pub async fn update_binding(
        self: &Arc<Self>,
        permit: &Permit,
        id: BindingId,
        change: BindingChange,
        call: Call,
    ) -> Result<Done, ServiceError> {
        let org = permit.target().org;
        let current = self.store.snapshot()?.binding(org, id)?.ok_or(ServiceError::NotFound("binding"))?;
        let named = change.grants.clone();
        let mut binding = change.apply(&current);
        if named.is_some() {
            // A plugin can do no more than whoever granted it could.
            binding.authority = permit.principal().capabilities;
        }
        let mut new = named.unwrap_or_default();
        new.retain(|grant| !current.grants.contains(grant));
        self.replace_binding(permit, &current, binding, &new, call).await
    }

    /// Puts a changed binding in the place of what it was; `named` are the grants that somebody asks for anew.
    pub(crate) async fn replace_binding(
        self: &Arc<Self>,
        permit: &Permit,
        current: &Binding,
        mut binding: Binding,
        named: &[Grant],
        call: Call,
    ) -> Result<Done, ServiceError> {
        binding.generation = current.generation + 1;
        binding.updated_at = self.now();
        if tasks(&binding) != tasks(current) {
            // Nor more than whoever chose what it does.
            binding.authority = binding.authority.both(permit.principal().capabilities);
        }
        self.check_binding(&binding, Some(current), named).await?;
        self.administer(permit, Operation::BindingUpdate(Box::new(binding)), None, call).await
    }

    /// Removes a binding.
    ///
    /// # Errors
    /// If there is no such binding, or the store fails.
    pub async fn delete_binding(
        self: &Arc<Self>,
        permit: &Permit,
        id: BindingId,
        call: Call,
    ) -> Result<Done, ServiceError> {
        // Nobody is asked about what is not there.
        self.store.snapshot()?.binding(permit.target().org, id)?.ok_or(ServiceError::NotFound("binding"))?;
        self.administer(permit, Operation::BindingDelete { binding: id }, None, call).await
    }

    /// What a plugin asks for, as far as the operator lets it have that.
    fn usual_grants(&self, version: &PluginVersion) -> Vec<Grant> {
        let rules = self.rules(version.org);
        version.wanted().filter(|grant| rules.beyond_ceiling(&[*grant]).is_none()).collect()
    }

    /// Checks what is new about a binding. A plugin that is broken can so still be switched off, and one that wants less, or is
    /// allowed less, than its binding grants can be promoted and rolled back: it only has what it may.
    async fn check_binding(
        &self,
        binding: &Binding,
        current: Option<&Binding>,
        named: &[Grant],
    ) -> Result<(), ServiceError> {
        let invalid = |field, message| Err(ServiceError::Invalid { field, message });
        if let Some(unhooked) = binding.hooks.iter().find(|kind| !kind.row().hookable) {
            return invalid("hooks", format!("{} cannot be hooked", unhooked.name()));
        }
        if let Some(twice) = binding.hooks.iter().enumerate().find(|(at, kind)| binding.hooks[..*at].contains(kind)) {
            return invalid("hooks", format!("{} is there twice", twice.1.name()));
        }
        check_labels(&binding.selector.0)?;
        if binding.http_hosts.len() > HOST_RULES_MAX {
            return invalid("httpHosts", format!("httpHosts must be {HOST_RULES_MAX} at most"));
        }
        let most = if binding.org == OrgId::PLATFORM { MAX_WALL_OF_PLATFORM } else { MAX_WALL };
        if binding.wall_millis.is_some_and(|millis| millis == 0 || millis > most) {
            return invalid("wallMillis", format!("wallMillis must be 1 to {most}"));
        }
        if binding.candidate.as_ref().is_some_and(|candidate| candidate.percent > 100) {
            return invalid("candidate", "percent must be 0 to 100".to_owned());
        }
        let snapshot = self.snapshot()?;
        let find = |version| snapshot.plugin(binding.org, binding.plugin, version);
        let bound = find(binding.version)?.ok_or(ServiceError::NotFound("plugin version"))?;
        let hooked = &bound.hooks;
        let mut wanted: Vec<Grant> = bound.wanted().collect();
        if let Some(candidate) = &binding.candidate {
            wanted.extend(find(candidate.version)?.ok_or(ServiceError::NotFound("plugin version"))?.wanted());
        }
        if let Some(unasked) = named.iter().find(|grant| !wanted.contains(grant)) {
            return invalid("grants", format!("the plugin does not ask for the grant {}", unasked.name()));
        }
        let is_new = current.is_none_or(|current| current.hooks != binding.hooks);
        if let Some(deaf) = binding.hooks.iter().find(|kind| is_new && !hooked.is_empty() && !hooked.contains(kind)) {
            return invalid("hooks", format!("the plugin does not ask to be asked about {}", deaf.name()));
        }
        if let Some(beyond) = self.rules(binding.org).beyond_ceiling(named) {
            return invalid("grants", format!("the operator lets no plugin have the grant {} here", beyond.name()));
        }
        let before = current.map(tasks).unwrap_or_default();
        for (version, settings) in tasks(binding) {
            if before.contains(&(version, settings)) {
                continue;
            }
            let version = find(version)?.ok_or(ServiceError::NotFound("plugin version"))?;
            self.check_signed(&version, &snapshot)?;
            self.check_settings(&version, settings).await?;
        }
        Ok(())
    }

    pub(crate) async fn check_settings(&self, version: &PluginVersion, settings: &str) -> Result<(), ServiceError> {
        let (snapshot, digest, owner) = (self.snapshot()?, version.digest, version.org);
        let load =
            self.runtime.load(digest, version.class, move || snapshot.component(owner, digest).ok().flatten()).await;
        if let Err(error) = load {
            tracing::warn!(plugin = %version.plugin, error = &error as &dyn std::error::Error, "a plugin could not be loaded");
        }
        self.runtime.validate_settings(version, settings, owner).await.map_err(settings_error)
    }
}

/// What a binding has done: versions with their settings, the bound one first.
fn tasks(binding: &Binding) -> Vec<(u32, &str)> {
    let candidate = binding.candidate.as_ref();
    let tried = candidate.map(|tried| (tried.version, tried.settings.as_ref().unwrap_or(&binding.settings).as_str()));
    std::iter::once((binding.version, binding.settings.as_str())).chain(tried).collect()
}

fn settings_error(error: SettingsError) -> ServiceError {
    match error {
        SettingsError::Refused { problems } => ServiceError::Settings {
            problems: problems.into_iter().map(|problem| (problem.field, problem.message)).collect(),
        },
        SettingsError::Unjudged { why } => ServiceError::Settings {
            problems: vec![(String::new(), format!("the plugin's schema cannot judge them: {why}"))],
        },
        SettingsError::Failed(PluginFailure::Overloaded) => ServiceError::Busy { retry_after: BUSY_RETRY },
        error => ServiceError::Invalid { field: "settings", message: error.to_string() },
    }
}
