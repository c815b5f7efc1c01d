//! Erasing leaves a receipt and nothing that opens: not in the store, not in its files, not in an older copy of them.

use std::path::Path;

use portcullis_core::verdict::Allowance;
use portcullis_core::{
    AuditOutcome, DeviceChange, DeviceStore, DeviceStoreError, ErrandBody, EventBody, EventId, KvAccess, KvChange,
    MessageState, OperationKind, OrgId, Secret, Tally, Verdict, rate::send_counter,
};
use portcullis_core::{LimitCheck, OutboxPlace, Window};
use sha2::{Digest, Sha256};

use super::sample::*;
use crate::keyfile::{HEADER, Owner, SLOT};
use crate::seal::hex;
use crate::{
    Commit, DecisionFilter, ErrandChange, Expectation, IdempotencyRecord, Store, StoreOptions, TallyChange,
    TimerChange, Write,
};

const MARKER: &str = "a-marker-that-must-not-be-found";

/// Everything that a session can have, with the marker wherever there is text.
fn furnish(store: &Store, owner: u8, byte: u8) {
    let mut marked = session(owner, byte);
    marked.display_name = Some(MARKER.into());
    marked.names.instance_name = format!("{MARKER}-{byte}");
    let mut record = denied(owner, byte, u128::from(byte));
    record.input = Some(MARKER.into());
    let mut timed = timer(owner, Some(byte), &format!("{MARKER}-{byte}"), at(10));
    timed.payload = MARKER.into();
    marked.token = Some(Secret::new(format!("{MARKER}-{byte}")));
    let mut hook = webhook(owner, Some(byte), byte);
    hook.spec.url = MARKER.into();
    let mut waiting = message(owner, byte, byte);
    waiting.content.text = MARKER.into();
    let key = format!("{MARKER}-{byte}");
    let idempotency = Some(IdempotencyRecord { key, session: waiting.session, message: waiting.id, at: NOW });
    let mut done = message(owner, byte, byte + 100);
    done.state = MessageState::Failed { code: MARKER.into() };
    let mut told = errand(owner, Some(byte), byte, at(10));
    told.body = ErrandBody::Tell {
        event: EventId::from_bytes([byte; 16]),
        name: MARKER.into(),
        at: NOW,
        about: None,
        json: format!(r#"{{"text": "{MARKER}"}}"#),
    };
    let mut asked = confirmation(owner, Some(byte), byte);
    asked.questions[0].prompt = MARKER.into();
    asked.questions[0].answer = Some(MARKER.into());
    let kv = [3, 4].map(|plugin| KvAccess {
        plugin: plugin_id(plugin),
        key: format!("session:{}:{MARKER}", session_id(byte)),
        seen: None,
        change: KvChange::Put { value: MARKER.into(), expires: None },
    });
    let limit = LimitCheck { counter: send_counter(session_id(byte)), window: Window::UtcDay, max: 9 };
    keep(
        store,
        Commit {
            decision: Some(record),
            timers: vec![TimerChange::Set(timed)],
            errands: vec![ErrandChange::Put(told)],
            kv: kv.into(),
            fact: Some(fact(&format!("{MARKER}-{byte}"))),
            limits: vec![limit],
            idempotency,
            writes: vec![
                Write::PutSession(marked),
                Write::PutWebhook(hook),
                Write::PutMessage(waiting),
                Write::PutMessage(done),
                Write::PutConfirmation(asked),
            ],
            ..creating(owner, byte)
        },
    );
    let change = DeviceChange::Put { kind: 1, name: MARKER.into(), value: MARKER.into() };
    store.write(org_id(owner), session_id(byte), vec![change]).expect("written");
}

fn erasing(store: &Store, owner: u8, byte: u8) -> Commit {
    let row = read(store).session(org_id(owner), session_id(byte)).expect("read").expect("there");
    let wanted = removed(&row, at(5));
    keep(store, writing(owner, vec![Write::PutSession(wanted.clone())]));
    Commit {
        expect: vec![Expectation::Session(wanted.id, Some(wanted.generation))],
        decision: Some(decision(owner, Some(byte), 200)),
        events: vec![event(owner, Some(byte), 200)],
        audit: vec![audit(owner, Some(byte), 200)],
        done: Some(OperationKind::SessionDelete),
        ..writing(owner, vec![Write::EraseSession(session_id(byte))])
    }
}

#[test]
fn a_session_goes_with_everything_but_skeletons() {
    let store = store();
    furnish(&store, 1, 5);
    furnish(&store, 1, 6);
    let mut news = event(1, Some(5), 100);
    news.body = EventBody::Deleting;
    keep(&store, Commit { events: vec![news.clone()], ..writing(1, vec![]) });
    let older = read(&store);
    let slot = store.shared().ring.live(Owner::session(org_id(1), session_id(5))).expect("live").slot;
    let digest = hex(&Sha256::digest(store.shared().ring.file.bytes(slot).expect("read")));
    let erase = erasing(&store, 1, 5);
    keep(&store, erase);

    let (org, session) = (org_id(1), session_id(5));
    let snapshot = read(&store);
    assert_eq!(snapshot.session(org, session).expect("read"), None);
    assert_eq!(store.read(org, session, 1, MARKER.as_bytes()), Err(DeviceStoreError::Gone));
    assert_eq!(snapshot.timers_due(org_id(1), at(99), 9).expect("read").len(), 1, "only the other session's timer");
    let errands = snapshot.errands_due(org_id(1), at(99), 9).expect("read");
    assert_eq!(
        errands.iter().map(|errand| errand.id).collect::<Vec<_>>(),
        [errand_id(6)],
        "only the other session's errand"
    );
    assert_eq!(snapshot.confirmation(org, &[5; 32]).expect("read"), None);
    for plugin in [plugin_id(3), plugin_id(4)] {
        let key = |byte| format!("session:{}:{MARKER}", session_id(byte));
        let kept = |byte| snapshot.kv(org, plugin, &key(byte), NOW).expect("read").is_some();
        assert_eq!((kept(5), kept(6)), (false, true));
        assert_eq!(snapshot.kv_keys(org, plugin, "session:", None, 9, NOW).expect("read"), [key(6)]);
        assert_eq!(snapshot.kv_usage(org, plugin).expect("read").keys, 1);
    }
    let events = snapshot.events_after(org, OutboxPlace(0), 9).expect("read");
    let events: Vec<_> = events.into_iter().map(|placed| placed.event.id).collect();
    let kept = [event(1, None, 6).id, news.id, event(1, None, 200).id];
    assert_eq!(events, kept, "what says nothing personal stays, and what tells of the erasure");
    assert_eq!(snapshot.webhooks(org).expect("read").len(), 1, "only the other session's webhook");
    let mut open = Vec::new();
    snapshot.every_open_message(|message| open.push(message.session)).expect("read");
    assert_eq!(open, [session_id(6)], "only the other session's message");
    assert_eq!(snapshot.messages(org, session, None, 9).expect("read"), []);
    // The key is still in use, and leads to nothing.
    let led = snapshot.idempotency(org, &format!("{MARKER}-5"), NOW).expect("read");
    assert_eq!(led, Some((session, message_id(5))));
    assert_eq!(snapshot.message(org, session, message_id(5)).expect("read"), None);
    let sends = snapshot.counter(org, &send_counter(session), Window::UtcDay, NOW).expect("read");
    assert_eq!(sends, 0);

    let erased = finish(&store, at(7));
    assert_eq!(erased.len(), 1);
    assert_eq!((erased[0].org, erased[0].session, erased[0].since), (org, Some(session), at(5)));
    assert_eq!(erased[0].slot_digest, digest);
    assert_eq!(finish(&store, at(8)), [], "finishing is idempotent");
    assert!(older.session(org, session).expect("read").is_none(), "an older snapshot still opened the session");
    assert_eq!(older.errand(org, errand_id(5)).expect("read"), None);
    assert_eq!(older.confirmation(org, &[5; 32]).expect("read"), None);
    let key = format!("session:{session}:{MARKER}");
    assert_eq!(older.kv(org, plugin_id(3), &key, NOW).expect("read"), None);
    assert_eq!(older.kv_keys(org, plugin_id(3), "session:", None, 9, NOW).expect("read").len(), 1);

    let snapshot = read(&store);
    let skeleton = snapshot.decision(org, denied(1, 5, 5).id).expect("read").expect("kept");
    assert_eq!((skeleton.input, skeleton.answers.len(), skeleton.session), (None, 0, Some(session)));
    assert_eq!(skeleton.first_round, None);
    let Verdict::Denied { denials } = skeleton.verdict else { panic!("another verdict") };
    assert_eq!((denials[0].code.as_str(), denials[0].message.as_str()), ("hold", ""));
    let about = DecisionFilter { session: Some(session), ..DecisionFilter::default() };
    let of_session = snapshot.decisions(org, None, &about, 9).expect("read").decisions;
    assert_eq!(of_session.len(), 2);
    assert_eq!(of_session[0].verdict, Verdict::Allowed(Allowance::default()));
    let receipt = audited(&snapshot, org, 1).remove(0);
    let AuditOutcome::Erased { receipt: kept, signature } = &receipt.outcome else { panic!("no receipt: {receipt:?}") };
    assert_eq!((kept.org, kept.session, kept.asked_at, &kept.slot_digest), (org, Some(session), at(5), &digest));
    assert_eq!((kept.rows_removed_at, kept.key_destroyed_at), (NOW, at(7)));
    // Its webhook had heard of nothing; the event that holds something personal went untold.
    assert_eq!(kept.events_discarded, 1);
    assert_eq!(*signature, store.signer().sign(kept.signed_text().as_bytes()));
    let found = snapshot.receipt(org, session).expect("read").expect("there");
    assert_eq!((&found.entry, found.number), (&receipt, snapshot.audit_end(org).expect("read").number));
    assert_eq!((receipt.operation, receipt.session), (OperationKind::SessionDelete, Some(session)));
    assert_sound(&store);

    // The slot is used again, under another generation.
    keep(&store, creating(1, 7));
    let reused = store.shared().ring.live(Owner::session(org, session_id(7))).expect("live");
    assert_eq!((reused.slot, reused.generation), (slot, 2));
    assert_sound(&store);
}

#[test]
fn an_organisation_goes_with_everything_it_owns() {
    let store = store();
    for byte in [5, 6] {
        furnish(&store, 1, byte);
    }
    furnish(&store, 2, 7);
    let rows = vec![
        Write::PutKey(api_key(1, 5)),
        Write::PutPlugin(plugin(1, 3, 1, 8)),
        Write::PutComponent { digest: [8; 32], bytes: MARKER.into() },
        Write::PutBinding(binding(1, 5)),
        Write::PutSuspension(suspension(1, 5, 1)),
        Write::PutSecret { plugin: plugin_id(3), name: MARKER.into(), value: Secret::new(MARKER) },
        Write::PutPublisher(publisher(1, 5)),
        Write::PutConfirmation(confirmation(1, None, 99)),
        Write::PutWebhook(webhook(1, None, 9)),
    ];
    let tallies = vec![TallyChange { binding: binding(1, 5).id, candidate_version: 2, diverged: true }];
    keep(&store, Commit { tallies, ..writing(1, rows) });
    let mut told = audit(1, None, 300);
    told.org = OrgId::PLATFORM;
    keep(
        &store,
        Commit {
            audit: vec![told.clone(), audit(1, None, 301)],
            events: vec![event(1, None, 300)],
            errands: vec![ErrandChange::Put(errand(1, None, 9, NOW))],
            tallies: vec![TallyChange { binding: binding(1, 5).id, candidate_version: 2, diverged: true }],
            fact: Some(fact("late")),
            done: Some(OperationKind::OrgDelete),
            ..writing(
                1,
                vec![
                    Write::EraseOrg,
                    Write::PutWebhook(webhook(1, None, 8)),
                    Write::PutMessage(message(1, 5, 8)),
                    Write::PutConfirmation(confirmation(1, None, 8)),
                    Write::PutPublisher(publisher(1, 8)),
                    Write::PutSecret { plugin: plugin_id(3), name: "late".into(), value: Secret::new("late") },
                    Write::PutSuspension(suspension(1, 5, 1)),
                ],
            )
        },
    );
    assert!(store.commit_blocking(creating(1, 8)).is_err(), "an erased organisation took a session");
    let erased = finish(&store, at(7));
    assert_eq!(erased.len(), 3);
    assert_eq!(erased.iter().filter(|erased| erased.session.is_none()).count(), 1);

    let snapshot = read(&store);
    assert_eq!(snapshot.org(org_id(1)).expect("read"), None);
    assert_eq!(snapshot.key_by_hash(&[5; 32]).expect("read"), None);
    assert_eq!(snapshot.webhooks(org_id(1)).expect("read"), []);
    let mut open = Vec::new();
    snapshot.every_open_message(|message| open.push(message.org)).expect("read");
    assert_eq!(open, [org_id(2)]);
    assert_eq!(snapshot.idempotency(org_id(1), &format!("{MARKER}-5"), NOW).expect("read"), None);
    assert_eq!(audited(&snapshot, org_id(1), 9), []);
    assert_eq!(snapshot.suspensions(org_id(1)).expect("read"), []);
    assert_eq!(snapshot.publishers(org_id(1)).expect("read"), []);
    assert_eq!(snapshot.secret_names(org_id(1), plugin_id(3)).expect("read"), []);
    assert_eq!(snapshot.tally(binding(1, 5).id, 2).expect("read"), Tally::default());
    let errands = [1, 2].map(|owner| snapshot.errands_due(org_id(owner), at(99), 9).expect("read")).concat();
    assert_eq!(errands.iter().map(|errand| errand.org).collect::<Vec<_>>(), [org_id(2)]);
    let platform = audited(&snapshot, OrgId::PLATFORM, 9);
    assert_eq!(platform.len(), 2);
    assert_eq!(platform[1], told);
    assert_eq!(platform[0].subject, Some(org_id(1).to_string()));
    assert!(matches!(platform[0].outcome, AuditOutcome::Erased { .. }));
    assert!(snapshot.session(org_id(2), session_id(7)).expect("read").is_some());
    assert_sound(&store);
    keep(&store, writing(1, vec![Write::PutOrg(org(1))]));
    assert_sound(&store);
}

fn files(dir: &Path) -> Vec<u8> {
    let names = ["portcullis.redb", "keys"];
    names.into_iter().flat_map(|name| std::fs::read(dir.join(name)).expect("readable")).collect()
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

#[test]
fn neither_text_nor_keys_stand_in_the_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), StoreOptions::default()).expect("opened");
    keep(&store, writing(1, vec![Write::PutOrg(org(1))]));
    furnish(&store, 1, 5);
    let owner = Owner::session(org_id(1), session_id(5));
    let data_key = store.shared().ring.live(owner).expect("live");
    let (secret, slot) = (data_key.secret.clone(), data_key.slot as usize);
    let before = files(dir.path());
    assert!(!holds(&before, MARKER.as_bytes()) && !holds(&before, b"Organisation") && !holds(&before, &secret[..]));
    let slot_of = || std::fs::read(dir.path().join("keys")).expect("readable")[HEADER + SLOT * slot..][..SLOT].to_vec();
    let sealed_key = slot_of()[64..96].to_vec();

    let erase = erasing(&store, 1, 5);
    keep(&store, erase);
    finish(&store, at(7));
    let keys = std::fs::read(dir.path().join("keys")).expect("readable");
    assert!(!holds(&keys, &sealed_key), "the sealed key is still in its file");
    assert!(slot_of()[8..SLOT - 8].iter().all(|byte| *byte == 0));
    assert_sound(&store);
}

#[test]
fn a_backup_of_the_data_does_not_bring_an_erased_session_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || Store::open(dir.path(), StoreOptions::default()).expect("opened");
    let store = open();
    keep(&store, writing(1, vec![Write::PutOrg(org(1))]));
    furnish(&store, 1, 5);
    drop(store);
    let data = dir.path().join("portcullis.redb");
    let backup = std::fs::read(&data).expect("readable");
    let store = open();
    let erase = erasing(&store, 1, 5);
    keep(&store, erase);
    finish(&store, at(7));
    drop(store);
    std::fs::write(&data, backup).expect("restored");
    let store = open();
    assert_eq!(read(&store).session(org_id(1), session_id(5)).expect("read"), None);
    assert_eq!(read(&store).org(org_id(1)).expect("read"), Some(org(1)));
    assert!(!store.verify().expect("verified").findings.is_empty(), "a check says what the backup lacks");
    // Erasing it again takes the unreadable rows out.
    keep(&store, writing(1, vec![Write::EraseSession(session_id(5))]));
    assert_eq!(finish(&store, at(9)), [], "there is no key left to destroy");
    assert_sound(&store);
}
