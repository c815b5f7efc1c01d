//! The process that compiles: the gateway's own binary, started anew under a hidden subcommand.
//!
//! It gets a component on stdin, bounds itself before it reads it, and writes the compiled form to stdout.
//! It opens no file, no socket and no state of the gateway; its environment is empty.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::compile::short;
use crate::machine;

/// The hidden subcommand under which the gateway's binary is to call [`compile_child`].
pub const COMPILE_SUBCOMMAND: &str = "compile-component";

/// The exit status for a component that the compiler refuses; its reason is on stderr.
pub(crate) const EXIT_REFUSED: i32 = 3;
const EXIT_USAGE: u8 = 64;

/// The binary, its stacks and what the allocator reserves without using it, which count as address space but are not the compiler's doing.
const BASE_ADDRESS_SPACE: u64 = 256 << 20;

/// What the child may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChildLimits {
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// CPU time.
    pub(crate) cpu: Duration,
}

impl ChildLimits {
    pub(crate) fn to_args(self) -> [String; 2] {
        [self.memory.to_string(), self.cpu.as_secs().max(1).to_string()]
    }

    fn from_args(args: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut numbers = args.into_iter().map(|arg| arg.to_str()?.parse::<u64>().ok());
        let (memory, cpu) = (numbers.next()??, numbers.next()??);
        if numbers.next().is_some() {
            return None;
        }
        Some(Self { memory, cpu: Duration::from_secs(cpu) })
    }
}

/// Compiles one component from stdin to stdout, within the limits that `args` (what follows the subcommand) name.
///
/// Call it before anything else is started in the process: the limits hold for all of it.
#[must_use]
pub fn compile_child(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(limits) = ChildLimits::from_args(args) else {
        complain("expected a number of bytes and a number of seconds");
        return ExitCode::from(EXIT_USAGE);
    };
    match run(limits) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(refusal)) => {
            complain(&refusal);
            ExitCode::from(u8::try_from(EXIT_REFUSED).unwrap_or(1))
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// The outer error is about the process, the inner one about the component.
fn run(limits: ChildLimits) -> std::io::Result<Result<(), String>> {
    bound(limits)?;
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    let compiled = machine::compiling_engine().and_then(|engine| engine.precompile_component(&bytes));
    match compiled {
        Ok(compiled) => {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&compiled)?;
            stdout.flush()?;
            Ok(Ok(()))
        }
        Err(error) => Ok(Err(short(&error))),
    }
}

fn bound(limits: ChildLimits) -> std::io::Result<()> {
    let set = |resource, value| {
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }).map_err(std::io::Error::from)
    };
    set(Resource::As, limits.memory.saturating_add(BASE_ADDRESS_SPACE))?;
    set(Resource::Cpu, limits.cpu.as_secs().max(1))?;
    // A core file would hold somebody's component.
    set(Resource::Core, 0)
}

/// Tells the parent; if it no longer listens there is nobody to tell.
fn complain(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}
