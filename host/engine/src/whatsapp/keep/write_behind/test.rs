//! What waits, what goes when, and what is left of it by failures and ends.

use std::task::Poll;

use super::*;
use crate::test::Memory;

const ORG: OrgId = OrgId::from_bytes([2; 16]);
const SESSION: SessionId = SessionId::from_bytes([1; 16]);

fn put(kind: u8, name: &str, value: &str) -> DeviceChange {
    DeviceChange::Put { kind, name: name.into(), value: value.into() }
}

fn remove(kind: u8, name: &str) -> DeviceChange {
    DeviceChange::Remove { kind, name: name.into() }
}

fn begin() -> (Arc<Memory>, Arc<WriteBehind>) {
    let memory = Arc::new(Memory::default());
    let rows = WriteBehind::new(memory.clone(), ORG, SESSION);
    (memory, rows)
}

/// A row as the store has it.
fn stored(memory: &Memory, kind: u8, name: &str) -> Option<String> {
    memory.read(ORG, SESSION, kind, name.as_bytes()).unwrap().map(|value| String::from_utf8(value).unwrap())
}

/// A row as the run sees it.
async fn seen(rows: &Arc<WriteBehind>, kind: u8, name: &str) -> Option<String> {
    rows.read(kind, name.into()).await.unwrap().map(|value| String::from_utf8(value).unwrap())
}

async fn names(rows: &Arc<WriteBehind>, kind: u8) -> Vec<String> {
    let mut names = rows.pick(kind, |name, _| Some(String::from_utf8(name.to_vec()).unwrap())).await.unwrap();
    names.sort();
    names
}

#[tokio::test]
async fn what_waits_is_seen_at_once_and_goes_with_the_next_commit() {
    let (memory, rows) = begin();
    rows.write(vec![put(1, "a", "1"), put(1, "b", "2")], When::Soon).await.unwrap();
    rows.write(vec![remove(1, "b")], When::Soon).await.unwrap();
    assert_eq!((seen(&rows, 1, "a").await, seen(&rows, 1, "b").await), (Some("1".into()), None));
    assert_eq!((memory.commits(), memory.rows()), (0, 0));
    rows.write(vec![put(2, "a", "3")], When::Now).await.unwrap();
    assert_eq!((memory.commits(), memory.rows()), (1, 2));
    assert_eq!(seen(&rows, 1, "a").await, Some("1".into()));
    rows.flush().await.unwrap();
    assert_eq!((memory.commits(), rows.bytes()), (1, 0), "nothing is left to make durable");
}

#[tokio::test]
async fn what_waits_goes_by_itself() {
    let (memory, rows) = begin();
    for round in 1..=2 {
        rows.write(vec![put(1, "a", &round.to_string())], When::Soon).await.unwrap();
        rows.write(vec![put(1, "b", "2")], When::Soon).await.unwrap();
        memory.commit().await;
        assert_eq!((memory.commits(), stored(&memory, 1, "a")), (round, Some(round.to_string())));
    }
}

#[tokio::test]
async fn a_run_that_is_dropped_writes_nothing_more() {
    let (memory, rows) = begin();
    rows.write(vec![put(1, "durable", "1")], When::Now).await.unwrap();
    rows.write(vec![put(1, "waiting", "2")], When::Soon).await.unwrap();
    drop(rows);
    let rows = WriteBehind::new(memory.clone(), ORG, SESSION);
    assert_eq!((seen(&rows, 1, "durable").await, seen(&rows, 1, "waiting").await), (Some("1".into()), None));
}

#[tokio::test]
async fn those_who_come_during_a_commit_share_the_next() {
    let (memory, rows) = begin();
    memory.hold(true);
    let begin = |name: String| {
        let rows = Arc::clone(&rows);
        tokio::spawn(async move { rows.write(vec![put(1, &name, "x")], When::Now).await })
    };
    let first = begin("first".to_owned());
    memory.arrival().await;
    let others: Vec<_> = (0..20).map(|number| begin(number.to_string())).collect();
    while rows.state().written < 21 {
        tokio::task::yield_now().await;
    }
    assert_eq!(seen(&rows, 1, "first").await, Some("x".into()), "what is on its way is seen");
    memory.hold(false);
    for write in others.into_iter().chain([first]) {
        write.await.unwrap().unwrap();
    }
    assert_eq!((memory.commits(), memory.rows()), (2, 21));
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_nothing_half_done() {
    let (memory, rows) = begin();
    memory.hold(true);
    let write = tokio::spawn({
        let rows = Arc::clone(&rows);
        async move { rows.write(vec![put(1, "a", "1")], When::Now).await }
    });
    memory.arrival().await;
    write.abort();
    assert!(write.await.unwrap_err().is_cancelled());
    memory.hold(false);
    rows.write(vec![put(1, "b", "2")], When::Now).await.unwrap();
    assert_eq!((memory.rows(), rows.bytes()), (2, 0));
}

#[tokio::test]
async fn a_commit_that_fails_is_its_callers_error_and_loses_nothing() {
    let (memory, rows) = begin();
    let failed = DeviceStoreError::Failed("the disk is full".to_owned());
    rows.write(vec![put(1, "a", "old"), put(2, "gone", "x")], When::Now).await.unwrap();
    rows.write(vec![put(1, "b", "1"), DeviceChange::RemoveAll { kind: 2 }], When::Soon).await.unwrap();
    memory.fail(Some(failed.clone()));
    let error = rows.write(vec![put(1, "a", "new"), put(2, "there", "x")], When::Now).await;
    assert_eq!(error, Err(KeepError::Store(failed)));
    rows.write(vec![put(1, "a", "newest")], When::Soon).await.unwrap();
    assert_eq!((seen(&rows, 1, "a").await, seen(&rows, 1, "b").await), (Some("newest".into()), Some("1".into())));
    assert_eq!(names(&rows, 2).await, ["there"]);
    assert_eq!(stored(&memory, 1, "a"), Some("old".into()));
    memory.fail(None);
    rows.flush().await.unwrap();
    assert_eq!((stored(&memory, 1, "a"), stored(&memory, 1, "b")), (Some("newest".into()), Some("1".into())));
    assert_eq!((stored(&memory, 2, "gone"), stored(&memory, 2, "there")), (None, Some("x".into())));
    assert_eq!(memory.commits(), 2);
}

/// The story: what waited went with a commit that failed, while whoever would have come for it saw nothing wait and left. It then
/// waited for the next write, which in an idle hour may never come.
#[tokio::test]
async fn what_could_not_be_written_is_tried_again_by_itself() {
    let (memory, rows) = begin();
    memory.fail(Some(DeviceStoreError::Failed("the disk is full".to_owned())));
    rows.write(vec![put(1, "a", "1")], When::Now).await.unwrap_err();
    memory.fail(None);
    memory.commit().await;
    assert_eq!((memory.commits(), stored(&memory, 1, "a")), (1, Some("1".into())));
}

#[tokio::test]
async fn nothing_piles_up_before_a_store_that_fails() {
    let (memory, rows) = begin();
    memory.fail(Some(DeviceStoreError::Failed("the disk is full".to_owned())));
    let mut refused = 0;
    for number in 0..5_000 {
        refused += usize::from(rows.write(vec![put(1, &number.to_string(), "x")], When::Soon).await.is_err());
    }
    let waiting = names(&rows, 1).await.len();
    assert!((1..2_000).contains(&waiting), "{waiting} rows wait");
    assert!(waiting + refused >= 5_000);
    memory.fail(None);
    rows.flush().await.unwrap();
    assert_eq!((memory.commits(), memory.rows()), (1, waiting));
}

#[tokio::test]
async fn many_rows_do_not_wait() {
    let (memory, rows) = begin();
    for number in 0..3_000 {
        rows.write(vec![put(1, &number.to_string(), "x")], When::Soon).await.unwrap();
    }
    assert!((2..=3).contains(&memory.commits()), "{} commits", memory.commits());
    assert_eq!(names(&rows, 1).await.len(), 3_000);
    rows.write((0..5_000).map(|number| put(2, &number.to_string(), "x")).collect(), When::Soon).await.unwrap();
    assert_eq!((names(&rows, 2).await.len(), rows.bytes()), (5_000, 0));
}

#[tokio::test]
async fn what_is_too_long_is_refused_and_stands_in_nobodys_way() {
    let (memory, rows) = begin();
    rows.write(vec![put(1, "a", "1")], When::Soon).await.unwrap();
    let long = rows.write(vec![put(1, "b", &"x".repeat(DEVICE_VALUE_BYTES + 1))], When::Soon).await;
    assert!(matches!(long, Err(KeepError::Store(DeviceStoreError::TooLong { kind: 1, .. }))), "{long:?}");
    let long = rows.write(vec![remove(1, &"x".repeat(DEVICE_NAME_BYTES + 1))], When::Soon).await;
    assert!(matches!(long, Err(KeepError::Store(DeviceStoreError::TooLong { kind: 1, .. }))), "{long:?}");
    rows.flush().await.unwrap();
    assert_eq!(memory.rows(), 1);
}

#[tokio::test]
async fn after_the_end_of_a_run_nothing_of_it_is_written() {
    let (memory, rows) = begin();
    rows.write(vec![put(1, "a", "old")], When::Now).await.unwrap();
    rows.write(vec![put(1, "a", "waiting")], When::Soon).await.unwrap();
    memory.hold(true);
    let flying = tokio::spawn({
        let rows = Arc::clone(&rows);
        async move { rows.write(vec![put(1, "b", "flying")], When::Now).await }
    });
    memory.arrival().await;
    memory.arrival().await;
    rows.write(vec![put(1, "c", "too late")], When::Soon).await.unwrap();
    let mut end = std::pin::pin!(rows.close());
    let waits = std::future::poll_fn(|context| Poll::Ready(end.as_mut().poll(context).is_pending())).await;
    assert!(waits, "what is on its way is waited for");
    memory.hold(false);
    end.await;
    flying.await.unwrap().unwrap();
    assert_eq!((memory.commits(), stored(&memory, 1, "b")), (2, Some("flying".into())));
    for when in [When::Now, When::Soon] {
        assert_eq!(rows.write(vec![put(1, "a", "later")], when).await, Err(KeepError::Closed));
    }
    rows.flush().await.unwrap_err();
    assert_eq!((memory.commits(), stored(&memory, 1, "c")), (2, None));
}

#[tokio::test]
async fn a_session_that_is_gone_ends_its_run() {
    let (memory, rows) = begin();
    memory.fail(Some(DeviceStoreError::Gone));
    let gone = rows.write(vec![put(1, "a", "1")], When::Now).await;
    assert_eq!(gone, Err(KeepError::Store(DeviceStoreError::Gone)));
    assert_eq!(rows.write(vec![put(1, "a", "1")], When::Soon).await, Err(KeepError::Closed));
    assert_eq!(rows.bytes(), 0);
}

#[tokio::test]
async fn all_rows_of_a_kind_are_seen_as_they_are_now() {
    let (memory, rows) = begin();
    rows.write(vec![put(1, "a", "1"), put(1, "b", "2"), put(2, "other", "x")], When::Now).await.unwrap();
    rows.write(vec![remove(1, "a"), put(1, "c", "3")], When::Soon).await.unwrap();
    assert_eq!(names(&rows, 1).await, ["b", "c"]);
    memory.hold(true);
    let flying = tokio::spawn({
        let rows = Arc::clone(&rows);
        async move { rows.flush().await }
    });
    memory.arrival().await;
    memory.arrival().await;
    rows.write(vec![DeviceChange::RemoveAll { kind: 1 }, put(1, "d", "4")], When::Soon).await.unwrap();
    assert_eq!((names(&rows, 1).await, names(&rows, 2).await), (vec!["d".to_owned()], vec!["other".to_owned()]));
    assert_eq!((seen(&rows, 1, "c").await, seen(&rows, 1, "d").await), (None, Some("4".into())));
    memory.hold(false);
    flying.await.unwrap().unwrap();
    assert_eq!(names(&rows, 1).await, ["d"]);
}
