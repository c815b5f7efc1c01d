//! Effects: what is done after a commit. Every one of them can be done again without harm.

use std::sync::Arc;

use portcullis_core::{
    AuditEntry, AuditId, AuditOutcome, Effect, Input, OperationKind, PrincipalKind, Session, Timestamp, Unlink,
};
use portcullis_engine::{Command, Setup, Task};
use portcullis_store::{Commit, Expectation, Write};

use crate::{Service, ServiceError, StoreFailure, mint};

/// Forgets credentials in the commit of the move that gives them up: afterwards nothing knows that there is something to forget,
/// so a crash between the two would leave them where the next link is made.
pub(crate) fn forget(commit: &mut Commit, session: &Session, effects: &[Effect]) {
    if effects.contains(&Effect::Forget) {
        commit.writes.push(Write::ForgetDevice(session.id));
    }
}

/// The end of a logout, which somebody else has asked for before.
pub(crate) fn unlinked(session: &Session, unlink: Unlink, now: Timestamp) -> AuditEntry {
    AuditEntry {
        id: mint::id(AuditId::new, now),
        org: session.org,
        at: now,
        actor: PrincipalKind::System,
        request: None,
        operation: OperationKind::SessionLogout,
        session: Some(session.id),
        subject: None,
        outcome: AuditOutcome::Unlinked { unlink },
        decision: None,
    }
}

fn setup(session: &Session) -> Box<Setup> {
    Box::new(Setup { proxy: session.proxy.clone(), settings: session.settings.clone() })
}

impl Service {
    /// Does the effects of a move. What fails is logged and left to reconciliation.
    pub(crate) async fn perform(self: &Arc<Self>, session: &Session, effects: Vec<Effect>) {
        let mut tasks = Vec::new();
        let mut notify = false;
        let mut erase = false;
        for effect in effects {
            match effect {
                Effect::Launch { attempt } => tasks.push(Task::Launch { attempt, setup: setup(session) }),
                Effect::Pair { attempt, phone } => tasks.push(Task::Pair { attempt, phone, setup: setup(session) }),
                Effect::Halt { attempt } => tasks.push(Task::Halt { attempt }),
                Effect::Unlink { attempt } => tasks.push(Task::Unlink { attempt, setup: setup(session) }),
                Effect::Configure => tasks.push(Task::Configure { setup: setup(session) }),
                Effect::Forget => tasks.push(Task::Forget),
                Effect::Notify => notify = true,
                Effect::Erase => erase = true,
            }
        }
        if !tasks.is_empty() {
            self.command(session, tasks).await;
        }
        // Whoever is the last to be tried says so; if nobody is, or a restart has forgotten them, there is nothing to wait for.
        if notify && !self.awaits_farewells(session.org, session.id) {
            Box::pin(self.input(session.org, session.id, Input::Notified)).await;
        }
        if erase && let Err(error) = self.erase(session).await {
            tracing::error!(session = %session.id, error = &error as &dyn std::error::Error, "an erasure did not finish; it will be tried again");
        }
    }

    /// Tells the engine, on a thread that may block.
    async fn command(&self, session: &Session, tasks: Vec<Task>) {
        let (org, id, now) = (session.org, session.id, self.now());
        let engine = Arc::clone(&self.engine);
        let told = tokio::task::spawn_blocking(move || {
            for task in tasks {
                engine.perform(Command { org, session: id, task }, now);
            }
        });
        if let Err(error) = told.await {
            tracing::error!(session = %id, %error, "the engine panicked; reconciliation will tell it again");
        }
        self.stirred.notify_one();
    }

    /// Erases a session whose turn has come: its rows in one commit, then its key, then the receipt.
    async fn erase(&self, session: &Session) -> Result<(), ServiceError> {
        // Rows that an earlier try has erased are not erased again; what was left to do is.
        if self.store.snapshot()?.session(session.org, session.id)?.is_some() {
            let mut commit = Commit::new(session.org, self.now());
            commit.expect.push(Expectation::Session(session.id, Some(session.generation)));
            commit.writes.push(Write::EraseSession(session.id));
            self.write(commit, 0).await.map_err(|error| ServiceError::Store(StoreFailure::Commit(error)))?;
        }
        self.finish_erasures().await?;
        self.views.remove(session.org, session.id);
        Ok(())
    }

    /// Destroys the keys of everything whose rows are gone, and writes the receipts.
    pub(crate) async fn finish_erasures(&self) -> Result<(), ServiceError> {
        let erased = self.store.finish_erasures(self.now()).await;
        for erased in erased.map_err(|error| ServiceError::Store(StoreFailure::Commit(error)))? {
            tracing::info!(org = %erased.org, session = ?erased.session, "erased");
        }
        Ok(())
    }
}
