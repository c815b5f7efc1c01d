//! What is wanted of a session, and what is so, in the model's own words.

use crate::steps::{How, Millis};

/// What is wanted of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    Run,
    Rest,
    Gone { due: Millis, since: Millis, ran: bool },
}

/// What is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    Stopped,
    Starting {
        run: u64,
        by: Millis,
        /// How often it failed before.
        tries: u32,
    },
    Pairing {
        run: u64,
        how: How,
        code: Option<(u32, Millis)>,
        by: Millis,
    },
    Online {
        run: u64,
    },
    Reconnecting {
        run: u64,
        since: Millis,
        tries: u32,
        by: Millis,
    },
    LoggedOut {
        by: &'static str,
        unlink: &'static str,
    },
    /// Why, and when it is tried again, for the how-manieth time.
    Failed(&'static str, Option<(Millis, u32)>),
    /// Its deletion waits for the phone.
    Unlinking {
        run: u64,
        by: Millis,
    },
    /// Its deletion waits for nothing any more.
    Going,
    Erased,
}

impl State {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting { .. } => "starting",
            Self::Pairing { .. } => "pairing",
            Self::Online { .. } => "online",
            Self::Reconnecting { .. } => "reconnecting",
            Self::LoggedOut { .. } => "logged-out",
            Self::Failed(..) => "failed",
            Self::Unlinking { .. } | Self::Going => "removing",
            Self::Erased => "gone",
        }
    }

    pub(crate) fn run(&self) -> Option<u64> {
        match self {
            Self::Starting { run, .. }
            | Self::Pairing { run, .. }
            | Self::Online { run }
            | Self::Reconnecting { run, .. }
            | Self::Unlinking { run, .. } => Some(*run),
            Self::Stopped | Self::LoggedOut { .. } | Self::Failed(..) | Self::Going | Self::Erased => None,
        }
    }

    /// Until when it lasts if nothing happens.
    pub(crate) fn lasts(&self) -> Option<Millis> {
        match self {
            Self::Starting { by, .. }
            | Self::Pairing { by, .. }
            | Self::Reconnecting { by, .. }
            | Self::Unlinking { by, .. } => Some(*by),
            Self::Failed(_, again) => again.map(|(at, _)| at),
            _ => None,
        }
    }
}
