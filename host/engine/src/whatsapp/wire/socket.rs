//! One connection, as the client has it: bytes go out one message at a time, and come in as events.
//!
//! Reading is a task of its own, which waits while the client is busy; the server then waits too, because nothing is taken from
//! the network that the client has no room for. The end of the connection is told once, whoever ended it. Whoever drops the
//! transport closes the connection, and whoever sends into one that is over learns so within a bound.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::FutureExt as _;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use portcullis_net::Stream;
use tokio::select;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use whatsapp_rust::anyhow;
use whatsapp_rust::async_channel::{self, Receiver, Sender};
use whatsapp_rust::transport::{DisconnectReason, Transport, TransportEvent};

/// How long the network may take to accept one message.
pub(super) const SEND: Duration = Duration::from_secs(10);
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// The largest message: the length of WhatsApp's frames has three bytes, and nothing larger than one frame has to come at once.
const MAX_MESSAGE_BYTES: usize = 3 + 0xFF_FFFF;
/// How much is read at once. Every connection has a buffer of this size, and most of what comes is smaller.
const READ_BYTES: usize = 4 * 1024;
/// How many messages wait for the client before the network has to.
const EVENTS: usize = 8;

type Socket = WebSocketStream<Stream>;

/// The client's end of a connection.
pub(in crate::whatsapp) struct Wire {
    /// Nothing, once it was said goodbye.
    sink: Mutex<Option<SplitSink<Socket, Message>>>,
    /// How the reader is told that the connection is over, and when dropped, too. It has no receiver once the reader knows.
    end: watch::Sender<Ending>,
    patience: Duration,
}

/// Whether and how this side ended a connection.
#[derive(Debug, Clone)]
enum Ending {
    None,
    Ours,
    /// A message could not be sent.
    Broken(String),
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the connection is over")]
    Over,
    #[error("the network did not take the message in time")]
    Late,
    #[error("the message cannot be sent")]
    Failed(#[source] Box<tokio_tungstenite::tungstenite::Error>),
}

/// What is held of a connection, at most.
pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        // Every message is flushed, so that nothing is gathered.
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_MESSAGE_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

/// Takes `socket` into use. A message that the network does not take within `patience` ends the connection.
pub(super) fn open(socket: Socket, patience: Duration) -> (Arc<Wire>, Receiver<TransportEvent>) {
    let (sink, stream) = socket.split();
    let (events, told) = async_channel::bounded(EVENTS);
    let (end, ended) = watch::channel(Ending::None);
    events.try_send(TransportEvent::Connected).expect("a new channel has room");
    tokio::spawn(read(stream, events, ended));
    (Arc::new(Wire { sink: Mutex::new(Some(sink)), end, patience }), told)
}

// === impl Wire ===

impl Wire {
    /// Whether the connection is over. It is before whoever listens is told so.
    pub(in crate::whatsapp) fn is_over(&self) -> bool {
        self.end.is_closed()
    }

    async fn deliver(&self, data: Bytes) -> Result<(), SendError> {
        let mut sink = self.sink.lock().await;
        let sink = sink.as_mut().filter(|_| !self.is_over()).ok_or(SendError::Over)?;
        sink.send(Message::Binary(data)).await.map_err(|error| SendError::Failed(Box::new(error)))
    }
}

#[async_trait]
impl Transport for Wire {
    async fn send(&self, data: Bytes) -> anyhow::Result<()> {
        let sent = select! {
            biased;
            sent = timeout(self.patience, self.deliver(data)) => sent.unwrap_or(Err(SendError::Late)),
            () = self.end.closed() => Err(SendError::Over),
        };
        if let Err(error @ (SendError::Late | SendError::Failed(_))) = &sent {
            // Half a message may be on its way, behind which nothing makes sense.
            self.end.send_replace(Ending::Broken(error.to_string()));
        }
        Ok(sent?)
    }

    async fn disconnect(&self) {
        self.end.send_if_modified(|end| {
            let is_first = matches!(end, Ending::None);
            if is_first {
                *end = Ending::Ours;
            }
            is_first
        });
        let goodbye = async {
            if let Some(mut sink) = self.sink.lock().await.take() {
                // The server may be gone, which is no reason to stay.
                let _ = sink.close().await;
            }
        };
        // Whoever is in the middle of sending holds the sink until his own bound.
        let _ = timeout(GOODBYE, goodbye).await;
    }
}

/// Tells `events` what comes, until either side ends the connection, and then how it ended.
async fn read(mut stream: SplitStream<Socket>, events: Sender<TransportEvent>, mut ended: watch::Receiver<Ending>) {
    let reason = loop {
        let message = select! {
            biased;
            reason = ending(&mut ended) => break reason,
            () = events.closed() => break DisconnectReason::Unknown,
            message = stream.next() => message,
        };
        let data = match message {
            Some(Ok(Message::Binary(data))) => data,
            Some(Ok(Message::Close(frame))) => {
                // The answer to it lies ready, and goes out if it can at once.
                let _ = stream.next().now_or_never();
                break closed_by_server(frame);
            }
            // Pings are answered by the library, and WhatsApp speaks in no other kind of message.
            Some(Ok(_)) => continue,
            Some(Err(error)) => break DisconnectReason::ReadError(error.to_string()),
            None => break DisconnectReason::StreamEnded,
        };
        select! {
            biased;
            reason = ending(&mut ended) => break reason,
            sent = events.send(TransportEvent::DataReceived(data)) => if sent.is_err() {
                break DisconnectReason::Unknown;
            },
        }
    };
    // Nothing is left of the connection when its end is told; who sends now learns that it is over.
    drop((stream, ended));
    // Nobody may be listening any more.
    let _ = events.send(TransportEvent::Disconnected(reason)).await;
}

/// Completes when this side ends the connection.
async fn ending(ended: &mut watch::Receiver<Ending>) -> DisconnectReason {
    match ended.wait_for(|ending| !matches!(ending, Ending::None)).await.as_deref() {
        Ok(Ending::Broken(error)) => DisconnectReason::ReadError(error.clone()),
        // The client ended it, or dropped it.
        Ok(Ending::Ours | Ending::None) | Err(_) => DisconnectReason::Unknown,
    }
}

fn closed_by_server(frame: Option<CloseFrame>) -> DisconnectReason {
    let (code, reason) = match frame {
        Some(frame) => (Some(u16::from(frame.code)), frame.reason.to_string()),
        None => (None, String::new()),
    };
    DisconnectReason::ServerClose { code, reason }
}
