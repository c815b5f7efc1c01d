//! What was asked, and what was acknowledged: the run's own log, against which the gateway is held.
//!
//! A mutating call ends in one of three ways. It was answered with success, and its line in the audit must be there once.
//! It was answered with a refusal, and nothing may have come of it. Or it was not answered, and its line may be there or not, but not twice.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a call asked for, as the audit names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct What {
    pub(super) org: String,
    pub(super) operation: &'static str,
    /// None for what makes a session.
    pub(super) session: Option<String>,
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Something that was acknowledged is not there.
    Lost,
    /// Something is there twice, or more than was asked for.
    Duplicated,
    /// Two places that are written together do not agree.
    Torn,
    /// Something that has to come to an end by itself does not.
    Stuck,
    /// The store's own verification finds something.
    Finding,
}

#[derive(Default)]
struct State {
    /// By the gateway's id of the request; true for what was done, false for what was refused. Those that were not looked for in the audit yet.
    answered: HashMap<String, (What, bool)>,
    /// The same for what is done later.
    queued: HashMap<String, What>,
    unanswered: HashMap<What, usize>,
    /// Requests with which the run was prepared.
    prepared: HashSet<String>,
    counts: Counts,
    faults: Vec<(Fault, String)>,
}

/// How often what happened.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) acknowledged: usize,
    pub(super) refused: usize,
    pub(super) unanswered: usize,
}

/// The log, which every worker shares.
#[derive(Clone, Default)]
pub(super) struct Journal(Arc<Mutex<State>>);

impl Journal {
    pub(super) fn acknowledged(&self, request: String, what: What) {
        let mut state = self.state();
        state.counts.acknowledged += 1;
        state.answered.insert(request, (what, true));
    }

    /// It was acknowledged, but will only be done later, if ever.
    pub(super) fn queued(&self, request: String, what: What) {
        let mut state = self.state();
        state.counts.acknowledged += 1;
        state.queued.insert(request, what);
    }

    pub(super) fn refused(&self, request: String, what: What) {
        let mut state = self.state();
        state.counts.refused += 1;
        state.answered.insert(request, (what, false));
    }

    pub(super) fn unanswered(&self, what: What) {
        let mut state = self.state();
        state.counts.unanswered += 1;
        *state.unanswered.entry(what).or_default() += 1;
    }

    /// Something was acknowledged that no audit speaks of.
    pub(super) fn acknowledged_without_audit(&self) {
        self.state().counts.acknowledged += 1;
    }

    pub(super) fn prepared(&self, request: String) {
        self.state().prepared.insert(request);
    }

    pub(super) fn is_prepared(&self, request: &str) -> bool {
        self.state().prepared.contains(request)
    }

    pub(super) fn fault(&self, fault: Fault, what: String) {
        self.state().faults.push((fault, what));
    }

    /// The answered call with this request's id, which is looked for no more.
    pub(super) fn take_answered(&self, request: &str) -> Option<(What, bool)> {
        self.state().answered.remove(request)
    }

    /// The call with this request's id that was to be done later.
    pub(super) fn take_queued(&self, request: &str) -> Option<What> {
        self.state().queued.remove(request)
    }

    /// Whether an unanswered call explains this, which explains nothing more then.
    pub(super) fn take_unanswered(&self, what: &What) -> bool {
        let mut state = self.state();
        let Some(count) = state.unanswered.get_mut(what).filter(|count| **count > 0) else { return false };
        *count -= 1;
        true
    }

    /// Every acknowledged call of these organisations that was not found: after all lines of the audit were read, they are lost.
    pub(super) fn take_missing(&self, of: impl Fn(&str) -> bool) -> Vec<(String, What)> {
        let mut state = self.state();
        let mut missing = Vec::new();
        state.answered.retain(|request, (what, done)| {
            if *done && of(&what.org) {
                missing.push((request.clone(), what.clone()));
            }
            false
        });
        missing
    }

    pub(super) fn counts(&self) -> Counts {
        self.state().counts
    }

    pub(super) fn faults(&self) -> Vec<(Fault, String)> {
        self.state().faults.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
