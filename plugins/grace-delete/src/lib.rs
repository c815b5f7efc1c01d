//! A delete becomes a deletion after a grace period, and a label vetoes it.
//!
//! ```text
//! session.delete ── the session has the legal-hold label ──▶ deny `legal_hold`     in every phase
//!                ── requested ──────────────────────────▶ defer until now + grace
//!                ── due ────────────────────────────────▶ allow
//! ```
//!
//! The host asks again when the grace period is over, so a hold that is set in the meantime still stops the deletion.
//! Until then the session can be restored.

mod rules;

use portcullis_sdk::{Context, Decision, Describe, Description, Gate, Operation, Problem, Settings};
use rules::Rules;

/// The plugin.
pub struct GraceDelete;

portcullis_sdk::export!(GraceDelete: describe, settings, gate);

impl Describe for GraceDelete {
    fn describe() -> Description {
        Description::new("grace-delete", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .hook("session.delete")
            .settings_schema(include_str!("settings.schema.json"))
    }
}

impl Settings for GraceDelete {
    fn validate(json: &str) -> Result<(), Vec<Problem>> {
        Rules::parse(json).map(|_| ())
    }
}

impl Gate for GraceDelete {
    fn before(context: &Context, operation: &Operation) -> Decision {
        if !operation.is("session.delete") {
            return Decision::Allow;
        }
        // The host has validated the settings; if it could not, a session that stays is the smaller harm.
        let Ok(rules) = Rules::parse(&context.settings) else {
            return Decision::deny("invalid_settings", "the settings of grace-delete are not valid");
        };
        // "false" is how a hold is lifted by those who can set labels but not remove them.
        if context.session_label(&rules.legal_hold_label).is_some_and(|value| value != "false") {
            return Decision::deny(
                "legal_hold",
                format!("the label {} keeps this session from being deleted", rules.legal_hold_label),
            );
        }
        if context.is_due() {
            return Decision::Allow;
        }
        Decision::defer(
            context.after(rules.grace.millis()),
            format!("the session can be restored for {} before it is deleted", rules.grace),
        )
    }
}

#[cfg(test)]
mod test {
    use portcullis_sdk::{Phase, sample};

    use super::*;

    const SETTINGS: &str = r#"{"grace": "PT72H"}"#;

    fn decide(context: &Context) -> Decision {
        GraceDelete::before(context, &sample::operation("session.delete"))
    }

    fn code(decision: Decision) -> String {
        match decision {
            Decision::Deny(denial) => denial.code,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_requested_delete_is_deferred_by_the_grace() {
        let decision = decide(&sample::context().with_settings(SETTINGS));
        let until = sample::NOW + 3 * sample::DAY;
        assert_eq!(decision, Decision::defer(until, "the session can be restored for PT72H before it is deleted"));
    }

    #[test]
    fn a_delete_that_is_due_goes_on() {
        let context = sample::context().with_settings(SETTINGS).with_phase(Phase::Due(sample::NOW - 3 * sample::DAY));
        assert_eq!(decide(&context), Decision::Allow);
    }

    #[test]
    fn a_legal_hold_vetoes_in_every_phase() {
        for phase in [Phase::Requested, Phase::Due(sample::NOW)] {
            for value in ["", "yes", "case 7"] {
                let context = sample::context().with_settings(SETTINGS).with_phase(phase);
                assert_eq!(code(decide(&context.with_label("legal-hold", value))), "legal_hold");
            }
        }
    }

    #[test]
    fn a_hold_that_is_false_is_none() {
        let context = sample::context().with_phase(Phase::Due(sample::NOW)).with_label("legal-hold", "false");
        assert_eq!(decide(&context), Decision::Allow);
    }

    #[test]
    fn the_label_of_the_hold_can_be_named() {
        let context = sample::context()
            .with_settings(r#"{"grace": "PT1H", "legalHoldLabel": "court"}"#)
            .with_phase(Phase::Due(sample::NOW));
        assert_eq!(decide(&context.clone().with_label("legal-hold", "yes")), Decision::Allow);
        assert_eq!(code(decide(&context.with_label("court", "yes"))), "legal_hold");
    }

    #[test]
    fn other_operations_are_none_of_its_business() {
        assert_eq!(GraceDelete::before(&sample::context(), &sample::operation("session.stop")), Decision::Allow);
    }

    #[test]
    fn settings_that_nobody_validated_delete_nothing() {
        assert_eq!(code(decide(&sample::context().with_settings(r#"{"grace": 3}"#))), "invalid_settings");
    }

    #[test]
    fn the_description_carries_a_schema_that_is_json() {
        let description = GraceDelete::describe();
        assert_eq!(description.name, "grace-delete");
        assert_eq!(description.hooks, ["session.delete"]);
        let schema = description.settings_schema.expect("a schema");
        assert!(serde_json::from_str::<serde_json::Value>(&schema).is_ok());
    }
}
