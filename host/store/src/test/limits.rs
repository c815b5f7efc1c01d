//! Counters and quotas, which are exact however many ask at once.

use std::time::Duration;

use portcullis_core::rate::{check_counter, group_counter, plugin_counter, send_counter};
use portcullis_core::{
    Errand, ErrandId, KvAccess, KvChange, LimitCheck, MessageState, OperationKind, OrgId, Timestamp, Window,
};

use super::sample::*;
use crate::{Commit, CommitError, ErrandChange, KvQuota, Quota, QuotaKind, REQUESTS_MAX, Store, Write};

fn limit(counter: &str, window: Window, max: u64) -> LimitCheck {
    LimitCheck { counter: counter.into(), window, max }
}

fn hit(store: &Store, limits: Vec<LimitCheck>, millis: u64) -> Result<(), CommitError> {
    let commit = Commit { limits, now: at(millis), ..writing(1, vec![]) };
    store.commit_blocking(commit).map(|_| ())
}

const MINUTE: Window = Window::Sliding(60_000);

#[test]
fn of_64_at_once_as_many_pass_as_the_limit_allows() {
    let store = store();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().expect("a runtime");
    let passed = runtime.block_on(async {
        let tasks: Vec<_> = (0..64)
            .map(|unique| {
                let store = store.clone();
                tokio::spawn(async move {
                    let limits = vec![limit("deletes", MINUTE, 10)];
                    let audit = vec![audit(1, None, unique)];
                    store.commit(Commit { limits, audit, ..writing(1, vec![]) }).await
                })
            })
            .collect();
        let mut passed = 0;
        for task in tasks {
            match task.await.expect("no panic") {
                Ok(_) => passed += 1,
                Err(CommitError::Limited { index: 0, .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        passed
    });
    assert_eq!(passed, 10);
    assert_eq!(read(&store).counter(org_id(1), "deletes", MINUTE, NOW).expect("read"), 10);
    assert_eq!(audited(&read(&store), org_id(1), 99).len(), 10);
    assert_sound(&store);
}

#[test]
fn a_window_slides_and_says_when_it_frees() {
    let store = store();
    for millis in [0, 10_000, 20_000] {
        hit(&store, vec![limit("sends", MINUTE, 3)], millis).expect("below the limit");
    }
    let wait = |max, millis| match hit(&store, vec![limit("sends", MINUTE, max)], millis) {
        Err(CommitError::Limited { index: 0, retry_after }) => retry_after,
        other => panic!("{other:?}"),
    };
    assert_eq!(wait(3, 30_000), Duration::from_secs(30));
    assert_eq!(wait(1, 30_000), Duration::from_secs(50), "two more have to go under a lower limit");
    assert_eq!(wait(0, 30_000), Duration::from_secs(50));
    let count = |millis| read(&store).counter(org_id(1), "sends", MINUTE, at(millis)).expect("read");
    assert_eq!((count(59_999), count(60_000), count(80_000)), (3, 2, 0));
    hit(&store, vec![limit("sends", MINUTE, 3)], 60_000).expect("the first hit is out of the window");
}

#[test]
fn limits_are_checked_together_and_each_counter_is_hit_once() {
    let store = store();
    let hour = Window::Sliding(3_600_000);
    let both = |max| vec![limit("sends", MINUTE, max), limit("sends", hour, 5), limit("all", hour, 2)];
    hit(&store, both(9), 0).expect("below");
    hit(&store, both(9), 1).expect("below");
    let refused = hit(&store, both(2), 2).expect_err("full");
    // Both the first and the third are full; the one that takes longer is named.
    assert!(matches!(refused, CommitError::Limited { index: 2, .. }), "{refused:?}");
    let count = |counter| read(&store).counter(org_id(1), counter, hour, at(2)).expect("read");
    assert_eq!((count("sends"), count("all")), (2, 2), "a refused commit counted");
    assert_eq!(read(&store).counter(org_id(2), "sends", hour, at(2)).expect("read"), 0);
}

#[test]
fn time_may_step_back_and_old_hits_go() {
    let store = store();
    hit(&store, vec![limit("sends", MINUTE, 9)], 50_000).expect("below");
    hit(&store, vec![limit("sends", MINUTE, 9)], 0).expect("below");
    assert_eq!(read(&store).counter(org_id(1), "sends", MINUTE, at(0)).expect("read"), 2);
    let rows = store.verify().expect("verified").rows;
    let later = 26 * 60 * 60 * 1000;
    hit(&store, vec![limit("sends", MINUTE, 1)], later).expect("both are out of the window");
    assert_eq!(store.verify().expect("verified").rows, rows - 1, "two old hits should have gone");
    assert_eq!(read(&store).counter(org_id(1), "sends", MINUTE, at(later)).expect("read"), 1);
    assert_sound(&store);
}

/// Plugins choose the names of their counters. One that never chose the same name twice grew the store for ever.
#[test]
fn hits_of_counters_that_are_never_hit_again_go_too() {
    let store = store();
    let hours = |hours: u64| hours * 60 * 60 * 1000;
    let rows = || store.verify().expect("verified").rows;
    let name = |number: u64| plugin_counter(plugin_id(3), &number.to_string());
    hit(&store, vec![limit("often", MINUTE, 99)], 0).expect("below");
    let before = rows();
    for number in 0..40 {
        hit(&store, vec![limit(&name(number), MINUTE, 1), limit("often", MINUTE, 99)], number).expect("below");
    }
    // A new counter, with its row by age, and one more hit of an old one.
    assert_eq!(rows(), before + 40 * 3);
    hit(&store, vec![limit(&name(100), MINUTE, 1)], hours(26) - 1).expect("below");
    assert_eq!(rows(), before + 40 * 3 + 2, "some went that may count still");
    for number in 0..40 {
        hit(&store, vec![limit(&name(200 + number), MINUTE, 1)], hours(26)).expect("below");
        assert_sound(&store);
    }
    // All old ones went, a few with each new one.
    assert_eq!(rows(), before - 2 + 2 + 40 * 2);
    let count = |counter: &str| {
        read(&store).counter(org_id(1), counter, Window::Sliding(hours(24)), at(hours(26))).expect("read")
    };
    assert_eq!((count(&name(7)), count(&name(100)), count(&name(207))), (0, 1, 1));
}

#[test]
fn counters_go_with_the_session_or_the_plugin_whose_they_are() {
    let store = store();
    keep(&store, creating(1, 5));
    let (gone, stays) = (session_id(5), session_id(6));
    let of_session = |id| [send_counter(id), group_counter(id), check_counter(id)];
    let of_plugins = [3, 4].map(|plugin| plugin_counter(plugin_id(plugin), "deletes"));
    let names: Vec<_> = of_session(gone).into_iter().chain(of_session(stays)).chain(of_plugins).collect();
    for millis in [0, 1] {
        hit(&store, names.iter().map(|name| limit(name, MINUTE, 9)).collect(), millis).expect("below");
    }
    let counts = || -> Vec<u64> {
        let snapshot = read(&store);
        names.iter().map(|name| snapshot.counter(org_id(1), name, MINUTE, at(2)).expect("read")).collect()
    };
    assert_eq!(counts(), [2; 8]);
    keep(&store, writing(1, vec![Write::EraseSession(gone)]));
    finish(&store, NOW);
    assert_eq!(counts(), [0, 0, 0, 2, 2, 2, 2, 2]);
    keep(&store, Commit { writes: vec![Write::RemovePlugin(plugin_id(3))], ..Commit::new(OrgId::PLATFORM, NOW) });
    assert_eq!(counts(), [0, 0, 0, 2, 2, 2, 0, 2], "a plugin of the platform counts in every organisation");
    assert_sound(&store);
}

#[test]
fn operations_that_are_done_are_counted() {
    let store = store();
    let done = Commit { done: Some(OperationKind::SessionDelete), ..writing(1, vec![]) };
    keep(&store, done.clone());
    keep(&store, done);
    let usage = |kind, window| read(&store).usage(org_id(1), kind, window, NOW).expect("read");
    assert_eq!(usage(OperationKind::SessionDelete, MINUTE), 2);
    assert_eq!(usage(OperationKind::SessionDelete, Window::UtcDay), 2);
    assert_eq!(usage(OperationKind::SessionStart, MINUTE), 0);
}

#[test]
fn quotas_count_rows_of_the_organisation() {
    let store = store();
    let below = |of, max, write| Commit { quotas: vec![Quota { of, max }], ..writing(1, vec![write]) };
    let cases = [
        (QuotaKind::Sessions, Write::PutSession(session(1, 5)), Write::PutSession(session(1, 6))),
        (QuotaKind::Keys, Write::PutKey(api_key(1, 5)), Write::PutKey(api_key(1, 6))),
        (QuotaKind::Plugins, Write::PutPlugin(plugin(1, 5, 1, 1)), Write::PutPlugin(plugin(1, 6, 1, 1))),
        (QuotaKind::Bindings, Write::PutBinding(binding(1, 5)), Write::PutBinding(binding(1, 6))),
        (QuotaKind::Webhooks, Write::PutWebhook(webhook(1, Some(5), 5)), Write::PutWebhook(webhook(1, None, 6))),
        (QuotaKind::QueuedMessages, Write::PutMessage(message(1, 5, 5)), Write::PutMessage(message(1, 6, 6))),
        (
            QuotaKind::Confirmations,
            put_confirmation(confirmation(1, Some(5), 5)),
            put_confirmation(confirmation(1, None, 6)),
        ),
        (QuotaKind::Publishers, Write::PutPublisher(publisher(1, 5)), Write::PutPublisher(publisher(1, 6))),
    ];
    assert_eq!(cases.len() + 1, QuotaKind::ALL.len(), "errands are changed in another way");
    keep(&store, writing(1, vec![Write::PutComponent { digest: [1; 32], bytes: vec![1] }]));
    for (of, first, second) in cases {
        keep(&store, below(of, 1, first));
        let full = store.commit_blocking(below(of, 1, second.clone())).expect_err("full");
        assert!(matches!(full, CommitError::Quota { of: kind, max: 1 } if kind == of), "{full:?}");
        keep(&store, below(of, 2, second));
    }
    keep(&store, writing(1, vec![Write::EraseSession(session_id(5)), Write::RemoveBinding(binding(1, 5).id)]));
    keep(&store, below(QuotaKind::Sessions, 2, Write::PutSession(session(1, 7))));
    keep(&store, below(QuotaKind::Bindings, 2, Write::PutBinding(binding(1, 7))));
    // The webhook and the message of the erased session went with it.
    keep(&store, below(QuotaKind::Webhooks, 2, Write::PutWebhook(webhook(1, None, 7))));
    keep(&store, below(QuotaKind::QueuedMessages, 2, Write::PutMessage(message(1, 6, 7))));
    // The confirmation too.
    keep(&store, below(QuotaKind::Confirmations, 2, put_confirmation(confirmation(1, Some(6), 7))));
    assert_sound(&store);
}

fn put_confirmation(row: portcullis_core::Confirmation) -> Write {
    Write::PutConfirmation(row)
}

#[test]
fn errands_are_counted_until_they_are_done() {
    let store = store();
    keep(&store, creating(1, 5));
    let put = |byte, about| Commit {
        quotas: vec![Quota { of: QuotaKind::Errands, max: 2 }],
        errands: vec![ErrandChange::Put(errand(1, about, byte, NOW))],
        ..writing(1, vec![])
    };
    keep(&store, put(1, None));
    keep(&store, put(2, Some(5)));
    let full =
        || matches!(store.commit_blocking(put(3, None)), Err(CommitError::Quota { of: QuotaKind::Errands, max: 2 }));
    assert!(full());
    let remove = vec![ErrandChange::Remove(errand(1, None, 1, NOW).id)];
    keep(&store, Commit { errands: remove, ..writing(1, vec![]) });
    keep(&store, put(3, None));
    assert!(full());
    keep(&store, writing(1, vec![Write::EraseSession(session_id(5))]));
    keep(&store, put(4, None));
    assert!(full());
    finish(&store, NOW);
    assert_sound(&store);
}

/// What plugins asked for was bounded nowhere: a gate that asks for more with every operation filled the store.
#[test]
fn a_plugin_waits_for_so_many_operations_and_no_more() {
    let store = store();
    keep(&store, creating(1, 5));
    let id = |number: u32| ErrandId::new(NOW, number.into());
    let ask = |owner, number, due| {
        let about = (owner == 1 && number == 7).then_some(5);
        ErrandChange::Put(Errand { id: id(number), ..request(owner, about, 1, due) })
    };
    let change = |owner, errands| store.commit_blocking(Commit { errands, ..writing(owner, vec![]) }).map(|_| ());
    let is_full =
        |errands| matches!(change(1, errands), Err(CommitError::RequestQuota { plugin }) if plugin == plugin_id(3));
    change(1, (1..REQUESTS_MAX).map(|number| ask(1, number, NOW)).collect()).expect("there is room");
    let (last, more) = (REQUESTS_MAX, REQUESTS_MAX + 1);
    assert!(is_full(vec![ask(1, last, NOW), ask(1, more, NOW)]));
    change(1, vec![ask(1, last, NOW)]).expect("there is room for one");
    assert!(is_full(vec![ask(1, more, NOW)]));
    // Others have room: another organisation, another plugin, and whoever is to be told something.
    change(2, vec![ask(2, more, NOW)]).expect("another organisation's");
    let other = Errand { id: id(more), plugin: plugin_id(4), ..request(1, None, 1, NOW) };
    change(1, vec![ErrandChange::Put(other)]).expect("another plugin's");
    change(1, vec![ErrandChange::Put(errand(1, None, 1, NOW))]).expect("a telling");
    change(1, vec![ask(1, 1, at(9))]).expect("put off");
    change(1, vec![ErrandChange::Remove(id(1)), ask(1, more + 1, NOW)]).expect("one for another");
    assert!(is_full(vec![ErrandChange::Remove(id(1)), ask(1, 1, NOW)]), "it was done before");
    assert_sound(&store);
    keep(&store, writing(1, vec![Write::EraseSession(session_id(5))]));
    change(1, vec![ask(1, 1, NOW)]).expect("one went with its session");
    finish(&store, NOW);
    assert_sound(&store);
}

#[test]
fn confirmations_that_have_ended_leave_room() {
    let store = store();
    let put = |byte, now| Commit {
        now,
        quotas: vec![Quota { of: QuotaKind::Confirmations, max: 2 }],
        ..writing(1, vec![Write::PutConfirmation(confirmation(1, None, byte))])
    };
    keep(&store, put(1, NOW));
    keep(&store, put(2, NOW));
    let end = confirmation(1, None, 1).expires;
    let before = Timestamp::from_millis(end.as_millis() - 1);
    assert!(matches!(store.commit_blocking(put(3, before)), Err(CommitError::Quota { .. })));
    keep(&store, put(3, end));
    let there = |byte| read(&store).confirmation(org_id(1), &[byte; 32]).expect("read").is_some();
    assert_eq!([1, 2, 3].map(there), [false, false, true]);
    assert_sound(&store);
}

#[test]
fn a_message_counts_until_nothing_more_will_happen_to_it() {
    let store = store();
    keep(&store, creating(1, 5));
    let (first, failed) = (message(1, 5, 1), MessageState::Failed { code: "interrupted".into() });
    // Whether there is room for one open message and no more, after the first one has come so far.
    let cases = [(MessageState::Queued, false), (MessageState::Sending, false), (sent(NOW), true), (failed, true)];
    for (state, room) in cases {
        keep(&store, writing(1, vec![Write::PutMessage(moved(&first, state.clone(), NOW))]));
        let quotas = vec![Quota { of: QuotaKind::QueuedMessages, max: 1 }];
        let asked = store.commit_blocking(Commit { quotas, ..writing(1, vec![]) });
        assert_eq!(asked.is_ok(), room, "{state:?}: {asked:?}");
        assert_sound(&store);
    }
}

#[test]
fn a_plugin_keeps_so_much_and_no_more() {
    let store = store();
    let put = |key: String, bytes: usize, expires| KvAccess {
        plugin: plugin_id(3),
        key,
        seen: None,
        change: KvChange::Put { value: vec![0; bytes], expires },
    };
    let with = |kv, now| Commit { kv, now, ..writing(1, vec![]) };
    let half = 512 * 1024;
    keep(&store, with(vec![put("a".into(), half, Some(at(10)))], NOW));
    let full = store.commit_blocking(with(vec![put("b".into(), half, None)], NOW));
    assert!(matches!(full, Err(CommitError::KvQuota { plugin }) if plugin == plugin_id(3)));
    keep(&store, with(vec![put("a".into(), half - 10, Some(at(10)))], NOW));
    // What has expired makes room.
    keep(&store, with(vec![put("b".into(), half, None)], at(10)));
    assert_eq!(read(&store).kv_usage(org_id(1), plugin_id(3)).expect("read").keys, 2);
    keep(&store, with(vec![put("c".into(), half - 10, None)], at(10)));
    assert_eq!(read(&store).kv_usage(org_id(1), plugin_id(3)).expect("read").keys, 2);
    assert_sound(&store);

    let many = (0..KvQuota::default().keys).map(|n| put(n.to_string(), 1, None)).collect::<Vec<_>>();
    let other = |mut kv: Vec<KvAccess>| {
        kv.iter_mut().for_each(|access| access.plugin = plugin_id(4));
        with(kv, NOW)
    };
    keep(&store, other(many));
    let full = store.commit_blocking(other(vec![put("more".into(), 1, None)]));
    assert!(matches!(full, Err(CommitError::KvQuota { .. })));
    keep(&store, other(vec![put("7".into(), 5, None)]));
    assert_sound(&store);
}

#[test]
fn an_organisation_may_let_its_plugins_keep_more_or_less() {
    let store = store();
    let access = |key: &str, change| KvAccess { plugin: plugin_id(3), key: key.into(), seen: None, change };
    let put = |key, bytes| access(key, KvChange::Put { value: vec![0; bytes], expires: None });
    let change = |keys, bytes, kv| {
        let kv_quota = KvQuota { keys, bytes };
        store.commit_blocking(Commit { kv, kv_quota, ..writing(1, vec![]) }).map(|_| ())
    };
    change(3, 2 << 20, vec![put("a", 1 << 20), put("b", 9), put("c", 9)]).expect("there is room for both");
    assert!(matches!(change(3, 2 << 20, vec![put("d", 9)]), Err(CommitError::KvQuota { .. })), "too many keys");
    assert!(matches!(change(9, 1 << 20, vec![put("d", 9)]), Err(CommitError::KvQuota { .. })), "too many bytes");
    // Under a quota that is less by now a plugin can still keep less, or the same.
    change(1, 1, vec![put("b", 9), access("c", KvChange::Remove)]).expect("it keeps less");
    assert!(matches!(change(1, 1, vec![put("b", 10)]), Err(CommitError::KvQuota { .. })));
    change(4, 2 << 20, vec![put("c", 9), put("d", 9)]).expect("there is room again");
    assert_sound(&store);
}
