//! Domain events: what happened, as customers hear of it.
//!
//! Events are written in the commit of what they tell; the webhook pump delivers them from there.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::session::{AccountLimit, FailureCause, LoggedOutBy, PairingCode, PairingMethod};
use crate::webhook::DisabledBecause;
use crate::{Device, EventId, MessageId, OrgId, Session, SessionId, Timestamp, Unlink, WebhookId};

/// One event, as it lies in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainEvent {
    /// Its id, stable over every delivery.
    pub id: EventId,
    /// In whose organisation it happened.
    pub org: OrgId,
    /// To which session it happened.
    pub session: Option<SessionId>,
    /// When.
    pub at: Timestamp,
    /// The session's generation that it belongs to; orders the events of one session.
    pub generation: u64,
    /// The device that its session was linked to then: it may be another by the time at which this is told. It is personal, so
    /// events that outlive their sessions are without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// What happened.
    pub body: EventBody,
}

impl DomainEvent {
    /// The event of a session, as it is after what has happened.
    #[must_use]
    pub fn of(session: &Session, id: EventId, at: Timestamp, body: EventBody) -> Self {
        let device = session.linked_device().filter(|_| !body.outlives_session()).cloned();
        Self { id, org: session.org, session: Some(session.id), at, generation: session.generation, device, body }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventBody {
    /// A session was made.
    SessionCreated,
    /// A session's status changed.
    StatusChanged {
        /// The status before, by its stable name.
        from: String,
        /// The status after, by its stable name.
        to: String,
        /// Why it failed, if it did.
        cause: Option<FailureCause>,
        /// Who unlinked the device, if it is logged out.
        #[serde(default)]
        by: Option<LoggedOutBy>,
    },
    /// There is a new code to show or tell to the phone.
    PairingCodeIssued {
        /// Which kind of code.
        method: PairingMethod,
        /// The code, a credential.
        code: PairingCode,
    },
    /// WhatsApp asks for a passkey, which only the account's owner can give.
    PasskeyRequested,
    /// A device was linked.
    Linked {
        /// The device.
        device: Device,
    },
    /// The device was unlinked.
    Unlinked {
        /// Whether WhatsApp has heard of it.
        #[serde(default = "Unlink::not_linked")]
        unlink: Unlink,
    },
    /// WhatsApp limited the account.
    AccountLimited {
        /// The limit.
        limit: AccountLimit,
    },
    /// The rate policy changed.
    RatePolicyChanged {
        /// The new policy's slug.
        slug: String,
    },
    /// The labels changed.
    LabelsChanged,
    /// The settings or the proxy changed.
    SettingsChanged,
    /// A delete was put off.
    DeleteScheduled {
        /// Until when.
        due: Timestamp,
        /// Why.
        reason: String,
    },
    /// A pending delete was taken back.
    Restored,
    /// A due delete was cancelled by policy.
    DeleteCancelled {
        /// The policy's code.
        code: String,
        /// The policy's sentence.
        reason: String,
    },
    /// A deletion began.
    Deleting,
    /// A session is gone.
    Deleted,
    /// A version of a plugin failed too often in an organisation and is no longer asked there.
    PluginSuspended {
        /// The plugin's name.
        plugin: String,
        /// Which version of it.
        version: u32,
        /// Where; whoever owns a plugin of the platform hears of other organisations, too.
        org: OrgId,
    },
    /// Policy denied an operation.
    PolicyDenied {
        /// The operation's name.
        operation: String,
        /// The first denial's code.
        code: String,
    },
    /// A message came in.
    MessageIn {
        /// WhatsApp's id of the message.
        message: String,
        /// In which chat, a JID: the sender's or a group's.
        from: String,
        /// Who sent it, a JID, if the chat does not say so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sender: Option<String>,
        /// What the sender calls themselves.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// When it was sent, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sent_at: Option<Timestamp>,
        /// Its text.
        text: String,
    },
    /// A message went out.
    MessageOut {
        /// WhatsApp's id of the message.
        message: String,
        /// To whom, a JID.
        to: String,
        /// The message's own id, if it is remembered.
        #[serde(default)]
        delivery: Option<MessageId>,
        /// Its text, as policy left it.
        #[serde(default)]
        text: Option<String>,
    },
    /// A message that was asked for without waiting was not sent.
    MessageFailed {
        /// The message's own id.
        delivery: MessageId,
        /// To whom, a JID.
        to: String,
        /// The stable code of the error.
        code: String,
    },
    /// Messages have come further on their way.
    MessageStatus {
        /// WhatsApp's ids of the messages.
        messages: Vec<String>,
        /// The chat that they are in, a JID.
        chat: String,
        /// How far they are.
        stage: MessageStage,
    },
    /// A webhook is no longer told anything.
    WebhookDisabled {
        /// Which one.
        webhook: WebhookId,
        /// Why.
        why: DisabledBecause,
    },
    /// The owner of a webhook tries it out. Nobody else is told.
    WebhookTest {
        /// Which one.
        webhook: WebhookId,
    },
    /// The organisation told a fact of its own.
    Fact {
        /// The id that the organisation gave it.
        id: String,
        /// Its name, such as `subscription.cancelled`.
        name: String,
        /// Its payload, a JSON document.
        json: String,
    },
    /// A plugin emitted an event of its own.
    PluginEvent {
        /// The plugin's name.
        plugin: String,
        /// The event's name.
        name: String,
        /// Its payload, a JSON document.
        json: String,
    },
}

impl EventBody {
    /// Whether the event is still to be delivered after its session was erased: it holds nothing but ids, times and stable words.
    #[must_use]
    pub fn outlives_session(&self) -> bool {
        match self {
            Self::SessionCreated
            | Self::StatusChanged { .. }
            | Self::Unlinked { .. }
            | Self::Restored
            | Self::Deleting
            | Self::Deleted => true,
            Self::PairingCodeIssued { .. }
            | Self::PasskeyRequested
            | Self::Linked { .. }
            | Self::AccountLimited { .. }
            | Self::RatePolicyChanged { .. }
            | Self::LabelsChanged
            | Self::SettingsChanged
            | Self::DeleteScheduled { .. }
            | Self::DeleteCancelled { .. }
            | Self::PluginSuspended { .. }
            | Self::PolicyDenied { .. }
            | Self::MessageIn { .. }
            | Self::MessageOut { .. }
            | Self::MessageFailed { .. }
            | Self::MessageStatus { .. }
            | Self::WebhookDisabled { .. }
            | Self::WebhookTest { .. }
            | Self::Fact { .. }
            | Self::PluginEvent { .. } => false,
        }
    }

    /// Whether it counts among the events of its session or organisation, as customers number them. What is told to nobody in
    /// Portcullis's own words does not, so that a gap in the numbers is a loss.
    #[must_use]
    pub fn counts(&self) -> bool {
        const CONNECTED: [&str; 2] = ["online", "reconnecting"];
        match self {
            // A short loss of the connection is no change to whoever uses it, and events of their own tell of the end.
            Self::StatusChanged { from, to, .. } => {
                to != "removing" && from != to && !(CONNECTED.contains(&&**from) && CONNECTED.contains(&&**to))
            }
            // Only whoever tries their webhook out hears of that.
            Self::WebhookTest { .. } => false,
            _ => true,
        }
    }

    /// What plugins are told of it besides its name: a JSON document without credentials, of which a pairing code is one.
    #[must_use]
    pub fn document(&self) -> Value {
        match self {
            Self::SessionCreated
            | Self::LabelsChanged
            | Self::SettingsChanged
            | Self::Restored
            | Self::Deleting
            | Self::Deleted => json!({}),
            Self::StatusChanged { from, to, cause, by: _ } => {
                json!({ "from": from, "to": to, "cause": cause.map(|cause| cause.name()) })
            }
            Self::PairingCodeIssued { .. } | Self::PasskeyRequested => json!({}),
            Self::Unlinked { unlink } => json!({ "unlink": unlink.name() }),
            Self::Linked { device } => json!({ "jid": format!("{}@s.whatsapp.net", device.phone()) }),
            Self::AccountLimited { limit } => json!({ "code": limit.code }),
            Self::RatePolicyChanged { slug } => json!({ "slug": slug }),
            Self::DeleteScheduled { due, reason } => json!({ "due": due, "reason": reason }),
            Self::DeleteCancelled { code, reason } => json!({ "code": code, "reason": reason }),
            Self::PluginSuspended { plugin, version, org } => {
                json!({ "plugin": plugin, "version": version, "organization": org })
            }
            Self::PolicyDenied { operation, code } => json!({ "operation": operation, "code": code }),
            Self::MessageIn { message, from, sender, text, .. } => {
                let mut document = json!({ "message": message, "from": from, "text": text });
                if let Some(sender) = sender {
                    document["sender"] = json!(sender);
                }
                document
            }
            Self::MessageOut { message, to, delivery, text: _ } => {
                json!({ "message": message, "to": to, "delivery": delivery })
            }
            Self::MessageFailed { delivery, to, code } => json!({ "delivery": delivery, "to": to, "code": code }),
            Self::MessageStatus { messages, chat, stage } => {
                json!({ "messages": messages, "chat": chat, "status": stage.name() })
            }
            Self::WebhookDisabled { webhook, why } => json!({ "webhook": webhook, "reason": why.name() }),
            Self::WebhookTest { webhook } => json!({ "webhook": webhook }),
            Self::Fact { id, json, .. } => json!({ "id": id, "data": parsed(json) }),
            Self::PluginEvent { plugin, name, json } => {
                json!({ "plugin": plugin, "name": name, "data": parsed(json) })
            }
        }
    }

    /// The name under which plugins hear of it: a fact's own, and the stable name of everything else.
    #[must_use]
    pub fn told_name(&self) -> &str {
        match self {
            Self::Fact { name, .. } => name,
            _ => self.name(),
        }
    }

    /// The stable name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// What kind of event it is.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        match self {
            Self::SessionCreated => EventKind::SessionCreated,
            Self::StatusChanged { .. } => EventKind::StatusChanged,
            Self::PairingCodeIssued { method: PairingMethod::Code, .. } => EventKind::PairingCode,
            Self::PairingCodeIssued { method: PairingMethod::Qr | PairingMethod::Passkey, .. } => EventKind::Qr,
            Self::PasskeyRequested => EventKind::Passkey,
            Self::Linked { .. } => EventKind::Linked,
            Self::Unlinked { .. } => EventKind::Unlinked,
            Self::AccountLimited { .. } => EventKind::AccountLimited,
            Self::RatePolicyChanged { .. } => EventKind::RatePolicyChanged,
            Self::LabelsChanged => EventKind::LabelsChanged,
            Self::SettingsChanged => EventKind::SettingsChanged,
            Self::DeleteScheduled { .. } => EventKind::DeleteScheduled,
            Self::Restored => EventKind::Restored,
            Self::DeleteCancelled { .. } => EventKind::DeleteCancelled,
            Self::Deleting => EventKind::Deleting,
            Self::Deleted => EventKind::Deleted,
            Self::PluginSuspended { .. } => EventKind::PluginSuspended,
            Self::PolicyDenied { .. } => EventKind::PolicyDenied,
            Self::MessageIn { .. } => EventKind::MessageIn,
            Self::MessageOut { .. } => EventKind::MessageOut,
            Self::MessageFailed { .. } => EventKind::MessageFailed,
            Self::MessageStatus { .. } => EventKind::MessageStatus,
            Self::WebhookDisabled { .. } => EventKind::WebhookDisabled,
            Self::WebhookTest { .. } => EventKind::WebhookTest,
            Self::Fact { .. } => EventKind::Fact,
            Self::PluginEvent { .. } => EventKind::PluginEvent,
        }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $number:literal $name:literal;)*) => {
        /// The kinds of events. Their numbers are kept beside events, so that whoever does not want one need not open it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum EventKind {
            $($(#[$doc])* $kind = $number,)*
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The stable name, under which plugins and the native form of webhooks know it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// The kind with this number.
            #[must_use]
            pub fn parse(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$kind),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// [`EventBody::SessionCreated`].
    SessionCreated = 1 "session.created";
    /// [`EventBody::StatusChanged`].
    StatusChanged = 2 "session.status";
    /// [`EventBody::PairingCodeIssued`], a code to scan.
    Qr = 3 "session.qr";
    /// [`EventBody::PairingCodeIssued`], a code to type.
    PairingCode = 4 "session.pairing-code";
    /// [`EventBody::PasskeyRequested`].
    Passkey = 5 "session.passkey";
    /// [`EventBody::Linked`].
    Linked = 6 "session.linked";
    /// [`EventBody::Unlinked`].
    Unlinked = 7 "session.unlinked";
    /// [`EventBody::AccountLimited`].
    AccountLimited = 8 "session.limited";
    /// [`EventBody::RatePolicyChanged`].
    RatePolicyChanged = 9 "session.rate-policy";
    /// [`EventBody::LabelsChanged`].
    LabelsChanged = 10 "session.labels";
    /// [`EventBody::SettingsChanged`].
    SettingsChanged = 11 "session.settings";
    /// [`EventBody::DeleteScheduled`].
    DeleteScheduled = 12 "session.delete-scheduled";
    /// [`EventBody::Restored`].
    Restored = 13 "session.restored";
    /// [`EventBody::DeleteCancelled`].
    DeleteCancelled = 14 "session.delete-cancelled";
    /// [`EventBody::Deleting`].
    Deleting = 15 "session.deleting";
    /// [`EventBody::Deleted`].
    Deleted = 16 "session.deleted";
    /// [`EventBody::PluginSuspended`].
    PluginSuspended = 17 "plugin.suspended";
    /// [`EventBody::PolicyDenied`].
    PolicyDenied = 18 "policy.denied";
    /// [`EventBody::MessageIn`].
    MessageIn = 19 "message.in";
    /// [`EventBody::MessageOut`].
    MessageOut = 20 "message.out";
    /// [`EventBody::MessageFailed`].
    MessageFailed = 21 "message.failed";
    /// [`EventBody::MessageStatus`].
    MessageStatus = 22 "message.status";
    /// [`EventBody::WebhookDisabled`].
    WebhookDisabled = 23 "webhook.disabled";
    /// [`EventBody::Fact`].
    Fact = 24 "fact";
    /// [`EventBody::PluginEvent`].
    PluginEvent = 25 "plugin.event";
    /// [`EventBody::WebhookTest`].
    WebhookTest = 26 "webhook.test";
}

/// How far a message is on its way to its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MessageStage {
    /// WhatsApp has it.
    Sent,
    /// The recipient's phone has it.
    Delivered,
    /// The recipient has opened the chat.
    Read,
    /// The recipient has listened to it.
    Played,
    /// WhatsApp gave it up.
    Failed,
}

impl MessageStage {
    /// The stable word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Played => "played",
            Self::Failed => "failed",
        }
    }
}

/// A document that was checked to be JSON when it came in.
fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}
