//! Fixtures: calls of a plugin as files, with the answers that are expected.
//!
//! A fixture says what differs from the sample and nothing else: an API key asks about a session that has been online for thirty days.
//! Values are in the contract's own words; labels and quotas may be written as objects, documents in texts as what they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use portcullis_core::{
    BindingId, DecisionId, EventId, Grant, HostRule, KeyId, OperationKind, OrgId, SessionId, Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The point in time of the sample: 2026-01-01T00:00:00Z.
pub(super) const NOW: u64 = 1_767_225_600_000;
const DAY: u64 = 24 * 60 * 60 * 1000;

/// One call of a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Fixture {
    /// What it is about, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) about: Option<String>,
    /// What is called.
    pub(super) call: Call,
    /// The binding's settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) settings: Option<Value>,
    /// What the binding grants; everything that the plugin wants unless told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) grants: Option<Vec<Grant>>,
    /// The hosts to which the binding lets it send requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) http_hosts: Vec<HostRule>,
    /// What differs from the sample's context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) context: Option<Value>,
    /// The operation: its name, or name and detail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) operation: Option<Value>,
    /// How the operation ended; `done` unless told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<Value>,
    /// What differs from the sample's event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<Value>,
    /// The timer that is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) timer: Option<Timer>,
    /// What the session has used of its limits; nothing unless told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Value>,
    /// What the plugin has kept: texts, or `{"base64": …}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) kv: BTreeMap<String, Value>,
    /// The organisation's other sessions: what differs from the sample's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sessions: Vec<Value>,
    /// How often operations were done, by name: a number for every window, or numbers by window.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) done: BTreeMap<String, Value>,
    /// The secrets that it may use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) secrets: BTreeMap<String, String>,
    /// What another call read, as a decision records it; then nothing else can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reads: Option<Vec<Value>>,
    /// What is expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expect: Option<Expect>,
}

/// What is called, by its name in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Call {
    #[serde(rename = "describe.describe")]
    Describe,
    #[serde(rename = "settings.validate")]
    Validate,
    #[serde(rename = "gate.before")]
    Before,
    #[serde(rename = "observer.after")]
    After,
    #[serde(rename = "observer.on-event")]
    OnEvent,
    #[serde(rename = "timer.fired")]
    Fired,
    #[serde(rename = "pace.limits")]
    Limits,
}

/// A timer that is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Timer {
    pub(super) key: String,
    #[serde(default)]
    pub(super) payload: String,
}

/// What is expected of a call. What is not said is not compared.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Expect {
    /// The answer, in the contract's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<Value>,
    /// The code of a failure, such as `plugin_fuel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failure: Option<String>,
    /// What it writes: texts, `{"base64": …}`, or null for a key that it removes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) writes: Option<BTreeMap<String, Value>>,
    /// The requests that it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) requests: Option<Vec<Value>>,
    /// Its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) log: Option<Vec<String>>,
    /// The most fuel that it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fuel_at_most: Option<u64>,
}

/// Why a fixture cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FixtureError {
    /// It could not be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// It could not be written.
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
    /// It is no fixture.
    #[error("{} is not of the form that docs/plugins.md gives", .0.display())]
    Malformed(PathBuf, #[source] serde_json::Error),
    /// A call needs something that is not there.
    #[error("the call {call} needs `{field}`")]
    Needs {
        /// The call.
        call: &'static str,
        /// What it needs.
        field: &'static str,
    },
    /// A value is not what its place needs.
    #[error("{place}: {why}")]
    Value {
        /// Where.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// The decision has no input.
    #[error("the decision in {} has no input: it was too large to be recorded, or has been erased", .0.display())]
    NotReplayable(PathBuf),
}

/// The fixtures in a folder by their names, in order.
pub(super) fn read_all(folder: &Path) -> Result<Vec<(PathBuf, Fixture)>, FixtureError> {
    let read = |error| FixtureError::Read(folder.to_owned(), error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let file = entry.map_err(read)?.path();
        if file.extension().is_some_and(|extension| extension == "json") {
            files.push(file);
        }
    }
    files.sort();
    files.into_iter().map(|file| read_one(&file).map(|fixture| (file, fixture))).collect()
}

fn read_one(file: &Path) -> Result<Fixture, FixtureError> {
    let text = std::fs::read(file).map_err(|error| FixtureError::Read(file.to_owned(), error))?;
    serde_json::from_slice(&text).map_err(|error| FixtureError::Malformed(file.to_owned(), error))
}

/// Writes a fixture in its one form.
pub(super) fn write(file: &Path, fixture: &Fixture) -> Result<(), FixtureError> {
    let text = serde_json::to_string_pretty(fixture);
    let text = text.map_err(|error| FixtureError::Malformed(file.to_owned(), error))? + "\n";
    std::fs::write(file, text).map_err(|error| FixtureError::Write(file.to_owned(), error))
}

impl Fixture {
    /// A call about the sample, of which nothing is expected.
    pub(super) fn of(call: Call) -> Self {
        Self {
            about: None,
            call,
            settings: None,
            grants: None,
            http_hosts: Vec::new(),
            context: None,
            operation: None,
            outcome: None,
            event: None,
            timer: None,
            usage: None,
            kv: BTreeMap::new(),
            sessions: Vec::new(),
            done: BTreeMap::new(),
            secrets: BTreeMap::new(),
            reads: None,
            expect: None,
        }
    }

    /// The settings as the plugin gets them.
    pub(super) fn settings_text(&self) -> String {
        self.settings.as_ref().map_or_else(|| "{}".to_owned(), Value::to_string)
    }

    /// The whole context.
    pub(super) fn context(&self) -> Value {
        let mut context = sample_context();
        if let Some(differs) = &self.context {
            lay_over(&mut context, differs);
        }
        context["settings"] = json!(self.settings_text());
        context
    }

    /// The whole operation.
    pub(super) fn operation(&self) -> Result<Value, FixtureError> {
        let mut operation = self.needed("operation", self.operation.as_ref())?;
        if operation.is_string() {
            operation = json!({ "name": operation });
        }
        if let Value::Object(fields) = &mut operation {
            fields.entry("detail").or_insert_with(|| json!("plain"));
            if let Some(other) = fields.get_mut("detail").and_then(|detail| detail.get_mut("other")) {
                as_text(other);
            }
        }
        check_operation(&operation)?;
        canonical(&mut operation);
        Ok(operation)
    }

    /// How the operation ended.
    pub(super) fn outcome(&self) -> Value {
        self.outcome.clone().unwrap_or_else(|| json!("done"))
    }

    /// The whole event.
    pub(super) fn event(&self) -> Result<Value, FixtureError> {
        let context = self.context();
        let mut event = json!({
            "id": EventId::new(Timestamp::from_millis(NOW), 1).to_string(),
            "name": "",
            "at": context["now"],
            "session": context["session"]["id"],
            "json": "{}",
        });
        lay_over(&mut event, &self.needed("event", self.event.as_ref())?);
        as_text(&mut event["json"]);
        Ok(event)
    }

    /// The timer that is due.
    pub(super) fn timer(&self) -> Result<Timer, FixtureError> {
        self.timer.clone().ok_or_else(|| FixtureError::Needs { call: self.call.name(), field: "timer" })
    }

    /// The whole usage of the session's limits.
    pub(super) fn usage(&self) -> Value {
        let mut usage = json!({
            "sends-last-minute": 0, "sends-today": 0, "group-calls-last-minute": 0,
            "group-calls-today": 0, "checks-last-minute": 0, "checks-today": 0,
        });
        if let Some(differs) = &self.usage {
            lay_over(&mut usage, differs);
        }
        usage
    }

    /// Every session of the organisation, the context's first.
    pub(super) fn all_sessions(&self) -> Vec<Value> {
        let own = self.context()["session"].take();
        let others = self.sessions.iter().zip(2..).map(|(differs, number)| {
            let mut session = sample_session(number);
            lay_over(&mut session, differs);
            session
        });
        let others: Vec<Value> = others.filter(|session| session["id"] != own["id"]).collect();
        Some(own).filter(|own| !own.is_null()).into_iter().chain(others).collect()
    }

    fn needed(&self, field: &'static str, value: Option<&Value>) -> Result<Value, FixtureError> {
        value.cloned().ok_or_else(|| FixtureError::Needs { call: self.call.name(), field })
    }
}

impl Call {
    /// Its name in the contract.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Describe => "describe.describe",
            Self::Validate => "settings.validate",
            Self::Before => "gate.before",
            Self::After => "observer.after",
            Self::OnEvent => "observer.on-event",
            Self::Fired => "timer.fired",
            Self::Limits => "pace.limits",
        }
    }
}

/// The context of all fixtures that say nothing else.
fn sample_context() -> Value {
    let now = Timestamp::from_millis(NOW);
    json!({
        "decision-id": DecisionId::new(now, 1).to_string(),
        "binding-id": BindingId::new(now, 1).to_string(),
        "now": NOW,
        "seed": 7,
        "phase": "requested",
        "confirmed": null,
        "principal": {
            "kind": "api-key",
            "id": KeyId::new(now, 1).to_string(),
            "capabilities": ["read", "send", "manage"],
            "session-scope": null,
        },
        "org": {
            "id": OrgId::new(now, 1).to_string(),
            "name": "Sample",
            "plan": "pro",
            "plan-active": true,
            "labels": [],
            "quotas": [["sessions", 100]],
        },
        "session": sample_session(1),
        "dry-run": false,
        "settings": "{}",
    })
}

/// A session that has been online for thirty days.
fn sample_session(number: u128) -> Value {
    json!({
        "id": SessionId::new(Timestamp::from_millis(NOW - 30 * DAY), number).to_string(),
        "display-name": "Sample",
        "instance-name": format!("sample-{number}"),
        "labels": [],
        "intent": "running",
        "status": "online",
        "failure": null,
        "jid": format!("1555010{number}@s.whatsapp.net"),
        "rate-policy": "standard_policy",
        "account-limit": null,
        "delete-due": null,
        "created-at": NOW - 30 * DAY,
        "updated-at": NOW - 30 * DAY,
        "last-connected-at": NOW - 30 * DAY,
    })
}

/// Replaces what `differs` names, field by field.
fn lay_over(base: &mut Value, differs: &Value) {
    match (base, differs) {
        (Value::Object(base), Value::Object(differs)) => {
            for (field, value) in differs {
                lay_over(base.entry(field.clone()).or_insert(Value::Null), value);
            }
        }
        // What is a list in the contract stays one, however it is written.
        (base @ Value::Array(_), differs @ Value::Object(_)) => *base = pairs(differs),
        (base, differs) => *base = differs.clone(),
    }
}

/// Labels, or quotas, as the contract has them.
fn pairs(object: &Value) -> Value {
    let Value::Object(fields) = object else { return object.clone() };
    let pair = |(key, value): (&String, &Value)| {
        if value.is_number() { json!([key, value]) } else { json!({ "key": key, "value": value }) }
    };
    fields.iter().map(pair).collect()
}

/// Checks that there is such an operation, and that its detail is the one that the gateway gives it.
/// Operations of later gateways have the detail `other`, so with it every name will do.
fn check_operation(operation: &Value) -> Result<(), FixtureError> {
    let (name, detail) = (operation["name"].as_str().unwrap_or_default(), &operation["detail"]);
    let case = detail.as_str().or_else(|| detail.as_object()?.keys().next().map(String::as_str)).unwrap_or_default();
    let refused = |why| Err(FixtureError::Value { place: "operation".to_owned(), why });
    let kind = OperationKind::from_name(name).filter(|kind| kind.row().hookable);
    let expected = match kind {
        None if case == "other" => return Ok(()),
        None => return refused(format!("there is no operation {name:?} that policy is asked about")),
        Some(kind) if portcullis_service::is_scannable(kind) => "plain".to_owned(),
        Some(
            OperationKind::SessionCreate
            | OperationKind::SessionPairingCode
            | OperationKind::SessionLabels
            | OperationKind::SessionRatePolicy
            | OperationKind::MessageSend,
        ) => name.replace('.', "-"),
        Some(_) => "other".to_owned(),
    };
    if case == expected { Ok(()) } else { refused(format!("{name} has the detail {expected:?}, and not {case:?}")) }
}

/// Labels within an operation as the contract has them.
fn canonical(value: &mut Value) {
    if let Value::Object(fields) = value {
        for (field, value) in fields.iter_mut() {
            if matches!(field.as_str(), "labels" | "session-labels") {
                *value = pairs(value);
            } else {
                canonical(value);
            }
        }
    }
}

/// A document as text, unless it is one already.
fn as_text(value: &mut Value) {
    if !value.is_string() {
        *value = json!(value.to_string());
    }
}

/// What one plugin was asked in a decision.
pub(super) struct Asked {
    /// The decision's id.
    pub(super) decision: String,
    /// The plugin's name.
    pub(super) plugin: String,
    /// The question; nothing is expected of it.
    pub(super) fixture: Fixture,
    /// What it answered, in the words of the gateway's decisions.
    pub(super) answer: Value,
}

/// What the plugins were asked in a recorded decision, which is a file as the gateway answers it.
pub(super) fn of_decision(file: &Path) -> Result<Vec<Asked>, FixtureError> {
    let malformed = |error| FixtureError::Malformed(file.to_owned(), error);
    let text = std::fs::read(file).map_err(|error| FixtureError::Read(file.to_owned(), error))?;
    let decision: Value = serde_json::from_slice(&text).map_err(malformed)?;
    let input = &decision["input"];
    let links = input["links"].as_array().ok_or_else(|| FixtureError::NotReplayable(file.to_owned()))?;
    let id = decision["id"].as_str().unwrap_or("decision");
    let mut asked = Vec::new();
    for link in links {
        let is_its = |answer: &&Value| {
            let fits = |field: &str, missing: Value| {
                link.get(field).is_none_or(|told| told == answer.get(field).unwrap_or(&missing))
            };
            fits("binding", Value::Null) && fits("position", json!(0)) && fits("shadow", json!(false))
        };
        let answer = decision["answers"].as_array().into_iter().flatten().find(is_its);
        let field = |name: &str| answer.map(|answer| answer[name].clone()).unwrap_or_default();
        let plugin = field("name").as_str().unwrap_or("plugin").to_owned();
        let mut context = input["context"].clone();
        context["binding-id"] = link["binding"].clone();
        if let Value::Object(fields) = &mut context {
            fields.remove("settings");
        }
        let settings = link["settings"].as_str().map(serde_json::from_str::<Value>).transpose().map_err(malformed)?;
        let fixture = Fixture {
            about: Some(format!("what {plugin} was asked in the decision {id}")),
            settings,
            http_hosts: Vec::new(),
            grants: serde_json::from_value(link["grants"].clone()).map_err(malformed)?,
            context: Some(context),
            operation: Some(input["operation"].clone()),
            reads: Some(link["reads"].as_array().cloned().unwrap_or_default()),
            ..Fixture::of(Call::Before)
        };
        let answer = json!({ "decision": field("decision"), "failure": field("failure") });
        asked.push(Asked { decision: id.to_owned(), plugin, fixture, answer });
    }
    Ok(asked)
}

/// A document with the names of the core's records, whichever way they were told: `retryAfter` is `retry_after`.
pub(super) fn snake(value: &Value) -> Value {
    let name = |name: &str| {
        let split =
            |c: char| if c.is_ascii_uppercase() { format!("_{}", c.to_ascii_lowercase()) } else { c.to_string() };
        name.chars().map(split).collect::<String>()
    };
    match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (name(key), snake(value))).collect(),
        Value::Array(items) => items.iter().map(snake).collect(),
        other => other.clone(),
    }
}

/// An object without the fields that are null, all the way down: in the contract's words both mean that there is nothing.
pub(super) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}
