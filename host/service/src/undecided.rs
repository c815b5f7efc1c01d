//! Why an operation is not decided or settled yet, or never will be.

use portcullis_store::{CommitError, QuotaKind};

use crate::execute::BUSY_RETRY;
use crate::overdraft::Overdraft;
use crate::turns::Wait;
use crate::{ServiceError, StoreFailure};

/// Why a question is not decided yet, or never will be.
pub(crate) enum Undecided {
    /// A rate limit is used up; decide again once it may have room.
    Wait(Wait),
    /// It is over.
    Failed(ServiceError),
}

impl From<ServiceError> for Undecided {
    fn from(error: ServiceError) -> Self {
        Self::Failed(error)
    }
}

impl From<Undecided> for ServiceError {
    /// For askers who do not wait: they never have the patience that makes a question wait.
    fn from(undecided: Undecided) -> Self {
        match undecided {
            Undecided::Failed(error) => error,
            Undecided::Wait(_) => Self::Busy { retry_after: BUSY_RETRY },
        }
    }
}

/// Why an operation is not settled yet, or never will be.
pub(crate) enum Unsettled {
    /// What it rests on has changed; decide again.
    Conflict,
    /// A rate limit is used up, and the caller has the patience to wait for it.
    Wait(Wait),
    /// What a plugin wants besides goes beyond its quota; fold again without it.
    Overdrawn(Overdraft),
    /// It is over.
    Failed(ServiceError),
}

impl From<ServiceError> for Unsettled {
    fn from(error: ServiceError) -> Self {
        Self::Failed(error)
    }
}

impl From<CommitError> for Unsettled {
    fn from(error: CommitError) -> Self {
        if let Some(overdraft) = Overdraft::of(&error) {
            return Self::Overdrawn(overdraft);
        }
        match error {
            CommitError::Conflict => Self::Conflict,
            CommitError::Quota { of, max } => Self::Failed(ServiceError::Quota { of: quota_name(of), max }),
            CommitError::NameTaken => Self::Failed(ServiceError::NameTaken),
            CommitError::TokenTaken => Self::Failed(ServiceError::TokenTaken),
            CommitError::UnknownOrg(_) => Self::Failed(ServiceError::NotFound("organisation")),
            CommitError::UnknownSession(_) => Self::Failed(ServiceError::NotFound("session")),
            error => Self::Failed(ServiceError::Store(StoreFailure::Commit(error))),
        }
    }
}

/// What there can be too much of, as the caller is told.
pub(crate) fn quota_name(of: QuotaKind) -> &'static str {
    match of {
        QuotaKind::Sessions => "sessions",
        QuotaKind::Keys => "keys",
        QuotaKind::Plugins => "plugins",
        QuotaKind::Bindings => "bindings",
        QuotaKind::Webhooks => "webhooks",
        QuotaKind::QueuedMessages => "queued messages",
        QuotaKind::Errands => "errands",
        QuotaKind::Confirmations => "open confirmations",
        QuotaKind::Publishers => "publishers",
    }
}
