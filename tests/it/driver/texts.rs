//! Texts out and in, and what else is asked of a connected session.

use std::time::Duration;

use portcullis_core::operation::Presence;
use portcullis_core::{Fact, MessageStage, Settings};
use portcullis_engine::{Engine, OutgoingText, SendError};
use portcullis_whatsapp_server::{Action, Faults};

use super::stage::{ADA, BOB, Stage, text_for};

/// A number that is not on WhatsApp.
const NOBODY: u64 = 15_550_000_000;
/// The number of one more.
const CARA: u64 = 15_550_000_003;

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_sent_when_whatsapp_has_taken_it_and_comes_further() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    let sent = actor.send(text_for(BOB, "good morning")).await.unwrap();
    let state = stage.server.wait_until(|state| state.text(&sent.id).is_some_and(|text| text.decrypted == 1)).await;
    let text = state.text(&sent.id).unwrap();
    assert_eq!((text.text.as_deref(), text.to, text.accepted), (Some("good morning"), BOB, 1));
    let delivered = actor.progress().await;
    assert_eq!((delivered.stage, &delivered.messages[..]), (MessageStage::Delivered, &[sent.id.clone()][..]));
    stage.server.read(BOB, &sent.id).unwrap();
    let read = actor.progress().await;
    assert_eq!((read.stage, &read.messages[..]), (MessageStage::Read, &[sent.id][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_mentions_is_a_text_like_any_other() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    let text = OutgoingText {
        reply_to: Some("3EB0AAAA".to_owned()),
        mentions: vec![format!("{BOB}@s.whatsapp.net")],
        ..text_for(BOB, "yes")
    };
    let sent = actor.send(text).await.unwrap();
    let state = stage.server.wait_until(|state| state.text(&sent.id).is_some_and(|text| text.decrypted == 1)).await;
    assert_eq!(state.text(&sent.id).unwrap().text.as_deref(), Some("yes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_to_a_group_reaches_its_members() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    let group = stage.server.group(&[ADA, BOB, CARA]).unwrap();
    // The first text brings the key with which they are read; the second comes without.
    for words in ["good morning", "and good night"] {
        let text = OutgoingText { to: group.clone(), mention_all: true, ..text_for(BOB, words) };
        let sent = actor.send(text).await.unwrap();
        let state = stage.server.wait_until(|state| state.text(&sent.id).is_some_and(|text| text.decrypted == 2)).await;
        let text = state.text(&sent.id).unwrap();
        assert_eq!((text.text.as_deref(), text.accepted, text.undecryptable), (Some(words), 1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_not_there_or_that_the_account_is_not_in_is_not_written_to() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    let others = stage.server.group(&[BOB, CARA]).unwrap();
    for (to, expected) in
        [("120363000999999999@g.us", SendError::UnknownRecipient), (others.as_str(), SendError::Refused)]
    {
        let text = OutgoingText { to: to.to_owned(), ..text_for(BOB, "hello") };
        assert_eq!(actor.send(text).await, Err(expected), "{to}");
    }
    assert_eq!(stage.server.state().texts, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_whatsapp_refuses_was_not_sent_and_a_limit_is_the_accounts() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    for (code, expected) in [
        (400, SendError::Refused),
        (404, SendError::UnknownRecipient),
        (463, SendError::Limited),
        (475, SendError::Limited),
    ] {
        stage.server.set_faults(Faults { refuse_messages: Some(code), ..Faults::default() });
        assert_eq!(actor.send(text_for(BOB, "hello")).await, Err(expected), "{code}");
        if expected == SendError::Limited {
            let Fact::Limited { limit } = actor.until("limited").await else { unreachable!() };
            assert_eq!(limit.code, code.to_string());
        }
    }
    stage.server.set_faults(Faults::default());
    actor.send(text_for(BOB, "hello")).await.unwrap();
    assert!(!actor.said().contains(&"limited"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_confirmed_may_have_been_sent() {
    let stage = Stage::with(Default::default(), |config| config.confirm_timeout = Duration::from_secs(3)).await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    stage.server.set_faults(Faults { withhold_acks: true, ..Faults::default() });
    assert_eq!(actor.send(text_for(BOB, "hello?")).await, Err(SendError::Unconfirmed));
    let state = stage.server.wait_until(|state| state.texts.iter().any(|text| text.decrypted == 1)).await;
    assert_eq!(state.texts[0].text.as_deref(), Some("hello?"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_nobody_or_by_a_session_that_is_not_connected() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    assert_eq!(actor.send(text_for(BOB, "hello")).await, Err(SendError::NotConnected));
    actor.link(ADA).await;
    assert_eq!(actor.send(text_for(NOBODY, "hello")).await, Err(SendError::UnknownRecipient));
    let nowhere = OutgoingText { to: "status@broadcast".to_owned(), ..text_for(BOB, "hello") };
    assert_eq!(actor.send(nowhere).await, Err(SendError::UnknownRecipient));
    stage.server.set_faults(Faults { refuse_connects: true, ..Faults::default() });
    stage.server.act(ADA, 1, Action::Drop).unwrap();
    actor.until("disconnected").await;
    assert_eq!(actor.send(text_for(BOB, "hello")).await, Err(SendError::NotConnected));
    assert_eq!(stage.server.state().texts, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_comes_in_is_acknowledged_once_it_is_recorded() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    stage.server.wait_until(|state| state.device(ADA, 1).is_some_and(|device| device.active && device.mail == 0)).await;
    let id = stage.server.send(BOB, ADA, None, "are you there?").unwrap();
    let text = actor.text_in(false).await;
    assert_eq!((text.id.as_str(), text.text.as_str()), (id.as_str(), "are you there?"));
    assert_eq!((text.from, text.sender), (format!("{BOB}@s.whatsapp.net"), None));
    let receipt = |state: &portcullis_whatsapp_server::State| state.text(&id).unwrap().copies[0].receipt.clone();
    assert_eq!(receipt(&stage.server.state()), None, "nobody has recorded it");
    // The gateway may end here: WhatsApp still has it.
    let mut stage = stage;
    stage.restart().await;
    let actor = stage.actor(1);
    actor.launch().await;
    assert_eq!(actor.text_in(true).await.id, id);
    stage.server.wait_until(|state| receipt(state).is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_marked_as_read_if_the_settings_say_so() {
    let mut stage = Stage::new().await;
    stage.set_up(|setup| setup.settings = Settings { auto_read: false, ..Settings::default() });
    let actor = stage.actor(1);
    actor.link(ADA).await;
    let unread = stage.server.send(BOB, ADA, None, "one").unwrap();
    actor.text_in(true).await;
    actor.configure(Settings { auto_read: true, ..Settings::default() }).await;
    let read = stage.server.send(BOB, ADA, None, "two").unwrap();
    actor.text_in(true).await;
    let state = stage.server.wait_until(|state| state.text(&read).is_some_and(|text| text.read)).await;
    assert!(!state.text(&unread).unwrap().read);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_looked_up_in_the_order_of_the_questions() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    let numbers: Vec<String> = [BOB, NOBODY, ADA].iter().map(u64::to_string).collect();
    let engine = &stage.engine;
    let unasked = engine.check_numbers(actor.session, actor.attempt(), numbers.clone()).await;
    assert_eq!(unasked, Err(SendError::NotConnected));
    actor.link(ADA).await;
    let found = engine.check_numbers(actor.session, actor.attempt(), numbers.clone()).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|check| (check.number, check.jid)).collect();
    let jid = |number: u64| Some(format!("{number}@s.whatsapp.net"));
    let jids = [jid(BOB), None, jid(ADA)];
    assert_eq!(found, numbers.into_iter().zip(jids).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_shows_what_it_is_doing() {
    let mut stage = Stage::new().await;
    stage.set_up(|setup| setup.settings = Settings { always_online: true, ..Settings::default() });
    let actor = stage.actor(1);
    actor.link(ADA).await;
    let engine = &stage.engine;
    let shown = |wanted: bool| {
        stage.server.wait_until(move |state| state.device(ADA, 1).is_some_and(|device| device.available == wanted))
    };
    let show = |chat: Option<u64>, presence| {
        let chat = chat.map(|number| format!("{number}@s.whatsapp.net"));
        engine.show_presence(actor.session, actor.attempt(), chat, presence)
    };
    // What its settings say is shown by itself, and would undo what is asked for before.
    shown(true).await;
    show(None, Presence::Unavailable).await.unwrap();
    shown(false).await;
    show(None, Presence::Available).await.unwrap();
    shown(true).await;
    for presence in [Presence::Composing, Presence::Recording, Presence::Paused] {
        show(Some(BOB), presence).await.unwrap();
        assert_eq!(show(None, presence).await, Err(SendError::UnknownRecipient));
    }
}
