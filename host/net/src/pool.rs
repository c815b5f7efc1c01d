//! Connections that are kept for the next request to the same server.
//!
//! A connection is kept once its last answer was read to the end, and goes to the next who asks for the same scheme, host and
//! port. Its address was judged when it was made and cannot change, so that nothing is looked up or judged again.
//!
//! What is kept is bounded three ways: for one server, in all (then the oldest goes), and in time.
//! A connection that is dropped is closed at once, whatever its peer does: nothing is left running for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::address::Server;

/// How many connections to one server are kept, and how many in all.
const MOST_PER_SERVER: usize = 64;
const MOST_IN_ALL: usize = 512;
/// How long a connection is kept.
const KEPT: Duration = Duration::from_secs(30);
/// The largest head of an answer, in bytes, and how much of an answer is read ahead.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    server: Arc<Server>,
    _driver: Driver,
}

/// The task that moves the bytes of a connection; it ends with this.
#[derive(Debug)]
struct Driver(AbortHandle);

/// The connections that wait for a request.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    /// The oldest come first. No list is empty.
    by_server: HashMap<Arc<Server>, Vec<(Instant, Connection)>>,
    count: usize,
    /// Whether a task looks for connections that were kept for too long.
    is_swept: bool,
}

// === impl Connection ===

impl Connection {
    /// Speaks HTTP/1.1 to `server` over `stream`.
    pub(crate) async fn new<S>(server: &Server, stream: S) -> Result<Self, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = Builder::new()
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        let driver = tokio::spawn(async move {
            // What breaks a connection is told to whoever waits for its answer; nobody else cares.
            let _ = connection.await;
        });
        Ok(Self { sender, server: Arc::new(server.clone()), _driver: Driver(driver.abort_handle()) })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === impl Pool ===

impl Pool {
    /// A connection to `server` that can be used at once.
    pub(crate) fn take(&self, server: &Server, now: Instant) -> Option<Connection> {
        let mut idle = self.lock();
        loop {
            let list = idle.by_server.get_mut(server)?;
            let newest = list.pop();
            if list.is_empty() {
                idle.by_server.remove(server);
            }
            let (since, connection) = newest?;
            idle.count -= 1;
            if connection.sender.is_ready() && now.saturating_duration_since(since) < KEPT {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection that is ready for another request.
    pub(crate) fn put(self: &Arc<Self>, connection: Connection, now: Instant) {
        let mut idle = self.lock();
        if idle.count >= MOST_IN_ALL {
            idle.drop_oldest();
        }
        let list = idle.by_server.entry(Arc::clone(&connection.server)).or_default();
        if list.len() >= MOST_PER_SERVER {
            return;
        }
        list.push((now, connection));
        idle.count += 1;
        if !idle.is_swept {
            idle.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        // Nothing panics under the lock between changes that belong together.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes what was kept for too long, for as long as anything is kept.
async fn sweep(pool: Weak<Pool>) {
    loop {
        sleep(KEPT / 2).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.lock();
        idle.drop_stale(Instant::now());
        if idle.count == 0 {
            idle.is_swept = false;
            return;
        }
    }
}

// === impl Idle ===

impl Idle {
    fn drop_oldest(&mut self) {
        let oldest = self.by_server.iter().min_by_key(|(_, list)| list.first().map(|(since, _)| *since));
        let Some(server) = oldest.map(|(server, _)| Arc::clone(server)) else { return };
        if let Some(list) = self.by_server.get_mut(&server) {
            list.remove(0);
            self.count -= 1;
            if list.is_empty() {
                self.by_server.remove(&server);
            }
        }
    }

    fn drop_stale(&mut self, now: Instant) {
        self.by_server.retain(|_, list| {
            list.retain(|(since, connection)| {
                now.saturating_duration_since(*since) < KEPT && !connection.sender.is_closed()
            });
            !list.is_empty()
        });
        self.count = self.by_server.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod test {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::address::Host;

    fn server(port: u16) -> Server {
        Server { secure: false, host: Host::Name("kept.example".to_owned()), port }
    }

    /// A connection that is ready, and the other end of it.
    async fn connection(server: &Server) -> (Connection, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(64);
        let mut connection = Connection::new(server, near).await.unwrap();
        connection.sender.ready().await.unwrap();
        (connection, far)
    }

    #[tokio::test]
    async fn no_more_are_kept_than_there_are_places() {
        let pool = Arc::new(Pool::default());
        let mut far = Vec::new();
        for _ in 0..=MOST_PER_SERVER {
            let (near, end) = connection(&server(1)).await;
            pool.put(near, Instant::now());
            far.push(end);
        }
        assert_eq!(pool.lock().count, MOST_PER_SERVER);
        for port in 2.. {
            let (near, end) = connection(&server(port)).await;
            pool.put(near, Instant::now());
            far.push(end);
            if pool.lock().count == MOST_IN_ALL {
                break;
            }
        }
        // One more makes the oldest go, which is the first server's.
        pool.put(connection(&server(1000)).await.0, Instant::now());
        let idle = pool.lock();
        assert_eq!((idle.count, idle.by_server[&server(1)].len()), (MOST_IN_ALL, MOST_PER_SERVER - 1));
    }

    #[tokio::test]
    async fn nothing_is_kept_for_long() {
        let (pool, start) = (Arc::new(Pool::default()), Instant::now());
        let (near, _far) = connection(&server(1)).await;
        pool.put(near, start);
        let near = pool.take(&server(1), start + KEPT - Duration::from_millis(1)).unwrap();
        assert!(pool.take(&server(1), start).is_none());
        pool.put(near, start);
        assert!(pool.take(&server(1), start + KEPT).is_none());

        let (near, mut far) = connection(&server(2)).await;
        pool.put(near, start);
        pool.lock().drop_stale(start + KEPT - Duration::from_millis(1));
        assert_eq!(pool.lock().count, 1);
        pool.lock().drop_stale(start + KEPT);
        assert_eq!(pool.lock().count, 0);
        assert!(pool.lock().by_server.is_empty());
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "the connection is open");
    }

    #[tokio::test]
    async fn what_its_peer_has_closed_is_not_handed_out() {
        let pool = Arc::new(Pool::default());
        let (near, far) = connection(&server(1)).await;
        pool.put(near, Instant::now());
        drop(far);
        // The task that notices runs before this one goes on.
        tokio::task::yield_now().await;
        assert!(pool.take(&server(1), Instant::now()).is_none());
        assert_eq!(pool.lock().count, 0);
    }
}
