//! Organisations and their keys.

use hyper::StatusCode;
use portcullis_core::{Capabilities, Capability, Grant, Labels, OrgId, Plan, Quotas, SessionId, Timestamp};
use portcullis_service::{KeyRequest, NewOrg, OrgChange, QuotaChange};
use schemars::JsonSchema;
use serde::Deserialize;

use super::view::{self, KeyView, NewKeyView, OrgView};
use super::{decode, mismatch};
use crate::asked::{Answer, Asked};
use crate::dialect::Problem;
use crate::exchange::{Incoming, Reply};
use crate::openapi::schema::{GrantOf, Id, KeyCapabilityOf, LabelsOf, Millis, NAME, PlanOf, QuotasBody};
use crate::routes::EncodeContext;

// === organisations ===

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OrgBody {
    #[schemars(length(max = 200), regex(pattern = NAME))]
    name: String,
    #[serde(default, deserialize_with = "decode::object")]
    #[schemars(with = "Option<PlanOf>")]
    plan: Option<Plan>,
    #[serde(default, deserialize_with = "decode::object")]
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
    #[serde(default, deserialize_with = "decode::object")]
    #[schemars(with = "Option<PlanOf>")]
    plan: Option<Plan>,
    #[serde(default, deserialize_with = "decode::object")]
    #[schemars(with = "Option<QuotasPatch>")]
    quotas: Option<QuotasPatch>,
    #[schemars(with = "Option<LabelsOf>")]
    labels: Option<Labels>,
    suspended: Option<bool>,
    #[serde(default, deserialize_with = "decode::object")]
    #[schemars(with = "Option<PluginRulesPatch>")]
    plugin_rules: Option<PluginRulesPatch>,
}

/// What the operator says of an organisation's plugins.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PluginRulesPatch {
    /// The grants that bindings can have; `null` for all.
    #[serde(default, deserialize_with = "decode::given")]
    #[schemars(with = "Option<Vec<GrantOf>>")]
    ceiling: Option<Option<Vec<Grant>>>,
    /// Whether only signed plugins can be bound, whatever the organisation says itself.
    require_signature: Option<bool>,
}

#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct QuotasPatch {
    sessions: Option<u32>,
    keys: Option<u32>,
    plugins: Option<u32>,
    large_plugins: Option<u32>,
    kv_keys: Option<u32>,
    kv_bytes: Option<u32>,
    bindings: Option<u32>,
    webhooks: Option<u32>,
    queued_messages: Option<u32>,
    concurrency: Option<u32>,
}

pub(super) fn update_org(incoming: &Incoming) -> Result<Asked, Problem> {
    let org = org_id(incoming)?;
    let OrgPatch { name, plan, quotas, labels, suspended, plugin_rules } = decode::body(incoming)?;
    let PluginRulesPatch { ceiling: plugin_ceiling, require_signature } = plugin_rules.unwrap_or_default();
    let quotas = quotas.unwrap_or_default();
    let quotas = QuotaChange {
        sessions: quotas.sessions,
        keys: quotas.keys,
        plugins: quotas.plugins,
        large_plugins: quotas.large_plugins,
        kv_keys: quotas.kv_keys,
        kv_bytes: quotas.kv_bytes,
        bindings: quotas.bindings,
        webhooks: quotas.webhooks,
        queued_messages: quotas.queued_messages,
        concurrency: quotas.concurrency,
    };
    let change = OrgChange { name, plan, quotas, labels, suspended, plugin_ceiling, require_signature };
    Ok(Asked::UpdateOrg { org, change })
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

/// 204 for whatever was done and has nothing to show.
#[expect(clippy::needless_pass_by_value, reason = "an encoder of the table takes its answer")]
pub(super) fn no_content(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    match answer {
        Answer::OrgErased
        | Answer::KeyRevoked
        | Answer::PluginDeleted
        | Answer::BindingDeleted
        | Answer::SecretPut
        | Answer::SecretDeleted
        | Answer::PublisherDeleted
        | Answer::Simulated => Reply::empty(StatusCode::NO_CONTENT),
        _ => mismatch(),
    }
}
