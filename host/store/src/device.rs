//! The port through which engines keep the state of linked devices.
//!
//! A row's key is its owner, its kind, and the keyed hash of its name; the name itself stands in the sealed value, before what is
//! kept under it. So one row is found by one lookup, the rows of a kind stand together and can be seen and removed together, and
//! whoever holds the file learns how many rows there are of a kind but not whom a session talks to.

use std::sync::mpsc::sync_channel;

use portcullis_core::{
    DEVICE_NAME_BYTES, DEVICE_VALUE_BYTES, DeviceChange, DeviceStore, DeviceStoreError, OrgId, SessionId,
};
use redb::ReadableDatabase;

use crate::Store;
use crate::error::{CommitError, ReadError, StoreFault};
use crate::keyfile::Owner;
use crate::keyring::Opened;
use crate::prepare::prepare_device;
use crate::seal::Hashes;
use crate::tables::{self, Prefix, key, part};
use crate::writer::{Job, Reply};

impl DeviceStore for Store {
    fn read(&self, org: OrgId, session: SessionId, kind: u8, name: &[u8]) -> Result<Option<Vec<u8>>, DeviceStoreError> {
        let owner = self.living(org, session)?;
        let row = row(&self.shared().ring.hashes, org, session, kind, name);
        let value = || -> Result<_, StoreFault> {
            let rows = self.shared().database.begin_read()?.open_table(tables::DEVICES)?;
            Ok(rows.get(&row[..])?.map(|value| value.value().to_vec()))
        };
        match value().map_err(|fault| failed(&fault))? {
            None => Ok(None),
            Some(value) => self.opened(owner, &row, &value, |_, value| value.to_vec()).map(Some),
        }
    }

    fn each(
        &self,
        org: OrgId,
        session: SessionId,
        kind: u8,
        see: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), DeviceStoreError> {
        let owner = self.living(org, session)?;
        let own = Prefix::new(&[&org.to_bytes(), &session.to_bytes(), &[kind]]);
        let fault = |fault: StoreFault| failed(&fault);
        let transaction = self.shared().database.begin_read().map_err(|error| fault(error.into()))?;
        let rows = transaction.open_table(tables::DEVICES).map_err(|error| fault(error.into()))?;
        for row in rows.range::<&[u8]>(own.span()).map_err(|error| fault(error.into()))? {
            let (row, value) = row.map_err(|error| fault(error.into()))?;
            self.opened(owner, row.value(), value.value(), &mut *see)?;
        }
        Ok(())
    }

    fn write(&self, org: OrgId, session: SessionId, changes: Vec<DeviceChange>) -> Result<(), DeviceStoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        changes.iter().try_for_each(check_length)?;
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

impl Store {
    fn living(&self, org: OrgId, session: SessionId) -> Result<Owner, DeviceStoreError> {
        let owner = Owner::session(org, session);
        self.shared().ring.live(owner).map(|_| owner).ok_or(DeviceStoreError::Gone)
    }

    /// Opens a row and shows what is in it.
    fn opened<T>(
        &self,
        owner: Owner,
        row: &[u8],
        value: &[u8],
        see: impl FnOnce(&[u8], &[u8]) -> T,
    ) -> Result<T, DeviceStoreError> {
        match self.shared().ring.open(owner, tables::name(tables::DEVICES), row, value, 0) {
            Opened::Plain(plain) => contents(&plain).map(|(name, value)| see(name, value)),
            Opened::Gone => return Err(DeviceStoreError::Gone),
            Opened::Broken => None,
        }
        .ok_or_else(|| failed(&ReadError::unopenable(tables::DEVICES, row)))
    }
}

/// The key of the row that is kept under a kind and a name.
pub(crate) fn row(hashes: &Hashes, org: OrgId, session: SessionId, kind: u8, name: &[u8]) -> Vec<u8> {
    let session = session.to_bytes();
    key(&[&org.to_bytes(), &session, &[kind], &hashes.device_name(session, kind, name)])
}

/// What is sealed in a row.
pub(crate) fn plain(name: &[u8], value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(name.len()).expect("names that are too long were refused");
    key(&[&length.to_be_bytes(), name, value])
}

/// The name and the value that an opened row holds; `None` if it is cut short.
pub(crate) fn contents(plain: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = part(plain, 0).map(u16::from_be_bytes)?;
    plain[2..].split_at_checked(length.into())
}

fn check_length(change: &DeviceChange) -> Result<(), DeviceStoreError> {
    let (kind, name, value) = match change {
        DeviceChange::Put { kind, name, value } => (*kind, name.len(), value.len()),
        DeviceChange::Remove { kind, name } => (*kind, name.len(), 0),
        DeviceChange::RemoveAll { .. } | DeviceChange::Clear => return Ok(()),
    };
    if name > DEVICE_NAME_BYTES || value > DEVICE_VALUE_BYTES {
        return Err(DeviceStoreError::TooLong { kind, name, value });
    }
    Ok(())
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
