//! What plugins read while they decide: one snapshot of the store, narrowed to one organisation.

use std::sync::Arc;

use portcullis_core::{
    KvEntry, OperationKind, OrgId, PluginId, PolicyReadError, PolicyReads, Session, SessionId, Timestamp, Window,
};
use portcullis_store::{ReadError, Snapshot};

/// A snapshot through one organisation's eyes.
pub(crate) struct OrgReads {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) org: OrgId,
    pub(crate) now: Timestamp,
}

impl PolicyReads for OrgReads {
    fn kv(&self, plugin: PluginId, key: &str) -> Result<Option<KvEntry>, PolicyReadError> {
        self.snapshot.kv(self.org, plugin, key, self.now).map_err(failed)
    }

    fn kv_keys(
        &self,
        plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, PolicyReadError> {
        self.snapshot.kv_keys(self.org, plugin, prefix, after, limit, self.now).map_err(failed)
    }

    fn session(&self, id: SessionId) -> Result<Option<Session>, PolicyReadError> {
        self.snapshot.session(self.org, id).map_err(failed)
    }

    fn sessions(&self, after: Option<SessionId>, limit: usize) -> Result<Vec<Session>, PolicyReadError> {
        self.snapshot.sessions(self.org, after, limit).map_err(failed)
    }

    fn usage(&self, operation: OperationKind, window: Window) -> Result<u64, PolicyReadError> {
        self.snapshot.usage(self.org, operation, window, self.now).map_err(failed)
    }
}

fn failed(error: ReadError) -> PolicyReadError {
    PolicyReadError(error.to_string())
}
