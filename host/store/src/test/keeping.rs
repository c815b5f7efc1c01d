//! Keys of plugins that are about a session: they count as others do, and go with it.

use portcullis_core::{KvAccess, KvChange, KvEntry, Timestamp};

use super::sample::*;
use crate::{Commit, CommitError, Write};

/// What is kept for a session under a key that says so.
fn access(plugin: u8, about: u8, rest: &str, change: KvChange) -> KvAccess {
    KvAccess { plugin: plugin_id(plugin), key: format!("session:{}:{rest}", session_id(about)), seen: None, change }
}

fn value(bytes: &[u8], expires: Option<Timestamp>) -> KvChange {
    KvChange::Put { value: bytes.into(), expires }
}

#[test]
fn keys_of_sessions_are_as_other_keys() {
    let store = store();
    keep(&store, creating(1, 5));
    keep(&store, creating(1, 6));
    let plain = |key: &str| KvAccess { key: key.into(), ..access(3, 5, "", value(b"p", None)) };
    let kv = vec![
        access(3, 5, "a", value(b"one", None)),
        access(3, 5, "b", value(b"two", Some(at(10)))),
        access(3, 6, "a", value(b"three", None)),
        plain("session:nobody:a"),
        plain("zebra"),
    ];
    keep(&store, Commit { kv, ..writing(1, vec![]) });
    let name = |about, rest: &str| access(3, about, rest, KvChange::Keep).key;
    let snapshot = read(&store);
    let get = |key: &str, now| snapshot.kv(org_id(1), plugin_id(3), key, now).expect("read");
    let entry = |value: &[u8], version, expires| Some(KvEntry { value: value.into(), version, expires });
    assert_eq!(get(&name(5, "a"), NOW), entry(b"one", 1, None));
    assert_eq!(get(&name(5, "b"), at(9)), entry(b"two", 2, Some(at(10))));
    assert_eq!((get(&name(5, "b"), at(10)), get(&name(6, "b"), NOW)), (None, None));
    let keys = |prefix: &str, after: Option<&str>, limit| {
        snapshot.kv_keys(org_id(1), plugin_id(3), prefix, after, limit, NOW).expect("read")
    };
    assert_eq!(keys(&name(5, ""), None, 9), [name(5, "a"), name(5, "b")]);
    assert_eq!(keys(&name(5, ""), Some(&name(5, "a")), 9), [name(5, "b")]);
    assert_eq!(keys("session:s", None, 9), [name(5, "a"), name(5, "b"), name(6, "a")]);
    assert_eq!(keys("session:n", None, 3), ["session:nobody:a"]);
    assert_eq!(keys("", None, 9).len(), 5);
    assert_eq!(snapshot.kv_usage(org_id(1), plugin_id(3)).expect("read").keys, 5);
    assert_sound(&store);

    let seen = |version, change| {
        let kv = vec![KvAccess { seen: Some(version), ..access(3, 5, "a", change) }];
        store.commit_blocking(Commit { kv, ..writing(1, vec![]) }).map(|_| ())
    };
    assert!(matches!(seen(None, KvChange::Keep), Err(CommitError::Conflict)));
    seen(Some(1), value(b"four", None)).expect("as it was seen");
    assert!(matches!(seen(Some(1), KvChange::Remove), Err(CommitError::Conflict)));
    seen(Some(6), KvChange::Remove).expect("as it was seen");
    assert_eq!(read(&store).kv_usage(org_id(1), plugin_id(3)).expect("read").keys, 4);
    assert_sound(&store);
}

#[test]
fn keys_of_sessions_go_with_them_and_make_room() {
    let store = store();
    keep(&store, creating(1, 5));
    keep(&store, creating(1, 6));
    let half = vec![0; 512 * 1024 - 100];
    let with = |kv, now| Commit { kv, now, ..writing(1, vec![]) };
    let kv = [(3, 5), (4, 5), (3, 6)].map(|(plugin, about)| access(plugin, about, "a", value(&half, Some(at(10)))));
    keep(&store, with(kv.into(), NOW));
    let more = || vec![access(3, 6, "b", value(&half, None))];
    assert!(matches!(store.commit_blocking(with(more(), NOW)), Err(CommitError::KvQuota { .. })));
    keep(&store, writing(1, vec![Write::EraseSession(session_id(5))]));
    assert_sound(&store);
    let keys = |plugin| read(&store).kv_usage(org_id(1), plugin_id(plugin)).expect("read").keys;
    assert_eq!((keys(3), keys(4)), (1, 0));
    keep(&store, with(more(), NOW));
    // What has expired makes room too.
    keep(&store, with(vec![access(3, 6, "c", value(&half, None))], at(10)));
    assert_eq!(keys(3), 2);
    finish(&store, NOW);
    assert_sound(&store);
}

#[test]
fn nothing_is_kept_for_a_session_that_is_gone() {
    let store = store();
    keep(&store, creating(1, 5));
    keep(&store, creating(2, 6));
    let put = |about| vec![access(3, about, "a", value(b"x", None))];
    let kept = |kv| store.commit_blocking(Commit { kv, ..writing(1, vec![]) }).map(|_| ());
    for unknown in [6, 9] {
        assert!(matches!(kept(put(unknown)), Err(CommitError::UnknownSession(_))), "{unknown}");
    }
    // To look and to find nothing is no mistake.
    kept(vec![KvAccess { seen: Some(None), ..access(3, 9, "a", KvChange::Remove) }]).expect("nothing is there");
    kept(put(5)).expect("there");
    // A plugin that keeps count of what is done with a session does not stand in the way of its end.
    let counts = KvAccess { seen: Some(Some(1)), ..access(3, 5, "a", value(b"y", None)) };
    let erase = vec![Write::EraseSession(session_id(5))];
    keep(&store, Commit { kv: vec![counts, access(3, 5, "b", value(b"y", None))], ..writing(1, erase) });
    assert_eq!(read(&store).kv_usage(org_id(1), plugin_id(3)).expect("read").keys, 0);
    assert!(matches!(kept(put(5)), Err(CommitError::UnknownSession(_))), "it is being erased");
    finish(&store, NOW);
    assert!(matches!(kept(put(5)), Err(CommitError::UnknownSession(_))));
    assert_sound(&store);
}
