//! The one way out of the gateway.
//!
//! Most of what goes out goes where somebody else says: to the webhooks and proxies of organisations, and to the identity
//! provider. `Outbound` takes it there through a `Guard`, so that nobody reaches what is inside by naming it to the gateway:
//!
//! 1. `address` reads the URL, and refuses every odd way of writing one
//! 2. `resolve` asks once where the name leads
//! 3. `guard` judges every address that comes back
//! 4. `dial` connects to an address that was judged, and to nothing else; `tls` says who is believed there
//! 5. `pool` keeps the connection for the next request to the same server
//! 6. `outbound` sends the request and reads a bounded answer; a redirect is an answer
//!
//! `stream` makes a connection that carries bytes of another kind, to a server that the operator named, directly or through a
//! `proxy` that somebody else named. A request can go through such a proxy, too.
//!
//! `Client` is the command line's own client, which speaks to a gateway that the operator named, unguarded.
//! `Jwks` tells whether a token was signed by the identity provider that the operator named, with keys that it fetches and keeps.
//!
//! One library, AWS-LC, does the cryptography of both TLS and tokens.

mod address;
mod client;
mod dial;
mod error;
mod guard;
mod jwks;
mod outbound;
mod pool;
mod proxy;
mod resolve;
mod stream;
mod tls;

pub use address::UrlFlaw;
/// What bodies consist of.
pub use bytes::Bytes;
pub use client::Client;
pub use error::{LookupError, NetError};
pub use guard::{Guard, GuardConfig, Refusal};
/// The parts of requests and answers.
pub use hyper::{
    Method, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
/// A network, such as `10.0.0.0/8`.
pub use ipnet::IpNet;
pub use jwks::{Claims, Jwks, JwksConfig, JwtError, KeySetError};
pub use outbound::{
    Download, Limits, Outbound, OutboundConfig, OutboundRequest, Overlong, Response, SetupError, check_header,
};
pub use proxy::{ProxyFault, ProxyKind, ProxyServer};
pub use stream::{Stream, StreamError, StreamServer};
pub use tls::RootError;

#[cfg(test)]
mod test;
