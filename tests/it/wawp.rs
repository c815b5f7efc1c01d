//! Golden transcripts of the Wawp dialect: every route, what it answers, how it refuses, and what it says the second time.

use bytes::Bytes;
use expect_test::expect_file;
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};

use crate::client::{Client, Reply};
use crate::gateway::Gateway;
use crate::transcript::Transcript;
use crate::world::{Org, text};

/// No body.
const NONE: Value = Value::Null;
/// Links are made from the address that people know, which a test has to choose to see it again.
const CONFIG: &str = "public_url = \"https://gateway.example.com\"\n[limits]\nsend_patience_ms = 0\n";
/// Policy plugins are compiled without optimisation here, and may take longer.
const SLOW_PLUGINS: &str = "[plugins]\ngate_wall_ms = 20000\nchain_wall_ms = 60000\n";

/// A request: its path, headers and body.
type Sent<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

/// A session as its owner knows it, in two dialects.
struct Instance {
    /// The native id, under which its phone is simulated.
    id: String,
    /// The end of a path that names it.
    query: String,
}

impl Org {
    /// A new session, stopped and not linked.
    async fn instance(&self) -> Instance {
        let created = self.client.act("/v2/session/create").await.expect(201);
        self.newest(&text(&created, "instance_id")).await
    }

    /// The session that was made last.
    async fn newest(&self, instance_id: &str) -> Instance {
        let sessions = self.client.get("/api/v1/sessions?limit=1").await.expect(200);
        Instance { id: text(&sessions["data"][0], "id"), query: format!("?instance_id={instance_id}") }
    }

    /// A new session that is linked and connected.
    async fn working_instance(&self) -> Instance {
        let instance = self.instance().await;
        self.link(&instance.id).await;
        instance
    }

    /// What only organisations that pay may do, from now on.
    async fn pays(&self, gateway: &Gateway) {
        let plan = json!({ "plan": { "name": "pro", "active": true } });
        gateway.operator().patch(&format!("/api/v1/orgs/{}", self.id), &plan).await.expect(200);
    }
}

/// Asks with headers of the caller's choice and nothing else that says who asks.
async fn ask_with(client: &Client, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.exchange(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await
}

#[tokio::test]
async fn a_sessions_life() {
    let gateway = Gateway::start_with(CONFIG).await;
    let org = gateway.org("Acme").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());

    golden.section("create and read");
    let created = golden.ask(&acme, "POST", "/v2/session/create", NONE).await.expect(201);
    let session = org.newest(&text(&created, "instance_id")).await;
    let (id, query) = (&session.id, &session.query);
    let info = format!("/v2/session/info{query}");
    golden.ask(&acme, "POST", &info, NONE).await;
    golden.ask(&acme, "GET", &info, NONE).await;
    let in_body = json!({ "instance_id": created["instance_id"], "a field that nobody knows": [1] });
    for alias in ["/v2/session/info", "/v2/status", "/v2/session/status"] {
        golden.ask(&acme, "POST", alias, in_body.clone()).await;
    }
    golden.ask(&acme, "GET", &format!("/v2/session/me{query}"), NONE).await;

    golden.section("what a session that does not run cannot do, and what is so already");
    golden.ask(&acme, "POST", &format!("/v2/session/logout{query}"), NONE).await;
    golden.ask(&acme, "GET", &format!("/v2/logout{query}"), NONE).await;
    golden.ask(&acme, "POST", &format!("/v2/session/stop{query}"), NONE).await;

    golden.section("start it, twice, and link it");
    golden.ask(&acme, "POST", &format!("/v2/session/start{query}"), NONE).await;
    golden.ask(&acme, "GET", &format!("/v2/session/start{query}"), NONE).await;
    golden.ask(&acme, "POST", &format!("/v2/auth/qr{query}"), json!({ "format": "raw" })).await;
    golden.ask(&acme, "GET", &format!("/v2/auth/qr-image{query}"), NONE).await;
    golden.ask(&acme, "GET", &info, NONE).await;
    golden.ask(&acme, "GET", &format!("/v2/auth/qr{query}&format=svg"), NONE).await;
    org.link(id).await;
    golden.ask(&acme, "GET", &info, NONE).await;
    golden.ask(&acme, "GET", &format!("/v2/session/me{query}"), NONE).await;

    golden.section("what a session that works cannot do, and what is so already");
    golden.ask(&acme, "POST", &format!("/v2/session/start{query}"), NONE).await;
    golden.ask(&acme, "POST", &format!("/v2/auth/qr{query}"), NONE).await;
    golden.ask(&acme, "POST", &format!("/v2/auth/qr-image{query}"), NONE).await;
    let phone = json!({ "phone_number": "628123456789" });
    golden.ask(&acme, "POST", &format!("/v2/auth/request-code{query}"), phone).await;

    golden.section("stop it, twice; start and restart it");
    golden.ask(&acme, "POST", &format!("/v2/session/stop{query}"), NONE).await;
    golden.ask(&acme, "GET", &format!("/v2/session/stop{query}"), NONE).await;
    golden.ask(&acme, "POST", &format!("/v2/session/start{query}"), NONE).await;
    org.reaches(id, "working").await;
    golden.ask(&acme, "POST", &format!("/v2/session/restart{query}"), NONE).await;
    org.reaches(id, "working").await;
    acme.get(&format!("/v2/session/restart{query}")).await.expect(200);
    org.reaches(id, "working").await;

    golden.section("log it out, twice");
    golden.ask(&acme, "POST", &format!("/v2/session/logout{query}"), NONE).await;
    golden.ask(&acme, "GET", &format!("/v2/session/logout{query}"), NONE).await;
    golden.ask(&acme, "POST", &format!("/v2/logout{query}"), NONE).await;
    golden.ask(&acme, "POST", &info, NONE).await;

    golden.section("a picture of a code begins to link it");
    golden.ask(&acme, "POST", &format!("/v2/auth/qr-image{query}"), NONE).await;
    golden.ask(&acme, "POST", &format!("/v2/session/logout{query}"), NONE).await;

    golden.section("delete it, twice");
    golden.ask(&acme, "DELETE", &format!("/v2/session/delete{query}"), NONE).await;
    golden.ask(&acme, "DELETE", &format!("/v2/session/delete{query}"), NONE).await;
    golden.ask(&acme, "GET", &info, NONE).await;
    let other = org.instance().await;
    let in_body = json!({ "instance_id": other.query.rsplit('=').next() });
    golden.ask(&acme, "DELETE", "/v2/delete", in_body).await;
    expect_file!["../golden/wawp/session.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn codes_to_type_and_temporary_links() {
    let gateway = Gateway::start_with(CONFIG).await;
    let org = gateway.org("Acme").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());
    let Instance { id, query } = org.instance().await;

    golden.section("a code for a phone number");
    let path = format!("/v2/auth/request-code{query}");
    for bad in [NONE, json!({ "phone_number": "12345" }), json!({ "phone_number": ["628123456789"] })] {
        golden.ask(&acme, "POST", &path, bad).await;
    }
    acme.get(&format!("/v2/auth/qr-image{query}")).await.expect(200);
    golden.ask(&acme, "POST", &path, json!({ "phone_number": "+62 812-3456-789" })).await;
    golden.ask(&acme, "POST", &format!("/v2/auth/request-code{query}&phone=628123456789"), NONE).await;
    golden.ask(&acme, "POST", &format!("/v2/auth/qr{query}"), NONE).await;
    acme.act(&format!("/v2/auth/request-code{query}&phone=628123456789")).await.expect(200);
    org.client.act(&format!("/api/v1/sessions/{id}/simulator:scan")).await.expect(204);
    org.reaches(&id, "working").await;

    golden.section("unlinked on the phone");
    org.client.act(&format!("/api/v1/sessions/{id}/simulator:unlink")).await.expect(204);
    org.reaches(&id, "logged_out").await;
    golden.ask(&acme, "GET", &format!("/v2/session/info{query}"), NONE).await;
    golden.ask(&acme, "POST", &format!("/v2/session/logout{query}"), NONE).await;
    golden.ask(&acme, "POST", &format!("/v2/session/restart{query}"), NONE).await;

    golden.section("temporary links");
    let path = format!("/v2/session/temp-link{query}");
    golden.ask(&acme, "GET", &path, NONE).await;
    golden.ask(&acme, "POST", &path, NONE).await;
    golden.ask(&acme, "GET", &path, NONE).await;
    golden.ask(&acme, "POST", &path, NONE).await;
    golden.ask(&acme, "DELETE", &path, NONE).await;
    golden.ask(&acme, "DELETE", &path, NONE).await;
    golden.ask(&acme, "GET", &path, NONE).await;
    expect_file!["../golden/wawp/linking.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn rate_limits_and_webhooks() {
    let gateway = Gateway::start_with(CONFIG).await;
    let org = gateway.org("Acme").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());
    let Instance { query, .. } = org.instance().await;
    let (rate_limit, webhook) = (format!("/v2/session/rate-limit{query}"), format!("/v2/session/webhook{query}"));

    golden.section("rate limits, without a plan");
    golden.ask(&acme, "GET", &rate_limit, NONE).await;
    golden.ask(&acme, "PATCH", &rate_limit, json!({ "policy_slug": "strict" })).await;
    for bad in [NONE, json!({ "policy_slug": "turbo" }), json!({ "policy_slug": "unlimited" })] {
        golden.ask(&acme, "PATCH", &rate_limit, bad).await;
    }

    golden.section("webhooks, without a plan");
    golden.ask(&acme, "GET", &webhook, NONE).await;
    golden.ask(&acme, "POST", &webhook, json!({ "webhooks": [] })).await;

    golden.section("with a plan");
    org.pays(&gateway).await;
    golden.ask(&acme, "PATCH", &format!("{rate_limit}&policy_slug=high_throughput"), NONE).await;
    golden.ask(&acme, "GET", &webhook, NONE).await;
    let first = json!({ "url": "https://example.com/a", "events": ["message", "session.status"], "is_active": true });
    let second = json!({ "url": "https://example.com/b", "events": ["*"], "is_active": 0 });
    golden.ask(&acme, "POST", &webhook, json!({ "webhooks": [first, second] })).await;
    golden.ask(&acme, "GET", &webhook, NONE).await;
    let as_text = "%5B%7B%22url%22:%22https://example.com/b%22,%22events%22:%5B%22message.ack%22%5D%7D%5D";
    golden.ask(&acme, "POST", &format!("{webhook}&webhooks={as_text}"), NONE).await;
    golden.ask(&acme, "GET", &webhook, NONE).await;
    golden.ask(&acme, "POST", &format!("{webhook}&dry_run=true"), json!({ "webhooks": [] })).await;
    for bad in [
        NONE,
        json!({ "webhooks": "nonsense" }),
        json!({ "webhooks": {} }),
        json!({ "webhooks": [{ "events": [] }] }),
        json!({ "webhooks": [{ "url": "ftp://example.com", "events": [] }] }),
        json!({ "webhooks": [{ "url": "https://example.com", "events": ["session.born"] }] }),
    ] {
        golden.ask(&acme, "POST", &webhook, bad).await;
    }
    golden.ask(&acme, "POST", &webhook, json!({ "webhooks": [] })).await;
    expect_file!["../golden/wawp/settings.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn texts() {
    let gateway = Gateway::start_with(CONFIG).await;
    let org = gateway.org("Acme").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());
    let (stopped, working) = (org.instance().await, org.working_instance().await);
    let path = format!("/v2/send/text{}", working.query);
    let message = json!({ "chatId": "+62 8555", "message": "hello", "reply_to": "false_628555@c.us_3EB0A1" });

    golden.section("what is not valid");
    for bad in [
        NONE,
        json!({ "chatId": "628555@c.us" }),
        json!({ "message": "hello" }),
        json!({ "chatId": "nobody", "message": "hello" }),
        json!({ "chatId": "628555@c.us", "message": "hello", "reply_to": "a b" }),
        json!({ "chatId": "628555@c.us", "message": "hello", "dry_run": true }),
    ] {
        golden.ask(&acme, "POST", &path, bad).await;
    }
    let long = json!({ "chatId": "628555@c.us", "message": "x".repeat(4097) });
    assert_eq!(acme.post(&path, &long).await.expect(400)["code"], "invalid_parameter");

    golden.section("not connected");
    golden.ask(&acme, "POST", &format!("/v2/send/text{}", stopped.query), message.clone()).await;

    golden.section("only tried, then sent; too fast for its policy; to nobody");
    golden.ask(&acme, "POST", &format!("{path}&dry_run=true"), message.clone()).await;
    golden.ask(&acme, "POST", &path, message.clone()).await;
    golden.ask(&acme, "POST", &path, message).await;
    org.pays(&gateway).await;
    let unlimited = format!("/v2/session/rate-limit{}&policy_slug=unlimited", working.query);
    acme.patch(&unlimited, &json!({})).await.expect(200);
    golden.ask(&acme, "GET", &format!("{path}&chatId=120363041234567890@g.us&text=hi%20there"), NONE).await;
    golden.ask(&acme, "POST", &path, json!({ "chatId": "62810000@c.us", "message": "hello" })).await;

    golden.section("once for each key");
    let key = acme.key.clone().unwrap();
    let body = json!({ "chatId": "628555@c.us", "message": "once" }).to_string();
    for (name, body) in [("first-1", &body), ("first-1", &body), ("", &body)] {
        let headers = [("access-token", key.as_str()), ("idempotency-key", name)];
        let reply = ask_with(&acme, "POST", &path, &headers, body).await;
        golden.exchange(&format!("\nPOST {path} idempotency-key: {name} {body}"), &reply);
    }
    expect_file!["../golden/wawp/texts.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn who_asks_and_for_what() {
    let gateway = Gateway::start_with(CONFIG).await;
    let org = gateway.org("Acme").await;
    let stranger = gateway.stranger();
    let mut golden = Transcript::default();
    let (session, other) = (org.instance().await, org.instance().await);
    let id = session.query.rsplit('=').next().unwrap();
    let key = org.client.key.clone().unwrap();
    let both = json!({ "access_token": key, "instance_id": id }).to_string();
    let json = ("content-type", "application/json");
    let form = ("content-type", "application/x-www-form-urlencoded");
    let bearer = format!("Bearer {key}");

    let info = "/v2/session/info";
    let in_query = format!("{info}?instance_id={id}&access_token={key}");
    golden.section("credentials in every place");
    let places: [Sent<'_>; 6] = [
        (&in_query, &[json], ""),
        (info, &[json], &both),
        (info, &[("access-token", &key), ("x-instance-id", id)], ""),
        (info, &[("authorization", &bearer), ("x-instance-id", id)], ""),
        (&in_query, &[json, ("authorization", &bearer)], &both),
        (&in_query, &[form], ""),
    ];
    for (path, headers, body) in places {
        ask_with(&stranger, "POST", path, headers, body).await.expect(200);
    }
    let reply = ask_with(&stranger, "POST", info, &[json], &both).await;
    golden.exchange(&format!("\nPOST {info} {both}"), &reply);

    golden.section("credentials that are none");
    let differs = format!("{info}?instance_id={id}&access_token=other");
    let contradictions: [Sent<'_>; 7] = [
        (info, &[], ""),
        (info, &[form], &both),
        (info, &[("x-api-key", &key)], ""),
        (&differs, &[], ""),
        (&differs, &[json], &both),
        (&in_query, &[("authorization", "Bearer other")], ""),
        (&format!("{in_query}{}", other.query.replace('?', "&")), &[], ""),
    ];
    for (path, headers, body) in contradictions {
        let reply = ask_with(&stranger, "POST", path, headers, body).await;
        golden.exchange(&format!("\nPOST {path} {headers:?} {body}"), &reply);
    }

    golden.section("bodies that are no object, and parameters that are missing or wrong");
    let malformed: [(&[(&str, &str)], &str); 4] =
        [(&[json], "{"), (&[json], "[]"), (&[form], "a=b"), (&[json], r#"{"dry_run": true}"#)];
    for (headers, body) in malformed {
        let reply = ask_with(&stranger, "POST", &in_query, headers, body).await;
        golden.exchange(&format!("\nPOST {in_query} {headers:?} {body}"), &reply);
    }
    let acme = org.client.clone();
    golden.ask(&acme, "POST", info, NONE).await;
    golden.ask(&acme, "POST", "/v2/session/create", json!([])).await;
    golden.ask(&acme, "POST", &format!("/v2/session/stop{}&dry_run=perhaps", session.query), NONE).await;

    golden.section("sessions, paths and methods that are not there");
    golden.ask(&acme, "POST", &format!("{info}?instance_id=nobody"), NONE).await;
    let foreign = gateway.org("Other").await.client;
    golden.ask(&foreign, "POST", &format!("{info}{}", session.query), NONE).await;
    golden.ask(&acme, "GET", "/v2/session/explode", NONE).await;
    golden.ask(&acme, "DELETE", info, NONE).await;
    golden.ask(&acme, "GET", "/v2/session/create", NONE).await;

    golden.section("what a caller may not");
    let reader = gateway.capable(&org, &["read"]).await;
    golden.ask(&reader, "POST", &format!("/v2/session/start{}", session.query), NONE).await;
    golden.ask(&reader, "GET", &format!("/v2/session/temp-link{}", session.query), NONE).await;
    let bound = json!({ "name": "bound", "capabilities": ["manage", "send"], "sessionId": other.id });
    let bound = Client::new(gateway.address, Some(&gateway.key(&org.id, &bound).await));
    golden.ask(&bound, "GET", &format!("{info}{}", other.query), NONE).await;
    golden.ask(&bound, "GET", &format!("{info}{}", session.query), NONE).await;

    golden.section("an organisation at its bounds, and one that is suspended");
    let bounds = |change: Value| {
        let (operator, path) = (gateway.operator(), format!("/api/v1/orgs/{}", org.id));
        async move { operator.patch(&path, &change).await.expect(200) }
    };
    bounds(json!({ "quotas": { "sessions": 2 } })).await;
    golden.ask(&acme, "POST", "/v2/session/create", NONE).await;
    bounds(json!({ "suspended": true })).await;
    golden.ask(&acme, "POST", &format!("/v2/session/start{}", session.query), NONE).await;
    expect_file!["../golden/wawp/callers.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn a_deletion_under_policy() {
    let gateway = Gateway::start_with(SLOW_PLUGINS).await;
    let org = gateway.org("Acme").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());
    let plugin = org.catalogue("grace-delete").await;
    let binding = org.bind(&plugin, json!({ "grace": "PT72H" })).await;
    let Instance { id, query } = org.working_instance().await;
    let delete = format!("/v2/session/delete{query}");

    golden.section("only asked");
    golden.ask(&acme, "DELETE", &format!("{delete}&dry_run=true"), NONE).await;

    golden.section("deferred, twice");
    golden.ask(&acme, "DELETE", &delete, NONE).await;
    golden.ask(&acme, "DELETE", &format!("/v2/delete{query}"), NONE).await;
    golden.ask(&acme, "GET", &format!("/v2/session/info{query}"), NONE).await;
    golden.ask(&acme, "POST", &format!("/v2/session/start{query}"), NONE).await;
    golden.ask(&acme, "GET", &format!("/v2/auth/qr{query}"), NONE).await;

    golden.section("vetoed");
    acme.act(&format!("/api/v1/sessions/{id}:restore")).await.expect(200);
    acme.put(&format!("/api/v1/sessions/{id}/labels"), &json!({ "legal-hold": "case 7" })).await.expect(200);
    golden.ask(&acme, "DELETE", &format!("{delete}&dry_run=true"), NONE).await;
    golden.ask(&acme, "DELETE", &delete, NONE).await;

    golden.section("carried out");
    acme.delete(&format!("/api/v1/bindings/{binding}")).await.expect(204);
    golden.ask(&acme, "DELETE", &delete, NONE).await;
    golden.ask(&acme, "DELETE", &delete, NONE).await;
    expect_file!["../golden/wawp/deletion.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn a_plugins_limit_is_told_with_its_decision() {
    let gateway = Gateway::start_with(SLOW_PLUGINS).await;
    let org = gateway.org("Acme").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());
    let plugin = org.catalogue("delete-quota").await;
    org.bind(&plugin, json!({ "perHour": 1 })).await;
    let (first, second) = (org.instance().await, org.instance().await);
    acme.delete(&format!("/v2/session/delete{}", first.query)).await.expect(200);
    golden.ask(&acme, "DELETE", &format!("/v2/session/delete{}", second.query), NONE).await;
    expect_file!["../golden/wawp/limit.txt"].assert_eq(golden.text());
}
