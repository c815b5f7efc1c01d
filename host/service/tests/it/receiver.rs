//! A receiver of webhooks: a small HTTP server that answers as a test says, and tells the test what it was told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Nothing in these tests takes so long, in real time; what does will never come.
const HANGS: Duration = Duration::from_secs(60);

/// What a receiver was told.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Method and target.
    pub(crate) line: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

impl Told {
    /// The event's name, and its session's ordinal.
    pub(crate) fn event(&self) -> (String, u64) {
        (self.body["event"].as_str().unwrap_or_default().to_owned(), self.body["seq"].as_u64().unwrap_or_default())
    }

    pub(crate) fn id(&self) -> String {
        self.body["id"].as_str().unwrap_or_default().to_owned()
    }
}

/// How a receiver answers.
pub(crate) type Answer = (u16, &'static str);

type Script = Box<dyn FnMut(&Told) -> Answer + Send>;

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    told: UnboundedReceiver<Told>,
}

impl Receiver {
    /// A receiver that answers everything with success.
    pub(crate) async fn new() -> Self {
        Self::answering(|_| (200, "")).await
    }

    /// A receiver that answers with a status, and headers of which each ends with a line break.
    pub(crate) async fn answering(script: impl FnMut(&Told) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = unbounded_channel();
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&script), tell.clone()));
            }
        });
        Self { address, told }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// What it is told next.
    pub(crate) async fn next(&mut self) -> Told {
        let next = tokio::time::timeout(HANGS, self.told.recv()).await;
        next.expect("nothing is told").expect("the receiver is there")
    }

    /// What it is told next, so many of them.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Told> {
        let mut taken = Vec::new();
        for _ in 0..count {
            taken.push(self.next().await);
        }
        taken
    }

    /// Whether it was told nothing more so far.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.told.is_empty()
    }
}

async fn serve(stream: TcpStream, script: Arc<Mutex<Script>>, tell: UnboundedSender<Told>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
        let told = Told { line, headers, body: serde_json::from_slice(&body).unwrap_or_default() };
        let (status, extra) = (script.lock().unwrap())(&told);
        let answer = format!("HTTP/1.1 {status} -\r\n{extra}content-length: 6\r\n\r\nheard!");
        stream.get_mut().write_all(answer.as_bytes()).await.ok()?;
        tell.send(told).ok()?;
    }
}
