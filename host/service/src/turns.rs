//! Sends that wait for a rate limit: who comes first is served first.
//!
//! A session's waiting sends stand in a line. The first of them waits until its limit may have room, and the others wait for the first;
//! a send that finds a line stands at its end, so that nobody is overtaken. A line exists only while somebody waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_core::{OperationKind, OrgId, Quotas, SessionId};
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::admission::Place;
use crate::execute::BUSY_RETRY;
use crate::outcome::Done;
use crate::ruling::Question;
use crate::undecided::Undecided;
use crate::{Service, ServiceError};

/// For what a send waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// For so long.
    For(Duration),
    /// For fewer than so many of its session's sends to be under way.
    Place(u32),
}

/// The lines.
#[derive(Default)]
pub(crate) struct Turns {
    lines: Arc<Mutex<Lines>>,
    /// Rung when a send under way has ended.
    pub(crate) freed: Arc<Notify>,
}

#[derive(Default)]
struct Lines {
    by_session: HashMap<SessionId, (Arc<tokio::sync::Mutex<()>>, u32)>,
    /// How many wait, by organisation.
    by_org: HashMap<OrgId, u32>,
}

/// A place in a session's line, and its head once it is reached.
pub(crate) struct Turn {
    lines: Arc<Mutex<Lines>>,
    session: SessionId,
    org: OrgId,
    head: Option<OwnedMutexGuard<()>>,
}

/// The line is as long as it may be, or nobody was served in it before patience ended.
struct TooLong;

impl Turns {
    /// Whether somebody waits for this session.
    fn has_line(&self, session: SessionId) -> bool {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.by_session.contains_key(&session)
    }

    /// A place at the end of a session's line; none if the organisation has `at_most` in its lines already.
    fn join(&self, session: SessionId, org: OrgId, at_most: u32) -> Option<(Turn, Arc<tokio::sync::Mutex<()>>)> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.by_org.get(&org).copied().unwrap_or_default() >= at_most {
            return None;
        }
        *lines.by_org.entry(org).or_default() += 1;
        let (line, standing) = lines.by_session.entry(session).or_default();
        *standing += 1;
        let line = Arc::clone(line);
        Some((Turn { lines: Arc::clone(&self.lines), session, org, head: None }, line))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // The next one may begin before the line is looked at again, and finds it still there.
        self.head = None;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, standing)) = lines.by_session.get_mut(&self.session) {
            *standing -= 1;
            if *standing == 0 {
                lines.by_session.remove(&self.session);
            }
        }
        if let Some(waiting) = lines.by_org.get_mut(&self.org) {
            *waiting -= 1;
            if *waiting == 0 {
                lines.by_org.remove(&self.org);
            }
        }
    }
}

impl Service {
    /// Decides a question within the bounds on operations under way. Who waits for a rate limit takes no place meanwhile.
    pub(crate) async fn ask_in_place(self: &Arc<Self>, mut question: Question) -> Result<Done, ServiceError> {
        if let Some(session) = self.line_of(&question)
            && let Err(TooLong) = self.stand(session, &mut question).await
        {
            return Err(self.turned_away(&question).await);
        }
        loop {
            let place = self.enter(question.org)?;
            // The pipeline's state is large; whoever waits in line should not carry it.
            match Box::pin(self.decide(&question)).await {
                Ok(done) => return Ok(done),
                Err(Undecided::Failed(error)) => return Err(error),
                Err(Undecided::Wait(wait)) => {
                    drop(place);
                    if let Err(TooLong) = self.wait_turn(&mut question, wait).await {
                        return Err(self.turned_away(&question).await);
                    }
                }
            }
        }
    }

    /// Takes a place for an operation of an organisation.
    pub(crate) fn enter(&self, org: OrgId) -> Result<Place, ServiceError> {
        let quota = self.concurrency(org);
        self.places.enter(org, quota).map_err(|_full| ServiceError::Busy { retry_after: BUSY_RETRY })
    }

    fn concurrency(&self, org: OrgId) -> u32 {
        // The platform is no organisation, and is bounded like one.
        let platform = (org == OrgId::PLATFORM).then(|| Quotas::default().concurrency);
        platform.or_else(|| self.org(org).map(|org| org.quotas.concurrency)).unwrap_or(0)
    }

    /// The session in whose line a question has to stand before it is asked at all: where others wait already.
    fn line_of(&self, question: &Question) -> Option<SessionId> {
        let paced = matches!(question.operation.kind(), OperationKind::MessageSend | OperationKind::NumberCheck);
        let waits = paced && !question.dry_run && question.patience > question.now;
        question.operation.session().filter(|session| waits && self.turns.has_line(*session))
    }

    /// Stands in a session's line until its head is reached, or patience ends.
    async fn stand(&self, session: SessionId, question: &mut Question) -> Result<(), TooLong> {
        let joined = self.turns.join(session, question.org, self.concurrency(question.org));
        let (mut turn, line) = joined.ok_or(TooLong)?;
        tokio::select! {
            // Who is served at the last moment is served.
            biased;
            head = line.lock_owned() => turn.head = Some(head),
            () = self.clock.reach(question.patience) => return Err(TooLong),
            () = question.abandoned() => return Err(TooLong),
        }
        question.turn = Mutex::new(Some(turn));
        // What was full when the line was joined may have room by now.
        question.now = self.now();
        Ok(())
    }

    /// Waits at the head of the session's line until its limit may have room.
    async fn wait_turn(&self, question: &mut Question, wait: Wait) -> Result<(), TooLong> {
        let Some(session) = question.operation.session() else { return Ok(()) };
        let until = match wait {
            Wait::For(duration) => question.now.after(duration),
            Wait::Place(_) => question.patience,
        };
        if !question.has_turn() {
            self.stand(session, question).await?;
        }
        match wait {
            Wait::For(_) => tokio::select! {
                () = self.clock.reach(until) => {}
                () = question.abandoned() => return Err(TooLong),
            },
            Wait::Place(at_most) => {
                let freed = self.turns.freed.notified();
                tokio::pin!(freed);
                freed.as_mut().enable();
                if self.sends_under_way(session) >= at_most {
                    tokio::select! {
                        () = freed => {}
                        () = self.clock.reach(until) => {}
                        () = question.abandoned() => return Err(TooLong),
                    }
                }
            }
        }
        question.now = self.now();
        Ok(())
    }

    /// Nobody waits longer than they have patience for. How long the line takes nobody knows, so a second is as good an advice as any.
    async fn turned_away(&self, question: &Question) -> ServiceError {
        self.limited(question, None, BUSY_RETRY, None).await
    }
}

impl Question {
    /// Completes once whoever asked is gone; never if nobody waits.
    async fn abandoned(&self) {
        match self.caller.clone() {
            Some(mut caller) => while caller.changed().await.is_ok() {},
            None => std::future::pending().await,
        }
    }

    fn has_turn(&self) -> bool {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Lets the next one in the line be asked: this one is counted.
    pub(crate) fn give_turn_on(&self) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(turn);
    }
}
