//! What durable bookkeeping costs: deliveries a second to a sink on this machine, beside a bare hyper client that makes
//! the same posts to the same sink in the same run; and the memory of a gateway with a long backlog.
//!
//!     PORTCULLIS_BACKLOG=1000000 cargo bench -p portcullis-tests --bench deliveries
//!
//! Both sides take turns. The gateway's side reads every event from a store on disk, words, signs and posts it, and keeps
//! what came of it, durably. The goal is at least half of the bare client's rate.

#![expect(clippy::print_stdout, reason = "the ratio is what the benchmark is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on says where by panicking")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use portcullis_core::webhook::{EventFormat, RetryPolicy, WebhookSpec};
use portcullis_core::{
    Clock, DeviceStore, DomainEvent, EventBody, EventId, Names, OperationKind, OrgId, Principal, Secret, Session,
    SessionId, Target, Timestamp, Webhook, WebhookId,
};
use portcullis_engine::Simulated;
use portcullis_net::{GuardConfig, Outbound, OutboundConfig};
use portcullis_policy::{Runtime, RuntimeConfig};
use portcullis_service::{Call, DeliveryConfig, NewOrg, Service, ServiceConfig, SystemClock};
use portcullis_store::{Commit, Store, StoreOptions, Write};
use tokio::net::{TcpListener, TcpStream};

/// How many sessions have events.
const SESSIONS: u128 = 64;
/// How many deliveries make a turn.
const TURN: usize = 20_000;
/// How many turns each side takes.
const TURNS: usize = 5;
/// How many posts the bare client has under way; as many as the gateway gives a receiver that answers well.
const AT_ONCE: usize = 64;
/// How long whoever waits for a side sleeps between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// How long the long backlog is delivered while its memory is watched.
const WATCHED: Duration = Duration::from_secs(5);

/// Both sides allocate as the gateway does.
#[expect(unused_imports, reason = "naming it is what links it")]
use portcullis_gateway::ALLOCATOR as _;

fn main() {
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    tokio.block_on(async {
        rate().await;
        memory().await;
    });
}

async fn rate() {
    let sink = Sink::start().await;
    let house = House::open(sink.address).await;
    let (mut bare, mut gateway) = (Vec::new(), Vec::new());
    // The first turn pays for what later ones find warm.
    for turn in 0..=TURNS {
        house.happen(TURN).await;
        let driver = tokio::spawn(Arc::clone(&house.service).run_deliveries());
        let began = Instant::now();
        sink.reach(TURN).await;
        house.settle().await;
        let durable = began.elapsed();
        driver.abort();
        let example = sink.example();
        let began = Instant::now();
        post(sink.address, &example).await;
        let plain = began.elapsed();
        sink.reach(TURN).await;
        if turn > 0 {
            bare.push(plain);
            gateway.push(durable);
        }
    }
    bare.sort();
    gateway.sort();
    let per_second = |times: &[Duration]| TURN as f64 / times[times.len() / 2].as_secs_f64();
    let (bare, gateway) = (per_second(&bare), per_second(&gateway));
    println!(
        "deliveries: bare {bare:.0}/s, gateway {gateway:.0}/s, {AT_ONCE} at once, {SESSIONS} sessions, one receiver"
    );
    println!("ratio deliveries/bare = {:.2} (goal >= 0.5)", gateway / bare);
}

async fn memory() {
    let backlog = std::env::var("PORTCULLIS_BACKLOG").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let sink = Sink::start().await;
    let house = House::open(sink.address).await;
    let before = resident();
    house.happen(backlog).await;
    let with_backlog = resident();
    let driver = tokio::spawn(Arc::clone(&house.service).run_deliveries());
    let began = Instant::now();
    let mut most = with_backlog;
    while began.elapsed() < WATCHED && sink.taken() < backlog {
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(resident());
    }
    driver.abort();
    println!(
        "memory: {before} MiB before, {with_backlog} MiB with a backlog of {backlog}, at most {most} MiB while {} were delivered",
        sink.taken()
    );
}

/// A gateway without its front, on disk, with one organisation that has one receiver.
struct House {
    service: Arc<Service>,
    store: Store,
    org: OrgId,
    webhook: WebhookId,
    made: AtomicUsize,
    _directory: tempfile::TempDir,
}

impl House {
    async fn open(receiver: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = StoreOptions { cache_bytes: 64 * 1024 * 1024, ..StoreOptions::default() };
        let store = Store::open(directory.path(), options).unwrap();
        let guard = GuardConfig { allow: vec!["127.0.0.0/8".parse().unwrap()], ports: Vec::new() };
        let outbound = Outbound::new(OutboundConfig { guard: Some(guard), ..OutboundConfig::default() }).unwrap();
        let deliveries =
            Some(DeliveryConfig { outbound, server_url: None, retry_scale: 1.0, timeout: Duration::from_secs(30) });
        let config = ServiceConfig { deliveries, ..ServiceConfig::default() };
        let devices: Arc<dyn DeviceStore> = Arc::new(store.clone());
        let engine = Arc::new(Simulated::new(devices));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let runtime = Runtime::new(RuntimeConfig::default()).unwrap();
        let service = Service::open(store.clone(), runtime, engine, clock, &config).unwrap();
        let operator = Principal::operator();
        let target = Target::org(OrgId::PLATFORM);
        let permit = service.permit(&operator, OperationKind::OrgCreate, target, None).await.unwrap();
        let new = NewOrg { name: "acme".to_owned(), ..NewOrg::default() };
        let org = service.create_org(&permit, new, &Call::default()).await.unwrap().id;

        let now = service.now();
        let mut commit = Commit::new(org, now);
        for unique in 0..SESSIONS {
            let names = Names::new(unique << 48, Some(format!("session-{unique}")));
            commit.writes.push(Write::PutSession(Session::new(session(unique), org, names, now)));
        }
        let webhook = WebhookId::new(now, 1);
        commit.writes.push(Write::PutWebhook(receiving(webhook, org, receiver, now)));
        store.commit(commit).await.unwrap();
        Self { service, store, org, webhook, made: AtomicUsize::new(0), _directory: directory }
    }

    /// So many events more, in commits of a thousand.
    async fn happen(&self, count: usize) {
        let now = self.service.now();
        for batch in (0..count).step_by(1_000) {
            let mut commit = Commit::new(self.org, now);
            for _ in batch..count.min(batch + 1_000) {
                let unique = self.made.fetch_add(1, Ordering::Relaxed) as u128;
                commit.events.push(DomainEvent {
                    id: EventId::new(now, unique),
                    org: self.org,
                    session: Some(session(unique % SESSIONS)),
                    at: now,
                    generation: 1,
                    device: None,
                    body: EventBody::MessageIn {
                        message: format!("3EB0{unique:016X}"),
                        from: "49123456789@s.whatsapp.net".to_owned(),
                        sender: None,
                        name: None,
                        sent_at: None,
                        text: "a message of the usual length, which says nothing in particular".to_owned(),
                    },
                });
            }
            self.store.commit(commit).await.unwrap();
        }
    }

    /// Until everything that happened is kept as delivered.
    async fn settle(&self) {
        let snapshot = || self.store.snapshot().unwrap();
        let end = snapshot().outbox_end(self.org).unwrap();
        while snapshot().progress(self.org, self.webhook).unwrap().unwrap_or_default().through < end {
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn session(unique: u128) -> SessionId {
    SessionId::from_bytes((unique + 1).to_be_bytes())
}

fn receiving(id: WebhookId, org: OrgId, receiver: SocketAddr, now: Timestamp) -> Webhook {
    let spec = WebhookSpec {
        format: EventFormat::Router,
        url: format!("http://{receiver}/hook"),
        events: vec!["*".to_owned()],
        headers: BTreeMap::new(),
        secret: Some(Secret::new("a secret that signs every delivery")),
        retry: RetryPolicy::default(),
        active: true,
        path_per_event: false,
        inline_media: false,
    };
    Webhook {
        id,
        org,
        session: None,
        spec,
        generation: 1,
        created_at: now,
        updated_at: now,
        retired: None,
        disabled: None,
    }
}

/// A server that takes everything, and remembers one request to be made again.
struct Sink {
    address: SocketAddr,
    taken: Arc<AtomicUsize>,
    reached: AtomicUsize,
    example: Arc<Mutex<Option<Request<Bytes>>>>,
}

impl Sink {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (taken, example) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
        let (counted, remembered) = (Arc::clone(&taken), Arc::clone(&example));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (counted, remembered) = (Arc::clone(&counted), Arc::clone(&remembered));
                let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (counted, remembered) = (Arc::clone(&counted), Arc::clone(&remembered));
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        if counted.fetch_add(1, Ordering::Relaxed) == 0 {
                            *remembered.lock().unwrap() = Some(Request::from_parts(head, body));
                        }
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, taken, reached: AtomicUsize::new(0), example }
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Until so many more were taken than at the last time.
    async fn reach(&self, count: usize) {
        let goal = self.reached.fetch_add(count, Ordering::Relaxed) + count;
        while self.taken() < goal {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn example(&self) -> Request<Bytes> {
        self.example.lock().unwrap().clone().unwrap()
    }
}

/// Posts as the gateway does, without anything but the posts.
async fn post(sink: SocketAddr, example: &Request<Bytes>) {
    let left = Arc::new(AtomicUsize::new(TURN));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (left, example) = (Arc::clone(&left), example.clone());
        clients.spawn(async move {
            let stream = TcpStream::connect(sink).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                let (head, body) = example.clone().into_parts();
                let answer = sender.send_request(Request::from_parts(head, Full::new(body))).await.unwrap();
                answer.into_body().collect().await.unwrap();
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
}

/// The memory of this process, in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default() / 1024
}
