//! Credentials that outlive what they were made from, and those that are two things at once. Each test tells what once was possible.

use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{Gateway, eventually};
use crate::world::text;

/// A key could be made the token of an instance, and opened the instance when it was long revoked.
#[tokio::test]
async fn a_key_is_no_token_of_an_instance() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let key = gateway.key(&org.id, &json!({ "name": "short", "capabilities": ["manage"] })).await;
    let create = json!({ "instanceName": "victim", "integration": "WHATSAPP-BAILEYS", "token": key });
    let client = Client::new(gateway.address, Some(&key));
    let refused = client.post("/instance/create", &create).await.expect(400);
    let said = refused["response"]["message"][0].as_str();
    assert!(said.is_some_and(|text| text.contains("must not begin")), "{refused}");
}

/// A message that was queued under a key was sent long after the key was revoked.
#[tokio::test]
async fn a_queued_message_is_not_sent_for_a_key_that_was_revoked() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let session = org.session().await;
    let keys = format!("/api/v1/orgs/{}/keys", org.id);
    let sender = org.client.post(&keys, &json!({ "name": "sender", "capabilities": ["send"] })).await.expect(201);
    let client = Client::new(gateway.address, Some(&text(&sender, "key")));
    let path = format!("/api/v1/sessions/{session}/messages");
    let message = json!({ "type": "text", "to": "628555@s.whatsapp.net", "text": "hello" });
    let queued = text(&client.post(&format!("{path}?async=true"), &message).await.expect(202), "outboxId");
    org.client.delete(&format!("{keys}/{}", text(&sender, "id"))).await.expect(204);
    org.link(&session).await;
    let failed = eventually("the message is settled", async || {
        let message = org.client.get(&format!("{path}/{queued}")).await.expect(200);
        (message["status"] != "queued").then_some(message)
    })
    .await;
    assert_eq!((&failed["status"], &failed["reason"]), (&json!("failed"), &json!("unauthorized")), "{failed}");
}

/// A ticket opened a socket when its key was long revoked.
#[tokio::test]
async fn a_ticket_of_a_revoked_key_opens_nothing() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let keys = format!("/api/v1/orgs/{}/keys", org.id);
    let listener = org.client.post(&keys, &json!({ "name": "listener", "capabilities": ["events"] })).await.expect(201);
    let client = Client::new(gateway.address, Some(&text(&listener, "key")));
    let ticket = text(&client.act("/api/v1/realtime/ticket").await.expect(201), "ticket");
    org.client.delete(&format!("{keys}/{}", text(&listener, "id"))).await.expect(204);
    let headers = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let path = format!("/api/v1/realtime?ticket={ticket}");
    gateway.stranger().send_with("GET", &path, headers, "".into()).await.refused(401, "unauthorized");
}

/// A key beside a token was tried first, so a token that had failed was retried as a key after all; and of two keys the first was taken.
#[tokio::test]
async fn credentials_that_contradict_each_other_open_nothing() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let key = org.client.key.clone().unwrap();
    let check = async |path: &str, headers: &[(&str, &str)], status: u16| {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let reply = gateway.stranger().send_with("GET", path, headers, "".into()).await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
    };
    let bearer = format!("Bearer {key}");
    check("/api/v1/sessions", &[("x-api-key", &key), ("authorization", "Bearer a.b.c")], 401).await;
    check("/api/v1/sessions", &[("x-api-key", ""), ("authorization", &bearer)], 200).await;
    check("/api/v1/sessions", &[("x-api-key", &key), ("x-api-key", "another")], 401).await;
    check("/instance/fetchInstances", &[("apikey", &key), ("apikey", "another")], 401).await;
    check("/v2/session/info?instance_id=x&access_token=another", &[("access-token", &key)], 401).await;
}

/// A client of the router knows no pages of sessions, and lost those beyond the first fifty.
#[tokio::test]
async fn sessions_come_in_pages_only_for_who_asks_for_them() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    for _ in 0..60 {
        org.session().await;
    }
    let count = |list: &Value| list["data"].as_array().map(Vec::len);
    let all = org.client.get("/api/v1/sessions").await.expect(200);
    assert_eq!((count(&all), all["nextCursor"].as_str()), (Some(60), None));
    let page = org.client.get("/api/v1/sessions?limit=50").await.expect(200);
    assert_eq!((count(&page), page["nextCursor"].is_string()), (Some(50), true));
}
