//! A session: what was asked of it, what is so, and what is known about it.
//!
//! [`Intent`] is the wish and [`Status`] the fact; they are never merged, because reconciliation is comparing them.
//! Only [`crate::lifecycle`] changes either.

mod profile;

use serde::{Deserialize, Serialize};

use crate::confirmation::Given;
use crate::{Labels, OrgId, Removal, Secret, SessionId, Timestamp, Unlink};

pub use profile::{Proxy, ProxyProtocol, Settings, TEMP_LINK_LIFETIME, TempLink};

/// One WhatsApp session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub org: OrgId,
    /// Its name in every dialect, made at creation and never changed.
    pub names: Names,
    /// What people call it.
    pub display_name: Option<String>,
    /// What policies and selectors know about it.
    pub labels: Labels,
    /// How it behaves towards chats.
    pub settings: Settings,
    /// Through which proxy it connects.
    #[serde(default)]
    pub proxy: Option<Proxy>,
    /// A token that opens this session and nothing else; the gateway knows no two that are the same.
    #[serde(default)]
    pub token: Option<Secret>,
    /// The temporary link to its QR code, if one was made; at most one is active.
    #[serde(default)]
    pub link: Option<TempLink>,
    /// The phone number that it is meant for, as its maker said; digits only.
    #[serde(default)]
    pub expected_phone: Option<String>,
    /// The slug of the named rate policy that bounds its sends.
    pub rate_policy: String,
    /// What was asked.
    pub intent: Intent,
    /// What was confirmed when a delete was asked for, for when it is due; it means nothing without one.
    #[serde(default)]
    pub confirmed_delete: Option<Given>,
    /// How its deletion goes, once it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<Removal>,
    /// What is so.
    pub status: Status,
    /// The last engine run that was begun; the next one gets the next number.
    pub last_attempt: Attempt,
    /// The linked device, for as long as its credentials are held.
    pub device: Option<Device>,
    /// A limit that WhatsApp has put on the account.
    pub account_limit: Option<AccountLimit>,
    /// Grows with every change; cursor of watchers and expectation of commits.
    pub generation: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it was last online.
    pub last_connected_at: Option<Timestamp>,
}

/// A session's names, one for each kind of client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// 12 upper-case hexadecimal characters (Wawp's `instance_id`).
    pub instance_id: String,
    /// `wawp-` and 8 digits (Wawp's session name).
    pub wawp_name: String,
    /// Unique in its organisation (Evolution's `instanceName`).
    pub instance_name: String,
    /// A version 4 UUID (Evolution's `instanceId`).
    pub uuid: String,
}

impl Names {
    /// Names made from 128 random bits; `instance_name` is the caller's choice or else the Wawp name.
    #[must_use]
    pub fn new(random: u128, instance_name: Option<String>) -> Self {
        let [.., a, b, c, d, e, f] = random.to_be_bytes();
        let instance_id = format!("{a:02X}{b:02X}{c:02X}{d:02X}{e:02X}{f:02X}");
        let wawp_name = format!("wawp-{:08}", (random >> 48) % 100_000_000);
        let instance_name = instance_name.unwrap_or_else(|| wawp_name.clone());
        Self { instance_id, wawp_name, instance_name, uuid: uuid(random) }
    }
}

/// A version 4 UUID made from 128 random bits, in lower case.
#[must_use]
pub fn uuid(random: u128) -> String {
    // The version (4) and the variant (binary 10) have fixed places in a UUID (RFC 9562, section 5.4).
    let bits = random & !(0xF << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// What was asked of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Intent {
    /// It should be connected, or pairing until it can be.
    Running,
    /// It should not be connected.
    Stopped,
    /// It should be gone, from `due` on.
    Removed {
        /// When the deletion is carried out.
        due: Timestamp,
        /// Why it was put off, in a policy's words; empty if it was not.
        reason: String,
        /// Since when the deletion has been wanted.
        since: Timestamp,
        /// Whether it was to be running before, so that a restore can bring it back.
        was_running: bool,
    },
}

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
    /// Pairing by code ended with the gateway's process; a new code has to be asked for.
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

/// The number of an engine run; it fences the facts that a run reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(u64);

impl Attempt {
    /// The run after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The bare number, for logs and keys.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

/// The identity under which a session is linked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The account, `<digits>@s.whatsapp.net`.
    pub jid: String,
    /// The account's hidden identity, `<digits>@lid`, when known.
    pub lid: Option<String>,
    /// What the account calls itself.
    pub push_name: Option<String>,
}

impl Device {
    /// The account's phone number: the digits before the `@` or the device part of its JID.
    #[must_use]
    pub fn phone(&self) -> &str {
        self.jid.split(['@', ':']).next().unwrap_or_default()
    }
}

/// A limit that WhatsApp has put on an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountLimit {
    /// WhatsApp's own word or number for it (463 is the one for new chats).
    pub code: String,
    /// When it ends, if that is known.
    pub until: Option<Timestamp>,
    /// When it was first seen.
    pub since: Timestamp,
}

impl Session {
    /// A new session that is stopped and linked to nothing.
    #[must_use]
    pub fn new(id: SessionId, org: OrgId, names: Names, now: Timestamp) -> Self {
        Self {
            id,
            org,
            names,
            display_name: None,
            labels: Labels::new(),
            settings: Settings::default(),
            proxy: None,
            token: None,
            link: None,
            expected_phone: None,
            rate_policy: crate::rate::DEFAULT_POLICY.to_owned(),
            intent: Intent::Stopped,
            confirmed_delete: None,
            removal: None,
            status: Status::Stopped,
            last_attempt: Attempt::default(),
            device: None,
            account_limit: None,
            generation: 1,
            created_at: now,
            updated_at: now,
            last_connected_at: None,
        }
    }

    /// The same session one generation on, as a place to put changes.
    #[must_use]
    pub fn changed(&self, now: Timestamp) -> Self {
        let mut next = self.clone();
        next.generation += 1;
        next.updated_at = now;
        next
    }

    /// What may be kept of a session that is on its way out: ids, times, stable words, and nothing personal.
    #[must_use]
    pub fn bare(&self) -> Self {
        let names = Names { instance_name: self.names.wawp_name.clone(), ..self.names.clone() };
        let status = match &self.status {
            Status::Pairing { attempt, method, deadline, .. } => {
                Status::Pairing { attempt: *attempt, method: *method, code: None, deadline: *deadline }
            }
            status => status.clone(),
        };
        let intent = match &self.intent {
            Intent::Removed { due, since, was_running, .. } => {
                Intent::Removed { due: *due, since: *since, was_running: *was_running, reason: String::new() }
            }
            intent => intent.clone(),
        };
        Self {
            status,
            intent,
            rate_policy: self.rate_policy.clone(),
            last_attempt: self.last_attempt,
            generation: self.generation,
            updated_at: self.updated_at,
            last_connected_at: self.last_connected_at,
            ..Self::new(self.id, self.org, names, self.created_at)
        }
    }

    /// When its deletion is due, while one is pending.
    #[must_use]
    pub fn delete_due(&self) -> Option<Timestamp> {
        match (&self.intent, &self.status) {
            (_, Status::Removing { .. }) => None,
            (Intent::Removed { due, .. }, _) => Some(*due),
            (Intent::Running | Intent::Stopped, _) => None,
        }
    }

    /// The linked device, unless it is logged out and only waits to be unlinked.
    #[must_use]
    pub fn linked_device(&self) -> Option<&Device> {
        if matches!(self.status, Status::LoggedOut { .. }) { None } else { self.device.as_ref() }
    }

    /// The temporary link that opens something at `now`.
    #[must_use]
    pub fn active_link(&self, now: Timestamp) -> Option<&TempLink> {
        self.link.as_ref().filter(|link| now < link.expires_at)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn names_have_the_form_of_their_dialects() {
        let names = Names::new(0x0123_4567_89ab_cdef_0123_3eb0_bcb2_e3d4, None);
        assert_eq!(names.instance_id, "3EB0BCB2E3D4");
        assert_eq!(names.wawp_name.len(), "wawp-".len() + 8);
        assert_eq!(names.instance_name, names.wawp_name);
        assert_eq!(names.uuid, "01234567-89ab-4def-8123-3eb0bcb2e3d4");
        assert_eq!(Names::new(0, Some("sales".into())).instance_name, "sales");
    }

    /// What stays of a session that is erased must not say whose it was or what it was for.
    #[test]
    fn a_bare_session_holds_nothing_that_anybody_wrote() {
        const MARKER: &str = "marker";
        let at = Timestamp::from_millis(1);
        let names = Names::new(7, Some(MARKER.into()));
        let device = Device { jid: format!("{MARKER}@s.whatsapp.net"), lid: None, push_name: Some(MARKER.into()) };
        let session = Session {
            display_name: Some(MARKER.into()),
            labels: [(MARKER.to_owned(), MARKER.to_owned())].into(),
            token: Some(Secret::new(MARKER)),
            link: Some(TempLink { token: Secret::new(MARKER), expires_at: at }),
            expected_phone: Some(MARKER.into()),
            intent: Intent::Removed { due: at, reason: MARKER.into(), since: at, was_running: true },
            status: Status::Pairing {
                attempt: Attempt::default(),
                method: PairingMethod::Qr,
                code: Some(PairingCode { text: Secret::new(MARKER), expires_at: at, ordinal: 1 }),
                deadline: at,
            },
            device: Some(device),
            account_limit: Some(AccountLimit { code: MARKER.into(), until: None, since: at }),
            ..Session::new(SessionId::from_bytes([1; 16]), OrgId::from_bytes([2; 16]), names, at)
        };
        let json = |session: &Session| serde_json::to_string(session).unwrap();
        assert!(json(&session).matches(MARKER).count() > 10);
        assert!(!json(&session.bare()).contains(MARKER));
        assert_eq!((session.bare().id, session.bare().created_at), (session.id, at));
    }
}
