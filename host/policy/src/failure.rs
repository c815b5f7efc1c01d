//! From wasmtime's errors to the ways in which a plugin fails.

use portcullis_core::{PluginFailure, PolicyReadError};
use wasmtime::{PoolConcurrencyLimitError, Trap};

use crate::call::WorkSpent;
use crate::slices::Starved;

/// A read that the host could not serve; it ends the call and is not the guest's fault.
#[derive(Debug, thiserror::Error)]
#[error("the host could not serve a read")]
pub(crate) struct HostReadFailed(#[from] pub(crate) PolicyReadError);

/// A read of a replayed call that its record does not tell.
#[derive(Debug, thiserror::Error)]
#[error("the record does not tell the read {0}")]
pub(crate) struct Unrecorded(pub(crate) String);

/// What `error` means.
///
/// `denied_memory` tells whether the guest was refused memory earlier in the call: guests answer that with a trap of their own.
pub(crate) fn classify(error: &wasmtime::Error, denied_memory: bool) -> PluginFailure {
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return match trap {
            Trap::OutOfFuel => PluginFailure::Fuel,
            Trap::Interrupt => PluginFailure::Deadline,
            _ if denied_memory => PluginFailure::Memory,
            _ => PluginFailure::Trap,
        };
    }
    if error.is::<WorkSpent>() {
        return PluginFailure::Fuel;
    }
    if error.is::<HostReadFailed>() || error.is::<Unrecorded>() {
        return PluginFailure::Unavailable;
    }
    if error.is::<PoolConcurrencyLimitError>() || error.is::<Starved>() {
        return PluginFailure::Overloaded;
    }
    if error.is::<wasmtime_wasi::I32Exit>() {
        return PluginFailure::Trap;
    }
    // Whatever else ends a call is a value that did not fit: too long, not UTF-8, no such case, outside of the memory.
    if denied_memory { PluginFailure::Memory } else { PluginFailure::BadOutput }
}
