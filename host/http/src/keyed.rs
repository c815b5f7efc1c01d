//! Requests with an idempotency key: which request one is, and its reply as it is kept and told again.
//!
//! Every request that changes something can have a key, in every dialect. Messages keep their own way: what such a
//! key leads to is the message itself, as it is by then.

use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use portcullis_core::{OperationKind, OrgId, Principal, SessionId};
use portcullis_service::ServiceError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::asked::Answer;
use crate::dialect::common;
use crate::exchange::{Incoming, Reply};
use crate::routes::Route;

/// The headers of replies that are told again.
const HEADERS: [&str; 5] = ["content-type", "cache-control", "content-disposition", "retry-after", "x-decision-id"];
/// Tells that a reply is that of an earlier request.
const REPLAYED: &str = "idempotency-replayed";

/// A reply as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// The key of a request that changes something and is no message; none if it has none.
pub(crate) fn key(route: &Route, incoming: &Incoming) -> Result<Option<String>, ServiceError> {
    let has_its_own_way = match route.operation {
        OperationKind::MessageSend => true,
        // What goes on by itself has no reply to keep; the bytes of a plugin are the same however often they come.
        OperationKind::PluginUpload => incoming.query("wait").is_some() && !incoming.flag("wait"),
        _ => false,
    };
    if !route.operation.row().mutates || has_its_own_way {
        return Ok(None);
    }
    let key = common::idempotency_key(incoming)
        .map_err(|message| ServiceError::Invalid { field: "Idempotency-Key", message })?;
    // What is only tried takes no key, but a bad one is found out.
    Ok(key.filter(|_| !incoming.flag("dry_run")))
}

/// A digest of everything that makes a request this one: who asks, for what, with which words.
pub(crate) fn digest(route: &Route, incoming: &Incoming, principal: &Principal) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut part = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    part(&serde_json::to_vec(&principal.kind).unwrap_or_default());
    part(&principal.session_scope.map(SessionId::to_bytes).unwrap_or_default());
    for text in [route.method.as_str(), route.path, route.action] {
        part(text.as_bytes());
    }
    for (name, value) in &incoming.params {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    for (name, value) in &incoming.query {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    part(&incoming.body);
    digest.finalize().into()
}

/// About whom a reply is: an organisation, or one of its sessions. It lies under that one's key, and goes with it. `org` is the one in
/// which was acted.
pub(crate) fn about(route: &Route, answer: &Answer, org: OrgId, own: OrgId) -> (OrgId, Option<SessionId>) {
    match answer {
        // What a delete is answered holds ids and times only, and is there to be told when the session is not.
        _ if route.operation == OperationKind::SessionDelete => (org, None),
        Answer::Operated(done) => match &done.session {
            Some(session) => (session.org, Some(session.id)),
            None => (org, None),
        },
        Answer::OrgCreated(made) | Answer::Org(made) => (made.id, None),
        // Of what is gone there is nothing to say but that.
        Answer::OrgErased => (own, None),
        _ => (org, None),
    }
}

/// Whether the reply holds something that is shown once.
pub(crate) fn is_shown_once(route: &Route, reply: &Reply) -> bool {
    let has_secret = || reply.body.windows(9).any(|window| window == b"\"secret\":");
    match route.operation {
        OperationKind::KeyCreate => true,
        // A link that is revoked is shown no more, but that it was can be said again.
        OperationKind::SessionLink => route.method != Method::DELETE,
        OperationKind::WebhookRotate | OperationKind::WebhookCreate => has_secret(),
        _ => false,
    }
}

/// A reply as it is kept. One that is no text is not.
pub(crate) fn kept(reply: &Reply) -> Option<Vec<u8>> {
    let headers = reply.headers.iter().filter(|(name, _)| HEADERS.contains(name));
    let headers = headers.map(|(name, value)| Some(((*name).to_owned(), value.to_str().ok()?.to_owned())));
    let body = String::from_utf8(reply.body.to_vec()).ok().filter(|_| reply.stream.is_none())?;
    let kept = Kept { status: reply.status.as_u16(), headers: headers.collect::<Option<_>>()?, body };
    serde_json::to_vec(&kept).ok()
}

/// A reply that was kept, once more.
pub(crate) fn again(bytes: &[u8]) -> Option<Reply> {
    let Kept { status, headers, body } = serde_json::from_slice(bytes).ok()?;
    let mut reply = Reply::empty(StatusCode::from_u16(status).ok()?);
    reply.body = Bytes::from(body);
    for (name, value) in headers {
        let known = HEADERS.iter().find(|known| **known == name)?;
        reply.headers.push((known, HeaderValue::from_str(&value).ok()?));
    }
    Some(told_late(reply))
}

/// A reply to a request that was made before, whatever it is made of.
pub(crate) fn told_late(reply: Reply) -> Reply {
    reply.with(REPLAYED, "true")
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_reply_is_told_again_as_it_was() {
        let reply = Reply::json(StatusCode::CREATED, &"täxt").with("x-decision-id", "dec_1").with("x-other", "gone");
        let again = again(&kept(&reply).unwrap()).unwrap();
        assert_eq!((again.status, &again.body), (reply.status, &reply.body));
        let told: Vec<_> = again.headers.iter().map(|(name, value)| (*name, value.to_str().unwrap())).collect();
        assert_eq!(
            told,
            [("content-type", "application/json"), ("x-decision-id", "dec_1"), ("idempotency-replayed", "true")]
        );
        let picture = Reply::text(StatusCode::OK, "image/png", vec![0xff, 0xd8]);
        assert!(kept(&picture).is_none());
    }
}
