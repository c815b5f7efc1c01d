//! Proxies: somebody else's machines that connect us to a server.
//!
//! Whoever chooses a proxy makes the gateway connect to it, so that it is judged as everything that anybody names. Once there,
//! it is asked for a tunnel: by CONNECT, over plain TCP or TLS, or by SOCKS 5. The server is named to it as it was named to us,
//! and is not looked up here. From the tunnel on, the proxy sees what every machine on the way sees.
//!
//! A proxy is not trusted to speak well: what it answers is bounded in size and time, and every answer falls into one of three
//! cases. It is no proxy, or none that works; it does not want us; or it cannot reach the server.

use std::fmt;
use std::pin::pin;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::Builder;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::select;
use tokio::time::{Instant, timeout_at};
use tokio_socks::tcp::Socks5Stream;
use tokio_socks::{IntoTargetAddr, TargetAddr};

use crate::address::{Host, Server};
use crate::dial::{By, Dialer};
use crate::stream::Io;
use crate::{NetError, Refusal, StreamError};

/// The largest head of a proxy's answer, in bytes.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// CONNECT over plain TCP.
    Http,
    /// CONNECT over TLS, by which the proxy proves who it is.
    Https,
    /// SOCKS version 5.
    Socks5,
}

/// A proxy. What is printed of it for debugging has no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyServer {
    kind: ProxyKind,
    server: Server,
    /// A user and a password.
    credentials: Option<(String, String)>,
}

/// What went wrong with a proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyFault {
    /// There is no connection to it.
    #[error("no connection to the proxy")]
    Connect(#[source] NetError),
    /// It did not answer in time.
    #[error("the proxy did not answer in time")]
    Late,
    /// It answered CONNECT with this.
    #[error("the proxy answered {0}")]
    Status(StatusCode),
    /// It answered CONNECT and went on talking, as if it were the server.
    #[error("the proxy sent more than its answer")]
    TooMuch,
    /// It does not speak HTTP, or broke off.
    #[error("the exchange with the proxy failed")]
    Http(#[source] hyper::Error),
    /// It does not speak SOCKS, broke off, or has said no.
    #[error("the SOCKS exchange with the proxy failed")]
    Socks(#[source] tokio_socks::Error),
    /// The user or the password cannot be said in its protocol.
    #[error("the credentials cannot be said to the proxy")]
    Credentials,
}

// === impl ProxyServer ===

impl ProxyServer {
    /// The proxy at `port` of `host`.
    ///
    /// # Errors
    /// If `host` is neither a plain name nor a plain IP address.
    pub fn new(kind: ProxyKind, host: &str, port: u16) -> Result<Self, NetError> {
        let server = Server { secure: kind == ProxyKind::Https, host: Host::parse(host)?, port };
        Ok(Self { kind, server, credentials: None })
    }

    /// The same proxy, to which we are `user` with `password`.
    #[must_use]
    pub fn with_credentials(self, user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { credentials: Some((user.into(), password.into())), ..self }
    }
}

impl fmt::Debug for ProxyServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ProxyServer")
            .field("kind", &self.kind)
            .field("server", &self.server)
            .field("has_credentials", &self.credentials.is_some())
            .finish()
    }
}

/// A tunnel to `target` through `proxy`.
pub(crate) async fn tunnel(
    dialer: &Dialer,
    proxy: &ProxyServer,
    target: &Server,
    end: Instant,
) -> Result<Box<dyn Io>, StreamError> {
    let server = &proxy.server;
    let stream = dialer.connect(server, By::Anybody, end).await.map_err(of_proxy)?;
    let late = |_| StreamError::ProxyUnreachable(ProxyFault::Late);
    match proxy.kind {
        ProxyKind::Http => timeout_at(end, connect(Box::new(stream), proxy, target)).await.map_err(late)?,
        ProxyKind::Https => {
            let stream = dialer.prove(server, stream, end).await.map_err(of_proxy)?;
            timeout_at(end, connect(Box::new(stream), proxy, target)).await.map_err(late)?
        }
        ProxyKind::Socks5 => timeout_at(end, socks(Box::new(stream), proxy, target)).await.map_err(late)?,
    }
}

/// What an error on the way to the proxy says about it.
fn of_proxy(error: NetError) -> StreamError {
    match error {
        NetError::Refused(Refusal::NotLoopback) => StreamError::NotLoopback,
        NetError::Refused(refusal) => StreamError::ProxyForbidden(refusal),
        error => StreamError::ProxyUnreachable(ProxyFault::Connect(error)),
    }
}

/// Asks for a tunnel by CONNECT.
async fn connect(stream: Box<dyn Io>, proxy: &ProxyServer, target: &Server) -> Result<Box<dyn Io>, StreamError> {
    let failed = |error| StreamError::ProxyUnreachable(ProxyFault::Http(error));
    let (mut sender, mut connection) = Builder::new()
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let mut answer = pin!(sender.send_request(asking(proxy, target)?));
    // The connection moves the bytes, and is over when the tunnel begins.
    let mut is_over = false;
    let answer = loop {
        select! {
            biased;
            answer = &mut answer => break answer.map_err(failed)?,
            result = &mut connection, if !is_over => {
                result.map_err(failed)?;
                is_over = true;
            }
        }
    };
    by_status(answer.status())?;
    if !is_over {
        (&mut connection).await.map_err(failed)?;
    }
    let parts = connection.into_parts();
    // The client speaks first in everything that goes through a tunnel.
    if !parts.read_buf.is_empty() {
        return Err(StreamError::ProxyUnreachable(ProxyFault::TooMuch));
    }
    Ok(parts.io.into_inner())
}

fn asking(proxy: &ProxyServer, target: &Server) -> Result<Request<Empty<Bytes>>, StreamError> {
    let authority = target.to_string();
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::try_from(&authority).expect("a host and a port are an authority");
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::try_from(authority).expect("hosts consist of visible ASCII characters"));
    if let Some((user, password)) = &proxy.credentials {
        // Behind the first colon begins the password, so that a user with one would be somebody else.
        if user.contains(':') {
            return Err(StreamError::ProxyRefused(ProxyFault::Credentials));
        }
        let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let mut basic = HeaderValue::try_from(basic).expect("base64 consists of visible ASCII characters");
        basic.set_sensitive(true);
        headers.insert(PROXY_AUTHORIZATION, basic);
    }
    Ok(request)
}

/// What the status of an answer to CONNECT means. A server that knows no CONNECT is no proxy.
fn by_status(status: StatusCode) -> Result<(), StreamError> {
    let fault = ProxyFault::Status(status);
    match status.as_u16() {
        200..300 => Ok(()),
        400 | 404 | 405 | 501 => Err(StreamError::ProxyUnreachable(fault)),
        400..500 => Err(StreamError::ProxyRefused(fault)),
        500..600 => Err(StreamError::BeyondProxy(fault)),
        _ => Err(StreamError::ProxyUnreachable(fault)),
    }
}

/// Asks for a tunnel by SOCKS.
async fn socks(stream: Box<dyn Io>, proxy: &ProxyServer, target: &Server) -> Result<Box<dyn Io>, StreamError> {
    let target: Result<TargetAddr<'_>, _> = match &target.host {
        Host::Ip(ip) => (*ip, target.port).into_target_addr(),
        Host::Name(name) => (name.as_str(), target.port).into_target_addr(),
    };
    let target = target.map_err(by_reply)?;
    let tunnel = match &proxy.credentials {
        None => Socks5Stream::connect_with_socket(stream, target).await,
        Some((user, password)) => Socks5Stream::connect_with_password_and_socket(stream, target, user, password).await,
    };
    tunnel.map(Socks5Stream::into_inner).map_err(by_reply)
}

/// What the end of a SOCKS exchange means.
fn by_reply(error: tokio_socks::Error) -> StreamError {
    use tokio_socks::Error as E;
    match error {
        E::InvalidAuthValues(_) => StreamError::ProxyRefused(ProxyFault::Credentials),
        E::NoAcceptableAuthMethods
        | E::AuthorizationRequired
        | E::PasswordAuthFailure(_)
        | E::ConnectionNotAllowedByRuleset => StreamError::ProxyRefused(ProxyFault::Socks(error)),
        E::GeneralSocksServerFailure
        | E::NetworkUnreachable
        | E::HostUnreachable
        | E::ConnectionRefused
        | E::TtlExpired => StreamError::BeyondProxy(ProxyFault::Socks(error)),
        // The rest means that it does not work as a proxy, whatever it is.
        error => StreamError::ProxyUnreachable(ProxyFault::Socks(error)),
    }
}
