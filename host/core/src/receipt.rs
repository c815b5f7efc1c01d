//! Receipts: what is kept of a deletion, for whoever has to show that it was done.
//!
//! While a session is being deleted it says itself how far that is ([`Removal`]). When its key is destroyed this becomes a
//! [`Receipt`], which is signed, stands in the audit and outlives the session: it holds ids, times and stable words only.

use serde::{Deserialize, Serialize};

use crate::{DecisionId, OrgId, SessionId, Timestamp};

/// What is written before the receipt in the text that is signed.
const SIGNED_AS: &str = "portcullis receipt 1\n";

/// How far a deletion is, and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// For when it was due: the same, or the end of a grace period.
    pub due_at: Timestamp,
    /// When it began.
    pub began_at: Timestamp,
    /// The decision that let it begin, if policy was asked.
    pub decision: Option<DecisionId>,
    /// What became of the linked device.
    pub unlink: Unlink,
    /// What became of the news of it.
    pub notify: Notify,
}

/// What became of the device that was linked to a session which is logged out or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unlink {
    /// There was none.
    NotLinked,
    /// It is being logged out.
    UnderWay,
    /// WhatsApp has confirmed that it is logged out.
    Confirmed,
    /// Nobody has confirmed it in time; the account's owner can unlink it on the phone.
    NotConfirmed,
}

impl Unlink {
    /// What is said of a logout of which nothing is known.
    pub(crate) fn not_linked() -> Self {
        Self::NotLinked
    }

    /// What WhatsApp has said, or not.
    #[must_use]
    pub fn of(is_confirmed: bool) -> Self {
        if is_confirmed { Self::Confirmed } else { Self::NotConfirmed }
    }

    /// The stable word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotLinked => "not-linked",
            Self::UnderWay => "under-way",
            Self::Confirmed => "confirmed",
            Self::NotConfirmed => "not-confirmed",
        }
    }
}

/// What became of the news that a session is deleted, before it was erased. What was not taken then is tried on afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notify {
    /// It is being told.
    UnderWay,
    /// Every receiver was tried, if there are any.
    Tried,
    /// Not every receiver was tried in time.
    TimedOut,
}

/// That something was erased for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// In whose organisation; the organisation itself, if that was erased.
    #[serde(rename = "organizationId")]
    pub org: OrgId,
    /// The session; none if it was the organisation itself.
    #[serde(rename = "sessionId", skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// For when it was due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub began_at: Option<Timestamp>,
    /// The decision that let it begin.
    #[serde(rename = "decisionId", skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionId>,
    /// What became of the linked device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlink: Option<Unlink>,
    /// What became of the news of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// How many events went with it that some receiver had not been told.
    pub events_discarded: u64,
    /// When its rows were removed, and the overwriting of its key was decided.
    pub rows_removed_at: Timestamp,
    /// When its key was overwritten, and that was durable.
    pub key_destroyed_at: Timestamp,
    /// SHA-256 over the overwritten slot of the key file as it was before, in hexadecimal.
    pub slot_digest: String,
}

impl Receipt {
    /// The text that is signed: a line that says what it is, and the receipt as compact JSON in the order of its fields.
    #[must_use]
    pub fn signed_text(&self) -> String {
        let receipt = serde_json::to_string(self).expect("ids, times and words have a JSON form");
        format!("{SIGNED_AS}{receipt}")
    }
}

/// Where an exported audit ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEnd {
    /// Whose audit it is.
    #[serde(rename = "organizationId")]
    pub org: OrgId,
    /// The number of the last line; 0 if there is none.
    pub number: u64,
    /// Its hash, in hexadecimal; zeros if there is none.
    pub hash: String,
    /// SHA-256 of all lines of the export before this one, with their line breaks, in hexadecimal.
    pub digest: String,
}

impl AuditEnd {
    /// The text that is signed.
    #[must_use]
    pub fn signed_text(&self) -> String {
        let Self { org, number, hash, digest } = self;
        format!("portcullis audit end 1\n{org} {number} {hash} {digest}")
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn what_is_signed_is_the_same_after_reading_it() {
        let receipt = Receipt {
            org: OrgId::from_bytes([1; 16]),
            session: Some(SessionId::from_bytes([2; 16])),
            asked_at: Timestamp::from_millis(1),
            due_at: Some(Timestamp::from_millis(2)),
            began_at: None,
            decision: None,
            unlink: Some(Unlink::NotConfirmed),
            notify: Some(Notify::Tried),
            events_discarded: 3,
            rows_removed_at: Timestamp::from_millis(4),
            key_destroyed_at: Timestamp::from_millis(5),
            slot_digest: "ab".to_owned(),
        };
        let text = receipt.signed_text();
        let json = text.strip_prefix("portcullis receipt 1\n").unwrap();
        assert_eq!(serde_json::from_str::<Receipt>(json).unwrap().signed_text(), text);
        assert_eq!(
            json,
            r#"{"organizationId":"org_01040G2081040G2081040G2081","sessionId":"sess_02081040G2081040G2081040G2","askedAt":1,"dueAt":2,"unlink":"not-confirmed","notify":"tried","eventsDiscarded":3,"rowsRemovedAt":4,"keyDestroyedAt":5,"slotDigest":"ab"}"#
        );
    }
}
