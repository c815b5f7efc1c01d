//! The service against a plain model of what it should do: seeded random sequences of operations, engine facts, time and crashes.
//!
//! `plain` models sessions, `phone` the engine with what is behind it, `rules` the policies and `asked` the operations;
//! `gateway` and `looking` say the same of the service. `play` compares the two after every step, and makes a sequence in
//! which they differ as short as it can.
//!
//! `PORTCULLIS_SEQUENCES` says how many sequences are played, and `PORTCULLIS_SEED` with which they begin; the seeds of the
//! others follow it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod asked;
mod gateway;
mod looking;
mod phone;
mod plain;
mod play;
mod rules;
mod sight;
mod state;
mod steps;
mod talking;

#[path = "../it/clock.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod clock;
#[path = "../it/guests.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod guests;
#[path = "../it/world.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod world;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gateway::Gateway;
use portcullis_policy::{Runtime, RuntimeConfig};

/// How many sequences are played unless somebody says otherwise.
const SEQUENCES: u64 = 2_000;
/// How many sequences one gateway lives through.
const LIFE: u64 = 1_000;
/// Which part of the sequences a process plays.
const PART: &str = "PORTCULLIS_PART";

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text}, which is no number")))
}

#[test]
fn the_service_does_what_its_model_does() {
    let (sequences, seed) =
        (number("PORTCULLIS_SEQUENCES").unwrap_or(SEQUENCES), number("PORTCULLIS_SEED").unwrap_or(1));
    let parts = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64).min(sequences);
    if let Some(part) = number(PART) {
        let numbers = (part..sequences).step_by(usize::try_from(parts).unwrap());
        return play_all(numbers.map(|number| seed.wrapping_add(number)));
    }
    println!("{sequences} sequences from seed {seed} on");
    let began = Instant::now();
    // A process for each core: ids are in the order of time within a process, and every gateway has a clock of its own.
    let play = |part: u64| {
        let mut this = Command::new(std::env::current_exe().unwrap());
        this.args(["--exact", "--nocapture", "the_service_does_what_its_model_does"]);
        this.envs(
            [(PART, part), ("PORTCULLIS_SEQUENCES", sequences), ("PORTCULLIS_SEED", seed)]
                .map(|(name, number)| (name, number.to_string())),
        );
        this.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let playing: Vec<_> = (0..parts).map(play).collect();
    let mut disagreed = false;
    for part in playing {
        let ended = part.wait_with_output().unwrap();
        if !ended.status.success() {
            println!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
            disagreed = true;
        }
    }
    assert!(!disagreed, "the service and its model disagree");
    println!("{sequences} sequences agreed, in {:.1?}", began.elapsed());
}

fn play_all(seeds: impl Iterator<Item = u64>) {
    // One thread for all that blocks: what was handed to it is done in its order.
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    tokio.block_on(async {
        // That a busy machine keeps a plugin waiting is not modelled, and must not be taken for the plugin's failure.
        let config = RuntimeConfig { patience: Duration::from_secs(60), ..RuntimeConfig::default() };
        let runtime = Runtime::new(config).unwrap();
        let mut gateway = Gateway::new(&runtime).await;
        let mut lived = 0;
        for seed in seeds {
            if lived == LIFE {
                check_store(&gateway);
                gateway = Gateway::new(&runtime).await;
                lived = 0;
            }
            lived += 1;
            if let Err(mismatch) = Box::pin(play::check(&mut gateway, &runtime, seed)).await {
                panic!("{mismatch}");
            }
        }
        check_store(&gateway);
    });
}

/// What all these sequences have left behind holds together.
fn check_store(gateway: &Gateway) {
    let report = gateway.world.store.verify().unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}
