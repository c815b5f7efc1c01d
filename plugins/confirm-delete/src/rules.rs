//! The settings of the plugin, read and checked.

use portcullis_sdk::{Duration, Form, Problem};
use serde::Deserialize;

/// How long a question can be answered, unless the settings say otherwise.
const DEFAULT_EXPIRES: &str = "PT10M";

/// The longest that a question can be answered, one day.
const MAX_SECONDS: u64 = 24 * 60 * 60;

/// What the settings say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// What has to be typed.
    pub(crate) typed: Typed,
    /// The label that keeps a session out of it, if there is one.
    pub(crate) exempt_label: Option<String>,
    /// How long a question can be answered.
    pub(crate) expires: Duration,
}

/// What has to be typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Typed {
    /// The name that people know the session by.
    #[default]
    DisplayName,
    /// The name that it has within its organisation.
    InstanceName,
    /// Nothing: a yes is enough.
    Nothing,
}

impl Rules {
    /// Reads the settings.
    pub(crate) fn parse(json: &str) -> Result<Self, Vec<Problem>> {
        let mut form = Form::parse(json)?;
        let typed = form.take::<Typed>("type").unwrap_or_default();
        let exempt_label = form.take::<String>("exemptLabel");
        let expires = form.take::<Duration>("expires").unwrap_or_else(|| Duration::constant(DEFAULT_EXPIRES));
        if exempt_label.as_ref().is_some_and(String::is_empty) {
            form.problem("/exemptLabel", "the label needs a name");
        }
        if !(1..=MAX_SECONDS).contains(&expires.seconds()) {
            form.problem("/expires", "a question can be answered for one second (PT1S) to one day (P1D)");
        }
        form.finish()?;
        Ok(Self { typed, exempt_label, expires })
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn fields(json: &str) -> Vec<String> {
        Rules::parse(json).expect_err("wrong settings").into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn without_settings_the_display_name_is_typed_within_ten_minutes() {
        let expected =
            Rules { typed: Typed::DisplayName, exempt_label: None, expires: Duration::constant(DEFAULT_EXPIRES) };
        assert_eq!(Rules::parse("{}"), Ok(expected));
    }

    #[test]
    fn problems_name_their_fields() {
        assert_eq!(fields(r#"{"type": "jid"}"#), ["/type"]);
        assert_eq!(fields(r#"{"exemptLabel": ""}"#), ["/exemptLabel"]);
        for expires in ["PT0S", "P1DT1S", "P1M", "soon"] {
            assert_eq!(fields(&format!(r#"{{"expires": "{expires}"}}"#)), ["/expires"], "{expires}");
        }
        assert_eq!(fields(r#"{"expire": "PT1H"}"#), ["/expire"]);
    }
}
