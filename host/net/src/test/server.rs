//! An HTTP server that counts what it is asked, answers what a test says, and can be held back from answering.

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
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    answer: Mutex<String>,
    asked: AtomicUsize,
    last: Mutex<String>,
    /// Has a permit for every request that arrived and was not waited for.
    arrivals: Semaphore,
    open: watch::Sender<bool>,
}

impl Server {
    /// A server that answers 404 for now.
    pub(super) async fn plain() -> Self {
        Self::start(None).await
    }

    /// A server that proves to be `name` to whoever believes the certificate, which comes as PEM.
    pub(super) async fn secure(name: &str) -> (Self, String) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        (Self::start(Some(TlsAcceptor::from(Arc::new(config)))).await, pem(cert.der()))
    }

    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            answer: Mutex::default(),
            asked: AtomicUsize::new(0),
            last: Mutex::default(),
            arrivals: Semaphore::new(0),
            open: watch::Sender::new(true),
        });
        let server = Self { port, shared: Arc::clone(&shared) };
        server.answer("404 Not Found", "");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    let Some(tls) = tls else { return shared.serve(stream).await };
                    // A client that does not believe us hangs up in the handshake.
                    if let Ok(stream) = tls.accept(stream).await {
                        shared.serve(stream).await;
                    }
                });
            }
        });
        server
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Answers this from now on.
    pub(super) fn answer(&self, status: &str, body: &str) {
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nlocation: /elsewhere\r\ncontent-length: {length}\r\n\r\n{body}");
        self.answer_raw(answer);
    }

    /// Answers these bytes from now on.
    pub(super) fn answer_raw(&self, answer: String) {
        *self.shared.answer.lock().unwrap() = answer;
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
}

impl Shared {
    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        *self.last.lock().unwrap() = String::from_utf8(head).unwrap();
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.arrivals.add_permits(1);
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        let answer = self.answer.lock().unwrap().clone();
        // The client may have gone away, which is its right.
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}
