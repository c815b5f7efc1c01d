//! A small HTTP/1.1 client for one server that whoever runs the command trusts.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take. An upload is compiled before it is answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// A client of one gateway.
#[derive(Debug, Clone)]
pub struct Client {
    authority: String,
    key: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none that this client can use.
    #[error("{0:?} is not an address of the form http://HOST:PORT; TLS ends at a reverse proxy and not here")]
    Address(String),
    /// The gateway does not take connections.
    #[error("cannot connect to {0}; is the gateway running?")]
    Connect(String, #[source] std::io::Error),
    /// The gateway took too long.
    #[error("{0} did not answer in time")]
    Timeout(String),
    /// The exchange broke.
    #[error("the exchange with {0} broke")]
    Exchange(String, #[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Client {
    /// A client for the gateway at `url`, such as `http://127.0.0.1:8080`, that comes with `key`.
    ///
    /// # Errors
    /// If `url` is no plain HTTP address.
    pub fn new(url: &str, key: impl Into<String>) -> Result<Self, ClientError> {
        let refused = || ClientError::Address(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| refused())?;
        let plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/") && uri.query().is_none();
        let host = uri.host().filter(|_| plain).ok_or_else(refused)?;
        Ok(Self { authority: format!("{host}:{}", uri.port_u16().unwrap_or(80)), key: key.into() })
    }

    /// Asks and waits for the whole answer. `target` is a path, with its query.
    ///
    /// # Errors
    /// If no answer comes; an answer of any status is an answer.
    pub async fn send(&self, method: Method, target: &str, body: Vec<u8>) -> Result<Response, ClientError> {
        let broken =
            |error: Box<dyn std::error::Error + Send + Sync>| ClientError::Exchange(self.authority.clone(), error);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", &self.authority)
            .header("x-api-key", &self.key)
            .header("content-type", if body.starts_with(b"\0asm") { "application/wasm" } else { "application/json" })
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| broken(error.into()))?;
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.authority)).await;
        let stream = connecting
            .map_err(|_| ClientError::Timeout(self.authority.clone()))?
            .map_err(|error| ClientError::Connect(self.authority.clone(), error))?;
        let exchange = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            let connection = tokio::spawn(connection);
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?.to_bytes();
            drop(sender);
            let _ = connection.await;
            Ok(Response { status, body })
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(result) => result.map_err(broken),
            Err(_) => Err(ClientError::Timeout(self.authority.clone())),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn only_plain_addresses_are_taken() {
        for good in ["http://127.0.0.1:8080", "http://127.0.0.1:8080/", "http://gateway", "http://[::1]:80"] {
            assert!(Client::new(good, "k").is_ok(), "{good} was refused");
        }
        for bad in ["https://x", "127.0.0.1:8080", "http://", "http://x/path", "ftp://x", "http://x?y"] {
            assert!(Client::new(bad, "k").is_err(), "{bad} was taken");
        }
    }
}
