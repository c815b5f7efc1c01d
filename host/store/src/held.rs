//! The data file, of which nothing is changed until it is known that it can be used.
//!
//! redb writes while it opens a file: it marks it as open, and repairs what a crash left. Neither may be done to a file that is then refused,
//! because it is damaged or because the keys do not fit it. So what is written is held back until [`Held::release`], and read from there;
//! after that, this is the file and nothing else. What is held back is small: a repair rewrites the file's header, and counts pages in memory.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

/// The file, and what is held back of it. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Held(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: FileBackend,
    /// Whether something may be held back; spares all later reads and writes the lock.
    is_held: AtomicBool,
    changes: Mutex<Vec<Change>>,
    /// The lock of the directory, which lasts for as long as the file is open.
    _alone: File,
}

#[derive(Debug)]
enum Change {
    Length(u64),
    Write(u64, Vec<u8>),
    Sync,
}

impl Held {
    /// A file that is there, in a directory that nobody else has.
    ///
    /// # Errors
    /// If it cannot be opened, or is empty: redb would make a new one of it.
    pub(crate) fn open(path: &Path, alone: File) -> Result<Self, DatabaseError> {
        let file = File::options().read(true).write(true).open(path).map_err(redb::StorageError::from)?;
        if file.metadata().map_err(redb::StorageError::from)?.len() == 0 {
            return Err(redb::StorageError::Corrupted("the file is empty".to_owned()).into());
        }
        let file = FileBackend::new(file)?;
        Ok(Self(Arc::new(Inner { file, is_held: AtomicBool::new(true), changes: Mutex::default(), _alone: alone })))
    }

    /// Writes what was held back, in the order in which it was written, with the syncs between.
    pub(crate) fn release(&self) -> io::Result<()> {
        let mut changes = self.0.changes.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes.drain(..) {
            match change {
                Change::Length(length) => self.0.file.set_len(length)?,
                Change::Write(offset, bytes) => self.0.file.write(offset, &bytes)?,
                Change::Sync => self.0.file.sync_data()?,
            }
        }
        self.0.is_held.store(false, Ordering::Release);
        Ok(())
    }

    /// Does one of two things, and nothing between them: something with what is held back, or with the file.
    fn either<T>(
        &self,
        held: impl FnOnce(&mut Vec<Change>) -> io::Result<T>,
        file: impl FnOnce(&FileBackend) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.0.is_held.load(Ordering::Acquire) {
            let mut changes = self.0.changes.lock().unwrap_or_else(PoisonError::into_inner);
            // It may have been released while this waited.
            if self.0.is_held.load(Ordering::Acquire) {
                return held(&mut changes);
            }
        }
        file(&self.0.file)
    }
}

fn length(file: &FileBackend, changes: &[Change]) -> io::Result<u64> {
    let changed = |change: &Change| if let Change::Length(length) = change { Some(*length) } else { None };
    changes.iter().rev().find_map(changed).map_or_else(|| file.len(), Ok)
}

impl StorageBackend for Held {
    fn len(&self) -> io::Result<u64> {
        self.either(|changes| length(&self.0.file, changes), FileBackend::len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from_held = |changes: &mut Vec<Change>, out: &mut [u8]| {
            let end = offset + out.len() as u64;
            if end > length(&self.0.file, changes)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // What the file was lengthened by is zeros.
            let there = self.0.file.len()?.clamp(offset, end) - offset;
            let (first, rest) = out.split_at_mut(usize::try_from(there).map_err(io::Error::other)?);
            if !first.is_empty() {
                self.0.file.read(offset, first)?;
            }
            rest.fill(0);
            for change in changes {
                let Change::Write(at, bytes) = change else { continue };
                let (from, to) = (offset.max(*at), end.min(*at + bytes.len() as u64));
                if from < to {
                    let place = |position: u64, base: u64| usize::try_from(position - base).map_err(io::Error::other);
                    let (target, source) =
                        (place(from, offset)?..place(to, offset)?, place(from, *at)?..place(to, *at)?);
                    out[target].copy_from_slice(&bytes[source]);
                }
            }
            Ok(())
        };
        // The buffer can only be lent to one of the two at a time.
        if self.0.is_held.load(Ordering::Acquire) {
            let mut changes = self.0.changes.lock().unwrap_or_else(PoisonError::into_inner);
            if self.0.is_held.load(Ordering::Acquire) {
                return from_held(&mut changes, out);
            }
        }
        self.0.file.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let hold = |changes: &mut Vec<Change>| {
            changes.push(Change::Length(length));
            Ok(())
        };
        self.either(hold, |file| file.set_len(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        let hold = |changes: &mut Vec<Change>| {
            changes.push(Change::Sync);
            Ok(())
        };
        self.either(hold, FileBackend::sync_data)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let hold = |changes: &mut Vec<Change>| {
            changes.push(Change::Write(offset, data.to_vec()));
            Ok(())
        };
        self.either(hold, |file| file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn what_is_held_back_is_read_and_comes_to_the_file_when_it_is_released() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, b"0123456789").expect("written");
        let held = Held::open(&path, File::open(dir.path()).expect("there")).expect("opened");
        held.write(3, b"abc").expect("held back");
        held.set_len(14).expect("held back");
        held.write(5, b"XY").expect("held back");
        held.sync_data().expect("held back");

        let mut read = [0; 14];
        held.read(0, &mut read).expect("read");
        assert_eq!(&read, b"012abXY789\0\0\0\0");
        let mut part = [0; 3];
        held.read(4, &mut part).expect("read");
        assert_eq!(&part, b"bXY");
        assert!(held.read(12, &mut part).is_err(), "more was read than there is");
        assert_eq!(std::fs::read(&path).expect("there"), b"0123456789");

        held.release().expect("written");
        assert_eq!(std::fs::read(&path).expect("there"), b"012abXY789\0\0\0\0");
        held.write(0, b"Z").expect("written");
        held.read(0, &mut part).expect("read");
        assert_eq!(&part, b"Z12");
        assert!(std::fs::read(&path).expect("there").starts_with(b"Z12"));
    }
}
