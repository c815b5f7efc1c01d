//! The one unsafe step: running machine code that this gateway's own compiler made.

use wasmtime::component::Component;
use wasmtime::{Engine, Precompiled};

use crate::compile::Code;

/// The component that `code` is. Code comes from our own compiler, or from [`crate::code_cache`] after its seal was checked, and from nowhere else.
///
/// The check is against mistakes, not against malice: bytes of another format, settings or version are refused, crafted machine code is not.
#[expect(unsafe_code, reason = "wasmtime cannot check machine code; see the safety comment")]
pub(crate) fn component(engine: &Engine, code: &Code) -> wasmtime::Result<Component> {
    let compiled = code.bytes();
    if Engine::detect_precompiled(compiled) != Some(Precompiled::Component) {
        return Err(wasmtime::format_err!("the compiler's output is not a compiled component"));
    }
    // SAFETY: a `Code` is made in two places only. One is the compiler: this process, or the pipe of a child process that runs this same binary and that this process started.
    // The other is the cache, whose files carry a MAC over their name and content under a key that only this gateway has, checked over the very bytes that are passed here.
    unsafe { Component::deserialize(engine, compiled) }
}
