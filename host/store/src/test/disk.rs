//! A disk that loses power at a sync, for redb's backend and the key file's storage alike.
//!
//! It knows which bytes are durable (written before the last sync of their file that came through) and which are only written.
//! When the power is back, what was not durable is dropped, or a part of it is kept, as a real cache may write back what it likes.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, StorageBackend};
use zeroize::Zeroizing;

use crate::keyfile::{KeyFile, SlotStorage, Wrapping, header};
use crate::master::MasterKey;
use crate::open::assemble;
use crate::{CommitMode, OpenError, Store};

/// One file: what is durable, and what was written since.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    pub(super) durable: Vec<u8>,
    pub(super) current: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Debug, Clone)]
pub(super) enum Pending {
    Write { offset: usize, bytes: Vec<u8> },
    Resize { length: usize },
}

impl Pending {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Resize { length } => bytes.resize(*length, 0),
            Self::Write { offset, bytes: new } => {
                if bytes.len() < offset + new.len() {
                    bytes.resize(offset + new.len(), 0);
                }
                bytes[*offset..offset + new.len()].copy_from_slice(new);
            }
        }
    }
}

/// A disk with two files that loses power at a sync.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) files: [Image; 2],
    pub(super) syncs: u32,
    pub(super) fails_at: Option<u32>,
}

pub(super) const DATA: usize = 0;
pub(super) const KEYS: usize = 1;

impl Disk {
    fn dead(&self) -> bool {
        self.fails_at.is_some_and(|at| self.syncs >= at)
    }

    fn change(&mut self, file: usize, change: Pending) -> io::Result<()> {
        if self.dead() {
            return Err(io::Error::other("the power is out"));
        }
        let image = &mut self.files[file];
        change.apply(&mut image.current);
        image.pending.push(change);
        Ok(())
    }

    fn sync(&mut self, file: usize) -> io::Result<()> {
        if self.dead() {
            return Err(io::Error::other("the power is out"));
        }
        self.syncs += 1;
        if self.dead() {
            return Err(io::Error::other("the power went out during a sync"));
        }
        let image = &mut self.files[file];
        image.durable.clone_from(&image.current);
        image.pending.clear();
        Ok(())
    }

    /// The disk as it is when the power is back. `keep` says of each write that was not durable whether it happened to be made.
    pub(super) fn after_power_loss(&self, mut keep: impl FnMut() -> bool) -> Disk {
        let files = self.files.clone().map(|image| {
            let mut bytes = image.durable;
            image.pending.iter().filter(|_| keep()).for_each(|change| change.apply(&mut bytes));
            Image { durable: bytes.clone(), current: bytes, pending: Vec::new() }
        });
        Disk { files, syncs: 0, fails_at: None }
    }
}

/// One file of the disk, for redb or for the key file.
#[derive(Debug, Clone)]
struct Drive {
    disk: Arc<Mutex<Disk>>,
    file: usize,
}

impl Drive {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_into(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.disk();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = disk.files[self.file].current.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn put(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.disk().change(self.file, Pending::Write { offset, bytes: bytes.to_vec() })
    }
}

impl StorageBackend for Drive {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk().files[self.file].current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_into(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        self.disk().change(self.file, Pending::Resize { length })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk().sync(self.file)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.put(offset, data)
    }
}

impl SlotStorage for Drive {
    fn read(&self) -> io::Result<Vec<u8>> {
        Ok(self.disk().files[self.file].current.clone())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read_into(offset, bytes)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.put(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk().sync(self.file)
    }
}

/// A disk on which a first boot has made its files: an empty database and a key file's header.
/// Both are made under other names and then renamed, so no crash leaves half of one. The master key is this byte, 32 times.
pub(super) fn new_disk(secret: u8) -> Disk {
    let disk = Arc::new(Mutex::new(Disk::default()));
    let drive = Drive { disk: disk.clone(), file: DATA };
    drop(Database::builder().create_with_backend(drive).expect("an empty database"));
    let mut disk = Disk { syncs: 0, ..into_disk(disk) };
    let header = header::new_file(&wrapping(secret)).expect("random numbers");
    disk.files[KEYS] = Image { durable: header.clone(), current: header, pending: Vec::new() };
    disk
}

pub(super) fn into_disk(disk: Arc<Mutex<Disk>>) -> Disk {
    Arc::into_inner(disk).expect("every handle is closed").into_inner().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn master(secret: u8) -> MasterKey {
    MasterKey::of(Zeroizing::new([secret; 32]))
}

pub(super) fn wrapping(secret: u8) -> Wrapping {
    Wrapping::of(&master(secret))
}

/// Opens the store on a disk with these master keys.
pub(super) fn open(disk: &Arc<Mutex<Disk>>, mode: CommitMode, secrets: &[u8]) -> Result<Store, OpenError> {
    let drive = |file| Drive { disk: disk.clone(), file };
    let keys: Vec<_> = secrets.iter().map(|secret| wrapping(*secret)).collect();
    let file = KeyFile::open(Box::new(drive(KEYS)), &keys)?;
    let database = Database::builder()
        .set_cache_size(1024 * 1024)
        .create_with_backend(drive(DATA))
        .map_err(|error| OpenError::Store(crate::StoreFault::of("opening the data file")(error)))?;
    assemble(database, None, file, mode, None)
}
