//! The tests' clock: it moves only when a test moves it, and it knows who waits for it.
//!
//! A test of waiting has to know that everybody has come to rest before it lets time go on.
//! Whoever waits in the service waits for the clock, so the points in time that are waited for say who rests, and where.

use std::pin::Pin;
use std::time::Duration;

use portcullis_core::{Clock, Timestamp};
use portcullis_service::SteppedClock;
use tokio::sync::watch;

/// Nothing in these tests takes so long, in real time; what does will never come.
const HANGS: Duration = Duration::from_secs(60);

pub(crate) struct TestClock {
    stepped: SteppedClock,
    /// For which points in time somebody waits, earliest first.
    waited_for: watch::Sender<Vec<Timestamp>>,
}

impl TestClock {
    pub(crate) fn new(start: Timestamp) -> Self {
        Self { stepped: SteppedClock::new(start), waited_for: watch::Sender::default() }
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.stepped.advance(by);
    }

    /// Returns once exactly these are the points in time for which somebody waits, in seconds from `since` on.
    pub(crate) async fn rests(&self, since: Timestamp, seconds: &[u64]) {
        let expected: Vec<_> = seconds.iter().map(|seconds| since.after(Duration::from_secs(*seconds))).collect();
        let mut waited_for = self.waited_for.subscribe();
        let rests = waited_for.wait_for(|waited_for| *waited_for == expected);
        if tokio::time::timeout(HANGS, rests).await.is_err() {
            let found = self.waited_for.borrow();
            let found: Vec<_> = found.iter().map(|at| at.since(since).as_millis()).collect();
            panic!("it never rests at {seconds:?} seconds; somebody waits at these milliseconds: {found:?}");
        }
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.stepped.now()
    }

    fn reach(&self, at: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            if self.now() < at {
                let _waiting = Waiting::begin(&self.waited_for, at);
                self.stepped.reach(at).await;
            }
        })
    }
}

struct Waiting<'a> {
    waited_for: &'a watch::Sender<Vec<Timestamp>>,
    at: Timestamp,
}

impl<'a> Waiting<'a> {
    fn begin(waited_for: &'a watch::Sender<Vec<Timestamp>>, at: Timestamp) -> Self {
        waited_for.send_modify(|all| {
            let place = all.partition_point(|other| *other <= at);
            all.insert(place, at);
        });
        Self { waited_for, at }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waited_for.send_modify(|all| {
            let place = all.iter().position(|other| *other == self.at).unwrap();
            all.remove(place);
        });
    }
}
