//! The server as tests hold it: everything that phones and faults can do, and everything that was seen.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::code::Attempt;
use crate::config::ServerConfig;
use crate::connection::{self, Out};
use crate::control;
use crate::error::ServerError;
use crate::faults::{Failure, Faults};
use crate::handshake::{Certificate, Identity};
use crate::node;
use crate::registry::{DeviceId, Registry, is_number};
use crate::seen::UnlinkedBy;
use crate::state::State;

/// For how long a test waits for a state, or for a device that is to answer its phone.
const IN_VAIN: Duration = Duration::from_secs(120);

/// A WhatsApp server on this machine. It ends when it is dropped, and with it every connection.
pub struct Server {
    controls: Controls,
    address: SocketAddr,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What is done to a connected device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "action", deny_unknown_fields)]
pub enum Action {
    /// The connection is gone without a word.
    Drop,
    /// The connection is closed.
    Close,
    /// Another client has taken its place.
    Replace,
    /// A stream error of that code, and the end: 503, 429, 515, 516 and so on.
    Error {
        /// The code.
        code: u16,
    },
    /// A frame that nobody can decrypt, after which things go on.
    Garbage,
    /// Nothing is heard and nothing is said any more.
    Silence,
    /// The connection is gone, and logins of the account are refused as of one that is banned.
    Ban {
        /// Why.
        #[serde(default = "too_many_messages")]
        code: u16,
        /// For how many seconds.
        #[serde(default = "an_hour")]
        expire: u64,
    },
    /// The connection is gone, and logins of the account are refused as of a client that is too old.
    Outdated,
}

fn too_many_messages() -> u16 {
    101
}

fn an_hour() -> u64 {
    3600
}

/// What connections, phones and the control port share.
pub(crate) struct Shared {
    identity: Mutex<Arc<Identity>>,
    registry: Mutex<Registry>,
    version: watch::Sender<u64>,
}

impl Shared {
    /// Does something to the registry, and lets everybody know who waits for a change.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Registry) -> T) -> T {
        let changed = change(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
        self.version.send_modify(|version| *version += 1);
        changed
    }

    pub(crate) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn state(&self) -> State {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.state(*self.version.borrow())
    }

    /// Waits until something has changed since a version.
    pub(crate) async fn changed(&self, since: u64) {
        // The sender lives as long as this does.
        let _ = self.version.subscribe().wait_for(|version| *version > since).await;
    }
}

impl Server {
    /// Starts a server.
    pub async fn start(config: ServerConfig) -> Result<Self, ServerError> {
        let listener = listen(config.listen).await?;
        let address = listener.local_addr().map_err(ServerError::Listen)?;
        let shared = Arc::new(Shared {
            identity: Mutex::new(Arc::new(Identity::new(config.certificate))),
            registry: Mutex::new(Registry::new(config)),
            version: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept(Arc::clone(&shared), listener));
        Ok(Self { controls: Controls(shared), address, tasks: Mutex::new(vec![accepting]) })
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("ws://{}/ws/chat", self.address)
    }

    /// Serves the control port, and answers where.
    pub async fn control(&self, at: SocketAddr) -> Result<String, ServerError> {
        let listener = listen(at).await?;
        let address = listener.local_addr().map_err(ServerError::Listen)?;
        let serving = tokio::spawn(control::serve(self.controls.clone(), listener));
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(serving);
        Ok(format!("http://{address}"))
    }
}

impl Deref for Server {
    type Target = Controls;

    fn deref(&self) -> &Controls {
        &self.controls
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            task.abort();
        }
    }
}

/// All that can be done with a server while it runs. Tests and the control port share it.
#[derive(Clone)]
pub struct Controls(Arc<Shared>);

impl Controls {
    /// Gives a number a phone, if it has none.
    pub fn phone(&self, number: u64) -> Result<(), ServerError> {
        if !is_number(number) {
            return Err(ServerError::NotOnWhatsApp);
        }
        self.0.change(|registry| registry.open(number).lid);
        Ok(())
    }

    /// The phone of a number scans a QR code. The answer is the device that it is to become.
    pub fn scan(&self, number: u64, qr: &str) -> Result<u16, ServerError> {
        self.phone(number)?;
        self.0.change(|registry| registry.scan(number, qr)).map(|id| id.device)
    }

    /// Somebody types a pairing code into the phone of a number. The answer comes when the device has given its own.
    pub async fn code(&self, number: u64, code: &str) -> Result<u16, ServerError> {
        self.phone(number)?;
        let shown = self.0.change(|registry| registry.shown_for(number))?;
        let attempt = Attempt::new(code, &shown)?;
        let outcome = self.0.change(|registry| registry.type_code(number, attempt))?;
        let told = tokio::time::timeout(IN_VAIN, outcome).await.map_err(|_late| ServerError::NobodyWaits)?;
        // Nobody tells if the connection ends before the device answers.
        told.map_err(|_gone| ServerError::NobodyWaits)?.map(|id| id.device)
    }

    /// Whoever shows a pairing code for a number is told that it is worth nothing any more, and to show another one.
    pub fn spend_code(&self, number: u64) -> Result<(), ServerError> {
        self.0.change(|registry| registry.spend_code(number))
    }

    /// The phone of a number unlinks a device, or all of them. The answer names them.
    pub fn unlink(&self, number: u64, device: Option<u16>) -> Result<Vec<u16>, ServerError> {
        self.0.change(|registry| {
            let mut linked = registry.linked(number);
            linked.retain(|id| device.is_none_or(|device| device == id.device));
            if linked.is_empty() {
                return Err(ServerError::NoDevice);
            }
            for id in &linked {
                registry.unlink(*id, UnlinkedBy::Phone, Duration::ZERO)?;
            }
            Ok(linked.into_iter().map(|id| id.device).collect())
        })
    }

    /// The phone of one number texts another number, or only one linked device of it. The answer is the text's id.
    pub fn send(&self, from: u64, to: u64, device: Option<u16>, text: &str) -> Result<String, ServerError> {
        self.0.change(|registry| registry.phone_texts(from, to, device, text))
    }

    /// The phone of one number calls another number. The answer is the call's id.
    pub fn call(&self, from: u64, to: u64) -> Result<String, ServerError> {
        self.0.change(|registry| registry.phone_calls(from, to))
    }

    /// The phones of some numbers have a group from now on. The answer is its address.
    pub fn group(&self, members: &[u64]) -> Result<String, ServerError> {
        self.0.change(|registry| registry.gather(members)).map(|group| group.to_string())
    }

    /// The phone of a number opens a text that it has got.
    pub fn read(&self, number: u64, id: &str) -> Result<(), ServerError> {
        self.0.change(|registry| registry.phone_opens(number, id))
    }

    /// From now on logins of an account are refused so, or no longer.
    pub fn refuse(&self, number: u64, failure: Option<Failure>) -> Result<(), ServerError> {
        self.0.change(|registry| {
            registry.account(number).ok_or(ServerError::NotOnWhatsApp)?.refused = failure;
            Ok(())
        })
    }

    /// Does something to a connected device.
    pub fn act(&self, number: u64, device: u16, action: Action) -> Result<(), ServerError> {
        self.0.change(|registry| {
            let id = DeviceId { number, device };
            let known = registry.device(id).ok_or(ServerError::NoDevice)?;
            let connection = known.connection.ok_or(ServerError::NotConnected)?;
            let put = |out| registry.put(connection, out);
            let refused = |reason, code, expire| Some(Failure { reason, code, expire });
            let failure = match action {
                Action::Ban { code, expire } => refused(402, Some(code), Some(expire)),
                Action::Outdated => refused(405, None, None),
                _ => None,
            };
            match action {
                Action::Drop | Action::Ban { .. } | Action::Outdated => put(Out::Drop),
                Action::Close => put(Out::Close),
                Action::Replace => {
                    put(Out::Stanza(node::replaced()));
                    put(Out::Close);
                }
                Action::Error { code } => {
                    put(Out::Stanza(node::stream_error(code)));
                    put(Out::Close);
                }
                Action::Garbage => put(Out::Garbage),
                Action::Silence => put(Out::Silence),
            }
            if let (Some(_), Some(account)) = (failure, registry.account(number)) {
                account.refused = failure;
            }
            Ok(())
        })
    }

    /// Sets the standing faults, in place of those before.
    pub fn set_faults(&self, faults: Faults) {
        self.0.change(|registry| registry.set_faults(faults));
    }

    /// The server has a new key from now on. Clients that know the old one fall back.
    pub fn rekey(&self, certificate: Certificate) {
        let identity = Arc::new(Identity::new(certificate));
        *self.0.identity.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// Everything at this moment.
    pub fn state(&self) -> State {
        self.0.state()
    }

    /// Waits until something has changed since a version of the state.
    pub async fn changed(&self, since: u64) -> State {
        self.0.changed(since).await;
        self.0.state()
    }

    /// Waits until the state is as wanted.
    ///
    /// # Panics
    /// If that takes two minutes: a test that waits in vain is to end, and to say what there was.
    pub async fn wait_until(&self, wanted: impl Fn(&State) -> bool) -> State {
        let until = tokio::time::Instant::now() + IN_VAIN;
        let mut state = self.state();
        while !wanted(&state) {
            state = match tokio::time::timeout_at(until, self.changed(state.version)).await {
                Ok(state) => state,
                Err(_) => panic!("it was waited for in vain: {state:?}"),
            };
        }
        state
    }
}

async fn listen(at: SocketAddr) -> Result<TcpListener, ServerError> {
    if !at.ip().is_loopback() {
        return Err(ServerError::NotLoopback);
    }
    TcpListener::bind(at).await.map_err(ServerError::Listen)
}

/// Accepts connections for as long as the server is there. They are its own, and end with it.
async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // An accept fails for what has just failed to connect, or for want of files; both may pass.
                let Ok((stream, _)) = accepted else { tokio::task::yield_now().await; continue };
                connections.spawn(connection::serve(Arc::clone(&shared), stream));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
