//! A dry run is never done in earnest: not by any route of any dialect, and not when it is misspelt.

use bytes::Bytes;
use portcullis_core::Capability;
use portcullis_http::Dialect;
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::samples::{Owner, SAMPLES, route};

#[tokio::test]
async fn a_misspelt_dry_run_changes_nothing() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let session = org.session().await;
    let path = format!("/api/v1/sessions/{session}");
    for query in ["dry_run=TRUE", "dry_run=yes", "dryRun=true", "dry-run=true", "dry_run=true&other=1"] {
        org.client.delete(&format!("{path}?{query}")).await.refused(400, "validation_error");
    }
    org.client.get(&path).await.expect(200);
    // What only reads takes whatever a client adds, such as a value that defeats caches.
    org.client.get(&format!("{path}?_=1")).await.expect(200);
    org.client.delete(&format!("{path}?dry_run=false")).await.expect(204);
}

/// Every call that changes something can be tried: in all dialects, with the same document, and without a trace.
#[tokio::test]
async fn whatever_can_be_done_can_be_tried() {
    let gateway = Gateway::start().await;
    let owner = Owner::new(&gateway).await;
    let client = &owner.org.client;
    let everything = async || {
        let org = format!("/api/v1/orgs/{}", owner.org.id);
        let mut state = vec![gateway.operator().get(&org).await.expect(200)];
        for list in ["sessions", "webhooks", "plugins", "bindings", "decisions", "audit"] {
            state.push(client.get(&format!("/api/v1/{list}")).await.expect(200));
        }
        state.push(client.get(&format!("{org}/keys")).await.expect(200));
        state.push(gateway.operator().get("/api/v1/orgs").await.expect(200));
        state
    };
    let before = everything().await;
    for (method, pattern, body) in SAMPLES {
        let route = route(method, pattern);
        let row = route.operation.row();
        if !row.mutates {
            continue;
        }
        let caller = if row.capability == Capability::Operate { gateway.operator() } else { client.clone() };
        let target = owner.target(method, &route);
        let target = format!("{target}{}dry_run=true", if target.contains('?') { "&" } else { "?" });
        let body = Bytes::from(body.replace("PLUGIN", &owner.plugin));
        let reply = Owner::ask(&caller, route.dialect, method, &target, body).await;
        // What would be refused is refused; what would be done is told in one form.
        if reply.status == 200 {
            let told = reply.json();
            let told = if route.dialect == Dialect::Evolution { &told["response"] } else { &told };
            assert_eq!(told["dry_run"], true, "{method} {pattern}: {told}");
            assert!(told["verdict"]["is"].is_string(), "{method} {pattern}: {told}");
        } else {
            assert!([400, 403, 409, 501].contains(&reply.status), "{method} {pattern}: {reply:?}");
        }
    }
    assert_eq!(everything().await, before);
}

#[tokio::test]
async fn what_would_be_refused_is_refused_to_who_tries_it() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let path = format!("/api/v1/orgs/{}", org.id);
    gateway.operator().patch(&path, &json!({ "quotas": { "plugins": 0, "keys": 1, "bindings": 0 } })).await.expect(200);
    let key = json!({ "name": "one too many", "capabilities": ["read"] });
    org.client.post(&format!("{path}/keys?dry_run=true"), &key).await.refused(403, "forbidden");
    let catalogue = json!({ "catalog": "grace-delete" });
    org.client.post("/api/v1/plugins?dry_run=true", &catalogue).await.refused(403, "forbidden");
    org.client.post("/api/v1/plugins?dry_run=true&wait=false", &catalogue).await.refused(403, "forbidden");
    let garbage = Bytes::from_static(b"garbage");
    org.client.send("POST", "/api/v1/plugins?dry_run=true", garbage).await.refused(400, "validation_error");
    gateway.operator().patch(&path, &json!({ "quotas": { "plugins": 1 } })).await.expect(200);
    let plugin = org.catalogue("grace-delete").await;
    let bind = |settings: Value| json!({ "plugin": plugin, "settings": settings });
    let tried = "/api/v1/bindings?dry_run=true";
    org.client.post(tried, &bind(json!({ "grace": "never" }))).await.refused(422, "unprocessable");
    org.client.post(tried, &bind(json!({ "grace": "PT1H" }))).await.refused(403, "forbidden");
}

/// A dry run says what the operation would be answered, also where that is a refusal that policy has no part in.
#[tokio::test]
async fn a_dry_run_is_refused_as_the_operation_would_be() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let session = org.session().await;
    let path = format!("/api/v1/sessions/{session}");
    org.client.post(&format!("{path}:start?dry_run=true"), &json!({})).await.refused(400, "validation_error");
    org.client.post(&format!("{path}:restore?dry_run=true"), &json!({})).await.refused(409, "conflict");
    let unknown = json!({ "ratePolicy": "no-such" });
    org.client.post("/api/v1/sessions?dry_run=true", &unknown).await.refused(400, "validation_error");
}

#[tokio::test]
async fn a_change_of_one_quota_leaves_the_others() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let path = format!("/api/v1/orgs/{}", org.id);
    gateway.operator().patch(&path, &json!({ "quotas": { "sessions": 7 } })).await.expect(200);
    let changed = gateway.operator().patch(&path, &json!({ "quotas": { "keys": 9 } })).await.expect(200);
    assert_eq!((&changed["quotas"]["sessions"], &changed["quotas"]["keys"]), (&json!(7), &json!(9)));
}

/// Revoked keys open nothing, so they take nobody's place.
#[tokio::test]
async fn a_revoked_key_frees_its_place() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let path = format!("/api/v1/orgs/{}", org.id);
    gateway.operator().patch(&path, &json!({ "quotas": { "keys": 3 } })).await.expect(200);
    for _ in 0..5 {
        let key = json!({ "name": "x", "capabilities": ["read"] });
        let made = gateway.operator().post(&format!("{path}/keys"), &key).await.expect(201);
        let id = made["id"].as_str().unwrap();
        gateway.operator().delete(&format!("{path}/keys/{id}")).await.expect(204);
    }
}

/// The operator has to be able to intervene where nobody else may.
#[tokio::test]
async fn the_operator_can_restore_a_session_of_a_suspended_organisation() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let plugin = org.catalogue("grace-delete").await;
    let binding = json!({ "plugin": plugin, "settings": { "grace": "PT1H" } });
    org.client.post("/api/v1/bindings", &binding).await.expect(201);
    let path = format!("/api/v1/sessions/{}", org.session().await);
    org.client.delete(&path).await.expect(202);
    gateway.operator().patch(&format!("/api/v1/orgs/{}", org.id), &json!({ "suspended": true })).await.expect(200);
    org.client.post(&format!("{path}:restore"), &json!({})).await.refused(403, "forbidden");
    gateway.operator().post(&format!("{path}:restore?org={}", org.id), &json!({})).await.expect(200);
}
