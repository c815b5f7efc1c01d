//! What one run has written and the store has not made durable yet.
//!
//! ```text
//!   writes ──▶ waiting ──▶ flying ──▶ the store
//!                 ▲           │
//!                 └── failed ─┘          reads: waiting, then flying, then the store
//! ```
//!
//! A commit takes everything that waits, so what the store holds is always what the client had written at some moment, never a
//! later write without an earlier one. Everything that this crate allows itself rests on that.
//!
//! One commit is under way at a time. Those who come meanwhile find what they wrote in the next one, together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_core::{
    DEVICE_NAME_BYTES, DEVICE_VALUE_BYTES, DeviceChange, DeviceStore, DeviceStoreError, OrgId, SessionId,
};
use tokio::sync::Semaphore;

use super::pile::{Heap, Pile};

/// How long a write may wait that can.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How many threads may wait for commits, of all sessions; the store makes those that wait durable together.
const COMMITTERS: usize = 64;
/// How many threads may read, of all sessions.
const READERS: usize = 16;

static COMMITS: Semaphore = Semaphore::const_new(COMMITTERS);
static READS: Semaphore = Semaphore::const_new(READERS);

/// When a write has to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Before the call returns.
    Now,
    /// With the next commit, and after [`PATIENCE`] at the latest.
    Soon,
}

/// Why rows could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// The run is over, and writes nothing more.
    #[error("the run is over")]
    Closed,
    /// A task ended early, because the program ends or by a panic.
    #[error("a task that reads or writes the session's rows ended early")]
    Ending,
    /// The store refused.
    #[error("the session's rows could not be read or written")]
    Store(#[source] DeviceStoreError),
}

/// The rows of one session as one run sees them.
pub(super) struct WriteBehind {
    devices: Arc<dyn DeviceStore>,
    org: OrgId,
    session: SessionId,
    state: Mutex<State>,
    /// Held by whoever commits.
    committing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    waiting: Pile,
    flying: Option<Arc<Pile>>,
    /// How many writes there were, and how many of them are durable.
    written: u64,
    durable: u64,
    /// Somebody is going to look whether something waits.
    watched: bool,
    closed: bool,
}

impl WriteBehind {
    pub(super) fn new(devices: Arc<dyn DeviceStore>, org: OrgId, session: SessionId) -> Arc<Self> {
        let (state, committing) = (Mutex::default(), tokio::sync::Mutex::default());
        Arc::new(Self { devices, org, session, state, committing })
    }

    /// Makes `changes` in one step, visible at once.
    ///
    /// After an error the changes may still be made later: they stay with those that wait.
    pub(super) async fn write(self: &Arc<Self>, changes: Vec<DeviceChange>, when: When) -> Result<(), KeepError> {
        if changes.is_empty() {
            return Ok(());
        }
        changes.iter().try_for_each(check_length)?;
        // Room is made before anything is added, so that nothing piles up before a store that fails.
        let crowd = {
            let state = self.state();
            state.waiting.is_full().then_some(state.written)
        };
        if let Some(crowd) = crowd {
            self.settle(crowd).await?;
        }
        let ticket = {
            let mut state = self.state();
            if state.closed {
                return Err(KeepError::Closed);
            }
            changes.into_iter().for_each(|change| state.waiting.add(change));
            state.written += 1;
            if when == When::Soon && !state.waiting.is_full() {
                self.watch(&mut state);
                return Ok(());
            }
            state.written
        };
        self.settle(ticket).await
    }

    /// Makes everything durable that was written so far.
    pub(super) async fn flush(self: &Arc<Self>) -> Result<(), KeepError> {
        let ticket = self.state().written;
        self.settle(ticket).await
    }

    /// Ends all writing. What waits is dropped; a commit that is under way is waited for.
    pub(super) async fn close(&self) {
        {
            let mut state = self.state();
            state.closed = true;
            state.waiting = Pile::default();
        }
        drop(self.committing.lock().await);
    }

    /// The value of a row.
    pub(super) async fn read(self: &Arc<Self>, kind: u8, name: Vec<u8>) -> Result<Option<Vec<u8>>, KeepError> {
        Ok(self.read_many(kind, vec![name]).await?.pop().flatten())
    }

    /// The values of some rows of a kind, in the order of the names.
    pub(super) async fn read_many(
        self: &Arc<Self>,
        kind: u8,
        names: Vec<Vec<u8>>,
    ) -> Result<Vec<Option<Vec<u8>>>, KeepError> {
        let said: Vec<_> = {
            let state = self.state();
            names.iter().map(|name| state.says(kind, name).map(|value| value.map(<[u8]>::to_vec))).collect()
        };
        if said.iter().all(Option::is_some) {
            return Ok(said.into_iter().map(Option::flatten).collect());
        }
        let this = Arc::clone(self);
        blocking(&READS, move || {
            let read = |(said, name): (Option<Option<Vec<u8>>>, Vec<u8>)| match said {
                Some(value) => Ok(value),
                None => this.devices.read(this.org, this.session, kind, &name),
            };
            said.into_iter().zip(names).map(read).collect()
        })
        .await
    }

    /// What `pick` takes from the names and values of all rows of a kind, in no particular order.
    pub(super) async fn pick<T: Send + 'static>(
        self: &Arc<Self>,
        kind: u8,
        mut pick: impl FnMut(&[u8], &[u8]) -> Option<T> + Send + 'static,
    ) -> Result<Vec<T>, KeepError> {
        // What is said here is looked up before the store is: what is committed in between is then passed over there, and never
        // missed.
        let said = self.state().says_of(kind);
        let this = Arc::clone(self);
        blocking(&READS, move || {
            let mut picked = Vec::new();
            if !said.emptied {
                this.devices.each(this.org, this.session, kind, &mut |name, value| {
                    if !said.rows.contains_key(name) {
                        picked.extend(pick(name, value));
                    }
                })?;
            }
            for (name, value) in &said.rows {
                picked.extend(value.as_deref().and_then(|value| pick(name, value)));
            }
            Ok(picked)
        })
        .await
    }

    /// About how many bytes wait in memory.
    pub(super) fn bytes(&self) -> usize {
        let state = self.state();
        state.waiting.bytes() + state.flying.as_ref().map_or(0, |pile| pile.bytes())
    }

    /// Has somebody look every now and then whether something waits, until nothing does.
    fn watch(self: &Arc<Self>, state: &mut State) {
        if std::mem::replace(&mut state.watched, true) {
            return;
        }
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(PATIENCE).await;
                let Some(this) = this.upgrade() else { return };
                let ticket = {
                    let mut state = this.state();
                    if state.waiting.is_empty() || state.closed {
                        state.watched = false;
                        return;
                    }
                    state.written
                };
                match this.settle(ticket).await {
                    // Of a run that is over, and of a session that is gone, nothing is kept.
                    Ok(()) | Err(KeepError::Closed | KeepError::Store(DeviceStoreError::Gone)) => {}
                    Err(error) => {
                        let (session, source) = (this.session, std::error::Error::source(&error));
                        tracing::warn!(%session, source, "{error}; they are kept in memory, and tried again");
                    }
                }
            }
        });
    }

    /// Waits until the writes up to this one are durable. It is a task of its own, so that a caller who goes away in the middle
    /// leaves nothing half done.
    async fn settle(self: &Arc<Self>, ticket: u64) -> Result<(), KeepError> {
        if self.state().durable >= ticket {
            return Ok(());
        }
        let this = Arc::clone(self);
        tokio::spawn(async move { this.commit(ticket).await }).await.unwrap_or(Err(KeepError::Ending))
    }

    async fn commit(self: &Arc<Self>, ticket: u64) -> Result<(), KeepError> {
        let _committing = self.committing.lock().await;
        let (pile, written) = {
            let mut state = self.state();
            if state.durable >= ticket {
                return Ok(());
            }
            if state.closed {
                return Err(KeepError::Closed);
            }
            let pile = Arc::new(std::mem::take(&mut state.waiting));
            state.flying = Some(Arc::clone(&pile));
            (pile, state.written)
        };
        let this = Arc::clone(self);
        let changes = pile.changes();
        drop(pile);
        let outcome = blocking(&COMMITS, move || this.devices.write(this.org, this.session, changes)).await;
        let mut state = self.state();
        let flown = state.flying.take().and_then(Arc::into_inner).unwrap_or_default();
        match &outcome {
            Ok(()) => state.durable = written,
            Err(KeepError::Store(DeviceStoreError::Gone)) => {
                state.closed = true;
                state.waiting = Pile::default();
            }
            Err(_) if state.closed => {}
            Err(_) => {
                let newer = std::mem::replace(&mut state.waiting, flown);
                state.waiting.cover(newer);
                // Whoever watched may have seen nothing wait while this was on its way.
                self.watch(&mut state);
            }
        }
        outcome
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn says(&self, kind: u8, name: &[u8]) -> Option<Option<&[u8]>> {
        self.waiting.says(kind, name).or_else(|| self.flying.as_ref()?.says(kind, name))
    }

    fn says_of(&self, kind: u8) -> Heap {
        let mut heap = Heap::default();
        if let Some(flying) = &self.flying {
            flying.says_of(kind, &mut heap);
        }
        self.waiting.says_of(kind, &mut heap);
        heap
    }
}

/// Refused before it waits: a commit that cannot succeed would stand in the way of all others.
fn check_length(change: &DeviceChange) -> Result<(), KeepError> {
    let (kind, name, value) = match change {
        DeviceChange::Put { kind, name, value } => (*kind, name.len(), value.len()),
        DeviceChange::Remove { kind, name } => (*kind, name.len(), 0),
        DeviceChange::RemoveAll { .. } | DeviceChange::Clear => return Ok(()),
    };
    if name > DEVICE_NAME_BYTES || value > DEVICE_VALUE_BYTES {
        return Err(KeepError::Store(DeviceStoreError::TooLong { kind, name, value }));
    }
    Ok(())
}

/// Does what blocks on a thread that may, when there is room for one.
async fn blocking<T: Send + 'static>(
    room: &'static Semaphore,
    work: impl FnOnce() -> Result<T, DeviceStoreError> + Send + 'static,
) -> Result<T, KeepError> {
    let _place = room.acquire().await.map_err(|_closed| KeepError::Ending)?;
    tokio::task::spawn_blocking(work).await.map_err(|_panicked| KeepError::Ending)?.map_err(KeepError::Store)
}

#[cfg(test)]
mod test;
