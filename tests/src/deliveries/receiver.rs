//! A receiver with moods, which remembers everything that it was told.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// How a receiver takes what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It takes it.
    Taking,
    /// It answers with a status of failure.
    Failing(u16),
    /// It never answers.
    Silent,
    /// It resets the connection.
    Resetting,
    /// It begins an answer, and never ends it.
    Dripping,
}

/// In which mood a receiver is how often.
pub(crate) struct Moods {
    dice: Option<Mutex<Dice>>,
}

impl Moods {
    /// Always in a good one.
    pub(crate) fn steady() -> Self {
        Self { dice: None }
    }

    /// In a bad one three times out of ten.
    pub(crate) fn failing(seed: u64) -> Self {
        Self { dice: Some(Mutex::new(Dice::new(seed))) }
    }

    fn next(&self) -> Mood {
        let Some(dice) = &self.dice else { return Mood::Taking };
        match dice.lock().unwrap_or_else(PoisonError::into_inner).below(100) {
            0..10 => Mood::Failing(500),
            10..13 => Mood::Failing(503),
            13..15 => Mood::Failing(429),
            15..19 => Mood::Silent,
            19..25 => Mood::Resetting,
            25..30 => Mood::Dripping,
            _ => Mood::Taking,
        }
    }
}

/// Numbers that a seed decides.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below another (xorshift64*).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// What a receiver knows of one event.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Under which id it was told.
    pub(crate) id: String,
    /// How often it took it.
    pub(crate) taken: u32,
}

/// What a receiver has counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Everything that came.
    pub(crate) attempts: usize,
    /// What was taken, each event once.
    pub(crate) taken: usize,
    /// What was taken again.
    pub(crate) again: usize,
    /// Events that came under another id than before.
    pub(crate) ids_changed: usize,
    /// Events that came for the first time before one that is before them.
    pub(crate) out_of_order: usize,
}

#[derive(Default)]
struct Log {
    told: HashMap<(String, u64), Told>,
    /// The last event of each session that came for the first time.
    last: HashMap<String, u64>,
    counts: Counts,
}

pub(crate) struct Receiver {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
    taken: Arc<AtomicUsize>,
}

impl Receiver {
    pub(crate) async fn start(moods: Moods) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let receiver = Self { address: listener.local_addr()?, log: Arc::default(), taken: Arc::default() };
        let (log, taken, moods) = (Arc::clone(&receiver.log), Arc::clone(&receiver.taken), Arc::new(moods));
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (log, taken, moods) = (Arc::clone(&log), Arc::clone(&taken), Arc::clone(&moods));
                tokio::spawn(async move { serve(stream, &log, &taken, &moods).await });
            }
        });
        Ok(receiver)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// How many events it has taken, each counted once.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).counts
    }

    /// What it knows of an event, by its session and its ordinal.
    pub(crate) fn told(&self, session: &str, seq: u64) -> Option<Told> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.told.get(&(session.to_owned(), seq)).cloned()
    }
}

impl Log {
    fn note(&mut self, event: &Value, mood: Mood) -> Option<bool> {
        let (id, session) = (event.get("id")?.as_str()?, event.get("session")?.as_str()?);
        let seq = event.get("seq")?.as_u64()?;
        self.counts.attempts += 1;
        // The session's making came before the webhook, so that labels begin with the second event.
        let last = self.last.entry(session.to_owned()).or_insert(1);
        if seq > *last {
            self.counts.out_of_order += usize::from(seq != *last + 1);
            *last = seq;
        }
        let known = self.told.entry((session.to_owned(), seq));
        let told = known.or_insert_with(|| Told { id: id.to_owned(), taken: 0 });
        self.counts.ids_changed += usize::from(told.id != id);
        if mood != Mood::Taking {
            return Some(false);
        }
        told.taken += 1;
        if told.taken == 1 {
            self.counts.taken += 1;
            return Some(true);
        }
        self.counts.again += 1;
        Some(false)
    }
}

async fn serve(stream: TcpStream, log: &Mutex<Log>, taken: &AtomicUsize, moods: &Moods) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let mut length = 0;
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        while line.trim_end() != "" {
            line.clear();
            stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let mood = moods.next();
        let event = serde_json::from_slice(&body).ok()?;
        let is_new = log.lock().unwrap_or_else(PoisonError::into_inner).note(&event, mood);
        match mood {
            Mood::Taking => {
                // It counts once it is written down, whether the answer arrives or not.
                taken.fetch_add(usize::from(is_new == Some(true)), Ordering::Relaxed);
                stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.ok()?;
            }
            Mood::Failing(status) => {
                let answer = format!("HTTP/1.1 {status} -\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n");
                stream.get_mut().write_all(answer.as_bytes()).await.ok()?;
            }
            Mood::Silent => {
                // Until whoever asks gives up.
                stream.read_u8().await.ok()?;
                return None;
            }
            Mood::Resetting => {
                stream.get_ref().set_zero_linger().ok()?;
                return None;
            }
            Mood::Dripping => {
                stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await.ok()?;
                loop {
                    stream.get_mut().write_all(b".").await.ok()?;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}
