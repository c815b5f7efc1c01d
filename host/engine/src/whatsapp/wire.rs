//! The way of one session to WhatsApp's server, and what is known of its trouble.
//!
//! Whenever the client wants a connection, its gate asks `Wires` for one: a stream from `net`, directly or through the session's
//! proxy, and a WebSocket on it (`socket`). The client tells nobody when that fails, and tries again for ever. So what went wrong
//! last is remembered here, as one of a few kinds, until a connection comes about.
//!
//! *The loopback rule.* A build with the feature `loopback-server` has a client that does not look at the certificates of
//! WhatsApp. Such a build must not reach WhatsApp at all: its way out leads to the loopback addresses of this machine, judged on
//! the very address that is connected to. There is no setting that changes this.

mod fetch;
mod server_url;
mod socket;
#[cfg(test)]
mod test;

use std::error::Error as StdError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_core::session::ProxyProtocol;
use portcullis_core::{Proxy, Secret};
use portcullis_net::{NetError, Outbound, ProxyKind, ProxyServer, Stream, StreamError};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::Error as WebSocketError;
use tokio_tungstenite::tungstenite::http::header::{HeaderValue, ORIGIN};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use whatsapp_rust::async_channel::Receiver;
use whatsapp_rust::transport::TransportEvent;
use whatsapp_rust::{anyhow, wacore};

pub(super) use fetch::HttpFetch;
pub use server_url::{ServerUrl, ServerUrlFlaw};
pub(super) use socket::Wire;

/// How long a connection may take to come about, with its proxy, its TLS and its WebSocket. The client gives up after 20
/// seconds without saying so to anybody, so that this must be less.
const CONNECT: Duration = Duration::from_secs(15);

/// The connections of one session.
#[derive(Debug)]
pub(super) struct Wires {
    outbound: Outbound,
    server: ServerUrl,
    /// Nothing, if the proxy that somebody chose can be none.
    proxy: Option<Result<ProxyServer, NetError>>,
    patience: Patience,
    /// Why the last attempt failed, if it did.
    trouble: Mutex<Option<ConnectTrouble>>,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectTrouble {
    /// The server cannot be reached, directly or by the proxy.
    Unreachable,
    /// The server's certificate does not prove that it is who it should be.
    CertificateNotTrusted,
    /// The proxy cannot be reached, or does not work as one.
    ProxyUnreachable,
    /// The proxy does not serve us: the credentials are wrong or missing, or it does not want to go there.
    ProxyRefused,
    /// The gateway does not go where the proxy is.
    ProxyForbidden,
    /// Whoever is there does not speak WebSocket.
    NotAWebSocket,
    /// This build reaches nothing but its own machine.
    NotLoopback,
}

/// What may be waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    connect: Duration,
    send: Duration,
}

/// What went wrong with a connection.
#[derive(Debug, thiserror::Error)]
enum WireError {
    #[error("there is no way to the server")]
    Stream(#[source] StreamError),
    #[error("the session's proxy can be none")]
    Proxy,
    #[error("the server did not answer in time")]
    Late,
    #[error("the server does not speak WebSocket")]
    Handshake(#[source] Box<WebSocketError>),
}

// === impl Wires ===

impl Wires {
    /// Connections to `server` by `outbound`, through `proxy` if there is one.
    pub(super) fn new(outbound: Outbound, server: ServerUrl, proxy: Option<Proxy>) -> Arc<Self> {
        Self::with_patience(outbound, server, proxy, Patience { connect: CONNECT, send: socket::SEND })
    }

    fn with_patience(outbound: Outbound, server: ServerUrl, proxy: Option<Proxy>, patience: Patience) -> Arc<Self> {
        Arc::new(Self {
            outbound: bounded(outbound),
            server,
            proxy: proxy.map(|proxy| proxy_server(&proxy)),
            patience,
            trouble: Mutex::default(),
        })
    }

    /// What keeps the session from its server: the last attempt failed for this reason.
    pub(super) fn trouble(&self) -> Option<ConnectTrouble> {
        *self.remembered()
    }

    /// A connection, and what comes of it.
    pub(super) async fn open(&self) -> anyhow::Result<(Arc<Wire>, Receiver<TransportEvent>)> {
        match self.connect().await {
            Ok(socket) => {
                *self.remembered() = None;
                Ok(socket::open(socket, self.patience.send))
            }
            Err(error) => {
                tracing::debug!(server = %self.server, cause = chain(&error), "no connection to WhatsApp");
                *self.remembered() = Some(error.trouble());
                Err(error.into())
            }
        }
    }

    async fn connect(&self) -> Result<WebSocketStream<Stream>, WireError> {
        let end = Instant::now() + self.patience.connect;
        let proxy = match &self.proxy {
            None => None,
            Some(Ok(proxy)) => Some(proxy),
            Some(Err(_)) => return Err(WireError::Proxy),
        };
        let stream = self.outbound.stream(self.server.server(), proxy, self.patience.connect);
        let stream = stream.await.map_err(WireError::Stream)?;
        let mut request = self.server.as_str().into_client_request().map_err(handshake)?;
        request.headers_mut().insert(ORIGIN, HeaderValue::from_static(wacore::net::WHATSAPP_WEB_ORIGIN));
        let upgrade = client_async_with_config(request, stream, Some(socket::config()));
        let (socket, _) = timeout_at(end, upgrade).await.map_err(|_| WireError::Late)?.map_err(handshake)?;
        Ok(socket)
    }

    fn remembered(&self) -> MutexGuard<'_, Option<ConnectTrouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way out that a driver of this build has.
fn bounded(outbound: Outbound) -> Outbound {
    if cfg!(feature = "loopback-server") { outbound.only_loopback() } else { outbound }
}

fn proxy_server(proxy: &Proxy) -> Result<ProxyServer, NetError> {
    let kind = match proxy.protocol {
        ProxyProtocol::Http => ProxyKind::Http,
        ProxyProtocol::Https => ProxyKind::Https,
        ProxyProtocol::Socks5 => ProxyKind::Socks5,
    };
    let server = ProxyServer::new(kind, &proxy.host, proxy.port)?;
    if proxy.username.is_none() && proxy.password.is_none() {
        return Ok(server);
    }
    let password = proxy.password.as_ref().map_or("", Secret::reveal);
    Ok(server.with_credentials(proxy.username.as_deref().unwrap_or_default(), password))
}

/// What an error and its causes say. None of them has credentials in it.
fn chain(error: &dyn StdError) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

fn handshake(error: WebSocketError) -> WireError {
    WireError::Handshake(Box::new(error))
}

// === impl WireError ===

impl WireError {
    fn trouble(&self) -> ConnectTrouble {
        match self {
            Self::Stream(StreamError::Unreachable(_) | StreamError::BeyondProxy(_)) | Self::Late => {
                ConnectTrouble::Unreachable
            }
            Self::Stream(StreamError::CertificateNotTrusted(_)) => ConnectTrouble::CertificateNotTrusted,
            Self::Stream(StreamError::ProxyUnreachable(_)) => ConnectTrouble::ProxyUnreachable,
            Self::Stream(StreamError::ProxyForbidden(_)) | Self::Proxy => ConnectTrouble::ProxyForbidden,
            Self::Stream(StreamError::ProxyRefused(_)) => ConnectTrouble::ProxyRefused,
            Self::Stream(StreamError::NotLoopback) => ConnectTrouble::NotLoopback,
            Self::Handshake(error) => match **error {
                // The connection broke, so that nothing is known about what is there.
                WebSocketError::Io(_) => ConnectTrouble::Unreachable,
                _ => ConnectTrouble::NotAWebSocket,
            },
        }
    }
}
