//! The header of the key file: under which master key its slots are sealed, or under which two while that is being changed.
//!
//! ```text
//! header = copy, copy, counter, counter
//! copy   = magic (8), version (8), sequence (8), entry of the key (144), entry of the next key or zeros (144),
//!          zeros, checksum (8)                                                              512 bytes in all
//! entry  = 1 (1), zeros (7), check value of the master key (32), nonce (24),
//!          sealed: root (32), the other entry's wrapping key or zeros (32); tag (16)
//! counter = how many keys were ever put into the file (8), zeros, checksum (8)             512 bytes in all
//! ```
//!
//! The *root* is made with the file and never changes: indexes and whatever is lent to others are derived from it, so that they
//! outlive every master key. A *wrapping key* is derived from a master key, and is all that is kept of one.
//!
//! While the master key is being changed there are two entries, and each leads to both wrapping keys. So every slot opens with
//! either key, however far the change has come. The copies are written and synced one after the other: one of them is whole.
//!
//! The *counter* never goes down, whatever becomes of the slots: by it a restore tells a key file that is older than the backup.
//! It is written with every new key, by turns to either place, and the greater of those that are whole counts.

use std::fmt;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::checksum;
use crate::error::{OpenError, StoreFault};
use crate::master::MasterKey;
use crate::seal::{SecretBytes, derive, random};
use crate::tables::part;

const MAGIC: &[u8; 8] = b"PCLSKEYS";
const VERSION: u64 = 3;
/// The length of one copy: a sector.
const COPY: usize = 512;
/// The length of both and of the two counters.
pub(crate) const HEADER: usize = 4 * COPY;
const ENTRIES: usize = 24;
const ENTRY: usize = 8 + 32 + 24 + 64 + 16;
const ABOUT: &[u8] = b"portcullis key file header 2";

/// What is kept of a master key while it is in use: the key under which slots are sealed, and the value that it is known by.
#[derive(Clone)]
pub(crate) struct Wrapping {
    pub(super) key: SecretBytes,
    check: [u8; 32],
}

impl Wrapping {
    pub(crate) fn of(master: &MasterKey) -> Self {
        let key = derive(master.secret(), "portcullis wrapping key 2");
        Self { key, check: *derive(master.secret(), "portcullis key check 2") }
    }

    /// Whether both are of the same master key.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.check == other.check
    }
}

impl fmt::Debug for Wrapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wrapping(…)")
    }
}

/// What a header leads to under a master key.
pub(crate) struct Unlocked {
    pub(super) root: SecretBytes,
    pub(super) sequence: u64,
    /// Of the master key that fits.
    pub(super) wrapping: Wrapping,
    /// The wrapping key of the other entry, if there is one: a change was cut short.
    pub(super) other: Option<SecretBytes>,
    /// Whether both copies say the same.
    pub(super) is_even: bool,
    /// Where a change that was cut short leads with this key.
    pub(super) cut_short: Option<CutShort>,
    /// What the counters say.
    pub(super) counted: [u64; 2],
}

/// How a change of the master key ends that was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CutShort {
    /// It goes on to the next key.
    GoesOn,
    /// It goes back to the key before, because the next one is not at hand.
    GoesBack,
}

/// Both copies of a header with this sequence, under one key or two.
pub(super) fn written(
    sequence: u64,
    root: &SecretBytes,
    wrapping: &Wrapping,
    next: Option<&Wrapping>,
) -> Result<[u8; COPY], StoreFault> {
    let mut copy = [0; COPY];
    copy[..8].copy_from_slice(MAGIC);
    copy[8..16].copy_from_slice(&VERSION.to_be_bytes());
    copy[16..24].copy_from_slice(&sequence.to_be_bytes());
    copy[ENTRIES..ENTRIES + ENTRY].copy_from_slice(&entry(root, wrapping, next)?);
    if let Some(next) = next {
        copy[ENTRIES + ENTRY..ENTRIES + 2 * ENTRY].copy_from_slice(&entry(root, next, Some(wrapping))?);
    }
    let sum = checksum(&copy[..COPY - 8]);
    copy[COPY - 8..].copy_from_slice(&sum);
    Ok(copy)
}

/// A new key file: a header with a root of its own, and no slot.
pub(crate) fn new_file(wrapping: &Wrapping) -> Result<Vec<u8>, StoreFault> {
    let mut root = Zeroizing::new([0; 32]);
    random(&mut root[..])?;
    let mut file = written(1, &root, wrapping, None)?.repeat(2);
    file.extend(counter(0).repeat(2));
    Ok(file)
}

/// A counter, and where it goes: by turns to either place.
pub(super) fn counter(made: u64) -> [u8; COPY] {
    let mut counter = [0; COPY];
    counter[..8].copy_from_slice(&made.to_be_bytes());
    let sum = checksum(&counter[..COPY - 8]);
    counter[COPY - 8..].copy_from_slice(&sum);
    counter
}

/// Where one of the two counters is.
pub(super) fn place_of_counter(which: usize) -> u64 {
    (COPY * (2 + which % 2)) as u64
}

fn counted(bytes: &[u8]) -> [u64; 2] {
    [2, 3].map(|at| {
        let counter = bytes.get(COPY * at..COPY * (at + 1));
        let counter = counter.filter(|counter| counter[COPY - 8..] == checksum(&counter[..COPY - 8]));
        counter.and_then(|counter| part(counter, 0)).map_or(0, u64::from_be_bytes)
    })
}

fn entry(root: &SecretBytes, wrapping: &Wrapping, other: Option<&Wrapping>) -> Result<[u8; ENTRY], StoreFault> {
    let mut entry = [0; ENTRY];
    entry[0] = 1;
    entry[8..40].copy_from_slice(&wrapping.check);
    random(&mut entry[40..64])?;
    let mut sealed = Zeroizing::new([0; 64]);
    sealed[..32].copy_from_slice(&root[..]);
    if let Some(other) = other {
        sealed[32..].copy_from_slice(&other.key[..]);
    }
    let nonce = XNonce::try_from(&entry[40..64]).expect("a nonce has 24 bytes");
    let tag = XChaCha20Poly1305::new((&*wrapping.key).into())
        .encrypt_inout_detached(&nonce, &bound(&entry), (&mut sealed[..]).into())
        .expect("64 bytes are not too long for the cipher");
    entry[64..128].copy_from_slice(&sealed[..]);
    entry[128..].copy_from_slice(&tag);
    Ok(entry)
}

fn bound(entry: &[u8]) -> Vec<u8> {
    [ABOUT, &entry[..40]].concat()
}

/// What the header at the beginning of `bytes` leads to under one of these master keys. It reads only, so that nothing is touched
/// under a wrong key. If a change was cut short, the key that it was to lead to goes first.
pub(crate) fn unlock(bytes: &[u8], keys: &[Wrapping]) -> Result<Unlocked, OpenError> {
    let copies = [copy(bytes, 0), copy(bytes, COPY)];
    let is_even = matches!(&copies, [Ok(one), Ok(other)] if one[..] == other[..]);
    let (newest, before) = match copies {
        [Ok(one), Ok(other)] => {
            if sequence(other) > sequence(one) {
                (other, one)
            } else {
                (one, other)
            }
        }
        [Ok(one), Err(_)] | [Err(_), Ok(one)] => (one, one),
        [Err(why), Err(_)] => return Err(why),
    };
    // A change that ends has one entry in the newer copy and two in the other, of which one is its own.
    let last = if has_two(newest) { newest } else { before };
    for at in [ENTRIES + ENTRY, ENTRIES] {
        let entry = &newest[at..at + ENTRY];
        let Some(wrapping) = keys.iter().find(|key| entry[0] == 1 && entry[8..40] == key.check) else { continue };
        let plain = opened(entry, &wrapping.key).ok_or(OpenError::KeyFileDamaged("its header does not open"))?;
        let (mut root, mut other) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        root.copy_from_slice(&plain[..32]);
        other.copy_from_slice(&plain[32..]);
        let other = has_two(newest).then_some(other);
        let is_next = last[ENTRIES + ENTRY + 8..ENTRIES + ENTRY + 40] == wrapping.check;
        let ends = if is_next { CutShort::GoesOn } else { CutShort::GoesBack };
        let cut_short = has_two(last).then_some(ends);
        let (sequence, wrapping, counted) = (sequence(newest), wrapping.clone(), counted(bytes));
        return Ok(Unlocked { root, sequence, wrapping, other, is_even, cut_short, counted });
    }
    Err(OpenError::WrongMasterKey)
}

fn has_two(copy: &[u8]) -> bool {
    copy[ENTRIES + ENTRY] == 1
}

fn opened(entry: &[u8], key: &SecretBytes) -> Option<Zeroizing<[u8; 64]>> {
    let mut plain = Zeroizing::new(part::<64>(entry, 64)?);
    XChaCha20Poly1305::new((&**key).into())
        .decrypt_inout_detached(
            &XNonce::try_from(&entry[40..64]).ok()?,
            &bound(entry),
            (&mut plain[..]).into(),
            &Tag::try_from(&entry[128..]).ok()?,
        )
        .ok()?;
    Some(plain)
}

/// One copy, if it is whole and of a format that is known.
fn copy(bytes: &[u8], at: usize) -> Result<&[u8], OpenError> {
    let Some(copy) = bytes.get(at..at + COPY) else {
        return Err(OpenError::KeyFileDamaged("its header is cut short"));
    };
    if !copy.starts_with(MAGIC) {
        return Err(OpenError::KeyFileDamaged("it does not begin as one"));
    }
    if copy[COPY - 8..] != checksum(&copy[..COPY - 8]) {
        return Err(OpenError::KeyFileDamaged("its header's checksum is wrong"));
    }
    match part(copy, 8).map_or(0, u64::from_be_bytes) {
        VERSION => Ok(copy),
        found if found > VERSION => Err(OpenError::NewerFormat { found, known: VERSION }),
        _ => Err(OpenError::KeyFileDamaged("its format is older than every release")),
    }
}

fn sequence(copy: &[u8]) -> u64 {
    part(copy, 16).map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
mod test {
    use super::*;

    fn wrapping(byte: u8) -> Wrapping {
        Wrapping::of(&MasterKey::of(Zeroizing::new([byte; 32])))
    }

    fn unlocked(bytes: &[u8], byte: u8) -> Result<Unlocked, OpenError> {
        unlock(bytes, &[wrapping(byte)])
    }

    #[test]
    fn a_header_is_checked_before_anything_is_used() {
        let header = new_file(&wrapping(1)).expect("made");
        assert!(unlocked(&header, 1).is_ok());
        assert!(matches!(unlocked(&header, 2), Err(OpenError::WrongMasterKey)));
        assert!(matches!(unlocked(&header[..100], 1), Err(OpenError::KeyFileDamaged(_))));
        let mut newer = header[..COPY].to_vec();
        newer[15] = 4;
        let sum = checksum(&newer[..COPY - 8]);
        newer[COPY - 8..].copy_from_slice(&sum);
        assert!(matches!(unlocked(&newer.repeat(2), 1), Err(OpenError::NewerFormat { found: 4, known: 3 })));
    }

    #[test]
    fn either_copy_is_enough_and_the_newer_one_counts() {
        let old = new_file(&wrapping(1)).expect("made");
        let root = unlocked(&old, 1).expect("unlocked").root;
        let new = written(2, &root, &wrapping(2), None).expect("written");
        let old = &old[..2 * COPY];
        let cut = [&new[..100], &old[100..]].concat();
        assert_eq!(unlocked(&cut, 1).expect("the second copy is whole").root, root);
        let half = [&new[..], &old[COPY..]].concat();
        let unlocked = unlocked(&half, 2).expect("the first copy is newer");
        assert!((unlocked.root == root) && !unlocked.is_even);
        assert!(matches!(unlock(&half, &[wrapping(1)]), Err(OpenError::WrongMasterKey)));
    }

    #[test]
    fn while_there_are_two_keys_each_leads_to_both() {
        let root = Zeroizing::new([7; 32]);
        let header = written(1, &root, &wrapping(1), Some(&wrapping(2))).expect("written").repeat(2);
        for (key, other) in [(1, 2), (2, 1)] {
            let unlocked = unlocked(&header, key).expect("it fits");
            assert!(unlocked.root == root && unlocked.wrapping.is(&wrapping(key)));
            assert_eq!(unlocked.other, Some(wrapping(other).key));
            let goes = if key == 2 { CutShort::GoesOn } else { CutShort::GoesBack };
            assert_eq!(unlocked.cut_short, Some(goes));
            // The end of it, cut short between the copies.
            let end = written(2, &root, &wrapping(key), None).expect("written");
            let ending = [&end[..], &header[COPY..]].concat();
            assert_eq!(unlock(&ending, &[wrapping(key)]).expect("it fits").cut_short, Some(goes));
        }
        let both = unlock(&header, &[wrapping(1), wrapping(2)]).expect("both fit");
        assert!(both.wrapping.is(&wrapping(2)), "the change goes back though it could go on");
        for byte in ENTRIES..ENTRIES + ENTRY {
            let mut torn = header[..COPY].to_vec();
            torn[byte] ^= 1;
            let sum = checksum(&torn[..COPY - 8]);
            torn[COPY - 8..].copy_from_slice(&sum);
            // What is not covered by the seal are the zeros of an entry that counts for nothing.
            assert!(unlocked_root(&torn.repeat(2)).is_none_or(|found| found == root), "byte {byte} is not covered");
        }
    }

    #[test]
    fn the_greater_counter_that_is_whole_counts() {
        let mut file = new_file(&wrapping(1)).expect("made");
        for (which, made) in [(0, 7), (1, 8)] {
            let at = usize::try_from(place_of_counter(which)).expect("small");
            file[at..at + COPY].copy_from_slice(&counter(made));
        }
        assert_eq!(unlocked(&file, 1).expect("it fits").counted, [7, 8]);
        *file.last_mut().expect("long") ^= 1;
        assert_eq!(unlocked(&file, 1).expect("it fits").counted, [7, 0]);
    }

    fn unlocked_root(bytes: &[u8]) -> Option<SecretBytes> {
        unlocked(bytes, 1).ok().map(|unlocked| unlocked.root)
    }
}
