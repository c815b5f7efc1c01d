//! What one plugin answers: decisions, patches, follow-ups, and the ways of not answering.

use serde::{Deserialize, Serialize};

use crate::{BindingId, FailureFold, Labels, LimitCheck, Mode, Operation, OrgId, PluginId, PublisherId, Timestamp};

/// One plugin's answer to one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Decision {
    /// Go on.
    Allow,
    /// Do not.
    Deny {
        /// The plugin's own stable code.
        code: String,
        /// A sentence for the caller.
        message: String,
        /// After how many seconds asking again may help.
        retry_after: Option<u64>,
    },
    /// Not yet.
    Defer {
        /// When.
        until: Timestamp,
        /// Why, for the caller.
        reason: String,
    },
    /// Go on with changes.
    Amend {
        /// The changes.
        patch: Patch,
    },
    /// Go on once the caller has confirmed.
    Confirm {
        /// What to ask the caller.
        prompt: String,
        /// Until when the confirmation can be given.
        expires: Timestamp,
        /// What the caller has to type, if anything.
        answer: Option<String>,
    },
    /// Go on if these counters allow it, and count this operation.
    Limit {
        /// The counters.
        limits: Vec<LimitCheck>,
        /// A sentence for the caller whom they stop.
        message: String,
    },
    /// Go on, and do more.
    Extend {
        /// What more.
        follow_ups: Vec<FollowUp>,
    },
}

/// Changes to an operation. A patch has a form for each kind of operation that can be amended, and no form can change the kind or the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "kebab-case")]
pub enum Patch {
    /// Of `session.create`; `None` leaves a field as it is.
    SessionCreate {
        /// Another display name.
        display_name: Option<String>,
        /// Labels to add or overwrite.
        set_labels: Labels,
        /// Labels to take out.
        #[serde(default)]
        remove_labels: Vec<String>,
        /// Another rate policy.
        rate_policy: Option<String>,
    },
    /// Of `session.labels`.
    SessionLabels {
        /// Labels to add or overwrite.
        set: Labels,
        /// Labels to take out.
        remove: Vec<String>,
    },
    /// Of `session.rate-policy`.
    SessionRatePolicy {
        /// Another policy.
        slug: String,
    },
    /// Of `message.send`.
    MessageSend {
        /// Another text.
        text: String,
    },
}

impl Patch {
    /// The operation with this patch applied; `None` if the patch is for another kind of operation.
    #[must_use]
    pub fn apply(&self, operation: &Operation) -> Option<Operation> {
        let mut amended = operation.clone();
        match (self, &mut amended) {
            (
                Self::SessionCreate { display_name, set_labels, remove_labels, rate_policy },
                Operation::SessionCreate(create),
            ) => {
                create.labels.retain(|key, _| !remove_labels.contains(key));
                create.labels.extend(set_labels.clone());
                if display_name.is_some() {
                    create.display_name.clone_from(display_name);
                }
                if rate_policy.is_some() {
                    create.rate_policy.clone_from(rate_policy);
                }
            }
            (Self::SessionLabels { set, remove }, Operation::SessionLabels { labels, .. }) => {
                labels.retain(|key, _| !remove.contains(key));
                labels.extend(set.clone());
            }
            (Self::SessionRatePolicy { slug: other }, Operation::SessionRatePolicy { slug, .. }) => {
                slug.clone_from(other);
            }
            (Self::MessageSend { text }, Operation::MessageSend(send)) => send.text.clone_from(text),
            _ => return None,
        }
        Some(amended)
    }
}

/// Something done besides the operation, in its own commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum FollowUp {
    /// Unlink the device before going on with a stop or a delete.
    LogOutFirst,
    /// Emit an event of the plugin's own to the organisation's webhooks.
    EmitEvent {
        /// The event's name.
        name: String,
        /// Its payload, a JSON document.
        json: String,
    },
    /// Set a durable timer, or move the one with this key.
    SetTimer {
        /// The timer's key, unique within plugin and organisation.
        key: String,
        /// When it fires.
        at: Timestamp,
        /// What it hands back.
        payload: String,
    },
    /// Take a timer back.
    CancelTimer {
        /// The timer's key.
        key: String,
    },
    /// Set one label on the session.
    SetLabel {
        /// The label's key.
        key: String,
        /// The label's value.
        value: String,
    },
    /// Take one label off the session.
    RemoveLabel {
        /// The label's key.
        key: String,
    },
    /// Choose the session's rate policy.
    SetRatePolicy {
        /// The policy's slug.
        slug: String,
    },
    /// Ask for an operation, as the plugin.
    Request {
        /// The operation.
        operation: Box<Operation>,
    },
}

/// Why a plugin gave no answer that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum PluginFailure {
    /// The guest trapped.
    #[error("the plugin trapped")]
    Trap,
    /// The guest used up its fuel.
    #[error("the plugin used up its instruction budget")]
    Fuel,
    /// The guest used up its time.
    #[error("the plugin ran past its deadline")]
    Deadline,
    /// The guest trapped after it was refused memory.
    #[error("the plugin ran out of memory")]
    Memory,
    /// What the guest answered breaks the contract's bounds.
    #[error("the plugin's answer broke the contract")]
    BadOutput,
    /// The plugin could not be loaded or instantiated.
    #[error("the plugin could not be loaded")]
    Unavailable,
    /// The plugin failed too often and is not asked until somebody looks after it.
    #[error("the plugin is suspended because it failed too often")]
    Suspended,
    /// The organisation's share of calls, or the runtime's, was taken.
    #[error("too many plugin calls were under way")]
    Overloaded,
    /// What the plugin wants to keep, to be woken for or to ask for goes beyond its quota.
    #[error("the plugin would have more keys, timers or requests than it may")]
    Quota,
}

impl PluginFailure {
    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Trap => "plugin_trap",
            Self::Fuel => "plugin_fuel",
            Self::Deadline => "plugin_deadline",
            Self::Memory => "plugin_memory",
            Self::BadOutput => "plugin_bad_output",
            Self::Unavailable => "plugin_unavailable",
            Self::Suspended => "plugin_suspended",
            Self::Overloaded => "plugin_overloaded",
            Self::Quota => "plugin_quota",
        }
    }
}

/// One plugin's answer with all that folding and the record need to know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Place in the chain.
    pub position: u32,
    /// The binding that was asked.
    pub binding: BindingId,
    /// Who owns the binding.
    pub owner: OrgId,
    /// Its plugin.
    pub plugin: PluginId,
    /// The plugin's name, for sentences.
    pub plugin_name: String,
    /// The plugin's version.
    pub version: u32,
    /// SHA-256 of its component.
    pub digest: [u8; 32],
    /// Whose signature the version came with.
    #[serde(default)]
    pub signer: Option<PublisherId>,
    /// Whether the answer counts.
    pub mode: Mode,
    /// Whether it was only asked beside the version that decided, to compare the two.
    #[serde(default)]
    pub shadow: bool,
    /// What stands for a failure.
    pub on_failure: FailureFold,
    /// The answer.
    pub result: Result<Decision, PluginFailure>,
    /// Units of fuel used.
    pub fuel: u64,
    /// Microseconds of wall time used.
    pub micros: u64,
    /// The most bytes of linear memory held.
    pub memory: u64,
}
