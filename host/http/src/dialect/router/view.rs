//! Things as this dialect shows them. Times are milliseconds since the epoch; what is unset is left out.
//!
//! Every view is a type, from which both the wire and the schema in the description of the API are made.

mod admin;
mod message;
mod plugin;
mod profile;
mod request;
mod webhook;

use portcullis_core::session::PairingMethod;
use portcullis_core::{Intent, Labels, OrgId, RateLimits, RatePolicy, Session, SessionId, Status, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use crate::openapi::schema::{Id, LabelsOf, Millis};
use crate::routes::EncodeContext;

pub(super) use admin::{AuditView, KeyView, NewKeyView, OrgView, ReceiptView};
pub(super) use message::{MessageView, SentView};
pub(super) use plugin::{
    BindingView, CatalogueView, FactView, PluginLogView, PluginRulesView, PluginVersionsView, PluginView,
    PublisherView, SecretNameView, UploadBegunView,
};
pub(super) use profile::{LinkView, MadeLinkView, ProxyView, SessionProxyView, SettingsView};
pub(super) use request::RequestView;
pub(super) use webhook::{DeliveryView, RedeliveredView, TestedView, TicketView, WebhookView};

/// A session (`WASession`), with what Portcullis adds.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Session")]
pub(super) struct SessionView<'a> {
    #[schemars(with = "Id<SessionId>")]
    id: SessionId,
    #[schemars(with = "Id<OrgId>")]
    organization_id: OrgId,
    gateway_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    simulated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    /// The names under which the other dialects know it.
    instance_id: &'a str,
    instance_name: &'a str,
    status: StatusWord,
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_jid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_lid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<&'a str>,
    is_admin_session: bool,
    auto_read: bool,
    presence_typing: bool,
    rate_per_min: u32,
    rate_per_hour: u32,
    rate_policy: &'a str,
    #[schemars(with = "LabelsOf")]
    labels: &'a Labels,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    retry_at: Option<Timestamp>,
    /// Since when the connection is lost that the engine is making again; the status is still `working`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    reconnecting_since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unlink: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passkey: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_limit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    delete_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete_reason: Option<&'a str>,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    last_connected_at: Option<Timestamp>,
    #[schemars(with = "Millis")]
    created_at: Timestamp,
    #[schemars(with = "Millis")]
    updated_at: Timestamp,
}

impl<'a> SessionView<'a> {
    pub(super) fn of(session: &'a Session, context: &EncodeContext<'a>) -> Self {
        let device = session.linked_device();
        let limits = named_limits(&session.rate_policy);
        Self {
            id: session.id,
            organization_id: session.org,
            gateway_id: context.gateway_id,
            simulated: context.simulated.then_some(true),
            label: session.display_name.as_deref(),
            instance_id: &session.names.instance_id,
            instance_name: &session.names.instance_name,
            status: status(session),
            wa_jid: device.map(|device| device.jid.as_str()),
            wa_lid: device.and_then(|device| device.lid.as_deref()),
            phone_number: device.map(portcullis_core::Device::phone),
            is_admin_session: false,
            auto_read: session.settings.auto_read,
            presence_typing: session.settings.presence_typing,
            rate_per_min: limits.map_or(0, |limits| limits.send_message_per_minute),
            rate_per_hour: limits.map_or(0, |limits| limits.send_message_per_minute.saturating_mul(60)),
            rate_policy: &session.rate_policy,
            labels: &session.labels,
            failure: if let Status::Failed { cause, .. } = session.status { Some(cause.name()) } else { None },
            retry_at: if let Status::Failed { retry: Some(retry), .. } = session.status {
                Some(retry.at)
            } else {
                None
            },
            reconnecting_since: if let Status::Reconnecting { since, .. } = session.status {
                Some(since)
            } else {
                None
            },
            unlink: if let Status::LoggedOut { unlink, .. } = session.status { Some(unlink.name()) } else { None },
            passkey: matches!(session.status, Status::Pairing { method: PairingMethod::Passkey, .. }).then_some(true),
            account_limit: session.account_limit.as_ref().map(|limit| limit.code.as_str()),
            delete_at: session.delete_due(),
            delete_reason: match (&session.intent, session.delete_due()) {
                (Intent::Removed { reason, .. }, Some(_)) => Some(reason),
                _ => None,
            },
            generation: session.generation,
            last_connected_at: session.last_connected_at,
            created_at: session.created_at,
            updated_at: session.updated_at,
        }
    }
}

/// A session on its way out: ids, times and a word. The same is told again to whoever asks with the same idempotency key, also when
/// the session is gone, so it says nothing that has to go with it.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeletionView<'a> {
    #[schemars(with = "Id<SessionId>")]
    id: SessionId,
    #[schemars(with = "Id<OrgId>")]
    organization_id: OrgId,
    instance_id: &'a str,
    status: StatusWord,
    /// Until when it can be restored; there is none once it is being deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    delete_at: Option<Timestamp>,
    #[schemars(with = "Millis")]
    created_at: Timestamp,
    #[schemars(with = "Millis")]
    updated_at: Timestamp,
}

impl<'a> DeletionView<'a> {
    pub(super) fn of(session: &'a Session) -> Self {
        Self {
            id: session.id,
            organization_id: session.org,
            instance_id: &session.names.instance_id,
            status: status(session),
            delete_at: session.delete_due(),
            created_at: session.created_at,
            updated_at: session.updated_at,
        }
    }
}

fn named_limits(slug: &str) -> Option<RateLimits> {
    portcullis_core::rate::built_in_policy(slug).map(|policy| policy.limits)
}

/// The dialect's words for a session's status.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "SessionStatus")]
pub(super) enum StatusWord {
    /// Not connected.
    Stopped,
    /// Connecting, or being linked.
    Starting,
    /// A code waits to be scanned or typed.
    ScanQrCode,
    /// Connected, but for short losses of the connection.
    Working,
    /// Not connected, and it will not be by itself.
    Failed,
    /// Its device was unlinked.
    LoggedOut,
}

/// The dialect's word for a session's status. Whoever waits to be deleted is stopped; a short loss of connection is still working.
fn status(session: &Session) -> StatusWord {
    if matches!(session.intent, Intent::Removed { .. }) {
        return StatusWord::Stopped;
    }
    match session.status {
        Status::Stopped | Status::Removing { .. } => StatusWord::Stopped,
        Status::Starting { .. } => StatusWord::Starting,
        Status::Pairing { .. } => StatusWord::ScanQrCode,
        Status::Online { .. } | Status::Reconnecting { .. } => StatusWord::Working,
        Status::LoggedOut { .. } => StatusWord::LoggedOut,
        Status::Failed { .. } => StatusWord::Failed,
    }
}

/// A page of things.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ListOf{T}")]
pub(super) struct List<T> {
    data: Vec<T>,
    /// What to pass as `cursor` to get the next page; left out at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Things in the form of a list.
pub(super) fn list<T>(data: impl IntoIterator<Item = T>, next: Option<String>) -> List<T> {
    List { data: data.into_iter().collect(), next_cursor: next }
}

/// The account that a session is linked to.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "LinkedAccount")]
pub(super) struct MeView<'a> {
    #[schemars(with = "Id<SessionId>")]
    session_id: SessionId,
    status: StatusWord,
    wa_jid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_lid: Option<&'a str>,
    phone_number: &'a str,
    connected: bool,
}

impl<'a> MeView<'a> {
    /// None if the session is not linked.
    pub(super) fn of(session: &'a Session) -> Option<Self> {
        let device = session.linked_device()?;
        Some(Self {
            session_id: session.id,
            status: status(session),
            wa_jid: &device.jid,
            wa_lid: device.lid.as_deref(),
            phone_number: device.phone(),
            connected: matches!(session.status, Status::Online { .. }),
        })
    }
}

/// A code to scan or to type.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PairingCode")]
pub(super) struct CodeView<'a> {
    code: &'a str,
    #[schemars(with = "Millis")]
    expires_at: Timestamp,
    /// The QR code as a `data:` URL, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
}

impl<'a> CodeView<'a> {
    pub(super) fn of(code: &'a portcullis_core::session::PairingCode, image: Option<String>) -> Self {
        Self { code: code.text.reveal(), expires_at: code.expires_at, image }
    }
}

/// The limits under a rate policy; zero means unlimited.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RateLimits")]
struct LimitsView {
    send_message_per_minute: u32,
    send_message_daily_cap: u32,
    account_protection_seconds: u32,
    concurrent_limit: u32,
    group_req_per_minute: u32,
    group_daily_cap: u32,
    check_req_per_minute: u32,
    check_daily_cap: u32,
}

impl LimitsView {
    fn of(limits: &RateLimits) -> Self {
        Self {
            send_message_per_minute: limits.send_message_per_minute,
            send_message_daily_cap: limits.send_message_daily_cap,
            account_protection_seconds: limits.account_protection_seconds,
            concurrent_limit: limits.concurrent_limit,
            group_req_per_minute: limits.group_req_per_minute,
            group_daily_cap: limits.group_daily_cap,
            check_req_per_minute: limits.check_req_per_minute,
            check_daily_cap: limits.check_daily_cap,
        }
    }
}

/// A named rate policy.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RatePolicy")]
struct PolicyView<'a> {
    slug: &'a str,
    name: &'a str,
    /// Whether organisations without an active plan may use it.
    free: bool,
    limits: LimitsView,
}

/// A session's rate policy, what is used of it, and the others that there are.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SessionRatePolicy")]
pub(super) struct RatePolicyView<'a> {
    #[schemars(with = "Id<SessionId>")]
    session_id: SessionId,
    policy: &'a str,
    limits: LimitsView,
    used: UsedView,
    policies: Vec<PolicyView<'a>>,
}

/// Sends that count now.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RateUse")]
struct UsedView {
    last_minute: u64,
    today: u64,
}

impl<'a> RatePolicyView<'a> {
    pub(super) fn of(session: SessionId, current: &'a RatePolicy, all: &'a [RatePolicy], used: (u64, u64)) -> Self {
        let policies = all.iter().map(|policy| PolicyView {
            slug: &policy.slug,
            name: &policy.name,
            free: policy.free,
            limits: LimitsView::of(&policy.limits),
        });
        Self {
            session_id: session,
            policy: &current.slug,
            limits: LimitsView::of(&current.limits),
            used: UsedView { last_minute: used.0, today: used.1 },
            policies: policies.collect(),
        }
    }
}

pub(super) fn sha256(digest: &[u8; 32]) -> String {
    use std::fmt::Write;
    digest.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
