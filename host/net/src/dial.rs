//! How a connection comes about: a name is looked up once, every address is judged, and what was judged is connected to.
//!
//! Between the judgement and the connection stands nobody who could change the address: what is connected to is the very
//! `SocketAddr` that was judged, and no name goes any further than the lookup. A name with addresses of both kinds is
//! reached on those that are not refused.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::address::{Host, Server};
use crate::resolve::Resolver;
use crate::{Guard, NetError};

/// How many addresses of one name are tried.
const MOST_TRIES: usize = 8;

/// Whoever connects.
#[derive(Debug)]
pub(crate) struct Dialer {
    /// Without a guard, everything may be reached.
    pub(crate) guard: Option<Guard>,
    pub(crate) resolver: Resolver,
    pub(crate) tls: Arc<ClientConfig>,
}

impl Dialer {
    /// A connection to `server`, before anything is said.
    pub(crate) async fn connect(&self, server: &Server, deadline: Instant) -> Result<TcpStream, NetError> {
        let late = || NetError::ConnectTimeout(server.to_string());
        let candidates = self.candidates(server, deadline).await?;
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
        let failed = |error| NetError::Tls(server.to_string(), error);
        let name = match &server.host {
            Host::Ip(ip) => ServerName::from(*ip),
            Host::Name(name) => ServerName::try_from(name.clone())
                .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?,
        };
        let stream = self.connect(server, deadline).await?;
        match timeout_at(deadline, TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream)).await {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(NetError::ConnectTimeout(server.to_string())),
        }
    }

    /// Tells whether `server` might be reached, without asking where its name leads.
    pub(crate) fn check(&self, server: &Server) -> Result<(), NetError> {
        self.guard.as_ref().map_or(Ok(()), |guard| guard.check(&server.host, server.port)).map_err(NetError::Refused)
    }

    /// Every address of `server` that may be reached.
    async fn candidates(&self, server: &Server, deadline: Instant) -> Result<Vec<SocketAddr>, NetError> {
        self.check(server)?;
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
            match self.guard.as_ref().map_or(Ok(()), |guard| guard.judge(ip, server.port)) {
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
