//! No delete of a session that has a label. The settings name it: `{"label": "legal-hold"}`.
//!
//! The same rule lies beside this folder in JavaScript, Python and C; a test asks all four the same questions.

use portcullis_sdk::{Context, Decision, Describe, Description, Form, Gate, Operation, Problem, Settings};

/// The label, unless the settings say otherwise.
const DEFAULT_LABEL: &str = "legal-hold";

/// The plugin.
pub struct LegalHold;

portcullis_sdk::export!(LegalHold: describe, settings, gate);

impl Describe for LegalHold {
    fn describe() -> Description {
        Description::new("legal-hold-rust", "1.0.0", env!("CARGO_PKG_DESCRIPTION"))
            .hook("session.delete")
            .settings_schema(include_str!("settings.schema.json"))
    }
}

impl Settings for LegalHold {
    fn validate(json: &str) -> Result<(), Vec<Problem>> {
        read(json).map(|_| ())
    }
}

impl Gate for LegalHold {
    fn before(context: &Context, operation: &Operation) -> Decision {
        if !operation.is("session.delete") {
            return Decision::Allow;
        }
        let Ok(label) = read(&context.settings) else {
            return Decision::deny("invalid_settings", "the settings of legal-hold are not valid");
        };
        match context.session_label(&label) {
            None | Some("false") => Decision::Allow,
            Some(_) => Decision::deny("legal_hold", format!("the label {label} keeps this session from being deleted")),
        }
    }
}

/// Reads the settings: the label.
fn read(json: &str) -> Result<String, Vec<Problem>> {
    let mut form = Form::parse(json)?;
    let label = form.take::<String>("label").unwrap_or_else(|| DEFAULT_LABEL.to_owned());
    if label.is_empty() {
        form.problem("/label", "the label needs a name");
    }
    form.finish()?;
    Ok(label)
}

#[cfg(test)]
mod test {
    use portcullis_sdk::sample;

    use super::*;

    fn code(context: &Context) -> String {
        match LegalHold::before(context, &sample::operation("session.delete")) {
            Decision::Deny(denial) => denial.code,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_held_session_is_not_deleted() {
        assert_eq!(code(&sample::context().with_label("legal-hold", "case 7")), "legal_hold");
        assert_eq!(code(&sample::context().with_label("legal-hold", "false")), "Decision::Allow");
        assert_eq!(code(&sample::context()), "Decision::Allow");
    }

    #[test]
    fn the_label_is_a_setting() {
        let context = sample::context().with_settings(r#"{"label": "court"}"#);
        assert_eq!(code(&context.clone().with_label("court", "")), "legal_hold");
        assert_eq!(code(&context.with_label("legal-hold", "")), "Decision::Allow");
        assert_eq!(code(&sample::context().with_settings(r#"{"label": 3}"#)), "invalid_settings");
    }

    #[test]
    fn other_operations_are_none_of_its_business() {
        let held = sample::context().with_label("legal-hold", "");
        assert_eq!(LegalHold::before(&held, &sample::operation("session.stop")), Decision::Allow);
    }

    #[test]
    fn problems_name_their_fields() {
        let fields = |json| read(json).expect_err("wrong settings").into_iter().map(|problem| problem.field);
        assert_eq!(fields(r#"{"label": ""}"#).collect::<Vec<_>>(), ["/label"]);
        assert_eq!(fields(r#"{"lable": "x"}"#).collect::<Vec<_>>(), ["/lable"]);
    }

    #[test]
    fn the_description_carries_a_schema_that_is_json() {
        let schema = LegalHold::describe().settings_schema.expect("a schema");
        assert!(serde_json::from_str::<serde_json::Value>(&schema).is_ok());
    }
}
