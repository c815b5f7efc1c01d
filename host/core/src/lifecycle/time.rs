//! Time: what happens when nothing else did.

use std::time::Duration;

use super::{Draft, Effect, FIRST_RETRY, LAST_RETRY, NOTIFY_TIMEOUT, Step};
use crate::receipt::{Notify, Unlink};
use crate::session::{FailureCause, RemovalStep};
use crate::{EventBody, Session, Status, Timestamp};

/// Moves a status whose deadline has come. A delete that is due is not begun here: policy has to be asked first.
pub(super) fn deadline(session: &Session, now: Timestamp) -> Step {
    if session.status.deadline().is_none_or(|deadline| now < deadline) {
        return Step::Unchanged;
    }
    let mut draft = Draft::of(session, now);
    match &session.status {
        Status::Starting { .. } => {
            draft.halt();
            draft.fail(FailureCause::StartTimeout, None);
        }
        Status::Pairing { .. } => {
            draft.halt();
            draft.fail(FailureCause::PairingExpired, None);
        }
        Status::Reconnecting { .. } => {
            draft.halt();
            draft.launch();
        }
        Status::Failed { .. } => draft.launch(),
        Status::Removing { step: RemovalStep::Unlink { .. } } => {
            draft.halt();
            if let Some(removal) = &mut draft.session.removal {
                removal.unlink = Unlink::NotConfirmed;
            }
            begin_notify(&mut draft);
        }
        Status::Removing { step: RemovalStep::Notify { .. } } => begin_erase(&mut draft, Notify::TimedOut),
        // These have no deadline, so they never pass the check above.
        Status::Stopped
        | Status::Online { .. }
        | Status::LoggedOut { .. }
        | Status::Removing { step: RemovalStep::Erase } => return Step::Unchanged,
    }
    draft.finish()
}

/// How long after a failure a session is tried again: longer with every try. That many sessions which failed together do not come
/// back at the same moment is the engine's business, which lets them take turns.
pub(super) fn retry_wait(cause: FailureCause, tries: u32) -> Duration {
    if cause == FailureCause::Banned {
        return LAST_RETRY;
    }
    FIRST_RETRY.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(LAST_RETRY)
}

/// The delete event reached its receivers, or there are none.
pub(super) fn notified(session: &Session, now: Timestamp) -> Step {
    match &session.status {
        Status::Removing { step: RemovalStep::Notify { .. } } => {
            let mut draft = Draft::of(session, now);
            begin_erase(&mut draft, Notify::Tried);
            draft.finish()
        }
        Status::Stopped
        | Status::Starting { .. }
        | Status::Pairing { .. }
        | Status::Online { .. }
        | Status::Reconnecting { .. }
        | Status::LoggedOut { .. }
        | Status::Failed { .. }
        | Status::Removing { step: RemovalStep::Unlink { .. } | RemovalStep::Erase } => Step::Unchanged,
    }
}

/// Queues the delete event, in the commit, and has it delivered before the data goes.
pub(super) fn begin_notify(draft: &mut Draft) {
    draft.session.status = Status::Removing { step: RemovalStep::Notify { deadline: draft.now.after(NOTIFY_TIMEOUT) } };
    draft.events.push(EventBody::Deleted);
    draft.effects.push(Effect::Notify);
}

fn begin_erase(draft: &mut Draft, notify: Notify) {
    if let Some(removal) = &mut draft.session.removal {
        removal.notify = notify;
    }
    draft.session.status = Status::Removing { step: RemovalStep::Erase };
    draft.effects.push(Effect::Erase);
}
