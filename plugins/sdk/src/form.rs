//! Reads settings field by field, so that every problem can name its field.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::Problem;

/// Settings that are being read. Take each field that the plugin knows, then [`finish`](Self::finish).
///
/// ```
/// use portcullis_sdk::{Form, Problem};
///
/// fn days(json: &str) -> Result<u32, Vec<Problem>> {
///     let mut form = Form::parse(json)?;
///     let days = form.take::<u32>("days").unwrap_or(7);
///     if days == 0 {
///         form.problem("/days", "at least one day is needed");
///     }
///     form.finish()?;
///     Ok(days)
/// }
///
/// assert_eq!(days(r#"{"days": 3}"#), Ok(3));
/// assert_eq!(days(r#"{"days": 0}"#), Err(vec![Problem::new("/days", "at least one day is needed")]));
/// ```
#[derive(Debug)]
pub struct Form {
    fields: Map<String, Value>,
    problems: Vec<Problem>,
}

impl Form {
    /// Begins to read a JSON document; an empty one and `null` count as no settings at all.
    ///
    /// # Errors
    ///
    /// The document is not JSON, or no object.
    pub fn parse(json: &str) -> Result<Self, Vec<Problem>> {
        let whole = |message: String| vec![Problem::new("", message)];
        let fields = if json.trim().is_empty() {
            Map::new()
        } else {
            match serde_json::from_str(json).map_err(|error| whole(error.to_string()))? {
                Value::Object(fields) => fields,
                Value::Null => Map::new(),
                _ => return Err(whole("settings must be an object".to_owned())),
            }
        };
        Ok(Self { fields, problems: Vec::new() })
    }

    /// Takes a field out. None if it is missing or `null`; a value of the wrong type is a problem, and none as well.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.fields.remove(name).filter(|value| !value.is_null())?;
        match serde_json::from_value(value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(pointer(name), error.to_string());
                None
            }
        }
    }

    /// Notes a problem with the field at a JSON Pointer.
    pub fn problem(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(field, message));
    }

    /// Ends the reading: what nobody took is a field that the plugin does not know.
    ///
    /// # Errors
    ///
    /// All problems that were found.
    pub fn finish(mut self) -> Result<(), Vec<Problem>> {
        for name in self.fields.keys() {
            self.problems.push(Problem::new(pointer(name), "no such setting"));
        }
        if self.problems.is_empty() { Ok(()) } else { Err(self.problems) }
    }
}

/// The JSON Pointer of a field of the document.
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn no_settings_are_an_empty_form() {
        for json in ["", " ", "null", "{}"] {
            let mut form = Form::parse(json).expect("no settings");
            assert_eq!(form.take::<u32>("days"), None);
            assert_eq!(form.finish(), Ok(()));
        }
    }

    #[test]
    fn what_is_no_object_is_refused_as_a_whole() {
        for json in ["3", "[]", "{", "\"x\""] {
            let problems = Form::parse(json).expect_err("no object");
            assert_eq!(problems.len(), 1);
            assert_eq!(problems[0].field, "");
        }
    }

    #[test]
    fn all_problems_are_reported_by_field() {
        let mut form = Form::parse(r#"{"days": "three", "a/b": 1}"#).expect("an object");
        assert_eq!(form.take::<u32>("days"), None);
        let fields = form.finish().expect_err("two problems").into_iter().map(|problem| problem.field);
        assert_eq!(fields.collect::<Vec<_>>(), ["/days", "/a~1b"]);
    }
}
