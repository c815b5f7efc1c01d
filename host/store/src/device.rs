//! The port through which engines keep the state of linked devices.

use std::sync::mpsc::sync_channel;

use portcullis_core::{DeviceChange, DeviceStore, DeviceStoreError, OrgId, SessionId};
use redb::ReadableDatabase;

use crate::Store;
use crate::error::{CommitError, ReadError, StoreFault};
use crate::keyfile::Owner;
use crate::keyring::Opened;
use crate::prepare::prepare_device;
use crate::tables::{self, key};
use crate::writer::{Job, Reply};

impl DeviceStore for Store {
    fn read(&self, org: OrgId, session: SessionId, name: &[u8]) -> Result<Option<Vec<u8>>, DeviceStoreError> {
        let shared = self.shared();
        let owner = Owner::session(org, session);
        if shared.ring.live(owner).is_none() {
            return Err(DeviceStoreError::Gone);
        }
        let session = session.to_bytes();
        let row = key(&[&org.to_bytes(), &session, &shared.ring.hashes.device_key(session, name)]);
        let read = || -> Result<_, StoreFault> {
            let rows = shared.database.begin_read()?.open_table(tables::DEVICES)?;
            let found = rows.get(&row[..])?;
            Ok(found.map(|value| shared.ring.open(owner, tables::name(tables::DEVICES), &row, value.value(), 0)))
        };
        match read().map_err(|fault| failed(&fault))? {
            None => Ok(None),
            Some(Opened::Plain(value)) => Ok(Some(value)),
            Some(Opened::Gone) => Err(DeviceStoreError::Gone),
            Some(Opened::Broken) => Err(failed(&ReadError::unopenable(tables::DEVICES, &row))),
        }
    }

    fn write(&self, org: OrgId, session: SessionId, changes: Vec<DeviceChange>) -> Result<(), DeviceStoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let write = || {
            let prepared = prepare_device(&self.shared().ring, org, session, changes)?;
            let (reply, answer) = sync_channel(1);
            self.writer().send(Job::Commit(Box::new(prepared), Reply::Thread(reply)))?;
            answer.recv().unwrap_or(Err(CommitError::Closed))
        };
        match write() {
            Ok(_) => Ok(()),
            // A conflict can only mean that the session's key is no longer the living one.
            Err(CommitError::UnknownSession(_) | CommitError::UnknownOrg(_) | CommitError::Conflict) => {
                Err(DeviceStoreError::Gone)
            }
            Err(error) => Err(failed(&error)),
        }
    }
}

/// The whole chain of an error, for the log.
fn failed(error: &dyn std::error::Error) -> DeviceStoreError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    DeviceStoreError::Failed(text)
}
