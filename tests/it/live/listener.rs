//! Those who listen: a client of server-sent events, over either version of HTTP, and one of the realtime socket.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::client::{Client, EVENT_STREAM};
use crate::gateway::Gateway;
use crate::world::text;

/// Long enough for anything that happens at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The ids of events that were told, in order.
pub(crate) fn ids(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| text(event, "id")).collect()
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) id: Option<String>,
    pub(crate) event: String,
    pub(crate) data: Value,
}

/// Who listens to server-sent events.
pub(crate) struct Listener {
    body: Incoming,
    unread: String,
    frames: VecDeque<Frame>,
    /// The last id that came, with which to come back.
    pub(crate) last: Option<String>,
}

impl Listener {
    /// Listens as a client that was connected.
    pub(crate) async fn connect(client: &Client, query: &str) -> Self {
        Self::with(client, query, &[], false).await.connected().await
    }

    /// The same, coming back with the last id that it has seen.
    pub(crate) async fn resume(client: &Client, query: &str, last: &str) -> Self {
        Self::with(client, query, &[("last-event-id", last)], false).await.connected().await
    }

    /// Listens, and has heard nothing yet.
    pub(crate) async fn with(client: &Client, query: &str, headers: &[(&str, &str)], h2: bool) -> Self {
        Self::attempt(client, query, headers, h2).await.unwrap_or_else(|status| panic!("{query}: {status}"))
    }

    /// Listens, unless that is refused.
    pub(crate) async fn attempt(client: &Client, query: &str, headers: &[(&str, &str)], h2: bool) -> Result<Self, u16> {
        let mut request = Request::builder().uri(format!("http://{}/api/v1/events?{query}", client.address));
        for (name, value) in client.key.iter().map(|key| ("x-api-key", key.as_str())).chain(headers.iter().copied()) {
            request = request.header(name, value);
        }
        let mut request = request.body(Empty::<Bytes>::new()).unwrap();
        let io = TokioIo::new(TcpStream::connect(client.address).await.unwrap());
        let response: Response<Incoming> = if h2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            request.headers_mut().insert("host", client.address.to_string().try_into().unwrap());
            *request.uri_mut() = format!("/api/v1/events?{query}").parse().unwrap();
            sender.send_request(request).await.unwrap()
        };
        if response.status() != 200 {
            return Err(response.status().as_u16());
        }
        assert_eq!(response.headers()["content-type"], EVENT_STREAM);
        Ok(Self { body: response.into_body(), unread: String::new(), frames: VecDeque::new(), last: None })
    }

    async fn connected(mut self) -> Self {
        let hello = self.next().await.unwrap();
        assert_eq!((hello.event.as_str(), &hello.data["heartbeatSeconds"]), ("connected", &json!(20)), "{hello:?}");
        self
    }

    /// The next event; none once the stream has ended, in whatever way.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            let piece = timeout(SOON, self.body.frame()).await.expect("something comes")?.ok()?;
            self.unread.push_str(std::str::from_utf8(piece.data_ref().unwrap()).unwrap());
            while let Some((block, rest)) = self.unread.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.unread = rest;
                self.read(&block);
            }
        }
    }

    fn read(&mut self, block: &str) {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let id = field("id: ");
        self.last = id.clone().or_else(|| self.last.take());
        if let Some(data) = field("data: ") {
            let event = field("event: ").unwrap();
            self.frames.push_back(Frame { id, event, data: serde_json::from_str(&data).unwrap() });
        }
    }

    /// The next so many events, without what is said about the stream itself.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Value> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let frame = self.next().await.unwrap_or_else(|| panic!("only {} of {count} came", taken.len()));
            assert_eq!(frame.data["event"], frame.event.as_str(), "{frame:?}");
            assert_eq!(frame.data["schema"], "v1", "{frame:?}");
            taken.push(frame.data);
        }
        taken
    }

    /// The next event, and that it is of this name.
    pub(crate) async fn expect(&mut self, event: &str) -> Value {
        let frame = self.next().await.unwrap_or_else(|| panic!("the stream ended before {event}"));
        assert_eq!(frame.event, event, "{frame:?}");
        frame.data
    }

    /// Why the stream ends, which it does now.
    pub(crate) async fn ends(&mut self) -> String {
        let reason = text(&self.expect("end").await, "reason");
        assert_eq!(self.next().await, None, "nothing comes after the end");
        reason
    }
}

/// Who listens to the realtime socket.
pub(crate) struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// A ticket for these wishes.
    pub(crate) async fn ticket(client: &Client, wishes: &Value) -> String {
        text(&client.post("/api/v1/realtime/ticket", wishes).await.expect(201), "ticket")
    }

    /// Opens a socket, which says that it is.
    pub(crate) async fn connect(client: &Client, wishes: &Value) -> Self {
        let ticket = Self::ticket(client, wishes).await;
        let mut socket = Self::open(client, &format!("ticket={ticket}")).await.unwrap();
        socket.expect("connected").await;
        socket
    }

    /// Opens a socket, or the status with which that is refused.
    pub(crate) async fn open(client: &Client, query: &str) -> Result<Self, u16> {
        let stream = TcpStream::connect(client.address).await.unwrap();
        let url = format!("ws://{}/api/v1/realtime?{query}", client.address);
        match tokio_tungstenite::client_async(url, stream).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// The next message; none once the socket was closed.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        match timeout(SOON, self.0.next()).await.expect("something comes") {
            Some(Ok(Message::Text(text))) => Some(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(_)) | Err(_)) | None => None,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn expect(&mut self, event: &str) -> Value {
        let said = self.next().await.unwrap_or_else(|| panic!("the socket was closed before {event}"));
        assert_eq!(said["event"], event, "{said}");
        said
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<Value> {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.push(self.next().await.unwrap_or_else(|| panic!("only {} of {count} came", taken.len())));
        }
        taken
    }

    /// With which code and word the socket is closed, which it is now.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        match timeout(SOON, self.0.next()).await.expect("something comes") {
            Some(Ok(Message::Close(Some(frame)))) => (frame.code.into(), frame.reason.to_string()),
            other => panic!("{other:?}"),
        }
    }
}

/// A client of the same organisation with a key of its own: its id and the client.
pub(crate) async fn own_key(gateway: &Gateway, org: &str, key: &Value) -> (String, Client) {
    let made = gateway.operator().post(&format!("/api/v1/orgs/{org}/keys"), key).await.expect(201);
    (text(&made, "id"), Client::new(gateway.address, Some(&text(&made, "key"))))
}
