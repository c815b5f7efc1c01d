//! Organisations, keys and lines of the audit.

use portcullis_core::{
    ApiKey, AuditEntry, AuditId, AuditOutcome, Capabilities, DecisionId, KeyId, Labels, OperationKind, Org, OrgId,
    Plan, PrincipalKind, Quotas, RequestId, SessionId, Timestamp,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::plugin::PluginRulesView;
use crate::openapi::schema::{ActorOf, CapabilityOf, Id, LabelsOf, Millis, OperationOf, PlanOf, QuotasOf};

/// An organisation.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Organisation")]
pub(in super::super) struct OrgView<'a> {
    #[schemars(with = "Id<OrgId>")]
    id: OrgId,
    name: &'a str,
    #[schemars(with = "PlanOf")]
    plan: &'a Plan,
    #[schemars(with = "QuotasOf")]
    quotas: &'a Quotas,
    #[schemars(with = "LabelsOf")]
    labels: &'a Labels,
    /// A suspended organisation may read, but nothing else.
    suspended: bool,
    plugin_rules: PluginRulesView<'a>,
    #[schemars(with = "Millis")]
    created_at: Timestamp,
    #[schemars(with = "Millis")]
    updated_at: Timestamp,
}

impl<'a> OrgView<'a> {
    pub(in super::super) fn of(org: &'a Org) -> Self {
        Self {
            id: org.id,
            name: &org.name,
            plan: &org.plan,
            quotas: &org.quotas,
            labels: &org.labels,
            suspended: org.suspended,
            plugin_rules: PluginRulesView::of(&org.plugin_rules),
            created_at: org.created_at,
            updated_at: org.updated_at,
        }
    }
}

/// An API key, without the key itself.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ApiKey")]
pub(in super::super) struct KeyView<'a> {
    #[schemars(with = "Id<KeyId>")]
    id: KeyId,
    #[schemars(with = "Id<OrgId>")]
    organization_id: OrgId,
    name: &'a str,
    #[schemars(with = "Vec<CapabilityOf>")]
    capabilities: Capabilities,
    #[schemars(with = "Millis")]
    created_at: Timestamp,
    /// The only session that the key opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<SessionId>>")]
    session_id: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    revoked_at: Option<Timestamp>,
}

impl<'a> KeyView<'a> {
    pub(in super::super) fn of(key: &'a ApiKey) -> Self {
        Self {
            id: key.id,
            organization_id: key.org,
            name: &key.name,
            capabilities: key.capabilities,
            created_at: key.created_at,
            session_id: key.session_scope,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
        }
    }
}

/// A new API key, with the key itself.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NewApiKey")]
pub(in super::super) struct NewKeyView<'a> {
    #[serde(flatten)]
    of: KeyView<'a>,
    /// The key. It is shown this once.
    key: &'a str,
}

impl<'a> NewKeyView<'a> {
    pub(in super::super) fn of(key: &'a ApiKey, text: &'a str) -> Self {
        Self { of: KeyView::of(key), key: text }
    }
}

/// A line of the audit.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "AuditEntry")]
pub(in super::super) struct AuditView<'a> {
    #[schemars(with = "Id<AuditId>")]
    id: AuditId,
    #[schemars(with = "Millis")]
    at: Timestamp,
    #[schemars(with = "ActorOf")]
    actor: &'a PrincipalKind,
    #[schemars(with = "OperationOf")]
    operation: OperationKind,
    /// How it ended: done, unchanged, deferred, vetoed, refused, denied or erased.
    outcome: &'static str,
    /// Until when it is deferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    until: Option<Timestamp>,
    /// The code of the veto, the refusal or the denial.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    /// When the deletion was asked for that has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    since: Option<Timestamp>,
    /// SHA-256 over the overwritten key slot, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    slot_digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<SessionId>>")]
    session_id: Option<SessionId>,
    /// Another thing that it was about, by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<RequestId>>")]
    request_id: Option<RequestId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<DecisionId>>")]
    decision_id: Option<DecisionId>,
}

impl<'a> AuditView<'a> {
    pub(in super::super) fn of(entry: &'a AuditEntry) -> Self {
        let mut view = Self {
            id: entry.id,
            at: entry.at,
            actor: &entry.actor,
            operation: entry.operation,
            outcome: entry.outcome.name(),
            until: None,
            code: None,
            since: None,
            slot_digest: None,
            session_id: entry.session,
            subject: entry.subject.as_deref(),
            request_id: entry.request,
            decision_id: entry.decision,
        };
        match &entry.outcome {
            AuditOutcome::Deferred { until } => view.until = Some(*until),
            AuditOutcome::Vetoed { code } | AuditOutcome::Refused { code } | AuditOutcome::Denied { code } => {
                view.code = Some(code);
            }
            AuditOutcome::Erased { since, slot_digest } => {
                view.since = Some(*since);
                view.slot_digest = Some(slot_digest);
            }
            AuditOutcome::Done | AuditOutcome::Unchanged => {}
        }
        view
    }
}
