//! What is fetched by HTTP, and what is not.

use portcullis_core::session::ProxyProtocol;
use whatsapp_rust::http::{HttpClient as _, HttpRequest, HttpResponse};

use super::super::HttpFetch;
use super::open;
use super::peers::{Server, dead_port, http_proxy, proxy};
use whatsapp_rust::anyhow;

/// What comes of a request to a server that answers this.
async fn fetch(answer: impl Into<String>) -> (anyhow::Result<HttpResponse>, String) {
    let server = Server::start().await;
    let url = format!("http://127.0.0.1:{}/sw.js", server.port());
    let mut heads = server.always(answer);
    let request = HttpRequest::get(url).with_header("user-agent", "Mozilla/5.0").with_header("sec-fetch-site", "none");
    let result = HttpFetch::new(open()).execute(request).await;
    (result, heads.recv().await.unwrap())
}

#[tokio::test]
async fn an_answer_is_handed_over_whatever_its_status() {
    let (answer, head) = fetch("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
    let answer = answer.unwrap();
    assert_eq!((answer.status_code, &answer.body[..]), (200, &b"hello"[..]));
    assert!(head.starts_with("GET /sw.js HTTP/1.1\r\n"), "{head}");
    for line in ["user-agent: Mozilla/5.0", "sec-fetch-site: none"] {
        assert_eq!(head.matches(&format!("{line}\r\n")).count(), 1, "{line} in {head}");
    }
    for (status, code) in [("302 Found\r\nlocation: /elsewhere", 302), ("401 No", 401), ("503 Later", 503)] {
        let (answer, _) = fetch(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")).await;
        assert_eq!(answer.unwrap().status_code, code);
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_none() {
    let most = 32 * 1024 * 1024;
    let answer = |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length));
    assert_eq!(fetch(answer(most)).await.0.unwrap().body.len(), most);
    assert!(fetch(answer(most + 1)).await.0.is_err());
}

/// The story: requests went past the proxies of sessions. Where a proxy was the only way out, no version was known and nothing ever
/// connected, and elsewhere WhatsApp saw from where an account's state was fetched.
#[tokio::test]
async fn a_session_fetches_through_its_proxy_and_never_past_it() {
    let server = Server::start().await;
    let port = server.port();
    let mut heads = server.always("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
    let request = || HttpRequest::get(format!("http://127.0.0.1:{port}/sw.js"));
    let (open_proxy, asked) = http_proxy(None).await;
    let (closed_proxy, _) = http_proxy(Some("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")).await;
    let through = |port| proxy(ProxyProtocol::Http, port, None);

    let fetch = HttpFetch::new(open());
    let answer = fetch.through(Some(&through(open_proxy))).execute(request()).await.unwrap();
    assert_eq!(&answer.body[..], b"hello");
    assert!(heads.recv().await.is_some());
    assert!(asked.lock().unwrap().concat().starts_with(&format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n")));

    let mut odd = through(open_proxy);
    odd.host = "127.1".to_owned();
    for proxy in [through(closed_proxy), through(dead_port().await), odd] {
        assert!(fetch.through(Some(&proxy)).execute(request()).await.is_err(), "{proxy:?}");
    }
    assert!(heads.try_recv().is_err(), "nobody came past a proxy");
    assert_eq!(&fetch.through(None).execute(request()).await.unwrap().body[..], b"hello");
}

#[tokio::test]
async fn odd_requests_are_not_sent() {
    let fetch = HttpFetch::new(open());
    let mut put = HttpRequest::get("http://127.0.0.1:9/");
    put.method = "PUT".to_owned();
    let smuggled = HttpRequest::get("http://127.0.0.1:9/").with_header("a\r\nb", "c");
    let longer = HttpRequest::post("http://127.0.0.1:9/").with_header("content-length", "9");
    for request in [put, smuggled, longer] {
        assert!(fetch.execute(request).await.is_err());
    }
}

#[tokio::test]
async fn a_build_that_looks_at_no_certificates_fetches_from_this_machine_only() {
    use portcullis_net::{NetError, Refusal};

    use super::super::fetch::FetchError;
    for url in ["https://8.8.8.8/sw.js", "https://10.0.0.1/", "http://192.0.2.1/", "https://[::ffff:127.0.0.1]/"] {
        let error = HttpFetch::new(open()).execute(HttpRequest::get(url)).await.err().unwrap();
        let error = error.downcast::<FetchError>().unwrap();
        let is_refused = matches!(error, FetchError::Answer(NetError::Refused(Refusal::NotLoopback)));
        assert!(is_refused, "{url}: {error:?}");
    }
}
