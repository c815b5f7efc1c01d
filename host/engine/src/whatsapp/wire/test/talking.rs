//! What a connection carries, and how it ends.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use whatsapp_rust::async_channel::Receiver;
use whatsapp_rust::transport::{DisconnectReason, Transport as _, TransportEvent};

use super::super::{Patience, Wire};
use super::peers::{Server, Socket, binary};
use super::{AMPLE, SHORT, wires};

type Client = (Arc<Wire>, Receiver<TransportEvent>);

/// Both ends of a connection, of which the client has heard that it is there.
async fn connected(patience: Patience) -> (Client, Socket) {
    let server = Server::start().await;
    let wires = wires(&server.url(), None, patience);
    let (client, socket) = tokio::join!(wires.open(), server.accept());
    let client = client.unwrap();
    assert!(matches!(client.1.recv().await, Ok(TransportEvent::Connected)));
    (client, socket)
}

async fn data(events: &Receiver<TransportEvent>) -> Bytes {
    match events.recv().await {
        Ok(TransportEvent::DataReceived(data)) => data,
        other => panic!("{other:?}"),
    }
}

/// How the connection ended; nothing comes after that.
async fn end(events: &Receiver<TransportEvent>) -> DisconnectReason {
    let reason = match events.recv().await {
        Ok(TransportEvent::Disconnected(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert!(events.recv().await.is_err());
    reason
}

#[tokio::test]
async fn messages_go_both_ways_in_their_order() {
    let ((transport, events), mut server) = connected(AMPLE).await;
    for message in [&b"one"[..], b"", b"three"] {
        transport.send(Bytes::copy_from_slice(message)).await.unwrap();
        assert_eq!(server.next().await.unwrap().unwrap(), Message::Binary(Bytes::copy_from_slice(message)));
    }
    for message in [&b"four"[..], b"five"] {
        server.send(binary(message)).await.unwrap();
    }
    assert_eq!((&data(&events).await[..], &data(&events).await[..]), (&b"four"[..], &b"five"[..]));
}

#[tokio::test]
async fn only_binary_messages_are_told_and_pings_are_answered() {
    let ((_transport, events), mut server) = connected(AMPLE).await;
    server.send(Message::Text("hello".into())).await.unwrap();
    server.send(Message::Ping("x".into())).await.unwrap();
    server.send(binary(b"data")).await.unwrap();
    assert_eq!(data(&events).await, "data");
    assert_eq!(server.next().await.unwrap().unwrap(), Message::Pong("x".into()));
}

#[tokio::test]
async fn a_server_that_closes_is_told_once_with_its_reason() {
    let ((transport, events), mut server) = connected(AMPLE).await;
    server.send(binary(b"last")).await.unwrap();
    let frame = CloseFrame { code: CloseCode::Restart, reason: "later".into() };
    server.close(Some(frame)).await.unwrap();
    assert_eq!(data(&events).await, "last");
    let reason = end(&events).await;
    let is_told = matches!(&reason, DisconnectReason::ServerClose { code: Some(1012), reason } if reason == "later");
    assert!(is_told, "{reason:?}");
    assert!(transport.send(Bytes::from_static(b"x")).await.is_err());
}

#[tokio::test]
async fn a_server_that_vanishes_is_told_once() {
    let ((transport, events), server) = connected(AMPLE).await;
    drop(server);
    let reason = end(&events).await;
    // The library takes an end without goodbye for an error of the protocol.
    assert!(matches!(reason, DisconnectReason::ReadError(_) | DisconnectReason::StreamEnded), "{reason:?}");
    assert!(transport.send(Bytes::from_static(b"x")).await.is_err());
    transport.disconnect().await;
    assert!(events.recv().await.is_err());
}

/// The story: for a moment after its end was told, a connection seemed to be there still. A server that hung up in the middle of
/// the client's first exchange could then pass for one that the client does not believe.
#[tokio::test]
async fn a_connection_is_over_before_its_end_is_told() {
    let ((transport, events), server) = connected(AMPLE).await;
    assert!(!transport.is_over());
    drop(server);
    assert!(matches!(events.recv().await, Ok(TransportEvent::Disconnected(_))));
    assert!(transport.is_over());
}

#[tokio::test]
async fn garbage_ends_the_connection() {
    use tokio::io::AsyncWriteExt as _;
    let ((_transport, events), mut server) = connected(AMPLE).await;
    server.get_mut().write_all(&[0xff; 64]).await.unwrap();
    assert!(matches!(end(&events).await, DisconnectReason::ReadError(_)));
}

#[tokio::test]
async fn a_message_larger_than_any_of_whatsapps_ends_the_connection() {
    use tokio::io::AsyncWriteExt as _;
    let ((_transport, events), mut server) = connected(AMPLE).await;
    // The head of a frame of 16 MiB and a few bytes, of which nothing has to come.
    let mut head = vec![0x82, 127];
    head.extend((16 * 1024 * 1024 + 3_u64).to_be_bytes());
    server.get_mut().write_all(&head).await.unwrap();
    assert!(matches!(end(&events).await, DisconnectReason::ReadError(_)));
}

#[tokio::test]
async fn a_client_that_hangs_up_says_goodbye() {
    let ((transport, events), mut server) = connected(AMPLE).await;
    transport.disconnect().await;
    assert!(matches!(server.next().await, Some(Ok(Message::Close(_)))));
    assert!(matches!(end(&events).await, DisconnectReason::Unknown));
    assert!(transport.send(Bytes::from_static(b"x")).await.is_err());
    // Once more does nothing.
    transport.disconnect().await;
}

#[tokio::test]
async fn whoever_drops_a_connection_closes_it() {
    let ((transport, events), mut server) = connected(AMPLE).await;
    drop(transport);
    assert!(!matches!(server.next().await, Some(Ok(_))));
    assert!(matches!(end(&events).await, DisconnectReason::Unknown));

    let ((transport, events), mut server) = connected(AMPLE).await;
    drop(events);
    // Nobody listens, so that nothing is read any more, and nothing can be sent either.
    while transport.send(Bytes::from_static(b"x")).await.is_ok() {
        tokio::task::yield_now().await;
    }
    drop(transport);
    while let Some(Ok(message)) = server.next().await {
        assert!(message.is_binary());
    }
}

#[tokio::test]
async fn a_client_that_is_busy_lets_the_server_wait() {
    let ((_transport, events), mut server) = connected(AMPLE).await;
    let message = Bytes::from(vec![7; 256 * 1024]);
    // Much more than the network holds on its own.
    let count = 256;
    let sending = tokio::spawn(async move {
        for _ in 0..count {
            server.send(Message::Binary(message.clone())).await.unwrap();
        }
        server
    });
    while !events.is_full() {
        tokio::task::yield_now().await;
    }
    assert!(!sending.is_finished());
    for _ in 0..count {
        assert_eq!(data(&events).await.len(), 256 * 1024);
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn a_network_that_takes_nothing_is_given_up() {
    let patience = Patience { send: SHORT, ..AMPLE };
    let ((transport, events), server) = connected(patience).await;
    let message = Bytes::from(vec![7; 1024 * 1024]);
    // The server reads nothing, and what the network holds on its own is soon full.
    while transport.send(message.clone()).await.is_ok() {}
    assert!(matches!(end(&events).await, DisconnectReason::ReadError(_)));
    assert!(transport.send(Bytes::from_static(b"x")).await.is_err());
    drop(server);
}
