//! How plugins are run, and within which bounds.

use std::path::PathBuf;
use std::time::Duration;

use portcullis_core::PluginClass;

use crate::CodeCache;

/// How plugins are run, and within which bounds. What has no class of its own is about plugins of the standard class.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Who compiles components.
    pub compiler: Compiler,
    /// Where compiled components are kept; without it every component is compiled again after a restart.
    pub cache: Option<CodeCache>,
    /// Units of fuel of one call inside a request; about one for each instruction. The deterministic bound.
    pub gate_fuel: u64,
    /// Wall time of one call inside a request; the outer bound.
    pub gate_wall: Duration,
    /// Wall time of all calls of one chain of gates together.
    pub chain_wall: Duration,
    /// Units of fuel of one call off the request path: at upload, of observers and of timers.
    pub background_fuel: u64,
    /// Wall time of one call off the request path.
    pub background_wall: Duration,
    /// Bytes of linear memory of one call.
    pub memory_bytes: usize,
    /// Bytes of a component.
    pub component_bytes: usize,
    /// Time to compile one component.
    pub compile_wall: Duration,
    /// Bytes of memory to compile one component.
    pub compile_memory: u64,
    /// The bounds of plugins of the large class.
    pub large: ClassBounds,
    /// Calls of one organisation under way at once.
    pub calls_per_org: usize,
    /// Calls under way at once; sizes the pool of instances.
    pub calls_in_all: usize,
    /// How long a call may wait for one of these places.
    pub patience: Duration,
    /// Plugins at hand at once, if the machine has room for them. Each takes a file descriptor and some memory maps.
    pub loaded_plugins: usize,
    /// File descriptors that the rest of the process may need.
    pub other_files: u64,
}

/// What a plugin of one class may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassBounds {
    /// Units of fuel of one call inside a request.
    pub gate_fuel: u64,
    /// Wall time of one call inside a request.
    pub gate_wall: Duration,
    /// Units of fuel of one call off the request path.
    pub background_fuel: u64,
    /// Wall time of one call off the request path.
    pub background_wall: Duration,
    /// Bytes of linear memory of one call.
    pub memory_bytes: usize,
    /// Bytes of a component.
    pub component_bytes: usize,
    /// Time to compile one component.
    pub compile_wall: Duration,
    /// Bytes of memory to compile one component.
    pub compile_memory: u64,
}

impl RuntimeConfig {
    /// The bounds of a class.
    #[must_use]
    pub fn bounds(&self, class: PluginClass) -> ClassBounds {
        match class {
            PluginClass::Standard => ClassBounds {
                gate_fuel: self.gate_fuel,
                gate_wall: self.gate_wall,
                background_fuel: self.background_fuel,
                background_wall: self.background_wall,
                memory_bytes: self.memory_bytes,
                component_bytes: self.component_bytes,
                compile_wall: self.compile_wall,
                compile_memory: self.compile_memory,
            },
            PluginClass::Large => self.large,
        }
    }
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            compiler: Compiler::InProcess,
            cache: None,
            // About 5 ms of a tight loop, so that a spin ends by fuel long before it ends by the clock.
            gate_fuel: 20_000_000,
            gate_wall: Duration::from_millis(50),
            chain_wall: Duration::from_millis(500),
            background_fuel: 200_000_000,
            background_wall: Duration::from_secs(2),
            memory_bytes: 16 << 20,
            component_bytes: 2 << 20,
            compile_wall: Duration::from_secs(30),
            compile_memory: 512 << 20,
            large: ClassBounds {
                gate_fuel: 200_000_000,
                gate_wall: Duration::from_millis(250),
                background_fuel: 1_000_000_000,
                background_wall: Duration::from_secs(5),
                memory_bytes: 128 << 20,
                component_bytes: 32 << 20,
                compile_wall: Duration::from_secs(120),
                compile_memory: 2 << 30,
            },
            calls_per_org: 8,
            calls_in_all: 64,
            patience: Duration::from_millis(250),
            loaded_plugins: 1024,
            other_files: 512,
        }
    }
}

/// Who compiles components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// This process; for tests and tools that compile what they trust.
    InProcess,
    /// A child process that can be killed.
    Child {
        /// A binary that calls [`crate::compile_child`] under [`crate::COMPILE_SUBCOMMAND`].
        executable: PathBuf,
    },
}
