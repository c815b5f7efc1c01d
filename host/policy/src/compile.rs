//! Compiling a component, in a child process or in this one.
//!
//! Compile time and memory grow with what the uploader chose to write, which wasmtime does not bound.
//! The child is killed at a wall-clock limit and bounds its own memory and CPU time (see [`crate::compile_child`]); what it says and makes is read up to a bound.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::compile_child::{COMPILE_SUBCOMMAND, ChildLimits, EXIT_REFUSED, Task};
use crate::{ClassBounds, Compiler, trusted};

/// How much machine code one byte of a component may become, and how much there may be for nothing.
const GROWTH: usize = 32;
const BASE_OUTPUT: usize = 4 << 20;
const MESSAGE_BYTES: usize = 4096;
/// The child limits its address space, so the allocator of the gateway's binary must not reserve any in advance.
/// Source: the options of mimalloc.
const ALLOCATOR: [(&str, &str); 1] = [("MIMALLOC_ARENA_RESERVE", "0")];

/// Why a component was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The compiler was not done in time.
    #[error("the compiler was not done within its time")]
    TimedOut,
    /// The compiler ran out of memory.
    #[error("the compiler ran out of memory")]
    OutOfMemory,
    /// The compiled form is larger than is kept.
    #[error("the compiled component is too large")]
    OutputTooLarge,
    /// The compiler refused the component.
    #[error("the compiler refused the component: {why}")]
    Refused {
        /// Why, in the compiler's words.
        why: String,
    },
    /// The compiled component does not fit the machine that plugins run on.
    #[error("the compiled component does not fit: {why}")]
    Unfit {
        /// What does not fit.
        why: String,
    },
    /// The compiler's process could not be run to its end.
    #[error("the compiler's process failed")]
    Process(#[source] std::io::Error),
    /// The compiler's process ended in a way that says nothing about the component.
    #[error("the compiler's process ended with {status}")]
    Ended {
        /// How.
        status: String,
    },
}

impl CompileError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TimedOut => "compile_timeout",
            Self::OutOfMemory | Self::OutputTooLarge => "compile_out_of_memory",
            Self::Refused { .. } => "invalid_component",
            Self::Unfit { .. } => "too_many_resources",
            Self::Process(_) | Self::Ended { .. } => "compile_failed",
        }
    }

    /// What whoever uploaded can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::TimedOut => "it took too long; make it smaller and split its largest functions",
            Self::OutOfMemory | Self::OutputTooLarge => {
                "it took too much memory; make it smaller and split its largest functions"
            }
            Self::Refused { .. } => "it is not valid; validate it with `wasm-tools validate`",
            Self::Unfit { .. } => "it needs more memory, tables or instances than a plugin gets; make them smaller",
            Self::Process(_) | Self::Ended { .. } => "the compiler failed; tell the operator and try again",
        }
    }
}

/// Machine code that our own compiler made of a component.
pub(crate) struct Code(Vec<u8>);

impl Code {
    /// Code that this gateway compiled and kept, and that nobody has touched since.
    pub(crate) fn kept(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Compiles `bytes` for `engine`. Gives the bytes back.
pub(crate) async fn compile(
    engine: &Engine,
    compiler: &Compiler,
    bounds: &ClassBounds,
    bytes: Vec<u8>,
) -> Result<(Code, Vec<u8>), CompileError> {
    match compiler {
        Compiler::InProcess => {
            let engine = engine.clone();
            let work = move || (engine.precompile_component(&bytes), bytes);
            let (compiled, bytes) = tokio::task::spawn_blocking(work).await.map_err(gone)?;
            Ok((Code(compiled.map_err(|error| CompileError::Refused { why: short(&error) })?), bytes))
        }
        Compiler::Child { executable } => {
            let limits = ChildLimits { memory: bounds.compile_memory, cpu: bounds.compile_wall };
            let most = bytes.len().saturating_mul(GROWTH).saturating_add(BASE_OUTPUT);
            let compiled = in_child(executable, Task::Compile, limits, &bytes, most);
            let compiled = tokio::time::timeout(bounds.compile_wall, compiled).await;
            Ok((Code(compiled.map_err(|_| CompileError::TimedOut)??), bytes))
        }
    }
}

/// The component that `code` is, for instances to be made of.
pub(crate) async fn instantiable(engine: &Engine, code: Arc<Code>) -> Result<Component, CompileError> {
    let engine = engine.clone();
    let component = tokio::task::spawn_blocking(move || trusted::component(&engine, &code)).await.map_err(gone)?;
    component.map_err(|error| CompileError::Unfit { why: short(&error) })
}

fn gone(error: tokio::task::JoinError) -> CompileError {
    CompileError::Process(error.into())
}

/// What a child of this binary makes of `bytes`, at most `most` bytes of it. Whoever calls it bounds its wall time by dropping it.
pub(crate) async fn in_child(
    executable: &Path,
    task: Task,
    limits: ChildLimits,
    bytes: &[u8],
    most: usize,
) -> Result<Vec<u8>, CompileError> {
    let mut child = Command::new(executable)
        .arg(COMPILE_SUBCOMMAND)
        .args(limits.to_args(task))
        .env_clear()
        .envs(ALLOCATOR)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // The wall-clock limit drops this future; the process must not outlive it.
        .kill_on_drop(true)
        .spawn()
        .map_err(CompileError::Process)?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(CompileError::Process(std::io::Error::other("a pipe of the child is missing")));
    };
    let write = async move {
        // A child that dies early closes the pipe; its status says more than this error.
        let _ = stdin.write_all(bytes).await;
        let _ = stdin.shutdown().await;
    };
    let ((), compiled, message) = tokio::join!(write, read(stdout, most), read(stderr, MESSAGE_BYTES));
    let (compiled, message) = (compiled.map_err(CompileError::Process)?, message.map_err(CompileError::Process)?);
    if compiled.len() > most {
        return Err(CompileError::OutputTooLarge);
    }
    let status = child.wait().await.map_err(CompileError::Process)?;
    if status.success() { Ok(compiled) } else { Err(ended(status, &message)) }
}

/// Reads up to one byte more than `most`, which tells that there was too much. A writer who goes on finds the pipe closed.
async fn read(pipe: impl AsyncRead + Unpin, most: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    pipe.take(most.saturating_add(1)).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn ended(status: ExitStatus, message: &[u8]) -> CompileError {
    let message = String::from_utf8_lossy(message);
    if status.code() == Some(EXIT_REFUSED) {
        return CompileError::Refused { why: message.trim().to_owned() };
    }
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt as _;

        use rustix::process::Signal;
        let signal = status.signal();
        // Rust's allocator says so and aborts when it gets no memory.
        if signal == Some(Signal::ABORT.as_raw()) && message.contains("memory allocation") {
            return CompileError::OutOfMemory;
        }
        // The CPU limit, first soft and then hard.
        if signal == Some(Signal::XCPU.as_raw()) || signal == Some(Signal::KILL.as_raw()) {
            return CompileError::TimedOut;
        }
    }
    tracing::error!(%status, %message, "the compiler's process failed");
    CompileError::Ended { status: status.to_string() }
}

/// An error of the compiler's with its causes, on a line and cut.
pub(crate) fn short(error: &wasmtime::Error) -> String {
    let text = format!("{error:#}");
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1024).collect()
}
