//! Webhooks that are taken away, and what is seen of events for which their sessions wait.

use std::time::Duration;

use portcullis_core::{Clock, DeliveryState, Operation, Webhook};
use portcullis_store::DeliveryFilter;

use crate::receiver::Receiver;
use crate::world::World;

const LONG: Duration = Duration::from_secs(600);

impl World {
    async fn unhook(&self, webhook: &Webhook) {
        self.execute(Operation::WebhookDelete { webhook: webhook.id, within: None }).await.unwrap();
    }
}

/// Its line was at work and knew nothing of it: a receiver that its owner had taken away was told on and on, also what
/// happened afterwards, with its credentials.
#[tokio::test]
async fn a_webhook_that_is_taken_away_is_told_nothing_more() {
    let world = World::delivering().await;
    let session = world.create().await;
    let mut receiver = Receiver::answering(|_| (500, "")).await;
    let mut other = Receiver::new().await;
    let webhook = world.listen(None, &receiver, &["session.labels"]).await;
    world.listen(None, &other, &["session.labels"]).await;
    for label in 0..5 {
        world.label(session, &[("value", &format!("label-{label}"))]).await;
    }
    world.deliver();
    receiver.next().await;
    other.take(5).await;
    world.remembered(&webhook, DeliveryFilter::Waiting, 1).await;
    world.unhook(&webhook).await;
    world.label(session, &[("value", "afterwards")]).await;
    other.next().await;
    assert!(world.pass_until_told(&mut receiver, LONG).await.is_none());
    assert!(world.pass_until_told(&mut other, LONG).await.is_none(), "those who stay hear everything once");
}

#[tokio::test]
async fn the_end_of_a_session_is_told_to_no_webhook_that_was_taken_away() {
    let world = World::delivering().await;
    let session = world.create().await;
    let mut receiver = Receiver::answering(|_| (500, "")).await;
    let webhook = world.listen(None, &receiver, &["session.deleted"]).await;
    world.deliver();
    world.execute(Operation::SessionDelete { session }).await.unwrap();
    receiver.next().await;
    world.remembered(&webhook, DeliveryFilter::Waiting, 1).await;
    assert!(world.pass_until_told(&mut receiver, LONG).await.is_some(), "as long as it is there, it is tried again");
    world.unhook(&webhook).await;
    assert!(world.pass_until_told(&mut receiver, LONG).await.is_none());
}

/// Only what had come to an end was remembered: who looked why nothing came saw nothing, and a restart forgot the attempts.
#[tokio::test]
async fn an_attempt_is_seen_while_its_session_waits_for_the_next_one() {
    let mut world = World::delivering().await;
    let session = world.create().await;
    let mut receiver = Receiver::answering(|_| (500, "")).await;
    let webhook = world.listen(None, &receiver, &["session.labels"]).await;
    let driver = tokio::spawn(std::sync::Arc::clone(&world.service).run_deliveries());
    world.label(session, &[("value", "a")]).await;
    world.label(session, &[("value", "b")]).await;
    let first = receiver.next().await;
    let waiting = world.remembered(&webhook, DeliveryFilter::All, 1).await;
    let (_, delivery) = &waiting[0];
    assert_eq!((delivery.id.to_string(), delivery.record.attempts.len()), (first.id(), 1));
    assert!(matches!(delivery.state, DeliveryState::Waiting { due } if due > world.clock.now()));
    driver.abort();
    world.crash().await;
    world.deliver();
    let again = world.pass_until_told(&mut receiver, LONG).await.unwrap();
    assert_eq!(again.id(), first.id(), "the other one waits for it still");
    for _ in 0..10_000 {
        let known = world.remembered(&webhook, DeliveryFilter::All, 1).await;
        if known[0].1.record.attempts.len() == 2 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the attempts before the restart are forgotten");
}
