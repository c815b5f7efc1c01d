//! `sessions`: the organisation's sessions, to read.

use portcullis_core::{Grant, OperationKind, SessionId};

use super::reads::Read;
use crate::bindings::portcullis::policy::sessions::{Host, Page};
use crate::bindings::portcullis::policy::types::{HostError, Session, Status, Window};
use crate::call::CallState;
use crate::convert;
use crate::failure::HostReadFailed;

const PAGE: usize = 100;
/// The most sessions that one call may have the host look at.
const LOOKED_AT: usize = 10_000;
/// About how many bytes a session takes in the record.
const SESSION_BYTES: usize = 512;

impl Host for CallState {
    fn get(&mut self, id: String) -> wasmtime::Result<Result<Session, HostError>> {
        let bound = match self.granted(Grant::Sessions) {
            Ok(bound) => bound,
            Err(error) => return Ok(Err(error)),
        };
        // What is no id names no session.
        let found = match id.parse::<SessionId>() {
            Ok(id) => bound.reads.session(id).map_err(HostReadFailed)?,
            Err(_) => return Ok(Err(HostError::NotFound)),
        };
        let session = found.as_ref().map(convert::ask::session);
        self.reads.record(SESSION_BYTES, || Read::Session { id, session: session.clone() });
        Ok(session.ok_or(HostError::NotFound))
    }

    fn list(&mut self, cursor: Option<String>) -> wasmtime::Result<Result<Page, HostError>> {
        let bound = match self.granted(Grant::Sessions) {
            Ok(bound) => bound,
            Err(error) => return Ok(Err(error)),
        };
        let after = match cursor.as_deref().map(str::parse::<SessionId>).transpose() {
            Ok(after) => after,
            Err(_) => return Ok(Err(HostError::Invalid("the cursor is none of a page's".to_owned()))),
        };
        let found = bound.reads.sessions(after, PAGE).map_err(HostReadFailed)?;
        let next = if found.len() == PAGE { found.last().map(|session| session.id.to_string()) } else { None };
        let sessions: Vec<Session> = found.iter().map(convert::ask::session).collect();
        let bytes = sessions.len() * SESSION_BYTES;
        self.reads.record(bytes, || Read::Sessions { after: cursor, sessions: sessions.clone() });
        Ok(Ok(Page { sessions, cursor: next }))
    }

    fn count(&mut self, status: Option<Status>) -> wasmtime::Result<Result<u64, HostError>> {
        let bound = match self.granted(Grant::Sessions) {
            Ok(bound) => bound,
            Err(error) => return Ok(Err(error)),
        };
        let (mut after, mut looked_at, mut count) = (None, 0, 0);
        loop {
            let page = bound.reads.sessions(after, PAGE).map_err(HostReadFailed)?;
            looked_at += page.len();
            let counted = |session: &&portcullis_core::Session| {
                status.is_none_or(|status| convert::ask::status(&session.status) == status)
            };
            count += u64::try_from(page.iter().filter(counted).count()).unwrap_or(u64::MAX);
            match page.last() {
                Some(last) if page.len() == PAGE && looked_at < LOOKED_AT => after = Some(last.id),
                Some(_) if page.len() == PAGE => {
                    return Ok(Err(HostError::Quota(format!("at most {LOOKED_AT} sessions can be counted"))));
                }
                _ => break,
            }
        }
        self.reads.record(16, || Read::Count { status, count });
        Ok(Ok(count))
    }

    fn usage(&mut self, operation: String, window: Window) -> wasmtime::Result<Result<u64, HostError>> {
        let bound = match self.granted(Grant::Sessions) {
            Ok(bound) => bound,
            Err(error) => return Ok(Err(error)),
        };
        let Some(kind) = OperationKind::from_name(&operation) else {
            return Ok(Err(HostError::Invalid("there is no such operation".to_owned())));
        };
        let window = convert::answer::window(window);
        let count = bound.reads.usage(kind, window).map_err(HostReadFailed)?;
        self.reads.record(operation.len(), || Read::Usage { operation, window, count });
        Ok(Ok(count))
    }
}
