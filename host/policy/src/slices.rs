//! Time slices: calls that compute for long take turns.
//!
//! Most calls end within a tick or two and hear nothing of this. Whoever goes on needs a slice for every further tick, and gives it back at its end.
//! There are fewer slices than cores, so that plugins that compute leave a core to everything else, and an organisation has only some of them,
//! so that its calls wait for each other sooner than another's wait for them. An organisation that has lately taken slices is in debt,
//! and needs one for the beginning of a call, too: many calls that are long together would hold up others as well as one that is.
//! And while other organisations are being served, it rests after each of its slices.
//!
//! Waiting counts against no plugin: the wall time of a call is the time in which it ran, in ticks.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use portcullis_core::{OrgId, PluginFailure};
use tokio::runtime::{Handle, RuntimeFlavor};
use wasmtime::{Trap, UpdateDeadline};

use crate::machine;
use crate::permits::{Permit, Permits};

/// The most slices that an organisation is remembered to have taken.
const MOST_DEBT: u32 = 32;

/// For how long debts stand after anybody has taken a slice.
const LATELY: Duration = Duration::from_secs(10);
/// How many times as long as a slice an organisation rests after it while others are being served.
const REST: u32 = 2;
/// For how long after a call its organisation counts as being served.
const SERVED: Duration = Duration::from_millis(100);

/// The slices of all organisations.
pub(crate) struct Slices {
    permits: Permits,
    patience: Duration,
    /// The organisation that called last, and the one that did before it; each with when.
    callers: Mutex<[Option<(OrgId, Instant)>; 2]>,
    /// How many slices an organisation has taken lately; a call that needed none takes one off.
    debts: Mutex<Debts>,
    /// How many organisations are in debt. While it is none, which is nearly always, a short call touches no lock.
    debtors: AtomicUsize,
}

#[derive(Default)]
struct Debts {
    of: HashMap<OrgId, u32>,
    /// When a slice was last taken.
    charged: Option<Instant>,
}

/// A call waited for its slices for longer than anybody is made to wait.
#[derive(Debug, thiserror::Error)]
#[error("the call waited too long for its turn to compute")]
pub(crate) struct Starved;

impl Slices {
    /// Slices for a machine with so many cores. A call waits for one no longer than `patience`.
    pub(crate) fn new(cores: usize, patience: Duration) -> Self {
        let slices = cores.saturating_sub(1).max(1);
        Self {
            permits: Permits::new(slices, slices.div_ceil(2), patience),
            patience,
            callers: Mutex::default(),
            debts: Mutex::default(),
            debtors: AtomicUsize::new(0),
        }
    }

    fn called(&self, org: OrgId, now: Instant) {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers[0].is_some_and(|(last, _)| last != org) {
            callers[1] = callers[0];
        }
        callers[0] = Some((org, now));
    }

    fn serves_others(&self, org: OrgId, now: Instant) -> bool {
        let callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        callers.iter().flatten().any(|(caller, when)| *caller != org && now.saturating_duration_since(*when) < SERVED)
    }

    fn has_debtors(&self) -> bool {
        self.debtors.load(Ordering::Relaxed) > 0
    }

    fn is_in_debt(&self, org: OrgId) -> bool {
        if !self.has_debtors() {
            return false;
        }
        let mut debts = self.debts();
        if debts.charged.is_none_or(|when| when.elapsed() >= LATELY) {
            // Nobody computes any more, so nobody has to be kept apart, and whoever was in debt may never call again.
            debts.of.clear();
            self.debtors.store(0, Ordering::Relaxed);
        }
        debts.of.contains_key(&org)
    }

    fn charge(&self, org: OrgId, now: Instant) {
        let mut debts = self.debts();
        debts.charged = Some(now);
        let debt = debts.of.entry(org).or_default();
        *debt = (*debt + 1).min(MOST_DEBT);
        self.debtors.store(debts.of.len(), Ordering::Relaxed);
    }

    fn forgive(&self, org: OrgId) {
        let mut debts = self.debts();
        if let Some(debt) = debts.of.get_mut(&org) {
            *debt -= 1;
            if *debt == 0 {
                debts.of.remove(&org);
                self.debtors.store(debts.of.len(), Ordering::Relaxed);
            }
        }
    }

    fn debts(&self) -> MutexGuard<'_, Debts> {
        self.debts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call's turns.
pub(crate) struct Turns {
    slices: Arc<Slices>,
    org: OrgId,
    wall: Duration,
    began: Instant,
    /// How many ticks it has seen.
    ticks: AtomicU32,
    /// For how long it has waited, in microseconds.
    waited: AtomicU64,
    has_slice: AtomicBool,
    taken: Mutex<Taken>,
}

/// What a call has at the moment.
#[derive(Default)]
struct Taken {
    slice: Option<Slice>,
    starved: bool,
}

/// The right to run until the next tick.
struct Slice {
    permit: Permit,
    since: Instant,
}

impl Turns {
    /// The turns of a call of `org` that may run for `wall`.
    pub(crate) fn new(slices: &Arc<Slices>, org: OrgId, wall: Duration) -> Arc<Self> {
        let began = Instant::now();
        if slices.has_debtors() {
            slices.called(org, began);
        }
        Arc::new(Self {
            slices: Arc::clone(slices),
            org,
            wall,
            began,
            ticks: AtomicU32::new(0),
            waited: AtomicU64::new(0),
            has_slice: AtomicBool::new(false),
            taken: Mutex::default(),
        })
    }

    /// Waits until the call may begin.
    pub(crate) async fn begin(&self) -> Result<(), Starved> {
        if !self.slices.is_in_debt(self.org) {
            return Ok(());
        }
        self.wait(None, true).await;
        if self.taken().starved { Err(Starved) } else { Ok(()) }
    }

    /// Lets the call go on for as long as it does without waiting.
    ///
    /// With a slice it goes on beside the executor, whose other tasks need not wait for the slice's end.
    pub(crate) fn poll<F: Future>(&self, call: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.has_slice.load(Ordering::Relaxed) && Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
            return tokio::task::block_in_place(|| call.poll(context));
        }
        call.poll(context)
    }

    /// For how long the call can be under way: while it runs, and while it waits for its turns.
    pub(crate) fn longest(&self) -> Duration {
        self.wall.saturating_add(self.slices.patience)
    }

    /// For how long the call has run.
    pub(crate) fn ran(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_micros(self.waited.load(Ordering::Relaxed)))
    }

    /// What it means that the call was not over in its [`Self::longest`] time: it ran for too long, or waited too often.
    pub(crate) fn overdue(&self) -> PluginFailure {
        if self.ran() >= self.wall { PluginFailure::Deadline } else { PluginFailure::Overloaded }
    }

    /// What becomes of the call at a tick: it ends, or it goes on when it has its turn.
    pub(crate) fn at_tick(self: &Arc<Self>) -> wasmtime::Result<UpdateDeadline> {
        let mut taken = self.taken();
        if taken.starved {
            return Err(Starved.into());
        }
        // Counted in ticks that the call has seen, so that a machine that gives it no time takes none away from it.
        let seen = self.ticks.fetch_add(1, Ordering::Relaxed);
        if machine::TICK * seen >= self.wall {
            return Err(Trap::Interrupt.into());
        }
        // The first tick may come at once. Only the second says that the call has run for the time between two.
        let is_long = seen > 0;
        let needs_slice = is_long || taken.slice.is_some();
        let ended = taken.slice.take();
        drop(taken);
        self.has_slice.store(false, Ordering::Relaxed);
        if is_long {
            self.slices.charge(self.org, Instant::now());
        }
        let turns = Arc::clone(self);
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(async move { turns.wait(ended, needs_slice).await })))
    }

    /// Waits for the next slice, and lets others run.
    async fn wait(&self, ended: Option<Slice>, needs_slice: bool) {
        let began = Instant::now();
        if let Some(rest) = ended.and_then(|slice| self.rest(slice, self.is_contended())) {
            rest.await;
        }
        if needs_slice {
            let slice = self.slices.permits.take(self.org).await;
            let mut taken = self.taken();
            taken.starved = slice.is_none();
            self.has_slice.store(slice.is_some(), Ordering::Relaxed);
            taken.slice = slice.map(|permit| Slice { permit, since: Instant::now() });
        }
        tokio::task::yield_now().await;
        let waited = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.waited.fetch_add(waited, Ordering::Relaxed);
    }

    fn is_contended(&self) -> bool {
        self.slices.serves_others(self.org, Instant::now())
    }

    /// What has to pass before the organisation has another slice in the place of one that ended.
    fn rest(&self, ended: Slice, contended: bool) -> Option<impl Future<Output = ()> + Send + 'static> {
        let Slice { permit, since } = ended;
        let long = since.elapsed() * REST;
        contended.then(|| {
            let own = permit.into_own();
            async move {
                tokio::time::sleep(long).await;
                drop(own);
            }
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        if !self.slices.has_debtors() {
            return;
        }
        if self.ticks.load(Ordering::Relaxed) <= 1 {
            self.slices.forgive(self.org);
        }
        let ended = self.taken().slice.take();
        if let (Some(rest), Ok(executor)) =
            (ended.and_then(|slice| self.rest(slice, self.is_contended())), Handle::try_current())
        {
            executor.spawn(rest);
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    /// Runs a call's wait for its next tick to the end, and tells whether it may go on.
    async fn tick(turns: &Arc<Turns>) -> Result<(), String> {
        match turns.at_tick() {
            Ok(UpdateDeadline::YieldCustom(_, wait)) => wait.await,
            Ok(_) => return Err("it did not yield".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
        if turns.taken().starved { Err("starved".to_owned()) } else { Ok(()) }
    }

    fn org(n: u8) -> OrgId {
        OrgId::from_bytes([n; 16])
    }

    fn turns(slices: &Arc<Slices>, of: u8) -> Arc<Turns> {
        Turns::new(slices, org(of), Duration::from_secs(3600))
    }

    #[tokio::test]
    async fn the_first_tick_is_free_and_every_other_needs_a_slice() {
        let slices = Arc::new(Slices::new(2, Duration::ZERO));
        let (one, other) = (turns(&slices, 1), turns(&slices, 2));
        assert_eq!(tick(&one).await, Ok(()));
        assert_eq!(tick(&other).await, Ok(()));
        // Two cores have one slice, and the first call has it now.
        assert_eq!(tick(&one).await, Ok(()));
        assert!(one.taken().slice.is_some());
        assert_eq!(tick(&other).await, Err("starved".to_owned()));
        assert_eq!(tick(&other).await, Err(Starved.to_string()));
    }

    #[tokio::test]
    async fn a_slice_is_given_back_at_the_next_tick_and_when_the_call_ends() {
        let slices = Arc::new(Slices::new(1, Duration::from_secs(3600)));
        let (one, other) = (turns(&slices, 1), turns(&slices, 2));
        for turns in [&one, &other] {
            tick(turns).await.unwrap();
        }
        tick(&one).await.unwrap();
        let waiting = tokio::spawn({
            let other = Arc::clone(&other);
            async move { tick(&other).await }
        });
        tokio::task::yield_now().await;
        // The one's own wait can only end after the other's turn, because its slice went there first.
        let again = tokio::spawn({
            let one = Arc::clone(&one);
            async move { tick(&one).await }
        });
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert!(other.taken().slice.is_some() && one.taken().slice.is_none());
        drop(other);
        assert_eq!(again.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn an_organisation_leaves_slices_to_others() {
        // Five cores have four slices, two of which one organisation can have.
        let slices = Arc::new(Slices::new(5, Duration::ZERO));
        let calls = [1, 1, 1, 2].map(|of| turns(&slices, of));
        let mut had = Vec::new();
        for turns in &calls {
            tick(turns).await.unwrap();
            let _starved = tick(turns).await;
            had.push(turns.taken().slice.is_some());
        }
        assert_eq!(had, [true, true, false, true]);
    }

    #[tokio::test]
    async fn whoever_took_slices_needs_one_to_begin_until_as_many_calls_took_none() {
        let slices = Arc::new(Slices::new(2, Duration::ZERO));
        let begins = async |of| {
            let turns = turns(&slices, of);
            turns.begin().await.is_ok() && turns.taken().slice.is_some()
        };
        assert!(!begins(1).await, "nobody needs one at first");
        let long = turns(&slices, 1);
        for _ in 0..4 {
            tick(&long).await.unwrap();
        }
        assert!(turns(&slices, 1).begin().await.is_err(), "the long call has the only slice");
        drop(long);
        // Three slices were taken; the call that found none took one off when it ended.
        assert_eq!([begins(1).await, begins(1).await, begins(1).await], [true, true, false]);
    }

    /// The story: one organisation's plugin computed all the time. It had the only slice of two cores, and that was half of the machine.
    #[tokio::test]
    async fn an_organisation_that_rests_leaves_its_slice_to_others() {
        let slices = Arc::new(Slices::new(2, Duration::ZERO));
        let one = turns(&slices, 1);
        for _ in 0..2 {
            tick(&one).await.unwrap();
        }
        let slice = one.taken().slice.take().unwrap();
        let resting = one.rest(slice, true).unwrap();
        assert!(slices.permits.take(org(1)).await.is_none());
        assert!(slices.permits.take(org(2)).await.is_some());
        drop(resting);
        let permit = slices.permits.take(org(1)).await.unwrap();
        assert!(one.rest(Slice { permit, since: Instant::now() }, false).is_none(), "nobody else is there");
        assert!(slices.permits.take(org(1)).await.is_some());
    }

    /// The story: an organisation computed once and never called again, and every call of all others took locks for its sake from then on.
    #[test]
    fn debts_do_not_outlast_the_computing() {
        let slices = Slices::new(2, Duration::ZERO);
        let long_ago = Instant::now().checked_sub(LATELY).unwrap();
        slices.charge(org(1), long_ago);
        assert!(slices.has_debtors());
        assert!(!slices.is_in_debt(org(2)));
        assert!(!slices.has_debtors() && !slices.is_in_debt(org(1)));
    }

    #[test]
    fn others_are_served_for_a_while_after_their_calls() {
        let slices = Slices::new(2, Duration::ZERO);
        let began = Instant::now();
        let later = |millis| began + Duration::from_millis(millis);
        slices.called(org(1), began);
        assert!(!slices.serves_others(org(1), began));
        slices.called(org(2), later(1));
        slices.called(org(1), later(90));
        slices.called(org(1), later(95));
        assert!(slices.serves_others(org(1), later(100)) && !slices.serves_others(org(1), later(102)));
        assert!(slices.serves_others(org(2), later(194)) && !slices.serves_others(org(2), later(196)));
    }

    #[tokio::test]
    async fn a_call_whose_time_is_up_ends_at_the_tick() {
        let slices = Arc::new(Slices::new(2, Duration::ZERO));
        let turns = Turns::new(&slices, org(1), Duration::ZERO);
        assert_eq!(tick(&turns).await, Err(Trap::Interrupt.to_string()));
    }
}
