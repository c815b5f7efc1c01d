//! The keyring: every living data key, in memory.
//!
//! A key lives through these states:
//!
//! ```text
//!           reserve            publish             doom              forget
//!  (none) ──────────▶ reserved ───────▶ live ──────────────▶ doomed ─────────▶ (none)
//!                        │               slot synced,         rows removed,     slot overwritten
//!                        ▼               before the commit    by the commit     and synced
//!                   given back
//!                   (commit lost)
//! ```
//!
//! Only a live key seals. A doomed one still opens, for readers whose snapshot is older than the erasure.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use zeroize::Zeroizing;

use crate::error::StoreFault;
use crate::keyfile::{KeyFile, Owner, Slot};
use crate::seal::{DataKey, Envelope, Hashes, random};

/// All keys, and the file that keeps them.
pub(crate) struct Keyring {
    pub(crate) file: KeyFile,
    pub(crate) hashes: Hashes,
    keys: RwLock<HashMap<Owner, Entry>>,
    slots: Mutex<Slots>,
}

struct Entry {
    key: Arc<DataKey>,
    doomed: bool,
}

/// Which slots hold nothing, each with the generation that its last key had.
struct Slots {
    free: Vec<(u32, u32)>,
    next: u32,
}

/// What opening a sealed row gave.
pub(crate) enum Opened {
    /// What it holds.
    Plain(Vec<u8>),
    /// Its key is destroyed: the row's owner is erased.
    Gone,
    /// It is damaged, or stands where it was not put.
    Broken,
}

/// A key for an owner who is only being made; its slot is given back if it does not come to that.
pub(crate) struct Reserved {
    pub(crate) owner: Owner,
    pub(crate) key: Arc<DataKey>,
    ring: Arc<Keyring>,
    used: bool,
}

impl Keyring {
    /// The ring of what the file holds, and the numbers of its damaged slots.
    pub(crate) fn load(file: KeyFile, hashes: Hashes) -> Result<(Self, Vec<u32>), StoreFault> {
        let (mut keys, mut free, mut damaged, mut next) = (HashMap::new(), Vec::new(), Vec::new(), 0);
        for slot in file.load()? {
            match slot {
                Slot::Free { generation } => free.push((next, generation)),
                Slot::Live { owner, key } => {
                    keys.insert(owner, Entry { key: Arc::new(key), doomed: false });
                }
                Slot::Damaged => damaged.push(next),
            }
            next += 1;
        }
        // The lowest slots are used first, so that the file stays short.
        free.reverse();
        let ring = Self { file, hashes, keys: RwLock::new(keys), slots: Mutex::new(Slots { free, next }) };
        Ok((ring, damaged))
    }

    /// The key that seals for this owner.
    pub(crate) fn live(&self, owner: Owner) -> Option<Arc<DataKey>> {
        self.keys().get(&owner).filter(|entry| !entry.doomed).map(|entry| entry.key.clone())
    }

    /// The key that opens for this owner, doomed or not.
    pub(crate) fn any(&self, owner: Owner) -> Option<Arc<DataKey>> {
        self.keys().get(&owner).map(|entry| entry.key.clone())
    }

    /// Everybody who has a key.
    pub(crate) fn owners(&self) -> Vec<Owner> {
        self.keys().keys().copied().collect()
    }

    /// A new key in a slot of its own, for an owner who has none.
    pub(crate) fn reserve(self: &Arc<Self>, owner: Owner) -> Result<Reserved, StoreFault> {
        let mut secret = Zeroizing::new([0; 32]);
        random(&mut secret[..])?;
        let (slot, last) = {
            let mut slots = self.slots();
            let next = slots.next;
            slots.free.pop().unwrap_or_else(|| {
                slots.next += 1;
                (next, 0)
            })
        };
        let key = DataKey { secret, scope: owner.scope(), slot, generation: last.wrapping_add(1) };
        Ok(Reserved { owner, key: Arc::new(key), ring: self.clone(), used: false })
    }

    /// Opens the envelope of a row: what follows `head` bytes of its value.
    pub(crate) fn open(&self, owner: Owner, table: &str, bound: &[u8], value: &[u8], head: usize) -> Opened {
        let Some(envelope) = value.get(head..).and_then(Envelope::parse) else { return Opened::Broken };
        let owner = match envelope.scope {
            crate::seal::Scope::Org => Owner::org(owner.org),
            crate::seal::Scope::Session if owner.session.is_none() => return Opened::Broken,
            crate::seal::Scope::Session => owner,
        };
        let Some(key) = self.any(owner) else { return Opened::Gone };
        key.open(table, bound, &envelope).map_or(Opened::Broken, Opened::Plain)
    }

    /// Marks owners whose rows are gone.
    pub(crate) fn doom(&self, owners: impl IntoIterator<Item = Owner>) {
        let mut keys = self.keys_mut();
        for owner in owners {
            if let Some(entry) = keys.get_mut(&owner) {
                entry.doomed = true;
            }
        }
    }

    /// Drops the key of an owner whose slot has been overwritten. The slot can be used again.
    pub(crate) fn forget(&self, owner: Owner) {
        let removed = self.keys_mut().remove(&owner);
        if let Some(Entry { key, .. }) = removed {
            self.slots().free.push((key.slot, key.generation));
        }
    }

    /// Gives a damaged slot back that has been overwritten.
    pub(crate) fn reclaim(&self, slot: u32) {
        self.slots().free.push((slot, 0));
    }

    fn keys(&self) -> RwLockReadGuard<'_, HashMap<Owner, Entry>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys_mut(&self) -> RwLockWriteGuard<'_, HashMap<Owner, Entry>> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reserved {
    /// Makes the key live. Its slot must be synced.
    /// From here on the slot is not given back: the transaction that uses it may turn out to be durable even if it failed.
    pub(crate) fn publish(mut self) {
        self.used = true;
        self.ring.keys_mut().insert(self.owner, Entry { key: self.key.clone(), doomed: false });
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.used {
            self.ring.slots().free.push((self.key.slot, self.key.generation.wrapping_sub(1)));
        }
    }
}
