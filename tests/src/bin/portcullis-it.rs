//! The gateway's program, for integration tests to start and kill.

use std::process::ExitCode;

fn main() -> ExitCode {
    portcullis_gateway::main()
}
