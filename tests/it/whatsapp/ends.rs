//! How sessions end that nobody here has ended, and what WhatsApp does to accounts.

use portcullis_whatsapp_server::{Action, Faults};
use serde_json::json;

use super::*;

#[tokio::test]
async fn the_phone_unlinks_a_device_and_the_session_says_so() {
    let scene = Scene::new().await;
    let (session, device) = scene.working().await;
    let mut listener = Listener::connect(&scene.org().client, "events=session.unlinked").await;
    scene.controls().unlink(ACCOUNT, Some(device)).unwrap();
    let seen = scene.org().reaches(&session, "logged_out").await;
    assert!(seen["phoneNumber"].is_null(), "{seen}");
    assert_eq!(listener.expect("session.unlinked").await["payload"]["unlink"], "confirmed");
    // It can be linked again at once.
    scene.controls().scan(ACCOUNT, &scene.qr(&session).await).unwrap();
    scene.org().reaches(&session, "working").await;
}

/// The story: a phone unlinked a device while the gateway was down. The next start must not try for ever.
#[tokio::test]
async fn a_device_that_was_unlinked_meanwhile_is_found_at_the_next_start() {
    let mut scene = Scene::new().await;
    let (session, device) = scene.working().await;
    scene.gateway.kill().await;
    scene.controls().unlink(ACCOUNT, Some(device)).unwrap();
    scene.gateway.restart().await;
    scene.org().reaches(&session, "logged_out").await;
}

#[tokio::test]
async fn what_whatsapp_does_to_a_connection_is_told_by_its_name() {
    let scene = Scene::new().await;
    let (session, device) = scene.working().await;
    let fails = async |action: Action, cause: &str| {
        scene.controls().act(ACCOUNT, device, action).unwrap();
        let seen = scene.becomes(&session, cause, |seen| seen["failure"] == cause).await;
        assert_eq!(seen["status"], "failed", "{seen}");
        seen
    };
    let replaced = fails(Action::Replace, "replaced").await;
    assert!(replaced["retryAt"].is_null(), "whoever took it over keeps it: {replaced}");
    scene.act(&session, "start").await;
    scene.org().reaches(&session, "working").await;

    let outdated = fails(Action::Outdated, "client-outdated").await;
    assert!(outdated["retryAt"].is_null(), "{outdated}");
    scene.controls().refuse(ACCOUNT, None).unwrap();
    scene.act(&session, "start").await;
    scene.org().reaches(&session, "working").await;

    let banned = fails(Action::Ban { code: 101, expire: 3600 }, "banned").await;
    assert!(banned["retryAt"].is_u64(), "a ban that ends is waited for: {banned}");
    scene.controls().refuse(ACCOUNT, None).unwrap();
    scene.act(&session, "restart").await;
    scene.org().reaches(&session, "working").await;
}

#[tokio::test]
async fn a_lost_connection_comes_back_and_nothing_that_was_sent_meanwhile_is_lost() {
    let scene = Scene::new().await;
    let (session, device) = scene.working().await;
    for action in
        [Action::Drop, Action::Close, Action::Error { code: 503 }, Action::Garbage, Action::Error { code: 515 }]
    {
        let before = logins(&scene.controls().state(), device);
        scene.controls().act(ACCOUNT, device, action).unwrap();
        if action != Action::Garbage {
            scene.controls().wait_until(|state| logins(state, device) > before).await;
        }
        scene.org().reaches(&session, "working").await;
        scene.hears(&session, &format!("after {action:?}")).await;
    }
    let state = scene.controls().state();
    assert_eq!(state.totals.pairings, 1);
}

/// The story: a session that had lost its connection was shown as working, and a text was refused without a reason.
#[tokio::test]
async fn a_session_that_cannot_reconnect_says_so_and_why_nothing_can_be_sent() {
    let scene = Scene::new().await;
    let (session, device) = scene.working().await;
    scene.controls().set_faults(Faults { refuse_connects: true, ..Faults::default() });
    scene.controls().act(ACCOUNT, device, Action::Drop).unwrap();
    let seen = scene.becomes(&session, "reconnecting", |seen| seen["reconnectingSince"].is_u64()).await;
    assert_eq!(seen["status"], "working", "{seen}");
    let path = format!("/api/v1/sessions/{session}/messages");
    let body = json!({ "type": "text", "to": format!("{FRIEND}@s.whatsapp.net"), "text": "hello" });
    let refused = scene.org().client.post(&path, &body).await.expect(501);
    assert_eq!(refused["error"]["details"]["reason"], "not_connected", "{refused}");
    scene.controls().set_faults(Faults::default());
    scene.becomes(&session, "connected again", |seen| seen["reconnectingSince"].is_null()).await;
    scene.hears(&session, "there you are").await;
}

/// The story: a session was logged out, or deleted, right after the phone had scanned its code. The gateway said that there was no
/// link, and the phone went on listing a device whose keys were gone.
#[tokio::test]
async fn a_logout_or_a_delete_as_the_phone_confirms_leaves_no_device_behind() {
    let scene = Scene::new().await;
    for delete in [false, true, false, true] {
        let session = scene.pairing().await;
        let qr = scene.qr(&session).await;
        scene.controls().scan(ACCOUNT, &qr).unwrap();
        let unlink = match delete {
            false => scene.act(&session, "logout").await["unlink"].clone(),
            true => scene.deletes(&session).await["receipt"]["unlink"].clone(),
        };
        assert!(unlink == "confirmed" || unlink == "not-linked", "{unlink}");
        let is_linked = |state: &State| state.account(ACCOUNT).unwrap().devices.iter().any(|device| device.linked);
        scene.controls().wait_until(|state| !is_linked(state)).await;
    }
}

#[tokio::test]
async fn an_account_that_whatsapp_limits_says_so_and_sends_no_more() {
    let scene = Scene::new().await;
    let (session, _) = scene.working().await;
    let mut listener = Listener::connect(&scene.org().client, "events=session.limited").await;
    scene.controls().set_faults(Faults { refuse_messages: Some(463), ..Faults::default() });
    let path = format!("/api/v1/sessions/{session}/messages");
    let body = json!({ "type": "text", "to": format!("{FRIEND}@s.whatsapp.net"), "text": "hello" });
    let refused = scene.org().client.post(&path, &body).await.expect(429);
    assert_eq!(refused["error"]["details"]["reason"], "account_limited", "{refused}");
    assert_eq!(listener.expect("session.limited").await["payload"]["code"], "463");
    assert_eq!(scene.look(&session).await["accountLimit"], "463");
    scene.controls().set_faults(Faults::default());
    scene.sends(&session, "again").await;
}

/// The phone has read what the account sent, and the organisation hears how far its messages are.
#[tokio::test]
async fn receipts_are_told() {
    let scene = Scene::new().await;
    let (session, _) = scene.working().await;
    let mut listener = Listener::connect(&scene.org().client, "events=message.status").await;
    let id = scene.sends(&session, "did you get this?").await;
    let expect = async |listener: &mut Listener, stage: &str| {
        let told = listener.expect("message.status").await;
        assert_eq!((&told["payload"]["messageIds"], &told["payload"]["status"]), (&json!([id]), &json!(stage)));
    };
    expect(&mut listener, "delivered").await;
    scene.controls().read(FRIEND, &id).unwrap();
    expect(&mut listener, "read").await;
}

/// A logout that WhatsApp does not answer ends all the same, and says that nobody confirmed it.
#[tokio::test]
async fn a_logout_that_nobody_confirms_says_so() {
    let scene = Scene::new().await;
    let (session, device) = scene.working().await;
    let unanswered = ["md:remove-companion-device".to_owned()].into();
    scene.controls().set_faults(Faults { unanswered, ..Faults::default() });
    let ended = scene.act(&session, "logout").await;
    assert_eq!(ended["status"], "logged_out", "{ended}");
    // The answer waits for it, but not for ever.
    scene.becomes(&session, "it is given up", |seen| seen["unlink"] == "not-confirmed").await;
    let audit = scene.org().client.get("/api/v1/audit").await.expect(200);
    let line = audit["data"].as_array().unwrap().iter().find(|line| line["outcome"] == "unlinked").unwrap();
    assert_eq!((&line["operation"], &line["code"]), (&json!("session.logout"), &json!("not-confirmed")), "{line}");
    assert!(scene.controls().state().device(ACCOUNT, device).unwrap().linked, "the phone still shows it");
}

/// A stopped session is connected just to be unlinked.
#[tokio::test]
async fn a_stopped_session_is_unlinked_when_it_is_deleted() {
    let scene = Scene::new().await;
    let (session, device) = scene.working().await;
    scene.act(&session, "stop").await;
    scene.controls().wait_until(|state| state.device(ACCOUNT, device).unwrap().connected.is_none()).await;
    scene.deletes(&session).await;
    let state = scene.controls().state();
    assert_eq!(state.unlinks.len(), 1, "{state:?}");
}
