//! WhatsApp's answers to messages that were sent.
//!
//! The client says that a message is on its way and nothing more; that WhatsApp took it, or did not, is an event of its own,
//! which may come before the sending call returns. So who sends says beforehand which answer it waits for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_core::Timestamp;
use tokio::sync::oneshot;

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
    waiting: Mutex<HashMap<String, oneshot::Sender<Answer>>>,
}

/// Waiting for one answer. Dropping it ends that.
pub(super) struct Awaited {
    acks: Arc<Acks>,
    id: String,
    answer: oneshot::Receiver<Answer>,
}

impl Acks {
    /// Waits for the answer to the message `id` from now on.
    pub(super) fn expect(self: &Arc<Self>, id: &str) -> Awaited {
        let (tell, answer) = oneshot::channel();
        self.waiting().insert(id.to_owned(), tell);
        Awaited { acks: Arc::clone(self), id: id.to_owned(), answer }
    }

    /// Tells who waits for it, if anybody does.
    pub(super) fn settle(&self, id: &str, answer: Answer) {
        let waiting = self.waiting().remove(id);
        if let Some(waiting) = waiting {
            let _ = waiting.send(answer);
        }
    }

    /// No answer comes any more: they do not outlive their connection.
    pub(super) fn give_up(&self) {
        self.waiting().clear();
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaited {
    /// The answer; none if there will be none.
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.acks.waiting().remove(&self.id);
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn taken() -> Answer {
        Answer { error: None, at: Some(Timestamp::from_millis(5)) }
    }

    #[tokio::test]
    async fn an_answer_reaches_who_waits_for_it_even_if_it_comes_first() {
        let acks = Arc::new(Acks::default());
        let (mut a, mut b) = (acks.expect("A"), acks.expect("B"));
        acks.settle("B", Answer { error: Some("463".to_owned()), at: None });
        acks.settle("A", taken());
        acks.settle("C", taken());
        assert_eq!(a.answer().await, Some(taken()));
        assert_eq!(b.answer().await.unwrap().error.as_deref(), Some("463"));
    }

    #[tokio::test]
    async fn nobody_is_remembered_who_has_stopped_waiting_or_whose_connection_is_gone() {
        let acks = Arc::new(Acks::default());
        drop(acks.expect("A"));
        assert!(acks.waiting().is_empty());
        let mut b = acks.expect("B");
        acks.give_up();
        assert_eq!(b.answer().await, None);
    }
}
