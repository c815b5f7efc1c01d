//! A dry run is never done in earnest: not where it is not offered, and not when it is misspelt.

use serde_json::json;

use crate::gateway::Gateway;

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

#[tokio::test]
async fn what_cannot_be_tried_refuses_to_be() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let path = format!("/api/v1/orgs/{}", org.id);
    gateway.operator().delete(&format!("{path}?dry_run=true")).await.refused(400, "validation_error");
    gateway
        .operator()
        .patch(&format!("{path}?dry_run=true"), &json!({ "suspended": true }))
        .await
        .refused(400, "validation_error");
    assert_eq!(gateway.operator().get(&path).await.expect(200)["suspended"], false);
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
