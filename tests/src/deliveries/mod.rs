//! A run of deliveries: many events, receivers that fail a third of the time, and a gateway that is killed over and over.
//!
//! Sessions are labelled over HTTP, each label an event. Two webhooks hear of all of them: the receiver of one takes everything, that of
//! the other answers three times out of ten with an error, late, never, with half an answer, or by resetting the connection.
//! Meanwhile the gateway gets SIGKILL at random moments, also while it starts. In the end the store says what happened, and
//! the receivers' own logs say what they were told:
//!
//! - *lost*: an event that is in the store, or was acknowledged to a caller, and that a receiver has never taken
//! - *ids changed*: an event that was told under two ids, or two under one
//! - *out of order*: an event of a session that was tried for the first time before one that came before it
//!
//! All of them have to be 0. Waits between attempts are scaled down by a setting of the gateway, so that its whole schedule
//! takes seconds; everything else is as it ships.

pub(crate) mod receiver;
mod report;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portcullis_core::{EventKind, OrgId, OutboxPlace};
use portcullis_store::{Store, StoreOptions};
use serde_json::json;
use tokio::sync::watch;

use crate::calls::{Caller, Gateway};
use crate::process::{Process, ProcessError};
use crate::program::RunError;
use receiver::{Moods, Receiver};
pub use report::Report;

/// The gateway's configuration: receivers on this machine, and a schedule that is a thousandth of the promised one.
const CONFIG: &str = "
[outbound]
allow = [\"127.0.0.0/8\"]
[deliveries]
retry_scale = 0.001
timeout_ms = 250
";
/// How long nothing may happen before a run that is not through counts as stuck.
const STUCK: Duration = Duration::from_secs(120);
/// How many events are read of the store at once.
const PAGE: usize = 1_000;

/// The size of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Events to cause, at least.
    pub events: usize,
    /// Sessions that they are about.
    pub sessions: usize,
    /// How often the gateway is killed.
    pub kills: usize,
    /// What decides the receivers' moods and the moments of the kills.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { events: 2_000, sessions: 20, kills: 5, seed: 1 }
    }
}

impl Options {
    /// Reads `--events N` and so on; none if something is not understood.
    #[must_use]
    pub fn parse(arguments: &[String]) -> Option<Self> {
        let mut options = Self::default();
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { return None };
            let number = value.parse().ok()?;
            match name.as_str() {
                "--events" => options.events = number,
                "--sessions" => options.sessions = number.max(1),
                "--kills" => options.kills = number,
                "--seed" => options.seed = number as u64,
                _ => return None,
            }
        }
        Some(options)
    }
}

/// Makes a run. `program` becomes the gateway when it is called like one.
///
/// # Errors
/// If it cannot be made; what it finds is in its report.
pub async fn run(options: &Options, program: &Path) -> Result<Report, RunError> {
    let steady = Receiver::start(Moods::steady()).await.map_err(|error| RunError::Prepare(error.to_string()))?;
    let moods = Moods::failing(options.seed);
    let flaky = Receiver::start(moods).await.map_err(|error| RunError::Prepare(error.to_string()))?;
    let mut process = Process::new(program, CONFIG)?;
    let (tell, address) = watch::channel(process.start().await?);
    let operator = process.operator_key()?;
    let gateway = Gateway::new(address);
    let (org, sessions) = prepare(&gateway, &operator, options, [&steady, &flaky]).await?;

    let began = Instant::now();
    let (through, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers = label_all(&gateway, &operator, &org, &sessions, options, &acknowledged);
    let ended = Arc::clone(&through);
    let waits = async {
        for caller in callers {
            let _ = caller.await;
        }
        ended.store(true, Ordering::Relaxed);
    };
    let mut peak = 0;
    let ((), killed) = tokio::join!(waits, kill_over_and_over(&mut process, &tell, options, &through, &mut peak));
    let kills = killed?;
    let is_stuck = !settle(&process, [&steady, &flaky], acknowledged.load(Ordering::Relaxed), &mut peak).await;
    let took = began.elapsed();
    process.kill().await;

    let mut report = Report::new(options, kills, acknowledged.load(Ordering::Relaxed), took, peak, is_stuck);
    let store =
        Store::open(&process.data(), StoreOptions::default()).map_err(|error| RunError::Data(error.to_string()))?;
    let org: OrgId = org.parse().map_err(|_no_id| RunError::Data("the organisation has no id".to_owned()))?;
    compare(&store, org, [&steady, &flaky], &mut report).map_err(|error| RunError::Data(error.to_string()))?;
    report.findings = store.verify().map_err(|error| RunError::Data(error.to_string()))?.findings;
    Ok(report)
}

/// An organisation, its sessions and the two webhooks.
async fn prepare(
    gateway: &Gateway,
    operator: &str,
    options: &Options,
    receivers: [&Receiver; 2],
) -> Result<(String, Vec<String>), RunError> {
    let mut caller = Caller::new(gateway.clone(), operator);
    let mut make = async |path: &str, body: serde_json::Value| {
        let made = caller.call("POST", path, &body).await;
        let made = made.ok_or_else(|| RunError::Prepare(format!("POST {path} was not answered")))?;
        let id = made.body.get("id").and_then(|id| id.as_str()).map(str::to_owned);
        id.ok_or_else(|| RunError::Prepare(format!("POST {path}: {} {}", made.status, made.body)))
    };
    let quotas = json!({ "sessions": options.sessions, "concurrency": 256 });
    let org = make("/api/v1/orgs", json!({ "name": "run", "quotas": quotas })).await?;
    let mut sessions = Vec::new();
    for number in 0..options.sessions {
        let path = format!("/api/v1/sessions?org={org}");
        sessions.push(make(&path, json!({ "label": format!("session {number}") })).await?);
    }
    for receiver in receivers {
        let hook = json!({ "url": receiver.url(), "events": ["session.labels"] });
        make(&format!("/api/v1/webhooks?org={org}"), hook).await?;
    }
    Ok((org, sessions))
}

/// Labels every session as often as it takes, each in a task of its own.
fn label_all(
    gateway: &Gateway,
    operator: &str,
    org: &str,
    sessions: &[String],
    options: &Options,
    acknowledged: &Arc<AtomicUsize>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let each = options.events.div_ceil(sessions.len());
    let mut callers = Vec::new();
    for session in sessions {
        let mut caller = Caller::new(gateway.clone(), operator);
        let (path, acknowledged) = (format!("/api/v1/sessions/{session}/labels?org={org}"), Arc::clone(acknowledged));
        callers.push(tokio::spawn(async move {
            let mut done = 0;
            for attempt in 0_u64.. {
                if done == each {
                    return;
                }
                // Whether a call that was not answered has had an effect is unknown; the next one is another label.
                let answer = caller.call("PUT", &path, &json!({ "attempt": attempt.to_string() })).await;
                match answer {
                    Some(answer) if answer.status == 200 => {
                        done += 1;
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(_) | None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        }));
    }
    callers
}

/// Kills the gateway and starts it again, as often as is asked for; and goes on while callers still call.
async fn kill_over_and_over(
    process: &mut Process,
    address: &watch::Sender<std::net::SocketAddr>,
    options: &Options,
    through: &AtomicBool,
    peak: &mut u64,
) -> Result<usize, ProcessError> {
    let mut dice = receiver::Dice::new(options.seed ^ 0x5EED);
    let mut kills = 0;
    while kills < options.kills {
        tokio::time::sleep(Duration::from_millis(200 + dice.below(1_300))).await;
        *peak = process.peak_memory().max(*peak);
        process.kill().await;
        kills += 1;
        // One in five dies while it comes up.
        if kills < options.kills && dice.below(5) == 0 {
            process.spawn()?;
            tokio::time::sleep(Duration::from_millis(dice.below(80))).await;
            process.kill().await;
            kills += 1;
        }
        address.send_replace(process.start().await?);
    }
    while !through.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(kills)
}

/// Waits until both receivers have taken everything that was acknowledged, and nothing more comes.
/// Answers whether it came to that.
async fn settle(process: &Process, receivers: [&Receiver; 2], acknowledged: usize, peak: &mut u64) -> bool {
    let (mut last, mut since) = ((0, 0), Instant::now());
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        *peak = process.peak_memory().max(*peak);
        let now = (receivers[0].taken(), receivers[1].taken());
        if now != last {
            (last, since) = (now, Instant::now());
        }
        let has_all = now.0.min(now.1) >= acknowledged;
        if has_all && since.elapsed() > Duration::from_secs(2) {
            return true;
        }
        if since.elapsed() > STUCK {
            return false;
        }
    }
}

/// What the store says, beside what the receivers were told.
fn compare(
    store: &Store,
    org: OrgId,
    receivers: [&Receiver; 2],
    report: &mut Report,
) -> Result<(), portcullis_store::ReadError> {
    let snapshot = store.snapshot()?;
    let mut after = OutboxPlace::default();
    loop {
        let page = snapshot.events_after(org, after, PAGE)?;
        let Some(last) = page.last() else { break };
        after = last.place;
        for placed in page.iter().filter(|placed| placed.event.body.kind() == EventKind::LabelsChanged) {
            let Some(session) = placed.event.session else { continue };
            report.recorded += 1;
            for receiver in receivers {
                let told = receiver.told(&session.to_string(), placed.seq);
                report.lost += usize::from(told.as_ref().is_none_or(|told| told.taken == 0));
                report.ids_changed += usize::from(told.is_some_and(|told| told.id != placed.event.id.to_string()));
            }
        }
    }
    for receiver in receivers {
        report.add(receiver);
    }
    Ok(())
}
