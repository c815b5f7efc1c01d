//! The runs there are: at most one of each session that counts, and those that are still on their way out.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_core::{Attempt, SessionId};
use tokio::sync::watch;

use super::reports::RunId;
use super::run::Run;

/// The runs of all sessions.
#[derive(Default)]
pub(super) struct Registry {
    places: BTreeMap<SessionId, Place>,
    next: RunId,
    is_closed: bool,
}

/// The runs of one session.
#[derive(Default)]
struct Place {
    current: Option<Arc<Run>>,
    leaving: Vec<Arc<Run>>,
}

impl Registry {
    /// The run of a session that counts.
    pub(super) fn current(&self, session: SessionId) -> Option<&Arc<Run>> {
        self.places.get(&session)?.current.as_ref()
    }

    /// All runs that count.
    pub(super) fn all(&self) -> Vec<(SessionId, Attempt)> {
        let runs = self.places.values().filter_map(|place| place.current.as_ref());
        runs.map(|run| (run.session, run.attempt)).collect()
    }

    /// All runs, whether they count or not.
    pub(super) fn everybody(&self) -> Vec<Arc<Run>> {
        let places = self.places.values();
        places.flat_map(|place| place.current.iter().chain(&place.leaving)).cloned().collect()
    }

    /// The number of the next run; none if there is to be none.
    pub(super) fn number(&mut self) -> Option<RunId> {
        self.next += 1;
        (!self.is_closed).then_some(self.next)
    }

    /// Makes `run` the one that counts. Answers for whose ends it has to wait.
    pub(super) fn enter(&mut self, run: Arc<Run>) -> Vec<watch::Receiver<bool>> {
        let place = self.places.entry(run.session).or_default();
        if let Some(old) = place.current.replace(run) {
            old.halt();
            place.leaving.push(old);
        }
        place.leaving.iter().map(|old| old.ended.subscribe()).collect()
    }

    /// The run does not count any more, but is not gone yet.
    pub(super) fn leave(&mut self, run: &Run) {
        if let Some(place) = self.places.get_mut(&run.session)
            && let Some(current) = place.current.take_if(|current| current.id == run.id)
        {
            place.leaving.push(current);
        }
    }

    /// The run is gone.
    pub(super) fn gone(&mut self, run: &Run) {
        self.leave(run);
        if let Some(place) = self.places.get_mut(&run.session) {
            place.leaving.retain(|leaving| leaving.id != run.id);
            if place.current.is_none() && place.leaving.is_empty() {
                self.places.remove(&run.session);
            }
        }
    }

    /// Takes every run of a session off, so that none counts any more.
    pub(super) fn dismiss(&mut self, session: SessionId) -> Vec<Arc<Run>> {
        let Some(place) = self.places.get_mut(&session) else { return Vec::new() };
        place.leaving.extend(place.current.take());
        place.leaving.clone()
    }

    /// Begins no run any more.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }
}
