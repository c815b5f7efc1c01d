//! The settings of the plugin, read and checked.

use portcullis_sdk::{Duration, Form, Problem};
use serde::Deserialize;

use crate::ledger::Fact;

/// How the names of the events begin of which the plugin is told.
pub(crate) const FAMILIES: [&str; 3] = ["subscription.", "trial.", "customer.subscription."];

/// The longest grace, ten years, and the longest time until a session is looked at again.
const MAX_GRACE_SECONDS: u64 = 10 * 365 * 24 * 60 * 60;
const MAX_RECHECK_SECONDS: u64 = 30 * 24 * 60 * 60;

/// What the settings say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// How long a session is kept after the cancellation.
    pub(crate) grace: Duration,
    /// The label of a session in trial.
    pub(crate) trial_label: String,
    /// What has to be so before a session goes.
    pub(crate) requires: Requires,
    /// What becomes of a delete by hand that comes too early.
    pub(crate) early: Early,
    /// When a session is looked at again that could not go.
    pub(crate) recheck: Duration,
    events: Events,
}

/// What has to be so before a session goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Requires {
    /// It is not connected.
    #[default]
    Disconnected,
    /// Its device is not linked.
    LoggedOut,
}

/// What becomes of a delete by hand that comes too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Early {
    /// It is denied.
    #[default]
    Deny,
    /// It waits until the grace is over.
    Defer,
}

/// The names of the facts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Events {
    cancelled: Vec<String>,
    renewed: Vec<String>,
    trial_started: Vec<String>,
    trial_ended: Vec<String>,
}

impl Default for Events {
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            cancelled: one("subscription.cancelled"),
            renewed: one("subscription.renewed"),
            trial_started: one("trial.started"),
            trial_ended: one("trial.ended"),
        }
    }
}

impl Events {
    /// The facts with their names, and the field that each has in the settings.
    fn table(&self) -> [(Fact, &'static str, &[String]); 4] {
        [
            (Fact::Cancelled, "cancelled", &self.cancelled),
            (Fact::Renewed, "renewed", &self.renewed),
            (Fact::TrialStarted, "trialStarted", &self.trial_started),
            (Fact::TrialEnded, "trialEnded", &self.trial_ended),
        ]
    }
}

impl Rules {
    /// Reads the settings.
    pub(crate) fn parse(json: &str) -> Result<Self, Vec<Problem>> {
        let mut form = Form::parse(json)?;
        let rules = Self {
            grace: form.take("grace").unwrap_or_else(|| Duration::constant("P30D")),
            trial_label: form.take("trialLabel").unwrap_or_else(|| "trial".to_owned()),
            requires: form.take("requires").unwrap_or_default(),
            early: form.take("early").unwrap_or_default(),
            recheck: form.take("recheck").unwrap_or_else(|| Duration::constant("P1D")),
            events: form.take("events").unwrap_or_default(),
        };
        if rules.grace.seconds() > MAX_GRACE_SECONDS {
            form.problem("/grace", "the grace is at most ten years (P3650D)");
        }
        if !(1..=MAX_RECHECK_SECONDS).contains(&rules.recheck.seconds()) {
            form.problem("/recheck", "write a time from one second (PT1S) to 30 days (P30D)");
        }
        if rules.trial_label.is_empty() {
            form.problem("/trialLabel", "the label needs a name");
        }
        let mut seen: Vec<&String> = Vec::new();
        for (_, field, names) in rules.events.table() {
            for (index, name) in names.iter().enumerate() {
                let place = || format!("/events/{field}/{index}");
                if !FAMILIES.iter().any(|family| name.len() > family.len() && name.starts_with(family)) {
                    let families = FAMILIES.map(|family| format!("{family}*")).join(", ");
                    form.problem(place(), format!("the plugin is only told of events that are called {families}"));
                } else if seen.contains(&name) {
                    form.problem(place(), "one name cannot stand for two facts");
                }
                seen.push(name);
            }
        }
        form.finish()?;
        Ok(rules)
    }

    /// The fact that an event of this name tells.
    pub(crate) fn fact(&self, event: &str) -> Option<Fact> {
        let table = self.events.table();
        table.iter().find(|(.., names)| names.iter().any(|name| name == event)).map(|(fact, ..)| *fact)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn fields(json: &str) -> Vec<String> {
        Rules::parse(json).expect_err("wrong settings").into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn without_settings_a_session_goes_thirty_days_after_the_cancellation() {
        let rules = Rules::parse("{}").expect("no settings");
        assert_eq!((rules.grace.seconds(), rules.recheck.seconds()), (30 * 86_400, 86_400));
        assert_eq!((rules.requires, rules.early), (Requires::Disconnected, Early::Deny));
        assert_eq!(rules.trial_label, "trial");
        assert_eq!(rules.fact("subscription.cancelled"), Some(Fact::Cancelled));
        assert_eq!(rules.fact("subscription.renewed"), Some(Fact::Renewed));
        assert_eq!(rules.fact("trial.started"), Some(Fact::TrialStarted));
        assert_eq!(rules.fact("trial.ended"), Some(Fact::TrialEnded));
        assert_eq!(rules.fact("subscription.paused"), None);
    }

    #[test]
    fn facts_can_have_other_names() {
        let json = r#"{"events": {"cancelled": ["customer.subscription.deleted", "subscription.unpaid"]}}"#;
        let rules = Rules::parse(json).expect("other names");
        assert_eq!(rules.fact("customer.subscription.deleted"), Some(Fact::Cancelled));
        assert_eq!(rules.fact("subscription.unpaid"), Some(Fact::Cancelled));
        assert_eq!(rules.fact("subscription.cancelled"), None);
        assert_eq!(rules.fact("subscription.renewed"), Some(Fact::Renewed));
    }

    #[test]
    fn problems_name_their_fields() {
        assert_eq!(fields(r#"{"grace": "P1M"}"#), ["/grace"]);
        assert_eq!(
            fields(r#"{"grace": "P3651D", "recheck": "PT0S", "trialLabel": ""}"#),
            ["/grace", "/recheck", "/trialLabel"]
        );
        assert_eq!(fields(r#"{"requires": "asleep", "early": "later"}"#), ["/requires", "/early"]);
        assert_eq!(fields(r#"{"events": {"cancelled": ["session.status"]}}"#), ["/events/cancelled/0"]);
        assert_eq!(
            fields(r#"{"events": {"renewed": ["trial.", "trial.ended"]}}"#),
            ["/events/renewed/0", "/events/trialEnded/0"]
        );
        assert_eq!(fields(r#"{"events": {"paused": []}}"#), ["/events"]);
        assert_eq!(fields(r#"{"days": 30}"#), ["/days"]);
    }
}
