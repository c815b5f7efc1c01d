//! A token as RFC 7519 writes it: three parts of base64url, of which the first two hold JSON.
//!
//! The header is read first, to find the key. The claims are read only after the signature was checked.
//! A member that appears twice makes a token malformed, so that nobody can read it in two ways.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::JwtError;
use super::keys::accepted;

/// The longest token that is looked at.
pub(super) const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// By how much the clocks of the identity provider and the gateway may differ.
const LEEWAY_MS: u64 = 30 * 1000;

/// What a token says that can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who it is about. It is never empty.
    pub subject: String,
    /// The organisation that this user acts for (`activeOrganizationId`).
    pub organization: Option<String>,
    /// What the user is in that organisation (`orgRole`).
    pub org_role: Option<String>,
    /// What the user is on the whole platform (`role`).
    pub role: Option<String>,
    /// When the token expires, in milliseconds since 1970. It is believed for 30 seconds longer.
    pub expires_at_ms: u64,
}

/// A token whose header was read, and about which nothing else is known.
#[derive(Debug)]
pub(super) struct Token<'a> {
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
    algorithm: Algorithm,
    key_id: Option<String>,
}

/// Text that is borrowed if it has no escapes, also when it is optional.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Text<'a>,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    iss: Option<Text<'a>>,
    #[serde(borrow)]
    aud: Option<Audience<'a>>,
    sub: Option<String>,
    /// Seconds since 1970, which need not be whole.
    exp: Option<f64>,
    nbf: Option<f64>,
    #[serde(rename = "activeOrganizationId")]
    organization: Option<String>,
    #[serde(rename = "orgRole")]
    org_role: Option<String>,
    role: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience<'a> {
    One(#[serde(borrow)] Text<'a>),
    Many(#[serde(borrow)] Vec<Text<'a>>),
}

// === impl Token ===

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, JwtError> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(JwtError::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let header = decode(header)?;
        let header: Header<'_> = read(&header)?;
        if header.crit.is_some() {
            return Err(JwtError::Critical);
        }
        let algorithm = accepted(&header.alg.0).ok_or(JwtError::Algorithm)?;
        Ok(Self { signed, payload, signature, algorithm, key_id: header.kid })
    }

    /// Which key it says it was signed with.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Which algorithm it says it was signed by.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The bytes of the signature.
    pub(super) fn signature(&self) -> Result<Vec<u8>, JwtError> {
        decode(self.signature)
    }

    /// What the signature is about.
    pub(super) fn signed(&self) -> &'a [u8] {
        self.signed.as_bytes()
    }

    /// Its claims, if they hold here and now. The signature has been checked.
    pub(super) fn claims(&self, issuer: &str, audience: &str, now_ms: u64) -> Result<Claims, JwtError> {
        let payload = decode(self.payload)?;
        let payload: Payload<'_> = read(&payload)?;
        if payload.iss.is_none_or(|given| given.0 != issuer) {
            return Err(JwtError::Issuer);
        }
        if !payload.aud.is_some_and(|given| given.has(audience)) {
            return Err(JwtError::Audience);
        }
        let expires_at_ms = milliseconds(payload.exp.ok_or(JwtError::NoExpiry)?);
        if now_ms >= expires_at_ms.saturating_add(LEEWAY_MS) {
            return Err(JwtError::Expired);
        }
        if payload.nbf.is_some_and(|since| now_ms.saturating_add(LEEWAY_MS) < milliseconds(since)) {
            return Err(JwtError::NotYetValid);
        }
        let subject = payload.sub.filter(|subject| !subject.is_empty()).ok_or(JwtError::Subject)?;
        let (organization, org_role, role) = (payload.organization, payload.org_role, payload.role);
        Ok(Claims { subject, organization, org_role, role, expires_at_ms })
    }
}

// === impl Audience ===

impl Audience<'_> {
    fn has(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one.0 == audience,
            Self::Many(many) => many.iter().any(|one| one.0 == audience),
        }
    }
}

fn decode(part: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed)
}

fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, JwtError> {
    serde_json::from_slice(json).map_err(|_| JwtError::Malformed)
}

/// Seconds as milliseconds. The cast keeps to the range: a time before 1970 is 1970.
fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}
