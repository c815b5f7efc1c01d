//! The settings of the plugin, read and checked.

use std::collections::BTreeMap;

use portcullis_sdk::{Duration, Form, Problem, RateLimits};
use serde::Deserialize;

use crate::ladder;

/// One day in milliseconds.
const DAY: u64 = 24 * 60 * 60 * 1000;

/// The longest that a session is held to the lowest rung, 90 days.
const MAX_HOLD_SECONDS: u64 = 90 * 24 * 60 * 60;

/// What the settings say.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Which rungs need no plan.
    pub(crate) free: [bool; 4],
    /// The limits of the rungs.
    pub(crate) limits: [RateLimits; 4],
    /// How long a session is held to the lowest rung after WhatsApp has limited its account.
    pub(crate) after_limit: Duration,
    /// The steps of the warm-up, youngest first.
    warm_up: Vec<Step>,
}

/// A step of the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// The age, in milliseconds, at which a session leaves the step.
    pub(crate) until_age: u64,
    /// Sends in a UTC day until then.
    pub(crate) daily_cap: u32,
}

impl Rules {
    /// Reads the settings.
    pub(crate) fn parse(json: &str) -> Result<Self, Vec<Problem>> {
        let mut form = Form::parse(json)?;
        let free = form.take::<Vec<String>>("free");
        let overrides = form.take::<BTreeMap<String, Override>>("limits").unwrap_or_default();
        let steps = form.take::<Vec<WarmUp>>("warmUp").unwrap_or_default();
        let after_limit = form.take::<Duration>("afterLimit").unwrap_or_else(|| Duration::constant("P1D"));
        if after_limit.seconds() > MAX_HOLD_SECONDS {
            form.problem("/afterLimit", "a session is held to strict for at most 90 days (P90D)");
        }

        let mut rules =
            Self { free: [true, true, false, false], limits: ladder::BUILT_IN, after_limit, warm_up: Vec::new() };
        if let Some(slugs) = free {
            rules.free = [false; 4];
            for (index, slug) in slugs.iter().enumerate() {
                match ladder::rung(slug) {
                    Some(rung) => rules.free[rung] = true,
                    None => form.problem(format!("/free/{index}"), unknown(slug)),
                }
            }
        }
        for (slug, changes) in &overrides {
            match ladder::rung(slug) {
                Some(rung) => changes.apply(&mut rules.limits[rung]),
                None => form.problem("/limits", unknown(slug)),
            }
        }
        for (index, step) in steps.iter().enumerate() {
            let until_age = u64::from(step.days) * DAY;
            if rules.warm_up.last().is_some_and(|before| before.until_age >= until_age) || step.days == 0 {
                form.problem(format!("/warmUp/{index}/days"), "days must grow from step to step, beginning above zero");
            }
            if step.daily_cap == 0 {
                form.problem(format!("/warmUp/{index}/dailyCap"), "a warm-up needs a cap above zero");
            }
            rules.warm_up.push(Step { until_age, daily_cap: step.daily_cap });
        }
        form.finish()?;
        Ok(rules)
    }

    /// The step of the warm-up that a session of this age, in milliseconds, is on.
    pub(crate) fn warm_up_at(&self, age: u64) -> Option<Step> {
        self.warm_up.iter().find(|step| age < step.until_age).copied()
    }
}

/// Limits of a rung that differ from the built-in ones.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Override {
    send_message_per_minute: Option<u32>,
    send_message_daily_cap: Option<u32>,
    account_protection_seconds: Option<u32>,
    concurrent_limit: Option<u32>,
    group_req_per_minute: Option<u32>,
    group_daily_cap: Option<u32>,
    check_req_per_minute: Option<u32>,
    check_daily_cap: Option<u32>,
}

impl Override {
    fn apply(&self, limits: &mut RateLimits) {
        for (change, limit) in [
            (self.send_message_per_minute, &mut limits.send_message_per_minute),
            (self.send_message_daily_cap, &mut limits.send_message_daily_cap),
            (self.account_protection_seconds, &mut limits.account_protection_seconds),
            (self.concurrent_limit, &mut limits.concurrent_limit),
            (self.group_req_per_minute, &mut limits.group_req_per_minute),
            (self.group_daily_cap, &mut limits.group_daily_cap),
            (self.check_req_per_minute, &mut limits.check_req_per_minute),
            (self.check_daily_cap, &mut limits.check_daily_cap),
        ] {
            *limit = change.unwrap_or(*limit);
        }
    }
}

/// A step of the warm-up as it is written: until the session is so many days old, so many sends a day.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WarmUp {
    days: u32,
    daily_cap: u32,
}

fn unknown(slug: &str) -> String {
    format!("there is no rate policy {slug}; there are {}", ladder::SLUGS.join(", "))
}

#[cfg(test)]
mod test {
    use super::*;

    fn fields(json: &str) -> Vec<String> {
        Rules::parse(json).expect_err("wrong settings").into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn without_settings_the_lower_half_is_free() {
        let rules = Rules::parse("{}").expect("no settings");
        assert_eq!(rules.free, [true, true, false, false]);
        assert_eq!(rules.limits, ladder::BUILT_IN);
        assert_eq!(rules.warm_up_at(0), None);
        assert_eq!(rules.after_limit.seconds(), 24 * 60 * 60);
    }

    #[test]
    fn an_alias_is_understood_in_settings_too() {
        let rules = Rules::parse(r#"{"free": ["standard"]}"#).expect("an alias");
        assert_eq!(rules.free, [false, true, false, false]);
    }

    #[test]
    fn problems_name_their_fields() {
        assert_eq!(fields(r#"{"free": ["strict", "turbo"]}"#), ["/free/1"]);
        assert_eq!(fields(r#"{"free": "strict"}"#), ["/free"]);
        assert_eq!(fields(r#"{"limits": {"turbo": {}}}"#), ["/limits"]);
        assert_eq!(fields(r#"{"limits": {"strict": {"concurrency": 1}}}"#), ["/limits"]);
        assert_eq!(
            fields(r#"{"warmUp": [{"days": 7, "dailyCap": 50}, {"days": 7, "dailyCap": 0}]}"#),
            ["/warmUp/1/days", "/warmUp/1/dailyCap"]
        );
        assert_eq!(fields(r#"{"warmup": []}"#), ["/warmup"]);
        for hold in ["P91D", "P1M", "a day"] {
            assert_eq!(fields(&format!(r#"{{"afterLimit": "{hold}"}}"#)), ["/afterLimit"], "{hold}");
        }
    }
}
