//! One question to one server, with bounds on time and size.
//!
//! A call connects (and, for `https`, proves the server's name), sends one HTTP/1.1 request, and reads one answer.
//! Everything happens in the caller's future: dropping it closes the connection, and nothing is left running.
//! An answer of any status is an answer; redirects are answers too, because where they lead was not checked by anyone.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::RootError;
use crate::address::Address;
use crate::tls;

/// How the gateway calls itself.
const USER_AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));

/// What a call may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long the connection may take to come about, with the lookup of the name and the TLS handshake.
    pub connect: Duration,
    /// How long all of it may take.
    pub whole: Duration,
    /// The largest body that is read, in bytes.
    pub body: usize,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer. What is named is the server and never the path, which may hold a secret.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The address is none that can be used.
    #[error("{0:?} is not an address of the form http://HOST:PORT or https://HOST:PORT")]
    Address(String),
    /// The server does not take connections.
    #[error("cannot connect to {0}; is it running?")]
    Connect(String, #[source] io::Error),
    /// The server did not prove that it is who it should be.
    #[error("cannot make a secure connection to {0}")]
    Secure(String, #[source] io::Error),
    /// The server took too long.
    #[error("{0} did not answer in time")]
    Timeout(String),
    /// The answer is larger than the caller reads.
    #[error("the answer of {0} is larger than {1} bytes")]
    TooLarge(String, usize),
    /// The exchange broke.
    #[error("the exchange with {0} broke")]
    Exchange(String, #[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The way out.
#[derive(Debug, Clone)]
pub struct Outbound {
    tls: Arc<ClientConfig>,
}

impl Outbound {
    /// A way out that believes the certificates of the public web.
    pub fn new() -> Self {
        Self { tls: tls::config(tls::web_roots()) }
    }

    /// A way out that believes the certificates in `pem`, too.
    ///
    /// # Errors
    /// If `pem` has no certificate, or one that cannot be a root.
    pub fn with_roots(pem: &[u8]) -> Result<Self, RootError> {
        let mut roots = tls::web_roots();
        tls::add_roots(&mut roots, pem)?;
        Ok(Self { tls: tls::config(roots) })
    }

    /// Gets what is at `url`.
    ///
    /// # Errors
    /// If no answer comes within `limits`; an answer of any status is an answer.
    pub async fn get(&self, url: &str, limits: Limits) -> Result<Response, NetError> {
        let address = Address::parse(url)?;
        let request = Request::get(&address.target)
            .header("host", address.host_header())
            .header("user-agent", USER_AGENT)
            .body(Full::default())
            .map_err(|error| NetError::Exchange(address.endpoint(), error.into()))?;
        self.send(&address, request, limits).await
    }

    /// Sends `request`, whose target and headers are complete, to `address`.
    pub(crate) async fn send(
        &self,
        address: &Address,
        request: Request<Full<Bytes>>,
        limits: Limits,
    ) -> Result<Response, NetError> {
        let late = |_| NetError::Timeout(address.endpoint());
        let call = async {
            if address.secure {
                let stream = timeout(limits.connect, self.connect_secure(address)).await.map_err(late)??;
                exchange(address, stream, request, limits.body).await
            } else {
                let stream = timeout(limits.connect, connect(address)).await.map_err(late)??;
                exchange(address, stream, request, limits.body).await
            }
        };
        timeout(limits.whole, call).await.map_err(late)?
    }

    async fn connect_secure(&self, address: &Address) -> Result<impl AsyncRead + AsyncWrite + Unpin, NetError> {
        let refused = |error| NetError::Secure(address.endpoint(), error);
        let name = ServerName::try_from(address.certified_name().to_owned());
        let name = name.map_err(|error| refused(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream = connect(address).await?;
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await.map_err(refused)
    }
}

impl Default for Outbound {
    fn default() -> Self {
        Self::new()
    }
}

async fn connect(address: &Address) -> Result<TcpStream, NetError> {
    let endpoint = address.endpoint();
    TcpStream::connect(&endpoint).await.map_err(|error| NetError::Connect(endpoint, error))
}

async fn exchange(
    address: &Address,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<Response, NetError> {
    let broken = |error: hyper::Error| NetError::Exchange(address.endpoint(), error.into());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), most).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                NetError::TooLarge(address.endpoint(), most)
            } else {
                NetError::Exchange(address.endpoint(), error)
            }
        })?;
        Ok(Response { status, body: body.to_bytes() })
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => return answer,
        // The connection may end while the last of the body waits to be read; if it broke, the answer tells why.
        _ = connection => {}
    }
    answer.await
}
