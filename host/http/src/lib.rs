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

mod admit;
mod afterwards;
mod ask;
mod asked;
mod cors;
mod dialect;
mod dispatch;
mod exchange;
mod handle;
mod keyed;
mod live;
mod meters;
mod open;
mod openapi;
mod page;
mod places;
mod realtime;
mod routes;
mod server;
mod stream;
mod tickets;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use portcullis_net::Jwks;
use portcullis_service::Service;
use tokio::sync::watch;

pub use dialect::Dialect;
pub use routes::{RouteInfo, route_table};
pub use server::{ServeError, serve};

/// Bounds and names of the HTTP front.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// What this gateway calls itself (`gatewayId`).
    pub gateway_id: String,
    /// Where clients and people reach the gateway, without a slash at the end; links are made from it.
    /// The address that is listened on if there is none.
    pub public_url: Option<String>,
    /// Origins whose pages may call.
    pub cors_origins: Vec<String>,
    /// The largest JSON body, in bytes.
    pub json_bytes: usize,
    /// The largest component, in bytes.
    pub component_bytes: usize,
    /// How long the head of a request may take to arrive.
    pub head_timeout: Duration,
    /// How long the body of a request may take to arrive.
    pub body_timeout: Duration,
    /// How long a client may take nothing of what it is told.
    pub unread_timeout: Duration,
    /// How long an answer may take.
    pub answer_timeout: Duration,
    /// How long taking a backup may take.
    pub backup_timeout: Duration,
    /// How long requests under way may take once the gateway is to end.
    pub drain_timeout: Duration,
    /// How many connections there may be at once.
    pub connections: usize,
    /// How many of them may be streams.
    pub streams: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            gateway_id: "portcullis".to_owned(),
            public_url: None,
            cors_origins: Vec::new(),
            json_bytes: 1024 * 1024,
            component_bytes: 2 * 1024 * 1024,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            unread_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(60),
            backup_timeout: Duration::from_secs(60 * 60),
            drain_timeout: Duration::from_secs(10),
            connections: 4096,
            streams: 1024,
        }
    }
}

/// Everything that a request needs.
pub struct Front {
    service: Arc<Service>,
    config: HttpConfig,
    catalogue: &'static [CatalogueEntry],
    routes: routes::Routes,
    cors: cors::Cors,
    /// The identity provider, if there is one.
    users: Option<Jwks>,
    meters: meters::Meters,
    tickets: tickets::Tickets,
    /// Places for streams, which hold their connections for long.
    streams: places::StreamPlaces,
    /// Says that the gateway ends, which streams would not notice otherwise.
    ending: watch::Sender<bool>,
    /// Where the gateway is reached; set once it is known where it listens.
    public_url: OnceLock<String>,
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
    /// A front for `service`, offering the plugins of `catalogue` and letting in people whom the provider behind `users` knows.
    #[must_use]
    pub fn new(
        service: Arc<Service>,
        config: HttpConfig,
        catalogue: &'static [CatalogueEntry],
        users: Option<Jwks>,
    ) -> Arc<Self> {
        let first_request = portcullis_service::random() >> 1;
        let requests = AtomicU64::new(0);
        let cors = cors::Cors::new(config.cors_origins.clone());
        let (routes, meters) = (routes::Routes::new(), meters::Meters::default());
        let public_url = config.public_url.clone().map_or_else(OnceLock::new, OnceLock::from);
        let tickets = tickets::Tickets::default();
        let streams = places::StreamPlaces::new(config.streams);
        Arc::new(Self {
            service,
            config,
            catalogue,
            routes,
            cors,
            users,
            meters,
            tickets,
            streams,
            ending: watch::Sender::new(false),
            public_url,
            first_request,
            requests,
        })
    }

    /// Where clients and people reach the gateway, without a slash at the end.
    fn public_url(&self) -> &str {
        self.public_url.get().map_or("", String::as_str)
    }

    /// The bits of the next request's id. They have to be unique and need not be secret, so they count from a random place.
    fn request_bits(&self) -> u128 {
        self.first_request + u128::from(self.requests.fetch_add(1, Ordering::Relaxed))
    }
}
