//! How long a gateway takes to be ready on data of many sessions, and what it holds in memory then.
//!
//!     cargo bench -p portcullis-tests --bench boot
//!     PORTCULLIS_SESSIONS=100000 PORTCULLIS_PENDING=10000 cargo bench -p portcullis-tests --bench boot
//!
//! The sessions are stopped, and so many of them wait to be deleted. The data is written once; the gateway, which is this very
//! executable, is then started several times on it. The goals are two seconds and 32 KiB for each session, everything included.

#![expect(clippy::print_stdout, reason = "the numbers are what the benchmark is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on says where by panicking")]

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use portcullis_core::{Intent, Labels, Names, Org, OrgId, Plan, PluginRules, Quotas, Session, SessionId, Timestamp};
use portcullis_store::{Commit, Store, StoreOptions, Write};
use portcullis_tests::process::Process;

/// How many sessions a commit makes.
const AT_ONCE: u64 = 500;
/// How often the gateway is started.
const STARTS: usize = 5;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|first| first == "serve") {
        return portcullis_gateway::main();
    }
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    tokio.block_on(measure(number("PORTCULLIS_SESSIONS", 100_000), number("PORTCULLIS_PENDING", 10_000)));
    ExitCode::SUCCESS
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

async fn measure(sessions: u64, pending: u64) {
    let mut process = Process::new(&std::env::current_exe().unwrap(), "").unwrap();
    // The first start makes the keys and the operator, and shows what an empty gateway holds.
    process.start().await.unwrap();
    let empty = process.memory();
    process.kill().await;
    let began = Instant::now();
    write(&process.data(), sessions, pending).await;
    println!("{sessions} sessions, {pending} of them to be deleted, written in {:.1?}", began.elapsed());
    let mut times = Vec::new();
    let mut held = 0;
    for _ in 0..STARTS {
        let began = Instant::now();
        process.start().await.unwrap();
        times.push(began.elapsed());
        held = process.memory().max(held);
        process.kill().await;
    }
    times.sort();
    let (median, worst) = (times[STARTS / 2], times[STARTS - 1]);
    println!("ready after {median:.2?} (median of {STARTS}; at most {worst:.2?}), goal {:?}", Duration::from_secs(2));
    let each = held as f64 * 1024.0 / sessions as f64;
    println!("{held} MiB held, {empty} MiB by an empty gateway: {each:.1} KiB for each session in all, goal 32 KiB");
}

/// Sessions as they are when they have been used and stopped.
async fn write(data: &Path, sessions: u64, pending: u64) {
    let store = Store::open(data, StoreOptions::default()).unwrap();
    let now = Timestamp::from_millis(1_795_000_000_000);
    let org = OrgId::new(now, 1);
    let mut commit = Commit::new(org, now);
    commit.writes.push(Write::PutOrg(Org {
        id: org,
        name: "bench".to_owned(),
        plan: Plan::default(),
        quotas: Quotas { sessions: u32::MAX, ..Quotas::default() },
        labels: Labels::new(),
        plugin_rules: PluginRules::default(),
        suspended: false,
        erasing: false,
        generation: 1,
        created_at: now,
        updated_at: now,
    }));
    store.commit(commit).await.unwrap();
    for first in (0..sessions).step_by(usize::try_from(AT_ONCE).unwrap()) {
        let mut commit = Commit::new(org, now);
        for unique in first..sessions.min(first + AT_ONCE) {
            let names = Names::new(u128::from(unique) << 48 | u128::from(unique), Some(format!("instance-{unique}")));
            let mut session = Session::new(SessionId::new(now, u128::from(unique)), org, names, now);
            session.display_name = Some(format!("Sales team number {unique}"));
            session.labels = [("team".to_owned(), "sales".to_owned()), ("row".to_owned(), unique.to_string())].into();
            if unique < pending {
                let due = Timestamp::from_millis(4_000_000_000_000);
                session.intent = Intent::Removed { due, reason: "grace".to_owned(), since: now, was_running: false };
            }
            commit.writes.push(Write::PutSession(session));
        }
        store.commit(commit).await.unwrap();
    }
}
