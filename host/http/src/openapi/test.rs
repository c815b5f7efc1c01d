//! The document covers the tables, and is whole in itself.

use std::collections::HashSet;

use super::*;
use crate::routes::route_table;

fn described() -> Value {
    serde_json::to_value(document()).unwrap()
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(|(method, operation)| (method.to_ascii_uppercase(), path.clone(), operation.clone()))
    });
    operations.collect()
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let table: HashSet<_> = route_table().into_iter().map(|route| (route.method, route.path)).collect();
    let described = operations(&described());
    let is_open = |operation: &Value| operation["security"] == json!([]);
    let closed: HashSet<_> = described
        .iter()
        .filter(|(_, _, operation)| !is_open(operation))
        .map(|(method, path, _)| (method.clone(), path.clone()))
        .collect();
    assert_eq!(closed, table);
    let open = described.iter().filter(|(_, _, operation)| is_open(operation)).count();
    assert_eq!(open, open::paths().len());
}

/// Whoever adds a route says in its dialect's `doc` what it takes and what it answers.
#[test]
fn somebody_has_said_something_of_every_route() {
    for route in Dialect::ALL.into_iter().flat_map(Dialect::routes) {
        let said = match route.dialect {
            Dialect::Router => router::doc(&route),
            Dialect::Wawp => wawp::doc(&route),
            Dialect::Evolution => evolution::doc(&route),
        };
        assert!(said.is_some(), "nothing is said of {} {}", route.method, full_path(&route));
    }
}

#[test]
fn operations_have_names_of_their_own() {
    let mut seen = HashSet::new();
    for (method, path, operation) in operations(&described()) {
        let id = operation["operationId"].as_str().unwrap().to_owned();
        assert!(id.chars().all(|c| c.is_ascii_alphanumeric()), "{id} of {method} {path} is no plain name");
        assert!(seen.insert(id.clone()), "{id} of {method} {path} is taken");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = described();
    let mut references = 0;
    each(&document, &mut |value| {
        let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return };
        references += 1;
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    });
    assert!(references > 100, "the document refers to nothing");
}

#[test]
fn every_link_leads_to_an_operation_with_these_parameters() {
    let document = described();
    let operations = operations(&document);
    let mut links = 0;
    each(&document, &mut |value| {
        for link in value.get("links").and_then(Value::as_object).into_iter().flatten().map(|(_, link)| link) {
            links += 1;
            let target = operations.iter().find(|(_, _, operation)| operation["operationId"] == link["operationId"]);
            let (_, path, _) = target.unwrap();
            for name in link["parameters"].as_object().unwrap().keys() {
                assert!(path.contains(&format!("{{{name}}}")), "{path} has no parameter {name}");
            }
        }
    });
    assert!(links > 10, "nothing is linked");
}

#[test]
fn an_answer_is_said_to_leave_out_what_is_unset() {
    let document = described();
    let session = &document["components"]["schemas"]["Session"];
    assert_eq!(session["properties"]["label"]["type"], "string");
    assert_eq!(session["properties"]["deleteAt"], json!({ "$ref": "#/components/schemas/Timestamp" }));
    assert!(!session["required"].as_array().unwrap().contains(&json!("label")));
}

#[test]
fn what_is_unknown_in_a_body_is_said_to_be_refused() {
    let document = described();
    for (method, path, operation) in operations(&document) {
        let body = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        let Some(pointer) = body.as_str().and_then(|reference| reference.strip_prefix('#')) else { continue };
        let closed = &document.pointer(pointer).unwrap()["additionalProperties"];
        assert!(*closed == json!(false) || pointer.ends_with("/Labels"), "{method} {path} takes anything");
    }
}

#[test]
fn the_text_is_made_once_and_begins_with_the_version() {
    assert!(text().starts_with("openapi: "), "{}", &text()[..40]);
    assert!(std::ptr::eq(text(), text()));
}

/// Looks at every object of a document.
fn each(value: &Value, look: &mut impl FnMut(&Value)) {
    look(value);
    match value {
        Value::Object(fields) => fields.values().for_each(|value| each(value, look)),
        Value::Array(entries) => entries.iter().for_each(|entry| each(entry, look)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
