//! `secrets`: sealed values by name, which a plugin uses and never sees.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use portcullis_core::Grant;
use sha2::{Digest, Sha256};

use super::reads::Read;
use crate::bindings::portcullis::policy::secrets::Host;
use crate::bindings::portcullis::policy::types::HostError;
use crate::call::CallState;
use crate::hex;

/// The most bytes of a secret's name.
const NAME_BYTES: usize = 64;

impl Host for CallState {
    fn hmac_sha256(&mut self, name: String, data: Vec<u8>) -> wasmtime::Result<Result<Vec<u8>, HostError>> {
        self.spend(10)?;
        let bound = match self.granted(Grant::Secrets) {
            Ok(bound) => bound,
            Err(error) => return Ok(Err(error)),
        };
        if name.is_empty() || name.len() > NAME_BYTES {
            return Ok(Err(HostError::Invalid(format!("a secret's name has 1 to {NAME_BYTES} bytes"))));
        }
        let digest = hex(&Sha256::digest(&data));
        let mac = bound.reads.hmac(bound.owner, bound.plugin, &name, &data, &digest)?;
        self.reads.record(name.len() + 128, || Read::Hmac {
            name,
            data: digest,
            mac: mac.as_ref().map(|mac| STANDARD.encode(mac)),
        });
        Ok(mac.ok_or(HostError::NotFound))
    }
}

/// HMAC-SHA256 of `data` under `key`.
pub(super) fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod test {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn the_code_is_hmac_sha256() {
        let code = hmac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex(&code), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
