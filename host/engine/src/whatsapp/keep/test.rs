//! What the client's calls cost, and what is known of an account after each of them.
//!
//! The sequences are those of the client's own code, call by call. Whether the answers are right is compared with the client's
//! own storage beside the real store, in the tests of the whole gateway.

use bytes::Bytes;
use whatsapp_rust::wacore::store::Device;
use whatsapp_rust::wacore::store::traits::{
    AppSyncStore, DeviceListRecord, DeviceStore as _, LidPnMappingEntry, MsgSecretEntry, MsgSecretStore, ProtocolStore,
    SignalStore,
};
use whatsapp_rust::waproto::whatsapp::ADVSignedDeviceIdentity;

use super::*;
use crate::test::Memory;

const ORG: OrgId = OrgId::from_bytes([2; 16]);
const SESSION: SessionId = SessionId::from_bytes([1; 16]);
const CONTACT: &str = "49151@s.whatsapp.net";

fn begin() -> (Arc<Memory>, Arc<DeviceBackend>) {
    let memory = Arc::new(Memory::default());
    let backend = DeviceBackend::new(memory.clone(), ORG, SESSION);
    (memory, backend)
}

/// How many commits an act costs at once, and how many more before everything is durable.
async fn cost(memory: &Memory, backend: &DeviceBackend, act: impl Future<Output = Result<()>>) -> (usize, usize) {
    let before = memory.commits();
    act.await.unwrap();
    let at_once = memory.commits() - before;
    backend.flush().await.unwrap();
    (at_once, memory.commits() - before - at_once)
}

fn address() -> Arc<str> {
    Arc::from(format!("{CONTACT}.0"))
}

/// `SignalStoreCache::flush` as it is after a text.
async fn flush_signal(backend: &DeviceBackend, is_first: bool) -> Result<()> {
    backend.put_sessions_batch(&[(address(), Bytes::from(vec![7; 2_000]))]).await?;
    if is_first {
        backend.remove_prekey(5).await?;
        backend.put_identities_batch(&[(address(), [9; 32])]).await?;
    }
    Ok(())
}

/// From the hook's row to the coalesced flush, as `commit_inbound_batch` and `schedule_signal_flush` do it.
async fn text_in(backend: &DeviceBackend, id: &str, is_first: bool) -> Result<()> {
    let secret = MsgSecretEntry {
        chat: CONTACT.into(),
        sender: CONTACT.into(),
        msg_id: id.into(),
        secret: [3; 32],
        expires_at: i64::MAX,
        message_ts: 1,
    };
    backend.put_msg_secrets(vec![secret]).await?;
    backend.store_pending_inbound(CONTACT, CONTACT, id, b"hello").await?;
    backend.delete_pending_inbound(CONTACT, CONTACT, id).await?;
    flush_signal(backend, is_first).await
}

/// A send, as `send_message_impl` does it: what it looks up, what is durable before the wire, what is remembered.
async fn text_out(backend: &DeviceBackend, id: &str, is_first: bool) -> Result<()> {
    if is_first {
        let mapping = LidPnMappingEntry {
            lid: "100".into(),
            phone_number: "49151".into(),
            created_at: 1,
            updated_at: 1,
            learning_source: "usync".into(),
        };
        backend.put_lid_mapping(&mapping).await?;
        let devices = DeviceListRecord { user: "100".into(), devices: vec![], timestamp: 1, phash: None, raw_id: None };
        backend.update_device_list(devices).await?;
    }
    backend.store_sent_message(CONTACT, id, b"hello").await?;
    flush_signal(backend, is_first).await?;
    backend.touch_tc_token_sender_timestamp("100", 1).await
}

#[tokio::test]
async fn eight_hundred_pre_keys_are_one_commit() {
    let (memory, backend) = begin();
    let keys: Vec<_> = (1..=812).map(|id| (id, Bytes::from(vec![1; 74]))).collect();
    let uploaded: Vec<_> = keys.iter().map(|(id, _)| *id).collect();
    let stored = cost(&memory, &backend, backend.store_prekeys_batch(&keys, false)).await;
    assert_eq!(stored, (1, 0));
    assert_eq!(cost(&memory, &backend, backend.mark_prekeys_uploaded(&uploaded)).await, (0, 0));
    assert_eq!(backend.get_max_prekey_id().await.unwrap(), 812);
    assert_eq!(backend.load_prekeys_batch(&uploaded).await.unwrap(), keys);
    assert_eq!((backend.rows.bytes(), memory.rows()), (0, 812), "none of them stays in memory");
}

#[tokio::test]
async fn a_login_is_a_handful_of_commits() {
    let (memory, backend) = begin();
    let login = async {
        backend.create().await?;
        let device = backend.load().await?.expect("it was created");
        // Linked; before the pre-keys are generated; before they are uploaded; after.
        backend.save(&device).await?;
        backend.store_prekeys_batch(&[(1, Bytes::from_static(b"key"))], false).await?;
        for _ in 0..3 {
            backend.save(&device).await?;
        }
        for collection in ["critical_block", "critical_unblock_low", "regular_high", "regular_low", "regular"] {
            backend.clear_mutation_macs(collection).await?;
            backend.set_version(collection, backend.get_version(collection).await?).await?;
        }
        Ok(())
    };
    assert_eq!(cost(&memory, &backend, login).await, (5, 1));
}

#[tokio::test]
async fn a_text_is_one_commit_and_the_first_of_a_contact_one_more_in_its_time() {
    let (memory, backend) = begin();
    assert_eq!(cost(&memory, &backend, text_in(&backend, "1", true)).await, (1, 1));
    assert_eq!(cost(&memory, &backend, text_in(&backend, "2", false)).await, (1, 0));
    assert_eq!(cost(&memory, &backend, text_out(&backend, "3", true)).await, (1, 1));
    let before = memory.commits();
    for id in 0..10 {
        text_in(&backend, &format!("in {id}"), false).await.unwrap();
        text_out(&backend, &format!("out {id}"), false).await.unwrap();
    }
    assert_eq!(memory.commits() - before, 20, "what is remembered after a text goes with the next one");
}

#[tokio::test]
async fn an_idle_hour_writes_nothing() {
    let (memory, backend) = begin();
    text_in(&backend, "1", true).await.unwrap();
    text_out(&backend, "2", true).await.unwrap();
    backend.flush().await.unwrap();
    let sweeps = async {
        for _ in 0..60 {
            backend.delete_expired_sent_messages(0).await?;
            backend.delete_expired_pending_inbound(0).await?;
            backend.delete_expired_msg_secrets(0).await?;
            backend.delete_expired_tc_tokens(0, 0).await?;
        }
        Ok(())
    };
    assert_eq!(cost(&memory, &backend, sweeps).await, (0, 0));
    assert_eq!(backend.resource_report().await.memory_bytes, Some(0));
}

#[tokio::test]
async fn what_the_device_says_of_its_account() {
    let (memory, backend) = begin();
    assert_eq!(backend.linked().await.unwrap(), None);
    backend.create().await.unwrap();
    assert_eq!(backend.linked().await.unwrap(), None, "the keys of a device that was never linked");

    let mut device = Device::new();
    device.pn = Some("49151:7@s.whatsapp.net".parse().unwrap());
    backend.save(&device).await.unwrap();
    assert_eq!(backend.linked().await.unwrap(), None, "the phone has confirmed, and nobody has answered it");

    device.account = Some(Arc::new(ADVSignedDeviceIdentity::default()));
    device.lid = Some("100:7@lid".parse().unwrap());
    device.push_name = "Ada".to_owned();
    backend.save(&device).await.unwrap();
    let linked = DeviceBackend::new(memory, ORG, SESSION).linked().await.unwrap();
    let expected = LinkedDevice { pn: device.pn.unwrap(), lid: device.lid, push_name: "Ada".to_owned() };
    assert_eq!(linked, Some(expected), "the next start reads what the last one wrote");
}

/// The story: a number had gone over to another LID, and was forgotten when the LID that had it before got one of its own.
#[tokio::test]
async fn a_number_stays_with_the_lid_that_it_was_seen_with_last() {
    let (_, backend) = begin();
    let learn = async |lid: &str, phone: &str| {
        let mapping = LidPnMappingEntry {
            lid: lid.to_owned(),
            phone_number: phone.to_owned(),
            created_at: 1,
            updated_at: 1,
            learning_source: "usync".to_owned(),
        };
        backend.put_lid_mapping(&mapping).await.unwrap();
    };
    let lid = async |phone: &str| backend.get_pn_mapping(phone).await.unwrap().map(|mapping| mapping.lid);
    for (lid, phone) in [("100", "49151"), ("200", "49151"), ("100", "49152")] {
        learn(lid, phone).await;
    }
    assert_eq!((lid("49151").await, lid("49152").await), (Some("200".to_owned()), Some("100".to_owned())));
    learn("200", "49153").await;
    assert_eq!(lid("49151").await, None, "whose it is now is not known");
}

#[tokio::test]
async fn ids_that_others_choose_stop_nothing() {
    let (_, backend) = begin();
    let (long, longer) = ("x".repeat(5_000), "x".repeat(5_001));
    backend.store_pending_inbound(CONTACT, CONTACT, &long, b"hello").await.unwrap();
    backend.store_pending_inbound(CONTACT, CONTACT, "huge", &vec![b'x'; 2 << 20]).await.unwrap();
    let got = async |id: &str| backend.get_pending_inbound(CONTACT, CONTACT, id).await.unwrap();
    assert_eq!((got(&long).await, got(&longer).await), (Some(b"hello".to_vec()), None));
    assert_eq!(got("huge").await, None, "it is delivered, but not kept until then");
    backend.flush().await.unwrap();
}

#[tokio::test]
async fn an_error_says_nothing_of_what_was_written() {
    let (_, backend) = begin();
    let refused = backend.put_group_metadata("secret@g.us", &vec![b'x'; 2 << 20]).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "data validation failed: a row of kind 15 is too long: a name of 15 bytes and a value of 2097152 bytes"
    );
}
