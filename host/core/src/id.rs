//! Typed ids: a ULID behind a prefix that says what it names.
//!
//! The text form is `<prefix>_<26 characters of Crockford base 32>`; the binary form is the ULID's 16 bytes, big-endian, so that ids of one type sort by their time of birth.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

use crate::Timestamp;

/// A text that is no id of the expected type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an id that begins with {prefix} and has 26 more characters")]
pub struct IdError {
    prefix: &'static str,
}

macro_rules! id_types {
    ($($(#[$doc:meta])* $name:ident $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u128);

        impl $name {
            /// What the text form begins with.
            pub const PREFIX: &'static str = $prefix;

            /// An id born at `now`; the low 80 bits of `random` make it unique.
            #[must_use]
            pub fn new(now: Timestamp, random: u128) -> Self {
                Self(Ulid::from_parts(now.as_millis(), random).0)
            }

            /// The 16 bytes under which the id sorts by time of birth.
            #[must_use]
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }

            /// The id with these 16 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; ulid::ULID_LEN];
                f.write_str($prefix)?;
                f.write_str(Ulid(self.0).array_to_str(&mut text))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let parsed = text.strip_prefix($prefix).and_then(|ulid| Ulid::from_string(ulid).ok());
                // Only the canonical spelling is an id: one thing must not have two names.
                match parsed.map(|ulid| Self(ulid.0)) {
                    Some(id) if id.to_string() == text => Ok(id),
                    _ => Err(IdError { prefix: $prefix }),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

id_types! {
    /// An organisation; the tenant that owns sessions, keys and plugins.
    OrgId "org_";
    /// A WhatsApp session.
    SessionId "sess_";
    /// A policy plugin; its versions share the id.
    PluginId "plug_";
    /// A plugin version bound to a scope.
    BindingId "bind_";
    /// An API key.
    KeyId "key_";
    /// One HTTP request.
    RequestId "req_";
    /// One recorded policy decision.
    DecisionId "dec_";
    /// One domain event.
    EventId "evt_";
    /// One message on its way out.
    MessageId "out_";
    /// One delivery of an event to a receiver; see [`crate::DeliveryKey::within_line`].
    DeliveryId "dlv_";
    /// One audit entry.
    AuditId "aud_";
    /// A webhook.
    WebhookId "wh_";
    /// Somebody whose signatures on plugins count.
    PublisherId "pub_";
    /// Something that a plugin still has to be told, or has asked for.
    ErrandId "errand_";
}

impl OrgId {
    /// The operator's own scope: plugins and bindings that belong to the platform live under it.
    /// No organisation has this id, because a ULID of time zero is never made.
    pub const PLATFORM: OrgId = OrgId(0);
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_text_form_round_trips() {
        let id = SessionId::new(Timestamp::from_millis(1_700_000_000_000), 42);
        let text = id.to_string();
        assert_eq!(text.len(), "sess_".len() + 26);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(SessionId::from_bytes(id.to_bytes()), id);
    }

    #[test]
    fn foreign_prefixes_and_other_spellings_are_no_ids() {
        let id = OrgId::new(Timestamp::from_millis(1_700_000_000_000), 7);
        let text = id.to_string();
        for bad in
            [text.replace("org_", "sess_"), text.to_lowercase(), format!("{text}0"), String::new(), "org_".into()]
        {
            assert!(bad.parse::<OrgId>().is_err(), "{bad} was taken for an id");
        }
    }

    #[test]
    fn ids_sort_by_time_of_birth() {
        let older = EventId::new(Timestamp::from_millis(1), u128::MAX);
        let newer = EventId::new(Timestamp::from_millis(2), 0);
        assert!(older < newer && older.to_bytes() < newer.to_bytes());
    }
}
