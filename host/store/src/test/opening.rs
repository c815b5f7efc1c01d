//! Opening refuses what does not fit together, and touches nothing of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::sample::*;
use crate::keyfile::{HEADER, Owner};
use crate::{OpenError, Store, StoreOptions, Write};

fn open(dir: &Path) -> Result<Store, OpenError> {
    Store::open(dir, StoreOptions::default())
}

/// A closed store with one organisation and one session.
fn made() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path()).expect("made");
    keep(&store, writing(1, vec![Write::PutOrg(org(1))]));
    keep(&store, creating(1, 5));
    dir
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable"));
    entries
        .map(|entry| (entry.file_name().into_string().expect("UTF-8"), fs::read(entry.path()).expect("readable")))
        .collect()
}

fn refused(dir: &Path) -> OpenError {
    let before = files(dir);
    let error = open(dir).err().expect("refused");
    assert_eq!(files(dir), before, "a refusal changed something: {error}");
    error
}

#[test]
fn a_store_is_found_again() {
    let dir = made();
    let store = open(dir.path()).expect("opened");
    assert_eq!(read(&store).session(org_id(1), session_id(5)).expect("read"), Some(session(1, 5)));
    assert_sound(&store);
    let names: Vec<_> = files(dir.path()).into_keys().collect();
    assert_eq!(names, ["keys", "master-key", "portcullis.redb"]);
}

#[test]
fn a_second_process_is_refused() {
    let dir = made();
    let first = open(dir.path()).expect("opened");
    assert!(matches!(open(dir.path()), Err(OpenError::InUse { .. })));
    drop(first);
    open(dir.path()).expect("free again");
}

#[test]
fn another_master_key_is_refused() {
    let dir = made();
    fs::write(dir.path().join("master-key"), "0".repeat(64)).expect("written");
    assert!(matches!(refused(dir.path()), OpenError::WrongMasterKey));
    fs::write(dir.path().join("master-key"), "short").expect("written");
    assert!(matches!(refused(dir.path()), OpenError::MasterKeyMalformed { .. }));
}

#[test]
fn a_missing_part_is_not_made_anew() {
    let dir = made();
    let aside = |name: &str| {
        fs::rename(dir.path().join(name), dir.path().join("aside")).expect("moved");
        let error = open(dir.path()).err().expect("refused");
        fs::rename(dir.path().join("aside"), dir.path().join(name)).expect("moved back");
        error
    };
    assert!(matches!(aside("master-key"), OpenError::MasterKeyMissing { .. }));
    assert!(matches!(aside("keys"), OpenError::KeyFileMissing));
    assert!(matches!(aside("portcullis.redb"), OpenError::DataMissing { keys: 2 }));
    assert_sound(&open(dir.path()).expect("everything is still there"));
}

#[test]
fn a_damaged_key_file_is_refused_unless_its_header_is_whole_once() {
    let dir = made();
    let mut keys = fs::read(dir.path().join("keys")).expect("readable");
    keys[20] ^= 1;
    fs::write(dir.path().join("keys"), &keys).expect("written");
    assert_sound(&open(dir.path()).expect("the second copy of the header is whole"));
    let mended = fs::read(dir.path().join("keys")).expect("readable");
    assert_eq!(mended[..512], mended[512..1024], "the first copy was not mended");
    keys[520] ^= 1;
    fs::write(dir.path().join("keys"), &keys).expect("written");
    assert!(matches!(refused(dir.path()), OpenError::KeyFileDamaged(_)));
}

#[test]
fn a_damaged_slot_costs_its_owner_and_nobody_else() {
    let dir = made();
    let store = open(dir.path()).expect("opened");
    keep(&store, creating(1, 6));
    let slot = store.shared().ring.live(Owner::session(org_id(1), session_id(6))).expect("live").slot;
    drop(store);
    let mut keys = fs::read(dir.path().join("keys")).expect("readable");
    keys[HEADER + 128 * slot as usize + 70] ^= 1;
    fs::write(dir.path().join("keys"), &keys).expect("written");
    let store = open(dir.path()).expect("opened");
    assert_eq!(read(&store).session(org_id(1), session_id(5)).expect("read"), Some(session(1, 5)));
    assert_eq!(read(&store).session(org_id(1), session_id(6)).expect("read"), None);
    assert!(store.verify().expect("verified").findings.iter().any(|finding| finding.contains("has no key")));
    drop(store);
    assert_eq!(fs::read(dir.path().join("keys")).expect("readable"), keys, "a slot that is missed was overwritten");
}

#[test]
fn keys_without_owners_are_destroyed() {
    let dir = made();
    let store = open(dir.path()).expect("opened");
    let ring = &store.shared().ring;
    // What a crash leaves between the sync of a slot and the commit that would have used it.
    let orphan = ring.reserve(Owner::session(org_id(1), session_id(9))).expect("reserved");
    ring.file.put(orphan.owner, &orphan.key).expect("written");
    ring.file.sync().expect("synced");
    let slot = orphan.key.slot;
    drop((orphan, store));
    let store = open(dir.path()).expect("opened");
    assert!(store.shared().ring.any(Owner::session(org_id(1), session_id(9))).is_none());
    assert!(store.shared().ring.file.bytes(slot).expect("read")[8..120].iter().all(|byte| *byte == 0));
    assert_sound(&store);
}

#[test]
fn a_hundred_thousand_keys_are_no_burden() {
    let file = crate::keyfile::in_memory(1);
    let hashes = crate::seal::Hashes::new(&file.root());
    let (ring, _) = crate::keyring::Keyring::load(file, hashes).expect("an empty file");
    let ring = std::sync::Arc::new(ring);
    for number in 0..1_000_u128 {
        let id = portcullis_core::SessionId::new(NOW, number);
        let reserved = ring.reserve(Owner::session(org_id(1), id)).expect("reserved");
        ring.file.put(reserved.owner, &reserved.key).expect("written");
        reserved.publish();
    }
    let slots = ring.file.load().expect("loaded");
    assert_eq!(slots.len(), 1_000);
    assert!(slots.iter().all(|slot| matches!(slot, crate::keyfile::Slot::Live { .. })));
}

#[test]
fn a_first_boot_that_was_cut_short_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    crate::master::create(dir.path(), &dir.path().join("master-key")).expect("made");
    fs::write(dir.path().join("portcullis.new"), "half a data file").expect("written");
    drop(open(dir.path()).expect("it goes on after the master key"));

    // What there was after the data file was named, and before the key file was.
    fs::remove_file(dir.path().join("keys")).expect("removed");
    fs::remove_file(dir.path().join("portcullis.redb")).expect("removed");
    drop(redb::Database::create(dir.path().join("portcullis.redb")).expect("made"));
    assert_sound(&open(dir.path()).expect("it goes on after the data file"));
}
