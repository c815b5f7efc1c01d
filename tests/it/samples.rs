//! A request to every route of every dialect, and an owner whose things it is about.
//!
//! In paths, `{id}`, `{key}` and `{message}` become the owner's ids, `{instance}` the name of one of their sessions;
//! a Wawp request names another one in its query.

use bytes::Bytes;
use portcullis_http::{Dialect, RouteInfo, route_table};
use serde_json::json;

use crate::client::{Client, Reply};
use crate::gateway::Gateway;
use crate::world::{Org, text};

const SETTINGS: &str = r#"{"rejectCall": true, "groupsIgnore": false, "alwaysOnline": false, "readMessages": false, "readStatus": false, "syncFullHistory": false}"#;
const PROXY: &str = r#"{"enabled": true, "host": "proxy.example.com", "port": "8080", "protocol": "http", "username": "", "password": ""}"#;

/// The name of a secret of the owner's plugin.
const SECRET: &str = "api-token";
/// A public key of nobody's.
const PUBLIC_KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

/// Method, path and body.
#[rustfmt::skip]
pub(crate) const SAMPLES: &[(&str, &str, &str)] = &[
    ("POST", "/api/v1/sessions", "{}"),
    ("GET", "/api/v1/sessions", ""),
    ("GET", "/api/v1/sessions/{id}", ""),
    ("GET", "/api/v1/admin/sessions", ""),
    ("GET", "/api/v1/admin/backup", ""),
    ("GET", "/api/v1/admin/backup/keys", ""),
    ("POST", "/api/v1/admin/master-key:rotate", ""),
    ("GET", "/api/v1/sessions/{id}/messages/{message}", ""),
    ("POST", "/api/v1/sessions/{id}/messages", r#"{"type": "text", "to": "6281@s.whatsapp.net", "text": "hi"}"#),
    ("POST", "/api/v1/sessions/{id}:start", ""),
    ("POST", "/api/v1/sessions/{id}:stop", ""),
    ("POST", "/api/v1/sessions/{id}:restart", ""),
    ("POST", "/api/v1/sessions/{id}:logout", ""),
    ("POST", "/api/v1/sessions/{id}:restore", ""),
    ("GET", "/api/v1/sessions/{id}/me", ""),
    ("GET", "/api/v1/sessions/{id}/qr", ""),
    ("POST", "/api/v1/sessions/{id}/pairing-code", r#"{"phone": "628123456789"}"#),
    ("PUT", "/api/v1/sessions/{id}/labels", r#"{"a": "b"}"#),
    ("GET", "/api/v1/sessions/{id}/rate-policy", ""),
    ("PUT", "/api/v1/sessions/{id}/rate-policy", r#"{"policy": "strict"}"#),
    ("GET", "/api/v1/sessions/{id}/settings", ""),
    ("PUT", "/api/v1/sessions/{id}/settings", r#"{"autoRead": true, "presenceTyping": true}"#),
    ("GET", "/api/v1/sessions/{id}/proxy", ""),
    ("PUT", "/api/v1/sessions/{id}/proxy", r#"{"protocol": "http", "host": "proxy.example.com", "port": 8080}"#),
    ("DELETE", "/api/v1/sessions/{id}/proxy", ""),
    ("GET", "/api/v1/sessions/{id}/link", ""),
    ("POST", "/api/v1/sessions/{id}/link", ""),
    ("DELETE", "/api/v1/sessions/{id}/link", ""),
    ("POST", "/api/v1/sessions/{id}/simulator:scan", ""),
    ("POST", "/api/v1/sessions/{id}/simulator:unlink", ""),
    ("POST", "/api/v1/sessions/{id}/simulator:disconnect", ""),
    ("POST", "/api/v1/sessions/{id}/simulator:receive", r#"{"from": "6281@s.whatsapp.net", "text": "hi"}"#),
    ("POST", "/api/v1/sessions/{id}/simulator:limit", r#"{"code": "463"}"#),
    ("POST", "/api/v1/webhooks", r#"{"url": "https://example.com/hook", "events": ["*"]}"#),
    ("GET", "/api/v1/webhooks", ""),
    ("GET", "/api/v1/webhooks/{id}", ""),
    ("POST", "/api/v1/webhooks/{id}:rotate-secret", ""),
    ("POST", "/api/v1/webhooks/{id}:test", ""),
    ("POST", "/api/v1/webhooks/{id}:replay", r#"{"since": 0}"#),
    ("GET", "/api/v1/webhooks/{id}/deliveries", ""),
    ("GET", "/api/v1/webhooks/{id}/deliveries/{delivery}", ""),
    ("POST", "/api/v1/webhooks/{id}/deliveries/{delivery}:replay", ""),
    ("PATCH", "/api/v1/webhooks/{id}", r#"{"active": false}"#),
    ("GET", "/api/v1/events", ""),
    ("POST", "/api/v1/realtime/ticket", "{}"),
    ("GET", "/metrics", ""),
    ("POST", "/api/v1/orgs", r#"{"name": "another"}"#),
    ("GET", "/api/v1/orgs", ""),
    ("GET", "/api/v1/orgs/{id}", ""),
    ("PATCH", "/api/v1/orgs/{id}", r#"{"suspended": false}"#),
    ("POST", "/api/v1/orgs/{id}/keys", r#"{"name": "k", "capabilities": ["read"]}"#),
    ("GET", "/api/v1/orgs/{id}/keys", ""),
    ("POST", "/api/v1/plugins", r#"{"catalog": "rate-ladder"}"#),
    ("GET", "/api/v1/plugins", ""),
    ("GET", "/api/v1/plugins/catalog", ""),
    ("GET", "/api/v1/plugins/{id}", ""),
    ("GET", "/api/v1/plugins/{id}/versions", ""),
    ("POST", "/api/v1/bindings", r#"{"plugin": "PLUGIN"}"#),
    ("GET", "/api/v1/bindings", ""),
    ("GET", "/api/v1/bindings/{id}", ""),
    ("PATCH", "/api/v1/bindings/{id}", r#"{"mode": "off"}"#),
    ("POST", "/api/v1/bindings/{id}:promote", ""),
    ("POST", "/api/v1/bindings/{id}:rollback", ""),
    ("POST", "/api/v1/bindings/{id}:resume", ""),
    ("POST", "/api/v1/plugins/{id}:replay", "{}"),
    ("POST", "/api/v1/plugins/{id}:scan", "{}"),
    ("GET", "/api/v1/plugins/rules", ""),
    ("PUT", "/api/v1/plugins/rules", r#"{"requireSignature": false}"#),
    ("GET", "/api/v1/plugins/{id}/log", ""),
    ("GET", "/api/v1/plugins/{id}/requests", ""),
    ("GET", "/api/v1/plugins/{id}/secrets", ""),
    ("PUT", "/api/v1/plugins/{id}/secrets/{name}", r#"{"value": "hush"}"#),
    ("POST", "/api/v1/publishers", r#"{"name": "p", "publicKey": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="}"#),
    ("GET", "/api/v1/publishers", ""),
    ("POST", "/api/v1/events", r#"{"id": "inv_7", "name": "subscription.cancelled", "data": {}}"#),
    ("GET", "/api/v1/decisions", ""),
    ("GET", "/api/v1/decisions/{id}", ""),
    ("GET", "/api/v1/audit", ""),
    ("GET", "/api/v1/audit/export", ""),
    ("GET", "/api/v1/receipts/{id}", ""),
    ("GET", "/api/v1/sessions/{id}/export", ""),

    ("POST", "/v2/session/create", ""),
    ("POST", "/v2/send/text", r#"{"chatId": "6281@c.us", "message": "hi"}"#),
    ("GET", "/v2/send/text", r#"{"chatId": "6281@c.us", "message": "hi"}"#),
    ("POST", "/v2/session/info", ""),
    ("GET", "/v2/session/info", ""),
    ("POST", "/v2/session/status", ""),
    ("GET", "/v2/session/status", ""),
    ("POST", "/v2/status", ""),
    ("GET", "/v2/status", ""),
    ("GET", "/v2/session/me", ""),
    ("GET", "/v2/session/rate-limit", ""),
    ("PATCH", "/v2/session/rate-limit", r#"{"policy_slug": "strict"}"#),
    ("GET", "/v2/session/temp-link", ""),
    ("POST", "/v2/session/temp-link", ""),
    ("DELETE", "/v2/session/temp-link", ""),
    ("GET", "/v2/session/webhook", ""),
    ("POST", "/v2/session/webhook", r#"{"webhooks": []}"#),
    ("POST", "/v2/session/stop", ""),
    ("GET", "/v2/session/stop", ""),
    ("POST", "/v2/session/start", ""),
    ("GET", "/v2/session/start", ""),
    ("POST", "/v2/session/restart", ""),
    ("GET", "/v2/session/restart", ""),
    ("POST", "/v2/session/logout", ""),
    ("GET", "/v2/session/logout", ""),
    ("POST", "/v2/logout", ""),
    ("GET", "/v2/logout", ""),
    ("POST", "/v2/auth/qr", ""),
    ("GET", "/v2/auth/qr", ""),
    ("POST", "/v2/auth/qr-image", ""),
    ("GET", "/v2/auth/qr-image", ""),
    ("POST", "/v2/auth/request-code", r#"{"phone_number": "628123456789"}"#),

    ("POST", "/instance/create", r#"{"instanceName": "another", "integration": "WHATSAPP-BAILEYS"}"#),
    ("GET", "/instance/fetchInstances", ""),
    ("POST", "/message/sendText/{instance}", r#"{"number": "6281234567", "text": "hi"}"#),
    ("POST", "/chat/whatsappNumbers/{instance}", r#"{"numbers": ["6281234567"]}"#),
    ("POST", "/chat/sendPresence/{instance}", r#"{"number": "6281234567", "presence": "composing", "delay": 1}"#),
    ("POST", "/instance/setPresence/{instance}", r#"{"presence": "available"}"#),
    ("GET", "/instance/connectionState/{instance}", ""),
    ("GET", "/instance/connect/{instance}", ""),
    ("POST", "/instance/restart/{instance}", ""),
    ("POST", "/webhook/set/{instance}", r#"{"webhook": {"enabled": true, "url": "https://example.com/hook"}}"#),
    ("GET", "/webhook/find/{instance}", ""),
    ("POST", "/settings/set/{instance}", SETTINGS),
    ("GET", "/settings/find/{instance}", ""),
    ("POST", "/proxy/set/{instance}", PROXY),
    ("GET", "/proxy/find/{instance}", ""),
    ("POST", "/verify-creds", ""),
    ("DELETE", "/instance/logout/{instance}", ""),

    // What takes something away comes last, so that everything before it is about things that are there.
    ("DELETE", "/instance/delete/{instance}", ""),
    ("DELETE", "/v2/delete", ""),
    ("DELETE", "/v2/session/delete", ""),
    ("DELETE", "/api/v1/plugins/{id}/secrets/{name}", ""),
    ("DELETE", "/api/v1/publishers/{id}", ""),
    ("DELETE", "/api/v1/webhooks/{id}", ""),
    ("DELETE", "/api/v1/bindings/{id}", ""),
    ("DELETE", "/api/v1/sessions/{id}", ""),
    ("DELETE", "/api/v1/orgs/{id}/keys/{key}", ""),
    ("DELETE", "/api/v1/plugins/{id}", ""),
    ("DELETE", "/api/v1/orgs/{id}", ""),
];

/// The route of a sample.
pub(crate) fn route(method: &str, path: &str) -> RouteInfo {
    let found = route_table().into_iter().find(|route| route.method == method && route.path == path);
    found.unwrap_or_else(|| panic!("the sample {method} {path} has no route"))
}

/// An organisation with one of everything, and a session for each dialect.
pub(crate) struct Owner {
    pub(crate) org: Org,
    pub(crate) session: String,
    /// A session that is gone.
    erased: String,
    pub(crate) plugin: String,
    pub(crate) binding: String,
    pub(crate) decision: String,
    pub(crate) key: String,
    webhook: String,
    /// What the webhook was told.
    delivery: String,
    message: String,
    publisher: String,
    /// The session of the Wawp requests, by its `instance_id`; the others of its kind are for what deletes.
    wawp: [String; 3],
    /// The session of the Evolution requests.
    pub(crate) instance: String,
    /// The token of that session.
    pub(crate) token: String,
}

impl Owner {
    pub(crate) async fn new(gateway: &Gateway) -> Self {
        let org = gateway.org("The Owner's Name").await;
        let plan = json!({ "plan": { "name": "business", "active": true } });
        gateway.operator().patch(&format!("/api/v1/orgs/{}", org.id), &plan).await.expect(200);
        let erased = text(&org.client.post("/api/v1/sessions", &json!({})).await.expect(201), "id");
        org.client.delete(&format!("/api/v1/sessions/{erased}")).await.expect(204);
        let plugin = org.catalogue("grace-delete").await;
        let binding = org.bind(&plugin, json!({ "legalHoldLabel": "the-owners-label" })).await;
        let session = org.working().await;
        org.client.delete(&format!("/api/v1/sessions/{session}")).await.expect(202);
        org.client.act(&format!("/api/v1/sessions/{session}:restore")).await.expect(200);
        org.reaches(&session, "working").await;
        let decisions = org.client.get("/api/v1/decisions").await.expect(200);
        let key = json!({ "name": "spare", "capabilities": ["read"] });
        let key = org.client.post(&format!("/api/v1/orgs/{}/keys", org.id), &key).await.expect(201);
        let hook = json!({ "url": "https://example.com/the-owners-hook", "events": ["*"], "secret": "hush" });
        let webhook = text(&org.client.post("/api/v1/webhooks", &hook).await.expect(201), "id");
        let tested = org.client.act(&format!("/api/v1/webhooks/{webhook}:test")).await.expect(202);
        let delivery = text(&tested, "id");
        let message = json!({ "type": "text", "to": "628555@s.whatsapp.net", "text": "the owner's text" });
        let queued = format!("/api/v1/sessions/{session}/messages?async=true");
        let message = text(&org.client.post(&queued, &message).await.expect(202), "outboxId");
        let secret = format!("/api/v1/plugins/{plugin}/secrets/{SECRET}");
        org.client.put(&secret, &json!({ "value": "the owner's hush" })).await.expect(204);
        let publisher = json!({ "name": "The Owner's Publisher", "publicKey": PUBLIC_KEY });
        let publisher = text(&org.client.post("/api/v1/publishers", &publisher).await.expect(201), "id");
        let mut wawp = [const { String::new() }; 3];
        for instance_id in &mut wawp {
            let id = org.working().await;
            *instance_id = text(&org.client.get(&format!("/api/v1/sessions/{id}")).await.expect(200), "instanceId");
        }
        let instance = "the-owners-instance".to_owned();
        let token = "THE-OWNERS-TOKEN-OF-AN-INSTANCE".to_owned();
        let create =
            json!({ "instanceName": instance, "integration": "WHATSAPP-BAILEYS", "token": token, "qrcode": true });
        Self::ask(&org.client, Dialect::Evolution, "POST", "/instance/create", create.to_string().into())
            .await
            .expect(201);
        let all = org.client.get("/api/v1/sessions").await.expect(200);
        let id = all["data"].as_array().unwrap().iter().find(|session| session["instanceName"] == instance.as_str());
        org.link(&text(id.unwrap(), "id")).await;
        let (decision, key) = (text(&decisions["data"][0], "id"), text(&key, "id"));
        Self {
            org,
            session,
            erased,
            plugin,
            binding,
            decision,
            key,
            webhook,
            delivery,
            message,
            publisher,
            wawp,
            instance,
            token,
        }
    }

    /// The target of a route with this owner's ids. A route without ids names the organisation.
    pub(crate) fn target(&self, method: &str, route: &RouteInfo) -> String {
        let pattern = &route.path;
        match route.dialect {
            Dialect::Evolution => return pattern.replace("{instance}", &self.instance),
            Dialect::Wawp if pattern.ends_with("/create") => return pattern.clone(),
            Dialect::Wawp => {
                let spare = match (method, pattern.as_str()) {
                    ("DELETE", "/v2/delete") => 1,
                    ("DELETE", "/v2/session/delete") => 2,
                    _ => 0,
                };
                return format!("{pattern}?instance_id={}", self.wawp[spare]);
            }
            Dialect::Router => {}
        }
        let id = match pattern.split('/').nth(3) {
            Some("sessions") => &self.session,
            Some("orgs") => &self.org.id,
            Some("plugins") => &self.plugin,
            Some("bindings") => &self.binding,
            Some("decisions") => &self.decision,
            Some("publishers") => &self.publisher,
            Some("webhooks") => &self.webhook,
            Some("receipts") => &self.erased,
            _ => "",
        };
        let filled = pattern.replace("{id}", id).replace("{key}", &self.key).replace("{message}", &self.message);
        let filled = filled.replace("{name}", SECRET).replace("{delivery}", &self.delivery);
        let names_org =
            pattern.starts_with("/api/v1/orgs") || pattern.starts_with("/api/v1/admin") || pattern == "/metrics";
        if filled == *pattern && !names_org { format!("{filled}?org={}", self.org.id) } else { filled }
    }

    /// Whatever nobody else may read.
    pub(crate) fn secrets(&self) -> Vec<&str> {
        let Self {
            org,
            session,
            erased,
            plugin,
            binding,
            decision,
            key,
            webhook,
            // Every organisation counts its own.
            delivery: _,
            message,
            publisher,
            wawp,
            instance: _,
            token,
        } = self;
        let mut secrets: Vec<&str> =
            [&org.id, session, erased, plugin, binding, decision, key, webhook, message, publisher, token]
                .map(String::as_str)
                .to_vec();
        secrets.extend(wawp.iter().map(String::as_str));
        secrets.extend([
            "The Owner's Name",
            "628123456789",
            "the-owners-hook",
            "the owner's text",
            "The Owner's Publisher",
        ]);
        secrets
    }

    /// Asks with a client's key, as a client of the dialect says it.
    pub(crate) async fn ask(client: &Client, dialect: Dialect, method: &str, target: &str, body: Bytes) -> Reply {
        let header = match dialect {
            Dialect::Router => "x-api-key",
            Dialect::Wawp => "access-token",
            Dialect::Evolution => "apikey",
        };
        let mut headers: Vec<_> = client.key.iter().map(|key| (header.to_owned(), key.clone())).collect();
        if !body.is_empty() {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        Client::new(client.address, None).send_with(method, target, headers, body).await
    }
}
