//! How connections come about, and what is known of those that do not.

use portcullis_core::session::ProxyProtocol;
use portcullis_net::{Outbound, OutboundConfig};
use whatsapp_rust::transport::TransportEvent;

use super::super::{ConnectTrouble, Patience, Wires};
use super::peers::{Server, dead_port, http_proxy, proxy, socks_proxy};
use super::{AMPLE, SHORT, wires};

/// What the last attempt of `wires` came to, when it was tried once.
async fn outcome(wires: &Wires) -> Option<ConnectTrouble> {
    let result = wires.open().await;
    assert_eq!(result.is_err(), wires.trouble().is_some());
    wires.trouble()
}

#[tokio::test]
async fn a_connection_is_asked_for_as_the_web_page_does() {
    let server = Server::start().await;
    let url = server.url();
    let authority = format!("127.0.0.1:{}", server.port());
    let mut heads = server.always("HTTP/1.1 404 Not Found\r\n\r\n");
    assert_eq!(outcome(&wires(&url, None, AMPLE)).await, Some(ConnectTrouble::NotAWebSocket));
    let head = heads.recv().await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /ws/chat http/1.1\r\n"), "{head}");
    for line in [
        &*format!("host: {authority}"),
        "origin: https://web.whatsapp.com",
        "upgrade: websocket",
        "connection: upgrade",
        "sec-websocket-version: 13",
    ] {
        assert_eq!(head.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {head}");
    }
}

#[tokio::test]
async fn a_connection_says_first_that_it_is_there() {
    let server = Server::start().await;
    let wires = wires(&server.url(), None, AMPLE);
    server.echo();
    let (_transport, events) = wires.open().await.unwrap();
    assert!(matches!(events.recv().await, Ok(TransportEvent::Connected)));
}

#[tokio::test]
async fn every_trouble_with_a_server_has_its_word() {
    let silent = Server::start().await;
    let (garbage, page) = (Server::start().await, Server::start().await);
    let wrong = Server::start().await;
    let (garbage_url, page_url, wrong_url) = (garbage.url(), page.url(), wrong.url());
    let _heads = (
        garbage.always("SSH-2.0-OpenSSH_9.6\r\n\r\n"),
        page.always("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"),
        wrong.always("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: x\r\n\r\n"),
    );
    let hasty = Patience { connect: SHORT, ..AMPLE };
    let dead = format!("ws://127.0.0.1:{}/", dead_port().await);
    let plain = Server::start().await;
    let plain_url = plain.url().replace("ws://", "wss://");
    let _plain = plain.always("");
    for (url, patience, trouble) in [
        (&dead, AMPLE, ConnectTrouble::Unreachable),
        (&silent.url(), hasty, ConnectTrouble::Unreachable),
        (&plain_url, hasty, ConnectTrouble::Unreachable),
        (&garbage_url, AMPLE, ConnectTrouble::NotAWebSocket),
        (&page_url, AMPLE, ConnectTrouble::NotAWebSocket),
        (&wrong_url, AMPLE, ConnectTrouble::NotAWebSocket),
    ] {
        assert_eq!(outcome(&wires(url, None, patience)).await, Some(trouble), "{url}");
    }
}

#[tokio::test]
async fn a_session_connects_through_its_proxy() {
    let server = Server::start().await;
    let (url, port) = (server.url(), server.port());
    server.echo();
    let (http, asked) = http_proxy(None).await;
    let through = proxy(ProxyProtocol::Http, http, Some(("ann", "secret")));
    assert_eq!(outcome(&wires(&url, Some(through), AMPLE)).await, None);
    let asked = asked.lock().unwrap().join("");
    assert!(asked.starts_with(&format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n")), "{asked}");
    assert!(asked.contains("\r\nproxy-authorization: Basic YW5uOnNlY3JldA==\r\n"), "{asked}");

    let socks = socks_proxy("ann", "secret").await;
    let through = proxy(ProxyProtocol::Socks5, socks, Some(("ann", "secret")));
    assert_eq!(outcome(&wires(&url, Some(through), AMPLE)).await, None);
}

#[tokio::test]
async fn every_trouble_with_a_proxy_has_its_word() {
    let server = Server::start().await;
    let url = server.url();
    server.echo();
    let nobody = format!("ws://127.0.0.1:{}/", dead_port().await);
    let (closed, _) = http_proxy(Some("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")).await;
    let (broken, _) = http_proxy(Some("hello\r\n\r\n")).await;
    let (open, _) = http_proxy(None).await;
    let socks = socks_proxy("ann", "secret").await;
    let wrong = Some(("ann", "sesame"));
    let hasty = Patience { connect: SHORT, ..AMPLE };
    for (url, proxy, patience, trouble) in [
        (&url, proxy(ProxyProtocol::Http, dead_port().await, None), AMPLE, ConnectTrouble::ProxyUnreachable),
        // It waits for the end of a head, and the client for TLS.
        (&url, proxy(ProxyProtocol::Https, open, None), hasty, ConnectTrouble::ProxyUnreachable),
        (&url, proxy(ProxyProtocol::Http, broken, None), AMPLE, ConnectTrouble::ProxyUnreachable),
        (&url, proxy(ProxyProtocol::Http, closed, wrong), AMPLE, ConnectTrouble::ProxyRefused),
        (&url, proxy(ProxyProtocol::Socks5, socks, wrong), AMPLE, ConnectTrouble::ProxyRefused),
        (&nobody, proxy(ProxyProtocol::Http, open, None), AMPLE, ConnectTrouble::Unreachable),
    ] {
        let wires = wires(url, Some(proxy.clone()), patience);
        assert_eq!(outcome(&wires).await, Some(trouble), "{proxy:?}");
    }
}

#[tokio::test]
async fn a_proxy_where_the_gateway_does_not_go_is_forbidden() {
    let server = Server::start().await;
    let url = server.url();
    let (open, asked) = http_proxy(None).await;
    let guarded = Outbound::new(OutboundConfig::default()).unwrap();
    let mut odd = proxy(ProxyProtocol::Http, open, None);
    odd.host = "127.1".to_owned();
    for proxy in [proxy(ProxyProtocol::Http, open, None), odd] {
        let wires = Wires::new(guarded.clone(), url.parse().unwrap(), Some(proxy));
        assert_eq!(outcome(&wires).await, Some(ConnectTrouble::ProxyForbidden));
    }
    assert!(asked.lock().unwrap().is_empty());
}

/// The other half, that a build without the feature connects to what is configured and looks at certificates, can only be told
/// from such a build.
#[cfg(feature = "loopback-server")]
#[tokio::test]
async fn a_build_that_looks_at_no_certificates_reaches_this_machine_only() {
    let (open, asked) = http_proxy(None).await;
    let at = |host: &str| {
        let mut proxy = proxy(ProxyProtocol::Http, open, None);
        proxy.host = host.to_owned();
        Some(proxy)
    };
    let server = Server::start().await;
    let here = server.url();
    server.echo();
    for (url, proxy) in [
        ("wss://192.0.2.1/ws/chat", None),
        ("wss://10.0.0.1/ws/chat", None),
        ("wss://8.8.8.8/ws/chat", None),
        ("wss://0.0.0.0/ws/chat", None),
        ("wss://[::ffff:127.0.0.1]/ws/chat", None),
        ("wss://[2606:4700::1111]/ws/chat", None),
        // A proxy of this machine is not asked for WhatsApp either, nor any other for this machine.
        ("wss://web.whatsapp.com/ws/chat", at("127.0.0.1")),
        ("wss://8.8.8.8/ws/chat", at("127.0.0.1")),
        (&here, at("192.0.2.1")),
        (&here, at("10.0.0.1")),
        (&here, at("::ffff:127.0.0.1")),
    ] {
        let wires = wires(url, proxy.clone(), AMPLE);
        assert_eq!(outcome(&wires).await, Some(ConnectTrouble::NotLoopback), "{url} by {proxy:?}");
    }
    assert!(asked.lock().unwrap().is_empty());
    assert_eq!(outcome(&wires(&here, at("127.0.0.1"), AMPLE)).await, None);
}

#[tokio::test]
async fn trouble_is_over_when_a_connection_comes_about() {
    let port = dead_port().await;
    let wires = wires(&format!("ws://127.0.0.1:{port}/"), None, AMPLE);
    assert_eq!(wires.trouble(), None);
    assert_eq!(outcome(&wires).await, Some(ConnectTrouble::Unreachable));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let server = async { tokio_tungstenite::accept_async(listener.accept().await.unwrap().0).await };
    let (trouble, _socket) = tokio::join!(outcome(&wires), server);
    assert_eq!(trouble, None);
}

#[tokio::test]
async fn errors_and_what_is_printed_have_no_credentials() {
    let (closed, _) = http_proxy(Some("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")).await;
    let secret = Some(("zoe", "s3cret"));
    let wires = wires("ws://127.0.0.1:9/", Some(proxy(ProxyProtocol::Http, closed, secret)), AMPLE);
    let error = wires.open().await.err().unwrap();
    for text in [format!("{error:?}"), format!("{error:#}"), format!("{wires:?}")] {
        for secret in ["zoe", "s3cret", "em9l"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
