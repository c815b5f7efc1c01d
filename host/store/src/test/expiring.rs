//! What counts for a while goes when it counts no longer, also where nothing new comes.

use std::time::Duration;

use super::sample::*;
use crate::{Claim, Commit, Deed, IdempotencyRecord, KeptReply, KnownReply, Store, Write};

const HOUR: Duration = Duration::from_secs(60 * 60);

fn claiming(number: usize) -> Commit {
    let key = format!("key {number}");
    Commit {
        claim: Some(Claim { org: org_id(1), key, digest: [7; 32], at: NOW, deed: Deed::default() }),
        ..writing(1, vec![])
    }
}

fn replying(number: usize) -> Commit {
    let (key, about) = (format!("key {number}"), (org_id(1), Some(session_id(5))));
    let reply = KeptReply { org: org_id(1), key, digest: [7; 32], about, reply: b"a reply".to_vec() };
    Commit { reply: Some(reply), ..writing(1, vec![]) }
}

/// How many rows there are of each table that has such rows, and of its index.
fn rows(store: &Store) -> Vec<usize> {
    use crate::tables::*;
    let (snapshot, prefix) = (read(store), Prefix::new(&[&org_id(1).to_bytes()]));
    let pairs = [
        [REPLIES, REPLIES_AGE],
        [IDEMPOTENCY, IDEMPOTENCY_AGE],
        [FACTS, FACTS_AGE],
        [CONFIRMATIONS, CONFIRMATIONS_AGE],
        [MESSAGES, MESSAGES_AGE],
    ];
    let count = |table| snapshot.table(table).expect("opened").range::<&[u8]>(prefix.span()).expect("read").count();
    pairs
        .into_iter()
        .map(|[rows, ages]| {
            assert_eq!(count(rows), count(ages), "rows and ages differ");
            count(rows)
        })
        .collect()
}

/// The story: replies were kept until their organisation made new keys. One that had stopped doing so kept what it was answered, which
/// is personal, for good.
#[test]
fn what_counts_no_longer_goes_from_a_quiet_organisation() {
    let store = store();
    keep(&store, creating(1, 5));
    for number in 0..5 {
        keep(&store, claiming(number));
        keep(&store, replying(number));
    }
    let idempotency =
        IdempotencyRecord { key: "message".into(), session: session_id(5), message: message_id(1), at: NOW };
    let sent = moved(&message(1, 5, 1), sent(NOW), NOW);
    let ending = confirmation(1, Some(5), 1);
    let ends = ending.expires;
    let writes = vec![Write::PutMessage(sent), Write::PutConfirmation(ending)];
    keep(&store, Commit { idempotency: Some(idempotency), fact: Some(fact("f")), ..writing(1, writes) });
    assert_eq!(rows(&store), [5, 1, 1, 1, 1]);

    let forget = |now, at_most| {
        let writes = vec![Write::ForgetExpired { at_most }];
        keep(&store, Commit { now, ..writing(1, writes) });
    };
    let has_expired = |now| read(&store).has_expired(org_id(1), now).expect("read");
    let day = NOW.after(24 * HOUR);
    let early = ends.min(day).before(Duration::from_millis(1));
    assert!(!has_expired(early));
    forget(early, 9);
    assert_eq!(rows(&store), [5, 1, 1, 1, 1], "something went before its time");
    let known = read(&store).request(org_id(1), "key 1", early).expect("read").expect("there").reply;
    assert!(matches!(known, KnownReply::Kept(reply) if reply == b"a reply"));

    assert!(has_expired(day));
    forget(day, 2);
    assert_eq!(rows(&store)[0], 3, "more went at once than was to go");
    forget(day, 9);
    assert_eq!((rows(&store), has_expired(day)), (vec![0, 0, 1, 0, 0], false));
    let month = NOW.after(30 * 24 * HOUR);
    assert!(has_expired(month));
    forget(month, 9);
    assert_eq!((rows(&store), has_expired(month)), (vec![0; 5], false));
    assert_sound(&store);
}
