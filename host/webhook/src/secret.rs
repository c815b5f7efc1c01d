//! The keys of Standard Webhooks: `whsec_` for one that both sides share, `whsk_` for one whose public half, `whpk_`, verifies.
//!
//! Source: the Standard Webhooks specification, "Signature scheme". A shared key has 24 to 64 bytes. Of a key pair the specification
//! says that it is standard ed25519: its seed is taken, and also the seed with the public key behind it, as some tools write it.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use portcullis_core::Secret;

const SHARED: &str = "whsec_";
const PRIVATE: &str = "whsk_";
const PUBLIC: &str = "whpk_";
/// How many bytes a shared key has.
const SHARED_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// How many bytes the seed of a key pair has.
const SEED_BYTES: usize = 32;

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It does not begin as a key does.
    #[error("a key begins with {SHARED} or {PRIVATE}")]
    Prefix,
    /// The rest is not base64.
    #[error("a key is base64 behind its prefix")]
    Base64,
    /// A shared key is too short or too long.
    #[error("a shared key has 24 to 64 bytes, not {0}")]
    SharedLength(usize),
    /// What is there is no ed25519 key.
    #[error("a private key is an ed25519 seed of 32 bytes, or the seed and its public key")]
    Private,
}

/// What signs.
pub(crate) enum Key {
    Shared(Vec<u8>),
    Pair(Ed25519KeyPair),
}

impl Key {
    pub(crate) fn parse(text: &str) -> Result<Self, KeyError> {
        let bytes = |rest: &str| BASE64_STANDARD.decode(rest).map_err(|_| KeyError::Base64);
        if let Some(rest) = text.strip_prefix(SHARED) {
            let key = bytes(rest)?;
            if !SHARED_BYTES.contains(&key.len()) {
                return Err(KeyError::SharedLength(key.len()));
            }
            return Ok(Self::Shared(key));
        }
        let key = bytes(text.strip_prefix(PRIVATE).ok_or(KeyError::Prefix)?)?;
        let (seed, public) = key.split_at_checked(SEED_BYTES).ok_or(KeyError::Private)?;
        let pair = match public {
            [] => Ed25519KeyPair::from_seed_unchecked(seed),
            public => Ed25519KeyPair::from_seed_and_public_key(seed, public),
        };
        pair.map(Self::Pair).map_err(|_| KeyError::Private)
    }

    /// The signature of a text, with the version of its scheme.
    pub(crate) fn sign(&self, text: &[u8]) -> String {
        match self {
            Self::Shared(key) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, key);
                format!("v1,{}", BASE64_STANDARD.encode(hmac::sign(&key, text)))
            }
            Self::Pair(pair) => format!("v1a,{}", BASE64_STANDARD.encode(pair.sign(text))),
        }
    }
}

/// A new shared key from random bytes.
#[must_use]
pub fn mint(random: [u8; 32]) -> Secret {
    Secret::new(format!("{SHARED}{}", BASE64_STANDARD.encode(random)))
}

/// A new key of the same kind as another from random bytes.
#[must_use]
pub fn mint_like(other: &Secret, random: [u8; 32]) -> Secret {
    if other.reveal().starts_with(PRIVATE) {
        return Secret::new(format!("{PRIVATE}{}", BASE64_STANDARD.encode(random)));
    }
    mint(random)
}

/// The public half of a private key, with which receivers verify; none of anything else.
#[must_use]
pub fn public_key(secret: &Secret) -> Option<String> {
    match Key::parse(secret.reveal()) {
        Ok(Key::Pair(pair)) => Some(format!("{PUBLIC}{}", BASE64_STANDARD.encode(pair.public_key()))),
        Ok(Key::Shared(_)) | Err(_) => None,
    }
}
