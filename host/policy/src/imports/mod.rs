//! What a guest may call: the contract's five interfaces, and WASI 0.2 leading nowhere.
//!
//! One linker serves all plugins. What a binding did not grant answers `not-granted`; it is not missing.

pub(crate) mod http;
pub(crate) mod kv;
pub(crate) mod log;
pub(crate) mod reads;
mod secrets;
mod sessions;
pub(crate) mod wasi;

use wasmtime::Engine;
use wasmtime::component::{HasData, HasSelf, Linker};

use crate::bindings::portcullis::policy as contract;
use crate::call::CallState;

/// The linker of all plugins.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<CallState>> {
    type Own = HasSelf<CallState>;
    let mut linker = Linker::new(engine);
    contract::types::add_to_linker::<_, Own>(&mut linker, own)?;
    contract::log::add_to_linker::<_, Own>(&mut linker, own)?;
    contract::kv::add_to_linker::<_, Own>(&mut linker, own)?;
    contract::sessions::add_to_linker::<_, Own>(&mut linker, own)?;
    contract::secrets::add_to_linker::<_, Own>(&mut linker, own)?;
    contract::http::add_to_linker::<_, Own>(&mut linker, own)?;
    wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}

fn own(state: &mut CallState) -> <HasSelf<CallState> as HasData>::Data<'_> {
    state
}

impl contract::types::Host for CallState {}
