//! One request: its route, the bounds on it, and the response.
//!
//! A request that may change something runs in a task of its own: a client that goes away does not stop what it began.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Either, Full};
use hyper::body::Incoming as HyperBody;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Request, Response, StatusCode};
use portcullis_core::RequestId;
use portcullis_service::Caller;
use tokio::sync::watch;

use crate::Front;
use crate::admit::admit;
use crate::ask::proceed;
use crate::dialect::{Dialect, Fault};
use crate::exchange::{Incoming, Reply, parse_query};
use crate::routes::{Matched, Route};

/// The longest request id that is taken over from a caller.
const MAX_REQUEST_ID: usize = 128;
/// The longest target of a request, in bytes.
const MAX_TARGET: usize = 8 * 1024;

/// A body that is there, or one that comes bit by bit.
pub(crate) type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Infallible>>;

/// Answers a request, whatever it is.
pub(crate) async fn answer(front: Arc<Front>, request: Request<HyperBody>) -> Response<Body> {
    let request_id = RequestId::new(front.service.now(), front.request_bits());
    let echoed = echoed_id(request.headers()).unwrap_or_else(|| header_value(request_id.to_string()));
    let origin = front.cors.allowed(request.headers());
    let mut response = match front.cors.preflight(origin.as_ref(), &request) {
        Some(preflight) => complete(preflight),
        None if crate::stream::is_streamed(request.uri().path()) => crate::stream::answer(&front, request).await,
        None => complete(route(&front, request, request_id).await),
    };
    response.headers_mut().insert("x-request-id", echoed);
    front.cors.mark(response.headers_mut(), origin);
    response
}

/// A reply as a response.
pub(crate) fn complete(reply: Reply) -> Response<Body> {
    let mut response = Response::new(match reply.stream {
        Some(stream) => Either::Right(stream),
        None => Either::Left(Full::new(reply.body)),
    });
    *response.status_mut() = reply.status;
    for (name, value) in reply.headers {
        response.headers_mut().insert(name, value);
    }
    response
}

/// Finds the route of a request and answers it within the bound on answers.
async fn route(front: &Arc<Front>, request: Request<HyperBody>, request_id: RequestId) -> Reply {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let target = parts.uri.path_and_query().map_or(path, |target| target.as_str());
    if target.len() > MAX_TARGET {
        return Dialect::of_path(path).fault(&Fault::TargetTooLong);
    }
    if let Some(reply) = crate::open::answer(front, &parts.method, path) {
        return reply;
    }
    let (route, params) = match front.routes.find(&parts.method, path) {
        Matched::Route { route, params } => (route, params),
        Matched::WrongMethod { dialect, allowed } => {
            return dialect.fault(&Fault::WrongMethod {
                method: parts.method.to_string(),
                target: target.to_owned(),
                allowed,
            });
        }
        Matched::Nothing => {
            let fault = Fault::NoRoute { method: parts.method.to_string(), target: target.to_owned() };
            return Dialect::of_path(path).fault(&fault);
        }
    };
    let incoming = Incoming {
        query: parse_query(parts.uri.query().unwrap_or_default()),
        headers: parts.headers,
        params,
        body: Bytes::new(),
        document: None,
        session: None,
        ticket: None,
        until: None,
    };
    let (dialect, kind) = (front.routes.row(route).dialect, front.routes.row(route).operation);
    let started = std::time::Instant::now();
    let limit = front.config.answer_timeout;
    let reply = if kind.row().mutates {
        // Only the waiting is bounded: what was begun is done, whether or not its caller still hears of it.
        // What only waits for its turn is given up when this future is dropped with the connection, and `here` with it.
        let (here, caller) = watch::channel(());
        let owned = Arc::clone(front);
        let task = tokio::spawn(async move {
            handle(&owned, owned.routes.row(route), incoming, body, request_id, Some(caller)).await
        });
        let ended = tokio::time::timeout(limit, task).await;
        drop(here);
        match ended {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                tracing::error!(request = %request_id, %error, "a request failed");
                dialect.fault(&Fault::Internal)
            }
            Err(_elapsed) => dialect.fault(&Fault::TimedOut),
        }
    } else {
        // A read changes nothing, so nothing is lost if its client goes away; it needs no task of its own.
        let handled =
            tokio::time::timeout(limit, handle(front, front.routes.row(route), incoming, body, request_id, None)).await;
        handled.unwrap_or_else(|_elapsed| dialect.fault(&Fault::TimedOut))
    };
    front.meters.answered(dialect, kind, reply.status, started.elapsed());
    if reply.status == StatusCode::UNAUTHORIZED
        && let Some(sample) = front.meters.turned_away(dialect, front.service.now())
    {
        let (dialect, operation) = (dialect.name(), kind.name());
        tracing::warn!(request = %request_id, dialect, operation, count = sample.since, "a stranger was turned away");
    }
    reply
}

async fn handle(
    front: &Arc<Front>,
    route: &Route,
    incoming: Incoming,
    body: HyperBody,
    request_id: RequestId,
    caller: Option<Caller>,
) -> Reply {
    match admit(front, route, incoming, body).await {
        Ok((principal, incoming)) => proceed(front, route, principal, incoming, request_id, caller).await,
        Err(fault) => route.dialect.fault(&fault),
    }
}

/// A caller's own request id, if it is short and printable.
fn echoed_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get("x-request-id")?;
    let printable = value.as_bytes().iter().all(u8::is_ascii_graphic);
    (!value.is_empty() && value.len() <= MAX_REQUEST_ID && printable).then(|| value.clone())
}

fn header_value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("req"))
}
