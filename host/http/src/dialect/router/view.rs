//! Things as this dialect shows them. Times are milliseconds since the epoch; what is unset is left out.

use portcullis_core::session::PairingMethod;
use portcullis_core::{
    ApiKey, AuditEntry, AuditOutcome, Binding, Grant, Intent, Labels, OperationKind, Org, PluginVersion, RateLimits,
    Session, Status, Timestamp,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::routes::EncodeContext;

/// A session (`WASession`), with what Portcullis adds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionView<'a> {
    id: portcullis_core::SessionId,
    organization_id: portcullis_core::OrgId,
    gateway_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    simulated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    status: &'static str,
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
    labels: &'a Labels,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passkey: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_limit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete_reason: Option<&'a str>,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_connected_at: Option<Timestamp>,
    created_at: Timestamp,
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
            failure: if let Status::Failed { cause } = session.status { Some(cause.name()) } else { None },
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

/// The numbers of the named policies do not change while the gateway runs.
fn named_limits(slug: &str) -> Option<RateLimits> {
    static POLICIES: std::sync::LazyLock<Vec<portcullis_core::RatePolicy>> =
        std::sync::LazyLock::new(portcullis_core::rate::built_in_policies);
    POLICIES.iter().find(|policy| policy.slug == slug).map(|policy| policy.limits)
}

/// The dialect's word for a session's status. Whoever waits to be deleted is stopped; a short loss of connection is still working.
pub(super) fn status(session: &Session) -> &'static str {
    if matches!(session.intent, Intent::Removed { .. }) {
        return "stopped";
    }
    match session.status {
        Status::Stopped | Status::Removing { .. } => "stopped",
        Status::Starting { .. } => "starting",
        Status::Pairing { .. } => "scan_qr_code",
        Status::Online { .. } | Status::Reconnecting { .. } => "working",
        Status::LoggedOut { .. } => "logged_out",
        Status::Failed { .. } => "failed",
    }
}

/// A list: `{"data": […], "nextCursor"?}`.
pub(super) fn list(data: Vec<Value>, next: Option<String>) -> Value {
    let mut list = json!({});
    list["data"] = Value::Array(data);
    set(&mut list, "nextCursor", next);
    list
}

pub(super) fn limits(limits: &RateLimits) -> Value {
    json!({
        "sendMessagePerMinute": limits.send_message_per_minute,
        "sendMessageDailyCap": limits.send_message_daily_cap,
        "accountProtectionSeconds": limits.account_protection_seconds,
        "concurrentLimit": limits.concurrent_limit,
        "groupReqPerMinute": limits.group_req_per_minute,
        "groupDailyCap": limits.group_daily_cap,
        "checkReqPerMinute": limits.check_req_per_minute,
        "checkDailyCap": limits.check_daily_cap,
    })
}

pub(super) fn org(org: &Org) -> Value {
    json!({
        "id": org.id,
        "name": org.name,
        "plan": org.plan,
        "quotas": org.quotas,
        "labels": org.labels,
        "suspended": org.suspended,
        "createdAt": org.created_at,
        "updatedAt": org.updated_at,
    })
}

pub(super) fn key(key: &ApiKey) -> Value {
    let mut view = json!({
        "id": key.id,
        "organizationId": key.org,
        "name": key.name,
        "capabilities": key.capabilities,
        "createdAt": key.created_at,
    });
    set(&mut view, "sessionId", key.session_scope);
    set(&mut view, "expiresAt", key.expires_at);
    set(&mut view, "revokedAt", key.revoked_at);
    view
}

pub(super) fn plugin(version: &PluginVersion) -> Value {
    let hooks: Vec<_> = version.hooks.iter().map(|kind| kind.name()).collect();
    let wants: Vec<_> = version.wants.iter().map(|grant: &Grant| grant.name()).collect();
    let schema = version.settings_schema.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let mut describe = json!({
        "name": version.name,
        "version": version.declared_version,
        "description": version.description,
        "exports": version.exports,
        "hooks": hooks,
        "wants": wants,
        "contract": version.contract,
    });
    set(&mut describe, "settingsSchema", schema);
    json!({
        "id": version.plugin,
        "version": version.version,
        "digest": format!("sha256:{}", hex(&version.digest)),
        "size": version.size,
        "uploadedAt": version.uploaded_at,
        "describe": describe,
    })
}

pub(super) fn binding(binding: &Binding) -> Value {
    let hooks: Vec<_> = binding.hooks.iter().map(|kind: &OperationKind| kind.name()).collect();
    json!({
        "id": binding.id,
        "plugin": binding.plugin,
        "version": binding.version,
        "hooks": hooks,
        "mode": binding.mode,
        "settings": serde_json::from_str::<Value>(&binding.settings).unwrap_or(Value::Null),
        "onFailure": binding.on_failure,
        "order": binding.order,
        "grants": binding.grants,
        "selector": binding.selector,
        "createdAt": binding.created_at,
        "updatedAt": binding.updated_at,
    })
}

pub(super) fn audit(entry: &AuditEntry) -> Value {
    let mut view = json!({
        "id": entry.id,
        "at": entry.at,
        "actor": entry.actor,
        "operation": entry.operation.name(),
        "outcome": entry.outcome.name(),
    });
    match &entry.outcome {
        AuditOutcome::Deferred { until } => view["until"] = json!(until),
        AuditOutcome::Vetoed { code } | AuditOutcome::Refused { code } | AuditOutcome::Denied { code } => {
            view["code"] = json!(code);
        }
        AuditOutcome::Erased { since, slot_digest } => {
            view["since"] = json!(since);
            view["slotDigest"] = json!(slot_digest);
        }
        AuditOutcome::Done | AuditOutcome::Unchanged => {}
    }
    set(&mut view, "sessionId", entry.session);
    set(&mut view, "subject", entry.subject.as_deref());
    set(&mut view, "requestId", entry.request);
    set(&mut view, "decisionId", entry.decision);
    view
}

/// Sets a field unless there is nothing to set.
pub(super) fn set(view: &mut Value, field: &str, value: Option<impl Serialize>) {
    if let Some(value) = value {
        view[field] = json!(value);
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
