//! What the front adds to hyper: a session's info in each dialect over HTTP/1.1 keep-alive, against a bare hyper server that answers the same bytes.
//!
//! Both sides run in this process with the same number of connections and the same client, which only counts bytes.
//! Prints `ratio <dialect>/bare = x.xx` of the throughput for each dialect (the goal is at least 0.7),
//! and the median and the 99th percentile of the time of one answer at 64 connections, for both sides.

#![expect(clippy::print_stdout, reason = "the ratio is what the benchmark is for")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::Criterion;
use http_body_util::Full;
use hyper::Response;
use hyper_util::rt::TokioIo;
use portcullis_core::operation::CreateSession;
use portcullis_core::{Capability, Clock, Operation, OperationKind, OrgId, Principal, Target, Timestamp};
use portcullis_engine::Simulated;
use portcullis_http::{Front, HttpConfig};
use portcullis_policy::{Runtime, RuntimeConfig};
use portcullis_service::{Call, KeyRequest, NewOrg, Service, ServiceConfig, SteppedClock};
use portcullis_store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How many connections ask at once.
const CONNECTIONS: usize = 16;
/// How many connections ask at once where the times of single answers are looked at.
const CROWD: usize = 64;
/// How many requests each connection makes in one turn.
const REQUESTS: usize = 500;
/// How many turns each side takes.
const TURNS: usize = 11;

fn main() {
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (gateway, requests) = tokio.block_on(start_gateway());
    let mut criterion = Criterion::default().configure_from_args().measurement_time(Duration::from_secs(3));
    for (dialect, request) in &requests {
        let answer = tokio.block_on(one_answer(gateway, request));
        let bare = tokio.block_on(start_bare(&answer));
        let bare_answer = tokio.block_on(one_answer(bare, request));
        assert_eq!(answer.len(), bare_answer.len(), "both sides answer as many bytes");
        for (side, address) in [("bare", bare), ("gateway", gateway)] {
            criterion.bench_function(&format!("session-info/{dialect}/{side}"), |bencher| {
                bencher.iter_custom(|iterations| {
                    let each = usize::try_from(iterations).unwrap_or(usize::MAX).div_ceil(CONNECTIONS);
                    let taken = tokio.block_on(turn(address, request, answer.len(), CONNECTIONS, each)).whole;
                    taken.mul_f64(iterations as f64 / (each * CONNECTIONS) as f64)
                });
            });
        }
        compare(&tokio, dialect, [bare, gateway], request, answer.len());
    }
}

/// Both sides in turns, so that a noisy neighbour disturbs them alike.
fn compare(tokio: &tokio::runtime::Runtime, dialect: &str, sides: [SocketAddr; 2], request: &[u8], length: usize) {
    let mut whole = [Vec::new(), Vec::new()];
    let mut answers = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        for (side, address) in sides.into_iter().enumerate() {
            whole[side].push(tokio.block_on(turn(address, request, length, CONNECTIONS, REQUESTS)).whole);
            let crowded = tokio.block_on(turn(address, request, length, CROWD, REQUESTS / 4));
            answers[side].extend(crowded.answers);
        }
    }
    let rate = |times: &[Duration]| (CONNECTIONS * REQUESTS) as f64 / quantile(times, 50).as_secs_f64();
    whole.iter_mut().chain(&mut answers).for_each(|times| times.sort());
    let [bare, gateway] = [rate(&whole[0]), rate(&whole[1])];
    println!("{dialect}: bare {bare:.0}/s, gateway {gateway:.0}/s, {CONNECTIONS} connections");
    println!("ratio {dialect}/bare = {:.2} (goal >= 0.7)", gateway / bare);
    for (side, times) in ["bare", "gateway"].into_iter().zip(&answers) {
        let (half, most) = (quantile(times, 50), quantile(times, 99));
        println!("{dialect}: {side} at {CROWD} connections: p50 {half:?}, p99 {most:?}");
    }
}

/// The time within which so many hundredths of the sorted times lie.
fn quantile(sorted: &[Duration], hundredths: usize) -> Duration {
    sorted[(sorted.len() - 1) * hundredths / 100]
}

/// A gateway with one session, and a request for it in each dialect.
async fn start_gateway() -> (SocketAddr, Vec<(&'static str, Vec<u8>)>) {
    let store = Store::in_memory().expect("a store");
    let runtime = Runtime::new(RuntimeConfig::default()).expect("a policy runtime");
    let engine = Arc::new(Simulated::new(Arc::new(store.clone())));
    let clock: Arc<dyn Clock> = Arc::new(SteppedClock::new(Timestamp::from_millis(1_700_000_000_000)));
    let service = Service::open(store, runtime, engine, clock, &ServiceConfig::default()).expect("a service");
    let operator = Principal::operator();
    let permit = service.permit(&operator, OperationKind::OrgCreate, Target::org(OrgId::PLATFORM), None).await;
    let new = NewOrg { name: "acme".into(), ..NewOrg::default() };
    let org = service.create_org(&permit.expect("a permit"), new, &Call::default()).await.expect("an organisation").id;
    let permit = service.permit(&operator, OperationKind::KeyCreate, Target::org(org), None).await;
    let key = KeyRequest {
        name: "bench".into(),
        capabilities: [Capability::Manage].into_iter().collect(),
        session_scope: None,
        expires_at: None,
    };
    let key = service.create_key(&permit.expect("a permit"), key, &Call::default()).await.expect("a key");
    let permit = service.permit(&operator, OperationKind::SessionCreate, Target::org(org), None).await;
    let create =
        Operation::SessionCreate(CreateSession { display_name: Some("Sales line".into()), ..CreateSession::default() });
    let done = service.execute(&permit.expect("a permit"), create, Call::default()).await.expect("a session");
    let session = done.session.expect("a creation leaves a session");

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let front = Front::new(service, HttpConfig::default(), &[], None);
    tokio::spawn(portcullis_http::serve(front, listener, std::future::pending()));
    let request = |target: String, credential: &str| {
        format!("GET {target} HTTP/1.1\r\nhost: {address}\r\n{credential}: {}\r\naccept: */*\r\n\r\n", key.text)
            .into_bytes()
    };
    let names = &session.names;
    let requests = vec![
        ("router", request(format!("/api/v1/sessions/{}", session.id), "x-api-key")),
        ("wawp", request(format!("/v2/session/info?instance_id={}", names.instance_id), "access-token")),
        ("evolution", request(format!("/instance/connectionState/{}", names.instance_name), "apikey")),
    ];
    (address, requests)
}

/// A hyper server that answers what the gateway answers, head and body, and does nothing else.
async fn start_bare(answer: &[u8]) -> SocketAddr {
    let text = std::str::from_utf8(answer).expect("an answer of text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let headers: Vec<(String, String)> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| !matches!(*name, "content-length" | "date"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let body = Bytes::copy_from_slice(body.as_bytes());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("a socket");
            let (headers, body) = (headers.clone(), body.clone());
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |_request| {
                    let mut response = Response::builder();
                    for (name, value) in &headers {
                        response = response.header(name, value);
                    }
                    let response = response.body(Full::new(body.clone())).expect("a response");
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                let _ = connection.await;
            });
        }
    });
    address
}

/// One whole answer, as it comes.
async fn one_answer(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request).await.expect("a request");
    let mut answer = Vec::new();
    loop {
        stream.read_buf(&mut answer).await.expect("an answer");
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("HTTP/1.1 200"), "{text}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if body.len() == length.parse::<usize>().expect("a number") {
            return answer;
        }
    }
}

/// What one turn took.
struct Taken {
    whole: Duration,
    /// The time of each answer.
    answers: Vec<Duration>,
}

/// How long it takes every connection to ask `each` times.
async fn turn(address: SocketAddr, request: &[u8], length: usize, connections: usize, each: usize) -> Taken {
    let mut streams = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        streams.push(stream);
    }
    let begun = Instant::now();
    let asking: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            let request = request.to_vec();
            tokio::spawn(async move {
                let mut answer = vec![0; length];
                let mut times = Vec::with_capacity(each);
                for _ in 0..each {
                    let asked = Instant::now();
                    stream.write_all(&request).await.expect("a request");
                    stream.read_exact(&mut answer).await.expect("an answer of the known length");
                    times.push(asked.elapsed());
                }
                times
            })
        })
        .collect();
    let mut answers = Vec::with_capacity(connections * each);
    for task in asking {
        answers.extend(task.await.expect("every connection gets its answers"));
    }
    Taken { whole: begun.elapsed(), answers }
}
