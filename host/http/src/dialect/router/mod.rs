//! The router dialect, `/api/v1`: the native one, extended with what the others lack.

mod admin;
mod bindings;
mod decisions;
mod decode;
mod deliveries;
mod doc;
mod explain;
mod ledger;
mod messages;
mod plugins;
mod problem;
mod profile;
mod realtime;
mod rehearsals;
mod requests;
mod sessions;
mod upkeep;
mod view;
mod webhooks;

use hyper::Method;
use portcullis_core::OperationKind;

use crate::dialect::{Credential, Dialect, Fault, Problem};
use crate::exchange::{Incoming, Reply};
use crate::routes::{BodyBound, Decode, Encode, Route, SessionBy};

pub(crate) use decisions::ENDINGS;
pub(crate) use doc::doc;
pub(crate) use explain::{DryRunView, tried};
pub(crate) use problem::{envelope, fault, refuse};
pub(crate) use webhooks::FORMATS;

/// The table.
pub(crate) fn routes() -> Vec<Route> {
    let row = |method: Method, path: &'static str, action: &'static str, operation, decode: Decode, encode: Encode| {
        let body = if operation == OperationKind::PluginUpload { BodyBound::Component } else { BodyBound::Json };
        Route {
            dialect: Dialect::Router,
            method,
            path,
            action,
            operation,
            body,
            session: SessionBy::Id,
            paid: false,
            decode,
            encode,
            refuse,
        }
    };
    use OperationKind as Op;
    const SESSION: &str = "/api/v1/sessions/{id}";
    const SETTINGS: &str = "/api/v1/sessions/{id}/settings";
    const PROXY: &str = "/api/v1/sessions/{id}/proxy";
    const LINK: &str = "/api/v1/sessions/{id}/link";
    const WEBHOOK: &str = "/api/v1/webhooks/{id}";
    const DELIVERIES: &str = "/api/v1/webhooks/{id}/deliveries";
    const DELIVERY: &str = "/api/v1/webhooks/{id}/deliveries/{delivery}";
    const BINDING: &str = "/api/v1/bindings/{id}";
    const RULES: &str = "/api/v1/plugins/rules";
    const SECRETS: &str = "/api/v1/plugins/{id}/secrets";
    const SECRET: &str = "/api/v1/plugins/{id}/secrets/{name}";
    const PUBLISHERS: &str = "/api/v1/publishers";
    const MASTER_KEY: &str = "/api/v1/admin/master-key";
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
        row(Method::POST, "/api/v1/sessions/{id}/messages", "", Op::MessageSend, messages::send, messages::sent),
        row(
            Method::GET,
            "/api/v1/sessions/{id}/messages/{message}",
            "",
            Op::MessageRead,
            messages::get,
            messages::message,
        ),
        row(Method::GET, SETTINGS, "", Op::SessionRead, profile::get, profile::settings),
        row(Method::PUT, SETTINGS, "", Op::SessionSettings, profile::set_settings, profile::settings),
        row(Method::GET, PROXY, "", Op::SecretRead, profile::get, profile::proxy),
        row(Method::PUT, PROXY, "", Op::SessionProxy, profile::set_proxy, profile::proxy),
        row(Method::DELETE, PROXY, "", Op::SessionProxy, profile::remove_proxy, profile::proxy),
        row(Method::GET, LINK, "", Op::SecretRead, profile::get, profile::link),
        row(Method::POST, LINK, "", Op::SessionLink, profile::make_link, profile::made_link),
        row(Method::DELETE, LINK, "", Op::SessionLink, profile::revoke_link, profile::revoked_link),
        row(Method::POST, "/api/v1/webhooks", "", Op::WebhookCreate, webhooks::create, webhooks::created),
        row(Method::GET, "/api/v1/webhooks", "", Op::WebhookRead, webhooks::list, webhooks::listed),
        row(Method::GET, WEBHOOK, "", Op::WebhookRead, webhooks::get, webhooks::webhook),
        row(Method::PATCH, WEBHOOK, "", Op::WebhookUpdate, webhooks::update, webhooks::webhook),
        row(Method::DELETE, WEBHOOK, "", Op::WebhookDelete, webhooks::delete, webhooks::webhook),
        row(Method::POST, WEBHOOK, "rotate-secret", Op::WebhookRotate, webhooks::rotate, webhooks::rotated),
        row(Method::POST, WEBHOOK, "test", Op::WebhookTest, deliveries::test, deliveries::tested),
        row(Method::POST, WEBHOOK, "replay", Op::WebhookReplay, deliveries::replay, deliveries::replayed),
        row(Method::GET, DELIVERIES, "", Op::WebhookRead, deliveries::list, deliveries::listed),
        row(Method::GET, DELIVERY, "", Op::WebhookRead, deliveries::get, deliveries::delivery),
        row(Method::POST, DELIVERY, "replay", Op::WebhookReplay, deliveries::replay_one, deliveries::replayed),
        row(Method::GET, "/api/v1/events", "", Op::EventRead, realtime::follow, realtime::followed),
        row(Method::POST, "/api/v1/realtime/ticket", "", Op::RealtimeTicket, realtime::ticket, realtime::ticketed),
        row(Method::GET, "/metrics", "", Op::MetricsRead, realtime::metrics, realtime::metered),
        row(Method::GET, "/api/v1/admin/backup", "", Op::BackupRead, upkeep::back_up, upkeep::backed_up),
        row(Method::GET, "/api/v1/admin/backup/keys", "", Op::BackupRead, upkeep::back_up_keys, upkeep::backed_up_keys),
        row(Method::POST, MASTER_KEY, "rotate", Op::MasterKeyRotate, upkeep::rotate, upkeep::rotated),
        row(Method::GET, "/api/v1/admin/sessions", "", Op::AllSessionsRead, sessions::list_all, sessions::listed),
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
        row(Method::POST, "/api/v1/plugins", "", Op::PluginUpload, plugins::upload, plugins::uploaded),
        row(Method::GET, "/api/v1/plugins", "", Op::PluginRead, plugins::list, plugins::plugins),
        row(Method::GET, "/api/v1/plugins/catalog", "", Op::PluginRead, plugins::catalogue, plugins::catalogue_names),
        row(Method::GET, "/api/v1/plugins/{id}", "", Op::PluginRead, plugins::versions, plugins::plugin),
        row(Method::GET, "/api/v1/plugins/{id}/versions", "", Op::PluginRead, plugins::versions, plugins::plugins),
        row(Method::DELETE, "/api/v1/plugins/{id}", "", Op::PluginDelete, plugins::delete, admin::no_content),
        row(Method::POST, "/api/v1/bindings", "", Op::BindingCreate, bindings::create, bindings::created),
        row(Method::GET, "/api/v1/bindings", "", Op::PluginRead, bindings::list, bindings::bindings),
        row(Method::GET, BINDING, "", Op::PluginRead, bindings::get, bindings::binding),
        row(Method::PATCH, BINDING, "", Op::BindingUpdate, bindings::update, bindings::binding),
        row(Method::DELETE, BINDING, "", Op::BindingDelete, bindings::delete, admin::no_content),
        row(Method::POST, BINDING, "promote", Op::BindingUpdate, bindings::promote, bindings::binding),
        row(Method::POST, BINDING, "rollback", Op::BindingUpdate, bindings::roll_back, bindings::binding),
        row(Method::POST, BINDING, "resume", Op::BindingUpdate, bindings::resume, bindings::binding),
        row(Method::POST, "/api/v1/plugins/{id}", "replay", Op::PluginReplay, rehearsals::replay, rehearsals::replayed),
        row(Method::POST, "/api/v1/plugins/{id}", "scan", Op::PluginScan, rehearsals::scan, rehearsals::scanned),
        row(Method::GET, RULES, "", Op::PluginRead, plugins::get_rules, plugins::rules),
        row(Method::PUT, RULES, "", Op::PluginRulesUpdate, plugins::set_rules, plugins::rules),
        row(Method::GET, "/api/v1/plugins/{id}/log", "", Op::PluginRead, plugins::log, plugins::logged),
        row(Method::GET, "/api/v1/plugins/{id}/requests", "", Op::PluginRead, requests::list, requests::requests),
        row(Method::GET, SECRETS, "", Op::PluginRead, plugins::list_secrets, plugins::secrets),
        row(Method::PUT, SECRET, "", Op::SecretPut, plugins::put_secret, admin::no_content),
        row(Method::DELETE, SECRET, "", Op::SecretDelete, plugins::delete_secret, admin::no_content),
        row(Method::POST, PUBLISHERS, "", Op::PublisherCreate, plugins::create_publisher, plugins::publisher_created),
        row(Method::GET, PUBLISHERS, "", Op::PluginRead, plugins::list_publishers, plugins::publishers),
        row(
            Method::DELETE,
            "/api/v1/publishers/{id}",
            "",
            Op::PublisherDelete,
            plugins::delete_publisher,
            admin::no_content,
        ),
        row(Method::POST, "/api/v1/events", "", Op::EventTell, decisions::tell, decisions::told),
        row(Method::GET, "/api/v1/decisions", "", Op::DecisionRead, decisions::list, decisions::decisions),
        row(Method::GET, "/api/v1/decisions/{id}", "", Op::DecisionRead, decisions::get, decisions::decision),
        row(Method::GET, "/api/v1/audit", "", Op::AuditRead, ledger::list, ledger::listed),
        row(Method::GET, "/api/v1/audit/export", "", Op::AuditRead, ledger::export, ledger::exported),
        row(Method::GET, "/api/v1/receipts/{id}", "", Op::AuditRead, ledger::receipt, ledger::receipt_of),
        row(
            Method::GET,
            "/api/v1/sessions/{id}/export",
            "",
            Op::AuditRead,
            ledger::export_session,
            ledger::session_exported,
        ),
    ]
}

/// The answer of an encoder that was handed an answer of another question: a bug of the table, found by every golden transcript.
fn mismatch() -> Reply {
    Dialect::Router.fault(&Fault::Internal)
}

fn told(problem: &Problem) -> Reply {
    Dialect::Router.problem(problem)
}

/// Whether a bearer token is one that an identity provider has signed: those have three parts.
fn is_jwt(token: &str) -> bool {
    token.split('.').count() == 3 && token.split('.').all(|part| !part.is_empty())
}

/// A JWT goes first, and is never tried as a key; then `X-Api-Key`, then any other bearer token.
pub(crate) fn credential(incoming: &Incoming) -> Credential {
    let bearer = incoming.bearer();
    if let Some(token) = bearer.filter(|token| is_jwt(token)) {
        return Credential::Jwt(token.to_owned());
    }
    let mut keys = incoming.headers.get_all("x-api-key").iter().filter(|key| !key.is_empty());
    match (keys.next(), keys.next()) {
        (Some(key), None) => key.to_str().map_or(Credential::None, |key| Credential::Key(key.to_owned())),
        // There is no telling which of several keys is meant.
        (Some(_), Some(_)) => Credential::None,
        (None, _) => bearer.map_or(Credential::None, |token| Credential::Key(token.to_owned())),
    }
}
