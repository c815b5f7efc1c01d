//! A whole gateway without HTTP, in memory and in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portcullis_core::operation::{CreateSession, SendText, WhenUnpaired};
use portcullis_core::{
    AuditEntry, BindingId, Capabilities, Capability, Clock, DecisionRecord, FailureFold, Labels, MessageId, Mode,
    Operation, OperationKind, OrgId, OutboxPlace, OutgoingMessage, Permit, Plan, PluginId, Principal, Selector,
    Session, SessionId, Target, Timestamp, Verdict,
};
use portcullis_engine::{Engine, Simulated};
use portcullis_net::{GuardConfig, Outbound, OutboundConfig};
use portcullis_policy::{Runtime, RuntimeConfig};
use portcullis_service::{
    BindingChange, BindingState, Call, DecisionQuery, DeliveryConfig, Dispatched, Done, KeyRequest, NewBinding,
    NewFact, NewOrg, NextMasterKey, OrgChange, Outcome, QuotaChange, SendCall, Service, ServiceConfig, ServiceError,
    SimulatorAct, Upload,
};
use portcullis_store::{MasterKey, Store};
use serde_json::json;

use crate::clock::TestClock;

/// The component that ships as `grace-delete`.
pub(crate) const GRACE_DELETE: &[u8] = include_bytes!("../../../../plugins/dist/grace-delete.wasm");

/// The component that ships as `churn`.
pub(crate) const CHURN: &[u8] = include_bytes!("../../../../plugins/dist/churn.wasm");

/// When a world begins.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Somebody to write to.
pub(crate) const FRIEND: &str = "49123456789@s.whatsapp.net";

/// Everything of a gateway, and one organisation. Clones are of the same gateway, for tasks beside the test.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) service: Arc<Service>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) store: Store,
    pub(crate) org: OrgId,
    pub(crate) owner: Principal,
    patience: Duration,
    /// Whether events are delivered, to receivers on this machine.
    delivers: bool,
}

impl World {
    /// A world in which no send waits for its rate limit: nobody steps the clock meanwhile.
    pub(crate) async fn new() -> Self {
        Self::with_patience(Duration::ZERO).await
    }

    pub(crate) async fn with_patience(patience: Duration) -> Self {
        Self::found(patience, false).await
    }

    /// A world whose receivers may be on this machine.
    pub(crate) async fn delivering() -> Self {
        Self::found(Duration::ZERO, true).await
    }

    async fn found(patience: Duration, delivers: bool) -> Self {
        let clock = Arc::new(TestClock::new(START));
        let store = Store::in_memory().unwrap();
        let service = start(&store, &clock, patience, delivers);
        let (org, owner) = found_org(&service, "acme").await;
        Self { service, clock, store, org, owner, patience, delivers }
    }

    /// The same gateway as another organisation sees it.
    pub(crate) async fn other_org(&self) -> Self {
        let (org, owner) = found_org(&self.service, "other").await;
        Self { org, owner, ..self.clone() }
    }

    /// The same gateway as its operator sees it, with the platform's own plugins.
    pub(crate) fn platform(&self) -> Self {
        Self { org: OrgId::PLATFORM, owner: Principal::operator(), ..self.clone() }
    }

    /// The same gateway as somebody else of the organisation sees it.
    pub(crate) fn seen_by(&self, owner: Principal) -> Self {
        Self { owner, ..self.clone() }
    }

    /// The process dies and starts again: all that is left is the store, and the time.
    pub(crate) async fn crash(&mut self) {
        self.service = start(&self.store, &self.clock, self.patience, self.delivers);
        self.service.recover().await;
    }

    /// Lets time pass, from one thing that is due to the next.
    pub(crate) async fn pass(&self, duration: Duration) {
        let end = self.clock.now().after(duration);
        // What was begun at this very moment comes first.
        self.settle().await;
        while let Some(at) = self.service.next_wake().filter(|at| *at <= end) {
            self.clock.advance(at.since(self.clock.now()));
            self.settle().await;
        }
        self.clock.advance(end.since(self.clock.now()));
    }

    /// Does everything that is due now, and what comes of it.
    pub(crate) async fn settle(&self) {
        for _ in 0..100 {
            assert!(self.service.tick().await, "something that was due could not be done");
            if self.service.next_wake().is_none_or(|at| at > self.clock.now()) {
                return;
            }
        }
        panic!("there is always something more to do");
    }

    pub(crate) async fn permit(&self, kind: OperationKind, session: Option<SessionId>) -> Permit {
        permit(&self.service, &self.owner, kind, Target { org: self.org, session }).await
    }

    pub(crate) async fn execute(&self, operation: Operation) -> Result<Done, ServiceError> {
        let permit = self.permit(operation.kind(), operation.session()).await;
        self.service.execute(&permit, operation, Call::default()).await
    }

    /// What would come of an operation.
    pub(crate) async fn attempt(&self, operation: Operation) -> Result<Verdict, ServiceError> {
        let permit = self.permit(operation.kind(), operation.session()).await;
        let call = Call { dry_run: true, ..Call::default() };
        match self.service.execute(&permit, operation, call).await?.outcome {
            Outcome::DryRun(verdict) => Ok(verdict),
            other => panic!("not a dry run: {other:?}"),
        }
    }

    pub(crate) async fn create(&self) -> SessionId {
        let done = self.execute(Operation::SessionCreate(CreateSession::default())).await.unwrap();
        done.session.unwrap().id
    }

    /// A session that is linked and connected.
    pub(crate) async fn online(&self) -> SessionId {
        let session = self.create().await;
        self.connect(session).await;
        session
    }

    /// Links a session, and has it connect.
    pub(crate) async fn connect(&self, session: SessionId) {
        self.execute(Operation::SessionStart { session, when_unpaired: WhenUnpaired::Pair }).await.unwrap();
        self.settle().await;
        self.simulate(session, SimulatorAct::Scan { phone: Some("628123456789".into()) }).await;
        self.pass(Duration::from_secs(1)).await;
        assert_eq!(self.status(session).await, "online");
    }

    pub(crate) async fn simulate(&self, session: SessionId, act: SimulatorAct) {
        let permit = self.permit(OperationKind::Simulate, Some(session)).await;
        self.service.simulate(&permit, act, &Call::default()).await.unwrap();
        self.settle().await;
    }

    pub(crate) async fn send(&self, session: SessionId) -> Result<Done, ServiceError> {
        self.execute(Operation::MessageSend(SendText::plain(session, FRIEND, "hello"))).await
    }

    pub(crate) async fn dispatch(&self, text: SendText, call: SendCall) -> Result<Dispatched, ServiceError> {
        let permit = self.permit(OperationKind::MessageSend, Some(text.session)).await;
        self.service.send(&permit, text, call).await
    }

    /// Sends under an idempotency key.
    pub(crate) async fn send_once(&self, session: SessionId, key: &str) -> Result<Dispatched, ServiceError> {
        let call = SendCall { key: Some(key.into()), ..SendCall::default() };
        self.dispatch(SendText::plain(session, FRIEND, "hello"), call).await
    }

    /// Has a text sent later.
    pub(crate) async fn queue(&self, session: SessionId, text: &str) -> Result<MessageId, ServiceError> {
        let call = SendCall { queue: true, ..SendCall::default() };
        match self.dispatch(SendText::plain(session, FRIEND, text), call).await? {
            Dispatched::Queued { message, .. } => Ok(message),
            other => panic!("not queued: {other:?}"),
        }
    }

    pub(crate) async fn message(&self, session: SessionId, id: MessageId) -> Result<OutgoingMessage, ServiceError> {
        let permit = self.permit(OperationKind::MessageRead, Some(session)).await;
        self.service.message(&permit, id)
    }

    pub(crate) async fn choose_policy(&self, session: SessionId, slug: &str) -> Result<Done, ServiceError> {
        self.execute(Operation::SessionRatePolicy { session, slug: slug.into() }).await
    }

    pub(crate) async fn change_org(&self, change: OrgChange) {
        let operator = Principal::operator();
        let permit = permit(&self.service, &operator, OperationKind::OrgUpdate, Target::org(self.org)).await;
        self.service.update_org(&permit, change, &Call::default()).await.unwrap();
    }

    pub(crate) async fn set_quotas(&self, quotas: QuotaChange) {
        self.change_org(OrgChange { quotas, ..OrgChange::default() }).await;
    }

    pub(crate) async fn set_plan(&self, active: bool) {
        let plan = Plan { name: "business".into(), active };
        self.change_org(OrgChange { plan: Some(plan), ..OrgChange::default() }).await;
    }

    pub(crate) async fn label(&self, session: SessionId, labels: &[(&str, &str)]) {
        let labels: Labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.execute(Operation::SessionLabels { session, labels }).await.unwrap();
    }

    pub(crate) async fn session(&self, session: SessionId) -> Option<Arc<Session>> {
        let permit = self.permit(OperationKind::SessionRead, Some(session)).await;
        self.service.session(&permit).ok()
    }

    /// The status by its name; `gone` if the session is.
    pub(crate) async fn status(&self, session: SessionId) -> &'static str {
        self.session(session).await.map_or("gone", |session| session.status.name())
    }

    /// Binds `grace-delete`.
    pub(crate) async fn bind_grace(&self, grace: &str) {
        self.bind(GRACE_DELETE.to_vec(), vec![], &format!(r#"{{"grace":"{grace}"}}"#)).await;
    }

    /// Binds a plugin of which nothing is bound yet, or a version of it.
    pub(crate) async fn bind(&self, component: Vec<u8>, hooks: Vec<OperationKind>, settings: &str) -> BindingId {
        let plugin = self.upload_plugin(component).await;
        self.bind_plugin(plugin, hooks, settings, 0).await
    }

    /// Uploads a plugin.
    pub(crate) async fn upload_plugin(&self, component: Vec<u8>) -> PluginId {
        let permit = self.permit(OperationKind::PluginUpload, None).await;
        let upload = Upload { bytes: component, ..Upload::default() };
        let uploaded = self.service.upload_plugin(&permit, upload, Call::default()).await.unwrap();
        let Outcome::Uploaded(uploaded, _) = uploaded.outcome else { panic!("the upload came to nothing") };
        uploaded.plugin
    }

    /// Binds the newest version of a plugin.
    pub(crate) async fn bind_plugin(
        &self,
        plugin: PluginId,
        hooks: Vec<OperationKind>,
        settings: &str,
        order: i32,
    ) -> BindingId {
        let permit = self.permit(OperationKind::BindingCreate, None).await;
        let binding = NewBinding {
            plugin,
            version: None,
            hooks,
            mode: Mode::Enforce,
            settings: settings.into(),
            on_failure: FailureFold::Deny,
            order,
            grants: None,
            http_hosts: Vec::new(),
            selector: Selector::default(),
            wall_millis: None,
        };
        let bound = self.service.create_binding(&permit, binding, Call::default()).await.unwrap();
        let Outcome::Bound(binding) = bound.outcome else { panic!("the binding came to nothing") };
        binding.id
    }

    /// Uploads another version of a plugin that is bound already; its number.
    pub(crate) async fn upload_version(&self, component: Vec<u8>) -> u32 {
        let permit = self.permit(OperationKind::PluginUpload, None).await;
        let upload = Upload { bytes: component, ..Upload::default() };
        let uploaded = self.service.upload_plugin(&permit, upload, Call::default()).await.unwrap();
        let Outcome::Uploaded(version, _) = uploaded.outcome else { panic!("the upload came to nothing") };
        version.version
    }

    pub(crate) async fn change_binding(&self, id: BindingId, change: BindingChange) {
        let permit = self.permit(OperationKind::BindingUpdate, None).await;
        self.service.update_binding(&permit, id, change, Call::default()).await.unwrap();
    }

    pub(crate) async fn binding(&self, id: BindingId) -> BindingState {
        let permit = self.permit(OperationKind::PluginRead, None).await;
        self.service.binding(&permit, id).unwrap()
    }

    pub(crate) async fn tell(&self, id: &str, name: &str, session: SessionId) {
        let permit = self.permit(OperationKind::EventTell, Some(session)).await;
        let (id, name, data) = (id.to_owned(), name.to_owned(), json!({}));
        let new = NewFact { id, name, session: Some(session), at: None, data };
        self.service.tell_fact(&permit, new, &Call::default()).await.unwrap();
        self.settle().await;
    }

    pub(crate) fn plugin_of(&self, binding: BindingId) -> PluginId {
        self.store.snapshot().unwrap().binding(self.org, binding).unwrap().unwrap().plugin
    }

    pub(crate) async fn unbind(&self, binding: BindingId) {
        let permit = self.permit(OperationKind::BindingDelete, None).await;
        self.service.delete_binding(&permit, binding, Call::default()).await.unwrap();
    }

    pub(crate) async fn audit(&self) -> Vec<AuditEntry> {
        let permit = self.permit(OperationKind::AuditRead, None).await;
        self.service.audit(&permit, None, 200).unwrap().entries.into_iter().map(|line| line.entry).collect()
    }

    pub(crate) async fn decisions(&self) -> Vec<DecisionRecord> {
        let permit = self.permit(OperationKind::DecisionRead, None).await;
        self.service.decisions(&permit, &DecisionQuery::default(), None, 200).unwrap().decisions
    }

    /// The names of all events that wait to be delivered, oldest first.
    pub(crate) fn events(&self) -> Vec<&'static str> {
        let snapshot = self.store.snapshot().unwrap();
        let events = snapshot.events_after(self.org, OutboxPlace::default(), 1_000).unwrap();
        events.iter().map(|placed| placed.event.body.name()).collect()
    }
}

async fn found_org(service: &Arc<Service>, name: &str) -> (OrgId, Principal) {
    let operator = Principal::operator();
    let to_create = permit(service, &operator, OperationKind::OrgCreate, Target::org(OrgId::PLATFORM)).await;
    let plan = Plan { name: "business".into(), active: true };
    let new = NewOrg { name: name.into(), plan, ..NewOrg::default() };
    let org = service.create_org(&to_create, new, &Call::default()).await.unwrap();
    let to_key = permit(service, &operator, OperationKind::KeyCreate, Target::org(org.id)).await;
    let key = KeyRequest {
        name: "owner".into(),
        capabilities: Capability::ALL[..6].iter().copied().collect::<Capabilities>(),
        session_scope: None,
        expires_at: None,
    };
    let key = service.create_key(&to_key, key, &Call::default()).await.unwrap();
    (org.id, service.authenticate(&key.text).unwrap())
}

fn start(store: &Store, clock: &Arc<TestClock>, send_patience: Duration, delivers: bool) -> Arc<Service> {
    let runtime = Runtime::new(RuntimeConfig::default()).unwrap();
    let engine: Arc<dyn Engine> = Arc::new(Simulated::new(Arc::new(store.clone())));
    let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(clock);
    let decisions_kept = Some(Duration::from_secs(30 * 24 * 60 * 60));
    let deliveries = delivers.then(|| {
        let allow = vec!["127.0.0.0/8".parse().unwrap()];
        let guard = Some(GuardConfig { allow, ports: Vec::new() });
        let outbound = Outbound::new(OutboundConfig { guard, ..OutboundConfig::default() }).unwrap();
        DeliveryConfig { outbound, server_url: None, retry_scale: 1.0, timeout: Duration::from_secs(30) }
    });
    // Whenever the master key is changed, it is for one that was never in use.
    static KEYS: AtomicU64 = AtomicU64::new(1);
    let next = || async { Ok(MasterKey::parse(&format!("{:064x}", KEYS.fetch_add(1, Ordering::Relaxed))).unwrap()) };
    let next_master_key = Some(NextMasterKey::new(next));
    let config =
        ServiceConfig { send_patience, decisions_kept, deliveries, next_master_key, ..ServiceConfig::default() };
    Service::open(store.clone(), runtime, engine, clock, &config).unwrap()
}

async fn permit(service: &Service, principal: &Principal, kind: OperationKind, target: Target) -> Permit {
    service.permit(principal, kind, target, None).await.unwrap()
}
