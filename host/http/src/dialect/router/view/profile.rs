//! What a session is set up with.

use portcullis_core::session::Settings;
use portcullis_core::{Proxy, Session, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use crate::openapi::schema::Millis;
use crate::routes::EncodeContext;

/// How a session behaves towards chats.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Settings")]
pub(in super::super) struct SettingsView<'a> {
    auto_read: bool,
    presence_typing: bool,
    reject_calls: bool,
    rejected_call_text: &'a str,
    ignore_groups: bool,
    always_online: bool,
    read_status: bool,
    full_history: bool,
}

impl<'a> SettingsView<'a> {
    pub(in super::super) fn of(settings: &'a Settings) -> Self {
        Self {
            auto_read: settings.auto_read,
            presence_typing: settings.presence_typing,
            reject_calls: settings.reject_calls,
            rejected_call_text: &settings.rejected_call_text,
            ignore_groups: settings.ignore_groups,
            always_online: settings.always_online,
            read_status: settings.read_status,
            full_history: settings.full_history,
        }
    }
}

/// The proxy of a session, if it has one.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SessionProxy")]
pub(in super::super) struct SessionProxyView<'a> {
    pub(in super::super) proxy: Option<ProxyView<'a>>,
}

/// A proxy. Its password is never shown; that there is one is.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Proxy")]
pub(in super::super) struct ProxyView<'a> {
    protocol: &'static str,
    host: &'a str,
    port: u16,
    username: Option<&'a str>,
    with_password: bool,
}

impl<'a> ProxyView<'a> {
    pub(in super::super) fn of(proxy: &'a Proxy) -> Self {
        Self {
            protocol: proxy.protocol.name(),
            host: &proxy.host,
            port: proxy.port,
            username: proxy.username.as_deref(),
            with_password: proxy.password.is_some(),
        }
    }
}

/// The temporary link to a session's codes; null if there is none.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Link")]
pub(in super::super) enum LinkView {
    There(MadeLinkView),
    None { link: () },
}

/// A temporary link to a session's codes.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ActiveLink")]
pub(in super::super) struct MadeLinkView {
    link: String,
    #[schemars(with = "Millis")]
    expires_at: Timestamp,
}

impl LinkView {
    pub(in super::super) fn of(session: &Session, context: &EncodeContext<'_>) -> Self {
        match session.active_link(context.now) {
            None => Self::None { link: () },
            Some(link) => Self::There(MadeLinkView {
                link: format!("{}/temp-qr/{}", context.public_url, link.token.reveal()),
                expires_at: link.expires_at,
            }),
        }
    }
}
