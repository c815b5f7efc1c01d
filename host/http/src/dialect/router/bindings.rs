//! Bindings: plugin versions put to work, and rolled out.

use hyper::StatusCode;
use portcullis_core::{
    BindingId, Candidate, FailureFold, Grant, HostRule, Labels, Mode, OperationKind, PluginId, Selector,
};
use portcullis_service::{BindingChange, NewBinding};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::view::{self, BindingView};
use super::{decode, mismatch};
use crate::asked::{Answer, Asked, Move};
use crate::dialect::Problem;
use crate::exchange::{Incoming, Reply};
use crate::openapi::schema::{FailureFoldOf, GrantOf, HookOf, HostRuleOf, Id, LabelsOf, ModeOf, Open};
use crate::routes::EncodeContext;

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
    /// The hosts to which it may send requests with the grant `http`: `api.example.org`, or `*.example.org` for all below one.
    #[schemars(with = "Option<Vec<HostRuleOf>>", length(max = 32))]
    http_hosts: Option<Vec<String>>,
    #[schemars(with = "Option<LabelsOf>")]
    selector: Option<Labels>,
    /// Wall time of one call.
    #[schemars(range(min = 1, max = 2000))]
    wall_millis: Option<u32>,
}

pub(super) fn create(incoming: &Incoming) -> Result<Asked, Problem> {
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
        http_hosts: http_hosts(&body.http_hosts.unwrap_or_default())?,
        selector: Selector(body.selector.unwrap_or_default()),
        wall_millis: body.wall_millis,
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
    /// The hosts to which it may send requests with the grant `http`: `api.example.org`, or `*.example.org` for all below one.
    #[schemars(with = "Option<Vec<HostRuleOf>>", length(max = 32))]
    http_hosts: Option<Vec<String>>,
    #[schemars(with = "Option<LabelsOf>")]
    selector: Option<Labels>,
    /// Wall time of one call; `null` for the gateway's usual bound.
    #[serde(default, deserialize_with = "decode::given")]
    #[schemars(with = "Option<u32>", range(min = 1, max = 2000))]
    wall_millis: Option<Option<u32>>,
    /// A version to try beside the one that is bound; `null` takes it back.
    #[serde(default, deserialize_with = "decode::given_object")]
    #[schemars(with = "Option<CandidateBody>")]
    candidate: Option<Option<CandidateBody>>,
}

/// A version to try beside the one that is bound.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "CandidateBody")]
struct CandidateBody {
    version: u32,
    /// Its settings; those of the binding if they are left out.
    #[schemars(with = "Option<Open>")]
    settings: Option<Value>,
    /// For how many of a hundred sessions it decides; with 0 it is only asked in the shadow.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    percent: u8,
}

pub(super) fn update(incoming: &Incoming) -> Result<Asked, Problem> {
    let binding = binding_id(incoming)?;
    let body: BindingPatch = decode::body(incoming)?;
    let candidate = |body: CandidateBody| Candidate {
        version: body.version,
        settings: body.settings.map(|value| value.to_string()),
        percent: body.percent,
    };
    let change = BindingChange {
        version: body.version,
        hooks: body.hooks.as_deref().map(hooks).transpose()?,
        mode: body.mode,
        settings: body.settings.map(|value| value.to_string()),
        on_failure: body.on_failure,
        order: body.order,
        grants: body.grants,
        http_hosts: body.http_hosts.as_deref().map(http_hosts).transpose()?,
        selector: body.selector.map(Selector),
        wall_millis: body.wall_millis,
        candidate: body.candidate.map(|given| given.map(candidate)),
    };
    Ok(Asked::UpdateBinding { binding, change: Box::new(change) })
}

pub(super) fn promote(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::MoveBinding { binding: binding_id(incoming)?, to: Move::Candidate })
}

pub(super) fn roll_back(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::MoveBinding { binding: binding_id(incoming)?, to: Move::Previous })
}

pub(super) fn resume(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::MoveBinding { binding: binding_id(incoming)?, to: Move::Resumed })
}

fn binding_id(incoming: &Incoming) -> Result<BindingId, Problem> {
    decode::path_id(incoming, "id", "binding")
}

pub(super) fn hooks(names: &[String]) -> Result<Vec<OperationKind>, Problem> {
    let hook = |name: &String| {
        let kind = OperationKind::from_name(name).filter(|kind| kind.row().hookable);
        kind.ok_or_else(|| Problem::invalid(format!("there is no operation {name:?} that can be hooked")))
    };
    names.iter().map(hook).collect()
}

fn http_hosts(texts: &[String]) -> Result<Vec<HostRule>, Problem> {
    let rule =
        |text: &String| HostRule::parse(text).map_err(|error| Problem::invalid(format!("httpHosts: {text:?} {error}")));
    texts.iter().map(rule).collect()
}

/// No settings are the empty object.
fn settings(value: Option<Value>) -> String {
    value.map_or_else(|| "{}".to_owned(), |value| value.to_string())
}

pub(super) fn list(_incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Bindings)
}

pub(super) fn get(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Binding { binding: binding_id(incoming)? })
}

pub(super) fn delete(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::DeleteBinding { binding: binding_id(incoming)? })
}

pub(super) fn created(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::BindingCreated(state) = answer else { return mismatch() };
    Reply::json(StatusCode::CREATED, &BindingView::of(&state))
}

pub(super) fn binding(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Binding(state) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &BindingView::of(&state))
}

pub(super) fn bindings(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Bindings(states) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &view::list(states.iter().map(BindingView::of), None))
}
