//! Verifying finds what is missing from an index, and what an index should not hold.

use std::sync::Arc;

use portcullis_core::{DeliveryState, OperationKind};

use super::sample::*;
use crate::tables::{self, Definition, Tables};
use crate::{Commit, DeliveryChange, ErrandChange, IdempotencyRecord, Store, TimerChange, Write};

const INDEXES: [Definition; 22] = [
    tables::COUNTS,
    tables::INSTANCE_NAMES,
    tables::SESSION_TOKENS,
    tables::TOKEN_OF_SESSION,
    tables::SESSION_WEBHOOKS,
    tables::PROGRESS,
    tables::OUTBOX,
    tables::OUTBOX_ENDS,
    tables::DELIVERIES_DUE,
    tables::DEAD_LETTERS,
    tables::MESSAGES_OPEN,
    tables::MESSAGES_AGE,
    tables::IDEMPOTENCY_AGE,
    tables::KEY_HASHES,
    tables::ERRANDS_DUE,
    tables::ERRANDS_OF_PLUGIN,
    tables::ERRANDS_OF_SESSION,
    tables::REQUEST_COUNTS,
    tables::CONFIRMATIONS_AGE,
    tables::FACTS_AGE,
    tables::TIMER_COUNTS,
    tables::HITS_AGE,
];

/// A store with a row in every index.
fn furnished() -> Store {
    let store = store();
    let (queued, done) = (message(1, 5, 1), moved(&message(1, 5, 2), sent(NOW), NOW));
    let record = IdempotencyRecord { key: "once".into(), session: queued.session, message: queued.id, at: NOW };
    let writes = vec![
        Write::PutSession(tokened(1, 5, "token")),
        Write::PutKey(api_key(1, 5)),
        Write::PutWebhook(webhook(1, Some(5), 1)),
        Write::PutMessage(queued),
        Write::PutMessage(done),
        Write::PutConfirmation(confirmation(1, Some(5), 1)),
    ];
    keep(
        &store,
        Commit {
            idempotency: Some(record),
            events: vec![event(1, Some(5), 1)],
            deliveries: vec![
                DeliveryChange::Keep(delivery_key(1, 1), Arc::new(delivery(1, Some(5), waiting(NOW)))),
                DeliveryChange::Keep(delivery_key(1, 2), Arc::new(delivery(1, None, DeliveryState::Dead))),
            ],
            errands: vec![ErrandChange::Put(request(1, Some(5), 1, NOW))],
            timers: vec![TimerChange::Set(timer(1, None, "timer", NOW))],
            fact: Some(fact("fact")),
            done: Some(OperationKind::SessionCreate),
            ..writing(1, writes)
        },
    );
    assert_sound(&store);
    store
}

/// Changes a table behind the store's back; the first finding afterwards names the table.
fn check(index: Definition, change: impl FnOnce(&mut tables::Rows<'_>)) {
    let store = furnished();
    let transaction = store.shared().database.begin_write().expect("begun");
    change(Tables::of(&transaction).table(index));
    transaction.commit().expect("committed");
    let findings = store.verify().expect("verified").findings;
    let named = findings.iter().any(|finding| finding.contains(&format!("of table {})", tables::name(index))));
    assert!(named, "{}: {findings:?}", tables::name(index));
}

#[test]
fn a_row_that_is_missing_from_an_index_is_found() {
    for index in INDEXES {
        check(index, |rows| rows.retain_in(.., |_| false).expect("removed"));
    }
}

#[test]
fn a_row_that_an_index_should_not_hold_is_found() {
    for index in INDEXES {
        let row = [7_u8; 56];
        check(index, |rows| drop(rows.insert(&row[..], &row[..]).expect("written")));
    }
}

/// Changes the rows of a sound store behind its back; the findings afterwards, in words.
fn findings_after(change: impl FnOnce(&mut Tables<'_>)) -> Vec<String> {
    let store = furnished();
    let transaction = store.shared().database.begin_write().expect("begun");
    change(&mut Tables::of(&transaction));
    transaction.commit().expect("committed");
    store.verify().expect("verified").findings
}

fn assert_said(findings: &[String], words: &str) {
    assert!(findings.iter().any(|finding| finding.contains(words)), "nothing says {words:?}: {findings:#?}");
}

/// An operator reads whose it is and what is wrong with it, and not only where it stands.
#[test]
fn what_is_left_of_a_session_that_is_gone_is_named() {
    let (org, session) = (org_id(1), session_id(5));
    let row = [org.to_bytes(), session.to_bytes()].concat();
    let said = findings_after(|tables| drop(tables.sessions.remove(&row).expect("removed")));
    for what in ["a message", "the webhook", "the errand", "a confirmation that is open", "the token"] {
        assert!(
            said.iter().any(|finding| finding.starts_with(what) && finding.contains("which is not there")),
            "nothing is said of {what}: {said:#?}"
        );
    }
    assert_said(&said, &format!("is of {session}, which is not there"));
    assert_said(&said, &format!("the key file holds a key of {session} of {org}, who is not there"));
}

#[test]
fn what_is_left_of_an_organisation_that_is_gone_is_named() {
    let stray = [[0x77; 16], [1; 16]].concat();
    let said = findings_after(|tables| drop(tables.facts.insert(&stray, &[0; 40]).expect("written")));
    assert_said(&said, &format!("a fact of {} is of an organisation that is not there", org_id(0x77)));
}

#[test]
fn what_binds_or_belongs_to_nothing_is_named() {
    let store = furnished();
    keep(&store, writing(1, vec![Write::PutBinding(binding(1, 9))]));
    let said = store.verify().expect("verified").findings;
    assert_said(&said, &format!("binds version 1 of {}, which is not there", plugin_id(3)));
    let row = [org_id(1).to_bytes(), [8; 16]].concat();
    let said = findings_after(|tables| drop(tables.suspensions.insert(&row, &[0; 60]).expect("written")));
    assert_said(&said, "is of a binding that is not there");
    assert_said(&said, "does not open: it is damaged, or stands where it was not put");
    let said = findings_after(|tables| drop(tables.secrets.insert(&row, &[0; 60]).expect("written")));
    assert_said(&said, "is of a plugin that is not there");
}

#[test]
fn an_erasure_that_contradicts_the_rows_is_named() {
    let row = [org_id(1).to_bytes(), session_id(5).to_bytes()].concat();
    let said = findings_after(|tables| drop(tables.tombstones.insert(&row, &[9; 64]).expect("written")));
    assert_said(&said, "names another slot of the key file than its owner's key has");
    assert_said(&said, "is of somebody whose rows are still there");
}

#[test]
fn a_table_that_nobody_knows_is_named() {
    let store = furnished();
    let transaction = store.shared().database.begin_write().expect("begun");
    drop(transaction.open_table(Definition::new("diaries-1")).expect("made"));
    transaction.commit().expect("committed");
    assert_said(&store.verify().expect("verified").findings, "there is a table diaries-1");
}
