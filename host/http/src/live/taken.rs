//! Answers that come piece by piece, and clients that do not take them.
//!
//! A client that takes nothing is cut off with its connection by the kernel's clock (see [`crate::server`]). On HTTP/2 one
//! stream can stand still while the others of its connection go on, so an answer that nobody asks for its next piece
//! is dropped with all that it holds. What holds something that others need back has a time at which it ends besides.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{Stream, poll_fn};
use tokio::time::{Instant, sleep};

use super::HEARTBEAT;

/// How long a piece may lie there untaken.
const UNTAKEN: Duration = Duration::from_secs(30);

/// The pieces, for as long as somebody asks for them, and until some time at most.
pub(crate) fn while_taken<S: Stream + Send + 'static>(
    pieces: S,
    until: Option<Instant>,
) -> impl Stream<Item = S::Item> + Send + 'static
where
    S::Item: Send,
{
    let held = Arc::new(Mutex::new(Held { asked_at: Instant::now(), until, pieces: Some(Box::pin(pieces)) }));
    let seen = Arc::downgrade(&held);
    tokio::spawn(async move {
        loop {
            sleep(HEARTBEAT).await;
            let Some(held) = seen.upgrade() else { return };
            if held.lock().unwrap_or_else(PoisonError::into_inner).is_dropped(Instant::now()) {
                return;
            }
        }
    });
    poll_fn(move |context| held.lock().unwrap_or_else(PoisonError::into_inner).poll(context))
}

/// What pieces come from. There is one at least every [`HEARTBEAT`], and whoever takes it asks for the next at once; when nobody
/// has asked for much longer, or the time is over, it is dropped with all that it holds.
struct Held<S> {
    asked_at: Instant,
    until: Option<Instant>,
    pieces: Option<Pin<Box<S>>>,
}

impl<S: Stream> Held<S> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.asked_at = Instant::now();
        self.pieces.as_mut().map_or(Poll::Ready(None), |pieces| pieces.as_mut().poll_next(context))
    }

    /// Drops it if it is time. Answers whether it is gone.
    fn is_dropped(&mut self, now: Instant) -> bool {
        let is_late = self.until.is_some_and(|until| now > until);
        if is_late || now.duration_since(self.asked_at) > HEARTBEAT + UNTAKEN {
            self.pieces = None;
        }
        self.pieces.is_none()
    }
}

#[cfg(test)]
mod test {
    use std::task::Waker;

    use futures_util::stream::{StreamExt, repeat};

    use super::*;

    /// On HTTP/2 a client could let all the streams of its key stand still, and nobody else had any.
    #[test]
    fn whoever_takes_nothing_for_long_loses_the_place() {
        let place = Arc::new(());
        let of_stream = Arc::clone(&place);
        let pieces = repeat(7).inspect(move |_| assert!(Arc::strong_count(&of_stream) > 1));
        let mut held = Held { asked_at: Instant::now(), until: None, pieces: Some(Box::pin(pieces)) };
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(held.poll(&mut context), Poll::Ready(Some(7)));
        assert!(!held.is_dropped(held.asked_at + HEARTBEAT + UNTAKEN));
        assert_eq!((held.poll(&mut context), Arc::strong_count(&place)), (Poll::Ready(Some(7)), 2));
        assert!(held.is_dropped(held.asked_at + HEARTBEAT + UNTAKEN + Duration::from_millis(1)));
        assert_eq!((held.poll(&mut context), Arc::strong_count(&place)), (Poll::Ready(None), 1));
    }

    #[test]
    fn what_takes_too_long_in_all_ends() {
        let until = Instant::now() + UNTAKEN;
        let mut held = Held { asked_at: until, until: Some(until), pieces: Some(Box::pin(repeat(7))) };
        assert!(!held.is_dropped(until));
        assert!(held.is_dropped(until + Duration::from_millis(1)));
        assert_eq!(held.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(None));
    }
}
