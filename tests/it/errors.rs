//! What is asked badly, by the wrong one, or too much: every refusal has the envelope, and none says more than it should.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, Reply};
use crate::gateway::{Gateway, eventually};
use crate::world::text;

/// An id that nobody has, of each kind.
const NOBODY: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

#[track_caller]
fn message(reply: &Reply, status: u16, code: &str) -> String {
    text(&reply.refused(status, code), "message")
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_named_for_what_is_wrong() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let post = async |body: &str| org.client.send("POST", "/api/v1/sessions", Bytes::from(body.to_owned())).await;
    let errors = |reply: &Reply| reply.refused(400, "validation_error")["details"]["errors"][0].to_string();

    for broken in ["{", "{\"label\": }", "nonsense", "{} {}", "{\"label\": \"\u{1}\"}"] {
        let error = errors(&post(broken).await);
        assert!(error.contains("no JSON document"), "{broken}: {error}");
    }
    assert!(errors(&post("{\"lable\": \"x\"}").await).contains("unexpected property (body.lable"));
    assert!(errors(&post("{\"label\": 3}").await).contains("invalid type"));
    assert!(errors(&post("[]").await).contains("must be an object"));
    assert!(errors(&post("{\"start\": \"yes\"}").await).contains("invalid type"));
    assert_eq!(message(&post("").await, 400, "validation_error"), "request body is required");

    let not_utf8 = org.client.send("POST", "/api/v1/sessions", Bytes::from_static(b"{\"label\": \"\xff\"}")).await;
    not_utf8.refused(400, "validation_error");
    let control = post("{\"label\": \"a\\nb\"}").await;
    assert!(message(&control, 400, "validation_error").contains("control characters"));
    let deep = "[".repeat(100_000);
    post(&format!("{{\"labels\": {deep}")).await.refused(400, "validation_error");
}

#[tokio::test]
async fn too_much_is_refused_with_its_own_status() {
    let gateway = Gateway::start_with("[limits]\njson_bytes = 4096\ncomponent_bytes = 65536\n").await;
    let org = gateway.org("Acme").await;
    let large = json!({ "label": "x".repeat(5000) });
    org.client.post("/api/v1/sessions", &large).await.refused(413, "payload_too_large");
    let component = Bytes::from(vec![0; 70_000]);
    org.client.send("POST", "/api/v1/plugins", component).await.refused(413, "payload_too_large");
    // A component may be larger than a document may.
    org.client.send("POST", "/api/v1/plugins", Bytes::from(vec![0; 5000])).await.refused(400, "validation_error");

    let long = format!("/api/v1/sessions?cursor={}", "x".repeat(9000));
    assert_eq!(org.client.get(&long).await.status, 414);
    assert!(org.client.get("/api/v1/sessions").await.status == 200);
}

#[tokio::test]
async fn a_head_that_is_too_large_ends_its_connection_and_no_other() {
    let gateway = Gateway::start().await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-much: {}\r\n\r\n", "x".repeat(64 * 1024));
    // The gateway may close the connection before all of it was written.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");

    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(b"this is not HTTP\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");

    assert_eq!(gateway.stranger().get("/healthz").await.status, 200);
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let session = org.session().await;
    for path in
        ["/api", "/api/v1", "/api/v1/nothing", "/api/v2/sessions", "/api/v1/sessions/", "/api/v1/sessions/a/b/c"]
    {
        assert_eq!(message(&org.client.get(path).await, 404, "not_found"), "route not found", "{path}");
    }
    let action = format!("/api/v1/sessions/{session}:explode");
    assert_eq!(message(&org.client.act(&action).await, 404, "not_found"), "route not found");

    let allowed = [
        ("PUT", "/api/v1/sessions".to_owned(), "GET, POST"),
        ("PATCH", format!("/api/v1/sessions/{session}"), "DELETE, GET"),
        ("GET", format!("/api/v1/sessions/{session}:start"), "POST"),
        ("DELETE", "/api/v1/orgs".to_owned(), "GET, POST"),
        ("PUT", "/api/v1/bindings/x".to_owned(), "DELETE, GET, PATCH"),
        ("POST", "/api/v1/audit".to_owned(), "GET"),
        ("BREW", "/api/v1/audit".to_owned(), "GET"),
    ];
    for (method, path, methods) in allowed {
        let reply = org.client.send(method, &path, Bytes::new()).await;
        assert_eq!(message(&reply, 405, "validation_error"), "method not allowed");
        let mut allow: Vec<_> = reply.header("allow").unwrap().split(", ").collect();
        allow.sort_unstable();
        assert_eq!(allow.join(", "), methods, "{method} {path}");
    }
}

#[tokio::test]
async fn a_colon_may_be_encoded() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let session = org.session().await;
    for colon in [":", "%3A", "%3a"] {
        let path = format!("/api/v1/sessions/{session}{colon}stop");
        assert_eq!(org.client.act(&path).await.expect(200)["status"], "stopped");
    }
}

#[tokio::test]
async fn both_versions_of_http_are_spoken() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let request = || {
        let key = org.client.key.clone().unwrap();
        let request =
            Request::builder().method("POST").uri("/api/v1/sessions").header("authorization", format!("Bearer {key}"));
        request.header("x-request-id", "mine-1").body(Full::from("{\"label\": \"one\"}")).unwrap()
    };
    for reply in [org.client.exchange(request()).await, org.client.exchange_h2(request()).await] {
        assert_eq!(reply.expect(201)["label"], "one");
        assert_eq!(reply.header("x-request-id"), Some("mine-1"));
    }
    let unauthenticated = Request::builder().uri("/api/v1/sessions").body(Full::default()).unwrap();
    org.client.exchange_h2(unauthenticated).await.refused(401, "unauthorized");
}

#[tokio::test]
async fn a_request_id_is_taken_over_if_it_can_be() {
    let gateway = Gateway::start().await;
    let with = async |id: &str| {
        let request = Request::builder().uri("/healthz").header("x-request-id", id).body(Full::default()).unwrap();
        gateway.stranger().exchange(request).await.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(with("abc-123").await, "abc-123");
    for bad in ["has space", &"x".repeat(129), ""] {
        assert!(with(bad).await.starts_with("req_"), "{bad:?} was taken over");
    }
}

#[tokio::test]
async fn the_probes_answer_without_a_key() {
    let gateway = Gateway::start().await;
    for (path, word) in [("/healthz", b"ok".as_slice()), ("/readyz", b"ready".as_slice())] {
        let reply = gateway.stranger().get(path).await;
        assert_eq!((reply.status, &reply.body[..]), (200, word));
        gateway.stranger().delete(path).await.refused(405, "validation_error");
    }
}

#[tokio::test]
async fn no_key_opens_nothing() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let operator = gateway.operator();
    let keys = format!("/api/v1/orgs/{}/keys", org.id);
    let live = org.client.key.clone().unwrap();

    let revoked = operator.post(&keys, &json!({ "name": "r", "capabilities": ["manage"] })).await.expect(201);
    operator.delete(&format!("{keys}/{}", text(&revoked, "id"))).await.expect(204);
    // The time is the gateway's own.
    let soon = revoked["createdAt"].as_u64().unwrap() + 2000;
    let expiring = operator.post(&keys, &json!({ "name": "e", "capabilities": ["manage"], "expiresAt": soon })).await;
    let expiring = Client::new(gateway.address, Some(&text(&expiring.expect(201), "key")));
    eventually("the key expires", async || {
        let reply = expiring.get("/api/v1/sessions").await;
        (reply.status == 401).then_some(())
    })
    .await;

    let unknown = "wa_".to_owned() + &"0".repeat(64);
    let garbage = [
        None,
        Some(String::new()),
        Some("garbage".to_owned()),
        Some(live[..live.len() - 1].to_owned()),
        Some(live.to_uppercase()),
        Some(unknown),
        Some(text(&revoked, "key")),
        expiring.key.clone(),
        Some("x".repeat(4000)),
    ];
    let mut bodies = Vec::new();
    for key in garbage {
        let reply = Client::new(gateway.address, key.as_deref()).get("/api/v1/sessions").await;
        assert_eq!(message(&reply, 401, "unauthorized"), "missing or invalid credentials", "{key:?}");
        bodies.push(reply.body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "the bodies tell kinds of bad keys apart");

    // Who asks comes before what is asked: a stranger learns nothing about bodies and ids.
    gateway.stranger().send("POST", "/api/v1/sessions", Bytes::from_static(b"{")).await.refused(401, "unauthorized");
    gateway.stranger().get("/api/v1/sessions/nonsense").await.refused(401, "unauthorized");

    for scheme in ["Bearer", "bearer", "BEARER"] {
        let header = format!("{scheme} {live}");
        let request = Request::builder().uri("/api/v1/sessions").header("authorization", header);
        gateway.stranger().exchange(request.body(Full::default()).unwrap()).await.expect(200);
    }
    let basic = Request::builder().uri("/api/v1/sessions").header("authorization", format!("Basic {live}"));
    gateway.stranger().exchange(basic.body(Full::default()).unwrap()).await.refused(401, "unauthorized");
}

#[tokio::test]
async fn what_a_key_is_not_capable_of_is_forbidden_by_name() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let session = org.session().await;
    let path = format!("/api/v1/sessions/{session}");
    let lacks = async |capabilities: &[&str], method: &str, path: &str, body: Value, lacking: &str| {
        let client = gateway.capable(&org, capabilities).await;
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let reply = client.send(method, path, body).await;
        assert_eq!(message(&reply, 403, "forbidden"), format!("missing required capability: {lacking}"));
    };
    lacks(&["send"], "GET", &path, Value::Null, "read").await;
    lacks(&["read", "send"], "DELETE", &path, Value::Null, "manage").await;
    lacks(&["read"], "POST", "/api/v1/sessions", json!({}), "manage").await;
    let message = json!({ "type": "text", "to": "6281@s.whatsapp.net", "text": "hi" });
    lacks(&["manage"], "POST", &format!("{path}/messages"), message, "send").await;
    lacks(&["manage"], "GET", "/api/v1/plugins", Value::Null, "plugins").await;
    lacks(&["manage"], "GET", "/api/v1/audit", Value::Null, "audit").await;
    lacks(&["manage"], "GET", "/api/v1/orgs", Value::Null, "operate").await;
    lacks(&["manage"], "POST", "/api/v1/orgs", json!({ "name": "x" }), "operate").await;

    // Nobody can give what they do not have.
    let manager = gateway.capable(&org, &["manage"]).await;
    let keys = format!("/api/v1/orgs/{}/keys", org.id);
    manager.post(&keys, &json!({ "name": "x", "capabilities": ["manage"] })).await.expect(201);
    manager.post(&keys, &json!({ "name": "x", "capabilities": ["audit"] })).await.refused(403, "forbidden");
}

#[tokio::test]
async fn a_key_of_one_session_sees_that_one_and_nothing_else() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let (mine, sibling) = (org.session().await, org.session().await);
    let all: Vec<_> = crate::world::ALL.to_vec();
    let key = gateway.key(&org.id, &json!({ "name": "one", "capabilities": all, "sessionId": mine })).await;
    let scoped = Client::new(gateway.address, Some(&key));

    scoped.get(&format!("/api/v1/sessions/{mine}")).await.expect(200);
    scoped.act(&format!("/api/v1/sessions/{mine}:stop")).await.expect(200);
    let listed = scoped.get("/api/v1/sessions").await.expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert_eq!(listed["data"][0]["id"], json!(mine));

    let hidden = scoped.get(&format!("/api/v1/sessions/{sibling}")).await;
    let unknown = scoped.get(&format!("/api/v1/sessions/sess_{NOBODY}")).await;
    assert_eq!((hidden.status, &hidden.body), (404, &unknown.body));
    for path in ["/api/v1/plugins", "/api/v1/bindings", "/api/v1/decisions", "/api/v1/audit"] {
        scoped.get(path).await.refused(404, "not_found");
    }
    scoped.post("/api/v1/sessions", &json!({})).await.refused(404, "not_found");
    let keys = format!("/api/v1/orgs/{}/keys", org.id);
    scoped.post(&keys, &json!({ "name": "x", "capabilities": ["read"] })).await.refused(404, "not_found");

    let nobody = json!({ "name": "x", "capabilities": ["read"], "sessionId": format!("sess_{NOBODY}") });
    gateway.operator().post(&keys, &nobody).await.refused(404, "not_found");
}

#[tokio::test]
async fn ids_of_others_are_like_ids_of_nobody() {
    let gateway = Gateway::start().await;
    let (org, other) = (gateway.org("Acme").await, gateway.org("Other").await);
    let session = other.session().await;
    let plugin = other.catalogue("grace-delete").await;
    let binding = other.bind(&plugin, json!({})).await;
    other.client.delete(&format!("/api/v1/sessions/{session}")).await.expect(202);
    let decision = text(&other.client.get("/api/v1/decisions").await.expect(200)["data"][0], "id");
    let keys = other.client.get(&format!("/api/v1/orgs/{}/keys", other.id)).await.expect(200);
    let key = text(&keys["data"][0], "id");

    let bind = |plugin: &str| Some(json!({ "plugin": plugin, "settings": {} }));
    let message = || Some(json!({ "type": "text", "to": "6281@s.whatsapp.net", "text": "hi" }));
    let mut asked: Vec<(&str, String, &str, Option<Value>)> = Vec::new();
    for (method, action, body) in [
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", ":start", None),
        ("POST", ":restore", None),
        ("GET", "/qr", None),
        ("GET", "/me", None),
        ("GET", "/rate-policy", None),
        ("PUT", "/rate-policy", Some(json!({ "policy": "strict" }))),
        ("PUT", "/labels", Some(json!({}))),
        ("POST", "/messages", message()),
        ("POST", "/simulator:scan", None),
    ] {
        asked.push((method, format!("/api/v1/sessions/ID{action}"), &session, body));
    }
    for (method, path, id, body) in [
        ("GET", "/api/v1/plugins/ID", &plugin, None),
        ("GET", "/api/v1/plugins/ID/versions", &plugin, None),
        ("DELETE", "/api/v1/plugins/ID", &plugin, None),
        ("GET", "/api/v1/bindings/ID", &binding, None),
        ("PATCH", "/api/v1/bindings/ID", &binding, Some(json!({ "mode": "off" }))),
        ("DELETE", "/api/v1/bindings/ID", &binding, None),
        ("GET", "/api/v1/decisions/ID", &decision, None),
        ("GET", "/api/v1/orgs/ID/keys", &other.id, None),
        ("POST", "/api/v1/orgs/ID/keys", &other.id, Some(json!({ "name": "x", "capabilities": ["read"] }))),
    ] {
        asked.push((method, path.to_owned(), id, body));
    }
    asked.push(("DELETE", format!("/api/v1/orgs/{}/keys/ID", org.id), &key, None));

    for (method, path, id, body) in asked {
        let prefix = &id[..=id.find('_').unwrap()];
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let ask = async |id: &str| org.client.send(method, &path.replace("ID", id), body.clone()).await;
        let foreign = ask(id).await;
        foreign.refused(404, "not_found");
        for nobody in [format!("{prefix}{NOBODY}"), "nonsense".to_owned(), format!("{prefix}{}", NOBODY.to_lowercase())]
        {
            let unknown = ask(&nobody).await;
            assert_eq!((unknown.status, &unknown.body), (404, &foreign.body), "{method} {path} with {nobody}");
            let names = |reply: &Reply| reply.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            assert_eq!(names(&unknown), names(&foreign), "{method} {path} with {nobody}");
        }
    }

    // In bodies and in `org` as in paths.
    let (foreign, unknown) = (
        org.client.post("/api/v1/bindings", &bind(&plugin).unwrap()).await,
        org.client.post("/api/v1/bindings", &bind(&format!("plug_{NOBODY}")).unwrap()).await,
    );
    foreign.refused(404, "not_found");
    assert_eq!(foreign.body, unknown.body);
    let (foreign, unknown) = (
        org.client.get(&format!("/api/v1/sessions?org={}", other.id)).await,
        org.client.get(&format!("/api/v1/sessions?org=org_{NOBODY}")).await,
    );
    foreign.refused(404, "not_found");
    assert_eq!(foreign.body, unknown.body);
    let scoped = json!({ "name": "x", "capabilities": ["read"], "sessionId": session });
    org.client.post(&format!("/api/v1/orgs/{}/keys", org.id), &scoped).await.refused(404, "not_found");
    let filtered = org.client.get(&format!("/api/v1/decisions?session={session}")).await.expect(200);
    assert_eq!(filtered["data"], json!([]));

    // Nothing of it reached the other organisation.
    assert_eq!(other.client.get(&format!("/api/v1/bindings/{binding}")).await.expect(200)["mode"], "enforce");
    assert!(other.client.get(&format!("/api/v1/sessions/{session}")).await.expect(200)["deleteAt"].is_u64());
}

#[tokio::test]
async fn an_erased_organisation_leaves_nothing() {
    let gateway = Gateway::start().await;
    let (org, other) = (gateway.org("Acme").await, gateway.org("Other").await);
    let session = org.working().await;
    let kept = other.session().await;
    let path = format!("/api/v1/orgs/{}", org.id);
    gateway.operator().delete(&path).await.expect(204);

    org.client.get("/api/v1/sessions").await.refused(401, "unauthorized");
    let operator = gateway.operator();
    operator.get(&path).await.refused(404, "not_found");
    operator.delete(&path).await.refused(404, "not_found");
    operator.get(&format!("/api/v1/sessions/{session}?org={}", org.id)).await.refused(404, "not_found");
    let listed = operator.get("/api/v1/orgs").await.expect(200);
    assert!(!listed.to_string().contains(&org.id), "{listed}");
    other.client.get(&format!("/api/v1/sessions/{kept}")).await.expect(200);
}

#[tokio::test]
async fn a_suspended_organisation_may_read_and_nothing_else() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let session = org.session().await;
    let path = format!("/api/v1/orgs/{}", org.id);
    let operator = gateway.operator();
    assert_eq!(operator.patch(&path, &json!({ "suspended": true })).await.expect(200)["suspended"], true);
    org.client.get("/api/v1/sessions").await.expect(200);
    for reply in [
        org.client.post("/api/v1/sessions", &json!({})).await,
        org.client.delete(&format!("/api/v1/sessions/{session}")).await,
        org.client.post("/api/v1/plugins", &json!({ "catalog": "grace-delete" })).await,
    ] {
        assert_eq!(reply.refused(403, "forbidden")["details"]["reason"], "suspended");
    }
    operator.patch(&path, &json!({ "suspended": false })).await.expect(200);
    org.client.delete(&format!("/api/v1/sessions/{session}")).await.expect(204);
}

#[tokio::test]
async fn quotas_hold() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let quotas = json!({ "quotas": { "sessions": 2, "keys": 2, "plugins": 1, "bindings": 1, "concurrency": 4 } });
    gateway.operator().patch(&format!("/api/v1/orgs/{}", org.id), &quotas).await.expect(200);
    let quota = |reply: &Reply| reply.refused(403, "forbidden")["details"]["reason"].clone();
    org.session().await;
    org.session().await;
    assert_eq!(quota(&org.client.post("/api/v1/sessions", &json!({})).await), "quota_reached");
    let plugin = org.catalogue("grace-delete").await;
    let second = org.client.post("/api/v1/plugins", &json!({ "catalog": "rate-ladder" })).await;
    assert_eq!(quota(&second), "quota_reached");
    let bound = json!({ "plugin": plugin, "settings": {} });
    org.client.post("/api/v1/bindings", &bound).await.expect(201);
    assert_eq!(quota(&org.client.post("/api/v1/bindings", &bound).await), "quota_reached");
    let keys = format!("/api/v1/orgs/{}/keys", org.id);
    let key = json!({ "name": "x", "capabilities": ["read"] });
    org.client.post(&keys, &key).await.expect(201);
    assert_eq!(quota(&org.client.post(&keys, &key).await), "quota_reached");
}

#[tokio::test]
async fn the_platform_is_no_organisation_to_be_changed() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator();
    let platform = "/api/v1/orgs/org_00000000000000000000000000";
    operator.delete(platform).await.refused(404, "not_found");
    operator.patch(platform, &json!({ "suspended": true })).await.refused(404, "not_found");
    operator.get(platform).await.refused(404, "not_found");
    let nowhere = operator.post("/api/v1/sessions", &json!({})).await.refused(400, "validation_error");
    assert_eq!(nowhere["details"]["field"], "org");
    assert_eq!(operator.get("/api/v1/orgs").await.expect(200)["data"], json!([]));
    operator.get("/api/v1/audit").await.expect(200);

    // A key of the platform's that an organisation could hold would be an operator's.
    let key = json!({ "name": "x", "capabilities": ["manage"] });
    let made = operator.post(&format!("{platform}/keys"), &key).await;
    assert!(made.status >= 400, "{made:?}");
}
