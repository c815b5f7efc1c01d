//! The key file: data keys in slots of fixed size, each of which can be destroyed in place.
//!
//! ```text
//! file   = header (2048), slots (128 each)
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
//!
//! Changing the master key ([`KeyFile::rotate`]) seals every slot anew where it stands, one after the other, while others read and
//! write slots: no copy of a key is made that an erasure would have to find. [`header`] says which keys open the slots meanwhile.

pub(crate) mod header;
mod storage;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use portcullis_core::{OrgId, SessionId};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::{OpenError, StoreFault};
use crate::seal::{DataKey, Scope, SecretBytes, random};
use crate::tables::{part, session_part};
pub(crate) use header::{CutShort, HEADER, Wrapping};
pub(crate) use storage::{MemorySlots, SlotStorage};

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

/// What a slot holds.
pub(crate) enum Slot {
    /// No key; the next one put here gets the next generation.
    Free { generation: u32 },
    /// A key.
    Live { owner: Owner, key: DataKey },
    /// Neither: torn while it was written, or damaged.
    Damaged,
}

impl Slot {
    /// How many keys it has had, as far as it says.
    fn generation(&self) -> u32 {
        match self {
            Self::Free { generation } => *generation,
            Self::Live { key, .. } => key.generation,
            Self::Damaged => 0,
        }
    }
}

/// The key file.
pub(crate) struct KeyFile {
    storage: Box<dyn SlotStorage>,
    /// Whoever reads a slot to write it, or writes one, holds this.
    seals: Mutex<Seals>,
    counter: Mutex<Counter>,
    /// How a change ended, or is to end, that was cut short before the file was opened.
    cut_short: Option<CutShort>,
}

/// How many keys were ever put into the file.
struct Counter {
    made: u64,
    /// Of how many that is durable.
    durable: u64,
    /// The greatest number that stands in the file, and in which of the two places.
    written: u64,
    place: usize,
}

/// What slots and header are sealed under.
struct Seals {
    root: SecretBytes,
    /// The header's, as it was last written.
    sequence: u64,
    /// What slots are sealed under.
    wrapping: Wrapping,
    /// What some are still sealed under while the master key is being changed.
    other: Option<SecretBytes>,
    /// Whether both copies of the header say this.
    is_settled: bool,
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFile({:?})", self.storage)
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

impl KeyFile {
    /// The key file in `storage`, if one of these master keys opens it. Nothing is written.
    pub(crate) fn open(storage: Box<dyn SlotStorage>, keys: &[Wrapping]) -> Result<Self, OpenError> {
        let mut header = vec![0; HEADER];
        match storage.read_at(0, &mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => header.clear(),
            Err(error) => return Err(StoreFault::of("reading the key file")(error).into()),
        }
        let header::Unlocked { root, sequence, wrapping, other, is_even, cut_short, counted } =
            header::unlock(&header, keys)?;
        let is_settled = is_even && other.is_none();
        let seals = Mutex::new(Seals { root, sequence, wrapping, other, is_settled });
        let (made, place) = (counted[0].max(counted[1]), usize::from(counted[1] > counted[0]));
        let counter = Mutex::new(Counter { made, durable: made, written: made, place });
        Ok(Self { storage, seals, counter, cut_short })
    }

    /// How many keys were ever put into the file and are durable. It never goes down, whatever becomes of slots.
    pub(crate) fn keys_made(&self) -> u64 {
        self.counter().durable
    }

    /// How a change of the master key ends that was cut short before the file was opened.
    pub(crate) fn cut_short(&self) -> Option<CutShort> {
        self.cut_short
    }

    /// What everything is derived from that outlives the master key.
    pub(crate) fn root(&self) -> SecretBytes {
        self.seals().root.clone()
    }

    /// Whether the slots are sealed under this master key, or are coming to be.
    pub(crate) fn is_under(&self, key: &Wrapping) -> bool {
        self.seals().wrapping.is(key)
    }

    /// Whether no change of the master key is under way, or was cut short.
    pub(crate) fn is_settled(&self) -> bool {
        self.seals().is_settled
    }

    /// Ends a change of the master key that was cut short: from here on the key with which the file was opened is its only one.
    pub(crate) fn settle(&self) -> Result<(), StoreFault> {
        if self.seals().is_settled {
            return Ok(());
        }
        self.reseal()?;
        let mut seals = self.seals();
        self.write_header(&mut seals, None)?;
        seals.other = None;
        seals.is_settled = true;
        Ok(())
    }

    /// Changes the master key while the file is in use; how many slots were sealed anew. A change that failed before goes on first.
    /// When this returns, the key before opens nothing of the file.
    pub(crate) fn rotate(&self, next: &Wrapping) -> Result<usize, StoreFault> {
        self.settle()?;
        {
            let mut seals = self.seals();
            if seals.wrapping.is(next) {
                return Ok(0);
            }
            // If this fails, slots go on under the old key, which a header with two entries opens as well as one with one.
            self.write_header(&mut seals, Some(next))?;
            let before = std::mem::replace(&mut seals.wrapping, next.clone());
            seals.other = Some(before.key);
            seals.is_settled = false;
        }
        let resealed = self.reseal()?;
        self.settle()?;
        Ok(resealed)
    }

    /// Seals every slot under the one key that stays, and syncs. Slots that come meanwhile are sealed under it already.
    fn reseal(&self) -> Result<usize, StoreFault> {
        let mut resealed = 0;
        let length = self.storage.read().map_err(StoreFault::of("reading the key file"))?.len();
        let slots = u32::try_from(length.saturating_sub(HEADER) / SLOT).unwrap_or(u32::MAX);
        for index in 0..slots {
            // Held from the reading to the writing: an erasure in between would be undone otherwise.
            let seals = self.seals();
            let mut bytes = [0; SLOT];
            self.storage.read_at(offset(index), &mut bytes).map_err(StoreFault::of("reading the key file"))?;
            if let Some(Slot::Live { owner, key }) = seals.decode_stale(index, &bytes) {
                self.write(index, seals.slot(owner, &key)?)?;
                resealed += 1;
            }
        }
        self.sync()?;
        Ok(resealed)
    }

    /// Writes and syncs both copies of the header, one after the other.
    fn write_header(&self, seals: &mut Seals, next: Option<&Wrapping>) -> Result<(), StoreFault> {
        seals.sequence += 1;
        let copy = header::written(seals.sequence, &seals.root, &seals.wrapping, next)?;
        for at in [0, copy.len() as u64] {
            self.storage.write(at, &copy).map_err(StoreFault::of("writing the key file"))?;
            self.sync()?;
        }
        Ok(())
    }

    /// The whole file as it is now, for a backup: no slot in it is half written.
    pub(crate) fn copy(&self) -> Result<Vec<u8>, StoreFault> {
        let _nobody_writes = self.seals();
        self.storage.read().map_err(StoreFault::of("reading the key file"))
    }

    /// Every slot in order.
    pub(crate) fn load(&self) -> Result<Vec<Slot>, StoreFault> {
        let bytes = self.storage.read().map_err(StoreFault::of("reading the key file"))?;
        let slots = bytes.get(HEADER..).unwrap_or_default();
        let seals = self.seals();
        // A last slot that is cut short was never synced, and so was never used.
        let slots: Vec<Slot> = (0..).zip(slots.chunks(SLOT)).map(|(index, slot)| seals.decode(index, slot)).collect();
        drop(seals);
        // Should both counters be damaged, this is the least that it can have been.
        let least = slots.iter().map(Slot::generation).map(u64::from).sum();
        let mut counter = self.counter();
        (counter.made, counter.durable) = (counter.made.max(least), counter.durable.max(least));
        drop(counter);
        Ok(slots)
    }

    /// The bytes of one slot as they are now.
    pub(crate) fn bytes(&self, slot: u32) -> Result<[u8; SLOT], StoreFault> {
        let _nobody_writes = self.seals();
        let mut bytes = [0; SLOT];
        self.storage.read_at(offset(slot), &mut bytes).map_err(StoreFault::of("reading the key file"))?;
        Ok(bytes)
    }

    /// Puts a key into its slot. Durable only after [`KeyFile::sync`].
    pub(crate) fn put(&self, owner: Owner, key: &DataKey) -> Result<(), StoreFault> {
        let seals = self.seals();
        self.write(key.slot, seals.slot(owner, key)?)?;
        self.counter().made += 1;
        Ok(())
    }

    /// Overwrites a slot in place. Durable only after [`KeyFile::sync`].
    pub(crate) fn destroy(&self, slot: u32, generation: u32) -> Result<(), StoreFault> {
        let mut bytes = [0; SLOT];
        bytes[0] = FREE;
        bytes[4..8].copy_from_slice(&generation.to_be_bytes());
        let _nobody_seals_it_anew = self.seals();
        self.write(slot, bytes)
    }

    /// Returns once everything written before is durable.
    pub(crate) fn sync(&self) -> Result<(), StoreFault> {
        let synced = || self.storage.sync().map_err(StoreFault::of("syncing the key file"));
        let mut counter = self.counter();
        let made = counter.made;
        if made == counter.written && made == counter.durable {
            drop(counter);
            return synced();
        }
        // Held until it is durable: of two that are written and not durable, both could be torn.
        let place = (counter.place + 1) % 2;
        let written = self.storage.write(header::place_of_counter(place), &header::counter(made));
        written.map_err(StoreFault::of("writing the key file"))?;
        synced()?;
        *counter = Counter { made, durable: made, written: made, place };
        Ok(())
    }

    fn counter(&self) -> MutexGuard<'_, Counter> {
        self.counter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, slot: u32, mut bytes: [u8; SLOT]) -> Result<(), StoreFault> {
        let sum = checksum(&bytes[..SLOT - 8]);
        bytes[SLOT - 8..].copy_from_slice(&sum);
        self.storage.write(offset(slot), &bytes).map_err(StoreFault::of("writing the key file"))
    }

    fn seals(&self) -> MutexGuard<'_, Seals> {
        self.seals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seals {
    /// The bytes of a live slot, but for its checksum.
    fn slot(&self, owner: Owner, key: &DataKey) -> Result<[u8; SLOT], StoreFault> {
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
        let tag = XChaCha20Poly1305::new((&*self.wrapping.key).into())
            .encrypt_inout_detached(&nonce.into(), &bound, (&mut sealed[..]).into())
            .expect("32 bytes are not too long for the cipher");
        slot[40..64].copy_from_slice(&nonce);
        slot[64..96].copy_from_slice(&*sealed);
        slot[96..112].copy_from_slice(&tag);
        Ok(slot)
    }

    fn decode(&self, index: u32, slot: &[u8]) -> Slot {
        let under = |key| try_decode(key, index, slot);
        under(&self.wrapping.key).or_else(|| self.decode_stale(index, slot)).unwrap_or(Slot::Damaged)
    }

    /// A slot that is still sealed under the key that goes.
    fn decode_stale(&self, index: u32, slot: &[u8]) -> Option<Slot> {
        try_decode(self.other.as_ref()?, index, slot)
    }
}

fn try_decode(wrapping: &SecretBytes, index: u32, slot: &[u8]) -> Option<Slot> {
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
    XChaCha20Poly1305::new((&**wrapping).into())
        .decrypt_inout_detached(
            &XNonce::try_from(&slot[40..64]).ok()?,
            &bound(index, slot),
            (&mut secret[..]).into(),
            &Tag::try_from(&slot[96..112]).ok()?,
        )
        .ok()?;
    Some(Slot::Live { owner: Owner { org, session }, key: DataKey { secret, scope, slot: index, generation } })
}

fn offset(slot: u32) -> u64 {
    HEADER as u64 + SLOT as u64 * u64::from(slot)
}

/// A sealed key is bound to its slot's number and to everything that the slot says before it.
fn bound(index: u32, slot: &[u8; SLOT]) -> Vec<u8> {
    [&index.to_be_bytes()[..], &slot[..40]].concat()
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    sum.copy_from_slice(&Sha256::digest(bytes)[..8]);
    sum
}

/// A key file in memory, under a master key of this many times the same byte.
#[cfg(test)]
pub(crate) fn in_memory(byte: u8) -> KeyFile {
    let wrapping = Wrapping::of(&crate::master::MasterKey::of(Zeroizing::new([byte; 32])));
    let slots = MemorySlots::default();
    slots.write(0, &header::new_file(&wrapping).expect("random numbers")).expect("memory");
    KeyFile::open(Box::new(slots), &[wrapping]).expect("its own key")
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::master::MasterKey;

    fn wrapping(byte: u8) -> Wrapping {
        Wrapping::of(&MasterKey::of(Zeroizing::new([byte; 32])))
    }

    fn key(slot: u32, generation: u32) -> DataKey {
        DataKey { secret: Zeroizing::new([7; 32]), scope: Scope::Session, slot, generation }
    }

    fn owner() -> Owner {
        Owner::session(OrgId::from_bytes([1; 16]), SessionId::from_bytes([2; 16]))
    }

    #[test]
    fn a_slot_keeps_its_key_until_it_is_destroyed() {
        let file = in_memory(1);
        file.put(owner(), &key(2, 5)).expect("written");
        let slots = file.load().expect("loaded");
        assert!(matches!(slots[..2], [Slot::Free { generation: 0 }, Slot::Free { generation: 0 }]));
        assert!(matches!(&slots[2], Slot::Live { owner: o, key } if *o == owner() && *key.secret == [7; 32]));
        assert_eq!(file.bytes(2).expect("read").windows(32).filter(|window| *window == [7; 32]).count(), 0);

        file.destroy(2, 5).expect("overwritten");
        assert!(matches!(file.load().expect("loaded")[2], Slot::Free { generation: 5 }));
    }

    #[test]
    fn a_torn_or_moved_slot_is_damaged() {
        let file = in_memory(1);
        let org_key = DataKey { scope: Scope::Org, ..key(0, 1) };
        file.put(Owner::org(OrgId::from_bytes([1; 16])), &org_key).expect("written");
        let mut bytes = file.bytes(0).expect("read");
        let seals = file.seals();
        assert!(matches!(seals.decode(1, &bytes), Slot::Damaged), "a slot opened in another place");
        bytes[70] ^= 1;
        assert!(matches!(seals.decode(0, &bytes), Slot::Damaged));
        assert!(matches!(seals.decode(0, &bytes[..90]), Slot::Damaged));
    }

    #[test]
    fn after_a_rotation_only_the_new_key_opens_the_file_and_its_slots() {
        let file = in_memory(1);
        let root = file.root();
        file.put(owner(), &key(0, 1)).expect("written");
        file.put(owner(), &key(1, 1)).expect("written");
        file.destroy(1, 1).expect("overwritten");
        let before = file.bytes(0).expect("read");
        assert_eq!(file.rotate(&wrapping(2)).expect("rotated"), 1);
        assert_eq!(file.rotate(&wrapping(2)).expect("there is nothing to do"), 0);

        let copy = file.copy().expect("read");
        let open = |byte| {
            let slots = MemorySlots::default();
            slots.write(0, &copy).expect("memory");
            KeyFile::open(Box::new(slots), &[wrapping(byte)])
        };
        assert!(matches!(open(1), Err(OpenError::WrongMasterKey)));
        let again = open(2).expect("the new key fits");
        assert_eq!(again.root(), root);
        let slots = again.load().expect("loaded");
        assert!(matches!(&slots[0], Slot::Live { owner: o, key } if *o == owner() && *key.secret == [7; 32]));
        assert!(matches!(slots[1], Slot::Free { generation: 1 }));
        assert!(try_decode(&wrapping(1).key, 0, &file.bytes(0).expect("read")).is_none(), "the old key opens a slot");
        assert!(!copy.windows(32).any(|window| window == &before[64..96]), "a slot under the old key is left");
    }
}
