//! A link is kept before WhatsApp hears that we have it.
//!
//! The phone's confirmation sets the device in memory; the client answers it, and writes the device when it comes to it. If the
//! gateway ended between the two, WhatsApp would have a linked device whose keys nobody knows. So while a session pairs, its
//! connections let nothing out from the moment on at which the device is known, until its row is durable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use whatsapp_rust::Client;
use whatsapp_rust::anyhow::{self, anyhow};
use whatsapp_rust::async_channel::Receiver;
use whatsapp_rust::transport::{Transport, TransportEvent, TransportFactory};

use super::keep::DeviceBackend;
use super::wire::Wires;

/// How often the device is written again when somebody else was writing it at the same time.
const TRIES: usize = 5;

/// The connections of a session, and what has to be durable before they let anything out.
#[derive(Clone)]
pub(super) struct Gate {
    wires: Arc<Wires>,
    link: Option<Arc<Link>>,
}

struct Link {
    client: OnceLock<Weak<Client>>,
    backend: Arc<DeviceBackend>,
    is_kept: AtomicBool,
}

struct Gated {
    inner: Arc<dyn Transport>,
    link: Arc<Link>,
}

/// The device could not be made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the linked device could not be kept")]
pub(super) struct NotKept;

impl Gate {
    /// Connections of a session whose device is linked already.
    pub(super) fn open(wires: Arc<Wires>) -> Self {
        Self { wires, link: None }
    }

    /// Connections of a session that pairs.
    pub(super) fn pairing(wires: Arc<Wires>, backend: Arc<DeviceBackend>) -> Self {
        let link = Link { client: OnceLock::new(), backend, is_kept: AtomicBool::new(false) };
        Self { wires, link: Some(Arc::new(link)) }
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
        let (inner, events) = self.wires.create_transport().await?;
        match &self.link {
            Some(link) if !link.is_kept.load(Ordering::Acquire) => {
                Ok((Arc::new(Gated { inner, link: Arc::clone(link) }), events))
            }
            _ => Ok((inner, events)),
        }
    }
}

#[async_trait]
impl Transport for Gated {
    async fn send(&self, data: Bytes) -> anyhow::Result<()> {
        self.link.keep().await?;
        self.inner.send(data).await
    }

    async fn disconnect(&self) {
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
