//! Requests: what happens when somebody asks and policy has agreed.

use super::{Draft, Effect, Refusal, Request, Step, UNLINK_TIMEOUT, may_be_linked};
use crate::receipt::Notify;
use crate::session::{LoggedOutBy, PairingMethod, RemovalStep};
use crate::{EventBody, Intent, Removal, Secret, Session, Status, Timestamp, Unlink};

/// Applies a request.
///
/// # Errors
/// The lifecycle's refusal.
pub fn apply(session: &Session, request: Request, now: Timestamp) -> Result<Step, Refusal> {
    match request {
        Request::Delete { due, reason } => Ok(delete(session, due, reason, now)),
        // Somebody took the delete back meanwhile, or asked for another one: what was decided about it no longer matters.
        Request::Postpone { since, .. } | Request::CancelDelete { since, .. } if !is_wanted_since(session, since) => {
            Ok(Step::Unchanged)
        }
        Request::Postpone { due, reason, .. } => postpone(session, due, reason, now),
        Request::CancelDelete { code, reason, .. } => {
            take_back(session, EventBody::DeleteCancelled { code, reason }, now)
        }
        Request::Restore => take_back(session, EventBody::Restored, now),
        Request::Start { pair } => available(session).and_then(|()| start(session, pair, now)),
        Request::Stop => available(session).map(|()| stop(session, now)),
        Request::Restart { pair, connect } => available(session).and_then(|()| restart(session, pair, connect, now)),
        Request::Logout { connect } => available(session).and_then(|()| logout(session, connect, now)),
        Request::Qr => available(session).and_then(|()| qr(session, now)),
        Request::PairingCode { phone, switch } => {
            available(session).and_then(|()| pairing_code(session, phone, switch, now))
        }
    }
}

fn is_wanted_since(session: &Session, wanted: Timestamp) -> bool {
    matches!(session.intent, Intent::Removed { since, .. } if since == wanted)
}

/// A session on its way out takes no requests but those about its deletion.
fn available(session: &Session) -> Result<(), Refusal> {
    match (&session.status, &session.intent) {
        (Status::Removing { .. }, _) => Err(Refusal::Removing),
        (_, Intent::Removed { .. }) => Err(Refusal::PendingDelete),
        (_, Intent::Running | Intent::Stopped) => Ok(()),
    }
}

fn start(session: &Session, pair: bool, now: Timestamp) -> Result<Step, Refusal> {
    match &session.status {
        Status::Starting { .. } | Status::Pairing { .. } | Status::Online { .. } | Status::Reconnecting { .. } => {
            Ok(Step::Unchanged)
        }
        Status::Stopped | Status::LoggedOut { .. } | Status::Failed { .. } => boot(session, pair, now),
        Status::Removing { .. } => Err(Refusal::Removing),
    }
}

/// While WhatsApp is being told of a logout, nothing begins that would cut it off.
fn no_logout_under_way(session: &Session) -> Result<(), Refusal> {
    match session.status {
        Status::LoggedOut { unlink: Unlink::UnderWay, .. } => Err(Refusal::LoggingOut),
        _ => Ok(()),
    }
}

fn boot(session: &Session, pair: bool, now: Timestamp) -> Result<Step, Refusal> {
    no_logout_under_way(session)?;
    let mut draft = Draft::of(session, now);
    draft.session.intent = Intent::Running;
    if session.linked_device().is_some() {
        draft.halt();
        draft.launch();
    } else if pair {
        draft.halt();
        draft.pair(None);
    } else {
        return Err(Refusal::NotPaired);
    }
    Ok(draft.finish())
}

fn stop(session: &Session, now: Timestamp) -> Step {
    let is_stopped = session.status == Status::Stopped && session.intent == Intent::Stopped;
    // Nothing runs of a session that is being logged out but what tells WhatsApp.
    if is_stopped || no_logout_under_way(session).is_err() {
        return Step::Unchanged;
    }
    let mut draft = Draft::of(session, now);
    draft.halt();
    draft.session.intent = Intent::Stopped;
    draft.session.status = Status::Stopped;
    draft.finish()
}

fn restart(session: &Session, pair: bool, connect: bool, now: Timestamp) -> Result<Step, Refusal> {
    if !connect && session.status.attempt().is_none() {
        return Err(Refusal::NotRunning);
    }
    boot(session, pair, now)
}

fn logout(session: &Session, connect: bool, now: Timestamp) -> Result<Step, Refusal> {
    let mut draft = Draft::of(session, now);
    draft.session.intent = Intent::Stopped;
    match &session.status {
        Status::LoggedOut { .. } => return Ok(Step::Unchanged),
        Status::Stopped if !connect => return Err(Refusal::NotRunning),
        Status::Removing { .. } => return Err(Refusal::Removing),
        Status::Stopped
        | Status::Starting { .. }
        | Status::Pairing { .. }
        | Status::Online { .. }
        | Status::Reconnecting { .. }
        | Status::Failed { .. } => {}
    }
    let unlink = if may_be_linked(session) {
        let attempt = draft.unlinking_attempt();
        draft.effects.push(Effect::Unlink { attempt });
        Unlink::UnderWay
    } else {
        Unlink::NotLinked
    };
    draft.session.status = Status::LoggedOut { by: LoggedOutBy::Api, unlink };
    Ok(draft.finish())
}

fn qr(session: &Session, now: Timestamp) -> Result<Step, Refusal> {
    match &session.status {
        Status::Pairing { .. } => Ok(Step::Unchanged),
        Status::Starting { .. } | Status::Online { .. } | Status::Reconnecting { .. } => Err(Refusal::AlreadyPaired),
        Status::Stopped | Status::LoggedOut { .. } | Status::Failed { .. } => {
            if session.linked_device().is_some() {
                return Err(Refusal::AlreadyPaired);
            }
            boot(session, true, now)
        }
        Status::Removing { .. } => Err(Refusal::Removing),
    }
}

fn pairing_code(session: &Session, phone: Secret, switch: bool, now: Timestamp) -> Result<Step, Refusal> {
    match &session.status {
        Status::Pairing { method: PairingMethod::Qr, .. } if !switch => Err(Refusal::AlreadyPairing),
        Status::Starting { .. } | Status::Online { .. } | Status::Reconnecting { .. } => Err(Refusal::AlreadyPaired),
        Status::Pairing { .. } | Status::Stopped | Status::LoggedOut { .. } | Status::Failed { .. } => {
            no_logout_under_way(session)?;
            if session.linked_device().is_some() {
                return Err(Refusal::AlreadyPaired);
            }
            let mut draft = Draft::of(session, now);
            draft.session.intent = Intent::Running;
            draft.halt();
            draft.pair(Some(phone));
            Ok(draft.finish())
        }
        Status::Removing { .. } => Err(Refusal::Removing),
    }
}

fn delete(session: &Session, due: Timestamp, reason: String, now: Timestamp) -> Step {
    let (since, was_running) = match (&session.status, &session.intent) {
        (Status::Removing { .. }, _) => return Step::Unchanged,
        // Asked again: only an earlier time is news.
        (_, Intent::Removed { due: pending, .. }) if due >= *pending && due > now => return Step::Unchanged,
        (_, Intent::Removed { since, was_running, .. }) => (*since, *was_running),
        (_, Intent::Running) => (now, true),
        (_, Intent::Stopped) => (now, false),
    };
    let mut draft = Draft::of(session, now);
    draft.session.intent = Intent::Removed { due, reason: reason.clone(), since, was_running };
    if due <= now {
        begin_removal(session, &mut draft);
    } else {
        // Neither a run nor another try may bring it back meanwhile.
        if session.status.attempt().is_some() || session.status.deadline().is_some() {
            draft.halt();
            draft.session.status = Status::Stopped;
        }
        draft.events.push(EventBody::DeleteScheduled { due, reason });
    }
    draft.finish()
}

fn begin_removal(session: &Session, draft: &mut Draft) {
    draft.events.push(EventBody::Deleting);
    let may_be_linked = may_be_linked(session);
    if let Intent::Removed { since, due, .. } = &draft.session.intent {
        draft.session.removal = Some(Removal {
            asked_at: *since,
            due_at: *due,
            began_at: draft.now,
            decision: None,
            unlink: match session.status {
                Status::LoggedOut { unlink, .. } => unlink,
                _ if may_be_linked => Unlink::UnderWay,
                _ => Unlink::NotLinked,
            },
            notify: Notify::UnderWay,
        });
    }
    if !may_be_linked {
        super::time::begin_notify(draft);
        return;
    }
    let attempt = draft.unlinking_attempt();
    let deadline = draft.now.after(UNLINK_TIMEOUT);
    draft.session.status = Status::Removing { step: RemovalStep::Unlink { attempt, deadline } };
    draft.effects.push(Effect::Unlink { attempt });
}

fn postpone(session: &Session, due: Timestamp, reason: String, now: Timestamp) -> Result<Step, Refusal> {
    match (&session.status, &session.intent) {
        (Status::Removing { .. }, _) => Err(Refusal::Removing),
        (_, Intent::Running | Intent::Stopped) => Err(Refusal::NotPendingDelete),
        (_, Intent::Removed { since, was_running, .. }) => {
            let mut draft = Draft::of(session, now);
            draft.session.intent =
                Intent::Removed { due, reason: reason.clone(), since: *since, was_running: *was_running };
            draft.events.push(EventBody::DeleteScheduled { due, reason });
            Ok(draft.finish())
        }
    }
}

/// Gives a session back that was to be deleted, as it was wanted before.
fn take_back(session: &Session, event: EventBody, now: Timestamp) -> Result<Step, Refusal> {
    let Intent::Removed { was_running, .. } = &session.intent else { return Err(Refusal::NotPendingDelete) };
    let mut draft = Draft::of(session, now);
    match &session.status {
        Status::Removing { step: RemovalStep::Erase } => return Err(Refusal::Removing),
        Status::Removing { step: RemovalStep::Unlink { .. } } => {
            draft.halt();
            draft.session.status = Status::Stopped;
        }
        // The device is gone already, which the session goes on to say.
        Status::Removing { step: RemovalStep::Notify { .. } } => {
            draft.session.status = match session.removal.as_ref().map(|removal| removal.unlink) {
                Some(unlink @ (Unlink::Confirmed | Unlink::NotConfirmed)) => {
                    draft.session.device = None;
                    draft.effects.push(Effect::Forget);
                    draft.unlinked = Some(unlink);
                    draft.events.push(EventBody::Unlinked { unlink });
                    Status::LoggedOut { by: LoggedOutBy::Api, unlink }
                }
                _ => Status::Stopped,
            };
        }
        Status::Stopped
        | Status::Starting { .. }
        | Status::Pairing { .. }
        | Status::Online { .. }
        | Status::Reconnecting { .. }
        | Status::LoggedOut { .. }
        | Status::Failed { .. } => {}
    }
    draft.session.intent = Intent::Stopped;
    draft.session.removal = None;
    draft.events.push(event);
    if *was_running && draft.session.status == Status::Stopped && session.linked_device().is_some() {
        draft.session.intent = Intent::Running;
        draft.launch();
    }
    Ok(draft.finish())
}
