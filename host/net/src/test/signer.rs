//! Whoever signs the tokens of the tests. Tokens are put together by hand, so that they can be wrong in any way.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A private key with an id.
pub(super) struct Signer {
    id: &'static str,
    key: Key,
}

enum Key {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    pub(super) fn ed(id: &'static str) -> Self {
        Self { id, key: Key::Ed(Ed25519KeyPair::generate().unwrap()) }
    }

    pub(super) fn ec(id: &'static str) -> Self {
        Self { id, key: Key::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()) }
    }

    pub(super) fn rsa(id: &'static str) -> Self {
        Self { id, key: Key::Rsa(RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap()) }
    }

    pub(super) fn algorithm(&self) -> &'static str {
        match self.key {
            Key::Ed(_) => "EdDSA",
            Key::Ec(_) => "ES256",
            Key::Rsa(_) => "RS256",
        }
    }

    /// The public key as a set has it.
    pub(super) fn jwk(&self) -> Value {
        let mut jwk = match &self.key {
            Key::Ed(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key()) }),
            Key::Ec(pair) => {
                // An uncompressed point: a byte that says so, then both coordinates.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
            }
            Key::Rsa(pair) => {
                let public = pair.public_key();
                let n = encode(public.modulus().big_endian_without_leading_zero());
                let e = encode(public.exponent().big_endian_without_leading_zero());
                json!({ "kty": "RSA", "n": n, "e": e })
            }
        };
        jwk["kid"] = self.id.into();
        jwk["alg"] = self.algorithm().into();
        jwk
    }

    /// A token of these claims.
    pub(super) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.algorithm(), "kid": self.id }), claims)
    }

    /// A token with this header, whatever it says, signed with this key.
    pub(super) fn token_with(&self, header: &Value, claims: &Value) -> String {
        self.sealed(&signed(header, claims))
    }

    /// These first parts of a token, whatever they are, with a good signature.
    pub(super) fn sealed(&self, signed: &str) -> String {
        format!("{signed}.{}", encode(self.sign(signed.as_bytes())))
    }

    /// A token whose authenticity anybody can make: its secret is the public key.
    pub(super) fn forgery(&self, claims: &Value) -> String {
        let public = match &self.key {
            Key::Ed(pair) => pair.public_key().as_ref(),
            Key::Ec(pair) => pair.public_key().as_ref(),
            Key::Rsa(pair) => pair.public_key().as_ref(),
        };
        let signed = signed(&json!({ "alg": "HS256", "kid": self.id }), claims);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, public), signed.as_bytes());
        format!("{signed}.{}", encode(tag))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Key::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Key::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }
}

/// The first two parts of a token.
pub(super) fn signed(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string()), encode(claims.to_string()))
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The set of these keys.
pub(super) fn set(signers: &[&Signer]) -> String {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({ "keys": keys }).to_string()
}
