//! Short ways to say what a plugin answers.

use crate::{
    Decision, Deferral, Denial, Description, Detail, FollowUp, NamedJson, Operation, Problem, Question, Request,
    SessionCreatePatch, TimerSetting, Timestamp, Want,
};

impl Decision {
    /// Do not, with a code of the plugin's own and a sentence for the caller.
    #[must_use]
    pub fn deny(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Deny(Denial { code: code.into(), message: message.into(), retry_after: None })
    }

    /// Do not, and say after how many seconds asking again may help.
    #[must_use]
    pub fn deny_with_retry(code: impl Into<String>, message: impl Into<String>, retry_after: u64) -> Self {
        Self::Deny(Denial { code: code.into(), message: message.into(), retry_after: Some(retry_after) })
    }

    /// Not before `until`, with the reason for the caller.
    #[must_use]
    pub fn defer(until: Timestamp, reason: impl Into<String>) -> Self {
        Self::Defer(Deferral { until, reason: reason.into() })
    }

    /// Only once the caller has confirmed; if `answer` is given, by typing it.
    #[must_use]
    pub fn confirm(prompt: impl Into<String>, expires: Timestamp, answer: Option<String>) -> Self {
        Self::Confirm(Question { prompt: prompt.into(), expires, answer })
    }
}

impl FollowUp {
    /// Emits an event to the organisation's webhooks, with a JSON document.
    #[must_use]
    pub fn event(name: impl Into<String>, json: &serde_json::Value) -> Self {
        Self::EmitEvent(NamedJson { name: name.into(), json: json.to_string() })
    }

    /// Asks for an operation that says everything by its name, such as `session.delete`, as the plugin; needs the grant `lifecycle`.
    #[must_use]
    pub fn request(operation: impl Into<String>, session: impl Into<String>) -> Self {
        let operation = Operation { name: operation.into(), detail: Detail::Plain };
        Self::Request(Request { operation, session: Some(session.into()) })
    }

    /// Sets a durable timer of the plugin's own, or moves the one with this key.
    #[must_use]
    pub fn timer(key: impl Into<String>, at: Timestamp, payload: impl Into<String>) -> Self {
        Self::SetTimer(TimerSetting { key: key.into(), at, payload: payload.into() })
    }
}

impl SessionCreatePatch {
    /// A patch that changes nothing, to fill in.
    #[must_use]
    pub fn unchanged() -> Self {
        Self { display_name: None, set_labels: Vec::new(), remove_labels: Vec::new(), rate_policy: None }
    }
}

impl Problem {
    /// A problem with the field at a JSON Pointer; an empty one means the document as a whole.
    #[must_use]
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl Description {
    /// A plugin with a name (1 to 64 characters of a-z, 0-9 and '-'), a version for people, and what it does in a sentence.
    /// It is asked about all operations until [`hook`](Self::hook) names some.
    #[must_use]
    pub fn new(name: impl Into<String>, version: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            description: description.into(),
            settings_schema: None,
            hooks: Vec::new(),
            events: Vec::new(),
            wants: Vec::new(),
        }
    }

    /// Asks to be asked about an operation, such as `session.delete`.
    #[must_use]
    pub fn hook(mut self, operation: impl Into<String>) -> Self {
        self.hooks.push(operation.into());
        self
    }

    /// Asks to be told of events with this name, such as `session.linked`; a last `*` stands for any ending.
    #[must_use]
    pub fn event(mut self, name: impl Into<String>) -> Self {
        self.events.push(name.into());
        self
    }

    /// Gives the JSON Schema of the settings.
    #[must_use]
    pub fn settings_schema(mut self, schema: impl Into<String>) -> Self {
        self.settings_schema = Some(schema.into());
        self
    }

    /// Asks for a grant (`kv`, `sessions`, `secrets`, `http` or `lifecycle`) and says why.
    #[must_use]
    pub fn want(mut self, grant: impl Into<String>, why: impl Into<String>) -> Self {
        self.wants.push(Want { grant: grant.into(), why: why.into() });
        self
    }
}
