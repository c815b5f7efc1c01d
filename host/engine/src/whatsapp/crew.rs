//! The tasks of one client, so that its end can be waited for.
//!
//! The client starts tasks as it needs them and lets most of them go. Two clients over one store would corrupt it, so that the
//! next run of a session has to know that the last one's client is gone, and not only that it was asked to go: the crew is the
//! client's runtime, knows every task that it has begun, waits for all of them, and ends those that do not end by themselves.
//! Whatever else uses the client is begun here, too: a text that is being sent holds the client as well.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use whatsapp_rust::Runtime;
use whatsapp_rust::wacore::runtime::AbortHandle;

/// The tasks of one client. Clones are the same crew.
#[derive(Clone)]
pub(super) struct Crew {
    handle: Handle,
    tasks: Arc<Tasks>,
}

#[derive(Default)]
struct Tasks {
    state: Mutex<State>,
    gone: Notify,
}

#[derive(Default)]
struct State {
    is_dismissed: bool,
    next: u64,
    /// A task is here from before it begins; its handle comes a moment later, and blocking work has none.
    running: HashMap<u64, Option<tokio::task::AbortHandle>>,
}

/// Takes a task off the list when it ends, however that happens.
struct Member {
    tasks: Arc<Tasks>,
    number: u64,
}

impl Crew {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle, tasks: Arc::default() }
    }

    /// Begins a task, unless the crew was dismissed.
    pub(super) fn begin(&self, task: impl Future<Output = ()> + Send + 'static) -> Option<tokio::task::AbortHandle> {
        let member = self.enlist()?;
        let number = member.number;
        let handle = self
            .handle
            .spawn(async move {
                let _member = member;
                task.await;
            })
            .abort_handle();
        let mut state = self.tasks.state();
        if let Some(place) = state.running.get_mut(&number) {
            *place = Some(handle.clone());
        }
        if state.is_dismissed {
            handle.abort();
        }
        Some(handle)
    }

    /// Ends every task that can be ended, and lets none begin any more.
    pub(super) fn dismiss(&self) {
        let mut state = self.tasks.state();
        state.is_dismissed = true;
        for task in state.running.values().flatten() {
            task.abort();
        }
    }

    /// Waits until no task is left.
    pub(super) async fn gone(&self) {
        loop {
            let mut gone = std::pin::pin!(self.tasks.gone.notified());
            gone.as_mut().enable();
            if self.tasks.state().running.is_empty() {
                return;
            }
            gone.await;
        }
    }

    fn enlist(&self) -> Option<Member> {
        let mut state = self.tasks.state();
        if state.is_dismissed {
            return None;
        }
        let number = state.next;
        state.next += 1;
        state.running.insert(number, None);
        Some(Member { tasks: Arc::clone(&self.tasks), number })
    }
}

impl Tasks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.tasks.state();
        state.running.remove(&self.number);
        if state.running.is_empty() {
            self.tasks.gone.notify_waiters();
        }
    }
}

#[async_trait]
impl Runtime for Crew {
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send + 'static>>) -> AbortHandle {
        match self.begin(future) {
            Some(task) => AbortHandle::new(move || task.abort()),
            None => AbortHandle::noop(),
        }
    }

    fn spawn_detached(&self, future: Pin<Box<dyn Future<Output = ()> + Send + 'static>>) {
        self.begin(future);
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send + 'static>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        // Work on another thread cannot be stopped, so that it is not begun when nobody would wait for it. Whoever asks for it has
        // been ended and gets no further than this: the client takes work that is over and has said nothing for a panic.
        let Some(member) = self.enlist() else { return Box::pin(std::future::pending()) };
        let done = self.handle.spawn_blocking(move || {
            let _member = member;
            work();
        });
        Box::pin(async move {
            let _ = done.await;
        })
    }

    fn yield_now(&self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        // Other tasks run on other threads meanwhile.
        None
    }
}

#[cfg(test)]
mod test {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_crew_is_gone_when_its_last_task_has_ended() {
        let crew = Crew::new(Handle::current());
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        crew.begin(async move {
            let _ = wait.await;
        });
        let mut gone = Box::pin(crew.gone());
        assert!((&mut gone).now_or_never().is_none());
        go.send(()).unwrap();
        gone.await;
    }

    #[tokio::test]
    async fn a_dismissed_crew_ends_what_would_run_for_ever_and_begins_nothing() {
        let crew = Crew::new(Handle::current());
        crew.begin(std::future::pending());
        let inner = crew.clone();
        crew.begin(async move {
            inner.begin(std::future::pending());
            std::future::pending::<()>().await;
        });
        crew.dismiss();
        crew.gone().await;
        assert!(crew.begin(async { unreachable!("nobody begins this") }).is_none());
        crew.gone().await;
    }

    #[tokio::test]
    async fn work_on_another_thread_belongs_to_the_crew() {
        let crew = Crew::new(Handle::current());
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let work = Runtime::spawn_blocking(&crew, Box::new(move || wait.recv().unwrap()));
        drop(work);
        crew.dismiss();
        let mut gone = Box::pin(crew.gone());
        assert!((&mut gone).now_or_never().is_none());
        go.send(()).unwrap();
        gone.await;
    }

    /// The story: work that was not begun any more seemed to be done, and the client's task panicked on its way out because nothing
    /// had come of it.
    #[tokio::test]
    async fn nobody_hears_that_work_is_done_that_a_dismissed_crew_does_not_begin() {
        let crew = Crew::new(Handle::current());
        crew.dismiss();
        let (tell, told) = std::sync::mpsc::channel();
        let work = Runtime::spawn_blocking(&crew, Box::new(move || tell.send(()).unwrap()));
        assert!(work.now_or_never().is_none());
        assert!(told.recv().is_err(), "it was not begun");
        crew.gone().await;
    }
}
