//! How an attack is made and judged: a component, a question, and the end that is documented in `docs/security.md`.
//!
//! Every attack is made three times on a runtime with very few places, and an honest plugin is asked after each.
//! So a place that is not given back, a plugin that only ends well the first time, and a runtime that is worse afterwards are all found.

use std::sync::Arc;

use portcullis_core::{Decision, EventId, FollowUp, Grant, PluginFailure};
use portcullis_policy::{AdmissionError, Event, Link, LogLine, Outcome, PaceUsage, Runtime, RuntimeConfig};
use portcullis_testing::Guest;
use tokio::sync::{Mutex, MutexGuard};

use crate::bed::{MEMORY, NOW, Snapshot, admit, answer, ask, bind, config, delete, load, org_id};

/// What is asked of a guest, once it was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Gate,
    Settings,
    After,
    Event,
    Timer,
    Pace,
}

/// How an attack ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    /// The upload is refused with this code.
    Refused(&'static str),
    /// The upload is refused, because the guest failed like this when it was asked what it is.
    Undescribed(PluginFailure),
    /// It is admitted, and the call fails.
    Fails(PluginFailure),
    /// It is admitted, and the call answers: the attack came to nothing.
    Decides(Decision),
    Follows(Vec<FollowUp>),
    /// Settings that the guest refuses, or limits that it gives.
    Answers,
    /// It is admitted and never asked.
    Ignored,
}

impl End {
    pub(crate) const ALLOWED: Self = Self::Decides(Decision::Allow);
    pub(crate) const FUEL: Self = Self::Fails(PluginFailure::Fuel);
    pub(crate) const TRAP: Self = Self::Fails(PluginFailure::Trap);
    pub(crate) const MEMORY: Self = Self::Fails(PluginFailure::Memory);
    pub(crate) const BAD_OUTPUT: Self = Self::Fails(PluginFailure::BadOutput);
    pub(crate) const DEADLINE: Self = Self::Fails(PluginFailure::Deadline);
}

/// An attack.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) component: Vec<u8>,
    pub(crate) asked: Asked,
    pub(crate) grants: Vec<Grant>,
    pub(crate) end: End,
}

/// An attack on a gate.
pub(crate) fn attack(name: &'static str, guest: &Guest, end: End) -> Attack {
    upload(name, guest.build(), end)
}

/// An attack by bytes.
pub(crate) fn upload(name: &'static str, component: Vec<u8>, end: End) -> Attack {
    let grants = vec![Grant::Kv, Grant::Sessions, Grant::Secrets];
    Attack { name, component, asked: Asked::Gate, grants, end }
}

impl Attack {
    pub(crate) fn asking(self, asked: Asked) -> Self {
        Self { asked, ..self }
    }

    pub(crate) fn granted(self, grants: &[Grant]) -> Self {
        Self { grants: grants.to_vec(), ..self }
    }

    /// Makes the attack; how it ended, and at what cost.
    async fn make(&self, runtime: &Runtime) -> (End, Cost) {
        match admit(runtime, self.component.clone()).await {
            Ok(admitted) => self.ask(runtime, &bind(admitted, &self.grants)).await,
            Err(AdmissionError::DescribeFailed(failure)) => (End::Undescribed(failure), Cost::default()),
            Err(error) => {
                let words = error.to_string();
                assert!(words.len() < 4096 && !words.contains(char::is_control), "{}: {words}", self.name);
                (End::Refused(error.code()), Cost::default())
            }
        }
    }

    async fn ask(&self, runtime: &Runtime, link: &Link) -> (End, Cost) {
        let reads = Arc::new(Snapshot::default());
        let links = std::slice::from_ref(link);
        let observed = match self.asked {
            Asked::Gate => {
                let mut run = runtime.gate(links, &ask(), &delete(), reads).await;
                let Some(answer) = run.answers.pop() else { return (End::Ignored, Cost::default()) };
                let cost = Cost { fuel: answer.fuel, memory: answer.memory, logs: run.logs };
                return (answer.result.map_or_else(End::Fails, End::Decides), cost);
            }
            Asked::Settings => {
                let judged = runtime.validate_settings(&link.version, "{}", org_id()).await;
                let end = match judged {
                    Ok(()) | Err(portcullis_policy::SettingsError::Refused { .. }) => End::Answers,
                    Err(portcullis_policy::SettingsError::Failed(failure)) => End::Fails(failure),
                    Err(_unfit) => End::Refused("settings"),
                };
                return (end, Cost::default());
            }
            Asked::Pace => {
                let paced = runtime.pace(link, &ask(), PaceUsage::default(), reads).await;
                return (paced.map_or_else(End::Fails, |_| End::Answers), Cost::default());
            }
            Asked::After => runtime.observe(links, &ask(), &delete(), &Outcome::Done, reads).await.remove(0),
            Asked::Event => runtime.observe_event(links, &ask(), &event(), reads).await.remove(0),
            Asked::Timer => runtime.fire_timer(link, &ask(), "key", "payload", reads).await,
        };
        let cost = Cost { fuel: observed.fuel, memory: 0, logs: observed.logs };
        (observed.result.map_or_else(End::Fails, End::Follows), cost)
    }
}

fn event() -> Event {
    Event { id: EventId::from_bytes([1; 16]), name: "fact".into(), at: NOW, session: None, json: "{}".into() }
}

/// What a call has cost.
#[derive(Default)]
struct Cost {
    fuel: u64,
    memory: u64,
    logs: Vec<LogLine>,
}

/// Tables are worked through in turn, so that what one of them does to the process's memory can be told.
static TURN: Mutex<()> = Mutex::const_new(());

/// Takes a turn.
pub(crate) async fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}

/// Makes the attacks, on runtimes that are bounded by fuel.
pub(crate) async fn check(attacks: &[Attack]) {
    check_within(config(), attacks).await;
}

/// Makes the attacks, on runtimes with these bounds.
pub(crate) async fn check_within(config: RuntimeConfig, attacks: &[Attack]) {
    let _turn = turn().await;
    let fuel = (config.gate_fuel, config.background_fuel);
    let runtime = Runtime::new(config).unwrap();
    round(&runtime, fuel, attacks).await;
    let before = resident();
    for _ in 0..2 {
        round(&runtime, fuel, attacks).await;
    }
    let grown = resident().saturating_sub(before);
    // Two more rounds of the same leave nothing behind; the slack is for the allocator and for what compilers keep.
    assert!(grown < 64 << 20, "two more rounds left {} MiB behind", grown >> 20);
}

async fn round(runtime: &Arc<Runtime>, (gate_fuel, background_fuel): (u64, u64), attacks: &[Attack]) {
    let honest = bind(admit(runtime, Guest::allowing().named("honest").build()).await.unwrap(), &[]);
    let bytes = Guest::allowing().named("honest").build();
    let mut surprises = Vec::new();
    for attack in attacks {
        let (end, cost) = attack.make(runtime).await;
        if end != attack.end {
            surprises.push(format!("{} ended as {end:?}, not as {:?}: {:?}", attack.name, attack.end, cost.logs));
        }
        let budget = if attack.asked == Asked::Gate { gate_fuel } else { background_fuel };
        assert!(cost.fuel <= budget, "{} used {} units of fuel", attack.name, cost.fuel);
        assert!(cost.memory <= u64::try_from(MEMORY).unwrap(), "{} held {} bytes", attack.name, cost.memory);
        assert!(cost.logs.len() <= 65, "{} wrote {} lines", attack.name, cost.logs.len());
        load(runtime, &honest, &bytes).await;
        assert_eq!(answer(runtime, &honest).await.result, Ok(Decision::Allow), "after {}", attack.name);
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

/// Bytes of memory that this process holds.
pub(crate) fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// The most bytes of memory that this process has held since [`forget_peak`].
pub(crate) fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok()).unwrap_or(0) * 1024
}

/// Has the process forget the most memory that it has held.
pub(crate) fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
