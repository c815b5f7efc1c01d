//! The two clocks: the system's, and one that moves only when it is told to.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_core::{Clock, Timestamp};
use tokio::sync::watch;

/// The system's clock, as `serve` uses it.
#[derive(Debug, Default)]
pub struct SystemClock {
    /// The latest time that was given out. A system clock that is set back stands still here until it has caught up,
    /// so that no deadline moves away and no window counts twice.
    latest: AtomicU64,
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else takes the time from")]
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let latest = self.latest.fetch_max(now, Ordering::Relaxed);
        Timestamp::from_millis(now.max(latest))
    }

    fn reach(&self, at: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(at.since(self.now())))
    }
}

/// A clock that stands still until it is moved: the demo's and the tests'.
#[derive(Debug)]
pub struct SteppedClock {
    time: watch::Sender<Timestamp>,
    /// The same time in milliseconds, for those who only read it.
    shown: AtomicU64,
}

impl SteppedClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self { time: watch::Sender::new(start), shown: AtomicU64::new(start.as_millis()) }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.time.send_modify(|time| {
            *time = time.after(by);
            // Whoever is woken by the new time reads no older one.
            self.shown.store(time.as_millis(), Ordering::Release);
        });
    }
}

impl Clock for SteppedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.shown.load(Ordering::Acquire))
    }

    fn reach(&self, at: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            // The sender is this clock, which outlives the borrow; an error cannot come.
            let _ = self.time.subscribe().wait_for(|time| *time >= at).await;
        })
    }
}
