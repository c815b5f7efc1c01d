//! A crash run: a gateway that is killed over and over, and held against what it has acknowledged. See [`portcullis_tests::crash`].
//!
//!     cargo run --release -p portcullis-tests --bin portcullis-crash -- --kills 1000
//!
//! Called like the gateway (`serve …`), it is the gateway: the run starts its own executable again.

use std::process::ExitCode;

use portcullis_tests::crash::{Options, Report, run};
use portcullis_tests::program;

fn main() -> ExitCode {
    let usage = "portcullis-crash [--kills N] [--seed N]";
    program::play(usage, Options::parse, async |options, path| run(&options, &path).await, Report::is_good)
}
