//! `secrets`: sealed values by name. No organisation has any yet, so a granted call finds nothing.

use portcullis_core::Grant;

use crate::bindings::portcullis::policy::secrets::Host;
use crate::bindings::portcullis::policy::types::HostError;
use crate::call::CallState;

impl Host for CallState {
    fn hmac_sha256(&mut self, _name: String, _data: Vec<u8>) -> wasmtime::Result<Result<Vec<u8>, HostError>> {
        Ok(self.granted(Grant::Secrets).and(Err(HostError::NotFound)))
    }
}
