//! Contexts and operations for the native unit tests of a plugin.
//!
//! ```
//! use portcullis_sdk::sample;
//!
//! let context = sample::context().with_label("legal-hold", "yes").with_settings(r#"{"grace": "PT1H"}"#);
//! assert_eq!(context.session_label("legal-hold"), Some("yes"));
//! ```

use crate::{
    Context, Detail, Event, Intent, Label, Operation, Org, Phase, Principal, PrincipalKind, Session, SessionCreate,
    Status, Timestamp, Usage,
};

/// The point in time of all samples: 2026-01-01T00:00:00Z.
pub const NOW: Timestamp = 1_767_225_600_000;

/// One day in milliseconds.
pub const DAY: u64 = 24 * 60 * 60 * 1000;

/// An API key asks about [`session`] in [`org`]; the settings are empty.
#[must_use]
pub fn context() -> Context {
    Context {
        decision_id: "dec_sample".to_owned(),
        binding_id: "bind_sample".to_owned(),
        now: NOW,
        seed: 7,
        phase: Phase::Requested,
        confirmed: None,
        principal: Principal {
            kind: PrincipalKind::ApiKey,
            id: Some("key_sample".to_owned()),
            capabilities: vec!["read".to_owned(), "send".to_owned(), "manage".to_owned()],
            session_scope: None,
        },
        org: org(),
        session: Some(session()),
        dry_run: false,
        settings: "{}".to_owned(),
    }
}

/// A session that has used nothing of its limits.
#[must_use]
pub fn usage() -> Usage {
    Usage {
        sends_last_minute: 0,
        sends_today: 0,
        group_calls_last_minute: 0,
        group_calls_today: 0,
        checks_last_minute: 0,
        checks_today: 0,
    }
}

/// An organisation with an active plan.
#[must_use]
pub fn org() -> Org {
    Org {
        id: "org_sample".to_owned(),
        name: "Sample".to_owned(),
        plan: "pro".to_owned(),
        plan_active: true,
        labels: Vec::new(),
        quotas: vec![("sessions".to_owned(), 100)],
    }
}

/// A session that has been online for thirty days.
#[must_use]
pub fn session() -> Session {
    Session {
        id: "sess_sample".to_owned(),
        display_name: Some("Sample".to_owned()),
        instance_name: "sample".to_owned(),
        labels: Vec::new(),
        intent: Intent::Running,
        status: Status::Online,
        failure: None,
        jid: Some("15550100@s.whatsapp.net".to_owned()),
        rate_policy: "standard_policy".to_owned(),
        account_limit: None,
        delete_due: None,
        created_at: NOW - 30 * DAY,
        updated_at: NOW - 30 * DAY,
        last_connected_at: Some(NOW - 30 * DAY),
    }
}

/// An operation that says everything by its name, such as `session.delete`.
#[must_use]
pub fn operation(name: &str) -> Operation {
    Operation { name: name.to_owned(), detail: Detail::Plain }
}

/// An event that happened at [`NOW`], with a JSON document; about [`session`] or about no session in particular.
#[must_use]
pub fn event(name: &str, session: Option<&str>, json: &str) -> Event {
    Event {
        id: "evt_sample".to_owned(),
        name: name.to_owned(),
        at: NOW,
        session: session.map(str::to_owned),
        json: json.to_owned(),
    }
}

/// The choice of a rate policy.
#[must_use]
pub fn rate_policy(slug: &str) -> Operation {
    Operation { name: "session.rate-policy".to_owned(), detail: Detail::SessionRatePolicy(slug.to_owned()) }
}

/// A creation that names at most a rate policy.
#[must_use]
pub fn creation(rate_policy: Option<&str>) -> Operation {
    Operation {
        name: "session.create".to_owned(),
        detail: Detail::SessionCreate(SessionCreate {
            display_name: None,
            instance_name: None,
            labels: Vec::new(),
            rate_policy: rate_policy.map(str::to_owned),
            start: false,
        }),
    }
}

impl Context {
    /// The same context with other settings.
    #[must_use]
    pub fn with_settings(mut self, json: &str) -> Self {
        json.clone_into(&mut self.settings);
        self
    }

    /// The same context in another phase.
    #[must_use]
    pub fn with_phase(mut self, phase: Phase) -> Self {
        self.phase = phase;
        self
    }

    /// The same context with one more label on its session, if it has one.
    #[must_use]
    pub fn with_label(mut self, key: &str, value: &str) -> Self {
        if let Some(session) = &mut self.session {
            session.labels.push(Label { key: key.to_owned(), value: value.to_owned() });
        }
        self
    }
}
