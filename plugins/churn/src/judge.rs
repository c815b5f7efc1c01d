//! The rule itself: may this session go?
//!
//! ```text
//! cancelled? ─no─▶ Active
//!    └─ in trial, by a fact or by label? ─yes─▶ Trial
//!          └─ is the grace over? ─no─▶ Early
//!                └─ disconnected, or logged out? ─no─▶ Connected
//!                                                └─▶ Over
//! ```

use portcullis_sdk::{Session, Status, Timestamp};

use crate::ledger::Ledger;
use crate::rules::{Requires, Rules};

/// How a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its subscription runs.
    Active,
    /// It is in trial.
    Trial,
    /// It was cancelled, and the grace is over at this time.
    Early(Timestamp),
    /// It is still in use.
    Connected,
    /// It may go.
    Over,
}

/// How a session stands at `now`, by what is known of its subscription.
pub(crate) fn judge(session: &Session, ledger: &Ledger, rules: &Rules, now: Timestamp) -> Standing {
    let Some(cancelled_at) = ledger.cancelled_at() else { return Standing::Active };
    let labelled = session.label(&rules.trial_label).is_some_and(|value| value != "false");
    if labelled || ledger.in_trial() {
        return Standing::Trial;
    }
    let due = due(cancelled_at, rules);
    if now < due {
        return Standing::Early(due);
    }
    let in_use = match rules.requires {
        Requires::Disconnected => matches!(session.status, Status::Starting | Status::Online | Status::Reconnecting),
        // A session that was never linked, or is so no more, has no account.
        Requires::LoggedOut => session.status != Status::LoggedOut && session.jid.is_some(),
    };
    if in_use { Standing::Connected } else { Standing::Over }
}

/// When the grace after a cancellation is over.
pub(crate) fn due(cancelled_at: Timestamp, rules: &Rules) -> Timestamp {
    cancelled_at.saturating_add(rules.grace.millis())
}

#[cfg(test)]
mod test {
    use portcullis_sdk::{Label, sample};

    use super::*;
    use crate::ledger::Fact;

    const GRACE: u64 = 30 * sample::DAY;

    fn stands(facts: &[(Fact, Timestamp)], now: Timestamp, change: impl Fn(&mut Session)) -> Standing {
        stands_by("{}", facts, now, change)
    }

    fn stands_by(
        settings: &str,
        facts: &[(Fact, Timestamp)],
        now: Timestamp,
        change: impl Fn(&mut Session),
    ) -> Standing {
        let mut session = sample::session();
        session.status = Status::Stopped;
        change(&mut session);
        let mut ledger = Ledger::default();
        facts.iter().for_each(|(fact, at)| ledger.learn(*fact, *at));
        judge(&session, &ledger, &Rules::parse(settings).expect("settings"), now)
    }

    #[test]
    fn nothing_goes_while_it_is_paid_for() {
        assert_eq!(stands(&[], sample::NOW, |_| {}), Standing::Active);
        assert_eq!(stands(&[(Fact::Cancelled, 0), (Fact::Renewed, 1)], sample::NOW, |_| {}), Standing::Active);
        assert_eq!(stands(&[(Fact::TrialEnded, 0)], sample::NOW, |_| {}), Standing::Active);
    }

    #[test]
    fn the_grace_counts_from_the_cancellation() {
        let cancelled = [(Fact::Cancelled, sample::NOW)];
        let due = sample::NOW + GRACE;
        assert_eq!(stands(&cancelled, sample::NOW, |_| {}), Standing::Early(due));
        assert_eq!(stands(&cancelled, due - 1, |_| {}), Standing::Early(due));
        assert_eq!(stands(&cancelled, due, |_| {}), Standing::Over);
    }

    #[test]
    fn a_trial_keeps_the_session_whether_a_fact_or_a_label_says_so() {
        let labelled = |value: &'static str| {
            move |session: &mut Session| {
                session.labels = vec![Label { key: "trial".to_owned(), value: value.to_owned() }];
            }
        };
        let cancelled = (Fact::Cancelled, 0);
        assert_eq!(stands(&[cancelled], GRACE, labelled("")), Standing::Trial);
        assert_eq!(stands(&[cancelled, (Fact::TrialEnded, 1)], GRACE, labelled("yes")), Standing::Trial);
        assert_eq!(stands(&[cancelled], GRACE, labelled("false")), Standing::Over);
        assert_eq!(stands(&[cancelled, (Fact::TrialStarted, 1)], GRACE, |_| {}), Standing::Trial);
        assert_eq!(stands_by(r#"{"trialLabel": "test"}"#, &[cancelled], GRACE, labelled("")), Standing::Over);
    }

    #[test]
    fn a_session_in_use_stays() {
        use Status::{Failed, LoggedOut, Online, Pairing, Reconnecting, Starting, Stopped};
        let cancelled = [(Fact::Cancelled, 0)];
        for status in [Starting, Online, Reconnecting] {
            assert_eq!(stands(&cancelled, GRACE, |session| session.status = status), Standing::Connected, "{status:?}");
        }
        for status in [Stopped, Pairing, LoggedOut, Failed] {
            assert_eq!(stands(&cancelled, GRACE, |session| session.status = status), Standing::Over, "{status:?}");
        }
    }

    #[test]
    fn settings_may_ask_for_a_logout() {
        let settings = r#"{"requires": "logged-out"}"#;
        let stands = |status: Status, linked: bool| {
            stands_by(settings, &[(Fact::Cancelled, 0)], GRACE, |session| {
                session.status = status;
                session.jid = linked.then(|| "15550100@s.whatsapp.net".to_owned());
            })
        };
        assert_eq!(stands(Status::Stopped, true), Standing::Connected);
        assert_eq!(stands(Status::Stopped, false), Standing::Over);
        assert_eq!(stands(Status::LoggedOut, true), Standing::Over);
    }
}
