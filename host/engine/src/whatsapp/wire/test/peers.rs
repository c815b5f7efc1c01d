//! The other ends of the tests: servers that speak WebSocket or anything else, and a proxy for each protocol.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use portcullis_core::session::ProxyProtocol;
use portcullis_core::{Proxy, Secret};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

pub(super) type Socket = WebSocketStream<TcpStream>;

/// A server whose connections a test takes up itself.
pub(super) struct Server {
    listener: TcpListener,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(super) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    pub(super) fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/ws/chat", self.port())
    }

    pub(super) async fn accept(&self) -> Socket {
        accept_async(self.listener.accept().await.unwrap().0).await.unwrap()
    }

    /// Answers every connection in this way from now on, and hands out the heads of the requests.
    pub(super) fn always(self, answer: impl Into<String>) -> mpsc::UnboundedReceiver<String> {
        let (tell, told) = mpsc::unbounded_channel();
        let answer = answer.into();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = self.listener.accept().await {
                let Some(head) = head(&mut stream).await else { continue };
                // The client may have gone away, and the test need not be interested.
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = tell.send(head);
            }
        });
        told
    }

    /// Sends back every message that comes, on every connection.
    pub(super) fn echo(self) {
        tokio::spawn(async move {
            while let Ok((stream, _)) = self.listener.accept().await {
                tokio::spawn(async move {
                    let mut socket = accept_async(stream).await.ok()?;
                    while let Some(Ok(message)) = socket.next().await {
                        if message.is_binary() {
                            socket.send(message).await.ok()?;
                        }
                    }
                    Some(())
                });
            }
        });
    }
}

/// A port of this machine on which nobody is.
pub(super) async fn dead_port() -> u16 {
    Server::start().await.port()
}

pub(super) fn binary(bytes: &'static [u8]) -> Message {
    Message::Binary(bytes.into())
}

/// A session's proxy on this machine.
pub(super) fn proxy(protocol: ProxyProtocol, port: u16, credentials: Option<(&str, &str)>) -> Proxy {
    Proxy {
        protocol,
        host: "127.0.0.1".to_owned(),
        port,
        username: credentials.map(|(user, _)| user.to_owned()),
        password: credentials.map(|(_, password)| Secret::new(password)),
    }
}

/// A proxy that connects whoever comes to this machine, and notes by what first bytes it was asked.
/// One with a refusal answers with that instead.
pub(super) async fn http_proxy(refusal: Option<&'static str>) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, asked) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<String>>>::default());
    let noted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let noted = Arc::clone(&noted);
            tokio::spawn(async move {
                let head = head(&mut stream).await?;
                let port = head.split_once(" HTTP/")?.0.rsplit_once(':')?.1.parse().ok()?;
                noted.lock().unwrap().push(head);
                if let Some(refusal) = refusal {
                    return stream.write_all(refusal.as_bytes()).await.ok();
                }
                let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
                    return stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await.ok();
                };
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
                copy_bidirectional(&mut stream, &mut server).await.ok().map(drop)
            });
        }
    });
    (port, asked)
}

/// The same by SOCKS, for whoever has the right user and password.
pub(super) async fn socks_proxy(user: &'static str, password: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut hello = [0; 4];
                stream.read_exact(&mut hello).await.ok()?;
                assert_eq!(hello, [5, 2, 0, 2]);
                stream.write_all(&[5, 2]).await.ok()?;
                let mut said = vec![0; 3 + user.len() + password.len()];
                stream.read_exact(&mut said).await.ok()?;
                let expected =
                    [&[1, user.len() as u8][..], user.as_bytes(), &[password.len() as u8], password.as_bytes()];
                if said != expected.concat() {
                    return stream.write_all(&[1, 1]).await.ok();
                }
                stream.write_all(&[1, 0]).await.ok()?;
                let mut request = [0; 10];
                stream.read_exact(&mut request).await.ok()?;
                assert_eq!(request[..8], [5, 1, 0, 1, 127, 0, 0, 1]);
                let port = u16::from_be_bytes([request[8], request[9]]);
                let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
                stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
                copy_bidirectional(&mut stream, &mut server).await.ok().map(drop)
            });
        }
    });
    port
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}
