//! What a session is set up with besides its labels: settings, proxy and temporary link.

use hyper::StatusCode;
use portcullis_core::operation::{KeptSetting, LinkChange};
use portcullis_core::session::{ProxyProtocol, Settings};
use portcullis_core::{Operation, Proxy, Secret, Session};
use portcullis_service::Outcome;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sessions::session_id;
use super::view::{LinkView, ProxyView, SessionProxyView, SettingsView};
use super::{decode, mismatch};
use crate::asked::{Answer, Asked, WaitFor};
use crate::dialect::{Problem, common, dry_run};
use crate::exchange::{Incoming, Reply};
use crate::openapi::schema::{HostOf, PLAIN, ProtocolOf};
use crate::routes::EncodeContext;

/// The longest text with which refused callers are answered, in bytes.
const MAX_CALL_TEXT: usize = 1000;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SettingsBody {
    auto_read: bool,
    presence_typing: bool,
    #[serde(default)]
    reject_calls: bool,
    #[serde(default)]
    #[schemars(length(max = MAX_CALL_TEXT), regex(pattern = PLAIN))]
    rejected_call_text: String,
    #[serde(default)]
    ignore_groups: bool,
    #[serde(default)]
    always_online: bool,
    #[serde(default)]
    read_status: bool,
    #[serde(default)]
    full_history: bool,
}

pub(super) fn set_settings(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = session_id(incoming)?;
    let body: SettingsBody = decode::body(incoming)?;
    decode::check_text("rejectedCallText", &body.rejected_call_text, MAX_CALL_TEXT)?;
    let settings = Settings {
        auto_read: body.auto_read,
        presence_typing: body.presence_typing,
        reject_calls: body.reject_calls,
        rejected_call_text: body.rejected_call_text,
        ignore_groups: body.ignore_groups,
        always_online: body.always_online,
        read_status: body.read_status,
        full_history: body.full_history,
        ..Settings::default()
    };
    operate(Operation::SessionSettings { session, settings, kept: KeptSetting::VoiceToken })
}

pub(super) fn get(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Session { session: session_id(incoming)? })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProxyBody {
    #[schemars(with = "ProtocolOf")]
    protocol: String,
    #[schemars(with = "HostOf")]
    host: String,
    #[schemars(range(min = 1))]
    port: u16,
    #[schemars(length(max = 256), regex(pattern = PLAIN))]
    username: Option<String>,
    #[schemars(length(max = 256), regex(pattern = PLAIN))]
    password: Option<String>,
}

pub(super) fn set_proxy(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = session_id(incoming)?;
    let body: ProxyBody = decode::body(incoming)?;
    let protocol = ProxyProtocol::from_name(&body.protocol);
    let protocol = protocol.ok_or_else(|| Problem::invalid("protocol must be http, https or socks5"))?;
    common::proxy_host(&body.host).map_err(Problem::invalid)?;
    if body.port == 0 {
        return Err(Problem::invalid("port must be 1 to 65535"));
    }
    for (field, text) in [("username", &body.username), ("password", &body.password)] {
        decode::check_text(field, text.as_deref().unwrap_or_default(), 256)?;
    }
    let proxy = Proxy {
        protocol,
        host: body.host,
        port: body.port,
        username: body.username,
        password: body.password.map(Secret::new),
    };
    operate(Operation::SessionProxy { session, proxy: Some(proxy) })
}

pub(super) fn remove_proxy(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::SessionProxy { session: session_id(incoming)?, proxy: None })
}

pub(super) fn make_link(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::SessionLink { session: session_id(incoming)?, change: LinkChange::Rotate })
}

pub(super) fn revoke_link(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::SessionLink { session: session_id(incoming)?, change: LinkChange::Revoke })
}

fn operate(operation: Operation) -> Result<Asked, Problem> {
    Ok(Asked::Operate { operation, then: WaitFor::Nothing })
}

// === replies ===

fn shown<'a, T: Serialize>(answer: &'a Answer, status: StatusCode, show: impl Fn(&'a Session) -> Option<T>) -> Reply {
    let session = match answer {
        Answer::Session(session) => Some(session),
        Answer::Operated(done) => match &done.outcome {
            Outcome::DryRun(verdict) => return Reply::json(StatusCode::OK, &dry_run(verdict)),
            _ => done.session.as_ref(),
        },
        _ => None,
    };
    match session.map(|session| show(session)) {
        Some(Some(body)) => Reply::json(status, &body).with("cache-control", "no-store"),
        Some(None) => Reply::empty(StatusCode::NO_CONTENT),
        None => mismatch(),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "an encoder of the table takes its answer")]
pub(super) fn settings(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    shown(&answer, StatusCode::OK, |session| Some(SettingsView::of(&session.settings)))
}

#[expect(clippy::needless_pass_by_value, reason = "an encoder of the table takes its answer")]
pub(super) fn proxy(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    shown(&answer, StatusCode::OK, |session| {
        Some(SessionProxyView { proxy: session.proxy.as_ref().map(ProxyView::of) })
    })
}

#[expect(clippy::needless_pass_by_value, reason = "an encoder of the table takes its answer")]
pub(super) fn link(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    shown(&answer, StatusCode::OK, |session| Some(LinkView::of(session, context)))
}

#[expect(clippy::needless_pass_by_value, reason = "an encoder of the table takes its answer")]
pub(super) fn made_link(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    shown(&answer, StatusCode::CREATED, |session| Some(LinkView::of(session, context)))
}

#[expect(clippy::needless_pass_by_value, reason = "an encoder of the table takes its answer")]
pub(super) fn revoked_link(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    shown(&answer, StatusCode::NO_CONTENT, |_session| None::<LinkView>)
}
