//! Kills in the middle of pairings and of talks: no link that WhatsApp has confirmed is lost, and no text that the caller was told of.

use serde_json::json;

use super::*;

/// The story: the gateway was killed at any moment of a pairing. Either WhatsApp has linked the device by then, and it comes back
/// without another scan, or it has not, and another code can be scanned.
#[tokio::test]
async fn a_kill_in_a_pairing_leaves_a_link_or_none() {
    let mut scene = Scene::new().await;
    for round in 0..4_u64 {
        let account = ACCOUNT + 10 + round;
        let session = scene.pairing().await;
        let qr = scene.qr(&session).await;
        let device = scene.controls().scan(account, &qr).unwrap();
        let is_linked = |state: &State| state.device(account, device).is_some_and(|seen| seen.linked);
        // Later in each round: right away, once WhatsApp has linked the device, once it has logged in, once it is known to work.
        match round {
            0 => {}
            1 => drop(scene.controls().wait_until(is_linked).await),
            2 => {
                let is_in = |state: &State| state.device(account, device).is_some_and(|seen| seen.connected.is_some());
                drop(scene.controls().wait_until(is_in).await);
            }
            _ => drop(scene.org().reaches(&session, "working").await),
        }
        scene.gateway.kill().await;
        // Whatever the gateway has said before it died is heard by then.
        let state = scene.controls().wait_until(|state| state.connections == 0).await;
        scene.gateway.restart().await;
        if !is_linked(&state) {
            eventually("a scan", async || scene.controls().scan(account, &scene.qr(&session).await).ok()).await;
        }
        scene.org().reaches(&session, "working").await;
    }
}

#[tokio::test]
async fn kills_while_talking_lose_no_text_and_send_none_twice() {
    let mut scene = Scene::new().await;
    let (session, device) = scene.working().await;
    let path = format!("/api/v1/sessions/{session}/messages");
    let mut told = Vec::new();
    for round in 0..6 {
        let client = scene.org().client;
        let sending = tokio::spawn({
            let (client, path) = (client.clone(), path.clone());
            async move {
                let mut told = Vec::new();
                for number in 0..40 {
                    let words = format!("round {round}, text {number}");
                    let body = json!({ "type": "text", "to": format!("{FRIEND}@s.whatsapp.net"), "text": words });
                    match client.try_send("POST", &path, body.to_string().into()).await {
                        Ok(reply) if reply.status == 200 => {
                            let reply: Value = serde_json::from_slice(&reply.body).unwrap();
                            told.push((text(&reply, "waMessageId"), words));
                        }
                        // It was killed, or its limits are reached.
                        _ => break,
                    }
                }
                told
            }
        });
        let heard = scene.controls().state().texts.len() + 2;
        scene.controls().wait_until(|state| state.texts.len() >= heard).await;
        let incoming = scene.controls().send(FRIEND, ACCOUNT, None, &format!("in {round}")).unwrap();
        scene.gateway.kill().await;
        told.extend(sending.await.unwrap());
        scene.gateway.restart().await;
        scene.org().reaches(&session, "working").await;
        let arrived = |state: &State| state.text(&incoming).is_some_and(is_acknowledged);
        scene.controls().wait_until(arrived).await;
    }
    assert!(told.len() >= 6, "texts were acknowledged: {}", told.len());
    let everything = |state: &State| told.iter().all(|(id, _)| state.text(id).is_some_and(|seen| seen.text.is_some()));
    let state = scene.controls().wait_until(everything).await;
    for (id, words) in &told {
        let seen = state.text(id).unwrap();
        assert_eq!(seen.text.as_deref(), Some(words.as_str()));
        assert_eq!((seen.accepted, seen.decrypted), (1, 1), "{seen:?}");
    }
    let sent = state.texts.iter().filter(|seen| seen.device == device);
    let mut all: Vec<_> = sent.filter_map(|seen| seen.text.as_ref()).collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "the same words went out twice");
    assert_eq!(state.totals.pairings, 1, "nobody had to scan again");
    scene.gateway.terminate().await;
    scene.gateway.assert_sound().await;
}
