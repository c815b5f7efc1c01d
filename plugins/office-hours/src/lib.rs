//! Deletes and logouts happen within office hours. A small plugin to copy from: it denies with a time to come back, and it defers.
//!
//! ```text
//! within the hours ───────────────────────────▶ allow
//! outside ── a delete, and settings say defer ─▶ defer until the next opening
//!         ── a delete that is due now ─────────▶ defer until the next opening: it was asked for before
//!         ── otherwise ────────────────────────▶ deny `outside_office_hours`, with the seconds until the next opening
//! ```

mod hours;
mod rules;

use hours::Hours;
use portcullis_sdk::{Context, Decision, Describe, Description, Gate, Operation, Problem, Settings};
use rules::{OPERATIONS, Rules};

/// The plugin.
pub struct OfficeHours;

portcullis_sdk::export!(OfficeHours: describe, settings, gate);

impl Describe for OfficeHours {
    fn describe() -> Description {
        let description = Description::new("office-hours", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .settings_schema(include_str!("settings.schema.json"));
        OPERATIONS.into_iter().fold(description, Description::hook)
    }
}

impl Settings for OfficeHours {
    fn validate(json: &str) -> Result<(), Vec<Problem>> {
        Rules::parse(json).map(|_| ())
    }
}

impl Gate for OfficeHours {
    fn before(context: &Context, operation: &Operation) -> Decision {
        let Ok(rules) = Rules::parse(&context.settings) else {
            return Decision::deny("invalid_settings", "the settings of office-hours are not valid");
        };
        if !rules.operations.contains(&operation.name) {
            return Decision::Allow;
        }
        let Some(opening) = rules.hours.next_opening(context.now) else { return Decision::Allow };
        if operation.is("session.delete") && (rules.defer_deletes || context.is_due()) {
            return Decision::defer(opening, format!("sessions are deleted {}", rules.hours));
        }
        let seconds = opening.saturating_sub(context.now).div_ceil(1000);
        Decision::deny_with_retry("outside_office_hours", format!("this is possible {}", rules.hours), seconds)
    }
}

#[cfg(test)]
mod test {
    use portcullis_sdk::{Phase, sample};

    use super::*;

    const HOUR: u64 = 60 * 60 * 1000;
    /// The samples' clock stands at midnight at the beginning of a Thursday, UTC.
    const THURSDAY: u64 = sample::NOW;

    fn decide(settings: &str, now: u64, operation: &str) -> Decision {
        let mut context = sample::context().with_settings(settings);
        context.now = now;
        OfficeHours::before(&context, &sample::operation(operation))
    }

    #[test]
    fn within_the_hours_everything_goes_on() {
        for operation in ["session.delete", "session.logout"] {
            for time in [9 * HOUR, 12 * HOUR, 17 * HOUR - 1] {
                assert_eq!(decide("{}", THURSDAY + time, operation), Decision::Allow, "{operation} at {time}");
            }
        }
    }

    #[test]
    fn outside_it_is_denied_with_the_time_to_come_back() {
        let message = "this is possible mon to fri from 09:00 to 17:00 (UTC+00:00)";
        let denied = |seconds| Decision::deny_with_retry("outside_office_hours", message, seconds);
        assert_eq!(decide("{}", THURSDAY + 8 * HOUR + 1, "session.delete"), denied(3600));
        assert_eq!(decide("{}", THURSDAY + 17 * HOUR, "session.logout"), denied(16 * 3600));
        // From Friday evening to Monday morning.
        assert_eq!(decide("{}", THURSDAY + 41 * HOUR, "session.logout"), denied(64 * 3600));
    }

    #[test]
    fn a_delete_can_wait_for_the_next_opening() {
        let settings = r#"{"deletes": "defer"}"#;
        let reason = "sessions are deleted mon to fri from 09:00 to 17:00 (UTC+00:00)";
        assert_eq!(decide(settings, THURSDAY, "session.delete"), Decision::defer(THURSDAY + 9 * HOUR, reason));
        assert!(matches!(decide(settings, THURSDAY, "session.logout"), Decision::Deny(_)), "only a delete can wait");
    }

    #[test]
    fn a_delete_that_is_due_outside_waits_whatever_the_settings_say() {
        let mut context = sample::context().with_phase(Phase::Due(THURSDAY - 72 * HOUR));
        let delete = sample::operation("session.delete");
        let Decision::Defer(deferral) = OfficeHours::before(&context, &delete) else { panic!("not deferred") };
        assert_eq!(deferral.until, THURSDAY + 9 * HOUR);
        context.now = deferral.until;
        assert_eq!(OfficeHours::before(&context, &delete), Decision::Allow);
    }

    #[test]
    fn which_operations_are_bound_to_the_hours_is_a_setting() {
        let settings = r#"{"operations": ["session.stop"]}"#;
        assert!(matches!(decide(settings, THURSDAY, "session.stop"), Decision::Deny(_)));
        assert_eq!(decide(settings, THURSDAY, "session.delete"), Decision::Allow);
        assert_eq!(decide("{}", THURSDAY, "session.stop"), Decision::Allow);
    }

    #[test]
    fn the_description_names_all_that_settings_can_choose() {
        let description = OfficeHours::describe();
        assert_eq!(description.hooks, OPERATIONS);
        let schema = description.settings_schema.expect("a schema");
        let schema = serde_json::from_str::<serde_json::Value>(&schema).expect("a JSON document");
        assert_eq!(schema["properties"]["operations"]["items"]["enum"], serde_json::json!(OPERATIONS));
    }
}
