//! The settings of the plugin, read and checked.

use jiff::fmt::temporal::SpanParser;
use portcullis_sdk::{Form, Problem};

/// Until when a deleted session can be restored, unless the settings say otherwise.
const DEFAULT_GRACE: &str = "PT72H";

/// The label that vetoes a deletion, unless the settings say otherwise.
const DEFAULT_LEGAL_HOLD_LABEL: &str = "legal-hold";

/// The longest grace period, 365 days.
const MAX_SECONDS: u64 = 365 * 24 * 60 * 60;

/// What the settings say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The grace period as it was written, for people.
    pub(crate) grace: String,
    /// The grace period.
    pub(crate) grace_millis: u64,
    /// The label that vetoes a deletion.
    pub(crate) legal_hold_label: String,
}

impl Rules {
    /// Reads the settings.
    pub(crate) fn parse(json: &str) -> Result<Self, Vec<Problem>> {
        let mut form = Form::parse(json)?;
        let grace = form.take::<String>("grace").unwrap_or_else(|| DEFAULT_GRACE.to_owned());
        let label = form.take::<String>("legalHoldLabel").unwrap_or_else(|| DEFAULT_LEGAL_HOLD_LABEL.to_owned());
        let seconds = seconds(&grace).unwrap_or_else(|message| {
            form.problem("/grace", message);
            0
        });
        if label.is_empty() {
            form.problem("/legalHoldLabel", "the label needs a name");
        }
        form.finish()?;
        Ok(Self { grace, grace_millis: seconds * 1000, legal_hold_label: label })
    }
}

/// Reads an ISO 8601 duration. A day is 24 hours; months and years have no fixed length and are refused.
fn seconds(text: &str) -> Result<u64, &'static str> {
    const TOO_LONG: &str = "the grace period is at most 365 days (P365D)";

    let span = SpanParser::new().parse_span(text).map_err(|_| "write an ISO 8601 duration such as PT72H or P3D")?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err("months and years differ in length: write weeks, days, hours, minutes and seconds");
    }
    if span.get_milliseconds() != 0 || span.get_microseconds() != 0 || span.get_nanoseconds() != 0 {
        return Err("the grace period is a whole number of seconds");
    }
    let units = [
        (i64::from(span.get_weeks()), 7 * 24 * 60 * 60),
        (i64::from(span.get_days()), 24 * 60 * 60),
        (i64::from(span.get_hours()), 60 * 60),
        (span.get_minutes(), 60),
        (span.get_seconds(), 1),
    ];
    let total = units
        .into_iter()
        .try_fold(0_i64, |total, (count, seconds)| total.checked_add(count.checked_mul(seconds)?))
        .ok_or(TOO_LONG)?;
    match u64::try_from(total) {
        Ok(0) | Err(_) => Err("the grace period is at least one second (PT1S)"),
        Ok(seconds @ 1..=MAX_SECONDS) => Ok(seconds),
        Ok(_) => Err(TOO_LONG),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn fields(json: &str) -> Vec<String> {
        Rules::parse(json).expect_err("wrong settings").into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn durations_are_read_down_to_seconds() {
        for (text, expected) in [
            ("PT72H", 72 * 3600),
            ("P3D", 72 * 3600),
            ("P1W", 7 * 86_400),
            ("PT90S", 90),
            ("PT1S", 1),
            ("P1DT2H3M4S", 86_400 + 2 * 3600 + 3 * 60 + 4),
            ("P365D", MAX_SECONDS),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn durations_that_are_no_grace_are_refused() {
        for text in [
            "PT0S",
            "-PT5S",
            "PT0.5S",
            "PT1.5S",
            "P366D",
            "P365DT1S",
            "P1M",
            "P1Y",
            "72h",
            "3 days",
            "",
            "P",
            "PT",
            "PT9223372036854775807S",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn without_settings_the_grace_is_three_days() {
        let rules = Rules::parse("{}").expect("no settings");
        assert_eq!((rules.grace_millis, rules.legal_hold_label.as_str()), (72 * 3600 * 1000, "legal-hold"));
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
