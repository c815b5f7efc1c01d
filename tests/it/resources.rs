//! Golden transcripts of what the native dialect keeps besides sessions: webhooks, tickets, links, settings, proxies and metrics.

use expect_test::expect_file;
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::transcript::Transcript;
use crate::world::text;

/// No body.
const NONE: Value = Value::Null;

#[tokio::test]
async fn a_key_of_a_webhook_is_made_and_shown_once() {
    let gateway = Gateway::start().await;
    let acme = gateway.org("Acme").await.client;
    let standard = json!({ "url": "https://example.com/hook", "events": ["session.deleted"], "format": "standard" });
    let made = acme.post("/api/v1/webhooks", &standard).await.expect(201);
    assert!(text(&made, "secret").starts_with("whsec_"), "{made}");
    assert_eq!((&made["format"], &made["retryPolicy"]), (&json!("standard"), &NONE), "{made}");
    let path = format!("/api/v1/webhooks/{}", text(&made, "id"));
    let shown = acme.get(&path).await.expect(200);
    assert_eq!((&shown["secret"], &shown["signed"]), (&NONE, &json!(true)), "{shown}");

    for (change, expected) in [
        (json!({ "secret": "" }), "needs a secret"),
        (json!({ "secret": "hunter2" }), "a key begins with"),
        (json!({ "events": ["message.from_me"] }), "no event"),
        (json!({ "retryPolicy": { "attempts": 3 } }), "its own times of retry"),
    ] {
        let refused = acme.patch(&path, &change).await.expect(400);
        assert!(text(&refused["error"], "message").contains(expected), "{refused}");
    }
    // The second test vector of RFC 8032.
    let seed = "whsk_TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs=";
    let changed = acme.patch(&path, &json!({ "secret": seed, "events": ["message.out"] })).await.expect(200);
    assert_eq!(changed["secret"], NONE, "{changed}");
    assert_eq!(text(&changed, "publicKey"), "whpk_PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=");
}

#[tokio::test]
async fn webhooks() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let other = gateway.org("Other").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());
    let session = org.session().await;
    let foreign = other.session().await;
    let hook = "https://example.com/hook";

    golden.section("what is not valid");
    for bad in [
        NONE,
        json!([]),
        json!({}),
        json!({ "url": "" }),
        json!({ "url": "ftp://example.com", "events": ["*"] }),
        json!({ "url": hook }),
        json!({ "url": hook, "events": [] }),
        json!({ "url": hook, "events": ["no.such"] }),
        json!({ "url": hook, "events": ["*"], "sessionId": "nonsense" }),
        json!({ "url": hook, "events": ["*"], "sessionId": foreign }),
        json!({ "url": hook, "events": ["*"], "customHeaders": { "bad name": "x" } }),
        json!({ "url": hook, "events": ["*"], "retryPolicy": { "policy": "never" } }),
        json!({ "url": hook, "events": ["*"], "retryPolicy": { "attempts": 0 } }),
        json!({ "url": hook, "events": ["*"], "mood": "good" }),
    ] {
        golden.ask(&acme, "POST", "/api/v1/webhooks", bad).await;
    }

    golden.section("make, read, list");
    golden.ask(&acme, "GET", "/api/v1/webhooks", NONE).await;
    let made = golden.ask(&acme, "POST", "/api/v1/webhooks", json!({ "url": hook, "events": ["*"] })).await;
    let path = format!("/api/v1/webhooks/{}", text(&made.expect(201), "id"));
    let full = json!({
        "url": "http://example.com:8080/hook",
        "events": ["session.status", "message"],
        "sessionId": session,
        "secret": "hush",
        "customHeaders": { "X-Token": "hush" },
        "retryPolicy": { "policy": "constant", "delaySeconds": 5, "attempts": 3 },
        "active": false,
    });
    golden.ask(&acme, "POST", "/api/v1/webhooks?dry_run=true", full.clone()).await;
    let second = text(&golden.ask(&acme, "POST", "/api/v1/webhooks", full).await.expect(201), "id");
    golden.ask(&acme, "GET", &path, NONE).await;
    golden.ask(&acme, "GET", "/api/v1/webhooks", NONE).await;

    golden.section("change");
    let second = format!("/api/v1/webhooks/{second}");
    golden.ask(&acme, "PATCH", &second, json!({ "active": true, "sessionId": session })).await;
    golden.ask(&acme, "PATCH", &second, json!({ "secret": "", "sessionId": session })).await;
    golden.ask(&acme, "PATCH", &second, json!({ "events": [] })).await;
    golden.ask(&acme, "PATCH", &second, json!({ "url": "nonsense" })).await;
    golden.ask(&acme, "PATCH", &second, json!({ "sessionId": foreign })).await;

    golden.section("remove, twice");
    golden.ask(&acme, "DELETE", &path, NONE).await;
    golden.ask(&acme, "DELETE", &path, NONE).await;
    golden.ask(&acme, "GET", &path, NONE).await;
    golden.ask(&other.client, "GET", &second, NONE).await;
    golden.ask(&other.client, "DELETE", &second, NONE).await;

    golden.section("a webhook goes with its session");
    golden.ask(&acme, "PATCH", &second, json!({ "sessionId": session })).await;
    acme.delete(&format!("/api/v1/sessions/{session}")).await.expect(204);
    golden.ask(&acme, "GET", "/api/v1/webhooks", NONE).await;
    expect_file!["../golden/router/webhooks.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn a_sessions_profile() {
    let gateway = Gateway::start_with("public_url = \"https://gateway.example.com\"\n").await;
    let org = gateway.org("Acme").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());
    let path = format!("/api/v1/sessions/{}", org.session().await);

    golden.section("settings");
    golden.ask(&acme, "GET", &format!("{path}/settings"), NONE).await;
    let settings =
        json!({ "autoRead": false, "presenceTyping": true, "rejectCalls": true, "rejectedCallText": "later" });
    golden.ask(&acme, "PUT", &format!("{path}/settings"), settings.clone()).await;
    golden.ask(&acme, "PUT", &format!("{path}/settings"), settings).await;
    golden.ask(&acme, "PUT", &format!("{path}/settings"), json!({ "autoRead": true })).await;

    golden.section("proxy");
    golden.ask(&acme, "GET", &format!("{path}/proxy"), NONE).await;
    let proxy =
        json!({ "protocol": "socks5", "host": "proxy.example.com", "port": 8080, "username": "u", "password": "hush" });
    golden.ask(&acme, "PUT", &format!("{path}/proxy"), proxy).await;
    golden.ask(&acme, "GET", &format!("{path}/proxy"), NONE).await;
    for bad in [
        json!({ "protocol": "carrier-pigeon", "host": "a", "port": 1 }),
        json!({ "protocol": "http", "host": "http://a", "port": 1 }),
        json!({ "protocol": "http", "host": "a", "port": 0 }),
        json!({ "protocol": "http", "host": "a", "port": 70000 }),
    ] {
        golden.ask(&acme, "PUT", &format!("{path}/proxy"), bad).await;
    }
    golden.ask(&acme, "DELETE", &format!("{path}/proxy"), NONE).await;

    golden.section("temporary link");
    let link = format!("{path}/link");
    golden.ask(&acme, "GET", &link, NONE).await;
    let first = golden.ask(&acme, "POST", &link, NONE).await.expect(201);
    let second = golden.ask(&acme, "POST", &link, NONE).await.expect(201);
    assert_ne!(first["link"], second["link"], "a new link takes the place of the old one");
    golden.ask(&acme, "GET", &link, NONE).await;
    golden.ask(&acme, "DELETE", &link, NONE).await;
    golden.ask(&acme, "DELETE", &link, NONE).await;
    golden.ask(&acme, "GET", &link, NONE).await;
    expect_file!["../golden/router/profile.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn tickets() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let foreign = gateway.org("Other").await.session().await;
    let session = org.session().await;
    let path = "/api/v1/realtime/ticket";
    let mut golden = Transcript::default();
    for body in [
        json!({ "scope": "session" }),
        json!({ "scope": "galaxy" }),
        json!({ "scope": "firehose" }),
        json!({ "scope": "session", "session": "nonsense" }),
        json!({ "scope": "session", "session": foreign }),
        json!({ "events": ["no.such"] }),
        json!({ "since": "nonsense" }),
    ] {
        golden.ask(&org.client, "POST", path, body).await;
    }
    for body in [NONE, json!({}), json!({ "scope": "session", "session": session, "events": ["session.status"] })] {
        let ticket =
            org.client.send("POST", path, if body.is_null() { "".into() } else { body.to_string().into() }).await;
        let ticket = ticket.expect(201);
        let (text, url) = (text(&ticket, "ticket"), text(&ticket, "url"));
        assert!(text.starts_with("rt_") && text.len() == 3 + 43, "{ticket}");
        assert_eq!(url, format!("ws://{}/api/v1/realtime?ticket={text}", gateway.address));
        assert_eq!(ticket["expiresInSeconds"], 30);
    }
    expect_file!["../golden/router/tickets.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn a_qr_code_comes_in_every_form() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let path = format!("/api/v1/sessions/{}/qr", org.session().await);
    let raw = text(&org.client.get(&path).await.expect(200), "code");
    assert!(raw.starts_with("2@"), "{raw}");
    assert_eq!(text(&org.client.get(&format!("{path}?format=raw")).await.expect(200), "code"), raw);
    let form = async |format: &str, kind: &str| {
        let reply = org.client.get(&format!("{path}?format={format}")).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(kind)), "{format}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{format}");
        reply.body
    };
    assert!(form("png", "image/png").await.starts_with(b"\x89PNG"));
    assert!(form("svg", "image/svg+xml").await.starts_with(b"<svg"));
    let url: Value = serde_json::from_slice(&form("data-url", "application/json").await).unwrap();
    assert!(text(&url, "image").starts_with("data:image/png;base64,"));
    org.client.get(&format!("{path}?format=gif")).await.refused(400, "validation_error");
}

#[tokio::test]
async fn metrics_are_the_operators_and_name_nobody() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let session = org.working().await;
    org.client.get("/api/v1/sessions/nonsense").await.expect(404);
    org.client.get("/metrics").await.refused(403, "forbidden");
    gateway.stranger().get("/metrics").await.refused(401, "unauthorized");
    let reply = gateway.operator().get("/metrics").await;
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let metrics = String::from_utf8(reply.body.to_vec()).unwrap();
    for line in [
        "portcullis_sessions{status=\"online\"} 1",
        "portcullis_requests_total{dialect=\"router\",operation=\"session.create\",status=\"2xx\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    for secret in [&session, &org.id, "Acme", "nonsense"] {
        assert!(!metrics.contains(secret), "{secret} is in the metrics");
    }
}

#[tokio::test]
async fn all_sessions_are_the_operators_to_list() {
    let gateway = Gateway::start().await;
    let (one, other) = (gateway.org("One").await, gateway.org("Other").await);
    let (first, second) = (one.session().await, other.session().await);
    let denied = one.client.get("/api/v1/admin/sessions").await.refused(403, "forbidden");
    assert_eq!(denied["message"], "super_admin required");
    let page = gateway.operator().get("/api/v1/admin/sessions?limit=1").await.expect(200);
    assert_eq!(page["data"][0]["id"], second.as_str());
    let next = text(&page, "nextCursor");
    let page = gateway.operator().get(&format!("/api/v1/admin/sessions?limit=1&cursor={next}")).await.expect(200);
    assert_eq!((page["data"][0]["id"].as_str(), page["nextCursor"].as_str()), (Some(first.as_str()), None));
}

#[tokio::test]
async fn pages_of_known_origins_may_call() {
    let gateway = Gateway::start_with("cors_origins = [\"https://app.example.com\"]\n").await;
    let org = gateway.org("Acme").await;
    let ask = async |method: &str, origin: &str, more: &[(&str, &str)]| {
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let headers = std::iter::once(("origin".to_owned(), origin.to_owned())).chain(more).collect();
        org.client.send_with(method, "/api/v1/sessions", headers, "".into()).await
    };
    let beforehand = [("access-control-request-method", "POST"), ("access-control-request-headers", "x-api-key")];
    let preflight = ask("OPTIONS", "https://app.example.com", &beforehand).await;
    assert_eq!(preflight.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example.com"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, POST, PUT, PATCH, DELETE, OPTIONS"),
        (
            "access-control-allow-headers",
            "Authorization, Content-Type, X-Api-Key, Apikey, Access-Token, X-Instance-Id, Idempotency-Key, Last-Event-ID, X-Request-Id",
        ),
        ("access-control-max-age", "600"),
        ("vary", "Origin"),
    ] {
        assert_eq!(preflight.header(name), Some(value), "{name}");
    }
    let known = ask("GET", "https://app.example.com", &[]).await;
    assert_eq!((known.status, known.header("access-control-allow-origin")), (200, Some("https://app.example.com")));
    let unknown = ask("GET", "https://evil.example.com", &[]).await;
    assert_eq!((unknown.status, unknown.header("access-control-allow-origin")), (200, None));
    assert_eq!(unknown.header("vary"), Some("Origin"));
    assert_eq!(ask("OPTIONS", "https://evil.example.com", &beforehand).await.status, 405);
}
