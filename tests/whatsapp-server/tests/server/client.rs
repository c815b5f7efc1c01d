//! A real client over a plain WebSocket, with its events as something to wait for.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use portcullis_whatsapp_server::Server;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use whatsapp_rust::anyhow::{self, bail};
use whatsapp_rust::async_channel::{self, Receiver};
use whatsapp_rust::bot::{Bot, BotHandle};
use whatsapp_rust::http::{HttpClient, HttpRequest, HttpResponse};
use whatsapp_rust::transport::{DisconnectReason, Transport, TransportEvent, TransportFactory};
use whatsapp_rust::types::events::{Event, EventHandler};
use whatsapp_rust::wacore::store::InMemoryBackend;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::{Jid, TokioRuntime};

/// Far longer than anything takes, so that a test which fails ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client that runs.
pub(crate) struct Client {
    pub(crate) inner: Arc<whatsapp_rust::Client>,
    handle: BotHandle,
    events: Receiver<Arc<Event>>,
}

/// Waits for something that has to come.
pub(crate) async fn soon<T>(what: &str, coming: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, coming).await {
        Ok(came) => came,
        Err(_) => panic!("{what} did not come"),
    }
}

/// A server as it comes.
pub(crate) async fn server() -> Server {
    Server::start(portcullis_whatsapp_server::ServerConfig::default()).await.expect("a free port")
}

/// What a client keeps over its restarts.
pub(crate) fn store() -> Arc<InMemoryBackend> {
    Arc::new(InMemoryBackend::new())
}

/// A client with a device of its own, linked by a scan, and connected.
pub(crate) async fn linked(server: &Server, number: u64) -> (Client, Arc<InMemoryBackend>, u16) {
    let store = store();
    let client = Client::start(server, &store).await;
    let device = client.scanned_by(server, number).await;
    (client, store, device)
}

impl Client {
    pub(crate) async fn start(server: &Server, store: &Arc<InMemoryBackend>) -> Self {
        let (sender, events) = async_channel::unbounded();
        let bot = Bot::builder()
            .with_backend_arc(store.clone())
            .with_transport_factory(Loopback(server.url()))
            .with_http_client(NoWeb)
            .with_runtime(TokioRuntime)
            .with_version((2, 3000, 1_026_131_876))
            .with_wanted_pre_key_count(20)
            .skip_history_sync()
            .with_event_handler(Forward(sender))
            .build();
        let bot = Box::pin(bot).await.expect("everything is given");
        let inner = bot.client();
        Self { inner, handle: bot.spawn(), events }
    }

    /// The first event from here on that says something.
    pub(crate) async fn event<T>(&self, what: &str, says: impl Fn(&Event) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the client is there");
                if let Some(said) = says(&event) {
                    return said;
                }
            }
        };
        soon(what, found).await
    }

    pub(crate) async fn qr(&self) -> String {
        self.event("a QR code", |event| match event {
            Event::PairingQrCode(qr) => Some(qr.code.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn connected(&self) {
        self.event("the connection", |event| matches!(event, Event::Connected(_)).then_some(())).await;
    }

    pub(crate) async fn logged_out(&self) {
        self.event("the logout", |event| matches!(event, Event::LoggedOut(_)).then_some(())).await;
    }

    /// Links this client to the phone of a number, and waits until it is at work.
    pub(crate) async fn scanned_by(&self, server: &Server, number: u64) -> u16 {
        let device = server.scan(number, &self.qr().await).expect("the code of a device that waits");
        self.connected().await;
        soon("the device at work", server.wait_until(|state| settled(state, number, device))).await;
        device
    }

    /// The next text that comes.
    pub(crate) async fn text(&self) -> String {
        self.event("a text", |event| match event {
            Event::Messages(batch) => batch.iter().find_map(|each| each.message.conversation.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn send(&self, to: u64, text: &str) -> String {
        let message = wa::Message { conversation: Some(text.to_owned()), ..Default::default() };
        Box::pin(self.inner.send_message(Jid::pn(to.to_string()), message)).await.expect("the client sends").message_id
    }

    /// Ends as a process does that has time for it.
    pub(crate) async fn stop(self) {
        soon("the end", self.handle.shutdown()).await;
    }

    /// Waits until the client has ended by itself.
    pub(crate) async fn ended(self) {
        soon("the end", self.handle).await;
    }
}

fn settled(state: &portcullis_whatsapp_server::State, number: u64, device: u16) -> bool {
    state.device(number, device).is_some_and(|device| device.active && device.uploads > 0 && device.mail == 0)
}

struct Forward(async_channel::Sender<Arc<Event>>);

impl EventHandler for Forward {
    fn handle_event(&self, event: Arc<Event>) {
        // A test that has seen enough listens no more.
        let _ = self.0.try_send(event);
    }
}

struct NoWeb;

#[async_trait]
impl HttpClient for NoWeb {
    async fn execute(&self, request: HttpRequest) -> anyhow::Result<HttpResponse> {
        bail!("there is no web here, and {} was asked for", request.url)
    }
}

struct Loopback(String);

struct Sink(Mutex<SplitSink<WebSocketStream<TcpStream>, Message>>);

#[async_trait]
impl Transport for Sink {
    async fn send(&self, data: Bytes) -> anyhow::Result<()> {
        Ok(self.0.lock().await.send(Message::Binary(data)).await?)
    }

    async fn disconnect(&self) {
        // It may be gone already.
        let _ = self.0.lock().await.close().await;
    }
}

#[async_trait]
impl TransportFactory for Loopback {
    async fn create_transport(&self) -> anyhow::Result<(Arc<dyn Transport>, Receiver<TransportEvent>)> {
        let address = self.0.trim_start_matches("ws://").trim_end_matches("/ws/chat");
        let stream = TcpStream::connect(address).await?;
        let (socket, _) = tokio_tungstenite::client_async(&self.0, stream).await?;
        let (sink, mut stream) = socket.split();
        let (sender, events) = async_channel::unbounded();
        tokio::spawn(async move {
            let _ = sender.send(TransportEvent::Connected).await;
            let reason = loop {
                match stream.next().await {
                    Some(Ok(Message::Binary(data))) => {
                        let _ = sender.send(TransportEvent::DataReceived(data)).await;
                    }
                    Some(Ok(Message::Close(_))) => {
                        break DisconnectReason::ServerClose { code: None, reason: String::new() };
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break DisconnectReason::ReadError(error.to_string()),
                    None => break DisconnectReason::StreamEnded,
                }
            };
            let _ = sender.send(TransportEvent::Disconnected(reason)).await;
        });
        Ok((Arc::new(Sink(Mutex::new(sink))), events))
    }
}
