//! What a commit rests on: expectations, names, keys of plugins, idempotency; alone and against others in the same batch.

use std::time::Duration;

use portcullis_core::{EventId, KvAccess, KvChange, MessageState, OrgId, Session};

use super::sample::*;
use crate::{Commit, CommitError, Expectation, IdempotencyRecord, MessagePhase, Quota, QuotaKind, Store, Write};

fn refused(store: &Store, commit: Commit) -> CommitError {
    let before = store.verify().expect("verified").rows;
    let error = store.commit_blocking(commit).expect_err("a commit that does not hold");
    assert_eq!(store.verify().expect("verified").rows, before, "a refused commit left something");
    assert_sound(store);
    error
}

fn at_phase(about: u8, byte: u8, state: Option<MessagePhase>) -> Expectation {
    Expectation::Message { session: session_id(about), id: message_id(byte), state }
}

#[test]
fn a_commit_rests_on_generations() {
    let store = store();
    keep(&store, creating(1, 5));
    let rows =
        [Write::PutBinding(binding(1, 1)), Write::PutWebhook(webhook(1, None, 1)), Write::PutMessage(message(1, 5, 1))];
    keep(&store, writing(1, rows.into()));
    let expecting = |expect| Commit { expect: vec![expect], ..creating(1, 6) };
    let binding = binding(1, 1).id;
    for wrong in [
        Expectation::Session(session_id(5), None),
        Expectation::Session(session_id(5), Some(2)),
        Expectation::Session(session_id(9), Some(1)),
        Expectation::Org(None),
        Expectation::Org(Some(2)),
        Expectation::Binding(binding, None),
        Expectation::Binding(binding, Some(2)),
        Expectation::Webhook(webhook(1, None, 1).id, None),
        Expectation::Webhook(webhook(1, None, 1).id, Some(2)),
        at_phase(5, 1, None),
        at_phase(5, 1, Some(MessagePhase::Sending)),
        at_phase(6, 1, Some(MessagePhase::Queued)),
    ] {
        assert!(matches!(refused(&store, expecting(wrong)), CommitError::Conflict), "{wrong:?}");
    }
    let expect = vec![
        Expectation::Session(session_id(5), Some(1)),
        Expectation::Session(session_id(6), None),
        Expectation::Org(Some(1)),
        Expectation::Binding(binding, Some(1)),
        Expectation::Webhook(webhook(1, None, 1).id, Some(1)),
        Expectation::Webhook(webhook(1, None, 2).id, None),
        at_phase(5, 1, Some(MessagePhase::Queued)),
        at_phase(5, 2, None),
    ];
    keep(&store, Commit { expect, ..creating(1, 6) });
}

#[test]
fn of_many_moves_from_one_generation_one_wins() {
    let store = store();
    keep(&store, creating(1, 5));
    let threads: Vec<_> = (0..32)
        .map(|unique| {
            let store = store.clone();
            std::thread::spawn(move || {
                let next = session(1, 5).changed(at(1));
                store.commit_blocking(Commit {
                    expect: vec![Expectation::Session(session_id(5), Some(1))],
                    audit: vec![audit(1, Some(5), 100 + unique)],
                    ..writing(1, vec![Write::PutSession(next)])
                })
            })
        })
        .collect();
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    let won = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(won, 1);
    assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(CommitError::Conflict))));
    assert_eq!(audited(&read(&store), org_id(1), 99).len(), 2, "a loser left its audit");
    assert_sound(&store);
}

#[test]
fn two_creations_of_one_session_do_not_share_a_key() {
    let store = store();
    // Without an expectation, only the keys that both would use tell them apart.
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            std::thread::spawn(move || store.commit_blocking(Commit { expect: vec![], ..creating(1, 5) }).is_ok())
        })
        .collect();
    let won = threads.into_iter().filter(|_| true).map(|thread| thread.join().expect("no panic"));
    assert!(won.filter(|won| *won).count() >= 1);
    assert_eq!(read(&store).session(org_id(1), session_id(5)).expect("read"), Some(session(1, 5)));
    assert_sound(&store);
}

#[test]
fn instance_names_are_unique_in_an_organisation() {
    let store = store();
    keep(&store, creating(1, 5));
    let mut twin = session(1, 6);
    twin.names.instance_name = "instance-5".into();
    let put = |session: &Session| writing(1, vec![Write::PutSession(session.clone())]);
    assert!(matches!(refused(&store, put(&twin)), CommitError::NameTaken));
    twin.org = org_id(2);
    keep(&store, writing(2, vec![Write::PutSession(twin.clone())]));
    // A name goes with its session, even within one commit.
    twin.org = org_id(1);
    twin.id = session_id(7);
    keep(&store, writing(1, vec![Write::EraseSession(session_id(5)), Write::PutSession(twin.clone())]));
    let holder = read(&store).session_by_instance_name(org_id(1), "instance-5").expect("read");
    assert_eq!(holder, Some(twin));
    finish(&store, NOW);
    assert_sound(&store);
}

#[test]
fn of_two_who_would_send_a_message_one_does() {
    let store = store();
    keep(&store, creating(1, 5));
    keep(&store, writing(1, vec![Write::PutMessage(message(1, 5, 1))]));
    let take = Commit {
        expect: vec![at_phase(5, 1, Some(MessagePhase::Queued))],
        ..writing(1, vec![Write::PutMessage(moved(&message(1, 5, 1), MessageState::Sending, at(1)))])
    };
    keep(&store, take.clone());
    assert!(matches!(refused(&store, take), CommitError::Conflict));
}

#[test]
fn tokens_are_unique_in_the_gateway() {
    let store = store();
    let put = |session: &Session| writing(session.org.to_bytes()[0], vec![Write::PutSession(session.clone())]);
    keep(&store, put(&tokened(1, 5, "first")));
    keep(&store, put(&tokened(1, 5, "first")));
    for twin in [tokened(1, 6, "first"), tokened(2, 6, "first")] {
        assert!(matches!(refused(&store, put(&twin)), CommitError::TokenTaken), "{}", twin.org);
    }
    let twins = [tokened(1, 6, "same"), tokened(1, 7, "same")].map(Write::PutSession);
    assert!(matches!(refused(&store, writing(1, twins.into())), CommitError::TokenTaken));

    // A token is free again once its session has another one, or none, or is gone, even within one commit.
    keep(&store, put(&tokened(1, 5, "second")));
    keep(&store, put(&tokened(2, 6, "first")));
    keep(&store, put(&session(1, 5)));
    keep(&store, put(&tokened(1, 7, "second")));
    let put_first = vec![Write::PutSession(tokened(1, 8, "second")), Write::EraseSession(session_id(7))];
    keep(&store, writing(1, put_first));
    let erased_first = vec![Write::EraseSession(session_id(8)), Write::PutSession(tokened(1, 5, "second"))];
    keep(&store, writing(1, erased_first));
    finish(&store, NOW);
    assert_sound(&store);
    assert!(matches!(refused(&store, put(&tokened(2, 6, "second"))), CommitError::TokenTaken));
    keep(&store, writing(2, vec![Write::EraseOrg]));
    keep(&store, put(&tokened(1, 5, "first")));
    finish(&store, NOW);
    assert_sound(&store);
}

#[test]
fn what_goes_with_a_session_is_not_put_into_an_erased_one() {
    let store = store();
    keep(&store, creating(1, 5));
    for row in [Write::PutWebhook(webhook(1, Some(5), 1)), Write::PutMessage(message(1, 5, 1))] {
        let late = writing(1, vec![Write::EraseSession(session_id(5)), row.clone()]);
        assert!(matches!(refused(&store, late), CommitError::UnknownSession(_)));
        let unknown = writing(2, vec![row]);
        assert!(matches!(refused(&store, unknown), CommitError::ForeignRow { .. }));
    }
    let unknown = [Write::PutWebhook(webhook(1, Some(9), 1)), Write::PutMessage(message(1, 9, 1))];
    for row in unknown {
        assert!(matches!(refused(&store, writing(1, vec![row])), CommitError::UnknownSession(_)));
    }
}

#[test]
fn versions_of_plugins_are_immutable_and_names_unique() {
    let store = store();
    keep(&store, writing(1, vec![Write::PutPlugin(plugin(1, 3, 1, 8))]));
    let again = writing(1, vec![Write::PutPlugin(plugin(1, 3, 1, 9))]);
    let refusal = store.commit_blocking(again).expect_err("refused");
    assert!(matches!(refusal, CommitError::Conflict));
    let mut twin = plugin(1, 4, 1, 8);
    twin.name = "plugin-3".into();
    let refusal = store.commit_blocking(writing(1, vec![Write::PutPlugin(twin)])).expect_err("refused");
    assert!(matches!(refusal, CommitError::NameTaken));
}

#[test]
fn what_a_plugin_saw_must_still_be_so() {
    let store = store();
    let access = |seen, change| KvAccess { plugin: plugin_id(3), key: "count".into(), seen, change };
    let put = || KvChange::Put { value: b"1".to_vec(), expires: Some(at(5)) };
    let with = |access| Commit { kv: vec![access], ..writing(1, vec![]) };
    assert!(matches!(refused(&store, with(access(Some(Some(1)), KvChange::Keep))), CommitError::Conflict));
    keep(&store, with(access(Some(None), put())));
    assert!(matches!(refused(&store, with(access(Some(None), put()))), CommitError::Conflict));
    keep(&store, with(access(Some(Some(1)), KvChange::Keep)));
    keep(&store, with(access(None, put())));
    assert!(matches!(refused(&store, with(access(Some(Some(1)), put()))), CommitError::Conflict));
    // An expired key counts as absent.
    keep(&store, Commit { now: at(5), ..with(access(Some(None), KvChange::Keep)) });
    keep(&store, with(access(Some(Some(2)), KvChange::Remove)));
    keep(&store, with(access(Some(None), KvChange::Keep)));
}

/// A key that was removed began again at version 1, so that who had seen the first took the second for it.
#[test]
fn a_key_that_is_made_anew_is_never_taken_for_the_one_that_was_seen() {
    let store = store();
    keep(&store, creating(1, 5));
    for name in ["count".to_owned(), format!("session:{}:count", session_id(5))] {
        let access = |seen, change| KvAccess { plugin: plugin_id(3), key: name.clone(), seen, change };
        let with = |access| Commit { kv: vec![access], ..writing(1, vec![]) };
        let put = || KvChange::Put { value: b"1".to_vec(), expires: None };
        let version = || read(&store).kv(org_id(1), plugin_id(3), &name, NOW).expect("read").expect("there").version;
        keep(&store, with(access(None, put())));
        let seen = version();
        keep(&store, with(access(None, KvChange::Remove)));
        assert_eq!(read(&store).kv_usage(org_id(1), plugin_id(3)).expect("read").keys, 0);
        keep(&store, with(access(None, put())));
        assert!(version() > seen);
        assert!(matches!(refused(&store, with(access(Some(Some(seen)), put()))), CommitError::Conflict));
        keep(&store, with(access(Some(Some(version())), KvChange::Remove)));
    }
    assert_sound(&store);
}

#[test]
fn an_idempotency_key_holds_for_a_day() {
    let store = store();
    let record = |at| IdempotencyRecord { key: "once".into(), session: session_id(5), message: message_id(1), at };
    let with = |at| Commit { idempotency: Some(record(at)), ..writing(1, vec![]) };
    keep(&store, with(NOW));
    assert!(matches!(refused(&store, with(at(1))), CommitError::Conflict));
    keep(&store, Commit { idempotency: Some(record(NOW)), ..writing(2, vec![]) });
    keep(&store, with(at(24 * 60 * 60 * 1000)));
    assert_sound(&store);
}

#[test]
fn rows_of_others_and_owners_unknown_are_refused() {
    let store = store();
    let foreign = writing(1, vec![Write::PutSession(session(2, 5))]);
    assert!(matches!(refused(&store, foreign), CommitError::ForeignRow { .. }));
    assert!(matches!(refused(&store, creating(9, 5)), CommitError::UnknownOrg(_)));
    let erase = writing(1, vec![Write::EraseSession(session_id(9))]);
    assert!(matches!(refused(&store, erase), CommitError::UnknownSession(_)));
    let told = Commit { events: vec![event(1, Some(9), 1)], ..writing(1, vec![]) };
    assert!(matches!(refused(&store, told), CommitError::UnknownSession(_)));
    let platform = Commit { writes: vec![Write::EraseOrg], ..Commit::new(OrgId::PLATFORM, NOW) };
    assert!(matches!(refused(&store, platform), CommitError::UnknownOrg(_)));
}

#[test]
fn a_lost_creation_gives_its_slot_back() {
    let store = store();
    keep(&store, creating(1, 5));
    let before = store.shared().ring.owners().len();
    for _ in 0..10 {
        let lost = Commit { expect: vec![Expectation::Org(Some(9))], ..creating(1, 6) };
        assert!(matches!(refused(&store, lost), CommitError::Conflict));
    }
    keep(&store, creating(1, 6));
    let slots: Vec<u32> =
        store.shared().ring.owners().iter().filter_map(|owner| Some(store.shared().ring.any(*owner)?.slot)).collect();
    assert_eq!(slots.len(), before + 1);
    assert!(slots.iter().all(|slot| (*slot as usize) < slots.len()), "{slots:?}");
}

#[test]
fn the_writer_finishes_its_queue_when_the_store_is_dropped() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || Store::open(dir.path(), crate::StoreOptions::default()).expect("opened");
    let store = open();
    keep(&store, writing(1, vec![Write::PutOrg(org(1))]));
    block_on(async {
        // A future that is dropped after it was queued does not take its commit back.
        let mut commit = Box::pin(store.commit(creating(1, 5)));
        let queued = std::future::poll_fn(|context| std::task::Poll::Ready(commit.as_mut().poll(context).is_pending()));
        assert!(queued.await);
    });
    drop(store);
    assert_eq!(read(&open()).session(org_id(1), session_id(5)).expect("read"), Some(session(1, 5)));
}

#[test]
fn a_fact_leads_to_its_event_and_is_told_from_another_one() {
    let store = store();
    keep(&store, Commit { fact: Some(fact("invoice-1")), ..writing(1, vec![]) });
    let known = |owner, content: &[u8], now| {
        let known = read(&store).fact(org_id(owner), "invoice-1", content, now).expect("read");
        known.map(|fact| (fact.at, fact.event, fact.same))
    };
    let event = EventId::from_bytes([7; 16]);
    assert_eq!(known(1, b"paid", NOW), Some((NOW, event, true)));
    assert_eq!(known(1, b"not paid", NOW), Some((NOW, event, false)));
    assert_eq!(known(2, b"paid", NOW), None);
    let later = NOW.after(Duration::from_secs(30 * 24 * 60 * 60));
    assert_eq!(known(1, b"paid", later), None);
}

#[tokio::test]
async fn a_commit_that_is_only_checked_changes_nothing() {
    let store = store();
    keep(&store, creating(1, 5));
    let before = store.verify().expect("verified").rows;
    store.check(creating(1, 6)).await.expect("it would hold");
    store.check(creating(1, 6)).await.expect("it still would");
    assert_eq!(store.verify().expect("verified").rows, before);
    assert!(matches!(store.check(creating(1, 5)).await, Err(CommitError::Conflict)));
    let full = Commit { quotas: vec![Quota { of: QuotaKind::Sessions, max: 1 }], ..creating(1, 6) };
    assert!(matches!(store.check(full).await, Err(CommitError::Quota { of: QuotaKind::Sessions, max: 1 })));
    keep(&store, creating(1, 6));
    assert_sound(&store);
}
