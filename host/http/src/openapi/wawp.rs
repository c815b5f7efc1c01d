//! What is said of the routes of the Wawp dialect, from its wire documents. Parameters may come in the query or as fields of a JSON body.

use hyper::Method;
use schemars::Schema;
use serde_json::{Value, json};

use super::doc::{Doc, JSON};
use crate::routes::Route;

/// What is said of a route besides what its row says.
pub(super) fn doc(route: &Route) -> Option<Doc> {
    let path = route.path.strip_prefix("/v2/")?;
    let doc = match (path, &route.method) {
        ("session/create", _) => answers(201, "The new session.", |_| {
            object(&["instance_id", "session_name", "name", "server_name", "status"], session())
        }),
        ("session/delete" | "delete", _) => answers(200, "It is gone.", |_| object(&["name", "status"], session()))
            .content(202, "It waits to be deleted, or is being deleted.", JSON, |_| {
                object(&["name", "status"], session())
            }),
        ("session/logout" | "logout", _) => {
            answers(200, "The session, unlinked.", |_| object(&["name", "status", "instance_id"], session()))
        }
        ("session/me", _) => {
            answers(200, "The account that it is linked to.", |_| object(&["id"], json!({ "id": text() })))
        }
        ("session/rate-limit", _) => {
            let doc = answers(200, "The policy and the others that there are.", |_| {
                object(
                    &["instance_id", "current_policy", "limits", "policies", "free_policies", "has_active_plan"],
                    json!({
                        "current_policy": text(),
                        "limits": { "type": "object", "additionalProperties": { "type": "integer" } },
                        "policies": { "type": "array", "items": { "type": "object" } },
                        "free_policies": { "type": "array", "items": text() },
                        "has_active_plan": { "type": "boolean" },
                    }),
                )
            });
            match route.method {
                Method::PATCH => doc.query("policy_slug", "The policy to choose.", such_as("strict")),
                _ => doc,
            }
        }
        ("session/temp-link", _) => answers(200, "The link, if there is one.", |_| {
            object(&["link"], json!({ "link": { "type": ["string", "null"] } }))
        }),
        ("session/webhook", _) => {
            let doc = answers(200, "The webhooks.", |_| {
                let list = json!({ "type": "array", "items": { "type": "object" } });
                object(&["webhooks", "systemConfig"], json!({ "webhooks": list, "systemConfig": { "type": "object" } }))
            });
            match route.method {
                Method::POST => doc.query("webhooks", "All webhooks from then on, a JSON document.", such_as("[]")),
                _ => doc,
            }
        }
        ("auth/qr", _) => {
            let format = json!({ "type": "string", "default": "raw", "examples": ["raw"] });
            answers(200, "The code, in base 64.", |_| {
                object(&["mimetype", "data"], json!({ "mimetype": text(), "data": text() }))
            })
            .query("format", "The form of the code.", format)
        }
        ("auth/qr-image", _) => answers(200, "The picture.", |_| object(&["qr"], json!({ "qr": text() }))),
        ("auth/request-code", _) => {
            let digits = such_as("628123456789");
            answers(200, "The code to type on the phone.", |_| object(&["code"], json!({ "code": text() }))).query(
                "phone_number",
                "The account's phone number.",
                digits,
            )
        }
        ("send/text", _) => answers(201, "The message.", |_| message())
            .content(202, "The message, which is on its way already.", JSON, |_| message())
            .query("chatId", "The recipient.", such_as("628123456789@c.us"))
            .query("message", "The text.", json!({ "type": "string", "maxLength": 4096, "examples": ["Hello."] }))
            .query("reply_to", "The message that is answered.", text())
            .header(
                "Idempotency-Key",
                "Under one key a message is sent once, however often it is asked for.",
                json!({ "type": "string", "pattern": "^[ -~]{1,255}$" }),
            )
            .fails(&[501]),
        _ => answers(200, "The session.", |_| object(&["name", "status", "config", "me"], session())),
    };
    let doc = if path == "session/create" {
        doc
    } else {
        doc.query(
            "instance_id",
            "The session, by its instance id; it has to be given here or in the body.",
            such_as("3EB0BCB2E3D4"),
        )
    };
    Some(if matches!(route.method, Method::GET) {
        doc
    } else {
        doc.takes_content(false, JSON, |_| object(&[], json!({})))
            .says("What the query takes can also be fields of the body; it has to be given in one of them.")
    })
}

fn answers(status: u16, description: &'static str, schema: super::schema::SchemaOf) -> Doc {
    Doc::default().content(status, description, JSON, schema)
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn such_as(example: &str) -> Value {
    json!({ "type": "string", "examples": [example] })
}

/// The fields of a session that clients read.
fn session() -> Value {
    let status = ["STOPPED", "STARTING", "SCAN_QR_CODE", "WORKING", "FAILED", "DELETED"];
    json!({
        "name": text(),
        "status": { "type": "string", "enum": status },
        "instance_id": text(),
        "server_name": text(),
        "config": { "type": "object" },
        "me": { "type": ["object", "null"] },
    })
}

fn message() -> Schema {
    let fields = json!({
        "id": text(),
        "timestamp": { "type": "integer" },
        "fromMe": { "type": "boolean" },
        "to": text(),
        "body": text(),
    });
    object(&["id", "timestamp", "fromMe", "to", "body"], fields)
}

/// An object with these fields, of which some have to be there, and perhaps with others.
#[expect(clippy::needless_pass_by_value, reason = "callers make the value in place")]
pub(super) fn object(required: &[&str], properties: Value) -> Schema {
    let schema =
        json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": true });
    schema.try_into().expect("an object is a schema")
}
