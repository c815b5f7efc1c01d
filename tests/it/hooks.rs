//! Webhooks from end to end: configured through a dialect, heard in its words, signed as it says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::hmac::{self, HMAC_SHA256, HMAC_SHA512};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::gateway::Gateway;
use crate::world::{Org, text};

/// A gateway whose receivers may be on this machine.
pub(crate) const INSIDE: &str = "[outbound]\nallow = [\"127.0.0.0/8\"]\n";

/// Nothing here takes so long; what does will never come.
const HANGS: Duration = Duration::from_secs(60);

/// A receiver of webhooks, which takes everything.
struct Ear {
    address: SocketAddr,
    heard: UnboundedReceiver<Heard>,
}

/// One request.
#[derive(Debug)]
struct Heard {
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Ear {
    async fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, heard) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(hear(stream, tell.clone()));
            }
        });
        Self { address, heard }
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// What it hears, up to the first of which this is so; each is looked at.
    async fn until(&mut self, check: impl Fn(&Heard), is_last: impl Fn(&Heard) -> bool) -> Vec<Heard> {
        let mut all = Vec::new();
        loop {
            let heard = tokio::time::timeout(HANGS, self.heard.recv()).await;
            let heard = heard.unwrap_or_else(|_| panic!("it has heard only {all:#?}")).unwrap();
            check(&heard);
            let ends = is_last(&heard);
            all.push(heard);
            if ends {
                return all;
            }
        }
    }
}

impl Heard {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or_else(|| panic!("no {name} in {self:?}"), String::as_str)
    }

    /// Whether a header is the HMAC of the body.
    fn verify(&self, name: &str, algorithm: hmac::Algorithm, secret: &str) {
        let tag = hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), &self.body);
        let expected: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(self.header(name), expected);
    }
}

async fn hear(stream: TcpStream, tell: UnboundedSender<Heard>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        let path = line.split(' ').nth(1)?.to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        stream.get_mut().write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await.ok()?;
        tell.send(Heard { path, headers, body }).ok()?;
    }
}

/// Whether all of these were heard, in this order; others may be between them.
#[track_caller]
fn assert_heard(names: &[String], expected: &[&str]) {
    let mut rest = names.iter();
    for name in expected {
        assert!(rest.any(|heard| heard == name), "{name} is missing, or not in its order, in {names:?}");
    }
}

/// A session's life: made, linked, labelled and deleted.
async fn live(org: &Org) -> String {
    let session = org.working().await;
    let path = format!("/api/v1/sessions/{session}");
    org.client.put(&format!("{path}/labels"), &json!({ "a": "b" })).await.expect(200);
    org.client.delete(&path).await.expect(204);
    session
}

#[tokio::test]
async fn the_native_format_is_heard_and_verified() {
    let gateway = Gateway::start_with(INSIDE).await;
    let (org, mut ear) = (gateway.org("Acme").await, Ear::new().await);
    let hook = json!({ "url": ear.url(), "events": ["*"], "secret": "hush", "customHeaders": { "X-Mine": "1" } });
    org.client.post("/api/v1/webhooks", &hook).await.expect(201);
    let session = live(&org).await;
    let check = |heard: &Heard| {
        heard.verify("x-webhook-hmac", HMAC_SHA512, "hush");
        assert_eq!((heard.path.as_str(), heard.header("x-mine")), ("/hook", "1"));
        assert_eq!(heard.header("x-webhook-request-id"), heard.json()["id"]);
    };
    let all = ear.until(check, |heard| heard.json()["event"] == "session.deleted").await;
    let told: Vec<_> = all.iter().map(Heard::json).collect();
    assert!(told.iter().all(|told| told["session"] == session.as_str() && told["organization"] == org.id.as_str()));
    // The last goes out before everything else, and the others may still be on their way then.
    let names: Vec<_> = told.iter().map(|told| text(told, "event")).collect();
    assert_heard(&names, &["session.created", "session.linked"]);
}

#[tokio::test]
async fn the_standard_format_is_verified_by_the_library_of_its_specification() {
    let gateway = Gateway::start_with(INSIDE).await;
    let (org, mut ear) = (gateway.org("Acme").await, Ear::new().await);
    let hook = json!({ "url": ear.url(), "events": ["*"], "format": "standard" });
    let made = org.client.post("/api/v1/webhooks", &hook).await.expect(201);
    let library = standardwebhooks::Webhook::new(&text(&made, "secret")).unwrap();
    live(&org).await;
    let check = |heard: &Heard| {
        let headers = heard.headers.iter();
        let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        library.verify(&heard.body, &headers).unwrap();
    };
    let all = ear.until(check, |heard| heard.json()["type"] == "session.deleted").await;
    let names: Vec<_> = all.iter().map(|heard| text(&heard.json(), "type")).collect();
    assert_heard(&names, &["session.created", "session.status", "session.linked"]);
}

#[tokio::test]
async fn wawps_format_is_heard_of_the_session_that_it_was_set_for() {
    let gateway = Gateway::start_with(INSIDE).await;
    let (org, mut ear) = (gateway.org("Acme").await, Ear::new().await);
    let plan = json!({ "plan": { "name": "business", "active": true } });
    gateway.operator().patch(&format!("/api/v1/orgs/{}", org.id), &plan).await.expect(200);
    let session = org.session().await;
    org.session().await;
    let shown = org.client.get(&format!("/api/v1/sessions/{session}")).await.expect(200);
    let instance = text(&shown, "instanceId");
    let list = json!({ "webhooks": [{ "url": ear.url(), "events": ["session.status"], "secret": "hush" }] });
    org.client.post(&format!("/v2/session/webhook?instance_id={instance}"), &list).await.expect(200);
    org.link(&session).await;
    let check = |heard: &Heard| {
        heard.verify("x-webhook-hmac", HMAC_SHA512, "hush");
        heard.verify("x-wawp-signature", HMAC_SHA256, "hush");
        let told = heard.json();
        assert_eq!((&told["event"], &told["instance_id"]), (&json!("session.status"), &json!(instance)));
    };
    let status = |heard: &Heard| text(&heard.json()["payload"], "status");
    let linked = ear.until(check, |heard| status(heard) == "WORKING").await;
    assert_heard(&linked.iter().map(status).collect::<Vec<_>>(), &["SCAN_QR_CODE", "WORKING"]);
    let working = linked.last().unwrap().json();
    assert_eq!((&working["status"], &working["me"]["id"]), (&json!("WORKING"), &json!("628123456789@c.us")));
    org.client.delete(&format!("/v2/session/delete?instance_id={instance}")).await.expect(200);
    ear.until(check, |heard| status(heard) == "DELETED").await;
}

#[tokio::test]
async fn evolutions_format_is_heard_at_a_path_for_each_event_with_a_token() {
    let gateway = Gateway::start_with(INSIDE).await;
    let (org, mut ear) = (gateway.org("Acme").await, Ear::new().await);
    let webhook = json!({ "url": ear.url(), "byEvents": true, "headers": { "jwt_key": "hush" } });
    let create = json!({ "instanceName": "t1", "integration": "WHATSAPP-BAILEYS", "qrcode": true, "webhook": webhook });
    org.client.post("/instance/create", &create).await.expect(201);
    let session = text(&org.client.get("/api/v1/sessions").await.expect(200)["data"][0], "id");
    org.link(&session).await;
    let check = |heard: &Heard| {
        let told = heard.json();
        let expected = format!("/hook/{}", text(&told, "event").replace('.', "-"));
        assert_eq!((heard.path.clone(), &told["instance"]), (expected, &json!("t1")));
        let token = heard.header("authorization").strip_prefix("Bearer ").unwrap();
        let (signed, tag) = token.rsplit_once('.').unwrap();
        let tag = URL_SAFE_NO_PAD.decode(tag).unwrap();
        hmac::verify(&hmac::Key::new(HMAC_SHA256, b"hush"), signed.as_bytes(), &tag).unwrap();
        assert!(!heard.headers.contains_key("jwt_key"), "the key is never sent");
    };
    let all = ear.until(check, |heard| heard.json()["data"]["state"] == "open").await;
    let names: Vec<_> = all.iter().map(|heard| text(&heard.json(), "event")).collect();
    assert_heard(&names, &["instance.create", "qrcode.updated", "connection.update"]);
    org.client.delete("/instance/delete/t1").await.expect(200);
    ear.until(check, |heard| heard.path == "/hook/instance-delete").await;
}
