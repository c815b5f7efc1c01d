//! A crash run: a gateway that is killed over and over, and held against what it has acknowledged. See [`portcullis_tests::crash`].
//!
//!     cargo run --release -p portcullis-tests --bin portcullis-crash -- --kills 1000
//!
//! Called like the gateway (`serve …`), it is the gateway: the run starts its own executable again.

#![expect(clippy::print_stdout, reason = "the report is what the run is for")]
#![expect(clippy::print_stderr, reason = "and so is what went wrong")]

use std::process::ExitCode;

use portcullis_tests::crash::{Options, run};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| !first.starts_with("--")) {
        return portcullis_gateway::main();
    }
    let Some(options) = Options::parse(&arguments) else {
        eprintln!("usage: portcullis-crash [--kills N] [--seed N]");
        return ExitCode::FAILURE;
    };
    let outcome = std::env::current_exe().map_err(|error| error.to_string()).and_then(|program| {
        let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let tokio = tokio.map_err(|error| error.to_string())?;
        tokio.block_on(run(&options, &program)).map_err(|error| error.to_string())
    });
    match outcome {
        Ok(report) => {
            println!("{report}");
            if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("the run could not be made: {error}");
            ExitCode::FAILURE
        }
    }
}
