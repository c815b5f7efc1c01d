//! A connection that carries bytes, to a server that the operator's configuration names: directly, or through a proxy that
//! somebody else chose.
//!
//! Reached directly, the server is no matter of the guard's, because the operator named it; reached through a proxy, the proxy
//! is, and the server's name goes to the proxy without having been looked up here. A server of TLS proves who it is at this
//! end, whatever lies between.
//!
//! Everything has one deadline. An error says who is to blame, in a closed set of cases, and never has credentials in it.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::address::{Address, Host, Server};
use crate::dial::By;
use crate::proxy::{self, ProxyFault, ProxyServer};
use crate::{NetError, Outbound, Refusal, UrlFlaw};

/// A server to which a stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamServer {
    pub(crate) server: Server,
}

/// A connection to a server. Dropping it closes it.
pub struct Stream(Box<dyn Io>);

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The server is not there, or speaks no TLS where it should, or nothing came about in time.
    #[error("cannot reach the server")]
    Unreachable(#[source] NetError),
    /// The server's certificate does not prove that it is who it should be.
    #[error("the certificate of the server is not trusted")]
    CertificateNotTrusted(#[source] NetError),
    /// The proxy is not there, does not speak as one, or did not answer in time.
    #[error("cannot reach the server: the proxy cannot be used")]
    ProxyUnreachable(#[source] ProxyFault),
    /// The gateway does not go where the proxy is.
    #[error("cannot use the proxy: {0}")]
    ProxyForbidden(Refusal),
    /// The proxy does not serve us, or not for this server.
    #[error("the proxy refuses to connect us")]
    ProxyRefused(#[source] ProxyFault),
    /// The proxy cannot reach the server.
    #[error("the proxy cannot reach the server")]
    BeyondProxy(#[source] ProxyFault),
    /// The way out leads to this machine only, and the server or the proxy is elsewhere.
    #[error("nothing but a loopback address of this machine may be reached")]
    NotLoopback,
}

/// What a stream can lie on: a socket, or another stream.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

// === impl Outbound ===

impl Outbound {
    /// A stream to `server`, directly or through `proxy`, that comes about within `limit`.
    ///
    /// # Errors
    /// If it does not.
    pub async fn stream(
        &self,
        server: &StreamServer,
        proxy: Option<&ProxyServer>,
        limit: Duration,
    ) -> Result<Stream, StreamError> {
        let end = Instant::now() + limit;
        let server = &server.server;
        let stream: Box<dyn Io> = match proxy {
            None => Box::new(self.dialer.connect(server, By::Operator, end).await.map_err(of_server)?),
            Some(proxy) => {
                self.dialer.check_beyond(server).map_err(|_| StreamError::NotLoopback)?;
                proxy::tunnel(&self.dialer, proxy, server, end).await?
            }
        };
        if !server.secure {
            return Ok(Stream(stream));
        }
        let proved = self.dialer.prove(server, stream, end).await.map_err(of_server)?;
        Ok(Stream(Box::new(proved)))
    }
}

/// What an error on the way to the server says about it.
fn of_server(error: NetError) -> StreamError {
    match error {
        NetError::Refused(_) => StreamError::NotLoopback,
        NetError::Tls(_, ref source) if is_of_certificate(source) => StreamError::CertificateNotTrusted(error),
        error => StreamError::Unreachable(error),
    }
}

/// Whether a TLS handshake failed because of who the other side is, and not because it broke.
fn is_of_certificate(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(error, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented))
}

// === impl StreamServer ===

impl StreamServer {
    /// The server at `port` of `host`, which speaks TLS if `tls`.
    ///
    /// # Errors
    /// If `host` is neither a plain name nor a plain IP address.
    pub fn new(host: &str, port: u16, tls: bool) -> Result<Self, NetError> {
        Ok(Self { server: Server { secure: tls, host: Host::parse(host)?, port } })
    }

    /// The server that a WebSocket's URL names (`wss://` with TLS, `ws://` without), and the path with its query.
    ///
    /// # Errors
    /// If the URL is none, or written in an odd way.
    pub fn of_web_socket(url: &str) -> Result<(Self, String), NetError> {
        let (scheme, rest) = url.split_once("://").ok_or(NetError::Url(UrlFlaw::Scheme))?;
        let scheme = match scheme {
            _ if scheme.eq_ignore_ascii_case("wss") => "https",
            _ if scheme.eq_ignore_ascii_case("ws") => "http",
            _ => return Err(NetError::Url(UrlFlaw::Scheme)),
        };
        let Address { server, target } = Address::parse(&format!("{scheme}://{rest}"))?;
        Ok((Self { server }, target.to_string()))
    }

    /// Whether the server must prove who it is.
    pub fn is_secure(&self) -> bool {
        self.server.secure
    }

    /// Whether the server is named by a loopback address, and not by any name.
    pub fn is_loopback(&self) -> bool {
        matches!(self.server.host, Host::Ip(ip) if ip.is_loopback())
    }

    /// The server as a `Host` header has it: without the port that is usual.
    pub fn authority(&self) -> String {
        self.server.host_header()
    }
}

// === impl Stream ===

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Stream")
    }
}
