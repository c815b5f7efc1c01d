//! The router dialect, `/api/v1`: the native one, extended with what the others lack.

mod admin;
mod decode;
mod explain;
mod problem;
mod sessions;
mod view;

use hyper::{Method, StatusCode};
use portcullis_core::OperationKind;

use crate::asked::{Answer, Asked};
use crate::dialect::Problem;
use crate::exchange::{Incoming, Reply};
use crate::routes::{BodyBound, EncodeContext, Route};

pub(crate) use problem::{encode_problem, from_service};

type Decode = fn(&Incoming) -> Result<Asked, Problem>;
type Encode = fn(&EncodeContext<'_>, Answer) -> Reply;

/// The table.
pub(crate) fn routes() -> Vec<Route> {
    let row = |method: Method, path: &'static str, action: &'static str, operation, decode: Decode, encode: Encode| {
        let body = if operation == OperationKind::PluginUpload { BodyBound::Component } else { BodyBound::Json };
        Route { method, path, action, operation, body, decode, encode }
    };
    use OperationKind as Op;
    const SESSION: &str = "/api/v1/sessions/{id}";
    const ORG: &str = "/api/v1/orgs/{id}";
    vec![
        row(Method::POST, "/api/v1/sessions", "", Op::SessionCreate, sessions::create, sessions::created),
        row(Method::GET, "/api/v1/sessions", "", Op::SessionRead, sessions::list, sessions::listed),
        row(Method::GET, SESSION, "", Op::SessionRead, sessions::get, sessions::session),
        row(Method::DELETE, SESSION, "", Op::SessionDelete, sessions::delete, sessions::deleted),
        row(Method::POST, SESSION, "start", Op::SessionStart, sessions::start, sessions::session),
        row(Method::POST, SESSION, "stop", Op::SessionStop, sessions::stop, sessions::session),
        row(Method::POST, SESSION, "restart", Op::SessionRestart, sessions::restart, sessions::session),
        row(Method::POST, SESSION, "logout", Op::SessionLogout, sessions::logout, sessions::session),
        row(Method::POST, SESSION, "restore", Op::SessionRestore, sessions::restore, sessions::session),
        row(Method::GET, "/api/v1/sessions/{id}/me", "", Op::SessionRead, sessions::get, sessions::me),
        row(Method::GET, "/api/v1/sessions/{id}/qr", "", Op::SessionQr, sessions::qr, sessions::qr_code),
        row(
            Method::POST,
            "/api/v1/sessions/{id}/pairing-code",
            "",
            Op::SessionPairingCode,
            sessions::pairing_code,
            sessions::typed_code,
        ),
        row(Method::PUT, "/api/v1/sessions/{id}/labels", "", Op::SessionLabels, sessions::labels, sessions::session),
        row(
            Method::GET,
            "/api/v1/sessions/{id}/rate-policy",
            "",
            Op::SessionRead,
            sessions::rate_policy,
            sessions::rate_policy_of,
        ),
        row(
            Method::PUT,
            "/api/v1/sessions/{id}/rate-policy",
            "",
            Op::SessionRatePolicy,
            sessions::set_rate_policy,
            sessions::session,
        ),
        row(Method::POST, "/api/v1/sessions/{id}/messages", "", Op::MessageSend, sessions::send, sessions::sent),
        row(
            Method::POST,
            "/api/v1/sessions/{id}/simulator",
            "scan",
            Op::Simulate,
            sessions::simulate_scan,
            admin::no_content,
        ),
        row(
            Method::POST,
            "/api/v1/sessions/{id}/simulator",
            "unlink",
            Op::Simulate,
            sessions::simulate_unlink,
            admin::no_content,
        ),
        row(
            Method::POST,
            "/api/v1/sessions/{id}/simulator",
            "disconnect",
            Op::Simulate,
            sessions::simulate_disconnect,
            admin::no_content,
        ),
        row(
            Method::POST,
            "/api/v1/sessions/{id}/simulator",
            "receive",
            Op::Simulate,
            sessions::simulate_receive,
            admin::no_content,
        ),
        row(
            Method::POST,
            "/api/v1/sessions/{id}/simulator",
            "limit",
            Op::Simulate,
            sessions::simulate_limit,
            admin::no_content,
        ),
        row(Method::POST, "/api/v1/orgs", "", Op::OrgCreate, admin::create_org, admin::org_created),
        row(Method::GET, "/api/v1/orgs", "", Op::OrgRead, admin::list_orgs, admin::orgs),
        row(Method::GET, ORG, "", Op::OrgRead, admin::get_org, admin::org),
        row(Method::PATCH, ORG, "", Op::OrgUpdate, admin::update_org, admin::org),
        row(Method::DELETE, ORG, "", Op::OrgDelete, admin::erase_org, admin::no_content),
        row(Method::POST, "/api/v1/orgs/{id}/keys", "", Op::KeyCreate, admin::create_key, admin::key_created),
        row(Method::GET, "/api/v1/orgs/{id}/keys", "", Op::KeyRead, admin::list_keys, admin::keys),
        row(Method::DELETE, "/api/v1/orgs/{id}/keys/{key}", "", Op::KeyRevoke, admin::revoke_key, admin::no_content),
        row(Method::POST, "/api/v1/plugins", "", Op::PluginUpload, admin::upload_plugin, admin::uploaded),
        row(Method::GET, "/api/v1/plugins", "", Op::PluginRead, admin::list_plugins, admin::plugins),
        row(Method::GET, "/api/v1/plugins/catalog", "", Op::PluginRead, admin::catalogue, admin::catalogue_names),
        row(Method::GET, "/api/v1/plugins/{id}", "", Op::PluginRead, admin::plugin_versions, admin::plugin),
        row(Method::GET, "/api/v1/plugins/{id}/versions", "", Op::PluginRead, admin::plugin_versions, admin::plugins),
        row(Method::DELETE, "/api/v1/plugins/{id}", "", Op::PluginDelete, admin::delete_plugin, admin::no_content),
        row(Method::POST, "/api/v1/bindings", "", Op::BindingCreate, admin::create_binding, admin::binding_created),
        row(Method::GET, "/api/v1/bindings", "", Op::PluginRead, admin::list_bindings, admin::bindings),
        row(Method::GET, "/api/v1/bindings/{id}", "", Op::PluginRead, admin::get_binding, admin::binding),
        row(Method::PATCH, "/api/v1/bindings/{id}", "", Op::BindingUpdate, admin::update_binding, admin::binding),
        row(Method::DELETE, "/api/v1/bindings/{id}", "", Op::BindingDelete, admin::delete_binding, admin::no_content),
        row(Method::GET, "/api/v1/decisions", "", Op::DecisionRead, admin::list_decisions, admin::decisions),
        row(Method::GET, "/api/v1/decisions/{id}", "", Op::DecisionRead, admin::get_decision, admin::decision),
        row(Method::GET, "/api/v1/audit", "", Op::AuditRead, admin::list_audit, admin::audit),
    ]
}

/// The answer of an encoder that was handed an answer of another question: a bug of the table, found by every golden transcript.
fn mismatch() -> Reply {
    encode_problem(&Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal server error"))
}
