//! What WhatsApp is asked for: messages, number checks and presence, within the session's rate limits.
//!
//! A send is counted in the commit that comes before it, so that no crash and no concurrency lets more through than the limit.
//! What is used up makes the caller wait, as long as they have patience, and is refused otherwise.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::operation::{Presence, SendText};
use portcullis_core::verdict::Allowance;
use portcullis_core::{
    Attempt, AuditOutcome, DecisionId, DecisionRecord, Denial, EventBody, LimitCheck, MessageId, MessageState,
    Operation, OperationKind, OutgoingMessage, Permit, RateLimits, Session, SessionId, Status, Timestamp,
};
use portcullis_engine::{OutgoingText, SendError};
use portcullis_store::{Commit, CommitError, Expectation, IdempotencyRecord, MessagePhase, Write};

use crate::execute::{BUSY_RETRY, domain_events, extend};
use crate::observing::{Unended, answered};
use crate::outcome::{Call, Done, Outcome};
use crate::plan::Outgoing;
use crate::ruling::{Case, Question, Tracked};
use crate::turns::Wait;
use crate::undecided::Unsettled;
use crate::{Service, ServiceError, mint};

/// Of an organisation's places, one in so many may be taken by what lingers.
const LINGERING_SHARE: u32 = 4;

/// How a message is asked for.
#[derive(Debug, Clone, Default)]
pub struct SendCall {
    /// What every operation has.
    pub call: Call,
    /// The caller's key, under which the same message is not sent twice within 24 hours.
    pub key: Option<String>,
    /// Whether the answer does not wait for WhatsApp.
    pub queue: bool,
}

/// What became of a request to send.
#[derive(Debug, Clone)]
pub enum Dispatched {
    /// It was sent, or only tried.
    Done(Done),
    /// It waits to be sent.
    Queued {
        /// The message.
        message: MessageId,
        /// The decision that let it through so far; policy is asked again when it is sent.
        decision: Option<DecisionId>,
    },
    /// The same key came before; this is what became of that message.
    Replayed(Box<OutgoingMessage>),
}

/// A message that WhatsApp has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// WhatsApp's id of it.
    pub id: String,
    /// When WhatsApp took it.
    pub at: Timestamp,
    /// Its text as it went out, which policy may have changed.
    pub text: String,
}

impl Service {
    /// Sends a text, or queues it.
    ///
    /// # Errors
    /// Every way of not doing it; see [`ServiceError`].
    pub async fn send(
        self: &Arc<Self>,
        permit: &Permit,
        send: SendText,
        SendCall { call, key, queue }: SendCall,
    ) -> Result<Dispatched, ServiceError> {
        let fits = permit.kind() == OperationKind::MessageSend && permit.target().session == Some(send.session);
        if !fits {
            return Err(Denial::Hidden.into());
        }
        if !call.dry_run
            && let Some(known) = self.replay(permit, key.as_deref())?
        {
            return Ok(known);
        }
        let now = self.now();
        let tracked = queue || key.is_some();
        let message = tracked.then(|| Tracked { id: mint::id(MessageId::new, now), key: key.clone(), queued_at: None });
        let question = Question {
            patience: now.after(self.send_patience),
            message,
            ..Question::asked(permit, Operation::MessageSend(send), call, now)
        };
        let sent =
            if queue { self.enqueue(&question).await } else { self.ask_in_place(question).await.map(Dispatched::Done) };
        match sent {
            // Somebody else came with the same key at the same time, and was first.
            Err(ServiceError::Contention) => self.replay(permit, key.as_deref())?.ok_or(ServiceError::Contention),
            sent => sent,
        }
    }

    /// What became of the message that was asked for under this key before.
    fn replay(&self, permit: &Permit, key: Option<&str>) -> Result<Option<Dispatched>, ServiceError> {
        let Some(key) = key else { return Ok(None) };
        let snapshot = self.store.snapshot()?;
        let org = permit.target().org;
        let Some((session, message)) = snapshot.idempotency(org, key, self.now())? else { return Ok(None) };
        if permit.principal().session_scope.is_some_and(|scope| scope != session) {
            // The key is another session's, of which this caller knows nothing; nor may it be used twice.
            return Err(ServiceError::IdempotencyKeyTaken);
        }
        let found = snapshot.message(org, session, message)?.ok_or(ServiceError::NotFound("message"))?;
        Ok(Some(Dispatched::Replayed(Box::new(found))))
    }

    /// What became of a message that is remembered.
    ///
    /// # Errors
    /// If there is none, or the store cannot be read.
    pub fn message(&self, permit: &Permit, id: MessageId) -> Result<OutgoingMessage, ServiceError> {
        crate::queries::expect(permit, OperationKind::MessageRead)?;
        let target = permit.target();
        let session = target.session.ok_or(ServiceError::NotFound("session"))?;
        let found = self.store.snapshot()?.message(target.org, session, id)?;
        found.ok_or(ServiceError::NotFound("message"))
    }

    /// Counts and records what WhatsApp is asked for, then asks.
    pub(crate) async fn call(
        self: &Arc<Self>,
        question: &Question,
        case: &Case,
        mut commit: Commit,
        outgoing: Outgoing,
        allowance: &Allowance,
    ) -> Result<Done, Unsettled> {
        let Some(session) = &case.session else { return Err(ServiceError::NotFound("session").into()) };
        let Status::Online { attempt } = session.status else { return Err(not_connected().into()) };
        let decision = commit.decision.as_ref().map(|record| record.id);
        let limits = self.rate_limits(question, case).await?;
        let checks = outgoing.checks(&limits, session.id);
        let at_once = matches!(outgoing, Outgoing::Send(_)).then_some(limits.concurrent_limit);
        // Who is shown for a while takes a place for as long; others of the organisation's must still find one.
        let lingers = match &outgoing {
            Outgoing::Send(send) => send.typing_millis > 0,
            Outgoing::Presence { hold, .. } => *hold > Duration::ZERO,
            Outgoing::Check(_) => false,
        };
        let quota = case.org.quotas.concurrency.div_ceil(LINGERING_SHARE);
        let lingering = lingers.then(|| self.lingering.enter(question.org, quota)).transpose();
        let _lingering = lingering.map_err(|_full| ServiceError::Busy { retry_after: BUSY_RETRY })?;
        let sending = match at_once.map(|at_most| (self.begin_sending(session.id, at_most), at_most)) {
            None => None,
            Some((Some(sending), _)) => Some(sending),
            Some((None, at_most)) => {
                return Err(self.wait_or_refuse(question, Wait::Place(at_most), None, commit.decision).await);
            }
        };
        let plugin_limits = &allowance.limits;
        let rate_count = checks.len();
        commit.limits = checks;
        commit.limits.extend(plugin_limits.iter().map(|limit| limit.check.clone()));
        commit.audit.push(question.audit(AuditOutcome::Done, decision, Some(session.id)));
        commit.done = Some(question.operation.kind());
        if let (Outgoing::Send(send), Some(tracked)) = (&outgoing, &question.message) {
            track(question, tracked, send, &mut commit);
        }
        let extended = extend(question, case, &mut commit, allowance);
        let unended = self.tell_begun(question, case, &mut commit);
        let record = commit.decision.clone();
        match self.write(commit, question.depth()).await {
            Ok(_) => {
                question.told.set();
                // That WhatsApp did not take a message is said by a second line.
                question.noted.set();
                question.give_turn_on();
                if let Some(session) = &extended {
                    self.publish(session);
                }
            }
            Err(CommitError::Limited { index, retry_after }) => {
                let limit = index.checked_sub(rate_count).and_then(|index| plugin_limits.get(index));
                if limit.is_some() && !question.is_from_queue() {
                    return Err(self.limited(question, limit, retry_after, record).await.into());
                }
                return Err(self.wait_or_refuse(question, Wait::For(retry_after), limit, record).await);
            }
            Err(error) => return Err(error.into()),
        }
        let session = extended.unwrap_or_else(|| Arc::clone(session));
        let outcome = match outgoing {
            Outgoing::Send(send) => {
                let sent = self.send_text(question, &session, attempt, send, decision, unended).await;
                drop(sending);
                Outcome::Sent(sent?)
            }
            Outgoing::Check(numbers) => {
                let checked = self.engine.check_numbers(session.id, attempt, numbers).await;
                self.tell_outcome(question, unended, &answered(&checked)).await;
                Outcome::Checked(checked.map_err(ServiceError::Send)?)
            }
            Outgoing::Presence { chat, presence, hold } => {
                let shown = self.engine.show_presence(session.id, attempt, chat, presence).await;
                self.tell_outcome(question, unended, &answered(&shown)).await;
                shown.map_err(ServiceError::Send)?;
                self.clock.reach(self.now().after(hold)).await;
                Outcome::Done
            }
        };
        Ok(Done { session: Some(session), outcome, decision })
    }

    async fn send_text(
        &self,
        question: &Question,
        session: &Session,
        attempt: Attempt,
        send: SendText,
        decision: Option<DecisionId>,
        unended: Unended,
    ) -> Result<Sent, Unsettled> {
        if send.typing_millis > 0 {
            // That nobody sees it typing is no reason not to send.
            let chat = Some(send.to.clone());
            let _ = self.engine.show_presence(session.id, attempt, chat, Presence::Composing).await;
            let typing = Duration::from_millis(u64::from(send.typing_millis));
            self.clock.reach(self.now().after(typing)).await;
        }
        let text = OutgoingText {
            to: send.to.clone(),
            text: send.text.clone(),
            reply_to: send.reply_to.clone(),
            mentions: send.mentions.clone(),
            mention_all: send.mention_all,
            link_preview: send.link_preview,
        };
        let sent = self.engine.send_text(session.id, attempt, text, self.now()).await;
        let now = self.now();
        let mut told = Commit::new(question.org, now);
        let mut waits_again = false;
        let tracked = question.message.as_ref();
        let state = match &sent {
            Ok(sent) => {
                let delivery = tracked.map(|tracked| tracked.id);
                let (message, to, text) = (sent.id.clone(), send.to.clone(), Some(send.text.clone()));
                let body = EventBody::MessageOut { message, to, delivery, text };
                told.events = domain_events(session, now, vec![body]);
                MessageState::Sent { message: sent.id.clone(), at: sent.at }
            }
            Err(error) => {
                // It was counted, because it might have gone out; the audit says that it did not.
                let code = ServiceError::Send(*error).code().to_owned();
                let refused = AuditOutcome::Refused { code: code.clone() };
                told.audit.push(question.audit(refused, decision, Some(session.id)));
                if question.is_from_queue() && *error == SendError::NotConnected {
                    // The connection was lost at the last moment: nothing went out, and the message waits for the next one.
                    waits_again = true;
                    MessageState::Queued
                } else {
                    if let Some(tracked) = tracked {
                        let body =
                            EventBody::MessageFailed { delivery: tracked.id, to: send.to.clone(), code: code.clone() };
                        told.events = domain_events(session, now, vec![body]);
                    }
                    MessageState::Failed { code }
                }
            }
        };
        if let Some(tracked) = tracked {
            told.writes.push(Write::PutMessage(row(question, tracked, &send, state, now)));
        }
        match waits_again {
            true => unended.never(&mut told),
            false => unended.end(&mut told, &answered(&sent)),
        }
        // The message is out, or was refused: that this could not be written down must not make the caller send it again.
        if let Err(error) = self.write(told, question.depth()).await {
            tracing::error!(session = %session.id, error = &error as &dyn std::error::Error, "what became of a message was not recorded");
        }
        let sent = sent.map_err(ServiceError::Send)?;
        Ok(Sent { id: sent.id, at: sent.at, text: send.text })
    }

    /// What a used-up rate limit means: another try later, for whoever has the patience, or a refusal.
    async fn wait_or_refuse(
        &self,
        question: &Question,
        wait: Wait,
        limit: Option<&portcullis_core::verdict::Limit>,
        record: Option<DecisionRecord>,
    ) -> Unsettled {
        let retry_after = match wait {
            Wait::For(duration) => duration,
            Wait::Place(_) => BUSY_RETRY,
        };
        let waits = match wait {
            Wait::For(duration) => self.now().after(duration) <= question.patience,
            Wait::Place(_) => self.now() < question.patience,
        };
        if waits {
            return Unsettled::Wait(wait);
        }
        if question.is_from_queue() {
            // A queued message is not refused, it only stays queued; there is nobody to be told.
            let message = "send rate limit exceeded".to_owned();
            return ServiceError::Limited { decision: None, message, retry_after }.into();
        }
        self.limited(question, limit, retry_after, record).await.into()
    }
}

impl Outgoing {
    /// What has to be passed before WhatsApp is asked.
    pub(crate) fn checks(&self, limits: &RateLimits, session: SessionId) -> Vec<LimitCheck> {
        match self {
            Self::Send(send) => limits.send_checks(session, send.is_for_group()),
            Self::Check(_) => limits.number_checks(session),
            Self::Presence { .. } => Vec::new(),
        }
    }
}

impl Question {
    /// Whether it sends a message that was queued.
    pub(crate) fn is_from_queue(&self) -> bool {
        self.message.as_ref().is_some_and(|tracked| tracked.queued_at.is_some())
    }
}

/// Remembers a message in the commit that counts it.
fn track(question: &Question, tracked: &Tracked, send: &SendText, commit: &mut Commit) {
    let state = tracked.queued_at.map(|_| MessagePhase::Queued);
    commit.expect.push(Expectation::Message { session: send.session, id: tracked.id, state });
    commit.writes.push(Write::PutMessage(row(question, tracked, send, MessageState::Sending, question.now)));
    commit.idempotency = take_key(tracked, send, question.now);
}

/// The idempotency key of a message that is new.
pub(crate) fn take_key(tracked: &Tracked, send: &SendText, now: Timestamp) -> Option<IdempotencyRecord> {
    let key = tracked.key.clone().filter(|_| tracked.queued_at.is_none())?;
    Some(IdempotencyRecord { key, session: send.session, message: tracked.id, at: now })
}

/// The row of a message.
pub(crate) fn row(
    question: &Question,
    tracked: &Tracked,
    send: &SendText,
    state: MessageState,
    now: Timestamp,
) -> OutgoingMessage {
    OutgoingMessage {
        id: tracked.id,
        org: question.org,
        session: send.session,
        asked_by: question.principal.clone(),
        request: question.request,
        content: send.clone(),
        state,
        confirmed: question.confirmed.clone(),
        created_at: tracked.queued_at.unwrap_or(question.now),
        updated_at: now,
    }
}

fn not_connected() -> ServiceError {
    ServiceError::Send(SendError::NotConnected)
}
