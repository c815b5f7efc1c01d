//! What is opened without a key, by a token that leads to one thing and for a short time: the page behind a temporary link with its
//! events, and the realtime socket, which is [`crate::realtime`]'s.
//!
//! Every stream ends when the gateway does.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming as HyperBody};
use hyper::{Method, Request, Response, StatusCode};
use portcullis_core::session::{PairingCode, PairingMethod};
use portcullis_core::{Intent, Session, Status};
use portcullis_service::Followed;
use tokio::sync::mpsc;

use crate::dialect::{Dialect, Fault};
use crate::exchange::Reply;
use crate::handle::{Body, complete};
use crate::page::{self, DeadReason, PageEvent};
use crate::places::{Seat, StreamPlace};
use crate::{Front, live, realtime};

/// How often a stream that says nothing is kept open by a comment.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How many events wait for a slow reader.
const UNREAD: usize = 8;
/// The length of a link's token.
const TOKEN: usize = 64;

/// Whether a path is answered here.
pub(crate) fn is_streamed(path: &str) -> bool {
    path.starts_with("/temp-qr/") || path == realtime::PATH
}

/// Answers it.
pub(crate) async fn answer(front: &Arc<Front>, request: Request<HyperBody>) -> Response<Body> {
    let path = request.uri().path();
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let (method, target) = (request.method().to_string(), path.to_owned());
        let fault = Fault::WrongMethod { method, target, allowed: "GET, HEAD".to_owned() };
        return complete(Dialect::Router.fault(&fault));
    }
    let Some(rest) = path.strip_prefix("/temp-qr/") else { return realtime::answer(front, request) };
    let (token, events) = match rest.strip_suffix("/events") {
        Some(token) => (token, true),
        None => (rest, false),
    };
    let well_formed = token.len() == TOKEN && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    match front.service.follow_link(token).filter(|_| well_formed) {
        Some(followed) if events => stream(front, token, followed),
        Some(_) => shown(StatusCode::OK, page::html),
        // Whether a link has expired, was revoked or never existed is nobody's business who has not seen it work.
        None => shown(StatusCode::NOT_FOUND, |nonce| page::dead_html(nonce, DeadReason::Gone)),
    }
}

fn shown(status: StatusCode, page: impl Fn(&str) -> String) -> Response<Body> {
    let nonce = format!("{:032x}", portcullis_service::random());
    let headers = page::headers(&nonce);
    let mut reply = Reply { body: Bytes::from(page(&nonce)), ..Reply::empty(status) };
    for (name, value) in headers {
        reply = reply.with(name, &value);
    }
    complete(reply)
}

/// The events of a session, for as long as the link leads to it.
fn stream(front: &Arc<Front>, token: &str, followed: Followed) -> Response<Body> {
    let place = match front.streams.enter(followed.org, Seat::Link(followed.session)) {
        Ok(place) => place,
        Err(full) => return complete(Dialect::Router.problem(&full.problem())),
    };
    let (send, receive) = mpsc::channel(UNREAD);
    let (front, token) = (Arc::clone(front), token.to_owned());
    tokio::spawn(async move { tell(&front, &token, followed, &send, place).await });
    let frames = unfold(receive, |mut receive: mpsc::Receiver<Bytes>| async move {
        let bytes = receive.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), receive))
    });
    complete(live::sse::of(StreamBody::new(frames).boxed_unsync()))
}

/// Tells what the session is, then what it becomes, until it is linked, the link is dead, or nobody reads any more.
async fn tell(front: &Front, token: &str, mut followed: Followed, send: &mpsc::Sender<Bytes>, _place: StreamPlace) {
    if wants_codes(followed.views.borrow().as_deref())
        && let Err(error) = front.service.pair_by_link(&followed).await
    {
        tracing::info!(session = %followed.session, code = error.code(), "a temporary link shows no code");
    }
    let mut ending = front.ending.subscribe();
    let expiry = front.service.reach(followed.expires_at);
    tokio::pin!(expiry);
    let mut told = String::new();
    loop {
        let event = {
            let session = followed.views.borrow_and_update().clone();
            event(session.as_deref(), token, front.service.now())
        };
        let text = event.sse();
        // Most changes of a session are none to those who look at its codes.
        if text != told && send.send(Bytes::from(text.clone())).await.is_err() {
            return;
        }
        told = text;
        if event.is_last() {
            return;
        }
        let quiet = loop {
            tokio::select! {
                changed = followed.views.changed() => break changed.is_err(),
                () = &mut expiry => {
                    let dead = PageEvent::Dead { reason: DeadReason::Expired };
                    let _ = send.send(Bytes::from(dead.sse())).await;
                    return;
                }
                _ = ending.changed() => return,
                () = tokio::time::sleep(KEEP_ALIVE) => {
                    if send.send(Bytes::from_static(b": still here\n\n")).await.is_err() {
                        return;
                    }
                }
            }
        };
        if quiet {
            let dead = PageEvent::Dead { reason: DeadReason::Gone };
            let _ = send.send(Bytes::from(dead.sse())).await;
            return;
        }
    }
}

/// Whether a session shows no codes because nobody has asked for any.
fn wants_codes(session: Option<&Session>) -> bool {
    session.is_some_and(|session| {
        let idle = matches!(session.status, Status::Stopped | Status::Failed { .. } | Status::LoggedOut { .. });
        idle && session.linked_device().is_none() && !matches!(session.intent, Intent::Removed { .. })
    })
}

/// What a session is to the holder of a link to it.
fn event(session: Option<&Session>, token: &str, now: portcullis_core::Timestamp) -> PageEvent {
    let dead = |reason| PageEvent::Dead { reason };
    let Some(session) = session else { return dead(DeadReason::Gone) };
    if let Some(device) = session.linked_device() {
        return PageEvent::Linked { name: device.push_name.clone() };
    }
    match session.active_link(now) {
        Some(link) if link.token.reveal() == token => {}
        _ => return dead(DeadReason::Revoked),
    }
    if matches!(session.intent, Intent::Removed { .. }) {
        return dead(DeadReason::Gone);
    }
    match &session.status {
        Status::Pairing { method: PairingMethod::Passkey, .. } => PageEvent::Passkey,
        Status::Pairing { code: Some(PairingCode { text, expires_at, .. }), method, .. } => match method {
            PairingMethod::Code => PageEvent::Code { code: text.reveal().to_owned() },
            PairingMethod::Qr | PairingMethod::Passkey => match portcullis_qr::data_url(text.reveal()) {
                Ok(image) => PageEvent::Qr { image, expires_at: *expires_at, now },
                Err(_) => dead(DeadReason::Failed),
            },
        },
        Status::Failed { .. } => dead(DeadReason::Failed),
        Status::Stopped
        | Status::Starting { .. }
        | Status::Pairing { .. }
        | Status::Online { .. }
        | Status::Reconnecting { .. }
        | Status::LoggedOut { .. } => PageEvent::Waiting,
        Status::Removing { .. } => dead(DeadReason::Gone),
    }
}

#[cfg(test)]
mod test {
    use portcullis_core::{Attempt, Device, Names, OrgId, Secret, SessionId, TempLink, Timestamp};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn session(token: &str) -> Session {
        let names = Names::new(7, None);
        let mut session = Session::new(SessionId::from_bytes([1; 16]), OrgId::from_bytes([2; 16]), names, NOW);
        session.link = Some(TempLink { token: Secret::new(token), expires_at: NOW.after(Duration::from_secs(1)) });
        session
    }

    fn check(what: &str, session: Option<&Session>, expected: &str) {
        let told = event(session, "mine", NOW).sse();
        assert!(told.starts_with(&format!("event: {expected}\n")), "{what}: {told}");
    }

    #[test]
    fn the_holder_of_a_link_sees_what_concerns_them() {
        check("a session that is gone", None, "dead");
        check("a session that has not begun", Some(&session("mine")), "waiting");
        check("a link that was replaced", Some(&session("another")), "dead");

        let mut late = session("mine");
        late.link = late.link.map(|link| TempLink { expires_at: NOW, ..link });
        check("a link that has expired", Some(&late), "dead");

        let mut pairing = session("mine");
        let attempt = Attempt::default().next();
        let code = PairingCode { text: Secret::new("2@abc"), expires_at: NOW, ordinal: 1 };
        let status = |method, code| Status::Pairing { attempt, method, code, deadline: NOW };
        pairing.status = status(PairingMethod::Qr, Some(code.clone()));
        check("a QR code", Some(&pairing), "qr");
        pairing.status = status(PairingMethod::Code, Some(code));
        check("a code to type", Some(&pairing), "code");
        pairing.status = status(PairingMethod::Passkey, None);
        check("a passkey", Some(&pairing), "passkey");
        pairing.status = status(PairingMethod::Qr, None);
        check("no code yet", Some(&pairing), "waiting");

        let mut linked = session("another");
        linked.link = None;
        linked.device = Some(Device { jid: "1@s.whatsapp.net".into(), lid: None, push_name: None });
        check("a session that was linked", Some(&linked), "linked");
    }

    #[test]
    fn only_an_idle_session_that_is_not_linked_is_made_to_show_codes() {
        let idle = session("mine");
        assert!(wants_codes(Some(&idle)));
        let mut linked = idle.clone();
        linked.device = Some(Device { jid: "1@s.whatsapp.net".into(), lid: None, push_name: None });
        assert!(!wants_codes(Some(&linked)));
        let mut leaving = idle;
        leaving.intent = Intent::Removed { due: NOW, reason: String::new(), since: NOW, was_running: false };
        assert!(!wants_codes(Some(&leaving)));
        assert!(!wants_codes(None));
    }
}
