//! The one way out of the gateway.
//!
//! At the moment that is the command line's own client, which speaks to a gateway that the operator named.
//! What tenants name (webhooks, proxies, key sets) will go out through a guard in this crate that resolves, checks and then connects; nothing does yet.

mod client;

pub use client::{Client, ClientError, Response};
/// The method of a request.
pub use hyper::Method;
