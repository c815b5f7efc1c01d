//! Proxies of the tests: honest ones, which connect whoever may to this machine, and ones that say whatever a test says.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A proxy that runs until the runtime of the test ends.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

/// How a proxy behaves.
#[derive(Clone)]
pub(super) enum Manner {
    /// Connects by CONNECT whoever has these credentials, if there are any.
    Connect(Option<(&'static str, &'static str)>),
    /// The same by SOCKS.
    Socks(Option<(&'static str, &'static str)>),
    /// Says one of these for each thing that it is told, and then hangs up.
    Says(Vec<Vec<u8>>),
    /// Says these, and then nothing more.
    Stalls(Vec<Vec<u8>>),
}

impl Proxy {
    pub(super) async fn start(manner: Manner) -> Self {
        Self::start_with(manner, None).await
    }

    /// A proxy that is spoken to over TLS.
    pub(super) async fn secure(manner: Manner, acceptor: TlsAcceptor) -> Self {
        Self::start_with(manner, Some(acceptor)).await
    }

    async fn start_with(manner: Manner, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let asked = Arc::clone(&proxy.asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (manner, asked, tls) = (manner.clone(), Arc::clone(&asked), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &manner, &asked).await,
                        Some(tls) => serve(tls.accept(stream).await.ok()?, &manner, &asked).await,
                    }
                });
            }
        });
        proxy
    }

    /// The servers that it was asked for, as they were named to it.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    manner: &Manner,
    asked: &Mutex<Vec<String>>,
) -> Option<()> {
    match manner {
        Manner::Connect(credentials) => connect(stream, *credentials, asked).await,
        Manner::Socks(credentials) => socks(stream, *credentials, asked).await,
        Manner::Says(words) => say(stream, words).await.map(drop),
        Manner::Stalls(words) => {
            let mut stream = say(stream, words).await?;
            // Until the client hangs up.
            while stream.read_u8().await.is_ok() {}
            None
        }
    }
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, words: &[Vec<u8>]) -> Option<S> {
    for word in words {
        let mut told = [0; 4096];
        if stream.read(&mut told).await.ok()? == 0 {
            return None;
        }
        stream.write_all(word).await.ok()?;
        stream.flush().await.ok()?;
    }
    Some(stream)
}

async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    credentials: Option<(&str, &str)>,
    asked: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.strip_prefix("CONNECT ").unwrap().split_once(" HTTP/1.1\r\n").unwrap().0.to_owned();
    assert!(head.contains(&format!("\r\nhost: {target}\r\n")), "{head}");
    asked.lock().unwrap().push(target.clone());
    if let Some((user, password)) = credentials {
        let basic = STANDARD.encode(format!("{user}:{password}"));
        if !head.contains(&format!("\r\nproxy-authorization: Basic {basic}\r\n")) {
            let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\n\r\n";
            stream.write_all(refusal.as_bytes()).await.ok()?;
            return stream.shutdown().await.ok();
        }
    }
    let port = target.rsplit_once(':').unwrap().1.parse().unwrap();
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
        stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\nhelp").await.ok()?;
        return stream.shutdown().await.ok();
    };
    stream.write_all(b"HTTP/1.0 200 Connection established\r\n\r\n").await.ok()?;
    carry(stream, server).await
}

async fn socks<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    credentials: Option<(&str, &str)>,
    asked: &Mutex<Vec<String>>,
) -> Option<()> {
    assert_eq!(stream.read_u8().await.ok()?, 5);
    let methods = read_short(&mut stream).await?;
    let method = if credentials.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        stream.write_all(&[5, 0xff]).await.ok()?;
        return stream.shutdown().await.ok();
    }
    stream.write_all(&[5, method]).await.ok()?;
    if let Some((user, password)) = credentials {
        assert_eq!(stream.read_u8().await.ok()?, 1);
        let said = (read_short(&mut stream).await?, read_short(&mut stream).await?);
        let is_right = said == (user.as_bytes().to_vec(), password.as_bytes().to_vec());
        stream.write_all(&[1, u8::from(!is_right)]).await.ok()?;
        if !is_right {
            return stream.shutdown().await.ok();
        }
    }
    let mut request = [0; 4];
    stream.read_exact(&mut request).await.ok()?;
    assert_eq!(request[..3], [5, 1, 0]);
    let host = match request[3] {
        1 => Ipv4Addr::from(stream.read_u32().await.ok()?).to_string(),
        3 => String::from_utf8(read_short(&mut stream).await?).unwrap(),
        kind => panic!("an address of the type {kind}"),
    };
    let port = stream.read_u16().await.ok()?;
    asked.lock().unwrap().push(format!("{host}:{port}"));
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(server) => {
            stream.write_all(&reply(0)).await.ok()?;
            carry(stream, server).await
        }
        Err(_) => {
            stream.write_all(&reply(5)).await.ok()?;
            stream.shutdown().await.ok()
        }
    }
}

/// A reply of SOCKS, with an address that nobody cares about.
pub(super) fn reply(code: u8) -> Vec<u8> {
    vec![5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

async fn carry<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, mut server: TcpStream) -> Option<()> {
    stream.flush().await.ok()?;
    copy_bidirectional(&mut stream, &mut server).await.ok().map(drop)
}

/// Bytes behind their number.
async fn read_short<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Vec<u8>> {
    let mut bytes = vec![0; stream.read_u8().await.ok()?.into()];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}
