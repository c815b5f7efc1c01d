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
    let named = findings.iter().any(|finding| finding.contains(&format!("of table {} ", tables::name(index))));
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
