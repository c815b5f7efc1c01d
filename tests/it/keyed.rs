//! Idempotency keys: whatever is asked for twice with one key happens once, and is answered twice in the same words.

use std::collections::BTreeSet;

use redb::{Database, ReadableTable, TableDefinition};
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

/// Cuts every kept reply off its key, in the data of a gateway that is down: what a crash leaves that comes between the commit of an
/// operation and that of its reply.
fn lose_replies(gateway: &Gateway) {
    const REPLIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("replies-2");
    /// Time, digest, three ids and a byte.
    const CLAIM: usize = 8 + 32 + 3 * 16 + 1;
    let data = Database::open(gateway.data().join("portcullis.redb")).unwrap();
    let transaction = data.begin_write().unwrap();
    {
        let mut replies = transaction.open_table(REPLIES).unwrap();
        let rows: Vec<_> = replies
            .iter()
            .unwrap()
            .map(|row| row.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).unwrap())
            .collect();
        assert!(!rows.is_empty(), "no reply was kept");
        for (key, value) in rows {
            replies.insert(&key[..], &value[..CLAIM]).unwrap();
        }
    }
    transaction.commit().unwrap();
}

/// The story: a client of the Wawp dialect that had lost the connection while its session was deleted asked again with the same key,
/// and was told that there is no such session: the session was looked for before the key was.
#[tokio::test]
async fn a_delete_is_told_again_in_every_dialect_when_the_session_is_gone() {
    let mut gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let other = gateway.org("Other").await;
    let mut told = Vec::new();
    for dialect in ["router", "wawp", "evolution"] {
        let named = json!({ "instanceName": format!("secret-{dialect}"), "integration": "WHATSAPP-BAILEYS" });
        org.client.post("/instance/create", &named).await.expect(201);
        let session = org.client.get("/api/v1/sessions").await.expect(200)["data"][0].clone();
        let (path, gone) = match dialect {
            "router" => (format!("/api/v1/sessions/{}", text(&session, "id")), 204),
            "wawp" => (format!("/v2/session/delete?instance_id={}", text(&session, "instanceId")), 200),
            _ => (format!("/instance/delete/secret-{dialect}"), 200),
        };
        let first = keyed(&org.client, dialect, "DELETE", &path, Value::Null).await;
        assert_eq!(first.status, gone, "{dialect}: {first:?}");
        assert!(!String::from_utf8_lossy(&first.body).contains("secret-"), "{dialect}: {first:?}");
        let again = keyed(&org.client, dialect, "DELETE", &path, Value::Null).await;
        assert_eq!((again.status, &again.body), (first.status, &first.body), "{dialect}");
        assert_eq!(again.header("idempotency-replayed"), Some("true"), "{dialect}");
        // Without the key, and with somebody else's key, there is no such session.
        assert_eq!(org.client.delete(&path).await.status, 404, "{dialect}");
        assert_eq!(keyed(&other.client, dialect, "DELETE", &path, Value::Null).await.status, 404, "{dialect}");
        told.push((dialect, path, first));
    }
    assert_eq!(count(&org, "/api/v1/sessions").await, 0);

    // Nobody had heard of it before the crash: the answer is made again, and from then on it is the same.
    gateway.kill().await;
    lose_replies(&gateway);
    gateway.restart().await;
    let org = org.at(&gateway);
    for (dialect, path, first) in &told {
        let again = keyed(&org.client, dialect, "DELETE", path, Value::Null).await;
        assert_eq!(again.status, first.status, "{dialect}: {again:?}");
        if *dialect != "wawp" {
            assert_eq!(again.body, first.body, "{dialect}");
        }
        let kept = keyed(&org.client, dialect, "DELETE", path, Value::Null).await;
        assert_eq!((kept.body.clone(), kept.header("idempotency-replayed")), (again.body, Some("true")), "{dialect}");
    }

    // A key that is revoked opens nothing, and tells nothing.
    let key = text(&org.client.get(&format!("/api/v1/orgs/{}/keys", org.id)).await.expect(200)["data"][0], "id");
    gateway.operator().delete(&format!("/api/v1/orgs/{}/keys/{key}", org.id)).await.expect(204);
    for (dialect, path, _) in &told {
        assert_eq!(keyed(&org.client, dialect, "DELETE", path, Value::Null).await.status, 401, "{dialect}");
    }
    gateway.kill().await;
    gateway.assert_sound().await;
}

/// The story: a delete that was put off was answered with the whole session, and that answer lay under the session's key: whoever
/// asked again when the days were over was told nothing.
#[tokio::test]
async fn the_answer_to_a_delete_that_is_put_off_outlives_the_session() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let plugin = org.catalogue("grace-delete").await;
    org.bind(&plugin, json!({ "grace": "PT1S" })).await;
    let mut told = Vec::new();
    for dialect in ["router", "wawp", "evolution"] {
        let named = json!({ "instanceName": format!("secret-{dialect}"), "integration": "WHATSAPP-BAILEYS" });
        org.client.post("/instance/create", &named).await.expect(201);
        let session = org.client.get("/api/v1/sessions").await.expect(200)["data"][0].clone();
        let id = text(&session, "id");
        let path = match dialect {
            "router" => format!("/api/v1/sessions/{id}"),
            "wawp" => format!("/v2/session/delete?instance_id={}", text(&session, "instanceId")),
            _ => format!("/instance/delete/secret-{dialect}"),
        };
        let first = keyed(&org.client, dialect, "DELETE", &path, Value::Null).await;
        assert_eq!(first.status, 202, "{dialect}: {first:?}");
        assert!(!String::from_utf8_lossy(&first.body).contains("secret-"), "{dialect}: {first:?}");
        told.push((dialect, path, id, first));
    }
    for (dialect, path, id, first) in &told {
        org.gone(id).await;
        let again = keyed(&org.client, dialect, "DELETE", path, Value::Null).await;
        assert_eq!((again.status, &again.body), (202, &first.body), "{dialect}");
    }
}

/// The story: the gateway was stopped after a session was made and before that was answered. Whoever asked again was only told that
/// it was done, and looked for it among a thousand others.
#[tokio::test]
async fn what_was_done_before_a_crash_is_answered_from_what_is_there() {
    let mut gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let plugin = org.catalogue("grace-delete").await;
    let keys = format!("/api/v1/orgs/{}/keys", org.id);
    let hook = |format: &str| json!({ "url": "https://example.com/x", "events": ["*"], "format": format });
    let instance = json!({ "instanceName": "two", "integration": "WHATSAPP-BAILEYS" });
    let publisher = json!({ "name": "p", "publicKey": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=" });
    let asked = [
        ("/api/v1/sessions", json!({ "label": "one" }), "id"),
        ("/v2/session/create", json!({}), "instance_id"),
        ("/instance/create", instance, "instance"),
        ("/api/v1/webhooks", hook("router"), "id"),
        ("/api/v1/webhooks?again", hook("standard"), "already_shown"),
        ("/api/v1/publishers", publisher, "id"),
        ("/api/v1/bindings", json!({ "plugin": plugin }), "id"),
        (&keys, json!({ "name": "k", "capabilities": ["read"] }), "already_shown"),
    ]
    .map(|(path, body, same)| (path.split('?').next().unwrap().to_owned(), format!("{path}{same}"), body, same));
    let mut first = Vec::new();
    for (path, key, body, _) in &asked {
        let reply = post(&org.client, key, path, body.clone()).await;
        assert_eq!(reply.status, 201, "{path}: {reply:?}");
        first.push(serde_json::from_slice::<Value>(&reply.body).unwrap());
    }
    let made = text(&first[0], "id");
    let tested = format!("/api/v1/webhooks/{}:test", text(&first[3], "id"));
    assert_eq!(post(&org.client, "test", &tested, Value::Null).await.status, 202);
    let labels = format!("/api/v1/sessions/{made}/labels");
    keyed(&org.client, "labels", "PUT", &labels, json!({ "a": "b" })).await.expect(200);
    let operator = gateway.operator();
    let org_made = post(&operator, "org", "/api/v1/orgs", json!({ "name": "Another" })).await.expect(201);
    let counted = |org: Org| async move {
        let mut counts = Vec::new();
        for path in ["/api/v1/sessions", "/api/v1/webhooks", "/api/v1/publishers", "/api/v1/bindings"] {
            counts.push(count(&org, path).await);
        }
        counts
    };
    let before = counted(org.clone()).await;

    gateway.kill().await;
    lose_replies(&gateway);
    gateway.assert_sound().await;
    gateway.restart().await;
    let (org, operator) = (org.at(&gateway), gateway.operator());
    for ((path, key, body, same), first) in asked.iter().zip(&first) {
        for _ in 0..2 {
            let again = post(&org.client, key, path, body.clone()).await;
            if *same == "already_shown" {
                assert_eq!(reason(&again, 409), "already_shown", "{path}");
                continue;
            }
            assert_eq!(again.status, 201, "{path}: {again:?}");
            let again: Value = serde_json::from_slice(&again.body).unwrap();
            assert_eq!(again[same], first[same], "{path}");
        }
    }
    let again = post(&operator, "org", "/api/v1/orgs", json!({ "name": "Another" })).await.expect(201);
    assert_eq!(again["id"], org_made["id"]);
    let again = keyed(&org.client, "labels", "PUT", &labels, json!({ "a": "b" })).await.expect(200);
    assert_eq!(again["labels"], json!({ "a": "b" }));
    // Which event was told is nowhere else.
    for _ in 0..2 {
        assert_eq!(reason(&post(&org.client, "test", &tested, Value::Null).await, 409), "reply_lost");
    }
    assert_eq!(counted(org.clone()).await, before, "nothing was done twice");
    // What is gone says nothing any more.
    let bindings = org.client.get("/api/v1/bindings").await.expect(200);
    org.client.delete(&format!("/api/v1/bindings/{}", text(&bindings["data"][0], "id"))).await.expect(204);
    org.client.delete(&format!("/api/v1/sessions/{made}")).await.expect(204);
    gateway.kill().await;
    lose_replies(&gateway);
    gateway.restart().await;
    let org = org.at(&gateway);
    assert_eq!(keyed(&org.client, "labels", "PUT", &labels, json!({ "a": "b" })).await.status, 404);
    let (path, key, body, _) = &asked[0];
    assert_eq!(post(&org.client, key, path, body.clone()).await.status, 404);
}

/// The story: whoever guessed at sessions and keys with a key of their own left no trace. Only what policy and the lifecycle refused
/// was in the audit, and denials; not what was not there, was over a quota, or came with a key of another request.
#[tokio::test]
async fn every_refusal_leaves_one_line() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let bound = text(&org.client.post("/api/v1/sessions", &json!({})).await.expect(201), "id");
    let bound = json!({ "name": "bound", "capabilities": ["read"], "sessionId": bound });
    let bound = Client::new(gateway.address, Some(&gateway.key(&org.id, &bound).await));
    let quotas = json!({ "quotas": { "keys": 2, "sessions": 2 } });
    gateway.operator().patch(&format!("/api/v1/orgs/{}", org.id), &quotas).await.expect(200);
    let (sessions, keys) = ("/api/v1/sessions", format!("/api/v1/orgs/{}/keys", org.id));
    let made = post(&org.client, "one", sessions, json!({ "label": "one" })).await.expect(201);
    let nobody = "sess_01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let own = text(&made, "id");
    let cases = [
        ("POST", keys.clone(), json!({ "name": "k", "capabilities": ["read"] }), "key.create", "quota_reached"),
        ("POST", sessions.to_owned(), json!({}), "session.create", "quota_reached"),
        ("DELETE", format!("{sessions}/{nobody}"), Value::Null, "session.delete", "not_found"),
        ("DELETE", format!("{sessions}/no-id-at-all"), Value::Null, "session.delete", "not_found"),
        ("POST", format!("{sessions}/{nobody}:start"), Value::Null, "session.start", "not_found"),
        ("DELETE", "/v2/session/delete?instance_id=GUESSEDNAME1".into(), Value::Null, "session.delete", "not_found"),
        ("DELETE", "/instance/delete/guessed-name".into(), Value::Null, "session.delete", "not_found"),
        ("DELETE", format!("{keys}/key_01ARZ3NDEKTSV4RRFFQ69G5FAV"), Value::Null, "key.revoke", "not_found"),
        ("DELETE", "/api/v1/webhooks/wh_01ARZ3NDEKTSV4RRFFQ69G5FAV".into(), Value::Null, "webhook.delete", "not_found"),
        (
            "DELETE",
            "/api/v1/bindings/bind_01ARZ3NDEKTSV4RRFFQ69G5FAV".into(),
            Value::Null,
            "binding.delete",
            "not_found",
        ),
        ("POST", format!("{sessions}/{own}:restore"), Value::Null, "session.restore", "not_pending_delete"),
    ];
    let lines =
        async || org.client.get("/api/v1/audit?limit=200").await.expect(200)["data"].as_array().unwrap().clone();
    for (method, path, body, operation, code) in cases {
        let before = lines().await.len();
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let refused = org.client.send(method, &path, body.into()).await;
        assert!((400..500).contains(&refused.status), "{path}: {refused:?}");
        let after = lines().await;
        assert_eq!(after.len(), before + 1, "{method} {path}: {:?}", after[0]);
        let line = &after[0];
        let said = (&line["operation"], &line["outcome"], &line["code"]);
        assert_eq!(said, (&json!(operation), &json!("refused"), &json!(code)), "{method} {path}");
        assert!(line["requestId"].as_str().is_some_and(|id| id.starts_with("req_")), "{line}");
        assert!(!line.to_string().contains("uessed") && !line.to_string().contains("GUESSED"), "{line}");
    }
    // To whoever is bound to one session the names of others are denied, also for reading.
    let before = lines().await.len();
    bound.get("/v2/session/info?instance_id=GUESSEDNAME1").await;
    let after = lines().await;
    let said = (after.len(), &after[0]["operation"], &after[0]["outcome"]);
    assert_eq!(said, (before + 1, &json!("session.read"), &json!("denied")));
    let before = lines().await.len();
    assert_eq!(
        reason(&post(&org.client, "one", sessions, json!({ "label": "two" })).await, 422),
        "idempotency_mismatch"
    );
    let after = lines().await;
    let said = (after.len(), &after[0]["operation"], &after[0]["code"]);
    assert_eq!(said, (before + 1, &json!("session.create"), &json!("idempotency_mismatch")));
    // What is only tried, what is no operation, and what is told again leave none.
    org.client.delete(&format!("{sessions}/{nobody}?dry_run=true")).await.expect(404);
    org.client.post(sessions, &json!({ "label": 7 })).await.expect(400);
    post(&org.client, "one", sessions, json!({ "label": "one" })).await.expect(201);
    assert_eq!(lines().await.len(), before + 1);
}
