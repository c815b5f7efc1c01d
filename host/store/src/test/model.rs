//! Random commits with expectations against a map: what holds for the map holds for the store, and the rows are the map's.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_core::{KvAccess, KvChange};
use proptest::prelude::*;

use super::sample::*;
use crate::{Commit, CommitError, Expectation, Store, Write};

/// One commit on a handful of sessions and keys.
#[derive(Debug, Clone)]
enum Move {
    Create { session: u8 },
    Change { session: u8, expect: u64 },
    Erase { session: u8 },
    Put { key: u8, seen: Option<Option<u64>> },
    Remove { key: u8 },
    Finish,
}

/// What should be there: generations of sessions, versions of keys.
#[derive(Debug, Default)]
struct Model {
    sessions: BTreeMap<u8, u64>,
    keys: BTreeMap<u8, u64>,
    /// Erased sessions whose keys are still to be destroyed; until then their ids are taken.
    dying: BTreeSet<u8>,
    audits: usize,
}

fn a_move() -> impl Strategy<Value = Move> {
    let session = 5..8_u8;
    let key = 0..3_u8;
    let seen = prop_oneof![Just(None), Just(Some(None)), (1..4_u64).prop_map(|version| Some(Some(version)))];
    prop_oneof![
        3 => session.clone().prop_map(|session| Move::Create { session }),
        3 => (session.clone(), 1..4_u64).prop_map(|(session, expect)| Move::Change { session, expect }),
        1 => session.prop_map(|session| Move::Erase { session }),
        3 => (key.clone(), seen).prop_map(|(key, seen)| Move::Put { key, seen }),
        1 => key.prop_map(|key| Move::Remove { key }),
        1 => Just(Move::Finish),
    ]
}

impl Model {
    /// Whether the move holds; if so it is made.
    fn make(&mut self, step: &Move) -> bool {
        let holds = match step {
            Move::Create { session } => !self.sessions.contains_key(session) && !self.dying.contains(session),
            Move::Change { session, expect } => self.sessions.get(session) == Some(expect),
            Move::Erase { session } => self.sessions.contains_key(session),
            Move::Put { key, seen } => seen.is_none_or(|seen| seen == self.keys.get(key).copied()),
            Move::Remove { .. } | Move::Finish => true,
        };
        if !holds {
            return false;
        }
        match step {
            Move::Create { session } => drop(self.sessions.insert(*session, 1)),
            Move::Change { session, .. } => *self.sessions.entry(*session).or_default() += 1,
            Move::Erase { session } => {
                self.sessions.remove(session);
                self.dying.insert(*session);
            }
            Move::Put { key, .. } => *self.keys.entry(*key).or_default() += 1,
            Move::Remove { key } => drop(self.keys.remove(key)),
            Move::Finish => {
                self.dying.clear();
                return true;
            }
        }
        self.audits += 1;
        true
    }
}

fn commit(step: &Move, unique: u128) -> Commit {
    let access = |key: &u8, seen, change| KvAccess { plugin: plugin_id(3), key: format!("key-{key}"), seen, change };
    let kv = match step {
        Move::Put { key, seen } => {
            vec![access(key, *seen, KvChange::Put { value: vec![*key], expires: None })]
        }
        Move::Remove { key } => vec![access(key, None, KvChange::Remove)],
        Move::Create { .. } | Move::Change { .. } | Move::Erase { .. } | Move::Finish => vec![],
    };
    let (expect, writes) = match step {
        Move::Create { session: byte } => {
            (vec![Expectation::Session(session_id(*byte), None)], vec![Write::PutSession(session(1, *byte))])
        }
        Move::Change { session: byte, expect } => {
            let mut next = session(1, *byte);
            next.generation = expect + 1;
            (vec![Expectation::Session(session_id(*byte), Some(*expect))], vec![Write::PutSession(next)])
        }
        Move::Erase { session: byte } => (vec![], vec![Write::EraseSession(session_id(*byte))]),
        Move::Put { .. } | Move::Remove { .. } | Move::Finish => (vec![], vec![]),
    };
    Commit { expect, kv, audit: vec![audit(1, None, unique)], ..writing(1, writes) }
}

fn assert_as_modelled(store: &Store, model: &Model) {
    let snapshot = read(store);
    let sessions = snapshot.sessions(org_id(1), None, usize::MAX).expect("read");
    let found: BTreeMap<u8, u64> = sessions.iter().map(|row| (row.id.to_bytes()[0], row.generation)).collect();
    assert_eq!(found, model.sessions);
    for key in 0..3 {
        let entry = snapshot.kv(org_id(1), plugin_id(3), &format!("key-{key}"), NOW).expect("read");
        assert_eq!(entry.map(|entry| entry.version), model.keys.get(&key).copied());
    }
    let audits = snapshot.audit(org_id(1), None, usize::MAX).expect("read");
    let own = audits.iter().filter(|entry| !matches!(entry.outcome, portcullis_core::AuditOutcome::Erased { .. }));
    assert_eq!(own.count(), model.audits);
    assert_sound(store);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_a_map_does(steps in prop::collection::vec(a_move(), 1..40)) {
        let (store, mut model) = (store(), Model::default());
        for (step, unique) in steps.iter().zip(1000..) {
            let holds = model.make(step);
            if matches!(step, Move::Finish) {
                finish(&store, NOW);
                continue;
            }
            match store.commit_blocking(commit(step, unique)) {
                Ok(_) => prop_assert!(holds, "{step:?} was made"),
                Err(CommitError::Conflict | CommitError::UnknownSession(_)) => prop_assert!(!holds, "{step:?} was refused"),
                Err(other) => panic!("{step:?}: {other}"),
            }
        }
        assert_as_modelled(&store, &model);
        finish(&store, NOW);
        assert_sound(&store);
    }
}
