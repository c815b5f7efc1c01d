//! Opening: what has to fit together before the first commit.
//!
//! The order of a first boot is master key, data file, key file, format. Each is durable before the next is begun, so a
//! crash leaves one of few states, and the next boot goes on from it. Where something is missing that a first boot could
//! not have left out, the store refuses to open: a new master key, or a new key file, would make existing data noise.
//!
//! Then the keys are held against the rows. A key without an owner is what a crash leaves between a slot's sync and the
//! commit that would have used it; it is destroyed. An owner without a key is damage; it is reported and nothing is destroyed.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use portcullis_core::OrgId;
use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, ReadableDatabase};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::error::{OpenError, StoreFault};
use crate::held::Held;
use crate::keyfile::{self, KeyFile, MemorySlots, Owner, Slot, SlotStorage};
use crate::keyring::Keyring;
use crate::seal::{Hashes, SecretBytes, random};
use crate::tables::{self, part};
use crate::writer::{CommitMode, Writer};
use crate::{Handle, QUEUE, Shared, Store, StoreOptions, erase, master, migrations};

/// The platform owns rows without having one of its own; its key is made at the first boot, before the format is written.
const PLATFORM: Owner = Owner { org: OrgId::PLATFORM, session: None };

/// Opens or makes the store in a directory.
pub(crate) fn directory(dir: &Path, options: StoreOptions) -> Result<Store, OpenError> {
    let directory = |source| OpenError::Directory { path: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(directory)?;
    let alone = lock(dir)?;
    let (data, keys, master_key) = (dir.join("portcullis.redb"), dir.join("keys"), dir.join("master-key"));

    // Until here and through the next lines nothing is written that could do harm: a wrong key must be found out first.
    let slots = keyfile::open_file(&keys).map_err(StoreFault::of("opening the key file"))?;
    let secret = match master::read(&master_key)? {
        Some(secret) => secret,
        None if slots.is_some() || data.exists() => return Err(OpenError::MasterKeyMissing { path: master_key }),
        None => master::create(dir, &master_key)?,
    };
    if let Some(slots) = &slots {
        keyfile::check_header(&slots.read().map_err(StoreFault::of("reading the key file"))?, &secret)?;
    }

    // Making a data file beside keys that it cannot have would hide that there was another.
    if let (Some(slots), false) = (&slots, data.exists()) {
        let slots = slots.try_clone().map_err(StoreFault::of("opening the key file"))?;
        let is_of_somebody = |slot: &Slot| matches!(slot, Slot::Live { owner, .. } if *owner != PLATFORM);
        let keys = KeyFile::new(Box::new(slots), &secret).load()?.iter().filter(|slot| is_of_somebody(slot)).count();
        if keys > 0 {
            return Err(OpenError::DataMissing { keys });
        }
    }

    let (database, held) = open_data(dir, alone, &data, options)?;
    migrations::check(&database)?;
    let slots = match slots {
        Some(slots) => slots,
        None if migrations::format(&database)? > 0 => return Err(OpenError::KeyFileMissing),
        None => {
            master::write_whole(dir, &keys, &keyfile::new_header(&secret))?;
            let made = keyfile::open_file(&keys).map_err(StoreFault::of("opening the key file"))?;
            made.ok_or(OpenError::KeyFileMissing)?
        }
    };
    assemble(database, Some(&held), Box::new(slots), &secret, options.commit_mode)
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
    let mut secret = Zeroizing::new([0; 32]);
    random(&mut secret[..])?;
    let database = Database::builder()
        .set_cache_size(options.cache_bytes)
        .create_with_backend(InMemoryBackend::new())
        .map_err(StoreFault::of("making a database in memory"))?;
    let slots = MemorySlots::default();
    slots.write(0, &keyfile::new_header(&secret)).map_err(StoreFault::of("making a key file in memory"))?;
    assemble(database, None, Box::new(slots), &secret, options.commit_mode)
}

/// Puts a store together from its parts, whose keys have been checked. What is held back of the data is written once all of it fits.
pub(crate) fn assemble(
    database: Database,
    held: Option<&Held>,
    slots: Box<dyn SlotStorage>,
    secret: &SecretBytes,
    mode: CommitMode,
) -> Result<Store, OpenError> {
    migrations::check(&database)?;
    let (ring, damaged) = Keyring::load(KeyFile::new(slots, secret), Hashes::new(secret))?;
    let ring = Arc::new(ring);
    let first_boot = migrations::format(&database)? == 0;
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
    migrations::run(&database, &ring, mode)?;
    reconcile(&database, &ring, &damaged)?;
    let (database, queue) = (Arc::new(database), Arc::new(Semaphore::new(QUEUE)));
    let writer = Writer::start(database.clone(), ring.clone(), mode).map_err(OpenError::Thread)?;
    Ok(Store(Arc::new(Handle { shared: Arc::new(Shared { database, ring }), queue, writer })))
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
