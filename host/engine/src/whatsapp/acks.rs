//! WhatsApp's answers to messages that were sent.
//!
//! The client says that a message is on its way and nothing more; that WhatsApp took it, or did not, is an event of its own,
//! which may come before the sending call returns. So who sends says beforehand which answer it waits for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_core::Timestamp;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// WhatsApp's answer to one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The code of a refusal; none if it was taken.
    pub(super) error: Option<String>,
    /// WhatsApp's time.
    pub(super) at: Option<Timestamp>,
}

/// Who waits for which answer.
#[derive(Default)]
pub(super) struct Acks {
    /// Nothing, while there is no connection on which an answer could come.
    waiting: Mutex<Option<Waiting>>,
}

type Waiting = HashMap<String, oneshot::Sender<Answer>>;

/// Waiting for one answer. Dropping it ends that.
pub(super) struct Awaited {
    acks: Arc<Acks>,
    id: String,
    answer: oneshot::Receiver<Answer>,
}

impl Acks {
    /// There is a connection, on which answers come.
    pub(super) fn open(&self) {
        self.waiting().get_or_insert_default();
    }

    /// Waits for the answer to the message `id` from now on; nothing, if there is nobody to answer.
    pub(super) fn expect(self: &Arc<Self>, id: &str) -> Option<Awaited> {
        let (tell, answer) = oneshot::channel();
        self.waiting().as_mut()?.insert(id.to_owned(), tell);
        Some(Awaited { acks: Arc::clone(self), id: id.to_owned(), answer })
    }

    /// Tells who waits for it, if anybody does.
    pub(super) fn settle(&self, id: &str, answer: Answer) {
        let waiting = self.waiting().as_mut().and_then(|waiting| waiting.remove(id));
        if let Some(waiting) = waiting {
            let _ = waiting.send(answer);
        }
    }

    /// No answer comes any more: they do not outlive their connection.
    pub(super) fn give_up(&self) {
        *self.waiting() = None;
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaited {
    /// The answer; none if there will be none, or not by `end`.
    pub(super) async fn answer_by(&mut self, end: Instant) -> Option<Answer> {
        timeout_at(end, &mut self.answer).await.ok()?.ok()
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if let Some(waiting) = self.acks.waiting().as_mut() {
            waiting.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod test {
    use std::time::Duration;

    use super::*;

    fn taken() -> Answer {
        Answer { error: None, at: Some(Timestamp::from_millis(5)) }
    }

    fn opened() -> Arc<Acks> {
        let acks = Arc::new(Acks::default());
        acks.open();
        acks
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn an_answer_reaches_who_waits_for_it_even_if_it_comes_first() {
        let acks = opened();
        let (mut a, mut b) = (acks.expect("A").unwrap(), acks.expect("B").unwrap());
        acks.settle("B", Answer { error: Some("463".to_owned()), at: None });
        acks.settle("A", taken());
        acks.settle("C", taken());
        assert_eq!(a.answer_by(late()).await, Some(taken()));
        assert_eq!(b.answer_by(late()).await.unwrap().error.as_deref(), Some("463"));
    }

    #[tokio::test]
    async fn nobody_is_remembered_who_has_stopped_waiting() {
        let acks = opened();
        drop(acks.expect("A"));
        assert_eq!(acks.waiting().as_ref().map(HashMap::len), Some(0));
        let mut b = acks.expect("B").unwrap();
        assert_eq!(b.answer_by(Instant::now()).await, None);
        drop(b);
        assert_eq!(acks.waiting().as_ref().map(HashMap::len), Some(0));
    }

    /// The story: the connection was cut between the look at it and the beginning of the wait. Nobody could answer any more, and the
    /// text's task waited for ever and held the client.
    #[tokio::test]
    async fn nobody_waits_without_a_connection() {
        let acks = opened();
        let mut a = acks.expect("A").unwrap();
        acks.give_up();
        assert_eq!(a.answer_by(late()).await, None);
        assert!(acks.expect("B").is_none());
        // The next connection has answers of its own, and forgets nobody by being told of twice.
        acks.open();
        let mut c = acks.expect("C").unwrap();
        acks.open();
        acks.settle("C", taken());
        assert_eq!(c.answer_by(late()).await, Some(taken()));
    }
}
