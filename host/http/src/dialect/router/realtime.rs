//! The ticket with which a browser opens the stream of events; the stream itself is in [`crate::realtime`].

use hyper::StatusCode;
use portcullis_core::{EventId, SessionId};
use portcullis_webhook::native::EVENTS;
use schemars::JsonSchema;
use serde::Deserialize;

use super::view::TicketView;
use super::{decode, mismatch};
use crate::asked::{Answer, Asked, TicketRequest};
use crate::dialect::Problem;
use crate::exchange::{Incoming, Reply};
use crate::openapi::schema::{EventOf, Id, ScopeOf};
use crate::routes::EncodeContext;
use crate::tickets;

#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct TicketBody {
    #[schemars(with = "Option<ScopeOf>")]
    scope: Option<String>,
    #[schemars(with = "Option<Id<SessionId>>")]
    session: Option<String>,
    #[schemars(with = "Option<Vec<EventOf>>")]
    events: Option<Vec<String>>,
    #[schemars(with = "Option<Id<EventId>>")]
    since: Option<String>,
}

pub(super) fn ticket(incoming: &Incoming) -> Result<Asked, Problem> {
    let body: TicketBody = decode::optional_body(incoming)?;
    let session = body.session.filter(|text| !text.is_empty());
    let (session, firehose) = match body.scope.as_deref() {
        None | Some("organization") => (None, false),
        Some("firehose") => (None, true),
        Some("session") => match session {
            Some(text) => (Some(decode::id::<SessionId>("session", &text)?), false),
            None => return Err(Problem::invalid("session is required for scope=session")),
        },
        Some(_) => return Err(Problem::invalid("scope must be one of session|organization|firehose")),
    };
    let events = body.events.filter(|events| !events.is_empty()).unwrap_or_else(|| vec!["*".to_owned()]);
    if let Some(unknown) = events.iter().find(|name| *name != "*" && !EVENTS.contains(&name.as_str())) {
        return Err(Problem::invalid(format!("unknown event {unknown:?}")));
    }
    let since = body.since.map(|text| decode::id::<EventId>("since", &text)).transpose()?;
    Ok(Asked::Ticket(TicketRequest { session, firehose, events, since }))
}

pub(super) fn ticketed(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Ticket(ticket) = answer else { return mismatch() };
    // The scheme of a WebSocket follows that of the gateway: http becomes ws, https becomes wss.
    let url = format!("ws{}/api/v1/realtime?ticket={ticket}", context.public_url.trim_start_matches("http"));
    let body = TicketView { ticket: &ticket, expires_in_seconds: tickets::LIFETIME.as_secs(), url };
    Reply::json(StatusCode::CREATED, &body).with("cache-control", "no-store")
}

pub(super) fn metrics(_incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Metrics)
}

pub(super) fn metered(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Metrics(text) = answer else { return mismatch() };
    Reply::text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}
