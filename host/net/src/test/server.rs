//! An HTTP server that counts what it is asked, answers what a test says, and can be held back from answering.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// A server that runs until the runtime of the test ends.
pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What a server does once it has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Close,
    /// Waits for the next request on the same connection.
    Next,
    /// Waits until the client hangs up.
    Hang,
}

struct Shared {
    answer: Mutex<(String, After)>,
    accepted: AtomicUsize,
    asked: AtomicUsize,
    last: Mutex<String>,
    /// Has a permit for every request that arrived and was not waited for.
    arrivals: Semaphore,
    /// Has a permit for every connection that ended and was not waited for.
    departures: Semaphore,
    open: watch::Sender<bool>,
}

impl Server {
    /// A server that answers 404 for now.
    pub(super) async fn plain() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// A server for whoever comes here.
    pub(super) fn on(listener: TcpListener) -> Self {
        Self::start(listener, None)
    }

    /// A server that proves to be `name` to whoever believes the certificate, which comes as PEM.
    pub(super) async fn secure(name: &str) -> (Self, String) {
        let (acceptor, pem) = proof(name);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (Self::start(listener, Some(acceptor)), pem)
    }

    fn start(listener: TcpListener, tls: Option<TlsAcceptor>) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            answer: Mutex::new((String::new(), After::Close)),
            accepted: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            last: Mutex::default(),
            arrivals: Semaphore::new(0),
            departures: Semaphore::new(0),
            open: watch::Sender::new(true),
        });
        let server = Self { address, shared: Arc::clone(&shared) };
        server.answer("404 Not Found", "");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    match tls {
                        None => shared.serve(stream).await,
                        // A client that does not believe us hangs up in the handshake.
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => shared.serve(stream).await,
                            Err(_) => None,
                        },
                    };
                    shared.departures.add_permits(1);
                });
            }
        });
        server
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Answers this from now on.
    pub(super) fn answer(&self, status: &str, body: &str) {
        self.answer_and(status, body, After::Close);
    }

    /// Answers this from now on, and does that afterwards.
    pub(super) fn answer_and(&self, status: &str, body: &str, after: After) {
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nlocation: /elsewhere\r\ncontent-length: {length}\r\n\r\n{body}");
        self.answer_raw(answer, after);
    }

    /// Answers these bytes from now on, and does that afterwards.
    pub(super) fn answer_raw(&self, answer: impl Into<String>, after: After) {
        *self.shared.answer.lock().unwrap() = (answer.into(), after);
    }

    /// How many connections there were.
    pub(super) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many requests came.
    pub(super) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// The head of the last request.
    pub(super) fn last(&self) -> String {
        self.shared.last.lock().unwrap().clone()
    }

    /// Keeps every answer back until `release`.
    pub(super) fn hold(&self) {
        self.shared.open.send_replace(false);
    }

    pub(super) fn release(&self) {
        self.shared.open.send_replace(true);
    }

    /// Returns when one more request has come.
    pub(super) async fn arrival(&self) {
        self.shared.arrivals.acquire().await.unwrap().forget();
    }

    /// Returns when one more connection has ended.
    pub(super) async fn departure(&self) {
        self.shared.departures.acquire().await.unwrap().forget();
    }
}

impl Shared {
    /// Answers what comes on one connection, until either side has enough.
    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.ok()?);
            }
            let head = String::from_utf8(head).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            stream.read_exact(&mut body).await.ok()?;
            *self.last.lock().unwrap() = head;
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.arrivals.add_permits(1);
            self.open.subscribe().wait_for(|open| *open).await.unwrap();
            let (answer, after) = self.answer.lock().unwrap().clone();
            // The client may have gone away, which is its right.
            stream.write_all(answer.as_bytes()).await.ok()?;
            stream.flush().await.ok()?;
            match after {
                After::Close => return stream.shutdown().await.ok(),
                After::Next => {}
                After::Hang => return stream.read_u8().await.ok().map(drop),
            }
        }
    }
}

/// What proves to be `name` to whoever believes the certificate, which comes as PEM.
pub(super) fn proof(name: &str) -> (TlsAcceptor, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), pem(cert.der()))
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}
