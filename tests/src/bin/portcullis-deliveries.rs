//! A run of deliveries to receivers that fail, by a gateway that is killed: see [`portcullis_tests::deliveries`].
//!
//!     cargo run --release -p portcullis-tests --bin portcullis-deliveries -- --events 100000 --kills 50
//!
//! Called like the gateway (`serve …`), it is the gateway: the run starts its own executable again.

use std::process::ExitCode;

use portcullis_tests::deliveries::{Options, Report, run};
use portcullis_tests::program;

fn main() -> ExitCode {
    let usage = "portcullis-deliveries [--events N] [--sessions N] [--kills N] [--seed N]";
    program::play(usage, Options::parse, async |options, path| run(&options, &path).await, Report::is_good)
}
