//! The one way out of the gateway.
//!
//! `Outbound` asks one server one question: it connects, proves who is there if the address says `https`, and reads a bounded answer.
//! Every call has a connection of its own; nothing is pooled and no redirect is followed.
//! `Client` is the command line's own client, which speaks to a gateway that the operator named.
//! `Jwks` tells whether a token was signed by the identity provider that the operator named, with keys that it fetches and keeps.
//!
//! One library, AWS-LC, does the cryptography of both TLS and tokens.
//! What organisations name (webhooks, proxies) will go out through a guard in this crate that resolves, checks and then connects; nothing does yet.

mod address;
mod client;
mod jwks;
mod outbound;
mod tls;

pub use client::Client;
/// The method of a request.
pub use hyper::Method;
pub use jwks::{Claims, Jwks, JwksConfig, JwtError, KeySetError};
pub use outbound::{Limits, NetError, Outbound, Response};
pub use tls::RootError;

#[cfg(test)]
mod test;
