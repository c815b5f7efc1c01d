//! `sessions`: the organisation's sessions, to read.

use portcullis_core::{Grant, OperationKind, SessionId};

use super::reads::{LOOKED_AT, Read, SESSIONS_PAGE};
use crate::bindings::portcullis::policy::sessions::{Host, Page};
use crate::bindings::portcullis::policy::types::{HostError, Session, Status, Window};
use crate::call::CallState;
use crate::convert;

/// About how many bytes a session takes in the record.
const SESSION_BYTES: usize = 512;

impl Host for CallState {
    fn get(&mut self, id: String) -> wasmtime::Result<Result<Session, HostError>> {
        self.spend(1)?;
        let bound = match self.granted(Grant::Sessions) {
            Ok(bound) => bound,
            Err(error) => return Ok(Err(error)),
        };
        // What is no id names no session.
        let Ok(id) = id.parse::<SessionId>() else { return Ok(Err(HostError::NotFound)) };
        let session = bound.reads.session(id)?;
        self.reads.record(SESSION_BYTES, || Read::Session { id: id.to_string(), session: session.clone() });
        Ok(session.ok_or(HostError::NotFound))
    }

    fn list(&mut self, cursor: Option<String>) -> wasmtime::Result<Result<Page, HostError>> {
        self.spend(100)?;
        let bound = match self.granted(Grant::Sessions) {
            Ok(bound) => bound,
            Err(error) => return Ok(Err(error)),
        };
        let after = match cursor.as_deref().map(str::parse::<SessionId>).transpose() {
            Ok(after) => after,
            Err(_) => return Ok(Err(HostError::Invalid("the cursor is none of a page's".to_owned()))),
        };
        let sessions = bound.reads.sessions(after)?;
        let full = sessions.len() == SESSIONS_PAGE;
        let next = sessions.last().filter(|_| full).map(|session| session.id.clone());
        let bytes = sessions.len() * SESSION_BYTES;
        self.reads
            .record(bytes, || Read::Sessions { after: after.map(|id| id.to_string()), sessions: sessions.clone() });
        Ok(Ok(Page { sessions, cursor: next }))
    }

    fn count(&mut self, status: Option<Status>) -> wasmtime::Result<Result<u64, HostError>> {
        self.spend(1000)?;
        let bound = match self.granted(Grant::Sessions) {
            Ok(bound) => bound,
            Err(error) => return Ok(Err(error)),
        };
        let count = bound.reads.count(status)?;
        self.reads.record(16, || Read::Count { status, count });
        Ok(count.ok_or_else(|| HostError::Quota(format!("at most {LOOKED_AT} sessions can be counted"))))
    }

    fn usage(&mut self, operation: String, window: Window) -> wasmtime::Result<Result<u64, HostError>> {
        self.spend(5)?;
        let bound = match self.granted(Grant::Sessions) {
            Ok(bound) => bound,
            Err(error) => return Ok(Err(error)),
        };
        let Some(kind) = OperationKind::from_name(&operation) else {
            return Ok(Err(HostError::Invalid("there is no such operation".to_owned())));
        };
        let window = convert::answer::window(window);
        let count = bound.reads.usage(kind, window)?;
        self.reads.record(operation.len(), || Read::Usage { operation, window, count });
        Ok(Ok(count))
    }
}
