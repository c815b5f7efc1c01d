//! One connection: a WebSocket, the handshake in it, and then nodes in encrypted frames both ways.
//!
//! A connection decides nothing. What comes in goes to the registry, what the registry puts into the outbox goes out,
//! not before its time. That is also how faults of the wire are made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use whatsapp_rust::wacore::framing::{FrameDecoder, encode_frame};
use whatsapp_rust::wacore::noise::NoiseCipher;
use whatsapp_rust::wacore_binary::consts::WA_CONN_HEADER;
use whatsapp_rust::wacore_binary::marshal::{marshal, unmarshal_ref};
use whatsapp_rust::wacore_binary::{Node, util};

use crate::faults::HalfOpen;
use crate::handshake::{Answer, Finished, HandshakeError};
use crate::server::Shared;

/// What a connection is told to do.
pub(crate) enum Out {
    Stanza(Node),
    /// A frame that nobody can decrypt.
    Garbage,
    /// From now on nothing is heard and nothing is said.
    Silence,
    /// Ends it as one ends a WebSocket.
    Close,
    /// Ends it without a word.
    Drop,
}

/// Where the registry leaves what a connection is to do, in its order.
pub(crate) struct Outbox {
    sender: mpsc::UnboundedSender<(Instant, Out)>,
    delay: Arc<AtomicU64>,
}

impl Outbox {
    fn new(delay: Arc<AtomicU64>) -> (Self, mpsc::UnboundedReceiver<(Instant, Out)>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender, delay }, receiver)
    }

    pub(crate) fn put(&self, out: Out) {
        self.put_after(Duration::ZERO, out);
    }

    pub(crate) fn put_after(&self, wait: Duration, out: Out) {
        let delay = Duration::from_millis(self.delay.load(Ordering::Relaxed));
        // A connection that is over takes nothing more, which is as well.
        let _ = self.sender.send((Instant::now() + wait + delay, out));
    }
}

/// Why a connection ended before its handshake did, or in the middle of things.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("the socket failed")]
    Socket(#[from] SocketError),
    #[error("the handshake failed")]
    Handshake(#[from] HandshakeError),
    #[error("the connection ended in its handshake")]
    Ended,
    #[error("the connection does not begin as one to WhatsApp")]
    Header,
    #[error("a frame could not be made or read")]
    Frame,
}

/// Serves one connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, mut stream: TcpStream) {
    let (refused, half_open) = shared.change(|registry| {
        registry.seen.totals.accepted += 1;
        if registry.faults.refuse_connects {
            registry.seen.totals.refused += 1;
        }
        (registry.faults.refuse_connects, registry.faults.half_open)
    });
    if refused {
        return;
    }
    if half_open == Some(HalfOpen::Tcp) {
        // Until the client gives up, or the server ends.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        shared.change(|registry| registry.seen.totals.failed_handshakes += 1);
        return;
    }
    let established = Box::pin(establish(&shared, stream, half_open.is_some())).await;
    match established {
        Ok((wire, finished)) => Box::pin(attend(&shared, wire, finished)).await,
        Err(_) => shared.change(|registry| registry.seen.totals.failed_handshakes += 1),
    }
}

/// A WebSocket with frames in it.
struct Wire {
    socket: WebSocketStream<TcpStream>,
    decoder: FrameDecoder,
}

impl Wire {
    async fn frame(&mut self) -> Result<BytesMut, ConnectionError> {
        loop {
            if let Some(frame) = self.decoder.decode_frame() {
                return Ok(frame);
            }
            let more = self.receive().await?;
            self.decoder.feed(&more);
        }
    }

    async fn receive(&mut self) -> Result<Bytes, ConnectionError> {
        loop {
            match self.socket.next().await.ok_or(ConnectionError::Ended)?? {
                Message::Binary(bytes) => return Ok(bytes),
                Message::Close(_) => return Err(ConnectionError::Ended),
                _ => {}
            }
        }
    }

    async fn send(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        let frame = encode_frame(payload, None).map_err(|_| ConnectionError::Frame)?;
        Ok(self.socket.send(Message::Binary(frame.into())).await?)
    }
}

async fn establish(shared: &Shared, stream: TcpStream, silent: bool) -> Result<(Wire, Finished), ConnectionError> {
    // A thousand idle connections are to cost little, so buffers are small.
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
    let _ = stream.set_nodelay(true);
    let socket = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
    let mut wire = Wire { socket, decoder: FrameDecoder::new() };
    if silent {
        while wire.receive().await.is_ok() {}
        return Err(ConnectionError::Ended);
    }
    header(&mut wire).await?;
    let hello = wire.frame().await?;
    match shared.identity().answer(&hello)? {
        Answer::Done(answer, finished) => {
            wire.send(&answer).await?;
            Ok((wire, finished))
        }
        Answer::More(answer, unfinished) => {
            wire.send(&answer).await?;
            let finish = wire.frame().await?;
            let finished = unfinished.finish(&finish)?;
            Ok((wire, finished))
        }
    }
}

/// The first bytes say what is spoken, and before that perhaps where the client would like to be routed.
async fn header(wire: &mut Wire) -> Result<(), ConnectionError> {
    let mut begun = BytesMut::new();
    loop {
        begun.extend_from_slice(&wire.receive().await?);
        let mut at = 0;
        if begun.starts_with(b"ED") {
            let Some(length) = begun.get(4..7) else { continue };
            at = 7 + length.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
        }
        let Some(spoken) = begun.get(at..at + WA_CONN_HEADER.len()) else { continue };
        if spoken != WA_CONN_HEADER {
            return Err(ConnectionError::Header);
        }
        wire.decoder.feed(&begun[at + WA_CONN_HEADER.len()..]);
        return Ok(());
    }
}

async fn attend(shared: &Shared, wire: Wire, finished: Finished) {
    let Finished { mode, client, payload, read, write } = finished;
    let (id, outbox) = shared.change(|registry| {
        let (outbox, receiver) = Outbox::new(registry.delay());
        let id = registry.arrive(outbox, mode, client, &payload);
        (id, receiver)
    });
    drop(payload);
    let _leaving = Leaving { shared, id };
    let _ = Session { shared, id, wire, outbox, read, write, received: 0, sent: 0 }.run().await;
}

/// Takes the connection out of the registry, also when the server ends in the middle of it.
struct Leaving<'s> {
    shared: &'s Shared,
    id: u64,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.shared.change(|registry| registry.left(self.id));
    }
}

struct Session<'s> {
    shared: &'s Shared,
    id: u64,
    wire: Wire,
    outbox: mpsc::UnboundedReceiver<(Instant, Out)>,
    read: NoiseCipher,
    write: NoiseCipher,
    received: u32,
    sent: u32,
}

impl Session<'_> {
    async fn run(mut self) -> Result<(), ConnectionError> {
        let mut next: Option<(Instant, Out)> = None;
        loop {
            self.hear()?;
            let due = next.as_ref().map_or_else(Instant::now, |(due, _)| *due);
            tokio::select! {
                letter = self.outbox.recv(), if next.is_none() => match letter {
                    Some(letter) => next = Some(letter),
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(due), if next.is_some() => match next.take() {
                    Some((_, Out::Stanza(node))) => self.say(&node).await?,
                    Some((_, Out::Garbage)) => {
                        // It counts as a frame on both sides, so what follows can be read again.
                        self.sent += 1;
                        self.wire.send(&rand::random::<[u8; 32]>()).await?;
                    }
                    Some((_, Out::Silence)) => break,
                    Some((_, Out::Close)) => {
                        self.shared.change(|registry| registry.left(self.id));
                        self.close().await;
                        return Ok(());
                    }
                    Some((_, Out::Drop)) | None => return Ok(()),
                },
                message = self.wire.socket.next() => match message {
                    Some(Ok(Message::Binary(bytes))) => self.wire.decoder.feed(&bytes),
                    Some(Ok(Message::Close(_))) | None => return Ok(()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                },
            }
        }
        while self.wire.receive().await.is_ok() {}
        Ok(())
    }

    /// Says goodbye, and listens until the client has heard it. Whoever hangs up on what still comes in may be heard
    /// as one who has dropped the line.
    async fn close(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let farewell = async {
            let _ = self.wire.socket.close(None).await;
            while self.wire.receive().await.is_ok() {}
        };
        let _ = tokio::time::timeout(PATIENCE, farewell).await;
    }

    /// Hands over every node that has come completely.
    fn hear(&mut self) -> Result<(), ConnectionError> {
        while let Some(mut frame) = self.wire.decoder.decode_frame() {
            let unreadable = |_| ConnectionError::Frame;
            self.read.decrypt_in_place_with_counter(self.received, &mut frame).map_err(unreadable)?;
            self.received += 1;
            let data = util::unpack(&frame).map_err(|_| ConnectionError::Frame)?;
            let node = unmarshal_ref(&data).map_err(|_| ConnectionError::Frame)?;
            self.shared.change(|registry| registry.hear(self.id, &node));
        }
        Ok(())
    }

    async fn say(&mut self, node: &Node) -> Result<(), ConnectionError> {
        let plain = marshal(node).map_err(|_| ConnectionError::Frame)?;
        let sealed = self.write.encrypt_with_counter(self.sent, &plain).map_err(|_| ConnectionError::Frame)?;
        self.sent += 1;
        self.wire.send(&sealed).await
    }
}
