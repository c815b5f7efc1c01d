//! What a crash leaves behind is made good, by looking at what is.

use std::time::Duration;

use portcullis_core::Operation;
use portcullis_core::operation::WhenStopped;

use crate::world::World;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn an_online_session_comes_back() {
    let mut world = World::new().await;
    let session = world.online().await;
    world.crash().await;
    assert_eq!(world.status(session).await, "starting");
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.status(session).await, "online");
}

#[tokio::test]
async fn a_pairing_session_shows_a_new_code() {
    let mut world = World::new().await;
    let session = world.create().await;
    world.execute(Operation::SessionQr { session }).await.unwrap();
    world.settle().await;
    let codes = |world: &World| world.events().iter().filter(|name| **name == "session.qr").count();
    assert_eq!(codes(&world), 1);
    world.crash().await;
    world.settle().await;
    assert_eq!((world.status(session).await, codes(&world)), ("pairing", 2));
}

#[tokio::test]
async fn stopped_and_logged_out_sessions_stay_as_they_are() {
    let mut world = World::new().await;
    let stopped = world.online().await;
    world.execute(Operation::SessionStop { session: stopped }).await.unwrap();
    let out = world.create().await;
    world.execute(Operation::SessionLogout { session: out, when_stopped: WhenStopped::Connect }).await.unwrap();
    world.crash().await;
    world.pass(HOUR).await;
    assert_eq!((world.status(stopped).await, world.status(out).await), ("stopped", "logged-out"));
}

#[tokio::test]
async fn a_pending_delete_is_still_pending_and_goes_when_due() {
    let mut world = World::new().await;
    world.bind_grace("PT1H").await;
    let session = world.online().await;
    world.execute(Operation::SessionDelete { session }).await.unwrap();
    world.crash().await;
    world.pass(HOUR - Duration::from_secs(1)).await;
    assert_eq!(world.status(session).await, "stopped");
    world.crash().await;
    world.pass(Duration::from_secs(5)).await;
    assert_eq!(world.status(session).await, "gone");
}

/// The story: a delete was committed, and the process died before the engine had unlinked the device.
#[tokio::test]
async fn a_deletion_under_way_goes_on() {
    let mut world = World::new().await;
    let session = world.online().await;
    world.execute(Operation::SessionDelete { session }).await.unwrap();
    assert_eq!(world.status(session).await, "removing");
    world.crash().await;
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.status(session).await, "gone");
}

/// The story: a logout was committed and answered, and the process died before WhatsApp was told.
#[tokio::test]
async fn a_logout_under_way_reaches_whatsapp() {
    let mut world = World::new().await;
    let session = world.online().await;
    world.execute(Operation::SessionLogout { session, when_stopped: WhenStopped::Connect }).await.unwrap();
    world.crash().await;
    assert!(world.session(session).await.unwrap().device.is_some(), "the credentials are needed to tell WhatsApp");
    world.pass(Duration::from_secs(1)).await;
    assert!(world.session(session).await.unwrap().device.is_none());
}
