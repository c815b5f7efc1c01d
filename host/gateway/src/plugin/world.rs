//! What a plugin reads in a test: the fixture's own data, in the form in which the gateway's store gives it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portcullis_core::session::{AccountLimit, FailureCause, LoggedOutBy, PairingMethod, RemovalStep};
use portcullis_core::{
    Attempt, Device, Intent, KvEntry, Names, OperationKind, OrgId, PluginId, PluginRequest, PolicyReadError,
    PolicyReads, RequestFlaw, Secret, Session, SessionId, Status, Timestamp, Unlink, Window,
};
use portcullis_net::{Outbound, OutboundConfig};
use portcullis_service::check_request;
use serde_json::Value;

use super::fixture::{Fixture, FixtureError};

/// A fixture's data.
pub(super) struct World {
    kv: BTreeMap<String, KvEntry>,
    sessions: BTreeMap<SessionId, Session>,
    done: BTreeMap<String, Value>,
    secrets: BTreeMap<String, String>,
    /// The way out with the guard that a gateway usually has; nothing is sent.
    outbound: Option<Outbound>,
}

impl World {
    /// The data of a fixture.
    pub(super) fn of(fixture: &Fixture) -> Result<Self, FixtureError> {
        let mut kv = BTreeMap::new();
        for (key, value) in &fixture.kv {
            let value = bytes(value).ok_or_else(|| FixtureError::Value {
                place: format!("kv.{key}"),
                why: "a text or {\"base64\": …}".to_owned(),
            })?;
            kv.insert(key.clone(), KvEntry { value, version: 1, expires: None });
        }
        let mut sessions = BTreeMap::new();
        for told in fixture.all_sessions() {
            // A sample's session may have any id; one that the plugin can read has to have one of the gateway's.
            let Some(session) = session(&told)? else { continue };
            sessions.insert(session.id, session);
        }
        for name in fixture.done.keys() {
            if OperationKind::from_name(name).is_none() {
                return Err(FixtureError::Value {
                    place: format!("done.{name}"),
                    why: "there is no such operation".to_owned(),
                });
            }
        }
        // Making it takes a while, and few plugins send anything.
        let outbound = if fixture.http_hosts.is_empty() { None } else { Outbound::new(OutboundConfig::default()).ok() };
        Ok(Self { kv, sessions, done: fixture.done.clone(), secrets: fixture.secrets.clone(), outbound })
    }
}

impl PolicyReads for World {
    fn kv(&self, _: PluginId, key: &str) -> Result<Option<KvEntry>, PolicyReadError> {
        Ok(self.kv.get(key).cloned())
    }

    fn kv_keys(
        &self,
        _: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, PolicyReadError> {
        let fits = |key: &&String| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after);
        Ok(self.kv.keys().filter(fits).take(limit).cloned().collect())
    }

    fn session(&self, id: SessionId) -> Result<Option<Session>, PolicyReadError> {
        Ok(self.sessions.get(&id).cloned())
    }

    fn sessions(&self, after: Option<SessionId>, limit: usize) -> Result<Vec<Session>, PolicyReadError> {
        let later = self.sessions.values().filter(|session| after.is_none_or(|after| session.id > after));
        Ok(later.take(limit).cloned().collect())
    }

    fn secret(&self, _: OrgId, _: PluginId, name: &str) -> Result<Option<Secret>, PolicyReadError> {
        Ok(self.secrets.get(name).map(|secret| Secret::new(secret.as_str())))
    }

    fn usage(&self, operation: OperationKind, window: Window) -> Result<u64, PolicyReadError> {
        let window = match window {
            Window::Sliding(millis) => millis.to_string(),
            Window::UtcDay => "utc-day".to_owned(),
        };
        let done = self.done.get(operation.name());
        let count = done.and_then(|done| done.as_u64().or_else(|| done.get(&window).and_then(Value::as_u64)));
        Ok(count.unwrap_or(0))
    }

    fn check_request(&self, request: &PluginRequest) -> Result<String, RequestFlaw> {
        check_request(self.outbound.as_ref().ok_or(RequestFlaw::NoWayOut)?, request)
    }
}

/// The bytes of a value: a text's own, or those of `{"base64": …}`.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Object(fields) => STANDARD.decode(fields.get("base64")?.as_str()?).ok(),
        _ => None,
    }
}

/// Bytes as a fixture has them: a text if they are one.
pub(super) fn told(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => serde_json::json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// A session of the core's from the contract's words; none if its id is not one of the gateway's.
fn session(told: &Value) -> Result<Option<Session>, FixtureError> {
    let text = |field: &str| told[field].as_str().map(str::to_owned);
    let time = |field: &str| told[field].as_u64().map(Timestamp::from_millis);
    let Some(id) = text("id").and_then(|id| id.parse::<SessionId>().ok()) else { return Ok(None) };
    let born = time("created-at").unwrap_or(Timestamp::from_millis(0));
    let names = Names::new(u128::from_be_bytes(id.to_bytes()), text("instance-name"));
    let mut session = Session::new(id, OrgId::PLATFORM, names, born);
    session.display_name = text("display-name");
    for label in told["labels"].as_array().into_iter().flatten() {
        let part = |field: &str| label[field].as_str().unwrap_or_default().to_owned();
        session.labels.insert(part("key"), part("value"));
    }
    let wrong = |field: &str| FixtureError::Value {
        place: format!("session.{field}"),
        why: format!("the contract has no {}", told[field]),
    };
    let cause = told["failure"].as_str();
    session.intent = match told["intent"].as_str() {
        Some("running") => Intent::Running,
        Some("stopped") => Intent::Stopped,
        Some("removed") => Intent::Removed {
            due: time("delete-due").unwrap_or(born),
            reason: String::new(),
            since: born,
            was_running: false,
        },
        _ => return Err(wrong("intent")),
    };
    session.status =
        told["status"].as_str().and_then(|word| status(word, cause, born)).ok_or_else(|| wrong("status"))?;
    session.device = text("jid").map(|jid| Device { jid, lid: None, push_name: None });
    if let Some(policy) = text("rate-policy") {
        session.rate_policy = policy;
    }
    session.account_limit = text("account-limit").map(|code| AccountLimit { code, until: None, since: born });
    session.updated_at = time("updated-at").unwrap_or(born);
    session.last_connected_at = time("last-connected-at");
    Ok(Some(session))
}

/// A status that the contract has this word for. What the contract does not tell does not matter.
fn status(word: &str, cause: Option<&str>, at: Timestamp) -> Option<Status> {
    let attempt = Attempt::default();
    Some(match word {
        "stopped" => Status::Stopped,
        "starting" => Status::Starting { attempt, deadline: at, tries: 0 },
        "pairing" => Status::Pairing { attempt, method: PairingMethod::Qr, code: None, deadline: at },
        "online" => Status::Online { attempt },
        "reconnecting" => Status::Reconnecting { attempt, since: at, tries: 0, deadline: at },
        "logged-out" => Status::LoggedOut { by: LoggedOutBy::Api, unlink: Unlink::NotLinked },
        "failed" => {
            let cause = serde_json::from_value(Value::String(cause.unwrap_or("pairing-expired").to_owned()));
            Status::Failed { cause: cause.unwrap_or(FailureCause::PairingExpired), retry: None }
        }
        "removing" => Status::Removing { step: RemovalStep::Erase },
        _ => return None,
    })
}
