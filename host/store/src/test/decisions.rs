//! Decisions: pages of those that are looked for, and forgetting the oldest.

use portcullis_core::{BindingId, DecisionId, DecisionRecord, OperationKind, SessionId, Timestamp};

use super::sample::*;
use crate::{Commit, DecisionFilter, Store, Write};

const NONE: [u64; 0] = [];

/// A decision at a point in time.
fn made(about: Option<u8>, millis: u64) -> DecisionRecord {
    DecisionRecord { id: DecisionId::new(at(millis), 1), at: at(millis), ..decision(1, about, 0) }
}

fn keep_decision(store: &Store, record: DecisionRecord) {
    keep(store, Commit { decision: Some(record), ..writing(1, vec![]) });
}

/// A store with decisions at 0, 10, 20, …: about session 5, about session 6 and denied, about none and without input,
/// and from another binding and of another operation.
fn told() -> Store {
    let store = store();
    keep(&store, writing(1, vec![Write::PutSession(session(1, 5)), Write::PutSession(session(1, 6))]));
    let mut refused = made(Some(6), 10);
    (refused.verdict, refused.answers) = (denied(1, 6, 1).verdict, denied(1, 6, 1).answers);
    let mut other = made(None, 30);
    other.operation = OperationKind::SessionStart;
    other.answers[0].binding = BindingId::from_bytes([9; 16]);
    other.answers[0].plugin = plugin_id(9);
    let blind = DecisionRecord { input: None, ..made(None, 20) };
    [made(Some(5), 0), refused, blind, other].into_iter().for_each(|record| keep_decision(&store, record));
    store
}

/// When the decisions were made that are found, newest first.
fn found(store: &Store, filter: &DecisionFilter<'_>) -> Vec<u64> {
    let page = read(store).decisions(org_id(1), None, filter, 99).expect("read");
    assert_eq!(page.next, None);
    page.decisions.iter().map(|record| record.at.since(NOW).as_millis().try_into().expect("small")).collect()
}

#[test]
fn what_is_looked_for_is_found() {
    let store = told();
    let all = DecisionFilter::default();
    let cases: [(&str, DecisionFilter<'_>, &[u64]); 12] = [
        ("all", all, &[30, 20, 10, 0]),
        ("session", DecisionFilter { session: Some(session_id(6)), ..all }, &[10]),
        ("operation", DecisionFilter { operation: Some(OperationKind::SessionStart), ..all }, &[30]),
        ("verdict", DecisionFilter { verdict: Some("denied"), ..all }, &[10]),
        ("no such verdict", DecisionFilter { verdict: Some("maybe"), ..all }, &[]),
        ("plugin", DecisionFilter { plugin: Some(plugin_id(9)), ..all }, &[30]),
        ("binding", DecisionFilter { binding: Some(BindingId::from_bytes([4; 16])), ..all }, &[20, 10, 0]),
        ("from", DecisionFilter { from: Some(at(10)), ..all }, &[30, 20, 10]),
        ("until", DecisionFilter { until: Some(at(10)), ..all }, &[0]),
        ("between", DecisionFilter { from: Some(at(5)), until: Some(at(30)), ..all }, &[20, 10]),
        ("nowhen", DecisionFilter { from: Some(at(30)), until: Some(at(10)), ..all }, &[]),
        ("replayable", DecisionFilter { replayable: true, ..all }, &[30, 10, 0]),
    ];
    for (name, filter, expected) in cases {
        assert_eq!(found(&store, &filter), expected, "{name}");
    }
    let of_session = DecisionFilter { session: Some(session_id(6)), from: Some(at(11)), ..all };
    assert_eq!(found(&store, &of_session), NONE);
    assert!(read(&store).decisions(org_id(2), None, &all, 9).expect("read").decisions.is_empty());
}

#[test]
fn of_an_erased_session_the_verdict_is_found_and_no_more() {
    let store = told();
    keep(&store, writing(1, vec![Write::EraseSession(session_id(6))]));
    finish(&store, NOW);
    let all = DecisionFilter { session: Some(session_id(6)), ..DecisionFilter::default() };
    assert_eq!(found(&store, &DecisionFilter { verdict: Some("denied"), ..all }), [10]);
    assert_eq!(found(&store, &DecisionFilter { replayable: true, ..all }), NONE);
    assert_eq!(found(&store, &DecisionFilter { plugin: Some(plugin_id(3)), ..all }), NONE);
    assert_sound(&store);
}

#[test]
fn pages_go_on_where_they_ended() {
    let store = told();
    let page = |before, filter: &DecisionFilter<'_>, limit| {
        read(&store).decisions(org_id(1), before, filter, limit).expect("read")
    };
    let all = DecisionFilter::default();
    let first = page(None, &all, 3);
    assert_eq!((first.decisions.len(), first.next), (3, Some(made(None, 10).id)));
    let rest = page(first.next, &all, 3);
    assert_eq!((rest.decisions.len(), rest.next), (1, None));
    assert_eq!(page(None, &all, 4).next, None, "a full page that is the last says so");
    // A page may say that there is more where nothing more is found: it has not looked.
    let denials = DecisionFilter { verdict: Some("denied"), ..all };
    let first = page(None, &denials, 1);
    assert_eq!(first.next, Some(first.decisions[0].id));
    assert_eq!(page(first.next, &denials, 1).decisions, []);
}

#[test]
fn no_page_looks_at_more_than_so_many() {
    let store = store();
    for chunk in 0..4_u64 {
        let threads: Vec<_> = (0..300)
            .map(|number| {
                let store = store.clone();
                std::thread::spawn(move || keep_decision(&store, made(None, chunk * 300 + number)))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    }
    let rare = DecisionFilter { until: Some(at(1_200)), verdict: Some("denied"), ..DecisionFilter::default() };
    let mut before = None;
    for left in [Some(200), None] {
        let page = read(&store).decisions(org_id(1), before, &rare, 9).expect("read");
        assert_eq!(page.decisions, []);
        assert_eq!(page.next, left.map(|millis| made(None, millis).id));
        before = page.next;
    }
}

#[test]
fn the_oldest_are_forgotten_and_no_more_than_was_asked() {
    let store = told();
    let oldest = || read(&store).oldest_decision(org_id(1)).expect("read");
    let forget = |before: Timestamp, at_most| {
        keep(&store, writing(1, vec![Write::ForgetDecisions { before, at_most }]));
        assert_sound(&store);
        found(&store, &DecisionFilter::default())
    };
    assert_eq!(oldest(), Some(NOW));
    assert_eq!(forget(NOW, 9), [30, 20, 10, 0], "before means before");
    assert_eq!(forget(at(21), 1), [30, 20, 10]);
    // Also those of sessions that are gone.
    keep(&store, writing(1, vec![Write::EraseSession(session_id(6))]));
    finish(&store, NOW);
    assert_eq!(forget(at(21), 9), [30]);
    assert_eq!(oldest(), Some(at(30)));
    let of = |session: SessionId| DecisionFilter { session: Some(session), ..DecisionFilter::default() };
    assert_eq!([5, 6].map(|byte| found(&store, &of(session_id(byte))).len()), [0, 0]);
    assert_eq!(forget(at(99), 9), NONE);
    assert_eq!(oldest(), None);
}
