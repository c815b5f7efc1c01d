//! How a connection comes about: a name is looked up once, every address is judged, and what was judged is connected to.
//!
//! Between the judgement and the connection stands nobody who could change the address: what is connected to is the very
//! `SocketAddr` that was judged, and no name goes any further than the lookup. A name with addresses of both kinds is
//! reached on those that are not refused.
//!
//! The guard is for whoever names a server to the gateway. What the operator's own configuration names goes past it, but in no
//! other way: looked up once, and connected to by its address. A way out that leads to this machine only applies to everybody.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::address::{Host, Server};
use crate::guard::judge_loopback;
use crate::resolve::Resolver;
use crate::{Guard, NetError, Refusal};

/// How many addresses of one name are tried.
const MOST_TRIES: usize = 8;

/// Whoever connects.
#[derive(Debug)]
pub(crate) struct Dialer {
    /// Without a guard, everything may be reached.
    pub(crate) guard: Option<Guard>,
    /// Whether nothing but this machine may be reached, whoever names it.
    pub(crate) is_loopback_only: bool,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) tls: Arc<ClientConfig>,
}

/// Who named a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Anybody who may tell the gateway where to go; the guard judges where that is.
    Anybody,
    /// The configuration of the gateway itself.
    Operator,
}

impl Dialer {
    /// A connection to `server`, before anything is said.
    pub(crate) async fn connect(&self, server: &Server, by: By, deadline: Instant) -> Result<TcpStream, NetError> {
        let late = || NetError::ConnectTimeout(server.to_string());
        let candidates = self.candidates(server, by, deadline).await?;
        let mut last = None;
        for (index, candidate) in candidates.iter().enumerate() {
            // One that does not answer at all leaves the others their share of the time.
            let now = Instant::now();
            let others = u32::try_from(candidates.len() - index).unwrap_or(u32::MAX);
            let share = now + deadline.saturating_duration_since(now) / others;
            match timeout_at(share, TcpStream::connect(candidate)).await {
                Ok(Ok(stream)) => {
                    // What is written is written whole, so that there is nothing to gather by waiting.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = Some(NetError::Connect(server.to_string(), error)),
                Err(_) => last = Some(late()),
            }
        }
        Err(last.unwrap_or_else(late))
    }

    /// A connection to `server`, which has proved who it is.
    pub(crate) async fn connect_tls(
        &self,
        server: &Server,
        deadline: Instant,
    ) -> Result<TlsStream<TcpStream>, NetError> {
        let stream = self.connect(server, By::Anybody, deadline).await?;
        self.prove(server, stream, deadline).await
    }

    /// Has whoever is at the other end of `stream` prove to be `server`.
    pub(crate) async fn prove<S>(&self, server: &Server, stream: S, deadline: Instant) -> Result<TlsStream<S>, NetError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let failed = |error| NetError::Tls(server.to_string(), error);
        let name = match &server.host {
            Host::Ip(ip) => ServerName::from(*ip),
            Host::Name(name) => ServerName::try_from(name.clone())
                .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?,
        };
        match timeout_at(deadline, TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream)).await {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(NetError::ConnectTimeout(server.to_string())),
        }
    }

    /// Tells whether `server` might be reached, without asking where its name leads.
    pub(crate) fn check(&self, server: &Server, by: By) -> Result<(), Refusal> {
        match &server.host {
            Host::Ip(ip) => self.judge(*ip, server.port, by),
            Host::Name(_) => self.guard_for(by).map_or(Ok(()), |guard| guard.check(&server.host, server.port)),
        }
    }

    /// Tells whether a proxy may be asked for `server`, which nobody here looks up.
    pub(crate) fn check_beyond(&self, server: &Server) -> Result<(), Refusal> {
        match &server.host {
            Host::Ip(ip) if self.is_loopback_only => judge_loopback(*ip),
            host if self.is_loopback_only && !host.is_localhost() => Err(Refusal::NotLoopback),
            _ => Ok(()),
        }
    }

    fn judge(&self, ip: IpAddr, port: u16, by: By) -> Result<(), Refusal> {
        if self.is_loopback_only {
            judge_loopback(ip)?;
        }
        self.guard_for(by).map_or(Ok(()), |guard| guard.judge(ip, port))
    }

    fn guard_for(&self, by: By) -> Option<&Guard> {
        self.guard.as_ref().filter(|_| by == By::Anybody)
    }

    /// Every address of `server` that may be reached.
    async fn candidates(&self, server: &Server, by: By, deadline: Instant) -> Result<Vec<SocketAddr>, NetError> {
        self.check(server, by).map_err(NetError::Refused)?;
        let found = match &server.host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => match timeout_at(deadline, self.resolver.lookup(name)).await {
                Ok(found) => found.map_err(|error| NetError::Lookup(server.host.to_string(), error))?,
                Err(_) => return Err(NetError::LookupTimeout(server.host.to_string())),
            },
        };
        let mut refused = None;
        let mut candidates = Vec::with_capacity(found.len().min(MOST_TRIES));
        for ip in found {
            match self.judge(ip, server.port, by) {
                Ok(()) if candidates.len() < MOST_TRIES => candidates.push(SocketAddr::new(ip, server.port)),
                Ok(()) => {}
                Err(refusal) => {
                    tracing::debug!(%server, %ip, %refusal, "an address is not connected to");
                    refused = Some(refusal);
                }
            }
        }
        match refused {
            Some(refusal) if candidates.is_empty() => Err(NetError::Refused(refusal)),
            _ => Ok(candidates),
        }
    }
}
