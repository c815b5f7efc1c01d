//! Random commits with expectations against a map: what holds for the map holds for the store, and the rows are the map's.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_core::{KvAccess, KvChange, MessageState, Secret, Session, Webhook};
use proptest::prelude::*;

use super::sample::*;
use crate::{Commit, CommitError, Expectation, MessagePhase, Store, Write};

/// One commit on a handful of sessions, with what goes with them, and keys.
#[derive(Debug, Clone)]
enum Move {
    Create { session: u8, token: Option<u8> },
    Change { session: u8, expect: u64, token: Option<u8> },
    Erase { session: u8 },
    Hook { webhook: u8, about: Option<u8> },
    Unhook { webhook: u8 },
    Say { session: u8, message: u8, seen: Option<MessagePhase>, next: MessagePhase },
    Put { key: u8, seen: Option<Option<u64>> },
    Remove { key: u8 },
    Finish,
}

/// What should be there: generations of sessions, versions of keys, holders of tokens, what webhooks are about, phases of messages.
#[derive(Debug, Default)]
struct Model {
    sessions: BTreeMap<u8, u64>,
    keys: BTreeMap<u8, u64>,
    tokens: BTreeMap<u8, u8>,
    webhooks: BTreeMap<u8, Option<u8>>,
    messages: BTreeMap<(u8, u8), MessagePhase>,
    /// Erased sessions whose keys are still to be destroyed; until then their ids are taken.
    dying: BTreeSet<u8>,
    audits: usize,
}

fn a_move() -> impl Strategy<Value = Move> {
    let session = 5..8_u8;
    let key = 0..3_u8;
    let seen = prop_oneof![Just(None), Just(Some(None)), (1..4_u64).prop_map(|version| Some(Some(version)))];
    let token = prop::option::of(0..2_u8);
    let phase = prop::sample::select(vec![
        MessagePhase::Queued,
        MessagePhase::Sending,
        MessagePhase::Sent,
        MessagePhase::Failed,
    ]);
    let from = prop_oneof![Just(None), Just(Some(MessagePhase::Queued)), Just(Some(MessagePhase::Sending))];
    prop_oneof![
        3 => (session.clone(), token.clone()).prop_map(|(session, token)| Move::Create { session, token }),
        3 => (session.clone(), 1..4_u64, token)
            .prop_map(|(session, expect, token)| Move::Change { session, expect, token }),
        1 => session.clone().prop_map(|session| Move::Erase { session }),
        2 => (0..3_u8, prop::option::of(session.clone())).prop_map(|(webhook, about)| Move::Hook { webhook, about }),
        1 => (0..3_u8).prop_map(|webhook| Move::Unhook { webhook }),
        4 => (session, 0..2_u8, from, phase)
            .prop_map(|(session, message, seen, next)| Move::Say { session, message, seen, next }),
        3 => (key.clone(), seen).prop_map(|(key, seen)| Move::Put { key, seen }),
        1 => key.prop_map(|key| Move::Remove { key }),
        1 => Just(Move::Finish),
    ]
}

impl Model {
    /// Whether the move holds; if so it is made.
    fn make(&mut self, step: &Move) -> bool {
        let holds = match step {
            Move::Create { session, token } => {
                !self.sessions.contains_key(session) && !self.dying.contains(session) && self.is_free(*token, *session)
            }
            Move::Change { session, expect, token } => {
                self.sessions.get(session) == Some(expect) && self.is_free(*token, *session)
            }
            Move::Erase { session } => self.sessions.contains_key(session),
            Move::Put { key, seen } => seen.is_none_or(|seen| seen == self.keys.get(key).copied()),
            Move::Hook { about, .. } => about.is_none_or(|session| self.sessions.contains_key(&session)),
            Move::Say { session, message, seen, .. } => {
                self.sessions.contains_key(session) && self.messages.get(&(*session, *message)) == seen.as_ref()
            }
            Move::Unhook { .. } | Move::Remove { .. } | Move::Finish => true,
        };
        if !holds {
            return false;
        }
        match step {
            Move::Create { session, token } | Move::Change { session, token, .. } => {
                *self.sessions.entry(*session).or_default() += 1;
                self.tokens.retain(|_, holder| holder != session);
                self.tokens.extend(token.map(|token| (token, *session)));
            }
            Move::Hook { webhook, about } => drop(self.webhooks.insert(*webhook, *about)),
            Move::Unhook { webhook } => drop(self.webhooks.remove(webhook)),
            Move::Say { session, message, next, .. } => drop(self.messages.insert((*session, *message), *next)),
            Move::Erase { session } => {
                self.sessions.remove(session);
                self.tokens.retain(|_, holder| holder != session);
                self.webhooks.retain(|_, about| *about != Some(*session));
                self.messages.retain(|(of, _), _| of != session);
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

    fn is_free(&self, token: Option<u8>, session: u8) -> bool {
        token.and_then(|token| self.tokens.get(&token)).is_none_or(|holder| *holder == session)
    }
}

fn state(phase: MessagePhase) -> MessageState {
    match phase {
        MessagePhase::Queued => MessageState::Queued,
        MessagePhase::Sending => MessageState::Sending,
        MessagePhase::Sent => sent(NOW),
        MessagePhase::Failed => MessageState::Failed { code: "interrupted".into() },
    }
}

fn row(byte: u8, generation: u64, token: Option<u8>) -> Session {
    let token = token.map(|token| Secret::new(token.to_string()));
    Session { generation, token, ..session(1, byte) }
}

fn commit(step: &Move, unique: u128) -> Commit {
    let access = |key: &u8, seen, change| KvAccess { plugin: plugin_id(3), key: format!("key-{key}"), seen, change };
    let kv = match step {
        Move::Put { key, seen } => {
            vec![access(key, *seen, KvChange::Put { value: vec![*key], expires: None })]
        }
        Move::Remove { key } => vec![access(key, None, KvChange::Remove)],
        Move::Create { .. }
        | Move::Change { .. }
        | Move::Erase { .. }
        | Move::Hook { .. }
        | Move::Unhook { .. }
        | Move::Say { .. }
        | Move::Finish => vec![],
    };
    let (expect, writes) = match step {
        Move::Create { session, token } => {
            (vec![Expectation::Session(session_id(*session), None)], vec![Write::PutSession(row(*session, 1, *token))])
        }
        Move::Change { session, expect, token } => {
            let next = row(*session, expect + 1, *token);
            (vec![Expectation::Session(session_id(*session), Some(*expect))], vec![Write::PutSession(next)])
        }
        Move::Hook { webhook: byte, about } => (vec![], vec![Write::PutWebhook(webhook(1, *about, *byte))]),
        Move::Unhook { webhook: byte } => (vec![], vec![Write::RemoveWebhook(webhook(1, None, *byte).id)]),
        Move::Say { session, message: byte, seen, next } => {
            let (session, id) = (session_id(*session), message_id(*byte));
            let next = moved(&message(1, session.to_bytes()[0], *byte), state(*next), NOW);
            (vec![Expectation::Message { session, id, state: *seen }], vec![Write::PutMessage(next)])
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
    let webhooks = snapshot.webhooks(org_id(1)).expect("read");
    let about = |webhook: &Webhook| webhook.session.map(|session| session.to_bytes()[0]);
    let found: BTreeMap<_, _> = webhooks.iter().map(|row| (row.id.to_bytes()[0], about(row))).collect();
    assert_eq!(found, model.webhooks);
    for byte in 5..8 {
        let tokens = model.tokens.iter().filter(|(_, holder)| **holder == byte).count();
        let row = snapshot.session(org_id(1), session_id(byte)).expect("read");
        assert_eq!(usize::from(row.is_some_and(|row| row.token.is_some())), tokens);
        let hooks = snapshot.session_webhooks(org_id(1), session_id(byte)).expect("read").len();
        assert_eq!(hooks, model.webhooks.values().filter(|about| **about == Some(byte)).count());
        let messages = snapshot.messages(org_id(1), session_id(byte), None, usize::MAX).expect("read");
        let found = messages.iter().map(|row| ((byte, row.id.to_bytes()[0]), MessagePhase::from(&row.state)));
        let expected = model.messages.range((byte, 0)..=(byte, u8::MAX)).map(|(id, phase)| (*id, *phase));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), expected.collect());
    }
    let mut open = 0;
    snapshot.every_open_message(|_| open += 1).expect("read");
    assert_eq!(open, model.messages.values().filter(|phase| phase.is_open()).count());
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
                Err(CommitError::Conflict | CommitError::UnknownSession(_) | CommitError::TokenTaken) => {
                    prop_assert!(!holds, "{step:?} was refused");
                }
                Err(other) => panic!("{step:?}: {other}"),
            }
        }
        assert_as_modelled(&store, &model);
        finish(&store, NOW);
        assert_sound(&store);
    }
}
