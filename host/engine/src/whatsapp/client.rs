//! One client, from its making to its end. A client lives once: whoever wants to connect anew makes a new one.
//!
//! # How a client ends, and why nothing is lost
//!
//! Two clients of one session never live at the same time, and what a client has to write is written before its tasks are ended.
//! So an end has four steps:
//!
//! 1. The client says goodbye. It answers for the messages that it is done with, writes what it keeps in memory, and closes its
//!    connection: WhatsApp is told nothing from here on, so whatever is not done by then comes again.
//! 2. It is let go of. Some of its tasks are services that wait for work as long as there is a client, and end when the last who
//!    holds it lets go; whoever held it and waited for them would wait for ever. The others are in the middle of something: they
//!    hold the client until they are done, and nothing that they wait for is on the network any more. They are waited for.
//! 3. Everything is made durable, and the writing ends.
//! 4. Only then whatever is left is ended where it is. It writes nothing any more, so to the store this is a crash at that moment,
//!    and the store stands up to one at every moment ([`keep`](super::keep)). If tasks were ended while others still write, one
//!    could be cut off between opening a message and keeping it, and another one write down that it was opened: WhatsApp would
//!    bring the message again and it would be passed over as known, and that is a lost text.
//!
//! A device that is not linked has nothing to write: its keys are nobody's, and the next pairing forgets them.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::session::FailureCause;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};
use whatsapp_rust::Client;
use whatsapp_rust::bot::{Bot, BotBuilderError, BotHandle};
use whatsapp_rust::cache_config::{CacheConfig, CacheEntryConfig, MsgSecretPolicy};
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
/// How long its tasks may take for what they are in the middle of, before they are ended.
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
    /// Ends when the client does.
    handle: BotHandle,
    crew: Own,
}

/// The crew of a client. Whoever drops it without a word, by a panic or with the program, leaves no client behind.
struct Own(Crew);

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
        let handle = bot.spawn();
        Ok(Self { client, gate, backend, handle, crew: Own(crew) })
    }

    /// What keeps the client from connecting, if it has tried and anything is known.
    pub(super) fn trouble(&self) -> Option<FailureCause> {
        self.gate.trouble()
    }

    /// Completes when the client has ended by itself.
    pub(super) async fn ended(&mut self) {
        (&mut self.handle).await;
    }

    /// Begins something that ends with the client.
    pub(super) fn begin(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.crew.0.begin(task);
    }

    /// Lets the client write what it has to and say goodbye; then it is gone, and nothing writes any more.
    pub(super) async fn end(self) {
        self.end_within(DISPERSAL).await;
    }

    /// The same. Answers whether the tasks of a linked device had all ended by themselves.
    async fn end_within(self, dispersal: Duration) -> bool {
        let Self { client, mut handle, backend, crew, gate: _ } = self;
        let was_connected = client.is_connected();
        let _ = timeout(GOODBYE, client.disconnect()).await;
        let mut is_gone = false;
        if client.pn().is_some() {
            let memory = client.persistence_manager();
            let end = Instant::now() + dispersal;
            // A client that waits for a server's first answer does not notice that it is over. There is nothing to wait for, then:
            // what the connection before has left was settled with the goodbye.
            if was_connected {
                let _ = timeout_at(end, &mut handle).await;
            }
            drop((client, handle));
            is_gone = timeout_at(end, crew.0.gone()).await.is_ok();
            let _ = timeout(GOODBYE, async {
                // The client's own saver ends with the client, perhaps with a change that it had taken and not written yet.
                memory.modify_device(|_| ()).await;
                let _ = memory.flush().await;
                let _ = backend.flush().await;
            })
            .await;
        }
        backend.close().await;
        dismissed(&crew.0).await;
        is_gone
    }

    /// Ends the client where it is; then it is gone, and nothing writes any more. For a device that is about to be forgotten.
    pub(super) async fn cut(self) {
        self.crew.0.dismiss();
        self.backend.close().await;
        dismissed(&self.crew.0).await;
    }
}

/// Ends the tasks of a client that can write nothing any more.
async fn dismissed(crew: &Crew) {
    crew.dismiss();
    // What is ended ends at its next pause.
    let _ = timeout(GOODBYE, crew.gone()).await;
}

impl Drop for Own {
    fn drop(&mut self) {
        self.0.dismiss();
    }
}

/// Sessions are many and most of them idle, so that none of them may keep much: what is not here is read from the store, where
/// it is a lookup. What is in use is never thrown out, neither a chat's lane nor a lock, so that these may be few as well.
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
        // A lane is a task that waits for the next message of one chat, with room for all that becomes of it. What is heard of a
        // chat without one begins another, which is little beside the reading of a message.
        chat_lanes_capacity: 1,
        session_locks_capacity: 256,
        // They open votes and other additions to messages, of which nothing is told here, and each would be a row for a month.
        msg_secret_policy: MsgSecretPolicy::Disabled,
        ..CacheConfig::default()
    }
}

#[cfg(test)]
mod test {
    use portcullis_core::{Attempt, OrgId, SessionId, Settings};
    use portcullis_net::Outbound;
    use whatsapp_rust::wacore::store::Device;
    use whatsapp_rust::wacore::store::traits::DeviceStore as _;

    use super::super::reports::{Reports, Voice};
    use super::*;
    use crate::test::Memory;

    const ORG: OrgId = OrgId::from_bytes([1; 16]);
    const SESSION: SessionId = SessionId::from_bytes([2; 16]);
    /// Longer than anything takes.
    const AMPLE: Duration = Duration::from_secs(120);

    /// The client of a device that is linked, before it has connected.
    async fn live(memory: &Arc<Memory>) -> (Live, Arc<Line>) {
        let backend = DeviceBackend::new(memory.clone(), ORG, SESSION);
        let mut device = Device::new();
        device.pn = Some("15550000001:7@s.whatsapp.net".parse().unwrap());
        backend.save(&device).await.unwrap();
        let config = WhatsAppConfig { version: Some((2, 3000, 1)), ..WhatsAppConfig::default() };
        let voice = Voice::new(Arc::new(Reports::new()), 1, ORG, SESSION, Attempt::default());
        let line = Arc::new(Line::new(voice, Settings::default()));
        // Nobody is asked anything before the test lets go of the thread.
        let server = "ws://127.0.0.1:9/ws/chat".parse().unwrap();
        let making = Making {
            config: &config,
            handle: Handle::current(),
            fetch: HttpFetch::new(Outbound::unguarded()),
            line: &line,
            backend,
            wires: Wires::new(Outbound::unguarded(), server, None),
            is_pairing: false,
        };
        (Box::pin(Live::start(making)).await.unwrap(), line)
    }

    /// The story: every stop took a second. A service of the client waits for work as long as there is a client, and the client was
    /// held by whoever waited for the service.
    #[tokio::test]
    async fn the_services_of_a_client_end_with_it() {
        let (live, _line) = live(&Arc::default()).await;
        assert!(Box::pin(live.end_within(AMPLE)).await);
    }

    #[tokio::test]
    async fn what_is_under_way_is_waited_for_and_what_it_learnt_is_kept() {
        let memory = Arc::default();
        let (live, line) = live(&memory).await;
        let client = Arc::clone(&live.client);
        let (crew, (go, wait)) = (line.crew().unwrap(), tokio::sync::oneshot::channel::<()>());
        crew.begin(async move {
            let _ = wait.await;
            client.persistence_manager().modify_device(|device| "Ada".clone_into(&mut device.push_name)).await;
        });
        let (ending, going) = tokio::join!(Box::pin(live.end_within(AMPLE)), async { go.send(()) });
        assert_eq!((ending, going), (true, Ok(())));
        let kept = DeviceBackend::new(memory, ORG, SESSION).load().await.unwrap().unwrap();
        assert_eq!(kept.push_name, "Ada");
    }

    #[tokio::test]
    async fn what_does_not_end_is_ended_and_nothing_begins_any_more() {
        let (live, line) = live(&Arc::default()).await;
        live.begin(std::future::pending());
        assert!(!Box::pin(live.end_within(Duration::ZERO)).await);
        let crew = line.crew().unwrap();
        crew.gone().await;
        assert!(crew.begin(async {}).is_none());
    }
}
