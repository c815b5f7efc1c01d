//! What a plugin may ask of the host.
//!
//! Only what a plugin calls is imported by its component, and a call that the binding does not grant answers [`HostError::NotGranted`].
//! There is no host in a native unit test: there, log lines go nowhere and every other call answers [`HostError::Unavailable`].
//! Put what a plugin reads from the host into arguments of a function of its own, and test that.

use crate::HostError;
use crate::bindings::imports::portcullis::policy;

/// Calls the host where there is one.
macro_rules! call {
    ($call:expr) => {
        if cfg!(target_arch = "wasm32") { $call } else { Err(HostError::Unavailable) }
    };
}

/// Lines for the plugin's log: at most 64 of 1 KiB in a call.
pub mod log {
    use super::policy::log;

    /// For whoever looks for a fault in the plugin.
    pub fn debug(message: &str) {
        write(log::Level::Debug, message);
    }

    /// For whoever wants to know what the plugin did.
    pub fn info(message: &str) {
        write(log::Level::Info, message);
    }

    /// Something is not as it should be.
    pub fn warn(message: &str) {
        write(log::Level::Warn, message);
    }

    /// Something went wrong.
    pub fn error(message: &str) {
        write(log::Level::Error, message);
    }

    fn write(level: log::Level, message: &str) {
        if cfg!(target_arch = "wasm32") {
            log::write(level, message);
        }
    }
}

/// Keys and values, per plugin and organisation; needs the grant `kv`.
///
/// Reads see the state before the operation and this call's own writes.
/// Writes take effect with the operation's commit, or not at all.
pub mod kv {
    use super::policy::kv;
    use super::{HostError, Result};
    use crate::Timestamp;

    pub use kv::Entry;

    /// The value under a key of at most 256 bytes.
    ///
    /// # Errors
    ///
    /// The host's refusal.
    pub fn get(key: &str) -> Result<Option<Entry>> {
        call!(kv::get(key))
    }

    /// Sets the value under a key, for ever or until `expires`.
    ///
    /// # Errors
    ///
    /// The host's refusal.
    pub fn set(key: &str, value: &[u8], expires: Option<Timestamp>) -> Result<()> {
        call!(kv::set(key, value, expires))
    }

    /// Sets the value only if the key's version is `version`; none means that the key must not exist.
    ///
    /// # Errors
    ///
    /// [`HostError::Conflict`] if the version is another one, or another refusal of the host's.
    pub fn compare_and_set(key: &str, version: Option<u64>, value: &[u8], expires: Option<Timestamp>) -> Result<()> {
        call!(kv::compare_and_set(key, version, value, expires))
    }

    /// Removes a key, and says whether it was there.
    ///
    /// # Errors
    ///
    /// The host's refusal.
    pub fn remove(key: &str) -> Result<bool> {
        call!(kv::remove(key))
    }

    /// At most 100 keys with this prefix that come after `cursor`, in order.
    ///
    /// # Errors
    ///
    /// The host's refusal.
    pub fn list(prefix: &str, cursor: Option<&str>) -> Result<Vec<String>> {
        call!(kv::list(prefix, cursor))
    }
}

/// A read-only view of the organisation's sessions; needs the grant `sessions`.
pub mod sessions {
    use super::policy::sessions;
    use super::{HostError, Result};
    use crate::{Session, Status, Window};

    pub use sessions::Page;

    /// The session with this id.
    ///
    /// # Errors
    ///
    /// [`HostError::NotFound`] if the organisation has no such session, or another refusal of the host's.
    pub fn get(id: &str) -> Result<Session> {
        call!(sessions::get(id))
    }

    /// At most 100 sessions, oldest first, and where the next page begins.
    ///
    /// # Errors
    ///
    /// The host's refusal.
    pub fn list(cursor: Option<&str>) -> Result<Page> {
        call!(sessions::list(cursor))
    }

    /// How many sessions have this status; none counts all.
    ///
    /// # Errors
    ///
    /// The host's refusal.
    pub fn count(status: Option<Status>) -> Result<u64> {
        call!(sessions::count(status))
    }

    /// How many operations with this name were done within the window, such as `session.delete`.
    ///
    /// # Errors
    ///
    /// The host's refusal.
    pub fn usage(operation: &str, window: Window) -> Result<u64> {
        call!(sessions::usage(operation, window))
    }
}

/// Sealed values that a plugin can use but never read; needs the grant `secrets`.
pub mod secrets {
    use super::policy::secrets;
    use super::{HostError, Result};

    /// HMAC-SHA256 of `data` under the secret with this name.
    ///
    /// # Errors
    ///
    /// [`HostError::NotFound`] if there is no such secret, or another refusal of the host's.
    pub fn hmac_sha256(name: &str, data: &[u8]) -> Result<Vec<u8>> {
        call!(secrets::hmac_sha256(name, data))
    }
}

/// Requests to hosts that the binding allows; needs the grant `http`.
///
/// A request is queued with the commit of what the plugin was called for, and sent after it: at least once, and again if it is not taken.
/// Nobody is told of the answer. Only observers and timers can send.
///
/// ```
/// # use portcullis_sdk::http::Request;
/// let request = Request::post("https://crm.example.org/deleted")
///     .header("content-type", "application/json")
///     .secret_header("authorization", "crm-token")
///     .body("{}");
/// # let _ =
/// request.send();
/// ```
pub mod http {
    use super::{HostError, Result};
    use crate::bindings::requesting::portcullis::policy0_1_1::http;

    /// A request in the making.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[must_use = "a request does nothing until it is sent"]
    pub struct Request(http::Request);

    impl Request {
        /// A request with this method: `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
        pub fn new(method: &str, url: impl Into<String>) -> Self {
            Self(http::Request {
                method: method.to_owned(),
                url: url.into(),
                headers: Vec::new(),
                secret_headers: Vec::new(),
                body: Vec::new(),
            })
        }

        /// A `GET`.
        pub fn get(url: impl Into<String>) -> Self {
            Self::new("GET", url)
        }

        /// A `POST`.
        pub fn post(url: impl Into<String>) -> Self {
            Self::new("POST", url)
        }

        /// The same with a header.
        pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
            self.0.headers.push((name.to_owned(), value.into()));
            self
        }

        /// The same with a header whose value is a secret of the plugin; needs the grant `secrets`, too.
        pub fn secret_header(mut self, name: &str, secret: &str) -> Self {
            self.0.secret_headers.push((name.to_owned(), secret.to_owned()));
            self
        }

        /// The same with a body of at most 64 KiB.
        pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
            self.0.body = body.into();
            self
        }

        /// Queues it, and answers the id that it carries as `idempotency-key`.
        ///
        /// # Errors
        ///
        /// [`HostError::NotGranted`] if the binding allows neither requests nor this host, [`HostError::Invalid`] if the request breaks a bound,
        /// [`HostError::Unavailable`] in a gate, or another refusal of the host's.
        pub fn send(&self) -> Result<String> {
            call!(http::send(&self.0))
        }
    }
}

/// What a call of the host answers.
type Result<T> = core::result::Result<T, HostError>;

#[cfg(test)]
mod test {
    use super::{HostError, http, kv, log, secrets, sessions};

    #[test]
    fn without_a_host_calls_answer_that_they_are_unavailable() {
        log::info("nobody reads this");
        assert_eq!(kv::get("key"), Err(HostError::Unavailable));
        assert_eq!(sessions::count(None), Err(HostError::Unavailable));
        assert_eq!(secrets::hmac_sha256("name", b"data"), Err(HostError::Unavailable));
        assert_eq!(http::Request::get("https://example.org/").send(), Err(HostError::Unavailable));
    }
}
