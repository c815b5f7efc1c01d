//! Plugins as data: versions, bindings and what they are allowed.

use serde::{Deserialize, Serialize};

use crate::{BindingId, Capabilities, HostRule, Labels, OperationKind, OrgId, PluginId, PublisherId, Timestamp};

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
    /// The events of which it wants to be told; a last `*` stands for any ending.
    #[serde(default)]
    pub events: Vec<String>,
    /// What it asks to be granted, and why.
    pub wants: Vec<Want>,
    /// How much it may use.
    #[serde(default)]
    pub class: PluginClass,
    /// Whose signature it came with, if it was checked.
    #[serde(default)]
    pub signer: Option<PublisherId>,
    /// When it was uploaded.
    pub uploaded_at: Timestamp,
}

/// A grant that a plugin asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// The grant.
    pub grant: Grant,
    /// Why, in its author's words, for whoever grants it.
    pub why: String,
}

impl PluginVersion {
    /// The grants that it asks for.
    pub fn wanted(&self) -> impl Iterator<Item = Grant> {
        self.wants.iter().map(|want| want.grant)
    }

    /// Whether it asks for this grant.
    #[must_use]
    pub fn asks_for(&self, grant: Grant) -> bool {
        self.wanted().any(|wanted| wanted == grant)
    }

    /// Whether it wants to be told of events with this name.
    #[must_use]
    pub fn hears(&self, event: &str) -> bool {
        self.events.iter().any(|wanted| match wanted.strip_suffix('*') {
            Some(beginning) => event.starts_with(beginning),
            None => wanted == event,
        })
    }
}

/// How much a plugin may use: languages with a runtime of their own need more of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginClass {
    /// What compiled languages need.
    #[default]
    Standard,
    /// What JavaScript and Python need.
    Large,
}

impl PluginClass {
    /// The word on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Large => "large",
        }
    }

    /// The class with this word on the wire.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Standard, Self::Large].into_iter().find(|class| class.name() == name)
    }
}

/// Somebody whose signatures on plugins count, for one organisation or for the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publisher {
    /// Its id.
    pub id: PublisherId,
    /// For whom its signatures count.
    pub org: OrgId,
    /// What people call it.
    pub name: String,
    /// Its ed25519 public key.
    pub public_key: [u8; 32],
    /// When it was registered.
    pub created_at: Timestamp,
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
    /// What the plugin may use, as far as the version that runs asks for it and the operator's ceiling allows it.
    pub grants: Vec<Grant>,
    /// The hosts to which it may send requests, if it is granted to send any.
    #[serde(default)]
    pub http_hosts: Vec<HostRule>,
    /// For which sessions it works.
    pub selector: Selector,
    /// What whoever made the grants may do: operations that the plugin asks for can do no more.
    #[serde(default)]
    pub authority: Capabilities,
    /// Another version on its way to take over.
    #[serde(default)]
    pub candidate: Option<Candidate>,
    /// What was bound before the present version, to go back to.
    #[serde(default)]
    pub previous: Option<Previous>,
    /// Wall time of one call, in milliseconds; the host's usual bound if there is none.
    #[serde(default)]
    pub wall_millis: Option<u32>,
    /// Grows with every change.
    pub generation: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A version that is tried beside the one that is bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which version of the same plugin.
    pub version: u32,
    /// Its settings; those of the binding if there are none.
    pub settings: Option<String>,
    /// For how many of a hundred sessions it decides in the place of the bound version; with 0 it is only asked in its shadow.
    pub percent: u8,
}

/// A version that was bound before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Which version of the same plugin.
    pub version: u32,
    /// The settings that it had.
    pub settings: String,
    /// What it could use.
    pub grants: Vec<Grant>,
    /// The hosts to which it could send requests.
    #[serde(default)]
    pub http_hosts: Vec<HostRule>,
    /// What whoever made those grants may do.
    pub authority: Capabilities,
}

impl Binding {
    /// Binds another version or other settings, and remembers what was bound.
    /// Changes of settings alone leave the way back to the version before as it is.
    pub fn rebind(&mut self, version: u32, settings: String) {
        let settings_before = std::mem::replace(&mut self.settings, settings);
        if version != self.version {
            self.previous = Some(Previous {
                version: self.version,
                settings: settings_before,
                grants: self.grants.clone(),
                http_hosts: self.http_hosts.clone(),
                authority: self.authority,
            });
            self.version = version;
        }
    }

    /// Binds again what was bound before, on the terms of that time; what is bound now is then there to go back to.
    /// Without anything before it stays as it is, and the answer is no.
    #[must_use]
    pub fn roll_back(&mut self) -> bool {
        let Some(previous) = self.previous.take() else { return false };
        let Previous { version, settings, grants, http_hosts, authority } = previous;
        self.rebind(version, settings);
        (self.grants, self.http_hosts, self.authority) = (grants, http_hosts, authority);
        true
    }

    /// Whether this version of its plugin is bound, tried, or there to go back to.
    #[must_use]
    pub fn needs(&self, plugin: PluginId, version: u32) -> bool {
        let tried = self.candidate.as_ref().is_some_and(|candidate| candidate.version == version);
        let before = self.previous.as_ref().is_some_and(|previous| previous.version == version);
        self.plugin == plugin && (self.version == version || tried || before)
    }
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

/// A version of a binding, the bound one or its candidate, that is no longer asked within one organisation,
/// because it failed too often there. It ends with any change of the binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// In whose operations.
    pub org: OrgId,
    /// The binding.
    pub binding: BindingId,
    /// Whether it is the candidate that is not asked, and not the version that is bound. The two can be one version with different settings.
    pub candidate: bool,
    /// The version that failed.
    pub version: u32,
    /// The binding's generation when it was suspended; another one is asked again.
    pub generation: u64,
    /// Since when.
    pub since: Timestamp,
    /// The last failure's stable code.
    pub failure: String,
}

impl Suspension {
    /// Whether it still holds for this binding's candidate, or for the version that it binds.
    #[must_use]
    pub fn holds_for(&self, binding: &Binding, candidate: bool) -> bool {
        self.binding == binding.id && self.generation == binding.generation && self.candidate == candidate
    }
}

/// How a candidate compares with the version that is bound, counted over all organisations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Operations about which both were asked.
    pub asked: u64,
    /// Those that they answered differently.
    pub diverged: u64,
}
