//! The server: connections, bounds of every kind, and a drain that loses nothing.
//!
//! A request runs in a task of its own: a client that goes away does not stop what it began.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming as HyperBody};
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use portcullis_core::{Denial, RequestId};
use portcullis_service::ServiceError;
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::Front;
use crate::dialect::Problem;
use crate::dialect::router::{encode_problem, from_service};
use crate::dispatch::{self, Asking};
use crate::exchange::{Incoming, Reply, parse_query};
use crate::routes::{BodyBound, EncodeContext, Matched, Route};

/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 32 * 1024;
/// The longest request id that is taken over from a caller.
const MAX_REQUEST_ID: usize = 128;
/// The longest target of a request, in bytes.
const MAX_TARGET: usize = 8 * 1024;

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listening socket failed for good.
    #[error("accepting connections failed")]
    Accept(#[source] std::io::Error),
}

/// Serves until `shutdown` completes; then takes no more connections and lets the requests under way end.
///
/// # Errors
/// If the listening socket fails for good.
pub async fn serve(
    front: Arc<Front>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(front.config.head_timeout)
        .max_buf_size(MAX_HEAD)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(32 * 1024)
        .max_concurrent_streams(128)
        .keep_alive_interval(Duration::from_secs(30));
    let builder = Arc::new(builder);
    let head_timeout = front.config.head_timeout;
    let unread_timeout = u32::try_from(front.config.body_timeout.as_millis()).unwrap_or(u32::MAX);
    let graceful = GracefulShutdown::new();
    // Dropping the sender is what tells the silent connections.
    let (ending, ended) = watch::channel(());
    let places = Arc::new(Semaphore::new(front.config.connections));
    tokio::pin!(shutdown);
    loop {
        let place = tokio::select! {
            () = &mut shutdown => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        // The semaphore is never closed.
        let Ok(place) = place else { break };
        let (stream, _peer): (_, SocketAddr) = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_passing(&error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                Err(error) => return Err(ServeError::Accept(error)),
            },
        };
        // Answers are small and complete; waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        // A client that asks and never reads must not hold its place for ever. The kernel keeps this clock, so that no answer pays for it.
        let _ = set_tcp_user_timeout(&stream, unread_timeout);
        let front = Arc::clone(&front);
        let service = hyper::service::service_fn(move |request| {
            let front = Arc::clone(&front);
            async move { Ok::<_, std::convert::Infallible>(detached(front, request).await) }
        });
        let (builder, watcher) = (Arc::clone(&builder), graceful.watcher());
        let mut ended = ended.clone();
        tokio::spawn(async move {
            // Hyper's own clock starts with the first request, so who says nothing at all is sent away here, and at the end at once.
            let spoken = tokio::select! {
                spoken = tokio::time::timeout(head_timeout, speaks(&stream)) => spoken.is_ok_and(|spoken| spoken.is_ok()),
                _ = ended.changed() => false,
            };
            if spoken {
                let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
                if let Err(error) = watcher.watch(connection).await {
                    tracing::debug!(%error, "a connection ended early");
                }
            }
            drop(place);
        });
    }
    drop(listener);
    drop(ending);
    if tokio::time::timeout(front.config.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
    Ok(())
}

/// Completes once a client has said enough to tell HTTP/1 from HTTP/2.
async fn speaks(stream: &TcpStream) -> std::io::Result<()> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut said = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut said).await?;
        if length == 0 || length == PREFACE.len() || !PREFACE.starts_with(&said[..length]) {
            return Ok(());
        }
        // A beginning of the preface stays readable, so the rest of it cannot be waited for; it is looked for now and then.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Too many open files, or a client that was gone before it was accepted: the next one may be accepted.
fn is_passing(error: &std::io::Error) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
        || matches!(
            error.kind(),
            std::io::ErrorKind::ConnectionAborted
                | std::io::ErrorKind::ConnectionReset
                | std::io::ErrorKind::Interrupted
        )
}

/// Runs a request in a task that outlives the client's connection, within the bound on answers.
async fn detached(front: Arc<Front>, request: Request<HyperBody>) -> Response<Full<Bytes>> {
    let now = front.service.now();
    let request_id = RequestId::new(now, front.request_bits());
    let echoed = echoed_id(request.headers()).unwrap_or_else(|| header_value(request_id.to_string()));
    let limit = front.config.answer_timeout;
    let is_plain_read = request.method() == Method::GET && !request.uri().path().ends_with("/qr");
    let reply = if is_plain_read {
        // A read changes nothing, so nothing is lost if its client goes away; it needs no task of its own.
        tokio::time::timeout(limit, handle(front, request, request_id)).await.unwrap_or_else(|_| timed_out())
    } else {
        // Only the waiting is bounded: what was begun is done, whether or not its caller still hears of it.
        let task = tokio::spawn(handle(front, request, request_id));
        match tokio::time::timeout(limit, task).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                tracing::error!(request = %request_id, %error, "a request failed");
                internal()
            }
            Err(_elapsed) => timed_out(),
        }
    };
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    for (name, value) in reply.headers {
        response.headers_mut().insert(name, value);
    }
    response.headers_mut().insert("x-request-id", echoed);
    response
}

fn timed_out() -> Reply {
    let mut problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "gateway_unavailable", "request timed out");
    problem.retry_after = Some(1);
    encode_problem(&problem)
}

async fn handle(front: Arc<Front>, request: Request<HyperBody>, request_id: RequestId) -> Reply {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if parts.uri.path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET) {
        return encode_problem(&Problem::new(
            StatusCode::URI_TOO_LONG,
            "validation_error",
            "the request target is too long",
        ));
    }
    match path {
        "/healthz" => return probe(&parts.method, true),
        "/readyz" => return probe(&parts.method, front.service.is_ready()),
        _ => {}
    }
    let (route, params) = match front.routes.find(&parts.method, path) {
        Matched::Route { route, params } => (route, params),
        Matched::WrongMethod { allowed } => {
            let mut problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "validation_error", "method not allowed");
            problem.allow = Some(allowed.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(", "));
            return encode_problem(&problem);
        }
        Matched::Nothing => return encode_problem(&Problem::not_found("route not found")),
    };
    // Who asks comes before what is asked: a stranger learns nothing about bodies and ids.
    let Some(principal) = credential(&parts.headers).and_then(|key| front.service.authenticate(key).ok()) else {
        return encode_problem(&Problem::unauthenticated());
    };
    let max = match route.body {
        BodyBound::Json => front.config.json_bytes,
        BodyBound::Component => front.config.component_bytes,
    };
    let body = match read_body(body, &parts.headers, max, front.config.body_timeout).await {
        Ok(body) => body,
        Err(problem) => return encode_problem(&problem),
    };
    let incoming = Incoming { params, query: parse_query(parts.uri.query().unwrap_or_default()), body };
    let answered = async {
        check_query(route, &incoming)?;
        let asked = (route.decode)(&incoming)?;
        let org = dispatch::acting_org(&principal, incoming.query("org")).map_err(|error| from_service(&error))?;
        let dry_run = is_true(incoming.query("dry_run"));
        let asking = Asking { principal, kind: route.operation, org, request: request_id, dry_run };
        dispatch::answer(&front, asking, asked).await.map_err(|error| refused(&error, request_id, route))
    };
    match answered.await {
        Ok(answer) => {
            let decision = answer.decision();
            let reply = (route.encode)(
                &EncodeContext { gateway_id: &front.config.gateway_id, simulated: front.service.is_simulated() },
                answer,
            );
            match decision {
                Some(decision) => reply.with("x-decision-id", &decision.to_string()),
                None => reply,
            }
        }
        Err(problem) => encode_problem(&problem),
    }
}

/// The query parameters that some route knows.
const QUERY: [&str; 7] = ["async", "cursor", "dry_run", "limit", "org", "session", "wait"];

/// Whoever misspells `dry_run` must not have it done in earnest: a route that changes something takes only what it knows.
fn check_query(route: &Route, incoming: &Incoming) -> Result<(), Problem> {
    let row = route.operation.row();
    if !row.mutates {
        return Ok(());
    }
    if let Some((unknown, _)) = incoming.query.iter().find(|(name, _)| !QUERY.contains(&name.as_str())) {
        return Err(Problem::malformed(&[format!("unexpected query parameter {unknown:?}")]));
    }
    match incoming.query("dry_run") {
        None | Some("false" | "0") => Ok(()),
        value if !is_true(value) => Err(Problem::malformed(&["dry_run must be true or false".to_owned()])),
        _ if !row.hookable => {
            Err(Problem::malformed(&[format!("{} cannot be tried without doing it; leave dry_run out", row.name)]))
        }
        _ => Ok(()),
    }
}

fn is_true(value: Option<&str>) -> bool {
    matches!(value, Some("true" | "1" | ""))
}

/// What is told of a failure, and what is logged of it.
fn refused(error: &ServiceError, request: RequestId, route: &Route) -> Problem {
    if let ServiceError::Store(_) = error {
        let error: &dyn std::error::Error = error;
        tracing::error!(%request, operation = route.operation.name(), error, "an operation failed");
    }
    if matches!(error, ServiceError::Denied(Denial::Hidden)) {
        // The same words as for an id that nobody has.
        return from_service(&ServiceError::NotFound(hidden_noun(route)));
    }
    from_service(error)
}

fn hidden_noun(route: &Route) -> &'static str {
    match route.path.split('/').nth(3) {
        Some("sessions") => "session",
        Some("orgs") => "organisation",
        Some("plugins") => "plugin",
        Some("bindings") => "binding",
        Some("decisions") => "decision",
        _ => "resource",
    }
}

fn probe(method: &Method, healthy: bool) -> Reply {
    match (method, healthy) {
        (&Method::GET | &Method::HEAD, true) => Reply::text(StatusCode::OK, "ok"),
        (&Method::GET | &Method::HEAD, false) => encode_problem(&Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "gateway_unavailable",
            "not ready: the store does not answer",
        )),
        _ => encode_problem(&Problem::new(StatusCode::METHOD_NOT_ALLOWED, "validation_error", "method not allowed")),
    }
}

/// The key that a request comes with: `X-Api-Key`, or else a bearer token.
fn credential(headers: &HeaderMap) -> Option<&str> {
    if let Some(key) = headers.get("x-api-key") {
        return key.to_str().ok();
    }
    let value = headers.get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

async fn read_body(body: HyperBody, headers: &HeaderMap, max: usize, timeout: Duration) -> Result<Bytes, Problem> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let announced = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max as u64) {
        return Err(Problem::too_large(max));
    }
    match tokio::time::timeout(timeout, Limited::new(body, max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::too_large(max)),
        Ok(Err(_broken)) => Err(Problem::invalid("the body did not arrive whole")),
        Err(_elapsed) => {
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "validation_error", "the body did not arrive in time"))
        }
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

fn internal() -> Reply {
    encode_problem(&Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal server error"))
}
