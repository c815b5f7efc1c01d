//! An organisation deletes so many sessions a minute and an hour, and no more.
//!
//! ```text
//! session.delete ── requested ──▶ limit: both windows have room, or the caller waits
//!                ── due ────────▶ allow
//! ```
//!
//! The plugin keeps no counter: it names one and its bounds, and the host checks and counts in the commit of the delete.
//! A deferred delete is counted when it is asked for. When it is due nobody is asking for anything new, so it is not counted again.

mod rules;

use portcullis_sdk::{Context, Decision, Describe, Description, Gate, Operation, Problem, Settings};
use rules::Rules;

/// The plugin.
pub struct DeleteQuota;

portcullis_sdk::export!(DeleteQuota: describe, settings, gate);

impl Describe for DeleteQuota {
    fn describe() -> Description {
        Description::new("delete-quota", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .hook("session.delete")
            .settings_schema(include_str!("settings.schema.json"))
    }
}

impl Settings for DeleteQuota {
    fn validate(json: &str) -> Result<(), Vec<Problem>> {
        Rules::parse(json).map(|_| ())
    }
}

impl Gate for DeleteQuota {
    fn before(context: &Context, operation: &Operation) -> Decision {
        if !operation.is("session.delete") || context.is_due() {
            return Decision::Allow;
        }
        // The host has validated the settings; if it could not, a session that stays is the smaller harm.
        match Rules::parse(&context.settings) {
            Ok(rules) => Decision::Limit(rules.limitation()),
            Err(_) => Decision::deny("invalid_settings", "the settings of delete-quota are not valid"),
        }
    }
}

#[cfg(test)]
mod test {
    use portcullis_sdk::{Phase, sample};

    use super::*;

    fn decide(context: &Context) -> Decision {
        DeleteQuota::before(context, &sample::operation("session.delete"))
    }

    /// The maxima of the limits, in the order in which they are given.
    fn check_maxima(settings: &str, expected: &[u64]) {
        let Decision::Limit(limitation) = decide(&sample::context().with_settings(settings)) else {
            panic!("{settings} does not limit")
        };
        assert_eq!(limitation.limits.iter().map(|limit| limit.max).collect::<Vec<_>>(), expected, "{settings}");
    }

    #[test]
    fn a_requested_delete_is_limited_by_the_settings() {
        check_maxima("", &[10, 100]);
        check_maxima(r#"{"perMinute": 2}"#, &[2, 100]);
        check_maxima(r#"{"perMinute": 2, "perHour": 5}"#, &[2, 5]);
    }

    #[test]
    fn a_delete_that_is_due_is_not_counted_again() {
        let context = sample::context().with_phase(Phase::Due(sample::NOW - sample::DAY));
        assert_eq!(decide(&context), Decision::Allow);
    }

    #[test]
    fn other_operations_are_none_of_its_business() {
        for name in ["session.stop", "session.restore", "session.logout"] {
            assert_eq!(DeleteQuota::before(&sample::context(), &sample::operation(name)), Decision::Allow, "{name}");
        }
    }

    #[test]
    fn settings_that_nobody_validated_delete_nothing() {
        let Decision::Deny(denial) = decide(&sample::context().with_settings(r#"{"perMinute": 0}"#)) else {
            panic!("not denied")
        };
        assert_eq!(denial.code, "invalid_settings");
    }

    #[test]
    fn the_description_carries_a_schema_with_the_defaults() {
        let description = DeleteQuota::describe();
        assert_eq!(description.name, "delete-quota");
        assert_eq!(description.hooks, ["session.delete"]);
        let schema = description.settings_schema.expect("a schema");
        let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
        let default = |name: &str| schema["properties"][name]["default"].as_u64();
        assert_eq!((default("perMinute"), default("perHour")), (Some(10), Some(100)));
    }
}
