//! The life of one run: it waits until the session's last client is gone, then for its turn, has its client, and ends.
//!
//! ```text
//!   predecessors gone ──▶ linked? ─ no ──▶ logged out
//!                            │ yes
//!                            ▼
//!                          turn ──▶ client ──▶ … (serve) ──▶ the end is told, the client goes, the run is gone
//! ```
//!
//! A run that pairs first looks for a link that WhatsApp has confirmed and nobody could write down, because the gateway ended at
//! that moment. It is tried: if WhatsApp knows it, that is the link; otherwise it is forgotten, and codes are shown.
//!
//! A run that is told to unlink while it pairs ends its client first. Nothing was answered to WhatsApp before the device's row was
//! durable (`gate`), so that then the row says whether there may be a link, and another client undoes it.
//!
//! Orders are given, and runs leave, under the lock of the registry: an order is obeyed by the run that it was given to, or given
//! to another one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_core::session::FailureCause;
use portcullis_core::{Attempt, DeviceChange, DeviceStoreError, Fact, OrgId, Secret, SessionId, Settings};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Shared;
use super::client::{Live, Making};
use super::facts;
use super::keep::DeviceBackend;
use super::line::Line;
use super::reports::RunId;
use super::serve::{End, Serve, Stage};
use super::turns::{Turn, Turns};
use super::wire::Wires;
use crate::Setup;

/// How often a pairing may find that WhatsApp does not know a device that it seemed to have linked.
const MAX_FALSE_LINKS: usize = 3;
/// After how long forgetting a device is tried again.
const FORGET_AGAIN: Duration = Duration::from_secs(1);

/// A run, as others see it.
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) org: OrgId,
    pub(super) session: SessionId,
    pub(super) attempt: Attempt,
    pub(super) line: Arc<Line>,
    pub(super) ended: watch::Sender<bool>,
    orders: mpsc::UnboundedSender<Order>,
    store: Mutex<Store>,
}

#[derive(Default)]
struct Store {
    is_fenced: bool,
    backend: Option<Arc<DeviceBackend>>,
}

/// What a run is for.
pub(super) enum Aim {
    /// To be connected.
    Connect,
    /// To be linked first, with a code for this number or else a QR code.
    Pair(Option<Secret>),
    /// To be unlinked.
    Unlink,
}

/// What a run is told.
pub(super) enum Order {
    /// To end, keeping its device.
    Halt,
    /// To unlink its device.
    Unlink,
    /// To behave like this.
    Configure(Settings),
}

/// One's own side of a run.
pub(super) struct Life {
    pub(super) run: Arc<Run>,
    pub(super) shared: Arc<Shared>,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) setup: Box<Setup>,
    /// By when the device has to be unlinked, if it is to be.
    pub(super) unlink_by: Option<Instant>,
}

impl Run {
    pub(super) fn new(
        id: RunId,
        (org, session, attempt): (OrgId, SessionId, Attempt),
        line: Line,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Order>) {
        let (orders, told) = mpsc::unbounded_channel();
        let (ended, _) = watch::channel(false);
        let line = Arc::new(line);
        (Arc::new(Self { id, org, session, attempt, line, ended, orders, store: Mutex::default() }), told)
    }

    pub(super) fn tell(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// Nothing is heard of the run any more, and its client goes.
    pub(super) fn halt(&self) {
        self.line.voice.silence();
        self.line.down();
        self.tell(Order::Halt);
    }

    /// Once this completes, the run writes nothing any more.
    pub(super) async fn fence(&self) {
        let backend = {
            let mut store = self.store();
            store.is_fenced = true;
            store.backend.take()
        };
        if let Some(backend) = backend {
            backend.close().await;
        }
    }

    /// The storage for the run's next client; none if the run is to write nothing any more.
    fn backend(&self, shared: &Shared) -> Option<Arc<DeviceBackend>> {
        let mut store = self.store();
        if store.is_fenced {
            return None;
        }
        let backend = DeviceBackend::new(Arc::clone(&shared.devices), self.org, self.session);
        store.backend = Some(Arc::clone(&backend));
        Some(backend)
    }

    fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    /// Lives. `before` are the session's earlier runs.
    pub(super) async fn live(mut self, aim: Aim, before: Vec<watch::Receiver<bool>>) {
        for mut before in before {
            // Whoever is gone without saying so is gone as well.
            let _ = before.wait_for(|ended| *ended).await;
        }
        let mut end = Box::pin(self.follow(aim)).await;
        loop {
            end = match end {
                End::ToUnlink => Box::pin(self.connect()).await,
                // Before it is told that the device is gone, nothing may write it any more: what comes of it forgets all rows.
                End::Says(Fact::LoggedOut) | End::NotLinked => {
                    self.run.fence().await;
                    self.part(Fact::LoggedOut);
                    return;
                }
                // Whoever is to unlink has nothing else to say.
                End::Says(_) if self.unlink_by.is_some() => End::Unlinked { confirmed: false },
                End::Says(fact) => match self.part(fact) {
                    true => return,
                    false => End::ToUnlink,
                },
                End::Unlinked { confirmed } => return self.leave_nothing(Fact::Unlinked { confirmed }).await,
                End::NoDevice => return self.leave_nothing(Fact::NotLinked).await,
                End::Halted => return,
            }
        }
    }

    async fn follow(&mut self, aim: Aim) -> End {
        match aim {
            Aim::Pair(phone) => self.pair(phone).await,
            Aim::Connect => self.connect().await,
            Aim::Unlink => {
                self.is_to_unlink();
                End::ToUnlink
            }
        }
    }

    fn is_to_unlink(&mut self) {
        self.unlink_by.get_or_insert_with(|| Instant::now() + self.shared.config.unlink_timeout);
    }

    /// The run tells its last fact and does not count any more: whatever is asked from now on is asked of another run. If it was
    /// told to unlink meanwhile, it is not its last fact, and nothing is told.
    fn part(&mut self, fact: Fact) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut registry = shared.registry();
        if !matches!(fact, Fact::LoggedOut | Fact::NotLinked | Fact::Unlinked { .. }) {
            while let Ok(order) = self.orders.try_recv() {
                let _ = self.obey(Some(order));
            }
            if self.unlink_by.is_some() {
                return false;
            }
        }
        registry.leave(&self.run);
        self.run.line.voice.fact(fact);
        true
    }

    /// Forgets all rows, and only then says so.
    async fn leave_nothing(&mut self, fact: Fact) {
        self.run.fence().await;
        if self.forget().await {
            self.part(fact);
        }
    }

    /// Connects with the device that is there, to be connected or only to unlink it.
    async fn connect(&mut self) -> End {
        let Some(backend) = self.run.backend(&self.shared) else { return End::Halted };
        match backend.linked().await {
            // WhatsApp would answer 401 to a device without keys.
            Ok(None) if self.unlink_by.is_none() => return End::Says(Fact::LoggedOut),
            Ok(None) => return End::NoDevice,
            Ok(Some(_)) => {}
            Err(_) => return End::failed(FailureCause::StorageFailed),
        }
        let turn = match self.turn(|shared| &shared.turns).await {
            Ok(turn) => turn,
            Err(end) => return end,
        };
        let deadline = Instant::now() + self.shared.config.connect_timeout;
        self.serve(backend, Stage::Connecting, deadline, turn).await
    }

    /// Waits for the turn to connect. Who is told to unlink does not wait for it.
    async fn turn(&mut self, of: fn(&Shared) -> &Turns) -> Result<Option<Turn>, End> {
        let shared = Arc::clone(&self.shared);
        loop {
            if self.unlink_by.is_some() {
                return Ok(None);
            }
            let order = tokio::select! {
                biased;
                order = self.orders.recv() => order,
                turn = of(&shared).take(self.run.org, self.run.session, self.run.attempt) => return Ok(Some(turn)),
            };
            self.obey(order)?;
        }
    }

    /// Does what can be done of an order without a client.
    pub(super) fn obey(&mut self, order: Option<Order>) -> Result<(), End> {
        match order {
            None | Some(Order::Halt) => return Err(End::Halted),
            Some(Order::Configure(settings)) => {
                self.run.line.configure(settings.clone());
                self.setup.settings = settings;
            }
            Some(Order::Unlink) => self.is_to_unlink(),
        }
        Ok(())
    }

    async fn pair(&mut self, phone: Option<Secret>) -> End {
        for _ in 0..=MAX_FALSE_LINKS {
            let Some(backend) = self.run.backend(&self.shared) else { return End::Halted };
            let stage = match backend.linked().await {
                Ok(Some(_)) => Stage::Tentative,
                Ok(None) => {
                    if self.clear().await.is_err() {
                        return End::failed(FailureCause::StorageFailed);
                    }
                    Stage::Pairing(phone.clone())
                }
                Err(_) => return End::failed(FailureCause::StorageFailed),
            };
            let turn = match self.turn(|shared| &shared.pairing_turns).await {
                Ok(turn) => turn,
                Err(end) => return end,
            };
            if self.unlink_by.is_some() {
                return End::ToUnlink;
            }
            let deadline = Instant::now() + self.shared.config.first_code_timeout;
            match self.serve(backend, stage, deadline, turn).await {
                End::NotLinked => {
                    if self.clear().await.is_err() {
                        return End::failed(FailureCause::StorageFailed);
                    }
                }
                end => return end,
            }
        }
        End::failed(FailureCause::PairingInterrupted)
    }

    /// Has a client until something ends it. When this returns, the client is gone.
    async fn serve(&mut self, backend: Arc<DeviceBackend>, stage: Stage, deadline: Instant, turn: Option<Turn>) -> End {
        let shared = Arc::clone(&self.shared);
        let making = Making {
            config: &shared.config,
            handle: shared.handle.clone(),
            fetch: shared.fetch.through(self.setup.proxy.as_ref()),
            line: &self.run.line,
            backend: Arc::clone(&backend),
            wires: Wires::new(shared.outbound.clone(), shared.config.server.clone(), self.setup.proxy.clone()),
            is_pairing: matches!(stage, Stage::Pairing(_)),
        };
        let Ok(mut live) = Live::start(making).await else { return End::failed(FailureCause::StorageFailed) };
        let end = Serve::new(self, &mut live, &backend, stage, deadline, turn).until_the_end().await;
        self.run.line.down();
        match end {
            // Its rows are about to go, or to be looked at.
            End::Says(Fact::LoggedOut) | End::NotLinked | End::NoDevice | End::Unlinked { .. } | End::ToUnlink => {
                live.cut().await;
                end
            }
            End::Halted => {
                live.end().await;
                end
            }
            // Nobody has to wait for the client's goodbye to hear of it.
            End::Says(fact) => {
                let has_parted = self.part(fact);
                live.end().await;
                if has_parted { End::Halted } else { End::ToUnlink }
            }
        }
    }

    /// Forgets every row of the device, so that it is durable. Nothing may write them meanwhile.
    async fn clear(&self) -> Result<(), DeviceStoreError> {
        let (devices, org, session) = (Arc::clone(&self.shared.devices), self.run.org, self.run.session);
        let clearing = move || devices.write(org, session, vec![DeviceChange::Clear]);
        match self.shared.handle.spawn_blocking(clearing).await {
            Ok(Err(DeviceStoreError::Gone)) => Ok(()),
            Ok(result) => result,
            Err(_) => Err(DeviceStoreError::Failed("the program is ending".to_owned())),
        }
    }

    /// Forgets the device, however often that has to be tried, unless the run is halted meanwhile. A device that was unlinked and
    /// is still there would be found by the next pairing.
    async fn forget(&mut self) -> bool {
        loop {
            match self.clear().await {
                Ok(()) => return true,
                Err(error) => {
                    let session = self.run.session;
                    tracing::error!(%session, %error, "an unlinked device could not be forgotten; it is tried again");
                }
            }
            let again = tokio::time::sleep(FORGET_AGAIN);
            tokio::pin!(again);
            loop {
                tokio::select! {
                    biased;
                    order = self.orders.recv() => if self.obey(order).is_err() { return false },
                    () = &mut again => break,
                }
            }
        }
    }
}

/// What is known of the device that a client has.
pub(super) fn device_of(client: &whatsapp_rust::Client) -> Option<portcullis_core::Device> {
    client.pn().map(|pn| facts::device(&pn, client.lid().as_ref(), &client.push_name()))
}
