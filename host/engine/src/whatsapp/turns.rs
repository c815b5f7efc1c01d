//! Turns: how many sessions connect at the same time.
//!
//! A gateway that starts has all its sessions to bring back. If all connected at once, WhatsApp would see a storm from one
//! address, and none of them would be done before its deadline. So each waits for its turn; its deadline counts from there.
//! Somebody waits for those that pair, so that they have turns of their own; who unlinks waits for nobody.
//!
//! Organisations take turns at turns, and nobody has one for long: sessions of one whose proxy never answers keep nobody else waiting.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_core::{Attempt, OrgId, SessionId};
use tokio::sync::oneshot;

/// How long at most a turn begins late that was waited for, so that turns do not begin in lockstep.
const JITTER: Duration = Duration::from_millis(200);
/// How long somebody who has not connected has a turn. They go on trying without one.
pub(super) const LASTS: Duration = Duration::from_secs(5);

/// The turns there are.
pub(super) struct Turns(Arc<Mutex<State>>);

struct State {
    free: usize,
    /// Those who wait, in their order. Nobody does while a turn is free.
    waiting: BTreeMap<OrgId, VecDeque<oneshot::Sender<Turn>>>,
    /// Whose turn was the last.
    last: OrgId,
}

/// Being allowed to connect; whoever has connected, or will not, lets go of it.
pub(super) struct Turn(Arc<Mutex<State>>);

impl Turns {
    pub(super) fn new(at_once: usize) -> Self {
        let state = State { free: at_once.max(1), waiting: BTreeMap::new(), last: OrgId::PLATFORM };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Waits for a turn. Those of one organisation come in the order in which they are asked for.
    pub(super) async fn take(&self, org: OrgId, session: SessionId, attempt: Attempt) -> Turn {
        let (next, mine) = oneshot::channel();
        let free = {
            let mut state = locked(&self.0);
            if state.free > 0 {
                (state.free, state.last) = (state.free - 1, org);
                Some(Turn(Arc::clone(&self.0)))
            } else {
                state.waiting.entry(org).or_default().push_back(next);
                None
            }
        };
        if let Some(turn) = free {
            return turn;
        }
        let turn = mine.await.expect("whoever waits is given a turn and never forgotten");
        tokio::time::sleep(jitter(session, attempt)).await;
        turn
    }
}

impl State {
    /// Who is next: somebody of the organisation after the last one.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let after = (Bound::Excluded(self.last), Bound::Unbounded);
        let org = self.waiting.range(after).next().or_else(|| self.waiting.iter().next()).map(|(org, _)| *org)?;
        self.last = org;
        let waiting = self.waiting.get_mut(&org)?;
        let next = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&org);
        }
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = locked(&self.0);
            let next = state.next();
            if next.is_none() {
                state.free += 1;
            }
            next
        };
        // Who does not wait any more drops what it is given, and so passes it on.
        if let Some(next) = next {
            drop(next.send(Turn(Arc::clone(&self.0))));
        }
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A part of [`JITTER`] that is this run's own.
fn jitter(session: SessionId, attempt: Attempt) -> Duration {
    // The bytes of an id end in random ones, and are spread well enough without a generator.
    let bytes = session.to_bytes();
    let own = bytes.iter().rev().take(4).fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let millis = u64::try_from(JITTER.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(own.wrapping_add(attempt.number().wrapping_mul(61)) % millis)
}

#[cfg(test)]
mod test {
    use futures_util::FutureExt;

    use super::*;

    const ACME: OrgId = OrgId::from_bytes([1; 16]);
    const OTHER: OrgId = OrgId::from_bytes([2; 16]);

    fn take(turns: &Turns, org: OrgId) -> std::pin::Pin<Box<dyn Future<Output = Turn> + '_>> {
        Box::pin(turns.take(org, SessionId::from_bytes([0; 16]), Attempt::default()))
    }

    #[tokio::test]
    async fn only_so_many_have_a_turn_at_once_and_the_next_follows_the_first_to_let_go() {
        let turns = Turns::new(2);
        let (first, _second) = (take(&turns, ACME).await, take(&turns, ACME).await);
        let mut third = take(&turns, ACME);
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        third.await;
    }

    /// The story: forty sessions of one organisation had a proxy that never answered, and those of another waited two minutes.
    #[tokio::test]
    async fn organisations_take_turns() {
        let turns = Turns::new(1);
        let first = take(&turns, ACME).await;
        let (mut second, mut third) = (take(&turns, ACME), take(&turns, ACME));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        let mut others = take(&turns, OTHER);
        assert!((&mut others).now_or_never().is_none());
        drop(first);
        drop(others.await);
        drop(second.await);
        third.await;
    }

    #[tokio::test]
    async fn who_does_not_wait_any_more_passes_the_turn_on() {
        let turns = Turns::new(1);
        let first = take(&turns, ACME).await;
        let (mut second, mut third) = (take(&turns, ACME), take(&turns, ACME));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        drop(first);
        // It has been given the turn, and has not taken it yet.
        drop(second);
        drop(third.await);
        assert_eq!(locked(&turns.0).free, 1);
    }

    #[test]
    fn turns_begin_late_by_different_times_and_never_by_much() {
        let late = |n: u8, attempt| jitter(SessionId::from_bytes([n; 16]), attempt);
        let all: std::collections::BTreeSet<_> = (0..100).map(|n| late(n, Attempt::default())).collect();
        assert!(all.len() > 20, "{all:?}");
        assert!(all.iter().all(|late| *late < JITTER));
        assert_ne!(late(1, Attempt::default()), late(1, Attempt::default().next()));
    }
}
