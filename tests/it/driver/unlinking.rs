//! Logging a device out, so that WhatsApp hears of it.

use std::time::Duration;

use portcullis_core::Fact;
use portcullis_engine::Engine;
use portcullis_whatsapp_server::{Faults, UnlinkedBy};

use super::stage::{ADA, Stage};

const UNLINKED: Fact = Fact::Unlinked { confirmed: true };
const GIVEN_UP: Fact = Fact::Unlinked { confirmed: false };

async fn hasty() -> Stage {
    Stage::with(Default::default(), |config| config.unlink_timeout = Duration::from_secs(3)).await
}

/// Nothing is left of the device here.
async fn assert_forgotten(stage: &Stage) {
    let actor = stage.actor(1);
    assert_eq!(stage.engine.run(actor.session), None);
    for _ in 0..9 {
        actor.launch().await;
    }
    assert_eq!(actor.until("logged-out").await, Fact::LoggedOut);
}

fn unlinked_by_device(stage: &Stage) -> bool {
    stage.server.state().unlinks.iter().any(|unlink| unlink.number == ADA && unlink.by == UnlinkedBy::Device)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connected_session_is_unlinked_over_its_connection() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    let accepted = stage.server.state().totals.accepted;
    actor.unlink().await;
    assert_eq!(actor.until("unlinked").await, UNLINKED);
    assert!(unlinked_by_device(&stage));
    assert_eq!(stage.server.state().totals.accepted, accepted, "no other connection was made");
    assert_forgotten(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_session_is_connected_just_to_be_unlinked() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    actor.halt().await;
    actor.unlink_anew().await;
    assert_eq!(actor.fact().await, UNLINKED);
    assert!(unlinked_by_device(&stage));
    assert_forgotten(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_whatsapp_does_not_confirm_is_given_up_and_forgotten_all_the_same() {
    let stage = hasty().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    let unanswered = ["md:remove-companion-device".to_owned()].into();
    stage.server.set_faults(Faults { unanswered, ..Faults::default() });
    actor.unlink().await;
    assert_eq!(actor.until("unlinked").await, GIVEN_UP);
    stage.server.set_faults(Faults::default());
    assert_forgotten(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_whatsapp_refuses_is_not_confirmed() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    let errors = [("md:remove-companion-device".to_owned(), 500)].into();
    stage.server.set_faults(Faults { errors, ..Faults::default() });
    actor.unlink().await;
    assert_eq!(actor.until("unlinked").await, GIVEN_UP);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_connect_is_given_up() {
    let stage = hasty().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    actor.halt().await;
    stage.server.set_faults(Faults { refuse_connects: true, ..Faults::default() });
    actor.unlink_anew().await;
    assert_eq!(actor.fact().await, GIVEN_UP);
    assert_forgotten(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_the_phone_has_removed_already_is_unlinked() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    actor.halt().await;
    stage.server.wait_until(|state| state.connections == 0).await;
    stage.server.unlink(ADA, None).unwrap();
    actor.unlink_anew().await;
    assert_eq!(actor.fact().await, UNLINKED);
    assert!(!unlinked_by_device(&stage));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_the_turn_to_connect_is_unlinked_at_once() {
    let stage = Stage::with(Default::default(), |config| config.connecting_at_once = 1).await;
    let (one, two) = (stage.actor(1), stage.actor(2));
    one.link(ADA).await;
    one.halt().await;
    two.link(ADA + 1).await;
    two.halt().await;
    stage.server.wait_until(|state| state.connections == 0).await;
    // The second has the only turn, and nobody answers it.
    let half_open = Some(portcullis_whatsapp_server::HalfOpen::Websocket);
    stage.server.set_faults(Faults { half_open, ..Faults::default() });
    let accepted = stage.server.state().totals.accepted;
    two.launch().await;
    stage.server.wait_until(|state| state.totals.accepted == accepted + 1).await;
    stage.server.set_faults(Faults::default());
    one.launch().await;
    one.unlink().await;
    assert_eq!(one.until("unlinked").await, UNLINKED);
}
