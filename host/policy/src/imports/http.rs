//! `http`: requests that join the commit of what an observer or a timer was called for, and are sent after it.
//!
//! Nothing is sent here, so a gate could learn nothing by it; it is refused there nevertheless, because what a gate wants
//! may come to nothing. What can be known about a request beforehand is said at once; the rest is for whoever sends it.

use portcullis_core::{EventId, Grant, HostRule, PluginRequest, RequestFlaw};
use sha2::{Digest, Sha256};

use super::reads::{NotRead, Source};
use crate::bindings::portcullis::policy::http::{Host, Request};
use crate::bindings::portcullis::policy::types::HostError;
use crate::call::CallState;

/// The most requests of one call.
const REQUESTS: usize = 8;
/// The most headers of one request.
const HEADERS: usize = 32;
/// The most bytes of their names and values.
const HEADER_BYTES: usize = 8 << 10;
/// The most bytes of a body.
const BODY_BYTES: usize = 64 << 10;
/// The longest name of a secret.
const SECRET_BYTES: usize = 64;
/// What a request counts as work for the host. A call that only asks is stopped after a hundred.
const WORK: u32 = 100;

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// A request that a plugin has queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedRequest {
    /// Its own id, under which the plugin knows it.
    pub id: EventId,
    /// What is sent.
    pub request: PluginRequest,
}

/// Why a request is not queued: for the guest, or because the call ends.
enum Stop {
    Guest(HostError),
    Call(NotRead),
}

impl From<HostError> for Stop {
    fn from(error: HostError) -> Self {
        Self::Guest(error)
    }
}

impl From<NotRead> for Stop {
    fn from(error: NotRead) -> Self {
        Self::Call(error)
    }
}

impl Host for CallState {
    fn send(&mut self, request: Request) -> wasmtime::Result<Result<String, HostError>> {
        self.spend(WORK)?;
        match self.queue(request) {
            Ok(id) => Ok(Ok(id.to_string())),
            Err(Stop::Guest(error)) => Ok(Err(error)),
            Err(Stop::Call(error)) => Err(error.into()),
        }
    }
}

impl CallState {
    fn queue(&mut self, request: Request) -> Result<EventId, Stop> {
        let queued = self.outbox.as_ref().ok_or(HostError::Unavailable)?.len();
        let bound = self.granted(Grant::Http)?;
        if !request.secret_headers.is_empty() {
            self.granted(Grant::Secrets)?;
        }
        if queued >= REQUESTS {
            return Err(HostError::Quota(format!("one call may send {REQUESTS} requests")).into());
        }
        check_size(&request)?;
        let Request { method, url, headers, secret_headers, body } = request;
        let request = PluginRequest { binding: bound.binding, method, url, headers, secret_headers, body };
        let Source::Live(live) = &bound.reads else {
            return Err(super::reads::unrecorded("http", &serde_json::json!({ "url": request.url })).into());
        };
        let host = live.check_request(&request).map_err(|flaw| match flaw {
            RequestFlaw::NoWayOut => HostError::Unavailable,
            RequestFlaw::Refused(why) => HostError::Invalid(why),
        })?;
        if !bound.hosts.iter().any(|rule| HostRule::allows(rule, &host)) {
            return Err(HostError::NotGranted.into());
        }
        for (_, secret) in &request.secret_headers {
            let known = live.secret(bound.owner, bound.plugin, secret).map_err(NotRead::from)?;
            if known.is_none() {
                return Err(HostError::NotFound.into());
            }
        }
        let id = self.request_id(queued);
        if let Some(outbox) = &mut self.outbox {
            outbox.push(QueuedRequest { id, request });
        }
        Ok(id)
    }

    /// The id of the call's n-th request. It depends on nothing but the call, like everything that a guest is told.
    fn request_id(&self, n: usize) -> EventId {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_be_bytes());
        if let Some(bound) = &self.bound {
            hash.update(bound.binding.to_bytes());
        }
        hash.update(n.to_be_bytes());
        let mut random = [0; 16];
        random.copy_from_slice(&hash.finalize()[..16]);
        EventId::new(self.now, u128::from_be_bytes(random))
    }
}

fn check_size(request: &Request) -> Result<(), HostError> {
    let invalid = |why: String| Err(HostError::Invalid(why));
    let Request { method, headers, secret_headers, body, .. } = request;
    if !METHODS.contains(&method.as_str()) {
        return invalid(format!("the method is one of {}", METHODS.join(", ")));
    }
    if body.len() > BODY_BYTES {
        return invalid(format!("a body has at most {BODY_BYTES} bytes"));
    }
    let all = || headers.iter().chain(secret_headers);
    if all().count() > HEADERS {
        return invalid(format!("a request has at most {HEADERS} headers"));
    }
    if all().map(|(name, value)| name.len() + value.len()).sum::<usize>() > HEADER_BYTES {
        return invalid(format!("headers have at most {HEADER_BYTES} bytes together"));
    }
    if secret_headers.iter().any(|(_, secret)| secret.is_empty() || secret.len() > SECRET_BYTES) {
        return invalid(format!("a secret's name has 1 to {SECRET_BYTES} bytes"));
    }
    Ok(())
}
