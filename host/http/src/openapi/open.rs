//! What anybody may ask without a key: it is in no dialect's table.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::schema::id_pattern;

/// The tag of these paths.
pub(super) const TAG: &str = "open";

/// The paths, in the form of the document.
pub(super) fn paths() -> BTreeMap<String, Map<String, Value>> {
    let text = |description: &str, media_type: &str| json!({ "description": description, "headers": headers(), "content": { media_type: { "schema": { "type": "string" } } } });
    let unavailable = || json!({ "$ref": "#/components/responses/Router503" });
    let limited = || json!({ "$ref": "#/components/responses/Router429" });
    let token = json!([{
        "in": "path",
        "name": "token",
        "required": true,
        "schema": { "type": "string", "pattern": "^[0-9a-f]{64}$" },
    }]);
    let dead = || json!({ "$ref": "#/components/responses/DeadLink" });
    let welcome = json!({
        "description": "The gateway's welcome, as clients of the Evolution API expect it.",
        "headers": headers(),
        "content": { "application/json": { "schema": {
            "type": "object",
            "required": ["status", "message", "version", "clientName"],
            "properties": {
                "status": { "type": "integer" },
                "message": { "type": "string" },
                "version": { "type": "string" },
                "clientName": { "type": "string" },
            },
            "additionalProperties": true,
        } } },
    });
    [
        ("/", "openWelcome", "Say welcome.", json!(null), json!({ "200": welcome })),
        (
            "/healthz",
            "openHealth",
            "Say whether the gateway runs.",
            json!(null),
            json!({ "200": text("It runs.", "text/plain") }),
        ),
        (
            "/readyz",
            "openReady",
            "Say whether the gateway can serve.",
            json!(null),
            json!({ "200": text("It can.", "text/plain"), "503": unavailable() }),
        ),
        (
            super::PATH,
            "openDescription",
            "Describe the API.",
            json!(null),
            json!({ "200": {
                "description": "This document.",
                "headers": headers(),
                "content": { super::MEDIA_TYPE: { "schema": { "type": "object" } } },
            } }),
        ),
        (
            "/temp-qr/{token}",
            "openLink",
            "Show the page behind a temporary link to a session's codes.",
            token.clone(),
            json!({ "200": text("The page.", "text/html"), "404": dead() }),
        ),
        (
            "/temp-qr/{token}/events",
            "openLinkEvents",
            "Follow a session's codes from the page.",
            token,
            json!({
                "200": {
                    "description": "Server-sent events.",
                    "headers": headers(),
                    "content": { "text/event-stream": { "schema": {} } },
                },
                "404": dead(),
                "429": limited(),
                "503": unavailable(),
            }),
        ),
        (
            "/api/v1/realtime",
            "openRealtime",
            "Open the stream of events, a WebSocket.",
            json!([
                {
                    "in": "query",
                    "name": "ticket",
                    "required": true,
                    "description": "A ticket that was not used yet.",
                    "schema": { "type": "string" },
                },
                {
                    "in": "query",
                    "name": "since",
                    "description": "The last event that the client knows; overrides the ticket's.",
                    "schema": { "type": "string", "pattern": id_pattern("evt_") },
                },
            ]),
            json!({
                "101": { "description": "The stream follows.", "headers": headers() },
                "400": { "$ref": "#/components/responses/Router400" },
                "401": { "$ref": "#/components/responses/Router401" },
                "414": { "$ref": "#/components/responses/Router414" },
                "426": {
                    "description": "This address speaks WebSocket.",
                    "headers": headers(),
                    "content": { "application/json": { "schema": { "$ref": "#/components/schemas/RouterError" } } },
                },
                "429": limited(),
                "503": unavailable(),
            }),
        ),
    ]
    .into_iter()
    .map(|(path, id, summary, parameters, responses)| {
        let mut operation =
            json!({ "operationId": id, "tags": [TAG], "summary": summary, "security": [], "responses": responses });
        if !parameters.is_null() {
            operation["parameters"] = parameters;
        }
        (path.to_owned(), Map::from_iter([("get".to_owned(), operation)]))
    })
    .collect()
}

/// Responses that are in no dialect.
pub(super) fn responses() -> [(String, Value); 2] {
    let page = json!({
        "description": "The link has expired, was revoked or never existed; there is no telling which.",
        "headers": headers(),
        "content": { "text/html": { "schema": { "type": "string" } } },
    });
    // The server answers by itself what is too large to be read.
    let head = json!({ "description": "The head of the request is too large. There is no body." });
    [("DeadLink".to_owned(), page), ("HeadTooLarge".to_owned(), head)]
}

fn headers() -> Value {
    json!({ "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } })
}
