//! How an instance behaves, and the proxy through which it connects.

use hyper::StatusCode;
use portcullis_core::operation::KeptSetting;
use portcullis_core::session::{ProxyProtocol, Settings};
use portcullis_core::{Operation, Proxy, Secret};
use portcullis_service::Outcome;
use serde_json::{Map, Value, json};

use super::schema::{self, Field, Kind, Schema};
use super::{instance_session, mismatch, operate, problem, view};
use crate::asked::{Answer, Asked};
use crate::dialect::Problem;
use crate::exchange::{Incoming, Reply};
use crate::routes::EncodeContext;

/// The longest text for a refused caller, and the longest token, in bytes.
const MAX_TEXT: usize = 1024;
/// The longest host name.
const MAX_HOST: usize = 253;
/// The longest user name or password of a proxy, which SOCKS bounds.
const MAX_LOGIN: usize = 255;

const SETTINGS: Schema = &[
    Field::required("rejectCall", Kind::Flag),
    Field::new("msgCall", Kind::Text),
    Field::required("groupsIgnore", Kind::Flag),
    Field::required("alwaysOnline", Kind::Flag),
    Field::required("readMessages", Kind::Flag),
    Field::required("readStatus", Kind::Flag),
    Field::required("syncFullHistory", Kind::Flag),
    Field::new("wavoipToken", Kind::Text),
];
const PROXY: Schema = &[
    Field::required("enabled", Kind::LooseFlag),
    Field::required("host", Kind::Text),
    Field::required("port", Kind::Text),
    Field::required("protocol", Kind::Text),
    Field::new("username", Kind::Text),
    Field::new("password", Kind::Text),
];

pub(super) fn set(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = instance_session(incoming)?;
    let settings = settings(&schema::read(incoming, SETTINGS)?)?;
    operate(Operation::SessionSettings { session, settings, kept: KeptSetting::PresenceTyping })
}

/// Reads what behaviour a checked body wants; what is left out is off.
pub(super) fn settings(body: &Map<String, Value>) -> Result<Settings, Problem> {
    let text = |name: &str| {
        let text = schema::text(body, name).unwrap_or_default();
        let fits = text.len() <= MAX_TEXT;
        if fits { Ok(text) } else { Err(problem::bad(format!("\"{name}\" must be at most {MAX_TEXT} bytes"))) }
    };
    Ok(Settings {
        auto_read: schema::flag(body, "readMessages"),
        presence_typing: false,
        reject_calls: schema::flag(body, "rejectCall"),
        rejected_call_text: text("msgCall")?.to_owned(),
        ignore_groups: schema::flag(body, "groupsIgnore"),
        always_online: schema::flag(body, "alwaysOnline"),
        read_status: schema::flag(body, "readStatus"),
        full_history: schema::flag(body, "syncFullHistory"),
        voice_token: Secret::new(text("wavoipToken")?),
    })
}

pub(super) fn set_proxy(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = instance_session(incoming)?;
    let body = schema::read(incoming, PROXY)?;
    let proxy = if schema::flag(&body, "enabled") { Some(proxy(&body, ProxyNames::SET)?) } else { None };
    operate(Operation::SessionProxy { session, proxy })
}

/// How the fields of a proxy are called.
#[derive(Clone, Copy)]
pub(super) struct ProxyNames {
    pub(super) host: &'static str,
    pub(super) port: &'static str,
    pub(super) protocol: &'static str,
    pub(super) username: &'static str,
    pub(super) password: &'static str,
}

impl ProxyNames {
    /// In a body of their own.
    const SET: Self =
        Self { host: "host", port: "port", protocol: "protocol", username: "username", password: "password" };
    /// In the body that creates an instance.
    pub(super) const CREATE: Self = Self {
        host: "proxyHost",
        port: "proxyPort",
        protocol: "proxyProtocol",
        username: "proxyUsername",
        password: "proxyPassword",
    };
}

/// Reads a proxy from a checked body. Whether it can be reached shows when the session connects.
pub(super) fn proxy(body: &Map<String, Value>, names: ProxyNames) -> Result<Proxy, Problem> {
    let wrong = |why: &str| problem::because("Invalid proxy", why);
    let host = schema::text(body, names.host).unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if host.is_empty() || host.len() > MAX_HOST || !host.chars().all(plain) {
        return Err(wrong("the host must be a name or an address"));
    }
    let port = schema::text(body, names.port).unwrap_or_default().parse().ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| wrong("the port must be a number from 1 to 65535"))?;
    let protocol = schema::filled(body, names.protocol).unwrap_or("http");
    let protocol = ProxyProtocol::from_name(protocol);
    let protocol = protocol.ok_or_else(|| wrong("the protocol must be http, https or socks5"))?;
    let login = |name: &str| {
        let text = schema::filled(body, name);
        let fits = text.is_none_or(|text| text.len() <= MAX_LOGIN && !text.chars().any(char::is_control));
        if fits { Ok(text) } else { Err(wrong("the user name or the password is too long or has control characters")) }
    };
    Ok(Proxy {
        protocol,
        host: host.to_owned(),
        port,
        username: login(names.username)?.map(str::to_owned),
        password: login(names.password)?.map(Secret::new),
    })
}

pub(super) fn find(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Session { session: instance_session(incoming)? })
}

// === replies ===

pub(super) fn was_set(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Operated(done) = answer else { return mismatch() };
    match (&done.outcome, &done.session) {
        (Outcome::DryRun(verdict), _) => problem::dry_run(verdict),
        (_, Some(session)) => {
            let settings = view::settings(&session.settings, context.may_manage);
            let body = json!({ "settings": { "instanceName": context.session, "settings": settings } });
            Reply::json(StatusCode::CREATED, &body)
        }
        (_, None) => mismatch(),
    }
}

pub(super) fn found(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Session(session) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &view::settings(&session.settings, context.may_manage))
}

pub(super) fn proxy_was_set(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Operated(done) = answer else { return mismatch() };
    match (&done.outcome, &done.session) {
        (Outcome::DryRun(verdict), _) => problem::dry_run(verdict),
        (_, Some(session)) => {
            let off =
                || json!({ "enabled": false, "host": "", "port": "", "protocol": "", "username": "", "password": "" });
            let proxy = session.proxy.as_ref().map_or_else(off, view::proxy);
            let body = json!({ "proxy": { "instanceName": context.session, "proxy": proxy } });
            Reply::json(StatusCode::CREATED, &body)
        }
        (_, None) => mismatch(),
    }
}

pub(super) fn proxy_found(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Session(session) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &session.proxy.as_ref().map(view::proxy))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_proxy_has_a_host_a_port_and_a_protocol() {
        let check = |host: &str, port: &str, protocol: &str, fits: bool| {
            let body = json!({ "host": host, "port": port, "protocol": protocol, "username": "", "password": "p" });
            let read = proxy(body.as_object().unwrap(), ProxyNames::SET);
            assert_eq!(read.is_ok(), fits, "{protocol}://{host}:{port}");
            if let Ok(read) = read {
                assert_eq!((read.username, read.password), (None, Some(Secret::new("p"))));
            }
        };
        check("proxy.example.com", "8080", "http", true);
        check("10.0.0.1", "1", "socks5", true);
        check("[::1]", "65535", "https", true);
        check("proxy", "8080", "", true);
        check("", "8080", "http", false);
        check("a b", "8080", "http", false);
        check("http://proxy", "8080", "http", false);
        check("proxy", "0", "http", false);
        check("proxy", "65536", "http", false);
        check("proxy", "", "http", false);
        check("proxy", "8080", "socks4", false);
        check(&"p".repeat(MAX_HOST + 1), "8080", "http", false);
    }

    #[test]
    fn long_texts_are_refused() {
        for name in ["msgCall", "wavoipToken"] {
            let body = json!({ name: "x".repeat(MAX_TEXT + 1) });
            let error = settings(body.as_object().unwrap()).unwrap_err();
            assert_eq!(error.message, format!("\"{name}\" must be at most 1024 bytes"));
        }
    }
}
