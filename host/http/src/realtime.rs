//! The realtime socket: a WebSocket that a ticket opens, and that tells events as they happen.
//!
//! It says `connected`, then what happened since the event that the client knows, then what happens; and that it lives, now and then.
//! There is no gap and no double between what was and what is, because both are one way through the outbox.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming as HyperBody;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use portcullis_core::{EventId, OperationKind, OrgId, Permit, Target, authorize};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::Front;
use crate::dialect::{Dialect, Problem};
use crate::exchange::{Reply, parse_query};
use crate::handle::{Body, complete};
use crate::live::{self, Ending, HEARTBEAT, Opened, Replay, Since, Tail, Told};
use crate::places::Seat;
use crate::tickets::Ticket;

pub(crate) const PATH: &str = "/api/v1/realtime";
/// The largest message of a client's, who has nothing to say.
const MAX_INBOUND: usize = 4 * 1024;
/// How long a client has to take leave.
const FAREWELL: Duration = Duration::from_secs(1);

/// Opens the socket for whoever comes with a ticket.
pub(crate) fn answer(front: &Arc<Front>, request: Request<HyperBody>) -> Response<Body> {
    open(front, request).unwrap_or_else(complete)
}

fn open(front: &Arc<Front>, mut request: Request<HyperBody>) -> Result<Response<Body>, Reply> {
    let query = parse_query(request.uri().query().unwrap_or_default());
    let given = |name: &str| query.iter().find(|(known, value)| known == name && !value.is_empty());
    let Some((_, text)) = given("ticket") else {
        return Err(refused(StatusCode::UNAUTHORIZED, "unauthorized", "missing ticket"));
    };
    if request.version() == Version::HTTP_2 {
        let problem = "the realtime socket is opened over HTTP/1.1; over HTTP/2 there is GET /api/v1/events";
        return Err(refused(StatusCode::BAD_REQUEST, "validation_error", problem));
    }
    // A ticket is good for one use, so it is looked at last.
    let Some(accept) = accept_key(&request) else {
        let problem = "this address speaks WebSocket, version 13";
        let refused = refused(StatusCode::UPGRADE_REQUIRED, "validation_error", problem);
        return Err(refused.with("upgrade", "websocket").with("sec-websocket-version", "13"));
    };
    let since = given("since").map(|(_, text)| text.parse::<EventId>()).transpose();
    let since =
        since.map_err(|error| refused(StatusCode::BAD_REQUEST, "validation_error", &format!("since: {error}")))?;
    let stranger = || refused(StatusCode::UNAUTHORIZED, "unauthorized", "invalid or expired ticket");
    let mut ticket = front.tickets.redeem(text, front.service.now()).ok_or_else(stranger)?;
    ticket.wanted.since = since.map(Since::Event).or(ticket.wanted.since);
    let permit = permit(front, &ticket).ok_or_else(stranger)?;
    let place = front.streams.enter(ticket.org, Seat::of(&permit.principal().kind));
    let place = place.map_err(|full| Dialect::Router.problem(&full.problem()))?;
    // Whoever may not follow any more learns no more than who never could.
    let opened = live::open(front, permit, &ticket.wanted, Replay::Latest, place).map_err(|_| stranger())?;
    let upgraded = hyper::upgrade::on(&mut request);
    let (unread, org) = (front.config.unread_timeout, ticket.org);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let config = WebSocketConfig::default().max_message_size(Some(MAX_INBOUND)).max_frame_size(Some(MAX_INBOUND));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        if let Err(ended) = talk(Socket { socket, unread }, opened).await {
            log(org, &ended);
        }
    });
    let reply = Reply::empty(StatusCode::SWITCHING_PROTOCOLS)
        .with("connection", "upgrade")
        .with("upgrade", "websocket")
        .with("sec-websocket-accept", &accept);
    Ok(complete(reply))
}

fn refused(status: StatusCode, code: &'static str, message: &str) -> Reply {
    Dialect::Router.problem(&Problem::new(status, code, message))
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

/// What the caller for whom the ticket was made may still do.
fn permit(front: &Front, ticket: &Ticket) -> Option<Permit> {
    let principal = front.service.as_of_now(&ticket.principal).ok()?;
    let target = match ticket.wanted.session {
        _ if ticket.wanted.firehose => Target::org(OrgId::PLATFORM),
        Some(session) => Target::session(ticket.org, session),
        None => Target::org(ticket.org),
    };
    authorize(&principal, OperationKind::EventRead, target).ok()
}

/// Why a socket ended before it was to end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the client took nothing for too long")]
    Unread,
    #[error("the connection failed")]
    Socket(#[from] Error),
}

fn log(org: OrgId, broken: &Broken) {
    let error: &dyn std::error::Error = broken;
    tracing::debug!(%org, error, "a realtime socket ended early");
}

/// A socket whose client has so long to take what it is told.
struct Socket<S> {
    socket: WebSocketStream<S>,
    unread: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    async fn say(&mut self, document: &Value) -> Result<(), Broken> {
        let sent = timeout(self.unread, self.socket.send(Message::text(document.to_string())));
        Ok(sent.await.map_err(|_elapsed| Broken::Unread)??)
    }

    /// Tells events that were read together, and sends them together.
    async fn tell(&mut self, first: Vec<u8>, tail: &mut Tail) -> Result<(), Broken> {
        let mut next = Some(first);
        while let Some(envelope) = next {
            // What was made as JSON is UTF-8.
            let text = Utf8Bytes::try_from(Bytes::from(envelope)).map_err(|error| Error::Utf8(error.to_string()))?;
            let fed = timeout(self.unread, self.socket.feed(Message::Text(text)));
            fed.await.map_err(|_elapsed| Broken::Unread)??;
            next = tail.ready().map(|event| event.envelope);
        }
        let sent = timeout(self.unread, self.socket.flush());
        Ok(sent.await.map_err(|_elapsed| Broken::Unread)??)
    }

    async fn close(mut self, why: Ending) -> Result<(), Broken> {
        let code = match why {
            Ending::Gateway => CloseCode::Away,
            Ending::Revoked | Ending::Expired => CloseCode::Policy,
            Ending::SessionGone => CloseCode::Normal,
            Ending::Failed => CloseCode::Error,
        };
        let leave = async {
            self.socket.close(Some(CloseFrame { code, reason: why.name().into() })).await?;
            // A connection that is dropped with something unread is reset, and the client might not see why.
            while let Some(Ok(_)) = self.socket.next().await {}
            Ok(())
        };
        timeout(FAREWELL, leave).await.unwrap_or(Ok(()))
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(mut socket: Socket<S>, opened: Opened) -> Result<(), Broken> {
    let Opened { mut tail, lost, from: _ } = opened;
    tracing::debug!(org = %tail.org(), "a realtime socket was opened");
    let replay_failed = json!({ "event": "error", "error": "replay_failed" });
    let now = |tail: &Tail| tail.front().service.now();
    let heartbeat = HEARTBEAT.as_secs();
    socket.say(&json!({ "event": "connected", "timestamp": now(&tail), "heartbeatSeconds": heartbeat })).await?;
    if lost {
        socket.say(&replay_failed).await?;
    }
    loop {
        tokio::select! {
            told = tail.next() => match told {
                Told::Event(event) => socket.tell(event.envelope, &mut tail).await?,
                Told::Gap(_) => socket.say(&replay_failed).await?,
                Told::Beat(_) => socket.say(&json!({ "event": "ping", "timestamp": now(&tail) })).await?,
                Told::End(why) => return socket.close(why).await,
            },
            said = socket.socket.next() => match said {
                // Pings of the protocol's own are answered by the library; whatever else a client says is not listened to.
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
            },
        }
    }
}
