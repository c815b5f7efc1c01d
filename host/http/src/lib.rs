//! The HTTP front: bytes to questions, answers to bytes.
//!
//! ```text
//! bytes ─ server ─ routes ─▶ dialect.decode ─▶ Asked           pure
//!       ─ authenticate ─▶ Principal
//!       ─ dispatch: permit, then the service ─▶ Answer
//!       ─ dialect.encode ─▶ Reply ─▶ bytes                     pure
//! ```
//!
//! A dialect is a table of routes with pure functions; it never calls the service, and nothing below this crate knows that dialects exist.
//! `dispatch` is the only module that does call the service, and knows no wire format.

mod asked;
mod dialect;
mod dispatch;
mod exchange;
mod routes;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portcullis_service::Service;

pub use routes::{RouteInfo, route_table};
pub use server::{ServeError, serve};

/// Bounds and names of the HTTP front.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// What this gateway calls itself (`gatewayId`).
    pub gateway_id: String,
    /// The largest JSON body, in bytes.
    pub json_bytes: usize,
    /// The largest component, in bytes.
    pub component_bytes: usize,
    /// How long the head of a request may take to arrive.
    pub head_timeout: Duration,
    /// How long the body of a request may take to arrive.
    pub body_timeout: Duration,
    /// How long an answer may take.
    pub answer_timeout: Duration,
    /// How long requests under way may take once the gateway is to end.
    pub drain_timeout: Duration,
    /// How many connections there may be at once.
    pub connections: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            gateway_id: "portcullis".to_owned(),
            json_bytes: 1024 * 1024,
            component_bytes: 2 * 1024 * 1024,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            connections: 4096,
        }
    }
}

/// Everything that a request needs.
pub struct Front {
    service: Arc<Service>,
    config: HttpConfig,
    catalogue: &'static [CatalogueEntry],
    routes: routes::Routes,
    /// Where request ids count from.
    first_request: u128,
    requests: AtomicU64,
}

/// A plugin that ships with the gateway.
#[derive(Debug, Clone, Copy)]
pub struct CatalogueEntry {
    /// Its name.
    pub name: &'static str,
    /// Its component.
    pub component: &'static [u8],
}

impl Front {
    /// A front for `service`, offering the plugins of `catalogue`.
    #[must_use]
    pub fn new(service: Arc<Service>, config: HttpConfig, catalogue: &'static [CatalogueEntry]) -> Arc<Self> {
        let first_request = portcullis_service::random() >> 1;
        let requests = AtomicU64::new(0);
        Arc::new(Self { service, config, catalogue, routes: routes::Routes::new(), first_request, requests })
    }

    /// The bits of the next request's id. They have to be unique and need not be secret, so they count from a random place.
    fn request_bits(&self) -> u128 {
        self.first_request + u128::from(self.requests.fetch_add(1, Ordering::Relaxed))
    }
}
