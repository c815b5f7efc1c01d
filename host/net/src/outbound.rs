//! One request, one answer, with bounds on time and size.
//!
//! A request goes over a kept connection if there is one, or else over a new one: looked up, judged, connected, and for
//! `https` proved. The answer is read up to a bound. An answer of any status is an answer; redirects are answers too,
//! because nobody judged where they lead. Nothing is read from the environment, so there is no proxy but one that the caller names.
//!
//! Dropping the future closes the connection.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, USER_AGENT,
};
use hyper::{Method, Request, StatusCode, Uri};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::address::{Address, Host, Server};
use crate::dial::{By, Dialer};
use crate::pool::{Connection, Pool};
use crate::resolve::Resolver;
use crate::tls;
use crate::{Guard, GuardConfig, NetError, ProxyServer, RootError, Stream, StreamError, StreamServer};

/// How the gateway calls itself, unless the caller says otherwise.
const OWN_NAME: HeaderValue = HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION")));
/// How long a connection may take after an answer to be ready for the next request. It takes that long only if the server
/// answered without having read the request.
const SETTLE: Duration = Duration::from_millis(50);

/// Headers with which a request says where it ends, what it is sent over and to whom. On a connection that others use
/// after it, a wrong one would make them read each other's answers.
const RESERVED: [HeaderName; 8] = [CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
const ALSO_RESERVED: [&str; 3] = ["keep-alive", "proxy-connection", "http2-settings"];

/// How the way out is made. The default guards it and asks the system for names.
#[derive(Debug, Clone)]
pub struct OutboundConfig {
    /// What may be reached; without a guard, that is everything.
    pub guard: Option<GuardConfig>,
    /// Who is asked where names lead; if nobody is named, the system.
    pub dns: Vec<SocketAddr>,
    /// Certificates that are believed besides the machine's, as PEM.
    pub extra_roots: Option<Vec<u8>>,
}

/// Why the way out cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The operator's own certificates cannot be used.
    #[error("cannot use the additional root certificates")]
    Roots(#[source] RootError),
    /// The servers for names cannot be asked.
    #[error("cannot set up the resolver of names")]
    Resolver(#[source] Box<hickory_resolver::net::NetError>),
}

/// What is sent, and where. What is printed of it for debugging is neither the path nor a value.
#[derive(Clone)]
pub struct OutboundRequest {
    /// The method.
    pub method: Method,
    /// Where it goes.
    pub url: String,
    /// Its headers, without those that a request has by itself (see [`check_header`]).
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: Bytes,
}

/// What a request may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a new connection may take to come about, with the lookup of the name and the TLS handshake.
    pub connect: Duration,
    /// How long sending the request and reading the head of the answer may take.
    pub head: Duration,
    /// How long reading the body may take.
    pub body_time: Duration,
    /// How long all of it may take.
    pub whole: Duration,
    /// How much of the body is read, in bytes.
    pub body: usize,
    /// What becomes of a body that is longer.
    pub overlong: Overlong,
}

/// What becomes of an answer whose body is longer than what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlong {
    /// It is none.
    Refused,
    /// Its beginning is handed over, and the connection is closed.
    Cut,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, or the beginning of it.
    pub body: Bytes,
    /// Whether there was more of the body.
    pub truncated: bool,
}

/// The way out. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Outbound {
    pub(crate) dialer: Arc<Dialer>,
    pool: Arc<Pool>,
}

// === impl Outbound ===

impl Outbound {
    /// The way out that `config` describes. It reads the machine's root certificates, and is made once.
    ///
    /// # Errors
    /// If the certificates in `config` cannot be used.
    pub fn new(config: OutboundConfig) -> Result<Self, SetupError> {
        let mut roots = tls::roots();
        if let Some(pem) = &config.extra_roots {
            tls::add_roots(&mut roots, pem).map_err(SetupError::Roots)?;
        }
        let guard = config.guard.map(Guard::new);
        let resolver = Arc::new(Resolver::new(&config.dns)?);
        Ok(Self::from_dialer(Dialer { guard, is_loopback_only: false, resolver, tls: tls::config(roots) }))
    }

    /// A way out to everywhere, for whoever names the server and waits for the answer at the same machine.
    pub fn unguarded() -> Self {
        let tls = tls::config(tls::roots());
        let resolver = Arc::new(Resolver::system());
        Self::from_dialer(Dialer { guard: None, is_loopback_only: false, resolver, tls })
    }

    /// The same way out, which leads to the loopback addresses of this machine and nowhere else, whoever names a server.
    /// What the guard refuses is refused as before.
    #[must_use]
    pub fn only_loopback(&self) -> Self {
        // The connections that are kept may lead elsewhere, so that none of them is shared.
        Self::from_dialer(Dialer {
            guard: self.dialer.guard.clone(),
            is_loopback_only: true,
            resolver: Arc::clone(&self.dialer.resolver),
            tls: Arc::clone(&self.dialer.tls),
        })
    }

    fn from_dialer(dialer: Dialer) -> Self {
        Self { dialer: Arc::new(dialer), pool: Arc::default() }
    }

    /// Tells whether `url` may be configured; see [`Guard::check_url`].
    ///
    /// # Errors
    /// If it may not.
    pub fn check_url(&self, url: &str) -> Result<(), NetError> {
        self.check(&Address::parse(url)?.server)
    }

    /// The host of `url` if that may be configured: a name in small letters or an address, IPv6 in brackets.
    ///
    /// # Errors
    /// If it may not.
    pub fn host_of(&self, url: &str) -> Result<String, NetError> {
        let server = Address::parse(url)?.server;
        self.check(&server)?;
        Ok(server.host.to_string())
    }

    /// Tells whether a proxy at `host` and `port` may be configured, without asking where a name leads.
    ///
    /// # Errors
    /// If it may not.
    pub fn check_host(&self, host: &str, port: u16) -> Result<(), NetError> {
        self.check(&plain(host, port)?)
    }

    /// Connects to `port` of `host`, judged as everything that goes out.
    ///
    /// # Errors
    /// If that is refused, or no connection comes about within `limit`.
    pub async fn connect(&self, host: &str, port: u16, limit: Duration) -> Result<TcpStream, NetError> {
        self.dialer.connect(&plain(host, port)?, By::Anybody, Instant::now() + limit).await
    }

    fn check(&self, server: &Server) -> Result<(), NetError> {
        self.dialer.check(server, By::Anybody).map_err(NetError::Refused)
    }

    /// Sends `request` and reads the answer.
    ///
    /// # Errors
    /// If no answer comes within `limits`; an answer of any status is an answer.
    pub async fn send(&self, request: OutboundRequest, limits: Limits) -> Result<Response, NetError> {
        let (address, message) = composed(request)?;
        self.exchange(&address, message, limits).await
    }

    /// Sends `request` through `proxy`, over a connection of its own, and reads the answer. The guard judges the proxy; the server
    /// is named to it, and nobody looks it up here.
    ///
    /// # Errors
    /// If no answer comes within `limits`. A server that gives none, or one that is none, counts as unreachable, and the source
    /// says why.
    pub async fn send_through(
        &self,
        proxy: &ProxyServer,
        request: OutboundRequest,
        limits: Limits,
    ) -> Result<Response, StreamError> {
        let (address, message) = composed(request).map_err(StreamError::Unreachable)?;
        let end = Instant::now() + limits.whole;
        let server = StreamServer { server: address.server.clone() };
        let stream = self.stream(&server, Some(proxy), limits.connect.min(limits.whole)).await?;
        over(stream, &address, message, limits, end).await.map_err(StreamError::Unreachable)
    }

    /// Sends `message`, whose target and host are those of `address`, and reads the answer.
    pub(crate) async fn exchange(
        &self,
        address: &Address,
        message: Request<Full<Bytes>>,
        limits: Limits,
    ) -> Result<Response, NetError> {
        let server = &address.server;
        let message = addressed(message, address);
        let end = Instant::now() + limits.whole;
        let (mut connection, response) = self.ask(server, message, limits, end).await?;
        let response = answered(server, response, limits, end).await?;
        let is_ready = connection.sender.is_ready();
        if !response.truncated && (is_ready || matches!(timeout(SETTLE, connection.sender.ready()).await, Ok(Ok(())))) {
            self.pool.put(connection, Instant::now());
        }
        Ok(response)
    }

    /// Sends `message` and reads the head of the answer; the body is read piece by piece, none of which may take longer than the
    /// whole body of another answer.
    pub(crate) async fn open_body(
        &self,
        address: &Address,
        message: Request<Full<Bytes>>,
        limits: Limits,
    ) -> Result<Download, NetError> {
        let server = address.server.clone();
        let end = Instant::now() + limits.whole;
        let (connection, response) = self.ask(&server, addressed(message, address), limits, end).await?;
        let status = response.status();
        Ok(Download { status, server, body: response.into_body(), patience: limits.body_time, _connection: connection })
    }

    /// Sends `message` over a kept connection or a new one, and returns it with the answer's head.
    async fn ask(
        &self,
        server: &Server,
        mut message: Request<Full<Bytes>>,
        limits: Limits,
        end: Instant,
    ) -> Result<(Connection, hyper::Response<Incoming>), NetError> {
        if let Some(mut connection) = self.pool.take(server, Instant::now()) {
            // The server may be closing it at this very moment. If the message went nowhere it can go again; if that
            // cannot be told, only if it does no harm twice.
            let again = is_repeatable(&message).then(|| message.clone());
            let answer = connection.sender.try_send_request(message);
            let deadline = end.min(Instant::now() + limits.head);
            match timeout_at(deadline, answer).await {
                Ok(Ok(response)) => return Ok((connection, response)),
                Ok(Err(mut error)) => match error.take_message().or(again) {
                    Some(again) if !error.error().is_parse() => message = again,
                    _ => return Err(broken(server, error.into_error())),
                },
                Err(_) => return Err(NetError::HeadTimeout(server.to_string())),
            }
        }
        let connection = self.open(server, end.min(Instant::now() + limits.connect)).await?;
        asked(connection, server, message, limits, end).await
    }

    async fn open(&self, server: &Server, deadline: Instant) -> Result<Connection, NetError> {
        let connection = if server.secure {
            Connection::new(server, self.dialer.connect_tls(server, deadline).await?).await
        } else {
            Connection::new(server, self.dialer.connect(server, By::Anybody, deadline).await?).await
        };
        connection.map_err(|error| broken(server, error))
    }
}

/// An answer whose body is read piece by piece.
pub struct Download {
    /// Its status.
    pub status: StatusCode,
    server: Server,
    body: Incoming,
    patience: Duration,
    /// It ends with this, which nobody else uses.
    _connection: Connection,
}

impl Download {
    /// The next piece of the body; none after the last.
    ///
    /// # Errors
    /// If none comes in time, or the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Bytes>, NetError> {
        loop {
            let late = |_| NetError::BodyTimeout(self.server.to_string());
            match timeout(self.patience, self.body.frame()).await.map_err(late)? {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(&self.server, error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Download({})", self.status)
    }
}

/// Where `request` goes, and the message that it is, without its target and its host.
fn composed(request: OutboundRequest) -> Result<(Address, Request<Full<Bytes>>), NetError> {
    let address = Address::parse(&request.url)?;
    let mut message = Request::new(Full::new(request.body));
    *message.method_mut() = request.method;
    let headers = message.headers_mut();
    headers.reserve(request.headers.len() + 2);
    for (name, value) in request.headers {
        check_header(&name)?;
        headers.append(name, value);
    }
    Ok((address, message))
}

/// Sends `message` over a stream that leads to the server of `address`, and reads the answer.
async fn over(
    stream: Stream,
    address: &Address,
    message: Request<Full<Bytes>>,
    limits: Limits,
    end: Instant,
) -> Result<Response, NetError> {
    let server = &address.server;
    let connection = Connection::new(server, stream).await.map_err(|error| broken(server, error))?;
    let (_connection, response) = asked(connection, server, addressed(message, address), limits, end).await?;
    answered(server, response, limits, end).await
}

/// Sends `message` over a new connection, and returns that with the answer's head.
async fn asked(
    mut connection: Connection,
    server: &Server,
    message: Request<Full<Bytes>>,
    limits: Limits,
    end: Instant,
) -> Result<(Connection, hyper::Response<Incoming>), NetError> {
    let answer = connection.sender.send_request(message);
    match timeout_at(end.min(Instant::now() + limits.head), answer).await {
        Ok(Ok(response)) => Ok((connection, response)),
        Ok(Err(error)) => Err(broken(server, error)),
        Err(_) => Err(NetError::HeadTimeout(server.to_string())),
    }
}

/// The answer that begins with the head of `response`.
async fn answered(
    server: &Server,
    response: hyper::Response<Incoming>,
    limits: Limits,
    end: Instant,
) -> Result<Response, NetError> {
    let (head, mut body) = response.into_parts();
    let late = |_| NetError::BodyTimeout(server.to_string());
    let read = read(server, &mut body, limits);
    let (body, truncated) = timeout_at(end.min(Instant::now() + limits.body_time), read).await.map_err(late)??;
    Ok(Response { status: head.status, headers: head.headers, body, truncated })
}

/// The message with the target and the host of an address.
fn addressed(mut message: Request<Full<Bytes>>, address: &Address) -> Request<Full<Bytes>> {
    *message.uri_mut() = Uri::from(address.target.clone());
    let host = HeaderValue::try_from(address.server.host_header()).expect("hosts consist of visible ASCII characters");
    message.headers_mut().insert(HOST, host);
    message.headers_mut().entry(USER_AGENT).or_insert(OWN_NAME);
    message
}

/// Reads `body` up to the limit, and tells whether there was more.
async fn read(server: &Server, body: &mut Incoming, limits: Limits) -> Result<(Bytes, bool), NetError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(server, error))?;
        let Some(data) = frame.data_ref() else { continue };
        let room = limits.body - whole.len();
        whole.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return match limits.overlong {
                Overlong::Cut => Ok((whole.freeze(), true)),
                Overlong::Refused => Err(NetError::TooLarge(server.to_string())),
            };
        }
    }
    Ok((whole.freeze(), false))
}

/// What went wrong with an exchange.
fn broken(server: &Server, error: hyper::Error) -> NetError {
    let server = server.to_string();
    match error {
        error if error.is_parse_too_large() => NetError::TooLarge(server),
        error if error.is_parse() => NetError::Malformed(server, error),
        error => NetError::Broken(server, error),
    }
}

/// Whether `message` may come twice: by its method, or because it has a key by which the second is known.
fn is_repeatable(message: &Request<Full<Bytes>>) -> bool {
    message.method().is_idempotent() || message.headers().contains_key("idempotency-key")
}

fn plain(host: &str, port: u16) -> Result<Server, NetError> {
    Ok(Server { secure: false, host: Host::parse(host)?, port })
}

/// Tells whether a request may be given the header `name`.
///
/// # Errors
/// If it is one of those that a request has by itself.
pub fn check_header(name: &HeaderName) -> Result<(), NetError> {
    if RESERVED.contains(name) || ALSO_RESERVED.contains(&name.as_str()) {
        return Err(NetError::Header(name.clone()));
    }
    Ok(())
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self { guard: Some(GuardConfig::default()), dns: Vec::new(), extra_roots: None }
    }
}

impl fmt::Debug for OutboundRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = Address::parse(&self.url).map(|address| address.server.to_string());
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        out.debug_struct("OutboundRequest")
            .field("method", &self.method)
            .field("server", &server.as_deref().unwrap_or("none"))
            .field("headers", &names)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}
