//! Golden transcripts of the Evolution dialect: every route, what it answers, how it refuses, and what it says the second time.

use bytes::Bytes;
use expect_test::expect_file;
use serde_json::{Value, json};

use crate::client::{Client, Reply};
use crate::gateway::{Gateway, eventually};
use crate::transcript::Transcript;
use crate::world::{Org, text};

/// No body.
const NONE: Value = Value::Null;

/// Creates an instance; the id of its session and its token.
async fn create(org: &Org, name: &str) -> (String, String) {
    let body = json!({ "instanceName": name, "integration": "WHATSAPP-BAILEYS", "qrcode": true });
    let token = text(&org.client.post("/instance/create", &body).await.expect(201), "hash");
    (session(org).await, token)
}

/// The id of the organisation's newest session.
async fn session(org: &Org) -> String {
    let sessions = org.client.get("/api/v1/sessions?limit=1").await.expect(200);
    text(&sessions["data"][0], "id")
}

/// Scans the instance's code and waits until it is connected.
async fn link(org: &Org, session: &str, instance: &str) {
    let phone = json!({ "phone": "628123456789" });
    org.client.post(&format!("/api/v1/sessions/{session}/simulator:scan"), &phone).await.expect(204);
    reaches(org, instance, "open").await;
}

async fn reaches(org: &Org, instance: &str, state: &str) {
    eventually(&format!("{instance} is {state}"), async || {
        let found = org.client.get(&format!("/instance/connectionState/{instance}")).await.expect(200);
        (found["instance"]["state"] == state).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_instances_life() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());

    golden.section("create");
    golden.ask(&acme, "GET", "/instance/fetchInstances", NONE).await;
    let basic = json!({ "instanceName": "t1", "integration": "WHATSAPP-BAILEYS" });
    golden.ask(&acme, "POST", "/instance/create", basic.clone()).await;
    golden.ask(&acme, "POST", "/instance/create", basic).await;
    let id = session(&org).await;
    let full = json!({
        "instanceName": " t2 ", "integration": "WHATSAPP-BAILEYS", "token": "my-own-token-0123", "number": "628987654321",
        "qrcode": true, "rejectCall": true, "msgCall": "no calls", "groupsIgnore": true, "alwaysOnline": true,
        "readMessages": true, "readStatus": true, "syncFullHistory": true, "wavoipToken": "voice",
        "proxyHost": "proxy.example.com", "proxyPort": "8080", "proxyProtocol": "socks5", "proxyUsername": "u", "proxyPassword": "p",
        "webhook": { "url": "https://example.com/hook", "headers": { "X-Mine": "1" }, "byEvents": true, "base64": true, "events": ["CONNECTION_UPDATE"] },
        "websocket": { "enabled": true }, "rabbitmq": { "events": 3 }, "chatwootUrl": "https://example.com",
    });
    golden.ask(&acme, "POST", "/instance/create", full).await;
    let scan = json!({ "instanceName": "t3", "integration": "WHATSAPP-BAILEYS", "qrcode": true });
    golden.ask(&acme, "POST", "/instance/create", scan).await;
    golden.ask(&acme, "DELETE", "/instance/delete/t3", NONE).await;

    golden.section("what is no instance");
    for bad in [
        NONE,
        json!([]),
        json!({ "instanceName": "x" }),
        json!({ "instanceName": "x", "integration": "WHATSAPP-BUSINESS" }),
        json!({ "instanceName": "a/b", "integration": "WHATSAPP-BAILEYS" }),
        json!({ "instanceName": " ", "integration": "WHATSAPP-BAILEYS" }),
        json!({ "instanceName": 3, "qrcode": "yes", "number": "+62 8", "webhook": { "enabled": 1 } }),
        json!({ "instanceName": "x", "integration": "WHATSAPP-BAILEYS", "token": "short" }),
        json!({ "instanceName": "x", "integration": "WHATSAPP-BAILEYS", "token": "my-own-token-0123" }),
        json!({ "instanceName": "x", "integration": "WHATSAPP-BAILEYS", "number": "12" }),
        json!({ "instanceName": "x", "integration": "WHATSAPP-BAILEYS", "proxyHost": "h", "proxyPort": "0" }),
        json!({ "instanceName": "x", "integration": "WHATSAPP-BAILEYS", "webhook": { "url": "" } }),
        json!({ "instanceName": "x", "integration": "WHATSAPP-BAILEYS", "webhook": { "url": "http://h", "events": ["NO"] } }),
    ] {
        golden.ask(&acme, "POST", "/instance/create", bad).await;
    }
    let broken = acme.send("POST", "/instance/create", Bytes::from_static(b"{")).await;
    golden.exchange("\nPOST /instance/create {", &broken);

    golden.section("list");
    golden.ask(&acme, "GET", "/instance/fetchInstances", NONE).await;
    golden.ask(&acme, "GET", "/instance/fetchInstances?number=628987654321", NONE).await;
    golden.ask(&acme, "GET", "/instance/fetchInstances?instanceName=nobody", NONE).await;
    golden.ask(&acme, "GET", "/instance/fetchInstances?instanceId=00000000-0000-0000-0000-000000000000", NONE).await;

    golden.section("what is closed cannot");
    golden.ask(&acme, "GET", "/instance/connectionState/t1", NONE).await;
    golden.ask(&acme, "POST", "/instance/restart/t1", NONE).await;
    golden.ask(&acme, "DELETE", "/instance/logout/t1", NONE).await;
    golden.ask(&acme, "POST", "/instance/setPresence/t1", json!({ "presence": "available" })).await;

    golden.section("connect, restart, by QR code");
    golden.ask(&acme, "GET", "/instance/connect/t1", NONE).await;
    golden.ask(&acme, "GET", "/instance/connect/t1?instanceName=t2", NONE).await;
    golden.ask(&acme, "POST", "/instance/restart/t1", NONE).await;
    golden.ask(&acme, "GET", "/instance/connectionState/t1", NONE).await;

    golden.section("by a code to type");
    golden.ask(&acme, "GET", "/instance/connect/t1?number=12", NONE).await;
    golden.ask(&acme, "GET", "/instance/connect/t1?number=628123456789", NONE).await;
    link(&org, &id, "t1").await;

    golden.section("open");
    golden.ask(&acme, "GET", "/instance/connectionState/t1", NONE).await;
    golden.ask(&acme, "GET", "/instance/connect/t1", NONE).await;
    golden.ask(&acme, "GET", "/instance/connect/t1?number=628123456789", NONE).await;
    golden.ask(&acme, "GET", "/instance/fetchInstances?instanceName=t1", NONE).await;
    for presence in [json!("unavailable"), json!("asleep"), NONE] {
        golden.ask(&acme, "POST", "/instance/setPresence/t1", json!({ "presence": presence })).await;
    }
    golden.ask(&acme, "POST", "/instance/setPresence/t1", json!({})).await;
    golden.ask(&acme, "POST", "/instance/restart/t1", NONE).await;
    reaches(&org, "t1", "open").await;

    golden.section("stopped elsewhere, and connected again");
    acme.act(&format!("/api/v1/sessions/{id}:stop")).await.expect(200);
    golden.ask(&acme, "GET", "/instance/connectionState/t1", NONE).await;
    acme.get("/instance/connect/t1?number=628123456789").await.expect(200);
    reaches(&org, "t1", "open").await;

    golden.section("logout, twice");
    golden.ask(&acme, "DELETE", "/instance/logout/t1", NONE).await;
    golden.ask(&acme, "DELETE", "/instance/logout/t1", NONE).await;
    golden.ask(&acme, "GET", "/instance/fetchInstances?instanceName=t1", NONE).await;

    golden.section("delete, twice");
    golden.ask(&acme, "DELETE", "/instance/delete/t1", NONE).await;
    golden.ask(&acme, "DELETE", "/instance/delete/t1", NONE).await;
    golden.ask(&acme, "GET", "/instance/connectionState/t1", NONE).await;
    expect_file!["../golden/evolution/instance.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn webhooks_settings_and_proxies() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());
    create(&org, "t1").await;

    golden.section("webhooks");
    golden.ask(&acme, "GET", "/webhook/find/t1", NONE).await;
    for body in [
        json!({}),
        json!({ "webhook": {} }),
        json!({ "webhook": 3 }),
        json!({ "webhook": { "enabled": true, "url": "off" } }),
        json!({ "webhook": { "enabled": true, "url": "https://h", "events": ["NO", "CALL"] } }),
        json!({ "webhook": { "enabled": true, "url": "https://h", "headers": { "a b": "x" } } }),
        json!({ "webhook": { "enabled": true, "url": "https://h", "headers": { "X-Mine": "1" }, "webhookByEvents": true, "webhookBase64": true, "events": ["CALL"] } }),
        json!({ "webhook": { "enabled": true, "url": "https://h", "events": ["CALL", "MESSAGES_UPSERT"] } }),
        json!({ "webhook": { "enabled": true, "url": "https://h", "byEvents": true } }),
        json!({ "webhook": { "enabled": false, "url": "off", "events": ["CALL"] } }),
    ] {
        golden.ask(&acme, "POST", "/webhook/set/t1", body).await;
        golden.ask(&acme, "GET", "/webhook/find/t1", NONE).await;
    }

    golden.section("settings");
    golden.ask(&acme, "GET", "/settings/find/t1", NONE).await;
    let all = json!({
        "rejectCall": true, "msgCall": "later", "groupsIgnore": true, "alwaysOnline": true, "readMessages": true,
        "readStatus": true, "syncFullHistory": true, "wavoipToken": "voice",
    });
    golden.ask(&acme, "POST", "/settings/set/t1", all.clone()).await;
    golden.ask(&acme, "POST", "/settings/set/t1", all).await;
    golden.ask(&acme, "GET", "/settings/find/t1", NONE).await;
    golden.ask(&acme, "POST", "/settings/set/t1", json!({ "rejectCall": "no", "msgCall": 3 })).await;
    golden.ask(&acme, "POST", "/settings/set/t1?dry_run=true", json!({})).await;

    golden.section("proxies");
    golden.ask(&acme, "GET", "/proxy/find/t1", NONE).await;
    for body in [
        json!({}),
        json!({ "enabled": true, "host": "h", "port": 80, "protocol": "http" }),
        json!({ "enabled": true, "host": "h", "port": "80", "protocol": "gopher" }),
        json!({ "enabled": true, "host": "h", "port": "80", "protocol": "http", "username": "u", "password": "p" }),
    ] {
        golden.ask(&acme, "POST", "/proxy/set/t1", body).await;
    }
    golden.ask(&acme, "GET", "/proxy/find/t1", NONE).await;
    let off = json!({ "enabled": "", "host": "1234", "port": "", "protocol": "" });
    golden.ask(&acme, "POST", "/proxy/set/t1", off).await;
    golden.ask(&acme, "GET", "/proxy/find/t1", NONE).await;
    expect_file!["../golden/evolution/settings.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn messages() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());
    let (id, _) = create(&org, "t1").await;
    let hi = json!({ "number": "+62 855-123", "text": "hi" });

    golden.section("not connected");
    golden.ask(&acme, "POST", "/message/sendText/t1", hi.clone()).await;
    golden.ask(&acme, "POST", "/chat/whatsappNumbers/t1", json!({ "numbers": ["62855"] })).await;

    link(&org, &id, "t1").await;
    // The rate policy is not what this is about; it lets one message through every few seconds.
    golden.section("sent");
    golden.ask(&acme, "POST", "/message/sendText/t1?dry_run=true", hi.clone()).await;
    golden.ask(&acme, "POST", "/message/sendText/t1", hi).await;
    let rich = json!({
        "number": "120363025246125486@g.us", "text": "all of you", "delay": 1, "linkPreview": false, "mentionsEveryOne": true,
        "mentioned": ["628987", "628988@s.whatsapp.net"], "quoted": { "key": { "id": "3EB0", "fromMe": true }, "message": {} },
    });
    golden.ask(&acme, "POST", "/message/sendText/t1", rich).await;

    golden.section("nobody takes it");
    for number in ["628120000", "", "nobody", "120363020000@g.us", "x y@g.us"] {
        golden.ask(&acme, "POST", "/message/sendText/t1", json!({ "number": number, "text": "hi" })).await;
    }

    golden.section("what is no message");
    for bad in [
        json!({}),
        json!({ "number": 62855, "text": "hi" }),
        json!({ "number": "62855", "text": "" }),
        json!({ "number": "62855", "text": "hi", "delay": "soon" }),
        json!({ "number": "62855", "text": "hi", "delay": 30001 }),
        json!({ "number": "62855", "text": "hi", "mentioned": [] }),
        json!({ "number": "62855", "text": "hi", "mentioned": ["everybody"] }),
        json!({ "number": "62855", "text": "hi", "quoted": { "key": {} } }),
    ] {
        golden.ask(&acme, "POST", "/message/sendText/t1", bad).await;
    }
    for (field, long) in [("text", "x".repeat(4097)), ("number", "6".repeat(129))] {
        let mut body = json!({ "number": "62855", "text": "hi" });
        body[field] = json!(long);
        let reply = acme.post("/message/sendText/t1", &body).await.expect(400);
        assert!(reply["response"]["message"][0].as_str().unwrap().contains("must be at most"), "{reply}");
    }

    golden.section("whom WhatsApp knows");
    let numbers = json!({ "numbers": ["+62 855", "62855", "628120000", "5531988887777"] });
    golden.ask(&acme, "POST", "/chat/whatsappNumbers/t1", numbers).await;
    for bad in [json!({}), json!({ "numbers": [] }), json!({ "numbers": [3] }), json!({ "numbers": ["1@g.us"] })] {
        golden.ask(&acme, "POST", "/chat/whatsappNumbers/t1", bad).await;
    }
    let many: Vec<String> = (0..51).map(|number| format!("62855{number}")).collect();
    let refused = acme.post("/chat/whatsappNumbers/t1", &json!({ "numbers": many })).await;
    golden.exchange("\nPOST /chat/whatsappNumbers/t1 with 51 numbers", &refused);

    golden.section("presence in a chat");
    let typing = json!({ "number": "62855", "presence": "composing", "delay": 1 });
    golden.ask(&acme, "POST", "/chat/sendPresence/t1", typing).await;
    golden.ask(&acme, "POST", "/chat/sendPresence/t1", json!({ "number": "62855", "presence": "gone" })).await;
    let long = json!({ "number": "62855", "presence": "composing", "delay": 60000 });
    golden.ask(&acme, "POST", "/chat/sendPresence/t1", long).await;
    expect_file!["../golden/evolution/messages.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn who_asks() {
    let gateway = Gateway::start().await;
    let (org, other) = (gateway.org("Acme").await, gateway.org("Other").await);
    let (mut golden, stranger) = (Transcript::default(), gateway.stranger());
    let (_, token) = create(&org, "t1").await;
    create(&org, "t2").await;
    let with = |key: &str| Client::new(gateway.address, Some(key));

    golden.section("nobody");
    golden.ask(&stranger, "GET", "/", NONE).await;
    golden.ask(&stranger, "POST", "/", NONE).await;
    golden.ask(&stranger, "GET", "/instance/connectionState/t1", NONE).await;
    golden.ask(&with("garbage"), "GET", "/instance/connectionState/nobody", NONE).await;
    golden.ask(&stranger, "POST", "/instance/create", json!({})).await;
    golden.ask(&stranger, "GET", "/instance/nothing?x=1", NONE).await;
    golden.ask(&stranger, "PUT", "/instance/restart/t1", NONE).await;

    golden.section("a key of the organisation");
    golden.ask(&org.client, "POST", "/verify-creds", NONE).await;
    golden.ask(&org.client, "GET", "/instance/connectionState/nobody", NONE).await;
    golden.ask(&org.client, "POST", "/settings/set/nobody", json!({})).await;

    golden.section("a key of another organisation");
    golden.ask(&other.client, "GET", "/instance/connectionState/t1", NONE).await;
    golden.ask(&other.client, "GET", "/instance/fetchInstances?instanceName=t1", NONE).await;

    golden.section("a key that may only read");
    let reader = gateway.capable(&org, &["read"]).await;
    golden.ask(&reader, "GET", "/instance/fetchInstances?instanceName=t1", NONE).await;
    golden.ask(&reader, "GET", "/instance/connect/t1", NONE).await;
    golden.ask(&reader, "GET", "/webhook/find/t1", NONE).await;
    golden.ask(&reader, "GET", "/proxy/find/t1", NONE).await;
    golden.ask(&reader, "DELETE", "/instance/delete/t1", NONE).await;

    golden.section("the instance's own token");
    let own = with(&token);
    golden.ask(&own, "GET", "/instance/connectionState/t1", NONE).await;
    golden.ask(&own, "GET", "/instance/connectionState/t2", NONE).await;
    golden.ask(&own, "GET", "/instance/connectionState/nobody", NONE).await;
    let listed = golden.ask(&own, "GET", "/instance/fetchInstances", NONE).await.expect(200);
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    golden.ask(&own, "GET", "/instance/fetchInstances?instanceName=t2", NONE).await;
    let another = json!({ "instanceName": "t9", "integration": "WHATSAPP-BAILEYS" });
    golden.ask(&own, "POST", "/instance/create", another).await;
    golden.ask(&own, "POST", "/verify-creds", NONE).await;
    // The native dialect does not know tokens of instances.
    own.get("/api/v1/sessions").await.refused(401, "unauthorized");
    golden.ask(&own, "DELETE", "/instance/delete/t1", NONE).await;
    golden.ask(&own, "GET", "/instance/connectionState/t1", NONE).await;
    expect_file!["../golden/evolution/callers.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn names_may_hold_what_paths_encode() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    for (name, path) in [("a:b", "a:b"), ("c:d", "c%3Ad"), ("São Paulo 1", "S%C3%A3o%20Paulo%201"), ("x?y", "x%3Fy")] {
        create(&org, name).await;
        let found = org.client.get(&format!("/instance/connectionState/{path}")).await.expect(200);
        assert_eq!(found["instance"]["instanceName"], name, "{path}");
    }
}

#[tokio::test]
async fn under_policy() {
    let gateway = Gateway::start_with("[plugins]\ngate_wall_ms = 20000\nchain_wall_ms = 60000\n").await;
    let org = gateway.org("Acme").await;
    let (mut golden, acme) = (Transcript::default(), org.client.clone());
    let plugin = org.catalogue("grace-delete").await;
    let binding = org.bind(&plugin, json!({ "grace": "PT72H" })).await;
    let (id, _) = create(&org, "t1").await;

    golden.section("only asked");
    golden.ask(&acme, "DELETE", "/instance/delete/t1?dry_run=true", NONE).await;

    golden.section("a deletion that waits");
    golden.ask(&acme, "DELETE", "/instance/delete/t1", NONE).await;
    golden.ask(&acme, "DELETE", "/instance/delete/t1", NONE).await;
    golden.ask(&acme, "GET", "/instance/connectionState/t1", NONE).await;
    golden.ask(&acme, "GET", "/instance/connect/t1", NONE).await;
    golden.ask(&acme, "DELETE", "/instance/logout/t1", NONE).await;
    golden.ask(&acme, "GET", "/instance/fetchInstances?instanceName=t1", NONE).await;

    golden.section("vetoed");
    let path = format!("/api/v1/sessions/{id}");
    acme.act(&format!("{path}:restore")).await.expect(200);
    acme.put(&format!("{path}/labels"), &json!({ "legal-hold": "case 7" })).await.expect(200);
    golden.ask(&acme, "DELETE", "/instance/delete/t1?dry_run=true", NONE).await;
    golden.ask(&acme, "DELETE", "/instance/delete/t1", NONE).await;

    golden.section("carried out");
    acme.delete(&format!("/api/v1/bindings/{binding}")).await.expect(204);
    golden.ask(&acme, "DELETE", "/instance/delete/t1", NONE).await;
    expect_file!["../golden/evolution/policy.txt"].assert_eq(golden.text());
}

#[tokio::test]
async fn too_fast_for_the_rate_policy() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let (id, _) = create(&org, "t1").await;
    link(&org, &id, "t1").await;
    org.client.put(&format!("/api/v1/sessions/{id}/rate-policy"), &json!({ "policy": "strict" })).await.expect(200);
    let numbers = json!({ "numbers": ["62855"] });
    let check = async || org.client.post("/chat/whatsappNumbers/t1", &numbers).await;
    let refused: Reply =
        eventually("a refusal", async || Some(check().await).filter(|reply| reply.status == 429)).await;
    let body = refused.json();
    assert_eq!((&body["status"], &body["error"]), (&json!(429), &json!("Too Many Requests")));
    assert!(body["response"]["message"][0].is_string(), "{body}");
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{refused:?}");
}
