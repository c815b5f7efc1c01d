//! Turns: how many sessions connect at the same time.
//!
//! A gateway that starts has all its sessions to bring back. If all connected at once, WhatsApp would see a storm from one
//! address, and none of them would be done before its deadline. So each waits for its turn; its deadline counts from there.
//! Somebody waits for those that pair, so that they have turns of their own; who unlinks waits for nobody.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{Attempt, SessionId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long at most a turn begins late, so that turns do not begin in lockstep.
const JITTER: Duration = Duration::from_millis(200);

/// The turns there are.
pub(super) struct Turns {
    places: Arc<Semaphore>,
}

/// Being allowed to connect; whoever has connected, or will not, lets go of it.
pub(super) struct Turn {
    _place: OwnedSemaphorePermit,
}

impl Turns {
    pub(super) fn new(at_once: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(at_once.max(1))) }
    }

    /// Waits for a turn. They come in the order in which they are asked for.
    pub(super) async fn take(&self, session: SessionId, attempt: Attempt) -> Turn {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("the places are never closed");
        tokio::time::sleep(jitter(session, attempt)).await;
        Turn { _place: place }
    }
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

    #[tokio::test]
    async fn only_so_many_have_a_turn_at_once_and_the_next_follows_the_first_to_let_go() {
        let turns = Turns::new(2);
        let take = |n: u8| turns.take(SessionId::from_bytes([n; 16]), Attempt::default());
        let (first, _second) = (take(1).await, take(2).await);
        let mut third = Box::pin(take(3));
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        third.await;
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
