//! Dry runs answer as the operation would, whatever stands in its way, and do nothing.

use std::time::Duration;

use portcullis_core::operation::SendText;
use portcullis_core::{Labels, MessageState, Operation, OperationKind, SessionId, Verdict};
use portcullis_service::{Call, Dispatched, Outcome, QuotaChange, SendCall, ServiceError};
use portcullis_testing::text::words;
use portcullis_testing::{DATA, Guest};

use crate::world::{FRIEND, World};

/// Where a list lies.
const LIST: u32 = 1024;

/// Lets so many operations through within a minute, with one counter.
fn limiting(max: u32) -> Vec<u8> {
    // The counter's name, a sliding window of so many milliseconds, and the maximum.
    let limit = [DATA, 2, 0, 0, 60_000, 0, max, 0];
    let stores: String = (0..)
        .zip(limit)
        .map(|(index, word): (u32, u32)| {
            format!("(i32.store offset={} (i32.const {LIST}) (i32.const {word}))", index * 4)
        })
        .collect();
    Guest::gate(&format!("{stores} {}", words(&[5, 0, LIST, 1, DATA, 2]))).data("no").named("limiting").build()
}

/// Puts off whatever it is asked about, for ages.
fn deferring() -> Vec<u8> {
    Guest::gate(&words(&[2, 0, 0, 1_000, DATA, 2])).data("no").named("deferring").build()
}

fn relabelling(session: SessionId, value: &str) -> Operation {
    Operation::SessionLabels { session, labels: Labels::from([("label".to_owned(), value.to_owned())]) }
}

fn sending(session: SessionId) -> Operation {
    Operation::MessageSend(SendText::plain(session, FRIEND, "hello"))
}

/// At ten of ten operations a dry run said that the next one was allowed, and the next one was refused.
#[tokio::test]
async fn a_limit_that_is_used_up_refuses_a_dry_run_too_and_is_not_counted_by_it() {
    let world = World::new().await;
    let session = world.create().await;
    world.bind(limiting(2), vec![OperationKind::SessionLabels], "{}").await;
    for value in ["a", "b"] {
        for _ in 0..3 {
            let tried = world.attempt(relabelling(session, value)).await;
            assert!(matches!(tried, Ok(Verdict::Allowed(_))), "{tried:?}");
        }
        world.execute(relabelling(session, value)).await.unwrap();
    }
    let audit = world.audit().await.len();
    let tried = world.attempt(relabelling(session, "c")).await.unwrap_err();
    assert_eq!((world.audit().await.len(), world.decisions().await.len()), (audit, 2), "a dry run left a trace");
    let refused = world.execute(relabelling(session, "c")).await.unwrap_err();
    for error in [tried, refused] {
        let ServiceError::Limited { message, retry_after, .. } = error else { panic!("not limited: {error:?}") };
        assert_eq!((message.as_str(), retry_after), ("no", Duration::from_secs(60)));
    }
}

/// A dry run said that it was put off, but only deletes can wait.
#[tokio::test]
async fn what_cannot_wait_is_denied_in_a_dry_run_too() {
    let world = World::new().await;
    let session = world.create().await;
    world.bind(deferring(), vec![], "{}").await;
    let tried = world.attempt(relabelling(session, "a")).await.unwrap();
    let refused = world.execute(relabelling(session, "a")).await.unwrap_err();
    let (Verdict::Denied { denials: tried }, ServiceError::Vetoed { denials: refused, .. }) = (tried, refused) else {
        panic!("not denied")
    };
    assert_eq!(tried[0].code, "cannot_wait");
    assert_eq!(tried, refused);
    let tried = world.attempt(Operation::SessionDelete { session }).await;
    assert!(matches!(tried, Ok(Verdict::Deferred { .. })), "{tried:?}");
}

#[tokio::test]
async fn a_send_that_its_rate_would_stop_is_stopped_in_a_dry_run_too() {
    let check = async |patience: u64, stops: bool| {
        let world = World::with_patience(Duration::from_secs(patience)).await;
        let session = world.online().await;
        world.choose_policy(session, "strict").await.unwrap();
        world.send(session).await.unwrap();
        let tried = world.attempt(sending(session)).await;
        // Who would wait long enough is let through.
        assert_eq!(matches!(tried, Err(ServiceError::Limited { .. })), stops, "{tried:?}");
        assert_eq!(tried.is_ok(), !stops);
        assert_eq!(world.service.sends(world.org, session).unwrap(), (1, 1));
    };
    check(0, true).await;
    check(60, false).await;
}

/// A dry run of a message that is to be queued answered for one that is sent at once.
#[tokio::test]
async fn a_message_is_queued_for_a_session_that_is_not_connected_and_a_dry_run_says_so() {
    let world = World::new().await;
    let session = world.create().await;
    world.set_quotas(QuotaChange { queued_messages: Some(1), ..QuotaChange::default() }).await;
    let attempt = async || {
        let call = SendCall { queue: true, call: Call { dry_run: true, ..Call::default() }, key: None };
        match world.dispatch(SendText::plain(session, FRIEND, "hello"), call).await {
            Ok(Dispatched::Done(done)) => Ok(done.outcome),
            Ok(other) => panic!("not a dry run: {other:?}"),
            Err(error) => Err(error),
        }
    };
    let tried = attempt().await;
    assert!(matches!(tried, Ok(Outcome::DryRun(Verdict::Allowed(_)))), "{tried:?}");
    let message = world.queue(session, "hello").await.unwrap();
    assert_eq!(world.message(session, message).await.unwrap().state, MessageState::Queued);
    let full = attempt().await;
    assert!(matches!(full, Err(ServiceError::Quota { of: "queued messages", max: 1 })), "{full:?}");
    assert!(matches!(world.attempt(sending(session)).await, Err(ServiceError::Send(_))));
}
