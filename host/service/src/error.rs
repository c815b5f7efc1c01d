//! Why the service did not do something, in one closed enum with stable codes.

use std::time::Duration;

use portcullis_core::confirmation::Rejected;
use portcullis_core::verdict::{Prompt, Veto};
use portcullis_core::{DecisionId, Denial, Refusal, Secret};
use portcullis_engine::SendError;
use portcullis_policy::AdmissionError;
use portcullis_store::{CommitError, ReadError};

/// Why something was not done. `Display` is for the caller; sources are for the log.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The thing does not exist, or the caller may not know that it does.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The caller was not allowed to ask.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// The organisation is suspended.
    #[error("the organisation is suspended")]
    Suspended,
    /// The lifecycle refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Policy denied.
    #[error("{}", .denials.first().map_or("denied by policy", |veto| veto.message.as_str()))]
    Vetoed {
        /// The recorded decision.
        decision: DecisionId,
        /// Every denial, in the order of the chain.
        denials: Vec<Veto>,
    },
    /// Policy asks for a confirmation.
    #[error("confirmation required")]
    ConfirmationRequired {
        /// The recorded decision.
        decision: DecisionId,
        /// What is asked.
        prompts: Vec<Prompt>,
        /// The one-time token with which the request is to be repeated; none if nobody could.
        token: Option<Secret>,
        /// Why the confirmation that came with the request does not count, if one came.
        rejected: Option<Rejected>,
    },
    /// A rate limit is used up.
    #[error("{message}")]
    Limited {
        /// The recorded decision, if a plugin's limit stopped it.
        decision: Option<DecisionId>,
        /// A sentence for the caller.
        message: String,
        /// When it can go through.
        retry_after: Duration,
    },
    /// A quota of the organisation is used up.
    #[error("quota reached: at most {max} {of}")]
    Quota {
        /// What there is too much of.
        of: &'static str,
        /// How many there may be.
        max: u32,
    },
    /// What only organisations with an active plan have.
    #[error("{what} needs an active subscription")]
    Subscription {
        /// What was asked for.
        what: &'static str,
    },
    /// A name is taken.
    #[error("this name is already in use")]
    NameTaken,
    /// An idempotency key was used before, by a caller of whom this one may know nothing.
    #[error("this idempotency key is already in use")]
    IdempotencyKeyTaken,
    /// An idempotency key stands for another request.
    #[error("this idempotency key was used for another request; use a new one for each")]
    IdempotencyMismatch,
    /// The request with the idempotency key is still under way.
    #[error("the first request with this idempotency key is still under way; ask again in a moment")]
    RequestUnderWay,
    /// What the request with the idempotency key was answered is shown once only.
    #[error("what was made is shown once, and was shown to the first request with this idempotency key")]
    AlreadyShown,
    /// The request with the idempotency key was done, its reply is not kept, and nothing that is there says what it was.
    #[error("this was done, but its reply is not kept; look at what is there")]
    ReplyLost,
    /// A session token is taken.
    #[error("this token cannot be used; choose another")]
    TokenTaken,
    /// Something about the request is not valid.
    #[error("{message}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it, and how to mend it.
        message: String,
    },
    /// Settings that their plugin does not accept.
    #[error("the plugin does not accept these settings")]
    Settings {
        /// Problems, each with a field (a JSON Pointer) and a sentence.
        problems: Vec<(String, String)>,
    },
    /// What was to be told again is not kept any more.
    #[error("what happened is not kept any more, so that it cannot be told again")]
    EventGone,
    /// A webhook that is told nothing cannot be tried out.
    #[error("this webhook is told nothing; set active to true first")]
    WebhookOff,
    /// Something still uses the thing.
    #[error("{0}")]
    InUse(&'static str),
    /// A binding tries no other version.
    #[error("this binding has no candidate that could be promoted")]
    NoCandidate,
    /// A binding had no other version before.
    #[error("this binding has no version before to go back to")]
    NoPrevious,
    /// A component was not admitted.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// The message was not sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// Something of the simulator does not fit.
    #[error("{0}")]
    Simulator(String),
    /// A signature on a plugin does not hold, or is missing where one is needed.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A fact with this id and another content was told before.
    #[error("another fact with this id is known already")]
    FactTaken,
    /// The plugins of the organisation have more to be told than is kept for them.
    #[error("too much waits to be told to the organisation's plugins; try again later")]
    Backlog {
        /// When there may be room.
        retry_after: Duration,
    },
    /// The master key is to be changed to the one that it is.
    #[error("the new master key is the one in use; put another one where the gateway finds it, and ask again")]
    SameMasterKey,
    /// There is no new master key.
    #[error("there is no new master key: {0}")]
    MasterKey(String),
    /// It is being done already.
    #[error("{0}")]
    UnderWay(&'static str),
    /// All is well, and nothing was done because only that was to be found out.
    #[error("nothing was done, because this was a dry run")]
    DryRun,
    /// Too much is under way.
    #[error("too many operations are under way; try again")]
    Busy {
        /// When there may be a place.
        retry_after: Duration,
    },
    /// Others changed the same thing at the same time.
    #[error("somebody else changed it at the same time; try again")]
    Contention,
    /// The store failed.
    #[error("the store is unavailable")]
    Store(#[source] StoreFailure),
}

/// What of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreFailure {
    /// A read.
    #[error("reading failed")]
    Read(#[from] ReadError),
    /// A commit.
    #[error("committing failed")]
    Commit(#[from] CommitError),
}

/// What is wrong with a plugin's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It is no signature of that publisher over these bytes; or there is no such publisher.
    #[error("the signature is not one of that publisher's over this component")]
    Invalid,
    /// There is none, and the organisation or the platform takes only signed plugins.
    #[error("only plugins that a registered publisher has signed can be used here")]
    Required,
}

impl SignatureError {
    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Invalid => "invalid_signature",
            Self::Required => "signature_required",
        }
    }
}

impl ServiceError {
    /// The stable code, in audit, metrics and documentation.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::Denied(denial) => denial.code(),
            Self::Suspended => "suspended",
            Self::Refused(refusal) => refusal.code(),
            Self::Vetoed { .. } => "vetoed",
            Self::ConfirmationRequired { .. } => "confirmation_required",
            Self::Limited { .. } => "rate_limited",
            Self::Quota { .. } => "quota_reached",
            Self::Subscription { .. } => "subscription_required",
            Self::NameTaken => "name_taken",
            Self::IdempotencyKeyTaken => "idempotency_key_taken",
            Self::IdempotencyMismatch => "idempotency_mismatch",
            Self::RequestUnderWay => "idempotency_in_flight",
            Self::AlreadyShown => "already_shown",
            Self::ReplyLost => "reply_lost",
            Self::TokenTaken => "token_taken",
            Self::Invalid { .. } => "invalid",
            Self::Settings { .. } => "invalid_settings",
            Self::EventGone => "event_gone",
            Self::WebhookOff => "webhook_off",
            Self::InUse(_) => "in_use",
            Self::NoCandidate => "no_candidate",
            Self::NoPrevious => "no_previous_version",
            Self::Admission(error) => error.code(),
            Self::Send(SendError::NotConnected) => "not_connected",
            Self::Send(SendError::Refused) => "send_refused",
            Self::Send(SendError::UnknownRecipient) => "unknown_recipient",
            Self::Send(SendError::Limited) => "account_limited",
            Self::Send(SendError::Unconfirmed) => "send_unconfirmed",
            Self::Simulator(_) => "simulator",
            Self::Signature(error) => error.code(),
            Self::FactTaken => "fact_taken",
            Self::Backlog { .. } => "backlog_full",
            Self::SameMasterKey => "same_master_key",
            Self::MasterKey(_) => "master_key_unavailable",
            Self::UnderWay(_) => "under_way",
            Self::DryRun => "dry_run",
            Self::Busy { .. } => "busy",
            Self::Contention => "contention",
            Self::Store(_) => "store_unavailable",
        }
    }

    /// The recorded decision that led here, if policy was asked and said no.
    #[must_use]
    pub fn decision(&self) -> Option<DecisionId> {
        match self {
            Self::Vetoed { decision, .. } | Self::ConfirmationRequired { decision, .. } => Some(*decision),
            Self::Limited { decision, .. } => *decision,
            _ => None,
        }
    }
}

impl From<ReadError> for ServiceError {
    fn from(error: ReadError) -> Self {
        Self::Store(StoreFailure::Read(error))
    }
}
