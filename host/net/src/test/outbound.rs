//! What the way out does with servers that are good, untrusted or not there, and with requests that are not in order.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use tokio::net::{TcpListener, UdpSocket};

use super::server::{After, Server};
use crate::{
    Bytes, Client, GuardConfig, Limits, NetError, Outbound, OutboundConfig, OutboundRequest, Overlong, Response,
    RootError, SetupError, check_header,
};

/// More than enough for a server on the same machine, however busy that is.
const LONG: Duration = Duration::from_secs(60);
pub(super) const AMPLE: Limits =
    Limits { connect: LONG, head: LONG, body_time: LONG, whole: LONG, body: 1000, overlong: Overlong::Refused };
/// Less than a server needs that does not answer at all.
pub(super) const SHORT: Duration = Duration::from_millis(20);

/// A way out that may reach this machine.
pub(super) fn local() -> Outbound {
    Outbound::new(local_config()).unwrap()
}

fn local_config() -> OutboundConfig {
    let allow = ["127.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap()).to_vec();
    OutboundConfig { guard: Some(GuardConfig { allow, ports: Vec::new() }), ..OutboundConfig::default() }
}

/// A way out that may reach this machine and believes these certificates besides.
pub(super) fn believing(pem: &str) -> Result<Outbound, SetupError> {
    Outbound::new(OutboundConfig { extra_roots: Some(pem.as_bytes().to_vec()), ..local_config() })
}

pub(super) fn request(url: &str) -> OutboundRequest {
    OutboundRequest { method: Method::GET, url: url.to_owned(), headers: Vec::new(), body: Bytes::new() }
}

pub(super) async fn get(url: &str, limits: Limits) -> Result<Response, NetError> {
    local().send(request(url), limits).await
}

/// The word for what became of a request.
pub(super) fn code(result: &Result<Response, NetError>) -> &'static str {
    result.as_ref().map_or_else(NetError::code, |_| "ok")
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
    assert_eq!(code(&get(&url, AMPLE).await), "tls_failed");
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn a_certificate_that_leads_to_a_root_of_the_operator_is_believed() {
    let (server, root) = Server::secure("127.0.0.1").await;
    server.answer("200 OK", "hello");
    let outbound = believing(&root).unwrap();
    let url = format!("https://127.0.0.1:{}", server.port());
    assert_eq!(outbound.send(request(&url), AMPLE).await.unwrap().body, "hello");

    let client = Client::new(&url, "wa_key").unwrap();
    assert_eq!(code(&client.send(Method::GET, "/", Vec::new()).await), "tls_failed");
    let client = client.through(outbound);
    assert_eq!(client.send(Method::POST, "/api/v1/orgs", Vec::new()).await.unwrap().body, "hello");
    let head = server.last();
    assert!(head.starts_with("POST /api/v1/orgs HTTP/1.1\r\n") && head.contains("x-api-key: wa_key\r\n"), "{head}");
}

#[tokio::test]
async fn a_certificate_of_another_server_is_refused() {
    let (server, root) = Server::secure("elsewhere.example").await;
    let outbound = believing(&root).unwrap();
    let url = format!("https://127.0.0.1:{}/", server.port());
    assert_eq!(code(&outbound.send(request(&url), AMPLE).await), "tls_failed");
    assert_eq!(server.asked(), 0);
}

#[test]
fn a_root_that_is_none_is_refused() {
    let wrong = |pem: &str| match believing(pem) {
        Err(SetupError::Roots(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(wrong(""), RootError::Empty));
    assert!(matches!(wrong("hello"), RootError::Empty));
    let block = |text| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    assert!(matches!(wrong(&block("???")), RootError::Pem(_)));
    assert!(matches!(wrong(&block("aGVsbG8=")), RootError::Certificate(_)));
}

#[tokio::test]
async fn a_request_goes_out_as_it_is_and_is_printed_without_secrets() {
    let server = Server::plain().await;
    server.answer_raw("HTTP/1.1 429 Slow Down\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n", After::Close);
    let secret = (HeaderName::from_static("x-signature"), HeaderValue::from_static("s3cret"));
    let request = OutboundRequest {
        method: Method::POST,
        headers: vec![secret, (HeaderName::from_static("user-agent"), HeaderValue::from_static("mine"))],
        body: Bytes::from_static(b"{\"b0dy\":1}"),
        ..request(&server.url("/h00k"))
    };
    let printed = format!("{request:?}");
    assert!(printed.contains("x-signature") && printed.contains("127.0.0.1"), "{printed}");
    for secret in ["s3cret", "b0dy", "h00k"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    let response = local().send(request, AMPLE).await.unwrap();
    assert_eq!((response.status.as_u16(), &response.headers["retry-after"]), (429, &HeaderValue::from_static("7")));
    let head = server.last();
    for line in ["POST /h00k HTTP/1.1", "x-signature: s3cret", "user-agent: mine", "content-length: 10"] {
        assert_eq!(head.matches(&format!("{line}\r\n")).count(), 1, "{line} in {head}");
    }
}

/// A connection is shared by everybody who calls the same server. Whoever could say where a request ends could put half
/// another one behind it, and so get the answer of somebody else, or give them his own.
#[tokio::test]
async fn nobody_says_where_a_request_ends() {
    let server = Server::plain().await;
    for name in [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "proxy-connection",
        "http2-settings",
    ] {
        let name = HeaderName::from_static(name);
        assert_eq!(check_header(&name).map_err(|error| error.code()), Err("invalid_header"), "{name}");
        let headers = vec![(name, HeaderValue::from_static("1"))];
        let result = local().send(OutboundRequest { headers, ..request(&server.url("/")) }, AMPLE).await;
        assert_eq!(code(&result), "invalid_header");
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_server_for_names_that_does_not_answer_is_given_up() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let dns: Vec<SocketAddr> = vec![silent.local_addr().unwrap()];
    let outbound = Outbound::new(OutboundConfig { dns, ..OutboundConfig::default() }).unwrap();
    let limits = Limits { connect: SHORT, ..AMPLE };
    assert_eq!(code(&outbound.send(request("http://hooks.example/"), limits).await), "dns_timeout");
}

/// Errors are for whoever named the server. They say what it did, and never where its name led.
#[tokio::test]
async fn what_errors_say_is_nothing_about_the_inside() {
    let result = Outbound::new(OutboundConfig::default()).unwrap().send(request("http://10.1.2.3/x?key"), AMPLE).await;
    assert_eq!(result.unwrap_err().to_string(), "the address is not public");
    let result = Outbound::new(OutboundConfig::default()).unwrap().send(request("http://u:p@10.1.2.3/"), AMPLE).await;
    assert_eq!(result.unwrap_err().to_string(), "the URL must not have credentials");
}
