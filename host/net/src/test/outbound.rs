//! What the way out does with servers that are good, slow, large, untrusted or not there.

use std::time::Duration;

use hyper::{Method, StatusCode};
use tokio::net::TcpListener;

use super::server::Server;
use crate::{Client, Limits, NetError, Outbound, Response, RootError};

/// More than enough for a server on the same machine, however busy that is.
const AMPLE: Limits = Limits { connect: Duration::from_secs(60), whole: Duration::from_secs(60), body: 1000 };
/// Less than a server needs that does not answer at all.
const SHORT: Duration = Duration::from_millis(20);

async fn get(url: &str, limits: Limits) -> Result<Response, NetError> {
    Outbound::new().get(url, limits).await
}

/// The error without what is particular to one run.
fn name(result: &Result<Response, NetError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(NetError::Address(_)) => "address",
        Err(NetError::Connect(..)) => "connect",
        Err(NetError::Secure(..)) => "secure",
        Err(NetError::Timeout(_)) => "timeout",
        Err(NetError::TooLarge(..)) => "too large",
        Err(NetError::Exchange(..)) => "exchange",
    }
}

#[tokio::test]
async fn an_answer_is_read_whole() {
    let server = Server::plain().await;
    server.answer("200 OK", "hello");
    let response = get(&server.url("/a?b=c"), AMPLE).await.unwrap();
    assert_eq!((response.status, &response.body[..]), (StatusCode::OK, &b"hello"[..]));
    let head = server.last();
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: 127.0.0.1:{}\r\n", server.port())), "{head}");
}

#[tokio::test]
async fn any_status_is_an_answer_and_no_redirect_is_followed() {
    let server = Server::plain().await;
    for (status, code) in [("302 Found", 302), ("404 Not Found", 404), ("500 Internal Server Error", 500)] {
        server.answer(status, "");
        assert_eq!(get(&server.url("/"), AMPLE).await.unwrap().status, code);
    }
    assert_eq!(server.asked(), 3);
}

#[tokio::test]
async fn a_body_is_read_up_to_the_limit() {
    let server = Server::plain().await;
    let chunked = |size: usize| {
        let body = "x".repeat(size);
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n")
    };
    let endless = |size: usize| format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(size));
    for (size, result) in [(1000, "ok"), (1001, "too large")] {
        server.answer("200 OK", &"x".repeat(size));
        assert_eq!(name(&get(&server.url("/"), AMPLE).await), result, "{size} bytes that were announced");
        server.answer_raw(chunked(size));
        assert_eq!(name(&get(&server.url("/"), AMPLE).await), result, "{size} bytes in a chunk");
        server.answer_raw(endless(size));
        assert_eq!(name(&get(&server.url("/"), AMPLE).await), result, "{size} bytes until the end");
    }
}

#[tokio::test]
async fn half_an_answer_is_none() {
    let server = Server::plain().await;
    for half in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "no http at all\r\n\r\n"] {
        server.answer_raw(half.to_owned());
        assert_eq!(name(&get(&server.url("/"), AMPLE).await), "exchange", "{half:?}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let server = Server::plain().await;
    server.hold();
    assert_eq!(name(&get(&server.url("/"), Limits { whole: SHORT, ..AMPLE }).await), "timeout");
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_given_up_as_one_that_does_not_connect() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", silent.local_addr().unwrap());
    assert_eq!(name(&get(&url, Limits { connect: SHORT, ..AMPLE }).await), "timeout");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_to_be_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = get(&format!("http://{address}/?key=secret"), AMPLE).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot connect to {address}; is it running?"));
}

#[tokio::test]
async fn a_certificate_that_leads_to_no_root_is_refused() {
    let (server, _) = Server::secure("127.0.0.1").await;
    let url = format!("https://127.0.0.1:{}/", server.port());
    assert_eq!(name(&get(&url, AMPLE).await), "secure");
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn a_certificate_that_leads_to_a_root_of_the_operator_is_believed() {
    let (server, root) = Server::secure("127.0.0.1").await;
    server.answer("200 OK", "hello");
    let outbound = Outbound::with_roots(root.as_bytes()).unwrap();
    let url = format!("https://127.0.0.1:{}", server.port());
    assert_eq!(outbound.get(&url, AMPLE).await.unwrap().body, "hello");

    let client = Client::new(&url, "wa_key").unwrap();
    assert_eq!(name(&client.send(Method::GET, "/", Vec::new()).await), "secure");
    let client = client.through(outbound);
    assert_eq!(client.send(Method::POST, "/api/v1/orgs", Vec::new()).await.unwrap().body, "hello");
    let head = server.last();
    assert!(head.starts_with("POST /api/v1/orgs HTTP/1.1\r\n") && head.contains("x-api-key: wa_key\r\n"), "{head}");
}

#[tokio::test]
async fn a_certificate_of_another_server_is_refused() {
    let (server, root) = Server::secure("elsewhere.example").await;
    let outbound = Outbound::with_roots(root.as_bytes()).unwrap();
    let url = format!("https://127.0.0.1:{}/", server.port());
    assert_eq!(name(&outbound.get(&url, AMPLE).await), "secure");
    assert_eq!(server.asked(), 0);
}

#[test]
fn a_root_that_is_none_is_refused() {
    let wrong = |pem: &str| Outbound::with_roots(pem.as_bytes()).unwrap_err();
    assert!(matches!(wrong(""), RootError::Empty));
    assert!(matches!(wrong("hello"), RootError::Empty));
    let block = |text| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    assert!(matches!(wrong(&block("???")), RootError::Pem(_)));
    assert!(matches!(wrong(&block("aGVsbG8=")), RootError::Certificate(_)));
}
