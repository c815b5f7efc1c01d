//! What the programs of long runs have in common: each is the gateway when it is called like one, and says how its run went.

#![expect(clippy::print_stdout, reason = "the report is what a run is for")]
#![expect(clippy::print_stderr, reason = "and so is what went wrong")]

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::process::ProcessError;

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The gateway does not run.
    #[error("the gateway does not run: {0}")]
    Gateway(#[from] ProcessError),
    /// Something that has to be there first could not be made.
    #[error("cannot prepare the run: {0}")]
    Prepare(String),
    /// Its data cannot be read.
    #[error("cannot read the gateway's data: {0}")]
    Data(String),
    /// It ended by itself.
    #[error("the gateway does not answer although nobody has killed it")]
    Gone,
}

/// A program's `main`: the gateway's own if the first argument is a command of it, and otherwise a run, which starts this very executable
/// as the gateway. It succeeds if the run's report is good.
pub fn play<O, R: Display>(
    usage: &str,
    parse: impl FnOnce(&[String]) -> Option<O>,
    run: impl AsyncFnOnce(O, PathBuf) -> Result<R, RunError>,
    is_good: impl FnOnce(&R) -> bool,
) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| !first.starts_with("--")) {
        return portcullis_gateway::main();
    }
    let Some(options) = parse(&arguments) else {
        eprintln!("usage: {usage}");
        return ExitCode::FAILURE;
    };
    let outcome = std::env::current_exe().map_err(|error| error.to_string()).and_then(|program| {
        let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let tokio = tokio.map_err(|error| error.to_string())?;
        tokio.block_on(run(options, program)).map_err(|error| error.to_string())
    });
    match outcome {
        Ok(report) => {
            println!("{report}");
            if is_good(&report) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("the run could not be made: {error}");
            ExitCode::FAILURE
        }
    }
}
