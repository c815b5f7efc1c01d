//! Requests as they are decoded and replies as they are encoded, free of hyper's streams.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, StatusCode};
use portcullis_core::{SessionId, Timestamp};
use serde_json::Value;

use crate::tickets::Ticket;

/// A request whose body has arrived.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    pub(crate) headers: HeaderMap,
    /// Path parameters by name, percent-decoded.
    pub(crate) params: Vec<(&'static str, String)>,
    /// Query parameters in order, percent-decoded.
    pub(crate) query: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// The body as a JSON document, for dialects that look into it to see who asks; `None` if it is empty or no JSON.
    pub(crate) document: Option<Value>,
    /// The session that the request means, in dialects that name sessions otherwise than by their id.
    pub(crate) session: Option<SessionId>,
    /// The ticket that let the caller in, where one may.
    pub(crate) ticket: Option<Ticket>,
    /// When the token ends that let the caller in, if it says so.
    pub(crate) until: Option<Timestamp>,
}

impl Incoming {
    /// The path parameter of this name; the route's pattern has it, or the route is wrong.
    pub(crate) fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// The first query parameter of this name.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The token of an `Authorization: Bearer` header.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// Whether a query parameter is set to something true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.query(name), Some("true" | "1" | ""))
    }
}

/// A reply, ready to be sent.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(&'static str, HeaderValue)>,
    pub(crate) body: Bytes,
    /// What follows bit by bit, in the place of the body.
    pub(crate) stream: Option<UnsyncBoxBody<Bytes, Infallible>>,
}

impl Reply {
    /// A JSON body.
    pub(crate) fn json(status: StatusCode, body: &impl serde::Serialize) -> Self {
        // Every type that gets here serialises: string keys, finite numbers.
        let body = serde_json::to_vec(body).unwrap_or_default();
        let headers = vec![("content-type", HeaderValue::from_static("application/json"))];
        Self { status, headers, body: Bytes::from(body), stream: None }
    }

    /// A text of some type.
    pub(crate) fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type", HeaderValue::from_static(kind))];
        Self { status, headers, body: body.into(), stream: None }
    }

    /// No body.
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new(), stream: None }
    }

    /// A body that comes bit by bit.
    pub(crate) fn streaming(status: StatusCode, body: UnsyncBoxBody<Bytes, Infallible>) -> Self {
        Self { stream: Some(body), ..Self::empty(status) }
    }

    /// The same reply with one more header; a value that is no header value is left out.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }
}

/// Parses a query string; pairs that are not UTF-8 after decoding are read with replacement characters.
pub(crate) fn parse_query(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let plus = text.replace('+', " ");
        percent_encoding::percent_decode_str(&plus).decode_utf8_lossy().into_owned()
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let pairs = parse_query("a=1&b=x%20y+z&&c&d=%zz");
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("a", "1"), ("b", "x y z"), ("c", ""), ("d", "%zz")]);
    }
}
