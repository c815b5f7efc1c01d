//! Sends with patience: they wait for their rate limit in the order of their coming, and take up nothing meanwhile.
//!
//! Times are whole seconds after the moment at which the session was online and had sent nothing.
//! `rests` waits until everybody waits again, and says for when.

use std::time::Duration;

use portcullis_core::operation::{CreateSession, SendText};
use portcullis_core::{Clock, Operation, SessionId, Timestamp};
use portcullis_service::{Call, Outcome, QuotaChange, SendCall, ServiceError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::world::{FRIEND, World};

struct Queueing {
    world: World,
    session: SessionId,
    start: Timestamp,
}

/// When it was sent, in seconds.
type Sending = JoinHandle<Result<u64, ServiceError>>;

impl Queueing {
    async fn new(policy: &str, patience: u64) -> Self {
        let world = World::with_patience(Duration::from_secs(patience)).await;
        let session = world.online().await;
        world.choose_policy(session, policy).await.unwrap();
        let start = world.clock.now();
        Self { world, session, start }
    }

    fn begin(&self, typing: u64) -> Sending {
        let (world, start) = (self.world.clone(), self.start);
        let typing_millis = u32::try_from(typing * 1000).unwrap();
        let text = SendText { typing_millis, ..SendText::plain(self.session, FRIEND, "hello") };
        tokio::spawn(async move {
            match world.execute(Operation::MessageSend(text)).await?.outcome {
                Outcome::Sent(sent) => Ok(sent.at.since(start).as_secs()),
                other => panic!("not sent: {other:?}"),
            }
        })
    }

    async fn rests(&self, seconds: &[u64]) {
        self.world.clock.rests(self.start, seconds).await;
    }

    fn pass(&self, seconds: u64) {
        self.world.clock.advance(Duration::from_secs(seconds));
    }
}

#[track_caller]
fn check_sent(sent: Result<Result<u64, ServiceError>, tokio::task::JoinError>, at: u64) {
    match sent.unwrap() {
        Ok(found) => assert_eq!(found, at),
        Err(error) => panic!("{error:?}"),
    }
}

#[track_caller]
fn check_limited<T: std::fmt::Debug>(answer: Result<T, ServiceError>, seconds: u64) {
    match answer {
        Err(ServiceError::Limited { retry_after, .. }) => assert_eq!(retry_after, Duration::from_secs(seconds)),
        other => panic!("not limited: {other:?}"),
    }
}

#[tokio::test]
async fn who_comes_first_is_sent_first_and_whose_time_would_be_too_long_is_told_at_once() {
    let all = Queueing::new("standard_policy", 10).await;
    check_sent(all.begin(0).await, 0);
    let first = all.begin(0);
    all.rests(&[3]).await;
    let second = all.begin(0);
    all.rests(&[3, 10]).await;
    let third = all.begin(0);
    all.rests(&[3, 10, 10]).await;
    let fourth = all.begin(0);
    all.rests(&[3, 10, 10, 10]).await;
    all.pass(3);
    check_sent(first.await, 3);
    all.rests(&[6, 10, 10]).await;
    all.pass(3);
    check_sent(second.await, 6);
    all.rests(&[9, 10]).await;
    all.pass(3);
    check_sent(third.await, 9);
    // It would be sent at 12, and waits no longer than until 10.
    check_limited(fourth.await.unwrap(), 3);
    all.rests(&[]).await;
}

#[tokio::test]
async fn many_who_wait_are_sent_one_after_the_other_and_nobody_is_overtaken() {
    let all = Queueing::new("high_throughput", 30).await;
    check_sent(all.begin(0).await, 0);
    // The first waits until there is room, and all others until the first is gone or they have no more patience.
    let rest = |head: u64, waiting: usize| -> Vec<u64> {
        (0..waiting).map(|place| if place == 0 { head } else { 30 }).collect()
    };
    let mut waiting = Vec::new();
    for count in 1..=20 {
        waiting.push(all.begin(0));
        all.rests(&rest(1, count)).await;
    }
    for (sent, at) in waiting.into_iter().zip(1..) {
        all.pass(1);
        check_sent(sent.await, at);
        all.rests(&rest(at + 1, 20 - usize::try_from(at).unwrap())).await;
    }
}

#[tokio::test]
async fn who_comes_when_there_is_room_again_stands_behind_those_who_waited_for_it() {
    let all = Queueing::new("standard_policy", 10).await;
    check_sent(all.begin(0).await, 0);
    let waited = all.begin(0);
    all.rests(&[3]).await;
    all.pass(3);
    let late = all.begin(0);
    check_sent(waited.await, 3);
    all.rests(&[6]).await;
    all.pass(3);
    check_sent(late.await, 6);
}

/// The story: two stood in the line for the same room. When it came there was enough for both, but the second began to wait
/// as long as it had been told at first, once more.
#[tokio::test]
async fn who_reaches_the_head_of_the_line_is_asked_at_once() {
    let all = Queueing::new("unlimited", 100).await;
    for _ in 0..20 {
        check_sent(all.begin(0).await, 0);
    }
    all.world.choose_policy(all.session, "standard_policy").await.unwrap();
    let first = all.begin(0);
    all.rests(&[60]).await;
    let second = all.begin(0);
    all.rests(&[60, 100]).await;
    all.pass(60);
    check_sent(first.await, 60);
    all.rests(&[63]).await;
    all.pass(3);
    check_sent(second.await, 63);
}

#[tokio::test]
async fn a_wait_that_patience_does_not_cover_is_refused_at_once_and_exactly() {
    for (patience, waits) in [(9, false), (10, true)] {
        let all = Queueing::new("strict", patience).await;
        check_sent(all.begin(0).await, 0);
        let send = all.begin(0);
        if waits {
            all.rests(&[10]).await;
            all.pass(10);
            check_sent(send.await, 10);
        } else {
            check_limited(send.await.unwrap(), 10);
            all.rests(&[]).await;
        }
    }
}

#[tokio::test]
async fn who_waits_takes_no_place_of_other_operations() {
    let all = Queueing::new("standard_policy", 10).await;
    let other = all.world.create().await;
    all.world.set_quotas(QuotaChange { concurrency: Some(1), ..QuotaChange::default() }).await;
    check_sent(all.begin(0).await, 0);
    let waiting = all.begin(0);
    all.rests(&[3]).await;
    all.world.execute(Operation::SessionDelete { session: other }).await.unwrap();
    // Also not of the session's own end, after which there is nothing left to wait for.
    all.world.execute(Operation::SessionStop { session: all.session }).await.unwrap();
    all.pass(3);
    assert!(matches!(waiting.await.unwrap(), Err(ServiceError::Send(_))));
}

#[tokio::test]
async fn an_organisation_has_as_many_who_wait_as_places_and_others_are_not_concerned() {
    let all = Queueing::new("standard_policy", 10).await;
    all.world.set_quotas(QuotaChange { concurrency: Some(2), ..QuotaChange::default() }).await;
    let theirs = all.world.other_org().await;
    let theirs = Queueing { session: theirs.online().await, world: theirs, start: all.start };
    // Connecting took a second.
    check_sent(all.begin(0).await, 1);
    check_sent(theirs.begin(0).await, 1);
    let first = all.begin(0);
    all.rests(&[4]).await;
    let second = all.begin(0);
    all.rests(&[4, 11]).await;
    check_limited(all.begin(0).await.unwrap(), 1);
    let unconcerned = theirs.begin(0);
    all.rests(&[4, 4, 11]).await;
    all.pass(3);
    check_sent(first.await, 4);
    check_sent(unconcerned.await, 4);
    all.rests(&[7]).await;
    // A place in the line is free again.
    let third = all.begin(0);
    all.rests(&[7, 14]).await;
    all.pass(3);
    check_sent(second.await, 7);
    all.rests(&[10]).await;
    all.pass(3);
    check_sent(third.await, 10);
}

#[tokio::test]
async fn who_gives_up_makes_way() {
    let all = Queueing::new("standard_policy", 10).await;
    check_sent(all.begin(0).await, 0);
    let head = all.begin(0);
    all.rests(&[3]).await;
    let (second, third) = (all.begin(0), all.begin(0));
    all.rests(&[3, 10, 10]).await;
    head.abort();
    second.abort();
    assert!(head.await.is_err() && second.await.is_err());
    all.rests(&[3]).await;
    all.pass(3);
    check_sent(third.await, 3);
    // The line is gone with the last who stood in it: who comes now waits for the limit alone.
    let next = all.begin(0);
    all.rests(&[6]).await;
    all.pass(3);
    check_sent(next.await, 6);
}

#[tokio::test]
async fn a_send_under_way_holds_its_place_until_it_has_ended() {
    let all = Queueing::new("standard_policy", 0).await;
    let typing = all.begin(5);
    all.rests(&[5]).await;
    all.pass(4);
    check_limited(all.world.send(all.session).await, 1);
    // Numbers are checked meanwhile.
    let numbers = vec!["49123456789".to_owned()];
    all.world.execute(Operation::NumberCheck { session: all.session, numbers }).await.unwrap();
    all.pass(1);
    check_sent(typing.await, 5);
    assert!(all.world.send(all.session).await.is_ok());
}

#[tokio::test]
async fn the_end_of_a_send_wakes_the_one_that_waits_for_its_place() {
    let all = Queueing::new("standard_policy", 10).await;
    let typing = all.begin(5);
    all.rests(&[5]).await;
    let waiting = all.begin(0);
    // First for the gap, and then for the place.
    all.rests(&[5, 10]).await;
    all.pass(5);
    check_sent(typing.await, 5);
    check_sent(waiting.await, 5);
    all.rests(&[]).await;
}

/// The story: whoever had waited kept the head of the line while the chat saw it typing, so that one of three places was used.
#[tokio::test]
async fn who_is_counted_holds_nobody_up_while_it_is_typing() {
    let all = Queueing::new("high_throughput", 10).await;
    let a = all.begin(20);
    all.rests(&[20]).await;
    let b = all.begin(20);
    all.rests(&[1, 20]).await;
    let c = all.begin(20);
    all.rests(&[1, 10, 20]).await;
    all.pass(1);
    all.rests(&[2, 20, 21]).await;
    let d = all.begin(20);
    all.rests(&[2, 11, 20, 21]).await;
    all.pass(1);
    // All three places are used: the fourth waits for one, as long as it has patience.
    all.rests(&[11, 20, 21, 22]).await;
    all.pass(9);
    check_limited(d.await.unwrap(), 1);
    all.pass(11);
    for (sent, at) in [(a, 22), (b, 22), (c, 22)] {
        check_sent(sent.await, at);
    }
}

#[tokio::test]
async fn a_number_check_waits_like_a_send() {
    let all = Queueing::new("strict", 60).await;
    let world = &all.world;
    let check = |number: u32| {
        let (world, session) = (world.clone(), all.session);
        tokio::spawn(async move {
            let numbers = vec![format!("4912345678{number}")];
            world.execute(Operation::NumberCheck { session, numbers }).await.map(drop)
        })
    };
    for number in 0..5 {
        check(number).await.unwrap().unwrap();
    }
    let waiting = check(5);
    all.rests(&[60]).await;
    all.pass(60);
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test]
async fn nothing_else_stands_in_line() {
    let all = Queueing::new("standard_policy", 10).await;
    check_sent(all.begin(0).await, 0);
    let waiting = all.begin(0);
    all.rests(&[3]).await;
    all.world.label(all.session, &[("while", "waiting")]).await;
    all.world.execute(Operation::SessionCreate(CreateSession::default())).await.unwrap();
    all.pass(3);
    check_sent(waiting.await, 3);
}

/// Clients that gave up after a moment used to be waited for, so that their messages went out all the same and kept others from their turn.
#[tokio::test]
async fn a_send_whose_caller_is_gone_gives_its_turn_up() {
    let queueing = Queueing::new("standard_policy", 10).await;
    check_sent(queueing.begin(0).await, 0);
    let (here, caller) = watch::channel(());
    let (world, session) = (queueing.world.clone(), queueing.session);
    let abandoned = tokio::spawn(async move {
        let call = SendCall { call: Call { caller: Some(caller), ..Call::default() }, ..SendCall::default() };
        world.dispatch(SendText::plain(session, FRIEND, "anybody?"), call).await
    });
    queueing.rests(&[3]).await;
    let patient = queueing.begin(0);
    queueing.rests(&[3, 10]).await;
    drop(here);
    assert!(matches!(abandoned.await.unwrap(), Err(ServiceError::Limited { .. })));
    queueing.rests(&[3]).await;
    queueing.pass(3);
    check_sent(patient.await, 3);
    assert_eq!(queueing.world.service.sends(queueing.world.org, queueing.session).unwrap(), (2, 2));
}
