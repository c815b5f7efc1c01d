//! What is known of a subscription, from facts that may come twice, late, or in another order than they happened.
//!
//! Of each question (is it cancelled? is it in trial?) only the latest fact is kept, with its time.
//! So an older fact changes nothing, and the same fact told again changes nothing either.
//! Of two facts of the same time the one counts that keeps the session.

use portcullis_sdk::Timestamp;
use serde::{Deserialize, Serialize};

/// A fact about a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fact {
    Cancelled,
    Renewed,
    TrialStarted,
    TrialEnded,
}

/// What is known of the subscription of one session, or of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// Whether it is cancelled.
    #[serde(default)]
    cancelled: Option<Note>,
    /// Whether it is in trial.
    #[serde(default)]
    trial: Option<Note>,
}

/// The latest answer to a question, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    is: bool,
    since: Timestamp,
}

impl Ledger {
    /// Notes a fact.
    pub(crate) fn learn(&mut self, fact: Fact, at: Timestamp) {
        let note = |is| Some(Note { is, since: at });
        match fact {
            Fact::Cancelled => self.cancelled = latest(self.cancelled, note(true), false),
            Fact::Renewed => self.cancelled = latest(self.cancelled, note(false), false),
            Fact::TrialStarted => self.trial = latest(self.trial, note(true), true),
            Fact::TrialEnded => self.trial = latest(self.trial, note(false), true),
        }
    }

    /// What is known of one session, if `self` is known of it alone and `all` of every session.
    pub(crate) fn and(self, all: Self) -> Self {
        Self { cancelled: latest(self.cancelled, all.cancelled, false), trial: latest(self.trial, all.trial, true) }
    }

    /// Since when it is cancelled, if it is.
    pub(crate) fn cancelled_at(&self) -> Option<Timestamp> {
        self.cancelled.filter(|note| note.is).map(|note| note.since)
    }

    /// Whether it is in trial.
    pub(crate) fn in_trial(&self) -> bool {
        self.trial.is_some_and(|note| note.is)
    }
}

/// The later note; of two of the same time the one that says `keeping`.
fn latest(one: Option<Note>, other: Option<Note>, keeping: bool) -> Option<Note> {
    let (Some(first), Some(second)) = (one, other) else { return one.or(other) };
    let later = |note: Note| (note.since, note.is == keeping);
    Some(if later(second) > later(first) { second } else { first })
}

#[cfg(test)]
mod test {
    use super::*;

    fn ledger(facts: &[(Fact, Timestamp)]) -> Ledger {
        let mut ledger = Ledger::default();
        for (fact, at) in facts {
            ledger.learn(*fact, *at);
        }
        ledger
    }

    #[test]
    fn the_latest_fact_counts_in_whatever_order_they_are_told() {
        use Fact::{Cancelled, Renewed, TrialEnded, TrialStarted};
        for (facts, cancelled_at, in_trial) in [
            ([].as_slice(), None, false),
            (&[(Cancelled, 5)], Some(5), false),
            (&[(Cancelled, 5), (Renewed, 7)], None, false),
            (&[(Cancelled, 5), (Renewed, 7), (Cancelled, 9)], Some(9), false),
            (&[(TrialStarted, 1), (Cancelled, 5)], Some(5), true),
            (&[(TrialStarted, 1), (TrialEnded, 3), (Cancelled, 5)], Some(5), false),
            (&[(Cancelled, 5), (Renewed, 5)], None, false),
            (&[(TrialStarted, 5), (TrialEnded, 5)], None, true),
        ] {
            for turned in 0..facts.len().max(1) {
                let mut told = facts.to_vec();
                told.rotate_left(turned);
                for told in [told.clone(), told.iter().rev().copied().collect(), [told.clone(), told].concat()] {
                    let ledger = ledger(&told);
                    assert_eq!((ledger.cancelled_at(), ledger.in_trial()), (cancelled_at, in_trial), "{told:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_told_of_one_session_and_of_all_is_put_together_by_time() {
        let cancelled = |at| ledger(&[(Fact::Cancelled, at)]);
        let renewed = |at| ledger(&[(Fact::Renewed, at)]);
        let none = Ledger::default();
        for (session, all, expected) in [
            (cancelled(5), none, Some(5)),
            (none, cancelled(5), Some(5)),
            (renewed(7), cancelled(5), None),
            (renewed(3), cancelled(5), Some(5)),
            (cancelled(7), renewed(5), Some(7)),
            (cancelled(5), renewed(5), None),
        ] {
            assert_eq!(session.and(all).cancelled_at(), expected, "{session:?} {all:?}");
        }
        assert!(ledger(&[(Fact::TrialStarted, 4)]).and(ledger(&[(Fact::TrialEnded, 3)])).in_trial());
    }

    #[test]
    fn a_ledger_is_read_as_it_was_written() {
        let kept = ledger(&[(Fact::Cancelled, 5), (Fact::TrialEnded, 3)]);
        let json = serde_json::to_string(&kept).expect("it can be written");
        assert_eq!(json, r#"{"cancelled":{"is":true,"since":5},"trial":{"is":false,"since":3}}"#);
        assert_eq!(serde_json::from_str::<Ledger>(&json).expect("it can be read"), kept);
        assert_eq!(serde_json::from_str::<Ledger>("{}").expect("it can be read"), Ledger::default());
    }
}
