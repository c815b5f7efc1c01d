//! Whether a token was signed by the identity provider, and what it says.
//!
//! The provider publishes its keys as a JSON Web Key Set, which is kept and renewed:
//!
//! - a set is *fresh* for an hour; then the next token fetches it anew
//! - a token that names a key which the set lacks fetches it anew, because keys rotate
//! - whatever the reason, at most one fetch runs at a time, and one is begun a minute at most
//! - a fetch that fails changes no key: the stale set goes on to be used, and the next try is a minute away
//!
//! A token with a known key and a fresh set takes one read lock for as long as an `Arc` takes to be cloned.
//! The algorithm is the key's; what the token says about it must agree, and is otherwise not believed.
//!
//! Time is an argument, so that an hour in a test passes at once.

mod keys;
mod token;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use tokio::sync::Mutex;

use self::keys::KeySet;
pub use self::token::Claims;
use self::token::Token;
use crate::{Limits, NetError, Outbound, OutboundRequest, Overlong};

/// How long a set is fresh.
const FRESH_MS: u64 = 60 * 60 * 1000;
/// The least time between two fetches.
const BETWEEN_FETCHES_MS: u64 = 60 * 1000;
/// What a fetch may take.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(3),
    head: Duration::from_secs(5),
    body_time: Duration::from_secs(5),
    whole: Duration::from_secs(5),
    body: keys::MAX_SET_BYTES,
    overlong: Overlong::Refused,
};

/// Which tokens are believed.
#[derive(Debug, Clone)]
pub struct JwksConfig {
    /// Where the keys are published. Whoever can answer in its stead can sign tokens, so it should be `https`.
    pub url: String,
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must be, or have among others.
    pub audience: String,
}

/// The keys of one identity provider.
#[derive(Debug, Clone)]
pub struct Jwks {
    shared: Arc<Shared>,
}

/// Why a token is not believed. All but `Keys` are the fault of the token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JwtError {
    /// It was not even looked at.
    #[error("the token is longer than {most} bytes", most = token::MAX_TOKEN_BYTES)]
    TooLong,
    /// It is not three parts of base64url with JSON objects of the expected form in the first two.
    #[error("the token is malformed")]
    Malformed,
    /// The header asks for something that must be understood and is not.
    #[error("the token has critical extensions, of which none is understood")]
    Critical,
    /// The algorithm is none that is accepted, or not the one of the key.
    #[error("the algorithm of the token is not the one of its key")]
    Algorithm,
    /// The set has several keys, and the token does not say which is meant.
    #[error("the token names no key, and there are several")]
    NoKeyId,
    /// The set does not have the key.
    #[error("the key of the token is unknown")]
    UnknownKey,
    /// Whether the token is good cannot be told, because its key is not known and the last fetch of the keys failed.
    #[error("the keys of the identity provider are not available")]
    Keys(#[source] Arc<KeySetError>),
    /// It was not signed with the key, or was changed since.
    #[error("the signature of the token is wrong")]
    Signature,
    /// It is somebody else's.
    #[error("the token is of another issuer")]
    Issuer,
    /// It is for somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// It would never expire.
    #[error("the token has no expiry")]
    NoExpiry,
    /// It was good once.
    #[error("the token has expired")]
    Expired,
    /// It will be good later.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It does not say whose it is.
    #[error("the token has no subject")]
    Subject,
}

/// Why the set of keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// No answer came.
    #[error("cannot fetch the key set")]
    Fetch(#[source] NetError),
    /// The answer is not the set.
    #[error("the key set was answered with status {0}")]
    Status(StatusCode),
    /// The answer is not a set.
    #[error("cannot read the key set")]
    Parse(#[source] serde_json::Error),
    /// The set is larger than any that is meant well.
    #[error("the key set has {0} keys, which is more than {most}", most = keys::MAX_KEYS)]
    TooMany(usize),
}

/// What is known at some time. A snapshot never changes; it is replaced.
#[derive(Debug, Default)]
struct Snapshot {
    keys: Arc<KeySet>,
    /// When the keys were fetched, if they ever were.
    fetched_ms: Option<u64>,
    /// When a fetch was last tried.
    tried_ms: Option<u64>,
    /// Why the last fetch failed, if it did.
    failure: Option<Arc<KeySetError>>,
}

#[derive(Debug)]
struct Shared {
    config: JwksConfig,
    outbound: Outbound,
    /// Held for no longer than it takes to clone or to replace the `Arc`.
    current: RwLock<Arc<Snapshot>>,
    /// Held by the one fetch that runs.
    fetching: Mutex<()>,
}

// === impl Jwks ===

impl Jwks {
    /// The keys that `config` names, none of which are fetched yet.
    ///
    /// # Errors
    /// If the URL is none, or leads where `outbound` does not go.
    pub fn new(config: JwksConfig, outbound: Outbound) -> Result<Self, NetError> {
        outbound.check_url(&config.url)?;
        let shared = Shared { config, outbound, current: RwLock::default(), fetching: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Tells what `token` says, if it can be believed at `now_ms`, in milliseconds since 1970.
    ///
    /// # Errors
    /// If it cannot; `JwtError::Keys` if that cannot be told.
    pub async fn verify(&self, token: &str, now_ms: u64) -> Result<Claims, JwtError> {
        let token = Token::parse(token)?;
        let mut snapshot = self.shared.snapshot();
        let is_known = !matches!(snapshot.keys.find(token.key_id()), Err(JwtError::UnknownKey));
        if !snapshot.is_fresh(now_ms) || !is_known {
            snapshot = self.renewed(snapshot, now_ms).await;
        }
        let key = snapshot.keys.find(token.key_id()).map_err(|error| match (error, &snapshot.failure) {
            (JwtError::UnknownKey, Some(failure)) => JwtError::Keys(Arc::clone(failure)),
            (error, _) => error,
        })?;
        key.check_signature(&token)?;
        let config = &self.shared.config;
        token.claims(&config.issuer, &config.audience, now_ms)
    }

    /// The newest snapshot that may be had at `now_ms`.
    async fn renewed(&self, known: Arc<Snapshot>, now_ms: u64) -> Arc<Snapshot> {
        if !known.may_fetch(now_ms) {
            return known;
        }
        // A task of its own finishes the fetch if the caller goes away, so that giving up early neither loses the keys
        // nor buys another fetch. If it panicked, what is known is still what was known.
        let shared = Arc::clone(&self.shared);
        let _ = tokio::spawn(async move { shared.renew(now_ms).await }).await;
        self.shared.snapshot()
    }
}

// === impl Shared ===

impl Shared {
    fn snapshot(&self) -> Arc<Snapshot> {
        // Nothing panics under the lock, and a snapshot is replaced whole: a poisoned one is as good as any.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fetches the set, unless somebody else just did.
    async fn renew(&self, now_ms: u64) {
        let _one = self.fetching.lock().await;
        let before = self.snapshot();
        if !before.may_fetch(now_ms) {
            return;
        }
        let after = match self.fetch().await {
            Ok(keys) => {
                Snapshot { keys: Arc::new(keys), fetched_ms: Some(now_ms), tried_ms: Some(now_ms), failure: None }
            }
            Err(error) => Snapshot {
                keys: Arc::clone(&before.keys),
                fetched_ms: before.fetched_ms,
                tried_ms: Some(now_ms),
                failure: Some(Arc::new(error)),
            },
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(after);
    }

    async fn fetch(&self) -> Result<KeySet, KeySetError> {
        let url = self.config.url.clone();
        let request = OutboundRequest { method: Method::GET, url, headers: Vec::new(), body: Bytes::new() };
        let response = self.outbound.send(request, LIMITS).await.map_err(KeySetError::Fetch)?;
        if response.status != StatusCode::OK {
            return Err(KeySetError::Status(response.status));
        }
        KeySet::parse(&response.body)
    }
}

// === impl Snapshot ===

impl Snapshot {
    // Both measure the distance and not the age: a clock that was put back must not make a set fresh for years.

    fn is_fresh(&self, now_ms: u64) -> bool {
        self.fetched_ms.is_some_and(|fetched| now_ms.abs_diff(fetched) < FRESH_MS)
    }

    fn may_fetch(&self, now_ms: u64) -> bool {
        self.tried_ms.is_none_or(|tried| now_ms.abs_diff(tried) >= BETWEEN_FETCHES_MS)
    }
}
