//! A soak: a life of reconnects in little time, while the gateway's memory, threads and open files are watched.
//!
//! Each round, every session loses its connection, comes back by itself, and a text goes each way. One of them is logged out and linked
//! anew instead, and one more session begins to pair and is stopped again, so that runs of all kinds begin and end.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_whatsapp_server::{Action, State};
use tokio::task::JoinSet;

use super::Options;
use super::line::{Came, Line, logins};
use super::scene::{LOOK, Scene};
use crate::calls::Lost;
use crate::process::Process;
use crate::program::RunError;

/// How long anything may take that happens at once in a good run.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much more memory the last third of a run may take than the second: a tenth, or that many KiB.
const MORE: u64 = 8 * 1024;
/// How many threads and open files may come to be between the second third of a run and its last one.
const A_FEW: u64 = 8;
/// Of how many rounds the memory is judged.
const FEW: usize = 12;
/// How many of the things that went wrong are shown.
const SHOWN: usize = 8;

/// What the gateway holds at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    round: usize,
    kib: u64,
    threads: u64,
    files: u64,
}

/// What a run has found.
#[derive(Debug)]
pub(super) struct Outcome {
    options: Options,
    rounds: usize,
    pub(super) pairings: usize,
    samples: Vec<Sample>,
    faults: Vec<String>,
    took: Duration,
}

/// Makes the run.
pub(super) async fn run(options: &Options, rounds: usize, program: &Path) -> Result<Outcome, RunError> {
    let began = Instant::now();
    let mut scene = Scene::new(program).await?;
    let sessions = options.sessions as u64;
    let mut visitor = Line::new(&scene, sessions);
    let mut lines: Vec<Line> = (0..sessions).map(|place| Line::new(&scene, place)).collect();
    let (mut samples, mut faults) = (Vec::new(), Vec::new());
    // A short run has few rounds, and all of them are looked at.
    let every = if rounds >= 60 { 10 } else { 1 };
    for round in 1..=rounds {
        let mut at_work = JoinSet::new();
        for (place, mut line) in lines.drain(..).enumerate() {
            let leaves = round % options.sessions == place && round > 1;
            at_work.spawn(async move {
                let wrong = live(&mut line, round, leaves).await;
                (line, wrong)
            });
        }
        at_work.spawn(async move {
            let wrong = visit(&mut visitor).await;
            (visitor, wrong)
        });
        let mut back: Vec<_> = at_work.join_all().await;
        back.sort_by_key(|(line, _)| line.number);
        for (line, wrong) in back {
            let wrong = wrong.map_err(|_lost| RunError::Gone)?;
            faults.extend(wrong.map(|wrong| format!("round {round}, {}: {wrong}; {}", line.number, line.refused)));
            lines.push(line);
        }
        // The visitor has the last of the numbers.
        visitor = lines.pop().ok_or_else(|| RunError::Prepare("the visitor did not come back".to_owned()))?;
        if scene.process.has_ended() {
            return Err(RunError::Gone);
        }
        if round % every == 0 {
            samples.push(Sample::of(&scene.process, round));
        }
    }
    let pairings = scene.pairings();
    scene.process.kill().await;
    Ok(Outcome { options: options.clone(), rounds, pairings, samples, faults, took: began.elapsed() })
}

/// One round of a session; what went wrong, if something did.
async fn live(line: &mut Line, round: usize, leaves: bool) -> Result<Option<&'static str>, Lost> {
    let device = line.device(&line.seen.now());
    if leaves {
        line.let_go();
        if !line.act("logout").await? || !has(line, "logged_out").await? {
            return Ok(Some("it could not be logged out"));
        }
    } else if let Some(device) = device {
        let number = line.number;
        let count = move |state: &State| state.device(number, device).map_or(0, logins);
        let before = count(&line.controls.state());
        let action = if round.is_multiple_of(2) { Action::Drop } else { Action::Close };
        if line.controls.act(number, device, action).is_err() {
            return Ok(Some("it was not connected any more"));
        }
        if !line.seen.until(PATIENCE, move |state| count(state) > before).await {
            return Ok(Some("it did not connect again"));
        }
    }
    match line.comes_up(PATIENCE).await? {
        Came::Up => {}
        Came::Lost => return Ok(Some("its device is linked, and it does not know")),
        Came::Stuck => return Ok(Some("it did not come up")),
    }
    let began = Instant::now();
    while line.says(&format!("{} in round {round}", line.number)).await?.is_none() {
        if began.elapsed() > PATIENCE {
            return Ok(Some("its text was not sent"));
        }
        tokio::time::sleep(LOOK).await;
    }
    // A device that was linked in this moment may not be seen yet.
    let number = line.number;
    let is_in = move |state: &State| {
        let account = state.account(number);
        account.is_some_and(|account| account.devices.iter().any(|device| device.linked && logins(device) > 0))
    };
    line.seen.until(PATIENCE, is_in).await;
    let Some((device, id)) = line.hears(&format!("to {number} in round {round}")) else {
        return Ok(Some("nobody could text it"));
    };
    let arrived = line.seen.until(PATIENCE, move |state| {
        // What was sent last stands last.
        let text = state.texts.iter().rev().find(|text| text.device == 0 && text.id == id);
        text.is_some_and(|text| text.copies.iter().any(|copy| copy.device == device && copy.receipt.is_some()))
    });
    Ok((!arrived.await).then_some("it did not acknowledge a text"))
}

/// A session begins to pair, shows a code, and is stopped.
async fn visit(visitor: &mut Line) -> Result<Option<&'static str>, Lost> {
    if !visitor.create(false).await? {
        return Ok(Some("it could not be made"));
    }
    let began = Instant::now();
    while visitor.qr().await?.is_none() {
        if began.elapsed() > PATIENCE {
            return Ok(Some("it showed no code"));
        }
        tokio::time::sleep(LOOK).await;
    }
    let is_stopped = visitor.act("stop").await? && has(visitor, "stopped").await?;
    Ok((!is_stopped).then_some("it could not be stopped"))
}

/// Whether it comes to have this status.
async fn has(line: &mut Line, status: &str) -> Result<bool, Lost> {
    let began = Instant::now();
    while line.status().await? != status {
        if began.elapsed() > PATIENCE {
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(true)
}

/// One of the things that are measured.
type Reading = fn(&Sample) -> u64;

impl Sample {
    fn of(process: &Process, round: usize) -> Self {
        Self { round, kib: process.memory_kib(), threads: process.threads(), files: process.open_files() }
    }
}

/// The middle one of some numbers; 0 if there are none.
fn median(mut numbers: Vec<u64>) -> u64 {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

impl Outcome {
    /// The median of a reading in the second third of the run, and in the last one.
    fn thirds(&self, reading: Reading) -> (u64, u64) {
        let of = |third: usize| {
            let within = |sample: &&Sample| (sample.round - 1) * 3 / self.rounds.max(1) == third;
            median(self.samples.iter().filter(within).map(reading).collect())
        };
        (of(1), of(2))
    }

    fn is_level(&self, reading: Reading, more: u64) -> bool {
        let (second, last) = self.thirds(reading);
        second > 0 && last <= (second + second / 10).max(second + more)
    }

    pub(super) fn is_good(&self) -> bool {
        // A few rounds say nothing of memory: what is filled once is filled in them.
        let is_level = self.rounds < FEW || self.is_level(|sample| sample.kib, MORE);
        let holds_no_more =
            self.is_level(|sample| sample.threads, A_FEW) && self.is_level(|sample| sample.files, A_FEW);
        self.faults.is_empty() && is_level && holds_no_more && self.pairings >= self.options.sessions
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions = self.options.sessions;
        writeln!(f, "{sessions} sessions, {} rounds, {:.1} s", self.rounds, self.took.as_secs_f64())?;
        writeln!(f, "pairings   {}", self.pairings)?;
        // The first fifth of a run fills what is filled once.
        let warm: Vec<Sample> = self.samples.iter().filter(|sample| sample.round * 5 > self.rounds).copied().collect();
        if let (Some(first), Some(last)) = (warm.first(), warm.last()) {
            let rounds = (last.round - first.round).max(1) as f64;
            let rows: [(&str, Reading); 3] = [
                ("memory KiB", |sample| sample.kib),
                ("threads", |sample| sample.threads),
                ("open files", |sample| sample.files),
            ];
            for (name, of) in rows {
                let peak = warm.iter().map(of).max().unwrap_or_default();
                let each = (of(last) as f64 - of(first) as f64) / rounds;
                writeln!(
                    f,
                    "{name:<10} {} first, {} last, {peak} at most, {each:+.2} each round",
                    of(first),
                    of(last)
                )?;
            }
        }
        let (second, last) = self.thirds(|sample| sample.kib);
        writeln!(f, "median of the second third {second} KiB, of the last {last} KiB")?;
        writeln!(f, "went wrong {}", self.faults.len())?;
        for wrong in self.faults.iter().take(SHOWN) {
            writeln!(f, "  {wrong}")?;
        }
        Ok(())
    }
}
