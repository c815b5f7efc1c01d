//! Changing the master key: at every sync a crash leaves what either key opens, and nothing that was told is lost.
//!
//! The workload changes the key twice, makes sessions before, between and after, and erases one. After a crash at any sync, and
//! at any sync of the recovery, the keys that were told to be out of use open nothing and change nothing; of those that may be in
//! use at least one opens the store, alone, and is the only one from then on.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_core::OrgId;

use super::disk::{DATA, Disk, KEYS, into_disk, master, new_disk, open, wrapping};
use super::sample::*;
use crate::keyfile::{CutShort, HEADER, Owner};
use crate::{Commit, CommitMode, MasterKey, MasterKeys, OpenError, RotateError, Settled, Store, StoreOptions, Write};

/// The master keys in the order of their use.
const FIRST: u8 = 1;
const LAST: u8 = 3;
const MODE: CommitMode = CommitMode::OnePhase;

/// What a run was told.
#[derive(Debug, Clone, Default)]
struct Told {
    sessions: Vec<u8>,
    /// The master key in use; none before the organisation was there.
    key: u8,
    erased: bool,
}

fn workload(store: &Store, told: &mut Told) -> Result<(), Box<dyn std::error::Error>> {
    store.commit_blocking(writing(1, vec![Write::PutOrg(org(1))]))?;
    for byte in [5, 6] {
        store.commit_blocking(creating(1, byte))?;
        told.sessions.push(byte);
    }
    store.rotate_master_key(Some(&master(2)))?;
    told.key = 2;
    store.commit_blocking(creating(1, 7))?;
    told.sessions.push(7);
    store.commit_blocking(writing(1, vec![Write::EraseSession(session_id(5))]))?;
    block_on(store.finish_erasures(NOW))?;
    told.erased = true;
    store.rotate_master_key(Some(&master(LAST)))?;
    told.key = LAST;
    store.commit_blocking(creating(1, 8))?;
    told.sessions.push(8);
    Ok(())
}

fn run(fails_at: Option<u32>) -> (Disk, Told) {
    let disk = Arc::new(Mutex::new(Disk { fails_at, ..new_disk(FIRST) }));
    let mut told = Told { key: FIRST, ..Told::default() };
    if let Ok(store) = open(&disk, MODE, &[FIRST]) {
        let result = workload(&store, &mut told);
        assert!(result.is_ok() || fails_at.is_some(), "{result:?}");
    }
    (into_disk(disk), told)
}

fn of_platform(write: Write) -> Commit {
    Commit { writes: vec![write], ..Commit::new(OrgId::PLATFORM, NOW) }
}

fn syncs(disk: &Arc<Mutex<Disk>>) -> u32 {
    disk.lock().unwrap_or_else(PoisonError::into_inner).syncs
}

fn files(disk: &Arc<Mutex<Disk>>) -> [Vec<u8>; 2] {
    let disk = disk.lock().unwrap_or_else(PoisonError::into_inner);
    [DATA, KEYS].map(|file| disk.files[file].current.clone())
}

/// Everything told is there, under this key and no other.
fn assert_recovered(store: &Store, told: &Told, key: u8, context: &str) {
    finish(store, NOW);
    let findings = store.verify().expect("verified").findings;
    assert!(findings.is_empty(), "{context}: {findings:?}");
    let snapshot = read(store);
    for byte in &told.sessions {
        let there = snapshot.session(org_id(1), session_id(*byte)).expect("read").is_some();
        assert!(there || *byte == 5, "{context}: session {byte} is lost");
        assert!(!there || *byte != 5 || !told.erased, "{context}: the erased session is back");
    }
    let file = &store.shared().ring.file;
    assert!(file.is_settled() && file.is_under(&wrapping(key)), "{context}: the change was not ended");
    let copy = file.copy().expect("read");
    let names = |byte: u8| copy[HEADER..].windows(16).any(|window| window == [byte; 16]);
    assert!(!told.erased || !names(5), "{context}: a slot of the erased session is left");
    assert!(told.sessions.iter().all(|byte| *byte == 5 || names(*byte)), "{context}: a slot is lost");
}

/// Opens what a crash left with each key alone; the keys that fit.
fn fitting(left: &Disk, told: &Told, context: &str) -> Vec<u8> {
    let mut fitting = Vec::new();
    for key in FIRST..=LAST {
        let disk = Arc::new(Mutex::new(left.after_power_loss(|| false)));
        let before = files(&disk);
        match open(&disk, MODE, &[key]) {
            Ok(store) => {
                assert_recovered(&store, told, key, &format!("{context}, under key {key}"));
                let ended = store.shared().ring.file.cut_short().map(|ends| match ends {
                    CutShort::GoesOn => Settled::WentOn,
                    CutShort::GoesBack => Settled::WentBack,
                });
                let ends = if key > told.key { Settled::WentOn } else { Settled::WentBack };
                let said = settled(&store);
                assert!(ended.is_none() || said == ended, "{context}: a change was ended, and {said:?} is said of it");
                // A change that was told has ended before.
                assert!(said.is_none_or(|said| said == ends), "{context}, under key {key}: {said:?}");
                drop(store);
                for other in (FIRST..=LAST).filter(|other| *other != key) {
                    let refused = open(&disk, MODE, &[other]);
                    assert!(matches!(refused, Err(OpenError::WrongMasterKey)), "{context}: {other} still fits");
                }
                fitting.push(key);
            }
            Err(OpenError::WrongMasterKey) => {
                assert!(files(&disk) == before, "{context}: something was changed under the wrong key {key}");
            }
            Err(error) => panic!("{context}, under key {key}: {error:?}"),
        }
    }
    let may_fit = [told.key, told.key + 1];
    assert!(!fitting.is_empty() && fitting.iter().all(|key| may_fit.contains(key)), "{context}: {fitting:?} fit");
    fitting
}

#[test]
fn a_crash_at_any_sync_of_a_rotation_goes_on_from_either_key() {
    let syncs_in_all = run(None).0.syncs;
    let mut both = 0;
    for sync in 1..=syncs_in_all {
        let (disk, told) = run(Some(sync));
        for seed in 0..4_u64 {
            let mut random = seed << 32 | u64::from(sync);
            let keep = || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                seed > 0 && random >> 63 == 1
            };
            let left = disk.after_power_loss(keep);
            let context = format!("crash at sync {sync}, seed {seed}, after {told:?}");
            let keys = fitting(&left, &told, &context);
            both += usize::from(keys.len() == 2);
            for key in keys {
                crash_recovery(&left, &told, key, &context);
            }
        }
    }
    assert!(both > 8, "hardly a crash came while there were two keys: {both}");
}

/// What an opening has left to be said of a change that was cut short.
fn settled(store: &Store) -> Option<Settled> {
    read(store).settled_rotation().expect("read")
}

/// The story: what a start had ended of a change stood nowhere, and a second crash would have lost it for good.
fn crash_recovery(left: &Disk, told: &Told, key: u8, context: &str) {
    let calm = Arc::new(Mutex::new(left.after_power_loss(|| false)));
    let said = settled(&open(&calm, MODE, &[key]).expect("it fitted"));
    for sync in 1..=syncs(&calm) {
        let disk = Arc::new(Mutex::new(Disk { fails_at: Some(sync), ..left.after_power_loss(|| false) }));
        drop(open(&disk, MODE, &[key]));
        let again = into_disk(disk).after_power_loss(|| false);
        let keys = fitting(&again, told, &format!("{context}, then at sync {sync} under key {key}"));
        assert!(keys.contains(&key), "{context}: the key with which the recovery began fits no more");
        let store = open(&Arc::new(Mutex::new(again)), MODE, &[key]).expect("it fits");
        assert_eq!(settled(&store), said, "{context}, then at sync {sync}: what is said of the change");
        keep(&store, of_platform(Write::RotationIsTold));
        assert_eq!(settled(&store), None);
    }
}

#[test]
fn sessions_come_and_go_while_the_key_is_changed() {
    let disk = Arc::new(Mutex::new(new_disk(FIRST)));
    let store = open(&disk, MODE, &[FIRST]).expect("opened");
    keep(&store, writing(1, vec![Write::PutOrg(org(1))]));
    let lent = store.derive_key("something");
    let done = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            // Every session but each fifth is erased as soon as it is there; their ids are not used again.
            for byte in 10..=250 {
                keep(&store, creating(1, byte));
                if !byte.is_multiple_of(5) {
                    keep(&store, writing(1, vec![Write::EraseSession(session_id(byte))]));
                    finish(&store, NOW);
                }
            }
            done.store(true, Ordering::Release);
        });
        let mut rounds = 0_u8;
        while !done.load(Ordering::Acquire) && rounds < 200 {
            rounds += 1;
            store.rotate_master_key(Some(&master(FIRST + rounds))).expect("rotated");
        }
        worker.join().expect("the worker ends");
        rounds
    });
    assert_sound(&store);
    let copy = store.shared().ring.file.copy().expect("read");
    drop(store);
    let last = FIRST + rounds;
    let store = open(&disk, MODE, &[last]).expect("the last key fits");
    assert_sound(&store);
    assert_eq!(store.derive_key("something"), lent, "what is lent changed with the master key");
    for byte in 10..=250_u8 {
        let is_kept = byte.is_multiple_of(5);
        assert_eq!(read(&store).session(org_id(1), session_id(byte)).expect("read").is_some(), is_kept, "{byte}");
        let has_slot = copy[HEADER..].windows(16).any(|window| window == [byte; 16]);
        assert_eq!(has_slot, is_kept, "the slot of {byte}");
        assert_eq!(store.shared().ring.any(Owner::session(org_id(1), session_id(byte))).is_some(), is_kept, "{byte}");
    }
}

fn key_in(dir: &Path) -> String {
    fs::read_to_string(dir.join("master-key")).expect("readable")
}

#[test]
fn the_stores_own_key_is_changed_in_its_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), StoreOptions::default()).expect("made");
    keep(&store, writing(1, vec![Write::PutOrg(org(1))]));
    let (before, lent) = (key_in(dir.path()), store.derive_key("something"));
    assert!(matches!(store.rotate_master_key(Some(&master(1))), Err(RotateError::Own)));
    assert_eq!(store.rotate_master_key(None).expect("rotated"), 2);
    assert_ne!(key_in(dir.path()), before);
    drop(store);
    let names = |dir: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(dir.path()), ["keys", "master-key", "portcullis.redb"]);
    let store = Store::open(dir.path(), StoreOptions::default()).expect("opened");
    assert_eq!(store.derive_key("something"), lent);
    assert_sound(&store);
    drop(store);

    // What a crash leaves before the first slot is sealed anew, and what it leaves before the new key has its name.
    let present = key_in(dir.path());
    let next = dir.path().join("master-key.next");
    crate::master::create(dir.path(), &next).expect("made");
    drop(Store::open(dir.path(), StoreOptions::default()).expect("the key in use fits"));
    assert_eq!((key_in(dir.path()), next.exists()), (present.clone(), false));
    fs::rename(dir.path().join("master-key"), &next).expect("renamed");
    crate::master::create(dir.path(), &dir.path().join("master-key")).expect("made");
    assert_sound(&Store::open(dir.path(), StoreOptions::default()).expect("the next key fits"));
    assert_eq!((key_in(dir.path()), next.exists()), (present, false));
}

#[test]
fn a_key_from_elsewhere_is_changed_for_another_from_elsewhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    let given = |keys: &[&str]| {
        let keys = keys.iter().map(|text| MasterKey::parse(text).expect("a key")).collect();
        Store::open_under(dir.path(), StoreOptions::default(), &MasterKeys::Given(keys))
    };
    let store = given(&[&one]).expect("made");
    assert!(matches!(store.rotate_master_key(None), Err(RotateError::NotOwn)));
    let key = |text: &str| MasterKey::parse(text).expect("a key");
    assert!(matches!(store.rotate_master_key(Some(&key(&one))), Err(RotateError::SameKey)));
    assert_eq!(store.rotate_master_key(Some(&key(&two))).expect("rotated"), 1);
    drop(store);
    assert!(!dir.path().join("master-key").exists(), "a key from elsewhere was kept");
    assert!(matches!(given(&[&one]), Err(OpenError::WrongMasterKey)));
    drop(given(&[&two, &one]).expect("the first of two fits"));
    drop(given(&[&one, &two]).expect("the second of two fits"));
    assert!(matches!(given(&[]), Err(OpenError::MasterKeyMissing { .. })));
}
