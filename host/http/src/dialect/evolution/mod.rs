//! The Evolution dialect: what clients of the Evolution API, version 2, expect of `/instance`, `/webhook`, `/settings` and others.
//!
//! An *instance* is a session under a name that its maker chose. Differences to what such clients know are listed in `docs/api.md`;
//! the largest is that who asks comes before what is asked, because names of other organisations are nobody's business.

mod create;
mod instance;
mod jid;
mod message;
mod problem;
mod schema;
mod settings;
mod view;
mod webhook;

use hyper::{Method, StatusCode};
use portcullis_core::{Operation, OperationKind, SessionId};
use serde_json::json;

use crate::asked::{Asked, WaitFor};
use crate::dialect::{Credential, Dialect, Fault, Problem, Refuse};
use crate::exchange::{Incoming, Reply};
use crate::routes::{BodyBound, Decode, Encode, Route, SessionBy};

pub(crate) use problem::{envelope, fault};

/// The version whose API this is.
const VERSION: &str = "2.3.6";

/// The table.
pub(crate) fn routes() -> Vec<Route> {
    use OperationKind as Op;
    use SessionBy::{Id, InstanceName};
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const DELETE: Method = Method::DELETE;
    let refusing = |refuse: Refuse| {
        move |method, path, operation, session, decode: Decode, encode: Encode| Route {
            dialect: Dialect::Evolution,
            method,
            path,
            action: "",
            operation,
            body: BodyBound::Json,
            session,
            paid: false,
            decode,
            encode,
            refuse,
        }
    };
    let (row, connecting) = (refusing(problem::refuse), refusing(problem::refuse_connecting));
    let (creating, sending) = (refusing(problem::refuse_creating), refusing(problem::refuse_sending));
    #[rustfmt::skip]
    let table = vec![
        creating(POST, "/instance/create", Op::SessionCreate, Id, create::create, create::created),
        row(GET, "/instance/fetchInstances", Op::SessionRead, Id, instance::list, instance::listed),
        connecting(GET, "/instance/connect/{instance}", Op::SessionStart, InstanceName, instance::connect, instance::connecting),
        connecting(POST, "/instance/restart/{instance}", Op::SessionRestart, InstanceName, instance::restart, instance::restarting),
        row(GET, "/instance/connectionState/{instance}", Op::SessionRead, InstanceName, instance::get, instance::state),
        row(POST, "/instance/setPresence/{instance}", Op::PresenceSet, InstanceName, instance::set_presence, message::presence_shown),
        row(DELETE, "/instance/logout/{instance}", Op::SessionLogout, InstanceName, instance::logout, instance::logged_out),
        row(DELETE, "/instance/delete/{instance}", Op::SessionDelete, InstanceName, instance::delete, instance::deleted),
        row(POST, "/webhook/set/{instance}", Op::WebhookReplace, InstanceName, webhook::set, webhook::was_set),
        row(GET, "/webhook/find/{instance}", Op::WebhookRead, InstanceName, webhook::find, webhook::found),
        row(POST, "/settings/set/{instance}", Op::SessionSettings, InstanceName, settings::set, settings::was_set),
        row(GET, "/settings/find/{instance}", Op::SessionRead, InstanceName, settings::find, settings::found),
        row(POST, "/proxy/set/{instance}", Op::SessionProxy, InstanceName, settings::set_proxy, settings::proxy_was_set),
        row(GET, "/proxy/find/{instance}", Op::SecretRead, InstanceName, settings::find, settings::proxy_found),
        sending(POST, "/message/sendText/{instance}", Op::MessageSend, InstanceName, message::send, message::sent),
        row(POST, "/chat/whatsappNumbers/{instance}", Op::NumberCheck, InstanceName, message::check_numbers, message::checked),
        row(POST, "/chat/sendPresence/{instance}", Op::PresenceSet, InstanceName, message::show_presence, message::presence_shown),
        row(POST, "/verify-creds", Op::SessionRead, Id, instance::verify, instance::verified),
    ];
    table
}

/// The header `apikey`: an API key, or the token of one instance.
pub(crate) fn credential(incoming: &Incoming) -> Credential {
    let mut keys = incoming.headers.get_all("apikey").iter().filter(|key| !key.is_empty());
    match (keys.next().and_then(|key| key.to_str().ok()), keys.next()) {
        (Some(key), None) => Credential::KeyOrSessionToken(key.to_owned()),
        // There is no telling which of several keys is meant.
        _ => Credential::None,
    }
}

/// What anybody is told who asks for nothing in particular.
pub(crate) fn welcome(name: &str) -> Reply {
    let body = json!({
        "status": 200,
        "message": "Welcome to the Evolution API, it is working!",
        "version": VERSION,
        "clientName": name,
        "documentation": "https://doc.evolution-api.com",
    });
    Reply::json(StatusCode::OK, &body)
}

/// The session whose name is in the path; it was found before decoding.
fn instance_session(incoming: &Incoming) -> Result<SessionId, Problem> {
    incoming.session.ok_or_else(|| fault(&Fault::NoSession))
}

fn operate(operation: Operation) -> Result<Asked, Problem> {
    Ok(Asked::Operate { operation, then: WaitFor::Nothing })
}

/// The answer of an encoder that was handed an answer of another question: a bug of the table, found by every golden transcript.
fn mismatch() -> Reply {
    Dialect::Evolution.fault(&Fault::Internal)
}
