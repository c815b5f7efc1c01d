//! A run of WhatsApp sessions, with kills or for long, against a simulated server: see [`portcullis_tests::sessions`].
//!
//!     cargo run --release -p portcullis-tests --bin portcullis-sessions -- --kills 25
//!     cargo run --release -p portcullis-tests --bin portcullis-sessions -- --soak 288
//!
//! Called like the gateway (`serve …`), it is the gateway: the run starts its own executable again.

use std::process::ExitCode;

use portcullis_tests::program;
use portcullis_tests::sessions::{Options, Report, run};

fn main() -> ExitCode {
    let usage = "portcullis-sessions [--kills N | --soak ROUNDS] [--sessions N] [--seed N]";
    program::play(usage, Options::parse, async |options, path| run(&options, &path).await, Report::is_good)
}
