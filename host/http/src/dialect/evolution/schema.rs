//! What bodies have to look like, declared as tables, and what is said of those that do not.
//!
//! Clients show these texts to people and some compare them, so they have the form that clients know: the path of the value,
//! then what it is not. A field can have a text of its own instead. Everything that is wrong is told at once, up to a bound.
//! After a check, the readers at the end of this file find every field absent or of its kind.

use serde_json::{Map, Value};

use super::problem;
use crate::dialect::Problem;
use crate::exchange::Incoming;

/// How many things are told to be wrong at most: a body with many errors must not make an answer many times its size.
const MAX_ERRORS: usize = 20;

/// An object's fields.
pub(super) type Schema = &'static [Field];

/// A field of an object.
pub(super) struct Field {
    name: &'static str,
    kind: Kind,
    required: bool,
    /// What is said of a value that does not fit, instead of what is wrong with it.
    said: Option<&'static str>,
}

/// What a value is.
pub(super) enum Kind {
    Text,
    /// A text of a form: the expression that clients are shown, and whether a text fits.
    Pattern(&'static str, fn(&str) -> bool),
    /// One of these texts.
    Choice(&'static [&'static str]),
    Flag,
    /// A flag for which some clients send an empty text when they mean no.
    LooseFlag,
    Integer,
    List(&'static List),
    Object(Schema),
    /// An object of which nothing is known.
    Map,
}

/// A list of values of one kind.
pub(super) struct List {
    pub(super) of: Kind,
    /// How many there are at least and at most.
    pub(super) count: (usize, usize),
    /// Whether no two are the same.
    pub(super) unique: bool,
    /// What is said of an entry that does not fit.
    pub(super) said: Option<&'static str>,
}

impl Field {
    /// A field that may be left out.
    pub(super) const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, required: false, said: None }
    }

    /// A field that has to be there.
    pub(super) const fn required(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, required: true, said: None }
    }

    /// The same field with a text of its own for what does not fit.
    pub(super) const fn or_say(mut self, text: &'static str) -> Self {
        self.said = Some(text);
        self
    }
}

/// The body as a document that fits a schema. Without a body it is an empty object.
pub(super) fn read(incoming: &Incoming, schema: Schema) -> Result<Map<String, Value>, Problem> {
    let document = document(incoming)?;
    // Nobody must have done in earnest what they meant to try.
    if document.get("dry_run").is_some_and(|value| *value != Value::Bool(false)) {
        return Err(problem::bad("dry_run is a parameter of the query: ?dry_run=true"));
    }
    let mut errors = Vec::new();
    match &document {
        Value::Object(fields) => check_fields(fields, schema, "instance", &mut errors),
        _ => errors.push("instance is not of a type(s) object".to_owned()),
    }
    match document {
        Value::Object(fields) if errors.is_empty() => Ok(fields),
        _ => Err(problem::invalid(&errors)),
    }
}

/// The body again, for an answer that repeats some of it; it was read before.
pub(super) fn again(incoming: &Incoming) -> Map<String, Value> {
    match document(incoming) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn document(incoming: &Incoming) -> Result<Value, Problem> {
    if incoming.body.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    serde_json::from_slice(&incoming.body).map_err(|error| problem::no_json(&error.to_string()))
}

/// The fields come before those that are missing, because clients know them in this order.
fn check_fields(fields: &Map<String, Value>, schema: Schema, path: &str, errors: &mut Vec<String>) {
    for field in schema {
        if let Some(value) = fields.get(field.name) {
            check(value, &field.kind, field.said, &format!("{path}.{}", field.name), errors);
        }
    }
    for field in schema.iter().filter(|field| field.required && !fields.contains_key(field.name)) {
        tell(errors, None, path, &format!("requires property \"{}\"", field.name));
    }
}

fn check(value: &Value, kind: &Kind, said: Option<&str>, path: &str, errors: &mut Vec<String>) {
    if errors.len() == MAX_ERRORS {
        return;
    }
    let mut wrong = |what: &str| tell(errors, said, path, what);
    match (kind, value) {
        (Kind::Text, Value::String(_)) | (Kind::Flag | Kind::LooseFlag, Value::Bool(_)) => {}
        (Kind::Map, Value::Object(_)) => {}
        (Kind::LooseFlag, Value::String(text)) if text.is_empty() => {}
        (Kind::Integer, Value::Number(number)) if number.as_f64().is_some_and(|number| number.fract() == 0.0) => {}
        (Kind::Pattern(_, fits), Value::String(text)) if fits(text) => {}
        (Kind::Pattern(shown, _), Value::String(_)) => {
            wrong(&format!("does not match pattern {}", Value::from(*shown)));
        }
        (Kind::Choice(choices), Value::String(text)) if choices.contains(&text.as_str()) => {}
        (Kind::Choice(choices), Value::String(_)) => {
            wrong(&format!("is not one of enum values: {}", choices.join(",")));
        }
        (Kind::List(list), Value::Array(entries)) => {
            let (least, most) = list.count;
            if entries.len() > most {
                // Entries of such a list are not even looked at.
                return wrong(&format!("does not meet maximum length of {most}"));
            }
            if entries.len() < least {
                wrong(&format!("does not meet minimum length of {least}"));
            }
            if list.unique && entries.iter().enumerate().any(|(at, entry)| entries[..at].contains(entry)) {
                wrong("contains duplicate item");
            }
            for (at, entry) in entries.iter().enumerate() {
                check(entry, &list.of, list.said, &format!("{path}[{at}]"), errors);
            }
        }
        (Kind::Object(schema), Value::Object(fields)) => check_fields(fields, schema, path, errors),
        (kind, _) => wrong(&format!("is not of a type(s) {}", kind.name())),
    }
}

fn tell(errors: &mut Vec<String>, said: Option<&str>, path: &str, what: &str) {
    if errors.len() < MAX_ERRORS {
        let path = path.strip_prefix("instance.").unwrap_or(path);
        errors.push(said.map_or_else(|| format!("{path} {what}"), str::to_owned));
    }
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Text | Self::Pattern(..) | Self::Choice(_) => "string",
            Self::Flag | Self::LooseFlag => "boolean",
            Self::Integer => "integer",
            Self::List(_) => "array",
            Self::Object(_) | Self::Map => "object",
        }
    }
}

// === readers of a document that was checked ===

/// A text, unless it is left out.
pub(super) fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name)?.as_str()
}

/// A text, unless it is left out or empty.
pub(super) fn filled<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    text(fields, name).filter(|text| !text.is_empty())
}

/// Whether a flag is set.
pub(super) fn flag(fields: &Map<String, Value>, name: &str) -> bool {
    fields.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// The texts of a list, unless it is left out.
pub(super) fn texts<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<Vec<&'a str>> {
    Some(fields.get(name)?.as_array()?.iter().filter_map(Value::as_str).collect())
}

/// An object, unless it is left out.
pub(super) fn object<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Map<String, Value>> {
    fields.get(name)?.as_object()
}

#[cfg(test)]
mod test {
    use serde_json::json;

    use super::*;

    const INNER: Schema = &[Field::required("enabled", Kind::Flag), Field::required("url", Kind::Text)];
    const EVENTS: List = List { of: Kind::Choice(&["A", "B"]), count: (0, 30), unique: false, said: None };
    const PEOPLE: List = List {
        of: Kind::Pattern("^\\d+", |text| text.starts_with(|c: char| c.is_ascii_digit())),
        count: (1, 3),
        unique: true,
        said: Some("digits only"),
    };
    const ALL: Schema = &[
        Field::new("presence", Kind::Choice(&["on", "off"])),
        Field::new("number", Kind::Pattern("^\\d+[\\.@\\w-]+", |text| text != "x")),
        Field::new("delay", Kind::Integer).or_say("Enter a value in milliseconds"),
        Field::new("loose", Kind::LooseFlag),
        Field::new("headers", Kind::Map),
        Field::new("events", Kind::List(&EVENTS)),
        Field::new("people", Kind::List(&PEOPLE)),
        Field::new("webhook", Kind::Object(INNER)),
        Field::required("text", Kind::Text),
    ];

    fn errors(document: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        check_fields(document.as_object().unwrap(), ALL, "instance", &mut errors);
        errors
    }

    #[track_caller]
    fn wrong(mut document: Value, expected: &[&str]) {
        document["text"] = json!("");
        assert_eq!(errors(&document), expected, "{document}");
    }

    #[test]
    fn texts_have_the_form_that_clients_know() {
        assert_eq!(errors(&json!({})), [r#"instance requires property "text""#]);
        assert_eq!(errors(&json!({ "text": null })), ["text is not of a type(s) string"]);
        wrong(json!({ "presence": "away" }), &["presence is not one of enum values: on,off"]);
        wrong(json!({ "presence": 3 }), &["presence is not of a type(s) string"]);
        wrong(json!({ "number": "x" }), &[r#"number does not match pattern "^\\d+[\\.@\\w-]+""#]);
        wrong(json!({ "delay": "1" }), &["Enter a value in milliseconds"]);
        wrong(json!({ "delay": 1.5 }), &["Enter a value in milliseconds"]);
        wrong(json!({ "delay": 2.0, "loose": "" }), &[]);
        wrong(json!({ "loose": "no" }), &["loose is not of a type(s) boolean"]);
        wrong(json!({ "headers": [] }), &["headers is not of a type(s) object"]);
        wrong(json!({ "events": "A" }), &["events is not of a type(s) array"]);
        wrong(json!({ "events": ["A", "C"] }), &["events[1] is not one of enum values: A,B"]);
        wrong(json!({ "people": [] }), &["people does not meet minimum length of 1"]);
        wrong(json!({ "people": ["1", "2", "x", "x"] }), &["people does not meet maximum length of 3"]);
        wrong(json!({ "people": ["1", "1"] }), &["people contains duplicate item"]);
        wrong(json!({ "people": ["1", "x"] }), &["digits only"]);
        let both = [r#"webhook requires property "enabled""#, r#"webhook requires property "url""#];
        wrong(json!({ "webhook": {} }), &both);
        wrong(json!({ "webhook": { "enabled": 1, "url": "" } }), &["webhook.enabled is not of a type(s) boolean"]);
    }

    #[test]
    fn wrong_fields_are_told_before_missing_ones() {
        let expected = ["loose is not of a type(s) boolean", r#"instance requires property "text""#];
        assert_eq!(errors(&json!({ "loose": 1 })), expected);
    }

    #[test]
    fn only_so_much_is_told() {
        let told = errors(&json!({ "text": "", "events": vec!["C"; 30], "webhook": {} }));
        assert_eq!(told.len(), MAX_ERRORS);
    }
}
