//! The lifecycle machine of a session: the only code that moves a [`Status`] or an [`Intent`].
//!
//! ```text
//!            start, qr, pairing-code                      code scanned or typed
//!  Stopped ───────────────────────────▶ Pairing ──────────────────────────────────┐
//!    ▲  │                                  │ codes exhausted                        ▼
//!    │  └─ start (linked) ───────────▶ Starting ◀──── relaunch ──── Reconnecting   Linked: Starting
//!    │                                     │ connected                   ▲  │
//!    │                                     ▼                             │  │ connected again
//!    ├──────────── stop ──────────────  Online ── connection lost ───────┘  │
//!    │                                     ▲ └──────────────────────────────┘
//!    │                                     │
//!    ├─ stop ─  LoggedOut ◀── logout, or unlinked on the phone, from any of the above
//!    └─ stop ─  Failed    ◀── codes exhausted, start timed out, replaced, banned, outdated, refused
//!                 └─ a linked session whose trouble can pass is tried again: Starting
//!
//!  delete, due at once or after a grace period, from any status:
//!    Removing{Unlink} ─▶ Removing{Notify} ─▶ Removing{Erase} ─▶ gone
//! ```
//!
//! The happy path: `session.create` → `Stopped` → start → `Pairing` → linked → `Starting` → connected → `Online`.
//!
//! Ways to fail: every status that waits for something has a deadline, at which [`Input::Deadline`] moves it on;
//! an engine run that ends without saying so is found by reconciliation and reported as [`Fact::Lost`].
//!
//! A deletion that a policy puts off stops the session and leaves it as [`Intent::Removed`] until it is due; until `Erase` begins it can be restored.

mod fact;
mod reconcile;
mod request;
mod time;

use std::time::Duration;

use crate::session::{AccountLimit, FailureCause, PairingCode, PairingMethod, Retry};
use crate::{Attempt, Device, EventBody, Intent, Secret, Session, Status, Timestamp, Unlink};

pub use reconcile::{Reconciliation, reconcile};
pub use request::apply as apply_request;

/// How long a session may be starting in all. An engine that makes starts wait for their turn gives each of them up much sooner,
/// counted from its turn, and says why; this is for one that says nothing.
pub const START_TIMEOUT: Duration = Duration::from_secs(600);
/// How long after its first failure a linked session is tried again; each further failure in a row doubles it.
pub const FIRST_RETRY: Duration = Duration::from_secs(15);
/// The longest time between two tries.
pub const LAST_RETRY: Duration = Duration::from_secs(15 * 60);
/// How long an engine may take to produce the first pairing code.
pub const FIRST_CODE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long after a pairing code's end the next one may arrive.
pub const NEXT_CODE_GRACE: Duration = Duration::from_secs(10);
/// How long an engine may try to reconnect before it is launched anew.
pub const RECONNECT_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a deletion waits for the device to be unlinked.
pub const UNLINK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a deletion waits for the first delivery of its event.
pub const NOTIFY_TIMEOUT: Duration = Duration::from_secs(5);

/// What can happen to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Somebody asks, and policy has agreed.
    Request(Request),
    /// The engine reports.
    Engine(EngineFact),
    /// Time has passed; harmless if nothing was due.
    Deadline,
    /// The delete event was delivered, or there was nobody to deliver it to.
    Notified,
}

/// What can be asked of a session's lifecycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Connect; `pair` says what to do if it is not linked: begin pairing, or else refuse.
    Start {
        /// Whether an unlinked session begins pairing.
        pair: bool,
    },
    /// Disconnect, keeping the link.
    Stop,
    /// Disconnect and connect.
    Restart {
        /// Whether an unlinked session begins pairing.
        pair: bool,
        /// Whether a session of which nothing runs is started.
        connect: bool,
    },
    /// Unlink the device.
    Logout {
        /// Whether a stopped session is connected for it; it is refused otherwise.
        connect: bool,
    },
    /// Delete at `due`; at once if that is not after now.
    Delete {
        /// When.
        due: Timestamp,
        /// Why it is put off; empty if it is not.
        reason: String,
    },
    /// A due delete was put off again.
    Postpone {
        /// Since when the delete has been wanted; another one is not meant.
        since: Timestamp,
        /// Until when.
        due: Timestamp,
        /// Why.
        reason: String,
    },
    /// A due delete was denied.
    CancelDelete {
        /// Since when the delete has been wanted; another one is not meant.
        since: Timestamp,
        /// The policy's code.
        code: String,
        /// The policy's sentence.
        reason: String,
    },
    /// Take a pending delete back.
    Restore,
    /// Begin pairing by QR code, or go on with it.
    Qr,
    /// Begin pairing by a code to type.
    PairingCode {
        /// The account's phone number, digits only.
        phone: Secret,
        /// Whether pairing by QR code is given up for it.
        switch: bool,
    },
}

/// Something an engine run reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFact {
    /// The run. A fact of another run than the status's is stale and changes nothing.
    pub attempt: Attempt,
    /// What it reports.
    pub fact: Fact,
}

/// What an engine run can report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A new code to show or tell to the phone.
    CodeIssued {
        /// Which kind.
        method: PairingMethod,
        /// The code.
        code: PairingCode,
    },
    /// WhatsApp asks for a passkey to go on.
    PasskeyRequested,
    /// Nobody used any of the codes.
    CodesExhausted,
    /// A device was linked.
    Linked {
        /// The device.
        device: Device,
    },
    /// The connection is up.
    Connected,
    /// The connection is down; the engine is working on it.
    Disconnected,
    /// The device was unlinked by the phone or by WhatsApp.
    LoggedOut,
    /// There was no device to unlink.
    NotLinked,
    /// The device was unlinked because it was asked for, or the engine gave up telling WhatsApp; its credentials are gone.
    Unlinked {
        /// Whether WhatsApp has confirmed it.
        confirmed: bool,
    },
    /// More is known of the linked device than before.
    Identified {
        /// The device.
        device: Device,
    },
    /// The run ended for good.
    Ended {
        /// Why.
        cause: FailureCause,
        /// When that is over, if WhatsApp has said so.
        until: Option<Timestamp>,
    },
    /// WhatsApp limited the account.
    Limited {
        /// The limit.
        limit: AccountLimit,
    },
    /// There is no such run: the process that had it is gone.
    Lost,
}

impl Fact {
    /// The stable word for the fact, in logs and the golden matrix.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::CodeIssued { .. } => "code-issued",
            Self::PasskeyRequested => "passkey-requested",
            Self::CodesExhausted => "codes-exhausted",
            Self::Linked { .. } => "linked",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::LoggedOut => "logged-out",
            Self::NotLinked => "not-linked",
            Self::Unlinked { .. } => "unlinked",
            Self::Identified { .. } => "identified",
            Self::Ended { .. } => "ended",
            Self::Limited { .. } => "limited",
            Self::Lost => "lost",
        }
    }
}

/// IO that a move asks for. It is done after the move's commit; the reconciler does it again if a crash came between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Connect with the stored device.
    Launch {
        /// The run to begin.
        attempt: Attempt,
    },
    /// Begin to pair.
    Pair {
        /// The run to begin.
        attempt: Attempt,
        /// The phone number, if pairing is by code.
        phone: Option<Secret>,
    },
    /// End a run, keeping the link.
    Halt {
        /// The run to end.
        attempt: Attempt,
    },
    /// Log the device out of WhatsApp, connecting if need be, forget its credentials, and report [`Fact::Unlinked`], or
    /// [`Fact::NotLinked`] if there is none. Whatever else the run had to say by then means nothing any more.
    Unlink {
        /// The run that does it.
        attempt: Attempt,
    },
    /// Forget the device's credentials; WhatsApp knows already.
    Forget,
    /// Tell the run that there is how the session is set up by now.
    Configure,
    /// Deliver the delete event, then report [`Input::Notified`].
    Notify,
    /// Erase everything of the session.
    Erase,
}

impl Effect {
    /// The stable word for the effect, in logs, metrics and the golden matrix.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Launch { .. } => "launch",
            Self::Pair { .. } => "pair",
            Self::Halt { .. } => "halt",
            Self::Unlink { .. } => "unlink",
            Self::Forget => "forget",
            Self::Configure => "configure",
            Self::Notify => "notify",
            Self::Erase => "erase",
        }
    }
}

/// The machine's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It is so already, or it no longer matters.
    Unchanged,
    /// It moved.
    Moved(Box<Move>),
}

/// A move: the new session, what to do, and what to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The session as it is from the commit on; its generation is one higher.
    pub session: Session,
    /// What to do after the commit.
    pub effects: Vec<Effect>,
    /// What to tell, in the commit.
    pub events: Vec<EventBody>,
    /// What became of a logout that somebody had asked for, if it ended with this move; for the audit.
    pub unlinked: Option<Unlink>,
}

/// The lifecycle's own no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The session is not linked, and the operation needs it to be.
    #[error("session not paired; use QR or pairing code")]
    NotPaired,
    /// The session is linked, and the operation needs it not to be.
    #[error("session is already paired")]
    AlreadyPaired,
    /// The session is pairing by QR code.
    #[error("session already running")]
    AlreadyPairing,
    /// The session is not connected, and the operation needs it to be.
    #[error("session is not running")]
    NotRunning,
    /// WhatsApp is being told that the device is unlinked. That is over within seconds, whatever comes of it.
    #[error("session is being logged out; try again in a few seconds")]
    LoggingOut,
    /// A delete is pending; restore the session first.
    #[error("session is scheduled for deletion; restore it first")]
    PendingDelete,
    /// The session is being deleted.
    #[error("session is being deleted")]
    Removing,
    /// No delete is pending.
    #[error("session has no pending delete")]
    NotPendingDelete,
}

impl Refusal {
    /// Every refusal.
    pub const ALL: [Refusal; 8] = [
        Self::NotPaired,
        Self::AlreadyPaired,
        Self::AlreadyPairing,
        Self::NotRunning,
        Self::LoggingOut,
        Self::PendingDelete,
        Self::Removing,
        Self::NotPendingDelete,
    ];

    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NotPaired => "not_paired",
            Self::AlreadyPaired => "already_paired",
            Self::AlreadyPairing => "already_pairing",
            Self::NotRunning => "not_running",
            Self::LoggingOut => "logging_out",
            Self::PendingDelete => "pending_delete",
            Self::Removing => "removing",
            Self::NotPendingDelete => "not_pending_delete",
        }
    }
}

/// Moves a session on, or says why not.
///
/// # Errors
/// The lifecycle's own refusal of a request; facts and deadlines are never refused.
pub fn step(session: &Session, input: Input, now: Timestamp) -> Result<Step, Refusal> {
    match input {
        Input::Request(request) => request::apply(session, request, now),
        Input::Engine(fact) => Ok(fact::apply(session, fact, now)),
        Input::Deadline => Ok(time::deadline(session, now)),
        Input::Notified => Ok(time::notified(session, now)),
    }
}

/// Whether WhatsApp may know a device of the session: the one that we know of, or one that was linked at the very moment at which
/// a pairing was ended. Whether there is one of the second kind, only the engine can say, which keeps the credentials.
fn may_be_linked(session: &Session) -> bool {
    match session.status {
        Status::LoggedOut { unlink, .. } => unlink == Unlink::UnderWay,
        _ => session.device.is_some() || session.last_attempt > Attempt::default(),
    }
}

/// A move under construction. Its methods keep the habits of the machine in one place:
/// a new run gets the next attempt, and a status that changes its name is told.
struct Draft {
    session: Session,
    effects: Vec<Effect>,
    events: Vec<EventBody>,
    unlinked: Option<Unlink>,
    before: &'static str,
    now: Timestamp,
}

impl Draft {
    fn of(session: &Session, now: Timestamp) -> Self {
        Self {
            session: session.changed(now),
            effects: Vec::new(),
            events: Vec::new(),
            unlinked: None,
            before: session.status.name(),
            now,
        }
    }

    fn next_attempt(&mut self) -> Attempt {
        self.session.last_attempt = self.session.last_attempt.next();
        self.session.last_attempt
    }

    /// The run that unlinks: one that is there does so at once, otherwise a new one connects for it.
    fn unlinking_attempt(&mut self) -> Attempt {
        match self.session.status {
            // It is at it already.
            Status::LoggedOut { .. } => self.session.last_attempt,
            _ => self.session.status.attempt().unwrap_or_else(|| self.next_attempt()),
        }
    }

    /// Ends the run that the status stands for, if there is one.
    fn halt(&mut self) {
        if let Some(attempt) = self.session.status.attempt() {
            self.effects.push(Effect::Halt { attempt });
        }
    }

    fn launch(&mut self) {
        let tries = match self.session.status {
            Status::Failed { retry: Some(Retry { tries, .. }), .. } => tries,
            _ => 0,
        };
        let attempt = self.next_attempt();
        self.session.status = Status::Starting { attempt, deadline: self.now.after(START_TIMEOUT), tries };
        self.effects.push(Effect::Launch { attempt });
    }

    fn pair(&mut self, phone: Option<Secret>) {
        // Credentials of a device that was logged out must not leak into the new link.
        if self.session.device.take().is_some() {
            self.effects.push(Effect::Forget);
        }
        let attempt = self.next_attempt();
        let method = if phone.is_some() { PairingMethod::Code } else { PairingMethod::Qr };
        let deadline = self.now.after(FIRST_CODE_TIMEOUT);
        self.session.status = Status::Pairing { attempt, method, code: None, deadline };
        self.effects.push(Effect::Pair { attempt, phone });
    }

    /// `until` is when the cause is over, if somebody has said so.
    fn fail(&mut self, cause: FailureCause, until: Option<Timestamp>) {
        let tries = 1 + if let Status::Starting { tries, .. } = self.session.status { tries } else { 0 };
        let comes_back = self.session.intent == Intent::Running && self.session.device.is_some();
        let soon = self.now.after(time::retry_wait(cause, tries));
        // Whoever says when it is over is not believed if that is at once: a banned account that comes back over and over stays banned.
        let at = until.map(|until| until.max(soon)).or_else(|| cause.can_pass().then_some(soon));
        let retry = at.filter(|_| comes_back).map(|at| Retry { at, tries });
        self.session.status = Status::Failed { cause, retry };
    }

    fn finish(mut self) -> Step {
        let after = self.session.status.name();
        if after != self.before {
            let (cause, by) = match self.session.status {
                Status::Failed { cause, .. } => (Some(cause), None),
                Status::LoggedOut { by, .. } => (None, Some(by)),
                _ => (None, None),
            };
            let (from, to) = (self.before.to_owned(), after.to_owned());
            self.events.push(EventBody::StatusChanged { from, to, cause, by });
        }
        let Self { session, effects, events, unlinked, .. } = self;
        Step::Moved(Box::new(Move { session, effects, events, unlinked }))
    }
}

#[cfg(test)]
mod test;
