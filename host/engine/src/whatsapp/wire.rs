//! The way of one session to WhatsApp's server, and what is known of its trouble.
//!
//! The client asks its [`Wires`] for a connection whenever it wants one: a stream from `net`, directly or through the session's
//! proxy, and a WebSocket on it (`socket`). The client tells nobody when that fails, and tries again for ever. So what went wrong
//! last is remembered here, as one of a few kinds, until a connection comes about; and whoever drives the client is woken.
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

use async_trait::async_trait;
use portcullis_core::session::ProxyProtocol;
use portcullis_core::{Proxy, Secret};
use portcullis_net::{NetError, Outbound, ProxyKind, ProxyServer, Stream, StreamError};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::Error as WebSocketError;
use tokio_tungstenite::tungstenite::http::header::{HeaderValue, ORIGIN};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use whatsapp_rust::async_channel::Receiver;
use whatsapp_rust::transport::{Transport, TransportEvent, TransportFactory};
use whatsapp_rust::{anyhow, wacore};

pub use fetch::{FetchError, HttpFetch};
pub use server_url::{ServerUrl, ServerUrlFlaw};

/// How long a connection may take to come about, with its proxy, its TLS and its WebSocket. The client gives up after 20
/// seconds without saying so to anybody, so that this must be less.
const CONNECT: Duration = Duration::from_secs(15);

/// The connections of one session.
#[derive(Debug)]
pub struct Wires {
    outbound: Outbound,
    server: ServerUrl,
    /// Nothing, if the proxy that somebody chose can be none.
    proxy: Option<Result<ProxyServer, NetError>>,
    patience: Patience,
    state: Mutex<State>,
    change: Notify,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectTrouble {
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

#[derive(Debug, Default)]
struct State {
    attempts: u64,
    trouble: Option<(ConnectTrouble, Instant)>,
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
    #[must_use]
    pub fn new(outbound: Outbound, server: ServerUrl, proxy: Option<Proxy>) -> Arc<Self> {
        Self::with_patience(outbound, server, proxy, Patience { connect: CONNECT, send: socket::SEND })
    }

    fn with_patience(outbound: Outbound, server: ServerUrl, proxy: Option<Proxy>, patience: Patience) -> Arc<Self> {
        Arc::new(Self {
            outbound: bounded(outbound),
            server,
            proxy: proxy.map(|proxy| proxy_server(&proxy)),
            patience,
            state: Mutex::default(),
            change: Notify::new(),
        })
    }

    /// What keeps the session from its server: the last attempt failed for this reason.
    #[must_use]
    pub fn trouble(&self) -> Option<ConnectTrouble> {
        self.state().trouble.map(|(trouble, _)| trouble)
    }

    /// When the last attempt failed, if it did.
    #[must_use]
    pub fn failed_at(&self) -> Option<Instant> {
        self.state().trouble.map(|(_, at)| at)
    }

    /// How many connections were tried.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.state().attempts
    }

    /// Completes when an attempt has ended, well or not, since this last completed. It is for one waiter.
    pub async fn changed(&self) {
        self.change.notified().await;
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

    /// Remembers how an attempt ended.
    fn settle(&self, trouble: Option<ConnectTrouble>) {
        self.state().trouble = trouble.map(|trouble| (trouble, Instant::now()));
        self.change.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl TransportFactory for Wires {
    async fn create_transport(&self) -> anyhow::Result<(Arc<dyn Transport>, Receiver<TransportEvent>)> {
        self.state().attempts += 1;
        match self.connect().await {
            Ok(socket) => {
                self.settle(None);
                let (transport, events) = socket::open(socket, self.patience.send);
                Ok((transport, events))
            }
            Err(error) => {
                tracing::debug!(server = %self.server, cause = chain(&error), "no connection to WhatsApp");
                self.settle(Some(error.trouble()));
                Err(error.into())
            }
        }
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
