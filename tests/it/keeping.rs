//! What the WhatsApp client keeps, in a real store: the same answers as from the client's own storage, everything durable there
//! again after a crash, and nothing left after an erasure.

use std::path::Path;
use std::sync::Arc;

use portcullis_core::session::Names;
use portcullis_core::{DeviceStore as Port, DeviceStoreError, Session, SessionId};
use portcullis_engine::whatsapp::keep::DeviceBackend;
use portcullis_store::{Commit, Store, StoreOptions, Write};
use whatsapp_rust::bytes::Bytes;
use whatsapp_rust::wacore::appstate::hash::HashState;
use whatsapp_rust::wacore::appstate::processor::AppStateMutationMAC;
use whatsapp_rust::wacore::store::in_memory::InMemoryBackend;
use whatsapp_rust::wacore::store::traits::{
    AppStateSyncKey, Backend, DeviceInfo, DeviceListRecord, DeviceStore, LidPnMappingEntry, MsgSecretEntry,
    PendingInboundKey, PendingInboundRow, ProtocolStore, SignalStore, TcTokenEntry,
};
use whatsapp_rust::wacore::time::now_secs;

use crate::driver::stage::{NOW, ORG, acme};

const SESSION: SessionId = SessionId::from_bytes([5; 16]);
const OTHER: SessionId = SessionId::from_bytes([6; 16]);

/// An organisation with two sessions.
fn furnish(store: &Store) {
    let session = |id, unique: u128| {
        let names = Names::new(unique, Some(format!("instance-{unique}")));
        Write::PutSession(Session::new(id, ORG, names, NOW))
    };
    let writes = vec![Write::PutOrg(acme()), session(SESSION, 5), session(OTHER, 6)];
    store.commit_blocking(Commit { writes, ..Commit::new(ORG, NOW) }).unwrap();
}

fn open(dir: &Path) -> Store {
    Store::open(dir, StoreOptions::default()).unwrap()
}

fn begin(store: &Store, session: SessionId) -> Arc<DeviceBackend> {
    DeviceBackend::new(Arc::new(store.clone()), ORG, session)
}

fn assert_sound(store: &Store) {
    assert_eq!(store.verify().unwrap().findings, [""; 0]);
}

/// What a storage answers, line by line.
#[derive(Default)]
struct Answers(Vec<String>);

impl Answers {
    fn note(&mut self, what: &str, answer: impl std::fmt::Debug) {
        self.0.push(format!("{what}: {answer:?}"));
    }
}

fn sorted<T: Ord>(mut rows: Vec<T>) -> Vec<T> {
    rows.sort();
    rows
}

async fn play_signal(keep: &dyn Backend, to: &mut Answers) {
    let addresses: [Arc<str>; 3] = ["49151@s.whatsapp.net".into(), "49151:3@s.whatsapp.net".into(), "7:1@lid".into()];
    to.note("no identity", keep.load_identity(&addresses[0]).await.unwrap());
    keep.put_identity(&addresses[0], [1; 32]).await.unwrap();
    keep.put_identities_batch(&[(addresses[1].clone(), [2; 32]), (addresses[0].clone(), [3; 32])]).await.unwrap();
    for address in &addresses {
        to.note("identity", keep.load_identity(address).await.unwrap());
        to.note("session", (keep.get_session(address).await.unwrap(), keep.has_session(address).await.unwrap()));
    }
    keep.put_session(&addresses[0], b"one").await.unwrap();
    let batch = [(addresses[0].clone(), Bytes::from_static(b"two")), (addresses[2].clone(), Bytes::from_static(b""))];
    keep.put_sessions_batch(&batch).await.unwrap();
    keep.delete_identity(&addresses[0]).await.unwrap();
    keep.delete_session(&addresses[1]).await.unwrap();
    for address in &addresses {
        to.note("identity", keep.load_identity(address).await.unwrap());
        to.note("session", (keep.get_session(address).await.unwrap(), keep.has_session(address).await.unwrap()));
    }
    for user in ["49151", "7", "4915", "491510"] {
        to.note("state of user", keep.has_signal_state_for_user(user).await.unwrap());
    }

    to.note("greatest of none", keep.get_max_prekey_id().await.unwrap());
    keep.store_prekey(9, b"nine", false).await.unwrap();
    let batch: Vec<_> = (1..=8).map(|id| (id, Bytes::from(vec![id as u8]))).collect();
    keep.store_prekeys_batch(&batch, true).await.unwrap();
    to.note("greatest", keep.get_max_prekey_id().await.unwrap());
    keep.remove_prekey(9).await.unwrap();
    keep.remove_prekey(3).await.unwrap();
    keep.mark_prekeys_uploaded(&[2, 3, 9, 10]).await.unwrap();
    to.note("gone keys stay gone", (keep.load_prekey(3).await.unwrap(), keep.load_prekey(2).await.unwrap()));
    to.note("greatest", keep.get_max_prekey_id().await.unwrap());
    to.note("pre-keys", keep.load_prekeys_batch(&[8, 3, 1, 77]).await.unwrap());

    keep.store_signed_prekey(1, b"one").await.unwrap();
    keep.store_signed_prekey(2, b"two").await.unwrap();
    keep.store_signed_prekey(1, b"other").await.unwrap();
    to.note("signed", sorted(keep.load_all_signed_prekeys().await.unwrap()));
    keep.remove_signed_prekey(1).await.unwrap();
    to.note("signed", (keep.load_signed_prekey(1).await.unwrap(), keep.load_signed_prekey(2).await.unwrap()));

    keep.put_sender_key("group", b"one").await.unwrap();
    keep.put_sender_keys_batch(&[("group".into(), Bytes::from_static(b"two")), ("gone".into(), Bytes::new())])
        .await
        .unwrap();
    keep.delete_sender_key("gone").await.unwrap();
    to.note("sender keys", (keep.get_sender_key("group").await.unwrap(), keep.get_sender_key("gone").await.unwrap()));
}

async fn play_app_state(keep: &dyn Backend, to: &mut Answers) {
    to.note("latest of none", keep.get_latest_sync_key_id().await.unwrap());
    for id in [b"key-1", b"key-2"] {
        let key = AppStateSyncKey { key_data: id.to_vec(), fingerprint: vec![1], timestamp: 7 };
        keep.set_sync_key(id, key).await.unwrap();
    }
    to.note("latest", keep.get_latest_sync_key_id().await.unwrap());
    to.note("keys", (keep.get_sync_key(b"key-1").await.unwrap(), keep.get_sync_key(b"key-3").await.unwrap()));
    let state = HashState { version: 3, hash: [9; 128], ..HashState::default() };
    keep.set_version("regular", state).await.unwrap();
    to.note("versions", (keep.get_version("regular").await.unwrap(), keep.get_version("regular_low").await.unwrap()));

    let mac = |index: u8, value: u8| AppStateMutationMAC { index_mac: vec![index; 32], value_mac: vec![value] };
    for collection in ["regular", "regular_low", "invented", "invented_too"] {
        keep.put_mutation_macs(collection, 1, &[mac(1, 10), mac(2, 20), mac(3, 30)]).await.unwrap();
        keep.put_mutation_macs(collection, 2, &[mac(1, 11)]).await.unwrap();
        keep.delete_mutation_macs(collection, &[vec![2; 32], vec![99; 32]]).await.unwrap();
    }
    for cleared in ["regular", "invented"] {
        keep.clear_mutation_macs(cleared).await.unwrap();
        keep.put_mutation_macs(cleared, 3, &[mac(4, 40)]).await.unwrap();
    }
    for collection in ["regular", "regular_low", "invented", "invented_too"] {
        let macs = keep.get_mutation_macs(collection, &[[1; 32], [2; 32], [3; 32], [4; 32]]).await.unwrap();
        to.note(collection, sorted(macs.into_iter().collect()));
        to.note("one", keep.get_mutation_mac(collection, &[1; 32]).await.unwrap());
    }
}

async fn play_groups_and_people(keep: &dyn Backend, to: &mut Answers) {
    let groups = ["1@g.us", "2@g.us", "3@g.us"];
    for group in groups {
        keep.set_sender_key_status(group, &[("a", true), ("b", true), ("c", false)]).await.unwrap();
        keep.set_sender_key_status(group, &[("b", false)]).await.unwrap();
    }
    keep.delete_sender_key_device_rows(&["a", "nobody"]).await.unwrap();
    keep.delete_sender_key_device_rows(&[]).await.unwrap();
    keep.clear_sender_key_devices(groups[1]).await.unwrap();
    for group in groups {
        to.note(group, sorted(keep.get_sender_key_devices(group).await.unwrap()));
    }
    keep.clear_all_sender_key_devices().await.unwrap();
    keep.set_sender_key_status(groups[2], &[("d", true)]).await.unwrap();
    for group in groups {
        to.note(group, sorted(keep.get_sender_key_devices(group).await.unwrap()));
    }

    let mapping = |lid: &str, phone: &str, at| LidPnMappingEntry {
        lid: lid.to_owned(),
        phone_number: phone.to_owned(),
        created_at: 1,
        updated_at: at,
        learning_source: "usync".to_owned(),
    };
    keep.put_lid_mapping(&mapping("100", "49151", 1)).await.unwrap();
    let moved = [mapping("100", "49152", 2), mapping("200", "49151", 3), mapping("100", "49153", 4)];
    keep.put_lid_mappings(&moved).await.unwrap();
    for lid in ["100", "200", "300"] {
        to.note(lid, keep.get_lid_mapping(lid).await.unwrap());
    }
    for phone in ["49151", "49152", "49153"] {
        to.note(phone, keep.get_pn_mapping(phone).await.unwrap());
    }
    let all = keep.get_all_lid_mappings().await.unwrap();
    to.note("mappings", sorted(all.into_iter().map(|entry| (entry.lid, entry.phone_number)).collect()));

    keep.save_base_key("address", "id", b"key").await.unwrap();
    for (address, id, key) in [("address", "id", &b"key"[..]), ("address", "id", b"other"), ("addressi", "d", b"key")] {
        to.note("same base key", keep.has_same_base_key(address, id, key).await.unwrap());
    }
    keep.delete_base_key("address", "id").await.unwrap();
    to.note("same base key", keep.has_same_base_key("address", "id", b"key").await.unwrap());

    let record = |user: &str, timestamp| DeviceListRecord {
        user: user.to_owned(),
        devices: vec![DeviceInfo::new(3, Some(1)).with_hosting(true)],
        timestamp,
        phash: Some("2:hash".to_owned()),
        raw_id: Some(4),
    };
    keep.update_device_list(record("49151", 1)).await.unwrap();
    keep.update_device_lists(vec![record("49151", 2), record("49152", 3)]).await.unwrap();
    keep.delete_devices("49152").await.unwrap();
    to.note("devices", (keep.get_devices("49151").await.unwrap(), keep.get_devices("49152").await.unwrap()));

    keep.put_group_metadata("1@g.us", b"one").await.unwrap();
    keep.put_group_metadata("1@g.us", b"two").await.unwrap();
    keep.put_group_metadata("2@g.us", b"gone").await.unwrap();
    keep.delete_group_metadata("2@g.us").await.unwrap();
    to.note(
        "group",
        (keep.get_group_metadata("1@g.us").await.unwrap(), keep.get_group_metadata("2@g.us").await.unwrap()),
    );
}

async fn play_tokens(keep: &dyn Backend, to: &mut Answers) {
    let entry = |token: &[u8], token_timestamp, sender_timestamp| TcTokenEntry {
        token: token.to_vec(),
        token_timestamp,
        sender_timestamp,
    };
    keep.put_tc_token("old", &entry(b"t", 10, None)).await.unwrap();
    keep.put_tc_token("sent", &entry(b"t", 10, Some(500))).await.unwrap();
    keep.put_tc_token("gone", &entry(b"t", 900, None)).await.unwrap();
    keep.delete_tc_token("gone").await.unwrap();
    keep.touch_tc_token_sender_timestamp("touched", 600).await.unwrap();
    keep.touch_tc_token_sender_timestamp("touched", 550).await.unwrap();
    keep.store_received_tc_token("touched", b"real", 5).await.unwrap();
    keep.store_received_tc_token("received", b"new", 700).await.unwrap();
    keep.store_received_tc_token("received", b"stale", 699).await.unwrap();
    keep.touch_tc_token_sender_timestamp("received", 1).await.unwrap();
    to.note("jids", sorted(keep.get_all_tc_token_jids().await.unwrap()));
    to.note("expired", keep.delete_expired_tc_tokens(100, 400).await.unwrap());
    to.note("expired again", keep.delete_expired_tc_tokens(100, 400).await.unwrap());
    for jid in ["old", "sent", "gone", "touched", "received"] {
        to.note(jid, keep.get_tc_token(jid).await.unwrap());
    }
}

async fn play_messages(keep: &dyn Backend, to: &mut Answers) {
    let now = now_secs();
    for id in ["1", "2", "3"] {
        keep.store_sent_message("chat", id, id.as_bytes()).await.unwrap();
    }
    to.note("taken", keep.take_sent_message("chat", "1").await.unwrap());
    to.note("taken twice", keep.take_sent_message("chat", "1").await.unwrap());
    to.note("expired", keep.delete_expired_sent_messages(now - 100).await.unwrap());
    to.note("taken", keep.take_sent_message("chat", "2").await.unwrap());
    to.note("expired", keep.delete_expired_sent_messages(now + 100).await.unwrap());
    to.note("taken", keep.take_sent_message("chat", "3").await.unwrap());

    keep.store_pending_inbound("chat", "sender", "1", b"one").await.unwrap();
    let row = |sender, id, message| PendingInboundRow { chat: "chat", sender, id, message };
    keep.store_pending_inbound_batch(&[row("sender", "1", b"1"), row("sender", "2", b"2"), row("other", "1", b"3")])
        .await
        .unwrap();
    let key = |sender, id| PendingInboundKey { chat: "chat", sender, id };
    keep.delete_pending_inbound_batch(&[key("sender", "2"), key("nobody", "2")]).await.unwrap();
    for (sender, id) in [("sender", "1"), ("sender", "2"), ("other", "1")] {
        to.note("pending", keep.get_pending_inbound("chat", sender, id).await.unwrap());
    }
    keep.delete_pending_inbound("chat", "other", "1").await.unwrap();
    to.note("expired", keep.delete_expired_pending_inbound(now - 100).await.unwrap());
    to.note("pending", keep.get_pending_inbound("chat", "sender", "1").await.unwrap());
    to.note("expired", keep.delete_expired_pending_inbound(now + 100).await.unwrap());
    to.note("pending", keep.get_pending_inbound("chat", "sender", "1").await.unwrap());

    let secret = |id: &str, secret: u8, expires_at, message_ts| MsgSecretEntry {
        chat: "chat".into(),
        sender: "sender".into(),
        msg_id: id.into(),
        secret: [secret; 32],
        expires_at,
        message_ts,
    };
    let first = vec![secret("for ever", 1, 0, 0), secret("short", 2, 100, 50), secret("longer", 3, 300, 60)];
    to.note("stored", keep.put_msg_secrets(first).await.unwrap());
    let second = vec![secret("for ever", 4, 100, 70), secret("longer", 5, 100, 0), secret("twice", 6, 100, 1)];
    to.note("stored", keep.put_msg_secrets(second).await.unwrap());
    to.note(
        "stored",
        keep.put_msg_secrets(vec![secret("twice", 7, 400, 2), secret("twice", 8, 100, 1)]).await.unwrap(),
    );
    keep.put_msg_secret("chat", "sender", "plain", &[9; 32]).await.unwrap();
    to.note("expired", keep.delete_expired_msg_secrets(100).await.unwrap());
    for id in ["for ever", "short", "longer", "twice", "plain"] {
        to.note(id, keep.get_msg_secret_with_ts("chat", "sender", id).await.unwrap());
        to.note(id, keep.get_msg_secret("chat", "sender", id).await.unwrap());
    }
}

async fn play_device(keep: &dyn Backend, to: &mut Answers) {
    to.note("exists", (keep.exists().await.unwrap(), keep.load().await.unwrap().is_some()));
    keep.create().await.unwrap();
    let device = keep.load().await.unwrap().unwrap();
    to.note("exists", (keep.exists().await.unwrap(), device.pn.clone(), device.push_name.clone()));
    keep.create().await.unwrap();
    let same = keep.load().await.unwrap().unwrap();
    to.note("kept", same.noise_key.public_key.serialize() == device.noise_key.public_key.serialize());
    let mut device = device;
    device.push_name = "Ada".to_owned();
    device.pn = Some("49151:7@s.whatsapp.net".parse().unwrap());
    device.next_pre_key_id = 813;
    keep.save(&device).await.unwrap();
    let saved = keep.load().await.unwrap().unwrap();
    to.note("all of it", serde_json::to_value(&saved).unwrap() == serde_json::to_value(&device).unwrap());
    to.note("saved", (saved.pn, saved.push_name, saved.next_pre_key_id));
}

/// Everything that a storage can be asked.
async fn play(keep: &dyn Backend) -> Vec<String> {
    let mut to = Answers::default();
    play_device(keep, &mut to).await;
    play_signal(keep, &mut to).await;
    play_app_state(keep, &mut to).await;
    play_groups_and_people(keep, &mut to).await;
    play_tokens(keep, &mut to).await;
    play_messages(keep, &mut to).await;
    to.0
}

#[tokio::test]
async fn the_stores_answers_are_those_of_the_clients_own_storage() {
    let expected = play(&InMemoryBackend::new()).await;
    let store = Store::in_memory().unwrap();
    furnish(&store);
    let backend = begin(&store, SESSION);
    let (mut answers, mut theirs) = (play(&*backend).await, expected.clone());
    assert!(answers.len() > 90, "{} answers", answers.len());
    assert_eq!(answers, theirs);

    // Another session sees nothing of it.
    assert_eq!(play(&*begin(&store, OTHER)).await, expected);

    // Once all is durable a second run answers as the same storage does that was asked twice.
    backend.flush().await.unwrap();
    backend.close().await;
    let memory = InMemoryBackend::new();
    play(&memory).await;
    (answers, theirs) = (play(&*begin(&store, SESSION)).await, play(&memory).await);
    assert_eq!(answers, theirs);
    assert_sound(&store);
}

#[tokio::test]
async fn what_was_durable_is_there_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    furnish(&open(dir.path()));
    for round in 1..=5_u8 {
        let id = u32::from(round);
        let address: Arc<str> = format!("{round}@lid").into();
        let store = open(dir.path());
        let backend = begin(&store, SESSION);
        for before in 1..id {
            assert_eq!(backend.load_prekey(before).await.unwrap(), None, "it was removed, and that was made durable");
            let session = backend.get_session(&format!("{before}@lid")).await.unwrap();
            assert_eq!(session, Some(Bytes::from(before.to_string())), "the session of round {before}");
            let sent = backend.take_sent_message("chat", &before.to_string()).await.unwrap();
            assert_eq!(sent, Some(b"waits".to_vec()), "what waited then went with the session of round {before}");
        }
        // Each act is cut off after another durable write; what waits behind it is lost, and nothing else.
        backend.store_prekey(id, b"key", false).await.unwrap();
        backend.create().await.unwrap();
        backend.save(&backend.load().await.unwrap().unwrap()).await.unwrap();
        for before in 1..=id {
            backend.store_sent_message("chat", &before.to_string(), b"waits").await.unwrap();
        }
        backend.remove_prekey(id).await.unwrap();
        backend.put_session(&address, round.to_string().as_bytes()).await.unwrap();
        backend.put_group_metadata("lost", &[round]).await.unwrap();
        drop(backend);
        drop(store);
        let store = open(dir.path());
        assert_eq!(begin(&store, SESSION).get_group_metadata("lost").await.unwrap(), None);
        assert_sound(&store);
    }
}

#[tokio::test]
async fn a_halted_run_writes_nothing_over_the_next_one() {
    let store = Store::in_memory().unwrap();
    furnish(&store);
    let old = begin(&store, SESSION);
    old.put_session("a@lid", b"old").await.unwrap();
    old.put_identity("a@lid", [1; 32]).await.unwrap();
    old.flush().await.unwrap();
    old.close().await;
    let new = begin(&store, SESSION);
    new.put_session("a@lid", b"new").await.unwrap();
    old.put_session("a@lid", b"older").await.unwrap_err();
    old.put_identity("a@lid", [2; 32]).await.unwrap_err();
    assert_eq!(new.get_session("a@lid").await.unwrap(), Some(Bytes::from_static(b"new")));
    assert_eq!(new.load_identity("a@lid").await.unwrap(), Some([1; 32]));
}

#[tokio::test]
async fn nothing_is_left_of_an_erased_session() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        furnish(&store);
        for session in [SESSION, OTHER] {
            let backend = begin(&store, session);
            play(&*backend).await;
            backend.flush().await.unwrap();
        }
    }
    let store = open(dir.path());
    let before = store.verify().unwrap().rows;
    let kinds = (0..=u8::MAX).filter(|kind| !store.list(ORG, SESSION, *kind).unwrap().is_empty()).count();
    assert!(kinds > 15, "{kinds} kinds of rows");
    let running = begin(&store, SESSION);
    running.put_identity("late@lid", [1; 32]).await.unwrap();

    store.commit_blocking(Commit { writes: vec![Write::EraseSession(SESSION)], ..Commit::new(ORG, NOW) }).unwrap();
    store.finish_erasures(NOW).await.unwrap();
    running.put_session("late@lid", b"x").await.unwrap_err();
    running.flush().await.unwrap_err();
    assert!(running.load().await.is_err());
    assert_eq!(store.list(ORG, SESSION, 1), Err(DeviceStoreError::Gone));
    assert!(store.verify().unwrap().rows < before);
    assert_sound(&store);
    assert!(begin(&store, OTHER).exists().await.unwrap(), "the other session's rows are all there");
}
