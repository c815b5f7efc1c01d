//! The description of the API: an OpenAPI 3.1 document, made once from the route table and the types that are sent and received.
//!
//! ```text
//! the dialects' tables ─▶ path, method, operation ─▶ summary, capability, security, errors
//! the dialects' docs   ─▶ parameters, bodies, answers ─▶ schemas ─▶ components
//! ```
//!
//! A row of a table is in the document without anybody's doing; its doc adds what the row does not say. The router's docs are beside
//! its table and refer to the types themselves, so that schema and wire cannot drift. The other dialects are described from their
//! wire documents, more loosely.

mod doc;
mod errors;
mod evolution;
mod open;
pub(crate) mod schema;
#[cfg(test)]
mod test;
mod wawp;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use portcullis_core::Capability;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::dialect::{Dialect, router};
use crate::routes::Route;
use schema::Generators;

pub(crate) use doc::Doc;

/// Where the document is.
pub(crate) const PATH: &str = "/api/v1/openapi.yaml";
/// What it is.
pub(crate) const MEDIA_TYPE: &str = "application/yaml";

/// The document as text.
pub(crate) fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        serde_saphyr::to_string(&document())
            .expect("strings, numbers, lists and maps with string keys have a YAML form")
    });
    &TEXT
}

/// The document, in the order in which people read it.
#[derive(Serialize)]
struct Document {
    openapi: &'static str,
    info: Value,
    servers: Value,
    tags: Vec<Value>,
    paths: BTreeMap<String, Map<String, Value>>,
    components: Value,
}

fn document() -> Document {
    let routes: Vec<Route> = Dialect::ALL.into_iter().flat_map(Dialect::routes).collect();
    let ids = operation_ids(&routes);
    let mut generators = Generators::new();
    let mut paths: BTreeMap<String, Map<String, Value>> = open::paths();
    let mut tags = BTreeSet::from([open::TAG.to_owned()]);
    for (route, id) in routes.iter().zip(&ids) {
        let doc = doc_of(route);
        let tag = tag(route);
        let mut operation = operation(route, id, &tag, &doc, &mut generators);
        if let Some(field) = doc.made {
            link(&mut operation, route, field, &routes, &ids);
        }
        tags.insert(tag);
        paths.entry(full_path(route)).or_default().insert(route.method.as_str().to_ascii_lowercase(), operation);
    }
    let mut schemas = generators.components();
    schemas.extend(errors::envelopes().map(|(name, envelope)| (name.to_owned(), envelope)));
    let tags = tags.into_iter().map(|tag| json!({ "name": tag })).collect();
    Document {
        openapi: "3.1.0",
        info: json!({
            "title": "Portcullis",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "A gateway for WhatsApp sessions.",
            "description": "The native dialect is under `/api/v1`. The others are those of Wawp (`/v2`) and of the Evolution API.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        }),
        servers: json!([{ "url": "/", "description": "This gateway." }]),
        tags,
        paths,
        components: components(&schemas),
    }
}

fn components(schemas: &Map<String, Value>) -> Value {
    let mut responses = errors::responses();
    responses.extend(open::responses());
    json!({
        "schemas": schemas,
        "responses": responses,
        "headers": {
            "X-Request-Id": {
                "description": "The request's id: the caller's own if it came with a short and printable one.",
                "schema": { "type": "string", "minLength": 1 },
            },
            "X-Decision-Id": {
                "description": "The recorded decision that had a part in the answer.",
                "schema": { "type": "string", "pattern": schema::id_pattern("dec_") },
            },
            "Retry-After": {
                "description": "After how many seconds asking again may help.",
                "schema": { "type": "integer", "minimum": 0 },
            },
        },
        "securitySchemes": {
            "bearer": {
                "type": "http",
                "scheme": "bearer",
                "description": "An API key, or a token that the identity provider has signed.",
            },
            "apiKey": { "type": "apiKey", "in": "header", "name": "X-Api-Key", "description": "An API key." },
            "wawpToken": {
                "type": "apiKey",
                "in": "query",
                "name": "access_token",
                "description": "An API key. It may also come as a field of the body, as the header `access-token` or as a bearer token.",
            },
            "evolutionKey": {
                "type": "apiKey",
                "in": "header",
                "name": "apikey",
                "description": "An API key, or the token of one instance.",
            },
        },
    })
}

/// What is said of a route. One that nobody has said anything of answers with something.
fn doc_of(route: &Route) -> Doc {
    let said = match route.dialect {
        Dialect::Router => router::doc(route),
        Dialect::Wawp => wawp::doc(route),
        Dialect::Evolution => evolution::doc(route),
    };
    said.unwrap_or_else(|| Doc::answers::<schema::AnyValue>(200, "It was done."))
}

fn operation(route: &Route, id: &str, tag: &str, doc: &Doc, generators: &mut Generators) -> Value {
    let row = route.operation.row();
    let capability = match row.capability {
        Capability::Operate => "Only the operator may.".to_owned(),
        capability => format!("Needs the capability `{capability}`."),
    };
    let mut operation = json!({
        "operationId": id,
        "tags": [tag],
        "summary": row.summary,
        "description": format!("{} {capability}", doc.description).trim_start(),
        "security": security(route.dialect),
        "responses": responses(route, doc, generators),
    });
    let parameters = parameters(route, doc);
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    if let Some(body) = &doc.body {
        let contents = body.contents.iter().map(|(media_type, schema)| {
            ((*media_type).to_owned(), json!({ "schema": schema(&mut generators.received) }))
        });
        let contents: Map<_, _> = contents.collect();
        operation["requestBody"] = json!({ "required": body.required, "content": contents });
    }
    operation
}

fn security(dialect: Dialect) -> Value {
    match dialect {
        Dialect::Router => json!([{ "apiKey": [] }, { "bearer": [] }]),
        Dialect::Wawp => json!([{ "wawpToken": [] }, { "bearer": [] }]),
        Dialect::Evolution => json!([{ "evolutionKey": [] }]),
    }
}

fn parameters(route: &Route, doc: &Doc) -> Vec<Value> {
    let mut parameters: Vec<Value> = path_parameters(route.path)
        .map(|(before, name)| {
            json!({ "in": "path", "name": name, "required": true, "schema": path_schema(before, name) })
        })
        .collect();
    let mut query = |name: &str, description: &str, schema: Value| {
        parameters.push(json!({ "in": "query", "name": name, "description": description, "schema": schema }));
    };
    if route.dialect == Dialect::Router {
        let schema = json!({ "type": "string", "pattern": format!("{}|^$", schema::id_pattern("org_")) });
        query(
            "org",
            "The organisation in which to act, if that is not the caller's own; only the operator may name another.",
            schema,
        );
    }
    if route.operation.row().mutates {
        let description = "Whether only to say what would become of it, and to do nothing.";
        query("dry_run", description, json!({ "type": "boolean", "default": false }));
        let description =
            "The one-time token of a `confirmation_required`; also as the header `Portcullis-Confirmation`.";
        query("confirmation", description, json!({ "type": "string", "maxLength": 128 }));
        let description = "What was to be typed, if anything; also as the header `Portcullis-Answer`.";
        query("answer", description, json!({ "type": "string", "maxLength": 1024 }));
    }
    let has_own = doc.parameters.iter().any(|parameter| parameter.name == "Idempotency-Key");
    if route.operation.row().mutates && route.dialect == Dialect::Router && !has_own {
        parameters.push(json!({
            "in": "header",
            "name": "Idempotency-Key",
            "description": "Under one key the same request is done once, and answered in the same words for 24 hours.",
            "schema": { "type": "string", "pattern": "^[ -~]{1,255}$" },
        }));
    }
    parameters.extend(doc.parameters.iter().map(|parameter| {
        json!({
            "in": parameter.place,
            "name": parameter.name,
            "description": parameter.description,
            "schema": parameter.schema,
        })
    }));
    parameters
}

/// The parameters of a path, each with the segment before it.
fn path_parameters(path: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let segments = path.split('/');
    segments.clone().zip(segments.skip(1)).filter_map(|(before, segment)| {
        let name = segment.strip_prefix('{')?.strip_suffix('}')?;
        Some((before, name))
    })
}

fn path_schema(before: &str, name: &str) -> Value {
    let id = match (before, name) {
        (_, "instance") => return json!({ "type": "string", "minLength": 1, "maxLength": 100, "pattern": "^[^/]+$" }),
        ("orgs", _) => "OrgId",
        ("plugins", _) => "PluginId",
        ("bindings", _) => "BindingId",
        ("decisions", _) => "DecisionId",
        ("secrets", _) => return json!({ "type": "string", "pattern": "^[a-zA-Z0-9._-]{1,64}$" }),
        ("publishers", _) => "PublisherId",
        ("webhooks", _) => "WebhookId",
        ("keys", _) => "KeyId",
        ("messages", _) => "MessageId",
        _ => "SessionId",
    };
    json!({ "$ref": format!("#/components/schemas/{id}") })
}

fn responses(route: &Route, doc: &Doc, generators: &mut Generators) -> Map<String, Value> {
    let hookable = route.operation.row().hookable;
    let mut answers = doc.answers.clone();
    if route.operation.row().mutates {
        let dry_run = match route.dialect {
            Dialect::Evolution => evolution::dry_run(),
            Dialect::Router | Dialect::Wawp => Doc::answers::<router::DryRunView>(200, "What would become of it."),
        };
        let dry_run = dry_run.answers;
        match answers.iter_mut().find(|answer| answer.status == 200) {
            Some(answer) => answer.contents.extend(dry_run.into_iter().flat_map(|answer| answer.contents)),
            None => answers.extend(dry_run),
        }
    }
    let mut responses = Map::new();
    for answer in answers {
        let mut headers = json!({ "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } });
        if hookable {
            headers["X-Decision-Id"] = json!({ "$ref": "#/components/headers/X-Decision-Id" });
        }
        let mut response = json!({ "description": answer.description, "headers": headers });
        let mut contents: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for (media_type, schema) in &answer.contents {
            contents.entry(media_type).or_default().push(schema(&mut generators.sent).to_value());
        }
        for (media_type, mut schemas) in contents {
            let schema = if schemas.len() == 1 { schemas.remove(0) } else { json!({ "anyOf": schemas }) };
            response["content"][media_type] = json!({ "schema": schema });
        }
        responses.insert(answer.status.to_string(), response);
    }
    responses.insert("431".to_owned(), json!({ "$ref": "#/components/responses/HeadTooLarge" }));
    let of_policy = if hookable { errors::OF_POLICY.as_slice() } else { &[] };
    let is_keyed = route.operation.row().mutates && route.dialect == Dialect::Router;
    let of_keys = if is_keyed { errors::OF_KEYS.as_slice() } else { &[] };
    for status in errors::everywhere(route.dialect).iter().chain(of_policy).chain(of_keys).chain(&doc.errors) {
        let name = errors::name(route.dialect, *status);
        responses.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{name}") }));
    }
    responses
}

/// Adds links from what makes something to all that can be done with it.
fn link(operation: &mut Value, route: &Route, field: &str, routes: &[Route], ids: &[String]) {
    let mut links = Map::new();
    for (other, id) in routes.iter().zip(ids) {
        let Some(rest) = other.path.strip_prefix(route.path).and_then(|rest| rest.strip_prefix("/{")) else { continue };
        let Some((made, _)) = rest.split_once('}') else { continue };
        let mut parameters: Map<String, Value> = path_parameters(route.path)
            .map(|(_, name)| (name.to_owned(), json!(format!("$request.path.{name}"))))
            .collect();
        parameters.insert(made.to_owned(), json!(format!("$response.body#/{field}")));
        links.insert(id.clone(), json!({ "operationId": id, "parameters": parameters }));
    }
    let made = ["201", "202"].into_iter().find(|status| operation["responses"].get(status).is_some());
    if let Some(status) = made.filter(|_| !links.is_empty()) {
        operation["responses"][status]["links"] = Value::Object(links);
    }
}

/// The dialect, and what its paths call the thing.
fn tag(route: &Route) -> String {
    let mut segments = route.path.split('/').skip(1).filter(|segment| !matches!(*segment, "api" | "v1" | "v2"));
    let noun = segments.next().unwrap_or_default();
    let noun = match (noun, route.path) {
        ("sessions", path) if path.contains("/messages") => "messages",
        ("sessions", path) if path.contains("/simulator") => "simulator",
        _ => noun,
    };
    format!("{}: {noun}", route.dialect.name())
}

fn full_path(route: &Route) -> String {
    if route.action.is_empty() { route.path.to_owned() } else { format!("{}:{}", route.path, route.action) }
}

/// A name for each route that no other has: the dialect and the operation, with as much of the path and the method as it takes to tell them apart.
fn operation_ids(routes: &[Route]) -> Vec<String> {
    let names: Vec<[String; 7]> = routes.iter().map(names).collect();
    let alone = |at: usize, name: &str| names.iter().filter(|other| other[at] == name).count() == 1;
    let id = |of: &[String; 7]| {
        let shortest = (0..of.len()).find(|at| alone(*at, &of[*at])).unwrap_or(of.len() - 1);
        of[shortest].clone()
    };
    names.iter().map(id).collect()
}

/// The names that a route could have, from the shortest to the one that no other route can have.
fn names(route: &Route) -> [String; 7] {
    let (dialect, operation) = (route.dialect.name(), route.operation.name());
    let method = route.method.as_str().to_ascii_lowercase();
    let last = route.path.rsplit('/').find(|segment| *segment != "{instance}").unwrap_or_default();
    let place = match route.action {
        "" if last.starts_with('{') => "one",
        "" => last,
        action => action,
    };
    let noun = route.path.rsplit('/').find(|segment| !segment.starts_with('{')).unwrap_or_default();
    let top =
        route.path.trim_start_matches("/api/v1").split('/').find(|segment| !segment.is_empty()).unwrap_or_default();
    [
        camel(&[dialect, operation]),
        camel(&[dialect, operation, &method]),
        camel(&[dialect, operation, place]),
        camel(&[dialect, operation, place, &method]),
        camel(&[dialect, operation, noun, place]),
        camel(&[dialect, operation, top, place]),
        camel(&[dialect, operation, route.path, route.action, &method]),
    ]
}

fn camel(words: &[&str]) -> String {
    let mut name = String::new();
    for word in words.iter().flat_map(|word| word.split(|c: char| !c.is_ascii_alphanumeric())) {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if !name.is_empty() => name.push(first.to_ascii_uppercase()),
            Some(first) => name.push(first),
            None => {}
        }
        name.push_str(letters.as_str());
    }
    name
}
