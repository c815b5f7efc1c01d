//! Named rate policies: which are free, which need a plan, and what they come to for a session.
//!
//! ```text
//! strict ── standard_policy ── high_throughput ── unlimited         each rung allows more than the one before
//! ```
//!
//! The gate answers a choice of policy: a slug that is not on the ladder and a rung that the plan does not pay for are denied.
//! The pace answers what holds now, which may be less than what was chosen: a plan lapses, WhatsApp limits the account,
//! a young session warms up. After a limit the session stays on the lowest rung for a while, also once WhatsApp has lifted it.

mod ladder;
mod rules;

use portcullis_sdk::{
    Context, Decision, Describe, Description, Detail, Event, FollowUp, Gate, HostError, Observer, Operation, Org, Pace,
    Pacing, Patch, Problem, SessionCreatePatch, Settings, Timestamp, Usage, kv, log,
};
use rules::Rules;

/// The plugin.
pub struct RateLadder;

portcullis_sdk::export!(RateLadder: describe, settings, gate, observer, pace);

/// How long limits hold that nothing in the context changes, in milliseconds.
const HOLD: u64 = 60 * 60 * 1000;

/// WhatsApp limits a session's account.
const LIMITED: &str = "session.limited";

impl Describe for RateLadder {
    fn describe() -> Description {
        Description::new("rate-ladder", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .hook("session.create")
            .hook("session.rate-policy")
            .event(LIMITED)
            .want(
                "kv",
                "to remember when WhatsApp limited a session's account, and hold it to strict for a while after",
            )
            .settings_schema(include_str!("settings.schema.json"))
    }
}

impl Settings for RateLadder {
    fn validate(json: &str) -> Result<(), Vec<Problem>> {
        Rules::parse(json).map(|_| ())
    }
}

impl Gate for RateLadder {
    fn before(context: &Context, operation: &Operation) -> Decision {
        let slug = match &operation.detail {
            Detail::SessionRatePolicy(slug) => slug,
            Detail::SessionCreate(creation) => match &creation.rate_policy {
                Some(slug) => slug,
                // The host's own choice is not the caller's, and the pace holds it to the plan.
                None => return Decision::Allow,
            },
            _ => return Decision::Allow,
        };
        let Ok(rules) = Rules::parse(&context.settings) else {
            return Decision::deny("invalid_settings", "the settings of rate-ladder are not valid");
        };
        let Some(rung) = ladder::rung(slug) else {
            return Decision::deny(
                "unknown_rate_policy",
                format!("there is no rate policy {slug}; there are {}", ladder::SLUGS.join(", ")),
            );
        };
        if !may_use(&rules, &context.org, rung) {
            return Decision::deny(
                "subscription_required",
                format!("the rate policy {} needs an active plan", ladder::SLUGS[rung]),
            );
        }
        if slug == ladder::SLUGS[rung] {
            return Decision::Allow;
        }
        // An alias is stored under its stable name.
        let slug = ladder::SLUGS[rung].to_owned();
        Decision::Amend(match &operation.detail {
            Detail::SessionCreate(_) => {
                Patch::SessionCreate(SessionCreatePatch { rate_policy: Some(slug), ..SessionCreatePatch::unchanged() })
            }
            _ => Patch::SessionRatePolicy(slug),
        })
    }
}

impl Observer for RateLadder {
    fn on_event(context: &Context, event: &Event) -> Vec<FollowUp> {
        let (Some(session), Ok(rules)) = (&event.session, Rules::parse(&context.settings)) else { return Vec::new() };
        let until = event.at.saturating_add(rules.after_limit.millis());
        // An event that is told late, or again, holds the session no longer than the first time.
        if event.name == LIMITED
            && until > context.now
            && let Err(error) = remember(session, until)
        {
            log::warn(&format!("the limit of an account could not be remembered: {error:?}"));
        }
        Vec::new()
    }
}

impl Pace for RateLadder {
    fn limits(context: &Context, _usage: &Usage) -> Option<Pacing> {
        let session = context.session.as_ref()?;
        let rules = Rules::parse(&context.settings).ok()?;
        // Without the grant nothing is remembered, and the rest of the ladder works as well.
        let held_until = held_until(&session.id).unwrap_or_default();
        pacing(context, &rules, held_until)
    }
}

/// Until when a session is held to the lowest rung, if a limit of its account is remembered.
fn held_until(session: &str) -> Result<Option<Timestamp>, HostError> {
    let entry = kv::get(&held_key(session))?;
    Ok(entry.and_then(|entry| String::from_utf8(entry.value).ok()?.parse().ok()))
}

/// Remembers until when a session is held to the lowest rung; a later end that is remembered already stays.
fn remember(session: &str, until: Timestamp) -> Result<(), HostError> {
    if held_until(session)?.is_some_and(|known| known >= until) {
        return Ok(());
    }
    kv::set(&held_key(session), until.to_string().as_bytes(), Some(until))
}

fn held_key(session: &str) -> String {
    format!("session:{session}:held-until")
}

/// The limits that hold for the context's session, on the ladder that the settings give.
fn pacing(context: &Context, rules: &Rules, held_until: Option<Timestamp>) -> Option<Pacing> {
    let session = context.session.as_ref()?;
    let chosen = ladder::rung(&session.rate_policy)?;

    // A plan that lapsed leaves the highest free rung that is not above the chosen one.
    let rung = (0..=chosen).rev().find(|rung| may_use(rules, &context.org, *rung)).unwrap_or(ladder::STRICT);
    let mut limits = rules.limits[rung];
    let mut valid_until = context.after(HOLD);
    let held_until = held_until.filter(|until| *until > context.now);
    if session.account_limit.is_some() || held_until.is_some() {
        limits = ladder::tighter(limits, rules.limits[ladder::STRICT]);
        valid_until = held_until.map_or(valid_until, |until| valid_until.min(until));
    }
    if let Some(step) = rules.warm_up_at(session.age(context.now)) {
        limits.send_message_daily_cap = ladder::lower(limits.send_message_daily_cap, step.daily_cap);
        valid_until = valid_until.min(session.created_at.saturating_add(step.until_age));
    }
    Some(Pacing { limits, valid_until })
}

/// Whether the organisation may use a rung.
fn may_use(rules: &Rules, org: &Org, rung: usize) -> bool {
    org.plan_active || rules.free[rung]
}

#[cfg(test)]
mod test {
    use portcullis_sdk::{RateLimits, sample};

    use super::*;

    fn lapsed(mut context: Context) -> Context {
        context.org.plan_active = false;
        context
    }

    fn on(slug: &str, mut context: Context) -> Context {
        if let Some(session) = &mut context.session {
            slug.clone_into(&mut session.rate_policy);
        }
        context
    }

    fn code(context: &Context, operation: &Operation) -> String {
        match RateLadder::before(context, operation) {
            Decision::Deny(denial) => denial.code,
            other => format!("{other:?}"),
        }
    }

    fn pace(context: &Context) -> Pacing {
        RateLadder::limits(context, &sample::usage()).expect("a session on the ladder")
    }

    fn per_minute(context: &Context) -> u32 {
        pace(context).limits.send_message_per_minute
    }

    #[test]
    fn every_rung_is_open_with_a_plan() {
        for slug in ladder::SLUGS {
            assert_eq!(RateLadder::before(&sample::context(), &sample::rate_policy(slug)), Decision::Allow);
            assert_eq!(RateLadder::before(&sample::context(), &sample::creation(Some(slug))), Decision::Allow);
        }
    }

    #[test]
    fn only_free_rungs_are_open_without_a_plan() {
        let context = lapsed(sample::context());
        for slug in ["strict", "standard_policy"] {
            assert_eq!(RateLadder::before(&context, &sample::rate_policy(slug)), Decision::Allow);
        }
        for slug in ["high_throughput", "unlimited"] {
            assert_eq!(code(&context, &sample::rate_policy(slug)), "subscription_required");
            assert_eq!(code(&context, &sample::creation(Some(slug))), "subscription_required");
        }
    }

    #[test]
    fn which_rungs_are_free_is_a_setting() {
        let context = lapsed(sample::context()).with_settings(r#"{"free": ["strict"]}"#);
        assert_eq!(code(&context, &sample::rate_policy("standard_policy")), "subscription_required");
    }

    #[test]
    fn a_slug_that_is_not_on_the_ladder_is_denied() {
        assert_eq!(code(&sample::context(), &sample::rate_policy("turbo")), "unknown_rate_policy");
        assert_eq!(code(&sample::context(), &sample::creation(Some(""))), "unknown_rate_policy");
    }

    #[test]
    fn an_alias_is_amended_to_its_stable_name() {
        assert_eq!(
            RateLadder::before(&sample::context(), &sample::rate_policy("standard")),
            Decision::Amend(Patch::SessionRatePolicy("standard_policy".to_owned()))
        );
        assert_eq!(
            RateLadder::before(&sample::context(), &sample::creation(Some("standard"))),
            Decision::Amend(Patch::SessionCreate(SessionCreatePatch {
                rate_policy: Some("standard_policy".to_owned()),
                ..SessionCreatePatch::unchanged()
            }))
        );
    }

    #[test]
    fn a_creation_without_a_choice_and_other_operations_go_on() {
        assert_eq!(RateLadder::before(&sample::context(), &sample::creation(None)), Decision::Allow);
        assert_eq!(RateLadder::before(&sample::context(), &sample::operation("session.delete")), Decision::Allow);
    }

    #[test]
    fn limits_are_those_of_the_chosen_rung() {
        for (slug, expected) in
            [("strict", 5), ("standard_policy", 20), ("standard", 20), ("high_throughput", 60), ("unlimited", 0)]
        {
            assert_eq!(per_minute(&on(slug, sample::context())), expected, "{slug}");
        }
    }

    #[test]
    fn a_lapsed_plan_falls_back_to_a_free_rung() {
        assert_eq!(per_minute(&lapsed(on("unlimited", sample::context()))), 20);
        let only_strict = sample::context().with_settings(r#"{"free": ["strict"]}"#);
        assert_eq!(per_minute(&lapsed(on("unlimited", only_strict))), 5);
        let nothing_free = sample::context().with_settings(r#"{"free": []}"#);
        assert_eq!(per_minute(&lapsed(on("unlimited", nothing_free))), 5);
    }

    #[test]
    fn a_limited_account_is_held_to_strict() {
        let mut context = on("unlimited", sample::context());
        if let Some(session) = &mut context.session {
            session.account_limit = Some("463".to_owned());
        }
        assert_eq!(pace(&context).limits, ladder::BUILT_IN[ladder::STRICT]);
    }

    #[test]
    fn after_a_limit_the_session_is_held_to_strict_for_a_while() {
        let context = on("unlimited", sample::context());
        let held = |until| pacing(&context, &Rules::parse("{}").expect("no settings"), until).expect("on the ladder");
        let minute = 60 * 1000;
        let expected = Pacing { limits: ladder::BUILT_IN[ladder::STRICT], valid_until: sample::NOW + minute };
        assert_eq!(held(Some(sample::NOW + minute)), expected);
        // Long holds are looked at again when everything else is.
        assert_eq!(held(Some(sample::NOW + sample::DAY)).valid_until, sample::NOW + HOLD);
        for over in [None, Some(sample::NOW), Some(0)] {
            assert_eq!(held(over).limits.send_message_per_minute, 0, "{over:?}");
        }
    }

    #[test]
    fn a_limit_is_heard_of_and_follows_nothing_by_itself() {
        let event = sample::event(LIMITED, Some("sess_sample"), r#"{"code": "463"}"#);
        assert_eq!(RateLadder::on_event(&sample::context(), &event), []);
        assert_eq!(RateLadder::describe().events, [LIMITED]);
    }

    #[test]
    fn an_override_changes_only_what_it_names() {
        let context =
            on("strict", sample::context()).with_settings(r#"{"limits": {"strict": {"concurrentLimit": 4}}}"#);
        let expected = RateLimits { concurrent_limit: 4, ..ladder::BUILT_IN[ladder::STRICT] };
        assert_eq!(pace(&context).limits, expected);
    }

    #[test]
    fn a_young_session_warms_up() {
        let settings = r#"{"warmUp": [{"days": 7, "dailyCap": 50}, {"days": 30, "dailyCap": 400}]}"#;
        let aged = |age: u64| {
            let mut context = on("unlimited", sample::context()).with_settings(settings);
            if let Some(session) = &mut context.session {
                session.created_at = sample::NOW - age;
            }
            pace(&context)
        };
        let day = sample::DAY;
        assert_eq!(aged(0).limits.send_message_daily_cap, 50);
        assert_eq!(aged(7 * day).limits.send_message_daily_cap, 400);
        assert_eq!(aged(30 * day).limits.send_message_daily_cap, 0);
        // The limits hold until the session is old enough for the next step.
        assert_eq!(aged(7 * day - 1000).valid_until, sample::NOW + 1000);
        assert_eq!(aged(0).valid_until, sample::NOW + HOLD);
    }

    #[test]
    fn a_policy_that_is_not_on_the_ladder_is_left_to_the_host() {
        let usage = sample::usage();
        assert_eq!(RateLadder::limits(&on("house_rules", sample::context()), &usage), None);
    }

    #[test]
    fn the_description_carries_a_schema_that_is_json() {
        let description = RateLadder::describe();
        assert_eq!(description.hooks, ["session.create", "session.rate-policy"]);
        let schema = description.settings_schema.expect("a schema");
        assert!(serde_json::from_str::<serde_json::Value>(&schema).is_ok());
    }
}
