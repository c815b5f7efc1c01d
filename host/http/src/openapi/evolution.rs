//! What is said of the routes of the Evolution dialect, from its wire documents.

use schemars::Schema;
use serde_json::{Value, json};

use super::doc::{Doc, JSON};
use super::schema::SchemaOf;
use super::wawp::object;
use crate::routes::Route;

/// What is said of a route besides what its row says.
pub(super) fn doc(route: &Route) -> Option<Doc> {
    let path = route.path.strip_suffix("/{instance}").unwrap_or(route.path);
    Some(match path {
        "/instance/create" => answers(201, "The new instance.", |_| {
            object(
                &["instance", "hash", "settings"],
                json!({ "instance": named("status"), "hash": text(), "settings": { "type": "object" } }),
            )
        })
        .takes_content(true, JSON, |_| {
            object(
                &["instanceName", "integration"],
                json!({
                    "instanceName": { "type": "string", "minLength": 1, "maxLength": 100 },
                    "integration": { "type": "string", "enum": ["WHATSAPP-BAILEYS"] },
                    "token": text(),
                    "number": text(),
                    "qrcode": flag(),
                    "webhook": { "type": "object" },
                }),
            )
        })
        .says("The instance's token is in `hash`."),
        "/instance/fetchInstances" => answers(200, "The instances.", |_| {
            list(&json!({
                "type": "object",
                "required": ["id", "name", "connectionStatus"],
                "properties": { "id": text(), "name": text(), "connectionStatus": state() },
                "additionalProperties": true,
            }))
        })
        .query("instanceName", "The only instance, by its name.", text())
        .query("instanceId", "The only instance, by its UUID.", text())
        .query("number", "The only instance, by its phone number.", text()),
        "/instance/connect" => answers(200, "A code, or the state of an instance that is open.", |_| {
            object(&[], json!({ "instance": named("state"), "count": { "type": "integer" } }))
        })
        .query("number", "The phone number to which a code to type is bound.", text())
        .says("What the instance's state does not allow is told with status 200 and `error: true`."),
        "/instance/restart" => answers(200, "A code, or the state.", |_| {
            object(&[], json!({ "instance": named("state"), "count": { "type": "integer" } }))
        })
        .says("What the instance's state does not allow is told with status 200 and `error: true`."),
        "/instance/connectionState" => {
            answers(200, "The state.", |_| object(&["instance"], json!({ "instance": named("state") })))
        }
        "/instance/setPresence" => presence(|_| object(&["presence"], json!({ "presence": presences() }))),
        "/chat/sendPresence" => presence(|_| {
            let delay = json!({ "type": "integer", "examples": [0] });
            object(
                &["number", "presence", "delay"],
                json!({ "number": number(), "presence": presences(), "delay": delay }),
            )
        }),
        "/instance/logout" => answers(200, "It was unlinked.", |_| success()),
        "/instance/delete" => answers(200, "It is gone.", |_| success()).content(
            202,
            "It waits to be deleted, or is being deleted.",
            JSON,
            |_| success(),
        ),
        "/webhook/set" => answers(201, "The webhook.", |_| webhook()).takes_content(true, JSON, |_| {
            let events = json!({ "type": "array", "items": text() });
            let fields = json!({ "enabled": flag(), "url": text(), "events": events });
            let webhook = object(&["enabled", "url"], fields).to_value();
            object(&["webhook"], json!({ "webhook": webhook }))
        }),
        "/webhook/find" => answers(200, "The webhook; null if there is none.", |_| or_null(&webhook())),
        "/settings/set" => {
            answers(201, "The settings.", |_| object(&["settings"], json!({ "settings": { "type": "object" } })))
                .takes_content(true, JSON, |_| settings())
        }
        "/settings/find" => answers(200, "The settings; null if there are none.", |_| or_null(&settings())),
        "/proxy/set" => answers(201, "The proxy.", |_| object(&[], json!({}))).takes_content(true, JSON, |_| {
            object(&["enabled", "host", "port", "protocol"], json!({ "enabled": flag(), "host": such_as("proxy.example.com"), "port": such_as("8080"), "protocol": such_as("http") }))
        }),
        "/proxy/find" => answers(200, "The proxy; null if there is none.", |_| or_null(&object(&[], json!({})))),
        "/message/sendText" => answers(201, "The message.", |_| {
            object(
                &["key", "status", "messageType", "messageTimestamp"],
                json!({ "key": { "type": "object" }, "status": text(), "messageTimestamp": { "type": "integer" } }),
            )
        })
        .takes_content(true, JSON, |_| {
            let delay = json!({ "type": "integer", "examples": [0] });
            object(&["number", "text"], json!({ "number": number(), "text": such_as("Hello."), "delay": delay }))
        })
        .header(
            "Idempotency-Key",
            "Under one key a message is sent once, however often it is asked for.",
            json!({ "type": "string", "pattern": "^[ -~]{1,255}$" }),
        ),
        "/chat/whatsappNumbers" => answers(200, "Whether WhatsApp knows each number.", |_| {
            list(&json!({
                "type": "object",
                "required": ["exists", "number"],
                "properties": { "jid": text(), "exists": flag(), "number": text() },
                "additionalProperties": true,
            }))
        })
        .takes_content(true, JSON, |_| {
            object(&["numbers"], json!({ "numbers": { "type": "array", "items": number(), "examples": [["628123456789"]] } }))
        }),
        "/verify-creds" => answers(200, "The key opens something.", |_| {
            object(&["status", "message"], json!({ "status": { "type": "integer" }, "message": text() }))
        }),
        _ => return None,
    })
}

/// What only was to be tried, in the envelope of a success.
pub(super) fn dry_run() -> Doc {
    Doc::default().content(200, "What policy would say.", JSON, |generator| {
        let verdict = super::schema::of::<crate::dialect::router::DryRunView>(generator).to_value();
        let fields = json!({ "status": text(), "error": flag(), "response": verdict });
        object(&["status", "error", "response"], fields)
    })
}

fn answers(status: u16, description: &'static str, schema: SchemaOf) -> Doc {
    Doc::default().content(status, description, JSON, schema)
}

fn presence(body: SchemaOf) -> Doc {
    answers(201, "It is shown.", |_| object(&["presence"], json!({ "presence": presences() })))
        .takes_content(true, JSON, body)
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn such_as(example: &str) -> Value {
    json!({ "type": "string", "examples": [example] })
}

fn number() -> Value {
    such_as("628123456789")
}

fn flag() -> Value {
    json!({ "type": "boolean" })
}

fn state() -> Value {
    json!({ "type": "string", "enum": ["open", "connecting", "close"] })
}

fn presences() -> Value {
    json!({ "type": "string", "enum": portcullis_core::operation::Presence::ALL.map(|presence| presence.name()) })
}

/// An instance by its name, with its state under a name that differs from answer to answer.
fn named(field: &str) -> Value {
    let mut properties = json!({ "instanceName": text() });
    properties[field] = state();
    object(&["instanceName"], properties).to_value()
}

fn success() -> Schema {
    let fields = json!({ "status": text(), "error": flag(), "response": { "type": "object" } });
    object(&["status", "error", "response"], fields)
}

fn webhook() -> Schema {
    let events = json!({ "type": "array", "items": text() });
    object(&["id", "url", "enabled", "events"], json!({ "url": text(), "enabled": flag(), "events": events }))
}

fn settings() -> Schema {
    let flags = ["rejectCall", "groupsIgnore", "alwaysOnline", "readMessages", "readStatus", "syncFullHistory"];
    let properties: serde_json::Map<_, _> = flags.iter().map(|name| ((*name).to_owned(), flag())).collect();
    object(&flags, Value::Object(properties))
}

fn or_null(schema: &Schema) -> Schema {
    json!({ "anyOf": [schema, { "type": "null" }] }).try_into().expect("an object is a schema")
}

fn list(of: &Value) -> Schema {
    json!({ "type": "array", "items": of }).try_into().expect("an object is a schema")
}
