//! What a request gives: parameters of the query and fields of the JSON body, which mean the same, and credentials, which may also be headers.
//!
//! The query goes before the body. In the query everything is text, so numbers and booleans may be text in the body, too.
//! Only for credentials is it an error to give one twice: with two values, it is not known who asks or what is meant.

use portcullis_core::SessionId;
use serde_json::{Map, Value};

use super::problem;
use crate::dialect::{Fault, Problem};
use crate::exchange::Incoming;

/// One credential was given with two values.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contradiction;

/// The access token, wherever it is.
pub(super) fn access_token(incoming: &Incoming) -> Result<Option<String>, Contradiction> {
    one(incoming, "access_token", headers(incoming, "access-token").chain(incoming.bearer()))
}

/// The instance id, wherever it is. A body that cannot be read is found here, because the id may be in it.
pub(super) fn instance_id(incoming: &Incoming) -> Result<String, Fault> {
    check_body(incoming).map_err(Fault::Query)?;
    match one(incoming, "instance_id", headers(incoming, "x-instance-id")) {
        Ok(Some(id)) => Ok(id),
        Ok(None) => Err(Fault::NoSession),
        Err(Contradiction) => Err(Fault::Unauthenticated),
    }
}

/// The session that the request named. It was found before decoding; without one there is no such session.
pub(super) fn session(incoming: &Incoming) -> Result<SessionId, Problem> {
    incoming.session.ok_or_else(problem::unknown_session)
}

/// Whether a body, if there is one, is a JSON object. Fields that nobody knows are nobody's business, but for one.
pub(super) fn check_body(incoming: &Incoming) -> Result<(), String> {
    if incoming.body.trim_ascii().is_empty() {
        return Ok(());
    }
    if is_form(incoming) {
        return Err("a form is not read; send a JSON object with content-type: application/json".to_owned());
    }
    match &incoming.document {
        None => Err("the body is no JSON document".to_owned()),
        // Parameters may be in the body, but this one is looked for in the query only: nobody must have done in earnest what they meant to try.
        Some(Value::Object(fields)) if fields.get("dry_run").is_some_and(|value| *value != Value::Bool(false)) => {
            Err("dry_run is a parameter of the query: ?dry_run=true".to_owned())
        }
        Some(Value::Object(_)) => Ok(()),
        Some(_) => Err("the body must be a JSON object".to_owned()),
    }
}

/// A parameter's text under the first of its names that is given; an empty one is not given.
pub(super) fn text(incoming: &Incoming, names: &[&'static str]) -> Result<Option<String>, Problem> {
    for name in names {
        match value(incoming, name) {
            None => {}
            Some(Given::Text(text)) => return Ok(Some(text.to_owned())),
            Some(Given::Json(value)) => {
                let text = plain(value).ok_or_else(|| problem::invalid(format!("{name} must be a text")))?;
                return Ok(Some(text));
            }
        }
    }
    Ok(None)
}

/// A parameter's text that has to be there.
pub(super) fn required(incoming: &Incoming, names: &[&'static str]) -> Result<String, Problem> {
    let name = names.first().copied().unwrap_or_default();
    text(incoming, names)?.ok_or_else(|| problem::missing(name))
}

/// What a parameter is given as.
pub(super) enum Given<'a> {
    /// A text of the query.
    Text(&'a str),
    /// A value of the body.
    Json(&'a Value),
}

/// A parameter, of the query or else of the body.
pub(super) fn value<'a>(incoming: &'a Incoming, name: &str) -> Option<Given<'a>> {
    if let Some(text) = incoming.query(name).filter(|text| !text.is_empty()) {
        return Some(Given::Text(text));
    }
    let value = fields(incoming)?.get(name)?;
    let is_empty = value.is_null() || value.as_str() == Some("");
    (!is_empty).then_some(Given::Json(value))
}

/// The body's fields, if it is a JSON object.
fn fields(incoming: &Incoming) -> Option<&Map<String, Value>> {
    if is_form(incoming) { None } else { incoming.document.as_ref()?.as_object() }
}

/// Whether the body says that it is a form. Then it is none of JSON, whatever it looks like.
fn is_form(incoming: &Incoming) -> bool {
    let kind = incoming.header("content-type").unwrap_or_default().to_ascii_lowercase();
    kind.starts_with("application/x-www-form-urlencoded") || kind.starts_with("multipart/")
}

/// The one value of a credential.
fn one<'a>(
    incoming: &'a Incoming,
    field: &str,
    headers: impl Iterator<Item = &'a str>,
) -> Result<Option<String>, Contradiction> {
    let in_query = incoming.query.iter().filter(|(name, _)| name == field).map(|(_, value)| value.clone());
    let in_body = fields(incoming).and_then(|fields| fields.get(field)).and_then(plain);
    let mut given = in_query.chain(in_body).chain(headers.map(str::to_owned)).filter(|value| !value.is_empty());
    let Some(first) = given.next() else { return Ok(None) };
    if given.all(|value| value == first) { Ok(Some(first)) } else { Err(Contradiction) }
}

fn headers<'a>(incoming: &'a Incoming, name: &str) -> impl Iterator<Item = &'a str> {
    incoming.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
}

/// What of JSON can be written as plain text.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
pub(super) mod test {
    use bytes::Bytes;
    use hyper::HeaderMap;
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;
    use crate::dialect::Credential;
    use crate::exchange::parse_query;

    /// A request as decoding finds it: its session is known.
    pub(in crate::dialect::wawp) fn asking(query: &str, body: &str) -> Incoming {
        with_headers(query, body, &[])
    }

    fn with_headers(query: &str, body: &str, headers: &[(&'static str, &str)]) -> Incoming {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        Incoming {
            headers: headers.iter().map(header).collect::<HeaderMap>(),
            params: Vec::new(),
            query: parse_query(query),
            body: Bytes::from(body.to_owned()),
            document: serde_json::from_str(body).ok(),
            session: Some(SessionId::from_bytes([5; 16])),
            ..Incoming::default()
        }
    }

    #[test]
    fn the_token_may_be_in_any_of_four_places() {
        let check = |query: &str, body: &str, headers: &[(&'static str, &str)], expected: Option<&str>| {
            let found = super::super::credential(&with_headers(query, body, headers));
            let expected = expected.map_or(Credential::None, |token| Credential::Key(token.to_owned()));
            assert_eq!(found, expected, "{query} {body} {headers:?}");
        };
        let json = ("content-type", "application/json");
        let form = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        let in_body = r#"{"access_token": "a"}"#;
        check("", "", &[], None);
        check("access_token=a", "", &[json], Some("a"));
        check("", in_body, &[json], Some("a"));
        check("", in_body, &[], Some("a"));
        check("", "", &[("access-token", "a")], Some("a"));
        check("", "", &[("authorization", "Bearer a")], Some("a"));
        check("access_token=a", in_body, &[("access-token", "a"), ("authorization", "bearer a")], Some("a"));
        check("access_token=", in_body, &[], Some("a"));
        check("", r#"{"access_token": 123}"#, &[], Some("123"));

        check("", in_body, &[form], None);
        check("", "access_token=a", &[form], None);
        check("", r#"[{"access_token": "a"}]"#, &[json], None);
        check("", r#"{"access_token": ["a"]}"#, &[json], None);
        check("", "", &[("authorization", "Basic a")], None);
        check("", "", &[("x-api-key", "a")], None);

        check("access_token=a&access_token=b", "", &[], None);
        check("access_token=b", in_body, &[], None);
        check("", in_body, &[("access-token", "b")], None);
        check("", "", &[("access-token", "a"), ("authorization", "Bearer b")], None);
        check("", "", &[("access-token", "a"), ("access-token", "b")], None);
    }

    #[test]
    fn the_instance_may_be_in_any_of_three_places() {
        let check = |query: &str, body: &str, headers: &[(&'static str, &str)], expected: Result<&str, Fault>| {
            let found = instance_id(&with_headers(query, body, headers));
            assert_eq!(found, expected.map(str::to_owned), "{query} {body} {headers:?}");
        };
        let header = ("x-instance-id", "3EB0BCB2E3D4");
        let in_body = r#"{"instance_id": "3EB0BCB2E3D4"}"#;
        check("instance_id=3EB0BCB2E3D4", "", &[], Ok("3EB0BCB2E3D4"));
        check("", in_body, &[], Ok("3EB0BCB2E3D4"));
        check("", "", &[header], Ok("3EB0BCB2E3D4"));
        check("instance_id=3EB0BCB2E3D4", in_body, &[header], Ok("3EB0BCB2E3D4"));
        check("", r#"{"instance_id": 123456789}"#, &[], Ok("123456789"));
        check("", "", &[], Err(Fault::NoSession));
        check("instance_id=", " \n", &[], Err(Fault::NoSession));
        check("instance_id=other", "", &[header], Err(Fault::Unauthenticated));
        check("instance_id=other", in_body, &[], Err(Fault::Unauthenticated));
    }

    #[test]
    fn a_body_is_a_json_object_or_nothing() {
        let check = |body: &str, headers: &[(&'static str, &str)], expected: Option<&str>| {
            let found = instance_id(&with_headers("instance_id=a", body, headers));
            match (found, expected) {
                (Ok(id), None) => assert_eq!(id, "a"),
                (Err(Fault::Query(why)), Some(part)) => assert!(why.contains(part), "{body}: {why}"),
                (found, _) => panic!("{body}: {found:?}"),
            }
        };
        check("", &[("content-type", "application/json")], None);
        check("", &[("content-type", "application/x-www-form-urlencoded")], None);
        check("{}", &[], None);
        check(r#"{"unknown": [1]}"#, &[], None);
        check(r#"{"dry_run": false}"#, &[], None);
        check("{", &[], Some("no JSON document"));
        check("nonsense", &[], Some("no JSON document"));
        check("[]", &[], Some("must be a JSON object"));
        check("null", &[], Some("must be a JSON object"));
        check("a=b", &[("content-type", "application/x-www-form-urlencoded")], Some("a form is not read"));
        check("{}", &[("content-type", "multipart/form-data; boundary=x")], Some("a form is not read"));
        check(r#"{"dry_run": true}"#, &[], Some("?dry_run=true"));
        check(r#"{"dry_run": "true"}"#, &[], Some("?dry_run=true"));
    }

    #[test]
    fn texts_come_from_the_query_or_else_the_body() {
        let check = |query: &str, body: &str, expected: Option<&str>| {
            let found = text(&asking(query, body), &["message", "text"]).unwrap();
            assert_eq!(found.as_deref(), expected, "{query} {body}");
        };
        check("", "", None);
        check("message=a", r#"{"message": "b"}"#, Some("a"));
        check("message=", r#"{"message": "b"}"#, Some("b"));
        check("", r#"{"text": "b"}"#, Some("b"));
        check("text=c", r#"{"message": "b"}"#, Some("b"));
        check("", r#"{"message": "", "text": "b"}"#, Some("b"));
        check("", r#"{"message": 12}"#, Some("12"));
        check("", r#"{"message": null}"#, None);
        assert!(text(&asking("", r#"{"message": {}}"#), &["message"]).is_err());
    }
}
