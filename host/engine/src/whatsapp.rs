//! The driver that speaks to WhatsApp.
//!
//! One run of a session is one task with one client, and nothing else: no thread of its own, and no more memory than the client
//! has. The task (`run`, `serve`) hears the client's events in their order and reports what they mean (`facts`); texts that come in
//! are reported before WhatsApp may forget them (`inbound`); what the service asks of a connected session goes to the client
//! directly (`sending`).
//!
//! ```text
//!   perform ──▶ registry ──▶ run ──▶ client ──▶ WhatsApp (wire)
//!                             │  ◀── events ──┘    │
//!   poll ◀── reports ◀────────┘                    └──▶ the store (keep)
//! ```
//!
//! Three rules hold everything together. Two clients of one session never live at the same time: a run waits until those before it
//! are gone (`crew`). A run that was halted or replaced says nothing any more (`reports`) and, once it is gone, writes nothing any
//! more (`keep`). And everything that ought to happen has a deadline, because the client does not say when it does not.
//!
//! # What is not logged
//!
//! The client writes QR strings, pairing codes and whole stanzas to the `log` crate. Nothing of the gateway listens there, and
//! [`WhatsApp::new`] turns it off for the whole process, so that nobody who begins to listen hears any of it. The gateway's own
//! lines about sessions have their ids and stable words in them, and nothing else.

mod acks;
mod behaviour;
mod client;
mod crew;
mod facts;
mod gate;
mod inbound;
pub mod keep;
mod line;
mod message;
mod registry;
mod reports;
mod run;
mod sending;
mod serve;
mod turns;
pub mod wire;

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_core::operation::Presence;
use portcullis_core::{Attempt, DeviceChange, DeviceStore, DeviceStoreError, OrgId, SessionId, Timestamp};
use portcullis_net::Outbound;
use tokio::runtime::Handle;

use crate::{Command, Engine, NumberCheck, OutgoingText, Report, SendError, Sent, Setup, Task};
use line::Line;
use registry::Registry;
use reports::{Reports, Voice};
use run::{Aim, Life, Order, Run};
use turns::Turns;
use wire::{HttpFetch, ServerUrl};

/// The driver that speaks to WhatsApp.
pub struct WhatsApp {
    shared: Arc<Shared>,
}

/// How the driver is set up. The default is for WhatsApp itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhatsAppConfig {
    /// The server. By default, WhatsApp's.
    pub server: ServerUrl,
    /// The version of WhatsApp's web client that is shown to the server. By default it is asked for, once a day.
    pub version: Option<(u32, u32, u32)>,
    /// How many linked sessions connect at the same time, and how many others for their first code; the rest wait for their turn.
    /// By default 16.
    pub connecting_at_once: usize,
    /// How long a linked session may take to connect, from its turn on. By default 60 s.
    pub connect_timeout: Duration,
    /// How long a session that pairs may take to show its first code. By default 25 s, a little less than the lifecycle waits, so
    /// that the reason is told.
    pub first_code_timeout: Duration,
    /// How long WhatsApp may take to confirm that a device was unlinked, with connecting for it if need be. By default 9 s, a
    /// little less than the lifecycle waits.
    pub unlink_timeout: Duration,
    /// How long WhatsApp may take to confirm a message. By default 20 s.
    pub confirm_timeout: Duration,
    /// Under which name the phone lists the gateway among its linked devices. By default `Portcullis`.
    pub device_name: String,
}

impl Default for WhatsAppConfig {
    fn default() -> Self {
        Self {
            server: ServerUrl::default(),
            version: None,
            connecting_at_once: 16,
            connect_timeout: Duration::from_secs(60),
            first_code_timeout: Duration::from_secs(25),
            unlink_timeout: Duration::from_secs(9),
            confirm_timeout: Duration::from_secs(20),
            device_name: "Portcullis".to_owned(),
        }
    }
}

/// Why there is no driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhatsAppSetupError {
    /// Nothing could ever connect.
    #[error("at least one session must be able to connect at a time")]
    NobodyConnects,
    /// The phone would list a device without a name.
    #[error("the device's name must have 1 to 64 characters")]
    DeviceName,
}

/// What all runs share.
struct Shared {
    devices: Arc<dyn DeviceStore>,
    outbound: Outbound,
    fetch: HttpFetch,
    config: WhatsAppConfig,
    handle: Handle,
    turns: Turns,
    pairing_turns: Turns,
    reports: Arc<Reports>,
    registry: Mutex<Registry>,
}

impl WhatsApp {
    /// A driver that keeps its devices in `devices`, reaches WhatsApp by `outbound`, and lives on `handle`'s runtime.
    ///
    /// # Errors
    /// If `config` makes no sense.
    pub fn new(
        devices: Arc<dyn DeviceStore>,
        outbound: Outbound,
        config: WhatsAppConfig,
        handle: Handle,
    ) -> Result<Self, WhatsAppSetupError> {
        if config.connecting_at_once == 0 {
            return Err(WhatsAppSetupError::NobodyConnects);
        }
        if !(1..=64).contains(&config.device_name.trim().chars().count()) {
            return Err(WhatsAppSetupError::DeviceName);
        }
        // See the module's text: the client's own log is full of secrets.
        log::set_max_level(log::LevelFilter::Off);
        let shared = Shared {
            devices,
            fetch: HttpFetch::new(outbound.clone()),
            outbound,
            turns: Turns::new(config.connecting_at_once),
            pairing_turns: Turns::new(config.connecting_at_once),
            config,
            handle,
            reports: Arc::new(Reports::new()),
            registry: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The line of a run that is there.
    fn line(&self, session: SessionId, attempt: Attempt) -> Result<Arc<Line>, SendError> {
        let registry = self.shared.registry();
        let run = registry.current(session).filter(|run| run.attempt == attempt);
        run.map(|run| Arc::clone(&run.line)).ok_or(SendError::NotConnected)
    }
}

impl Shared {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a run, unless it or a newer one is there.
    fn begin(self: &Arc<Self>, key: (OrgId, SessionId, Attempt), setup: Box<Setup>, aim: Aim) {
        let (org, session, attempt) = key;
        let mut registry = self.registry();
        if registry.current(session).is_some_and(|current| current.attempt >= attempt) {
            return;
        }
        let Some(id) = registry.number() else { return };
        let voice = Voice::new(Arc::clone(&self.reports), id, org, session, attempt);
        let (run, orders) = Run::new(id, key, Line::new(voice, setup.settings.clone()));
        let before = registry.enter(Arc::clone(&run));
        drop(registry);
        let going = Going { shared: Arc::clone(self), run: Arc::clone(&run) };
        let life = Life { run, shared: Arc::clone(self), orders, setup, unlink_by: None };
        self.handle.spawn(async move {
            let _going = going;
            Box::pin(life.live(aim, before)).await;
        });
    }

    fn tell(&self, session: SessionId, attempt: Option<Attempt>, order: Order) -> bool {
        let registry = self.registry();
        let run = registry.current(session);
        let run = run.filter(|run| attempt.is_none_or(|attempt| run.attempt == attempt));
        if let Some(run) = run {
            run.tell(order);
        }
        run.is_some()
    }

    fn halt(&self, session: SessionId, attempt: Attempt) {
        let mut registry = self.registry();
        if let Some(run) = registry.current(session).filter(|run| run.attempt == attempt).cloned() {
            run.halt();
            registry.leave(&run);
        }
    }

    /// Ends whatever runs for a session, and forgets its device. Blocks until nothing of it is left.
    fn forget(&self, org: OrgId, session: SessionId) {
        let runs = self.registry().dismiss(session);
        for run in runs {
            run.halt();
            self.handle.block_on(run.fence());
        }
        match self.devices.write(org, session, vec![DeviceChange::Clear]) {
            Ok(()) | Err(DeviceStoreError::Gone) => {}
            Err(error) => tracing::error!(%session, %error, "a device could not be forgotten"),
        }
    }
}

/// Says that a run is gone, however it went.
struct Going {
    shared: Arc<Shared>,
    run: Arc<Run>,
}

impl Drop for Going {
    fn drop(&mut self) {
        self.shared.registry().gone(&self.run);
        self.run.ended.send_replace(true);
    }
}

impl Engine for WhatsApp {
    fn name(&self) -> &'static str {
        "whatsapp"
    }

    fn perform(&self, Command { org, session, task }: Command, _now: Timestamp) {
        match task {
            Task::Launch { attempt, setup } => self.shared.begin((org, session, attempt), setup, Aim::Connect),
            Task::Pair { attempt, setup, phone } => self.shared.begin((org, session, attempt), setup, Aim::Pair(phone)),
            Task::Halt { attempt } => self.shared.halt(session, attempt),
            Task::Unlink { attempt, setup } => {
                // A run that is there unlinks its own device; otherwise one connects for it.
                if !self.shared.tell(session, Some(attempt), Order::Unlink) {
                    self.shared.begin((org, session, attempt), setup, Aim::Unlink);
                }
            }
            Task::Configure { setup } => {
                self.shared.tell(session, None, Order::Configure(setup.settings));
            }
            Task::Forget => self.shared.forget(org, session),
        }
    }

    fn runs(&self) -> Vec<(SessionId, Attempt)> {
        self.shared.registry().all()
    }

    fn run(&self, session: SessionId) -> Option<Attempt> {
        self.shared.registry().current(session).map(|run| run.attempt)
    }

    fn poll(&self, _now: Timestamp) -> Vec<Report> {
        self.shared.reports.take()
    }

    fn next_wake(&self) -> Option<Timestamp> {
        None
    }

    fn recorded(&self, report: &Report) {
        self.shared.reports.recorded(report);
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let everybody = {
            let mut registry = self.shared.registry();
            registry.close();
            registry.everybody()
        };
        Box::pin(async move {
            for run in &everybody {
                run.halt();
            }
            for run in &everybody {
                let _ = run.ended.subscribe().wait_for(|ended| *ended).await;
            }
        })
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.shared.reports.ready())
    }

    fn send_text(
        &self,
        session: SessionId,
        attempt: Attempt,
        text: OutgoingText,
        _now: Timestamp,
    ) -> Pin<Box<dyn Future<Output = Result<Sent, SendError>> + Send + '_>> {
        let patience = self.shared.config.confirm_timeout;
        Box::pin(async move { sending::send(self.line(session, attempt)?, text, patience).await })
    }

    fn check_numbers(
        &self,
        session: SessionId,
        attempt: Attempt,
        numbers: Vec<String>,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<NumberCheck>, SendError>> + Send + '_>> {
        let patience = self.shared.config.confirm_timeout;
        Box::pin(async move { sending::check(&*self.line(session, attempt)?, numbers, patience).await })
    }

    fn show_presence(
        &self,
        session: SessionId,
        attempt: Attempt,
        chat: Option<String>,
        presence: Presence,
    ) -> Pin<Box<dyn Future<Output = Result<(), SendError>> + Send + '_>> {
        Box::pin(async move { sending::show(&*self.line(session, attempt)?, chat, presence).await })
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::test::Memory;

    fn driver(config: WhatsAppConfig) -> Result<WhatsApp, WhatsAppSetupError> {
        WhatsApp::new(Arc::new(Memory::default()), Outbound::unguarded(), config, Handle::current())
    }

    #[tokio::test]
    async fn the_client_is_not_heard_in_any_log_once_there_is_a_driver() {
        // Whoever had wanted to hear everything.
        log::set_max_level(log::LevelFilter::Trace);
        driver(WhatsAppConfig::default()).unwrap();
        assert_eq!(log::max_level(), log::LevelFilter::Off);
    }

    #[tokio::test]
    async fn a_driver_that_nothing_could_connect_with_is_refused() {
        let refused = |config| driver(config).err();
        let nobody = WhatsAppConfig { connecting_at_once: 0, ..WhatsAppConfig::default() };
        assert_eq!(refused(nobody), Some(WhatsAppSetupError::NobodyConnects));
        for name in ["", " ", &"x".repeat(65)] {
            let config = WhatsAppConfig { device_name: name.to_owned(), ..WhatsAppConfig::default() };
            assert_eq!(refused(config), Some(WhatsAppSetupError::DeviceName));
        }
    }
}
