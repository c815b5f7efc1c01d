//! Idempotency keys: whatever is asked for twice with one key happens once, and is answered twice in the same words.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::client::{Client, Reply};
use crate::gateway::Gateway;
use crate::world::{Org, text};

/// Asks with an idempotency key.
async fn keyed(client: &Client, key: &str, method: &str, path: &str, body: Value) -> Reply {
    let headers = [("idempotency-key", key), ("content-type", "application/json")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    client.send_with(method, path, headers, body.into()).await
}

async fn post(client: &Client, key: &str, path: &str, body: Value) -> Reply {
    keyed(client, key, "POST", path, body).await
}

async fn count(org: &Org, path: &str) -> usize {
    org.client.get(path).await.expect(200)["data"].as_array().unwrap().len()
}

fn reason(reply: &Reply, status: u16) -> String {
    text(&reply.clone().expect(status)["error"]["details"], "reason")
}

#[tokio::test]
async fn whatever_is_asked_twice_with_one_key_is_done_once() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let hook = json!({ "url": "https://example.com/x", "events": ["*"] });
    let publisher = json!({ "name": "p", "publicKey": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=" });
    let fact = json!({ "id": "f1", "name": "paid", "data": {} });
    for (path, body, field, listed) in [
        ("/api/v1/sessions", json!({ "label": "one" }), "label", Some("/api/v1/sessions")),
        ("/api/v1/webhooks", hook, "url", Some("/api/v1/webhooks")),
        ("/api/v1/publishers", publisher, "name", Some("/api/v1/publishers")),
        ("/api/v1/events", fact, "id", None),
    ] {
        let first = post(&org.client, path, path, body.clone()).await;
        let again = post(&org.client, path, path, body.clone()).await;
        assert_eq!((first.status, &first.body), (again.status, &again.body), "{path}");
        assert!(first.status < 300, "{path}: {first:?}");
        assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), (None, Some("true")));
        if let Some(listed) = listed {
            assert_eq!(count(&org, listed).await, 1, "{path}");
        }
        // In other words it is another request.
        let mut other = body;
        other[field] = json!("https://example.com/another");
        assert_eq!(reason(&post(&org.client, path, path, other).await, 422), "idempotency_mismatch", "{path}");
    }
    let session = text(&org.client.get("/api/v1/sessions").await.expect(200)["data"][0], "id");
    let labels = format!("/api/v1/sessions/{session}/labels");
    let put = |value: &str| keyed(&org.client, "labels", "PUT", &labels, json!({ "a": value }));
    let first = put("b").await;
    org.client.put(&labels, &json!({ "a": "meanwhile" })).await.expect(200);
    assert_eq!(put("b").await.body, first.body, "the answer is what it was");
    assert_eq!(org.client.get(&format!("/api/v1/sessions/{session}")).await.expect(200)["labels"]["a"], "meanwhile");

    // A key of somebody else's is another key, and the same key of another caller is none to look behind.
    let other = gateway.org("Other").await;
    assert_eq!(
        post(&other.client, "/api/v1/sessions", "/api/v1/sessions", json!({ "label": "one" })).await.status,
        201
    );
    let colleague = json!({ "name": "colleague", "capabilities": ["manage"] });
    let colleague = org.client.post(&format!("/api/v1/orgs/{}/keys", org.id), &colleague).await.expect(201);
    let colleague = Client::new(org.client.address, Some(&text(&colleague, "key")));
    let peeked = post(&colleague, "/api/v1/sessions", "/api/v1/sessions", json!({ "label": "one" })).await;
    assert_eq!(reason(&peeked, 422), "idempotency_mismatch");

    // What was refused has taken no key.
    let hook = |host: &str| json!({ "url": format!("https://{host}/x"), "events": ["*"] });
    assert_eq!(post(&org.client, "hook", "/api/v1/webhooks", hook("127.0.0.1")).await.status, 400);
    assert_eq!(post(&org.client, "hook", "/api/v1/webhooks", hook("example.com")).await.status, 201);
    // A key has a longest.
    assert_eq!(post(&org.client, &"k".repeat(256), "/api/v1/sessions", json!({})).await.status, 400);
}

#[tokio::test]
async fn what_is_shown_once_is_not_shown_again() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let path = format!("/api/v1/orgs/{}/keys", org.id);
    let body = json!({ "name": "k", "capabilities": ["read"] });
    let first = post(&org.client, "key", &path, body.clone()).await;
    assert_eq!(first.status, 201);
    assert_eq!(reason(&post(&org.client, "key", &path, body).await, 409), "already_shown");
    {
        let body = json!({ "url": "https://example.com/x", "events": ["*"], "format": "standard" });
        let first = post(&org.client, "hook", "/api/v1/webhooks", body.clone()).await;
        assert!(String::from_utf8_lossy(&first.body).contains("whsec_"), "{first:?}");
        assert_eq!(reason(&post(&org.client, "hook", "/api/v1/webhooks", body).await, 409), "already_shown");
    }
    let names: BTreeSet<_> =
        org.client.get(&path).await.expect(200)["data"].as_array().unwrap().iter().map(|key| text(key, "id")).collect();
    assert_eq!(names.len(), 2, "the owner's own and this one");
}

#[tokio::test]
async fn an_answer_goes_with_its_session_and_outlives_a_crash() {
    let mut gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let made = post(&org.client, "make", "/api/v1/sessions", json!({ "label": "personal" })).await;
    let session = text(&serde_json::from_slice(&made.body).unwrap(), "id");
    gateway.kill().await;
    gateway.restart().await;
    let org = Org { client: Client::new(gateway.address, org.client.key.as_deref()), ..org };
    let again = post(&org.client, "make", "/api/v1/sessions", json!({ "label": "personal" })).await;
    assert_eq!((again.status, &again.body), (201, &made.body));
    assert_eq!(count(&org, "/api/v1/sessions").await, 1);

    let path = format!("/api/v1/sessions/{session}");
    let delete = || keyed(&org.client, "gone", "DELETE", &path, Value::Null);
    assert_eq!(delete().await.status, 204);
    let again = delete().await;
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (204, Some("true")),
        "the delete's own outlives it"
    );
    let again = post(&org.client, "make", "/api/v1/sessions", json!({ "label": "personal" })).await;
    assert_eq!(again.status, 404, "the answer was about somebody who is gone");
    assert_eq!(count(&org, "/api/v1/sessions").await, 0);
    gateway.kill().await;
    gateway.assert_sound().await;
}

/// The operator's own keys are the platform's, and under its key lay what was said about an organisation that was erased.
#[tokio::test]
async fn an_answer_about_an_organisation_goes_with_it() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator();
    let made = post(&operator, "org", "/api/v1/orgs", json!({ "name": "A personal name" })).await;
    let id = text(&serde_json::from_slice(&made.body).unwrap(), "id");
    let session = format!("/api/v1/sessions?org={id}");
    assert_eq!(post(&operator, "in", &session, json!({ "label": "x" })).await.status, 201);
    assert_eq!(post(&operator, "org", "/api/v1/orgs", json!({ "name": "A personal name" })).await.body, made.body);
    operator.delete(&format!("/api/v1/orgs/{id}")).await.expect(204);
    assert_eq!(post(&operator, "org", "/api/v1/orgs", json!({ "name": "A personal name" })).await.status, 404);
    assert_eq!(post(&operator, "in", &session, json!({ "label": "x" })).await.status, 404);
}

#[tokio::test]
async fn two_at_once_are_one() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let asked = (0..16).map(|_| post(&org.client, "one", "/api/v1/sessions", json!({ "label": "one" })));
    let replies = futures_util::future::join_all(asked).await;
    let statuses: BTreeSet<_> = replies.iter().map(|reply| reply.status).collect();
    assert!(statuses.is_subset(&BTreeSet::from([201, 409])) && statuses.contains(&201), "{statuses:?}");
    let bodies: BTreeSet<_> =
        replies.iter().filter(|reply| reply.status == 201).map(|reply| reply.body.to_vec()).collect();
    assert_eq!((bodies.len(), count(&org, "/api/v1/sessions").await), (1, 1));
}

/// The other dialects honour the header, too.
#[tokio::test]
async fn every_dialect_takes_keys() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    for (path, body) in [
        ("/v2/session/create", json!({})),
        ("/instance/create", json!({ "instanceName": "one", "integration": "WHATSAPP-BAILEYS" })),
    ] {
        let before = count(&org, "/api/v1/sessions").await;
        let first = post(&org.client, path, path, body.clone()).await;
        let again = post(&org.client, path, path, body).await;
        assert!(first.status < 300, "{path}: {first:?}");
        assert_eq!((first.status, &first.body), (again.status, &again.body), "{path}");
        assert_eq!(count(&org, "/api/v1/sessions").await, before + 1, "{path}");
    }
}
