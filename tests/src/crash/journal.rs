//! What was asked, and what was acknowledged: the run's own log, against which the gateway is held.
//!
//! A mutating call ends in one of three ways. It was answered with success, and its line in the audit must be there once.
//! It was answered with a refusal, and nothing may have come of it. Or it was not answered, and its line may be there or not, but not twice.
//!
//! A call with an idempotency key that was not answered is made again, and then it must be clear whether it was done: what is answered
//! again, or can only be answered with the sentence that its answer is lost, has its line from before; what is done now has none.

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
    /// Calls with keys that were not answered yet, by their keys.
    open: HashMap<String, Open>,
    /// What was done before it was asked for again: its line must be there.
    required: HashMap<What, usize>,
    /// What was refused before it was asked for again, perhaps: its line may be there, and says so.
    refusable: HashMap<What, usize>,
    /// Requests with which the run was prepared.
    prepared: HashSet<String>,
    counts: Counts,
    faults: Vec<(Fault, String)>,
}

/// A call with a key that was not answered yet.
struct Open {
    what: What,
    /// How often it was made without an answer, less the lines that were found of that.
    attempts: usize,
    /// Whether a line says that it was done.
    done: bool,
    /// Whether its lines cannot be told from those of other calls.
    unsure: bool,
}

/// What a call with a key comes to that was not answered at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It was done before.
    Before,
    /// It is done now.
    Now,
    /// It was not done, and is not.
    Refused,
}

/// How often what happened.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) acknowledged: usize,
    pub(super) refused: usize,
    pub(super) unanswered: usize,
    /// Requests that were made again with their keys and answered as they had been, or would have been.
    pub(super) replayed: usize,
    /// Of the others: those whose answer is shown once, whose session is erased, whose answer nobody has heard, or that were under way.
    pub(super) shown: usize,
    pub(super) erased: usize,
    pub(super) replies_lost: usize,
    pub(super) in_flight: usize,
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

    /// Counts something.
    pub(super) fn count(&self, of: impl FnOnce(&mut Counts)) {
        of(&mut self.state().counts);
    }

    /// A call with a key was not answered, and will be made again. `is_again` says that it may leave no line.
    pub(super) fn unanswered_keyed(&self, key: &str, what: Option<What>, is_again: bool) {
        let mut state = self.state();
        state.counts.unanswered += 1;
        let Some(what) = what else { return };
        if let Some(open) = state.open.get_mut(key) {
            open.attempts += 1;
            return;
        }
        let mut unsure = is_again || state.unanswered.get(&what).is_some_and(|count| *count > 0);
        for other in state.open.values_mut().filter(|other| other.what == what) {
            (other.unsure, unsure) = (true, true);
        }
        state.open.insert(key.to_owned(), Open { what, attempts: 1, done: false, unsure });
    }

    /// It was answered.
    pub(super) fn answered_keyed(&self, key: &str, again: Again) {
        let mut state = self.state();
        let Some(Open { what, attempts, done, unsure }) = state.open.remove(key) else { return };
        let mut left = attempts;
        match again {
            Again::Before if !done && left > 0 => {
                left -= 1;
                let lines = if unsure { &mut state.unanswered } else { &mut state.required };
                *lines.entry(what.clone()).or_default() += 1;
            }
            Again::Now | Again::Refused if done && !unsure => {
                let said = format!("{what:?} was done, and with the same key it is now {again:?}");
                state.faults.push((Fault::Duplicated, said));
            }
            Again::Before | Again::Now | Again::Refused => {}
        }
        if unsure {
            *state.unanswered.entry(what).or_default() += left;
        } else {
            *state.refusable.entry(what).or_default() += left;
        }
    }

    /// Whether an unanswered call explains a line, and explains nothing more then. `done` is what the line says.
    pub(super) fn take_unanswered(&self, what: &What, done: bool) -> bool {
        fn took(lines: &mut HashMap<What, usize>, what: &What) -> bool {
            let Some(count) = lines.get_mut(what).filter(|count| **count > 0) else { return false };
            *count -= 1;
            true
        }
        let state = &mut *self.state();
        if done && took(&mut state.required, what) {
            return true;
        }
        let mut fits = state.open.values_mut().filter(|open| open.what == *what && open.attempts > 0);
        if let Some(open) = fits.find(|open| !(done && open.done)) {
            open.attempts -= 1;
            open.done |= done;
            return true;
        }
        (!done && took(&mut state.refusable, what)) || took(&mut state.unanswered, what)
    }

    /// Every line there is of these organisations was read: what was not answered and has none was not done and will not be, unless it
    /// waits. And what has to have one is lost.
    pub(super) fn all_was_read(&self, of: impl Fn(&str) -> bool) {
        let state = &mut *self.state();
        let waits = |what: &What| ["message.send", "event.tell", "session.delete"].contains(&what.operation);
        state.unanswered.retain(|what, _| !of(&what.org) || waits(what));
        for (what, count) in state.required.extract_if(|what, count| of(&what.org) && *count > 0) {
            let said = format!("{what:?} was answered as done before, {count} times, and is not in the audit");
            state.faults.push((Fault::Lost, said));
        }
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
