//! The connections of a client, watched from the client's side.
//!
//! *A link is kept before WhatsApp hears that we have it.* The phone's confirmation sets the device in memory; the client answers
//! it, and writes the device when it comes to it. If the gateway ended between the two, WhatsApp would have a linked device whose
//! keys nobody knows. So while a session pairs, its connections let nothing out from the moment on at which the device is known,
//! until its row is durable.
//!
//! *Whom the client does not believe.* To a client that does not know it yet, a server proves who it is in its answer to the
//! client's first message, and the client's second message says that it is believed. If it is not, the client hangs up without a
//! word, to try again later, and tells nobody. Nothing else makes it hang up then and there.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use portcullis_core::session::FailureCause;
use tokio::time::Instant;
use whatsapp_rust::Client;
use whatsapp_rust::anyhow::{self, anyhow};
use whatsapp_rust::async_channel::Receiver;
use whatsapp_rust::transport::{Transport, TransportEvent, TransportFactory};

use super::keep::DeviceBackend;
use super::wire::{ConnectTrouble, Wire, Wires};

/// How often the device is written again when somebody else was writing it at the same time.
const TRIES: usize = 5;

/// How long the client waits for the answer to its first message is more than this. Who hangs up earlier has got one.
const ANSWER: Duration = Duration::from_secs(15);

/// The first message of a client that does not know its server is a key of 32 bytes and little else; that of one that knows it
/// carries the login besides, needs no second one, and is longer than this.
const STRANGERS_HELLO: usize = 128;

/// The connections of a session.
#[derive(Clone)]
pub(super) struct Gate {
    wires: Arc<Wires>,
    is_server_doubted: Arc<AtomicBool>,
    /// What has to be durable before anything is let out.
    link: Option<Arc<Link>>,
}

struct Link {
    client: OnceLock<Weak<Client>>,
    backend: Arc<DeviceBackend>,
    is_kept: AtomicBool,
}

struct Gated {
    inner: Arc<Wire>,
    is_server_doubted: Arc<AtomicBool>,
    link: Option<Arc<Link>>,
    sent: AtomicUsize,
    is_stranger: AtomicBool,
    began: Instant,
}

/// The device could not be made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the linked device could not be kept")]
pub(super) struct NotKept;

impl Gate {
    /// Connections of a session whose device is linked already.
    pub(super) fn open(wires: Arc<Wires>) -> Self {
        Self { wires, is_server_doubted: Arc::default(), link: None }
    }

    /// Connections of a session that pairs.
    pub(super) fn pairing(wires: Arc<Wires>, backend: Arc<DeviceBackend>) -> Self {
        let link = Link { client: OnceLock::new(), backend, is_kept: AtomicBool::new(false) };
        Self { wires, is_server_doubted: Arc::default(), link: Some(Arc::new(link)) }
    }

    /// What keeps the client from connecting, if it has tried and anything is known.
    pub(super) fn trouble(&self) -> Option<FailureCause> {
        let doubted = || self.is_server_doubted.load(Ordering::Acquire).then_some(FailureCause::ServerNotTrusted);
        self.wires.trouble().map(cause).or_else(doubted)
    }

    /// Says whose connections they are.
    pub(super) fn belong_to(&self, client: &Arc<Client>) {
        if let Some(link) = &self.link {
            let _ = link.client.set(Arc::downgrade(client));
        }
    }
}

/// Makes the linked device durable.
pub(super) async fn keep(client: &Client, backend: &DeviceBackend) -> Result<(), NotKept> {
    let memory = client.persistence_manager();
    for _ in 0..TRIES {
        memory.flush().await.map_err(|_| NotKept)?;
        if backend.linked().await.map_err(|_| NotKept)?.is_some() {
            return backend.flush().await.map_err(|_| NotKept);
        }
        // The client's own saver has taken the change and is not done with it. One more change has to be saved once more.
        memory.modify_device(|_| ()).await;
    }
    Err(NotKept)
}

#[async_trait]
impl TransportFactory for Gate {
    async fn create_transport(&self) -> anyhow::Result<(Arc<dyn Transport>, Receiver<TransportEvent>)> {
        let (inner, events) = self.wires.open().await?;
        let gated = Gated {
            inner,
            is_server_doubted: Arc::clone(&self.is_server_doubted),
            link: self.link.clone(),
            sent: AtomicUsize::new(0),
            is_stranger: AtomicBool::new(false),
            began: Instant::now(),
        };
        Ok((Arc::new(gated), events))
    }
}

#[async_trait]
impl Transport for Gated {
    async fn send(&self, data: Bytes) -> anyhow::Result<()> {
        match self.sent.fetch_add(1, Ordering::AcqRel) {
            0 => self.is_stranger.store(data.len() <= STRANGERS_HELLO, Ordering::Release),
            1 => self.is_server_doubted.store(false, Ordering::Release),
            _ => {}
        }
        if let Some(link) = &self.link {
            link.keep().await?;
        }
        self.inner.send(data).await
    }

    async fn disconnect(&self) {
        let waits_for_proof = self.sent.load(Ordering::Acquire) == 1 && self.is_stranger.load(Ordering::Acquire);
        // A server that hung up itself has said nothing that could be doubted.
        if waits_for_proof && !self.inner.is_over() && self.began.elapsed() < ANSWER {
            self.is_server_doubted.store(true, Ordering::Release);
        }
        self.inner.disconnect().await;
    }
}

impl Link {
    async fn keep(&self) -> anyhow::Result<()> {
        if self.is_kept.load(Ordering::Acquire) {
            return Ok(());
        }
        let Some(client) = self.client.get().and_then(Weak::upgrade) else { return Ok(()) };
        let device = client.persistence_manager().get_device_snapshot();
        // In this order the client learns them; before the last of them, nothing has been answered.
        if device.pn.is_none() || device.account.is_none() || device.lid.is_none() {
            return Ok(());
        }
        keep(&client, &self.backend).await.map_err(|error| anyhow!(error))?;
        self.is_kept.store(true, Ordering::Release);
        Ok(())
    }
}

/// What the lifecycle calls a trouble with connections.
fn cause(trouble: ConnectTrouble) -> FailureCause {
    match trouble {
        ConnectTrouble::Unreachable | ConnectTrouble::NotAWebSocket | ConnectTrouble::NotLoopback => {
            FailureCause::Unreachable
        }
        ConnectTrouble::CertificateNotTrusted => FailureCause::ServerNotTrusted,
        ConnectTrouble::ProxyUnreachable | ConnectTrouble::ProxyRefused | ConnectTrouble::ProxyForbidden => {
            FailureCause::ProxyUnreachable
        }
    }
}
