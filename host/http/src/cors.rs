//! Cross-origin requests: which pages of other origins may call, as browsers ask before they let them.

use hyper::header::HeaderValue;
use hyper::{HeaderMap, Method, Request, StatusCode};

use crate::exchange::Reply;

const METHODS: &str = "GET, POST, PUT, PATCH, DELETE, OPTIONS";
const HEADERS: &str = "Authorization, Content-Type, X-Api-Key, Apikey, Access-Token, X-Instance-Id, Idempotency-Key, Last-Event-ID, X-Request-Id";
const EXPOSED: &str = "X-Request-Id, X-Decision-Id, Retry-After, Idempotency-Replayed";

/// The origins whose pages may call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cors {
    origins: Vec<String>,
}

impl Cors {
    pub(crate) fn new(origins: Vec<String>) -> Self {
        Self { origins }
    }

    /// The origin that a request comes from, if its pages may call.
    pub(crate) fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get("origin")?;
        self.origins.iter().any(|known| known.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }

    /// The answer to a browser that asks beforehand; none if that is not what the request is.
    pub(crate) fn preflight<B>(&self, origin: Option<&HeaderValue>, request: &Request<B>) -> Option<Reply> {
        let asks =
            request.method() == Method::OPTIONS && request.headers().contains_key("access-control-request-method");
        if !asks || origin.is_none() {
            return None;
        }
        let reply = Reply::empty(StatusCode::NO_CONTENT)
            .with("access-control-allow-methods", METHODS)
            .with("access-control-allow-headers", HEADERS)
            .with("access-control-max-age", "600");
        Some(reply)
    }

    /// Tells the browser that the page may read the answer. Caches must keep the answers to different origins apart.
    pub(crate) fn mark(&self, headers: &mut HeaderMap, origin: Option<HeaderValue>) {
        if self.origins.is_empty() {
            return;
        }
        headers.append("vary", HeaderValue::from_static("Origin"));
        if let Some(origin) = origin {
            headers.insert("access-control-allow-origin", origin);
            headers.insert("access-control-allow-credentials", HeaderValue::from_static("true"));
            headers.insert("access-control-expose-headers", HeaderValue::from_static(EXPOSED));
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn request(method: Method, headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().method(method);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("the headers are valid")
    }

    #[test]
    fn only_a_known_origin_is_let_in() {
        let cors = Cors::new(vec!["https://app.example.com".to_owned()]);
        let check = |origin: &str, known: bool| {
            let asked = request(Method::OPTIONS, &[("origin", origin), ("access-control-request-method", "POST")]);
            let allowed = cors.allowed(asked.headers());
            assert_eq!(allowed.is_some(), known, "{origin}");
            assert_eq!(cors.preflight(allowed.as_ref(), &asked).is_some(), known, "{origin}");
        };
        check("https://app.example.com", true);
        check("https://app.example.com.evil.example", false);
        check("http://app.example.com", false);
        check("null", false);
    }

    #[test]
    fn an_options_request_that_asks_nothing_beforehand_is_no_preflight() {
        let cors = Cors::new(vec!["https://app.example.com".to_owned()]);
        let plain = request(Method::OPTIONS, &[("origin", "https://app.example.com")]);
        assert!(cors.preflight(cors.allowed(plain.headers()).as_ref(), &plain).is_none());
    }
}
