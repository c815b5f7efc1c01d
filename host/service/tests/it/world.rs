//! A whole gateway without HTTP, in memory and in virtual time.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::operation::{CreateSession, SendText, WhenUnpaired};
use portcullis_core::{
    AuditEntry, Capabilities, Capability, Clock, DecisionRecord, FailureFold, Labels, Mode, Operation, OperationKind,
    OrgId, Permit, Principal, Selector, Session, SessionId, Target, Timestamp,
};
use portcullis_engine::{Engine, Simulated};
use portcullis_policy::{Runtime, RuntimeConfig};
use portcullis_service::{
    Call, Done, KeyRequest, NewBinding, NewOrg, Service, ServiceConfig, ServiceError, SimulatorAct, SteppedClock,
};
use portcullis_store::Store;

/// The component that ships as `grace-delete`.
pub(crate) const GRACE_DELETE: &[u8] = include_bytes!("../../../../plugins/dist/grace-delete.wasm");

/// When a world begins.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Everything of a gateway, and one organisation.
pub(crate) struct World {
    pub(crate) service: Arc<Service>,
    pub(crate) clock: Arc<SteppedClock>,
    pub(crate) store: Store,
    pub(crate) org: OrgId,
    pub(crate) owner: Principal,
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(SteppedClock::new(START));
        let store = Store::in_memory().unwrap();
        let service = start(&store, &clock);
        let operator = Principal::operator();
        let permit = permit(&service, &operator, OperationKind::OrgCreate, Target::org(OrgId::PLATFORM)).await;
        let org = service.create_org(&permit, NewOrg { name: "acme".into(), ..NewOrg::default() }, None).await.unwrap();
        let permit = self::permit(&service, &operator, OperationKind::KeyCreate, Target::org(org.id)).await;
        let key = KeyRequest {
            name: "owner".into(),
            capabilities: Capability::ALL[..6].iter().copied().collect::<Capabilities>(),
            session_scope: None,
            expires_at: None,
        };
        let key = service.create_key(&permit, key, None).await.unwrap();
        let owner = service.authenticate(&key.text).unwrap();
        Self { service, clock, store, org: org.id, owner }
    }

    /// The process dies and starts again: all that is left is the store, and the time.
    pub(crate) async fn crash(&mut self) {
        self.service = start(&self.store, &self.clock);
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

    pub(crate) async fn create(&self) -> SessionId {
        let done = self.execute(Operation::SessionCreate(CreateSession::default())).await.unwrap();
        done.session.unwrap().id
    }

    /// A session that is linked and connected.
    pub(crate) async fn online(&self) -> SessionId {
        let session = self.create().await;
        self.execute(Operation::SessionStart { session, when_unpaired: WhenUnpaired::Pair }).await.unwrap();
        self.settle().await;
        self.simulate(session, SimulatorAct::Scan { phone: Some("628123456789".into()) }).await;
        self.pass(Duration::from_secs(1)).await;
        assert_eq!(self.status(session).await, "online");
        session
    }

    pub(crate) async fn simulate(&self, session: SessionId, act: SimulatorAct) {
        let permit = self.permit(OperationKind::Simulate, Some(session)).await;
        self.service.simulate(&permit, act).await.unwrap();
        self.settle().await;
    }

    pub(crate) async fn send(&self, session: SessionId) -> Result<Done, ServiceError> {
        let to = "49123456789@s.whatsapp.net".into();
        self.execute(Operation::MessageSend(SendText { session, to, text: "hello".into(), reply_to: None })).await
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
        let permit = self.permit(OperationKind::PluginUpload, None).await;
        let uploaded = self.service.upload_plugin(&permit, GRACE_DELETE.to_vec(), None).await.unwrap();
        let permit = self.permit(OperationKind::BindingCreate, None).await;
        let binding = NewBinding {
            plugin: uploaded.version.plugin,
            version: None,
            hooks: vec![],
            mode: Mode::Enforce,
            settings: format!(r#"{{"grace":"{grace}"}}"#),
            on_failure: FailureFold::Deny,
            order: 0,
            grants: None,
            selector: Selector::default(),
        };
        self.service.create_binding(&permit, binding, None).await.unwrap();
    }

    pub(crate) async fn audit(&self) -> Vec<AuditEntry> {
        let permit = self.permit(OperationKind::AuditRead, None).await;
        self.service.audit(&permit, None, 200).unwrap().entries
    }

    pub(crate) async fn decisions(&self) -> Vec<DecisionRecord> {
        let permit = self.permit(OperationKind::DecisionRead, None).await;
        self.service.decisions(&permit, None, None, 200).unwrap().entries
    }

    /// The names of all events that wait to be delivered, oldest first.
    pub(crate) fn events(&self) -> Vec<&'static str> {
        let events = self.store.snapshot().unwrap().events_after(None, 1_000).unwrap();
        events.iter().map(|(_, event)| event.body.name()).collect()
    }
}

fn start(store: &Store, clock: &Arc<SteppedClock>) -> Arc<Service> {
    let runtime = Arc::new(Runtime::new(RuntimeConfig::default()).unwrap());
    let engine: Arc<dyn Engine> = Arc::new(Simulated::new(Arc::new(store.clone())));
    let clock: Arc<dyn Clock> = Arc::<SteppedClock>::clone(clock);
    Service::open(store.clone(), runtime, engine, clock, &ServiceConfig::default()).unwrap()
}

async fn permit(service: &Service, principal: &Principal, kind: OperationKind, target: Target) -> Permit {
    service.permit(principal, kind, target, None).await.unwrap()
}
