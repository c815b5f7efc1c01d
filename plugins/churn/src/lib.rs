//! Subscription rules: a session is deleted only if it is disconnected, its subscription was cancelled,
//! it is not in trial, and the grace since the cancellation is over.
//!
//! ```text
//! facts ── `ledger`: what is known, kept by `memory` ── `follow`: timers ── `judge` ──▶ request session.delete
//! session.delete by anybody ───────────────────────────────────────────────  `judge` ──▶ allow, deny or defer
//! ```
//!
//! The plugin's own request is gated like any other, and by this plugin, too: so nothing is deleted that the rules keep.

mod follow;
mod judge;
mod ledger;
mod memory;
mod rules;

use judge::Standing;
use memory::Whose;
use portcullis_sdk::{
    Context, Decision, Describe, Description, Event, FollowUp, Gate, HostError, Observer, Operation, Problem, Settings,
    Timer, log, sessions,
};
use rules::{Early, FAMILIES, Rules};
use serde::Deserialize;

/// The plugin.
pub struct Churn;

portcullis_sdk::export!(Churn: describe, settings, gate, observer, timer);

impl Describe for Churn {
    fn describe() -> Description {
        let description = Description::new("churn", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .hook("session.delete")
            .want("kv", "to remember which subscriptions were cancelled, renewed and in trial")
            .want("sessions", "to see whether a session is connected or in trial when its time has come")
            .want("lifecycle", "to ask for the deletion of a session when its time has come")
            .settings_schema(include_str!("settings.schema.json"));
        FAMILIES.iter().fold(description, |description, family| description.event(format!("{family}*")))
    }
}

impl Settings for Churn {
    fn validate(json: &str) -> Result<(), Vec<Problem>> {
        Rules::parse(json).map(|_| ())
    }
}

impl Gate for Churn {
    fn before(context: &Context, operation: &Operation) -> Decision {
        let Some(session) = context.session.as_ref().filter(|_| operation.is("session.delete")) else {
            return Decision::Allow;
        };
        let Ok(rules) = Rules::parse(&context.settings) else {
            return Decision::deny("invalid_settings", "the settings of churn are not valid");
        };
        match memory::known(&session.id) {
            Ok(ledger) => answer(judge::judge(session, &ledger, &rules, context.now), &rules, context.now),
            Err(_) => Decision::deny(
                "subscription_unknown",
                "churn cannot read what it knows of this session's subscription; grant kv to its binding",
            ),
        }
    }
}

impl Observer for Churn {
    fn on_event(context: &Context, event: &Event) -> Vec<FollowUp> {
        let Ok(rules) = Rules::parse(&context.settings) else { return Vec::new() };
        let Some(fact) = rules.fact(&event.name) else { return Vec::new() };
        let told = match about(event) {
            Ok(About::Session(id)) => tell(Whose::Session(&id), fact, event, &rules, context),
            Ok(About::All) => tell(Whose::All, fact, event, &rules, context),
            Err(why) => {
                log::error(&format!("{} was not understood and changes nothing: {why}", event.name));
                return Vec::new();
            }
        };
        told.unwrap_or_else(|error| {
            log::error(&format!("{} could not be noted: {error:?}", event.name));
            Vec::new()
        })
    }
}

impl Timer for Churn {
    fn fired(context: &Context, key: &str, payload: &str) -> Vec<FollowUp> {
        let Ok(rules) = Rules::parse(&context.settings) else { return Vec::new() };
        let followed = match follow::session_of(key) {
            Some(id) => look(id, &rules, context),
            None => sweep(Some(payload).filter(|cursor| !cursor.is_empty()), &rules, context),
        };
        match followed {
            Ok(follow_ups) => follow_ups,
            // The session is gone, and with it all that would be left to do.
            Err(HostError::NotFound) => Vec::new(),
            Err(error) => {
                log::error(&format!("the timer {key} could not do its work: {error:?}"));
                vec![FollowUp::timer(key, context.after(rules.recheck.millis()), payload)]
            }
        }
    }
}

/// What a gate answers about a session that stands like this.
fn answer(standing: Standing, rules: &Rules, now: u64) -> Decision {
    match standing {
        Standing::Over => Decision::Allow,
        Standing::Active => {
            Decision::deny("subscription_active", "the subscription of this session has not been cancelled")
        }
        Standing::Trial => Decision::deny("in_trial", "the session is in trial"),
        Standing::Connected => Decision::deny(
            "session_connected",
            match rules.requires {
                rules::Requires::Disconnected => "stop the session before deleting it",
                rules::Requires::LoggedOut => "log the session out before deleting it",
            },
        ),
        Standing::Early(due) => {
            let reason = format!("a session is kept for {} after its subscription was cancelled", rules.grace);
            match rules.early {
                Early::Defer => Decision::defer(due, reason),
                Early::Deny => Decision::deny_with_retry("too_early", reason, due.saturating_sub(now).div_ceil(1000)),
            }
        }
    }
}

/// Whom a fact is about.
#[derive(Debug, PartialEq, Eq)]
enum About {
    Session(String),
    All,
}

/// What plugins are told of a fact besides its name: the data that it was posted with.
#[derive(Deserialize)]
struct Told {
    data: Option<Data>,
}

/// The data of a fact, as far as it concerns this plugin.
#[derive(Default, Deserialize)]
struct Data {
    session: Option<String>,
    #[serde(default)]
    all: bool,
}

/// Whom a fact is about. A fact that names nobody is not about everybody: that has to be said.
fn about(event: &Event) -> Result<About, &'static str> {
    if let Some(session) = &event.session {
        return Ok(About::Session(session.clone()));
    }
    let told: Told = serde_json::from_str(&event.json)
        .map_err(|_| "its data is no object with a text `session` or a truth value `all`")?;
    match told.data.unwrap_or_default() {
        Data { session: Some(_), all: true } => Err("it is about one session and about all"),
        Data { session: Some(session), all: false } => Ok(About::Session(session)),
        Data { session: None, all: true } => Ok(About::All),
        Data { session: None, all: false } => Err("it names no session; say {\"all\": true} if it is about all"),
    }
}

/// Notes a fact, and sets or takes back the timer.
fn tell(
    whose: Whose<'_>,
    fact: ledger::Fact,
    event: &Event,
    rules: &Rules,
    context: &Context,
) -> Result<Vec<FollowUp>, HostError> {
    let before = memory::read(whose)?;
    let mut ledger = before;
    ledger.learn(fact, event.at);
    if ledger != before {
        memory::write(whose, &ledger)?;
    }
    let known = match whose {
        Whose::Session(_) => ledger.and(memory::read(Whose::All)?),
        Whose::All => ledger,
    };
    Ok(vec![follow::after_fact(whose, &known, rules, context.now)])
}

/// Looks at one session.
fn look(id: &str, rules: &Rules, context: &Context) -> Result<Vec<FollowUp>, HostError> {
    let session = sessions::get(id)?;
    Ok(follow::look(&session, &memory::known(id)?, rules, context.now))
}

/// Looks at a page of all sessions.
fn sweep(cursor: Option<&str>, rules: &Rules, context: &Context) -> Result<Vec<FollowUp>, HostError> {
    let all = memory::read(Whose::All)?;
    if all.cancelled_at().is_none() {
        return Ok(Vec::new());
    }
    let page = sessions::list(cursor)?;
    let mut known = Vec::with_capacity(page.sessions.len());
    for session in page.sessions {
        let ledger = memory::read(Whose::Session(&session.id))?.and(all);
        known.push((session, ledger));
    }
    Ok(follow::sweep(&known, page.cursor.as_deref(), rules, context.now))
}

#[cfg(test)]
mod test {
    use portcullis_sdk::sample;

    use super::*;

    fn code(decision: Decision) -> String {
        match decision {
            Decision::Deny(denial) => denial.code,
            other => format!("{other:?}"),
        }
    }

    fn rules(json: &str) -> Rules {
        Rules::parse(json).expect("settings")
    }

    #[test]
    fn a_delete_by_hand_is_told_what_is_in_its_way() {
        let code = |standing| code(answer(standing, &rules("{}"), 0));
        assert_eq!(answer(Standing::Over, &rules("{}"), 0), Decision::Allow);
        assert_eq!(code(Standing::Active), "subscription_active");
        assert_eq!(code(Standing::Trial), "in_trial");
        assert_eq!(code(Standing::Connected), "session_connected");
        assert_eq!(code(Standing::Early(5)), "too_early");
    }

    #[test]
    fn a_delete_that_comes_too_early_is_denied_or_waits() {
        let reason = "a session is kept for P30D after its subscription was cancelled";
        let denied = answer(Standing::Early(10_001), &rules("{}"), 1000);
        assert_eq!(denied, Decision::deny_with_retry("too_early", reason, 10));
        let waits = answer(Standing::Early(10_001), &rules(r#"{"early": "defer"}"#), 1000);
        assert_eq!(waits, Decision::defer(10_001, reason));
    }

    #[test]
    fn a_fact_is_about_one_session_or_says_that_it_is_about_all() {
        let about = |session, data: &str| {
            let json = format!(r#"{{"id": "fact-1", "data": {data}}}"#);
            about(&sample::event("subscription.cancelled", session, &json))
        };
        let one = || Ok(About::Session("sess_1".to_owned()));
        assert_eq!(about(Some("sess_1"), "{}"), one());
        assert_eq!(about(Some("sess_1"), "null"), one());
        assert_eq!(about(None, r#"{"session": "sess_1", "plan": "pro"}"#), one());
        assert_eq!(about(None, r#"{"all": true}"#), Ok(About::All));
        for data in ["{}", "null", "[]", "\"sess_1\"", r#"{"session": 1}"#, r#"{"all": "yes"}"#, r#"{"all": false}"#] {
            assert!(about(None, data).is_err(), "{data}");
        }
        assert!(about(None, r#"{"session": "sess_1", "all": true}"#).is_err());
    }

    #[test]
    fn what_cannot_be_known_is_kept() {
        let delete = sample::operation("session.delete");
        // Natively there is no host to ask, which is what a binding without the grant finds as well.
        assert_eq!(code(Churn::before(&sample::context(), &delete)), "subscription_unknown");
        let broken = sample::context().with_settings("[]");
        assert_eq!(code(Churn::before(&broken, &delete)), "invalid_settings");
        assert_eq!(Churn::before(&sample::context(), &sample::operation("session.stop")), Decision::Allow);
    }

    #[test]
    fn a_timer_that_could_not_do_its_work_comes_again() {
        let again = |key: &str, payload: &str| vec![FollowUp::timer(key, sample::NOW + sample::DAY, payload)];
        assert_eq!(Churn::fired(&sample::context(), "session:sess_1", ""), again("session:sess_1", ""));
        assert_eq!(Churn::fired(&sample::context(), "all", "sess_7"), again("all", "sess_7"));
    }

    #[test]
    fn events_that_are_no_facts_change_nothing() {
        let told = |name| Churn::on_event(&sample::context(), &sample::event(name, Some("sess_1"), "{}"));
        assert_eq!(told("subscription.paused"), []);
    }

    #[test]
    fn the_description_says_what_it_hears_and_wants_and_why() {
        let description = Churn::describe();
        assert_eq!(description.hooks, ["session.delete"]);
        assert_eq!(description.events, ["subscription.*", "trial.*", "customer.subscription.*"]);
        let wants: Vec<_> = description.wants.iter().map(|want| want.grant.as_str()).collect();
        assert_eq!(wants, ["kv", "sessions", "lifecycle"]);
        assert!(description.wants.iter().all(|want| want.why.len() > 20));
        let schema = description.settings_schema.expect("a schema");
        assert!(serde_json::from_str::<serde_json::Value>(&schema).is_ok());
    }
}
