//! The kinds of rows, and how they are named.

use portcullis_core::{DEVICE_NAME_BYTES, DeviceChange};
use serde::Serialize;
use sha2::{Digest, Sha256};
use whatsapp_rust::wacore::store::error::{Result, StoreError};

/// What a row is. The numbers stand in the store; 0 is the simulated engine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// The device itself: one row, as JSON.
    Device = 1,
    Identity = 2,
    Session = 3,
    /// By number.
    PreKey = 4,
    /// By number.
    SignedPreKey = 5,
    SenderKey = 6,
    SyncKey = 7,
    /// Which of those came last: one row.
    LatestSyncKey = 8,
    Version = 9,
    /// One row for each group, of all its devices.
    SenderKeyDevices = 10,
    LidMapping = 11,
    /// Which LID a phone number was seen with last.
    PnMapping = 12,
    BaseKey = 13,
    DeviceList = 14,
    GroupMetadata = 15,
    TcToken = 16,
    SentMessage = 17,
    PendingInbound = 18,
    MsgSecret = 19,
    /// Users who have had a session or an identity. The rows are empty.
    SignalUser = 20,
    /// MACs of each collection that WhatsApp has, so that they can be forgotten together; and of any other.
    MacsOfBlocked = 32,
    MacsOfUnblocked = 33,
    MacsOfRegularHigh = 34,
    MacsOfRegularLow = 35,
    MacsOfRegular = 36,
    MacsOfOthers = 37,
}

impl Kind {
    /// The MACs of a collection.
    pub(super) fn macs_of(collection: &str) -> Self {
        match collection {
            "critical_block" => Self::MacsOfBlocked,
            "critical_unblock_low" => Self::MacsOfUnblocked,
            "regular_high" => Self::MacsOfRegularHigh,
            "regular_low" => Self::MacsOfRegularLow,
            "regular" => Self::MacsOfRegular,
            _ => Self::MacsOfOthers,
        }
    }

    /// Keep a value under a name.
    pub(super) fn put(self, name: Vec<u8>, value: impl Into<Vec<u8>>) -> DeviceChange {
        DeviceChange::Put { kind: self as u8, name, value: value.into() }
    }

    /// Keep a value under a name as JSON, which goes on to be readable when fields are added.
    pub(super) fn put_json(self, name: Vec<u8>, value: &impl Serialize) -> Result<DeviceChange> {
        Ok(self.put(name, serde_json::to_vec(value).map_err(unreadable)?))
    }

    /// Forget what is under a name.
    pub(super) fn remove(self, name: Vec<u8>) -> DeviceChange {
        DeviceChange::Remove { kind: self as u8, name }
    }

    /// Forget everything of this kind.
    pub(super) fn remove_all(self) -> DeviceChange {
        DeviceChange::RemoveAll { kind: self as u8 }
    }
}

/// The name of the only row of a kind.
pub(super) const ONLY: &[u8] = b"";

/// A row's name of some parts, none of which can run into the next. Other people choose some of them, so one that is too long
/// is not refused but stands for itself by its hash.
pub(super) fn name<const N: usize>(parts: [&[u8]; N]) -> Vec<u8> {
    let mut name = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        // Nothing that came in one frame has a length that does not fit.
        name.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        name.extend_from_slice(part);
    }
    if name.len() > DEVICE_NAME_BYTES {
        let mut short = vec![u8::MAX; 4];
        short.extend_from_slice(&Sha256::digest(&name));
        return short;
    }
    name
}

/// The name of a numbered row.
pub(super) fn number(id: u32) -> Vec<u8> {
    id.to_be_bytes().to_vec()
}

/// The number that is a row's name.
pub(super) fn numbered(name: &[u8]) -> Option<u32> {
    name.try_into().ok().map(u32::from_be_bytes)
}

/// Seconds before what is kept.
pub(super) fn timed(at: i64, value: &[u8]) -> Vec<u8> {
    [&at.to_be_bytes()[..], value].concat()
}

/// The seconds, and what is kept after them.
pub(super) fn at_and_rest(value: &[u8]) -> Option<(i64, &[u8])> {
    let (at, rest) = value.split_first_chunk()?;
    Some((i64::from_be_bytes(*at), rest))
}

/// A row does not hold what it should.
pub(super) fn unreadable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Serialization(source.into())
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn names_of_other_parts_are_other_names() {
        let names = [name([b"ab", b"c"]), name([b"a", b"bc"]), name([b"abc", b""]), name([b"", b"abc"])];
        for (at, one) in names.iter().enumerate() {
            assert!(!names[at + 1..].contains(one));
        }
    }

    #[test]
    fn names_are_never_too_long() {
        let (long, longer) = ([b'x'; 500], [b'x'; 501]);
        assert!(name([&long, b"id"]).len() <= DEVICE_NAME_BYTES);
        assert_ne!(name([&long, b"id"]), name([&longer, b"id"]));
        assert_eq!(name([&long, b"id"]), name([&long, b"id"]));
        assert_eq!(name([&long[..DEVICE_NAME_BYTES - 4]]).len(), DEVICE_NAME_BYTES);
    }

    #[test]
    fn numbers_are_read_back() {
        assert_eq!(numbered(&number(0x00FF_FFFE)), Some(0x00FF_FFFE));
        assert_eq!(numbered(b"abc"), None);
        assert_eq!(at_and_rest(&timed(-5, b"rest")), Some((-5, &b"rest"[..])));
        assert_eq!(at_and_rest(b"short"), None);
    }
}
