//! The server: connections, their bounds, and a drain that loses nothing. What becomes of a request is in [`crate::handle`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::{Front, handle};

/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 32 * 1024;

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listening socket failed for good.
    #[error("accepting connections failed")]
    Accept(#[source] std::io::Error),
}

/// Serves until `shutdown` completes; then takes no more connections and lets the requests under way end.
///
/// # Errors
/// If the listening socket fails for good.
pub async fn serve(
    front: Arc<Front>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    if let Ok(address) = listener.local_addr() {
        front.public_url.get_or_init(|| format!("http://{address}"));
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(front.config.head_timeout)
        .max_buf_size(MAX_HEAD)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(32 * 1024)
        .max_concurrent_streams(128)
        .keep_alive_interval(Duration::from_secs(30));
    let builder = Arc::new(builder);
    let head_timeout = front.config.head_timeout;
    let unread_timeout = u32::try_from(front.config.unread_timeout.as_millis()).unwrap_or(u32::MAX);
    let graceful = GracefulShutdown::new();
    // Dropping the sender is what tells the silent connections.
    let (ending, ended) = watch::channel(());
    let places = Arc::new(Semaphore::new(front.config.connections));
    tokio::pin!(shutdown);
    loop {
        let place = tokio::select! {
            () = &mut shutdown => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        // The semaphore is never closed.
        let Ok(place) = place else { break };
        let (stream, _peer): (_, SocketAddr) = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_passing(&error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                Err(error) => return Err(ServeError::Accept(error)),
            },
        };
        // Answers are small and complete; waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        // A client that asks and never reads must not hold its place for ever. The kernel keeps this clock, so that no answer pays for it.
        let _ = set_tcp_user_timeout(&stream, unread_timeout);
        let front = Arc::clone(&front);
        let service = hyper::service::service_fn(move |request| {
            let front = Arc::clone(&front);
            async move { Ok::<_, std::convert::Infallible>(handle::answer(front, request).await) }
        });
        let (builder, watcher) = (Arc::clone(&builder), graceful.watcher());
        let mut ended = ended.clone();
        tokio::spawn(async move {
            // Hyper's own clock starts with the first request, so who says nothing at all is sent away here, and at the end at once.
            let spoken = tokio::select! {
                spoken = tokio::time::timeout(head_timeout, speaks(&stream)) => spoken.is_ok_and(|spoken| spoken.is_ok()),
                _ = ended.changed() => false,
            };
            if spoken {
                let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
                if let Err(error) = watcher.watch(connection).await {
                    tracing::debug!(%error, "a connection ended early");
                }
            }
            drop(place);
        });
    }
    drop(listener);
    drop(ending);
    front.ending.send_replace(true);
    if tokio::time::timeout(front.config.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
    Ok(())
}

/// Completes once a client has said enough to tell HTTP/1 from HTTP/2.
async fn speaks(stream: &TcpStream) -> std::io::Result<()> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut said = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut said).await?;
        if length == 0 || length == PREFACE.len() || !PREFACE.starts_with(&said[..length]) {
            return Ok(());
        }
        // A beginning of the preface stays readable, so the rest of it cannot be waited for; it is looked for now and then.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Too many open files, or a client that was gone before it was accepted: the next one may be accepted.
fn is_passing(error: &std::io::Error) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
        || matches!(
            error.kind(),
            std::io::ErrorKind::ConnectionAborted
                | std::io::ErrorKind::ConnectionReset
                | std::io::ErrorKind::Interrupted
        )
}
