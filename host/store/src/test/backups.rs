//! Backups: made while everything goes on, restored with the newest key file, refused when anything of them is not as it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use portcullis_core::{AuditOutcome, OperationKind, OrgId, Timestamp};

use super::sample::*;
use crate::backup::restore::restore;
use crate::keyfile::{HEADER, Owner, SLOT};
use crate::{
    Backup, BackupError, MasterKey, MasterKeys, OpenError, RestoreError, Restored, Store, StoreOptions, Write,
    inspect_backup,
};

/// A store in a directory of its own, and a place for artefacts beside it.
struct World {
    directory: tempfile::TempDir,
    store: Option<Store>,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(&directory.path().join("data"), StoreOptions::default()).expect("made");
        keep(&store, writing(1, vec![Write::PutOrg(org(1)), Write::PutKey(api_key(1, 3))]));
        keep(&store, writing(2, vec![Write::PutOrg(org(2))]));
        for byte in 5..9 {
            keep(&store, creating(1, byte));
        }
        keep(&store, creating(2, 20));
        Self { directory, store: Some(store) }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("open")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn back_up(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, taken(self.store().backup(NOW).expect("begun"))).expect("written");
        path
    }

    fn back_up_keys(&self) -> PathBuf {
        let path = self.path("keys");
        fs::write(&path, self.store().backup_keys().expect("read")).expect("written");
        path
    }

    fn master(&self) -> MasterKey {
        MasterKey::read(&self.path("data/master-key")).expect("the store's own")
    }

    fn restore(&self, from: &Path, keys: &Path, to: &str) -> Result<Restored, RestoreError> {
        restore(from, keys, &self.path(to), &self.master(), true, NOW)
    }
}

fn taken(mut backup: Backup) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = backup.next_piece().expect("read") {
        assert!(piece.len() < 256 * 1024, "a piece of {} bytes", piece.len());
        bytes.extend(piece);
    }
    assert!(backup.next_piece().expect("over").is_none());
    bytes
}

fn open(dir: &Path) -> Store {
    Store::open(dir, StoreOptions::default()).expect("opened")
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn rows(store: &Store) -> BTreeMap<String, Rows> {
    let snapshot = read(store);
    let table = |table: &crate::tables::Definition| {
        let rows = snapshot.table(*table).expect("opened");
        let rows = rows.range::<&[u8]>(..).expect("read").map(|row| {
            let (key, value) = row.expect("read");
            (key.value().to_vec(), value.value().to_vec())
        });
        (crate::tables::name(*table).to_owned(), rows.collect())
    };
    crate::tables::ALL.iter().map(table).collect()
}

#[test]
fn what_is_restored_is_what_was_there() {
    let world = World::new();
    let backup = world.back_up("backup");
    let info = inspect_backup(&backup).expect("whole");
    let before = rows(world.store());
    assert_eq!(info.made_at, NOW);
    assert_eq!(info.tables as usize, crate::tables::ALL.len());
    assert_eq!(info.rows as usize, before.values().map(Vec::len).sum::<usize>());
    let restored = world.restore(&backup, &world.back_up_keys(), "restored").expect("restored");
    assert_eq!((restored.orgs, restored.sessions, restored.report.findings), (2, 5, Vec::new()));
    assert!(restored.dropped_orgs.is_empty() && restored.dropped_sessions.is_empty());
    let again = open(&world.path("restored"));
    assert_eq!(rows(&again), before);
    assert_eq!(again.derive_key("something"), world.store().derive_key("something"));
    assert_sound(&again);
    let mut names: Vec<_> = fs::read_dir(world.path("restored"))
        .expect("readable")
        .map(|entry| entry.expect("there").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["keys", "master-key", "portcullis.redb"]);
}

#[test]
fn a_backup_is_of_one_point_in_time() {
    let world = World::new();
    let (mut backup, mut bytes) = (world.store().backup(NOW).expect("begun"), Vec::new());
    keep(world.store(), creating(1, 9));
    while let Some(piece) = backup.next_piece().expect("read") {
        bytes.extend(piece);
        keep(world.store(), writing(1, vec![Write::PutSession(tokened(1, 30, "late"))]));
    }
    let path = world.path("backup");
    fs::write(&path, bytes).expect("written");
    let restored = world.restore(&path, &world.back_up_keys(), "restored").expect("restored");
    assert_eq!((restored.sessions, restored.report.findings), (5, Vec::new()), "what came later is in it");
    assert_sound(&open(&world.path("restored")));
}

#[test]
fn what_was_erased_since_is_dropped_and_counted() {
    let world = World::new();
    keep(
        world.store(),
        writing(1, vec![Write::PutWebhook(webhook(1, Some(5), 1)), Write::PutMessage(message(1, 5, 1))]),
    );
    let backup = world.back_up("backup");
    let old_keys = fs::read(world.back_up_keys()).expect("read");
    keep(world.store(), writing(1, vec![Write::EraseSession(session_id(5))]));
    keep(world.store(), writing(2, vec![Write::EraseOrg]));
    finish(world.store(), NOW);
    world.store().rotate_master_key(None).expect("rotated");
    keep(world.store(), creating(1, 40));

    let keys = world.back_up_keys();
    let restored = world.restore(&backup, &keys, "restored").expect("restored");
    assert_eq!(restored.dropped_sessions, [(org_id(1), session_id(5))]);
    assert_eq!(restored.dropped_orgs, [org_id(2)]);
    assert_eq!(restored.dropped_with_orgs, [(org_id(2), session_id(20))]);
    assert_eq!((restored.orgs, restored.sessions, restored.report.findings), (1, 3, Vec::new()));
    let again = open(&world.path("restored"));
    assert_sound(&again);
    assert_eq!(read(&again).session(org_id(1), session_id(5)).expect("read"), None);
    assert_eq!(read(&again).session(org_id(1), session_id(6)).expect("read"), Some(session(1, 6)));

    // The story: nothing said that they were left out. Their receipts are younger than the backup.
    let lines = |org| -> Vec<_> {
        let entries = audited(&read(&again), org, 99).into_iter();
        let entries = entries.filter(|entry| entry.outcome == AuditOutcome::LeftOut { backup_at: NOW });
        entries.map(|entry| (entry.operation, entry.session, entry.subject)).collect()
    };
    let of_org = Some(org_id(2).to_string());
    assert_eq!(lines(org_id(1)), [(OperationKind::SessionDelete, Some(session_id(5)), None)]);
    let with_org = (OperationKind::SessionDelete, Some(session_id(20)), of_org.clone());
    assert_eq!(lines(OrgId::PLATFORM), [with_org, (OperationKind::OrgDelete, None, of_org)]);
    assert!(read(&again).receipt(org_id(1), session_id(5)).expect("read").is_none());
    // But a receipt that was handed out holds, by the same public key.
    let handed_out = read(world.store()).receipt(org_id(1), session_id(5)).expect("read").expect("there").entry;
    let AuditOutcome::Erased { receipt, signature } = handed_out.outcome else { panic!("no receipt") };
    assert_eq!(again.signer().public_key(), world.store().signer().public_key());
    assert_eq!(again.signer().sign(receipt.signed_text().as_bytes()), signature);

    // The key file of that time is under the master key of that time, which is gone.
    fs::write(&keys, old_keys).expect("written");
    let refused = world.restore(&backup, &keys, "other");
    assert!(matches!(refused, Err(RestoreError::Open(OpenError::WrongMasterKey))), "{refused:?}");
    assert!(!world.path("other").exists());
}

/// Everything that was made since would be taken for erased.
#[test]
fn a_key_file_that_is_older_than_the_backup_is_refused() {
    let world = World::new();
    let keys = world.back_up_keys();
    let before = world.back_up("before");
    keep(world.store(), creating(1, 40));
    let after = world.back_up("after");
    let refused = world.restore(&after, &keys, "restored");
    assert!(matches!(refused, Err(RestoreError::OlderKeys)), "{refused:?}");
    assert!(!world.path("restored").exists());
    // As long as no key was made in between, an older one is as good as a newer one.
    world.restore(&before, &keys, "restored").expect("restored");
    keep(world.store(), writing(1, vec![Write::EraseSession(session_id(40))]));
    finish(world.store(), NOW);
    let restored = world.restore(&after, &world.back_up_keys(), "newer").expect("restored");
    assert_eq!(restored.dropped_sessions, [(org_id(1), session_id(40))]);
}

/// The story: a slot was damaged in which no key was left, and taken back as one that never had any. By the count of keys the file was
/// older than every backup before that, and none of them could be restored.
#[test]
fn a_damaged_slot_that_nobody_misses_does_not_make_the_key_file_older() {
    let mut world = World::new();
    for round in 0..3 {
        keep(world.store(), creating(1, 40 + round));
        keep(world.store(), writing(1, vec![Write::EraseSession(session_id(40 + round))]));
        finish(world.store(), NOW);
    }
    keep(world.store(), creating(1, 50));
    let slot = world.store().shared().ring.live(Owner::session(org_id(1), session_id(50))).expect("live").slot;
    keep(world.store(), writing(1, vec![Write::EraseSession(session_id(50))]));
    finish(world.store(), NOW);
    let made = world.store().shared().ring.file.keys_made();
    let backup = world.back_up("backup");
    world.store = None;
    let path = world.path("data/keys");
    let mut keys = fs::read(&path).expect("read");
    keys[HEADER + SLOT * slot as usize + 70] ^= 1;
    fs::write(&path, &keys).expect("written");
    world.store = Some(open(&world.path("data")));
    assert_ne!(fs::read(&path).expect("read"), keys, "the slot was not taken back");
    assert_eq!(world.store().shared().ring.file.keys_made(), made);
    let restored = world.restore(&backup, &world.back_up_keys(), "restored").expect("restored");
    assert_eq!((restored.sessions, restored.report.findings), (5, Vec::new()));
    // And it goes on from there.
    keep(world.store(), creating(1, 60));
    assert_eq!(world.store().shared().ring.file.keys_made(), made + 1);
    let after = world.back_up("after");
    let refused = world.restore(&after, &world.path("keys"), "older");
    assert!(matches!(refused, Err(RestoreError::OlderKeys)), "{refused:?}");
}

#[test]
fn what_is_not_a_whole_and_own_backup_is_refused_and_leaves_nothing() {
    let world = World::new();
    let (backup, keys) = (world.back_up("backup"), world.back_up_keys());
    let whole = fs::read(&backup).expect("read");
    let refused = |bytes: &[u8]| {
        fs::write(&backup, bytes).expect("written");
        let error = world.restore(&backup, &keys, "restored").expect_err("refused");
        assert!(!world.path("restored").exists(), "{error} left something");
        match error {
            RestoreError::Backup(error) => error,
            other => panic!("{other}"),
        }
    };
    for length in [0, 7, 55, 56, 57, 500, whole.len() / 2, whole.len() - 65, whole.len() - 33, whole.len() - 1] {
        let error = refused(&whole[..length]);
        assert!(matches!(error, BackupError::CutOff), "{length} of {}: {error}", whole.len());
        assert!(inspect_backup(&backup).is_err());
    }
    let longer = [&whole[..], &[0]].concat();
    assert!(matches!(refused(&longer), BackupError::Damaged));
    for at in (56..whole.len()).step_by(whole.len() / 97) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        refused(&flipped);
    }
    // The last 32 bytes are for those who have the keys; the others need none.
    let mut signed = whole.clone();
    *signed.last_mut().expect("long") ^= 1;
    assert!(matches!(refused(&signed), BackupError::Forged));
    assert!(inspect_backup(&backup).is_ok());
    let mut newer = whole.clone();
    newer[15] += 1;
    assert!(matches!(refused(&newer), BackupError::Newer { .. }));
    newer[15] -= 1;
    newer[23] += 1;
    assert!(matches!(refused(&newer), BackupError::Newer { .. }));
    assert!(matches!(
        refused(b"something else that is long enough to have a header of its own, and more"),
        BackupError::NoBackup
    ));

    fs::write(&backup, &whole).expect("written");
    let other = World::new();
    let foreign = other.restore(&backup, &other.back_up_keys(), "restored");
    assert!(matches!(foreign, Err(RestoreError::Foreign)), "{foreign:?}");
    assert!(matches!(
        restore(&backup, &keys, &world.path("restored"), &other.master(), true, Timestamp::default()),
        Err(RestoreError::Open(OpenError::WrongMasterKey))
    ));
}

#[test]
fn only_a_new_directory_is_restored_into_and_half_of_one_opens_never() {
    let world = World::new();
    let (backup, keys) = (world.back_up("backup"), world.back_up_keys());
    assert!(matches!(world.restore(&backup, &keys, "data"), Err(RestoreError::NotEmpty { .. })));
    fs::create_dir(world.path("restored")).expect("made");
    world.restore(&backup, &keys, "restored").expect("an empty directory is new");
    fs::create_dir(world.path("restored/restoring")).expect("made");
    let opened = Store::open(&world.path("restored"), StoreOptions::default());
    assert!(matches!(opened.err(), Some(OpenError::RestoreCutShort { .. })));

    let given = restore(&backup, &keys, &world.path("given"), &world.master(), false, NOW).expect("restored");
    assert_eq!(given.report.findings, Vec::<String>::new());
    assert!(!world.path("given/master-key").exists());
    let keys = MasterKeys::Given(vec![world.master()]);
    assert_sound(&Store::open_under(&world.path("given"), StoreOptions::default(), &keys).expect("opened"));
}
