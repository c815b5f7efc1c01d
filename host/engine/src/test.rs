//! A device store in memory, for the engine alone; the gateway's is tested with the store.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};

use portcullis_core::{DeviceChange, DeviceStore, DeviceStoreError, OrgId, SessionId};
use tokio::sync::Notify;

/// Rows, how often they were changed, and what stands in the way of the next change.
#[derive(Default)]
pub(crate) struct Memory {
    state: Mutex<State>,
    let_go: Condvar,
    arrived: Notify,
    committed: Notify,
}

#[derive(Default)]
struct State {
    rows: BTreeMap<(SessionId, u8, Vec<u8>), Vec<u8>>,
    commits: usize,
    failure: Option<DeviceStoreError>,
    held: bool,
}

impl Memory {
    /// How many commits there were.
    pub(crate) fn commits(&self) -> usize {
        self.state().commits
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.state().rows.len()
    }

    /// Lets every write fail from now on, or none.
    pub(crate) fn fail(&self, failure: Option<DeviceStoreError>) {
        self.state().failure = failure;
    }

    /// Stops every write before it does anything, or lets them go.
    pub(crate) fn hold(&self, held: bool) {
        self.state().held = held;
        self.let_go.notify_all();
    }

    /// Completes when a write has come.
    pub(crate) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// Completes when a write was done.
    pub(crate) async fn commit(&self) {
        self.committed.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl DeviceStore for Memory {
    fn read(
        &self,
        _org: OrgId,
        session: SessionId,
        kind: u8,
        name: &[u8],
    ) -> Result<Option<Vec<u8>>, DeviceStoreError> {
        Ok(self.state().rows.get(&(session, kind, name.to_vec())).cloned())
    }

    fn each(
        &self,
        _org: OrgId,
        session: SessionId,
        kind: u8,
        see: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), DeviceStoreError> {
        let state = self.state();
        let of_kind = state.rows.iter().filter(|((owner, of, _), _)| (*owner, *of) == (session, kind));
        of_kind.for_each(|((.., name), value)| see(name, value));
        Ok(())
    }

    fn write(&self, _org: OrgId, session: SessionId, changes: Vec<DeviceChange>) -> Result<(), DeviceStoreError> {
        self.arrived.notify_one();
        let mut state = self.let_go.wait_while(self.state(), |state| state.held).unwrap();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        for change in changes {
            let rows = &mut state.rows;
            match change {
                DeviceChange::Put { kind, name, value } => drop(rows.insert((session, kind, name), value)),
                DeviceChange::Remove { kind, name } => drop(rows.remove(&(session, kind, name))),
                DeviceChange::RemoveAll { kind } => rows.retain(|(owner, of, _), _| (*owner, *of) != (session, kind)),
                DeviceChange::Clear => rows.retain(|(owner, ..), _| *owner != session),
            }
        }
        state.commits += 1;
        self.committed.notify_one();
        Ok(())
    }
}
