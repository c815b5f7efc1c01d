//! Portcullis's own resources: organisations, keys, plugins, bindings, decisions and the audit.

use hyper::StatusCode;
use portcullis_core::{
    Capabilities, Capability, FailureFold, Grant, Labels, Mode, OperationKind, OrgId, Plan, PluginId, Quotas, Selector,
    SessionId, Timestamp,
};
use portcullis_service::{BindingChange, KeyRequest, NewBinding, NewOrg, OrgChange, QuotaChange};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::explain::DecisionView;
use super::view::{
    self, AuditView, BindingView, CatalogueView, KeyView, NewKeyView, OrgView, PluginVersionsView, PluginView,
    UploadBegunView,
};
use super::{decode, mismatch};
use crate::asked::{Answer, Asked, Component};
use crate::dialect::Problem;
use crate::exchange::{Incoming, Reply};
use crate::openapi::schema::{
    FailureFoldOf, GrantOf, HookOf, Id, KeyCapabilityOf, LabelsOf, Millis, ModeOf, NAME, Open, PlanOf, QuotasBody,
};
use crate::routes::EncodeContext;

// === organisations ===

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OrgBody {
    #[schemars(length(max = 200), regex(pattern = NAME))]
    name: String,
    #[schemars(with = "Option<PlanOf>")]
    plan: Option<Plan>,
    #[schemars(with = "Option<QuotasBody>")]
    quotas: Option<Quotas>,
    #[schemars(with = "Option<LabelsOf>")]
    labels: Option<Labels>,
}

pub(super) fn create_org(incoming: &Incoming) -> Result<Asked, Problem> {
    let body: OrgBody = decode::body(incoming)?;
    Ok(Asked::CreateOrg(NewOrg {
        name: body.name,
        plan: body.plan.unwrap_or_default(),
        quotas: body.quotas.unwrap_or_default(),
        labels: body.labels.unwrap_or_default(),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OrgPatch {
    #[schemars(length(max = 200), regex(pattern = NAME))]
    name: Option<String>,
    #[schemars(with = "Option<PlanOf>")]
    plan: Option<Plan>,
    quotas: Option<QuotasPatch>,
    #[schemars(with = "Option<LabelsOf>")]
    labels: Option<Labels>,
    suspended: Option<bool>,
}

#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct QuotasPatch {
    sessions: Option<u32>,
    keys: Option<u32>,
    plugins: Option<u32>,
    bindings: Option<u32>,
    webhooks: Option<u32>,
    queued_messages: Option<u32>,
    concurrency: Option<u32>,
}

pub(super) fn update_org(incoming: &Incoming) -> Result<Asked, Problem> {
    let org = org_id(incoming)?;
    let OrgPatch { name, plan, quotas, labels, suspended } = decode::body(incoming)?;
    let QuotasPatch { sessions, keys, plugins, bindings, webhooks, queued_messages, concurrency } =
        quotas.unwrap_or_default();
    let quotas = QuotaChange { sessions, keys, plugins, bindings, webhooks, queued_messages, concurrency };
    Ok(Asked::UpdateOrg { org, change: OrgChange { name, plan, quotas, labels, suspended } })
}

pub(super) fn list_orgs(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Orgs { after: decode::cursor(incoming)?, limit: decode::limit(incoming) })
}

pub(super) fn get_org(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Org { org: org_id(incoming)? })
}

pub(super) fn erase_org(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::EraseOrg { org: org_id(incoming)? })
}

fn org_id(incoming: &Incoming) -> Result<OrgId, Problem> {
    decode::path_id(incoming, "id", "organisation")
}

pub(super) fn org_created(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::OrgCreated(org) = answer else { return mismatch() };
    Reply::json(StatusCode::CREATED, &OrgView::of(&org))
}

pub(super) fn org(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Org(org) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &OrgView::of(&org))
}

pub(super) fn orgs(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Orgs(page) = answer else { return mismatch() };
    let next = page.entries.last().filter(|_| page.more).map(|org| org.id.to_string());
    Reply::json(StatusCode::OK, &view::list(page.entries.iter().map(OrgView::of), next))
}

// === keys ===

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KeyBody {
    #[schemars(length(max = 200), regex(pattern = NAME))]
    name: String,
    #[schemars(with = "Vec<KeyCapabilityOf>", length(min = 1))]
    capabilities: Vec<String>,
    #[schemars(with = "Option<Id<SessionId>>")]
    session_id: Option<String>,
    #[schemars(with = "Option<Millis>")]
    expires_at: Option<Timestamp>,
}

pub(super) fn create_key(incoming: &Incoming) -> Result<Asked, Problem> {
    let org = org_id(incoming)?;
    let body: KeyBody = decode::body(incoming)?;
    let capability = |name: &String| {
        Capability::from_name(name).ok_or_else(|| Problem::invalid(format!("there is no capability {name:?}")))
    };
    let capabilities: Vec<_> = body.capabilities.iter().map(capability).collect::<Result<_, _>>()?;
    let session_scope = body.session_id.map(|text| decode::id("sessionId", &text)).transpose()?;
    let key = KeyRequest {
        name: body.name,
        capabilities: capabilities.into_iter().collect::<Capabilities>(),
        session_scope,
        expires_at: body.expires_at,
    };
    Ok(Asked::CreateKey { org, key })
}

pub(super) fn list_keys(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Keys { org: org_id(incoming)? })
}

pub(super) fn revoke_key(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::RevokeKey { org: org_id(incoming)?, key: decode::path_id(incoming, "key", "key")? })
}

pub(super) fn key_created(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::KeyCreated(new) = answer else { return mismatch() };
    let body = NewKeyView::of(&new.key, &new.text);
    Reply::json(StatusCode::CREATED, &body).with("cache-control", "no-store")
}

pub(super) fn keys(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Keys(keys) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &view::list(keys.iter().map(KeyView::of), None))
}

// === plugins ===

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CatalogueBody {
    catalog: String,
}

/// A component as the body, or a JSON document that names one of the catalogue. No component begins with a brace.
pub(super) fn upload_plugin(incoming: &Incoming) -> Result<Asked, Problem> {
    if incoming.body.is_empty() {
        return Err(Problem::invalid("the body must be a component, or {\"catalog\": \"<name>\"}"));
    }
    let wait = decode::flag(incoming, "wait")?.unwrap_or(true);
    let begins = incoming.body.iter().find(|byte| !byte.is_ascii_whitespace());
    let component = if begins == Some(&b'{') {
        let body: CatalogueBody = decode::body(incoming)?;
        Component::Catalogue(body.catalog)
    } else {
        Component::Bytes(incoming.body.to_vec())
    };
    Ok(Asked::UploadPlugin { component, wait })
}

pub(super) fn catalogue(_incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Catalogue)
}

pub(super) fn list_plugins(_incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Plugins)
}

pub(super) fn plugin_versions(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::PluginVersions { plugin: plugin_id(incoming)? })
}

pub(super) fn delete_plugin(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::DeletePlugin { plugin: plugin_id(incoming)? })
}

fn plugin_id(incoming: &Incoming) -> Result<PluginId, Problem> {
    decode::path_id(incoming, "id", "plugin")
}

/// 201 for a new version, 200 for bytes that were known, 202 for an upload that is not waited for.
pub(super) fn uploaded(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    match answer {
        Answer::Uploaded(uploaded) => {
            let status = if uploaded.known { StatusCode::OK } else { StatusCode::CREATED };
            Reply::json(status, &PluginView::of(&uploaded.version))
        }
        Answer::UploadBegun => Reply::json(StatusCode::ACCEPTED, &UploadBegunView::COMPILING),
        _ => mismatch(),
    }
}

pub(super) fn catalogue_names(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Catalogue(names) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &view::list(names.into_iter().map(|name| CatalogueView { name }), None))
}

pub(super) fn plugins(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let (Answer::Plugins(versions) | Answer::PluginVersions(versions)) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &view::list(versions.iter().map(PluginView::of), None))
}

/// The newest version, with the numbers of all.
pub(super) fn plugin(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::PluginVersions(versions) = answer else { return mismatch() };
    match PluginVersionsView::of(&versions) {
        Some(body) => Reply::json(StatusCode::OK, &body),
        None => mismatch(),
    }
}

// === bindings ===

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BindingBody {
    #[schemars(with = "Id<PluginId>")]
    plugin: String,
    version: Option<u32>,
    #[schemars(with = "Option<Vec<HookOf>>")]
    hooks: Option<Vec<String>>,
    #[schemars(with = "Option<ModeOf>")]
    mode: Option<Mode>,
    #[schemars(with = "Option<Open>")]
    settings: Option<Value>,
    #[schemars(with = "Option<FailureFoldOf>")]
    on_failure: Option<FailureFold>,
    order: Option<i32>,
    #[schemars(with = "Option<Vec<GrantOf>>")]
    grants: Option<Vec<Grant>>,
    #[schemars(with = "Option<LabelsOf>")]
    selector: Option<Labels>,
}

pub(super) fn create_binding(incoming: &Incoming) -> Result<Asked, Problem> {
    let body: BindingBody = decode::body(incoming)?;
    Ok(Asked::CreateBinding(Box::new(NewBinding {
        plugin: decode::id("plugin", &body.plugin)?,
        version: body.version,
        hooks: hooks(&body.hooks.unwrap_or_default())?,
        mode: body.mode.unwrap_or(Mode::Enforce),
        settings: settings(body.settings),
        on_failure: body.on_failure.unwrap_or(FailureFold::Deny),
        order: body.order.unwrap_or(0),
        grants: body.grants,
        selector: Selector(body.selector.unwrap_or_default()),
    })))
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BindingPatch {
    version: Option<u32>,
    #[schemars(with = "Option<Vec<HookOf>>")]
    hooks: Option<Vec<String>>,
    #[schemars(with = "Option<ModeOf>")]
    mode: Option<Mode>,
    #[schemars(with = "Option<Open>")]
    settings: Option<Value>,
    #[schemars(with = "Option<FailureFoldOf>")]
    on_failure: Option<FailureFold>,
    order: Option<i32>,
    #[schemars(with = "Option<Vec<GrantOf>>")]
    grants: Option<Vec<Grant>>,
    #[schemars(with = "Option<LabelsOf>")]
    selector: Option<Labels>,
}

pub(super) fn update_binding(incoming: &Incoming) -> Result<Asked, Problem> {
    let binding = decode::path_id(incoming, "id", "binding")?;
    let body: BindingPatch = decode::body(incoming)?;
    let change = BindingChange {
        version: body.version,
        hooks: body.hooks.as_deref().map(hooks).transpose()?,
        mode: body.mode,
        settings: body.settings.map(|value| value.to_string()),
        on_failure: body.on_failure,
        order: body.order,
        grants: body.grants,
        selector: body.selector.map(Selector),
    };
    Ok(Asked::UpdateBinding { binding, change: Box::new(change) })
}

fn hooks(names: &[String]) -> Result<Vec<OperationKind>, Problem> {
    let hook = |name: &String| {
        let kind = OperationKind::from_name(name).filter(|kind| kind.row().hookable);
        kind.ok_or_else(|| Problem::invalid(format!("there is no operation {name:?} that can be hooked")))
    };
    names.iter().map(hook).collect()
}

/// No settings are the empty object.
fn settings(value: Option<Value>) -> String {
    value.map_or_else(|| "{}".to_owned(), |value| value.to_string())
}

pub(super) fn list_bindings(_incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Bindings)
}

pub(super) fn get_binding(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Binding { binding: decode::path_id(incoming, "id", "binding")? })
}

pub(super) fn delete_binding(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::DeleteBinding { binding: decode::path_id(incoming, "id", "binding")? })
}

pub(super) fn binding_created(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::BindingCreated(binding) = answer else { return mismatch() };
    Reply::json(StatusCode::CREATED, &BindingView::of(&binding))
}

pub(super) fn binding(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Binding(binding) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &BindingView::of(&binding))
}

pub(super) fn bindings(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Bindings(bindings) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &view::list(bindings.iter().map(BindingView::of), None))
}

// === decisions and the audit ===

pub(super) fn list_decisions(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = incoming.query("session").map(|text| decode::id("session", text)).transpose()?;
    Ok(Asked::Decisions { session, before: decode::cursor(incoming)?, limit: decode::limit(incoming) })
}

pub(super) fn get_decision(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Decision { decision: decode::path_id(incoming, "id", "decision")? })
}

pub(super) fn list_audit(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Audit { before: decode::cursor(incoming)?, limit: decode::limit(incoming) })
}

pub(super) fn decisions(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Decisions(page) = answer else { return mismatch() };
    let next = page.entries.last().filter(|_| page.more).map(|record| record.id.to_string());
    Reply::json(StatusCode::OK, &view::list(page.entries.iter().map(DecisionView::of), next))
}

pub(super) fn decision(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Decision(record) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &DecisionView::of(&record))
}

pub(super) fn audit(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Audit(page) = answer else { return mismatch() };
    let next = page.entries.last().filter(|_| page.more).map(|entry| entry.id.to_string());
    Reply::json(StatusCode::OK, &view::list(page.entries.iter().map(AuditView::of), next))
}

/// 204 for whatever was done and has nothing to show.
#[expect(clippy::needless_pass_by_value, reason = "an encoder of the table takes its answer")]
pub(super) fn no_content(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    match answer {
        Answer::OrgErased | Answer::KeyRevoked | Answer::PluginDeleted | Answer::BindingDeleted | Answer::Simulated => {
            Reply::empty(StatusCode::NO_CONTENT)
        }
        _ => mismatch(),
    }
}
