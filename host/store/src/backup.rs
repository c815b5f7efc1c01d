//! Backups: every row as it is, of one point in time, in one stream.
//!
//! ```text
//! backup = magic (8), version (8), format of the data (8), made at (8), keys made by then (8), whose it is (16), frame …, end
//! frame  = 1, length of a table's name (2), name            the rows that follow are of this table
//!        | 2, length of a key (4), of a value (4), key, value
//! end    = 3, tables (4), rows (8), SHA-256 of all before (32), MAC of that (32)
//! ```
//!
//! What is sealed stays sealed: a backup is noise without the key file, which is an artefact of its own, and the master key.
//! A backup that was cut off has no end, and is refused; and so is one that was changed, because the MAC's key comes from the
//! key file's root. [`restore`] makes a data directory of both artefacts again.
//!
//! A backup is made while everything goes on. It is one read transaction, which keeps old pages alive: whoever takes the stream
//! has to take it within a bounded time.

pub(crate) mod restore;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Bound;
use std::path::Path;

use portcullis_core::Timestamp;
use redb::TableHandle;
use sha2::{Digest, Sha256};

use crate::error::{BackupError, ReadError};
use crate::keyring::Keyring;
use crate::migrations::{self, FORMAT};
use crate::seal::mac;
use crate::snapshot::Snapshot;

const MAGIC: &[u8; 8] = b"PCLSBKUP";
const VERSION: u64 = 1;
const HEADER: usize = 56;
const TABLE: u8 = 1;
const ROW: u8 = 2;
const END: u8 = 3;
/// About how long a piece of the stream is.
const PIECE: usize = 64 * 1024;
/// The longest key and value that are believed.
const MOST_KEY: usize = 4 * 1024;
const MOST_VALUE: usize = 256 * 1024 * 1024;

/// Whose a backup is: the same for all backups of one store, under every master key.
fn owner(ring: &Keyring) -> [u8; 16] {
    let mut owner = [0; 16];
    owner.copy_from_slice(&ring.hashes.lent("the owner of a backup")[..16]);
    owner
}

/// The MAC of a backup's digest.
fn signed(ring: &Keyring, digest: &[u8]) -> [u8; 32] {
    mac(&ring.hashes.lent("the MAC of a backup"), digest)
}

/// A backup while it is being made, piece by piece.
pub struct Backup {
    snapshot: Snapshot,
    /// The tables that are still to come; the first is being read.
    tables: VecDeque<String>,
    /// The last key that was read of it.
    last: Option<Vec<u8>>,
    digest: Sha256,
    named: u32,
    rows: u64,
    begun: Option<Timestamp>,
    is_over: bool,
}

impl Backup {
    /// A backup of everything as it is in a snapshot.
    pub(crate) fn of(snapshot: Snapshot, now: Timestamp) -> Result<Self, ReadError> {
        let tables = snapshot.transaction.list_tables()?.map(|table| table.name().to_owned()).collect();
        let (digest, begun) = (Sha256::new(), Some(now));
        Ok(Self { snapshot, tables, last: None, digest, named: 0, rows: 0, begun, is_over: false })
    }

    /// The next piece; none after the last. It reads from the disk, and is not for async workers.
    ///
    /// # Errors
    /// If the store cannot be read. What was made so far is no backup then.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        if self.is_over {
            return Ok(None);
        }
        let mut piece = Vec::with_capacity(PIECE + 4 * 1024);
        if let Some(now) = self.begun.take() {
            piece.extend(MAGIC);
            let format = migrations::format_of(&self.snapshot.transaction)?;
            // A key file in which fewer were made is older than the backup, and lacks keys of what is in it.
            let made = self.snapshot.shared.ring.file.keys_made();
            for number in [VERSION, format, now.as_millis(), made] {
                piece.extend(number.to_be_bytes());
            }
            piece.extend(owner(&self.snapshot.shared.ring));
        }
        while piece.len() < PIECE {
            let Some(table) = self.tables.front() else {
                self.end(&mut piece);
                return Ok(Some(piece));
            };
            if self.last.is_none() {
                piece.push(TABLE);
                piece.extend(u16::try_from(table.len()).unwrap_or(u16::MAX).to_be_bytes());
                piece.extend(table.as_bytes());
                self.named += 1;
            }
            let rows = self.snapshot.transaction.open_table(redb::TableDefinition::<&[u8], &[u8]>::new(table))?;
            let from = self.last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut is_through = true;
            for row in rows.range::<&[u8]>((from, Bound::Unbounded))? {
                let (key, value) = row?;
                let (key, value) = (key.value(), value.value());
                piece.push(ROW);
                for length in [key.len(), value.len()] {
                    piece.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
                }
                piece.extend(key);
                piece.extend(value);
                self.rows += 1;
                if piece.len() >= PIECE {
                    self.last = Some(key.to_vec());
                    is_through = false;
                    break;
                }
            }
            if is_through {
                self.last = None;
                self.tables.pop_front();
            }
        }
        self.digest.update(&piece);
        Ok(Some(piece))
    }

    fn end(&mut self, piece: &mut Vec<u8>) {
        piece.push(END);
        piece.extend(self.named.to_be_bytes());
        piece.extend(self.rows.to_be_bytes());
        self.digest.update(&piece[..]);
        let digest = self.digest.finalize_reset();
        piece.extend(digest);
        piece.extend(signed(&self.snapshot.shared.ring, &digest));
        self.is_over = true;
    }
}

/// What a backup says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupInfo {
    /// The format of the data.
    pub format: u64,
    /// When it was begun.
    pub made_at: Timestamp,
    /// How many tables there are in it.
    pub tables: u32,
    /// How many rows.
    pub rows: u64,
}

/// What is read from a backup, after the header.
enum Frame {
    Table(String),
    Row { key: Vec<u8>, value: Vec<u8> },
    End { tables: u32, rows: u64, digest: [u8; 32], mac: [u8; 32] },
}

/// A backup that is read, with the digest of what was read so far.
struct Frames<R> {
    from: R,
    digest: Sha256,
    format: u64,
    made_at: Timestamp,
    keys_made: u64,
    owner: [u8; 16],
}

impl<R: Read> Frames<R> {
    fn open(mut from: R) -> Result<Self, BackupError> {
        let mut header = [0; HEADER];
        fill(&mut from, &mut header)?;
        if !header.starts_with(MAGIC) {
            return Err(BackupError::NoBackup);
        }
        let number = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        if number(8) > VERSION {
            return Err(BackupError::Newer { found: number(8), known: VERSION });
        }
        if number(16) > FORMAT {
            return Err(BackupError::Newer { found: number(16), known: FORMAT });
        }
        let mut owner = [0; 16];
        owner.copy_from_slice(&header[40..]);
        let made_at = Timestamp::from_millis(number(24));
        Ok(Self {
            from,
            digest: Sha256::new_with_prefix(header),
            format: number(16),
            made_at,
            keys_made: number(32),
            owner,
        })
    }

    fn next(&mut self) -> Result<Frame, BackupError> {
        let [kind] = self.taken()?;
        match kind {
            TABLE => {
                let length = u16::from_be_bytes(self.taken()?);
                let name = self.taken_of(usize::from(length))?;
                String::from_utf8(name).map(Frame::Table).map_err(|_| BackupError::Malformed)
            }
            ROW => {
                let lengths: [u8; 8] = self.taken()?;
                let (key, value) = lengths.split_at(4);
                let length = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("4 bytes")) as usize;
                let (key, value) = (length(key), length(value));
                if key > MOST_KEY || value > MOST_VALUE {
                    return Err(BackupError::Malformed);
                }
                Ok(Frame::Row { key: self.taken_of(key)?, value: self.taken_of(value)? })
            }
            END => {
                let (tables, rows) = (u32::from_be_bytes(self.taken()?), u64::from_be_bytes(self.taken()?));
                let (mut digest, mut mac) = ([0; 32], [0; 32]);
                fill(&mut self.from, &mut digest)?;
                fill(&mut self.from, &mut mac)?;
                let is_more = self.from.read(&mut [0]).map_err(BackupError::Read)? > 0;
                if is_more || self.digest.finalize_reset()[..] != digest {
                    return Err(BackupError::Damaged);
                }
                Ok(Frame::End { tables, rows, digest, mac })
            }
            _ => Err(BackupError::Malformed),
        }
    }

    fn taken<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        fill(&mut self.from, &mut bytes)?;
        self.digest.update(bytes);
        Ok(bytes)
    }

    /// So many bytes; memory is only taken for those that are there.
    fn taken_of(&mut self, length: usize) -> Result<Vec<u8>, BackupError> {
        let mut bytes = Vec::with_capacity(length.min(PIECE));
        self.from.by_ref().take(length as u64).read_to_end(&mut bytes).map_err(BackupError::Read)?;
        if bytes.len() < length {
            return Err(BackupError::CutOff);
        }
        self.digest.update(&bytes);
        Ok(bytes)
    }
}

fn fill(from: &mut impl Read, bytes: &mut [u8]) -> Result<(), BackupError> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::CutOff,
        _ => BackupError::Read(error),
    })
}

fn open(path: &Path) -> Result<Frames<BufReader<File>>, BackupError> {
    Frames::open(BufReader::with_capacity(PIECE, File::open(path).map_err(BackupError::Read)?))
}

/// Reads a backup to its end, without any key, and says what it is if it is whole.
///
/// # Errors
/// If it is none, or is cut off or damaged.
pub fn inspect_backup(path: &Path) -> Result<BackupInfo, BackupError> {
    read_through(path, |_, _| true)
}

/// Reads a backup to its end; `is_genuine` is asked at the end, with digest and MAC, about the whole of it.
fn read_through(path: &Path, is_genuine: impl Fn(&[u8; 32], &[u8; 32]) -> bool) -> Result<BackupInfo, BackupError> {
    let mut frames = open(path)?;
    let (mut tables, mut rows) = (0, 0);
    loop {
        match frames.next()? {
            Frame::Table(_) => tables += 1,
            Frame::Row { .. } if tables == 0 => return Err(BackupError::Malformed),
            Frame::Row { .. } => rows += 1,
            Frame::End { tables: said_tables, rows: said_rows, digest, mac } => {
                if (said_tables, said_rows) != (tables, rows) {
                    return Err(BackupError::Damaged);
                }
                if !is_genuine(&digest, &mac) {
                    return Err(BackupError::Forged);
                }
                return Ok(BackupInfo { format: frames.format, made_at: frames.made_at, tables, rows });
            }
        }
    }
}
