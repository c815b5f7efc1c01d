//! A small client for one gateway that whoever runs the command trusts.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};

use crate::address::Address;
use crate::{Limits, NetError, Outbound, Response};

/// What an answer may take. An upload is compiled before it is answered, for two minutes at most.
const LIMITS: Limits =
    Limits { connect: Duration::from_secs(5), whole: Duration::from_secs(150), body: 16 * 1024 * 1024 };

/// A client of one gateway.
#[derive(Debug, Clone)]
pub struct Client {
    outbound: Outbound,
    address: Address,
    key: String,
    headers: Vec<(&'static str, String)>,
}

impl Client {
    /// A client for the gateway at `url`, such as `http://127.0.0.1:8080`, that comes with `key`.
    ///
    /// # Errors
    /// If `url` is no address of a server, or has more than that.
    pub fn new(url: &str, key: impl Into<String>) -> Result<Self, NetError> {
        let address = Address::parse(url)?;
        if address.target != "/" {
            return Err(NetError::Address(url.to_owned()));
        }
        Ok(Self { outbound: Outbound::new(), address, key: key.into(), headers: Vec::new() })
    }

    /// The same client, with another way out: one that believes the operator's own certificates, for example.
    #[must_use]
    pub fn through(self, outbound: Outbound) -> Self {
        Self { outbound, ..self }
    }

    /// The same client, with one more header on every request.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Asks and waits for the whole answer. `target` is a path, with its query.
    ///
    /// # Errors
    /// If no answer comes; an answer of any status is an answer.
    pub async fn send(&self, method: Method, target: &str, body: Vec<u8>) -> Result<Response, NetError> {
        let mut request = Request::builder();
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request
            .method(method)
            .uri(target)
            .header("host", self.address.host_header())
            .header("x-api-key", &self.key)
            .header("content-type", if body.starts_with(b"\0asm") { "application/wasm" } else { "application/json" })
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| NetError::Exchange(self.address.endpoint(), error.into()))?;
        self.outbound.send(&self.address, request, LIMITS).await
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn only_addresses_of_servers_are_taken() {
        for good in ["http://127.0.0.1:8080", "http://127.0.0.1:8080/", "https://gateway", "http://[::1]:80"] {
            assert!(Client::new(good, "k").is_ok(), "{good} was refused");
        }
        for bad in ["127.0.0.1:8080", "http://", "http://x/path", "ftp://x", "https://x?y"] {
            assert!(Client::new(bad, "k").is_err(), "{bad} was taken");
        }
    }
}
