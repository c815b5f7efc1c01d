//! Connecting, staying connected, and every way of not being connected any more.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use portcullis_core::session::{FailureCause, ProxyProtocol};
use portcullis_core::{Fact, Proxy, Settings};
use portcullis_engine::Engine;
use portcullis_whatsapp_server::{Action, Failure, Faults, HalfOpen};
use tokio_tungstenite::tungstenite::Message;

use super::stage::{ADA, BOB, Stage, text_for};

fn ended(cause: FailureCause) -> Fact {
    Fact::Ended { cause, until: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_session_connects_again_after_a_restart_without_a_scan() {
    let mut stage = Stage::new().await;
    stage.actor(1).link(ADA).await;
    stage.restart().await;
    let actor = stage.actor(1);
    actor.launch().await;
    assert_eq!(actor.fact().await, Fact::Connected);
    assert_eq!(stage.server.state().totals.pairings, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_a_device_is_logged_out() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.launch().await;
    assert_eq!(actor.fact().await, Fact::LoggedOut);
    assert_eq!(stage.engine.run(actor.session), None);
    assert_eq!(stage.server.state().totals.accepted, 0, "nobody was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_comes_back_by_itself() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    for action in [Action::Drop, Action::Close, Action::Error { code: 503 }] {
        stage.server.act(ADA, 1, action).unwrap();
        assert_eq!(actor.until("disconnected").await, Fact::Disconnected);
        assert_eq!(actor.until("connected").await, Fact::Connected);
    }
    // A frame that nobody can read is passed over.
    stage.server.act(ADA, 1, Action::Garbage).unwrap();
    actor.send(text_for(BOB, "still here")).await.unwrap();
    assert_eq!(stage.engine.run(actor.session), Some(actor.attempt()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_a_connection_for_good_is_told_once() {
    let stage = Stage::new().await;
    let check = async |number: u64, action: Action, expected: &dyn Fn(&Fact) -> bool| {
        let actor = stage.actor(1);
        actor.link(number).await;
        let device = stage.server.state().account(number).unwrap().devices.last().unwrap().device;
        stage.server.act(number, device, action).unwrap();
        let fact = loop {
            match actor.fact().await {
                Fact::Disconnected | Fact::Identified { .. } => {}
                fact => break fact,
            }
        };
        assert!(expected(&fact), "{action:?} came to {fact:?}");
        stage.server.wait_until(|state| state.connections == 0).await;
        assert_eq!(stage.engine.run(actor.session), None);
        assert_eq!(actor.said(), [""; 0]);
        actor.perform(portcullis_engine::Task::Forget).await;
    };
    check(ADA, Action::Replace, &|fact| *fact == ended(FailureCause::Replaced)).await;
    check(ADA + 10, Action::Outdated, &|fact| *fact == ended(FailureCause::ClientOutdated)).await;
    check(ADA + 20, Action::Ban { code: 101, expire: 600 }, &|fact| {
        matches!(fact, Fact::Ended { cause: FailureCause::Banned, until: Some(_) })
    })
    .await;
    check(ADA + 30, Action::Error { code: 516 }, &|fact| *fact == Fact::LoggedOut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_unlinks_the_device_logs_it_out_once() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    stage.server.unlink(ADA, None).unwrap();
    assert_eq!(actor.until("logged-out").await, Fact::LoggedOut);
    stage.server.wait_until(|state| state.connections == 0).await;
    assert_eq!(actor.said().iter().filter(|said| **said == "logged-out").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_unlinked_meanwhile_is_logged_out_when_it_connects() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    actor.halt().await;
    stage.server.wait_until(|state| state.connections == 0).await;
    stage.server.unlink(ADA, None).unwrap();
    actor.launch().await;
    assert_eq!(actor.fact().await, Fact::LoggedOut);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_a_login_for_good_ends_the_run() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    actor.halt().await;
    stage.server.refuse(ADA, Some(Failure { reason: 409, code: None, expire: None })).unwrap();
    actor.launch().await;
    assert_eq!(actor.fact().await, ended(FailureCause::ConnectionRefused));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_connect_in_time_says_why() {
    let mut stage = Stage::new().await;
    stage.actor(1).link(ADA).await;
    stage.restart_with(|config| config.connect_timeout = Duration::from_secs(5)).await;
    {
        let actor = stage.actor(1);
        stage.server.set_faults(Faults { refuse_connects: true, ..Faults::default() });
        actor.launch().await;
        assert_eq!(actor.fact().await, ended(FailureCause::Unreachable));
        stage.server.set_faults(Faults { half_open: Some(HalfOpen::Websocket), ..Faults::default() });
        actor.launch().await;
        assert_eq!(actor.fact().await, ended(FailureCause::StartTimeout));
        stage.server.set_faults(Faults::default());
    }
    // Port 9 of this machine discards, if anything.
    let proxy = Proxy {
        protocol: ProxyProtocol::Socks5,
        host: "127.0.0.1".to_owned(),
        port: 9,
        username: None,
        password: None,
    };
    stage.set_up(|setup| setup.proxy = Some(proxy));
    let actor = stage.actor(1);
    for _ in 0..3 {
        actor.launch().await;
    }
    assert_eq!(actor.until("ended").await, ended(FailureCause::ProxyUnreachable));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_wait_for_their_turn_to_connect_and_can_be_halted_meanwhile() {
    let mut stage = Stage::new().await;
    for (number, phone) in [(1, ADA), (2, BOB), (3, BOB + 1)] {
        stage.actor(number).link(phone).await;
    }
    stage
        .restart_with(|config| {
            config.connecting_at_once = 1;
            config.connect_timeout = Duration::from_secs(10);
        })
        .await;
    let (one, two, three) = (stage.actor(1), stage.actor(2), stage.actor(3));
    // The first has the only turn, and nobody answers it. Whoever connects after it is answered.
    let accepted = stage.server.state().totals.accepted;
    stage.server.set_faults(Faults { half_open: Some(HalfOpen::Websocket), ..Faults::default() });
    one.launch().await;
    stage.server.wait_until(|state| state.totals.accepted > accepted).await;
    stage.server.set_faults(Faults::default());
    two.launch().await;
    three.launch().await;
    assert_eq!(stage.engine.runs().len(), 3, "those who wait count");
    two.halt().await;
    assert_eq!(stage.engine.run(two.session), None);
    assert_eq!(three.said(), [""; 0]);
    // The first has its turn until its deadline, however long the others wait.
    assert_eq!(one.fact().await, ended(FailureCause::StartTimeout));
    three.until("connected").await;
    assert_eq!(two.said(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_run_takes_the_place_of_an_older_one_which_is_silent_from_then_on() {
    let stage = Stage::new().await;
    let actor = stage.actor(1);
    actor.link(ADA).await;
    for _ in 0..3 {
        actor.launch().await;
    }
    assert_eq!(stage.engine.run(actor.session), Some(actor.attempt()));
    assert_eq!(actor.fact().await, Fact::Connected);
    // Of a client that is gone, the server may hear a little later.
    let state = stage.server.wait_until(|state| state.connections == 1).await;
    assert_eq!(state.account(ADA).unwrap().devices.len(), 1);
    assert!(actor.said().iter().all(|said| *said != "ended"), "nobody was replaced in WhatsApp's eyes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_shown_as_online_only_if_its_settings_say_so() {
    let mut stage = Stage::new().await;
    let online = Settings { always_online: true, ..Settings::default() };
    stage.set_up(|setup| setup.settings = online.clone());
    let actor = stage.actor(1);
    actor.link(ADA).await;
    let shown = |wanted: bool| {
        stage.server.wait_until(move |state| state.device(ADA, 1).is_some_and(|device| device.available == wanted))
    };
    // Each is seen before the next is asked for: they do not wait for each other.
    shown(true).await;
    actor.configure(Settings::default()).await;
    shown(false).await;
    actor.configure(online).await;
    shown(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_every_run_and_begins_none_any_more() {
    let stage = Stage::new().await;
    let (one, two) = (stage.actor(1), stage.actor(2));
    one.link(ADA).await;
    two.pair(None).await;
    stage.engine.close().await;
    stage.server.wait_until(|state| state.connections == 0).await;
    one.launch().await;
    assert_eq!(stage.engine.runs(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_prove_who_it_is_is_not_trusted() {
    let (url, _impostor) = impostor().await;
    let stage = Stage::with(Default::default(), |config| {
        config.server = url.parse().unwrap();
        config.first_code_timeout = Duration::from_secs(5);
    })
    .await;
    let actor = stage.actor(1);
    actor.pair(None).await;
    assert_eq!(actor.fact().await, ended(FailureCause::ServerNotTrusted));
}

/// A server that answers everything with something that proves nothing.
async fn impostor() -> (String, tokio::task::JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws/chat", listener.local_addr().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut talks = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            talks.spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                while let Some(Ok(_)) = socket.next().await {
                    let frame = Message::binary(vec![0, 0, 4, 1, 2, 3, 4]);
                    let _ = socket.send(frame).await;
                }
            });
        }
    });
    (url, tasks)
}
