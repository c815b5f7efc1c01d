//! The gateway as a program: command line, configuration, wiring, boot, signals and drain.
//!
//! Everything is in this library so that the tests' own binary can be the gateway too.
//! Only this crate reads arguments, the environment and configuration files, and only this crate writes to stdout.

mod administration;
mod backup;
mod boot;
mod catalogue;
mod check;
mod cli;
mod config;
mod damage;
mod demo;
mod ledger;
mod master_key;
mod memory;
mod plugin;
mod terminal;
mod whatsapp;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mimalloc::MiMalloc;

use crate::cli::{Cli, Command};

/// What one thread allocates here another often frees: a request is read by one, its commit written and its delivery sent by others.
/// The system's allocator makes them wait for each other at that; this one took a third off a delivery. It asks for no huge pages,
/// because one of them would be held by each page of it that is in use.
#[global_allocator]
pub static ALLOCATOR: MiMalloc = MiMalloc;

/// How long a thread for what blocks waits for more. A thousand sessions that start make dozens of threads, each of which holds a
/// stack and pages of the allocator; making one anew takes less than the commit that it is made for.
const KEEP_THREADS: Duration = Duration::from_secs(2);

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    // A compile of untrusted bytes is this program again, in a process that can be killed; it needs nothing of the rest.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == portcullis_policy::COMPILE_SUBCOMMAND) {
        return portcullis_policy::compile_child(arguments);
    }
    let cli = Cli::parse();
    damage::watch();
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().thread_keep_alive(KEEP_THREADS).build();
    let runtime = match tokio {
        Ok(runtime) => runtime,
        Err(error) => return terminal::fail(&error),
    };
    let ended = runtime.block_on(async {
        match cli.command {
            Command::Serve(arguments) => boot::serve(arguments).await,
            Command::Demo(arguments) => demo::play(arguments).await,
            Command::Check(arguments) => check::check(arguments).await,
            Command::Backup(arguments) => backup::back_up(&cli.remote, arguments).await,
            Command::Restore(arguments) => backup::restore(arguments).await,
            Command::MasterKey(command) => administration::master_key(cli.remote, command).await,
            Command::OperatorKey(arguments) => boot::replace_operator_key(arguments).await,
            Command::Org(command) => administration::org(cli.remote, command).await,
            Command::Key(command) => administration::key(cli.remote, command).await,
            Command::Plugin(command) => plugin::plugin(cli.remote, command).await,
            Command::Publisher(command) => plugin::publisher(cli.remote, command).await,
            Command::Session(command) => administration::session(cli.remote, command).await,
            Command::Audit(command) => ledger::audit(cli.remote, command).await,
            Command::Receipt(command) => ledger::receipt(cli.remote, command).await,
            Command::Decision(command) => administration::decision(cli.remote, command).await,
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => terminal::fail(error.as_ref()),
    }
}

/// Whatever a command ended with; nobody branches on it, it is only shown.
type Failure = Box<dyn std::error::Error + Send + Sync>;
