//! The one unsafe step: running machine code that this gateway's own compiler made.

use wasmtime::component::Component;
use wasmtime::{Engine, Precompiled};

/// The component that `compiled` holds, which must come from [`crate::compile`] and nowhere else.
///
/// The check is against mistakes, not against malice: bytes of another format, settings or version are refused, crafted machine code is not.
#[expect(unsafe_code, reason = "wasmtime cannot check machine code; see the safety comment")]
pub(crate) fn component(engine: &Engine, compiled: &[u8]) -> wasmtime::Result<Component> {
    if Engine::detect_precompiled(compiled) != Some(Precompiled::Component) {
        return Err(wasmtime::format_err!("the compiler's output is not a compiled component"));
    }
    // SAFETY: `compiled` was made by this process, or read from the pipe of a child process that runs this same binary and that this process started;
    // it never lay anywhere that somebody else can write, and no caller passes bytes of another origin.
    unsafe { Component::deserialize(engine, compiled) }
}
