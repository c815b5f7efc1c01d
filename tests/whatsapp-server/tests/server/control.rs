//! The control port says and does what the library does.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::client::{Client, server, store};

async fn ask(url: &str, method: Method, path: &str, body: Value) -> (u16, Value) {
    let stream = TcpStream::connect(url.trim_start_matches("http://")).await.expect("it listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("it speaks HTTP");
    tokio::spawn(connection);
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path).header("host", "control").body(Full::new(body));
    let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).expect("JSON"))
}

#[tokio::test]
async fn a_device_is_linked_texted_and_unlinked_from_outside() {
    let server = server().await;
    let url = server.control(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
    let alice = Client::start(&server, &store()).await;
    let qr = alice.qr().await;
    let (status, answer) = ask(&url, Method::POST, "/phones/15551000001/scan", json!({ "qr": qr })).await;
    assert_eq!((status, answer), (200, json!({ "device": 1 })));
    alice.connected().await;
    let text = json!({ "from": "+15552000002", "text": "hello" });
    let (status, answer) = ask(&url, Method::POST, "/phones/15551000001/send", text).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(alice.text().await, "hello");
    let (_, state) = ask(&url, Method::GET, "/state", Value::Null).await;
    assert_eq!((&state["texts"][0]["id"], &state["texts"][0]["text"]), (&answer["id"], &json!("hello")));
    let (status, answer) = ask(&url, Method::POST, "/phones/15551000001/unlink", Value::Null).await;
    assert_eq!((status, answer), (200, json!({ "devices": [1] })));
    alice.logged_out().await;
    alice.ended().await;
}

#[tokio::test]
async fn what_cannot_be_done_is_said() {
    let server = server().await;
    let url = server.control(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
    let table = [
        (Method::GET, "/nothing", Value::Null, 404),
        (Method::POST, "/phones", json!({ "number": "one" }), 400),
        (Method::POST, "/phones", json!({ "number": 15_551_230_000_u64 }), 404),
        (Method::POST, "/phones/15551000001/scan", json!({ "qr": "nonsense" }), 422),
        (Method::POST, "/phones/15551000001/code", json!({ "code": "ABCD1234" }), 409),
        (Method::POST, "/phones/15551000001/unlink", Value::Null, 404),
        (Method::POST, "/phones/15551000001/spend", Value::Null, 409),
        (Method::POST, "/phones/15551000001/call", json!({ "from": "15552000002" }), 404),
        (Method::POST, "/groups", json!({ "members": [15_551_230_000_u64] }), 404),
        (Method::POST, "/phones/15551000001/read", json!({ "id": "none" }), 404),
        (Method::POST, "/devices/15551000001/1/drop", Value::Null, 404),
        (Method::POST, "/devices/15551000001/1/dance", Value::Null, 400),
        (Method::POST, "/faults", json!({ "no_such_fault": true }), 400),
    ];
    for (method, path, body, expected) in table {
        let (status, answer) = ask(&url, method, path, body).await;
        assert_eq!(status, expected, "{path}: {answer}");
        assert!(answer["error"].is_string(), "{path}: {answer}");
    }
    let (status, _) = ask(&url, Method::POST, "/faults", json!({ "delay_ms": 5 })).await;
    assert_eq!((status, server.state().faults.delay_ms), (200, 5));
    let (status, _) = ask(&url, Method::DELETE, "/faults", Value::Null).await;
    assert_eq!((status, server.state().faults.delay_ms), (200, 0));
}
