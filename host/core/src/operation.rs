//! The one table of operations: what can be asked of the gateway, and what each asking takes.
//!
//! Authorisation, audit, the policy contract, metrics, OpenAPI and the documentation read [`OperationKind`]'s table; nothing else lists operations.
//! Adding one: a row here, an arm in [`crate::lifecycle`] if it moves a session, a route, and the golden files.

mod detail;

use serde::{Deserialize, Serialize};

use crate::session::{Proxy, Settings};
use crate::webhook::{EventFormat, WebhookChange, WebhookSpec};
use crate::{Binding, BindingId, Capability, Labels, PluginId, PluginVersion, Secret, SessionId, WebhookId};

pub use detail::{
    CreateSession, KeptSetting, LinkChange, Presence, Redelivery, RedeliveryOf, SendText, WhenPairing, WhenStopped,
    WhenUnpaired,
};

/// What an operation asks for, with everything it needs.
/// These are the operations that pass the policy chain; the others are calls of their own with a [`crate::Permit`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
pub enum Operation {
    /// Make a session.
    SessionCreate(CreateSession),
    /// Connect it.
    SessionStart {
        /// The session.
        session: SessionId,
        /// What to do if it is not linked.
        when_unpaired: WhenUnpaired,
    },
    /// Disconnect it, keeping the link.
    SessionStop {
        /// The session.
        session: SessionId,
    },
    /// Disconnect and connect it.
    SessionRestart {
        /// The session.
        session: SessionId,
        /// What to do if it is not linked.
        when_unpaired: WhenUnpaired,
        /// What to do if nothing of it runs.
        when_stopped: WhenStopped,
    },
    /// Unlink its device.
    SessionLogout {
        /// The session.
        session: SessionId,
        /// What to do if nothing of it runs.
        when_stopped: WhenStopped,
    },
    /// Delete it.
    SessionDelete {
        /// The session.
        session: SessionId,
    },
    /// Take a pending delete back.
    SessionRestore {
        /// The session.
        session: SessionId,
    },
    /// Begin pairing by QR code, or go on with it.
    SessionQr {
        /// The session.
        session: SessionId,
    },
    /// Begin pairing by a code to type.
    SessionPairingCode {
        /// The session.
        session: SessionId,
        /// The account's phone number, digits only.
        phone: Secret,
        /// What to do if it is pairing by QR code already.
        when_pairing: WhenPairing,
    },
    /// Replace its labels.
    SessionLabels {
        /// The session.
        session: SessionId,
        /// All labels it has from then on.
        labels: Labels,
    },
    /// Choose its named rate policy.
    SessionRatePolicy {
        /// The session.
        session: SessionId,
        /// The policy's slug.
        slug: String,
    },
    /// Change how it behaves towards chats.
    SessionSettings {
        /// The session.
        session: SessionId,
        /// All settings it has from then on, but for one.
        settings: Settings,
        /// The one that the caller's dialect has no name for; it stays as it is.
        kept: KeptSetting,
    },
    /// Choose the proxy through which it connects, from its next connection on.
    SessionProxy {
        /// The session.
        session: SessionId,
        /// The proxy; none to connect directly.
        proxy: Option<Proxy>,
    },
    /// Make a new temporary link to its codes, or take the present one back.
    SessionLink {
        /// The session.
        session: SessionId,
        /// Which of the two.
        change: LinkChange,
    },
    /// Make a webhook.
    WebhookCreate {
        /// The only session that it hears of.
        session: Option<SessionId>,
        /// What it is to be.
        webhook: WebhookSpec,
    },
    /// Change a webhook.
    WebhookUpdate {
        /// The webhook.
        webhook: WebhookId,
        /// The only session whose webhook it may be; any if there is none.
        within: Option<SessionId>,
        /// What changes.
        change: WebhookChange,
    },
    /// Remove a webhook.
    WebhookDelete {
        /// The webhook.
        webhook: WebhookId,
        /// The only session whose webhook it may be; any if there is none.
        within: Option<SessionId>,
    },
    /// Give a webhook another secret.
    WebhookRotate {
        /// The webhook.
        webhook: WebhookId,
        /// The only session whose webhook it may be; any if there is none.
        within: Option<SessionId>,
        /// The secret; one is made if there is none.
        secret: Option<Secret>,
        /// For how long the one before signs as well, in seconds.
        overlap_seconds: u32,
    },
    /// Tell a webhook that it is being tried out.
    WebhookTest {
        /// The webhook.
        webhook: WebhookId,
        /// The only session whose webhook it may be; any if there is none.
        within: Option<SessionId>,
    },
    /// Have deliveries to a webhook tried again.
    WebhookReplay {
        /// The webhook.
        webhook: WebhookId,
        /// The only session whose webhook it may be; any if there is none.
        within: Option<SessionId>,
        /// Which deliveries.
        of: RedeliveryOf,
    },
    /// Give a session other webhooks in the place of all those that it has in one format.
    WebhookReplace {
        /// The session.
        session: SessionId,
        /// Which of its webhooks are replaced.
        format: EventFormat,
        /// What they become.
        webhooks: Vec<WebhookSpec>,
    },
    /// Keep an uploaded plugin version.
    PluginUpload(Box<PluginVersion>),
    /// Delete a plugin.
    PluginDelete {
        /// The plugin.
        plugin: PluginId,
    },
    /// Bind a plugin.
    BindingCreate(Box<Binding>),
    /// Change a binding to this.
    BindingUpdate(Box<Binding>),
    /// Remove a binding.
    BindingDelete {
        /// The binding.
        binding: BindingId,
    },
    /// Send a text.
    MessageSend(SendText),
    /// Ask WhatsApp which phone numbers it knows.
    NumberCheck {
        /// The session that asks.
        session: SessionId,
        /// Phone numbers, digits only.
        numbers: Vec<String>,
    },
    /// Show a chat, or everybody, what the account is doing.
    PresenceSet {
        /// The session.
        session: SessionId,
        /// The chat's JID; everybody if there is none.
        chat: Option<String>,
        /// What is shown.
        presence: Presence,
        /// For how long it is shown before the answer, in milliseconds.
        hold_millis: u32,
    },
}

impl Operation {
    /// Which row of the table this is.
    #[must_use]
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::SessionCreate(_) => OperationKind::SessionCreate,
            Self::SessionStart { .. } => OperationKind::SessionStart,
            Self::SessionStop { .. } => OperationKind::SessionStop,
            Self::SessionRestart { .. } => OperationKind::SessionRestart,
            Self::SessionLogout { .. } => OperationKind::SessionLogout,
            Self::SessionDelete { .. } => OperationKind::SessionDelete,
            Self::SessionRestore { .. } => OperationKind::SessionRestore,
            Self::SessionQr { .. } => OperationKind::SessionQr,
            Self::SessionPairingCode { .. } => OperationKind::SessionPairingCode,
            Self::SessionLabels { .. } => OperationKind::SessionLabels,
            Self::SessionRatePolicy { .. } => OperationKind::SessionRatePolicy,
            Self::SessionSettings { .. } => OperationKind::SessionSettings,
            Self::SessionProxy { .. } => OperationKind::SessionProxy,
            Self::SessionLink { .. } => OperationKind::SessionLink,
            Self::WebhookCreate { .. } => OperationKind::WebhookCreate,
            Self::WebhookUpdate { .. } => OperationKind::WebhookUpdate,
            Self::WebhookDelete { .. } => OperationKind::WebhookDelete,
            Self::WebhookRotate { .. } => OperationKind::WebhookRotate,
            Self::WebhookTest { .. } => OperationKind::WebhookTest,
            Self::WebhookReplay { .. } => OperationKind::WebhookReplay,
            Self::WebhookReplace { .. } => OperationKind::WebhookReplace,
            Self::PluginUpload(_) => OperationKind::PluginUpload,
            Self::PluginDelete { .. } => OperationKind::PluginDelete,
            Self::BindingCreate(_) => OperationKind::BindingCreate,
            Self::BindingUpdate(_) => OperationKind::BindingUpdate,
            Self::BindingDelete { .. } => OperationKind::BindingDelete,
            Self::MessageSend(_) => OperationKind::MessageSend,
            Self::NumberCheck { .. } => OperationKind::NumberCheck,
            Self::PresenceSet { .. } => OperationKind::PresenceSet,
        }
    }

    /// The session it is about; none for a creation, and for what is about the organisation, or about any webhook of it.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::SessionCreate(_)
            | Self::PluginUpload(_)
            | Self::PluginDelete { .. }
            | Self::BindingCreate(_)
            | Self::BindingUpdate(_)
            | Self::BindingDelete { .. } => None,
            Self::WebhookCreate { session, .. }
            | Self::WebhookUpdate { within: session, .. }
            | Self::WebhookDelete { within: session, .. }
            | Self::WebhookRotate { within: session, .. }
            | Self::WebhookTest { within: session, .. }
            | Self::WebhookReplay { within: session, .. } => *session,
            Self::SessionStart { session, .. }
            | Self::SessionStop { session }
            | Self::SessionRestart { session, .. }
            | Self::SessionLogout { session, .. }
            | Self::SessionDelete { session }
            | Self::SessionRestore { session }
            | Self::SessionQr { session }
            | Self::SessionPairingCode { session, .. }
            | Self::SessionLabels { session, .. }
            | Self::SessionRatePolicy { session, .. }
            | Self::SessionSettings { session, .. }
            | Self::SessionProxy { session, .. }
            | Self::SessionLink { session, .. }
            | Self::WebhookReplace { session, .. }
            | Self::NumberCheck { session, .. }
            | Self::PresenceSet { session, .. }
            | Self::MessageSend(SendText { session, .. }) => Some(*session),
        }
    }
}

impl Operation {
    /// The same for somebody who may only see one session and what is of it.
    #[must_use]
    pub fn seen_from(mut self, scope: Option<SessionId>) -> Self {
        if let Self::WebhookUpdate { within, .. }
        | Self::WebhookDelete { within, .. }
        | Self::WebhookRotate { within, .. }
        | Self::WebhookTest { within, .. }
        | Self::WebhookReplay { within, .. } = &mut self
        {
            *within = scope;
        }
        self
    }
}

macro_rules! operation_table {
    ($($kind:ident $name:literal $capability:ident $mutates:literal $hookable:literal $idempotent:literal $doc:literal;)*) => {
        /// Every kind of operation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum OperationKind {
            $(#[doc = $doc] #[serde(rename = $name)] $kind,)*
        }

        impl OperationKind {
            /// Every kind, in the order of the table.
            pub const ALL: &[OperationKind] = &[$(Self::$kind,)*];

            /// The row of this kind.
            #[must_use]
            pub const fn row(self) -> OperationRow {
                match self {
                    $(Self::$kind => OperationRow {
                        name: $name,
                        capability: Capability::$capability,
                        mutates: $mutates,
                        hookable: $hookable,
                        idempotent: $idempotent,
                        summary: $doc,
                    },)*
                }
            }
        }
    };
}

/// A row of the operation table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationRow {
    /// The stable name, in audit, hooks, metrics and OpenAPI.
    pub name: &'static str,
    /// What the caller must be capable of.
    pub capability: Capability,
    /// Whether it changes anything.
    pub mutates: bool,
    /// Whether the policy chain is asked.
    pub hookable: bool,
    /// Whether asking twice is the same as asking once.
    pub idempotent: bool,
    /// What it does, in a sentence.
    pub summary: &'static str,
}

operation_table! {
    // kind             name                   needs    mutates hookable idempotent
    SessionCreate      "session.create"        Manage   true    true     false "Create a session.";
    SessionStart       "session.start"         Manage   true    true     true  "Connect a session.";
    SessionStop        "session.stop"          Manage   true    true     true  "Disconnect a session and keep its link.";
    SessionRestart     "session.restart"       Manage   true    true     false "Disconnect and connect a session.";
    SessionLogout      "session.logout"        Manage   true    true     true  "Unlink a session's device.";
    SessionDelete      "session.delete"        Manage   true    true     true  "Delete a session.";
    SessionRestore     "session.restore"       Manage   true    true     true  "Take back a pending delete.";
    SessionQr          "session.qr"            Manage   true    true     true  "Read the QR code, beginning to pair if need be.";
    SessionPairingCode "session.pairing-code"  Manage   true    true     false "Begin pairing by a code to type on the phone.";
    SessionLabels      "session.labels"        Manage   true    true     true  "Replace a session's labels.";
    SessionRatePolicy  "session.rate-policy"   Manage   true    true     true  "Choose a session's rate policy.";
    SessionSettings    "session.settings"      Manage   true    true     true  "Change how a session behaves towards chats.";
    SessionProxy       "session.proxy"         Manage   true    true     true  "Choose a session's proxy.";
    SessionLink        "session.link"          Manage   true    true     false "Make or revoke a temporary link to a session's codes.";
    SecretRead         "session.secrets"       Manage   false   false    true  "Read a session's temporary link, token and proxy.";
    SessionRead        "session.read"          Read     false   false    true  "Read sessions.";
    MessageSend        "message.send"          Send     true    true     false "Send a message.";
    MessageRead        "message.read"          Read     false   false    true  "Read what became of a message.";
    NumberCheck        "number.check"          Send     true    true     false "Ask which phone numbers WhatsApp knows.";
    PresenceSet        "presence.set"          Send     true    true     true  "Show what an account is doing.";
    WebhookCreate      "webhook.create"        Manage   true    true     false "Make a webhook.";
    WebhookUpdate      "webhook.update"        Manage   true    true     true  "Change a webhook.";
    WebhookDelete      "webhook.delete"        Manage   true    true     true  "Remove a webhook.";
    WebhookReplace     "webhook.replace"       Manage   true    true     true  "Replace a session's webhooks.";
    WebhookRotate      "webhook.rotate-secret" Manage   true    true     false "Give a webhook another secret.";
    WebhookTest        "webhook.test"          Manage   true    true     false "Tell a webhook that it is being tried out.";
    WebhookReplay      "webhook.replay"        Manage   true    true     false "Have deliveries to a webhook tried again.";
    WebhookRead        "webhook.read"          Manage   false   false    true  "Read webhooks and what they were told.";
    EventTell          "event.tell"            Events   true    false    true  "Tell plugins of something that happened.";
    EventRead          "event.read"            Events   false   false    true  "Follow events as they happen.";
    RealtimeTicket     "realtime.ticket"       Events   true    false    false "Get a ticket for the stream of events.";
    OrgCreate          "org.create"            Operate  true    false    false "Create an organisation.";
    OrgRead            "org.read"              Operate  false   false    true  "Read organisations.";
    OrgUpdate          "org.update"            Operate  true    false    true  "Change an organisation.";
    OrgDelete          "org.delete"            Operate  true    false    true  "Erase an organisation with everything it owns.";
    KeyCreate          "key.create"            Manage   true    false    false "Create an API key.";
    KeyRead            "key.read"              Manage   false   false    true  "Read API keys.";
    KeyRevoke          "key.revoke"            Manage   true    false    true  "Revoke an API key.";
    PluginUpload       "plugin.upload"         Plugins  true    true     true  "Upload a plugin version.";
    PluginRead         "plugin.read"           Plugins  false   false    true  "Read plugins and bindings.";
    PluginDelete       "plugin.delete"         Plugins  true    true     true  "Delete a plugin that nothing binds.";
    BindingCreate      "binding.create"        Plugins  true    true     false "Bind a plugin.";
    BindingUpdate      "binding.update"        Plugins  true    true     true  "Change a binding.";
    BindingDelete      "binding.delete"        Plugins  true    true     true  "Remove a binding.";
    PluginReplay       "plugin.replay"         Plugins  false   false    true  "Ask a plugin again what it was asked before.";
    PluginScan         "plugin.scan"           Plugins  false   false    true  "Ask a plugin about every session.";
    PluginRulesUpdate  "plugin.rules"          Manage   true    false    true  "Change which plugins the organisation takes.";
    SecretPut          "secret.put"            Plugins  true    false    true  "Keep a secret for a plugin.";
    SecretDelete       "secret.delete"         Plugins  true    false    true  "Remove a plugin's secret.";
    PublisherCreate    "publisher.create"      Manage   true    false    false "Register somebody whose signatures on plugins count.";
    PublisherDelete    "publisher.delete"      Manage   true    false    true  "Remove a publisher.";
    DecisionRead       "decision.read"         Audit    false   false    true  "Read recorded decisions.";
    AuditRead          "audit.read"            Audit    false   false    true  "Read the audit.";
    AllSessionsRead    "session.read-all"      Operate  false   false    true  "Read the sessions of all organisations.";
    BackupRead         "backup.read"           Operate  false   false    true  "Take a backup of everything, or of the key file.";
    MasterKeyRotate    "master-key.rotate"     Operate  true    false    false "Change the master key.";
    MetricsRead        "metrics.read"          Operate  false   false    true  "Read the gateway's metrics.";
    Simulate           "simulator.act"         Manage   true    false    false "Act as the phone or the network of a simulated session.";
}

impl OperationKind {
    /// Whether it changes plugins or bindings. About those of an organisation only the platform's plugins are asked,
    /// or a plugin could make itself impossible to remove.
    #[must_use]
    pub const fn is_about_plugins(self) -> bool {
        matches!(
            self,
            Self::PluginUpload | Self::PluginDelete | Self::BindingCreate | Self::BindingUpdate | Self::BindingDelete
        )
    }

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        for kind in OperationKind::ALL {
            assert_eq!(OperationKind::from_name(kind.name()), Some(*kind));
        }
    }

    #[test]
    fn what_is_hookable_mutates() {
        for kind in OperationKind::ALL {
            assert!(kind.row().mutates || !kind.row().hookable, "{} is hooked but changes nothing", kind.name());
        }
    }
}
