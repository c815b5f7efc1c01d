//! What a session is set up with: settings, proxy and temporary link.

use serde::{Deserialize, Serialize};

use crate::{Secret, Timestamp};

/// How a session behaves towards chats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Mark inbound messages as read.
    pub auto_read: bool,
    /// Show "typing" before a send.
    pub presence_typing: bool,
    /// Refuse calls.
    #[serde(default)]
    pub reject_calls: bool,
    /// What a refused caller is told; nothing if it is empty.
    #[serde(default)]
    pub rejected_call_text: String,
    /// Say nothing of what happens in groups.
    #[serde(default)]
    pub ignore_groups: bool,
    /// Show the account as online all the time.
    #[serde(default)]
    pub always_online: bool,
    /// Mark status posts of others as read.
    #[serde(default)]
    pub read_status: bool,
    /// Ask the phone for the whole history when linking.
    #[serde(default)]
    pub full_history: bool,
    /// A token for a voice provider that clients of one dialect keep here; nothing in the gateway reads it.
    #[serde(default = "empty_secret", skip_serializing_if = "is_empty_secret")]
    pub voice_token: Secret,
}

fn empty_secret() -> Secret {
    Secret::new("")
}

fn is_empty_secret(secret: &Secret) -> bool {
    secret.reveal().is_empty()
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            auto_read: true,
            presence_typing: false,
            reject_calls: false,
            rejected_call_text: String::new(),
            ignore_groups: false,
            always_online: false,
            read_status: false,
            full_history: false,
            voice_token: empty_secret(),
        }
    }
}

/// A proxy through which a session connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// How it is spoken to.
    pub protocol: ProxyProtocol,
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who the gateway is to it.
    pub username: Option<String>,
    /// The password that goes with it.
    pub password: Option<Secret>,
}

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocol {
    /// CONNECT over plain HTTP.
    Http,
    /// CONNECT over TLS.
    Https,
    /// SOCKS version 5.
    Socks5,
}

impl ProxyProtocol {
    /// The scheme that people write.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
        }
    }

    /// The protocol with this scheme.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Http, Self::Https, Self::Socks5].into_iter().find(|protocol| protocol.name() == name)
    }
}

/// A temporary link: whoever holds it sees the session's codes until it is linked, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TempLink {
    /// 64 hexadecimal characters.
    pub token: Secret,
    /// From when on it opens nothing.
    pub expires_at: Timestamp,
}

/// How long a temporary link is valid.
/// Source: Wawp's help page on temporary access links.
pub const TEMP_LINK_LIFETIME: std::time::Duration = std::time::Duration::from_secs(30 * 60);
