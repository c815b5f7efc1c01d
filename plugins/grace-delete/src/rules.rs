//! The settings of the plugin, read and checked.

use portcullis_sdk::{Duration, Form, Problem};

/// Until when a deleted session can be restored, unless the settings say otherwise.
const DEFAULT_GRACE: &str = "PT72H";

/// The label that vetoes a deletion, unless the settings say otherwise.
const DEFAULT_LEGAL_HOLD_LABEL: &str = "legal-hold";

/// The longest grace period, 365 days.
const MAX_SECONDS: u64 = 365 * 24 * 60 * 60;

/// What the settings say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The grace period.
    pub(crate) grace: Duration,
    /// The label that vetoes a deletion.
    pub(crate) legal_hold_label: String,
}

impl Rules {
    /// Reads the settings.
    pub(crate) fn parse(json: &str) -> Result<Self, Vec<Problem>> {
        let mut form = Form::parse(json)?;
        let grace = form.take::<Duration>("grace").unwrap_or_else(|| Duration::constant(DEFAULT_GRACE));
        let legal_hold_label =
            form.take::<String>("legalHoldLabel").unwrap_or_else(|| DEFAULT_LEGAL_HOLD_LABEL.to_owned());
        if let Err(message) = check(&grace) {
            form.problem("/grace", message);
        }
        if legal_hold_label.is_empty() {
            form.problem("/legalHoldLabel", "the label needs a name");
        }
        form.finish()?;
        Ok(Self { grace, legal_hold_label })
    }
}

/// Whether a duration is a grace period.
fn check(grace: &Duration) -> Result<(), &'static str> {
    match grace.seconds() {
        0 => Err("the grace period is at least one second (PT1S)"),
        1..=MAX_SECONDS => Ok(()),
        _ => Err("the grace period is at most 365 days (P365D)"),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn fields(json: &str) -> Vec<String> {
        Rules::parse(json).expect_err("wrong settings").into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn a_grace_is_from_one_second_to_a_year() {
        for grace in ["PT1S", "PT72H", "P365D"] {
            assert!(Rules::parse(&format!(r#"{{"grace": "{grace}"}}"#)).is_ok(), "{grace}");
        }
        for grace in ["PT0S", "P366D", "P365DT1S", "P1M", "3 days", ""] {
            assert_eq!(fields(&format!(r#"{{"grace": "{grace}"}}"#)), ["/grace"], "{grace}");
        }
    }

    #[test]
    fn without_settings_the_grace_is_three_days() {
        let rules = Rules::parse("{}").expect("no settings");
        assert_eq!((rules.grace.millis(), rules.legal_hold_label.as_str()), (72 * 3600 * 1000, "legal-hold"));
    }

    #[test]
    fn problems_name_their_fields() {
        assert_eq!(fields(r#"{"grace": "PT0S"}"#), ["/grace"]);
        assert_eq!(fields(r#"{"grace": 3}"#), ["/grace"]);
        assert_eq!(
            fields(r#"{"grace": "x", "legalHoldLabel": "", "grase": "PT1H"}"#),
            ["/grace", "/legalHoldLabel", "/grase"]
        );
        assert_eq!(fields("[]"), [""]);
    }
}
