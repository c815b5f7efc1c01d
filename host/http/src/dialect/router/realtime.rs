//! The stream of events, and the ticket with which a browser opens it. How a stream goes on is in [`crate::live`].

use hyper::StatusCode;
use portcullis_core::{EventId, SessionId};
use portcullis_webhook::native::EVENTS;
use schemars::JsonSchema;
use serde::Deserialize;

use super::view::TicketView;
use super::{decode, mismatch};
use crate::asked::{Answer, Asked, StreamRequest};
use crate::dialect::{Dialect, Problem};
use crate::exchange::{Incoming, Reply};
use crate::live::{self, Since};
use crate::openapi::schema::{EventOf, Id, ScopeOf};
use crate::routes::EncodeContext;
use crate::tickets;

/// The most names of events that a request lists.
const MAX_EVENTS: usize = 64;

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
    let events = events(body.events.unwrap_or_default())?;
    let since = body.since.map(|text| decode::id::<EventId>("since", &text)).transpose()?.map(Since::Event);
    Ok(Asked::Ticket(StreamRequest { session, firehose, events, since, until: incoming.until }))
}

/// The names under which a client wants to be told of events: all, unless it says which.
fn events(names: Vec<String>) -> Result<Vec<String>, Problem> {
    if names.is_empty() {
        return Ok(vec!["*".to_owned()]);
    }
    if names.len() > MAX_EVENTS {
        return Err(Problem::invalid(format!("events must list at most {MAX_EVENTS} names")));
    }
    match names.iter().find(|name| *name != "*" && !EVENTS.contains(&name.as_str())) {
        Some(unknown) => Err(Problem::invalid(format!("unknown event {unknown:?}"))),
        None => Ok(names),
    }
}

/// The stream, for who comes with a key, or with a ticket that says already what it is for.
pub(super) fn follow(incoming: &Incoming) -> Result<Asked, Problem> {
    let given = |name: &str| incoming.query(name).filter(|text| !text.is_empty());
    // A browser that comes back asks for the same address as before and says in the header how far it has come meanwhile.
    let since = match incoming.header("last-event-id").filter(|text| !text.is_empty()) {
        Some(text) => Some(("Last-Event-ID", text)),
        None => given("since").map(|text| ("since", text)),
    };
    let since =
        since.map(|(name, text)| text.parse::<Since>().map_err(|error| Problem::invalid(format!("{name}: {error}"))));
    let since = since.transpose()?;
    let Some(ticket) = &incoming.ticket else {
        let session = given("session").map(|text| decode::id::<SessionId>("session", text)).transpose()?;
        let names = given("events").into_iter().flat_map(|list| list.split(','));
        let events = events(names.map(|name| name.trim().to_owned()).collect())?;
        return Ok(Asked::Follow(StreamRequest { session, firehose: false, events, since, until: incoming.until }));
    };
    if given("session").is_some() || given("events").is_some() {
        return Err(Problem::invalid("the ticket says which events it is for"));
    }
    if ticket.wanted.firehose {
        return Err(Problem::invalid("the firehose is told by the realtime socket only"));
    }
    Ok(Asked::Follow(StreamRequest { since: since.or(ticket.wanted.since), ..ticket.wanted.clone() }))
}

pub(super) fn followed(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    match answer {
        Answer::Followed(Ok(opened)) => live::sse::reply(*opened),
        Answer::Followed(Err(full)) => Dialect::Router.problem(&full.problem()),
        _ => mismatch(),
    }
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
