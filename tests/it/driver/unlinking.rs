//! Logging a device out, so that WhatsApp hears of it.

use std::time::Duration;

use portcullis_core::Fact;
use portcullis_core::session::PairingMethod;
use portcullis_engine::Engine;
use portcullis_whatsapp_server::{Action, Faults, State, UnlinkedBy};

use super::stage::{ADA, Actor, Stage};

const UNLINKED: Fact = Fact::Unlinked { confirmed: true };
const GIVEN_UP: Fact = Fact::Unlinked { confirmed: false };
/// How often what depends on a moment is tried.
const TRIES: usize = 8;

async fn hasty() -> Stage {
    Stage::with(Default::default(), |config| config.unlink_timeout = Duration::from_secs(3)).await
}

/// Nothing is left of the device here.
async fn assert_forgotten(stage: &Stage) {
    let actor = stage.actor(1);
    assert_eq!(stage.engine.run(actor.session), None);
    // This actor counts anew, up to a run that nobody has heard of before.
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

/// The device of a number that the server knows as linked.
fn linked(state: &State, number: u64) -> Option<u16> {
    let devices = &state.account(number)?.devices;
    devices.iter().find(|device| device.linked).map(|device| device.device)
}

/// What an unlink comes to if the phone has confirmed the link, or does so at that very moment.
async fn check_unlinked(actor: &Actor<'_>, number: u64) {
    let server = &actor.stage.server;
    loop {
        match actor.fact().await {
            UNLINKED => break,
            // The gateway was gone before it answered the phone, so that there is no link.
            Fact::NotLinked => {
                assert_eq!(server.state().unlinks.iter().filter(|unlink| unlink.number == number).count(), 0);
                break;
            }
            Fact::CodeIssued { .. } | Fact::Linked { .. } | Fact::Connected | Fact::Identified { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    server.wait_until(|state| linked(state, number).is_none()).await;
}

/// Pairs until the phone has scanned the code, and every other time until WhatsApp has linked the device.
async fn pair_to_the_moment(actor: &Actor<'_>, number: u64) {
    let server = &actor.stage.server;
    actor.pair(None).await;
    let qr = actor.code(PairingMethod::Qr).await;
    server.scan(number, &qr).unwrap();
    if number.is_multiple_of(2) {
        server.wait_until(|state| linked(state, number).is_some()).await;
    }
}

/// The story: a session was logged out in the milliseconds between WhatsApp's confirmation of its link and the lifecycle's hearing
/// of it. It was told that there was no link, and the phone went on listing a device whose keys were gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_confirmed_at_the_very_moment_is_undone() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    for number in (ADA..).take(TRIES) {
        pair_to_the_moment(&actor, number).await;
        actor.unlink().await;
        check_unlinked(&actor, number).await;
    }
}

/// The same, of a session that is stopped at that moment and deleted afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_was_confirmed_as_the_pairing_was_stopped_is_undone() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    for number in (ADA..).take(TRIES) {
        pair_to_the_moment(&actor, number).await;
        actor.halt().await;
        actor.unlink_anew().await;
        check_unlinked(&actor, number).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_pairs_or_never_has_had_a_link_has_none_to_undo() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.unlink_anew().await;
    assert_eq!(actor.fact().await, Fact::NotLinked);
    actor.pair(None).await;
    actor.code(PairingMethod::Qr).await;
    actor.unlink().await;
    assert_eq!(actor.until("not-linked").await, Fact::NotLinked);
    assert_eq!(stage.engine.run(actor.session), None);
    assert_eq!(stage.server.state().unlinks, []);
}

/// The story: a connection was taken over by another client at the moment of a logout. The end of the run was taken for the
/// end of the logout, which was cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_as_it_is_told_to_unlink_unlinks_all_the_same() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    for number in (ADA..).take(TRIES) {
        actor.link(number).await;
        let device = linked(&stage.server.state(), number).unwrap();
        stage.server.act(number, device, Action::Replace).unwrap();
        actor.unlink().await;
        loop {
            match actor.fact().await {
                UNLINKED => break,
                // It was said before the run had heard of the logout; the lifecycle does not listen to it any more.
                Fact::Ended { .. } | Fact::Identified { .. } | Fact::Connected | Fact::Disconnected => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(linked(&stage.server.state(), number).is_none());
    }
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
    let errors = [("md:remove-companion-device".to_owned(), 406)].into();
    stage.server.set_faults(Faults { errors, ..Faults::default() });
    actor.unlink().await;
    assert_eq!(actor.until("unlinked").await, GIVEN_UP);
}

/// The story: one answer of 503 in the wrong moment, and the device was given up with nine seconds left.
#[tokio::test(flavor = "multi_thread")]
async fn what_whatsapp_cannot_do_now_is_asked_for_again() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    let errors = [("md:remove-companion-device".to_owned(), 503)].into();
    stage.server.set_faults(Faults { errors, ..Faults::default() });
    actor.unlink().await;
    stage.server.wait_until(|state| !state.unlinks.is_empty()).await;
    stage.server.set_faults(Faults::default());
    assert_eq!(actor.until("unlinked").await, UNLINKED);
}

/// The story: WhatsApp was back after an outage, and who was logged out then waited for a client that waited for its next try. So
/// did who was logged out on a connection of which nobody had noticed that it was dead.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_lost_or_dead_is_not_waited_for() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    let device = linked(&stage.server.state(), ADA).unwrap();
    stage.server.act(ADA, device, Action::Silence).unwrap();
    actor.unlink().await;
    assert_eq!(actor.until("unlinked").await, UNLINKED);

    actor.link(ADA).await;
    let device = linked(&stage.server.state(), ADA).unwrap();
    stage.server.set_faults(Faults { refuse_connects: true, ..Faults::default() });
    stage.server.act(ADA, device, Action::Drop).unwrap();
    actor.until("disconnected").await;
    stage.server.set_faults(Faults::default());
    actor.unlink().await;
    assert_eq!(actor.until("unlinked").await, UNLINKED);
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
    stage.server.wait_until(|state| state.totals.accepted > accepted).await;
    stage.server.set_faults(Faults::default());
    one.launch().await;
    one.unlink().await;
    assert_eq!(one.until("unlinked").await, UNLINKED);
}
