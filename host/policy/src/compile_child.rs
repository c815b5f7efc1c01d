//! The process that does what may take a machine down: the gateway's own binary, started anew under a hidden subcommand.
//!
//! It gets a component on stdin, bounds itself before it reads it, and writes the compiled form to stdout.
//! The same goes for a plugin's JSON Schema and the settings that it is to judge: evaluating a schema can take exponential time and any depth of stack.
//! It opens no file, no socket and no state of the gateway; its environment says nothing but how to allocate.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setpriority_process, setrlimit};

use crate::compile::short;
use crate::{machine, schema};

/// The hidden subcommand under which the gateway's binary is to call [`compile_child`].
pub const COMPILE_SUBCOMMAND: &str = "compile-component";

/// The exit status for a component that the compiler refuses; its reason is on stderr.
pub(crate) const EXIT_REFUSED: i32 = 3;
const EXIT_USAGE: u8 = 64;

/// The binary, its stacks and what the allocator reserves without using it, which count as address space but are not the compiler's doing.
const BASE_ADDRESS_SPACE: u64 = 256 << 20;

/// How much the child steps back behind the service when there is too little of the machine for both.
const NICENESS: i32 = 10;

/// What the child is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Compile a component.
    Compile,
    /// Judge settings by a schema; see [`crate::schema`].
    Schema,
}

/// The word for [`Task::Schema`] among the arguments.
const SCHEMA: &str = "schema";

/// What the child may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChildLimits {
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// CPU time.
    pub(crate) cpu: Duration,
}

impl ChildLimits {
    pub(crate) fn to_args(self, task: Task) -> Vec<String> {
        let mut args = vec![self.memory.to_string(), self.cpu.as_secs().max(1).to_string()];
        if task == Task::Schema {
            args.push(SCHEMA.to_owned());
        }
        args
    }

    fn from_args(args: impl IntoIterator<Item = OsString>) -> Option<(Self, Task)> {
        let mut args = args.into_iter();
        let mut number = || args.next()?.to_str()?.parse::<u64>().ok();
        let limits = Self { memory: number()?, cpu: Duration::from_secs(number()?) };
        let task = match args.next() {
            None => Task::Compile,
            Some(word) if word == SCHEMA => Task::Schema,
            Some(_) => return None,
        };
        args.next().is_none().then_some((limits, task))
    }
}

/// Compiles one component from stdin to stdout, within the limits that `args` (what follows the subcommand) name.
///
/// Call it before anything else is started in the process: the limits hold for all of it.
#[must_use]
pub fn compile_child(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some((limits, task)) = ChildLimits::from_args(args) else {
        complain("expected a number of bytes, a number of seconds, and perhaps a task");
        return ExitCode::from(EXIT_USAGE);
    };
    match run(limits, task) {
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
fn run(limits: ChildLimits, task: Task) -> std::io::Result<Result<(), String>> {
    bound(limits)?;
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    let made = match task {
        Task::Compile => machine::compiling_engine()
            .and_then(|engine| engine.precompile_component(&bytes))
            .map_err(|error| short(&error)),
        Task::Schema => schema::judge_packed(&bytes),
    };
    match made {
        Ok(made) => {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&made)?;
            stdout.flush()?;
            Ok(Ok(()))
        }
        Err(refusal) => Ok(Err(refusal)),
    }
}

fn bound(limits: ChildLimits) -> std::io::Result<()> {
    let set = |resource, value| {
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }).map_err(std::io::Error::from)
    };
    set(Resource::As, limits.memory.saturating_add(BASE_ADDRESS_SPACE))?;
    set(Resource::Cpu, limits.cpu.as_secs().max(1))?;
    // Compiling can wait for what somebody waits for. Where that cannot be said, it is compiled all the same.
    let _ = setpriority_process(None, NICENESS);
    // A core file would hold somebody's component.
    set(Resource::Core, 0)
}

/// Tells the parent; if it no longer listens there is nobody to tell.
fn complain(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}
