//! Why there is no answer.
//!
//! Every reason has a word that never changes and that whoever named the server may see: it tells what the server did,
//! and of the machines inside no more than that they are refused. Sources, which tell more, are for the log.
//! What is named is the server and never the path, which may hold a secret.

use std::io;

use hyper::header::HeaderName;

use crate::{Refusal, UrlFlaw};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The URL is none that can be used.
    #[error("the URL {0}")]
    Url(UrlFlaw),
    /// The header is one that a request has by itself.
    #[error("the header {0} cannot be set")]
    Header(HeaderName),
    /// The server must not be reached.
    #[error("{0}")]
    Refused(Refusal),
    /// The name leads nowhere.
    #[error("cannot find {0}")]
    Lookup(String, #[source] LookupError),
    /// Nobody said in time where the name leads.
    #[error("could not find {0} in time")]
    LookupTimeout(String),
    /// The server does not take connections.
    #[error("cannot connect to {0}; is it running?")]
    Connect(String, #[source] io::Error),
    /// The connection did not come about in time.
    #[error("could not connect to {0} in time")]
    ConnectTimeout(String),
    /// The server did not prove that it is who it should be.
    #[error("cannot make a secure connection to {0}")]
    Tls(String, #[source] io::Error),
    /// The head of the answer took too long.
    #[error("{0} did not answer in time")]
    HeadTimeout(String),
    /// The body of the answer took too long.
    #[error("{0} did not finish its answer in time")]
    BodyTimeout(String),
    /// The answer is larger than what is read of it.
    #[error("the answer of {0} is too large")]
    TooLarge(String),
    /// The answer is no HTTP.
    #[error("the answer of {0} cannot be read")]
    Malformed(String, #[source] hyper::Error),
    /// The connection broke before the answer was there.
    #[error("the exchange with {0} broke")]
    Broken(String, #[source] hyper::Error),
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The system does not know it.
    #[error("the system does not know the name")]
    System(#[source] io::Error),
    /// The servers that the operator named do not know it.
    #[error("the name servers do not know the name")]
    Servers(#[source] Box<hickory_resolver::net::NetError>),
    /// It is there, and has no address.
    #[error("the name has no address")]
    Empty,
}

impl NetError {
    /// The word for it, which never changes. It says nothing about machines inside.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Url(_) => "invalid_url",
            Self::Header(_) => "invalid_header",
            Self::Refused(refusal) => refusal.code(),
            Self::Lookup(..) => "dns_failed",
            Self::LookupTimeout(_) => "dns_timeout",
            Self::Connect(..) => "connect_failed",
            Self::ConnectTimeout(_) => "connect_timeout",
            Self::Tls(..) => "tls_failed",
            Self::HeadTimeout(_) => "head_timeout",
            Self::BodyTimeout(_) => "body_timeout",
            Self::TooLarge(_) => "answer_too_large",
            Self::Malformed(..) => "malformed_answer",
            Self::Broken(..) => "connection_broken",
        }
    }
}
