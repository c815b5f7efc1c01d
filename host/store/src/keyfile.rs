//! The key file: data keys in slots of fixed size, each of which can be destroyed in place.
//!
//! ```text
//! file   = header (512), slots (128 each)
//! header = magic (8), version (8), check value of the master key (32), zeros, checksum (8)
//! slot   = state (1), kind (1), zeros (2), generation (4), org (16), session (16),
//!          nonce (24), sealed key (32), tag (16), zeros (8), checksum (8)
//! ```
//!
//! redb never forgets for certain: a removed value lies in its file until the page is used again.
//! A slot is overwritten where it stands and synced, and with its key goes everything that the key had sealed.
//! A slot never straddles a sector of 512 bytes, so a crash leaves it as it was or as it was to become;
//! if a disk tears it nevertheless, the checksum tells.
//!
//! A slot is written and synced *before* the transaction that first uses its key, and overwritten *after* the transaction
//! that removed its owner's rows. What lies between is put right when the store is opened: a live slot without an owner is destroyed.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use portcullis_core::{OrgId, SessionId};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::{OpenError, StoreFault};
use crate::seal::{DataKey, Scope, SecretBytes, derive, random};
use crate::tables::{part, session_part};

const MAGIC: &[u8; 8] = b"PCLSKEYS";
const VERSION: u64 = 1;
const HEADER: usize = 512;
pub(crate) const SLOT: usize = 128;
const FREE: u8 = 0;
const LIVE: u8 = 1;

/// Whose a data key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) org: OrgId,
    /// `None` for the organisation's own key.
    pub(crate) session: Option<SessionId>,
}

impl Owner {
    pub(crate) fn org(org: OrgId) -> Self {
        Self { org, session: None }
    }

    pub(crate) fn session(org: OrgId, session: SessionId) -> Self {
        Self { org, session: Some(session) }
    }

    /// The owner's place in tables whose keys name owners.
    pub(crate) fn key(self) -> Vec<u8> {
        [self.org.to_bytes(), session_part(self.session)].concat()
    }

    pub(crate) fn scope(self) -> Scope {
        if self.session.is_some() { Scope::Session } else { Scope::Org }
    }
}

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

/// What a slot holds.
pub(crate) enum Slot {
    /// No key; the next one put here gets the next generation.
    Free { generation: u32 },
    /// A key.
    Live { owner: Owner, key: DataKey },
    /// Neither: torn while it was written, or damaged.
    Damaged,
}

/// The key file.
#[derive(Debug)]
pub(crate) struct KeyFile {
    storage: Box<dyn SlotStorage>,
    wrapping: Wrapping,
}

/// The key under which slots are sealed.
struct Wrapping(SecretBytes);

impl fmt::Debug for Wrapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wrapping(…)")
    }
}

/// Opens the file at `path` for slots; `None` if there is none.
pub(crate) fn open_file(path: &Path) -> io::Result<Option<File>> {
    match File::options().read(true).write(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `header` is that of a key file under this master key. Reads only, so that nothing is touched under a wrong key.
pub(crate) fn check_header(header: &[u8], master: &SecretBytes) -> Result<(), OpenError> {
    let Some(header) = header.get(..HEADER) else {
        return Err(OpenError::KeyFileDamaged("its header is cut short"));
    };
    if !header.starts_with(MAGIC) {
        return Err(OpenError::KeyFileDamaged("it does not begin as one"));
    }
    if header[HEADER - 8..] != checksum(&header[..HEADER - 8]) {
        return Err(OpenError::KeyFileDamaged("its header's checksum is wrong"));
    }
    let version = part(header, 8).map_or(0, u64::from_be_bytes);
    if version > VERSION {
        return Err(OpenError::NewerFormat { found: version, known: VERSION });
    }
    if header[16..48] != *check_value(master) {
        return Err(OpenError::WrongMasterKey);
    }
    Ok(())
}

/// The header of a new key file.
pub(crate) fn new_header(master: &SecretBytes) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&VERSION.to_be_bytes());
    header[16..48].copy_from_slice(&*check_value(master));
    let sum = checksum(&header[..HEADER - 8]);
    header[HEADER - 8..].copy_from_slice(&sum);
    header
}

impl KeyFile {
    /// The key file in `storage`, whose header has been checked.
    pub(crate) fn new(storage: Box<dyn SlotStorage>, master: &SecretBytes) -> Self {
        Self { storage, wrapping: Wrapping(derive(master, "portcullis wrapping key 1")) }
    }

    /// Every slot in order.
    pub(crate) fn load(&self) -> Result<Vec<Slot>, StoreFault> {
        let bytes = self.storage.read().map_err(StoreFault::of("reading the key file"))?;
        let slots = bytes.get(HEADER..).unwrap_or_default();
        // A last slot that is cut short was never synced, and so was never used.
        Ok((0..).zip(slots.chunks(SLOT)).map(|(index, slot)| self.decode(index, slot)).collect())
    }

    /// The bytes of one slot as they are now.
    pub(crate) fn bytes(&self, slot: u32) -> Result<[u8; SLOT], StoreFault> {
        let mut bytes = [0; SLOT];
        self.storage.read_at(offset(slot), &mut bytes).map_err(StoreFault::of("reading the key file"))?;
        Ok(bytes)
    }

    /// Puts a key into its slot. Durable only after [`KeyFile::sync`].
    pub(crate) fn put(&self, owner: Owner, key: &DataKey) -> Result<(), StoreFault> {
        let mut slot = [0; SLOT];
        slot[0] = LIVE;
        slot[1] = owner.scope() as u8;
        slot[4..8].copy_from_slice(&key.generation.to_be_bytes());
        slot[8..24].copy_from_slice(&owner.org.to_bytes());
        slot[24..40].copy_from_slice(&session_part(owner.session));
        let mut nonce = [0; 24];
        random(&mut nonce)?;
        let mut sealed = key.secret.clone();
        let bound = bound(key.slot, &slot);
        let tag = XChaCha20Poly1305::new((&*self.wrapping.0).into())
            .encrypt_inout_detached(&nonce.into(), &bound, (&mut sealed[..]).into())
            .expect("32 bytes are not too long for the cipher");
        slot[40..64].copy_from_slice(&nonce);
        slot[64..96].copy_from_slice(&*sealed);
        slot[96..112].copy_from_slice(&tag);
        self.write(key.slot, slot)
    }

    /// Overwrites a slot in place. Durable only after [`KeyFile::sync`].
    pub(crate) fn destroy(&self, slot: u32, generation: u32) -> Result<(), StoreFault> {
        let mut bytes = [0; SLOT];
        bytes[0] = FREE;
        bytes[4..8].copy_from_slice(&generation.to_be_bytes());
        self.write(slot, bytes)
    }

    /// Returns once everything written before is durable.
    pub(crate) fn sync(&self) -> Result<(), StoreFault> {
        self.storage.sync().map_err(StoreFault::of("syncing the key file"))
    }

    fn write(&self, slot: u32, mut bytes: [u8; SLOT]) -> Result<(), StoreFault> {
        let sum = checksum(&bytes[..SLOT - 8]);
        bytes[SLOT - 8..].copy_from_slice(&sum);
        self.storage.write(offset(slot), &bytes).map_err(StoreFault::of("writing the key file"))
    }

    fn decode(&self, index: u32, slot: &[u8]) -> Slot {
        self.try_decode(index, slot).unwrap_or(Slot::Damaged)
    }

    fn try_decode(&self, index: u32, slot: &[u8]) -> Option<Slot> {
        let slot: &[u8; SLOT] = slot.try_into().ok()?;
        if *slot == [0; SLOT] {
            // A hole: a later slot was written first.
            return Some(Slot::Free { generation: 0 });
        }
        if slot[SLOT - 8..] != checksum(&slot[..SLOT - 8]) {
            return None;
        }
        let generation = part(slot, 4).map(u32::from_be_bytes)?;
        if slot[0] == FREE {
            return Some(Slot::Free { generation });
        }
        let org = OrgId::from_bytes(part(slot, 8)?);
        let (scope, session) = match slot[1] {
            0 => (Scope::Org, None),
            1 => (Scope::Session, Some(SessionId::from_bytes(part(slot, 24)?))),
            _ => return None,
        };
        let mut secret = Zeroizing::new(part(slot, 64)?);
        XChaCha20Poly1305::new((&*self.wrapping.0).into())
            .decrypt_inout_detached(
                &XNonce::try_from(&slot[40..64]).ok()?,
                &bound(index, slot),
                (&mut secret[..]).into(),
                &Tag::try_from(&slot[96..112]).ok()?,
            )
            .ok()?;
        Some(Slot::Live { owner: Owner { org, session }, key: DataKey { secret, scope, slot: index, generation } })
    }
}

fn offset(slot: u32) -> u64 {
    HEADER as u64 + SLOT as u64 * u64::from(slot)
}

/// A sealed key is bound to its slot's number and to everything that the slot says before it.
fn bound(index: u32, slot: &[u8; SLOT]) -> Vec<u8> {
    [&index.to_be_bytes()[..], &slot[..40]].concat()
}

fn check_value(master: &SecretBytes) -> SecretBytes {
    derive(master, "portcullis key check 1")
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    sum.copy_from_slice(&Sha256::digest(bytes)[..8]);
    sum
}

#[cfg(test)]
mod test {
    use super::*;

    fn master(byte: u8) -> SecretBytes {
        Zeroizing::new([byte; 32])
    }

    fn key(slot: u32, generation: u32) -> DataKey {
        DataKey { secret: Zeroizing::new([7; 32]), scope: Scope::Session, slot, generation }
    }

    #[test]
    fn a_slot_keeps_its_key_until_it_is_destroyed() {
        let file = KeyFile::new(Box::new(MemorySlots::default()), &master(1));
        let owner = Owner::session(OrgId::from_bytes([1; 16]), SessionId::from_bytes([2; 16]));
        file.put(owner, &key(2, 5)).expect("written");
        let slots = file.load().expect("loaded");
        assert!(matches!(slots[..2], [Slot::Free { generation: 0 }, Slot::Free { generation: 0 }]));
        assert!(matches!(&slots[2], Slot::Live { owner: o, key } if *o == owner && *key.secret == [7; 32]));
        assert_eq!(file.bytes(2).expect("read").windows(32).filter(|window| *window == [7; 32]).count(), 0);

        file.destroy(2, 5).expect("overwritten");
        assert!(matches!(file.load().expect("loaded")[2], Slot::Free { generation: 5 }));
    }

    #[test]
    fn a_torn_or_moved_slot_is_damaged() {
        let file = KeyFile::new(Box::new(MemorySlots::default()), &master(1));
        let owner = Owner::org(OrgId::from_bytes([1; 16]));
        let org_key = DataKey { scope: Scope::Org, ..key(0, 1) };
        file.put(owner, &org_key).expect("written");
        let mut bytes = file.bytes(0).expect("read");
        assert!(matches!(file.decode(1, &bytes), Slot::Damaged), "a slot opened in another place");
        bytes[70] ^= 1;
        assert!(matches!(file.decode(0, &bytes), Slot::Damaged));
        assert!(matches!(file.decode(0, &bytes[..90]), Slot::Damaged));
    }

    #[test]
    fn a_header_is_checked_before_anything_is_used() {
        let header = new_header(&master(1));
        assert!(check_header(&header, &master(1)).is_ok());
        assert!(matches!(check_header(&header, &master(2)), Err(OpenError::WrongMasterKey)));
        assert!(matches!(check_header(&header[..100], &master(1)), Err(OpenError::KeyFileDamaged(_))));
        let mut newer = header;
        newer[15] = 2;
        let sum = checksum(&newer[..HEADER - 8]);
        newer[HEADER - 8..].copy_from_slice(&sum);
        assert!(matches!(check_header(&newer, &master(1)), Err(OpenError::NewerFormat { found: 2, known: 1 })));
    }
}
