//! A stream as server-sent events: an answer that does not end, which the client takes at its own pace.
//!
//! The server asks for the next piece when it has room for it, so there is no queue and no task behind a stream.
//! A client that takes nothing is cut off with its connection by the kernel's clock (see [`crate::server`]). On HTTP/2 one
//! stream can stand still while the others of its connection go on, so a stream that nobody asks for its next piece
//! loses its place, too.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt, once, poll_fn, unfold};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::StatusCode;
use hyper::body::Frame;
use portcullis_core::OutboxPlace;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::HEARTBEAT;
use super::mark::Mark;
use super::sources::Event;
use super::tail::{Opened, Tail, Told};
use crate::exchange::Reply;

/// How long a client waits before it comes back.
const RETRY: Duration = Duration::from_secs(2);
/// When a piece is long enough to be sent.
const PIECE: usize = 16 * 1024;
/// How long a piece may lie there untaken.
const UNTAKEN: Duration = Duration::from_secs(30);

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
    of(StreamBody::new(while_taken(hello.chain(pieces))).boxed_unsync())
}

/// The pieces, for as long as somebody asks for them.
fn while_taken<S: Stream + Send + 'static>(pieces: S) -> impl Stream<Item = S::Item> + Send + 'static
where
    S::Item: Send,
{
    let held = Arc::new(Mutex::new(Held { asked_at: Instant::now(), pieces: Some(Box::pin(pieces)) }));
    let seen = Arc::downgrade(&held);
    tokio::spawn(async move {
        loop {
            sleep(HEARTBEAT).await;
            let Some(held) = seen.upgrade() else { return };
            if held.lock().unwrap_or_else(PoisonError::into_inner).is_dropped(Instant::now()) {
                return;
            }
        }
    });
    poll_fn(move |context| held.lock().unwrap_or_else(PoisonError::into_inner).poll(context))
}

/// What pieces come from. There is one at least every [`HEARTBEAT`], and whoever takes it asks for the next at once; when nobody
/// has asked for much longer, it is dropped with all that it holds.
struct Held<S> {
    asked_at: Instant,
    pieces: Option<Pin<Box<S>>>,
}

impl<S: Stream> Held<S> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.asked_at = Instant::now();
        self.pieces.as_mut().map_or(Poll::Ready(None), |pieces| pieces.as_mut().poll_next(context))
    }

    /// Drops it if it is time. Answers whether it is gone.
    fn is_dropped(&mut self, now: Instant) -> bool {
        if now.duration_since(self.asked_at) > HEARTBEAT + UNTAKEN {
            self.pieces = None;
        }
        self.pieces.is_none()
    }
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

#[cfg(test)]
mod test {
    use std::task::Waker;

    use futures_util::stream::repeat;

    use super::*;

    /// On HTTP/2 a client could let all the streams of its key stand still, and nobody else had any.
    #[test]
    fn whoever_takes_nothing_for_long_loses_the_place() {
        let place = Arc::new(());
        let of_stream = Arc::clone(&place);
        let pieces = repeat(7).inspect(move |_| assert!(Arc::strong_count(&of_stream) > 1));
        let mut held = Held { asked_at: Instant::now(), pieces: Some(Box::pin(pieces)) };
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(held.poll(&mut context), Poll::Ready(Some(7)));
        assert!(!held.is_dropped(held.asked_at + HEARTBEAT + UNTAKEN));
        assert_eq!((held.poll(&mut context), Arc::strong_count(&place)), (Poll::Ready(Some(7)), 2));
        assert!(held.is_dropped(held.asked_at + HEARTBEAT + UNTAKEN + Duration::from_millis(1)));
        assert_eq!((held.poll(&mut context), Arc::strong_count(&place)), (Poll::Ready(None), 1));
    }
}
