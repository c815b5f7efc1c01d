//! What is so of a session: its status, with the data that only exists while it lasts.

use serde::{Deserialize, Serialize};

use super::Attempt;
use crate::{Secret, Timestamp, Unlink};

/// What is so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Status {
    /// No engine runs.
    Stopped,
    /// An engine boots with a linked device.
    Starting {
        /// The engine run.
        attempt: Attempt,
        /// When it counts as failed.
        deadline: Timestamp,
        /// How often it failed before in a row and was tried again.
        #[serde(default)]
        tries: u32,
    },
    /// An engine waits to be linked.
    Pairing {
        /// The engine run.
        attempt: Attempt,
        /// How it is being linked.
        method: PairingMethod,
        /// What the phone has to be shown or told at the moment.
        code: Option<PairingCode>,
        /// When pairing counts as failed unless something new arrives.
        deadline: Timestamp,
    },
    /// Connected.
    Online {
        /// The engine run.
        attempt: Attempt,
    },
    /// The connection was lost and the engine is working on it.
    Reconnecting {
        /// The engine run.
        attempt: Attempt,
        /// When the connection was lost.
        since: Timestamp,
        /// How often it was lost again since.
        tries: u32,
        /// When the engine is launched anew.
        deadline: Timestamp,
    },
    /// The device is unlinked; terminal until paired again.
    LoggedOut {
        /// Who unlinked it.
        by: LoggedOutBy,
        /// Whether WhatsApp has heard of it.
        #[serde(default = "Unlink::not_linked")]
        unlink: Unlink,
    },
    /// It does not run, although it should.
    Failed {
        /// What happened.
        cause: FailureCause,
        /// When it is tried again by itself; terminal until started again if it is not.
        #[serde(default)]
        retry: Option<Retry>,
    },
    /// Being deleted.
    Removing {
        /// How far it is.
        step: RemovalStep,
    },
}

impl Status {
    /// The stable word for the status, in events, audit and the policy contract.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting { .. } => "starting",
            Self::Pairing { .. } => "pairing",
            Self::Online { .. } => "online",
            Self::Reconnecting { .. } => "reconnecting",
            Self::LoggedOut { .. } => "logged-out",
            Self::Failed { .. } => "failed",
            Self::Removing { .. } => "removing",
        }
    }

    /// The engine run that this status stands for, if one should be alive.
    #[must_use]
    pub fn attempt(&self) -> Option<Attempt> {
        match self {
            Self::Starting { attempt, .. }
            | Self::Pairing { attempt, .. }
            | Self::Online { attempt }
            | Self::Reconnecting { attempt, .. }
            | Self::Removing { step: RemovalStep::Unlink { attempt, .. } } => Some(*attempt),
            Self::Stopped | Self::LoggedOut { .. } | Self::Failed { .. } | Self::Removing { .. } => None,
        }
    }

    /// When time alone moves this status on.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Starting { deadline, .. }
            | Self::Pairing { deadline, .. }
            | Self::Reconnecting { deadline, .. }
            | Self::Removing { step: RemovalStep::Unlink { deadline, .. } | RemovalStep::Notify { deadline } } => {
                Some(*deadline)
            }
            Self::Failed { retry, .. } => retry.map(|retry| retry.at),
            Self::Stopped
            | Self::Online { .. }
            | Self::LoggedOut { .. }
            | Self::Removing { step: RemovalStep::Erase } => None,
        }
    }
}

/// How a device is being linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairingMethod {
    /// By scanning a QR code.
    Qr,
    /// By typing a code on the phone.
    Code,
    /// By a passkey, which WhatsApp asks of some accounts.
    Passkey,
}

/// What a phone has to be shown or told to link the device; a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairingCode {
    /// The text of the QR code, or the code to type.
    pub text: Secret,
    /// When the next one replaces it.
    pub expires_at: Timestamp,
    /// The how-manieth of this pairing it is, from 1; the lifecycle counts.
    #[serde(default)]
    pub ordinal: u32,
}

/// Who unlinked a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoggedOutBy {
    /// A caller of the gateway.
    Api,
    /// The phone, or WhatsApp.
    Phone,
}

/// When a failed session is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// When.
    pub at: Timestamp,
    /// The how-manieth try in a row that will be, from 1.
    pub tries: u32,
}

/// Why a session failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCause {
    /// Nobody scanned or typed any of the codes in time.
    PairingExpired,
    /// The engine gave up in the middle of a pairing, which has to be begun anew.
    PairingInterrupted,
    /// The engine did not connect in time.
    StartTimeout,
    /// Another client took the connection over.
    Replaced,
    /// WhatsApp banned the account for a time.
    Banned,
    /// WhatsApp no longer accepts this client's version.
    ClientOutdated,
    /// WhatsApp refused the connection for good.
    ConnectionRefused,
    /// WhatsApp would not link a device: the phone number is wrong, or too much was asked.
    PairingRefused,
    /// WhatsApp's server cannot be reached.
    Unreachable,
    /// The session's proxy cannot be reached, does not let the gateway in, or cannot reach WhatsApp.
    ProxyUnreachable,
    /// Whoever answers in the place of WhatsApp's server cannot prove to be it.
    ServerNotTrusted,
    /// What the connection needs could not be kept.
    StorageFailed,
}

impl FailureCause {
    /// Every cause.
    pub const ALL: [Self; 12] = [
        Self::PairingExpired,
        Self::PairingInterrupted,
        Self::StartTimeout,
        Self::Replaced,
        Self::Banned,
        Self::ClientOutdated,
        Self::ConnectionRefused,
        Self::PairingRefused,
        Self::Unreachable,
        Self::ProxyUnreachable,
        Self::ServerNotTrusted,
        Self::StorageFailed,
    ];

    /// Whether it can pass without anybody's doing, so that a linked session is tried again.
    #[must_use]
    pub fn can_pass(self) -> bool {
        match self {
            Self::StartTimeout
            | Self::Unreachable
            | Self::ProxyUnreachable
            | Self::ServerNotTrusted
            | Self::StorageFailed => true,
            Self::PairingExpired
            | Self::PairingInterrupted
            | Self::Replaced
            | Self::Banned
            | Self::ClientOutdated
            | Self::ConnectionRefused
            | Self::PairingRefused => false,
        }
    }

    /// The stable word for the cause.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PairingExpired => "pairing-expired",
            Self::PairingInterrupted => "pairing-interrupted",
            Self::StartTimeout => "start-timeout",
            Self::Replaced => "replaced",
            Self::Banned => "banned",
            Self::ClientOutdated => "client-outdated",
            Self::ConnectionRefused => "connection-refused",
            Self::PairingRefused => "pairing-refused",
            Self::Unreachable => "unreachable",
            Self::ProxyUnreachable => "proxy-unreachable",
            Self::ServerNotTrusted => "server-not-trusted",
            Self::StorageFailed => "storage-failed",
        }
    }
}

/// How far a deletion is; each step can be resumed after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum RemovalStep {
    /// The device is being logged out of WhatsApp.
    Unlink {
        /// The engine run that does it.
        attempt: Attempt,
        /// When the deletion goes on without it.
        deadline: Timestamp,
    },
    /// The delete event is queued and its first delivery is under way.
    Notify {
        /// When the deletion goes on without waiting for it.
        deadline: Timestamp,
    },
    /// The data is being erased. There is no way back from here.
    Erase,
}
