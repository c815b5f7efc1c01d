//! What webhooks were told, as their owner looks at it, and telling it again.

use expect_test::expect_file;
use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{Gateway, eventually};
use crate::hooks::INSIDE;
use crate::transcript::Transcript;
use crate::world::{ALL, text};

/// No body.
const NONE: Value = Value::Null;

/// Nobody listens there.
const NOBODY: &str = "http://127.0.0.1:9/hook";

/// Waits until so many deliveries were given up, the latest of them after so many attempts.
async fn given_up(client: &Client, hook: &str, count: usize, attempts: usize) -> Value {
    eventually("a delivery is given up", async || {
        let dead = client.get(&format!("{hook}/deliveries?status=dead")).await.expect(200);
        let rows = dead["data"].as_array().unwrap();
        let is_so = rows.len() == count && rows[0]["attempts"].as_array().unwrap().len() == attempts;
        is_so.then(|| rows[0].clone())
    })
    .await
}

#[tokio::test]
async fn deliveries() {
    let gateway = Gateway::start_with(INSIDE).await;
    let (org, other) = (gateway.org("Acme").await, gateway.org("Other").await);
    let (mut golden, acme) = (Transcript::default(), org.client.clone());
    let session = org.session().await;
    let one_try = json!({ "policy": "constant", "attempts": 1 });
    let hook = json!({ "url": NOBODY, "events": ["session.labels"], "secret": "hush", "retryPolicy": one_try });
    let hook = format!("/api/v1/webhooks/{}", text(&acme.post("/api/v1/webhooks", &hook).await.expect(201), "id"));
    golden.section("nothing yet");
    golden.ask(&acme, "GET", &format!("{hook}/deliveries"), NONE).await;
    golden.ask(&acme, "GET", &hook, NONE).await;

    golden.section("what was given up");
    acme.put(&format!("/api/v1/sessions/{session}/labels"), &json!({ "a": "b" })).await.expect(200);
    let row = text(&given_up(&acme, &hook, 1, 1).await, "id");
    let delivery = format!("{hook}/deliveries/{row}");
    for query in ["", "?status=dead&limit=1", "?status=waiting", "?status=lost", "?cursor=nonsense"] {
        golden.ask(&acme, "GET", &format!("{hook}/deliveries{query}"), NONE).await;
    }
    golden.ask(&acme, "GET", &delivery, NONE).await;
    golden.ask(&acme, "GET", &format!("{hook}/deliveries/nonsense"), NONE).await;
    golden.ask(&acme, "GET", &format!("{hook}/deliveries/dlv_00000000000000000000000000"), NONE).await;
    golden.ask(&other.client, "GET", &delivery, NONE).await;
    golden.ask(&acme, "GET", &hook, NONE).await;

    golden.section("again");
    golden.ask(&acme, "POST", &format!("{delivery}:replay?dry_run=true"), NONE).await;
    golden.ask(&acme, "POST", &format!("{delivery}:replay"), NONE).await;
    given_up(&acme, &hook, 1, 2).await;
    golden.ask(&other.client, "POST", &format!("{delivery}:replay"), NONE).await;
    golden.ask(&acme, "POST", &format!("{hook}/deliveries/nonsense:replay"), NONE).await;
    let replay = format!("{hook}:replay");
    for bad in [
        NONE,
        json!({}),
        json!({ "since": "yesterday" }),
        json!({ "since": 5, "until": 5 }),
        json!({ "since": 5, "status": "lost" }),
        json!({ "since": 5, "cursor": "nonsense" }),
        json!({ "since": 5, "mood": "good" }),
    ] {
        golden.ask(&acme, "POST", &replay, bad).await;
    }
    golden.ask(&acme, "POST", &replay, json!({ "since": 5, "until": 6 })).await;
    golden.ask(&acme, "POST", &replay, json!({ "since": 5 })).await;
    given_up(&acme, &hook, 1, 3).await;
    golden.ask(&acme, "POST", &replay, json!({ "since": 5, "status": "missing" })).await;

    golden.section("a test");
    golden.ask(&acme, "POST", &format!("{hook}:test?dry_run=true"), NONE).await;
    golden.ask(&acme, "POST", &format!("{hook}:test"), NONE).await;
    golden.ask(&other.client, "POST", &format!("{hook}:test"), NONE).await;
    let test = given_up(&acme, &hook, 2, 1).await;
    assert_eq!((test["event"].as_str(), test["status"].as_str()), (Some("webhook.test"), Some("dead")), "{test}");
    acme.patch(&hook, &json!({ "active": false })).await.expect(200);
    golden.ask(&acme, "POST", &format!("{hook}:test"), NONE).await;

    golden.section("another secret");
    let rotate = format!("{hook}:rotate-secret");
    for bad in [
        json!([]),
        json!({ "secret": "" }),
        json!({ "secret": "hush" }),
        json!({ "secret": "x".repeat(257) }),
        json!({ "overlapSeconds": 604_801 }),
        json!({ "overlapSeconds": -1 }),
    ] {
        golden.ask(&acme, "POST", &rotate, bad).await;
    }
    golden.ask(&acme, "POST", &rotate, json!({ "secret": "hush, please" })).await;
    let made = acme.act(&rotate).await;
    assert_eq!(made.header("cache-control"), Some("no-store"));
    assert_eq!(text(&made.expect(200), "secret").len(), 64);
    expect_file!["../golden/router/deliveries.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn a_key_is_replaced_while_both_sign() {
    let gateway = Gateway::start_with(INSIDE).await;
    let acme = gateway.org("Acme").await.client;
    let standard = json!({ "url": NOBODY, "events": ["*"], "format": "standard" });
    let made = acme.post("/api/v1/webhooks", &standard).await.expect(201);
    let path = format!("/api/v1/webhooks/{}", text(&made, "id"));
    let rotated = acme.act(&format!("{path}:rotate-secret")).await.expect(200);
    assert!(text(&rotated, "secret").starts_with("whsec_") && rotated["secret"] != made["secret"], "{rotated}");
    let until = rotated["previousSecretUntil"].as_u64().unwrap();
    assert_eq!(until - rotated["updatedAt"].as_u64().unwrap(), 24 * 60 * 60 * 1000);
    let shown = acme.get(&path).await.expect(200);
    assert_eq!((&shown["secret"], &shown["previousSecretUntil"]), (&NONE, &json!(until)), "{shown}");
    let at_once = acme.post(&format!("{path}:rotate-secret"), &json!({ "overlapSeconds": 0 })).await.expect(200);
    assert_eq!(at_once["previousSecretUntil"], NONE);
}

#[tokio::test]
async fn a_key_that_is_bound_to_a_session_has_its_webhooks_and_no_others() {
    let gateway = Gateway::start_with(INSIDE).await;
    let org = gateway.org("Acme").await;
    let session = org.session().await;
    let key = json!({ "name": "bound", "capabilities": ALL, "sessionId": session });
    let bound = Client::new(gateway.address, Some(&gateway.key(&org.id, &key).await));
    let hook = |session: Option<&str>| json!({ "url": NOBODY, "events": ["*"], "sessionId": session });
    let of_all = text(&org.client.post("/api/v1/webhooks", &hook(None)).await.expect(201), "id");
    bound.post("/api/v1/webhooks", &hook(None)).await.expect(404);
    let own = text(&bound.post("/api/v1/webhooks", &hook(Some(&session))).await.expect(201), "id");
    let listed = bound.get("/api/v1/webhooks").await.expect(200);
    assert_eq!((&listed["data"][0]["id"], listed["data"].as_array().unwrap().len()), (&json!(own), 1), "{listed}");
    let path = format!("/api/v1/webhooks/{own}");
    let changed = bound.patch(&path, &json!({ "events": ["session.status"] })).await.expect(200);
    assert_eq!(changed["sessionId"], session.as_str(), "it does not hear of all sessions all at once");
    bound.get(&path).await.expect(200);
    bound.get(&format!("{path}/deliveries")).await.expect(200);
    bound.act(&format!("{path}:test")).await.expect(202);
    let hidden = format!("/api/v1/webhooks/{of_all}");
    bound.get(&hidden).await.refused(404, "not_found");
    bound.patch(&hidden, &json!({ "active": false })).await.refused(404, "not_found");
    bound.act(&format!("{hidden}:test")).await.refused(404, "not_found");
    bound.get(&format!("{hidden}/deliveries")).await.refused(404, "not_found");
    bound.delete(&hidden).await.refused(404, "not_found");
    bound.delete(&path).await.expect(204);
}

/// The same refusal in every dialect, each in its own words.
#[tokio::test]
async fn what_leads_inside_is_refused_in_every_dialect() {
    let gateway = Gateway::start().await;
    let (org, mut golden) = (gateway.org("Acme").await, Transcript::default());
    let plan = json!({ "plan": { "name": "business", "active": true } });
    gateway.operator().patch(&format!("/api/v1/orgs/{}", org.id), &plan).await.expect(200);
    let acme = org.client.clone();
    let inside = "http://10.0.0.1/hook";
    let session = org.session().await;
    let shown = acme.get(&format!("/api/v1/sessions/{session}")).await.expect(200);
    let instance = text(&shown, "instanceId");
    let evolution = json!({ "instanceName": "t0", "integration": "WHATSAPP-BAILEYS" });
    acme.post("/instance/create", &evolution).await.expect(201);
    golden.ask(&acme, "POST", "/api/v1/webhooks", json!({ "url": inside, "events": ["*"] })).await;
    let odd = json!({ "url": "https://example.com:6379/", "events": ["*"] });
    golden.ask(&acme, "POST", "/api/v1/webhooks", odd).await;
    let fine = json!({ "url": "https://example.com/", "events": ["*"] });
    let fine = format!("/api/v1/webhooks/{}", text(&acme.post("/api/v1/webhooks", &fine).await.expect(201), "id"));
    golden.ask(&acme, "PATCH", &fine, json!({ "url": "http://localhost/" })).await;
    let proxy = json!({ "protocol": "http", "host": "169.254.169.254", "port": 80 });
    golden.ask(&acme, "PUT", &format!("/api/v1/sessions/{session}/proxy"), proxy).await;
    let list = json!({ "webhooks": [{ "url": "https://example.com", "events": [] }, { "url": inside, "events": [] }] });
    golden.ask(&acme, "POST", &format!("/v2/session/webhook?instance_id={instance}"), list).await;
    let set = |url: &str, enabled: bool| json!({ "webhook": { "enabled": enabled, "url": url } });
    golden.ask(&acme, "POST", "/webhook/set/t0", set(inside, true)).await;
    acme.post("/webhook/set/t0", &set(inside, false)).await.expect(201);
    let create = json!({ "instanceName": "t1", "integration": "WHATSAPP-BAILEYS", "webhook": { "url": inside } });
    golden.ask(&acme, "POST", "/instance/create", create).await;
    let create =
        json!({ "instanceName": "t1", "integration": "WHATSAPP-BAILEYS", "proxyHost": "10.0.0.1", "proxyPort": "80" });
    golden.ask(&acme, "POST", "/instance/create", create).await;
    expect_file!["../golden/router/inside.txt"].assert_eq(golden.text());
}
