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
pub(super) struct Gateway {
    address: watch::Receiver<SocketAddr>,
}

impl Gateway {
    pub(super) fn new(address: watch::Receiver<SocketAddr>) -> Self {
        Self { address }
    }
}

/// Somebody with a key.
pub(super) struct Caller {
    gateway: Gateway,
    key: String,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// What they were answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Caller {
    pub(super) fn new(gateway: Gateway, key: &str) -> Self {
        Self { gateway, key: key.to_owned(), connection: None }
    }

    /// Calls; none if there is no answer.
    pub(super) async fn call(&mut self, method: &str, path: &str, body: &Value) -> Option<Answer> {
        let address = *self.gateway.address.borrow();
        if self.connection.as_ref().is_none_or(SendRequest::is_closed) {
            let stream = TcpStream::connect(address).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(connection);
            self.connection = Some(sender);
        }
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", address.to_string())
            .header("x-api-key", &self.key)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .ok()?;
        let mut connection = self.connection.take()?;
        connection.ready().await.ok()?;
        let answer = connection.send_request(request).await.ok()?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        self.connection = Some(connection);
        Some(Answer { status, body: serde_json::from_slice(&body).unwrap_or_default() })
    }
}
