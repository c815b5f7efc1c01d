//! Plugins as data: versions, bindings and what they are allowed.

use serde::{Deserialize, Serialize};

use crate::{BindingId, Labels, OperationKind, OrgId, PluginId, Timestamp};

/// One immutable version of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginVersion {
    /// The plugin.
    pub plugin: PluginId,
    /// Whose it is; [`OrgId::PLATFORM`] for the operator's and vendors'.
    pub org: OrgId,
    /// Counts from 1 within the plugin.
    pub version: u32,
    /// The name that the component gave itself; one plugin per name and owner.
    pub name: String,
    /// The version that the component gave itself, for people.
    pub declared_version: String,
    /// What it says it does.
    pub description: String,
    /// SHA-256 of the component's bytes.
    pub digest: [u8; 32],
    /// How many bytes the component has.
    pub size: u64,
    /// The version of the policy contract that it was built for, such as `0.1.0`.
    pub contract: String,
    /// The interfaces that it exports, by their names in the contract.
    pub exports: Vec<String>,
    /// The JSON Schema of its settings, if it gave one.
    pub settings_schema: Option<String>,
    /// The operations for which it wants to be asked; empty means all that are hookable.
    pub hooks: Vec<OperationKind>,
    /// What it asks to be granted.
    pub wants: Vec<Grant>,
    /// When it was uploaded.
    pub uploaded_at: Timestamp,
}

/// Something a plugin can only do if its binding grants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// Keep keys and values.
    Kv,
    /// Read the organisation's sessions.
    Sessions,
    /// Use secrets through handles.
    Secrets,
    /// Call allow-listed hosts.
    Http,
    /// Ask for operations of its own.
    Lifecycle,
}

impl Grant {
    /// Every grant there is.
    pub const ALL: [Grant; 5] = [Self::Kv, Self::Sessions, Self::Secrets, Self::Http, Self::Lifecycle];

    /// The word on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::Sessions => "sessions",
            Self::Secrets => "secrets",
            Self::Http => "http",
            Self::Lifecycle => "lifecycle",
        }
    }

    /// The grant with this word on the wire.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|grant| grant.name() == name)
    }
}

/// A plugin version put to work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Its id.
    pub id: BindingId,
    /// Whose it is; a platform binding works for every organisation.
    pub org: OrgId,
    /// The plugin.
    pub plugin: PluginId,
    /// Which version of it.
    pub version: u32,
    /// The operations for which it is asked; empty means those that the plugin wants.
    pub hooks: Vec<OperationKind>,
    /// Whether its answers count.
    pub mode: Mode,
    /// Its settings, a JSON document.
    pub settings: String,
    /// What stands for an answer that did not come.
    pub on_failure: FailureFold,
    /// Place in the chain among the bindings of the same owner; lower is earlier.
    pub order: i32,
    /// What the plugin may use.
    pub grants: Vec<Grant>,
    /// For which sessions it works.
    pub selector: Selector,
    /// Grows with every change.
    pub generation: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Whether a binding's answers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// They do.
    Enforce,
    /// They are recorded and otherwise ignored.
    Monitor,
    /// The plugin is not asked.
    Off,
}

/// What stands for an answer that did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureFold {
    /// The operation is denied.
    Deny,
    /// The operation goes on.
    Allow,
}

/// Sessions chosen by labels: all of these must be there with these values. Empty chooses every session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Selector(pub Labels);

impl Selector {
    /// Whether a session with `labels` is chosen.
    #[must_use]
    pub fn chooses(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// A point at which plugins are asked; what the interfaces of the contract are called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// `gate.before`.
    Gate,
    /// `observer.after` and `observer.on-event`.
    Observer,
    /// `timer.fired`.
    Timer,
    /// `pace.limits`.
    Pace,
}

impl Hook {
    /// The interface of the contract that a plugin exports to be asked here.
    #[must_use]
    pub fn interface(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Observer => "observer",
            Self::Timer => "timer",
            Self::Pace => "pace",
        }
    }
}
