//! Opening: what has to fit together before the first commit.
//!
//! The order of a first boot is master key, data file, key file, format. Each is durable before the next is begun, so a
//! crash leaves one of few states, and the next boot goes on from it. Where something is missing that a first boot could
//! not have left out, the store refuses to open: a new master key, or a new key file, would make existing data noise.
//!
//! A change of the master key that was cut short is ended before the first key is used, with the master key that is at hand.
//!
//! Then the keys are held against the rows. A key without an owner is what a crash leaves between a slot's sync and the
//! commit that would have used it; it is destroyed. An owner without a key is damage; it is reported and nothing is destroyed.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_core::OrgId;
use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, ReadableDatabase};
use tokio::sync::Semaphore;

use crate::error::{OpenError, StoreFault};
use crate::held::Held;
use crate::keyfile::{self, KeyFile, MemorySlots, Owner, Slot, SlotStorage, Wrapping};
use crate::keyring::Keyring;
use crate::master::{MasterKey, MasterKeys};
use crate::seal::Hashes;
use crate::tables::{self, part};
use crate::writer::{CommitMode, Writer};
use crate::{Handle, QUEUE, Shared, Store, StoreOptions, erase, master, migrations};

/// The platform owns rows without having one of its own; its key is made at the first boot, before the format is written.
const PLATFORM: Owner = Owner { org: OrgId::PLATFORM, session: None };

/// The names of the data and of the key file, in a store's directory.
pub(crate) const DATA: &str = "portcullis.redb";
pub(crate) const KEYS: &str = "keys";
/// The name of the directory in which a restore makes its files before it names them.
pub(crate) const RESTORING: &str = "restoring";

/// Opens or makes the store in a directory.
pub(crate) fn directory(dir: &Path, options: StoreOptions, given: &MasterKeys) -> Result<Store, OpenError> {
    let directory = |source| OpenError::Directory { path: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(directory)?;
    let alone = lock(dir)?;
    let (data, keys, own) = (dir.join(DATA), dir.join(KEYS), dir.join(master::OWN));
    if dir.join(RESTORING).exists() {
        return Err(OpenError::RestoreCutShort { path: dir.to_owned() });
    }

    // Until here and through the next lines nothing is written that could do harm: a wrong key must be found out first.
    let slots = keyfile::open_file(&keys).map_err(StoreFault::of("opening the key file"))?;
    let is_new = slots.is_none() && !data.exists();
    let found = match given {
        MasterKeys::Own => master::own(dir)?,
        MasterKeys::Given(keys) => keys.clone(),
    };
    let wrappings: Vec<Wrapping> = match &found[..] {
        [] if is_new && matches!(given, MasterKeys::Own) => vec![Wrapping::of(&master::create(dir, &own)?)],
        [] => return Err(OpenError::MasterKeyMissing { path: own }),
        found => found.iter().map(Wrapping::of).collect(),
    };
    drop(found);
    let file = slots.map(|slots| KeyFile::open(Box::new(slots), &wrappings)).transpose()?;

    // Making a data file beside keys that it cannot have would hide that there was another.
    if let (Some(file), false) = (&file, data.exists()) {
        let is_of_somebody = |slot: &Slot| matches!(slot, Slot::Live { owner, .. } if *owner != PLATFORM);
        let keys = file.load()?.iter().filter(|slot| is_of_somebody(slot)).count();
        if keys > 0 {
            return Err(OpenError::DataMissing { keys });
        }
    }

    let (database, held) = open_data(dir, alone, &data, options)?;
    migrations::check(&database)?;
    let file = match file {
        Some(file) => file,
        None if migrations::format(&database)? > 0 => return Err(OpenError::KeyFileMissing),
        None => {
            master::write_whole(dir, &keys, &keyfile::header::new_file(&wrappings[0])?)?;
            let made = keyfile::open_file(&keys).map_err(StoreFault::of("opening the key file"))?;
            KeyFile::open(Box::new(made.ok_or(OpenError::KeyFileMissing)?), &wrappings)?
        }
    };
    let is_own = matches!(given, MasterKeys::Own);
    let store = assemble(database, Some(&held), file, options.commit_mode, is_own.then(|| dir.to_owned()))?;
    if is_own {
        let file = &store.shared().ring.file;
        master::settle(dir, |key| file.is_under(&Wrapping::of(key)))?;
    }
    Ok(store)
}

/// Whoever has this has the directory for themselves. redb locks the data file, but of two who make one at once each would have their own.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Directory { path: dir.to_owned(), source };
    let directory = File::open(dir).map_err(failed)?;
    match directory.try_lock() {
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: dir.to_owned() }),
        // Where directories cannot be locked, the lock of the data file has to do.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(directory),
    }
}

/// Opens the data file, and makes it if there is none. What redb changes by that is held back.
fn open_data(dir: &Path, alone: File, data: &Path, options: StoreOptions) -> Result<(Database, Held), OpenError> {
    let failed = |error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: dir.to_owned() },
        other => OpenError::Store(StoreFault::of("opening the data file")(other)),
    };
    if !data.exists() {
        // A crash while redb makes a file leaves one that it refuses to open. So it is made under another name.
        let draft = data.with_extension("new");
        master::remove_if_there(&draft).map_err(StoreFault::of("removing half a data file"))?;
        drop(Database::create(&draft).map_err(failed)?);
        let name = || {
            std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600))?;
            std::fs::rename(&draft, data)?;
            master::sync_dir(dir)
        };
        name().map_err(StoreFault::of("naming the data file"))?;
    }
    let held = Held::open(data, alone).map_err(failed)?;
    let database = Database::builder().set_cache_size(options.cache_bytes).create_with_backend(held.clone());
    Ok((database.map_err(failed)?, held))
}

/// Makes a store in memory.
pub(crate) fn in_memory(options: StoreOptions) -> Result<Store, OpenError> {
    let database = Database::builder()
        .set_cache_size(options.cache_bytes)
        .create_with_backend(InMemoryBackend::new())
        .map_err(StoreFault::of("making a database in memory"))?;
    let slots = MemorySlots::default();
    let wrapping = Wrapping::of(&MasterKey::random()?);
    let header = keyfile::header::new_file(&wrapping)?;
    slots.write(0, &header).map_err(StoreFault::of("making a key file in memory"))?;
    assemble(database, None, KeyFile::open(Box::new(slots), &[wrapping])?, options.commit_mode, None)
}

/// Puts a store together from its parts. What is held back of the data is written once all of it fits. `own_keys` is the directory in which the store has its own master key.
pub(crate) fn assemble(
    database: Database,
    held: Option<&Held>,
    file: KeyFile,
    mode: CommitMode,
    own_keys: Option<PathBuf>,
) -> Result<Store, OpenError> {
    let (ring, damaged) = ring_of(&database, held, file, mode)?;
    start(database, ring, &damaged, mode, own_keys)
}

/// The keys, and the data brought to the newest format. Also the numbers of damaged slots.
pub(crate) fn ring_of(
    database: &Database,
    held: Option<&Held>,
    file: KeyFile,
    mode: CommitMode,
) -> Result<(Arc<Keyring>, Vec<u32>), OpenError> {
    migrations::check(database)?;
    let hashes = Hashes::new(&file.root());
    let (ring, damaged) = Keyring::load(file, hashes)?;
    let ring = Arc::new(ring);
    let first_boot = migrations::format(database)? == 0;
    let keys = ring.owners().iter().filter(|owner| **owner != PLATFORM).count();
    if first_boot && keys > 0 {
        return Err(OpenError::DataMissing { keys });
    }
    let has_platform = ring.live(PLATFORM).is_some();
    if !has_platform && !first_boot {
        return Err(OpenError::KeyFileDamaged("the platform's own key is gone"));
    }
    // From here on the data is this store's, and may be changed.
    held.map_or(Ok(()), Held::release).map_err(StoreFault::of("writing what opening the data file changes"))?;
    if !has_platform {
        let fresh = ring.reserve(PLATFORM)?;
        ring.file.put(PLATFORM, &fresh.key)?;
        ring.file.sync()?;
        fresh.publish();
    }
    migrations::run(database, &ring, mode)?;
    if let Some(ends) = ring.file.cut_short() {
        // It stands there before the file forgets it, for whoever can say it in the audit.
        migrations::note_settled(database, mode, ends)?;
    }
    ring.file.settle()?;
    Ok((ring, damaged))
}

/// Holds keys and rows against each other, and begins to work.
pub(crate) fn start(
    database: Database,
    ring: Arc<Keyring>,
    damaged: &[u32],
    mode: CommitMode,
    own_keys: Option<PathBuf>,
) -> Result<Store, OpenError> {
    reconcile(&database, &ring, damaged)?;
    let (database, queue) = (Arc::new(database), Arc::new(Semaphore::new(QUEUE)));
    let writer = Writer::start(database.clone(), ring.clone(), mode).map_err(OpenError::Thread)?;
    let shared = Arc::new(Shared { database, ring });
    Ok(Store(Arc::new(Handle { shared, queue, writer, own_keys, rotating: Arc::new(Semaphore::new(1)) })))
}

/// Holds the keys against the rows.
fn reconcile(database: &Database, ring: &Arc<Keyring>, damaged: &[u32]) -> Result<(), StoreFault> {
    let read = database.begin_read()?;
    let mut owners = HashSet::from([PLATFORM]);
    for row in read.open_table(tables::ORGS)?.range::<&[u8]>(..)? {
        owners.extend(part(row?.0.value(), 0).map(OrgId::from_bytes).map(Owner::org));
    }
    for row in read.open_table(tables::SESSIONS)?.range::<&[u8]>(..)? {
        owners.extend(erase::owner_of(row?.0.value()));
    }
    let mut doomed = HashSet::new();
    for row in read.open_table(tables::TOMBSTONES)?.range::<&[u8]>(..)? {
        doomed.extend(erase::owner_of(row?.0.value()));
    }
    let orphans: Vec<Owner> =
        ring.owners().into_iter().filter(|owner| !owners.contains(owner) && !doomed.contains(owner)).collect();
    for orphan in &orphans {
        if let Some(key) = ring.any(*orphan) {
            ring.file.destroy(key.slot, key.generation)?;
        }
    }
    ring.doom(doomed);

    let keyless = owners.iter().filter(|owner| ring.any(**owner).is_none()).count();
    if keyless == 0 {
        // Nobody misses a key, so a damaged slot is one that a crash tore while it was first written.
        damaged.iter().try_for_each(|slot| ring.file.destroy(*slot, 0))?;
    } else {
        tracing::error!(owners = keyless, slots = damaged.len(), "rows without a key cannot be read");
    }
    if !orphans.is_empty() || (keyless == 0 && !damaged.is_empty()) {
        ring.file.sync()?;
    }
    orphans.into_iter().for_each(|orphan| ring.forget(orphan));
    if keyless == 0 {
        damaged.iter().for_each(|slot| ring.reclaim(*slot));
    }
    Ok(())
}
