//! The realtime socket: a WebSocket that a ticket opens.
//!
//! It says hello and keeps the connection alive; events will come through it with their delivery.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming as HyperBody;
use hyper::header::HeaderValue;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use portcullis_core::Capability;
use serde_json::json;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::Front;
use crate::dialect::{Dialect, Problem};
use crate::exchange::{Reply, parse_query};
use crate::handle::{Body, complete};
use crate::places::StreamPlace;
use crate::tickets::Ticket;

pub(crate) const PATH: &str = "/api/v1/realtime";
/// How often the client is told that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// The largest message of a client's, who has nothing to say.
const MAX_INBOUND: usize = 4 * 1024;

/// Opens the socket for whoever comes with a ticket.
pub(crate) fn answer(front: &Arc<Front>, mut request: Request<HyperBody>) -> Response<Body> {
    let query = parse_query(request.uri().query().unwrap_or_default());
    let Some((_, text)) = query.iter().find(|(name, value)| name == "ticket" && !value.is_empty()) else {
        return refused(StatusCode::UNAUTHORIZED, "unauthorized", "missing ticket");
    };
    // A ticket is good for one use, so it is looked at last.
    let Some(accept) = accept_key(&request) else {
        let problem = "this address speaks WebSocket, version 13";
        let mut response = refused(StatusCode::UPGRADE_REQUIRED, "validation_error", problem);
        response.headers_mut().insert("upgrade", HeaderValue::from_static("websocket"));
        response.headers_mut().insert("sec-websocket-version", HeaderValue::from_static("13"));
        return response;
    };
    let ticket = front.tickets.redeem(text, front.service.now());
    let Some(ticket) = ticket.filter(|ticket| is_allowed(front, ticket)) else {
        return refused(StatusCode::UNAUTHORIZED, "unauthorized", "invalid or expired ticket");
    };
    let Some(place) = front.streams.enter(ticket.org, None) else { return crate::stream::full() };
    let upgraded = hyper::upgrade::on(&mut request);
    let front = Arc::clone(front);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let config = WebSocketConfig::default().max_message_size(Some(MAX_INBOUND)).max_frame_size(Some(MAX_INBOUND));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        if let Err(error) = talk(&front, &ticket, socket, place).await {
            tracing::debug!(org = %ticket.org, %error, "a realtime socket ended early");
        }
    });
    let reply = Reply::empty(StatusCode::SWITCHING_PROTOCOLS)
        .with("connection", "upgrade")
        .with("upgrade", "websocket")
        .with("sec-websocket-accept", &accept);
    complete(reply)
}

fn refused(status: StatusCode, code: &'static str, message: &str) -> Response<Body> {
    complete(Dialect::Router.problem(&Problem::new(status, code, message)))
}

/// The answer to the client's challenge (RFC 6455, section 4.2.2); none if the request is no handshake.
fn accept_key(request: &Request<HyperBody>) -> Option<String> {
    let header = |name: &str| request.headers().get(name)?.to_str().ok();
    let upgrades = header("connection")?.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let websocket = header("upgrade")?.eq_ignore_ascii_case("websocket");
    let version = header("sec-websocket-version")? == "13";
    let key = header("sec-websocket-key")?;
    (upgrades && websocket && version).then(|| derive_accept_key(key.as_bytes()))
}

/// Whether the caller for whom the ticket was made may still follow events.
fn is_allowed(front: &Front, ticket: &Ticket) -> bool {
    let now = front.service.as_of_now(&ticket.principal);
    now.is_ok_and(|principal| principal.capabilities.allow(Capability::Events))
}

async fn talk<S>(
    front: &Front,
    ticket: &Ticket,
    mut socket: WebSocketStream<S>,
    _place: StreamPlace,
) -> Result<(), Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    tracing::debug!(org = %ticket.org, events = ?ticket.wanted.events, "a realtime socket was opened");
    let mut ending = front.ending.subscribe();
    let hello = json!({
        "event": "connected",
        "timestamp": front.service.now(),
        "heartbeatSeconds": HEARTBEAT.as_secs(),
    });
    socket.send(Message::text(hello.to_string())).await?;
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.tick().await;
    loop {
        tokio::select! {
            _ = heartbeat.tick() => {
                if !is_allowed(front, ticket) {
                    return socket.close(None).await;
                }
                let ping = json!({ "event": "ping", "timestamp": front.service.now() });
                socket.send(Message::text(ping.to_string())).await?;
            }
            said = socket.next() => match said {
                // Pings of the protocol's own are answered by the library; whatever else a client says is not listened to.
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
            },
            _ = ending.changed() => return socket.close(None).await,
        }
    }
}
