//! Idempotency keys: the same key sends the same message once, for a day, within one organisation.

use std::time::Duration;

use portcullis_core::operation::SendText;
use portcullis_core::{Clock, MessageState, Operation, OperationKind, Principal, SessionId, Target};
use portcullis_service::{Call, Dispatched, Outcome, SendCall, ServiceError};
use tokio::task::JoinSet;

use crate::guests::denying;
use crate::world::{FRIEND, World};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl World {
    fn sent(&self) -> usize {
        self.events().iter().filter(|name| **name == "message.out").count()
    }
}

/// An answer in a word, and of a message that was replayed how far it is.
fn word(answer: &Result<Dispatched, ServiceError>) -> String {
    match answer {
        Ok(Dispatched::Done(done)) if matches!(done.outcome, Outcome::Sent(_)) => "sent".into(),
        Ok(Dispatched::Done(done)) => format!("{:?}", done.outcome),
        Ok(Dispatched::Queued { .. }) => "queued".into(),
        Ok(Dispatched::Replayed(message)) => format!("replayed, {}", message.state.name()),
        Err(error) => error.code().into(),
    }
}

#[tokio::test]
async fn the_same_key_answers_what_became_of_the_message() {
    let world = World::new().await;
    let session = world.online().await;
    let away = world.create().await;
    let table = [
        (session, FRIEND, false, "sent", "replayed, sent"),
        (session, "49120000@s.whatsapp.net", false, "unknown_recipient", "replayed, failed"),
        (away, FRIEND, true, "queued", "replayed, queued"),
    ];
    for ((session, to, queue, first, again), number) in table.into_iter().zip(0..) {
        world.clock.advance(3 * SECOND);
        let call = || SendCall { key: Some(format!("key {number}")), queue, ..SendCall::default() };
        let counted = |world: &World| world.service.sends(world.org, session).unwrap().1;
        assert_eq!(word(&world.dispatch(SendText::plain(session, to, "hello"), call()).await), first);
        let before = counted(&world);
        // The rate limit is used up, but an answer that is known costs nothing.
        for _ in 0..3 {
            assert_eq!(word(&world.dispatch(SendText::plain(session, to, "hello"), call()).await), again, "{first}");
        }
        assert_eq!(counted(&world), before);
    }
    assert_eq!(world.sent(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_come_with_one_key_at_once_one_sends() {
    let world = World::new().await;
    let session = world.online().await;
    world.choose_policy(session, "unlimited").await.unwrap();
    for queue in [false, true] {
        let mut sending = JoinSet::new();
        for _ in 0..12 {
            let world = world.clone();
            sending.spawn(async move {
                let call = SendCall { key: Some(format!("queue {queue}")), queue, ..SendCall::default() };
                word(&world.dispatch(SendText::plain(session, FRIEND, "hello"), call).await)
            });
        }
        let mut words = sending.join_all().await;
        words.retain(|word| !word.starts_with("replayed"));
        assert_eq!(words, [if queue { "queued" } else { "sent" }]);
    }
    world.settle().await;
    assert_eq!(world.sent(), 2);
}

#[tokio::test]
async fn of_two_who_wait_with_one_key_one_sends_and_the_other_takes_no_room() {
    let world = World::with_patience(10 * SECOND).await;
    let session = world.online().await;
    let start = world.clock.now();
    world.send(session).await.unwrap();
    let begin = || {
        let world = world.clone();
        tokio::spawn(async move { word(&world.send_once(session, "key").await) })
    };
    let first = begin();
    world.clock.rests(start, &[3]).await;
    let second = begin();
    world.clock.rests(start, &[3, 10]).await;
    world.clock.advance(3 * SECOND);
    assert_eq!((first.await.unwrap().as_str(), second.await.unwrap().as_str()), ("sent", "replayed, sent"));
    assert_eq!((world.sent(), world.service.sends(world.org, session).unwrap()), (2, (2, 2)));
}

#[tokio::test]
async fn a_key_is_free_again_after_a_day() {
    let mut world = World::new().await;
    let session = world.online().await;
    assert_eq!(word(&world.send_once(session, "key").await), "sent");
    world.crash().await;
    world.pass(DAY - Duration::from_millis(1)).await;
    assert_eq!(word(&world.send_once(session, "key").await), "replayed, sent");
    world.pass(Duration::from_millis(1)).await;
    assert_eq!(word(&world.send_once(session, "key").await), "sent");
    assert_eq!(word(&world.send_once(session, "key").await), "replayed, sent");
    assert_eq!(world.sent(), 2);
}

#[tokio::test]
async fn a_refused_send_leaves_its_key_free() {
    let world = World::new().await;
    let session = world.create().await;
    assert_eq!(word(&world.send_once(session, "key").await), "not_connected");
    world.connect(session).await;
    let binding = world.bind(denying(), vec![OperationKind::MessageSend], "{}").await;
    assert_eq!(word(&world.send_once(session, "key").await), "vetoed");
    world.unbind(binding).await;
    world.send(session).await.unwrap();
    assert_eq!(word(&world.send_once(session, "key").await), "rate_limited");
    let call =
        SendCall { key: Some("key".into()), call: Call { dry_run: true, ..Call::default() }, ..SendCall::default() };
    let tried = world.dispatch(SendText::plain(session, FRIEND, "hello"), call.clone()).await;
    assert_eq!(word(&tried), "rate_limited");
    world.clock.advance(3 * SECOND);
    assert!(world.dispatch(SendText::plain(session, FRIEND, "hello"), call).await.is_ok());
    assert_eq!(word(&world.send_once(session, "key").await), "sent");
}

#[tokio::test]
async fn keys_of_one_organisation_are_not_those_of_another() {
    let world = World::new().await;
    let (ours, beside) = (world.online().await, world.online().await);
    let other = world.other_org().await;
    let theirs = other.online().await;
    assert_eq!(word(&world.send_once(ours, "key").await), "sent");
    assert_eq!(word(&other.send_once(theirs, "key").await), "sent");
    // Within the organisation it leads to the one message, whichever session is named.
    let Ok(Dispatched::Replayed(message)) = world.send_once(beside, "key").await else { panic!("not replayed") };
    assert_eq!((message.org, message.session), (world.org, ours));
}

/// Whoever may touch one session only learns nothing of another one's messages, and sends nothing twice.
#[tokio::test]
async fn a_key_of_another_session_is_taken_for_who_is_bound_to_one() {
    let world = World::new().await;
    let (ours, beside) = (world.online().await, world.online().await);
    assert_eq!(word(&world.send_once(ours, "key").await), "sent");
    let bound = |session: SessionId| world.seen_by(Principal::session_token(world.org, session));
    assert_eq!(word(&bound(beside).send_once(beside, "key").await), "idempotency_key_taken");
    assert_eq!(word(&bound(ours).send_once(ours, "key").await), "replayed, sent");
    let elsewhere = Target::session(world.org, ours);
    let denied = world.service.permit(&bound(beside).owner, OperationKind::MessageSend, elsewhere, None).await;
    assert!(matches!(denied, Err(ServiceError::Denied(_))));
}

/// The message may have been sent before it was erased, so its key leads to nothing until its day is over.
#[tokio::test]
async fn a_key_of_an_erased_session_leads_to_nothing_until_its_day_is_over() {
    let world = World::new().await;
    let (erased, beside) = (world.online().await, world.online().await);
    assert_eq!(word(&world.send_once(erased, "key").await), "sent");
    world.execute(Operation::SessionDelete { session: erased }).await.unwrap();
    world.pass(SECOND).await;
    assert_eq!(world.status(erased).await, "gone");
    for session in [erased, beside] {
        let answer = world.send_once(session, "key").await;
        assert!(matches!(answer, Err(ServiceError::NotFound("message"))), "{answer:?}");
    }
    world.pass(DAY).await;
    assert_eq!(word(&world.send_once(beside, "key").await), "sent");
}

#[tokio::test]
async fn who_was_sending_at_a_crash_is_told_that_nobody_knows() {
    let world = World::new().await;
    let session = world.online().await;
    let now = world.clock.now();
    let call = || SendCall { key: Some("key".into()), ..SendCall::default() };
    let typing = SendText { typing_millis: 5_000, ..SendText::plain(session, FRIEND, "slowly") };
    let sending = tokio::spawn({
        let (world, text) = (world.clone(), typing.clone());
        async move { world.dispatch(text, call()).await.map(drop) }
    });
    world.clock.rests(now, &[5]).await;
    assert_eq!(word(&world.dispatch(typing.clone(), call()).await), "replayed, sending");
    sending.abort();
    assert!(sending.await.is_err());
    let mut world = world;
    world.crash().await;
    let Ok(Dispatched::Replayed(message)) = world.dispatch(typing, call()).await else { panic!("not replayed") };
    assert_eq!(message.state, MessageState::Failed { code: "interrupted".into() });
    world.pass(10 * SECOND).await;
    assert_eq!(world.sent(), 0);
}
