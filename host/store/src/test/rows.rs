//! Each kind of row comes back as it was put, and only to its own organisation.

use portcullis_core::{
    DEVICE_NAME_BYTES, DEVICE_VALUE_BYTES, DeviceChange, DeviceStore, DeviceStoreError, KvAccess, KvChange, KvEntry,
    MessageState, OrgId, OutboxPlace, PluginVersion, PublisherId,
};

use super::sample::*;
use crate::{Commit, CommitError, DecisionFilter, IdempotencyRecord, TimerChange, Write};

#[test]
fn orgs_and_sessions() {
    let store = store();
    for byte in [7, 5, 6] {
        keep(&store, creating(1, byte));
    }
    let snapshot = read(&store);
    assert_eq!(snapshot.org(org_id(1)).expect("read"), Some(org(1)));
    assert_eq!(snapshot.orgs(None, 9).expect("read"), [org(1), org(2)]);
    assert_eq!(snapshot.orgs(Some(org_id(1)), 9).expect("read"), [org(2)]);

    assert_eq!(snapshot.session(org_id(1), session_id(5)).expect("read"), Some(session(1, 5)));
    assert_eq!(snapshot.session(org_id(2), session_id(5)).expect("read"), None);
    let named = |owner, name: &str| snapshot.session_by_instance_name(org_id(owner), name).expect("read");
    assert_eq!(named(1, "instance-6"), Some(session(1, 6)));
    assert_eq!(named(2, "instance-6"), None);
    assert_eq!(named(1, "instance-9"), None);

    let ids = |sessions: Vec<portcullis_core::Session>| sessions.iter().map(|row| row.id).collect::<Vec<_>>();
    let (five, six, seven) = (session_id(5), session_id(6), session_id(7));
    assert_eq!(ids(snapshot.sessions(org_id(1), None, 2).expect("read")), [five, six]);
    assert_eq!(ids(snapshot.sessions(org_id(1), Some(six), 2).expect("read")), [seven]);
    assert_eq!(ids(snapshot.sessions_newest(org_id(1), None, 2).expect("read")), [seven, six]);
    assert_eq!(ids(snapshot.sessions_newest(org_id(1), Some(six), 2).expect("read")), [five]);
    let mut every = Vec::new();
    snapshot.every_session(|session| every.push(session.id)).expect("read");
    assert_eq!(every, [five, six, seven]);
    assert_sound(&store);
}

#[test]
fn keys() {
    let store = store();
    keep(&store, writing(1, vec![Write::PutKey(api_key(1, 5)), Write::PutKey(api_key(1, 6))]));
    let snapshot = read(&store);
    assert_eq!(snapshot.key_by_hash(&[5; 32]).expect("read"), Some(api_key(1, 5)));
    assert_eq!(snapshot.key_by_hash(&[7; 32]).expect("read"), None);
    assert_eq!(snapshot.keys(org_id(1)).expect("read"), [api_key(1, 5), api_key(1, 6)]);
    assert_eq!(snapshot.keys(org_id(2)).expect("read"), []);
    assert_eq!(snapshot.key(org_id(1), api_key(1, 6).id).expect("read"), Some(api_key(1, 6)));
    let mut every = Vec::new();
    snapshot.every_key(|key| every.push(key)).expect("read");
    assert_eq!(every, [api_key(1, 5), api_key(1, 6)]);
    assert_sound(&store);
}

#[test]
fn plugins_components_and_bindings() {
    let store = store();
    let component = |digest| Write::PutComponent { digest: [digest; 32], bytes: vec![digest; 3] };
    keep(&store, writing(1, vec![Write::PutPlugin(plugin(1, 3, 1, 8)), component(8)]));
    keep(&store, writing(1, vec![Write::PutPlugin(plugin(1, 3, 2, 9)), component(9)]));
    keep(&store, writing(1, vec![Write::PutPlugin(plugin(1, 4, 1, 9)), Write::PutBinding(binding(1, 1))]));
    let snapshot = read(&store);
    assert_eq!(snapshot.plugins(org_id(1)).expect("read").len(), 3);
    let versions = snapshot.plugin_versions(org_id(1), plugin_id(3)).expect("read");
    assert_eq!(versions, [plugin(1, 3, 1, 8), plugin(1, 3, 2, 9)]);
    assert_eq!(snapshot.plugin(org_id(1), plugin_id(3), 2).expect("read"), Some(plugin(1, 3, 2, 9)));
    assert_eq!(snapshot.component(org_id(1), [8; 32]).expect("read"), Some(vec![8; 3]));
    assert_eq!(snapshot.component(org_id(2), [8; 32]).expect("read"), None);
    assert_eq!(snapshot.bindings(org_id(1)).expect("read"), [binding(1, 1)]);
    assert_eq!(snapshot.binding(org_id(1), binding(1, 1).id).expect("read"), Some(binding(1, 1)));
    assert_sound(&store);

    // A removed plugin takes the components along that nobody else uses.
    keep(&store, writing(1, vec![Write::RemovePlugin(plugin_id(3)), Write::RemoveBinding(binding(1, 1).id)]));
    let snapshot = read(&store);
    assert_eq!(snapshot.plugins(org_id(1)).expect("read"), [plugin(1, 4, 1, 9)]);
    assert_eq!(snapshot.component(org_id(1), [8; 32]).expect("read"), None);
    assert_eq!(snapshot.component(org_id(1), [9; 32]).expect("read"), Some(vec![9; 3]));
    assert_eq!(snapshot.bindings(org_id(1)).expect("read"), []);
    assert_sound(&store);
}

#[test]
fn a_version_can_be_signed_later_and_go_alone() {
    let store = store();
    let components = [8, 9].map(|byte| Write::PutComponent { digest: [byte; 32], bytes: vec![byte; 3] });
    let versions = [plugin(1, 3, 1, 8), plugin(1, 3, 2, 9), plugin(1, 4, 1, 9)].map(Write::PutPlugin);
    keep(&store, writing(1, components.into_iter().chain(versions).collect()));
    let signed = PluginVersion { signer: Some(PublisherId::from_bytes([6; 16])), ..plugin(1, 3, 1, 8) };
    keep(&store, writing(1, vec![Write::PutPlugin(signed.clone())]));
    let version = |number| read(&store).plugin(org_id(1), plugin_id(3), number).expect("read");
    assert_eq!(version(1), Some(signed));
    let other = store.commit_blocking(writing(1, vec![Write::PutPlugin(plugin(1, 3, 1, 9))]));
    assert!(matches!(other, Err(CommitError::Conflict)), "a version got another component");

    let remove = |version| writing(1, vec![Write::RemovePluginVersion { plugin: plugin_id(3), version }]);
    keep(&store, remove(1));
    assert_eq!((version(1), version(2)), (None, Some(plugin(1, 3, 2, 9))));
    assert_eq!(read(&store).component(org_id(1), [8; 32]).expect("read"), None);
    assert_eq!(read(&store).component(org_id(1), [9; 32]).expect("read"), Some(vec![9; 3]));
    assert_sound(&store);
}

#[test]
fn platform_rows_need_no_organisation() {
    let store = store();
    let mut row = binding(1, 1);
    row.org = OrgId::PLATFORM;
    keep(&store, Commit { writes: vec![Write::PutBinding(row.clone())], ..Commit::new(OrgId::PLATFORM, NOW) });
    assert_eq!(read(&store).bindings(OrgId::PLATFORM).expect("read"), [row]);
    assert_eq!(read(&store).orgs(None, 9).expect("read").len(), 2);
    assert_sound(&store);
}

#[test]
fn decisions_and_audit() {
    let store = store();
    keep(&store, creating(1, 5));
    keep(&store, creating(1, 6));
    let of_org = Commit { decision: Some(decision(1, None, 7)), audit: vec![audit(1, None, 7)], ..writing(1, vec![]) };
    keep(&store, of_org);
    let snapshot = read(&store);
    let (five, six, org_wide) = (decision(1, Some(5), 5), decision(1, Some(6), 6), decision(1, None, 7));
    let page = |before: Option<_>, session: Option<_>, limit| {
        let filter = DecisionFilter { session, ..DecisionFilter::default() };
        snapshot.decisions(org_id(1), before, &filter, limit).expect("read").decisions
    };
    assert_eq!(page(None, None, 2), [org_wide, six.clone()]);
    assert_eq!(page(Some(six.id), None, 2), std::slice::from_ref(&five));
    assert_eq!(page(None, Some(session_id(6)), 9), std::slice::from_ref(&six));
    assert_eq!(page(Some(six.id), Some(session_id(6)), 9), []);
    assert_eq!(snapshot.decision(org_id(1), five.id).expect("read"), Some(five.clone()));
    assert_eq!(snapshot.decision(org_id(2), five.id).expect("read"), None);

    let ids = |before, limit| {
        let page = snapshot.audit(org_id(1), before, limit).expect("read");
        page.iter().map(|line| (line.number, line.id)).collect::<Vec<_>>()
    };
    let id = |unique| audit(1, None, unique).id;
    assert_eq!(ids(None, 2), [(3, id(7)), (2, id(6))]);
    assert_eq!(ids(Some(2), 2), [(1, id(5))]);
    assert_sound(&store);
}

#[test]
fn events_come_in_the_order_of_their_commits() {
    let store = store();
    let org = org_id(1);
    keep(&store, creating(1, 9));
    keep(&store, creating(2, 5));
    let last = keep(&store, creating(1, 5)).last_event.expect("it has an event");
    let snapshot = read(&store);
    let all = snapshot.events_after(org, OutboxPlace(0), 9).expect("read");
    let events: Vec<_> = all.iter().map(|placed| (placed.seq, placed.event.clone())).collect();
    assert_eq!(events, [(1, event(1, Some(9), 9)), (1, event(1, Some(5), 5))], "ids do not decide");
    assert_eq!(all[1].place, last);
    assert_eq!(snapshot.events_after(org, all[0].place, 9).expect("read"), [all[1].clone()]);
    assert_eq!(snapshot.events_after(org, last, 9).expect("read"), []);
    assert_eq!(
        snapshot.events_after(org_id(2), OutboxPlace(0), 9).expect("read").len(),
        1,
        "places are an organisation's"
    );

    // Places and ordinals go on where they were, also when the outbox has been emptied.
    keep(&store, writing(1, vec![Write::ForgetEvents { through: last, at_most: 1 }]));
    assert_eq!(
        read(&store).events_after(org, OutboxPlace(0), 9).expect("read"),
        [all[1].clone()],
        "no more than asked"
    );
    keep(&store, writing(1, vec![Write::ForgetEvents { through: last, at_most: 9 }]));
    assert_eq!(read(&store).events_after(org, OutboxPlace(0), 9).expect("read"), []);
    let again = Commit { events: vec![event(1, Some(9), 10)], ..Commit::new(org, NOW) };
    assert_eq!(keep(&store, again).last_event, Some(OutboxPlace(3)));
    assert_eq!(read(&store).event_at(org, Some(session_id(9)), OutboxPlace(3)).expect("read").expect("there").seq, 2);
    assert_sound(&store);
}

#[test]
fn plugin_keys() {
    let store = store();
    let access = |key: &str, seen, change| KvAccess { plugin: plugin_id(3), key: key.into(), seen, change };
    let put = |value: &str, expires| KvChange::Put { value: value.into(), expires };
    let kv = vec![access("a:1", None, put("one", None)), access("a:2", None, put("two", Some(at(10))))];
    keep(&store, Commit { kv, ..writing(1, vec![]) });
    keep(&store, Commit { kv: vec![access("b", Some(None), put("three", None))], ..writing(1, vec![]) });
    keep(&store, Commit { kv: vec![access("b", Some(Some(3)), put("four", None))], ..writing(1, vec![]) });
    let snapshot = read(&store);
    let get = |owner, key: &str, now| snapshot.kv(org_id(owner), plugin_id(3), key, now).expect("read");
    let entry = |value: &str, version, expires| Some(KvEntry { value: value.into(), version, expires });
    assert_eq!(get(1, "a:1", NOW), entry("one", 1, None));
    assert_eq!(get(1, "a:2", at(9)), entry("two", 2, Some(at(10))));
    assert_eq!(get(1, "a:2", at(10)), None);
    assert_eq!(get(1, "b", NOW), entry("four", 4, None));
    assert_eq!(get(2, "b", NOW), None);
    let keys =
        |prefix, after, limit, now| snapshot.kv_keys(org_id(1), plugin_id(3), prefix, after, limit, now).expect("read");
    assert_eq!(keys("a:", None, 9, NOW), ["a:1", "a:2"]);
    assert_eq!(keys("a:", None, 9, at(10)), ["a:1"]);
    assert_eq!(keys("", Some("a:1"), 1, NOW), ["a:2"]);
    let usage = snapshot.kv_usage(org_id(1), plugin_id(3)).expect("read");
    assert_eq!((usage.keys, usage.bytes), (3, 3 + 3 + 3 + 3 + 1 + 4));
    assert_sound(&store);
}

#[test]
fn timers() {
    let store = store();
    keep(&store, creating(1, 5));
    let set = |name: &str, about, due| TimerChange::Set(timer(1, about, name, due));
    let changes = vec![set("late", None, at(50)), set("soon", Some(5), at(10)), set("never", None, at(20))];
    keep(&store, Commit { timers: changes, ..writing(1, vec![]) });
    let cancel = TimerChange::Cancel { plugin: plugin_id(3), key: "never".into() };
    keep(&store, Commit { timers: vec![cancel, set("late", None, at(40))], ..writing(1, vec![]) });
    let snapshot = read(&store);
    let due = |now, limit| snapshot.timers_due(org_id(1), now, limit).expect("read");
    assert_eq!(snapshot.next_due(org_id(1)).expect("read"), Some(at(10)));
    assert_eq!(due(at(9), 9), []);
    assert_eq!(due(at(10), 9), [timer(1, Some(5), "soon", at(10))]);
    assert_eq!((due(at(40), 9).len(), due(at(40), 1).len()), (2, 1));
    let found = |name: &str| read(&store).timer(org_id(1), plugin_id(3), name).expect("read");
    assert_eq!(found("late"), Some(timer(1, None, "late", at(40))));
    assert_eq!(found("never"), None);

    // A timer that was set anew or taken back while it fired has not fired, and nothing of the commit is kept.
    let fired = |name: &str, at| TimerChange::Fired { plugin: plugin_id(3), key: name.into(), at };
    for (name, then) in [("late", at(50)), ("never", at(20))] {
        let timers = vec![fired("soon", at(10)), fired(name, then)];
        let firing = store.commit_blocking(Commit { timers, ..writing(1, vec![]) });
        assert!(matches!(firing, Err(CommitError::Conflict)), "{name}: {firing:?}");
    }
    // What the firing itself sets under the same key stays.
    let anew = vec![set("late", None, at(60)), fired("late", at(40)), fired("soon", at(10))];
    keep(&store, Commit { timers: anew, ..writing(1, vec![]) });
    assert_eq!(read(&store).timers_due(org_id(1), at(99), 9).expect("read"), [timer(1, None, "late", at(60))]);
    assert_sound(&store);
}

#[test]
fn webhooks() {
    let store = store();
    keep(&store, creating(1, 5));
    keep(&store, creating(1, 6));
    let rows = [webhook(1, None, 3), webhook(1, Some(5), 1), webhook(1, Some(5), 2)];
    keep(&store, writing(1, rows.map(Write::PutWebhook).into()));
    let of = |session| read(&store).session_webhooks(org_id(1), session_id(session)).expect("read");
    let all = || read(&store).webhooks(org_id(1)).expect("read");
    assert_eq!(all(), [webhook(1, Some(5), 1), webhook(1, Some(5), 2), webhook(1, None, 3)]);
    assert_eq!(of(5), [webhook(1, Some(5), 1), webhook(1, Some(5), 2)]);
    assert_eq!(of(6), []);
    assert_eq!(read(&store).webhook(org_id(1), webhook(1, None, 3).id).expect("read"), Some(webhook(1, None, 3)));
    assert_eq!(read(&store).webhook(org_id(2), webhook(1, None, 3).id).expect("read"), None);
    assert_eq!(read(&store).webhooks(org_id(2)).expect("read"), []);

    // Whose a webhook is decides under which key it lies: what left the session outlives it, what came to it does not.
    let moves = [webhook(1, None, 1), webhook(1, Some(6), 2), webhook(1, Some(5), 3)];
    keep(&store, writing(1, moves.map(Write::PutWebhook).into()));
    assert_eq!((of(5), of(6)), (vec![webhook(1, Some(5), 3)], vec![webhook(1, Some(6), 2)]));
    assert_sound(&store);
    keep(&store, writing(1, vec![Write::EraseSession(session_id(5))]));
    finish(&store, NOW);
    assert_eq!(all(), [webhook(1, None, 1), webhook(1, Some(6), 2)]);
    assert_eq!(of(5), []);

    let gone = [webhook(1, None, 1).id, webhook(1, None, 2).id, webhook(1, None, 9).id];
    keep(&store, writing(1, gone.map(Write::RemoveWebhook).into()));
    assert_eq!((all(), of(6)), (vec![], vec![]));
    assert_sound(&store);
}

#[test]
fn messages() {
    let store = store();
    keep(&store, creating(1, 5));
    keep(&store, creating(1, 6));
    keep(&store, writing(1, [(5, 1), (5, 2), (5, 3), (6, 4)].map(put_message).into()));
    let page = |before, limit| {
        let page = read(&store).messages(org_id(1), session_id(5), before, limit).expect("read");
        page.iter().map(|message| message.id.to_bytes()[0]).collect::<Vec<_>>()
    };
    assert_eq!((page(None, 2), page(Some(message_id(2)), 2), page(None, 9)), (vec![3, 2], vec![1], vec![3, 2, 1]));
    let open = || {
        let mut open = Vec::new();
        read(&store).every_open_message(|message| open.push(message.id.to_bytes()[0])).expect("read");
        open
    };
    assert_eq!(open(), [1, 2, 3, 4]);
    let on = [moved(&message(1, 5, 1), MessageState::Sending, at(1)), moved(&message(1, 5, 2), sent(at(1)), at(1))];
    keep(&store, writing(1, on.clone().map(Write::PutMessage).into()));
    assert_eq!(open(), [1, 3, 4]);
    let one =
        |owner, about, byte| read(&store).message(org_id(owner), session_id(about), message_id(byte)).expect("read");
    assert_eq!(one(1, 5, 2), Some(on[1].clone()));
    assert_eq!((one(2, 5, 2), one(1, 6, 2), one(1, 5, 9)), (None, None, None));
    assert_sound(&store);
    keep(&store, writing(1, vec![Write::EraseSession(session_id(5))]));
    assert_eq!((open(), page(None, 9)), (vec![4], vec![]));
    finish(&store, NOW);
    assert_sound(&store);
}

fn put_message((about, byte): (u8, u8)) -> Write {
    Write::PutMessage(message(1, about, byte))
}

#[test]
fn finished_messages_are_forgotten_a_day_later_a_few_at_a_time() {
    let store = store();
    keep(&store, creating(1, 5));
    let day = 24 * 60 * 60 * 1000;
    let done = (1..=6).map(|byte| Write::PutMessage(moved(&message(1, 5, byte), sent(NOW), at(byte.into()))));
    keep(&store, writing(1, done.collect()));
    keep(&store, writing(1, vec![put_message((5, 7))]));
    let left_after = |byte, now| {
        keep(&store, Commit { now, ..writing(1, vec![put_message((5, byte))]) });
        assert_sound(&store);
        let left = read(&store).messages(org_id(1), session_id(5), None, 99).expect("read");
        left.iter().rev().map(|message| message.id.to_bytes()[0]).collect::<Vec<_>>()
    };
    assert_eq!(left_after(8, at(day)), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(left_after(9, at(day + 2)), [3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(left_after(9, at(day + 9)), [3, 4, 5, 6, 7, 8, 9], "only new messages make others go");
    assert_eq!(left_after(10, at(day + 9)), [7, 8, 9, 10]);
    assert_eq!(left_after(11, at(9 * day)), [7, 8, 9, 10, 11], "what is open was forgotten");
}

#[test]
fn idempotency_keys_lead_to_messages() {
    let store = store();
    let record = IdempotencyRecord { key: "once".into(), session: session_id(5), message: message_id(1), at: NOW };
    keep(&store, Commit { idempotency: Some(record), ..writing(1, vec![]) });
    let snapshot = read(&store);
    let leads = |owner, name: &str, now| snapshot.idempotency(org_id(owner), name, now).expect("read");
    let day = 24 * 60 * 60 * 1000;
    assert_eq!(leads(1, "once", NOW), Some((session_id(5), message_id(1))));
    assert_eq!(leads(1, "once", at(day - 1)), Some((session_id(5), message_id(1))));
    assert_eq!(leads(1, "once", at(day)), None);
    assert_eq!(leads(2, "once", NOW), None);
    assert_eq!(leads(1, "twice", NOW), None);
    assert_sound(&store);
}

#[test]
fn device_state() {
    let store = store();
    keep(&store, creating(1, 5));
    let (org, session) = (org_id(1), session_id(5));
    let put = |kind, name: &str, value: &str| DeviceChange::Put { kind, name: name.into(), value: value.into() };
    let remove = |kind, name: &str| DeviceChange::Remove { kind, name: name.into() };
    let get = |kind, name: &str| {
        let found = store.read(org, session, kind, name.as_bytes()).expect("read");
        found.map(|value| String::from_utf8(value).expect("text"))
    };
    let rows = |kind| {
        let mut rows = store.list(org, session, kind).expect("listed");
        rows.sort();
        rows
    };
    let row = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());

    store
        .write(org, session, vec![put(1, "identity", "one"), put(1, "", ""), put(2, "identity", "two")])
        .expect("kept");
    assert_eq!(
        (get(1, "identity"), get(2, "identity"), get(3, "identity")),
        (Some("one".into()), Some("two".into()), None)
    );
    assert_eq!((rows(1), rows(2)), (vec![row("", ""), row("identity", "one")], vec![row("identity", "two")]));
    store.write(org, session, vec![remove(1, "identity"), put(1, "other", "three")]).expect("kept");
    assert_eq!(rows(1), [row("", ""), row("other", "three")]);
    store
        .write(org, session, vec![put(1, "lost", "x"), DeviceChange::RemoveAll { kind: 1 }, put(1, "a", "b")])
        .expect("kept");
    assert_eq!((rows(1), rows(2)), (vec![row("a", "b")], vec![row("identity", "two")]));
    store.write(org, session, vec![DeviceChange::Clear, put(255, "fresh", "three")]).expect("kept");
    assert_eq!((rows(1), rows(2), rows(255)), (vec![], vec![], vec![row("fresh", "three")]));

    assert_eq!(store.read(org, session_id(6), 255, b"fresh"), Err(DeviceStoreError::Gone));
    assert_eq!(store.list(org, session_id(6), 255), Err(DeviceStoreError::Gone));
    assert_eq!(store.write(org, session_id(6), vec![put(1, "a", "b")]), Err(DeviceStoreError::Gone));
    assert_eq!(store.read(org_id(2), session, 255, b"fresh"), Err(DeviceStoreError::Gone));
    assert_sound(&store);
}

#[test]
fn rows_of_devices_that_are_too_long() {
    let store = store();
    keep(&store, creating(1, 5));
    let put = |name: usize, value: usize| {
        let long = DeviceChange::Put { kind: 7, name: vec![b'n'; name], value: vec![b'v'; value] };
        let short = DeviceChange::Put { kind: 7, name: b"short".to_vec(), value: vec![] };
        store.write(org_id(1), session_id(5), vec![short, long])
    };
    let (name, value) = (DEVICE_NAME_BYTES, DEVICE_VALUE_BYTES);
    assert_eq!(put(name + 1, 0), Err(DeviceStoreError::TooLong { kind: 7, name: name + 1, value: 0 }));
    assert_eq!(put(1, value + 1), Err(DeviceStoreError::TooLong { kind: 7, name: 1, value: value + 1 }));
    assert_eq!(store.list(org_id(1), session_id(5), 7), Ok(vec![]));
    assert_eq!(put(name, value), Ok(()));
    assert_eq!(store.list(org_id(1), session_id(5), 7).expect("listed").len(), 2);
    assert_sound(&store);
}
