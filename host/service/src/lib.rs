//! The operation pipeline: the only crate that knows the store, the policy runtime and the engine at once.
//!
//! [`Service::execute`] is the way of every operation on a session: snapshot, policy, commit, effects.
//! Engine reports ([`Service::tick`]) and deadlines take the same road from the commit on, so that one code path writes state.
//! [`Service::run`] drives all that nobody asks for: reports, deadlines, due deletes, plugin timers and reconciliation.
//!
//! *Invariants.* No effect and no answer comes before its commit. No guest code runs while a write transaction is open.
//! A crash between a commit and its effects is made good by [`Service::reconcile`], which looks at what is and needs no memory of what was.

mod administer;
mod admission;
mod auth;
mod backlog;
mod bindings;
mod chain;
mod clock;
mod confirming;
mod decisions;
mod delivered;
mod deliveries;
mod drive;
mod due;
mod effects;
mod errands;
mod error;
mod execute;
mod facts;
mod follow;
mod keys;
mod ledger;
mod lines;
mod links;
mod messages;
mod mint;
mod news;
mod observing;
mod orgs;
mod outcome;
mod overdraft;
mod pacing;
mod plan;
mod plugin_log;
mod plugins;
mod publishers;
mod queries;
mod reads;
mod replay;
mod replies;
mod requests;
mod retention;
mod rollout;
mod ruling;
mod scan;
mod secrets;
mod sending;
mod simulate;
mod suspending;
mod trying;
mod turns;
mod undecided;
mod upkeep;
mod views;
mod wait;
mod webhooks;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use portcullis_core::{Clock, Org, OrgId, Session, SessionId, Timestamp};
use portcullis_engine::{Engine, Report};
use portcullis_policy::Runtime;
use portcullis_store::{Snapshot, Store};
use tokio::sync::{Notify, Semaphore};

pub use auth::{KEY_PREFIX, NewKey, UserRoles};
pub use bindings::{BindingChange, NewBinding};
pub use clock::{SteppedClock, SystemClock};
pub use confirming::GivenToken;
pub use decisions::{DecisionPage, DecisionQuery};
pub use delivered::{DeliveryRow, DeliveryRows, Redelivered, WebhookHealth, WebhookState};
pub use deliveries::DeliveryConfig;
pub use error::{ServiceError, SignatureError, StoreFailure};
pub use facts::{Fact, NewFact};
pub use keys::KeyRequest;
pub use ledger::{AuditExport, SignedEnd, SignedReceipt};
pub use links::Followed;
pub use mint::random;
pub use news::{Everybody, Follower, Stretch};
pub use orgs::{NewOrg, OrgChange, QuotaChange};
pub use outcome::{Call, Caller, Done, Noted, Novelty, Outcome};
pub use plugin_log::PluginLogLine;
pub use plugins::Upload;
/// Why a message was not sent, as the engine says it.
pub use portcullis_engine::{NumberCheck, SendError};
/// An event of an organisation with its place among the others.
pub use portcullis_store::PlacedEvent;
/// Which deliveries are listed: of a webhook, or of a plugin.
pub use portcullis_store::{AuditLine, ChainEnd, Deed, DeliveryFilter};
pub use publishers::{NewPublisher, Signature, signed_text};
pub use queries::Page;
pub use replay::{Change, MOST_REPLAYED, Replay, Replayed};
pub use replies::{Keyed, RequestKey};
pub use requests::{RequestQuery, check_request};
pub use rollout::BindingState;
pub use scan::{MOST_SCANNED, Scan, ScanRow, Scanned, is_scannable};
pub use secrets::SecretName;
pub use sending::{Dispatched, SendCall, Sent};
pub use simulate::SimulatorAct;
pub use upkeep::{BackupStream, NextMasterKey};
pub use views::SessionName;
pub use wait::Waited;
pub use webhooks::MAX_OVERLAP;

/// How many replays and scans are under way at once; an organisation has one.
const REHEARSALS_AT_ONCE: u32 = 4;

/// Bounds of the service.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    /// Operations under way at once, over all organisations.
    pub operations_in_all: u32,
    /// How long a send waits for its rate limit before it is refused.
    pub send_patience: Duration,
    /// For how long policy decisions are kept; none keeps them for ever.
    pub decisions_kept: Option<Duration>,
    /// For how long events are kept, and what is remembered of their deliveries.
    pub events_kept: Duration,
    /// Whether the operator's own plugins have to be signed.
    pub require_signature: bool,
    /// Where another master key comes from, if the store does not make it itself.
    pub next_master_key: Option<NextMasterKey>,
    /// How deliveries are made; without it, none are.
    pub deliveries: Option<DeliveryConfig>,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            operations_in_all: 1024,
            send_patience: Duration::from_secs(10),
            decisions_kept: None,
            events_kept: Duration::from_secs(7 * 24 * 60 * 60),
            require_signature: false,
            next_master_key: None,
            deliveries: None,
        }
    }
}

/// The gateway's inner life. Everything that changes anything goes through here.
pub struct Service {
    store: Store,
    runtime: Arc<Runtime>,
    engine: Arc<dyn Engine>,
    clock: Arc<dyn Clock>,
    views: views::Views,
    places: Arc<admission::Places>,
    /// What plugins wrote lately.
    plugin_logs: plugin_log::PluginLogs,
    /// Where operations stand that were overtaken.
    lines: lines::Lines,
    /// Places of what shows something for a while, which are fewer.
    lingering: Arc<admission::Places>,
    chains: chain::Chains,
    keyring: auth::Keyring,
    orgs: RwLock<HashMap<OrgId, Arc<Org>>>,
    /// Sends under way, by session; bounds a rate policy's concurrency.
    sending: Arc<Mutex<HashMap<SessionId, u32>>>,
    /// How long a send waits for its rate limit.
    send_patience: Duration,
    /// For how long policy decisions are kept.
    decisions_kept: Option<Duration>,
    /// For how long events are kept.
    events_kept: Duration,
    /// What pacing plugins last said.
    paces: pacing::Paces,
    /// Sends that wait for a rate limit, in the order of their coming.
    turns: turns::Turns,
    /// Messages that wait to be sent without anybody waiting for them.
    queue: messages::Queue,
    /// Requests with an idempotency key that are under way.
    under_way: Arc<replies::UnderWay>,
    /// Replays and scans under way.
    rehearsing: Arc<admission::Places>,
    /// Places of backups.
    backing_up: Arc<Semaphore>,
    /// Where another master key comes from.
    next_master_key: Option<NextMasterKey>,
    /// Whether the platform's plugins have to be signed.
    platform_signatures: bool,
    /// Held from a check to its commit by administrative operations that rest on rows which the writer does not check for them.
    administering: tokio::sync::Mutex<()>,
    /// Reports of the engine that could not be recorded yet, oldest first.
    unrecorded: Mutex<VecDeque<Report>>,
    /// What is delivered to whom.
    deliveries: deliveries::Deliveries,
    /// When which plugin failed, lately.
    failures: suspending::Failures,
    /// Told when a delete may be due sooner than it was thought.
    deletes_stirred: Notify,
    /// Which organisations' errands and timers are due when.
    agenda: backlog::Agenda,
    /// Rung when something was committed that the driver may have to wait for differently.
    stirred: Notify,
    /// Who is told that there are new events, and that somebody may no longer be let in.
    news: Arc<news::News>,
}

impl Service {
    /// Loads everything that is kept in memory: views, keys and organisations.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn open(
        store: Store,
        runtime: Arc<Runtime>,
        engine: Arc<dyn Engine>,
        clock: Arc<dyn Clock>,
        config: &ServiceConfig,
    ) -> Result<Arc<Self>, ServiceError> {
        let snapshot = store.snapshot()?;
        let views = views::Views::default();
        snapshot.every_session(|session| views.publish(&Arc::new(session)))?;
        let keyring = auth::Keyring::default();
        snapshot.every_key(|key| keyring.put(key))?;
        let queue = messages::Queue::default();
        snapshot.every_open_message(|message| queue.found(&message))?;
        let mut orgs = HashMap::new();
        let mut after = None;
        loop {
            let page = snapshot.orgs(after, 1_000)?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            orgs.extend(page.into_iter().map(|org| (org.id, Arc::new(org))));
        }
        Ok(Arc::new(Self {
            store,
            runtime,
            engine,
            clock,
            views,
            places: admission::Places::new(config.operations_in_all),
            plugin_logs: plugin_log::PluginLogs::default(),
            lines: lines::Lines::default(),
            lingering: admission::Places::new(config.operations_in_all.div_ceil(4)),
            chains: chain::Chains::default(),
            keyring,
            orgs: RwLock::new(orgs),
            sending: Arc::default(),
            send_patience: config.send_patience,
            decisions_kept: config.decisions_kept,
            events_kept: config.events_kept,
            paces: pacing::Paces::default(),
            turns: turns::Turns::default(),
            queue,
            under_way: Arc::default(),
            rehearsing: admission::Places::new(REHEARSALS_AT_ONCE),
            backing_up: Arc::new(Semaphore::new(upkeep::BACKUPS_AT_ONCE)),
            next_master_key: config.next_master_key.clone(),
            platform_signatures: config.require_signature,
            administering: tokio::sync::Mutex::new(()),
            unrecorded: Mutex::default(),
            deliveries: deliveries::Deliveries::new(config.deliveries.clone()),
            failures: suspending::Failures::default(),
            deletes_stirred: Notify::new(),
            agenda: backlog::Agenda::default(),
            stirred: Notify::new(),
            news: Arc::default(),
        }))
    }

    /// The engine, by the name that people are shown.
    #[must_use]
    pub fn engine_name(&self) -> &'static str {
        self.engine.name()
    }

    /// Ends everything that runs for sessions, so that the next process finds all that they have kept.
    pub async fn close_engine(&self) {
        self.engine.close().await;
    }

    /// The time, as everything in the gateway sees it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether the store still takes reads and commits; what readiness asks.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.store.is_writable() && self.store.snapshot().is_ok()
    }

    /// How many sessions have which status, by its name; for metrics.
    #[must_use]
    pub fn statuses(&self) -> std::collections::BTreeMap<&'static str, u64> {
        self.views.statuses()
    }

    /// The session with this name in an organisation.
    #[must_use]
    pub fn find_session(&self, org: OrgId, name: SessionName<'_>) -> Option<Arc<Session>> {
        self.views.get(org, self.views.named(org, name)?)
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, ServiceError> {
        Ok(Arc::new(self.store.snapshot()?))
    }

    /// The organisation, unless it is not there or on its way out.
    fn org(&self, id: OrgId) -> Option<Arc<Org>> {
        let orgs = self.orgs.read().unwrap_or_else(PoisonError::into_inner);
        orgs.get(&id).filter(|org| !org.erasing).cloned()
    }

    fn put_org(&self, org: Org) {
        {
            let mut orgs = self.orgs.write().unwrap_or_else(PoisonError::into_inner);
            match orgs.get(&org.id) {
                Some(known) if known.generation >= org.generation => {}
                _ => drop(orgs.insert(org.id, Arc::new(org))),
            }
        }
        self.news.doors_changed();
    }

    fn forget_org(&self, id: OrgId) {
        self.orgs.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.news.doors_changed();
    }
}
