//! What follows from a fact and from a timer: timers, and requests for deletion.
//!
//! ```text
//! a fact about one session ── cancelled ──▶ timer `session:<id>` at the end of the grace
//!                          └─ otherwise ──▶ no timer
//! a fact about all ── the same with the timer `all`, which looks at every session, page by page, and again after `recheck`
//!
//! timer `session:<id>` ── the rules hold ────▶ request its deletion, and look again after `recheck`
//!                      ── not yet ───────────▶ look again when the grace is over, or after `recheck`
//!                      ── it is paid for ────▶ nothing
//! ```
//!
//! After a request the session is looked at again, because another plugin may have put the deletion off, or denied it.
//! All of it comes to the same if it is done twice.

use portcullis_sdk::{FollowUp, Session, Status, Timestamp};

use crate::judge::{self, Standing, judge};
use crate::ledger::Ledger;
use crate::memory::Whose;
use crate::rules::Rules;

/// The key of the timer of facts about all sessions.
pub(crate) const ALL: &str = "all";
/// How the key of the timer of one session begins.
const SESSION: &str = "session:";
/// How many deletions are requested in one call. The host takes 16 follow-ups, of which one is a timer.
const REQUESTS: usize = 12;
/// How soon the next page is looked at, in milliseconds.
const SOON: u64 = 1000;

/// The timer that follows from what is known after a fact.
pub(crate) fn after_fact(whose: Whose<'_>, ledger: &Ledger, rules: &Rules, now: Timestamp) -> FollowUp {
    let key = key(whose);
    match ledger.cancelled_at() {
        Some(at) => FollowUp::timer(key, judge::due(at, rules).max(now), ""),
        None => FollowUp::CancelTimer(key),
    }
}

/// What follows when the timer of one session is due.
pub(crate) fn look(session: &Session, ledger: &Ledger, rules: &Rules, now: Timestamp) -> Vec<FollowUp> {
    let key = key(Whose::Session(&session.id));
    let again = FollowUp::timer(key.as_str(), now.saturating_add(rules.recheck.millis()), "");
    match judge(session, ledger, rules, now) {
        Standing::Active => Vec::new(),
        Standing::Early(due) => vec![FollowUp::timer(key, due, "")],
        Standing::Trial | Standing::Connected => vec![again],
        Standing::Over if is_going(session) => vec![again],
        Standing::Over => vec![delete(session), again],
    }
}

/// What follows from one page of all sessions. `next` is where the next page begins.
pub(crate) fn sweep(page: &[(Session, Ledger)], next: Option<&str>, rules: &Rules, now: Timestamp) -> Vec<FollowUp> {
    let over = |(session, ledger): &&(Session, Ledger)| {
        !is_going(session) && judge(session, ledger, rules, now) == Standing::Over
    };
    let due: Vec<&Session> = page.iter().filter(over).map(|(session, _)| session).collect();
    let asked = &due[..due.len().min(REQUESTS)];
    // What did not fit into this call begins after the last session that did.
    let next = if asked.len() < due.len() { asked.last().map(|session| session.id.as_str()) } else { next };
    let mut follow_ups: Vec<_> = asked.iter().map(|session| delete(session)).collect();
    follow_ups.push(match next {
        Some(cursor) => FollowUp::timer(ALL, now.saturating_add(SOON), cursor),
        None => FollowUp::timer(ALL, now.saturating_add(rules.recheck.millis()), ""),
    });
    follow_ups
}

/// The session that a timer is about; none for the one about all.
pub(crate) fn session_of(key: &str) -> Option<&str> {
    key.strip_prefix(SESSION)
}

fn key(whose: Whose<'_>) -> String {
    match whose {
        Whose::Session(id) => format!("{SESSION}{id}"),
        Whose::All => ALL.to_owned(),
    }
}

fn delete(session: &Session) -> FollowUp {
    FollowUp::request("session.delete", session.id.as_str())
}

/// Whether its deletion waits or is under way.
fn is_going(session: &Session) -> bool {
    session.delete_due.is_some() || session.status == Status::Removing
}

#[cfg(test)]
mod test {
    use portcullis_sdk::sample;

    use super::*;
    use crate::ledger::Fact;

    const DUE: u64 = 30 * sample::DAY;

    fn ledger(facts: &[(Fact, Timestamp)]) -> Ledger {
        let mut ledger = Ledger::default();
        facts.iter().for_each(|(fact, at)| ledger.learn(*fact, *at));
        ledger
    }

    fn cancelled() -> Ledger {
        ledger(&[(Fact::Cancelled, 0)])
    }

    fn rules() -> Rules {
        Rules::parse("{}").expect("no settings")
    }

    fn session(id: &str) -> Session {
        Session { id: id.to_owned(), status: Status::Stopped, ..sample::session() }
    }

    fn timer(at: Timestamp) -> FollowUp {
        FollowUp::timer("session:sess_1", at, "")
    }

    #[test]
    fn a_cancellation_sets_the_timer_and_a_renewal_takes_it_back() {
        let one = Whose::Session("sess_1");
        assert_eq!(after_fact(one, &cancelled(), &rules(), 5), timer(DUE));
        // A cancellation that is told late is due at once, and not before.
        assert_eq!(after_fact(one, &cancelled(), &rules(), DUE + 5), timer(DUE + 5));
        let renewed = ledger(&[(Fact::Cancelled, 0), (Fact::Renewed, 3)]);
        assert_eq!(after_fact(one, &renewed, &rules(), 5), FollowUp::CancelTimer("session:sess_1".to_owned()));
        assert_eq!(after_fact(Whose::All, &renewed, &rules(), 5), FollowUp::CancelTimer("all".to_owned()));
        assert_eq!(after_fact(Whose::All, &cancelled(), &rules(), 5), FollowUp::timer("all", DUE, ""));
    }

    #[test]
    fn a_timer_asks_for_the_deletion_once_the_rules_hold() {
        let looked = |session: &Session, ledger: &Ledger, now| look(session, ledger, &rules(), now);
        let delete = FollowUp::request("session.delete", "sess_1");
        let again = || timer(DUE + sample::DAY);
        assert_eq!(looked(&session("sess_1"), &cancelled(), DUE), [delete, again()]);
        assert_eq!(looked(&session("sess_1"), &cancelled(), DUE - 1), [timer(DUE)]);
        assert_eq!(looked(&session("sess_1"), &Ledger::default(), DUE), []);
        let trial = ledger(&[(Fact::Cancelled, 0), (Fact::TrialStarted, 1)]);
        assert_eq!(looked(&session("sess_1"), &trial, DUE), [again()]);
        let online = Session { status: Status::Online, ..session("sess_1") };
        assert_eq!(looked(&online, &cancelled(), DUE), [again()]);
        let pending = Session { delete_due: Some(DUE + 7), ..session("sess_1") };
        assert_eq!(looked(&pending, &cancelled(), DUE), [again()]);
    }

    #[test]
    fn a_page_is_gone_through_and_the_next_one_follows() {
        let page = [
            (session("sess_1"), cancelled()),
            (session("sess_2"), Ledger::default()),
            (Session { status: Status::Removing, ..session("sess_3") }, cancelled()),
            (session("sess_4"), cancelled()),
        ];
        let [one, four] = ["sess_1", "sess_4"].map(|id| FollowUp::request("session.delete", id));
        let expected = [one, four, FollowUp::timer("all", DUE + SOON, "sess_4")];
        assert_eq!(sweep(&page, Some("sess_4"), &rules(), DUE), expected);
        assert_eq!(sweep(&page[1..3], None, &rules(), DUE), [FollowUp::timer("all", DUE + sample::DAY, "")]);
        assert_eq!(sweep(&[], None, &rules(), DUE), [FollowUp::timer("all", DUE + sample::DAY, "")]);
    }

    #[test]
    fn what_does_not_fit_into_one_call_is_left_to_the_next() {
        let page: Vec<_> = (10..40).map(|number| (session(&format!("sess_{number}")), cancelled())).collect();
        let first = sweep(&page, None, &rules(), DUE);
        assert_eq!(first.len(), REQUESTS + 1);
        assert_eq!(first.last(), Some(&FollowUp::timer("all", DUE + SOON, "sess_21")));
        let last = sweep(&page[24..], None, &rules(), DUE);
        assert_eq!(last.last(), Some(&FollowUp::timer("all", DUE + sample::DAY, "")));
    }

    #[test]
    fn keys_of_timers_say_whose_they_are() {
        assert_eq!(session_of(&key(Whose::Session("sess_1"))), Some("sess_1"));
        assert_eq!(session_of(&key(Whose::All)), None);
    }
}
