//! How devices come and go: by scan, by code, and by either side's wish.

use portcullis_whatsapp_server::{Faults, ServerError, UnlinkedBy};
use whatsapp_rust::pair_code::PairCodeOptions;
use whatsapp_rust::types::events::Event;

use crate::client::{Client, linked, server, soon, store};

const ALICE: u64 = 15_551_000_001;

#[tokio::test]
async fn a_scan_links_a_device_that_comes_back_by_itself() {
    let server = server().await;
    let (client, store, device) = linked(&server, ALICE).await;
    assert_eq!(device, 1);
    assert_eq!(client.inner.pn().map(|jid| jid.user.to_string()), Some(ALICE.to_string()));
    let state = server.state();
    let first = state.device(ALICE, device).expect("it is linked").logins;
    assert!(first.xx + first.ik > 0 && first.fallback == 0, "{first:?}");
    assert_eq!((state.totals.registrations, state.totals.pairings, state.waiting), (1, 1, 0));

    client.stop().await;
    soon("the end", server.wait_until(|state| state.connections == 0)).await;
    let again = Client::start(&server, &store).await;
    again.connected().await;
    let logins = server.state().device(ALICE, device).expect("it is linked").logins;
    assert_eq!(logins.ik, first.ik + 1, "it knows the server's key by now");
    assert_eq!(server.state().totals.registrations, 1);
    again.stop().await;
}

#[tokio::test]
async fn only_the_code_of_a_device_that_waits_links_it() {
    let server = server().await;
    let client = Client::start(&server, &store()).await;
    let qr = client.qr().await;
    assert!(matches!(server.scan(ALICE, "nonsense"), Err(ServerError::Qr)));
    let mut parts: Vec<&str> = qr.split(',').collect();
    parts[0] = "2@somebodyelse";
    assert!(matches!(server.scan(ALICE, &parts.join(",")), Err(ServerError::NobodyWaits)));
    server.scan(ALICE, &qr).expect("the code is right");
    assert!(matches!(server.scan(ALICE, &qr), Err(ServerError::NobodyWaits)), "a code serves once");
    client.connected().await;
    client.stop().await;
}

#[tokio::test]
async fn a_typed_code_links_a_device_and_a_wrong_one_does_not() {
    let server = server().await;
    let client = Client::start(&server, &store()).await;
    client.qr().await;
    assert!(matches!(server.code(ALICE, "ABCD1234").await, Err(ServerError::NobodyWaits)));
    let options = PairCodeOptions { phone_number: ALICE.to_string(), ..Default::default() };
    let code = Box::pin(client.inner.pair_with_code(options)).await.expect("the server takes part");
    let wrong = if code.starts_with('A') { "BBBBBBBB" } else { "AAAAAAAA" };
    let refused = soon("the refusal", server.code(ALICE, wrong)).await;
    assert!(matches!(refused, Err(ServerError::Code)), "{refused:?}");
    assert_eq!(server.state().totals.pairings, 0);
    let device = soon("the device", server.code(ALICE, &code)).await.expect("the code is right");
    client.connected().await;
    assert!(server.state().device(ALICE, device).is_some_and(|device| device.linked));
    client.stop().await;
}

#[tokio::test]
async fn a_logout_is_seen_and_ends_the_link() {
    let server = server().await;
    let (client, store, device) = linked(&server, ALICE).await;
    client.inner.logout().await;
    client.logged_out().await;
    let state = server.state();
    let unlink = state.unlinks.first().expect("the server has seen it");
    assert_eq!((unlink.number, unlink.device, unlink.by, unlink.confirmed), (ALICE, device, UnlinkedBy::Device, true));
    client.ended().await;

    let stale = Client::start(&server, &store).await;
    let on_connect = stale.event("the refusal", |event| match event {
        Event::LoggedOut(out) => Some(out.on_connect),
        _ => None,
    });
    assert!(on_connect.await);
    stale.ended().await;
}

#[tokio::test]
async fn a_logout_that_is_not_answered_is_seen_and_ends_no_link() {
    let server = server().await;
    let (client, _, device) = linked(&server, ALICE).await;
    let unanswered = ["md:remove-companion-device".to_owned()].into();
    server.set_faults(Faults { unanswered, ..Default::default() });
    client.inner.logout().await;
    let state = server.state();
    assert_eq!(state.unlinks.iter().map(|unlink| unlink.confirmed).collect::<Vec<_>>(), [false]);
    assert!(state.device(ALICE, device).is_some_and(|device| device.linked));
    client.ended().await;
}

#[tokio::test]
async fn a_phone_unlinks_one_device_and_leaves_the_other() {
    let server = server().await;
    let (first, _, one) = linked(&server, ALICE).await;
    let (second, _, two) = linked(&server, ALICE).await;
    assert_eq!(server.unlink(ALICE, Some(one)).expect("it is linked"), [one]);
    first.logged_out().await;
    first.ended().await;
    let state = server.state();
    assert_eq!(state.unlinks.iter().map(|unlink| unlink.by).collect::<Vec<_>>(), [UnlinkedBy::Phone]);
    assert!(state.device(ALICE, two).is_some_and(|device| device.linked && device.connected.is_some()));
    assert!(matches!(server.unlink(ALICE, Some(one)), Err(ServerError::NoDevice)));
    second.stop().await;
}
