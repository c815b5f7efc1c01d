//! Organisations: who owns sessions, and within which bounds.

use serde::{Deserialize, Serialize};

use crate::{Grant, Labels, OrgId, Timestamp};

/// One organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Org {
    /// Its id; every row it owns is stored under it.
    pub id: OrgId,
    /// What people call it.
    pub name: String,
    /// What it has subscribed to.
    pub plan: Plan,
    /// How much it may use.
    pub quotas: Quotas,
    /// What policies and operators know about it.
    pub labels: Labels,
    /// What its plugins may be and do at most.
    #[serde(default)]
    pub plugin_rules: PluginRules,
    /// A suspended organisation may read, but nothing else.
    pub suspended: bool,
    /// Set once the organisation is being erased; nothing may happen under it from then on.
    #[serde(default)]
    pub erasing: bool,
    /// Grows with every change; the expectation of commits.
    pub generation: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What an organisation has subscribed to, as the operator names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// The plan's name, for policies to read.
    pub name: String,
    /// Whether a paid plan is active; plan-gated rate policies ask this.
    pub active: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { name: "free".into(), active: false }
    }
}

/// What the plugins that work for an organisation may be and do at most.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PluginRules {
    /// The operator's ceiling: grants that bindings of the organisation can have. None means all.
    pub ceiling: Option<Vec<Grant>>,
    /// Whether the operator lets only versions be bound that a registered publisher has signed.
    pub require_signature: bool,
    /// Whether the organisation itself does.
    pub own_require_signature: bool,
}

impl PluginRules {
    /// Whether only signed versions can be uploaded and bound. Of the operator and the organisation the stricter one counts.
    #[must_use]
    pub fn needs_signature(&self) -> bool {
        self.require_signature || self.own_require_signature
    }

    /// The first of `grants` that the operator's ceiling does not let a binding have.
    #[must_use]
    pub fn beyond_ceiling(&self, grants: &[Grant]) -> Option<Grant> {
        let ceiling = self.ceiling.as_ref()?;
        grants.iter().copied().find(|grant| !ceiling.contains(grant))
    }
}

/// How much an organisation may use; each bound has a finite default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Quotas {
    /// Sessions that exist, pending deletes included.
    pub sessions: u32,
    /// API keys that exist.
    pub keys: u32,
    /// Plugins that exist.
    pub plugins: u32,
    /// Plugin versions of the `large` class that exist.
    pub large_plugins: u32,
    /// Keys that each plugin keeps.
    pub kv_keys: u32,
    /// Bytes that the keys and values of each plugin have together.
    pub kv_bytes: u32,
    /// Bindings that exist.
    pub bindings: u32,
    /// Webhooks that exist.
    pub webhooks: u32,
    /// Messages that wait to be sent.
    pub queued_messages: u32,
    /// Operations under way at once.
    pub concurrency: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            sessions: 100,
            keys: 100,
            plugins: 20,
            large_plugins: 4,
            kv_keys: 1_000,
            kv_bytes: 1024 * 1024,
            bindings: 50,
            webhooks: 100,
            queued_messages: 1000,
            concurrency: 64,
        }
    }
}
