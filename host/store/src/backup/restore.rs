//! Restoring: a new data directory from a backup, a key file and the master key.
//!
//! The key file is the newest there is, and may be newer than the backup. What was erased since has no key in it, and stays
//! unreadable; the rows of such sessions and organisations are dropped, so that what is left fits together. Of each a line stands in
//! its organisation's audit, or in the platform's if the organisation is gone: its receipt is younger than the backup, and went with
//! the data that was lost.
//!
//! Everything is made in a directory below the new one, verified, and moved to its place at the end, the data last. While that
//! directory is there, nothing opens the data: a restore that was cut short never looks like one that was not.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use portcullis_core::{AuditEntry, AuditId, AuditOutcome, OperationKind, OrgId, PrincipalKind, SessionId, Timestamp};
use redb::{Database, ReadableDatabase, TableDefinition};

use super::{BackupInfo, Frame, open, owner, read_through, signed};
use crate::apply::Batch;
use crate::audit::Chains;
use crate::counts::Counts;
use crate::error::{OpenError, RestoreError, StoreFault};
use crate::keyfile::{self, KeyFile, Owner, Wrapping};
use crate::keyring::Keyring;
use crate::master::{self, MasterKey};
use crate::open::{DATA, KEYS, RESTORING, ring_of, start};
use crate::outbox::Ends;
use crate::seal::{Hashes, random};
use crate::snapshot::owner_session;
use crate::tables::{self, Tables};
use crate::verify::{self, Report};
use crate::writer::{CommitMode, begin};
use crate::{Store, erase};

/// How many bytes of rows go into one transaction.
const AT_ONCE: usize = 32 * 1024 * 1024;

/// What a restored directory holds.
#[derive(Debug)]
pub struct Restored {
    /// What the backup said of itself.
    pub backup: BackupInfo,
    /// How many organisations there are.
    pub orgs: u64,
    /// How many sessions.
    pub sessions: u64,
    /// Organisations whose key is gone; their rows were dropped, and those of their sessions.
    pub dropped_orgs: Vec<OrgId>,
    /// Sessions of other organisations whose key is gone; their rows were dropped.
    pub dropped_sessions: Vec<(OrgId, SessionId)>,
    /// Sessions that went with their organisations.
    pub dropped_with_orgs: Vec<(OrgId, SessionId)>,
    /// What verifying found.
    pub report: Report,
}

/// Makes a store in `dir`, which must be empty or not be there, from the backup at `from` and the key file at `keys`. With
/// `keeps_key` the store keeps the master key itself from then on.
///
/// # Errors
/// See [`RestoreError`]. What was begun in `dir` is removed again, as far as that is possible.
pub fn restore(
    from: &Path,
    keys: &Path,
    dir: &Path,
    master: &MasterKey,
    keeps_key: bool,
    now: Timestamp,
) -> Result<Restored, RestoreError> {
    let failed = |source| RestoreError::Directory { path: dir.to_owned(), source };
    if is_taken(dir).map_err(failed)? {
        return Err(RestoreError::NotEmpty { path: dir.to_owned() });
    }
    // Everything that can be refused is refused before anything is made.
    let genuine = ring(keys, master)?;
    let begun = open(from).map_err(RestoreError::Backup)?;
    if begun.owner != owner(&genuine) {
        return Err(RestoreError::Foreign);
    }
    if begun.keys_made > genuine.file.keys_made() {
        return Err(RestoreError::OlderKeys);
    }
    let backup = read_through(from, |digest, mac| signed(&genuine, digest) == *mac).map_err(RestoreError::Backup)?;
    drop(genuine);

    let draft = dir.join(RESTORING);
    DirBuilder::new().recursive(true).mode(0o700).create(&draft).map_err(failed)?;
    fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed)?;
    let made = make(from, keys, &draft, master, keeps_key, backup, now);
    if made.is_err() {
        fs::remove_dir_all(&draft).map_err(failed)?;
        return made;
    }
    let name = || {
        for file in [KEYS, master::OWN, DATA] {
            if file != master::OWN || keeps_key {
                fs::rename(draft.join(file), dir.join(file))?;
            }
        }
        master::sync_dir(dir)?;
        fs::remove_dir_all(&draft)?;
        master::sync_dir(dir)
    };
    name().map_err(failed)?;
    made
}

fn is_taken(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The keys in a copy of the key file, which is only read.
fn ring(keys: &Path, master: &MasterKey) -> Result<Keyring, RestoreError> {
    let read = |source| RestoreError::KeyFile { path: keys.to_owned(), source };
    let file = KeyFile::open(Box::new(File::open(keys).map_err(read)?), &[Wrapping::of(master)])
        .map_err(RestoreError::Open)?;
    let hashes = Hashes::new(&file.root());
    Ok(Keyring::load(file, hashes)?.0)
}

fn make(
    from: &Path,
    keys: &Path,
    draft: &Path,
    master: &MasterKey,
    keeps_key: bool,
    backup: BackupInfo,
    now: Timestamp,
) -> Result<Restored, RestoreError> {
    let failed = |source| RestoreError::Directory { path: draft.to_owned(), source };
    let copy = fs::read(keys).map_err(|source| RestoreError::KeyFile { path: keys.to_owned(), source })?;
    master::write_whole(draft, &draft.join(KEYS), &copy)?;
    if keeps_key {
        master::keep(draft, &draft.join(master::OWN), master).map_err(RestoreError::Open)?;
    }
    let data = draft.join(DATA);
    let database = Database::create(&data).map_err(StoreFault::of("making the data file"))?;
    fs::set_permissions(&data, Permissions::from_mode(0o600)).map_err(failed)?;
    fill(&database, from)?;

    let slots = keyfile::open_file(&draft.join(KEYS)).map_err(failed)?.ok_or(OpenError::KeyFileMissing);
    let file = KeyFile::open(Box::new(slots.map_err(RestoreError::Open)?), &[Wrapping::of(master)]);
    let mode = CommitMode::default();
    let (ring, damaged) =
        ring_of(&database, None, file.map_err(RestoreError::Open)?, mode).map_err(RestoreError::Open)?;
    // A damaged key is not one that was destroyed: dropping its owner would lose somebody who is there.
    if !damaged.is_empty() {
        return Err(RestoreError::DamagedSlots { slots: damaged });
    }
    let dropped = drop_keyless(&database, &ring, mode, backup.made_at, now)?;
    let store = start(database, ring, &damaged, mode, None).map_err(RestoreError::Open)?;
    let snapshot = store.snapshot()?;
    let (mut orgs, mut sessions) = (0, 0);
    for (count, table) in [(&mut orgs, tables::ORGS), (&mut sessions, tables::SESSIONS)] {
        for row in snapshot.table(table)?.range::<&[u8]>(..).map_err(StoreFault::from)? {
            row.map_err(StoreFault::from)?;
            *count += 1;
        }
    }
    let report = verify::verify(&snapshot)?;
    let Dropped { orgs: dropped_orgs, sessions: dropped_sessions, with_orgs: dropped_with_orgs } = dropped;
    Ok(Restored { backup, orgs, sessions, dropped_orgs, dropped_sessions, dropped_with_orgs, report })
}

/// Puts every row of a backup into an empty database.
fn fill(database: &Database, from: &Path) -> Result<(), RestoreError> {
    let mut frames = open(from).map_err(RestoreError::Backup)?;
    let mut name = String::new();
    let mut rows = Vec::new();
    let mut bytes = 0;
    loop {
        let frame = frames.next().map_err(RestoreError::Backup)?;
        let is_end = matches!(frame, Frame::End { .. });
        match frame {
            Frame::Row { key, value } => {
                bytes += key.len() + value.len();
                rows.push((key, value));
                if bytes < AT_ONCE {
                    continue;
                }
            }
            Frame::Table(next) => {
                put(database, &name, &mut rows)?;
                name = next;
            }
            Frame::End { .. } => {}
        }
        put(database, &name, &mut rows)?;
        bytes = 0;
        if is_end {
            return Ok(());
        }
    }
}

/// Puts rows into a table, which is made even if there are none.
fn put(database: &Database, name: &str, rows: &mut Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), StoreFault> {
    if name.is_empty() {
        return Ok(());
    }
    let transaction = begin(database, CommitMode::default())?;
    {
        let mut table = transaction.open_table(TableDefinition::<&[u8], &[u8]>::new(name))?;
        for (key, value) in rows.drain(..) {
            table.insert(&key[..], &value[..])?;
        }
    }
    Ok(transaction.commit()?)
}

/// What has no key any more.
#[derive(Default)]
struct Dropped {
    orgs: Vec<OrgId>,
    /// Of other organisations.
    sessions: Vec<(OrgId, SessionId)>,
    with_orgs: Vec<(OrgId, SessionId)>,
}

/// Removes the rows of organisations and sessions whose key is gone, as if they were erased, and says so in the audit.
fn drop_keyless(
    database: &Database,
    ring: &Arc<Keyring>,
    mode: CommitMode,
    backup_at: Timestamp,
    now: Timestamp,
) -> Result<Dropped, StoreFault> {
    let mut dropped = Dropped::default();
    let mut gone = HashSet::new();
    let read = database.begin_read()?;
    for table in [tables::ORGS, tables::SESSIONS] {
        for row in read.open_table(table)?.range::<&[u8]>(..)? {
            let Some(owner) = owner_session(row?.0.value(), &[]) else { continue };
            // Organisations come first, and their sessions go with them.
            let is_gone = ring.any(owner).is_none();
            match owner.session {
                None if is_gone => {
                    gone.insert(owner.org);
                    dropped.orgs.push(owner.org);
                }
                Some(session) if gone.contains(&owner.org) => dropped.with_orgs.push((owner.org, session)),
                Some(session) if is_gone => dropped.sessions.push((owner.org, session)),
                None | Some(_) => {}
            }
        }
    }
    drop(read);
    if dropped.orgs.is_empty() && dropped.sessions.is_empty() {
        return Ok(dropped);
    }
    let transaction = begin(database, mode)?;
    {
        let mut tables = Tables::of(&transaction);
        let (made, doomed) = (HashMap::new(), HashSet::new());
        let mut batch = Batch { ring, made, doomed, ends: Ends::default(), chains: Chains::default() };
        for org in &dropped.orgs {
            erase::org(&mut tables, &mut batch, *org, now)?;
            let line = left_out(OrgId::PLATFORM, None, Some(*org), backup_at, now)?;
            say(&mut tables, &mut batch, &line)?;
        }
        for (org, session) in &dropped.with_orgs {
            let line = left_out(OrgId::PLATFORM, Some(*session), Some(*org), backup_at, now)?;
            say(&mut tables, &mut batch, &line)?;
        }
        for (org, session) in &dropped.sessions {
            let mut counts = Counts::read(&tables.counts, *org)?;
            erase::session(&mut tables, &mut batch, &mut counts, *org, *session, now)?;
            counts.take(crate::QuotaKind::Sessions);
            counts.write(&mut tables.counts, *org)?;
            say(&mut tables, &mut batch, &left_out(*org, Some(*session), None, backup_at, now)?)?;
        }
        batch.chains.write(&mut tables)?;
    }
    transaction.commit()?;
    Ok(dropped)
}

/// The line about something that is not restored.
fn left_out(
    audit: OrgId,
    session: Option<SessionId>,
    org: Option<OrgId>,
    backup_at: Timestamp,
    now: Timestamp,
) -> Result<AuditEntry, StoreFault> {
    let mut unique = [0; 16];
    random(&mut unique)?;
    let operation = if session.is_some() { OperationKind::SessionDelete } else { OperationKind::OrgDelete };
    Ok(AuditEntry {
        id: AuditId::new(now, u128::from_be_bytes(unique)),
        org: audit,
        at: now,
        actor: PrincipalKind::System,
        request: None,
        operation,
        session,
        subject: org.map(|org| org.to_string()),
        outcome: AuditOutcome::LeftOut { backup_at },
        decision: None,
    })
}

fn say(tables: &mut Tables<'_>, batch: &mut Batch<'_>, line: &AuditEntry) -> Result<(), StoreFault> {
    // Whose line it is has a key, or it would have been dropped itself.
    let Some(data_key) = batch.ring.live(Owner::org(line.org)) else { return Ok(()) };
    batch.chains.put(tables, &data_key, line)?;
    Ok(())
}

impl Store {
    /// The key file as it is now, sealed under the master key: the other artefact that a restore needs. It has to be taken after
    /// the backup that it is for, and the newest one is good for every backup; older ones should not be kept, because they hold
    /// the keys of what was erased since.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn backup_keys(&self) -> Result<Vec<u8>, StoreFault> {
        self.shared().ring.file.copy()
    }
}
