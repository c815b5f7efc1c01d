//! Names of new sessions follow rules. A small plugin to copy from: it denies with advice, and it amends.
//!
//! ```text
//! session.create ── tidy the display name ── does a name break a rule? ── deny `display_name`, `instance_name`
//!                                         └─ is there anything to change? ── amend: the tidied name, the labels
//!                                                                         └─ allow
//! ```
//!
//! After an amendment the host asks again about what came of it: then there is nothing left to change, and the answer is `allow`.

mod name;
mod rules;

use name::NameRule;
use portcullis_sdk::{
    Context, Decision, Describe, Description, Detail, Gate, Label, Operation, Patch, Problem, SessionCreate,
    SessionCreatePatch, Settings,
};
use rules::Rules;

/// The plugin.
pub struct NameRules;

portcullis_sdk::export!(NameRules: describe, settings, gate);

impl Describe for NameRules {
    fn describe() -> Description {
        Description::new("name-rules", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .hook("session.create")
            .settings_schema(include_str!("settings.schema.json"))
    }
}

impl Settings for NameRules {
    fn validate(json: &str) -> Result<(), Vec<Problem>> {
        Rules::parse(json).map(|_| ())
    }
}

impl Gate for NameRules {
    fn before(context: &Context, operation: &Operation) -> Decision {
        let Detail::SessionCreate(creation) = &operation.detail else { return Decision::Allow };
        let Ok(rules) = Rules::parse(&context.settings) else {
            return Decision::deny("invalid_settings", "the settings of name-rules are not valid");
        };
        let display_name = creation.display_name.as_deref().map(|name| tidied(name, &rules));
        let names = [
            ("display_name", "display name", &rules.display_name, display_name.as_deref()),
            ("instance_name", "instance name", &rules.instance_name, creation.instance_name.as_deref()),
        ];
        for (code, what, rule, name) in names {
            if let Err(advice) = rule.check(name) {
                return Decision::deny(code, format!("the {what} {advice}"));
            }
        }
        let patch = SessionCreatePatch {
            display_name: display_name.filter(|tidied| creation.display_name.as_ref() != Some(tidied)),
            set_labels: missing_labels(creation, &rules),
            ..SessionCreatePatch::unchanged()
        };
        if patch == SessionCreatePatch::unchanged() {
            Decision::Allow
        } else {
            Decision::Amend(Patch::SessionCreate(patch))
        }
    }
}

/// A display name as it will be: no blanks around it, and one where there were many.
fn tidied(name: &str, rules: &Rules) -> String {
    if rules.tidy { name.split_whitespace().collect::<Vec<_>>().join(" ") } else { name.to_owned() }
}

/// The labels that the settings add and the creation does not have like that.
fn missing_labels(creation: &SessionCreate, rules: &Rules) -> Vec<Label> {
    let has = |label: &Label| creation.labels.contains(label);
    let labels = rules.labels.iter().map(|(key, value)| Label { key: key.clone(), value: value.clone() });
    labels.filter(|label| !has(label)).collect()
}

#[cfg(test)]
mod test {
    use portcullis_sdk::sample;

    use super::*;

    fn creation(display_name: Option<&str>, instance_name: Option<&str>) -> Operation {
        let mut operation = sample::creation(None);
        if let Detail::SessionCreate(creation) = &mut operation.detail {
            creation.display_name = display_name.map(str::to_owned);
            creation.instance_name = instance_name.map(str::to_owned);
        }
        operation
    }

    fn decide(settings: &str, operation: &Operation) -> Decision {
        let mut context = sample::context().with_settings(settings);
        context.session = None;
        NameRules::before(&context, operation)
    }

    #[track_caller]
    fn denied(settings: &str, operation: &Operation) -> (String, String) {
        match decide(settings, operation) {
            Decision::Deny(denial) => (denial.code, denial.message),
            other => panic!("{other:?} is no denial"),
        }
    }

    #[test]
    fn a_name_that_breaks_a_rule_is_denied_with_advice() {
        let settings = r#"{"displayName": {"prefix": "Acme "}, "instanceName": {"characters": "a-z0-9-"}}"#;
        assert_eq!(decide(settings, &creation(Some("Acme Bern"), Some("bern-1"))), Decision::Allow);
        let expected = ("display_name".to_owned(), "the display name must begin with \"Acme \"".to_owned());
        assert_eq!(denied(settings, &creation(Some("Bern"), Some("bern-1"))), expected);
        let (code, advice) = denied(settings, &creation(Some("Acme Bern"), Some("Bern 1")));
        assert_eq!(code, "instance_name");
        assert_eq!(advice, "the instance name has \"B\", and consists of a-z0-9-");
    }

    #[test]
    fn a_name_that_is_required_has_to_be_there() {
        let settings = r#"{"displayName": {"required": true}}"#;
        assert_eq!(denied(settings, &creation(None, None)).1, "the display name is required");
        assert_eq!(decide(settings, &creation(Some("Bern"), None)), Decision::Allow);
        assert_eq!(decide("{}", &creation(None, None)), Decision::Allow);
    }

    #[test]
    fn a_display_name_is_tidied_and_then_left_alone() {
        let untidy = creation(Some("  Front \t desk "), None);
        let Decision::Amend(Patch::SessionCreate(patch)) = decide("{}", &untidy) else { panic!("no patch") };
        assert_eq!(patch.display_name.as_deref(), Some("Front desk"));
        assert_eq!(decide("{}", &creation(patch.display_name.as_deref(), None)), Decision::Allow);
        assert_eq!(decide(r#"{"tidy": false}"#, &untidy), Decision::Allow);
    }

    #[test]
    fn rules_are_about_the_tidied_name() {
        let settings = r#"{"displayName": {"minLength": 1, "maxLength": 5}}"#;
        assert!(matches!(decide(settings, &creation(Some("  Bern  "), None)), Decision::Amend(_)));
        assert_eq!(denied(settings, &creation(Some("    "), None)).0, "display_name");
    }

    #[test]
    fn labels_are_added_where_they_are_missing() {
        let settings = r#"{"labels": {"team": "desk", "made-by": "name-rules"}}"#;
        let mut operation = creation(None, None);
        let Detail::SessionCreate(asked) = &mut operation.detail else { panic!("no creation") };
        asked.labels = vec![
            Label { key: "team".to_owned(), value: "sales".to_owned() },
            Label { key: "made-by".to_owned(), value: "name-rules".to_owned() },
        ];
        let Decision::Amend(Patch::SessionCreate(patch)) = decide(settings, &operation) else { panic!("no patch") };
        assert_eq!(patch.set_labels, [Label { key: "team".to_owned(), value: "desk".to_owned() }]);
    }

    #[test]
    fn other_operations_and_broken_settings() {
        assert_eq!(decide("{}", &sample::operation("session.delete")), Decision::Allow);
        assert_eq!(denied(r#"{"tidy": 1}"#, &creation(None, None)).0, "invalid_settings");
    }

    #[test]
    fn the_description_carries_a_schema_that_is_json() {
        let description = NameRules::describe();
        assert_eq!(description.hooks, ["session.create"]);
        let schema = description.settings_schema.expect("a schema");
        assert!(serde_json::from_str::<serde_json::Value>(&schema).is_ok());
    }
}
