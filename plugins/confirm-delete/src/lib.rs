//! The danger zone: a delete goes on once the caller has typed the session's name.
//!
//! ```text
//! session.delete ── due, or the session has the exempting label ──▶ allow
//!                ── nobody is there to type: a plugin, the gateway ─▶ allow
//!                ── the name was typed ─────────────────────────────▶ allow
//!                ── otherwise ──────────────────────────────────────▶ confirm
//! ```
//!
//! A confirmation that somebody gave to another plugin's question is none for this one: the typed name is compared here, too.
//! Where nothing is to be typed the plugin asks again, and the host counts the same question as answered.

mod rules;

use portcullis_sdk::{
    Context, Decision, Describe, Description, Gate, Operation, PrincipalKind, Problem, Session, Settings,
};
use rules::{Rules, Typed};

/// The plugin.
pub struct ConfirmDelete;

portcullis_sdk::export!(ConfirmDelete: describe, settings, gate);

impl Describe for ConfirmDelete {
    fn describe() -> Description {
        Description::new("confirm-delete", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .hook("session.delete")
            .settings_schema(include_str!("settings.schema.json"))
    }
}

impl Settings for ConfirmDelete {
    fn validate(json: &str) -> Result<(), Vec<Problem>> {
        Rules::parse(json).map(|_| ())
    }
}

impl Gate for ConfirmDelete {
    fn before(context: &Context, operation: &Operation) -> Decision {
        let Some(session) = context.session.as_ref().filter(|_| operation.is("session.delete")) else {
            return Decision::Allow;
        };
        let Ok(rules) = Rules::parse(&context.settings) else {
            return Decision::deny("invalid_settings", "the settings of confirm-delete are not valid");
        };
        // What was confirmed when it was asked for is not asked again when it is due: nobody would be there to answer.
        let nobody = matches!(context.principal.kind, PrincipalKind::Plugin | PrincipalKind::System);
        if context.is_due() || nobody || is_exempt(session, &rules) {
            return Decision::Allow;
        }
        let name = name(session, rules.typed);
        let typed = context.confirmed.as_ref().and_then(|confirmed| confirmed.answer.as_deref());
        if typed.is_some() && typed == name {
            return Decision::Allow;
        }
        let expires = context.after(rules.expires.millis());
        match name {
            Some(name) => Decision::confirm(
                format!("the session will be deleted with everything in it; type its name to go on: {name}"),
                expires,
                Some(name.to_owned()),
            ),
            None => {
                Decision::confirm("the session will be deleted with everything in it; confirm to go on", expires, None)
            }
        }
    }
}

/// Whether a label keeps the session out of it.
fn is_exempt(session: &Session, rules: &Rules) -> bool {
    rules.exempt_label.as_ref().is_some_and(|label| session.label(label).is_some_and(|value| value != "false"))
}

/// What is to be typed, if anything. A session without a display name has an instance name all the same.
fn name(session: &Session, typed: Typed) -> Option<&str> {
    match typed {
        Typed::DisplayName => {
            Some(session.display_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&session.instance_name))
        }
        Typed::InstanceName => Some(&session.instance_name),
        Typed::Nothing => None,
    }
}

#[cfg(test)]
mod test {
    use portcullis_sdk::{Confirmation, Phase, Question, sample};

    use super::*;

    /// A session that is called one thing and addressed by another.
    fn context() -> Context {
        let mut context = sample::context();
        let session = context.session.as_mut().expect("the sample has a session");
        session.display_name = Some("Front desk".to_owned());
        session.instance_name = "desk-1".to_owned();
        context
    }

    fn decide(context: &Context) -> Decision {
        ConfirmDelete::before(context, &sample::operation("session.delete"))
    }

    fn question(context: &Context) -> Question {
        match decide(context) {
            Decision::Confirm(question) => question,
            other => panic!("{other:?} is no question"),
        }
    }

    fn confirmed(mut context: Context, answer: Option<&str>) -> Context {
        context.confirmed = Some(Confirmation { at: sample::NOW, answer: answer.map(str::to_owned) });
        context
    }

    #[test]
    fn a_delete_asks_for_the_name_that_people_know() {
        let question = question(&context());
        assert_eq!(question.answer.as_deref(), Some("Front desk"));
        assert_eq!(question.expires, sample::NOW + 10 * 60 * 1000);
        assert!(question.prompt.ends_with("type its name to go on: Front desk"), "{}", question.prompt);
    }

    #[test]
    fn which_name_it_is_and_for_how_long_are_settings() {
        let asked = |settings: &str| question(&context().with_settings(settings)).answer;
        assert_eq!(asked(r#"{"type": "instance-name"}"#).as_deref(), Some("desk-1"));
        assert_eq!(asked(r#"{"type": "nothing"}"#), None);
        let hour = question(&context().with_settings(r#"{"expires": "PT1H"}"#));
        assert_eq!(hour.expires, sample::NOW + 60 * 60 * 1000);
    }

    #[test]
    fn a_session_without_a_display_name_is_known_by_its_instance_name() {
        for display_name in [None, Some(String::new())] {
            let mut nameless = context();
            nameless.session.as_mut().expect("the sample has a session").display_name = display_name;
            assert_eq!(question(&nameless).answer.as_deref(), Some("desk-1"));
        }
    }

    #[test]
    fn the_name_opens_the_way() {
        assert_eq!(decide(&confirmed(context(), Some("Front desk"))), Decision::Allow);
    }

    #[test]
    fn an_answer_to_somebody_elses_question_opens_nothing() {
        for answer in [None, Some(""), Some("front desk"), Some("desk-1")] {
            let asked = question(&confirmed(context(), answer));
            assert_eq!(asked.answer.as_deref(), Some("Front desk"), "{answer:?}");
            question(&confirmed(context().with_settings(r#"{"type": "nothing"}"#), answer));
        }
    }

    #[test]
    fn a_label_exempts() {
        let settings = r#"{"exemptLabel": "disposable"}"#;
        assert_eq!(decide(&context().with_settings(settings).with_label("disposable", "")), Decision::Allow);
        question(&context().with_settings(settings).with_label("disposable", "false"));
        question(&context().with_label("disposable", ""));
    }

    #[test]
    fn where_nobody_can_type_nothing_is_asked() {
        assert_eq!(decide(&context().with_phase(Phase::Due(sample::NOW))), Decision::Allow);
        for kind in [PrincipalKind::Plugin, PrincipalKind::System] {
            let mut context = context();
            context.principal.kind = kind;
            assert_eq!(decide(&context), Decision::Allow);
        }
    }

    #[test]
    fn other_operations_and_broken_settings_are_no_question() {
        assert_eq!(ConfirmDelete::before(&context(), &sample::operation("session.stop")), Decision::Allow);
        assert!(matches!(
            decide(&context().with_settings(r#"{"type": 3}"#)),
            Decision::Deny(denial) if denial.code == "invalid_settings"
        ));
    }

    #[test]
    fn the_description_carries_a_schema_that_is_json() {
        let description = ConfirmDelete::describe();
        assert_eq!(description.hooks, ["session.delete"]);
        let schema = description.settings_schema.expect("a schema");
        assert!(serde_json::from_str::<serde_json::Value>(&schema).is_ok());
    }
}
