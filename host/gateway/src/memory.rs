//! What the allocator holds and nobody uses goes back to the system.
//!
//! The allocator gives back what was not used for a second, but looks for it only when a thread ends, or after very many allocations.
//! A gateway whose sessions are idle does neither, and would keep for hours what their start took. So a thread ends every now and
//! then. It has to have allocated something, because a thread that has not is none of the allocator's.

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// How often. What is taken again after it was given back costs a page fault for each page, which is nothing once in so long.
const EVERY: Duration = Duration::from_secs(5);

/// Gives back what nobody uses, again and again.
pub(crate) async fn give_back() {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A system that has no thread to spare has more to do than this; it is tried again.
        let _ = thread::Builder::new().name("memory".to_owned()).spawn(|| drop(black_box(Box::new(0_u8))));
    }
}
