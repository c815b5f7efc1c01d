//! Connections against real servers and proxies on this machine, in a build that reaches nothing else.

mod peers;

mod connecting;
// Other builds fetch over TLS only, which the servers of the tests do not speak.
#[cfg(feature = "loopback-server")]
mod fetching;
mod talking;

use std::sync::Arc;
use std::time::Duration;

use portcullis_net::{GuardConfig, Outbound, OutboundConfig};

use super::{Patience, Wires};
use portcullis_core::Proxy;

/// More than enough for a server on the same machine, however busy that is.
const AMPLE: Patience = Patience { connect: Duration::from_secs(60), send: Duration::from_secs(60) };
/// Less than a server needs that does not answer at all.
const SHORT: Duration = Duration::from_millis(30);

/// A way out that may reach everything, as far as its guard is concerned.
fn open() -> Outbound {
    let allow = ["0.0.0.0/0", "::/0"].map(|network| network.parse().unwrap()).to_vec();
    let guard = Some(GuardConfig { allow, ports: Vec::new() });
    Outbound::new(OutboundConfig { guard, ..OutboundConfig::default() }).unwrap()
}

fn wires(url: &str, proxy: Option<Proxy>, patience: Patience) -> Arc<Wires> {
    Wires::with_patience(open(), url.parse().unwrap(), proxy, patience)
}
