//! A run with kills: every session has its worker, the gateway is killed over and over, and then everything is compared.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_core::{EventBody, OrgId, OutboxPlace};
use portcullis_store::{ReadError, Store, StoreOptions};
use portcullis_whatsapp_server::{State, Text};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Options;
use super::line::{Came, Line};
use super::scene::Scene;
use super::worker::Worker;
use crate::deliveries::receiver::Dice;
use crate::program::RunError;

/// The moments of a gateway's life at which it is killed, in milliseconds after it has listened.
const MOMENTS: std::ops::Range<u64> = 20..2_000;
/// How long texts may take to arrive when nobody is killed any more.
const ARRIVAL: Duration = Duration::from_secs(60);
/// How many of each kind of fault are shown.
const SHOWN: usize = 8;
/// How many events are read of the store at once.
const PAGE: usize = 1_000;

/// What should not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    PairingLost,
    TextLost,
    TextTwice,
    TextInLost,
    Stuck,
    Finding,
}

/// What a run has found.
#[derive(Debug)]
pub(super) struct Outcome {
    options: Options,
    asked: usize,
    /// How often the gateway was killed, and how often of that while it was starting.
    pub(super) kills: (usize, usize),
    pub(super) pairings: usize,
    told: usize,
    unsent: (usize, usize),
    heard: usize,
    again: usize,
    faults: Vec<(Fault, String)>,
    took: Duration,
}

/// Makes the run.
pub(super) async fn run(options: &Options, kills: usize, program: &Path) -> Result<Outcome, RunError> {
    let began = Instant::now();
    let mut scene = Scene::new(program).await?;
    let (end, over) = watch::channel(false);
    let mut at_work = JoinSet::new();
    for place in 0..options.sessions as u64 {
        let mut worker = Worker::new(Line::new(&scene, place), options.seed);
        let over = over.clone();
        at_work.spawn(async move {
            worker.live(&over).await;
            worker
        });
    }
    let killed = kill(&mut scene, kills, options.seed).await?;
    end.send_replace(true);
    let (workers, mut faults) = settle(at_work.join_all().await).await?;
    arrive(&scene, &workers).await;
    if scene.process.has_ended() {
        return Err(RunError::Gone);
    }
    let state = scene.server.state();
    let pairings = scene.pairings();
    scene.process.kill().await;

    outgoing(&workers, &state, &mut faults);
    let data = |error: &dyn fmt::Display| RunError::Data(error.to_string());
    let store = Store::open(&scene.process.data(), StoreOptions::default()).map_err(|error| data(&error))?;
    let org: OrgId = scene.org.parse().map_err(|_no_id| data(&"the organisation has no id"))?;
    let recorded = recorded(&store, org).map_err(|error| data(&error))?;
    incoming(&workers, &state, &recorded, &mut faults);
    let findings = store.verify().map_err(|error| data(&error))?.findings;
    faults.extend(findings.into_iter().map(|finding| (Fault::Finding, finding)));
    Ok(Outcome {
        options: options.clone(),
        asked: kills,
        kills: killed,
        pairings,
        told: workers.iter().map(|worker| worker.told.len()).sum(),
        unsent: workers.iter().fold((0, 0), |sum, worker| (sum.0 + worker.unsent.0, sum.1 + worker.unsent.1)),
        heard: workers.iter().map(|worker| worker.heard.len()).sum(),
        again: recorded.values().map(|times| times - 1).sum(),
        faults,
        took: began.elapsed(),
    })
}

/// Kills the gateway so many times, at moments that the seed decides, and one time out of four while it starts.
async fn kill(scene: &mut Scene, kills: usize, seed: u64) -> Result<(usize, usize), RunError> {
    let mut dice = Dice::new(seed ^ 0x5EED);
    let mut killed = (0, 0);
    while killed.0 < kills {
        let moment = MOMENTS.start + dice.below(MOMENTS.end - MOMENTS.start);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        if scene.process.has_ended() {
            return Err(RunError::Gone);
        }
        scene.process.kill().await;
        killed.0 += 1;
        while dice.below(4) == 0 {
            scene.process.spawn()?;
            let most = u64::try_from(scene.start.as_millis()).unwrap_or(u64::MAX).max(1);
            tokio::time::sleep(Duration::from_millis(dice.below(most))).await;
            scene.process.kill().await;
            killed = (killed.0 + 1, killed.1 + 1);
        }
        scene.come_up().await?;
    }
    Ok(killed)
}

/// Brings every session to where it is connected, and says which do not come there.
async fn settle(workers: Vec<Worker>) -> Result<(Vec<Worker>, Vec<(Fault, String)>), RunError> {
    let mut at_work = JoinSet::new();
    for mut worker in workers {
        at_work.spawn(async move {
            let came = worker.settle().await;
            (worker, came)
        });
    }
    let (mut workers, mut faults) = (Vec::new(), Vec::new());
    for (worker, came) in at_work.join_all().await {
        let fault = match came.map_err(|_lost| RunError::Gone)? {
            Came::Up => None,
            Came::Lost => Some(Fault::PairingLost),
            Came::Stuck => Some(Fault::Stuck),
        };
        let Line { number, id, refused, .. } = &worker.line;
        faults.extend(fault.map(|fault| (fault, format!("{number}, {id:?}; what was refused last: {refused}"))));
        workers.push(worker);
    }
    Ok((workers, faults))
}

/// Waits until every text has come to where it belongs, or does not.
async fn arrive(scene: &Scene, workers: &[Worker]) {
    let began = Instant::now();
    while began.elapsed() < ARRIVAL {
        let (state, mut faults) = (scene.server.state(), Vec::new());
        outgoing(workers, &state, &mut faults);
        let sent = Texts::of(&state);
        let missing = |worker: &Worker| worker.heard.iter().any(|heard| sent.is_awaited(worker, heard));
        let is_lost = faults.iter().any(|(fault, _)| *fault == Fault::TextLost);
        if !is_lost && !workers.iter().any(missing) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The texts that the server has seen, by who has sent them and by their ids.
struct Texts<'s> {
    state: &'s State,
    /// Of the linked devices of a number.
    sent: HashMap<(u64, &'s str), &'s Text>,
    /// Of phones, for a number.
    phones: HashMap<(u64, &'s str), &'s Text>,
}

impl<'s> Texts<'s> {
    fn of(state: &'s State) -> Self {
        let (phones, sent): (Vec<&Text>, Vec<&Text>) = state.texts.iter().partition(|text| text.device == 0);
        let sent = sent.into_iter().map(|text| ((text.number, text.id.as_str()), text)).collect();
        let phones = phones.into_iter().map(|text| ((text.to, text.id.as_str()), text)).collect();
        Self { state, sent, phones }
    }

    /// Whether a device that got this text has said so.
    fn is_acknowledged(&self, number: u64, (device, id): &(u16, String)) -> bool {
        let text = self.phones.get(&(number, id.as_str()));
        let mut copies = text.iter().flat_map(|text| &text.copies);
        copies.any(|copy| copy.device == *device && copy.receipt.is_some())
    }

    /// Whether a device that got this text is still linked and has not said so.
    fn is_awaited(&self, worker: &Worker, heard: &(u16, String)) -> bool {
        let number = worker.line.number;
        let is_linked = self.state.device(number, heard.0).is_some_and(|device| device.linked);
        is_linked && !worker.line.has_left(heard.0) && !self.is_acknowledged(number, heard)
    }
}

/// Compares what callers were told that was sent with what the server took and phones have read.
fn outgoing(workers: &[Worker], state: &State, faults: &mut Vec<(Fault, String)>) {
    let texts = Texts::of(state);
    for worker in workers {
        let number = worker.line.number;
        for (id, words) in &worker.told {
            let text = texts.sent.get(&(number, id.as_str()));
            let is_read = text.is_some_and(|text| text.accepted > 0 && text.text.as_ref() == Some(words));
            if !is_read {
                faults.push((Fault::TextLost, format!("{id} of {number}: {text:?}")));
            }
        }
    }
    let mut ids: HashMap<(u64, &str), HashSet<&str>> = HashMap::new();
    for ((number, id), text) in &texts.sent {
        if text.accepted > 1 || text.decrypted > 1 {
            faults.push((Fault::TextTwice, format!("{text:?}")));
        }
        if let Some(words) = &text.text {
            ids.entry((*number, words.as_str())).or_default().insert(id);
        }
    }
    let several = ids.into_iter().filter(|(_, ids)| ids.len() > 1);
    faults.extend(several.map(|((number, words), ids)| (Fault::TextTwice, format!("{number}: {words:?} as {ids:?}"))));
}

/// Compares what phones have sent with what the organisation was told.
fn incoming(
    workers: &[Worker],
    state: &State,
    recorded: &HashMap<(String, String), usize>,
    faults: &mut Vec<(Fault, String)>,
) {
    let texts = Texts::of(state);
    for worker in workers {
        let session = worker.line.id.clone().unwrap_or_default();
        for heard in &worker.heard {
            let (device, id) = heard;
            let is_recorded = recorded.contains_key(&(session.clone(), id.clone()));
            let lost = if texts.is_awaited(worker, heard) {
                "it was not acknowledged"
            } else if texts.is_acknowledged(worker.line.number, heard) && !is_recorded {
                "it was acknowledged, and nobody was told"
            } else {
                continue;
            };
            let what = format!("{id} for {} device {device}: {lost}; recorded: {is_recorded}", worker.line.number);
            faults.push((Fault::TextInLost, what));
        }
    }
}

/// How often the organisation was told of each text, by its session and WhatsApp's id.
fn recorded(store: &Store, org: OrgId) -> Result<HashMap<(String, String), usize>, ReadError> {
    let snapshot = store.snapshot()?;
    let (mut recorded, mut after) = (HashMap::new(), OutboxPlace::default());
    loop {
        let page = snapshot.events_after(org, after, PAGE)?;
        let Some(last) = page.last() else { return Ok(recorded) };
        after = last.place;
        for placed in &page {
            if let (Some(session), EventBody::MessageIn { message, .. }) = (placed.event.session, &placed.event.body) {
                *recorded.entry((session.to_string(), message.clone())).or_insert(0) += 1;
            }
        }
    }
}

impl Outcome {
    pub(super) fn is_good(&self) -> bool {
        let is_done = self.kills.0 >= self.asked && self.pairings >= self.options.sessions;
        self.faults.is_empty() && is_done && self.told > 0 && self.heard > 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { sessions, seed, .. } = self.options;
        writeln!(f, "seed {seed}, {sessions} sessions, {:.1} s", self.took.as_secs_f64())?;
        writeln!(f, "kills              {}, {} of them while starting", self.kills.0, self.kills.1)?;
        writeln!(f, "pairings confirmed {}", self.pairings)?;
        writeln!(f, "texts acknowledged {}", self.told)?;
        writeln!(f, "texts refused      {}, and {} were not answered", self.unsent.0, self.unsent.1)?;
        writeln!(f, "texts in           {}", self.heard)?;
        writeln!(f, "  told again       {}", self.again)?;
        for (name, of) in [
            ("pairings lost", Fault::PairingLost),
            ("texts lost", Fault::TextLost),
            ("texts sent twice", Fault::TextTwice),
            ("texts in lost", Fault::TextInLost),
            ("sessions stuck", Fault::Stuck),
            ("findings", Fault::Finding),
        ] {
            let faults = self.faults.iter().filter(|(fault, _)| *fault == of);
            writeln!(f, "{name:<18} {}", faults.clone().count())?;
            for (_, what) in faults.take(SHOWN) {
                writeln!(f, "  {what}")?;
            }
        }
        Ok(())
    }
}
