//! How an operation is asked for, and how it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_core::{Binding, DecisionId, EventId, PluginVersion, RequestId, Session, Timestamp, Verdict, Webhook};
use portcullis_engine::NumberCheck;

use crate::Redelivered;
use crate::confirming::GivenToken;
use crate::replies::RequestKey;
use crate::sending::Sent;

/// Somebody who waits for an answer: they are gone once the other end of the channel is dropped.
/// What was begun for them is finished all the same, but what only waits for its turn is given up.
pub type Caller = tokio::sync::watch::Receiver<()>;

/// Whether the audit has a line about a request.
#[derive(Debug, Clone, Default)]
pub struct Noted(Arc<AtomicBool>);

impl Noted {
    /// It has.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How an operation is asked for.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// The request that asks.
    pub request: Option<RequestId>,
    /// Whether only the answer is wanted.
    pub dry_run: bool,
    /// Who waits for the answer, if that can end.
    pub caller: Option<Caller>,
    /// The confirmation that the caller gives, if they were asked for one.
    pub confirmation: Option<GivenToken>,
    /// The idempotency key that the request takes, if it has one and asks for something else than a message.
    pub claim: Option<Arc<RequestKey>>,
    /// Set with the line that says in the audit how it ended. Whoever asks writes that line if nobody has.
    pub noted: Noted,
}

/// An operation that was done, or did not have to be.
#[derive(Debug, Clone)]
pub struct Done {
    /// The session as it is now; for a dry run of a creation there is none.
    pub session: Option<Arc<Session>>,
    /// How it ended.
    pub outcome: Outcome,
    /// The decision that led to it, if policy was asked.
    pub decision: Option<DecisionId>,
}

/// How an operation ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was so already.
    Unchanged,
    /// It was put off.
    Deferred {
        /// Until when.
        until: Timestamp,
        /// Why.
        reason: String,
    },
    /// A message was sent.
    Sent(Sent),
    /// Webhooks changed; these are they now.
    Webhooks(Vec<Webhook>),
    /// So many deliveries are tried again.
    Replayed(Redelivered),
    /// A webhook is told that it is tried out, by this event.
    Tested(EventId),
    /// WhatsApp was asked for these phone numbers.
    Checked(Vec<NumberCheck>),
    /// A plugin version is kept.
    Uploaded(Box<PluginVersion>, Novelty),
    /// A binding was made or changed; this is it now.
    Bound(Arc<Binding>),
    /// Nothing was done, because only the answer was wanted.
    DryRun(Verdict),
}

/// Whether something was there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Novelty {
    /// It is new.
    New,
    /// It was there.
    Known,
}
