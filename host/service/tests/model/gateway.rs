//! The service under test, asked and looked at in the model's words.

use std::collections::{BTreeSet, HashMap};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use portcullis_core::operation::{CreateSession, SendText, WhenPairing, WhenStopped, WhenUnpaired};
use portcullis_core::{
    AuditId, BindingId, Capabilities, Capability, Clock, DecisionId, Labels, MessageState, Operation, OperationKind,
    OutboxPlace, PluginId, Principal, Secret, SessionId, Target, Timestamp,
};
use portcullis_engine::Engine;
use portcullis_policy::Runtime;
use portcullis_service::{
    Call, Dispatched, Done, GivenToken, KeyRequest, Outcome, SendCall, Service, ServiceConfig, ServiceError,
    SimulatorAct,
};
use portcullis_store::Commit;

use crate::asked::MOST_SESSIONS;
use crate::guests;
use crate::steps::{Act, Ask, Caller, Fact, Millis, Rule};
use crate::talking::Talking;
use crate::world::{FRIEND, GRACE_DELETE, START, World};

const CONFIRM_DELETE: &[u8] = include_bytes!("../../../../plugins/dist/confirm-delete.wasm");
const DELETE_QUOTA: &[u8] = include_bytes!("../../../../plugins/dist/delete-quota.wasm");

/// The latest time that any gateway has seen. Ids are made in the order of time for all of the process, so that every sequence
/// has to come after the one before, in whatever gateway that was.
pub(crate) static LATEST: AtomicU64 = AtomicU64::new(0);

/// A gateway that serves one sequence after the other.
pub(crate) struct Gateway {
    pub(crate) world: World,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) engine: Arc<Talking>,
    pub(crate) clerk: Principal,
    reader: Principal,
    stranger: Principal,
    plugins: HashMap<&'static str, PluginId>,
    /// The sequence, by its seed; names of keys have it in them.
    sequence: u64,
    /// When it began.
    pub(crate) began: Timestamp,
    pub(crate) sessions: Vec<SessionId>,
    pub(crate) bindings: Vec<BindingId>,
    tokens: Vec<Option<Secret>>,
    /// Up to where the news was read.
    pub(crate) read: OutboxPlace,
    /// When it was last looked at, and what there was of that moment already.
    pub(crate) looked: Timestamp,
    pub(crate) audited: BTreeSet<AuditId>,
    pub(crate) decided: BTreeSet<DecisionId>,
    /// At which generation what is shown of a session was compared with what is stored.
    pub(crate) compared: HashMap<SessionId, u64>,
}

impl Gateway {
    /// A gateway whose plugins are uploaded. Compiled code is shared by all that have the same runtime.
    pub(crate) async fn new(runtime: &Arc<Runtime>) -> Self {
        let world = World::new().await;
        let most = portcullis_service::QuotaChange {
            sessions: Some(u32::try_from(MOST_SESSIONS).unwrap()),
            ..portcullis_service::QuotaChange::default()
        };
        world.set_quotas(most).await;
        let stranger = world.other_org().await.owner;
        let clerk = key(&world, &[Capability::Manage, Capability::Send]).await;
        let reader = key(&world, &[Capability::Read]).await;
        let engine = Arc::new(Talking::new(Arc::new(world.store.clone())));
        let mut gateway = Self {
            world,
            runtime: Arc::clone(runtime),
            engine,
            clerk,
            reader,
            stranger,
            plugins: HashMap::new(),
            sequence: 0,
            began: START,
            sessions: Vec::new(),
            bindings: Vec::new(),
            tokens: Vec::new(),
            read: OutboxPlace::default(),
            looked: START,
            audited: BTreeSet::new(),
            decided: BTreeSet::new(),
            compared: HashMap::new(),
        };
        gateway.start();
        for (name, component) in [
            ("grace", GRACE_DELETE.to_vec()),
            ("confirm", CONFIRM_DELETE.to_vec()),
            ("quota", DELETE_QUOTA.to_vec()),
            ("deny", guests::denying()),
            ("brief", guests::putting_off(1)),
            ("long", guests::putting_off(90_000)),
            ("tighten", guests::choosing("strict")),
        ] {
            let plugin = gateway.world.upload_plugin(component).await;
            gateway.plugins.insert(name, plugin);
        }
        gateway
    }

    /// Where a sequence begins: nothing is left of the one before that could matter.
    pub(crate) async fn begin(&mut self, sequence: u64) {
        let latest = Timestamp::from_millis(LATEST.load(Ordering::Relaxed)).max(self.world.clock.now());
        // No window of any counter reaches back so far.
        let begins = latest.after(Duration::from_secs(2 * 60 * 60));
        self.world.clock.advance(begins.since(self.world.clock.now()));
        self.sequence = sequence;
        self.began = begins;
        self.looked = begins;
        self.sessions.clear();
        self.tokens.clear();
        self.read = self.world.store.snapshot().unwrap().outbox_end(self.world.org).unwrap();
        self.audited.clear();
        self.decided.clear();
        self.compared.clear();
    }

    /// The process begins: all that it has is the store, the time, and code that need not be compiled again.
    fn start(&mut self) {
        self.engine = Arc::new(Talking::new(Arc::new(self.world.store.clone())));
        let engine: Arc<dyn Engine> = Arc::<Talking>::clone(&self.engine);
        let clock: Arc<dyn Clock> = Arc::<crate::clock::TestClock>::clone(&self.world.clock);
        let config = ServiceConfig { send_patience: Duration::ZERO, ..ServiceConfig::default() };
        let runtime = Arc::clone(&self.runtime);
        self.world.service = Service::open(self.world.store.clone(), runtime, engine, clock, &config).unwrap();
    }

    pub(crate) async fn crash(&mut self, away: Millis) {
        self.world.clock.advance(Duration::from_millis(away));
        self.start();
        self.world.service.recover().await;
    }

    fn principal(&self, caller: Caller) -> Principal {
        match caller {
            Caller::Owner => self.world.owner.clone(),
            Caller::Clerk => self.clerk.clone(),
            Caller::Reader => self.reader.clone(),
            Caller::Stranger => self.stranger.clone(),
            Caller::Holder => Principal::session_token(self.world.org, self.sessions[0]),
        }
    }

    /// The caller with this principal, as the audit has them.
    pub(crate) fn word_for(&self, kind: &portcullis_core::PrincipalKind) -> String {
        let callers = [Caller::Owner, Caller::Clerk, Caller::Reader, Caller::Stranger];
        let known = callers.into_iter().find(|caller| self.principal(*caller).kind == *kind);
        match kind {
            portcullis_core::PrincipalKind::System => "the gateway".to_owned(),
            portcullis_core::PrincipalKind::SessionToken => Caller::Holder.word().to_owned(),
            _ => known.map_or_else(|| kind.to_string(), |caller| caller.word().to_owned()),
        }
    }

    /// Asks, and answers what the caller hears. `token` is the place of the token that they give.
    pub(crate) async fn ask(
        &mut self,
        caller: Caller,
        session: Option<usize>,
        ask: Ask,
        token: Option<usize>,
    ) -> String {
        let (call, operation) = (self.call(session, ask, token), self.operation(session, ask));
        let principal = self.principal(caller);
        let target = Target { org: self.world.org, session: operation.session() };
        let service = &self.world.service;
        let permit = match service.permit(&principal, operation.kind(), target, None).await {
            Ok(permit) => permit,
            Err(error) => return error.code().to_owned(),
        };
        if let (Operation::MessageSend(text), Ask::Send { key }) = (operation.clone(), ask) {
            let call = SendCall { call, key: key.map(|key| self.key(key)), queue: false };
            let sent = Box::pin(service.send(&permit, text, call)).await;
            return self.hear_sent(sent);
        }
        let done = Box::pin(service.execute(&permit, operation, call)).await;
        self.hear(done)
    }

    /// Asks, and dies so many turns later. What the store was told by then is there; what the engine was told has happened.
    pub(crate) async fn kill(&mut self, session: Option<usize>, ask: Ask, token: Option<usize>, turns: u8) {
        let (call, operation) = (self.call(session, ask, token), self.operation(session, ask));
        let permit = self.world.permit(operation.kind(), operation.session()).await;
        let service = &self.world.service;
        match (operation.clone(), ask) {
            (Operation::MessageSend(text), Ask::Send { key }) => {
                let call = SendCall { call, key: key.map(|key| self.key(key)), queue: false };
                for_turns(turns, Box::pin(service.send(&permit, text, call))).await;
            }
            _ => for_turns(turns, Box::pin(service.execute(&permit, operation, call))).await,
        }
        self.come_to_rest().await;
        self.crash(0).await;
    }

    /// Does what is due, and dies so many rounds of all tasks later.
    pub(crate) async fn kill_working(&mut self, rounds: u8) {
        let mut working = Box::pin(self.world.service.tick());
        let mut left = rounds;
        poll_fn(|context| {
            // Not only when there is something to hear: most of it happens in tasks of its own.
            context.waker().wake_by_ref();
            if working.as_mut().poll(context).is_ready() || left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            Poll::Pending
        })
        .await;
        drop(working);
        self.come_to_rest().await;
        self.crash(0).await;
    }

    /// What was handed to the writer, or to the one thread that may block, is done.
    async fn come_to_rest(&self) {
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        self.world.store.commit(Commit::new(self.world.org, self.world.clock.now())).await.unwrap();
    }

    /// Takes note of sessions that were made without anybody hearing of it.
    pub(crate) fn find_new(&mut self) {
        let found = self.world.store.snapshot().unwrap().sessions(self.world.org, None, 100).unwrap();
        let new = found.into_iter().map(|session| session.id).filter(|id| !self.sessions.contains(id));
        let new: Vec<_> = new.collect();
        self.sessions.extend(new);
    }

    /// Takes note of tokens of which nobody has heard.
    pub(crate) fn lose_tokens(&mut self, tokens: usize) {
        self.tokens.resize(tokens, None);
    }

    pub(crate) async fn act(&self, session: usize, act: Act) -> String {
        let act = match act {
            Act::Scan => SimulatorAct::Scan { phone: Some("628123456789".into()) },
            Act::Unlink => SimulatorAct::Unlink,
            Act::Disconnect(time) => SimulatorAct::Disconnect { outage: Some(Duration::from_millis(time)) },
            Act::Limit(code) => SimulatorAct::Limit { code: code.into() },
        };
        let permit = self.world.permit(OperationKind::Simulate, Some(self.sessions[session])).await;
        match self.world.service.simulate(&permit, act, &Call::default()).await {
            Ok(()) => "done".to_owned(),
            Err(error) => error.code().to_owned(),
        }
    }

    pub(crate) fn tell(&self, session: usize, run: u64, fact: Fact) {
        let (org, id, now) = (self.world.org, self.sessions[session], self.world.clock.now());
        self.engine.tell(org, id, run, fact, now);
    }

    pub(crate) async fn bind(&mut self, rule: Rule) {
        let grace;
        let (plugin, hooks, settings) = match rule {
            Rule::Grace(time) => {
                grace = format!(r#"{{"grace":"PT{}S"}}"#, time / 1000);
                ("grace", vec![], grace.as_str())
            }
            Rule::Confirm => ("confirm", vec![], "{}"),
            Rule::Quota => ("quota", vec![], r#"{"perMinute":2,"perHour":3}"#),
            Rule::Deny(operation) => ("deny", vec![OperationKind::from_name(operation).unwrap()], "{}"),
            Rule::PutOff(time) => (if time == 1 { "brief" } else { "long" }, vec![OperationKind::SessionDelete], "{}"),
            Rule::Tighten => ("tighten", vec![OperationKind::SessionStop], "{}"),
        };
        // In the order of their coming, also within one moment.
        let order = i32::try_from(self.bindings.len()).unwrap();
        let binding = self.world.bind_plugin(self.plugins[plugin], hooks, settings, order).await;
        self.bindings.push(binding);
    }

    pub(crate) async fn unbind(&mut self, which: usize) {
        self.world.unbind(self.bindings.remove(which)).await;
    }

    fn key(&self, key: u8) -> String {
        format!("{}-{key}", self.sequence)
    }

    fn call(&self, session: Option<usize>, ask: Ask, token: Option<usize>) -> Call {
        let confirmation = match (ask, token) {
            (Ask::Delete { token: Some((_, right)) }, Some(token)) => {
                let never = || Secret::new("conf_that-nobody-was-given");
                let token = self.tokens[token].clone().unwrap_or_else(never);
                Some(GivenToken { token, answer: Some(self.name(session, right)) })
            }
            _ => None,
        };
        Call { confirmation, ..Call::default() }
    }

    /// What is to be typed to confirm the deletion of a session, or something else.
    fn name(&self, session: Option<usize>, right: bool) -> String {
        let snapshot = self.world.store.snapshot().unwrap();
        let session = session.and_then(|session| snapshot.session(self.world.org, self.sessions[session]).unwrap());
        session.filter(|_| right).map_or_else(|| "another".to_owned(), |session| session.names.instance_name)
    }

    fn operation(&self, session: Option<usize>, ask: Ask) -> Operation {
        let pairing = |pair| if pair { WhenUnpaired::Pair } else { WhenUnpaired::Refuse };
        let labels =
            |held: bool| -> Labels { held.then(|| ("legal-hold".to_owned(), "yes".to_owned())).into_iter().collect() };
        if let Ask::Create { start, held } = ask {
            return Operation::SessionCreate(CreateSession { start, labels: labels(held), ..CreateSession::default() });
        }
        let session = self.sessions[session.unwrap()];
        match ask {
            Ask::Create { .. } | Ask::Restore => Operation::SessionRestore { session },
            Ask::Start { pair } => Operation::SessionStart { session, when_unpaired: pairing(pair) },
            Ask::Stop => Operation::SessionStop { session },
            Ask::Restart { pair, connect } => {
                let when_stopped = if connect { WhenStopped::Connect } else { WhenStopped::Refuse };
                Operation::SessionRestart { session, when_unpaired: pairing(pair), when_stopped }
            }
            Ask::Logout { connect } => {
                let when_stopped = if connect { WhenStopped::Connect } else { WhenStopped::Refuse };
                Operation::SessionLogout { session, when_stopped }
            }
            Ask::Delete { .. } => Operation::SessionDelete { session },
            Ask::Qr => Operation::SessionQr { session },
            Ask::PairingCode { switch } => {
                let when_pairing = if switch { WhenPairing::Switch } else { WhenPairing::Refuse };
                Operation::SessionPairingCode { session, phone: Secret::new("628123456789"), when_pairing }
            }
            Ask::Hold(held) => Operation::SessionLabels { session, labels: labels(held) },
            Ask::RatePolicy(slug) => Operation::SessionRatePolicy { session, slug: slug.into() },
            Ask::Send { .. } => Operation::MessageSend(SendText::plain(session, FRIEND, "hello")),
        }
    }

    fn hear_sent(&mut self, sent: Result<Dispatched, ServiceError>) -> String {
        match sent {
            Ok(Dispatched::Done(done)) => self.hear(Ok(done)),
            Ok(Dispatched::Queued { .. }) => "queued".to_owned(),
            Ok(Dispatched::Replayed(message)) => match message.state {
                MessageState::Sent { .. } => "replayed sent".to_owned(),
                MessageState::Failed { code } => format!("replayed failed {code}"),
                other => format!("replayed {other:?}"),
            },
            Err(error) => self.hear(Err(error)),
        }
    }

    fn hear(&mut self, done: Result<Done, ServiceError>) -> String {
        match done {
            Ok(Done { outcome, session, .. }) => {
                let new = session.map(|session| session.id).filter(|id| !self.sessions.contains(id));
                self.sessions.extend(new);
                match outcome {
                    Outcome::Done => "done".to_owned(),
                    Outcome::Unchanged => "unchanged".to_owned(),
                    Outcome::Deferred { until, .. } => format!("deferred {}", self.relative(until)),
                    Outcome::Sent(_) => "sent".to_owned(),
                    other => format!("{other:?}"),
                }
            }
            Err(ServiceError::Vetoed { denials, .. }) => {
                format!("vetoed {}", denials.first().map_or("", |denial| &denial.code))
            }
            Err(ServiceError::ConfirmationRequired { token, rejected, .. }) => {
                self.tokens.push(token);
                format!("confirmation_required {}", rejected.map_or("", |rejected| rejected.code()))
            }
            Err(ServiceError::Limited { retry_after, .. }) => format!("rate_limited {}", retry_after.as_millis()),
            Err(error) => error.code().to_owned(),
        }
    }

    /// A time in the model's words.
    pub(crate) fn relative(&self, at: Timestamp) -> Millis {
        u64::try_from(at.since(self.began).as_millis()).unwrap()
    }
}

/// A key of the organisation with these capabilities.
async fn key(world: &World, capabilities: &[Capability]) -> Principal {
    let permit = world.permit(OperationKind::KeyCreate, None).await;
    let capabilities = capabilities.iter().copied().collect::<Capabilities>();
    let request = KeyRequest { name: "another".into(), capabilities, session_scope: None, expires_at: None };
    let key = world.service.create_key(&permit, request, &Call::default()).await.unwrap();
    world.service.authenticate(&key.text).unwrap()
}

/// Works on something for so many turns, and drops it then wherever it is.
async fn for_turns<T>(turns: u8, work: impl Future<Output = T>) {
    let mut work = pin!(work);
    let mut left = turns;
    poll_fn(|context| {
        if work.as_mut().poll(context).is_ready() || left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        Poll::Pending
    })
    .await;
}
