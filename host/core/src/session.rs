//! A session: what was asked of it, what is so, and what is known about it.
//!
//! [`Intent`] is the wish and [`Status`] the fact; they are never merged, because reconciliation is comparing them.
//! Only [`crate::lifecycle`] changes either.

mod profile;
mod status;

use serde::{Deserialize, Serialize};

use crate::confirmation::Given;
use crate::{Labels, OrgId, Removal, Secret, SessionId, Timestamp};

pub use profile::{Proxy, ProxyProtocol, Settings, TEMP_LINK_LIFETIME, TempLink};
pub use status::{FailureCause, LoggedOutBy, PairingCode, PairingMethod, RemovalStep, Retry, Status};

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
