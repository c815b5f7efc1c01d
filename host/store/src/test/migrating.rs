//! What older versions have written opens: whole stores of older formats, and rows from before a field was there.

use std::path::Path;

use portcullis_core::{Session, session::Settings};
use redb::{Database, TableHandle};

use super::sample::*;
use crate::keyfile::Owner;
use crate::tables::{self, Definition, key};
use crate::{Commit, CommitError, Quota, QuotaKind, Store, StoreOptions, TimerChange, Write};

const OLD_COUNTS: Definition = Definition::new("counts-1");
const OLD_IDEMPOTENCY: Definition = Definition::new("idempotency-1");
const OLD_DEVICES: Definition = Definition::new("devices-1");

/// What format 3 did not have.
const NEW_IN_4: [Definition; 1] = [tables::DEVICES];

/// What format 2 did not have.
const NEW_IN_3: [Definition; 16] = [
    tables::SUSPENSIONS,
    tables::TALLIES,
    tables::SECRETS,
    tables::PUBLISHERS,
    tables::CONFIRMATIONS,
    tables::CONFIRMATIONS_AGE,
    tables::ERRANDS,
    tables::ERRANDS_DUE,
    tables::ERRANDS_OF_PLUGIN,
    tables::ERRANDS_OF_SESSION,
    tables::REQUEST_COUNTS,
    tables::FACTS,
    tables::FACTS_AGE,
    tables::TIMER_COUNTS,
    tables::HITS_AGE,
    tables::SESSION_KV,
];

/// What format 1 did not have, besides those.
const NEW_IN_2: [Definition; 9] = [
    tables::COUNTS,
    tables::IDEMPOTENCY,
    tables::WEBHOOKS,
    tables::SESSION_WEBHOOKS,
    tables::SESSION_TOKENS,
    tables::TOKEN_OF_SESSION,
    tables::MESSAGES,
    tables::MESSAGES_OPEN,
    tables::MESSAGES_AGE,
];

fn open(dir: &Path) -> Store {
    Store::open(dir, StoreOptions::default()).expect("opened")
}

/// The session's row as it was written before a session had a proxy, a token, a link, and so many settings.
fn put_old_row(database: &Database, store: &Store, session: &Session) {
    let mut fields = serde_json::to_value(session).expect("encoded");
    let row = fields.as_object_mut().expect("an object");
    ["proxy", "token", "link", "expected_phone"].iter().for_each(|field| drop(row.remove(*field)));
    let settings = row["settings"].as_object_mut().expect("an object");
    settings.retain(|field, _| ["auto_read", "presence_typing"].contains(&field.as_str()));
    assert_eq!(settings.len(), 2);

    let ring = &store.shared().ring;
    let data_key = ring.live(Owner::session(session.org, session.id)).expect("live");
    let name = ring.hashes.instance_name(session.org, &session.names.instance_name);
    let (table, row) = (tables::SESSIONS, key(&[&session.org.to_bytes(), &session.id.to_bytes()]));
    let head = key(&[&session.generation.to_be_bytes(), &name]);
    let plain = serde_json::to_vec(&fields).expect("encoded");
    let value = data_key.seal(tables::name(table), &row, &head, &plain).expect("sealed");
    let transaction = database.begin_write().expect("begun");
    transaction.open_table(table).expect("opened").insert(&row[..], &value[..]).expect("written");
    transaction.commit().expect("committed");
}

#[test]
fn a_session_from_before_its_newest_fields_opens() {
    let store = store();
    let mut expected = session(1, 5);
    expected.settings = Settings { auto_read: false, presence_typing: true, ..Settings::default() };
    keep(&store, writing(1, vec![Write::PutSession(expected.clone())]));
    put_old_row(&store.shared().database, &store, &expected);
    assert_eq!(read(&store).session(org_id(1), session_id(5)).expect("read"), Some(expected));
    assert_sound(&store);
}

/// Makes the closed store in `dir` one of format 1, with `counts` for organisation 1.
fn make_format_1(dir: &Path, counts: [u32; 4]) {
    let database = Database::open(dir.join("portcullis.redb")).expect("opened");
    let transaction = database.begin_write().expect("begun");
    for table in NEW_IN_2.into_iter().chain(NEW_IN_3).chain(NEW_IN_4) {
        assert!(transaction.delete_table(table).expect("deleted"), "{}", table.name());
    }
    let put = |table: Definition, key: &[u8], value: &[u8]| {
        transaction.open_table(table).expect("opened").insert(key, value).expect("written");
    };
    put(OLD_COUNTS, &org_id(1).to_bytes(), &counts.map(u32::to_be_bytes).concat());
    drop(transaction.open_table(OLD_IDEMPOTENCY).expect("made"));
    put(OLD_DEVICES, &[1; 48], b"a simulated device");
    put(tables::META, crate::migrations::FORMAT_ROW, &1_u64.to_be_bytes());
    transaction.commit().expect("committed");
}

#[test]
fn a_store_of_format_1_goes_on_with_its_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    keep(&store, writing(1, vec![Write::PutOrg(org(1))]));
    keep(&store, creating(1, 5));
    keep(&store, creating(1, 6));
    put_old_row(&store.shared().database, &store, &session(1, 5));
    keep(&store, writing(1, vec![Write::PutKey(api_key(1, 5)), Write::PutBinding(binding(1, 1))]));
    drop(store);
    make_format_1(dir.path(), [2, 1, 0, 1]);

    let store = open(dir.path());
    assert_sound(&store);
    let has = |of, count| {
        let asked = |max| store.commit_blocking(Commit { quotas: vec![Quota { of, max }], ..writing(1, vec![]) });
        assert!(asked(count + 1).is_ok(), "{of}");
        assert!(matches!(asked(count), Err(CommitError::Quota { .. })), "{of}");
    };
    for (of, count) in QuotaKind::ALL.into_iter().zip([2, 1, 0, 1, 0, 0, 0, 0, 0]) {
        has(of, count);
    }
    let rows = [Write::PutWebhook(webhook(1, Some(5), 1)), Write::PutMessage(message(1, 5, 1))];
    keep(&store, writing(1, rows.into()));
    has(QuotaKind::Webhooks, 1);
    assert_sound(&store);
    let snapshot = read(&store);
    let names: Vec<_> =
        snapshot.transaction.list_tables().expect("listed").map(|table| table.name().to_owned()).collect();
    assert_eq!(names.len(), tables::ALL.len(), "{names:?}");
    drop(snapshot);
    drop(store);
    assert_sound(&open(dir.path()));
}

/// A plugin's key as it was kept before sessions had rows of their own: under the organisation's key, whatever its name.
fn put_old_key(store: &Store, name: &str) {
    let ring = &store.shared().ring;
    let (org, plugin) = (org_id(1), plugin_id(3));
    let row = key(&[&org.to_bytes(), &plugin.to_bytes(), &ring.hashes.plugin_key(org, plugin, name)]);
    let size = u32::try_from(name.len() + 1).expect("small");
    let head = key(&[&1_u64.to_be_bytes(), &u64::MAX.to_be_bytes(), &size.to_be_bytes()]);
    let length = u16::try_from(name.len()).expect("small");
    let plain = key(&[&length.to_be_bytes(), name.as_bytes(), b"x"]);
    let value = ring.live(Owner::org(org)).expect("live").seal("kv-1", &row, &head, &plain).expect("sealed");
    let transaction = store.shared().database.begin_write().expect("begun");
    {
        transaction.open_table(tables::KV).expect("opened").insert(&row[..], &value[..]).expect("written");
        let mut usages = transaction.open_table(tables::KV_USAGE).expect("opened");
        let usage = read(store).kv_usage(org, plugin).expect("read");
        let usage = key(&[&(usage.keys + 1).to_be_bytes(), &(usage.bytes + u64::from(size)).to_be_bytes()]);
        usages.insert(&row[..32], &usage[..]).expect("written");
    }
    transaction.commit().expect("committed");
}

#[test]
fn a_store_of_format_2_counts_its_timers_and_gives_sessions_what_is_theirs() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    keep(&store, writing(1, vec![Write::PutOrg(org(1))]));
    keep(&store, creating(1, 5));
    let timers = [(None, "a"), (Some(5), "b")].map(|(about, name)| TimerChange::Set(timer(1, about, name, at(1))));
    keep(&store, Commit { timers: timers.into(), ..writing(1, vec![]) });
    let named = |byte| format!("session:{}:count", session_id(byte));
    for name in ["plain", &named(5), &named(6)] {
        put_old_key(&store, name);
    }
    drop(store);
    let database = Database::open(dir.path().join("portcullis.redb")).expect("opened");
    let transaction = database.begin_write().expect("begun");
    for table in NEW_IN_3.into_iter().chain(NEW_IN_4) {
        assert!(transaction.delete_table(table).expect("deleted"), "{}", table.name());
    }
    let format = 2_u64.to_be_bytes();
    transaction
        .open_table(tables::META)
        .expect("opened")
        .insert(crate::migrations::FORMAT_ROW, &format[..])
        .expect("written");
    transaction.commit().expect("committed");
    drop(database);

    let store = open(dir.path());
    assert_sound(&store);
    let kept = |name: &str| read(&store).kv(org_id(1), plugin_id(3), name, NOW).expect("read").is_some();
    assert_eq!((kept("plain"), kept(&named(5)), kept(&named(6))), (true, true, false));
    assert_eq!(read(&store).kv_usage(org_id(1), plugin_id(3)).expect("read").keys, 2);
    keep(&store, writing(1, vec![Write::EraseSession(session_id(5))]));
    finish(&store, NOW);
    assert!(!kept(&named(5)));
    assert_sound(&store);
}
