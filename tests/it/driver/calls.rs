//! Calls, which the gateway never takes.

use portcullis_core::Settings;
use portcullis_whatsapp_server::State;

use super::stage::{ADA, BOB, Stage, text_for};

fn refused_by(state: &State, id: &str) -> Option<Vec<u16>> {
    state.calls.iter().find(|call| call.id == id).map(|call| call.refused_by.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_refused_and_its_caller_told_why_if_the_settings_say_so() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    let up_to_date = |state: &State| state.device(ADA, 1).is_some_and(|device| device.active && device.mail == 0);
    stage.server.wait_until(up_to_date).await;
    let left = stage.server.call(BOB, ADA).unwrap();
    stage.server.wait_until(up_to_date).await;
    // Receipts are heard after whatever came before them: the call was left to ring.
    actor.send(text_for(BOB, "hello")).await.unwrap();
    actor.progress().await;
    let why = "Please write instead.";
    let settings = Settings { reject_calls: true, rejected_call_text: why.to_owned(), ..Settings::default() };
    actor.configure(settings).await;
    let refused = stage.server.call(BOB, ADA).unwrap();
    let told = |state: &State| {
        let mut texts = state.texts.iter().filter(|text| text.to == BOB && text.text.as_deref() == Some(why));
        texts.any(|text| text.decrypted == 1)
    };
    let is_done = |state: &State| refused_by(state, &refused) == Some(vec![1]) && told(state);
    let state = stage.server.wait_until(is_done).await;
    assert_eq!(refused_by(&state, &left), Some(Vec::new()));
    assert_eq!(state.texts.len(), 2, "a caller is told once");
}

/// Who rang while nobody was there is not refused hours later.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_came_while_a_session_was_away_is_let_be() {
    let mut stage = Stage::new().await;
    stage.set_up(|setup| setup.settings = Settings { reject_calls: true, ..Settings::default() });
    let actor = stage.actor(1);
    actor.link(ADA).await;
    actor.halt().await;
    stage.server.wait_until(|state| state.connections == 0).await;
    let missed = stage.server.call(BOB, ADA).unwrap();
    actor.launch().await;
    actor.until("connected").await;
    stage.server.wait_until(|state| state.device(ADA, 1).is_some_and(|device| device.active && device.mail == 0)).await;
    let refused = stage.server.call(BOB, ADA).unwrap();
    let state = stage.server.wait_until(|state| refused_by(state, &refused) == Some(vec![1])).await;
    assert_eq!(refused_by(&state, &missed), Some(Vec::new()));
}
