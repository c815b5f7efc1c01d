//! Where names lead: every address that there is, asked for once.
//!
//! The system is asked, as every program of the machine asks it, or the servers that the operator names.
//! Who asks bounds the time. The system cannot be told to stop, though, and keeps a thread until it has answered;
//! so only so many are asked for at a time, and the others wait within their own bounds.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::{LookupError, SetupError};

/// How many names the system is asked for at a time; each takes a thread.
const MOST_AT_ONCE: usize = 64;
/// How long one server is waited for before it is asked again.
const TRY: Duration = Duration::from_secs(2);
/// How many names are remembered, and for how long at most; a name that says less is remembered for less.
const REMEMBERED: u64 = 1024;
const LONGEST: Duration = Duration::from_secs(60);
const LONGEST_FOR_NOTHING: Duration = Duration::from_secs(10);

/// Who is asked.
pub(crate) enum Resolver {
    System(Arc<Semaphore>),
    Servers(Box<TokioResolver>),
}

impl Resolver {
    /// Asks `servers`, or the system if there are none.
    pub(crate) fn new(servers: &[SocketAddr]) -> Result<Self, SetupError> {
        if servers.is_empty() {
            return Ok(Self::system());
        }
        let servers = servers.iter().map(|server| {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            for connection in &mut config.connections {
                connection.port = server.port();
            }
            config
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = TRY;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = REMEMBERED;
        options.positive_max_ttl = Some(LONGEST);
        options.negative_max_ttl = Some(LONGEST_FOR_NOTHING);
        let resolver = builder.build().map_err(|error| SetupError::Resolver(Box::new(error)))?;
        Ok(Self::Servers(Box::new(resolver)))
    }

    pub(crate) fn system() -> Self {
        Self::System(Arc::new(Semaphore::new(MOST_AT_ONCE)))
    }

    /// Every address of `name`; there is at least one.
    pub(crate) async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        let found = match self {
            Self::System(places) => ask_system(places, name).await?,
            Self::Servers(resolver) => {
                // The dot says that the name is whole.
                let answer = resolver.lookup_ip(format!("{name}.")).await;
                answer.map_err(|error| LookupError::Servers(Box::new(error)))?.iter().collect()
            }
        };
        if found.is_empty() { Err(LookupError::Empty) } else { Ok(found) }
    }
}

async fn ask_system(places: &Arc<Semaphore>, name: &str) -> Result<Vec<IpAddr>, LookupError> {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    let name = name.to_owned();
    let asked = spawn_blocking(move || {
        // Whoever asked may be gone; the place is free when the thread is.
        let _place = place;
        (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect())
    });
    asked.await.map_err(|error| LookupError::System(error.into()))?.map_err(LookupError::System)
}

impl fmt::Debug for Resolver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::System(_) => "System",
            Self::Servers(_) => "Servers",
        })
    }
}
