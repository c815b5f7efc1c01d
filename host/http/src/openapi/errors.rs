//! The errors of each dialect: their envelope, and what each status means.

use serde_json::{Map, Value, json};

use crate::dialect::Dialect;

/// A status that is an error.
struct Error {
    status: u16,
    description: &'static str,
    /// The codes of the router's closed list that come with it.
    codes: &'static [&'static str],
}

const fn error(status: u16, description: &'static str, codes: &'static [&'static str]) -> Error {
    Error { status, description, codes }
}

/// Every error, with the codes that the router has for it.
const ERRORS: [Error; 16] = [
    error(400, "The request is not valid; mend it.", &["validation_error"]),
    error(401, "There is no key, or one that opens nothing.", &["unauthorized"]),
    error(403, "The key lacks a capability, or a policy or a quota forbids it.", &["forbidden"]),
    error(404, "It does not exist, or it is not yours; there is no telling which.", &["not_found"]),
    error(408, "The body did not arrive in time.", &["validation_error"]),
    error(409, "The thing is in another state than the request needs.", &["conflict"]),
    error(413, "The body is too large.", &["payload_too_large"]),
    error(414, "The target of the request is too long.", &["validation_error"]),
    error(
        422,
        "The request is well-formed, but a plugin or its settings are not acceptable, or its idempotency key stands for another.",
        &["unprocessable"],
    ),
    error(428, "A policy asks for a confirmation.", &["confirmation_required"]),
    error(429, "A rate limit is used up; wait.", &["rate_limited"]),
    error(500, "A bug; report it.", &["internal"]),
    error(501, "Not in this version, or the session is not connected.", &["not_implemented"]),
    error(502, "What the gateway depends on does not answer.", &[]),
    error(503, "Try again later.", &["unavailable", "gateway_unavailable"]),
    error(504, "It took too long.", &[]),
];

/// The statuses of errors that every route of a dialect can end with.
pub(super) fn everywhere(dialect: Dialect) -> &'static [u16] {
    match dialect {
        Dialect::Router => &[400, 401, 403, 404, 408, 413, 414, 500, 503],
        Dialect::Wawp => &[400, 401, 403, 404, 408, 413, 414, 500, 502, 503],
        Dialect::Evolution => &[400, 401, 403, 404, 408, 413, 414, 500, 503],
    }
}

/// The statuses of errors that policy can lead to.
pub(super) const OF_POLICY: [u16; 3] = [409, 428, 429];

/// The statuses of errors that an idempotency key can lead to.
pub(super) const OF_KEYS: [u16; 2] = [409, 422];

/// The name of the component that describes an error.
pub(super) fn name(dialect: Dialect, status: u16) -> String {
    format!("{}{status}", prefix(dialect))
}

/// The statuses that come with `Retry-After`.
pub(super) fn may_be_tried_again(status: u16) -> bool {
    matches!(status, 403 | 429 | 503)
}

/// Every error of every dialect as a response, by its name.
pub(super) fn responses() -> Map<String, Value> {
    let mut responses = Map::new();
    for dialect in Dialect::ALL {
        for error in &ERRORS {
            let mut headers = json!({
                "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" },
                "X-Decision-Id": { "$ref": "#/components/headers/X-Decision-Id" },
            });
            if may_be_tried_again(error.status) {
                headers["Retry-After"] = json!({ "$ref": "#/components/headers/Retry-After" });
            }
            let response = json!({
                "description": error.description,
                "headers": headers,
                "content": { "application/json": { "schema": schema(dialect, error) } },
            });
            responses.insert(name(dialect, error.status), response);
        }
    }
    responses
}

fn schema(dialect: Dialect, error: &Error) -> Value {
    let envelope = json!({ "$ref": format!("#/components/schemas/{}Error", prefix(dialect)) });
    if dialect != Dialect::Router || error.codes.is_empty() {
        return envelope;
    }
    let code = json!({ "properties": { "error": { "properties": { "code": { "enum": error.codes } } } } });
    json!({ "allOf": [envelope, code] })
}

/// The envelope of each dialect.
pub(super) fn envelopes() -> [(&'static str, Value); 3] {
    let mut codes: Vec<_> = ERRORS.iter().flat_map(|error| error.codes).copied().collect();
    codes.sort_unstable();
    codes.dedup();
    [
        (
            "RouterError",
            json!({
                "type": "object",
                "description": "What went wrong.",
                "required": ["error"],
                "properties": { "error": {
                    "type": "object",
                    "required": ["code", "message"],
                    "properties": {
                        "code": { "type": "string", "enum": codes, "description": "What the client can do about it." },
                        "message": { "type": "string", "description": "A sentence for people." },
                        "details": {
                            "type": "object",
                            "description": "What there is to say besides; `reason` is the stable code of what exactly happened.",
                            "additionalProperties": true,
                        },
                    },
                    "additionalProperties": false,
                } },
                "additionalProperties": false,
            }),
        ),
        (
            "WawpError",
            json!({
                "type": "object",
                "description": "What went wrong.",
                "required": ["code", "message", "status", "error"],
                "properties": {
                    "code": { "type": "string" },
                    "message": { "type": "string" },
                    "status": { "type": "integer", "description": "The status of the response." },
                    "error": { "type": "string", "description": "The status in words." },
                },
                "additionalProperties": true,
            }),
        ),
        (
            "EvolutionError",
            json!({
                "type": "object",
                "description": "What went wrong.",
                "required": ["status", "error", "response"],
                "properties": {
                    "status": { "type": "integer", "description": "The status of the response." },
                    "error": { "type": "string", "description": "The status in words." },
                    "response": {
                        "type": "object",
                        "required": ["message"],
                        "properties": { "message": { "type": ["string", "array"] } },
                        "additionalProperties": true,
                    },
                },
                "additionalProperties": true,
            }),
        ),
    ]
}

/// The dialect's name as a part of other names.
pub(super) fn prefix(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Router => "Router",
        Dialect::Wawp => "Wawp",
        Dialect::Evolution => "Evolution",
    }
}
