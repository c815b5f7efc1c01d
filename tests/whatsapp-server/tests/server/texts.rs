//! Texts between phones and linked devices, what is acknowledged, and what is kept until it is.

use portcullis_whatsapp_server::{Action, Faults, Server, ServerConfig, Text, UnknownNumbers};
use whatsapp_rust::Jid;
use whatsapp_rust::types::events::Event;
use whatsapp_rust::types::presence::ReceiptType;

use crate::client::{Client, linked, server, soon, store};

const ALICE: u64 = 15_551_000_001;
const BOB: u64 = 15_552_000_002;

/// Waits until a text has come as far as wanted.
async fn text(server: &Server, id: &str, wanted: impl Fn(&Text) -> bool) -> Text {
    let state = server.wait_until(|state| state.text(id).is_some_and(&wanted));
    soon("the text", state).await.text(id).cloned().expect("it was just there")
}

#[tokio::test]
async fn a_device_texts_a_phone_and_is_told_what_became_of_it() {
    let server = server().await;
    let (alice, _, device) = linked(&server, ALICE).await;
    let id = alice.send(BOB, "hello Bob").await;
    let seen = text(&server, &id, |text| text.decrypted > 0).await;
    assert_eq!((seen.number, seen.device, seen.to, seen.accepted, seen.decrypted), (ALICE, device, BOB, 1, 1));
    assert_eq!(seen.text.as_deref(), Some("hello Bob"));
    let receipt = |kind: fn(&ReceiptType) -> bool| {
        let id = id.clone();
        move |event: &Event| match event {
            Event::Receipt(receipt) if receipt.message_ids.contains(&id) && kind(&receipt.r#type) => Some(()),
            _ => None,
        }
    };
    alice.event("the delivery", receipt(|kind| matches!(kind, ReceiptType::Delivered))).await;
    server.read(BOB, &id).expect("it is Bob's");
    alice.event("the reading", receipt(|kind| matches!(kind, ReceiptType::Read))).await;
    alice.stop().await;
}

#[tokio::test]
async fn a_phone_texts_every_linked_device_of_an_account() {
    let server = server().await;
    let (first, _, one) = linked(&server, ALICE).await;
    let (second, _, two) = linked(&server, ALICE).await;
    let id = server.send(BOB, ALICE, None, "hello both").expect("both are on WhatsApp");
    assert_eq!(first.text().await, "hello both");
    assert_eq!(second.text().await, "hello both");
    let received = |text: &Text, device| text.copies.iter().any(|copy| copy.device == device && copy.receipt.is_some());
    let seen = text(&server, &id, |text| received(text, one) && received(text, two)).await;
    assert_eq!(seen.copies.iter().map(|copy| copy.sent).collect::<Vec<_>>(), [1, 1]);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn two_accounts_text_each_other() {
    let server = server().await;
    let (alice, _, _) = linked(&server, ALICE).await;
    let (bob, _, device) = linked(&server, BOB).await;
    let id = alice.send(BOB, "from Alice").await;
    assert_eq!(bob.text().await, "from Alice");
    let received = |text: &Text| text.copies.iter().any(|copy| copy.device == device && copy.receipt.is_some());
    let seen = text(&server, &id, |text| text.decrypted == 1 && received(text)).await;
    assert_eq!(seen.text.as_deref(), Some("from Alice"));
    bob.send(ALICE, "from Bob").await;
    assert_eq!(alice.text().await, "from Bob");
    alice.send(BOB, "and again").await;
    assert_eq!(bob.text().await, "and again");
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn what_comes_while_a_device_is_away_waits_for_it() {
    let server = server().await;
    let (alice, store, device) = linked(&server, ALICE).await;
    alice.stop().await;
    soon("the end", server.wait_until(|state| state.connections == 0)).await;
    let id = server.send(BOB, ALICE, None, "for later").expect("both are on WhatsApp");
    assert_eq!(server.state().device(ALICE, device).map(|device| device.mail), Some(1));
    let alice = Client::start(&server, &store).await;
    assert_eq!(alice.text().await, "for later");
    let seen = text(&server, &id, |text| text.copies.iter().any(|copy| copy.receipt.is_some())).await;
    assert_eq!(seen.copies[0].sent, 1);
    alice.stop().await;
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_and_is_told_once() {
    let server = server().await;
    let (alice, _, device) = linked(&server, ALICE).await;
    server.set_faults(Faults { lose_receipts: true, ..Default::default() });
    let id = server.send(BOB, ALICE, None, "twice").expect("both are on WhatsApp");
    assert_eq!(alice.text().await, "twice");
    soon("the lost receipt", server.wait_until(|state| state.totals.lost_receipts > 0)).await;
    server.set_faults(Faults::default());
    server.act(ALICE, device, Action::Drop).expect("it is connected");
    let received = |text: &Text| text.copies.iter().any(|copy| copy.receipt.is_some());
    let seen = text(&server, &id, received).await;
    assert_eq!(seen.copies[0].sent, 2);
    server.send(BOB, ALICE, None, "after it").expect("both are on WhatsApp");
    assert_eq!(alice.text().await, "after it", "the first one is not told again");
    alice.stop().await;
}

#[tokio::test]
async fn an_account_at_its_limit_is_told_463() {
    let server = server().await;
    let (alice, _, _) = linked(&server, ALICE).await;
    server.set_faults(Faults { refuse_messages: Some(463), ..Default::default() });
    let id = alice.send(BOB, "too much").await;
    let error = alice.event("the refusal", |event| match event {
        Event::ServerAck(ack) if ack.id == id => ack.error.clone(),
        _ => None,
    });
    assert_eq!(error.await, "463");
    let seen = text(&server, &id, |text| text.refused.is_some()).await;
    assert_eq!((seen.refused, seen.accepted, seen.decrypted), (Some(463), 0, 0));
    alice.stop().await;
}

#[tokio::test]
async fn numbers_are_on_whatsapp_or_not() {
    let check = async |unknown_numbers, number: u64| {
        let server = Server::start(ServerConfig { unknown_numbers, ..Default::default() }).await.expect("a free port");
        server.phone(BOB).expect("a number");
        let (alice, _, _) = linked(&server, ALICE).await;
        let asked = [Jid::pn(number.to_string())];
        let found = Box::pin(alice.inner.contacts().is_on_whatsapp(&asked)).await.expect("the server answers");
        alice.stop().await;
        found.iter().map(|each| each.is_registered).collect::<Vec<_>>()
    };
    assert_eq!(check(UnknownNumbers::Exist, 15_553_000_003).await, [true]);
    assert_eq!(check(UnknownNumbers::Exist, 15_553_450_000).await, [false]);
    assert_eq!(check(UnknownNumbers::Absent, 15_553_000_003).await, [false]);
    assert_eq!(check(UnknownNumbers::Absent, BOB).await, [true]);
}

#[tokio::test]
async fn a_message_whose_ack_is_withheld_is_delivered_all_the_same() {
    let server = server().await;
    let store = store();
    let alice = Client::start(&server, &store).await;
    alice.scanned_by(&server, ALICE).await;
    server.set_faults(Faults { withhold_acks: true, ..Default::default() });
    let id = alice.send(BOB, "unconfirmed").await;
    assert_eq!(text(&server, &id, |text| text.decrypted == 1).await.accepted, 1);
    alice.stop().await;
}
