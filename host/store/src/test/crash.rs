//! Crashes at every sync, and at every sync of the recovery that follows.
//!
//! Both seams below the store, redb's backend and the key file's storage, share one [`Disk`]. A run counts its syncs. Then for each sync N the same run is made again on a disk that loses power at sync N: that sync and everything
//! after it fails, and what was not durable is dropped, or a random part of it is kept, as a real cache may write back
//! what it likes. The store is opened from what is left, which must succeed, and must hold:
//!
//! - every commit that was answered with success, whole;
//! - of the commit under way, everything or nothing;
//! - one key for each owner and one owner for each key;
//! - every erasure still to be finished, or finished with its receipt.
//!
//! The recovery's own syncs are crashed at in the same way: redb once lost data only when a second crash hit its repair.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_core::{
    AuditEntry, AuditOutcome, DeviceChange, DeviceStore, DeviceStoreError, Errand, KvAccess, KvChange, OperationKind,
    Org, OrgId, OutboxPlace, PrincipalKind,
};

use super::disk::{Disk, KEYS, into_disk, new_disk};
use super::sample::*;
use crate::{
    Commit, CommitError, CommitMode, ErrandChange, Expectation, IdempotencyRecord, OpenError, Store, TallyChange,
    TimerChange, Write,
};

/// The master key is this byte, 32 times.
const SECRET: u8 = 9;
const SESSIONS: Range<u8> = 5..9;

fn open(disk: &Arc<Mutex<Disk>>, mode: CommitMode) -> Result<Store, OpenError> {
    super::disk::open(disk, mode, &[SECRET])
}

/// What a run was told; everything up to here must be found again.
#[derive(Debug, Clone, Default)]
struct Told {
    org: bool,
    created: Vec<u8>,
    devices: Vec<u8>,
    sent: Vec<u8>,
    erased: Vec<u8>,
    finished: bool,
    org_going: bool,
    org_erased: bool,
}

/// A session with a token, a webhook and a message that waits.
fn furnished(owner: u8, byte: u8) -> Vec<Write> {
    vec![
        Write::PutSession(tokened(owner, byte, &format!("token-{byte}"))),
        Write::PutWebhook(webhook(owner, Some(byte), byte)),
        Write::PutMessage(message(owner, byte, byte)),
        Write::PutConfirmation(confirmation(owner, Some(byte), byte)),
    ]
}

/// The key of a plugin's that goes with a session.
fn of_session(byte: u8) -> String {
    format!("session:{}:made", session_id(byte))
}

/// An errand that outlives the session.
fn of_org(byte: u8) -> Errand {
    errand(1, None, byte + 100, NOW)
}

/// A message is sent, a webhook made, an errand done, a question answered, and a candidate counted.
fn going_on(byte: u8) -> Commit {
    let (id, hash) = (of_org(byte).id, confirmation(1, None, byte).hash);
    let writes = vec![
        Write::PutMessage(moved(&message(1, byte, byte), sent(NOW), at(1))),
        Write::PutWebhook(webhook(1, None, byte + 100)),
        Write::RemoveConfirmation(hash),
    ];
    Commit {
        expect: vec![Expectation::Errand(id), Expectation::Confirmation(hash)],
        errands: vec![ErrandChange::Remove(id)],
        tallies: vec![TallyChange { binding: binding(1, 1).id, candidate_version: 2, diverged: false }],
        ..writing(1, writes)
    }
}

fn whole_creation(byte: u8) -> Commit {
    let count = |key| KvAccess {
        plugin: plugin_id(3),
        key,
        seen: Some(None),
        change: KvChange::Put { value: vec![byte], expires: None },
    };
    Commit {
        kv: vec![count(format!("made-{byte}")), count(of_session(byte))],
        errands: vec![ErrandChange::Put(errand(1, Some(byte), byte, NOW)), ErrandChange::Put(of_org(byte))],
        fact: Some(fact(&format!("fact-{byte}"))),
        timers: vec![TimerChange::Set(timer(1, Some(byte), &format!("timer-{byte}"), at(9)))],
        idempotency: Some(IdempotencyRecord {
            key: format!("once-{byte}"),
            session: session_id(byte),
            message: message_id(byte),
            at: NOW,
        }),
        writes: furnished(1, byte),
        ..creating(1, byte)
    }
}

/// The first commit of an organisation's end: from then on it is going, and the platform's audit says who asked.
fn asking_to_erase() -> Commit {
    let asked = AuditEntry {
        org: OrgId::PLATFORM,
        operation: OperationKind::OrgDelete,
        subject: Some(org_id(2).to_string()),
        ..audit(2, None, 900)
    };
    Commit { audit: vec![asked], ..writing(2, vec![Write::PutOrg(Org { erasing: true, ..org(2) })]) }
}

fn put(name: &[u8], value: &[u8]) -> DeviceChange {
    DeviceChange::Put { kind: 1, name: name.to_vec(), value: value.to_vec() }
}

/// Makes organisations and sessions, erases some, and stops at the first failure.
fn workload(store: &Store, told: &mut Told) -> Result<(), CommitError> {
    store.commit_blocking(writing(1, vec![Write::PutOrg(org(1)), Write::PutBinding(binding(1, 1))]))?;
    told.org = true;
    for byte in SESSIONS {
        store.commit_blocking(whole_creation(byte))?;
        told.created.push(byte);
        if store.write(org_id(1), session_id(byte), vec![put(b"id", &[byte])]).is_err() {
            return Err(CommitError::Closed);
        }
        told.devices.push(byte);
        store.commit_blocking(going_on(byte))?;
        told.sent.push(byte);
    }
    for byte in [5, 6] {
        store.commit_blocking(writing(1, vec![Write::EraseSession(session_id(byte))]))?;
        told.erased.push(byte);
    }
    block_on(store.finish_erasures(NOW))?;
    told.finished = true;
    store.commit_blocking(writing(2, [vec![Write::PutOrg(org(2))], furnished(2, 20)].concat()))?;
    store.commit_blocking(asking_to_erase())?;
    told.org_going = true;
    store.commit_blocking(writing(2, vec![Write::EraseOrg]))?;
    told.org_erased = true;
    block_on(store.finish_erasures(NOW))?;
    // What was erased has given its tokens back.
    let again = [tokened(1, 10, "token-5"), tokened(1, 11, "token-20")];
    store.commit_blocking(writing(1, again.map(Write::PutSession).into()))?;
    Ok(())
}

/// Everything told is there, nothing is torn.
fn assert_recovered(store: &Store, told: &Told, context: &str) {
    let findings = findings(store);
    assert!(findings.is_empty(), "{context}: {findings:?}");
    let snapshot = read(store);
    let org_id = org_id(1);
    assert!(!told.org || snapshot.org(org_id).expect("read").is_some(), "{context}: the organisation is lost");
    let all = snapshot.events_after(org_id, OutboxPlace(0), 99).expect("read");
    let backlog = snapshot.errands_due(org_id, NOW, 99).expect("read");
    let answered = snapshot.tally(binding(1, 1).id, 2).expect("read").asked;
    let mut carried = 0;
    let receipts = audited(&snapshot, org_id, 99);
    for byte in SESSIONS {
        let unique = u128::from(byte);
        let there = snapshot.session(org_id, session_id(byte)).expect("read").is_some();
        let created = audited(&snapshot, org_id, 99).iter().any(|e| e.id == audit(1, None, unique).id);
        let decided = snapshot.decision(org_id, decision(1, None, unique).id).expect("read");
        let kept = snapshot.kv(org_id, plugin_id(3), &format!("made-{byte}"), NOW).expect("read").is_some();
        let event = all.iter().any(|found| found.event.id == event(1, None, unique).id);
        let timed =
            snapshot.timers_due(org_id, at(99), 99).expect("read").iter().any(|t| t.key == format!("timer-{byte}"));
        let hooked = !snapshot.session_webhooks(org_id, session_id(byte)).expect("read").is_empty();
        let asked = snapshot.message(org_id, session_id(byte), message_id(byte)).expect("read");
        let led = snapshot.idempotency(org_id, &format!("once-{byte}"), NOW).expect("read");
        let moved_on = snapshot.webhook(org_id, webhook(1, None, byte + 100).id).expect("read").is_some();
        let is_sent = asked.as_ref().is_some_and(|asked| asked.state.is_final());
        assert_eq!((there, there), (hooked, asked.is_some()), "{context}: what goes with session {byte} is torn");
        let waits = |id| backlog.iter().any(|errand| errand.id == id);
        let asked_back = snapshot.confirmation(org_id, &[byte; 32]).expect("read").is_some();
        let kept_for = snapshot.kv(org_id, plugin_id(3), &of_session(byte), NOW).expect("read").is_some();
        let is_carried = created && !waits(of_org(byte).id);
        carried += u64::from(is_carried);
        assert_eq!((there, there), (waits(errand_id(byte)), kept_for), "{context}: what goes with {byte} is torn");
        assert_eq!(there && !is_carried, asked_back, "{context}: the answer about {byte} is torn");
        assert_eq!(is_carried, moved_on, "{context}: the errand of {byte} is torn");
        assert_eq!(created, led.is_some(), "{context}: the idempotency key of {byte} is torn");
        assert_eq!(there && moved_on, is_sent, "{context}: the sending of {byte} is torn");
        assert!(moved_on || !told.sent.contains(&byte), "{context}: the sending of {byte} is lost");
        // Audit, decision and the plugin's key outlive the session; event, timer and full record go with it.
        assert_eq!((created, created), (decided.is_some(), kept), "{context}: the creation of {byte} is torn");
        let full = decided.is_some_and(|decided| !decided.answers.is_empty());
        assert_eq!((there, there, there), (event, timed, full), "{context}: session {byte} is torn");
        if told.erased.contains(&byte) {
            assert!(!there, "{context}: erased session {byte} is back");
        } else if told.created.contains(&byte) {
            let erasing = byte < 7 && told.created.len() == SESSIONS.len();
            assert!(there || erasing, "{context}: session {byte} is lost");
        }
        let device = store.read(org_id, session_id(byte), 1, b"id");
        if there && told.devices.contains(&byte) {
            assert_eq!(device, Ok(Some(vec![byte])), "{context}: the device of {byte} is lost");
        }
        assert!(there || device == Err(DeviceStoreError::Gone), "{context}: a device without session {byte}");
        let receipt = receipts.iter().any(|entry| {
            entry.session == Some(session_id(byte)) && matches!(entry.outcome, AuditOutcome::Erased { .. })
        });
        assert!(!(receipt && there), "{context}: {byte} has a receipt and is there");
        assert!(receipt || !(told.finished && told.erased.contains(&byte)), "{context}: no receipt for {byte}");
    }
    assert_eq!(carried, answered, "{context}: tallies do not count what was done");
    // The story: that an organisation was to go was one commit, and who had asked for it the next.
    let going = snapshot.org(super::sample::org_id(2)).expect("read").map(|org| org.erasing);
    let asked =
        audited(&snapshot, OrgId::PLATFORM, 99).iter().filter(|line| line.actor == PrincipalKind::Operator).count();
    match going {
        Some(is_going) => assert_eq!(asked, usize::from(is_going), "{context}: who asked for the end of 2"),
        None => assert!(asked == 1 || !told.org_going, "{context}: nobody has asked for the end of 2"),
    }
    if told.org_erased {
        assert!(snapshot.org(super::sample::org_id(2)).expect("read").is_none(), "{context}: organisation 2 is back");
    }
}

/// Finishing after a recovery leaves no erasure open.
fn assert_finishes(store: &Store, context: &str) {
    finish(store, NOW);
    let open = store.shared().ring.owners().len();
    let snapshot = read(store);
    let mut owners = 1 + snapshot.orgs(None, 99).expect("read").len();
    snapshot.every_session(|_| owners += 1).expect("read");
    assert_eq!(open, owners, "{context}: keys without owners are left");
    assert_sound(store);
}

/// A small generator, so that a failing seed can be run again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Runs the workload on a disk that fails at a sync; the disk and what was told.
fn run(fails_at: Option<u32>, mode: CommitMode) -> (Disk, Told) {
    let disk = Arc::new(Mutex::new(Disk { fails_at, ..new_disk(SECRET) }));
    let mut told = Told::default();
    if let Ok(store) = open(&disk, mode) {
        let result = workload(&store, &mut told);
        assert!(result.is_ok() || fails_at.is_some(), "{result:?}");
    }
    (into_disk(disk), told)
}

fn crash_everywhere(mode: CommitMode) {
    let syncs = run(None, mode).0.syncs;
    assert!(syncs > 20, "the workload syncs {syncs} times");
    // The run without a crash ends with the syncs of closing; crashing there is a case too.
    for sync in 1..=syncs {
        let (disk, told) = run(Some(sync), mode);
        // A receipt promises that the key is gone from the disk, not only from the next boot on.
        let held = |byte: u8| disk.files[KEYS].durable.windows(16).any(|window| window == [byte; 16]);
        assert!(!told.finished || !(held(5) || held(6)), "crash at sync {sync}: a receipt, and the key is there");
        for seed in 0..4_u64 {
            // Seed 0 keeps nothing that was not durable, the others a random half.
            let mut random = Random(seed << 32 | u64::from(sync));
            let restored = disk.after_power_loss(|| seed > 0 && random.next().is_multiple_of(2));
            recover(&restored, &told, mode, &format!("crash at sync {sync}, seed {seed}"));
        }
    }
}

/// Opens what a crash left, and crashes at each sync of that too.
fn recover(left: &Disk, told: &Told, mode: CommitMode, context: &str) {
    let calm = Arc::new(Mutex::new(left.after_power_loss(|| false)));
    let store = open(&calm, mode).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let syncs = calm.lock().unwrap_or_else(PoisonError::into_inner).syncs;
    assert_recovered(&store, told, context);
    assert_finishes(&store, context);
    drop(store);
    for sync in 1..=syncs {
        let context = format!("{context}, then at sync {sync} of the recovery");
        let disk = Arc::new(Mutex::new(Disk { fails_at: Some(sync), ..left.after_power_loss(|| false) }));
        assert!(open(&disk, mode).is_err(), "{context}: opened without power");
        let again = disk.lock().unwrap_or_else(PoisonError::into_inner).after_power_loss(|| false);
        let again = Arc::new(Mutex::new(again));
        let store = open(&again, mode).unwrap_or_else(|error| panic!("{context}: {error:?}"));
        assert_recovered(&store, told, &context);
        assert_finishes(&store, &context);
    }
}

#[test]
fn nothing_told_is_lost_and_nothing_is_torn_with_one_sync() {
    crash_everywhere(CommitMode::OnePhase);
}

#[test]
fn nothing_told_is_lost_and_nothing_is_torn_with_two_syncs() {
    crash_everywhere(CommitMode::TwoPhase);
}
