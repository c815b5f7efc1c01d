//! Golden transcripts of the router dialect: every route, what it answers, how it refuses, and what it says the second time.

use expect_test::expect_file;
use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{Gateway, eventually};
use crate::transcript::Transcript;
use crate::world::text;

/// No body.
const NONE: Value = Value::Null;

#[tokio::test]
async fn a_sessions_life() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());

    golden.section("create, read, list");
    golden.ask(&acme, "GET", "/api/v1/sessions", NONE).await;
    let session = golden.ask(&acme, "POST", "/api/v1/sessions", json!({ "label": "Sales line" })).await;
    let id = text(&session.expect(201), "id");
    let path = format!("/api/v1/sessions/{id}");
    let full = json!({ "autoRead": false, "presenceTyping": true, "labels": { "team": "b" }, "ratePolicy": "strict" });
    let second = text(&golden.ask(&acme, "POST", "/api/v1/sessions", full).await.expect(201), "id");
    golden.ask(&acme, "GET", &path, NONE).await;
    golden.ask(&acme, "GET", "/api/v1/sessions?limit=1", NONE).await;
    golden.ask(&acme, "GET", &format!("/api/v1/sessions?limit=1&cursor={second}"), NONE).await;
    golden.ask(&acme, "GET", "/api/v1/sessions?cursor=nonsense", NONE).await;
    golden.ask(&acme, "POST", "/api/v1/sessions", json!({ "ratePolicy": "no-such" })).await;
    golden.ask(&acme, "POST", "/api/v1/sessions", json!({ "labels": { "": "x" } })).await;

    golden.section("what a session that is not linked cannot do");
    for action in [":start", ":restart", ":restore", "/simulator:scan"] {
        golden.ask(&acme, "POST", &format!("{path}{action}"), NONE).await;
    }
    golden.ask(&acme, "POST", &format!("{path}:stop"), NONE).await;
    golden.ask(&acme, "GET", &format!("{path}/me"), NONE).await;

    golden.section("link it");
    golden.ask(&acme, "GET", &format!("{path}/qr"), NONE).await;
    golden.ask(&acme, "GET", &format!("{path}/qr"), NONE).await;
    golden.ask(&acme, "POST", &format!("{path}/pairing-code"), json!({ "phone": "628123456789" })).await;
    golden.ask(&acme, "POST", &format!("{path}/simulator:scan"), json!({ "phone": "+62 8" })).await;
    golden.ask(&acme, "POST", &format!("{path}/simulator:scan"), json!({ "phone": "628123456789" })).await;
    org.reaches(&id, "working").await;
    golden.ask(&acme, "GET", &path, NONE).await;
    golden.ask(&acme, "GET", &format!("{path}/me"), NONE).await;
    golden.ask(&acme, "GET", &format!("{path}/qr"), NONE).await;
    golden.ask(&acme, "POST", &format!("{path}/simulator:scan"), NONE).await;

    golden.section("link the other one by a code");
    let other = format!("/api/v1/sessions/{second}");
    golden.ask(&acme, "POST", &format!("{other}/pairing-code"), json!({})).await;
    golden.ask(&acme, "POST", &format!("{other}/pairing-code"), json!({ "phone": "abc" })).await;
    golden.ask(&acme, "POST", &format!("{other}/pairing-code"), json!({ "phone": "628987654321" })).await;
    golden.ask(&acme, "GET", &format!("{other}/qr"), NONE).await;
    golden.ask(&acme, "POST", &format!("{other}/simulator:scan"), NONE).await;
    org.reaches(&second, "working").await;

    golden.section("start, stop and restart, each twice");
    for action in [":start", ":stop", ":stop", ":start"] {
        golden.ask(&acme, "POST", &format!("{path}{action}"), NONE).await;
    }
    org.reaches(&id, "working").await;
    golden.ask(&acme, "POST", &format!("{path}:restart"), NONE).await;
    org.reaches(&id, "working").await;

    golden.section("the phone and the network");
    golden.ask(&acme, "POST", &format!("{path}/simulator:receive"), json!({ "from": "x", "text": "hi" })).await;
    let text_in = json!({ "from": "628555@s.whatsapp.net", "text": "hi" });
    golden.ask(&acme, "POST", &format!("{path}/simulator:receive"), text_in).await;
    golden.ask(&acme, "POST", &format!("{path}/simulator:limit"), json!({ "code": "463" })).await;
    golden.ask(&acme, "POST", &format!("{path}/simulator:disconnect"), json!({ "seconds": 0 })).await;
    org.reaches(&id, "working").await;
    golden.ask(&acme, "POST", &format!("{other}/simulator:unlink"), NONE).await;
    org.reaches(&second, "logged_out").await;
    golden.ask(&acme, "GET", &other, NONE).await;

    golden.section("logout, twice");
    golden.ask(&acme, "POST", &format!("{path}:logout"), NONE).await;
    golden.ask(&acme, "POST", &format!("{path}:logout"), NONE).await;
    golden.ask(&acme, "GET", &format!("{path}/me"), NONE).await;
    golden.ask(&acme, "POST", &format!("{path}:start"), NONE).await;

    golden.section("delete, twice");
    golden.ask(&acme, "DELETE", &path, NONE).await;
    golden.ask(&acme, "DELETE", &path, NONE).await;
    golden.ask(&acme, "GET", &path, NONE).await;
    expect_file!["../golden/router/session.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn labels_and_rate_policies() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());
    let path = format!("/api/v1/sessions/{}", org.session().await);

    golden.section("labels");
    for labels in
        [json!({ "a": "1", "b": "2" }), json!({ "a": "1", "b": "2" }), json!({}), json!({ "sp ace": "x" }), json!([])]
    {
        golden.ask(&acme, "PUT", &format!("{path}/labels"), labels).await;
    }
    golden.section("rate policies");
    golden.ask(&acme, "GET", &format!("{path}/rate-policy"), NONE).await;
    for policy in [json!({ "policy": "strict" }), json!({ "policy": "turbo" }), json!({}), json!({ "policy": 3 })] {
        golden.ask(&acme, "PUT", &format!("{path}/rate-policy"), policy).await;
    }
    expect_file!["../golden/router/settings.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn messages() {
    let gateway = Gateway::impatient().await;
    let org = gateway.org("Acme").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());
    let stopped = org.session().await;
    let working = org.working().await;
    let path = format!("/api/v1/sessions/{working}/messages");
    let to = "628555@s.whatsapp.net";
    let message = json!({ "type": "text", "to": to, "text": "hello", "replyTo": "3EB0" });

    golden.section("what is not valid");
    for bad in [
        NONE,
        json!({}),
        json!({ "type": "telepathy" }),
        json!({ "type": "poll", "name": "?" }),
        json!({ "type": "poll", "to": to, "name": "?", "options": ["a"] }),
        json!({ "type": "poll", "to": to, "name": "?", "options": ["a", "b"], "selectableCount": 3 }),
        json!({ "type": "poll", "to": to, "name": "?", "options": ["a", "b"] }),
        json!({ "type": "location", "to": to, "latitude": 100, "longitude": 0 }),
        json!({ "type": "location", "to": to, "latitude": 0, "longitude": 200 }),
        json!({ "type": "contact", "to": to }),
        json!({ "type": "contact", "to": to, "contact": { "name": "Ann" } }),
        json!({ "type": "image", "to": to }),
        json!({ "type": "image", "to": to, "media": {} }),
        json!({ "type": "image", "to": to, "media": { "url": "https://example.com/a.png" } }),
        json!({ "type": "text" }),
        json!({ "type": "text", "to": to }),
        json!({ "type": "text", "to": to, "text": "" }),
        json!({ "type": "text", "to": "628555", "text": "hello" }),
        json!({ "type": "text", "to": to, "text": "hello", "mood": "good" }),
    ] {
        golden.ask(&acme, "POST", &path, bad).await;
    }
    acme.post(&path, &json!({ "type": "text", "to": to, "text": "x".repeat(4097) }))
        .await
        .refused(400, "validation_error");
    golden.ask(&acme, "POST", &format!("{path}?async=maybe"), message.clone()).await;

    golden.section("no client, then one, then too fast for its policy");
    golden.ask(&acme, "POST", &format!("/api/v1/sessions/{stopped}/messages"), message.clone()).await;
    acme.put(&format!("/api/v1/sessions/{working}/rate-policy"), &json!({ "policy": "strict" })).await.expect(200);
    golden.ask(&acme, "POST", &format!("{path}?dry_run=true"), message.clone()).await;
    golden.ask(&acme, "POST", &path, message.clone()).await;
    golden.ask(&acme, "POST", &path, message.clone()).await;
    golden.ask(&acme, "GET", &format!("/api/v1/sessions/{working}/rate-policy"), NONE).await;

    golden.section("somebody who is not there");
    acme.put(&format!("/api/v1/sessions/{working}/rate-policy"), &json!({ "policy": "standard_policy" }))
        .await
        .expect(200);
    let nobody = json!({ "type": "text", "to": "6280000@s.whatsapp.net", "text": "hello" });
    let other = org.working().await;
    let others = format!("/api/v1/sessions/{other}/messages");
    golden.ask(&acme, "POST", &others, nobody.clone()).await;

    golden.section("once for each key");
    let once = org.working().await;
    let path = format!("/api/v1/sessions/{once}/messages");
    let key = |key: &str| vec![("idempotency-key".to_owned(), key.to_owned())];
    golden.ask_with(&acme, "POST", &path, key("first"), message.clone()).await;
    golden.ask_with(&acme, "POST", &path, key("first"), message.clone()).await;
    golden.ask_with(&acme, "POST", &path, key(""), message.clone()).await;
    golden
        .ask_with(&acme, "POST", &path, key(&"k".repeat(256)), message.clone())
        .await
        .refused(400, "validation_error");
    let third = org.working().await;
    let path = format!("/api/v1/sessions/{third}/messages");
    golden.ask_with(&acme, "POST", &path, key("second"), nobody.clone()).await;
    golden.ask_with(&acme, "POST", &path, key("second"), nobody).await;

    golden.section("without waiting");
    let path = format!("/api/v1/sessions/{stopped}/messages");
    let queued = golden.ask(&acme, "POST", &format!("{path}?async=true"), message.clone()).await;
    let queued = text(&queued.expect(202), "outboxId");
    golden.ask_with(&acme, "POST", &format!("{path}?async=true"), key("third"), message.clone()).await;
    golden.ask_with(&acme, "POST", &path, key("third"), message).await;
    golden.ask(&acme, "GET", &format!("{path}/{queued}"), NONE).await;
    golden.ask(&acme, "GET", &format!("{path}/out_00000000000000000000000000"), NONE).await;
    golden.ask(&acme, "GET", &format!("{path}/nonsense"), NONE).await;
    org.link(&stopped).await;
    let sent = format!("{path}/{queued}");
    eventually("the queued message is sent", async || {
        let message = acme.get(&sent).await.expect(200);
        (message["status"] == "sent").then_some(())
    })
    .await;
    golden.ask(&acme, "GET", &sent, NONE).await;
    expect_file!["../golden/router/messages.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn organisations_and_keys() {
    let gateway = Gateway::start().await;
    let (mut golden, operator) = (Transcript::default(), gateway.operator());

    golden.section("organisations");
    golden.ask(&operator, "GET", "/api/v1/orgs", NONE).await;
    let org = golden.ask(&operator, "POST", "/api/v1/orgs", json!({ "name": "Acme" })).await.expect(201);
    let path = format!("/api/v1/orgs/{}", text(&org, "id"));
    let full = json!({
        "name": "Big", "plan": { "name": "pro", "active": true }, "quotas": { "sessions": 5 }, "labels": { "tier": "gold" },
    });
    let second = text(&golden.ask(&operator, "POST", "/api/v1/orgs", full).await.expect(201), "id");
    for bad in [
        json!({}),
        json!({ "name": "" }),
        json!({ "name": "x", "plan": { "name": "pro" } }),
        json!({ "name": "x", "quotas": { "ponies": 1 } }),
    ] {
        golden.ask(&operator, "POST", "/api/v1/orgs", bad).await;
    }
    golden.ask(&operator, "GET", "/api/v1/orgs?limit=1", NONE).await;
    golden.ask(&operator, "GET", &path, NONE).await;
    golden.ask(&operator, "PATCH", &path, json!({ "name": "Acme & Co", "labels": { "a": "b" } })).await;
    golden.ask(&operator, "PATCH", &path, json!({ "id": "x" })).await;

    golden.section("keys");
    let keys = format!("{path}/keys");
    let all = json!({ "name": "all", "capabilities": ["read", "send", "manage", "events", "plugins", "audit"] });
    let all = golden.ask(&operator, "POST", &keys, all).await.expect(201);
    let acme = Client::new(gateway.address, all["key"].as_str());
    let session = text(&acme.post("/api/v1/sessions", &json!({})).await.expect(201), "id");
    let end = all["createdAt"].as_u64().unwrap() + 86_400_000;
    let bound = json!({ "name": "one", "capabilities": ["manage", "send"], "sessionId": session, "expiresAt": end });
    let bound = golden.ask(&acme, "POST", &keys, bound).await.expect(201);
    for bad in [
        json!({ "name": "x" }),
        json!({ "name": "x", "capabilities": [] }),
        json!({ "name": "x", "capabilities": ["fly"] }),
        json!({ "name": "x", "capabilities": ["operate"] }),
        json!({ "name": "", "capabilities": ["read"] }),
        json!({ "name": "x", "capabilities": ["read"], "sessionId": "nonsense" }),
        json!({ "name": "x", "capabilities": ["read"], "expiresAt": 1 }),
    ] {
        golden.ask(&operator, "POST", &keys, bad).await;
    }
    let one = format!("{keys}/{}", text(&bound, "id"));
    golden.ask(&acme, "DELETE", &one, NONE).await;
    golden.ask(&acme, "DELETE", &one, NONE).await;
    golden.ask(&acme, "GET", &keys, NONE).await;
    let ended = Client::new(gateway.address, bound["key"].as_str());
    golden.ask(&ended, "GET", "/api/v1/sessions", NONE).await;

    golden.section("suspended, and back");
    golden.ask(&operator, "PATCH", &path, json!({ "suspended": true })).await;
    golden.ask(&acme, "POST", "/api/v1/sessions", json!({})).await;
    golden.ask(&operator, "PATCH", &path, json!({ "suspended": false })).await;

    golden.section("erased, twice");
    golden.ask(&operator, "DELETE", &path, NONE).await;
    golden.ask(&operator, "DELETE", &path, NONE).await;
    golden.ask(&operator, "GET", &format!("/api/v1/orgs/{second}"), NONE).await;
    golden.ask(&acme, "GET", "/api/v1/sessions", NONE).await;
    expect_file!["../golden/router/organisations.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn plugins_and_bindings() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());

    golden.section("plugins");
    golden.ask(&acme, "GET", "/api/v1/plugins", NONE).await;
    golden.ask(&acme, "GET", "/api/v1/plugins/catalog", NONE).await;
    let uploaded = golden.ask(&acme, "POST", "/api/v1/plugins", json!({ "catalog": "grace-delete" })).await;
    let plugin = text(&uploaded.expect(201), "id");
    golden.ask(&acme, "POST", "/api/v1/plugins", json!({ "catalog": "grace-delete" })).await;
    golden.ask(&acme, "POST", "/api/v1/plugins", json!({ "catalog": "no-such" })).await;
    golden.ask(&acme, "POST", "/api/v1/plugins", json!({ "name": "x" })).await;
    golden.ask(&acme, "POST", "/api/v1/plugins", NONE).await;
    golden.ask(&acme, "GET", &format!("/api/v1/plugins/{plugin}"), NONE).await;
    golden.ask(&acme, "GET", &format!("/api/v1/plugins/{plugin}/versions"), NONE).await;

    golden.section("bindings");
    golden.ask(&acme, "GET", "/api/v1/bindings", NONE).await;
    let full = json!({
        "plugin": plugin, "version": 1, "hooks": ["session.delete"], "mode": "monitor", "settings": { "grace": "PT1H" },
        "onFailure": "allow", "order": 7, "grants": [], "selector": { "team": "b" },
    });
    let binding = text(&golden.ask(&acme, "POST", "/api/v1/bindings", full).await.expect(201), "id");
    golden.ask(&acme, "POST", "/api/v1/bindings", json!({ "plugin": plugin })).await;
    for bad in [
        json!({}),
        json!({ "plugin": "nonsense" }),
        json!({ "plugin": plugin, "mode": "sometimes" }),
        json!({ "plugin": plugin, "hooks": ["session.read"] }),
        json!({ "plugin": plugin, "grants": ["kv"] }),
        json!({ "plugin": plugin, "settings": { "grace": "soon" } }),
        json!({ "plugin": plugin, "settings": [] }),
    ] {
        golden.ask(&acme, "POST", "/api/v1/bindings", bad).await;
    }
    let path = format!("/api/v1/bindings/{binding}");
    golden.ask(&acme, "PATCH", &path, json!({ "mode": "enforce", "selector": {} })).await;
    golden.ask(&acme, "PATCH", &path, json!({ "plugin": plugin })).await;
    golden.ask(&acme, "GET", &path, NONE).await;
    golden.ask(&acme, "DELETE", &format!("/api/v1/plugins/{plugin}"), NONE).await;
    golden.ask(&acme, "DELETE", &path, NONE).await;
    golden.ask(&acme, "DELETE", &path, NONE).await;
    let listed = golden.ask(&acme, "GET", "/api/v1/bindings", NONE).await.expect(200);
    acme.delete(&format!("/api/v1/bindings/{}", text(&listed["data"][0], "id"))).await.expect(204);
    golden.ask(&acme, "DELETE", &format!("/api/v1/plugins/{plugin}"), NONE).await;
    golden.ask(&acme, "DELETE", &format!("/api/v1/plugins/{plugin}"), NONE).await;
    golden.ask(&acme, "GET", &format!("/api/v1/plugins/{plugin}"), NONE).await;
    golden.ask(&acme, "POST", "/api/v1/plugins?wait=false", json!({ "catalog": "rate-ladder" })).await;
    expect_file!["../golden/router/plugins.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn a_deletion_under_policy() {
    let gateway = Gateway::start_with("[plugins]\ngate_wall_ms = 20000\nchain_wall_ms = 60000\n").await;
    let org = gateway.org("Acme").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());
    let plugin = org.catalogue("grace-delete").await;
    let binding = org.bind(&plugin, json!({ "grace": "PT72H" })).await;
    let session = org.session().await;
    let path = format!("/api/v1/sessions/{session}");

    golden.section("only asked");
    golden.ask(&acme, "DELETE", &format!("{path}?dry_run=true"), NONE).await;
    golden.ask(&acme, "GET", "/api/v1/decisions", NONE).await;

    golden.section("deferred, twice");
    let deferred = golden.ask(&acme, "DELETE", &path, NONE).await;
    golden.ask(&acme, "DELETE", &path, NONE).await;
    golden.ask(&acme, "GET", &path, NONE).await;
    for refused in [":start", "/pairing-code"] {
        golden.ask(&acme, "POST", &format!("{path}{refused}"), json!({ "phone": "628123456789" })).await;
    }
    golden.ask(&acme, "GET", &format!("{path}/qr"), NONE).await;
    let decision = deferred.header("x-decision-id").unwrap();
    golden.ask(&acme, "GET", &format!("/api/v1/decisions/{decision}"), NONE).await;

    golden.section("restored, twice");
    golden.ask(&acme, "POST", &format!("{path}:restore"), NONE).await;
    golden.ask(&acme, "POST", &format!("{path}:restore"), NONE).await;

    golden.section("vetoed");
    acme.put(&format!("{path}/labels"), &json!({ "legal-hold": "case 7" })).await.expect(200);
    golden.ask(&acme, "DELETE", &format!("{path}?dry_run=true"), NONE).await;
    let vetoed = golden.ask(&acme, "DELETE", &path, NONE).await.expect(403);
    let decision = text(&vetoed["error"]["details"], "decisionId");
    golden.ask(&acme, "GET", &format!("/api/v1/decisions/{decision}"), NONE).await;
    golden.ask(&acme, "GET", &format!("/api/v1/decisions?session={session}&limit=1"), NONE).await;
    golden.ask(&acme, "GET", "/api/v1/decisions?session=nonsense", NONE).await;

    golden.section("carried out");
    acme.delete(&format!("/api/v1/bindings/{binding}")).await.expect(204);
    golden.ask(&acme, "DELETE", &path, NONE).await;
    golden.ask(&acme, "GET", &format!("/api/v1/decisions/{decision}"), NONE).await;

    golden.section("the audit of all this");
    golden.ask(&acme, "GET", "/api/v1/audit", NONE).await;
    golden.ask(&acme, "GET", "/api/v1/audit?limit=1", NONE).await;
    expect_file!["../golden/router/deletion.txt"].assert_eq(golden.text());
}
