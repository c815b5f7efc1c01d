//! The queue of messages that nobody waits for: accepted in a commit, sent when their session can, in the order of their coming.
//!
//! A session's messages are sent one after the other, under the same policies and limits as all sends.
//! What the queue holds is in the store; what is here is only the order of it, and is made again at every start.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_core::message::INTERRUPTED;
use portcullis_core::verdict::Verdict;
use portcullis_core::{
    EventBody, Intent, MessageId, MessageState, Operation, OperationKind, OrgId, OutgoingMessage, Refusal, SessionId,
    Status, Target, Timestamp,
};
use portcullis_engine::SendError;
use portcullis_store::{Commit, Expectation, MessagePhase, Quota, QuotaKind, Write};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::execute::domain_events;
use crate::ruling::{Question, Tracked};
use crate::sending::{Dispatched, row, take_key};
use crate::undecided::Unsettled;
use crate::{Service, ServiceError, confirming};

/// How long a message may wait to be sent.
const EXPIRES_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// When a message is tried again after something that has nothing to do with it.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a message waits at most before its limit is looked at again: a looser policy may have been chosen meanwhile.
const LIMITED: Duration = Duration::from_secs(60);
/// How often a message is accepted anew because something changed meanwhile.
const TRIES: usize = 3;
/// How many sessions send from their queues at once.
const AT_ONCE: usize = 64;
/// How long the queue rests when nothing is due.
const REST: Duration = Duration::from_secs(30);

/// The lines of queued messages.
#[derive(Default)]
pub(crate) struct Queue {
    lines: Mutex<HashMap<SessionId, Line>>,
    /// Messages that were being sent when the gateway ended.
    interrupted: Mutex<Vec<OutgoingMessage>>,
    /// Rung when a message may be sent.
    pub(crate) stirred: Notify,
}

struct Line {
    org: OrgId,
    messages: VecDeque<Waiting>,
    /// When the first of them may be tried.
    not_before: Timestamp,
}

/// A message in a line.
struct Waiting {
    id: MessageId,
    /// When it was asked for.
    since: Timestamp,
}

impl Line {
    /// When the first message is no longer sent, but fails.
    fn expires_at(&self) -> Option<Timestamp> {
        self.messages.front().map(|first| first.since.after(EXPIRES_AFTER))
    }
}

/// What became of the first message of a line.
enum Tried {
    /// It is out of the line.
    Over,
    /// It stays, until then.
    Again(Timestamp),
}

impl Queue {
    /// Takes a message over that was in the store at the start.
    pub(crate) fn found(&self, message: &OutgoingMessage) {
        match message.state {
            MessageState::Sending => {
                self.interrupted.lock().unwrap_or_else(PoisonError::into_inner).push(message.clone());
            }
            _ => self.push(message.org, message.session, Waiting { id: message.id, since: message.created_at }),
        }
    }

    fn push(&self, org: OrgId, session: SessionId, message: Waiting) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let usual = || Line { org, messages: VecDeque::new(), not_before: Timestamp::default() };
        lines.entry(session).or_insert_with(usual).messages.push_back(message);
    }

    fn settle(&self, session: SessionId, message: MessageId, tried: &Tried) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(line) = lines.get_mut(&session) else { return };
        match tried {
            Tried::Again(at) => line.not_before = *at,
            Tried::Over => {
                line.messages.retain(|waiting| waiting.id != message);
                line.not_before = Timestamp::default();
                if line.messages.is_empty() {
                    lines.remove(&session);
                }
            }
        }
    }
}

impl Service {
    /// Accepts a message to be sent later, if policy has nothing against it now. It is asked again when the message is sent.
    pub(crate) async fn enqueue(self: &Arc<Self>, question: &Question) -> Result<Dispatched, ServiceError> {
        let (Operation::MessageSend(send), Some(tracked)) = (&question.operation, &question.message) else {
            return Err(ServiceError::NotFound("message"));
        };
        let _place = self.enter(question.org)?;
        for _ in 0..TRIES {
            let case = self.case(question)?;
            let session = case.session.as_ref().ok_or(ServiceError::NotFound("session"))?;
            match (&session.status, &session.intent) {
                (Status::Removing { .. }, _) => return Err(Refusal::Removing.into()),
                (_, Intent::Removed { .. }) => return Err(Refusal::PendingDelete.into()),
                _ => {}
            }
            let mut ruling = self.rule(question, &case).await?;
            if question.dry_run {
                let message = row(question, tracked, send, MessageState::Queued, question.now);
                return self.try_queueing(question, &case, ruling, message).await.map(Dispatched::Done);
            }
            let mut commit = Commit::new(question.org, question.now);
            commit.expect.push(Expectation::Org(Some(case.org.generation)));
            commit.expect.push(Expectation::Session(session.id, Some(session.generation)));
            commit.decision = ruling.record.take();
            commit.tallies = std::mem::take(&mut ruling.tallies);
            let decision = commit.decision.as_ref().map(|record| record.id);
            let denied = match &ruling.verdict {
                Verdict::Denied { denials } => self.veto(question, commit, denials.clone()).await,
                Verdict::ConfirmationRequired { prompts } => {
                    Err(self.ask_back(question, commit, &ruling, prompts, Some(session)).await)
                }
                Verdict::Deferred { .. } | Verdict::Allowed(_) => {
                    confirming::use_up(question, &ruling, &mut commit);
                    let queued = row(question, tracked, send, MessageState::Queued, question.now);
                    // Nobody is there to be asked again when it is sent.
                    let message = OutgoingMessage { confirmed: ruling.given.clone(), ..queued };
                    commit.writes.push(Write::PutMessage(message));
                    commit.expect.push(Expectation::Message { session: session.id, id: tracked.id, state: None });
                    commit.idempotency = take_key(tracked, send, question.now);
                    commit.quotas.push(Quota { of: QuotaKind::QueuedMessages, max: case.org.quotas.queued_messages });
                    match self.commit(commit).await {
                        // Nothing that a plugin could overdraw is kept before the message is sent.
                        Err(Unsettled::Conflict | Unsettled::Overdrawn(_)) => continue,
                        Err(Unsettled::Failed(error)) => return Err(error),
                        Err(Unsettled::Wait(_)) | Ok(()) => {}
                    }
                    self.queue.push(question.org, session.id, Waiting { id: tracked.id, since: question.now });
                    self.queue.stirred.notify_one();
                    return Ok(Dispatched::Queued { message: tracked.id, decision });
                }
            };
            match denied {
                Err(Unsettled::Failed(error)) => return Err(error),
                Ok(_) | Err(Unsettled::Conflict | Unsettled::Wait(_) | Unsettled::Overdrawn(_)) => {}
            }
        }
        Err(ServiceError::Contention)
    }

    /// Says of every message that was being sent when the gateway ended that nobody knows what became of it.
    pub(crate) async fn fail_interrupted(&self) {
        let interrupted = std::mem::take(&mut *self.queue.interrupted.lock().unwrap_or_else(PoisonError::into_inner));
        for message in interrupted {
            self.fail(&message, MessagePhase::Sending, INTERRUPTED).await;
        }
    }

    /// Sends from the queue whenever something of it can be sent.
    pub(crate) async fn run_queue(self: Arc<Self>) {
        loop {
            let worked = self.send_queued().await;
            let now = self.now();
            let rest = now.after(if worked { Duration::ZERO } else { AGAIN });
            let next = self.next_queued().map_or_else(|| now.after(REST), |at| at.max(rest));
            tokio::select! {
                () = self.queue.stirred.notified() => {}
                () = self.clock.reach(next) => {}
            }
        }
    }

    /// Tries the first message of every line whose time has come. Answers whether the store took it all.
    pub(crate) async fn send_queued(self: &Arc<Self>) -> bool {
        let now = self.now();
        let due: Vec<_> = {
            let lines = self.queue.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let due = lines.iter().filter(|(session, line)| self.try_at(**session, line).is_some_and(|at| at <= now));
            due.filter_map(|(session, line)| Some((line.org, *session, line.messages.front()?.id))).collect()
        };
        let mut all_well = true;
        let mut sending = JoinSet::new();
        for (org, session, message) in due {
            if sending.len() >= AT_ONCE {
                all_well &= sending.join_next().await.is_none_or(|done| done.unwrap_or(false));
            }
            let service = Arc::clone(self);
            sending.spawn(async move {
                let tried = service.try_queued(org, session, message).await;
                service.queue.settle(session, message, tried.as_ref().unwrap_or(&Tried::Over));
                tried.is_some()
            });
        }
        while let Some(done) = sending.join_next().await {
            all_well &= done.unwrap_or(false);
        }
        all_well
    }

    /// When something of the queue is to be tried by time alone.
    pub(crate) fn next_queued(&self) -> Option<Timestamp> {
        let lines = self.queue.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter_map(|(session, line)| self.try_at(*session, line)).min()
    }

    /// When the first message of a line is to be tried. One whose session is not connected waits for that, but expires in time.
    fn try_at(&self, session: SessionId, line: &Line) -> Option<Timestamp> {
        let session = self.views.get(line.org, session);
        if session.is_none_or(|session| matches!(session.status, Status::Online { .. })) {
            return Some(line.not_before);
        }
        line.expires_at().map(|at| at.max(line.not_before))
    }

    /// Tries one queued message; none if even that could not be written down, and the next start will find it again.
    async fn try_queued(self: &Arc<Self>, org: OrgId, session: SessionId, id: MessageId) -> Option<Tried> {
        let now = self.now();
        let again = Some(Tried::Again(now.after(AGAIN)));
        let Ok(snapshot) = self.store.snapshot() else { return again };
        let message = match snapshot.message(org, session, id) {
            Ok(Some(message)) if message.state == MessageState::Queued => message,
            Ok(_) => return Some(Tried::Over),
            Err(_) => return again,
        };
        if now.since(message.created_at) >= EXPIRES_AFTER {
            return self.fail(&message, MessagePhase::Queued, "expired").await.then_some(Tried::Over);
        }
        let target = Target::session(org, session);
        let permitted = match self.as_of_now(&message.asked_by) {
            Ok(asker) => self.permit(&asker, OperationKind::MessageSend, target, message.request).await,
            Err(denial) => Err(denial.into()),
        };
        let result = match permitted {
            Ok(_) => self.ask_queued(&message, now).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => Some(Tried::Over),
            Err(ServiceError::Limited { retry_after, .. }) => Some(Tried::Again(now.after(retry_after.min(LIMITED)))),
            Err(
                ServiceError::Send(SendError::NotConnected)
                | ServiceError::Busy { .. }
                | ServiceError::Contention
                | ServiceError::Store(_)
                | ServiceError::Suspended,
            ) if self.is_queued(&message) => again,
            Err(error) => {
                // What WhatsApp refused is written down already; what policy or the lifecycle refused is not.
                if self.is_queued(&message) && !self.fail(&message, MessagePhase::Queued, error.code()).await {
                    return again;
                }
                Some(Tried::Over)
            }
        }
    }

    async fn ask_queued(self: &Arc<Self>, message: &OutgoingMessage, now: Timestamp) -> Result<(), ServiceError> {
        let operation = Operation::MessageSend(message.content.clone());
        let question = Question {
            request: message.request,
            message: Some(Tracked { id: message.id, key: None, queued_at: Some(message.created_at) }),
            confirmed: message.confirmed.clone(),
            ..Question::new(message.org, message.asked_by.clone(), operation, now)
        };
        self.ask_in_place(question).await.map(drop)
    }

    fn is_queued(&self, message: &OutgoingMessage) -> bool {
        let found =
            self.store.snapshot().and_then(|snapshot| snapshot.message(message.org, message.session, message.id));
        // A store that cannot be read says nothing; then the message is looked at again.
        found.map_or(true, |found| found.is_some_and(|found| found.state == MessageState::Queued))
    }

    /// Writes down that a message will not be sent. Answers whether that could be done, or was so already.
    async fn fail(&self, message: &OutgoingMessage, from: MessagePhase, code: &str) -> bool {
        let now = self.now();
        let mut commit = Commit::new(message.org, now);
        commit.expect.push(Expectation::Message { session: message.session, id: message.id, state: Some(from) });
        let (code, to) = (code.to_owned(), message.content.to.clone());
        if let Some(session) = self.views.get(message.org, message.session) {
            let body = EventBody::MessageFailed { delivery: message.id, to, code: code.clone() };
            commit.events = domain_events(&session, now, vec![body]);
        }
        let failed = OutgoingMessage { state: MessageState::Failed { code }, updated_at: now, ..message.clone() };
        commit.writes.push(Write::PutMessage(failed));
        match self.write(commit, 0).await {
            Ok(_) => true,
            Err(portcullis_store::CommitError::Conflict | portcullis_store::CommitError::UnknownSession(_)) => true,
            Err(error) => {
                tracing::error!(message = %message.id, error = &error as &dyn std::error::Error, "a failed message was not recorded");
                false
            }
        }
    }
}
