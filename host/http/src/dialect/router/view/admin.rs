//! Organisations, keys and lines of the audit.

use portcullis_core::{
    ApiKey, AuditId, AuditOutcome, Capabilities, DecisionId, KeyId, Labels, OperationKind, Org, OrgId, Plan,
    PrincipalKind, Quotas, Receipt, RequestId, SessionId, Timestamp,
};
use portcullis_service::{AuditLine, SignedReceipt};
use schemars::JsonSchema;
use serde::Serialize;

use super::plugin::PluginRulesView;
use crate::openapi::schema::{ActorOf, CapabilityOf, Id, LabelsOf, Millis, OperationOf, PlanOf, QuotasOf, ReceiptOf};

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
    /// Its place in the audit, from 1.
    number: u64,
    /// What binds it to all lines before it, in hexadecimal.
    hash: String,
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
    /// What is kept of the deletion that has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ReceiptOf>")]
    receipt: Option<&'a Receipt>,
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
    pub(in super::super) fn of(line: &'a AuditLine) -> Self {
        let entry = &line.entry;
        let mut view = Self {
            id: entry.id,
            number: line.number,
            hash: line.hash(),
            at: entry.at,
            actor: &entry.actor,
            operation: entry.operation,
            outcome: entry.outcome.name(),
            until: None,
            code: None,
            receipt: None,
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
            AuditOutcome::Unlinked { unlink } => view.code = Some(unlink.name()),
            AuditOutcome::Erased { receipt, signature: _ } => view.receipt = Some(receipt),
            AuditOutcome::Done | AuditOutcome::Begun | AuditOutcome::Unchanged | AuditOutcome::LeftOut { .. } => {}
        }
        view
    }
}

/// A receipt, signed.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SignedReceipt")]
pub(in super::super) struct ReceiptView<'a> {
    #[schemars(with = "ReceiptOf")]
    receipt: &'a Receipt,
    /// An ed25519 signature, in base64, of a line that says `portcullis receipt 1` and of the receipt as compact JSON, as it stands here.
    signature: &'a str,
    /// The gateway's public key, in base64.
    public_key: &'a str,
}

impl<'a> ReceiptView<'a> {
    pub(in super::super) fn of(signed: &'a SignedReceipt) -> Self {
        Self { receipt: &signed.receipt, signature: &signed.signature, public_key: &signed.public_key }
    }
}
