//! Reconciliation: what has to be made good after a crash between a commit and its effects.

use super::Effect;
use crate::session::RemovalStep;
use crate::{Attempt, Session, Status, Unlink};

/// What has to be running or under way for the session to be as it says, whatever happened to the process meanwhile.
/// `alive` is the engine run that exists for it, if any.
#[must_use]
pub fn reconcile(session: &Session, alive: Option<Attempt>) -> Reconciliation {
    let wanted = session.status.attempt();
    let stray = alive.filter(|alive| Some(*alive) != wanted).map(|attempt| Effect::Halt { attempt });
    match &session.status {
        Status::Starting { attempt, .. }
        | Status::Pairing { attempt, .. }
        | Status::Online { attempt }
        | Status::Reconnecting { attempt, .. }
        | Status::Removing { step: RemovalStep::Unlink { attempt, .. } } => {
            let lost = alive != Some(*attempt);
            Reconciliation { lost: lost.then_some(*attempt), effects: stray.into_iter().collect() }
        }
        Status::Removing { step: RemovalStep::Notify { .. } } => {
            Reconciliation { lost: None, effects: stray.into_iter().chain([Effect::Notify]).collect() }
        }
        Status::Removing { step: RemovalStep::Erase } => {
            Reconciliation { lost: None, effects: stray.into_iter().chain([Effect::Erase]).collect() }
        }
        Status::LoggedOut { unlink: Unlink::UnderWay, .. } => match alive {
            // The run that unlinks is still at it.
            Some(attempt) if attempt == session.last_attempt => Reconciliation::default(),
            _ => Reconciliation {
                lost: None,
                effects: stray.into_iter().chain([Effect::Unlink { attempt: session.last_attempt }]).collect(),
            },
        },
        Status::Stopped | Status::LoggedOut { .. } | Status::Failed { .. } => {
            Reconciliation { lost: None, effects: stray.into_iter().collect() }
        }
    }
}

/// What [`reconcile`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reconciliation {
    /// A run that should exist and does not; report it as [`Fact::Lost`](super::Fact::Lost).
    pub lost: Option<Attempt>,
    /// What to do again, or to end.
    pub effects: Vec<Effect>,
}
