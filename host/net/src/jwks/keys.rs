//! A set of public keys, as RFC 7517 writes it, and the check of a signature with one of them.
//!
//! A set may hold keys that are not for us: for encryption, of other kinds, or of kinds that are yet to be invented.
//! These are left out and never make the set unreadable.
//! Shared secrets are among them, so that no token can be made with what is public.

use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::token::Token;
use super::{JwtError, KeySetError};

/// The largest set that is read.
pub(super) const MAX_SET_BYTES: usize = 64 * 1024;
/// The most keys that a set has.
pub(super) const MAX_KEYS: usize = 32;

/// The keys of a set that can verify tokens.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

/// A key, and the one algorithm that it is used with.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    public: DecodingKey,
}

/// The algorithm of this name, if it is one that is accepted: asymmetric, and one for each kind of key.
pub(super) fn accepted(name: &str) -> Option<Algorithm> {
    match name {
        // RFC 9864 gives EdDSA with this curve a name of its own.
        "EdDSA" | "Ed25519" => Some(Algorithm::EdDSA),
        "ES256" => Some(Algorithm::ES256),
        "RS256" => Some(Algorithm::RS256),
        _ => None,
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

// === impl KeySet ===

impl KeySet {
    pub(super) fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        let set: Set = serde_json::from_slice(text).map_err(KeySetError::Parse)?;
        if set.keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany(set.keys.len()));
        }
        let jwks = set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
        Ok(Self { keys: jwks.filter_map(Key::new).collect() })
    }

    /// The key of this id. Without an id it is the only one.
    pub(super) fn find(&self, id: Option<&str>) -> Result<&Key, JwtError> {
        match (id, self.keys.as_slice()) {
            (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)).ok_or(JwtError::UnknownKey),
            (None, [only]) => Ok(only),
            (None, []) => Err(JwtError::UnknownKey),
            (None, _) => Err(JwtError::NoKeyId),
        }
    }
}

// === impl Key ===

impl Key {
    /// The key, if it is for signatures and of a kind that is accepted.
    fn new(jwk: Jwk) -> Option<Self> {
        let signs = jwk.usage.is_none_or(|usage| usage == "sig");
        let verifies = jwk.key_ops.is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
        let (algorithm, public) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, DecodingKey::from_ed_components(&jwk.x?)),
            ("EC", Some("P-256")) => (Algorithm::ES256, DecodingKey::from_ec_components(&jwk.x?, &jwk.y?)),
            ("RSA", _) => (Algorithm::RS256, DecodingKey::from_rsa_components(&jwk.n?, &jwk.e?)),
            _ => return None,
        };
        let agrees = jwk.alg.is_none_or(|name| accepted(&name) == Some(algorithm));
        (signs && verifies && agrees).then_some(())?;
        Some(Self { id: jwk.kid, algorithm, public: public.ok()? })
    }

    /// Checks that `token` was signed with this key, by this key's algorithm.
    pub(super) fn check_signature(&self, token: &Token<'_>) -> Result<(), JwtError> {
        if token.algorithm() != self.algorithm {
            return Err(JwtError::Algorithm);
        }
        // The library's function for whole tokens takes the time from the system and decodes the header twice.
        // Its provider is named, so that no choice of the whole process can change it.
        let verifier = (DEFAULT_PROVIDER.verifier_factory)(&self.algorithm, &self.public);
        let verifier = verifier.map_err(|_| JwtError::Signature)?;
        verifier.verify(token.signed(), &token.signature()?).map_err(|_| JwtError::Signature)
    }
}

#[cfg(test)]
mod test {
    use serde_json::json;

    use super::*;

    /// Checks which of these keys are kept, by their ids.
    #[track_caller]
    fn check(keys: &Value, kept: &[&str]) {
        let set = KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
        let ids: Vec<&str> = set.keys.iter().filter_map(|key| key.id.as_deref()).collect();
        assert_eq!(ids, kept, "{keys:#}");
    }

    #[test]
    fn keys_that_are_not_for_signatures_that_we_accept_are_left_out() {
        check(
            &json!([
                { "kid": "ed", "kty": "OKP", "crv": "Ed25519", "x": "AA" },
                { "kid": "ed-named", "kty": "OKP", "crv": "Ed25519", "x": "AA", "alg": "EdDSA", "use": "sig" },
                { "kid": "ed-new-name", "kty": "OKP", "crv": "Ed25519", "x": "AA", "alg": "Ed25519" },
                { "kid": "ed-as-es", "kty": "OKP", "crv": "Ed25519", "x": "AA", "alg": "ES256" },
                { "kid": "x25519", "kty": "OKP", "crv": "X25519", "x": "AA" },
                { "kid": "ec", "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "key_ops": ["verify"] },
                { "kid": "ec-signs", "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "key_ops": ["sign"] },
                { "kid": "p384", "kty": "EC", "crv": "P-384", "x": "AA", "y": "AA" },
                { "kid": "rsa", "kty": "RSA", "n": "AA", "e": "AQAB", "alg": "RS256" },
                { "kid": "rsa-pss", "kty": "RSA", "n": "AA", "e": "AQAB", "alg": "PS256" },
                { "kid": "rsa-encrypts", "kty": "RSA", "n": "AA", "e": "AQAB", "use": "enc" },
                { "kid": "rsa-as-hmac", "kty": "RSA", "n": "AA", "e": "AQAB", "alg": "HS256" },
                { "kid": "secret", "kty": "oct", "k": "AA", "alg": "HS256" },
                { "kid": "half", "kty": "EC", "crv": "P-256", "x": "AA" },
                { "kid": "no-base64", "kty": "OKP", "crv": "Ed25519", "x": "??" },
                { "kid": 7, "kty": "OKP", "crv": "Ed25519", "x": "AA" },
                "nonsense",
                { "kid": "later", "kty": "AKP", "alg": "ML-DSA-65", "pub": "AA" },
            ]),
            &["ed", "ed-named", "ed-new-name", "ec", "rsa"],
        );
    }

    #[test]
    fn an_empty_set_is_a_set() {
        check(&json!([]), &[]);
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for bad in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>"] {
            assert!(matches!(KeySet::parse(bad.as_bytes()), Err(KeySetError::Parse(_))), "{bad:?} was taken");
        }
        let many = json!({ "keys": vec![json!({}); MAX_KEYS + 1] }).to_string();
        assert!(matches!(KeySet::parse(many.as_bytes()), Err(KeySetError::TooMany(33))));
    }
}
