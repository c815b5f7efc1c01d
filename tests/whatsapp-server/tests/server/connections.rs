//! Connections that end, are refused, or go wrong.

use portcullis_whatsapp_server::{Action, Certificate, Faults};
use whatsapp_rust::types::events::Event;

use crate::client::{Client, linked, server, soon};

const ALICE: u64 = 15_551_000_001;

/// What happens to a connection, after which the client comes back by itself.
async fn comes_back_after(action: Action) {
    let server = server().await;
    let (alice, _, device) = linked(&server, ALICE).await;
    let before = server.state().device(ALICE, device).expect("it is linked").logins;
    server.act(ALICE, device, action).expect("it is connected");
    alice.event("the end", |event| matches!(event, Event::Disconnected(_)).then_some(())).await;
    alice.connected().await;
    let after = server.state().device(ALICE, device).expect("it is linked").logins;
    assert!(after.ik + after.xx > before.ik + before.xx, "{action:?}");
    alice.stop().await;
}

#[tokio::test]
async fn a_client_comes_back_after_a_drop() {
    comes_back_after(Action::Drop).await;
}

#[tokio::test]
async fn a_client_comes_back_after_no_service() {
    comes_back_after(Action::Error { code: 503 }).await;
}

#[tokio::test]
async fn a_client_bears_a_frame_that_it_cannot_read() {
    let server = server().await;
    let (alice, _, device) = linked(&server, ALICE).await;
    let before = server.state().device(ALICE, device).expect("it is linked").logins;
    server.act(ALICE, device, Action::Garbage).expect("it is connected");
    server.send(15_552_000_002, ALICE, None, "after garbage").expect("both are on WhatsApp");
    assert_eq!(alice.text().await, "after garbage");
    assert_eq!(server.state().device(ALICE, device).map(|device| device.logins), Some(before));
    alice.stop().await;
}

#[tokio::test]
async fn a_client_that_is_replaced_ends() {
    let server = server().await;
    let (alice, _, device) = linked(&server, ALICE).await;
    server.act(ALICE, device, Action::Replace).expect("it is connected");
    alice.event("the news", |event| matches!(event, Event::StreamReplaced(_)).then_some(())).await;
    alice.ended().await;
}

#[tokio::test]
async fn a_second_client_of_a_device_replaces_the_first() {
    let server = server().await;
    let (first, store, _) = linked(&server, ALICE).await;
    let second = Client::start(&server, &store).await;
    first.event("the news", |event| matches!(event, Event::StreamReplaced(_)).then_some(())).await;
    second.connected().await;
    first.ended().await;
    second.stop().await;
}

#[tokio::test]
async fn a_banned_account_is_told_for_how_long() {
    let server = server().await;
    let (alice, _, device) = linked(&server, ALICE).await;
    server.act(ALICE, device, Action::Ban { code: 101, expire: 600 }).expect("it is connected");
    let expire = alice.event("the ban", |event| match event {
        Event::TemporaryBan(ban) => Some(ban.expire.num_seconds()),
        _ => None,
    });
    assert_eq!(expire.await, 600);
    alice.ended().await;
}

#[tokio::test]
async fn an_outdated_client_is_told_so() {
    let server = server().await;
    let (alice, _, device) = linked(&server, ALICE).await;
    server.act(ALICE, device, Action::Outdated).expect("it is connected");
    alice.event("the news", |event| matches!(event, Event::ClientOutdated(_)).then_some(())).await;
    alice.ended().await;
}

#[tokio::test]
async fn refused_connects_are_counted_and_pass() {
    let server = server().await;
    let (alice, _, device) = linked(&server, ALICE).await;
    server.set_faults(Faults { refuse_connects: true, ..Default::default() });
    server.act(ALICE, device, Action::Drop).expect("it is connected");
    soon("a refused connect", server.wait_until(|state| state.totals.refused > 0)).await;
    server.set_faults(Faults::default());
    alice.connected().await;
    alice.stop().await;
}

#[tokio::test]
async fn a_client_that_knows_another_key_falls_back() {
    let server = server().await;
    let (alice, _, device) = linked(&server, ALICE).await;
    server.rekey(Certificate::Good);
    server.act(ALICE, device, Action::Drop).expect("it is connected");
    alice.event("the end", |event| matches!(event, Event::Disconnected(_)).then_some(())).await;
    alice.connected().await;
    let logins = server.state().device(ALICE, device).expect("it is linked").logins;
    assert_eq!(logins.fallback, 1, "{logins:?}");
    alice.stop().await;
}
