//! Queued messages: accepted at once, sent when their session can, at most once, and never forgotten.

use std::time::Duration;

use portcullis_core::operation::SendText;
use portcullis_core::{Intent, MessageId, MessageState, Operation, OperationKind, Refusal, SessionId, Timestamp};
use portcullis_service::{Call, Dispatched, QuotaChange, SendCall, ServiceError, SimulatorAct};

use crate::guests::denying;
use crate::world::{FRIEND, START, World};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

impl World {
    /// How far a queued message is, in a word; why, if it failed; `gone` if nobody knows it any more.
    async fn state(&self, session: SessionId, id: MessageId) -> String {
        match self.message(session, id).await {
            Ok(message) => match message.state {
                MessageState::Failed { code } => code,
                state => state.name().to_owned(),
            },
            Err(ServiceError::NotFound("message")) => "gone".to_owned(),
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn sent_at(&self, session: SessionId, id: MessageId) -> Timestamp {
        match self.message(session, id).await.unwrap().state {
            MessageState::Sent { at, .. } => at,
            state => panic!("not sent: {state:?}"),
        }
    }

    async fn queue_typing(&self, session: SessionId) -> MessageId {
        let text = SendText { typing_millis: 5_000, ..SendText::plain(session, FRIEND, "slowly") };
        match self.dispatch(text, SendCall { queue: true, ..SendCall::default() }).await.unwrap() {
            Dispatched::Queued { message, .. } => message,
            other => panic!("not queued: {other:?}"),
        }
    }

    fn told(&self, event: &str) -> usize {
        self.events().iter().filter(|name| **name == event).count()
    }
}

#[tokio::test]
async fn what_is_queued_while_the_session_is_away_is_sent_in_order_and_at_its_pace() {
    let world = World::new().await;
    let session = world.create().await;
    let mut queued = Vec::new();
    for number in 0..8 {
        queued.push(world.queue(session, &format!("number {number}")).await.unwrap());
    }
    world.pass(HOUR).await;
    assert_eq!((world.state(session, queued[0]).await.as_str(), world.told("message.out")), ("queued", 0));
    world.connect(session).await;
    world.pass(60 * SECOND).await;
    let first = world.sent_at(session, queued[0]).await;
    for (id, number) in queued.iter().zip(0..) {
        assert_eq!(world.sent_at(session, *id).await, first.after(3 * number * SECOND), "message {number}");
    }
    assert_eq!(world.told("message.out"), 8);
    assert_eq!(world.service.sends(world.org, session).unwrap().1, 8);
}

#[tokio::test]
async fn the_queue_survives_a_crash_in_its_order() {
    let mut world = World::new().await;
    let session = world.online().await;
    let mut queued = Vec::new();
    for _ in 0..3 {
        queued.push(world.queue(session, "hello").await.unwrap());
    }
    world.settle().await;
    assert_eq!(world.state(session, queued[0]).await, "sent");
    world.crash().await;
    assert_eq!(world.state(session, queued[1]).await, "queued");
    world.pass(10 * SECOND).await;
    let mut times = Vec::new();
    for id in queued {
        times.push(world.sent_at(session, id).await);
    }
    assert!(times.is_sorted() && times[2].since(times[1]) == 3 * SECOND, "{times:?}");
    assert_eq!(world.told("message.out"), 3);
}

/// Nobody knows whether it went out, so it is not sent again.
#[tokio::test]
async fn what_was_being_sent_at_a_crash_has_failed_and_is_not_sent_again() {
    let world = World::new().await;
    let session = world.online().await;
    let now = world.service.now();
    let queued = world.queue_typing(session).await;
    let driver = tokio::spawn({
        let world = world.clone();
        async move { world.settle().await }
    });
    world.clock.rests(now, &[5]).await;
    assert_eq!(world.state(session, queued).await, "sending");
    driver.abort();
    assert!(driver.await.is_err());
    let mut world = world;
    world.crash().await;
    assert_eq!(world.state(session, queued).await, "interrupted");
    world.pass(HOUR).await;
    assert_eq!(world.state(session, queued).await, "interrupted");
    assert_eq!((world.told("message.out"), world.told("message.failed")), (0, 1));
    assert_eq!(world.service.sends(world.org, session).unwrap(), (0, 1), "it may have gone out, so it counts");
}

/// The story: the connection was lost while the chat saw somebody typing. The engine said that nothing went out,
/// and the message was given up nevertheless.
#[tokio::test]
async fn what_the_connection_was_lost_for_at_the_last_moment_is_sent_by_the_next_one() {
    let world = World::new().await;
    let session = world.online().await;
    let now = world.service.now();
    let queued = world.queue_typing(session).await;
    let driver = tokio::spawn({
        let world = world.clone();
        async move { world.settle().await }
    });
    world.clock.rests(now, &[5]).await;
    let permit = world.permit(OperationKind::Simulate, Some(session)).await;
    world
        .service
        .simulate(&permit, SimulatorAct::Disconnect { outage: Some(2 * SECOND) }, &Call::default())
        .await
        .unwrap();
    world.clock.advance(5 * SECOND);
    // It is typed once more.
    world.clock.rests(now, &[10]).await;
    assert_eq!(world.told("message.out"), 0);
    world.clock.advance(5 * SECOND);
    driver.await.unwrap();
    assert_eq!(world.state(session, queued).await, "sent");
    assert_eq!((world.told("message.out"), world.told("message.failed")), (1, 0));
}

/// The story: a message of a session that never came back was looked at only when it came back, and so stayed queued for ever.
#[tokio::test]
async fn a_message_expires_after_a_day_also_if_its_session_never_connects() {
    let world = World::new().await;
    let session = world.create().await;
    let early = world.queue(session, "early").await.unwrap();
    world.pass(SECOND).await;
    let late = world.queue(session, "late").await.unwrap();
    world.pass(24 * HOUR - SECOND - Duration::from_millis(1)).await;
    assert_eq!(world.state(session, early).await, "queued");
    world.pass(Duration::from_millis(1)).await;
    world.settle().await;
    assert_eq!(
        (world.state(session, early).await.as_str(), world.state(session, late).await.as_str()),
        ("expired", "queued")
    );
    assert_eq!(world.told("message.failed"), 1);
    world.pass(SECOND).await;
    world.settle().await;
    assert_eq!(world.state(session, late).await, "expired");
    assert_eq!(world.service.next_wake(), None, "the line is gone");
}

#[tokio::test]
async fn a_veto_at_acceptance_is_the_callers_and_a_veto_at_sending_is_the_messages() {
    let world = World::new().await;
    let session = world.online().await;
    let accepted = world.queue(session, "accepted").await.unwrap();
    let binding = world.bind(denying(), vec![OperationKind::MessageSend], "{}").await;
    let refused = world.queue(session, "refused").await;
    assert!(matches!(refused, Err(ServiceError::Vetoed { .. })), "{refused:?}");
    world.settle().await;
    assert_eq!(world.state(session, accepted).await, "vetoed");
    assert_eq!((world.told("policy.denied"), world.told("message.failed"), world.told("message.out")), (2, 1, 0));
    assert_eq!(world.service.sends(world.org, session).unwrap(), (0, 0));
    world.unbind(binding).await;
    let next = world.queue(session, "next").await.unwrap();
    world.settle().await;
    assert_eq!(world.state(session, next).await, "sent", "a message that failed holds nobody up");
}

#[tokio::test]
async fn an_organisation_has_no_more_open_messages_than_its_quota() {
    let world = World::new().await;
    let (away, online) = (world.create().await, world.online().await);
    world.set_quotas(QuotaChange { queued_messages: Some(2), ..QuotaChange::default() }).await;
    world.queue(away, "one").await.unwrap();
    world.queue(online, "two").await.unwrap();
    let refused = world.queue(away, "three").await;
    assert!(matches!(refused, Err(ServiceError::Quota { of: "queued messages", max: 2 })), "{refused:?}");
    world.settle().await;
    world.queue(away, "three").await.unwrap();
    world.execute(Operation::SessionDelete { session: away }).await.unwrap();
    world.pass(SECOND).await;
    world.queue(online, "four").await.unwrap();
    world.queue(online, "five").await.unwrap();
}

#[tokio::test]
async fn messages_go_with_their_session() {
    let world = World::new().await;
    let session = world.create().await;
    let queued = world.queue(session, "hello").await.unwrap();
    world.execute(Operation::SessionDelete { session }).await.unwrap();
    world.pass(SECOND).await;
    assert_eq!((world.status(session).await, world.state(session, queued).await.as_str()), ("gone", "gone"));
    assert_eq!(world.service.next_wake(), None, "the line is gone");
}

#[tokio::test]
async fn a_pending_delete_takes_no_new_messages_and_a_restore_sends_the_old_ones() {
    let world = World::new().await;
    world.bind_grace("PT72H").await;
    let session = world.online().await;
    let first = world.queue(session, "first").await.unwrap();
    let second = world.queue(session, "second").await.unwrap();
    world.settle().await;
    world.execute(Operation::SessionDelete { session }).await.unwrap();
    let refused = world.queue(session, "third").await;
    assert!(matches!(refused, Err(ServiceError::Refused(Refusal::PendingDelete))), "{refused:?}");
    world.pass(HOUR).await;
    assert!(matches!(world.session(session).await.unwrap().intent, Intent::Removed { .. }));
    let states = (world.state(session, first).await, world.state(session, second).await);
    assert_eq!((states.0.as_str(), states.1.as_str()), ("sent", "queued"));
    world.execute(Operation::SessionRestore { session }).await.unwrap();
    world.pass(2 * SECOND).await;
    assert_eq!(world.state(session, second).await, "sent");
}

/// The story: a line whose daily cap was used up waited for midnight, whatever policy was chosen meanwhile.
#[tokio::test]
async fn a_looser_policy_sends_what_the_old_one_held_back() {
    let world = World::new().await;
    let session = world.online().await;
    world.choose_policy(session, "strict").await.unwrap();
    let group = || SendText::plain(session, "120363041234567891@g.us", "hello");
    for _ in 0..20 {
        world.execute(Operation::MessageSend(group())).await.unwrap();
        world.pass(30 * SECOND).await;
    }
    let call = SendCall { queue: true, ..SendCall::default() };
    let Dispatched::Queued { message, .. } = world.dispatch(group(), call).await.unwrap() else { panic!("not queued") };
    world.pass(10 * 60 * SECOND).await;
    assert_eq!(world.state(session, message).await, "queued");
    let refusals = world.audit().await.iter().filter(|entry| entry.outcome.name() == "refused").count();
    assert_eq!(refusals, 0, "a message that only stays queued was not refused");
    world.choose_policy(session, "unlimited").await.unwrap();
    world.pass(60 * SECOND).await;
    assert_eq!(world.state(session, message).await, "sent");
    assert!(world.service.now() < START.start_of_day().after(24 * HOUR));
}
