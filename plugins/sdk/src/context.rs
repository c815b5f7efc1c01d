//! Short ways to ask what a decision may depend on.

use serde::de::DeserializeOwned;

use crate::{Context, Label, Operation, Org, Phase, Problem, Session, Status, Timestamp};

impl Context {
    /// The binding's settings. A plugin that exports `settings` has accepted them before; [`Form`](crate::Form) tells more about what is wrong.
    ///
    /// # Errors
    ///
    /// The settings do not have the shape of `T`.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let json = if self.settings.trim().is_empty() { "{}" } else { &self.settings };
        serde_json::from_str(json).map_err(|error| Problem::new("", error.to_string()))
    }

    /// The value of a label of the session; none if there is no such label, or no session.
    #[must_use]
    pub fn session_label(&self, key: &str) -> Option<&str> {
        self.session.as_ref()?.label(key)
    }

    /// Whether the operation was deferred and its time has come.
    #[must_use]
    pub fn is_due(&self) -> bool {
        matches!(self.phase, Phase::Due(_))
    }

    /// The point in time `millis` milliseconds from now.
    #[must_use]
    pub fn after(&self, millis: u64) -> Timestamp {
        self.now.saturating_add(millis)
    }
}

impl Session {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        label(&self.labels, key)
    }

    /// Whether the session is connected to WhatsApp now.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.status == Status::Online
    }

    /// How many milliseconds old the session is at `now`.
    #[must_use]
    pub fn age(&self, now: Timestamp) -> u64 {
        now.saturating_sub(self.created_at)
    }
}

impl Org {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        label(&self.labels, key)
    }

    /// A quota by its name.
    #[must_use]
    pub fn quota(&self, name: &str) -> Option<u64> {
        self.quotas.iter().find(|(quota, _)| quota == name).map(|(_, value)| *value)
    }
}

impl Operation {
    /// Whether this is the operation with this name, such as `session.delete`.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name == name
    }
}

fn label<'a>(labels: &'a [Label], key: &str) -> Option<&'a str> {
    labels.iter().find(|label| label.key == key).map(|label| label.value.as_str())
}

#[cfg(test)]
mod test {
    use serde::Deserialize;

    use crate::{Phase, sample};

    #[derive(Debug, PartialEq, Deserialize)]
    struct Rules {
        #[serde(default)]
        days: u32,
    }

    #[test]
    fn settings_are_read_by_shape_and_may_be_empty() {
        let with = |settings: &str| sample::context().with_settings(settings).settings::<Rules>();
        assert_eq!(with(r#"{"days": 3}"#), Ok(Rules { days: 3 }));
        assert_eq!(with(""), Ok(Rules { days: 0 }));
        assert_eq!(with(r#"{"days": "three"}"#).expect_err("a wrong type").field, "");
    }

    #[test]
    fn labels_and_quotas_are_found_by_name() {
        let context = sample::context().with_label("tier", "gold");
        assert_eq!(context.session_label("tier"), Some("gold"));
        assert_eq!(context.session_label("colour"), None);
        assert_eq!(context.org.quota("sessions"), Some(100));
        assert_eq!(context.org.quota("boats"), None);
    }

    #[test]
    fn a_context_knows_whether_its_time_has_come() {
        let context = sample::context();
        assert!(!context.is_due());
        assert!(context.clone().with_phase(Phase::Due(context.now)).is_due());
        assert_eq!(context.after(u64::MAX), u64::MAX);
    }
}
