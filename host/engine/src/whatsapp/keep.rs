//! What the client of a session keeps, in the gateway's store.
//!
//! [`DeviceBackend`] implements the client's storage traits over the port [`DeviceStore`]. One of
//! them serves one run of one session. An idle one holds nothing but itself: what is durable is read when it is asked for.
//!
//! # What waits, and why it may
//!
//! A write is made durable *now*, before the call returns, or *soon*: it is visible at once and waits in memory for the next commit
//! of the session, a second at the most, or until a thousand rows or 256 KiB wait. Every commit takes all that waits. So the store
//! always holds what the client had written at one moment, and a crash does nothing but set it back to such a moment. What follows
//! has to stand only against that, and against what the world outside has seen meanwhile.
//!
//! Now:
//! - *device*: who we are. Its numbers of pre-keys must be durable before these are uploaded.
//! - *sessions*, *sender keys*: the client puts them before it sends under numbers that they newly reserve. A number that is used
//!   twice would be a key that is used twice. A sender key that goes is one that somebody must no longer be able to follow.
//! - *pre-keys*, *signed pre-keys*: they are uploaded right afterwards, and whoever gets one may write to us under it.
//! - *keys of the app state*: the phone sends them once, and the client acknowledges them.
//!
//! Soon:
//! - *identities*: without the row the next message is as the contact's first one, and puts it again. The client puts it right after
//!   the session, which holds the same key.
//! - *used pre-keys*, *sessions that go*: the client removes them after it has put what replaces them, and the order is kept. A
//!   pre-key that a crash leaves behind is nobody's to use any more, because WhatsApp has given it away; it goes with the device.
//! - *versions and MACs of the app state*: they go together, because they wait together; a version without its MACs would be worse
//!   than an older one, from which the client simply asks WhatsApp again.
//! - *pending inbound messages*: such a row has to be there once the session is durable with which its message was opened, and the
//!   session is put after it. If neither is there, WhatsApp brings the message again and it is opened again; it is acknowledged only
//!   after the gateway's own commit. Most of these rows go before a commit comes, and are never written.
//! - *sent messages*: they answer a device that could not read one. Lost is the answer for those of the last second.
//! - *message secrets*: they open votes and other additions to messages. The driver has the client keep none.
//! - *LID mappings, device lists, group metadata, who has a sender key*: caches of what WhatsApp is asked again.
//! - *tokens of contacts*: WhatsApp brings them again with the next change; until then a new chat is as without one.
//! - *base keys*: they tell within one exchange of retries whether it goes in circles; it is at most one round longer.
//!
//! # What one thing costs in commits
//!
//! All pre-keys of a new device: one, and two for the device before and after their upload. A text in: one, 25 ms later and for all texts of those
//! 25 ms. A text out: one. The first text with a contact: one more within a second, which carries the identity and the used pre-key,
//! unless another commit comes first. A text in a group: one for sessions that are new or have reserved numbers, one for the sender key.
//! Nothing else that is part of a message waits for a disk, and an idle hour writes nothing but the removal of what has expired.
//!
//! # Credentials and the gateway's own record
//!
//! The device's row and the session's row are written by two commits, and a crash may come between them. [`DeviceBackend::linked`]
//! tells what the device's row says:
//!
//! - No row, or one without account: nothing is linked. A start as *linked* reports that it is logged out, and does not ask WhatsApp,
//!   which would say 401. A start of pairing forgets all rows and begins with new keys.
//! - The row has an account, the session has no device: the phone has confirmed, and the gateway ended or the session was stopped
//!   before that was recorded. The next pairing tries the row before it shows any code: it connects with it, and reports the link
//!   once WhatsApp lets it in. The client writes the row *before* it answers the phone's confirmation, so WhatsApp may not have heard
//!   that answer: then it says 401, and all rows are forgotten before codes are shown. Whatever else ends that try leaves the row
//!   for the next pairing.
//! - The same, and the session that pairs is to be logged out or deleted: its run ends its client, and looks. If there is an account,
//!   that device is unlinked as any other; otherwise all rows are forgotten, and it says that there was no device.
//! - The session has a device, the row has an account: all is well. This needs [`DeviceBackend::flush`] before *linked* is reported.
//! - The session has a device, and there is no account: cannot be without a lost disk, and is as a start without a row.
//! - The session is to be logged out and has its device still: the run that unlinks it forgets all rows, and only then says so. If it
//!   is interrupted, reconciliation begins another one; that one may find no account any more, and says that nobody has confirmed
//!   anything.
//!
//! Where the service gives a device up by itself, its rows go in the same commit as the session's, so that nothing has to be made
//! good after a crash. [`Task::Forget`](crate::Task::Forget), which follows, ends whatever runs, and forgets what that may have
//! written since.
//!
//! # The end of a run
//!
//! [`DeviceBackend::flush`], then [`DeviceBackend::close`]. After `close` nothing of the run is written any more, whatever tasks of
//! its client are still about; only then are these ended where they are, and only then may the next run of the session begin or its
//! rows be removed.
//!
//! # Limits
//!
//! A value has at most 1 MiB; whatever is larger is refused with an error, which stops nothing but the one call. A pending inbound
//! message that large is not kept instead, because the client would otherwise hold up all messages that came with it: it is delivered
//! all the same, unless a crash comes between its session and the gateway's commit.

mod app_state;
mod device;
mod kinds;
mod pile;
mod protocol;
mod signal;
mod write_behind;

use std::sync::Arc;

use portcullis_core::{DeviceChange, DeviceStore, DeviceStoreError, OrgId, SessionId};
use serde::de::DeserializeOwned;
use whatsapp_rust::Jid;
use whatsapp_rust::wacore::store::error::{Result, StoreError};

use kinds::{Kind, unreadable};
pub use write_behind::KeepError;
use write_behind::{When, WriteBehind};

/// The storage of one run of one session.
pub struct DeviceBackend {
    rows: Arc<WriteBehind>,
    /// Held while something is read to be changed.
    turn: tokio::sync::Mutex<()>,
}

/// The account that a device is linked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedDevice {
    /// The device's address under the account's phone number.
    pub pn: Jid,
    /// The device's address under the account's LID.
    pub lid: Option<Jid>,
    /// What the account calls itself; empty if that is not known yet.
    pub push_name: String,
}

impl DeviceBackend {
    /// The storage of a new run.
    #[must_use]
    pub fn new(devices: Arc<dyn DeviceStore>, org: OrgId, session: SessionId) -> Arc<Self> {
        Arc::new(Self { rows: WriteBehind::new(devices, org, session), turn: tokio::sync::Mutex::default() })
    }

    /// The account that the stored device is linked to; none if there is no device or it is not linked.
    ///
    /// # Errors
    /// If the device cannot be read.
    pub async fn linked(&self) -> Result<Option<LinkedDevice>> {
        let device = whatsapp_rust::wacore::store::traits::DeviceStore::load(self).await?;
        // The client sets the number before the account, and answers the phone after both.
        Ok(device.filter(|device| device.account.is_some()).and_then(|device| {
            let lid = device.lid.filter(|lid| !lid.user.is_empty());
            Some(LinkedDevice { pn: device.pn?, lid, push_name: device.push_name })
        }))
    }

    /// Makes everything durable that was written so far. The device itself is written by the client, which is to be asked first.
    ///
    /// # Errors
    /// If the store fails; what waits goes on waiting.
    pub async fn flush(&self) -> std::result::Result<(), KeepError> {
        self.rows.flush().await
    }

    /// Ends all writing. What still waits is dropped, and nothing is written once this has returned.
    pub async fn close(&self) {
        self.rows.close().await;
    }

    async fn get(&self, kind: Kind, name: Vec<u8>) -> Result<Option<Vec<u8>>> {
        self.rows.read(kind as u8, name).await.map_err(broken)
    }

    async fn get_many(&self, kind: Kind, names: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>> {
        self.rows.read_many(kind as u8, names).await.map_err(broken)
    }

    async fn get_json<T: DeserializeOwned>(&self, kind: Kind, name: Vec<u8>) -> Result<Option<T>> {
        self.get(kind, name).await?.map(|value| decoded(&value)).transpose()
    }

    async fn pick<T: Send + 'static>(
        &self,
        kind: Kind,
        pick: impl FnMut(&[u8], &[u8]) -> Option<T> + Send + 'static,
    ) -> Result<Vec<T>> {
        self.rows.pick(kind as u8, pick).await.map_err(broken)
    }

    async fn now(&self, changes: Vec<DeviceChange>) -> Result<()> {
        self.rows.write(changes, When::Now).await.map_err(broken)
    }

    async fn soon(&self, changes: Vec<DeviceChange>) -> Result<()> {
        self.rows.write(changes, When::Soon).await.map_err(broken)
    }

    /// Removes rows of which `is_over` says so; how many there were.
    async fn sweep(&self, kind: Kind, mut is_over: impl FnMut(&[u8]) -> bool + Send + 'static) -> Result<u32> {
        let _turn = self.turn.lock().await;
        let over = self.pick(kind, move |name, value| is_over(value).then(|| name.to_vec())).await?;
        let count = u32::try_from(over.len()).unwrap_or(u32::MAX);
        if count > 0 {
            self.soon(over.into_iter().map(|name| kind.remove(name)).collect()).await?;
        }
        Ok(count)
    }
}

fn decoded<T: DeserializeOwned>(value: &[u8]) -> Result<T> {
    serde_json::from_slice(value).map_err(unreadable)
}

fn broken(error: KeepError) -> StoreError {
    match error {
        KeepError::Store(error @ DeviceStoreError::TooLong { .. }) => StoreError::Validation(error.to_string()),
        error => StoreError::Database(Box::new(error)),
    }
}

#[cfg(test)]
mod test;
