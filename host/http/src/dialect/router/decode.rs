//! Reading bodies, ids and pages, with messages that name what is wrong.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::dialect::Problem;
use crate::exchange::Incoming;

/// How many entries a page has unless the caller says otherwise.
const DEFAULT_LIMIT: usize = 50;
/// How many entries a page has at most.
const MAX_LIMIT: usize = 200;

/// A JSON body that has to be there.
pub(super) fn body<T: DeserializeOwned>(incoming: &Incoming) -> Result<T, Problem> {
    if incoming.body.is_empty() {
        return Err(Problem::invalid("request body is required"));
    }
    parse(&incoming.body)
}

/// A JSON body that may be left out.
pub(super) fn optional_body<T: DeserializeOwned + Default>(incoming: &Incoming) -> Result<T, Problem> {
    if incoming.body.is_empty() { Ok(T::default()) } else { parse(&incoming.body) }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Every body is an object. Serde would take an array for one, field by field.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(Problem::malformed(&["the body must be an object".to_owned()]));
    }
    let parsed = serde_json::from_slice(bytes);
    parsed.or_else(|error| with_whole_numbers(bytes, error)).map_err(|error| {
        let text = error.to_string();
        // serde_json adds the place, which helps with a syntax error and only confuses otherwise.
        let text = match error.classify() {
            serde_json::error::Category::Data => {
                let (what, _place) = text.rsplit_once(" at line ").unwrap_or((&text, ""));
                match what.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
                    Some((field, rest)) => format!("unexpected property (body.{field}{rest})"),
                    None => what.to_owned(),
                }
            }
            _ => format!("the body is no JSON document: {text}"),
        };
        Problem::malformed(&[text])
    })
}

/// The same once more if a number is in the way that is whole but written with a fraction: `60.0` is an integer, as JSON Schema has it.
fn with_whole_numbers<T: DeserializeOwned>(bytes: &[u8], error: serde_json::Error) -> serde_json::Result<T> {
    if !error.is_data() || !error.to_string().contains("floating point") {
        return Err(error);
    }
    let mut document: Value = serde_json::from_slice(bytes)?;
    make_whole(&mut document);
    serde_json::from_value(document)
}

fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            // Beyond this, a floating-point number does not stand for one integer any more.
            const MOST: f64 = 9_007_199_254_740_992.0;
            let whole = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= MOST);
            if let Some(whole) = whole.and_then(|whole| format!("{whole:.0}").parse().ok()) {
                *number = whole;
            }
        }
        Value::Array(entries) => entries.iter_mut().for_each(make_whole),
        Value::Object(fields) => fields.values_mut().for_each(make_whole),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// For a field of a change: tells what is `null` from what is left out.
pub(super) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// For a field that holds an object, or `null`. Serde would take an array for one, field by field.
pub(super) fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.map(|Object(object)| object))
}

/// For a field of a change that holds an object: tells what is `null` from what is left out.
pub(super) fn given_object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    object(deserializer).map(Some)
}

struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// The id in the path. One that has not the form of an id names nothing, like one that is unknown.
pub(super) fn path_id<T: FromStr>(incoming: &Incoming, name: &'static str, what: &'static str) -> Result<T, Problem> {
    incoming.param(name).parse().map_err(|_| Problem::not_found(format!("{what} not found")))
}

/// An id in a body or a query.
pub(super) fn id<T: FromStr<Err = portcullis_core::IdError>>(field: &'static str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error| Problem::invalid(format!("{field}: {error}")))
}

/// How many entries a page is to have; garbage asks for the default.
pub(super) fn limit(incoming: &Incoming) -> usize {
    let asked = incoming.query("limit").and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_LIMIT);
    asked.clamp(1, MAX_LIMIT)
}

/// Where a page begins.
pub(super) fn cursor<T: FromStr>(incoming: &Incoming) -> Result<Option<T>, Problem> {
    match incoming.query("cursor") {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| Problem::invalid("cursor is not one that a list gave out")),
    }
}

/// A query parameter that is true or false, if it is there.
pub(super) fn flag(incoming: &Incoming, name: &'static str) -> Result<Option<bool>, Problem> {
    match incoming.query(name) {
        None => Ok(None),
        Some("false" | "0") => Ok(Some(false)),
        Some(_) if incoming.flag(name) => Ok(Some(true)),
        Some(_) => Err(Problem::malformed(&[format!("{name} must be true or false")])),
    }
}

/// A text that is bounded in length and has no control characters.
pub(super) fn check_text(field: &'static str, text: &str, max: usize) -> Result<(), Problem> {
    if text.len() > max || text.chars().any(char::is_control) {
        return Err(Problem::invalid(format!("{field} must be at most {max} bytes without control characters")));
    }
    Ok(())
}

/// A JID of a server that WhatsApp has.
pub(super) fn check_jid(what: &'static str, jid: &str) -> Result<(), Problem> {
    let known = ["s.whatsapp.net", "g.us", "lid", "newsletter", "broadcast"];
    let fits = jid.split_once('@').is_some_and(|(user, server)| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        !user.is_empty() && user.len() <= 64 && user.chars().all(plain) && known.contains(&server)
    });
    if fits {
        Ok(())
    } else {
        Err(Problem::invalid(format!("{what} must be a JID such as 628123456789@s.whatsapp.net")))
    }
}

#[cfg(test)]
mod test {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, Default, Debug, PartialEq)]
    struct Body {
        #[serde(default)]
        count: u32,
        #[serde(default, deserialize_with = "object")]
        inner: Option<Inner>,
        #[serde(default, deserialize_with = "given_object")]
        given: Option<Option<Inner>>,
    }

    #[derive(Deserialize, Default, Debug, PartialEq)]
    struct Inner {
        n: u32,
    }

    fn check(body: &str, expected: Option<u32>) {
        let parsed: Option<Body> = parse(body.as_bytes()).ok();
        assert_eq!(parsed.map(|body| body.count), expected, "{body}");
    }

    #[test]
    fn a_body_is_an_object() {
        check(r#"{"count": 7}"#, Some(7));
        check("[7]", None);
        check(" \n[7]", None);
        check("7", None);
        check("null", None);
    }

    #[test]
    fn an_object_in_a_body_is_no_array() {
        check(r#"{"inner": {"n": 1}, "given": null}"#, Some(0));
        check(r#"{"inner": null, "given": {"n": 1}}"#, Some(0));
        check(r#"{"inner": [1]}"#, None);
        check(r#"{"given": [1]}"#, None);
        let parsed: Option<Body> = parse(br#"{"given": null}"#).ok();
        assert_eq!(parsed.map(|body| body.given), Some(Some(None)));
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_fraction() {
        check(r#"{"count": 60.0}"#, Some(60));
        check(r#"{"count": 6e1}"#, Some(60));
        check(r#"{"count": 60.5}"#, None);
        check(r#"{"count": -1.0}"#, None);
        check(r#"{"count": 1e300}"#, None);
    }
}
