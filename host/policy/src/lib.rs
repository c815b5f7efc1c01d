//! Policy plugins: WebAssembly components in wasmtime, asked before and after operations.
//!
//! A [`Runtime`] admits components ([`Runtime::admit`]) and asks them ([`Runtime::gate`] and its siblings), or has them rehearse ([`Runtime::rehearse`]).
//! Every call gets a fresh store and instance, a budget of fuel, an outer deadline and a bound on memory; whatever a guest does, the caller gets an answer or a [`PluginFailure`].
//! No state outlives a call: what a plugin keeps, it keeps through `kv`, whose writes come back as [`KvAccess`] for the operation's commit.
//!
//! The journey of a question, file by file:
//!
//! ```text
//! runtime ─▶ admission ─▶ shape ─▶ load ─▶ compile, code_cache ─▶ loaded   a component becomes a plugin
//!    ├─────▶ chain ─▶ convert/ask ─▶ call ─▶ convert/answer                 a question becomes an answer
//!    │                                └─▶ imports/*                         what the guest may call meanwhile
//!    └─────▶ rehearse ─▶ words ──────▶ call                                 the same from a record or a file
//! ```
//!
//! *Architecture Invariant:* only this crate names wasmtime, and only `trusted` has unsafe code.
//!
//! *Architecture Invariant:* nothing in a call depends on the host's clock, randomness or environment; the same [`Ask`] and the same reads give the same answer and the same fuel.
//!
//! [`PluginFailure`]: portcullis_core::PluginFailure
//! [`KvAccess`]: portcullis_core::KvAccess

mod admission;
mod ask;
// Nobody writes or reads the generated code, so no lint speaks about it.
#[allow(clippy::all, reason = "generated code")]
mod bindings;
mod call;
mod chain;
mod code_cache;
mod compile;
mod compile_child;
mod config;
mod convert;
mod failure;
mod imports;
mod load;
mod loaded;
mod machine;
mod permits;
mod rehearse;
mod runtime;
mod schema;
mod settings;
mod shape;
mod slices;
#[cfg(test)]
mod test;
mod trusted;
mod walls;
mod words;

pub use admission::{AdmissionError, Admitted};
pub use ask::{Ask, Confirmed, Event, Link, PaceUsage, Pacing};
pub use chain::{ChainRun, LogLevel, LogLine, Observed};
pub use code_cache::{CodeCache, CodeStats};
pub use compile::CompileError;
pub use compile_child::{COMPILE_SUBCOMMAND, compile_child};
pub use config::{ClassBounds, Compiler, RuntimeConfig};
pub use imports::http::QueuedRequest;
pub use load::LoadError;
pub use portcullis_core::errand::Outcome;
pub use rehearse::{ReadsFrom, RecordedInput, RecordedLink, Rehearsal, RehearsalError, Rehearsed, Said, Script};
pub use runtime::{Runtime, RuntimeError};
pub use settings::{SettingsError, SettingsProblem};
pub use walls::{Walls, WallsError};

/// The version of the policy contract in whose words documents are.
pub const CONTRACT: &str = "0.1.0";

/// What was added to it compatibly.
const ADDITION: &str = "0.1.1";

/// The versions of the contract that are served; uploads for others are refused.
const SERVED: &str = "0.1.0 to 0.1.1";

/// Bytes in hexadecimal, for messages and records.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
