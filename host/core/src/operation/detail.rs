//! What operations carry: the parts of [`super::Operation`] that have a name of their own.

use serde::{Deserialize, Serialize};

use crate::session::{Proxy, Settings};
use crate::webhook::WebhookSpec;
use crate::{DeliveryId, Labels, OutboxPlace, Secret, SessionId, Timestamp};

/// What a new session is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CreateSession {
    /// What people call it.
    pub display_name: Option<String>,
    /// Its name within the organisation, if the caller chose one.
    pub instance_name: Option<String>,
    /// Its first labels.
    pub labels: Labels,
    /// Its settings.
    pub settings: Settings,
    /// Its rate policy, if the caller chose one.
    pub rate_policy: Option<String>,
    /// Whether pairing begins at once.
    pub start: bool,
    /// Pair by a code for this phone number, digits only, if pairing begins at once; by QR code otherwise.
    #[serde(default)]
    pub pairing_phone: Option<Secret>,
    /// The phone number that it is meant for.
    #[serde(default)]
    pub expected_phone: Option<String>,
    /// A token that opens this session and nothing else.
    #[serde(default)]
    pub token: Option<Secret>,
    /// Whether a token is made for it if the caller chose none.
    #[serde(default)]
    pub make_token: bool,
    /// Its proxy.
    #[serde(default)]
    pub proxy: Option<Proxy>,
    /// Its first webhooks.
    #[serde(default)]
    pub webhooks: Vec<WebhookSpec>,
}

/// A text to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendText {
    /// The session that sends.
    pub session: SessionId,
    /// The recipient's JID.
    pub to: String,
    /// The text.
    pub text: String,
    /// The id of a message that this one answers.
    pub reply_to: Option<String>,
    /// JIDs of people who are mentioned.
    #[serde(default)]
    pub mentions: Vec<String>,
    /// Whether everybody in the group is mentioned.
    #[serde(default)]
    pub mention_all: bool,
    /// For how long the chat sees somebody typing before, in milliseconds.
    #[serde(default)]
    pub typing_millis: u32,
    /// Whether links in the text get a preview.
    #[serde(default)]
    pub link_preview: bool,
}

impl SendText {
    /// A text with nothing else about it.
    #[must_use]
    pub fn plain(session: SessionId, to: impl Into<String>, text: impl Into<String>) -> Self {
        let (to, text) = (to.into(), text.into());
        Self {
            session,
            to,
            text,
            reply_to: None,
            mentions: Vec::new(),
            mention_all: false,
            typing_millis: 0,
            link_preview: false,
        }
    }

    /// Whether it goes to a group.
    #[must_use]
    pub fn is_for_group(&self) -> bool {
        self.to.ends_with("@g.us")
    }
}

/// A setting that stays as it is while all others are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeptSetting {
    /// [`Settings::voice_token`].
    VoiceToken,
    /// [`Settings::presence_typing`].
    PresenceTyping,
}

/// What becomes of a session's temporary link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkChange {
    /// There is a new one, and an older one opens nothing.
    Rotate,
    /// There is none.
    Revoke,
}

/// What an account can be seen doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// Nothing: it is away.
    Unavailable,
    /// Being there.
    Available,
    /// Typing.
    Composing,
    /// Recording a voice message.
    Recording,
    /// No longer typing.
    Paused,
}

impl Presence {
    /// Every presence, in the order of the wire documents.
    pub const ALL: [Presence; 5] = [Self::Unavailable, Self::Available, Self::Composing, Self::Recording, Self::Paused];

    /// The word on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Available => "available",
            Self::Composing => "composing",
            Self::Recording => "recording",
            Self::Paused => "paused",
        }
    }
}

/// What a start does with a session that is not linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenUnpaired {
    /// Refuse.
    Refuse,
    /// Begin pairing by QR code.
    Pair,
}

/// What a logout or a restart does with a session of which nothing runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenStopped {
    /// Refuse.
    Refuse,
    /// Connect: to tell WhatsApp of the logout, or because a restart is a start, too.
    Connect,
}

/// What a request for a pairing code does while pairing by QR code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenPairing {
    /// Refuse.
    Refuse,
    /// Switch to the code.
    Switch,
}

/// Which deliveries to a webhook are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RedeliveryOf {
    /// This one, whatever became of it.
    One(DeliveryId),
    /// Those of what happened within a time.
    Range {
        /// From then on.
        since: Timestamp,
        /// Before then; until now if there is no end.
        until: Option<Timestamp>,
        /// Which of them.
        which: Redelivery,
        /// Beyond this place, up to which others were looked at before.
        after: Option<OutboxPlace>,
    },
}

/// Which deliveries of a range are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Redelivery {
    /// Those that were given up.
    Dead,
    /// Those that were never taken, begun or not.
    Missing,
    /// All.
    All,
}

impl Redelivery {
    /// Every choice.
    pub const EVERY: [Self; 3] = [Self::Dead, Self::Missing, Self::All];

    /// The stable word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Missing => "missing",
            Self::All => "all",
        }
    }
}
