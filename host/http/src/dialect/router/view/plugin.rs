//! Plugins, bindings, secrets by their names, publishers and facts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_core::{
    BindingId, EventId, FailureFold, Grant, HostRule, Mode, OperationKind, OrgId, PluginClass, PluginId, PluginRules,
    PluginVersion, Publisher, PublisherId, Selector, SessionId, Suspension, Timestamp,
};
use portcullis_service::{BindingState, Fact, PluginLogLine, SecretName};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::sha256;
use crate::openapi::schema::{
    AnyValue, ClassOf, DigestOf, FailureFoldOf, GrantOf, Id, LabelsOf, Millis, ModeOf, Open, OperationOf, PublicKeyOf,
};

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
    #[schemars(with = "ClassOf")]
    class: PluginClass,
    /// Whose signature it came with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<PublisherId>>")]
    signer: Option<PublisherId>,
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
    /// The events of which it wants to be told.
    events: &'a [String],
    /// The grants that it wants.
    wants: Vec<WantView<'a>>,
    /// The version of the policy contract.
    contract: &'a str,
    /// The JSON Schema of its settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AnyValue")]
    settings_schema: Option<Value>,
}

/// A grant that a plugin wants.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PluginWant")]
struct WantView<'a> {
    #[schemars(with = "GrantOf")]
    grant: Grant,
    /// Why, in its author's words.
    why: &'a str,
}

impl<'a> PluginView<'a> {
    pub(in super::super) fn of(version: &'a PluginVersion) -> Self {
        Self {
            id: version.plugin,
            version: version.version,
            digest: sha256(&version.digest),
            size: version.size,
            class: version.class,
            signer: version.signer,
            uploaded_at: version.uploaded_at,
            describe: DescribeView {
                name: &version.name,
                version: &version.declared_version,
                description: &version.description,
                exports: &version.exports,
                hooks: &version.hooks,
                events: &version.events,
                wants: version.wants.iter().map(|want| WantView { grant: want.grant, why: &want.why }).collect(),
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
    /// The hosts to which it may send requests.
    http_hosts: Vec<&'a str>,
    #[schemars(with = "LabelsOf")]
    selector: &'a Selector,
    /// Wall time of one call; the gateway's usual bound if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    wall_millis: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate: Option<CandidateView<'a>>,
    /// The version that was bound before, to go back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_version: Option<u32>,
    /// Set if the bound version is not asked, because it failed too often; `onFailure` stands in.
    #[serde(skip_serializing_if = "Option::is_none")]
    suspended: Option<SuspensionView<'a>>,
    #[schemars(with = "Millis")]
    created_at: Timestamp,
    #[schemars(with = "Millis")]
    updated_at: Timestamp,
}

/// A version that is tried beside the one that is bound.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Candidate")]
struct CandidateView<'a> {
    version: u32,
    /// Its settings; those of the binding if they are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Open>")]
    settings: Option<Value>,
    /// For how many of a hundred sessions it decides; with 0 it is only asked in the shadow.
    percent: u8,
    /// About how many operations both versions were asked.
    asked: u64,
    /// How many of those they answered differently.
    diverged: u64,
    /// Set if it is not asked, because it failed too often; its share of the sessions is the bound version's again.
    #[serde(skip_serializing_if = "Option::is_none")]
    suspended: Option<SuspensionView<'a>>,
}

/// Why a version is not asked for the present.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Suspension")]
struct SuspensionView<'a> {
    #[schemars(with = "Millis")]
    since: Timestamp,
    /// The code of the last failure.
    failure: &'a str,
}

impl<'a> SuspensionView<'a> {
    fn of(suspension: &'a Suspension) -> Self {
        Self { since: suspension.since, failure: &suspension.failure }
    }
}

impl<'a> BindingView<'a> {
    pub(in super::super) fn of(state: &'a BindingState) -> Self {
        let (binding, tally) = (&*state.binding, state.tally.unwrap_or_default());
        let parsed = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
        Self {
            id: binding.id,
            plugin: binding.plugin,
            version: binding.version,
            hooks: &binding.hooks,
            mode: binding.mode,
            settings: parsed(&binding.settings),
            on_failure: binding.on_failure,
            order: binding.order,
            grants: &binding.grants,
            http_hosts: binding.http_hosts.iter().map(HostRule::as_str).collect(),
            selector: &binding.selector,
            wall_millis: binding.wall_millis,
            candidate: binding.candidate.as_ref().map(|candidate| CandidateView {
                version: candidate.version,
                settings: candidate.settings.as_deref().map(parsed),
                percent: candidate.percent,
                asked: tally.asked,
                diverged: tally.diverged,
                suspended: state.candidate_suspension.as_ref().map(SuspensionView::of),
            }),
            previous_version: binding.previous.as_ref().map(|previous| previous.version),
            suspended: state.suspension.as_ref().map(SuspensionView::of),
            created_at: binding.created_at,
            updated_at: binding.updated_at,
        }
    }
}

/// A line of a plugin's log.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PluginLogLine")]
pub(in super::super) struct PluginLogView<'a> {
    #[schemars(with = "Millis")]
    at: Timestamp,
    /// In whose operation.
    #[schemars(with = "Id<OrgId>")]
    org: OrgId,
    #[schemars(with = "Id<BindingId>")]
    binding: BindingId,
    level: &'static str,
    message: &'a str,
}

impl<'a> PluginLogView<'a> {
    pub(in super::super) fn of(line: &'a PluginLogLine) -> Self {
        let PluginLogLine { at, org, binding, level, message } = line;
        Self { at: *at, org: *org, binding: *binding, level: level.name(), message }
    }
}

/// A secret, by its name only.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SecretName")]
pub(in super::super) struct SecretNameView<'a> {
    name: &'a str,
    #[schemars(with = "Millis")]
    updated_at: Timestamp,
}

impl<'a> SecretNameView<'a> {
    pub(in super::super) fn of(secret: &'a SecretName) -> Self {
        Self { name: &secret.name, updated_at: secret.at }
    }
}

/// Somebody whose signatures on plugins count.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Publisher")]
pub(in super::super) struct PublisherView<'a> {
    #[schemars(with = "Id<PublisherId>")]
    id: PublisherId,
    name: &'a str,
    #[schemars(with = "PublicKeyOf")]
    public_key: String,
    #[schemars(with = "Millis")]
    created_at: Timestamp,
}

impl<'a> PublisherView<'a> {
    pub(in super::super) fn of(publisher: &'a Publisher) -> Self {
        Self {
            id: publisher.id,
            name: &publisher.name,
            public_key: STANDARD.encode(publisher.public_key),
            created_at: publisher.created_at,
        }
    }
}

/// Which plugins an organisation takes.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PluginRules")]
pub(in super::super) struct PluginRulesView<'a> {
    /// The grants that the operator lets bindings have; all if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<GrantOf>>")]
    ceiling: Option<&'a [Grant]>,
    /// Whether the organisation takes only signed plugins.
    require_signature: bool,
    /// Whether the operator lets it take only signed plugins.
    operator_requires_signature: bool,
}

impl<'a> PluginRulesView<'a> {
    pub(in super::super) fn of(rules: &'a PluginRules) -> Self {
        Self {
            ceiling: rules.ceiling.as_deref(),
            require_signature: rules.own_require_signature,
            operator_requires_signature: rules.require_signature,
        }
    }
}

/// A fact that was told.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Fact")]
pub(in super::super) struct FactView<'a> {
    /// The teller's own id.
    id: &'a str,
    /// The event that it became.
    #[schemars(with = "Id<EventId>")]
    event: EventId,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<SessionId>>")]
    session: Option<SessionId>,
    /// When it happened.
    #[schemars(with = "Millis")]
    at: Timestamp,
}

impl<'a> FactView<'a> {
    pub(in super::super) fn of(fact: &'a Fact) -> Self {
        Self { id: &fact.id, event: fact.event, name: &fact.name, session: fact.session, at: fact.at }
    }
}
