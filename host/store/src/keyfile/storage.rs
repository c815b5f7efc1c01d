//! What the key file needs of whatever it lies on: bytes at a place, written in place, and to know when they are durable.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

/// Where the slots lie: a file, or memory in tests.
pub(crate) trait SlotStorage: fmt::Debug + Send + Sync {
    /// Everything there is.
    fn read(&self) -> io::Result<Vec<u8>>;
    /// Fills `bytes` with what is at `offset`.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Overwrites what is at `offset`, or lengthens.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns once every write before is durable.
    fn sync(&self) -> io::Result<()>;
}

impl SlotStorage for File {
    fn read(&self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Slots in memory.
#[derive(Debug, Default)]
pub(crate) struct MemorySlots(Mutex<Vec<u8>>);

impl SlotStorage for MemorySlots {
    fn read(&self) -> io::Result<Vec<u8>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let there = all.get(start..start + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(there);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        if all.len() < start + bytes.len() {
            all.resize(start + bytes.len(), 0);
        }
        all[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
