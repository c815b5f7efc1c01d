//! The dialects that clients speak.
//!
//! A dialect is a table of routes with pure functions, and four things besides: how a caller says who it is,
//! how a session is named, what a [`Fault`] of the server's is called, and what an envelope looks like.

pub(crate) mod common;
pub(crate) mod evolution;
pub(crate) mod router;
pub(crate) mod wawp;

use hyper::StatusCode;
use portcullis_core::confirmation::Rejected;
use portcullis_core::verdict::Prompt;
use portcullis_core::{Secret, Session, Verdict};
use portcullis_service::ServiceError;
use serde_json::{Value, json};

use crate::exchange::{Incoming, Reply};
use crate::routes::Route;

/// One of the dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// The native one, `/api/v1`.
    Router,
    /// Wawp v2, `/v2`.
    Wawp,
    /// Evolution API v2, `/instance` and others.
    Evolution,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Dialect; 3] = [Self::Router, Self::Wawp, Self::Evolution];

    /// The stable word, in metrics and documentation.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Wawp => "wawp",
            Self::Evolution => "evolution",
        }
    }

    /// The dialect in which a path that no route has is answered.
    pub(crate) fn of_path(path: &str) -> Self {
        match path.split('/').nth(1) {
            Some("v2") => Self::Wawp,
            Some("" | "instance" | "webhook" | "settings" | "message" | "chat" | "proxy" | "verify-creds") => {
                Self::Evolution
            }
            _ => Self::Router,
        }
    }

    /// Its table.
    pub(crate) fn routes(self) -> Vec<Route> {
        match self {
            Self::Router => router::routes(),
            Self::Wawp => wawp::routes(),
            Self::Evolution => evolution::routes(),
        }
    }

    /// The credential that a request comes with.
    pub(crate) fn credential(self, incoming: &Incoming) -> Credential {
        match self {
            Self::Router => router::credential(incoming),
            Self::Wawp => wawp::credential(incoming),
            Self::Evolution => evolution::credential(incoming),
        }
    }

    /// A problem in its envelope.
    pub(crate) fn problem(self, problem: &Problem) -> Reply {
        let mut reply = match self {
            Self::Router => router::envelope(problem),
            Self::Wawp => wawp::envelope(problem),
            Self::Evolution => evolution::envelope(problem),
        };
        if let Some(seconds) = problem.retry_after {
            reply = reply.with("retry-after", &seconds.to_string());
        }
        if let Some(methods) = &problem.allow {
            reply = reply.with("allow", methods);
        }
        reply
    }

    /// What the server found wrong, in its words.
    pub(crate) fn fault(self, fault: &Fault) -> Reply {
        self.problem(&match self {
            Self::Router => router::fault(fault),
            Self::Wawp => wawp::fault(fault),
            Self::Evolution => evolution::fault(fault),
        })
    }
}

/// What a caller says to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// Nothing, or several things that contradict each other.
    None,
    /// An API key.
    Key(String),
    /// A token that an identity provider has signed.
    Jwt(String),
    /// An API key, or the token of one session.
    KeyOrSessionToken(String),
}

/// What the server itself can find wrong with a request, before and beside every operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody is known to ask.
    Unauthenticated,
    /// A person is known, but no organisation for which they came.
    NoOrganisation,
    /// The identity provider cannot be asked for its keys.
    NoKeys,
    /// The path, with its query, is no route's.
    NoRoute { method: String, target: String },
    /// The path is there, but not with this method.
    WrongMethod { method: String, target: String, allowed: String },
    /// The target of the request is too long.
    TargetTooLong,
    /// The body is too large.
    TooLarge { max: usize },
    /// The body did not arrive whole.
    BrokenBody,
    /// The body did not arrive in time.
    SlowBody,
    /// A query parameter is not what the route takes.
    Query(String),
    /// The request does not say which session it means.
    NoSession,
    /// There is no session of this name, or the caller may not know.
    UnknownSession { name: String },
    /// An answer took too long.
    TimedOut,
    /// The gateway is not ready to serve.
    NotReady,
    /// A bug.
    Internal,
}

/// Why a request is not done, in the terms of HTTP and before any dialect's envelope.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// The code of the dialect's own closed list.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// What goes beside the message, in the dialect's own form.
    pub(crate) details: Option<Value>,
    /// Seconds for `Retry-After`.
    pub(crate) retry_after: Option<u64>,
    /// Methods for `Allow`.
    pub(crate) allow: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: None, retry_after: None, allow: None }
    }

    pub(crate) fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    pub(crate) fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

/// What a refusal may have to name.
pub(crate) struct Told<'a> {
    /// The session's name as the request gave it, for dialects that name sessions.
    pub(crate) session: &'a str,
    /// That session as it was when the request came. Only for whoever was permitted to act on it.
    pub(crate) found: Option<&'a Session>,
    /// The request, for dialects whose refusals repeat what was asked.
    pub(crate) request: &'a Incoming,
    pub(crate) path: &'static str,
}

/// How a route tells an error of the service.
pub(crate) type Refuse = fn(&ServiceError, &Told<'_>) -> Reply;

/// What a caller has to confirm: every question in one text, under the one-time token with which the request is repeated.
/// The words are those of the table that all dialects share; besides, whether something has to be typed,
/// and why the token that came with the request does not count.
pub(crate) fn confirmation(prompts: &[Prompt], token: Option<&Secret>, rejected: Option<Rejected>) -> Value {
    let questions: Vec<&str> = prompts.iter().map(|prompt| prompt.prompt.as_str()).collect();
    let expires_at = prompts.iter().map(|prompt| prompt.expires).min();
    let mut asked =
        json!({ "token": token.map(Secret::reveal), "prompt": questions.join("\n"), "expires_at": expires_at });
    if prompts.iter().any(|prompt| prompt.answer.is_some()) {
        asked["answer_required"] = json!(true);
    }
    if let Some(rejected) = rejected {
        asked["rejected"] = json!(rejected.code());
    }
    asked
}

/// What only was to be tried: the verdict, in the words that all dialects share.
pub(crate) fn dry_run(verdict: &Verdict) -> Value {
    json!(router::DryRunView { dry_run: true, verdict: router::tried(verdict) })
}

/// Whole seconds, rounded up: who comes back then does not come too early.
pub(crate) fn whole_seconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod test;
