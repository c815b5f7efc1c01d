//! An HTTP client that looks at every response: which headers it has, and that its body is what its headers say.
//!
//! A connection for each request: a test never sees what another request left behind.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;

/// What a stream of events is.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";

/// Every header that a response may have. A new one is a decision to be made here.
const HEADERS: [&str; 26] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "allow",
    "cache-control",
    "connection",
    "content-disposition",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "idempotency-replayed",
    "referrer-policy",
    "retry-after",
    "sec-websocket-version",
    "transfer-encoding",
    "upgrade",
    "vary",
    "x-accel-buffering",
    "x-content-type-options",
    "x-decision-id",
    "x-request-id",
    "x-robots-tag",
];

/// Who asks, and where.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) key: Option<String>,
}

/// A response, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, key: Option<&str>) -> Self {
        Self { address, key: key.map(str::to_owned) }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, Bytes::new()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, Bytes::new()).await
    }

    /// Posts nothing.
    pub(crate) async fn act(&self, path: &str) -> Reply {
        self.send("POST", path, Bytes::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, body.to_string().into()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send("PUT", path, body.to_string().into()).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.send("PATCH", path, body.to_string().into()).await
    }

    /// Sends any request with this client's key.
    pub(crate) async fn send(&self, method: &str, path: &str, body: Bytes) -> Reply {
        self.try_send(method, path, body).await.unwrap()
    }

    /// The same with more headers.
    pub(crate) async fn send_with(
        &self,
        method: &str,
        path: &str,
        headers: Vec<(String, String)>,
        body: Bytes,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = &self.key {
            request = request.header(key_header(path), key);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.exchange(request.body(Full::new(body)).unwrap()).await
    }

    /// As [`Client::send`], for a gateway that may be dying.
    pub(crate) async fn try_send(&self, method: &str, path: &str, body: Bytes) -> Result<Reply, Lost> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = &self.key {
            request = request.header(key_header(path), key);
        }
        self.try_exchange(request.body(Full::new(body)).unwrap()).await
    }

    /// Sends a request as it is, over HTTP/1.1.
    pub(crate) async fn exchange(&self, request: Request<Full<Bytes>>) -> Reply {
        self.try_exchange(request).await.unwrap()
    }

    async fn try_exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Reply, Lost> {
        let stream = TcpStream::connect(self.address).await.map_err(|_| Lost)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| Lost)?;
        tokio::spawn(connection);
        let host = self.address.to_string();
        request.headers_mut().entry("host").or_insert(host.try_into().unwrap());
        let response = sender.send_request(request).await.map_err(|_| Lost)?;
        read(response).await
    }

    /// Sends a request over HTTP/2 without TLS, known in advance.
    pub(crate) async fn exchange_h2(&self, request: Request<Full<Bytes>>) -> Reply {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let (mut parts, body) = request.into_parts();
        let target = parts.uri.path_and_query().unwrap().as_str();
        parts.uri = format!("http://{}{target}", self.address).parse().unwrap();
        let response = sender.send_request(Request::from_parts(parts, body)).await.unwrap();
        read(response).await.unwrap()
    }
}

/// The header in which the dialect of a path takes its key.
fn key_header(path: &str) -> &'static str {
    match path.split(['/', '?']).nth(1) {
        Some("v2") => "access-token",
        Some("instance" | "webhook" | "settings" | "message" | "chat" | "proxy" | "verify-creds") => "apikey",
        _ => "x-api-key",
    }
}

/// The connection ended before the response.
#[derive(Debug)]
pub(crate) struct Lost;

async fn read(response: Response<Incoming>) -> Result<Reply, Lost> {
    let (parts, body) = response.into_parts();
    let headers: Vec<(String, String)> =
        parts.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    // A stream does not end by itself; that it was opened is all that is looked at here.
    let is_stream = headers.iter().any(|(name, value)| name == "content-type" && value == EVENT_STREAM);
    let body = if is_stream { Bytes::new() } else { body.collect().await.map_err(|_| Lost)?.to_bytes() };
    let reply = Reply { status: parts.status.as_u16(), headers, body };
    reply.check();
    Ok(reply)
}

impl Reply {
    /// What holds for every response.
    fn check(&self) {
        for (at, (name, _)) in self.headers.iter().enumerate() {
            assert!(HEADERS.contains(&name.as_str()), "{self:?} has the unlisted header {name}");
            let again = self.headers[at + 1..].iter().any(|(other, _)| other == name);
            assert!(!again, "{self:?} has the header {name} twice");
        }
        // HTTP/1.1 closes a connection whose request was answered before all of it was read.
        assert!(self.header("connection").is_none_or(|value| value == "close" && self.status >= 400), "{self:?}");
        if self.status == 431 || self.status == 400 && self.body.is_empty() {
            // What could not be parsed was answered by the protocol's own layer.
            return;
        }
        assert!(self.header("x-request-id").is_some(), "{self:?} has no request id");
        if self.body.is_empty() {
            assert!(self.header("content-type").is_none_or(|kind| kind == EVENT_STREAM), "{self:?}");
        } else if self.header("content-type") == Some("application/json") {
            assert!(serde_json::from_slice::<Value>(&self.body).is_ok(), "{self:?} is no JSON");
        }
        // A page is for people, who get no envelope.
        if self.status >= 400 && self.header("content-type") == Some("application/json") {
            let body = self.json();
            let error = &body["error"];
            let native = error["code"].is_string() && error["message"].is_string();
            let wawp = body["code"].is_string() && body["message"].is_string();
            let evolution = body["status"] == self.status && !body["response"]["message"].is_null();
            assert!(native || wawp || evolution, "{self:?} has no dialect's envelope");
        }
        assert!(self.status != 500, "{self:?}");
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body; null if there is none.
    pub(crate) fn json(&self) -> Value {
        if self.body.is_empty() { Value::Null } else { serde_json::from_slice(&self.body).unwrap() }
    }

    /// The body of a response that must have this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// The error of a response that must have this status and code.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> Value {
        let body = self.expect(status);
        assert_eq!(body["error"]["code"], code, "{body}");
        body["error"].clone()
    }
}
