//! What a run does while it has a client: it hears the client's events, the orders it is given, and its own deadlines.
//!
//! The client tells nobody that it cannot connect, that it has stopped writing, or that a device could not be unlinked. So there
//! is a deadline for everything that should happen, and its storage is looked at from time to time.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::session::{FailureCause, PairingCode, PairingMethod};
use portcullis_core::{Device, Fact, Secret, Timestamp};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use whatsapp_rust::pair_code::{PairCodeOptions, PairError};
use whatsapp_rust::request::IqError;
use whatsapp_rust::types::events::Event;
use whatsapp_rust::wacore::iq::devices::RemoveCompanionDeviceSpec;

use super::client::Live;
use super::facts::{self, Meaning};
use super::keep::DeviceBackend;
use super::run::{Life, Order, device_of};
use super::turns::{self, Turn};
use super::{behaviour, gate, inbound};

/// How often it is looked whether the client still writes what it has to.
const LOOK: Duration = Duration::from_secs(10);
/// How long after a QR code's end the next one may come.
const NEXT_CODE: Duration = Duration::from_secs(8);
/// How often it is looked whether a client that is to be unlinked is let in.
const LOGIN: Duration = Duration::from_millis(50);
/// How long a connection that is there may take to unlink the device, before another client does it: nobody may have noticed yet that
/// it is dead.
const ON_THIS_CONNECTION: Duration = Duration::from_secs(3);
/// After how long an unlink that WhatsApp could not do is asked for again.
const UNLINK_AGAIN: Duration = Duration::from_millis(500);
/// How many codes to type one pairing may have.
const MAX_CODES: u32 = 3;

/// Where a run is.
pub(super) enum Stage {
    /// There is a device that WhatsApp may have linked or not.
    Tentative,
    /// Codes are shown: one for this number, or else QR codes.
    Pairing(Option<Secret>),
    /// The device is linked and has not been connected in this run.
    Connecting,
    /// Connected.
    Online,
    /// Connected before; the client works on it.
    Away,
}

/// How a run ends.
pub(super) enum End {
    /// Somebody wanted it to, and wants to hear nothing of it.
    Halted,
    /// With this.
    Says(Fact),
    /// WhatsApp does not know the device.
    NotLinked,
    /// It is to unlink the device, if there is one, which takes another client.
    ToUnlink,
    /// There is no device to unlink.
    NoDevice,
    /// The device was to be unlinked, and nothing more can be done about it.
    Unlinked {
        /// Whether WhatsApp has confirmed it.
        confirmed: bool,
    },
}

impl End {
    pub(super) fn failed(cause: FailureCause) -> Self {
        Self::Says(Fact::Ended { cause, until: None })
    }
}

type Asking<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// A run with its client.
pub(super) struct Serve<'a> {
    life: &'a mut Life,
    live: &'a mut Live,
    backend: &'a Arc<DeviceBackend>,
    stage: Stage,
    /// When something should have happened.
    deadline: Option<Instant>,
    /// The turn to connect, and until when others wait for it.
    turn: Option<(Turn, Instant)>,
    /// Whether the lifecycle knows that there is a device.
    is_linked: bool,
    /// Who this run has said that the device is.
    told: Option<Device>,
    /// A code to type that is being asked for.
    code: Asking<Result<String, PairError>>,
    /// How many codes to type there were.
    codes: u32,
    /// Whether the last one can be typed.
    is_code_shown: bool,
    /// An unlink that is being asked for.
    unlink: Asking<Result<(), IqError>>,
}

enum Heard {
    Order(Option<Order>),
    Event(Arc<Event>),
    Code(Result<String, PairError>),
    Unlink(Result<(), IqError>),
    Ended,
    TurnOver,
    Late,
    Look,
}

impl<'a> Serve<'a> {
    pub(super) fn new(
        life: &'a mut Life,
        live: &'a mut Live,
        backend: &'a Arc<DeviceBackend>,
        stage: Stage,
        deadline: Instant,
        turn: Option<Turn>,
    ) -> Self {
        let deadline = Some(life.unlink_by.unwrap_or(deadline));
        let is_linked = matches!(stage, Stage::Connecting);
        let turn = turn.map(|turn| (turn, Instant::now() + turns::LASTS));
        let mut serve = Self {
            life,
            live,
            backend,
            stage,
            deadline,
            turn,
            is_linked,
            told: None,
            code: None,
            codes: 0,
            is_code_shown: false,
            unlink: None,
        };
        if serve.life.unlink_by.is_some() {
            serve.ask_to_unlink();
        }
        serve
    }

    pub(super) async fn until_the_end(mut self) -> End {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let line = Arc::clone(&self.life.run.line);
        loop {
            let heard = tokio::select! {
                // What the client has said comes before its having ended, and everything before a deadline.
                biased;
                order = self.life.orders.recv() => Heard::Order(order),
                event = line.next() => Heard::Event(event),
                code = asked(&mut self.code) => Heard::Code(code),
                unlink = asked(&mut self.unlink) => Heard::Unlink(unlink),
                () = self.live.ended() => Heard::Ended,
                () = reached(self.turn.as_ref().map(|(_, until)| *until)) => Heard::TurnOver,
                () = reached(self.deadline) => Heard::Late,
                _ = look.tick() => Heard::Look,
            };
            let done = match heard {
                Heard::Order(order) => self.obey(order),
                Heard::Event(event) => self.hear(&event).await,
                Heard::Code(code) => self.code_came(code),
                Heard::Unlink(unlink) => self.unlink_came(&unlink),
                Heard::Ended => Err(self.client_ended()),
                Heard::TurnOver => {
                    self.turn = None;
                    Ok(())
                }
                Heard::Late => Err(self.late()),
                Heard::Look => self.look(),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    fn obey(&mut self, order: Option<Order>) -> Result<(), End> {
        let shows = matches!(order, Some(Order::Configure(_)));
        let unlinks_already = self.life.unlink_by.is_some();
        self.life.obey(order)?;
        if let (Some(unlink_by), false) = (self.life.unlink_by, unlinks_already) {
            // While it pairs, WhatsApp may be confirming a link at this very moment: what is so can be seen once nothing is under way
            // any more. A client that lost its connection may wait a minute before it tries again, and another one waits for nothing.
            if !matches!(self.stage, Stage::Online) {
                return Err(End::ToUnlink);
            }
            self.deadline = Some(unlink_by.min(Instant::now() + ON_THIS_CONNECTION));
            self.ask_to_unlink();
        }
        if shows && matches!(self.stage, Stage::Online) {
            self.show();
        }
        Ok(())
    }

    async fn hear(&mut self, event: &Event) -> Result<(), End> {
        let voice = &self.life.run.line.voice;
        match event {
            Event::Messages(batch) => {
                voice.tell(inbound::texts(&batch.messages, self.life.setup.settings.ignore_groups));
                return Ok(());
            }
            Event::IncomingCall(call) => {
                let settings = self.life.run.line.settings();
                if behaviour::refuses(call, &settings) {
                    let (client, call) = (Arc::clone(&self.live.client), call.clone());
                    self.live.begin(async move { behaviour::refuse(&client, &call, &settings).await });
                }
                return Ok(());
            }
            _ => {}
        }
        match facts::meaning(event) {
            Meaning::Qr { text, lives } => self.qr(text, lives),
            Meaning::Code { text, lives } => self.show_code(text, lives),
            Meaning::CodeSpent => return self.spend_code(),
            // A code to type outlives the QR codes that came with it.
            Meaning::QrExhausted if self.is_code_shown || self.code.is_some() => {}
            Meaning::QrExhausted => return Err(End::Says(Fact::CodesExhausted)),
            Meaning::Passkey => voice.fact(Fact::PasskeyRequested),
            Meaning::Linked => return self.linked().await,
            Meaning::Up => return self.up().await,
            Meaning::Down => self.down(),
            Meaning::Named => {
                self.identify();
                // The client shows the account as online when it learns its name.
                if matches!(self.stage, Stage::Online) {
                    self.show();
                }
            }
            Meaning::Progress(progress) => voice.progress(progress),
            Meaning::LoggedOut if self.life.unlink_by.is_some() => return Err(End::Unlinked { confirmed: true }),
            Meaning::LoggedOut if !self.is_linked => return Err(End::NotLinked),
            Meaning::LoggedOut => return Err(End::Says(Fact::LoggedOut)),
            // Whoever has taken the connection over has not unlinked anything.
            Meaning::Over { cause: FailureCause::Replaced, .. } if self.life.unlink_by.is_some() => {
                return Err(End::ToUnlink);
            }
            Meaning::Over { .. } if self.life.unlink_by.is_some() => return Err(End::Unlinked { confirmed: false }),
            Meaning::Over { cause, lasts } => {
                let until = lasts.map(|lasts| facts::now().after(lasts));
                return Err(self.failed(cause, until));
            }
            Meaning::Nothing => {}
        }
        Ok(())
    }

    // Pairing.

    fn qr(&mut self, text: Secret, lives: Duration) {
        match &self.stage {
            Stage::Pairing(None) => {
                self.turn = None;
                self.issue(PairingMethod::Qr, text, lives);
                self.deadline = Some(Instant::now() + lives + NEXT_CODE);
            }
            // The first QR code says that the connection is ready to be asked for another kind.
            Stage::Pairing(Some(_)) if !self.is_code_shown => self.ask_for_code(),
            _ => {}
        }
    }

    fn ask_for_code(&mut self) {
        let Stage::Pairing(Some(phone)) = &self.stage else { return };
        if self.code.is_some() || self.codes >= MAX_CODES {
            return;
        }
        let options = PairCodeOptions { phone_number: phone.reveal().to_owned(), ..PairCodeOptions::default() };
        let client = Arc::clone(&self.live.client);
        self.code = Some(Box::pin(async move { client.pair_with_code(options).await }));
    }

    /// The code itself is an event, which says how long it lives.
    fn code_came(&mut self, code: Result<String, PairError>) -> Result<(), End> {
        let refused = match code {
            Ok(_) => return Ok(()),
            Err(error) if error.lost_the_flow_to_another_request() => return Ok(()),
            Err(PairError::PairCode(_) | PairError::RequestFailed(IqError::ServerError { .. })) => true,
            Err(_) => false,
        };
        match refused {
            true => Err(End::failed(FailureCause::PairingRefused)),
            // Nobody has answered. The next connection begins with a QR code, and this is asked again.
            false => Ok(()),
        }
    }

    fn show_code(&mut self, text: Secret, lives: Duration) {
        if let Stage::Pairing(Some(_)) = &self.stage {
            self.turn = None;
            self.codes += 1;
            self.is_code_shown = true;
            self.issue(PairingMethod::Code, text, lives);
            self.deadline = Some(Instant::now() + lives);
        }
    }

    fn spend_code(&mut self) -> Result<(), End> {
        self.is_code_shown = false;
        if self.codes >= MAX_CODES {
            return Err(End::Says(Fact::CodesExhausted));
        }
        self.ask_for_code();
        Ok(())
    }

    fn issue(&self, method: PairingMethod, text: Secret, lives: Duration) {
        let code = PairingCode { text, expires_at: facts::now().after(lives), ordinal: 0 };
        self.life.run.line.voice.fact(Fact::CodeIssued { method, code });
    }

    /// WhatsApp has linked the device. That is kept before it is told.
    async fn linked(&mut self) -> Result<(), End> {
        if self.is_linked {
            return Ok(());
        }
        let kept = gate::keep(&self.live.client, self.backend).await;
        let device = device_of(&self.live.client);
        let (Ok(()), Some(device)) = (kept, device) else { return Err(End::failed(FailureCause::StorageFailed)) };
        self.is_linked = true;
        self.told = Some(device.clone());
        self.life.run.line.voice.fact(Fact::Linked { device });
        self.stage = Stage::Connecting;
        self.deadline = Some(Instant::now() + self.life.shared.config.connect_timeout);
        Ok(())
    }

    // Being connected.

    async fn up(&mut self) -> Result<(), End> {
        // A device that was only thought to be linked is linked.
        self.linked().await?;
        self.stage = Stage::Online;
        self.turn = None;
        self.deadline = self.life.unlink_by;
        if self.life.unlink_by.is_some() {
            return Ok(());
        }
        self.life.run.line.up(&self.live.client);
        self.life.run.line.voice.fact(Fact::Connected);
        self.identify();
        self.show();
        Ok(())
    }

    fn down(&mut self) {
        match self.stage {
            Stage::Online => {
                self.stage = Stage::Away;
                self.life.run.line.down();
                if self.life.unlink_by.is_none() {
                    self.life.run.line.voice.fact(Fact::Disconnected);
                }
            }
            // A code to type is worth nothing on another connection.
            Stage::Pairing(Some(_)) => self.is_code_shown = false,
            Stage::Tentative | Stage::Pairing(None) | Stage::Connecting | Stage::Away => {}
        }
    }

    /// Tells who the device is, if that is news.
    fn identify(&mut self) {
        let device = device_of(&self.live.client);
        if let Some(device) = device.filter(|device| self.told.as_ref() != Some(device)) {
            self.told = Some(device.clone());
            self.life.run.line.voice.fact(Fact::Identified { device });
        }
    }

    fn show(&self) {
        let (client, line) = (Arc::clone(&self.live.client), Arc::clone(&self.life.run.line));
        // Whoever asks for something else from now on comes afterwards.
        let turn = Arc::clone(&line.showing).try_lock_owned();
        self.live.begin(async move {
            let _turn = match turn {
                Ok(turn) => turn,
                Err(_) => Arc::clone(&line.showing).lock_owned().await,
            };
            behaviour::show(&client, &line.settings()).await;
        });
    }

    // Unlinking.

    fn ask_to_unlink(&mut self) {
        if self.unlink.is_some() {
            return;
        }
        self.life.run.line.down();
        let client = Arc::clone(&self.live.client);
        // The client's own logout would not say what came of it. Nor is it waited for everything that makes a connection useful:
        // who is let in can be unlinked.
        self.unlink = Some(Box::pin(async move {
            while !(client.is_connected() && client.is_logged_in()) {
                sleep(LOGIN).await;
            }
            let Some(pn) = client.pn() else { return Err(IqError::NotConnected) };
            let asked = client.execute(RemoveCompanionDeviceSpec::new(&pn)).await;
            if asked.is_err() {
                sleep(UNLINK_AGAIN).await;
            }
            asked
        }));
    }

    fn unlink_came(&mut self, unlink: &Result<(), IqError>) -> Result<(), End> {
        match unlink {
            Ok(()) => Err(End::Unlinked { confirmed: true }),
            Err(IqError::ServerError { code: ..500, .. }) => Err(End::Unlinked { confirmed: false }),
            // It may have been heard or not; it is asked again, here or on the next connection, until the deadline.
            Err(_) => {
                self.ask_to_unlink();
                Ok(())
            }
        }
    }

    // Ends that nobody announces.

    /// A device that may be linked counts as linked if it cannot connect: it is tried again then, and if WhatsApp does not know
    /// it, that shows as soon as it is reached.
    fn failed(&mut self, cause: FailureCause, until: Option<Timestamp>) -> End {
        if let (Stage::Tentative, Some(device)) = (&self.stage, device_of(&self.live.client)) {
            self.life.run.line.voice.fact(Fact::Linked { device });
        }
        End::Says(Fact::Ended { cause, until })
    }

    fn late(&mut self) -> End {
        match self.life.unlink_by {
            Some(unlink_by) if Instant::now() < unlink_by => return End::ToUnlink,
            Some(_) => return End::Unlinked { confirmed: false },
            None => {}
        }
        if self.codes > 0 && !self.is_linked {
            return End::Says(Fact::CodesExhausted);
        }
        self.failed(self.live.trouble().unwrap_or(FailureCause::StartTimeout), None)
    }

    fn client_ended(&mut self) -> End {
        if self.life.unlink_by.is_some() {
            return End::Unlinked { confirmed: false };
        }
        let cause = self.live.trouble().unwrap_or(match self.stage {
            Stage::Pairing(_) => FailureCause::PairingInterrupted,
            Stage::Tentative | Stage::Connecting => FailureCause::StartTimeout,
            Stage::Online | Stage::Away => FailureCause::Unreachable,
        });
        self.failed(cause, None)
    }

    /// The client stops writing for good after it could not ten times. What it learns then would be lost with the process.
    fn look(&self) -> Result<(), End> {
        let is_halted = self.live.client.persistence_manager().is_saver_halted();
        if is_halted && self.life.unlink_by.is_none() {
            return Err(End::failed(FailureCause::StorageFailed));
        }
        Ok(())
    }
}

/// What comes of something that is asked for; never, if nothing is.
async fn asked<T>(asking: &mut Asking<T>) -> T {
    match asking {
        Some(asked) => {
            let answer = asked.await;
            *asking = None;
            answer
        }
        None => std::future::pending().await,
    }
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
