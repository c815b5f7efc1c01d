//! The chain of the audit: nothing in it can be changed, left out or cut off without being missed.

use portcullis_core::OrgId;
use redb::ReadableTable as _;

use super::sample::*;
use crate::audit::ChainEnd;
use crate::tables::{self, key};
use crate::{Commit, Store};

fn told(store: &Store, count: u64) {
    for unique in 1..=count {
        let mut platform = audit(1, None, unique.into());
        platform.org = OrgId::PLATFORM;
        let own = audit(1, None, u128::from(unique) + 100);
        keep(store, Commit { audit: vec![own, platform], ..writing(1, vec![]) });
    }
}

#[test]
fn every_organisation_has_a_chain_of_its_own() {
    let store = store();
    told(&store, 3);
    keep(&store, Commit { audit: vec![audit(2, None, 9)], ..writing(2, vec![]) });
    let snapshot = read(&store);
    for (org, count) in [(org_id(1), 3), (OrgId::PLATFORM, 3), (org_id(2), 1)] {
        let mut end = ChainEnd::default();
        let lines = snapshot.audit_after(org, 0, 9).expect("read");
        for line in &lines {
            end = end.next(org, line.id.to_bytes(), &line.envelope);
            assert_eq!((line.number, line.link), (end.number, end.link));
        }
        assert_eq!((end.number, snapshot.audit_end(org).expect("read")), (count, end));
    }
    assert_sound(&store);
}

#[test]
fn whoever_changes_the_past_is_found_out() {
    let org = org_id(1).to_bytes();
    let line = |number: u64| key(&[&org, &number.to_be_bytes()]);
    let check = |what: &str, change: &dyn Fn(&redb::WriteTransaction)| {
        let store = store();
        told(&store, 4);
        let transaction = store.shared().database.begin_write().expect("begun");
        change(&transaction);
        transaction.commit().expect("committed");
        let findings = store.verify().expect("read").findings;
        assert!(findings.iter().any(|finding| finding.contains("audit")), "{what}: {findings:?}");
    };
    type Lines<'txn> = redb::Table<'txn, &'static [u8], &'static [u8]>;
    let open = |transaction: &redb::WriteTransaction, change: &dyn Fn(&mut Lines<'_>)| {
        change(&mut transaction.open_table(tables::AUDIT).expect("opened"));
    };
    check("a line is left out", &|transaction| {
        open(transaction, &|lines| drop(lines.remove(&line(2)[..]).expect("removed")));
    });
    check("the last line is cut off", &|transaction| {
        open(transaction, &|lines| drop(lines.remove(&line(4)[..]).expect("removed")));
    });
    check("two lines change places", &|transaction| {
        open(transaction, &|lines| {
            let value = |number| lines.get(&line(number)[..]).expect("read").expect("there").value().to_vec();
            let (two, three) = (value(2), value(3));
            lines.insert(&line(2)[..], &three[..]).expect("written");
            lines.insert(&line(3)[..], &two[..]).expect("written");
        });
    });
    check("a byte is changed", &|transaction| {
        open(transaction, &|lines| {
            let mut value = lines.get(&line(3)[..]).expect("read").expect("there").value().to_vec();
            *value.last_mut().expect("not empty") ^= 1;
            lines.insert(&line(3)[..], &value[..]).expect("written");
        });
    });
}
