//! Facts: what happens when an engine run reports.

use super::{
    Draft, Effect, EngineFact, Fact, NEXT_CODE_GRACE, RECONNECT_TIMEOUT, START_TIMEOUT, Step, UNLINK_TIMEOUT, time,
};
use crate::session::{FailureCause, LoggedOutBy, PairingMethod, RemovalStep};
use crate::{Attempt, EventBody, Session, Status, Timestamp, Unlink};

/// Applies a fact. A stale one, and one that says nothing new, is [`Step::Unchanged`].
pub(super) fn apply(session: &Session, EngineFact { attempt, fact }: EngineFact, now: Timestamp) -> Step {
    if let Status::LoggedOut { by: LoggedOutBy::Api, .. } = session.status {
        return while_logging_out(session, attempt, &fact, now);
    }
    if session.status.attempt() != Some(attempt) {
        return Step::Unchanged;
    }
    match &session.status {
        Status::Starting { .. } => while_starting(session, attempt, fact, now),
        Status::Pairing { .. } => while_pairing(session, attempt, fact, now),
        Status::Online { .. } => while_online(session, attempt, fact, now),
        Status::Reconnecting { .. } => while_reconnecting(session, attempt, fact, now),
        Status::Removing { step: RemovalStep::Unlink { .. } } => while_unlinking(session, attempt, &fact, now),
        // These have no run, so no fact of theirs passes the fence above.
        Status::Stopped | Status::LoggedOut { .. } | Status::Failed { .. } | Status::Removing { .. } => Step::Unchanged,
    }
}

fn while_starting(session: &Session, attempt: Attempt, fact: Fact, now: Timestamp) -> Step {
    match fact {
        Fact::Connected => online(session, attempt, now),
        Fact::Lost => relaunch(session, now),
        Fact::CodeIssued { .. }
        | Fact::PasskeyRequested
        | Fact::CodesExhausted
        | Fact::Linked { .. }
        | Fact::NotLinked
        | Fact::Disconnected => Step::Unchanged,
        fact @ (Fact::LoggedOut
        | Fact::Unlinked { .. }
        | Fact::Identified { .. }
        | Fact::Ended { .. }
        | Fact::Limited { .. }) => common(session, fact, now),
    }
}

fn while_pairing(session: &Session, attempt: Attempt, fact: Fact, now: Timestamp) -> Step {
    let mut draft = Draft::of(session, now);
    match fact {
        Fact::CodeIssued { method, mut code } => {
            code.ordinal = match &session.status {
                Status::Pairing { code: Some(last), .. } => last.ordinal.saturating_add(1),
                _ => 1,
            };
            let deadline = code.expires_at.after(NEXT_CODE_GRACE);
            draft.events.push(EventBody::PairingCodeIssued { method, code: code.clone() });
            draft.session.status = Status::Pairing { attempt, method, code: Some(code), deadline };
        }
        Fact::PasskeyRequested => {
            draft.events.push(EventBody::PasskeyRequested);
            let deadline = now.after(START_TIMEOUT);
            draft.session.status = Status::Pairing { attempt, method: PairingMethod::Passkey, code: None, deadline };
        }
        Fact::CodesExhausted => draft.fail(FailureCause::PairingExpired, None),
        Fact::Linked { device } => {
            draft.events.push(EventBody::Linked { device: device.clone() });
            draft.session.device = Some(device);
            // Who has linked the phone needs the link no more, and nobody else should have it.
            draft.session.link = None;
            draft.session.status = Status::Starting { attempt, deadline: now.after(START_TIMEOUT), tries: 0 };
        }
        // The new run finds a device that was linked at the last moment. Otherwise it shows QR codes: the phone number, for a code to
        // type, was never kept.
        Fact::Lost => draft.pair(None),
        Fact::Connected | Fact::Disconnected | Fact::NotLinked => return Step::Unchanged,
        fact @ (Fact::LoggedOut
        | Fact::Unlinked { .. }
        | Fact::Identified { .. }
        | Fact::Ended { .. }
        | Fact::Limited { .. }) => {
            return common(session, fact, now);
        }
    }
    draft.finish()
}

fn while_online(session: &Session, attempt: Attempt, fact: Fact, now: Timestamp) -> Step {
    match fact {
        Fact::Disconnected => {
            let mut draft = Draft::of(session, now);
            let deadline = now.after(RECONNECT_TIMEOUT);
            draft.session.status = Status::Reconnecting { attempt, since: now, tries: 0, deadline };
            draft.finish()
        }
        Fact::Lost => relaunch(session, now),
        Fact::Connected
        | Fact::CodeIssued { .. }
        | Fact::PasskeyRequested
        | Fact::CodesExhausted
        | Fact::NotLinked
        | Fact::Linked { .. } => Step::Unchanged,
        fact @ (Fact::LoggedOut
        | Fact::Unlinked { .. }
        | Fact::Identified { .. }
        | Fact::Ended { .. }
        | Fact::Limited { .. }) => common(session, fact, now),
    }
}

fn while_reconnecting(session: &Session, attempt: Attempt, fact: Fact, now: Timestamp) -> Step {
    match fact {
        Fact::Connected => online(session, attempt, now),
        Fact::Disconnected => {
            let mut draft = Draft::of(session, now);
            if let Status::Reconnecting { tries, .. } = &mut draft.session.status {
                *tries = tries.saturating_add(1);
            }
            draft.finish()
        }
        Fact::Lost => relaunch(session, now),
        Fact::CodeIssued { .. }
        | Fact::PasskeyRequested
        | Fact::CodesExhausted
        | Fact::Linked { .. }
        | Fact::NotLinked => Step::Unchanged,
        fact @ (Fact::LoggedOut
        | Fact::Unlinked { .. }
        | Fact::Identified { .. }
        | Fact::Ended { .. }
        | Fact::Limited { .. }) => common(session, fact, now),
    }
}

/// A deletion waits for the device to be unlinked; that it already is, or cannot be, is as good.
fn while_unlinking(session: &Session, attempt: Attempt, fact: &Fact, now: Timestamp) -> Step {
    let mut draft = Draft::of(session, now);
    if let Some(unlink) = outcome(session, fact) {
        draft.session.device = None;
        if let Some(removal) = &mut draft.session.removal {
            removal.unlink = unlink;
        }
        time::begin_notify(&mut draft);
        return draft.finish();
    }
    if *fact != Fact::Lost {
        return Step::Unchanged;
    }
    let next = draft.next_attempt();
    // The time in which there was no process is not taken from it.
    let step = RemovalStep::Unlink { attempt: next, deadline: now.after(UNLINK_TIMEOUT) };
    draft.session.status = Status::Removing { step };
    draft.effects.push(Effect::Unlink { attempt: next });
    debug_assert!(session.status.attempt() == Some(attempt), "the fence is the caller's");
    draft.finish()
}

/// A logout keeps the device until its run has told WhatsApp, so that a crash in between is made good.
fn while_logging_out(session: &Session, attempt: Attempt, fact: &Fact, now: Timestamp) -> Step {
    let is_under_way = matches!(session.status, Status::LoggedOut { unlink: Unlink::UnderWay, .. });
    let Some(unlink) = outcome(session, fact).filter(|_| is_under_way && attempt == session.last_attempt) else {
        return Step::Unchanged;
    };
    let mut draft = Draft::of(session, now);
    draft.session.device = None;
    if let Fact::LoggedOut = fact {
        // Whoever heard it from WhatsApp has left the credentials where the next pairing would find them.
        draft.effects.push(Effect::Forget);
    }
    draft.session.status = Status::LoggedOut { by: LoggedOutBy::Api, unlink };
    if unlink != Unlink::NotLinked {
        draft.unlinked = Some(unlink);
        draft.events.push(EventBody::Unlinked { unlink });
    }
    draft.finish()
}

/// What a run that was to unlink a device has come to; none if it says something else. That it has ended is what it said before it
/// heard of the unlink, which it does nevertheless.
fn outcome(session: &Session, fact: &Fact) -> Option<Unlink> {
    match fact {
        Fact::Unlinked { confirmed } => Some(Unlink::of(*confirmed)),
        Fact::LoggedOut => Some(Unlink::Confirmed),
        // There was one that we knew of: it was unlinked before a crash, and nobody can say any more what WhatsApp said.
        Fact::NotLinked if session.device.is_some() => Some(Unlink::NotConfirmed),
        Fact::NotLinked => Some(Unlink::NotLinked),
        Fact::CodeIssued { .. }
        | Fact::PasskeyRequested
        | Fact::CodesExhausted
        | Fact::Linked { .. }
        | Fact::Connected
        | Fact::Disconnected
        | Fact::Identified { .. }
        | Fact::Ended { .. }
        | Fact::Limited { .. }
        | Fact::Lost => None,
    }
}

/// Facts that mean the same in every status with a run.
fn common(session: &Session, fact: Fact, now: Timestamp) -> Step {
    let mut draft = Draft::of(session, now);
    match fact {
        Fact::LoggedOut | Fact::Unlinked { .. } => {
            let was_linked = draft.session.device.take().is_some();
            let unlink = if was_linked { Unlink::Confirmed } else { Unlink::NotLinked };
            if was_linked {
                draft.effects.push(Effect::Forget);
                draft.events.push(EventBody::Unlinked { unlink });
            }
            draft.halt();
            draft.session.status = Status::LoggedOut { by: LoggedOutBy::Phone, unlink };
        }
        Fact::Identified { device } => {
            if draft.session.device.is_none() || draft.session.device.as_ref() == Some(&device) {
                return Step::Unchanged;
            }
            draft.session.device = Some(device);
        }
        Fact::Ended { cause, until } => draft.fail(cause, until),
        Fact::Limited { limit } => {
            if session
                .account_limit
                .as_ref()
                .is_some_and(|known| known.code == limit.code && known.until == limit.until)
            {
                return Step::Unchanged;
            }
            draft.events.push(EventBody::AccountLimited { limit: limit.clone() });
            draft.session.account_limit = Some(limit);
        }
        Fact::CodeIssued { .. }
        | Fact::PasskeyRequested
        | Fact::CodesExhausted
        | Fact::Linked { .. }
        | Fact::Connected
        | Fact::Disconnected
        | Fact::NotLinked
        | Fact::Lost => return Step::Unchanged,
    }
    draft.finish()
}

fn online(session: &Session, attempt: Attempt, now: Timestamp) -> Step {
    let mut draft = Draft::of(session, now);
    draft.session.status = Status::Online { attempt };
    draft.session.last_connected_at = Some(now);
    draft.finish()
}

/// The run is gone with its process. A session that is linked comes back as if nothing had happened.
fn relaunch(session: &Session, now: Timestamp) -> Step {
    let mut draft = Draft::of(session, now);
    draft.launch();
    draft.finish()
}
