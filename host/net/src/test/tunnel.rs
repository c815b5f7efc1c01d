//! Streams through proxies that are good, closed, wrong or not there.

use std::error::Error;
use std::time::Duration;

use tokio::net::TcpListener;

use super::outbound::{AMPLE, SHORT, believing, local, request};
use super::proxies::{Manner, Proxy, reply};
use super::server::{Server, proof};
use super::stream::{LONG, ask, dead_port, word};
use crate::{
    Limits, NetError, Outbound, OutboundConfig, ProxyFault, ProxyKind, ProxyServer, Stream, StreamError, StreamServer,
};

const USER: (&str, &str) = ("zoë", "s3cret: pass");
/// A name that nobody but the proxies of the tests can find.
const FAR: &str = "whatsapp.example";

fn proxy(kind: ProxyKind, port: u16) -> ProxyServer {
    ProxyServer::new(kind, "127.0.0.1", port).unwrap()
}

/// What becomes of a stream through a proxy that behaves like this.
async fn through(kind: ProxyKind, manner: Manner, limit: Duration) -> Result<Stream, StreamError> {
    let proxy_server = Proxy::start(manner).await;
    let target = StreamServer::new(FAR, dead_port().await, false).unwrap();
    let by = proxy(kind, proxy_server.address.port()).with_credentials(USER.0, USER.1);
    local().stream(&target, Some(&by), limit).await
}

#[tokio::test]
async fn a_proxy_connects_to_a_server_that_only_it_can_find() {
    let plain = Server::plain().await;
    let (acceptor, proxy_root) = proof("127.0.0.1");
    let (secure, root) = Server::secure(FAR).await;
    let outbound = believing(&format!("{proxy_root}{root}")).unwrap();
    for (server, tls) in [(&plain, false), (&secure, true)] {
        server.answer("200 OK", "hello");
        for credentials in [None, Some(USER)] {
            for kind in [ProxyKind::Http, ProxyKind::Https, ProxyKind::Socks5] {
                let between = match kind {
                    ProxyKind::Http => Proxy::start(Manner::Connect(credentials)).await,
                    ProxyKind::Https => Proxy::secure(Manner::Connect(credentials), acceptor.clone()).await,
                    ProxyKind::Socks5 => Proxy::start(Manner::Socks(credentials)).await,
                };
                let mut by = proxy(kind, between.address.port());
                if let Some((user, password)) = credentials {
                    by = by.with_credentials(user, password);
                }
                let target = StreamServer::new(FAR, server.port(), tls).unwrap();
                let stream = outbound.stream(&target, Some(&by), LONG).await.unwrap();
                assert_eq!(ask(stream).await, "hello", "{by:?}");
                assert_eq!(between.asked(), [format!("{FAR}:{}", server.port())]);
            }
        }
    }
}

#[tokio::test]
async fn a_request_goes_through_a_proxy_and_its_answer_is_bounded_as_any() {
    let (server, root) = Server::secure(FAR).await;
    server.answer("200 OK", "hello");
    let outbound = believing(&root).unwrap();
    let between = Proxy::start(Manner::Connect(Some(USER))).await;
    let stranger = proxy(ProxyKind::Http, between.address.port());
    let by = stranger.clone().with_credentials(USER.0, USER.1);
    let url = format!("https://{FAR}:{}/sw.js", server.port());

    let answer = outbound.send_through(&by, request(&url), AMPLE).await.unwrap();
    assert_eq!(answer.body, "hello");
    let head = server.last();
    assert!(head.starts_with("GET /sw.js HTTP/1.1\r\n"), "{head}");
    assert_eq!(between.asked(), [format!("{FAR}:{}", server.port())]);

    let tight = outbound.send_through(&by, request(&url), Limits { body: 4, ..AMPLE }).await;
    assert!(matches!(tight, Err(StreamError::Unreachable(NetError::TooLarge(_)))), "{tight:?}");
    let refused = outbound.send_through(&stranger, request(&url), AMPLE).await;
    assert!(matches!(refused, Err(StreamError::ProxyRefused(_))), "{refused:?}");
    let odd = outbound.send_through(&by, request("https://x/#y"), AMPLE).await;
    assert!(matches!(odd, Err(StreamError::Unreachable(NetError::Url(_)))), "{odd:?}");
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn a_proxy_that_asks_for_nothing_takes_whoever_has_credentials() {
    let server = Server::plain().await;
    server.answer("200 OK", "hello");
    for (kind, manner) in [(ProxyKind::Http, Manner::Connect(None)), (ProxyKind::Socks5, Manner::Socks(None))] {
        let between = Proxy::start(manner).await;
        let by = proxy(kind, between.address.port()).with_credentials(USER.0, USER.1);
        let target = StreamServer::new("127.0.0.1", server.port(), false).unwrap();
        assert_eq!(ask(local().stream(&target, Some(&by), LONG).await.unwrap()).await, "hello");
    }
}

#[tokio::test]
async fn a_proxy_cannot_pretend_to_be_the_server() {
    let (secure, _) = Server::secure(FAR).await;
    for (kind, manner) in [(ProxyKind::Http, Manner::Connect(None)), (ProxyKind::Socks5, Manner::Socks(None))] {
        let between = Proxy::start(manner).await;
        let target = StreamServer::new(FAR, secure.port(), true).unwrap();
        let result = local().stream(&target, Some(&proxy(kind, between.address.port())), LONG).await;
        assert_eq!(word(&result), "certificate not trusted");
    }
}

#[tokio::test]
async fn a_proxy_is_judged_by_the_guard() {
    let between = Proxy::start(Manner::Connect(None)).await;
    let guarded = Outbound::new(OutboundConfig::default()).unwrap();
    for (host, port) in
        [("127.0.0.1", between.address.port()), ("10.0.0.1", 8080), ("localhost", 8080), ("8.8.8.8", 22)]
    {
        for kind in [ProxyKind::Http, ProxyKind::Https, ProxyKind::Socks5] {
            let by = ProxyServer::new(kind, host, port).unwrap();
            let target = StreamServer::new(FAR, 443, false).unwrap();
            assert_eq!(word(&guarded.stream(&target, Some(&by), LONG).await), "proxy forbidden", "{by:?}");
        }
    }
    assert_eq!(between.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_proxy_that_is_not_there_or_not_believed_cannot_be_reached() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap().port();
    let (acceptor, _) = proof("127.0.0.1");
    let stranger = Proxy::secure(Manner::Connect(None), acceptor).await;
    let target = StreamServer::new(FAR, 443, false).unwrap();
    for (kind, port, limit) in [
        (ProxyKind::Http, dead_port().await, LONG),
        (ProxyKind::Https, dead_port().await, LONG),
        (ProxyKind::Socks5, dead_port().await, LONG),
        (ProxyKind::Http, silent, SHORT),
        (ProxyKind::Https, silent, SHORT),
        (ProxyKind::Socks5, silent, SHORT),
        (ProxyKind::Https, stranger.address.port(), LONG),
    ] {
        let result = local().stream(&target, Some(&proxy(kind, port)), limit).await;
        assert_eq!(word(&result), "proxy unreachable", "{kind:?} on {port}: {result:?}");
    }
    assert_eq!(stranger.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn wrong_credentials_are_told_from_everything_else() {
    for (kind, manner) in [
        (ProxyKind::Http, Manner::Connect(Some((USER.0, "other")))),
        (ProxyKind::Socks5, Manner::Socks(Some((USER.0, "other")))),
    ] {
        assert_eq!(word(&through(kind, manner.clone(), LONG).await), "proxy refused", "{kind:?}");
        let between = Proxy::start(manner).await;
        let target = StreamServer::new(FAR, 443, false).unwrap();
        let result = local().stream(&target, Some(&proxy(kind, between.address.port())), LONG).await;
        assert_eq!(word(&result), "proxy refused", "{kind:?} without credentials");
    }
}

#[tokio::test]
async fn credentials_that_cannot_be_said_are_not_said() {
    let long = "x".repeat(256);
    for (kind, user, password) in [
        (ProxyKind::Http, "a:b", "c"),
        (ProxyKind::Socks5, "", "c"),
        (ProxyKind::Socks5, "a", ""),
        (ProxyKind::Socks5, "a", long.as_str()),
    ] {
        let between = Proxy::start(Manner::Stalls(Vec::new())).await;
        let target = StreamServer::new(FAR, 443, false).unwrap();
        let by = proxy(kind, between.address.port()).with_credentials(user, password);
        let result = local().stream(&target, Some(&by), LONG).await;
        assert!(matches!(result, Err(StreamError::ProxyRefused(ProxyFault::Credentials))), "{result:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_cannot_reach_the_server_says_so() {
    for (kind, manner) in [(ProxyKind::Http, Manner::Connect(None)), (ProxyKind::Socks5, Manner::Socks(None))] {
        assert_eq!(word(&through(kind, manner, LONG).await), "beyond proxy", "{kind:?}");
    }
}

#[tokio::test]
async fn every_answer_to_connect_means_one_thing() {
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(8 * 1024));
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\n\r\n", "ok"),
        ("HTTP/1.0 200 Connection established\r\nproxy-agent: x\r\n\r\n", "ok"),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "ok"),
        ("HTTP/1.1 407 Who Are You\r\ncontent-length: 100000\r\n\r\n", "proxy refused"),
        ("HTTP/1.1 401 Who Are You\r\n\r\n", "proxy refused"),
        ("HTTP/1.1 403 No\r\n\r\n", "proxy refused"),
        ("HTTP/1.1 429 Later\r\n\r\n", "proxy refused"),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "beyond proxy"),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "beyond proxy"),
        ("HTTP/1.1 504 Gateway Timeout\r\n\r\n", "beyond proxy"),
        ("HTTP/1.1 500 Oh\r\n\r\n", "beyond proxy"),
        // A web server, which is no proxy.
        ("HTTP/1.1 301 Elsewhere\r\nlocation: https://x/\r\n\r\n", "proxy unreachable"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "proxy unreachable"),
        ("HTTP/1.1 404 Not Found\r\n\r\n", "proxy unreachable"),
        ("HTTP/1.1 405 Method Not Allowed\r\n\r\n", "proxy unreachable"),
        ("HTTP/1.1 501 Not Implemented\r\n\r\n", "proxy unreachable"),
        // No web server either, or one that breaks off, goes on or does not end.
        ("SSH-2.0-OpenSSH_9.6\r\n", "proxy unreachable"),
        ("\u{5}\u{0}", "proxy unreachable"),
        ("HTTP/1.1 200 O", "proxy unreachable"),
        ("HTTP/1.1 200 OK\r\nx: y\r\n", "proxy unreachable"),
        ("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "proxy unreachable"),
        (&large, "proxy unreachable"),
    ] {
        let says = Manner::Says(vec![answer.as_bytes().to_vec()]);
        let result = through(ProxyKind::Http, says, LONG).await;
        let start = &answer[..answer.len().min(60)];
        assert_eq!(word(&result), expected, "{start:?}: {result:?}");
    }
}

#[tokio::test]
async fn every_reply_of_socks_means_one_thing() {
    let (open, right) = (vec![5, 0], vec![5, 2]);
    let with = |code| vec![vec![5, 0], reply(code)];
    for (replies, expected) in [
        (with(0), "ok"),
        (vec![right.clone(), vec![1, 0], reply(0)], "ok"),
        (vec![open.clone(), vec![5, 0, 0, 3, 2, b'h', b'i', 0, 80]], "ok"),
        (with(1), "beyond proxy"),
        (with(2), "proxy refused"),
        (with(3), "beyond proxy"),
        (with(4), "beyond proxy"),
        (with(5), "beyond proxy"),
        (with(6), "beyond proxy"),
        (with(7), "proxy unreachable"),
        (with(8), "proxy unreachable"),
        (with(99), "proxy unreachable"),
        (vec![vec![5, 0xff]], "proxy refused"),
        (vec![right, vec![1, 1]], "proxy refused"),
        // Another method than was offered, another version, another protocol, and ends too early.
        (vec![vec![5, 1]], "proxy unreachable"),
        (vec![vec![4, 0]], "proxy unreachable"),
        (vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()], "proxy unreachable"),
        (vec![open.clone(), vec![4, 0, 0, 1, 0, 0, 0, 0, 0, 0]], "proxy unreachable"),
        (vec![open.clone(), vec![5, 0, 0, 9, 0, 0, 0, 0, 0, 0]], "proxy unreachable"),
        (vec![vec![5]], "proxy unreachable"),
        (vec![open, vec![5, 0, 0, 1, 0]], "proxy unreachable"),
    ] {
        let result = through(ProxyKind::Socks5, Manner::Says(replies.clone()), LONG).await;
        assert_eq!(word(&result), expected, "{replies:?}: {result:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_stops_answering_is_given_up() {
    for (kind, words) in [
        (ProxyKind::Http, vec![]),
        (ProxyKind::Http, vec![b"HTTP/1.1 200 OK\r\nx".to_vec()]),
        (ProxyKind::Http, vec![b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()]),
        (ProxyKind::Socks5, vec![]),
        (ProxyKind::Socks5, vec![vec![5, 2]]),
        (ProxyKind::Socks5, vec![vec![5, 0], vec![5, 0, 0]]),
    ] {
        let result = through(kind, Manner::Stalls(words.clone()), SHORT).await;
        assert_eq!(word(&result), "proxy unreachable", "{kind:?} after {words:?}");
    }
}

#[tokio::test]
async fn credentials_are_in_no_error_and_in_nothing_that_is_printed() {
    let by = proxy(ProxyKind::Http, 1).with_credentials(USER.0, USER.1);
    let mut printed = vec![format!("{by:?}")];
    for (kind, manner) in [
        (ProxyKind::Http, Manner::Connect(Some(("x", "y")))),
        (ProxyKind::Http, Manner::Says(vec![b"?".to_vec()])),
        (ProxyKind::Socks5, Manner::Socks(Some(("x", "y")))),
        (ProxyKind::Socks5, Manner::Says(vec![vec![5]])),
    ] {
        let error = through(kind, manner, LONG).await.unwrap_err();
        printed.push(format!("{error:?}"));
        let mut next: Option<&dyn Error> = Some(&error);
        while let Some(error) = next {
            printed.push(error.to_string());
            next = error.source();
        }
    }
    for text in printed {
        for secret in ["zoë", "s3cret", "em/Dqzo"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
