//! The Wawp dialect, `/v2`: verbs as paths, most of them for POST and GET alike, and credentials wherever its clients put them.
//!
//! ```text
//! POST /v2/session/create      access_token                         201 {instance_id, session_name, …}
//! POST /v2/session/start       access_token + instance_id           200 {name, status, config, me, …}
//!      …                       in the query, the body or headers    4xx {code, message, status, error}
//! ```
//!
//! `params` reads what a request gives, `view` shows sessions, `problem` says what went wrong; the other modules are the nouns.

mod messages;
mod pacing;
mod pairing;
mod params;
mod problem;
mod sessions;
mod view;
mod webhooks;

use hyper::Method;
use portcullis_core::{Operation, OperationKind};

use crate::asked::{Asked, WaitFor};
use crate::dialect::{Credential, Dialect, Fault, Problem};
use crate::exchange::{Incoming, Reply};
use crate::routes::{BodyBound, Decode, Encode, Route, SessionBy};

pub(crate) use problem::{envelope, fault};

/// The table.
pub(crate) fn routes() -> Vec<Route> {
    use OperationKind as Op;
    const DO: &[Method] = &[Method::POST, Method::GET];
    const GET: &[Method] = &[Method::GET];
    const POST: &[Method] = &[Method::POST];
    const PATCH: &[Method] = &[Method::PATCH];
    const DELETE: &[Method] = &[Method::DELETE];
    let rows = [
        rows(POST, "/v2/session/create", Op::SessionCreate, sessions::create, sessions::created),
        rows(DO, "/v2/session/start", Op::SessionStart, sessions::start, sessions::session),
        rows(DO, "/v2/session/stop", Op::SessionStop, sessions::stop, sessions::session),
        rows(DO, "/v2/session/restart", Op::SessionRestart, sessions::restart, sessions::session),
        rows(DO, "/v2/session/logout", Op::SessionLogout, sessions::logout, sessions::logged_out),
        rows(DO, "/v2/logout", Op::SessionLogout, sessions::logout, sessions::logged_out),
        rows(DELETE, "/v2/session/delete", Op::SessionDelete, sessions::delete, sessions::deleted),
        rows(DELETE, "/v2/delete", Op::SessionDelete, sessions::delete, sessions::deleted),
        rows(DO, "/v2/session/info", Op::SessionRead, sessions::get, sessions::info),
        rows(DO, "/v2/session/status", Op::SessionRead, sessions::get, sessions::info),
        rows(DO, "/v2/status", Op::SessionRead, sessions::get, sessions::info),
        rows(GET, "/v2/session/me", Op::SessionRead, sessions::get, sessions::me),
        rows(GET, "/v2/session/rate-limit", Op::SessionRead, pacing::get, pacing::policy),
        rows(PATCH, "/v2/session/rate-limit", Op::SessionRatePolicy, pacing::choose, pacing::chosen),
        rows(GET, "/v2/session/temp-link", Op::SecretRead, sessions::get, pairing::link),
        rows(POST, "/v2/session/temp-link", Op::SessionLink, pairing::rotate_link, pairing::new_link),
        rows(DELETE, "/v2/session/temp-link", Op::SessionLink, pairing::revoke_link, pairing::no_link),
        rows(GET, "/v2/session/webhook", Op::WebhookRead, webhooks::list, webhooks::listed),
        rows(POST, "/v2/session/webhook", Op::WebhookReplace, webhooks::replace, webhooks::listed),
        rows(DO, "/v2/auth/qr", Op::SessionQr, pairing::qr, pairing::qr_text),
        rows(DO, "/v2/auth/qr-image", Op::SessionQr, pairing::qr_image, pairing::qr_picture),
        rows(POST, "/v2/auth/request-code", Op::SessionPairingCode, pairing::request_code, pairing::typed_code),
        rows(DO, "/v2/send/text", Op::MessageSend, messages::send, messages::sent),
    ];
    rows.into_iter().flatten().collect()
}

/// The same row for each of some methods.
fn rows(
    methods: &[Method],
    path: &'static str,
    operation: OperationKind,
    decode: Decode,
    encode: Encode,
) -> Vec<Route> {
    let session = match operation {
        OperationKind::SessionCreate => SessionBy::Id,
        _ => SessionBy::InstanceId(params::instance_id),
    };
    let row = |method: &Method| Route {
        dialect: Dialect::Wawp,
        method: method.clone(),
        path,
        action: "",
        operation,
        body: BodyBound::Json,
        session,
        paid: matches!(operation, OperationKind::WebhookRead | OperationKind::WebhookReplace),
        decode,
        encode,
        refuse: problem::refuse,
    };
    methods.iter().map(row).collect()
}

/// `access_token` in the query or the body, the header of that name with a dash, or a bearer token.
/// Two of them that differ are none: there is no telling on whose behalf the request is.
pub(crate) fn credential(incoming: &Incoming) -> Credential {
    match params::access_token(incoming) {
        Ok(Some(token)) => Credential::Key(token),
        Ok(None) | Err(params::Contradiction) => Credential::None,
    }
}

fn operate(operation: Operation) -> Result<Asked, Problem> {
    Ok(Asked::Operate { operation, then: WaitFor::Nothing })
}

/// The answer of an encoder that was handed an answer of another question: a bug of the table, found by every golden transcript.
fn mismatch() -> Reply {
    Dialect::Wawp.fault(&Fault::Internal)
}

fn told(problem: &Problem) -> Reply {
    Dialect::Wawp.problem(problem)
}
