//! Crash runs: a gateway that does everything it can for several organisations at once, and is killed over and over.
//!
//! ```text
//! work ─▶ SIGKILL ─▶ (look at the data) ─▶ start, killed again one time out of four ─▶ compare over HTTP ─▶ work …
//!   every so often: wait until nothing is on its way any more ─▶ SIGKILL ─▶ look at the data
//! ```
//!
//! Each worker does one thing at a time and writes down what was acknowledged, so at a kill only its last call is in doubt: of that,
//! either what was before it or what comes after it may be there. The report counts what should not be:
//!
//! - *lost*: something acknowledged is not there, or is as it was before
//! - *duplicated*: something is there twice, or nobody has asked for it
//! - *torn*: session, audit, decision, outbox, counters, and the keys and timers of plugins do not agree
//! - *stuck*: a deletion that is due, a message, an errand or a status that has to pass does not
//! - *findings*: the store's own verification finds something, or a call was answered as if there were a bug
//!
//! The seed decides what is done and for how long; how far the gateway comes with it, it does not.

mod either;
mod hands;
mod inside;
mod journal;
mod kept;
mod report;
mod sessions;
mod shelf;
mod subscriptions;
mod world;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::calls::{Gateway, Lost};
use crate::deliveries::receiver::{Dice, Moods, Receiver};
use crate::process::Process;
use crate::program::RunError;
use inside::Inside;
use journal::{Fault, Journal};
pub use report::Report;
use world::{Worker, World};

/// The gateway's configuration: a receiver on this machine, a schedule that is a thousandth of the promised one,
/// and no waiting for a limit to have room.
const CONFIG: &str = "
[outbound]
allow = [\"127.0.0.0/8\"]
[deliveries]
retry_scale = 0.001
timeout_ms = 250
[limits]
send_patience_ms = 0
";
/// The longest time between a start and a kill, in milliseconds.
const LONGEST: u64 = 500;

/// The size of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often the gateway is killed, at least.
    pub kills: usize,
    /// What decides what is done, and the moments of the kills.
    pub seed: u64,
}

impl Options {
    /// Reads `--kills N` and `--seed N`; none if something is not understood.
    #[must_use]
    pub fn parse(arguments: &[String]) -> Option<Self> {
        let mut options = Self { kills: 100, seed: now() };
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { return None };
            match name.as_str() {
                "--kills" => options.kills = value.parse().ok()?,
                "--seed" => options.seed = value.parse().ok()?,
                _ => return None,
            }
        }
        Some(options)
    }
}

/// Milliseconds since the epoch.
#[expect(clippy::disallowed_methods, reason = "the gateway is another process, whose clock is the system's")]
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

/// A run on its way.
struct Run {
    process: Process,
    address: watch::Sender<std::net::SocketAddr>,
    world: World,
    inside: Inside,
    dice: Dice,
    journal: Journal,
    kills: (usize, usize),
    looks: usize,
    /// How long a start takes; what is killed while it starts is killed within that.
    start: Duration,
}

/// Makes a run. `program` becomes the gateway when it is called like one.
///
/// # Errors
/// If it cannot be made; what it finds is in its report.
pub async fn run(options: &Options, program: &Path) -> Result<Report, RunError> {
    let began = Instant::now();
    let receiver = Receiver::start(Moods::steady()).await.map_err(|error| RunError::Prepare(error.to_string()))?;
    let mut process = Process::new(program, CONFIG)?;
    let starts = Instant::now();
    let (tell, address) = watch::channel(process.start().await?);
    let start = starts.elapsed();
    let operator = process.operator_key()?;
    let journal = Journal::default();
    let world = world::make(&Gateway::new(address), &operator, &receiver.url(), &journal, options.seed).await?;
    let told = world.orgs.first().and_then(|(org, _)| org.parse().ok());
    let told = told.ok_or_else(|| RunError::Prepare("the organisation has no id".to_owned()))?;
    let mut run = Run {
        process,
        address: tell,
        world,
        inside: Inside::new(journal.clone(), told),
        dice: Dice::new(options.seed),
        journal,
        kills: (0, 0),
        looks: 0,
        start,
    };
    // Looking gets longer the longer the run was; so the number of looks is bounded.
    let every = (options.kills / 40).max(5);
    let (mut looked, mut settled) = (0, 0);
    while run.kills.0 < options.kills {
        run.work_until_killed().await?;
        if run.kills.0 - looked >= every {
            looked = run.kills.0;
            run.look(false)?;
        }
        run.come_up().await?;
        if run.kills.0 - settled >= 2 * every {
            settled = run.kills.0;
            run.settle().await?;
            run.kill().await;
            run.look(true)?;
            run.come_up().await?;
        }
    }
    run.settle().await?;
    run.kill().await;
    run.look(true)?;
    run.come_up().await?;
    run.everybody_was_told(&receiver).await;
    run.kill().await;
    let faults = run.journal.faults();
    let counts = run.journal.counts();
    let (kills, looks) = (run.kills, run.looks);
    Ok(Report { options: options.clone(), kills, looks, counts, faults, took: began.elapsed() })
}

impl Run {
    /// Lets everybody work, and kills the gateway at a moment that the dice choose.
    async fn work_until_killed(&mut self) -> Result<(), RunError> {
        let until = Duration::from_millis(self.dice.below(LONGEST));
        let mut at_work = JoinSet::new();
        for mut worker in self.world.workers.drain(..) {
            at_work.spawn(async move {
                let _ = worker.work().await;
                worker
            });
        }
        tokio::time::sleep(until).await;
        let died = self.process.has_ended();
        self.kill().await;
        while let Some(worker) = at_work.join_next().await {
            self.world.workers.push(worker.map_err(|error| RunError::Prepare(error.to_string()))?);
        }
        if died { Err(RunError::Gone) } else { Ok(()) }
    }

    async fn kill(&mut self) {
        self.process.kill().await;
        self.kills.0 += 1;
    }

    /// Starts the gateway, which may be killed while it starts, and compares what is there with what was acknowledged.
    async fn come_up(&mut self) -> Result<(), RunError> {
        while self.dice.below(4) == 0 {
            self.process.spawn()?;
            let most = u64::try_from(self.start.as_millis()).unwrap_or(u64::MAX).max(1);
            tokio::time::sleep(Duration::from_millis(self.dice.below(most))).await;
            self.kill().await;
            self.kills.1 += 1;
        }
        let began = Instant::now();
        self.address.send_replace(self.process.start().await?);
        self.start = began.elapsed();
        self.all(async |worker| worker.verify().await).await
    }

    /// Waits until nothing is on its way.
    async fn settle(&mut self) -> Result<(), RunError> {
        self.all(async |worker| worker.settle().await).await?;
        self.all(async |worker| worker.verify().await).await
    }

    async fn all(&mut self, each: impl AsyncFn(&mut Worker) -> Result<(), Lost>) -> Result<(), RunError> {
        for worker in &mut self.world.workers {
            each(worker).await.map_err(|_| RunError::Gone)?;
        }
        Ok(())
    }

    fn look(&mut self, settled: bool) -> Result<(), RunError> {
        self.looks += 1;
        self.inside.look(&self.process.data(), &self.world.known(), settled)?;
        self.world.workers.iter_mut().for_each(Worker::looked);
        Ok(())
    }

    /// Every deletion of the first organisation was told to its receiver.
    async fn everybody_was_told(&mut self, receiver: &Receiver) {
        let began = Instant::now();
        let deletions = self.inside.deletions();
        while receiver.taken() < deletions && began.elapsed() < sessions::PATIENCE {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if receiver.taken() < deletions {
            let what = format!("{deletions} deletions, of which a receiver was told {}", receiver.taken());
            self.journal.fault(Fault::Stuck, what);
        }
    }
}
