//! Time slices: calls that compute for long take turns.
//!
//! Most calls end within a tick or two and hear nothing of this. Whoever goes on needs a slice for every further tick, and gives it back at its end.
//! There are fewer slices than cores, so that plugins that compute leave a core to everything else, and an organisation has only some of them,
//! so that its calls wait for each other sooner than another's wait for them.
//!
//! Waiting counts against no plugin: the wall time of a call is the time in which it ran.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_core::{OrgId, PluginFailure};
use wasmtime::{Trap, UpdateDeadline};

use crate::permits::{Permit, Permits};

/// The slices of all organisations.
pub(crate) struct Slices {
    permits: Permits,
    patience: Duration,
}

/// A call waited for its slices for longer than anybody is made to wait.
#[derive(Debug, thiserror::Error)]
#[error("the call waited too long for its turn to compute")]
pub(crate) struct Starved;

impl Slices {
    /// Slices for a machine with so many cores. A call waits for its slices no longer than `patience` in all.
    pub(crate) fn new(cores: usize, patience: Duration) -> Self {
        let slices = cores.saturating_sub(1).max(1);
        Self { permits: Permits::new(slices, slices.div_ceil(2), patience), patience }
    }
}

/// One call's turns.
pub(crate) struct Turns {
    slices: Arc<Slices>,
    org: OrgId,
    wall: Duration,
    began: Instant,
    taken: Mutex<Taken>,
}

/// What a call has had so far.
#[derive(Default)]
struct Taken {
    ticks: u32,
    slice: Option<Permit>,
    waited: Duration,
    starved: bool,
}

impl Turns {
    /// The turns of a call of `org` that may run for `wall`.
    pub(crate) fn new(slices: &Arc<Slices>, org: OrgId, wall: Duration) -> Arc<Self> {
        Arc::new(Self { slices: Arc::clone(slices), org, wall, began: Instant::now(), taken: Mutex::default() })
    }

    /// For how long the call can be under way: while it runs, and while it waits for its turns.
    pub(crate) fn longest(&self) -> Duration {
        self.wall.saturating_add(self.slices.patience)
    }

    /// For how long the call has run.
    pub(crate) fn ran(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.taken().waited)
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
        if self.began.elapsed().saturating_sub(taken.waited) >= self.wall {
            return Err(Trap::Interrupt.into());
        }
        taken.ticks += 1;
        // The first tick may come at once. Only the second says that the call has run for the time between two.
        let needs_slice = taken.ticks > 1;
        taken.slice = None;
        drop(taken);
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(Arc::clone(self).wait(needs_slice))))
    }

    /// Lets others run, and waits for the next slice.
    async fn wait(self: Arc<Self>, needs_slice: bool) {
        let began = Instant::now();
        tokio::task::yield_now().await;
        let slice = if needs_slice { self.slices.permits.take(self.org).await } else { None };
        let mut taken = self.taken();
        taken.waited += began.elapsed();
        taken.starved = needs_slice && slice.is_none();
        taken.slice = slice;
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
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
        tick(&one).await.unwrap_or_default();
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
    async fn a_call_whose_time_is_up_ends_at_the_tick() {
        let slices = Arc::new(Slices::new(2, Duration::ZERO));
        let turns = Turns::new(&slices, org(1), Duration::ZERO);
        assert_eq!(tick(&turns).await, Err(Trap::Interrupt.to_string()));
    }
}
