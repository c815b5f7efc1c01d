//! One client, from its making to its end. A client lives once: whoever wants to connect anew makes a new one.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::session::FailureCause;
use tokio::runtime::Handle;
use tokio::time::timeout;
use whatsapp_rust::Client;
use whatsapp_rust::bot::{Bot, BotBuilderError, BotHandle};
use whatsapp_rust::cache_config::{CacheConfig, CacheEntryConfig};
use whatsapp_rust::wacore::store::DevicePropsOverride;
use whatsapp_rust::waproto::whatsapp::device_props::PlatformType;

use super::WhatsAppConfig;
use super::crew::Crew;
use super::gate::Gate;
use super::inbound::Door;
use super::keep::DeviceBackend;
use super::line::{Ear, Line};
use super::wire::{HttpFetch, Wires};

/// How long a client may take to say goodbye and to write what it still has to.
const GOODBYE: Duration = Duration::from_secs(8);
/// How long its tasks may take to see that it is over, before they are ended.
const DISPERSAL: Duration = Duration::from_secs(1);
/// How many one-time keys the client has at WhatsApp. The web client has 812. Each opens one conversation with one device of
/// somebody; when fewer than five are left, the client brings as many again, and without any, conversations open without one.
/// So the number is only how often that happens, and 812 would cost every new session 40 ms of arithmetic and 812 rows.
const PRE_KEYS: usize = 100;

/// A client that runs.
pub(super) struct Live {
    pub(super) client: Arc<Client>,
    gate: Gate,
    backend: Arc<DeviceBackend>,
    /// Ends when the client does; gone when somebody has asked it to.
    handle: Option<BotHandle>,
    crew: Crew,
}

/// What a client is made of.
pub(super) struct Making<'a> {
    pub(super) config: &'a WhatsAppConfig,
    pub(super) handle: Handle,
    pub(super) fetch: HttpFetch,
    pub(super) line: &'a Arc<Line>,
    pub(super) backend: Arc<DeviceBackend>,
    pub(super) wires: Arc<Wires>,
    pub(super) is_pairing: bool,
}

impl Live {
    /// Makes a client, and lets it run.
    pub(super) async fn start(making: Making<'_>) -> Result<Self, BotBuilderError> {
        let Making { config, handle, fetch, line, backend, wires, is_pairing } = making;
        let crew = Crew::new(handle);
        let gate = match is_pairing {
            true => Gate::pairing(wires, Arc::clone(&backend)),
            false => Gate::open(wires),
        };
        line.belong_to(crew.clone());
        // The name is what the phone lists; of the kinds of devices there, this is the one that the protocol is spoken by.
        let props = DevicePropsOverride::new().with_os(&config.device_name).with_platform_type(PlatformType::CHROME);
        let mut builder = Bot::builder()
            .with_backend_arc(Arc::clone(&backend) as _)
            .with_transport_factory(gate.clone())
            .with_http_client(fetch)
            .with_runtime(crew.clone())
            .with_event_handler(Ear(Arc::clone(line)))
            .with_inbound_durability_hook(Door::new(Arc::clone(line), crew.clone()))
            .with_device_props(props)
            .with_wanted_pre_key_count(PRE_KEYS)
            .with_cache_config(caches())
            .skip_history_sync();
        if let Some(version) = config.version {
            builder = builder.with_version(version);
        }
        let bot = builder.build().await?;
        let client = bot.client();
        gate.belong_to(&client);
        let handle = Some(bot.spawn());
        Ok(Self { client, gate, backend, handle, crew })
    }

    /// What keeps the client from connecting, if it has tried and anything is known.
    pub(super) fn trouble(&self) -> Option<FailureCause> {
        self.gate.trouble()
    }

    /// Completes when the client has ended by itself.
    pub(super) async fn ended(&mut self) {
        match &mut self.handle {
            Some(handle) => handle.await,
            None => std::future::pending().await,
        }
    }

    /// Begins something that ends with the client.
    pub(super) fn begin(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.crew.begin(task);
    }

    /// Lets the client write what it has to and say goodbye; then it is gone, and nothing writes any more.
    pub(super) async fn end(self) {
        let _ = timeout(GOODBYE, self.client.disconnect()).await;
        // A client that waits for a server's first answer does not notice; there is nothing to wait for, then.
        let _ = timeout(DISPERSAL, self.crew.gone()).await;
        let _ = timeout(GOODBYE, self.backend.flush()).await;
        self.cut().await;
    }

    /// Ends the client where it is; then it is gone, and nothing writes any more.
    pub(super) async fn cut(mut self) {
        self.handle = None;
        self.crew.dismiss();
        self.backend.close().await;
        // What is ended ends at its next pause. Whatever does not pause can write nothing any more.
        let _ = timeout(GOODBYE, self.crew.gone()).await;
    }
}

/// Whoever ends without a word, by a panic or with the program, leaves no client behind.
impl Drop for Live {
    fn drop(&mut self) {
        self.crew.dismiss();
    }
}

/// Sessions are many and most of them idle, so that none of them may keep much: what is not here is read from the store, where
/// it is a lookup. The caches that only hold locks keep their size, because what they hold is in use.
fn caches() -> CacheConfig {
    let minutes = |minutes: u64| Some(Duration::from_secs(60 * minutes));
    CacheConfig {
        group_cache: CacheEntryConfig::new(minutes(10), 16),
        // The devices of a group's members, who are a thousand at the most.
        device_registry_cache: CacheEntryConfig::new(minutes(10), 1024),
        message_retry_counts: CacheEntryConfig::new(minutes(60), 128),
        undecryptable_dispatched: CacheEntryConfig::new(minutes(5), 128),
        pdo_requested: CacheEntryConfig::new(minutes(24 * 60), 128),
        sender_key_devices_cache: CacheEntryConfig::new(minutes(10), 16),
        session_recreate_history: CacheEntryConfig::new(minutes(60), 64),
        seed_msg_secrets_from_history: false,
        ..CacheConfig::default()
    }
}
