//! A session's life on WhatsApp, from the first code to the end of its data, over HTTP only.

use portcullis_whatsapp_server::{Mode, UnlinkedBy};
use serde_json::json;

use super::*;

#[tokio::test]
async fn a_session_pairs_talks_survives_a_crash_logs_out_and_is_deleted() {
    let mut scene = Scene::new().await;
    let (session, device) = scene.working().await;
    let seen = scene.look(&session).await;
    assert_eq!(seen["phoneNumber"], ACCOUNT.to_string(), "{seen}");
    assert!(seen["simulated"].is_null(), "{seen}");
    let lid = format!("{}@lid", scene.controls().state().account(ACCOUNT).unwrap().lid);
    scene.becomes(&session, "its hidden identity is known", |seen| seen["waLid"] == lid.as_str()).await;
    scene.hears(&session, "is the shop open?").await;
    scene.sends(&session, "until six").await;

    // A crash, and nobody scans anything.
    scene.gateway.kill().await;
    let before = logins(&scene.controls().state(), device);
    scene.gateway.restart().await;
    scene.org().reaches(&session, "working").await;
    let state = scene.controls().state();
    assert_eq!((logins(&state, device), state.totals.pairings), (before + 1, 1), "it came back by one login");
    assert_eq!(state.device(ACCOUNT, device).unwrap().connected, Some(Mode::Ik), "and knew the server");
    scene.hears(&session, "are you still there?").await;
    scene.sends(&session, "of course").await;

    scene.act(&session, "stop").await;
    scene.org().reaches(&session, "stopped").await;
    scene.controls().wait_until(|state| state.device(ACCOUNT, device).unwrap().connected.is_none()).await;
    scene.act(&session, "start").await;
    scene.org().reaches(&session, "working").await;
    scene.sends(&session, "open again").await;

    let ended = scene.act(&session, "logout").await;
    assert_eq!((&ended["status"], &ended["unlink"]), (&json!("logged_out"), &json!("confirmed")), "{ended}");
    assert!(ended["phoneNumber"].is_null(), "{ended}");
    let state = scene.controls().state();
    assert_eq!(state.unlinks.len(), 1);
    assert_eq!((state.unlinks[0].by, state.unlinks[0].confirmed), (UnlinkedBy::Device, true));

    // Another link, by a code that is typed.
    let path = format!("/api/v1/sessions/{session}/pairing-code");
    let asked = scene.org().client.post(&path, &json!({ "phone": ACCOUNT.to_string() })).await.expect(200);
    let code = text(&asked, "code").replace('-', "");
    assert_eq!(code.len(), 8, "{asked}");
    let other = scene.controls().code(ACCOUNT, &code).await.unwrap();
    assert_ne!(other, device);
    scene.org().reaches(&session, "working").await;
    scene.sends(&session, "back once more").await;

    scene.deletes(&session).await;
    let state = scene.controls().state();
    assert_eq!(state.unlinks.len(), 2);
    assert!(state.unlinks.iter().all(|unlink| unlink.by == UnlinkedBy::Device && unlink.confirmed), "{state:?}");
    assert_eq!(scene.org().client.get(&format!("/api/v1/sessions/{session}")).await.status, 404);

    // Nothing of it is left where the gateway keeps things.
    assert!(scene.gateway.terminate().await.success());
    for words in [ACCOUNT.to_string(), "is the shop open?".to_owned(), "back once more".to_owned(), code] {
        for entry in std::fs::read_dir(scene.gateway.data()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            let found = bytes.windows(words.len()).any(|window| window == words.as_bytes());
            assert!(!found, "{words} is in {}", path.display());
        }
    }
    scene.gateway.assert_sound().await;
}

/// The story: the client's own log has QR strings, pairing codes and every stanza, and an operator turned logging up.
#[tokio::test]
async fn no_secret_reaches_the_log_however_much_is_logged() {
    let scene = Scene::loud().await;
    let session = scene.pairing().await;
    let qr = scene.qr(&session).await;
    scene.controls().scan(ACCOUNT, &qr).unwrap();
    scene.org().reaches(&session, "working").await;
    scene.hears(&session, "a word in confidence").await;
    scene.sends(&session, "another one").await;
    scene.act(&session, "logout").await;
    let path = format!("/api/v1/sessions/{session}/pairing-code");
    let asked = scene.org().client.post(&path, &json!({ "phone": ACCOUNT.to_string() })).await.expect(200);
    let code = text(&asked, "code");
    let log = scene.gateway.stderr();
    assert!(log.contains("DEBUG"), "the log is as loud as it gets");
    let secret = qr.split(',').nth(3).unwrap().to_owned();
    let bare = code.replace('-', "");
    let number = ACCOUNT.to_string();
    for words in [&qr, &secret, &code, &bare, "a word in confidence", "another one", &number] {
        let line = log.lines().find(|line| line.contains(words));
        assert_eq!(line, None, "{words}");
    }
}

#[tokio::test]
async fn sessions_come_back_by_themselves_a_few_at_a_time_after_a_crash() {
    let mut scene = Scene::with("connecting_at_once = 2").await;
    let mut sessions = Vec::new();
    for number in 0..6 {
        let session = scene.pairing().await;
        scene.controls().scan(ACCOUNT + number, &scene.qr(&session).await).unwrap();
        sessions.push(session);
    }
    for session in &sessions {
        scene.org().reaches(session, "working").await;
    }
    scene.act(&sessions[5], "stop").await;
    scene.gateway.kill().await;
    scene.gateway.restart().await;
    for session in &sessions[..5] {
        scene.org().reaches(session, "working").await;
    }
    assert_eq!(scene.look(&sessions[5]).await["status"], "stopped", "what was stopped stays so");
}
