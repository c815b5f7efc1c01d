//! A stream as server-sent events: an answer that does not end, which the client takes at its own pace.
//!
//! The server asks for the next piece when it has room for it, so there is no queue and no task behind a stream.
//! A client that takes nothing is cut off (see [`super::taken`]).

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{StreamExt, once, unfold};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::StatusCode;
use hyper::body::Frame;
use portcullis_core::OutboxPlace;
use serde_json::json;

use super::HEARTBEAT;
use super::mark::Mark;
use super::sources::Event;
use super::tail::{Opened, Tail, Told};
use super::taken::while_taken;
use crate::exchange::Reply;

/// How long a client waits before it comes back.
const RETRY: Duration = Duration::from_secs(2);
/// When a piece is long enough to be sent.
const PIECE: usize = 16 * 1024;

/// The answer that a stream is.
pub(crate) fn reply(opened: Opened) -> Reply {
    let Opened { tail, from, lost } = opened;
    let mut hello = format!("retry: {}\n\n", RETRY.as_millis()).into_bytes();
    let connected = json!({
        "event": "connected",
        "timestamp": tail.front().service.now(),
        "heartbeatSeconds": HEARTBEAT.as_secs(),
    });
    frame(&mut hello, from.filter(|_| !lost), "connected", connected.to_string().as_bytes());
    if let Some(from) = from.filter(|_| lost) {
        gap(&mut hello, from.behind(), &tail);
    }
    let hello = once(std::future::ready(Ok(Frame::data(Bytes::from(hello)))));
    let pieces = unfold(Some(Box::new(tail)), |tail| async {
        let (piece, tail) = piece(tail?).await;
        Some((Ok::<_, Infallible>(Frame::data(piece)), tail))
    });
    of(StreamBody::new(while_taken(hello.chain(pieces), None)).boxed_unsync())
}

/// An answer of server-sent events.
pub(crate) fn of(body: UnsyncBoxBody<Bytes, Infallible>) -> Reply {
    Reply::streaming(StatusCode::OK, body)
        .with("content-type", "text/event-stream")
        .with("cache-control", "no-store")
        .with("x-content-type-options", "nosniff")
        // Reverse proxies that collect answers before they pass them on are asked not to.
        .with("x-accel-buffering", "no")
}

/// The next piece, and the stream unless that was its last.
async fn piece(mut tail: Box<Tail>) -> (Bytes, Option<Box<Tail>>) {
    let mut text = Vec::new();
    match tail.next().await {
        Told::Event(first) => {
            event(&mut text, &first);
            while let Some(next) = (text.len() < PIECE).then(|| tail.ready()).flatten() {
                event(&mut text, &next);
            }
        }
        Told::Gap(through) => gap(&mut text, through, &tail),
        Told::Beat(mark) => {
            text.extend(b": still here\n");
            // An id without data moves a client on without an event of its own.
            if let Some(mark) = mark {
                text.extend(format!("id: {mark}\n").bytes());
            }
            text.push(b'\n');
        }
        Told::End(why) => {
            let ended = json!({ "event": "end", "timestamp": tail.front().service.now(), "reason": why.name() });
            frame(&mut text, None, "end", ended.to_string().as_bytes());
            return (Bytes::from(text), None);
        }
    }
    (Bytes::from(text), Some(tail))
}

fn event(text: &mut Vec<u8>, event: &Event) {
    frame(text, Some(event.mark), event.name, &event.envelope);
}

/// Says that what should have come next is gone.
fn gap(text: &mut Vec<u8>, through: OutboxPlace, tail: &Tail) {
    let gap = json!({ "event": "gap", "timestamp": tail.front().service.now(), "through": through });
    frame(text, Some(Mark::whole(through)), "gap", gap.to_string().as_bytes());
}

/// `data` is a JSON document and so has no line breaks.
fn frame(text: &mut Vec<u8>, id: Option<Mark>, name: &str, data: &[u8]) {
    if let Some(id) = id {
        text.extend(format!("id: {id}\n").bytes());
    }
    text.extend(format!("event: {name}\ndata: ").bytes());
    text.extend(data);
    text.extend(b"\n\n");
}
