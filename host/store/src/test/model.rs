//! Random commits with expectations against a map: what holds for the map holds for the store, and the rows are the map's.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_core::{KvAccess, KvChange, MessageState, Secret, Session, Timestamp, Webhook};
use proptest::prelude::*;

use super::sample::*;
use crate::{Commit, CommitError, DecisionFilter, ErrandChange, Expectation, MessagePhase, Store, TimerChange, Write};

/// One commit on a handful of sessions, with what goes with them, and keys.
#[derive(Debug, Clone)]
enum Move {
    Create { session: u8, token: Option<u8> },
    Change { session: u8, expect: u64, token: Option<u8> },
    Erase { session: u8 },
    Hook { webhook: u8, about: Option<u8> },
    Unhook { webhook: u8 },
    Say { session: u8, message: u8, seen: Option<MessagePhase>, next: MessagePhase },
    Put { key: u8, about: Option<u8>, seen: Option<Option<u64>> },
    Remove { key: u8, about: Option<u8> },
    Ask { confirmation: u8, about: Option<u8> },
    Answer { confirmation: u8 },
    Send { errand: u8, about: Option<u8>, due: u8 },
    Carry { errand: u8 },
    Time { timer: u8, about: Option<u8> },
    Forget { at_most: usize },
    Finish,
}

/// What should be there: generations of sessions, versions of keys, holders of tokens, what webhooks, questions, errands and
/// timers are about, phases of messages, and how many decisions.
#[derive(Debug, Default)]
struct Model {
    sessions: BTreeMap<u8, u64>,
    keys: BTreeMap<(Option<u8>, u8), u64>,
    /// The last version that a key got.
    version: u64,
    tokens: BTreeMap<u8, u8>,
    webhooks: BTreeMap<u8, Option<u8>>,
    messages: BTreeMap<(u8, u8), MessagePhase>,
    questions: BTreeMap<u8, Option<u8>>,
    /// With when they are due.
    errands: BTreeMap<u8, (Option<u8>, u8)>,
    timers: BTreeMap<u8, Option<u8>>,
    /// Erased sessions whose keys are still to be destroyed; until then their ids are taken.
    dying: BTreeSet<u8>,
    audits: usize,
    decisions: usize,
}

fn a_move() -> impl Strategy<Value = Move> {
    let session = 5..8_u8;
    let key = 0..3_u8;
    let seen = prop_oneof![Just(None), Just(Some(None)), (1..12_u64).prop_map(|version| Some(Some(version)))];
    let about = prop::option::of(session.clone());
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
        4 => (key.clone(), about.clone(), seen).prop_map(|(key, about, seen)| Move::Put { key, about, seen }),
        1 => (key, about.clone()).prop_map(|(key, about)| Move::Remove { key, about }),
        2 => (0..3_u8, about.clone()).prop_map(|(confirmation, about)| Move::Ask { confirmation, about }),
        1 => (0..3_u8).prop_map(|confirmation| Move::Answer { confirmation }),
        2 => (0..3_u8, about.clone(), 0..3_u8).prop_map(|(errand, about, due)| Move::Send { errand, about, due }),
        1 => (0..3_u8).prop_map(|errand| Move::Carry { errand }),
        2 => (0..3_u8, about).prop_map(|(timer, about)| Move::Time { timer, about }),
        1 => (0..4_usize).prop_map(|at_most| Move::Forget { at_most }),
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
            Move::Put { key, about, seen } => {
                self.is_there(*about) && seen.is_none_or(|seen| seen == self.keys.get(&(*about, *key)).copied())
            }
            Move::Hook { about, .. }
            | Move::Ask { about, .. }
            | Move::Send { about, .. }
            | Move::Time { about, .. } => self.is_there(*about),
            Move::Answer { confirmation } => self.questions.contains_key(confirmation),
            Move::Carry { errand } => self.errands.contains_key(errand),
            Move::Say { session, message, seen, .. } => {
                self.sessions.contains_key(session) && self.messages.get(&(*session, *message)) == seen.as_ref()
            }
            Move::Unhook { .. } | Move::Remove { .. } | Move::Forget { .. } | Move::Finish => true,
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
                self.keys.retain(|(about, _), _| *about != Some(*session));
                self.questions.retain(|_, about| *about != Some(*session));
                self.errands.retain(|_, (about, _)| *about != Some(*session));
                self.timers.retain(|_, about| *about != Some(*session));
                self.dying.insert(*session);
            }
            Move::Put { key, about, .. } => {
                self.version += 1;
                self.keys.insert((*about, *key), self.version);
            }
            Move::Remove { key, about } => drop(self.keys.remove(&(*about, *key))),
            Move::Ask { confirmation, about } => drop(self.questions.insert(*confirmation, *about)),
            Move::Answer { confirmation } => drop(self.questions.remove(confirmation)),
            Move::Send { errand, about, due } => drop(self.errands.insert(*errand, (*about, *due))),
            Move::Carry { errand } => drop(self.errands.remove(errand)),
            Move::Time { timer, about } => drop(self.timers.insert(*timer, *about)),
            // What is forgotten is older than the decision of the commit itself, which is counted below.
            Move::Forget { at_most } => self.decisions -= self.decisions.min(*at_most),
            Move::Finish => {
                self.dying.clear();
                return true;
            }
        }
        self.audits += 1;
        self.decisions += 1;
        true
    }

    fn is_there(&self, about: Option<u8>) -> bool {
        about.is_none_or(|session| self.sessions.contains_key(&session))
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
    let access =
        |key: &u8, about, seen, change| KvAccess { plugin: plugin_id(3), key: key_name(*key, about), seen, change };
    let kv = match step {
        Move::Put { key, about, seen } => {
            vec![access(key, *about, *seen, KvChange::Put { value: vec![*key], expires: None })]
        }
        Move::Remove { key, about } => vec![access(key, *about, None, KvChange::Remove)],
        Move::Create { .. }
        | Move::Change { .. }
        | Move::Erase { .. }
        | Move::Hook { .. }
        | Move::Unhook { .. }
        | Move::Say { .. }
        | Move::Ask { .. }
        | Move::Answer { .. }
        | Move::Send { .. }
        | Move::Carry { .. }
        | Move::Time { .. }
        | Move::Forget { .. }
        | Move::Finish => vec![],
    };
    let mut errands = vec![];
    let mut timers = vec![];
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
        Move::Ask { confirmation: byte, about } => {
            (vec![], vec![Write::PutConfirmation(confirmation(1, *about, *byte))])
        }
        Move::Answer { confirmation: byte } => {
            (vec![Expectation::Confirmation([*byte; 32])], vec![Write::RemoveConfirmation([*byte; 32])])
        }
        Move::Send { errand: byte, about, due } => {
            errands.push(ErrandChange::Put(errand(1, *about, *byte, at((*due).into()))));
            (vec![], vec![])
        }
        Move::Carry { errand: byte } => {
            errands.push(ErrandChange::Remove(errand_id(*byte)));
            (vec![Expectation::Errand(errand_id(*byte))], vec![])
        }
        Move::Time { timer: byte, about } => {
            timers.push(TimerChange::Set(timer(1, *about, &byte.to_string(), NOW)));
            (vec![], vec![])
        }
        Move::Forget { at_most } => {
            (vec![], vec![Write::ForgetDecisions { before: Timestamp::MAX, at_most: *at_most }])
        }
        Move::Put { .. } | Move::Remove { .. } | Move::Finish => (vec![], vec![]),
    };
    let decision = Some(decision(1, None, unique));
    Commit { expect, kv, errands, timers, decision, audit: vec![audit(1, None, unique)], ..writing(1, writes) }
}

/// The name of a key of its own, or of a session's.
fn key_name(key: u8, about: Option<u8>) -> String {
    about.map_or_else(|| format!("key-{key}"), |session| format!("session:{}:key-{key}", session_id(session)))
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
    for (key, about) in (0..3).flat_map(|key| [None, Some(5), Some(6), Some(7)].map(|about| (key, about))) {
        let entry = snapshot.kv(org_id(1), plugin_id(3), &key_name(key, about), NOW).expect("read");
        assert_eq!(entry.map(|entry| entry.version), model.keys.get(&(about, key)).copied());
    }
    for byte in 0..3 {
        let asked = snapshot.confirmation(org_id(1), &[byte; 32]).expect("read");
        assert_eq!(asked, model.questions.get(&byte).map(|about| confirmation(1, *about, byte)));
    }
    let errands = snapshot.errands_due(org_id(1), at(99), 99).expect("read");
    let mut expected: Vec<_> = model.errands.iter().map(|(byte, (about, due))| (*due, *byte, *about)).collect();
    expected.sort_unstable();
    let expected = expected.iter().map(|(due, byte, about)| errand(1, *about, *byte, at((*due).into())));
    assert_eq!(errands, expected.collect::<Vec<_>>());
    assert_eq!(snapshot.timers_due(org_id(1), NOW, 99).expect("read").len(), model.timers.len());
    let decisions = snapshot.decisions(org_id(1), None, &DecisionFilter::default(), 99).expect("read");
    assert_eq!(decisions.decisions.len(), model.decisions);
    let audits = audited(&snapshot, org_id(1), usize::MAX);
    let own = audits.iter().filter(|entry| !matches!(entry.outcome, portcullis_core::AuditOutcome::Erased { .. }));
    assert_eq!(own.count(), model.audits);
    assert_sound(store);
}

fn check(steps: &[Move]) -> Result<(), TestCaseError> {
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
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_a_map_does(steps in prop::collection::vec(a_move(), 1..40)) {
        check(&steps)?;
    }
}

/// The story: a session was erased twice, which only ids that are given again can bring about, and the look at the data found the
/// place of the first receipt missing.
#[test]
fn who_is_erased_twice_has_two_receipts_and_the_last_one_is_found() {
    let life = [Move::Create { session: 6, token: None }, Move::Erase { session: 6 }, Move::Finish];
    check(&[life.clone(), life].concat()).expect("the store does what the map does");
}
