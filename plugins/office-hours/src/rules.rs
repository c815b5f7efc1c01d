//! The settings of the plugin, read and checked.

use portcullis_sdk::{Form, Problem};

use crate::Hours;

/// What can be bound to the hours.
pub(crate) const OPERATIONS: [&str; 6] =
    ["session.delete", "session.logout", "session.stop", "session.restart", "session.start", "session.create"];

/// What is, unless the settings say otherwise.
const DEFAULT_OPERATIONS: [&str; 2] = ["session.delete", "session.logout"];

/// What the settings say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// What is bound to the hours.
    pub(crate) operations: Vec<String>,
    /// When the office is open.
    pub(crate) hours: Hours,
    /// Whether a delete outside of the hours waits for the next opening.
    pub(crate) defer_deletes: bool,
}

impl Rules {
    /// Reads the settings.
    pub(crate) fn parse(json: &str) -> Result<Self, Vec<Problem>> {
        let mut form = Form::parse(json)?;
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let operations: Vec<String> = form.take("operations").unwrap_or_else(|| owned(&DEFAULT_OPERATIONS));
        let days: Vec<String> = form.take("days").unwrap_or_else(|| owned(&["mon", "tue", "wed", "thu", "fri"]));
        let [from, to, offset, deletes] =
            [("from", "09:00"), ("to", "17:00"), ("utcOffset", "+00:00"), ("deletes", "deny")]
                .map(|(field, usual)| form.take::<String>(field).unwrap_or_else(|| usual.to_owned()));
        for (index, operation) in operations.iter().enumerate() {
            if !OPERATIONS.contains(&operation.as_str()) {
                form.problem(format!("/operations/{index}"), format!("write one of {}", OPERATIONS.join(", ")));
            }
        }
        if !["deny", "defer"].contains(&deletes.as_str()) {
            form.problem("/deletes", "write deny or defer");
        }
        let hours = Hours::new(&days, &from, &to, &offset);
        for (field, message) in hours.as_ref().err().into_iter().flatten() {
            form.problem(field, message);
        }
        form.finish()?;
        let hours = hours.expect("a form without problems has hours");
        Ok(Self { operations, hours, defer_deletes: deletes == "defer" })
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn fields(json: &str) -> Vec<String> {
        Rules::parse(json).expect_err("wrong settings").into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn without_settings_deletes_and_logouts_wait_for_the_week() {
        let rules = Rules::parse("{}").expect("no settings");
        assert_eq!(rules.operations, DEFAULT_OPERATIONS);
        assert_eq!(rules.hours.to_string(), "mon to fri from 09:00 to 17:00 (UTC+00:00)");
        assert!(!rules.defer_deletes);
    }

    #[test]
    fn problems_name_their_fields() {
        assert_eq!(fields(r#"{"operations": ["session.delete", "message.send"]}"#), ["/operations/1"]);
        assert_eq!(fields(r#"{"deletes": "wait", "from": "nine"}"#), ["/deletes", "/from"]);
        assert_eq!(fields(r#"{"days": "mon"}"#), ["/days"]);
        assert_eq!(fields(r#"{"hours": "09:00-17:00"}"#), ["/hours"]);
    }
}
