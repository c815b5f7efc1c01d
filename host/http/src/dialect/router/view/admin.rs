//! Portcullis's own resources, but for decisions.

use portcullis_core::{
    ApiKey, AuditEntry, AuditId, AuditOutcome, Binding, BindingId, Capabilities, DecisionId, FailureFold, Grant, KeyId,
    Labels, Mode, OperationKind, Org, OrgId, Plan, PluginId, PluginVersion, PrincipalKind, Quotas, RequestId, Selector,
    SessionId, Timestamp,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::sha256;
use crate::openapi::schema::{
    ActorOf, AnyValue, CapabilityOf, DigestOf, FailureFoldOf, GrantOf, Id, LabelsOf, Millis, ModeOf, Open, OperationOf,
    PlanOf, QuotasOf,
};

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

/// A version of a plugin.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Plugin")]
pub(in super::super) struct PluginView<'a> {
    #[schemars(with = "Id<PluginId>")]
    id: PluginId,
    version: u32,
    #[schemars(with = "DigestOf")]
    digest: String,
    /// How many bytes the component has.
    size: u64,
    #[schemars(with = "Millis")]
    uploaded_at: Timestamp,
    describe: DescribeView<'a>,
}

/// What a plugin says of itself.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PluginDescription")]
struct DescribeView<'a> {
    name: &'a str,
    version: &'a str,
    description: &'a str,
    /// The interfaces of the contract that it exports.
    exports: &'a [String],
    /// The operations for which it wants to be asked; empty means all.
    #[schemars(with = "Vec<OperationOf>")]
    hooks: &'a [OperationKind],
    #[schemars(with = "Vec<GrantOf>")]
    wants: &'a [Grant],
    /// The version of the policy contract.
    contract: &'a str,
    /// The JSON Schema of its settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AnyValue")]
    settings_schema: Option<Value>,
}

impl<'a> PluginView<'a> {
    pub(in super::super) fn of(version: &'a PluginVersion) -> Self {
        Self {
            id: version.plugin,
            version: version.version,
            digest: sha256(&version.digest),
            size: version.size,
            uploaded_at: version.uploaded_at,
            describe: DescribeView {
                name: &version.name,
                version: &version.declared_version,
                description: &version.description,
                exports: &version.exports,
                hooks: &version.hooks,
                wants: &version.wants,
                contract: &version.contract,
                settings_schema: version.settings_schema.as_deref().and_then(|text| serde_json::from_str(text).ok()),
            },
        }
    }
}

/// The newest version of a plugin, with the numbers of all.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PluginWithVersions")]
pub(in super::super) struct PluginVersionsView<'a> {
    #[serde(flatten)]
    newest: PluginView<'a>,
    versions: Vec<u32>,
}

impl<'a> PluginVersionsView<'a> {
    /// None if there is no version.
    pub(in super::super) fn of(versions: &'a [PluginVersion]) -> Option<Self> {
        let newest = PluginView::of(versions.last()?);
        Some(Self { newest, versions: versions.iter().map(|version| version.version).collect() })
    }
}

/// A plugin that ships with the gateway.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CatalogPlugin")]
pub(in super::super) struct CatalogueView {
    pub(in super::super) name: &'static str,
}

/// What is said of an upload that nobody waits for.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UploadBegun")]
pub(in super::super) struct UploadBegunView {
    status: &'static str,
    message: &'static str,
}

impl UploadBegunView {
    pub(in super::super) const COMPILING: Self =
        Self { status: "compiling", message: "the plugin is listed once it is admitted; a refusal is in the audit" };
}

/// A plugin version put to work.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Binding")]
pub(in super::super) struct BindingView<'a> {
    #[schemars(with = "Id<BindingId>")]
    id: BindingId,
    #[schemars(with = "Id<PluginId>")]
    plugin: PluginId,
    version: u32,
    #[schemars(with = "Vec<OperationOf>")]
    hooks: &'a [OperationKind],
    #[schemars(with = "ModeOf")]
    mode: Mode,
    #[schemars(with = "Open")]
    settings: Value,
    #[schemars(with = "FailureFoldOf")]
    on_failure: FailureFold,
    order: i32,
    #[schemars(with = "Vec<GrantOf>")]
    grants: &'a [Grant],
    #[schemars(with = "LabelsOf")]
    selector: &'a Selector,
    #[schemars(with = "Millis")]
    created_at: Timestamp,
    #[schemars(with = "Millis")]
    updated_at: Timestamp,
}

impl<'a> BindingView<'a> {
    pub(in super::super) fn of(binding: &'a Binding) -> Self {
        Self {
            id: binding.id,
            plugin: binding.plugin,
            version: binding.version,
            hooks: &binding.hooks,
            mode: binding.mode,
            settings: serde_json::from_str(&binding.settings).unwrap_or(Value::Null),
            on_failure: binding.on_failure,
            order: binding.order,
            grants: &binding.grants,
            selector: &binding.selector,
            created_at: binding.created_at,
            updated_at: binding.updated_at,
        }
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
