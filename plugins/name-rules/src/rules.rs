//! The settings of the plugin, read and checked.

use std::collections::BTreeMap;

use portcullis_sdk::{Form, Problem};

use crate::NameRule;

/// What the settings say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// What display names must look like.
    pub(crate) display_name: NameRule,
    /// What instance names must look like.
    pub(crate) instance_name: NameRule,
    /// Whether display names are tidied.
    pub(crate) tidy: bool,
    /// The labels of every new session.
    pub(crate) labels: BTreeMap<String, String>,
}

impl Rules {
    /// Reads the settings.
    pub(crate) fn parse(json: &str) -> Result<Self, Vec<Problem>> {
        let mut form = Form::parse(json)?;
        let rules = Self {
            display_name: form.take("displayName").unwrap_or_default(),
            instance_name: form.take("instanceName").unwrap_or_default(),
            tidy: form.take("tidy").unwrap_or(true),
            labels: form.take("labels").unwrap_or_default(),
        };
        for (field, rule) in [("/displayName", &rules.display_name), ("/instanceName", &rules.instance_name)] {
            if rule.max_length.is_some_and(|most| most < rule.min_length.max(1)) {
                form.problem(format!("{field}/maxLength"), "no name is that short");
            }
        }
        if rules.labels.keys().any(String::is_empty) {
            form.problem("/labels", "a label needs a key");
        }
        form.finish()?;
        Ok(rules)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn fields(json: &str) -> Vec<String> {
        Rules::parse(json).expect_err("wrong settings").into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn without_settings_names_are_tidied_and_nothing_else() {
        let rules = Rules::parse("{}").expect("no settings");
        assert_eq!((rules.display_name, rules.instance_name), (NameRule::default(), NameRule::default()));
        assert!(rules.tidy && rules.labels.is_empty());
    }

    #[test]
    fn problems_name_their_fields() {
        assert_eq!(fields(r#"{"displayName": {"maxLength": 0}}"#), ["/displayName/maxLength"]);
        assert_eq!(fields(r#"{"instanceName": {"minLength": 5, "maxLength": 4}}"#), ["/instanceName/maxLength"]);
        assert_eq!(fields(r#"{"instanceName": {"characters": "z-a"}}"#), ["/instanceName"]);
        assert_eq!(fields(r#"{"displayName": {"pattern": ".*"}}"#), ["/displayName"]);
        assert_eq!(fields(r#"{"labels": {"": "x"}}"#), ["/labels"]);
        assert_eq!(fields(r#"{"labels": ["x"], "tidy": "yes"}"#), ["/tidy", "/labels"]);
    }
}
