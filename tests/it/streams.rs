//! What comes bit by bit: the events behind a temporary link, and the realtime socket.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::gateway::Gateway;
use crate::world::{Org, text};

/// Long enough for anything that happens at once.
const SOON: Duration = Duration::from_secs(20);

/// The events of a link, as they come.
struct Events {
    lines: Lines<BufReader<TcpStream>>,
}

impl Events {
    async fn open(gateway: &Gateway, link: &str) -> Self {
        let path = format!("{}/events", path_of(link));
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n\r\n", gateway.address);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "HTTP/1.1 200 OK");
        Self { lines }
    }

    /// The next event; none once the stream has ended.
    async fn next(&mut self) -> Option<(String, Value)> {
        let mut event = String::new();
        loop {
            let line = timeout(SOON, self.lines.next_line()).await.expect("something comes").unwrap()?;
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut event);
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((event, serde_json::from_str(data).unwrap()));
            } else if line == "0" {
                return None;
            }
        }
    }

    /// The next event of this name; those before it are passed over.
    async fn until(&mut self, name: &str) -> Value {
        loop {
            let (event, data) = self.next().await.unwrap_or_else(|| panic!("the stream ended before {name}"));
            if event == name {
                return data;
            }
        }
    }
}

fn path_of(link: &str) -> &str {
    let (_, rest) = link.split_once("/temp-qr/").unwrap();
    &link[link.len() - rest.len() - "/temp-qr/".len()..]
}

async fn link(org: &Org, session: &str) -> String {
    text(&org.client.act(&format!("/api/v1/sessions/{session}/link")).await.expect(201), "link")
}

#[tokio::test]
async fn a_link_shows_codes_until_the_session_is_linked_and_is_dead_then() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let session = org.session().await;
    let link = link(&org, &session).await;
    assert!(link.starts_with(&format!("http://{}/temp-qr/", gateway.address)), "{link}");

    let page = gateway.stranger().get(path_of(&link)).await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert!(page.header("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none'")));
    let html = String::from_utf8(page.body.to_vec()).unwrap();
    let token = link.rsplit('/').next().unwrap();
    assert!(!html.contains(token) && !html.contains(&session), "the page knows nothing of what it shows");

    // Nobody has started the session: that somebody looks is what begins the pairing.
    let mut events = Events::open(&gateway, &link).await;
    let shown = events.until("qr").await;
    assert!(text(&shown, "image").starts_with("data:image/png;base64,"), "{shown}");
    assert!(shown["expiresAt"].as_u64() > shown["now"].as_u64(), "{shown}");

    // A new pairing shows a new code.
    org.client.act(&format!("/api/v1/sessions/{session}:stop")).await.expect(200);
    events.until("waiting").await;
    org.client.get(&format!("/api/v1/sessions/{session}/qr")).await.expect(200);
    assert_ne!(events.until("qr").await["image"], shown["image"]);

    org.link(&session).await;
    events.until("linked").await;
    assert!(events.next().await.is_none(), "nothing comes after the end");
    let dead = gateway.stranger().get(path_of(&link)).await;
    assert_eq!((dead.status, dead.header("content-type")), (404, Some("text/html; charset=utf-8")));
    let left = org.client.get(&format!("/api/v1/sessions/{session}/link")).await.expect(200);
    assert_eq!(left, json!({ "link": null }));
}

#[tokio::test]
async fn a_link_dies_when_it_is_replaced_revoked_or_its_session_deleted() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let session = org.session().await;
    let path = format!("/api/v1/sessions/{session}");

    let first = link(&org, &session).await;
    let mut events = Events::open(&gateway, &first).await;
    events.until("qr").await;
    let second = link(&org, &session).await;
    assert_eq!(events.until("dead").await["reason"], "revoked");
    assert_eq!(gateway.stranger().get(path_of(&first)).await.status, 404);

    let mut events = Events::open(&gateway, &second).await;
    events.until("qr").await;
    org.client.delete(&format!("{path}/link")).await.expect(204);
    assert_eq!(events.until("dead").await["reason"], "revoked");

    let third = link(&org, &session).await;
    let mut events = Events::open(&gateway, &third).await;
    events.until("qr").await;
    org.client.delete(&path).await.expect(204);
    assert_eq!(events.until("dead").await["reason"], "gone");
    assert_eq!(gateway.stranger().get(path_of(&third)).await.status, 404);
}

#[tokio::test]
async fn a_link_outlives_the_gateway_and_shows_a_pairing_code_too() {
    let mut gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let session = org.session().await;
    let link = link(&org, &session).await;
    gateway.kill().await;
    gateway.restart().await;
    let org = org.at(&gateway);
    let path = format!("/api/v1/sessions/{session}/pairing-code");
    let code = org.client.post(&path, &json!({ "phone": "628123456789" })).await.expect(200);
    let mut events = Events::open(&gateway, &link).await;
    assert_eq!(events.until("code").await["code"], code["code"]);
}

#[tokio::test]
async fn what_is_no_link_leads_nowhere() {
    let gateway = Gateway::start().await;
    let stranger = gateway.stranger();
    for path in [
        "/temp-qr/".to_owned(),
        "/temp-qr/abc".to_owned(),
        format!("/temp-qr/{}", "0".repeat(64)),
        format!("/temp-qr/{}/events", "0".repeat(64)),
        format!("/temp-qr/{}/../../healthz", "0".repeat(64)),
    ] {
        let reply = stranger.get(&path).await;
        assert_eq!((reply.status, reply.header("content-type")), (404, Some("text/html; charset=utf-8")), "{path}");
    }
    assert_eq!(stranger.act(&format!("/temp-qr/{}", "0".repeat(64))).await.status, 405);
}

#[tokio::test]
async fn a_gateway_that_ends_ends_its_streams() {
    let mut gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let session = org.session().await;
    let link = link(&org, &session).await;
    let mut events = Events::open(&gateway, &link).await;
    events.until("qr").await;
    assert!(timeout(SOON, gateway.terminate()).await.expect("the gateway does not wait for readers").success());
}

async fn ticket(org: &Org) -> String {
    text(&org.client.act("/api/v1/realtime/ticket").await.expect(201), "ticket")
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn open(gateway: &Gateway, ticket: &str) -> Result<Socket, Error> {
    let url = format!("ws://{}/api/v1/realtime?ticket={ticket}", gateway.address);
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    Ok(tokio_tungstenite::client_async(url, stream).await?.0)
}

fn status(refused: Result<Socket, Error>) -> u16 {
    match refused {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_ticket_opens_one_socket() {
    let mut gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let ticket = ticket(&org).await;
    let path = format!("/api/v1/realtime?ticket={ticket}");
    assert_eq!(
        gateway.stranger().get("/api/v1/realtime").await.refused(401, "unauthorized")["message"],
        "missing ticket"
    );

    let mut socket = open(&gateway, &ticket).await.unwrap();
    let hello = timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
    let hello: Value = serde_json::from_str(hello.to_text().unwrap()).unwrap();
    assert_eq!((hello["event"].as_str(), hello["heartbeatSeconds"].as_u64()), (Some("connected"), Some(20)));

    // Pings of the protocol are answered, and what a client says is not listened to.
    socket.send(Message::text("hello?")).await.unwrap();
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("are you there".into()));

    assert_eq!(status(open(&gateway, &ticket).await), 401, "a ticket is good for one use");
    assert_eq!(status(open(&gateway, "rt_nonsense").await), 401);
    assert_ne!(gateway.stranger().get(&path).await.status, 200);

    assert!(timeout(SOON, gateway.terminate()).await.expect("the gateway does not wait for listeners").success());
    let last = timeout(SOON, socket.next()).await.unwrap();
    assert!(matches!(last, Some(Ok(Message::Close(_)) | Err(_)) | None), "{last:?}");
}

#[tokio::test]
async fn a_client_that_says_too_much_is_sent_away() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let mut socket = open(&gateway, &ticket(&org).await).await.unwrap();
    socket.next().await.unwrap().unwrap();
    // The gateway may be gone before all of it is out.
    let _ = socket.send(Message::text("x".repeat(64 * 1024))).await;
    let end = timeout(SOON, async {
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() {
                break;
            }
        }
    });
    end.await.expect("the socket is closed");
    gateway.stranger().get("/healthz").await;
}
