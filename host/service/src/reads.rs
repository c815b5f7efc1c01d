//! What plugins read while they decide: one snapshot of the store, narrowed to one organisation.

use std::sync::Arc;

use portcullis_core::{
    KvEntry, OperationKind, OrgId, PluginId, PluginRequest, PolicyReadError, PolicyReads, RequestFlaw, Secret, Session,
    SessionId, Timestamp, Window,
};
use portcullis_net::Outbound;
use portcullis_store::{ReadError, Snapshot};

use crate::requests::check_request;

/// A snapshot through one organisation's eyes.
pub(crate) struct OrgReads {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) org: OrgId,
    pub(crate) now: Timestamp,
    /// Where requests go, if any may be sent.
    pub(crate) outbound: Option<Outbound>,
}

impl PolicyReads for OrgReads {
    fn kv(&self, plugin: PluginId, key: &str) -> Result<Option<KvEntry>, PolicyReadError> {
        self.snapshot.kv(self.org, plugin, key, self.now).map_err(|error| failed(&error))
    }

    fn kv_keys(
        &self,
        plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, PolicyReadError> {
        self.snapshot.kv_keys(self.org, plugin, prefix, after, limit, self.now).map_err(|error| failed(&error))
    }

    fn session(&self, id: SessionId) -> Result<Option<Session>, PolicyReadError> {
        self.snapshot.session(self.org, id).map_err(|error| failed(&error))
    }

    fn sessions(&self, after: Option<SessionId>, limit: usize) -> Result<Vec<Session>, PolicyReadError> {
        self.snapshot.sessions(self.org, after, limit).map_err(|error| failed(&error))
    }

    fn secret(&self, owner: OrgId, plugin: PluginId, name: &str) -> Result<Option<Secret>, PolicyReadError> {
        self.snapshot.secret(owner, plugin, name).map_err(|error| failed(&error))
    }

    fn usage(&self, operation: OperationKind, window: Window) -> Result<u64, PolicyReadError> {
        self.snapshot.usage(self.org, operation, window, self.now).map_err(|error| failed(&error))
    }

    fn check_request(&self, request: &PluginRequest) -> Result<String, RequestFlaw> {
        check_request(self.outbound.as_ref().ok_or(RequestFlaw::NoWayOut)?, request)
    }
}

fn failed(error: &ReadError) -> PolicyReadError {
    use std::error::Error;
    // The port carries a text for the log, so what lies below is put into it.
    let below = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    PolicyReadError(format!("{error}{below}"))
}
