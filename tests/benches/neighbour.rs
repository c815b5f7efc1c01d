//! What a hostile neighbour costs: an organisation's times beside those without the attack, in one run against the real program.
//!
//!     cargo bench -p portcullis-tests --bench neighbour -- --seconds 30
//!
//! Both are measured in turns. The goal is at most twice the time at either percentile.

#![expect(clippy::print_stdout, reason = "the table is what the benchmark is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on says where by panicking")]
#![expect(dead_code, reason = "shared with the tests, which use all of it")]

#[path = "../it/client.rs"]
mod client;
#[path = "../it/gateway.rs"]
mod gateway;
#[path = "../it/neighbour_street.rs"]
mod neighbour_street;
#[path = "../it/world.rs"]
mod world;

use std::time::{Duration, Instant};

use neighbour_street::{Street, Times};

/// How many requests of each honest client make a turn.
const TURN: u32 = 50;

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--seconds").skip(1);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(10);
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    tokio.block_on(measure(Duration::from_secs(seconds)));
}

async fn measure(long: Duration) {
    let street = Street::start().await;
    let (mut quiet, mut attacked, mut answered) = (Times::default(), Times::default(), 0);
    // The first requests pay for what later ones find warm.
    street.honest(TURN).await;
    let began = Instant::now();
    while began.elapsed() < long {
        quiet.add(street.honest(TURN).await);
        let (times, more) = street.under_attack(TURN).await;
        attacked.add(times);
        answered += more;
    }
    println!("{}", quiet.line("without the attack"));
    println!("{}", attacked.line("under attack"));
    let ratio = |quiet: Duration, attacked: Duration| attacked.as_secs_f64() / quiet.as_secs_f64();
    println!(
        "ratio                p50 {:.2}   p99 {:.2}   (goal <= 2; the attacker had {answered} answers)",
        ratio(quiet.percentile(50), attacked.percentile(50)),
        ratio(quiet.percentile(99), attacked.percentile(99)),
    );
}
