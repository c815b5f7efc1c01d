//! Connections and answers: what is kept, what is cut, what is given up, and what is no answer.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::outbound::{AMPLE, SHORT, code, get, local, request};
use super::server::{After, Server};
use crate::{Bytes, Limits, Method, Outbound, OutboundRequest, Overlong};

/// Sends one request and checks how many connections and requests its server has seen by then.
async fn check(outbound: &Outbound, server: &Server, method: Method, expected: &str, accepted: usize, asked: usize) {
    let request = OutboundRequest { method, body: Bytes::from_static(b"hello"), ..request(&server.url("/")) };
    let found = code(&outbound.send(request, AMPLE).await);
    assert_eq!((found, server.accepted(), server.asked()), (expected, accepted, asked));
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let (server, outbound) = (Server::plain().await, local());
    server.answer_and("200 OK", "hello", After::Next);
    for asked in 1..=20 {
        check(&outbound, &server, Method::POST, "ok", 1, asked).await;
    }
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    server.answer_raw(chunked, After::Next);
    check(&outbound, &server, Method::POST, "ok", 1, 21).await;
    server.answer_raw("HTTP/1.1 204 No Content\r\n\r\n", After::Next);
    check(&outbound, &server, Method::POST, "ok", 1, 22).await;
    check(&outbound, &server, Method::POST, "ok", 1, 23).await;
}

#[tokio::test]
async fn many_requests_at_once_take_as_many_connections_and_keep_them() {
    let (server, outbound) = (Server::plain().await, local());
    server.answer_and("200 OK", "", After::Next);
    for _ in 0..3 {
        server.hold();
        let calls: Vec<_> = (0..10)
            .map(|_| {
                let (outbound, request) = (outbound.clone(), request(&server.url("/")));
                tokio::spawn(async move { code(&outbound.send(request, AMPLE).await) })
            })
            .collect();
        for _ in 0..10 {
            server.arrival().await;
        }
        server.release();
        for call in calls {
            assert_eq!(call.await.unwrap(), "ok");
        }
    }
    assert_eq!((server.accepted(), server.asked()), (10, 30));
}

#[tokio::test]
async fn a_connection_that_its_server_ends_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\n\r\nhello",
    ] {
        let (server, outbound) = (Server::plain().await, local());
        // The first leaves closing to the client; the others end with the connection.
        let after = if answer.contains("length") { After::Hang } else { After::Close };
        server.answer_raw(answer, after);
        check(&outbound, &server, Method::POST, "ok", 1, 1).await;
        server.departure().await;
        check(&outbound, &server, Method::POST, "ok", 2, 2).await;
    }
}

/// The server closes while the next request is on its way, which no client can know.
#[tokio::test]
async fn a_request_that_may_come_twice_outlives_the_end_of_a_kept_connection() {
    for (method, second) in [(Method::GET, "ok"), (Method::PUT, "ok"), (Method::POST, "connection_broken")] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            let (mut kept, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1000];
            assert!(kept.read(&mut buffer).await.unwrap() > 0);
            kept.write_all(answer).await.unwrap();
            assert!(kept.read(&mut buffer).await.unwrap() > 0);
            drop(kept);
            let (mut another, _) = listener.accept().await.unwrap();
            assert!(another.read(&mut buffer).await.unwrap() > 0);
            another.write_all(answer).await.unwrap();
        });
        let outbound = local();
        let send = || outbound.send(OutboundRequest { method: method.clone(), ..request(&url) }, AMPLE);
        assert_eq!(code(&send().await), "ok");
        assert_eq!(code(&send().await), second, "{method}");
        if second == "ok" {
            server.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_body_is_read_up_to_the_limit() {
    let server = Server::plain().await;
    let chunked = |size: usize| {
        let body = "x".repeat(size);
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n")
    };
    let counted = |size: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n{}", "x".repeat(size));
    let endless = |size: usize| format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(size));
    let cut = Limits { overlong: Overlong::Cut, ..AMPLE };
    for (size, result, is_cut) in [(999, "ok", false), (1000, "ok", false), (1001, "answer_too_large", true)] {
        for answer in [chunked(size), counted(size), endless(size)] {
            server.answer_raw(answer, After::Close);
            assert_eq!(code(&get(&server.url("/"), AMPLE).await), result, "{size} bytes");
            let response = get(&server.url("/"), cut).await.unwrap();
            assert_eq!((response.body.len(), response.truncated), (size.min(1000), is_cut), "{size} bytes");
        }
    }
}

#[tokio::test]
async fn a_connection_whose_answer_was_cut_is_closed_and_not_read_to_the_end() {
    let (server, outbound) = (Server::plain().await, local());
    // There is more to come than is ever sent.
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{}", "x".repeat(1001));
    server.answer_raw(answer, After::Hang);
    let cut = Limits { overlong: Overlong::Cut, ..AMPLE };
    for accepted in 1..=3 {
        let response = outbound.send(request(&server.url("/")), cut).await.unwrap();
        assert_eq!((response.body.len(), response.truncated, server.accepted()), (1000, true, accepted));
        server.departure().await;
    }
    let nothing = Limits { body: 0, ..cut };
    let response = outbound.send(request(&server.url("/")), nothing).await.unwrap();
    assert_eq!((response.body.len(), response.truncated), (0, true));
}

#[tokio::test]
async fn what_is_no_answer_is_told_apart() {
    let long = "x".repeat(100 * 1024);
    let many: String = (0..200).map(|index| format!("x-{index}: y\r\n")).collect();
    let cases = [
        ("", "connection_broken"),
        ("HTTP/1.1 200", "connection_broken"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "connection_broken"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n", "connection_broken"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel", "connection_broken"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n", "connection_broken"),
        ("no http at all\r\n\r\n", "malformed_answer"),
        ("HTTP/1.1 two OK\r\n\r\n", "malformed_answer"),
        ("HTTP/1.1 200 OK\r\nno header\r\n\r\n", "malformed_answer"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nhello", "malformed_answer"),
        ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "malformed_answer"),
        ("HTTP/2.0 200 OK\r\n\r\n", "malformed_answer"),
        ("SSH-2.0-OpenSSH_9.9\r\n", "malformed_answer"),
        (&format!("HTTP/1.1 200 OK\r\nx: {long}\r\n\r\n"), "answer_too_large"),
        (&format!("HTTP/1.1 200 OK\r\n{many}\r\n"), "answer_too_large"),
        (
            "HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "ok",
        ),
        ("HTTP/1.0 200 OK\r\n\r\nhello", "ok"),
        ("HTTP/1.1 599 \r\ncontent-length: 0\r\n\r\n", "ok"),
    ];
    let server = Server::plain().await;
    for (answer, expected) in cases {
        server.answer_raw(answer, After::Close);
        let start = &answer[..answer.len().min(100)];
        assert_eq!(code(&get(&server.url("/"), AMPLE).await), expected, "{start:?}");
    }
}

#[tokio::test]
async fn a_connection_that_is_reset_is_broken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // Closing before everything was read is a reset.
        stream.readable().await.unwrap();
    });
    assert_eq!(code(&get(&url, AMPLE).await), "connection_broken");
}

#[tokio::test]
async fn every_wait_has_its_end() {
    let server = Server::plain().await;
    let url = server.url("/");
    let head = Limits { head: SHORT, ..AMPLE };
    let body = Limits { body_time: SHORT, ..AMPLE };
    // Long enough for a busy machine to get as far as the server does.
    let whole = Limits { whole: Duration::from_secs(1), ..AMPLE };
    for (answer, limits, expected) in [
        ("", head, "head_timeout"),
        ("", whole, "head_timeout"),
        ("HTTP/1.1 200 OK\r\n", head, "head_timeout"),
        ("HTTP/1.1 100 Continue\r\n\r\n", head, "head_timeout"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", body, "body_timeout"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", whole, "body_timeout"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1", body, "body_timeout"),
    ] {
        server.answer_raw(answer, After::Hang);
        assert_eq!(code(&get(&url, limits).await), expected, "{answer:?}");
        // Whoever is given up is hung up on.
        server.departure().await;
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_given_up_as_one_that_does_not_connect() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", silent.local_addr().unwrap());
    for limits in [Limits { connect: SHORT, ..AMPLE }, Limits { whole: SHORT, ..AMPLE }] {
        assert_eq!(code(&get(&url, limits).await), "connect_timeout");
    }
}

#[tokio::test]
async fn a_caller_who_goes_away_takes_the_connection_along() {
    let (server, outbound) = (Server::plain().await, local());
    server.answer_raw("", After::Hang);
    let call = tokio::spawn({
        let request = request(&server.url("/"));
        async move { code(&outbound.send(request, AMPLE).await) }
    });
    server.arrival().await;
    call.abort();
    server.departure().await;
}

/// The server has said all it has to say, and leaves most of the request unread for ever.
#[tokio::test]
async fn a_connection_whose_request_was_not_read_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream
    });
    let body = Bytes::from(vec![b'x'; 32 * 1024 * 1024]);
    let large = OutboundRequest { method: Method::POST, body, ..request(&url) };
    let outbound = local();
    assert_eq!(outbound.send(large, AMPLE).await.unwrap().status, 413);
    // What was on its way is there, and then the end: the rest is never sent.
    let (mut stream, mut received) = (server.await.unwrap(), Vec::new());
    let _ = stream.read_to_end(&mut received).await;
    assert!(received.len() < 32 * 1024 * 1024, "all of it was sent");
}
