//! Reading bodies, ids and pages, with messages that name what is wrong.

use std::str::FromStr;

use serde::de::DeserializeOwned;

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
    serde_json::from_slice(bytes).map_err(|error| {
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

/// A text that is bounded in length and has no control characters.
pub(super) fn check_text(field: &'static str, text: &str, max: usize) -> Result<(), Problem> {
    if text.len() > max || text.chars().any(char::is_control) {
        return Err(Problem::invalid(format!("{field} must be at most {max} bytes without control characters")));
    }
    Ok(())
}
