//! Streams to a server that the operator names, directly, and a way out that leads to this machine only.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::names::Names;
use super::outbound::{AMPLE, SHORT, believing, code, local, request};
use super::proxies::{Manner, Proxy};
use super::server::Server;
use crate::{
    GuardConfig, NetError, Outbound, OutboundConfig, ProxyKind, ProxyServer, Stream, StreamError, StreamServer,
};

pub(super) const LONG: Duration = Duration::from_secs(60);

/// The word for what became of a stream.
pub(super) fn word(result: &Result<Stream, StreamError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(StreamError::Unreachable(_)) => "unreachable",
        Err(StreamError::CertificateNotTrusted(_)) => "certificate not trusted",
        Err(StreamError::ProxyUnreachable(_)) => "proxy unreachable",
        Err(StreamError::ProxyForbidden(_)) => "proxy forbidden",
        Err(StreamError::ProxyRefused(_)) => "proxy refused",
        Err(StreamError::BeyondProxy(_)) => "beyond proxy",
        Err(StreamError::NotLoopback) => "not loopback",
    }
}

/// What `stream` carries: a request, and the body of its answer.
pub(super) async fn ask(mut stream: Stream) -> String {
    stream.write_all(b"GET /a HTTP/1.1\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// A port of this machine on which nobody is.
pub(super) async fn dead_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

fn server(host: &str, port: u16) -> StreamServer {
    StreamServer::new(host, port, false).unwrap()
}

/// A way out that asks `names`, with a guard that lets everything through.
fn open(names: &Names) -> Outbound {
    let allow = ["0.0.0.0/0", "::/0"].map(|network| network.parse().unwrap()).to_vec();
    let guard = Some(GuardConfig { allow, ports: Vec::new() });
    Outbound::new(OutboundConfig { guard, dns: vec![names.address], extra_roots: None }).unwrap()
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways() {
    let plain = Server::plain().await;
    plain.answer("200 OK", "hello");
    // The operator's own server is no matter of the guard's, which by default refuses this machine.
    let outbound = Outbound::new(OutboundConfig::default()).unwrap();
    let stream = outbound.stream(&server("127.0.0.1", plain.port()), None, LONG).await.unwrap();
    assert_eq!(ask(stream).await, "hello");

    let (secure, root) = Server::secure("127.0.0.1").await;
    secure.answer("200 OK", "hello over TLS");
    let target = StreamServer::new("127.0.0.1", secure.port(), true).unwrap();
    let stream = believing(&root).unwrap().stream(&target, None, LONG).await.unwrap();
    assert_eq!(ask(stream).await, "hello over TLS");
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_closed() {
    let server = Server::plain().await;
    let target = StreamServer::new("127.0.0.1", server.port(), false).unwrap();
    drop(local().stream(&target, None, LONG).await.unwrap());
    server.departure().await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_told_from_one_that_is_not_believed() {
    let plain = Server::plain().await;
    let (secure, _) = Server::secure("127.0.0.1").await;
    let (other, root) = Server::secure("elsewhere.example").await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let names = Names::start().await;
    let (strict, lenient, asking) = (local(), believing(&root).unwrap(), open(&names));
    for (outbound, host, port, tls, limit, expected) in [
        (&strict, "127.0.0.1", dead_port().await, false, LONG, "unreachable"),
        (&strict, "127.0.0.1", dead_port().await, true, LONG, "unreachable"),
        (&asking, "nowhere.example", 443, true, LONG, "unreachable"),
        // It takes connections and says nothing, or speaks no TLS.
        (&strict, "127.0.0.1", silent_port, true, SHORT, "unreachable"),
        (&strict, "127.0.0.1", plain.port(), true, SHORT, "unreachable"),
        (&strict, "127.0.0.1", secure.port(), true, LONG, "certificate not trusted"),
        (&lenient, "127.0.0.1", other.port(), true, LONG, "certificate not trusted"),
    ] {
        let target = StreamServer::new(host, port, tls).unwrap();
        let result = outbound.stream(&target, None, limit).await;
        assert_eq!(word(&result), expected, "{host}:{port}: {result:?}");
    }
}

#[test]
fn the_url_of_a_web_socket_names_a_server_and_a_path() {
    for (url, authority, path, is_secure) in [
        ("wss://web.whatsapp.com/ws/chat", "web.whatsapp.com", "/ws/chat", true),
        ("WS://127.0.0.1:80/?x", "127.0.0.1", "/?x", false),
        ("wss://[::1]:80", "[::1]:80", "/", true),
    ] {
        let (server, target) = StreamServer::of_web_socket(url).unwrap();
        assert_eq!(
            (server.authority(), target, server.is_secure()),
            (authority.to_owned(), path.to_owned(), is_secure)
        );
    }
    for url in ["https://x/", "http://x/", "x", "wss:x", "wss://https://x/", "wss://u@x/"] {
        assert!(matches!(StreamServer::of_web_socket(url), Err(NetError::Url(_))), "{url} was taken");
    }
}

#[tokio::test]
async fn a_way_out_to_this_machine_leads_nowhere_else() {
    let here = Server::plain().await;
    here.answer("200 OK", "here");
    let names = Names::start().await;
    names.set("documentation.example", &[&["192.0.2.1"]]);
    names.set("private.example", &[&["10.0.0.1"]]);
    names.set("public.example", &[&["8.8.8.8", "2606:4700::1111"]]);
    names.set("mapped.example", &[&["::ffff:127.0.0.1"]]);
    names.set("any.example", &[&["0.0.0.0"]]);
    names.set("here.example", &[&["127.0.0.1"]]);
    names.set("mixed.example", &[&["10.0.0.1", "127.0.0.1", "8.8.8.8"]]);
    let outbound = open(&names).only_loopback();
    for (host, expected) in [
        ("127.0.0.1", "ok"),
        ("here.example", "ok"),
        // A name that leads to both is followed to this machine only.
        ("mixed.example", "ok"),
        ("192.0.2.1", "not loopback"),
        ("10.0.0.1", "not loopback"),
        ("8.8.8.8", "not loopback"),
        ("0.0.0.0", "not loopback"),
        ("::", "not loopback"),
        ("::ffff:127.0.0.1", "not loopback"),
        ("2606:4700::1111", "not loopback"),
        ("documentation.example", "not loopback"),
        ("private.example", "not loopback"),
        ("public.example", "not loopback"),
        ("mapped.example", "not loopback"),
        ("any.example", "not loopback"),
    ] {
        let result = outbound.stream(&server(host, here.port()), None, LONG).await;
        assert_eq!(word(&result), expected, "{host}: {result:?}");
        // The same holds for a proxy at that place.
        let proxy = ProxyServer::new(ProxyKind::Http, host, here.port()).unwrap();
        let result = outbound.stream(&server("127.0.0.1", 1), Some(&proxy), LONG).await;
        // Whoever is here is no proxy.
        let expected = if expected == "ok" { "proxy unreachable" } else { expected };
        assert_eq!(word(&result), expected, "{host} as a proxy: {result:?}");
        let url = format!("http://{}/", server(host, here.port()).authority());
        let expected = if expected == "proxy unreachable" { "ok" } else { "refused_not_loopback" };
        assert_eq!(code(&outbound.send(request(&url), AMPLE).await), expected, "{url}");
    }
}

#[tokio::test]
async fn the_addresses_of_loopback_are_all_of_this_machine() {
    let outbound = local().only_loopback();
    for host in ["127.0.0.1", "127.0.0.9", "127.255.255.254", "::1"] {
        // A machine without IPv6 has one of them less.
        let Ok(listener) = TcpListener::bind((host, 0)).await else { continue };
        let target = server(host, listener.local_addr().unwrap().port());
        assert_eq!(word(&outbound.stream(&target, None, LONG).await), "ok", "{host}");
    }
}

/// A name is looked up once for a connection, so that it cannot lead somewhere else after it was judged.
#[tokio::test]
async fn a_name_that_moves_away_is_not_followed() {
    let here = Server::plain().await;
    let names = Names::start().await;
    names.set("moving.example", &[&["127.0.0.1"], &["10.0.0.1"]]);
    let outbound = open(&names).only_loopback();
    let target = server("moving.example", here.port());
    assert_eq!(word(&outbound.stream(&target, None, LONG).await), "ok");
    assert_eq!(names.asked("moving.example"), 1);
    assert_eq!(word(&outbound.stream(&target, None, LONG).await), "not loopback");
}

#[tokio::test]
async fn a_proxy_of_this_machine_is_not_asked_for_other_machines() {
    let here = Server::plain().await;
    here.answer("200 OK", "here");
    let outbound = local().only_loopback();
    for (kind, manner) in [(ProxyKind::Http, Manner::Connect(None)), (ProxyKind::Socks5, Manner::Socks(None))] {
        let proxy = Proxy::start(manner).await;
        let through = ProxyServer::new(kind, "127.0.0.1", proxy.address.port()).unwrap();
        for host in ["web.whatsapp.com", "10.0.0.1", "8.8.8.8", "::ffff:127.0.0.1", "localhost.example"] {
            let result = outbound.stream(&server(host, here.port()), Some(&through), LONG).await;
            assert_eq!(word(&result), "not loopback", "{host}");
        }
        assert_eq!(proxy.asked(), Vec::<String>::new());
        for host in ["127.0.0.1", "localhost"] {
            let stream = outbound.stream(&server(host, here.port()), Some(&through), LONG).await.unwrap();
            assert_eq!(ask(stream).await, "here");
        }
        assert_eq!(proxy.asked(), ["127.0.0.1", "localhost"].map(|host| format!("{host}:{}", here.port())));
    }
}
