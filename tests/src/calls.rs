//! Calling a gateway that may die at any moment, over connections that are kept for as long as they last.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Where the gateway is by now.
#[derive(Clone)]
pub(crate) struct Gateway {
    address: watch::Receiver<SocketAddr>,
}

impl Gateway {
    pub(crate) fn new(address: watch::Receiver<SocketAddr>) -> Self {
        Self { address }
    }
}

/// Somebody with a key.
pub(crate) struct Caller {
    gateway: Gateway,
    key: String,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// What they were answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Null if there was none.
    pub(crate) body: Value,
    /// The body as it came.
    pub(crate) bytes: Bytes,
    /// Whether it is what an earlier request with the same key was answered.
    pub(crate) is_replayed: bool,
    /// The gateway's id of the request.
    pub(crate) request: String,
}

/// Why they were not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Nobody was there to be asked, so nothing has come of it.
    Unsent,
    /// The answer did not arrive: what was asked for was done, or it was not.
    Unanswered,
}

impl Caller {
    pub(crate) fn new(gateway: Gateway, key: &str) -> Self {
        Self { gateway, key: key.to_owned(), connection: None }
    }

    /// Calls; none if there is no answer.
    pub(crate) async fn call(&mut self, method: &str, path: &str, body: &Value) -> Option<Answer> {
        self.ask(method, path, Bytes::from(body.to_string()), None).await.ok()
    }

    /// Calls with these bytes, and with an `Idempotency-Key` if there is one.
    ///
    /// # Errors
    /// If there is no answer.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: Bytes,
        idempotency_key: Option<&str>,
    ) -> Result<Answer, Lost> {
        let address = *self.gateway.address.borrow();
        if self.connection.as_ref().is_none_or(SendRequest::is_closed) {
            self.connection = Some(connect(address).await.ok_or(Lost::Unsent)?);
        }
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", address.to_string())
            .header("x-api-key", &self.key)
            .header("content-type", "application/json");
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Full::new(body)).map_err(|_| Lost::Unsent)?;
        let mut connection = self.connection.take().ok_or(Lost::Unsent)?;
        connection.ready().await.map_err(|_| Lost::Unsent)?;
        let answer = connection.send_request(request).await.map_err(|_| Lost::Unanswered)?;
        let status = answer.status().as_u16();
        let request = answer.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
        let request = request.to_owned();
        let is_replayed = answer.headers().contains_key("idempotency-replayed");
        let bytes = answer.into_body().collect().await.map_err(|_| Lost::Unanswered)?.to_bytes();
        self.connection = Some(connection);
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(Answer { status, body, bytes, is_replayed, request })
    }
}

async fn connect(address: SocketAddr) -> Option<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}
