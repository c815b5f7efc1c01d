//! How streams end: with whoever may no longer listen, with what they tell of, with the gateway, and with those who do not read.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::listener::{Listener, SOON, Socket, own_key};
use super::{tell, write_to};
use crate::client::Client;
use crate::gateway::{Gateway, eventually};
use crate::world::ALL;

/// A closed socket's code for who is not let in.
const POLICY: u16 = 1008;

#[tokio::test]
async fn a_stream_ends_at_once_when_its_caller_is_no_longer_let_in() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator();
    for how in ["the key is revoked", "the organisation is suspended", "the organisation is erased"] {
        let org = gateway.org("Acme").await;
        let path = format!("/api/v1/orgs/{}", org.id);
        let (key, client) = own_key(&gateway, &org.id, &json!({ "name": "k", "capabilities": ALL })).await;
        let (_, spared) = own_key(&gateway, &org.id, &json!({ "name": "l", "capabilities": ALL })).await;
        let mut listener = Listener::connect(&client, "").await;
        let mut socket = Socket::connect(&client, &json!({})).await;
        let mut other = Listener::connect(&spared, "").await;
        let ticket = Socket::ticket(&client, &json!({})).await;
        let refused = match how {
            "the key is revoked" => {
                operator.delete(&format!("{path}/keys/{key}")).await.expect(204);
                401
            }
            "the organisation is suspended" => {
                operator.patch(&path, &json!({ "suspended": true })).await.expect(200);
                403
            }
            _ => {
                operator.delete(&path).await.expect(204);
                401
            }
        };
        assert_eq!(listener.ends().await, "unauthorized", "{how}");
        assert_eq!(socket.closed().await, (POLICY, "unauthorized".to_owned()), "{how}");
        assert_eq!(client.get("/api/v1/events").await.status, refused, "{how}");
        let stranger = gateway.stranger();
        assert_eq!(Socket::open(&stranger, &format!("ticket={ticket}")).await.err(), Some(401), "{how}");
        if how == "the key is revoked" {
            tell(&spared, 1).await;
            other.expect("fact").await;
        } else {
            assert_eq!(other.ends().await, "unauthorized", "{how}");
        }
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_key() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    #[expect(clippy::disallowed_methods, reason = "the gateway goes by the system's clock, so the key must, too")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let end = u64::try_from((now + Duration::from_secs(3)).as_millis()).unwrap();
    let key = json!({ "name": "short", "capabilities": ["events"], "expiresAt": end });
    let (_, client) = own_key(&gateway, &org.id, &key).await;
    let mut listener = Listener::connect(&client, "").await;
    let mut socket = Socket::connect(&client, &json!({})).await;
    assert_eq!(listener.ends().await, "expired");
    assert_eq!(socket.closed().await, (POLICY, "expired".to_owned()));
}

#[tokio::test]
async fn the_stream_of_a_session_tells_its_end_and_ends() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let session = org.session().await;
    let mut listener = Listener::connect(&org.client, &format!("session={session}")).await;
    // Whoever does not want to hear of it need not, and the stream ends all the same.
    let scope = json!({ "scope": "session", "session": session, "events": ["message"] });
    let mut socket = Socket::connect(&org.client, &scope).await;
    org.client.delete(&format!("/api/v1/sessions/{session}")).await.expect(204);
    loop {
        let told = listener.next().await.expect("the end is told");
        if told.event == "session.deleted" {
            break;
        }
    }
    assert_eq!(listener.ends().await, "session_gone");
    assert_eq!(socket.closed().await, (1000, "session_gone".to_owned()));
    org.client.get(&format!("/api/v1/events?session={session}")).await.refused(404, "not_found");
}

#[tokio::test]
async fn streams_end_with_the_gateway_which_says_so() {
    let mut gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let mut listener = Listener::connect(&org.client, "").await;
    let mut newer = Listener::with(&org.client, "", &[], true).await;
    newer.expect("connected").await;
    let mut socket = Socket::connect(&org.client, &json!({})).await;
    assert!(timeout(SOON, gateway.terminate()).await.expect("it does not wait for listeners").success());
    assert_eq!(listener.ends().await, "gateway_ending");
    assert_eq!(newer.ends().await, "gateway_ending");
    assert_eq!(socket.closed().await, (1001, "gateway_ending".to_owned()));
}

/// How many streams a key has at most.
const PER_KEY: usize = 32;

#[tokio::test]
async fn a_key_has_so_many_streams_and_leaves_the_others_theirs() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let mut open = Vec::new();
    for _ in 0..PER_KEY {
        open.push(Listener::connect(&org.client, "").await);
    }
    let full = org.client.get("/api/v1/events").await;
    assert_eq!(full.refused(429, "rate_limited")["details"]["reason"], "too_many_streams");
    assert_eq!(full.header("retry-after"), Some("5"));
    let ticket = Socket::ticket(&org.client, &json!({})).await;
    assert_eq!(Socket::open(&org.client, &format!("ticket={ticket}")).await.err(), Some(429));
    let other = gateway.capable(&org, &["events"]).await;
    Listener::connect(&other, "").await;
    open.pop();
    eventually("the place is given back", async || {
        (org.client.get("/api/v1/events").await.status == 200).then_some(())
    })
    .await;
}

/// Large enough that a few hundred fill whatever lies between a gateway and its client.
const LARGE: usize = 30_000;
const MANY: usize = 400;

/// Sends a request over a connection that takes little at once, and reads nothing.
async fn silent(client: &Client, head: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(client.address).await.unwrap();
    stream.write_all(format!("{head}\r\nhost: {}\r\n\r\n", client.address).as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_is_cut_off_and_loses_nothing() {
    let gateway = Gateway::start_with("[limits]\nunread_ms = 3000\n").await;
    let org = gateway.org("Acme").await;
    let session = org.working().await;
    let end = Listener::connect(&org.client, "").await.last.unwrap();
    let ticket = Socket::ticket(&org.client, &json!({})).await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    let key = org.client.key.clone().unwrap();
    let mut slow = [
        silent(&org.client, &format!("GET /api/v1/events HTTP/1.1\r\nx-api-key: {key}")).await,
        silent(&org.client, &format!("GET /api/v1/realtime?ticket={ticket} HTTP/1.1\r\n{upgrade}")).await,
    ];
    let mut diligent = Listener::connect(&org.client, "").await;
    let mut others = Vec::new();
    while others.len() < PER_KEY - 3 {
        // Those that nothing is told to are no trouble.
        let bystander = format!("session={session}&events=session.restored");
        others.push(Listener::connect(&org.client, &bystander).await);
    }
    org.client.get("/api/v1/events").await.refused(429, "rate_limited");
    let write = async {
        for id in 0..MANY {
            let fact = json!({ "id": format!("fact-{id}"), "name": "large", "data": "x".repeat(LARGE) });
            org.client.post("/api/v1/events", &fact).await.expect(202);
        }
        write_to(&org.client, &session, "last").await;
    };
    let (heard, ()) = tokio::join!(diligent.take(MANY + 1), write);

    let mut open = Vec::new();
    eventually("both have lost their places", async || {
        open.extend(Listener::attempt(&org.client, "", &[], false).await);
        (open.len() == 2).then_some(())
    })
    .await;
    for stream in &mut slow {
        let mut read = Vec::new();
        // Whether the connection is reset or only ends, not everything came through it.
        let _ = timeout(SOON, stream.read_to_end(&mut read)).await.expect("the connection is over");
        assert!(read.len() < MANY * LARGE, "it took everything");
    }
    let mut resumed = Listener::resume(&gateway.capable(&org, &["events"]).await, "", &end).await;
    let again: Vec<Value> = resumed.take(MANY + 1).await;
    assert_eq!(again, heard, "something was lost");
}
