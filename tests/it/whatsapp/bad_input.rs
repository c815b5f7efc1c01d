//! What cannot work, and how the caller and the session say so.

use portcullis_whatsapp_server::{Faults, HalfOpen};
use serde_json::json;

use super::*;

#[tokio::test]
async fn what_does_not_fit_a_session_is_refused_with_a_code() {
    let scene = Scene::new().await;
    let (session, _) = scene.working().await;
    let client = scene.org().client;
    let path = format!("/api/v1/sessions/{session}");
    let reason = |reply: &Value| reply["error"]["details"]["reason"].as_str().unwrap_or_default().to_owned();

    let body = json!({ "phone": ACCOUNT.to_string() });
    let paired = client.post(&format!("{path}/pairing-code"), &body).await;
    assert_eq!((paired.status, reason(&paired.clone().expect(paired.status))), (409, "already_paired".to_owned()));

    let send = |to: String| json!({ "type": "text", "to": to, "text": "hi" });
    let nobody = client.post(&format!("{path}/messages"), &send("4915110000@s.whatsapp.net".to_owned())).await;
    assert_eq!(reason(&nobody.expect(400)), "unknown_recipient");

    scene.act(&session, "stop").await;
    let friend = format!("{FRIEND}@s.whatsapp.net");
    // The router API's own word for a session that cannot send.
    let offline = client.post(&format!("{path}/messages"), &send(friend)).await.expect(501);
    assert_eq!(offline["error"]["code"], "not_implemented", "{offline}");
}

#[tokio::test]
async fn a_number_that_whatsapp_does_not_link_fails_the_pairing() {
    let scene = Scene::new().await;
    let session = scene.org().session().await;
    let mut errors = std::collections::BTreeMap::new();
    errors.insert("md:link_code_companion_reg".to_owned(), 400);
    scene.controls().set_faults(Faults { errors, ..Faults::default() });
    let path = format!("/api/v1/sessions/{session}/pairing-code");
    // A slow gateway may not know yet, and then the next one who asks is told.
    let refused = eventually("the refusal", async || {
        let asked = scene.org().client.post(&path, &json!({ "phone": "62812345678" })).await;
        (asked.status == 400).then(|| asked.expect(400))
    })
    .await;
    let details = &refused["error"]["details"];
    assert_eq!((&details["reason"], &details["failure"]), (&json!("pairing_failed"), &json!("pairing-refused")));
    let seen = scene.becomes(&session, "it has failed", |seen| seen["status"] == "failed").await;
    assert_eq!(seen["failure"], "pairing-refused", "{seen}");
}

#[tokio::test]
async fn a_server_or_a_proxy_that_cannot_be_reached_is_told_apart_and_tried_again() {
    let scene = Scene::with("connect_seconds = 3\n[outbound]\nallow = [\"127.0.0.1/32\"]").await;
    let (session, device) = scene.working().await;
    scene.act(&session, "stop").await;
    let path = format!("/api/v1/sessions/{session}");
    let fails = async |cause: &str| {
        scene.act(&session, "start").await;
        let seen = scene.becomes(&session, cause, |seen| seen["failure"] == cause).await;
        assert_eq!(seen["status"], "failed", "{seen}");
        assert!(seen["retryAt"].is_u64(), "it comes back by itself: {seen}");
        scene.act(&session, "stop").await;
    };
    scene.controls().set_faults(Faults { refuse_connects: true, ..Faults::default() });
    fails("unreachable").await;
    scene.controls().set_faults(Faults { half_open: Some(HalfOpen::Websocket), ..Faults::default() });
    fails("start-timeout").await;
    scene.controls().set_faults(Faults::default());

    // Nobody listens at the discard port of this machine.
    let proxy = json!({ "protocol": "socks5", "host": "127.0.0.1", "port": 9 });
    scene.org().client.put(&format!("{path}/proxy"), &proxy).await.expect(200);
    fails("proxy-unreachable").await;
    scene.org().client.delete(&format!("{path}/proxy")).await.expect(200);
    scene.act(&session, "start").await;
    scene.org().reaches(&session, "working").await;
    assert!(scene.controls().state().device(ACCOUNT, device).unwrap().linked);
}

/// The story: a server that answered nothing left a session pairing for ever, and its owner before an empty page.
#[tokio::test]
async fn a_pairing_without_a_code_fails_in_time() {
    let scene = Scene::new().await;
    scene.controls().set_faults(Faults { refuse_connects: true, ..Faults::default() });
    let session = scene.pairing().await;
    let seen = scene.becomes(&session, "it has failed", |seen| seen["status"] == "failed").await;
    assert_eq!(seen["failure"], "unreachable", "{seen}");
    assert!(seen["retryAt"].is_null(), "who waits for a code is not there any more: {seen}");
}
