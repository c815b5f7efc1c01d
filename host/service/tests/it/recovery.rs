//! What a crash leaves behind is made good, by looking at what is.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use portcullis_core::operation::WhenStopped;
use portcullis_core::{Clock, DeviceStore, Operation, OperationKind};
use portcullis_service::{Call, SimulatorAct};
use portcullis_store::Commit;

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

/// The story: the phone unlinked the device, that was committed, and the process died before the credentials were forgotten.
/// Nothing knew any more that there was something to forget, and the next link was made on top of them.
#[tokio::test]
async fn credentials_do_not_outlive_their_link_whenever_the_process_dies() {
    for rounds in (0..320).step_by(8) {
        let mut world = World::new().await;
        let session = world.online().await;
        let permit = world.permit(OperationKind::Simulate, Some(session)).await;
        world.service.simulate(&permit, SimulatorAct::Unlink, &Call::default()).await.unwrap();
        let service = Arc::clone(&world.service);
        let (mut working, mut left) = (Box::pin(service.tick()), rounds);
        poll_fn(|context| {
            // Not only when there is something to hear: most of it happens in tasks of its own.
            context.waker().wake_by_ref();
            left -= 1;
            if working.as_mut().poll(context).is_ready() || left < 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        drop(working);
        // What was handed to the writer is done.
        world.store.commit(Commit::new(world.org, world.clock.now())).await.unwrap();
        world.crash().await;
        let is_linked = world.session(session).await.unwrap().device.is_some();
        let credentials = world.store.read(world.org, session, 0, b"simulated-device").unwrap();
        assert_eq!(credentials.is_some(), is_linked, "{rounds} rounds into it");
    }
}
