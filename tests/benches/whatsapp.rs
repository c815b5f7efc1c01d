//! What idle sessions of the engine that speaks to WhatsApp hold in memory, and how long linking, starting and a crash take.
//!
//!     cargo bench -p portcullis-tests --bench whatsapp
//!     PORTCULLIS_SESSIONS=10,100 cargo bench -p portcullis-tests --bench whatsapp
//!
//! The server is simulated, in this process; the gateway, which is this very executable, is another one. The cost of a session is what
//! the gateway holds beyond that of one with a single session, ten seconds after the last text, and again ten seconds after all
//! sessions have come back from a kill. The goal is 256 KiB. What is timed is looked at every 20 ms, and every 100 ms after a kill.

#![expect(clippy::print_stdout, reason = "the numbers are what the benchmark is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on says where by panicking")]

use std::process::ExitCode;
use std::time::Duration;

use portcullis_tests::sessions::idle::{Held, Idle, measure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|first| first == "serve") {
        return portcullis_gateway::main();
    }
    // Both ends of a thousand connections are more files than are usually allowed.
    let allowed = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: allowed.maximum, ..allowed }).unwrap();
    let wanted = std::env::var("PORTCULLIS_SESSIONS").unwrap_or_else(|_| "10,100,1000".to_owned());
    let sizes: Vec<u64> = wanted.split(',').map(|size| size.trim().parse().unwrap()).collect();
    let program = std::env::current_exe().unwrap();
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for size in sizes {
        say(&tokio.block_on(measure(size, &program)).unwrap());
    }
    ExitCode::SUCCESS
}

fn say(measured: &Idle) {
    let Idle { sessions, fixed, held, back: (listens, works), .. } = measured;
    println!("{sessions} sessions");
    let memory = |what: &str, which: fn(&Held) -> u64| {
        let (all, one, each) = (which(held), which(fixed), measured.each(which));
        println!("  {what} {all} KiB, {one} KiB with one: {each:.0} KiB for each, goal 256 KiB");
    };
    memory("once linked     ", |held| held.linked);
    memory("once back       ", |held| held.back);
    println!("  create to QR     {:.2?}", median(&measured.shown));
    println!("  scan to working  {:.2?}", median(&measured.linked));
    println!("  start to working {:.2?}", median(&measured.started));
    println!("  kill to working  {works:.2?} for all, of which {listens:.2?} until it listens");
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}
