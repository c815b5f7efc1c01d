//! A small client for one gateway that whoever runs the command trusts.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request};

use crate::address::Address;
use crate::{Download, Limits, NetError, Outbound, Overlong, Response, UrlFlaw};

/// What an answer may take. An upload is compiled before it is answered, for two minutes at most.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(5),
    head: Duration::from_secs(150),
    body_time: Duration::from_secs(150),
    whole: Duration::from_secs(150),
    body: 16 * 1024 * 1024,
    overlong: Overlong::Refused,
};

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
        if address.target.as_str() != "/" {
            return Err(NetError::Url(UrlFlaw::Path));
        }
        // Whoever runs the command could connect to everything without it, so that nothing has to be guarded.
        Ok(Self { outbound: Outbound::unguarded(), address, key: key.into(), headers: Vec::new() })
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
        let (address, message) = self.message(method, target, body)?;
        self.outbound.exchange(&address, message, LIMITS).await
    }

    /// Asks, and hands over the answer as it comes, however long it is.
    ///
    /// # Errors
    /// If no answer comes; an answer of any status is an answer.
    pub async fn download(&self, target: &str) -> Result<Download, NetError> {
        let (address, message) = self.message(Method::GET, target, Vec::new())?;
        self.outbound.open_body(&address, message, LIMITS).await
    }

    fn message(
        &self,
        method: Method,
        target: &str,
        body: Vec<u8>,
    ) -> Result<(Address, Request<Full<Bytes>>), NetError> {
        let target = target.parse().map_err(|_| NetError::Url(UrlFlaw::Characters))?;
        let address = Address { server: self.address.server.clone(), target };
        let content_type = if body.starts_with(b"\0asm") { "application/wasm" } else { "application/json" };
        let mut message = Request::new(Full::new(Bytes::from(body)));
        *message.method_mut() = method;
        let headers = message.headers_mut();
        for (name, value) in &self.headers {
            headers.insert(HeaderName::from_static(name), value_of(name, value)?);
        }
        headers.insert("x-api-key", value_of("x-api-key", &self.key)?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok((address, message))
    }
}

fn value_of(name: &'static str, text: &str) -> Result<HeaderValue, NetError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| NetError::Header(HeaderName::from_static(name)))?;
    value.set_sensitive(true);
    Ok(value)
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
