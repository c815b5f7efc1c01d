//! An engine over a store, with a server to speak to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_core::session::{Names, PairingMethod};
use portcullis_core::{
    Attempt, Device, EngineFact, Fact, Labels, Org, OrgId, Plan, PluginRules, Quotas, Secret, Session, SessionId,
    Settings, Timestamp,
};
use portcullis_engine::whatsapp::{WhatsApp, WhatsAppConfig};
use portcullis_engine::{Command, Engine, OutgoingText, Progress, Report, ReportBody, SendError, Sent, Setup, Task};
use portcullis_net::Outbound;
use portcullis_store::{Commit, Store, StoreOptions, Write};
use portcullis_whatsapp_server::{Server, ServerConfig};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// The number of the phone that links sessions.
pub(super) const ADA: u64 = 15_550_000_001;
/// The number of somebody else.
pub(super) const BOB: u64 = 15_550_000_002;
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
pub(crate) const ORG: OrgId = OrgId::from_bytes([1; 16]);
/// How long a test waits for something that has to come. It is long because machines are slow, and asserts nothing.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long the driver waits for everything, unless a test is about the end of its patience: less than the test, so that it says why.
const AMPLE: Duration = Duration::from_secs(60);

/// Everything that a test needs.
pub(super) struct Stage {
    pub(super) server: Server,
    pub(super) engine: Arc<WhatsApp>,
    config: WhatsAppConfig,
    store: Store,
    setup: Setup,
    came: Mutex<VecDeque<Report>>,
    _dir: TempDir,
}

/// One session of the stage. Its runs are numbered one after the other.
pub(super) struct Actor<'a> {
    pub(super) stage: &'a Stage,
    pub(super) session: SessionId,
    attempt: Mutex<Attempt>,
}

pub(super) fn session(number: u8) -> SessionId {
    SessionId::from_bytes([number; 16])
}

impl Stage {
    pub(super) async fn new() -> Self {
        Self::with(ServerConfig::default(), |_| {}).await
    }

    pub(super) async fn with(server: ServerConfig, change: impl FnOnce(&mut WhatsAppConfig)) -> Self {
        let server = Server::start(server).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
        furnish(&store);
        let url = server.url().parse().unwrap();
        let mut config = WhatsAppConfig {
            server: url,
            version: Some((2, 3000, 1)),
            connect_timeout: AMPLE,
            first_code_timeout: AMPLE,
            unlink_timeout: AMPLE,
            confirm_timeout: AMPLE,
            ..WhatsAppConfig::default()
        };
        change(&mut config);
        let engine = engine(&store, &config);
        let setup = Setup { proxy: None, settings: Settings::default() };
        Self { server, engine, config, store, setup, came: Mutex::default(), _dir: dir }
    }

    pub(super) fn actor(&self, number: u8) -> Actor<'_> {
        Actor { stage: self, session: session(number), attempt: Mutex::default() }
    }

    /// The settings of everything that is begun from now on.
    pub(super) fn set_up(&mut self, change: impl FnOnce(&mut Setup)) {
        change(&mut self.setup);
    }

    /// Another process over the same store: nothing is left of what the last one had in memory.
    pub(super) async fn restart(&mut self) {
        self.restart_with(|_| {}).await;
    }

    /// The same with another configuration.
    pub(super) async fn restart_with(&mut self, change: impl FnOnce(&mut WhatsAppConfig)) {
        self.engine.close().await;
        self.came.lock().unwrap().clear();
        change(&mut self.config);
        self.engine = engine(&self.store, &self.config);
    }

    async fn perform(&self, session: SessionId, task: Task) {
        let engine = Arc::clone(&self.engine);
        let command = Command { org: ORG, session, task };
        tokio::task::spawn_blocking(move || engine.perform(command, NOW)).await.unwrap();
    }

    /// The next report that is `wanted`. Others wait until somebody wants them.
    async fn report<T>(&self, what: &str, wanted: impl Fn(&Report) -> Option<T>) -> T {
        let waiting = async {
            loop {
                {
                    let mut came = self.came.lock().unwrap();
                    came.extend(self.engine.poll(NOW));
                    if let Some((at, found)) =
                        came.iter().enumerate().find_map(|(at, report)| Some((at, wanted(report)?)))
                    {
                        came.remove(at);
                        return found;
                    }
                }
                self.engine.ready().await;
            }
        };
        match timeout(PATIENCE, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("{what} did not come; there is {:?}", self.came.lock().unwrap()),
        }
    }
}

impl Actor<'_> {
    pub(super) fn attempt(&self) -> Attempt {
        *self.attempt.lock().unwrap()
    }

    fn next(&self) -> Attempt {
        let mut attempt = self.attempt.lock().unwrap();
        *attempt = attempt.next();
        *attempt
    }

    fn setup(&self) -> Box<Setup> {
        Box::new(self.stage.setup.clone())
    }

    pub(super) async fn perform(&self, task: Task) {
        self.stage.perform(self.session, task).await;
    }

    pub(super) async fn launch(&self) {
        self.perform(Task::Launch { attempt: self.next(), setup: self.setup() }).await;
    }

    pub(super) async fn pair(&self, phone: Option<&str>) {
        let phone = phone.map(Secret::new);
        self.perform(Task::Pair { attempt: self.next(), setup: self.setup(), phone }).await;
    }

    pub(super) async fn halt(&self) {
        self.perform(Task::Halt { attempt: self.attempt() }).await;
    }

    /// Unlinks by the run that is there.
    pub(super) async fn unlink(&self) {
        self.perform(Task::Unlink { attempt: self.attempt(), setup: self.setup() }).await;
    }

    /// Unlinks by a run of its own.
    pub(super) async fn unlink_anew(&self) {
        self.perform(Task::Unlink { attempt: self.next(), setup: self.setup() }).await;
    }

    pub(super) async fn configure(&self, settings: Settings) {
        let setup = Box::new(Setup { settings, ..self.stage.setup.clone() });
        self.perform(Task::Configure { setup }).await;
    }

    /// The next fact of the last run, whatever it is.
    pub(super) async fn fact(&self) -> Fact {
        self.fact_of("a fact", |_| true).await
    }

    /// The next fact of that name; others are left.
    pub(super) async fn until(&self, name: &str) -> Fact {
        self.fact_of(name, |fact| fact.name() == name).await
    }

    async fn fact_of(&self, what: &str, wanted: impl Fn(&Fact) -> bool) -> Fact {
        let (session, last) = (self.session, self.attempt());
        let mine = |report: &Report| match &report.body {
            ReportBody::Fact(EngineFact { attempt, fact })
                if report.session == session && *attempt == last && wanted(fact) =>
            {
                Some(fact.clone())
            }
            _ => None,
        };
        self.stage.report(what, mine).await
    }

    /// Facts that have come already, by their names.
    pub(super) fn said(&self) -> Vec<&'static str> {
        let mut came = self.stage.came.lock().unwrap();
        came.extend(self.stage.engine.poll(NOW));
        let mine = came.iter().filter(|report| report.session == self.session);
        let facts = mine.filter_map(|report| match &report.body {
            ReportBody::Fact(EngineFact { fact, .. }) => Some(fact.name()),
            _ => None,
        });
        facts.collect()
    }

    /// The next text that comes in, which is recorded if `record`.
    pub(super) async fn text_in(&self, record: bool) -> portcullis_engine::IncomingText {
        let session = self.session;
        let report = self.stage.report("a text", |report| {
            (report.session == session && matches!(report.body, ReportBody::TextIn(_))).then(|| report.clone())
        });
        let report = report.await;
        if record {
            self.stage.engine.recorded(&report);
        }
        let ReportBody::TextIn(text) = report.body else { unreachable!("it was asked for") };
        text
    }

    pub(super) async fn progress(&self) -> Progress {
        let session = self.session;
        let mine = |report: &Report| match &report.body {
            ReportBody::Progress(progress) if report.session == session => Some(progress.clone()),
            _ => None,
        };
        self.stage.report("progress", mine).await
    }

    pub(super) async fn send(&self, text: OutgoingText) -> Result<Sent, SendError> {
        self.stage.engine.send_text(self.session, self.attempt(), text, NOW).await
    }

    /// The text of the next code.
    pub(super) async fn code(&self, wanted: PairingMethod) -> String {
        let Fact::CodeIssued { method, code } = self.until("code-issued").await else { unreachable!() };
        assert_eq!(method, wanted);
        code.text.reveal().to_owned()
    }

    /// Links the session to a phone by a scan, and waits until it is connected.
    pub(super) async fn link(&self, number: u64) -> Device {
        self.pair(None).await;
        let qr = self.code(PairingMethod::Qr).await;
        self.stage.server.scan(number, &qr).unwrap();
        let Fact::Linked { device } = self.until("linked").await else { unreachable!() };
        self.until("connected").await;
        device
    }
}

pub(super) fn text_for(number: u64, text: &str) -> OutgoingText {
    OutgoingText {
        to: format!("{number}@s.whatsapp.net"),
        text: text.to_owned(),
        reply_to: None,
        mentions: Vec::new(),
        mention_all: false,
        link_preview: false,
    }
}

fn engine(store: &Store, config: &WhatsAppConfig) -> Arc<WhatsApp> {
    let devices = Arc::new(store.clone());
    Arc::new(WhatsApp::new(devices, Outbound::unguarded(), config.clone(), Handle::current()).unwrap())
}

/// An organisation.
pub(crate) fn acme() -> Org {
    Org {
        id: ORG,
        name: "Acme".to_owned(),
        plan: Plan::default(),
        quotas: Quotas::default(),
        labels: Labels::new(),
        plugin_rules: PluginRules::default(),
        suspended: false,
        erasing: false,
        generation: 1,
        created_at: NOW,
        updated_at: NOW,
    }
}

/// An organisation with a few sessions.
fn furnish(store: &Store) {
    let put =
        |n: u8| Write::PutSession(Session::new(session(n), ORG, Names::new(u128::from_be_bytes([n; 16]), None), NOW));
    let writes = [Write::PutOrg(acme())].into_iter().chain((1..=4).map(put)).collect();
    store.commit_blocking(Commit { writes, ..Commit::new(ORG, NOW) }).unwrap();
}
