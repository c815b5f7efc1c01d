//! Linking a session to a phone.

use portcullis_core::session::{FailureCause, PairingMethod};
use portcullis_core::{Device, Fact};
use portcullis_engine::{Engine, Task};
use portcullis_whatsapp_server::{Faults, ServerConfig};

use super::stage::{ADA, BOB, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_links_a_session_which_then_connects() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    let device = actor.link(ADA).await;
    assert_eq!(device.jid, format!("{ADA}@s.whatsapp.net"));
    let lid = stage.server.state().account(ADA).unwrap().lid;
    assert_eq!(device.lid, Some(format!("{lid}@lid")));
    let state = stage.server.wait_until(|state| state.connections == 1).await;
    assert!(state.account(ADA).unwrap().devices[0].linked);
    assert_eq!(state.totals.pairings, 1);
    assert_eq!(stage.engine.run(actor.session), Some(actor.attempt()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_is_typed_links_a_session() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.pair(Some(&ADA.to_string())).await;
    let code = actor.code(PairingMethod::Code).await;
    assert_eq!(code.len(), 8);
    stage.server.code(ADA, &code).await.unwrap();
    let Fact::Linked { device } = actor.until("linked").await else { unreachable!() };
    assert_eq!(device.phone(), ADA.to_string());
    actor.until("connected").await;
    assert!(actor.said().iter().all(|said| *said != "code-issued"), "no QR code is shown to who types");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_number_that_can_be_none_is_refused() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.pair(Some("0123")).await;
    assert_eq!(actor.fact().await, Fact::Ended { cause: FailureCause::PairingRefused, until: None });
    assert_eq!(stage.engine.run(actor.session), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_whatsapp_refuses_ends_the_pairing() {
    let stage = Stage::new().await;
    let errors = [("md:link_code_companion_reg".to_owned(), 400)].into();
    stage.server.set_faults(Faults { errors, ..Faults::default() });
    let actor = stage.actor(1);
    actor.pair(Some(&ADA.to_string())).await;
    assert_eq!(actor.fact().await, Fact::Ended { cause: FailureCause::PairingRefused, until: None });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pairing_without_a_code_left_is_over() {
    // WhatsApp gives no code at all, so that there is none left at once.
    let stage = Stage::with(ServerConfig { references: 0, ..ServerConfig::default() }, |_| {}).await;
    let actor = stage.actor(1);
    actor.pair(None).await;
    assert_eq!(actor.fact().await, Fact::CodesExhausted);
    assert_eq!(stage.engine.run(actor.session), None);
    stage.server.wait_until(|state| state.connections == 0).await;
    assert_eq!(actor.said(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_to_type_that_is_spent_is_followed_by_another() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.pair(Some(&ADA.to_string())).await;
    let spent = actor.code(PairingMethod::Code).await;
    stage.server.spend_code(ADA).unwrap();
    let code = actor.code(PairingMethod::Code).await;
    assert_ne!(code, spent);
    stage.server.code(ADA, &code).await.unwrap();
    actor.until("linked").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pairing_without_a_server_says_why_there_is_no_code() {
    let stage =
        Stage::with(Default::default(), |config| config.first_code_timeout = std::time::Duration::from_secs(5)).await;
    stage.server.set_faults(Faults { refuse_connects: true, ..Faults::default() });
    let actor = stage.actor(1);
    actor.pair(None).await;
    assert_eq!(actor.fact().await, Fact::Ended { cause: FailureCause::Unreachable, until: None });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pairing_that_is_halted_says_nothing_more_and_another_begins_afresh() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.pair(None).await;
    let old = actor.code(PairingMethod::Qr).await;
    actor.halt().await;
    assert_eq!(stage.engine.run(actor.session), None);
    stage.server.wait_until(|state| state.connections == 0).await;
    stage.server.scan(ADA, &old).unwrap_err();
    actor.link(ADA).await;
    assert_eq!(actor.said(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_was_confirmed_and_not_recorded_is_found_by_the_next_pairing() {
    let mut stage = Stage::new().await;
    stage.actor(1).link(ADA).await;
    // The process ends before anybody could write down what was reported.
    stage.restart().await;
    let actor = stage.actor(1);
    actor.pair(None).await;
    let Fact::Linked { device: Device { jid, .. } } = actor.fact().await else { panic!("it is linked") };
    assert_eq!(jid, format!("{ADA}@s.whatsapp.net"));
    assert_eq!(actor.fact().await, Fact::Connected);
    assert_eq!(stage.server.state().totals.pairings, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_whatsapp_does_not_know_is_forgotten_before_codes_are_shown() {
    let mut stage = Stage::new().await;
    stage.actor(1).link(ADA).await;
    stage.restart().await;
    stage.server.unlink(ADA, None).unwrap();
    let actor = stage.actor(1);
    actor.pair(None).await;
    let qr = actor.code(PairingMethod::Qr).await;
    stage.server.scan(BOB, &qr).unwrap();
    let Fact::Linked { device } = actor.until("linked").await else { unreachable!() };
    assert_eq!(device.phone(), BOB.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_forgotten_is_not_found_again() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    // No halt comes before: forgetting ends whatever runs.
    actor.perform(Task::Forget).await;
    assert_eq!(stage.engine.run(actor.session), None);
    actor.pair(None).await;
    actor.code(PairingMethod::Qr).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pairing_shows_so_many_codes_to_type_and_no_more() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.pair(Some(&ADA.to_string())).await;
    for _ in 0..3 {
        actor.code(PairingMethod::Code).await;
        stage.server.spend_code(ADA).unwrap();
    }
    assert_eq!(actor.fact().await, Fact::CodesExhausted);
}
