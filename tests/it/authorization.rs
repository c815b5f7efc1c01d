//! Every route against every kind of caller who may not use it.
//!
//! The routes come from the gateway's own table and the requests from [`SAMPLES`]; a route without a sample fails, so none is forgotten.

use bytes::Bytes;
use portcullis_core::Capability;
use portcullis_http::{RouteInfo, route_table};
use serde_json::json;

use crate::client::{Client, Reply};
use crate::gateway::Gateway;
use crate::world::{ALL, Org, text};

/// A request to every route: its path has the ids of an owner filled in, its body is this.
const SAMPLES: &[(&str, &str, &str)] = &[
    ("POST", "/api/v1/sessions", "{}"),
    ("GET", "/api/v1/sessions", ""),
    ("GET", "/api/v1/sessions/{id}", ""),
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
    ("POST", "/api/v1/sessions/{id}/messages", r#"{"type": "text", "to": "6281@s.whatsapp.net", "text": "hi"}"#),
    ("POST", "/api/v1/sessions/{id}/simulator:scan", ""),
    ("POST", "/api/v1/sessions/{id}/simulator:unlink", ""),
    ("POST", "/api/v1/sessions/{id}/simulator:disconnect", ""),
    ("POST", "/api/v1/sessions/{id}/simulator:receive", r#"{"from": "6281@s.whatsapp.net", "text": "hi"}"#),
    ("POST", "/api/v1/sessions/{id}/simulator:limit", r#"{"code": "463"}"#),
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
    ("GET", "/api/v1/decisions", ""),
    ("GET", "/api/v1/decisions/{id}", ""),
    ("GET", "/api/v1/audit", ""),
    // What takes something away comes last, so that everything before it is about things that are there.
    ("DELETE", "/api/v1/bindings/{id}", ""),
    ("DELETE", "/api/v1/sessions/{id}", ""),
    ("DELETE", "/api/v1/orgs/{id}/keys/{key}", ""),
    ("DELETE", "/api/v1/plugins/{id}", ""),
    ("DELETE", "/api/v1/orgs/{id}", ""),
];

/// An organisation with one of everything.
struct Owner {
    org: Org,
    session: String,
    plugin: String,
    binding: String,
    decision: String,
    key: String,
}

impl Owner {
    async fn new(gateway: &Gateway) -> Self {
        let org = gateway.org("The Owner's Name").await;
        let plugin = org.catalogue("grace-delete").await;
        let binding = org.bind(&plugin, json!({ "legalHoldLabel": "the-owners-label" })).await;
        let session = org.working().await;
        org.client.delete(&format!("/api/v1/sessions/{session}")).await.expect(202);
        org.client.act(&format!("/api/v1/sessions/{session}:restore")).await.expect(200);
        let decisions = org.client.get("/api/v1/decisions").await.expect(200);
        let key = json!({ "name": "spare", "capabilities": ["read"] });
        let key = org.client.post(&format!("/api/v1/orgs/{}/keys", org.id), &key).await.expect(201);
        let (decision, key) = (text(&decisions["data"][0], "id"), text(&key, "id"));
        Self { org, session, plugin, binding, decision, key }
    }

    /// The path of a route with this owner's ids. A route without ids names the organisation.
    fn path(&self, pattern: &str) -> String {
        let id = match pattern.split('/').nth(3) {
            Some("sessions") => &self.session,
            Some("orgs") => &self.org.id,
            Some("plugins") => &self.plugin,
            Some("bindings") => &self.binding,
            Some("decisions") => &self.decision,
            _ => "",
        };
        let filled = pattern.replace("{id}", id).replace("{key}", &self.key);
        if filled == pattern && !pattern.starts_with("/api/v1/orgs") {
            format!("{filled}?org={}", self.org.id)
        } else {
            filled
        }
    }

    /// Whatever nobody else may read.
    fn secrets(&self) -> [&str; 8] {
        let Self { org, session, plugin, binding, decision, key } = self;
        [&org.id, session, plugin, binding, decision, key, "The Owner's Name", "628123456789"]
    }
}

fn route(method: &str, path: &str) -> RouteInfo {
    let found = route_table().into_iter().find(|route| route.method == method && route.path == path);
    found.unwrap_or_else(|| panic!("the sample {method} {path} has no route"))
}

/// Every capability but the one that is needed, and those that include it.
fn lacking(needed: Capability) -> Vec<&'static str> {
    let gives = |name: &str| name == needed.name() || needed == Capability::Read && name == "manage";
    ALL.into_iter().filter(|name| !gives(name)).collect()
}

#[test]
fn every_route_has_a_sample() {
    for route in route_table() {
        let sampled = SAMPLES.iter().any(|(method, path, _)| *method == route.method && *path == route.path);
        assert!(sampled, "{} {} has no sample request", route.method, route.path);
    }
    assert_eq!(SAMPLES.len(), route_table().len());
}

#[tokio::test]
async fn no_route_serves_who_may_not_use_it() {
    let gateway = Gateway::start().await;
    let owner = Owner::new(&gateway).await;
    let other = gateway.org("Other").await;
    let operator = gateway.operator();
    let keys = format!("/api/v1/orgs/{}/keys", owner.org.id);
    let revoked = operator.post(&keys, &json!({ "name": "gone", "capabilities": ALL })).await.expect(201);
    operator.delete(&format!("{keys}/{}", text(&revoked, "id"))).await.expect(204);
    let with = |key: &str| Client::new(gateway.address, Some(key));

    for (method, pattern, body) in SAMPLES {
        let needed = route(method, pattern).operation.row().capability;
        let path = owner.path(pattern);
        let body = Bytes::from(body.replace("PLUGIN", &owner.plugin));
        let lacking = gateway.capable(&owner.org, &lacking(needed)).await;
        // What is the operator's alone is forbidden to everybody, and says nothing about whether a thing is there.
        let foreign = if needed == Capability::Operate { 403 } else { 404 };
        let callers = [
            ("no key", gateway.stranger(), 401),
            ("a garbage key", with("garbage"), 401),
            ("a revoked key", with(&text(&revoked, "key")), 401),
            ("another capability", lacking, 403),
            ("another organisation", other.client.clone(), foreign),
        ];
        for (who, caller, status) in callers {
            let reply = caller.send(method, &path, body.clone()).await;
            assert_eq!(reply.status, status, "{method} {pattern} with {who}: {reply:?}");
            silent(&owner, &reply, &format!("{method} {pattern} with {who}"));
        }
    }
}

/// The samples would mean nothing if they were refused for what they are.
#[tokio::test]
async fn every_sample_is_served_to_who_may_use_it() {
    let gateway = Gateway::start().await;
    let owner = Owner::new(&gateway).await;
    for (method, pattern, body) in SAMPLES {
        let needed = route(method, pattern).operation.row().capability;
        let caller = if needed == Capability::Operate { gateway.operator() } else { owner.org.client.clone() };
        let body = Bytes::from(body.replace("PLUGIN", &owner.plugin));
        let binds = *method == "DELETE" && pattern.starts_with("/api/v1/plugins");
        if binds {
            // The sample of a new binding left one more.
            let bindings = caller.get("/api/v1/bindings").await.expect(200);
            for binding in bindings["data"].as_array().unwrap() {
                caller.delete(&format!("/api/v1/bindings/{}", text(binding, "id"))).await.expect(204);
            }
        }
        let reply = caller.send(method, &owner.path(pattern), body).await;
        assert!(![401, 403, 405].contains(&reply.status), "{method} {pattern}: {reply:?}");
        let missing = reply.status == 404 && text(&reply.json()["error"], "message").ends_with(" not found");
        assert!(!missing, "{method} {pattern}: {reply:?}");
    }
}

fn silent(owner: &Owner, reply: &Reply, asked: &str) {
    let body = String::from_utf8_lossy(&reply.body);
    for secret in owner.secrets() {
        assert!(!body.contains(secret), "{asked} tells {secret}: {body}");
    }
}
