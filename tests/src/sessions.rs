//! Runs of sessions of the engine that speaks to WhatsApp. The server and its phones are simulated, in the run's own process;
//! the gateway is a process of its own, and asked over HTTP only.
//!
//! With *kills*, each session has a worker that links it, by a scan or by a code, sends texts and has a phone send some, stops and
//! starts it, logs it out, and cuts its connection, while the gateway gets SIGKILL at moments that the seed decides, also while it
//! starts. In the end the server and the data say what was lost:
//!
//! - *pairings lost*: a device that had logged in and that nobody has unlinked, whose session wants to be linked anew
//! - *texts lost*: a text that was acknowledged to its caller, and that its recipient has not read
//! - *texts sent twice*: one that the server took or the recipient read more than once, or words under two ids
//! - *texts in lost*: one that a linked device was sent and has not acknowledged, or that it has and the organisation was not told
//! - *sessions stuck*: one that does not come to be connected after the last kill
//! - *findings*: what the store's own verification finds, as `portcullis check` does
//!
//! All of them have to be 0. A text in that the organisation is told more than once is counted, and is no fault.
//!
//! A *soak* is a life in little time: each round cuts every connection, and memory, threads and open files are watched.
//! [`idle`] is what a benchmark measures.

pub mod idle;
mod kills;
mod line;
mod scene;
mod soak;
mod worker;

use std::fmt;
use std::path::Path;

use crate::program::RunError;

/// What a run does to its gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Kills it so many times, at least.
    Kills(usize),
    /// Lets it live for so many rounds of reconnects. 288 are a day of one every five minutes.
    Soak(usize),
}

/// The size of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is done to the gateway.
    pub life: Life,
    /// How many sessions there are.
    pub sessions: usize,
    /// What decides what is done, and the moments of the kills.
    pub seed: u64,
}

impl Options {
    /// Reads `--kills N` or `--soak ROUNDS`, `--sessions N` and `--seed N`; none if something is not understood.
    #[must_use]
    pub fn parse(arguments: &[String]) -> Option<Self> {
        let (mut life, mut sessions, mut seed) = (None, None, 1);
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { return None };
            let number: usize = value.parse().ok()?;
            match name.as_str() {
                "--kills" if life.is_none() => life = Some(Life::Kills(number)),
                "--soak" if life.is_none() => life = Some(Life::Soak(number.max(1))),
                "--sessions" => sessions = Some(number.max(1)),
                "--seed" => seed = number as u64,
                _ => return None,
            }
        }
        let life = life.unwrap_or(Life::Kills(25));
        let usual = if matches!(life, Life::Kills(_)) { 8 } else { 20 };
        Some(Self { life, sessions: sessions.unwrap_or(usual), seed })
    }
}

/// What a run has found.
#[derive(Debug)]
pub struct Report(Found);

#[derive(Debug)]
enum Found {
    Kills(kills::Outcome),
    Soak(soak::Outcome),
}

impl Report {
    /// Whether everything is as it is promised.
    #[must_use]
    pub fn is_good(&self) -> bool {
        match &self.0 {
            Found::Kills(outcome) => outcome.is_good(),
            Found::Soak(outcome) => outcome.is_good(),
        }
    }

    /// How often the gateway was killed.
    #[must_use]
    pub fn kills(&self) -> usize {
        match &self.0 {
            Found::Kills(outcome) => outcome.kills.0,
            Found::Soak(_) => 0,
        }
    }

    /// How many devices were linked and have logged in.
    #[must_use]
    pub fn pairings(&self) -> usize {
        match &self.0 {
            Found::Kills(outcome) => outcome.pairings,
            Found::Soak(outcome) => outcome.pairings,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Found::Kills(outcome) => write!(f, "{outcome}")?,
            Found::Soak(outcome) => write!(f, "{outcome}")?,
        }
        write!(f, "{}", if self.is_good() { "good" } else { "NOT GOOD" })
    }
}

/// Makes a run. `program` becomes the gateway when it is called like one.
///
/// # Errors
/// If it cannot be made; what it finds is in its report.
pub async fn run(options: &Options, program: &Path) -> Result<Report, RunError> {
    let found = match options.life {
        Life::Kills(kills) => Found::Kills(Box::pin(kills::run(options, kills, program)).await?),
        Life::Soak(rounds) => Found::Soak(Box::pin(soak::run(options, rounds, program)).await?),
    };
    Ok(Report(found))
}
