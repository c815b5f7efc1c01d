//! What hangs on plugins and bindings: each kind of row comes back as it was put, is done once, and goes with whom it is about.

use portcullis_core::{
    Binding, BindingId, Errand, ErrandId, KvAccess, KvChange, OrgId, Secret, Suspension, Tally, Timestamp,
};

use super::sample::*;
use crate::{
    Commit, CommitError, ErrandChange, Expectation, SECRETS_MAX, Store, TIMERS_MAX, TallyChange, TimerChange, Write,
};

const DAY: u64 = 24 * 60 * 60 * 1000;

fn changing(owner: u8, errands: Vec<ErrandChange>) -> Commit {
    Commit { errands, ..writing(owner, vec![]) }
}

fn put(owner: u8, about: Option<u8>, byte: u8, due: Timestamp) -> ErrandChange {
    ErrandChange::Put(errand(owner, about, byte, due))
}

/// The errands of the first two organisations that are due, by organisation and byte; so many of each.
fn due(store: &Store, now: Timestamp, limit: usize) -> Vec<(u8, u8)> {
    let of = |org| read(store).errands_due(org, now, limit).expect("read");
    let due = [1, 2].map(|owner| of(org_id(owner))).concat();
    due.iter().map(|errand| (errand.org.to_bytes()[0], errand.id.to_bytes()[0])).collect()
}

/// When the first organisation's next errand or timer is due.
fn next(store: &Store) -> Option<Timestamp> {
    let next = read(store).next_due(org_id(1)).expect("read");
    assert_eq!(read(store).backlogs().expect("read").get(&org_id(1)).copied(), next);
    next
}

/// A commit of the platform.
fn of_platform(writes: Vec<Write>) -> Commit {
    Commit { writes, ..Commit::new(OrgId::PLATFORM, NOW) }
}

fn platform_binding(byte: u8) -> Binding {
    Binding { org: OrgId::PLATFORM, ..binding(1, byte) }
}

#[test]
fn errands_are_due_in_their_order_and_can_be_put_off() {
    let store = store();
    keep(&store, creating(1, 5));
    keep(&store, changing(1, vec![put(1, None, 3, at(10)), put(1, Some(5), 2, at(20)), put(1, None, 1, at(20))]));
    assert_eq!(next(&store), Some(at(10)));
    assert_eq!(read(&store).errand(org_id(1), errand_id(2)).expect("read"), Some(errand(1, Some(5), 2, at(20))));
    assert_eq!(read(&store).errand(org_id(2), errand_id(2)).expect("read"), None);
    assert_eq!(due(&store, at(9), 9), []);
    assert_eq!(due(&store, at(20), 9), [(1, 3), (1, 1), (1, 2)]);
    let off = Errand { due: at(30), attempts: 1, ..errand(1, None, 3, at(10)) };
    keep(&store, changing(1, vec![ErrandChange::Put(off.clone()), ErrandChange::Remove(errand_id(1))]));
    assert_eq!(next(&store), Some(at(20)));
    assert_eq!(due(&store, at(30), 9), [(1, 2), (1, 3)]);
    assert_eq!(read(&store).errand(org_id(1), off.id).expect("read"), Some(off));
    assert_sound(&store);
    keep(&store, writing(1, vec![Write::EraseSession(session_id(5))]));
    assert_eq!(due(&store, at(30), 9), [(1, 3)]);
    finish(&store, NOW);
    assert_sound(&store);
}

#[test]
fn no_backlog_stands_in_the_way_of_another_organisation() {
    let store = store();
    let many = (0..40).map(|byte| put(1, None, byte, at(byte.into()))).collect();
    keep(&store, changing(1, many));
    keep(&store, changing(2, vec![put(2, None, 90, at(50)), put(2, None, 91, at(60))]));
    assert_eq!(due(&store, at(99), 2), [(1, 0), (1, 1), (2, 90), (2, 91)]);
    assert_eq!(due(&store, at(55), 2), [(1, 0), (1, 1), (2, 90)]);
    assert_eq!(due(&store, at(99), 99).len(), 42);
    // Timers are found in the same way, and organisations by whichever of the two comes first.
    let many = (0..40).map(|number| TimerChange::Set(timer(1, None, &number.to_string(), at(number))));
    keep(&store, Commit { timers: many.collect(), ..changing(1, vec![]) });
    keep(&store, Commit { timers: vec![TimerChange::Set(timer(2, None, "own", at(45)))], ..changing(2, vec![]) });
    let timers = |owner, now| read(&store).timers_due(org_id(owner), now, 9).expect("read").len();
    assert_eq!((timers(1, at(99)), timers(2, at(99)), timers(2, at(44))), (9, 1, 0));
    let backlogs = read(&store).backlogs().expect("read");
    assert_eq!(Vec::from_iter(backlogs), [(org_id(1), at(0)), (org_id(2), at(45))]);
    assert_sound(&store);
}

#[test]
fn an_errand_is_carried_out_once() {
    let store = store();
    let id = errand_id(1);
    let done = || Commit {
        expect: vec![Expectation::Errand(id)],
        audit: vec![audit(1, None, 1)],
        ..changing(1, vec![ErrandChange::Remove(id)])
    };
    assert!(matches!(store.commit_blocking(done()), Err(CommitError::Conflict)));
    keep(&store, changing(1, vec![put(1, None, 1, NOW)]));
    keep(&store, done());
    assert!(matches!(store.commit_blocking(done()), Err(CommitError::Conflict)));
    assert_eq!(next(&store), None);
}

#[test]
fn errands_know_their_sessions() {
    let store = store();
    keep(&store, creating(1, 5));
    let unknown = store.commit_blocking(changing(1, vec![put(1, Some(9), 1, NOW)]));
    assert!(matches!(unknown, Err(CommitError::UnknownSession(_))));
    // What is wanted of a session that goes with the same commit goes too.
    let errands = vec![put(1, Some(5), 1, NOW), put(1, None, 2, NOW)];
    keep(&store, Commit { errands, ..writing(1, vec![Write::EraseSession(session_id(5))]) });
    assert_eq!(due(&store, NOW, 9), [(1, 2)]);
    finish(&store, NOW);
    assert_sound(&store);
}

/// A store in which two organisations have errands and timers of binding 4, and of another one.
fn busy(binding: &Binding) -> Store {
    let store = store();
    keep(&store, Commit { writes: vec![Write::PutBinding(binding.clone())], ..Commit::new(binding.org, NOW) });
    for owner in [1, 2] {
        let other = Errand { binding: BindingId::from_bytes([5; 16]), ..errand(owner, None, 2, NOW) };
        let mut later = timer(owner, None, "other", at(2));
        later.binding = other.binding;
        keep(
            &store,
            Commit {
                timers: vec![TimerChange::Set(timer(owner, None, "own", at(1))), TimerChange::Set(later)],
                ..changing(owner, vec![put(owner, None, 1, NOW), ErrandChange::Put(other)])
            },
        );
    }
    store
}

fn timers(store: &Store) -> Vec<(u8, String)> {
    let due = [1, 2].map(|owner| read(store).timers_due(org_id(owner), at(99), 99).expect("read")).concat();
    due.into_iter().map(|timer| (timer.org.to_bytes()[0], timer.key)).collect()
}

#[test]
fn a_binding_takes_its_errands_and_timers_along() {
    let store = busy(&binding(1, 4));
    keep(&store, writing(1, vec![Write::RemoveBinding(binding(1, 4).id)]));
    assert_eq!(due(&store, NOW, 9), [(1, 2), (2, 1), (2, 2)]);
    let left = |owner, key: &str| (owner, key.to_owned());
    assert_eq!(timers(&store), [left(1, "other"), left(2, "own"), left(2, "other")]);
    assert_sound(&store);

    // One of the platform takes them along in every organisation.
    let store = busy(&platform_binding(4));
    keep(&store, writing(1, vec![Write::RemoveBinding(platform_binding(4).id)]));
    assert_eq!(due(&store, NOW, 9).len(), 4, "an organisation removed a binding of the platform");
    keep(&store, of_platform(vec![Write::RemoveBinding(platform_binding(4).id)]));
    assert_eq!(due(&store, NOW, 9), [(1, 2), (2, 2)]);
    assert_eq!(timers(&store), [left(1, "other"), left(2, "other")]);
    assert_sound(&store);
}

#[test]
fn a_plugin_takes_everything_along_that_it_has() {
    let access = |plugin| KvAccess {
        plugin,
        key: format!("session:{}:count", session_id(5)),
        seen: None,
        change: KvChange::Put { value: vec![1], expires: None },
    };
    // Once as the organisation's own plugin, once as the platform's.
    for owner in [org_id(1), OrgId::PLATFORM] {
        let store = busy(&binding(1, 4));
        keep(&store, creating(1, 5));
        let kv = vec![access(plugin_id(3)), access(plugin_id(4))];
        keep(&store, Commit { kv, ..writing(1, vec![]) });
        let mut version = plugin(1, 3, 1, 8);
        version.org = owner;
        let put = vec![
            Write::PutPlugin(version),
            Write::PutComponent { digest: [8; 32], bytes: vec![8] },
            Write::PutSecret { plugin: plugin_id(3), name: "pepper".into(), value: Secret::new("salt") },
        ];
        keep(&store, Commit { writes: put, ..Commit::new(owner, NOW) });
        assert_sound(&store);
        keep(&store, Commit { writes: vec![Write::RemovePlugin(plugin_id(3))], ..Commit::new(owner, NOW) });
        let left = if owner == OrgId::PLATFORM { 0 } else { 2 };
        assert_eq!((due(&store, NOW, 9).len(), timers(&store).len()), (left, left), "{owner}");
        let snapshot = read(&store);
        let keeps = |plugin| snapshot.kv_usage(org_id(1), plugin).expect("read").keys;
        assert_eq!((keeps(plugin_id(3)), keeps(plugin_id(4))), (0, 1));
        assert_eq!(snapshot.secret_names(owner, plugin_id(3)).expect("read"), []);
        assert_sound(&store);
    }
}

#[test]
fn a_confirmation_is_given_once() {
    let store = store();
    keep(&store, creating(1, 5));
    let (of_session, of_org) = (confirmation(1, Some(5), 1), confirmation(1, None, 2));
    let rows = [&of_session, &of_org].map(|row| Write::PutConfirmation(row.clone()));
    keep(&store, writing(1, rows.into()));
    let asked = |owner, byte| read(&store).confirmation(org_id(owner), &[byte; 32]).expect("read");
    assert_eq!((asked(1, 1), asked(1, 2)), (Some(of_session.clone()), Some(of_org)));
    assert_eq!((asked(2, 1), asked(1, 3)), (None, None));
    assert_sound(&store);
    let give = |byte| Commit {
        expect: vec![Expectation::Confirmation([byte; 32])],
        ..writing(1, vec![Write::RemoveConfirmation([byte; 32])])
    };
    keep(&store, give(2));
    assert!(matches!(store.commit_blocking(give(2)), Err(CommitError::Conflict)));
    // Given or not, it goes with its session, also in the commit that gives it.
    let erase = vec![Write::EraseSession(session_id(5)), Write::RemoveConfirmation([1; 32])];
    keep(&store, Commit { writes: erase, ..give(1) });
    assert_eq!(asked(1, 1), None);
    let late = store.commit_blocking(writing(1, vec![Write::PutConfirmation(of_session)]));
    assert!(matches!(late, Err(CommitError::UnknownSession(_))));
    finish(&store, NOW);
    assert_sound(&store);
}

#[test]
fn confirmations_that_have_ended_go_with_new_ones_a_few_at_a_time() {
    let store = store();
    let put = |byte, now| Commit { now, ..writing(1, vec![Write::PutConfirmation(confirmation(1, None, byte))]) };
    for byte in 1..=6 {
        keep(&store, put(byte, NOW));
    }
    let mut late = confirmation(1, None, 7);
    late.expires = at(9_000);
    keep(&store, Commit { now: at(1_000), ..writing(1, vec![Write::PutConfirmation(late.clone())]) });
    let left = || {
        let there = |byte: &u8| read(&store).confirmation(org_id(1), &[*byte; 32]).expect("read").is_some();
        (1..=9).filter(there).collect::<Vec<u8>>()
    };
    assert_eq!(left().len(), 3, "four have gone");
    late.hash = [8; 32];
    keep(&store, Commit { now: at(1_000), ..writing(1, vec![Write::PutConfirmation(late)]) });
    assert_eq!(left(), [7, 8]);
    assert_sound(&store);
}

#[test]
fn suspensions_end_with_any_change_of_their_binding() {
    let store = store();
    keep(&store, writing(1, vec![Write::PutBinding(binding(1, 1)), Write::PutBinding(binding(1, 2))]));
    keep(&store, of_platform(vec![Write::PutBinding(platform_binding(4))]));
    let suspended = |owner| {
        let rows = read(&store).suspensions(org_id(owner)).expect("read");
        rows.iter().map(|row| row.binding.to_bytes()[0]).collect::<Vec<_>>()
    };
    let suspend = |byte| keep(&store, writing(1, vec![Write::PutSuspension(suspension(1, byte, 1))]));
    suspend(1);
    suspend(4);
    assert_eq!(read(&store).suspensions(org_id(1)).expect("read"), [suspension(1, 1, 1), suspension(1, 4, 1)]);
    assert!(suspended(2).is_empty());
    keep(&store, writing(1, vec![Write::RemoveSuspensions(binding(1, 1).id)]));
    assert_eq!(suspended(1), [4]);
    // The candidate of a binding has a suspension of its own; both go with the binding.
    suspend(1);
    let candidate = Suspension { candidate: true, ..suspension(1, 1, 1) };
    keep(&store, writing(1, vec![Write::PutSuspension(candidate)]));
    assert_eq!(suspended(1), [1, 1, 4]);
    keep(&store, writing(1, vec![Write::RemoveSuspensions(binding(1, 1).id)]));
    assert_eq!(suspended(1), [4]);
    suspend(1);
    keep(&store, writing(1, vec![Write::PutSuspension(Suspension { candidate: true, ..suspension(1, 1, 1) })]));
    keep(&store, writing(1, vec![Write::RemoveBinding(binding(1, 1).id)]));
    assert_eq!(suspended(1), [4]);
    // That of the platform's binding no longer fits once the binding has changed, and goes with the next one.
    let changed = Binding { generation: 2, ..platform_binding(4) };
    keep(&store, of_platform(vec![Write::PutBinding(changed)]));
    assert_eq!(suspended(1), [4]);
    suspend(2);
    assert_eq!(suspended(1), [2]);
    assert_sound(&store);
}

#[test]
fn tallies_add_up_over_organisations() {
    let store = store();
    keep(&store, writing(1, vec![Write::PutBinding(binding(1, 1))]));
    keep(&store, of_platform(vec![Write::PutBinding(platform_binding(4))]));
    let count = |owner, byte, candidate_version, diverged| {
        let tally = TallyChange { binding: BindingId::from_bytes([byte; 16]), candidate_version, diverged };
        keep(&store, Commit { tallies: vec![tally], ..writing(owner, vec![]) });
    };
    let tally = |byte, version| {
        let Tally { asked, diverged } = read(&store).tally(BindingId::from_bytes([byte; 16]), version).expect("read");
        (asked, diverged)
    };
    count(1, 4, 2, false);
    count(1, 4, 2, true);
    count(2, 4, 2, true);
    count(2, 4, 3, false);
    count(1, 1, 2, true);
    count(1, 9, 2, true);
    count(2, 1, 2, true);
    assert_eq!((tally(4, 2), tally(4, 3), tally(1, 2)), ((3, 2), (1, 0), (1, 1)));
    assert_eq!((tally(9, 2), tally(4, 1)), ((0, 0), (0, 0)), "a binding that is not there was counted");
    assert_sound(&store);
    keep(&store, writing(2, vec![Write::EraseOrg]));
    finish(&store, NOW);
    assert_eq!((tally(4, 2), tally(4, 3)), ((2, 1), (0, 0)));
    keep(&store, of_platform(vec![Write::RemoveBinding(platform_binding(4).id)]));
    assert_eq!((tally(4, 2), tally(1, 2)), ((0, 0), (1, 1)));
    assert_sound(&store);
}

#[test]
fn a_fact_is_told_once_in_thirty_days() {
    let store = store();
    let tell = |owner, id: &str, now| {
        store.commit_blocking(Commit { fact: Some(fact(id)), now, ..writing(owner, vec![]) }).map(|_| ())
    };
    tell(1, "invoice-1", NOW).expect("new");
    assert!(matches!(tell(1, "invoice-1", at(30 * DAY - 1)), Err(CommitError::FactKnown)));
    tell(2, "invoice-1", NOW).expect("another organisation's");
    tell(1, "invoice-2", NOW).expect("another one");
    tell(1, "invoice-1", at(30 * DAY)).expect("long ago");
    assert!(matches!(tell(1, "invoice-1", at(31 * DAY)), Err(CommitError::FactKnown)));
    assert_sound(&store);
    // Old ones go: each of these forgets those before it.
    let rows = || store.verify().expect("verified").rows;
    tell(1, "invoice-3", at(99 * DAY)).expect("new");
    let before = rows();
    tell(1, "invoice-4", at(999 * DAY)).expect("new");
    assert_eq!(rows(), before);
    assert_sound(&store);
}

#[test]
fn secrets_are_their_plugins() {
    let store = store();
    keep(&store, writing(1, vec![Write::PutComponent { digest: [8; 32], bytes: vec![8] }]));
    let put = |plugin, name: &str, value: &str| {
        let write = Write::PutSecret { plugin: plugin_id(plugin), name: name.into(), value: Secret::new(value) };
        store.commit_blocking(Commit { now: at(plugin.into()), ..writing(1, vec![write]) }).map(|_| ())
    };
    assert!(matches!(put(3, "pepper", "salt"), Err(CommitError::Conflict)), "a secret without a plugin");
    keep(&store, writing(1, [3, 4].map(|byte| Write::PutPlugin(plugin(1, byte, 1, 8))).into()));
    for (plugin, name, value) in [(3, "pepper", "old"), (3, "pepper", "salt"), (3, "apple", "pie"), (4, "pepper", "x")]
    {
        put(plugin, name, value).expect("put");
    }
    let secret = |owner, plugin, name: &str| {
        let found = read(&store).secret(org_id(owner), plugin_id(plugin), name).expect("read");
        found.map(|secret| secret.reveal().to_owned())
    };
    let of = |plugin| read(&store).secret_names(org_id(1), plugin_id(plugin)).expect("read");
    assert_eq!((secret(1, 3, "pepper"), secret(1, 4, "pepper")), (Some("salt".into()), Some("x".into())));
    assert_eq!((secret(2, 3, "pepper"), secret(1, 3, "plum")), (None, None));
    assert_eq!(of(3), [("apple".into(), at(3)), ("pepper".into(), at(3))]);
    assert_sound(&store);

    (2..SECRETS_MAX).for_each(|number| put(3, &number.to_string(), "x").expect("there is room"));
    assert!(matches!(put(3, "more", "x"), Err(CommitError::SecretQuota { plugin }) if plugin == plugin_id(3)));
    put(3, "apple", "cake").expect("replaced");
    let remove = |name: &str| Write::RemoveSecret { plugin: plugin_id(3), name: name.into() };
    keep(&store, writing(1, vec![remove("apple")]));
    put(3, "more", "x").expect("there is room again");
    keep(&store, writing(1, vec![Write::RemovePlugin(plugin_id(3))]));
    assert_eq!((of(3), secret(1, 3, "pepper"), secret(1, 4, "pepper")), (vec![], None, Some("x".into())));
    assert_sound(&store);
}

#[test]
fn publishers() {
    let store = store();
    keep(&store, writing(1, vec![Write::PutPublisher(publisher(1, 6)), Write::PutPublisher(publisher(1, 5))]));
    let mut ours = publisher(1, 7);
    ours.org = OrgId::PLATFORM;
    keep(&store, of_platform(vec![Write::PutPublisher(ours.clone())]));
    let snapshot = read(&store);
    assert_eq!(snapshot.publishers(org_id(1)).expect("read"), [publisher(1, 5), publisher(1, 6)]);
    assert_eq!(snapshot.publishers(OrgId::PLATFORM).expect("read"), std::slice::from_ref(&ours));
    assert_eq!(snapshot.publisher(org_id(1), publisher(1, 6).id).expect("read"), Some(publisher(1, 6)));
    assert_eq!(snapshot.publisher(org_id(1), ours.id).expect("read"), None);
    keep(&store, writing(1, vec![Write::RemovePublisher(publisher(1, 5).id), Write::RemovePublisher(ours.id)]));
    assert_eq!(read(&store).publishers(org_id(1)).expect("read"), [publisher(1, 6)]);
    assert_eq!(read(&store).publishers(OrgId::PLATFORM).expect("read"), [ours]);
    assert_sound(&store);
}

#[test]
fn a_plugin_has_so_many_timers_and_no_more() {
    let store = store();
    keep(&store, creating(1, 5));
    let set = |owner, about, number: u32| TimerChange::Set(timer(owner, about, &number.to_string(), at(number.into())));
    let change = |owner, timers| store.commit_blocking(Commit { timers, ..writing(owner, vec![]) }).map(|_| ());
    change(1, (1..TIMERS_MAX).map(|number| set(1, None, number)).collect()).expect("there is room");
    let two = || vec![set(1, None, TIMERS_MAX), set(1, None, TIMERS_MAX + 1)];
    assert!(matches!(change(1, two()), Err(CommitError::TimerQuota { plugin }) if plugin == plugin_id(3)));
    change(1, vec![set(1, Some(5), TIMERS_MAX)]).expect("there is room for one");
    assert!(matches!(change(1, vec![set(1, None, 0)]), Err(CommitError::TimerQuota { .. })));
    change(2, vec![set(2, None, 0)]).expect("another organisation's");
    change(1, vec![set(1, None, 1)]).expect("set anew");
    let cancel = |number: u32| TimerChange::Cancel { plugin: plugin_id(3), key: number.to_string() };
    change(1, vec![cancel(7), set(1, None, 0)]).expect("one for another");
    let fired = |number: u32| TimerChange::Fired { plugin: plugin_id(3), key: number.to_string(), at: at(1) };
    let changed = change(1, vec![fired(2), set(1, None, 7)]);
    assert!(matches!(changed, Err(CommitError::Conflict)), "it was set for another time: {changed:?}");
    change(1, vec![fired(1), set(1, None, 7)]).expect("one for another");
    assert_sound(&store);
    keep(&store, writing(1, vec![Write::EraseSession(session_id(5))]));
    change(1, vec![set(1, None, 1)]).expect("the session's has gone");
    finish(&store, NOW);
    assert_sound(&store);
}

#[test]
fn lent_keys_are_the_same_at_every_opening_and_different_for_every_purpose() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || Store::open(dir.path(), crate::StoreOptions::default()).expect("opened");
    let key = open().derive_key("compiled code");
    assert_eq!(open().derive_key("compiled code"), key);
    assert_ne!(open().derive_key("compiled codes"), key);
    assert_ne!(store().derive_key("compiled code"), key, "two stores lend the same key");
}

#[test]
fn ids_of_errands_order_those_that_are_due_together() {
    let store = store();
    let ids = [3, 1, 2].map(|random| ErrandId::new(NOW, random));
    let errands = ids.map(|id| ErrandChange::Put(Errand { id, ..errand(1, None, 1, at(5)) }));
    keep(&store, changing(1, errands.into()));
    let due = read(&store).errands_due(org_id(1), at(5), 9).expect("read");
    assert_eq!(due.iter().map(|errand| errand.id).collect::<Vec<_>>(), [ids[1], ids[2], ids[0]]);
}
