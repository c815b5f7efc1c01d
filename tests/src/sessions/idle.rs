//! What sessions cost that are linked and do nothing, and how long it takes until they can do something. The server is simulated,
//! so that WhatsApp's own time is not in it.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::line::{Came, Line};
use super::scene::{LOOK, Scene};
use crate::calls::Lost;
use crate::program::RunError;

/// How many sessions are linked at the same time.
const AT_ONCE: u64 = 16;
/// How long nothing may have happened until sessions count as idle.
const IDLE: Duration = Duration::from_secs(10);
/// How many sessions are stopped and started again.
const AGAIN: usize = 16;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// What was measured with so many sessions.
#[derive(Debug, Clone)]
pub struct Idle {
    /// How many sessions there were.
    pub sessions: u64,
    /// What a gateway with one idle session held.
    pub fixed: Held,
    /// What it held with all of them.
    pub held: Held,
    /// From the call that makes a session to its QR code, each.
    pub shown: Vec<Duration>,
    /// From the scan to a session that can send, each.
    pub linked: Vec<Duration>,
    /// From the start of a session that was linked and stopped until it can send, each.
    pub started: Vec<Duration>,
    /// From a kill until the gateway listened again, and until all sessions could send again.
    pub back: (Duration, Duration),
}

/// What a gateway held, in KiB. One that has come back has its sessions without what linking them left behind.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// When the last of its sessions was linked and had texted.
    pub linked: u64,
    /// When its sessions had come back with it.
    pub back: u64,
}

impl Idle {
    /// What each session more than the first one cost, in KiB.
    #[must_use]
    pub fn each(&self, which: impl Fn(&Held) -> u64) -> f64 {
        (which(&self.held) as f64 - which(&self.fixed) as f64) / self.sessions.saturating_sub(1).max(1) as f64
    }
}

/// A session that was linked, and how long that took.
struct Linked {
    line: Line,
    shown: Duration,
    linked: Duration,
}

/// Measures so many sessions. `program` becomes the gateway when it is called like one.
///
/// # Errors
/// If one of them does not come to where it should.
pub async fn measure(sessions: u64, program: &Path) -> Result<Idle, RunError> {
    let mut scene = Scene::new(program).await?;
    let mut all = vec![link(Line::new(&scene, 0)).await?];
    let linked = idle(&scene).await;
    kill(&mut scene, all.len()).await?;
    let fixed = Held { linked, back: idle(&scene).await };
    let mut at_work = JoinSet::new();
    for first in 1..=AT_ONCE {
        let step = usize::try_from(AT_ONCE).unwrap_or(1);
        let lines: Vec<Line> = (first..sessions).step_by(step).map(|place| Line::new(&scene, place)).collect();
        at_work.spawn(async move {
            let mut done = Vec::new();
            for line in lines {
                done.push(link(line).await?);
            }
            Ok::<_, RunError>(done)
        });
    }
    for done in at_work.join_all().await {
        all.extend(done?);
    }
    let linked = idle(&scene).await;
    let mut started = Vec::new();
    for Linked { line, .. } in all.iter_mut().take(AGAIN) {
        started.push(start_again(line).await?);
        line.rest();
    }
    let back = kill(&mut scene, all.len()).await?;
    let held = Held { linked, back: idle(&scene).await };
    let shown = all.iter().map(|linked| linked.shown).collect();
    let linked = all.iter().map(|session| session.linked).collect();
    Ok(Idle { sessions, fixed, held, shown, linked, started, back })
}

/// What the gateway holds when nothing has happened for a while, in KiB.
async fn idle(scene: &Scene) -> u64 {
    tokio::time::sleep(IDLE).await;
    scene.process.memory_kib()
}

fn gone(_: Lost) -> RunError {
    RunError::Gone
}

fn stuck(line: &Line, what: &str) -> RunError {
    RunError::Prepare(format!("{} {what}; what was refused last: {}", line.number, line.refused))
}

/// Makes a session and links it, and a text goes each way.
async fn link(mut line: Line) -> Result<Linked, RunError> {
    let began = Instant::now();
    if !line.create(true).await.map_err(gone)? {
        return Err(stuck(&line, "could not be made"));
    }
    let code = loop {
        if let Some(code) = line.qr().await.map_err(gone)? {
            break code;
        }
        if began.elapsed() > PATIENCE {
            return Err(stuck(&line, "shows no code"));
        }
        tokio::time::sleep(LOOK).await;
    };
    let shown = began.elapsed();
    let scanned = Instant::now();
    line.controls.scan(line.number, &code).map_err(|error| stuck(&line, &error.to_string()))?;
    reach(&mut line, "working").await?;
    let linked = scanned.elapsed();
    while line.says("the first and the last").await.map_err(gone)?.is_none() {
        if scanned.elapsed() > PATIENCE {
            return Err(stuck(&line, "does not send"));
        }
        tokio::time::sleep(LOOK).await;
    }
    // What the server has seen is taken a little later.
    while line.hears("an answer").is_none() {
        if scanned.elapsed() > PATIENCE {
            return Err(stuck(&line, "cannot be texted"));
        }
        tokio::time::sleep(LOOK).await;
    }
    line.rest();
    Ok(Linked { line, shown, linked })
}

/// Stops a session and starts it again: how long the start took.
async fn start_again(line: &mut Line) -> Result<Duration, RunError> {
    line.act("stop").await.map_err(gone)?;
    reach(line, "stopped").await?;
    let began = Instant::now();
    match line.comes_up(PATIENCE).await.map_err(gone)? {
        Came::Up => Ok(began.elapsed()),
        Came::Lost | Came::Stuck => Err(stuck(line, "does not start again")),
    }
}

async fn reach(line: &mut Line, status: &str) -> Result<(), RunError> {
    let began = Instant::now();
    while line.status().await.map_err(gone)? != status {
        if began.elapsed() > PATIENCE {
            return Err(stuck(line, &format!("is not {status}")));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Kills the gateway and starts it: how long it takes until it listens, and until so many sessions can send.
async fn kill(scene: &mut Scene, sessions: usize) -> Result<(Duration, Duration), RunError> {
    let began = Instant::now();
    scene.process.kill().await;
    scene.come_up().await?;
    let listens = began.elapsed();
    let mut caller = scene.caller();
    loop {
        let listed = caller.ask("GET", "/api/v1/sessions", Bytes::new(), None).await.map_err(gone)?;
        let seen = listed.body["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        let working = seen.iter().filter(|session| session["status"] == "working").count();
        if working == sessions {
            return Ok((listens, began.elapsed()));
        }
        if began.elapsed() > PATIENCE {
            return Err(RunError::Prepare(format!("{working} of {sessions} sessions came back")));
        }
        tokio::time::sleep(LOOK * 5).await;
    }
}
