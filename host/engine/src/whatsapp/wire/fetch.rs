//! What the client asks for by HTTP: the version that WhatsApp's web page has at the moment, and media.
//!
//! Every answer is read whole and bounded. The page of the version is some 100 KiB. Of media, the client fetches by itself only
//! the parts of the account's state that are too large for a stanza, such as a first list of many contacts. A redirect is an
//! answer, which the client takes for a failure; nobody follows it.
//!
//! Requests go the way of the session's connections, through its proxy if it has one: the proxy may be the only way out, and
//! whoever chose it did so that WhatsApp does not see the session come from here.

use std::time::Duration;

use async_trait::async_trait;
use portcullis_core::Proxy;
use portcullis_net::{
    HeaderName, HeaderValue, Limits, Method, NetError, Outbound, OutboundRequest, Overlong, ProxyServer, StreamError,
};
use whatsapp_rust::anyhow;
use whatsapp_rust::http::{HttpClient, HttpRequest, HttpResponse};

/// What a request may take. The client itself waits for 20 seconds.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(10),
    head: Duration::from_secs(15),
    body_time: Duration::from_secs(15),
    whole: Duration::from_secs(18),
    // The list of an account's contacts comes in one piece, and a session does not connect without it.
    body: 32 * 1024 * 1024,
    overlong: Overlong::Refused,
};

/// The client's way to HTTP servers.
#[derive(Debug, Clone)]
pub(in crate::whatsapp) struct HttpFetch {
    outbound: Outbound,
    way: Way,
}

/// How requests leave.
#[derive(Debug, Clone)]
enum Way {
    Direct,
    Through(ProxyServer),
    /// The proxy that somebody chose can be none.
    Nowhere,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The URL is without TLS.
    #[error("nothing is fetched without TLS")]
    Plain,
    /// The method, or a header, is none that can be sent.
    #[error("the request cannot be sent")]
    Request,
    /// No answer came, or it was too large.
    #[error("no answer to the request")]
    Answer(#[source] NetError),
    /// The same, through the session's proxy.
    #[error("no answer to the request through the session's proxy")]
    Proxied(#[source] StreamError),
    /// The session's proxy can be none.
    #[error("the session's proxy can be none")]
    Proxy,
}

// === impl HttpFetch ===

impl HttpFetch {
    /// Fetches by `outbound`, guarded as that is.
    pub(in crate::whatsapp) fn new(outbound: Outbound) -> Self {
        Self { outbound: super::bounded(outbound), way: Way::Direct }
    }

    /// The same for a session, with its proxy if it has one.
    pub(in crate::whatsapp) fn through(&self, proxy: Option<&Proxy>) -> Self {
        let way = match proxy.map(super::proxy_server) {
            None => Way::Direct,
            Some(Ok(proxy)) => Way::Through(proxy),
            Some(Err(_)) => Way::Nowhere,
        };
        Self { outbound: self.outbound.clone(), way }
    }

    async fn fetch(&self, request: HttpRequest) -> Result<HttpResponse, FetchError> {
        // A build that reaches nothing but its own machine has nobody to hide from.
        if !cfg!(feature = "loopback-server") && !request.url.starts_with("https://") {
            return Err(FetchError::Plain);
        }
        let method = match request.method.as_str() {
            "GET" => Method::GET,
            "POST" => Method::POST,
            _ => return Err(FetchError::Request),
        };
        let headers = request.headers.iter().map(|(name, value)| {
            let name = HeaderName::try_from(name).map_err(|_| FetchError::Request)?;
            Ok((name, HeaderValue::try_from(value).map_err(|_| FetchError::Request)?))
        });
        let headers = headers.collect::<Result<_, _>>()?;
        let body = request.body.unwrap_or_default();
        let request = OutboundRequest { method, url: request.url, headers, body };
        let answer = match &self.way {
            Way::Direct => self.outbound.send(request, LIMITS).await.map_err(FetchError::Answer)?,
            Way::Through(proxy) => {
                self.outbound.send_through(proxy, request, LIMITS).await.map_err(FetchError::Proxied)?
            }
            Way::Nowhere => return Err(FetchError::Proxy),
        };
        Ok(HttpResponse { status_code: answer.status.as_u16(), body: answer.body.to_vec() })
    }
}

#[async_trait]
impl HttpClient for HttpFetch {
    async fn execute(&self, request: HttpRequest) -> anyhow::Result<HttpResponse> {
        Ok(self.fetch(request).await?)
    }
}
