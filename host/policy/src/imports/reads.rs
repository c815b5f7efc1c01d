//! What a call has read, for the record: a decision can be replayed only if its reads can be.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_core::{KvEntry, Window};
use serde::Serialize;

use crate::bindings::portcullis::policy::types::{Session, Status};

/// The most bytes of a recorded input; what is larger cannot be replayed.
pub(crate) const RECORD_BYTES: usize = 64 << 10;

/// One read and what it gave.
#[derive(Serialize)]
#[serde(tag = "read", rename_all = "kebab-case")]
pub(crate) enum Read {
    Kv { key: String, entry: Option<Kept> },
    KvKeys { prefix: String, after: Option<String>, keys: Vec<String> },
    Session { id: String, session: Option<Session> },
    Sessions { after: Option<String>, sessions: Vec<Session> },
    Count { status: Option<Status>, count: u64 },
    Usage { operation: String, window: Window, count: u64 },
}

/// A kept value, as text.
#[derive(Serialize)]
pub(crate) struct Kept {
    base64: String,
    version: u64,
}

impl From<&KvEntry> for Kept {
    fn from(entry: &KvEntry) -> Self {
        Self { base64: STANDARD.encode(&entry.value), version: entry.version }
    }
}

/// The reads of one call, in order.
#[derive(Default)]
pub(crate) struct Reads {
    list: Vec<Read>,
    bytes: usize,
}

impl Reads {
    /// Records a read of about `bytes` bytes.
    pub(crate) fn record(&mut self, bytes: usize, read: impl FnOnce() -> Read) {
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(32);
        if self.bytes <= RECORD_BYTES {
            self.list.push(read());
        }
    }

    /// The reads; none if they are too large to be recorded.
    pub(crate) fn into_list(self) -> Option<Vec<Read>> {
        (self.bytes <= RECORD_BYTES).then_some(self.list)
    }
}
