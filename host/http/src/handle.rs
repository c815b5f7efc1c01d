//! One request: its bounds, who asks, which session is meant, and the way through a dialect's table.
//!
//! A request that may change something runs in a task of its own: a client that goes away does not stop what it began.
//! Who asks comes before what is asked: a stranger learns nothing about sessions, ids and the form of bodies.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming as HyperBody};
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Request, Response, StatusCode};
use portcullis_core::{
    Capability, OperationKind, OrgId, Principal, PrincipalKind, RequestId, Secret, Session, Timestamp,
};
use portcullis_net::{Jwks, JwtError};
use portcullis_service::{
    Call, Caller, GivenToken, KEY_PREFIX, Keyed, RequestKey, ServiceError, SessionName, UserRoles,
};
use tokio::sync::watch;

use crate::Front;
use crate::asked::Answer;
use crate::dialect::{self, Credential, Dialect, Fault, Problem, Told};
use crate::dispatch::{self, Asking};
use crate::exchange::{Incoming, Reply, parse_query};
use crate::keyed;
use crate::routes::{BodyBound, EncodeContext, Matched, Route, SessionBy};

/// The longest request id that is taken over from a caller.
const MAX_REQUEST_ID: usize = 128;
/// The largest body of somebody who has not said who they are, in bytes.
const STRANGERS_BODY: usize = 64 * 1024;
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

/// Who asks, and with what.
async fn admit(
    front: &Arc<Front>,
    route: &Route,
    mut incoming: Incoming,
    body: HyperBody,
) -> Result<(Principal, Incoming), Fault> {
    if route.dialect == Dialect::Wawp {
        // Its clients may say who they are in the body. A stranger's is only read as far as it takes to say so.
        let said_before = route.dialect.credential(&incoming);
        let (known, max) = match &said_before {
            Credential::None => (None, STRANGERS_BODY.min(front.config.json_bytes)),
            credential => (Some(authenticate(front, credential).await?.principal), front.config.json_bytes),
        };
        incoming.body = read_body(body, &incoming.headers, max, front.config.body_timeout).await?;
        if !incoming.body.is_empty() {
            incoming.document = serde_json::from_slice(&incoming.body).ok();
        }
        let principal = match known {
            Some(principal) if incoming.document.is_none() => principal,
            // A body that names somebody else makes it nobody.
            Some(principal) if route.dialect.credential(&incoming) == said_before => principal,
            Some(_) => return Err(Fault::Unauthenticated),
            None => authenticate(front, &route.dialect.credential(&incoming)).await?.principal,
        };
        return Ok((principal, incoming));
    }
    let credential = route.dialect.credential(&incoming);
    let known = match incoming.query("ticket").filter(|_| route.operation == OperationKind::EventRead) {
        // Whoever comes with two credentials is nobody.
        Some(_) if credential != Credential::None => return Err(Fault::Unauthenticated),
        Some(text) => {
            let ticket = front.tickets.redeem(text, front.service.now()).ok_or(Fault::Unauthenticated)?;
            let principal = front.service.as_of_now(&ticket.principal).map_err(|_| Fault::Unauthenticated)?;
            incoming.ticket = Some(ticket);
            Known { principal, until: None }
        }
        None => authenticate(front, &credential).await?,
    };
    incoming.until = known.until;
    take_body(front, route, &mut incoming, body).await?;
    Ok((known.principal, incoming))
}

/// From a known caller's request to its reply.
async fn proceed(
    front: &Arc<Front>,
    route: &Route,
    principal: Principal,
    mut incoming: Incoming,
    request_id: RequestId,
    caller: Option<Caller>,
) -> Reply {
    let may_manage = principal.capabilities.allow(Capability::Manage);
    let mut named = Named::default();
    let answered = async {
        check_query(route, &incoming)?;
        let org = match &incoming.ticket {
            Some(ticket) => ticket.org,
            None => dispatch::acting_org(&principal, incoming.query("org")).map_err(Wrong::Service)?,
        };
        locate(front, route, &principal, org, &mut incoming, &mut named)?;
        let asked = (route.decode)(&incoming).map_err(Wrong::Problem)?;
        let call = Call {
            request: Some(request_id),
            dry_run: incoming.flag("dry_run"),
            caller,
            confirmation: confirmation(&incoming)?,
            claim: None,
        };
        let mut asking = Asking { principal, kind: route.operation, paid: route.paid, org, request: request_id, call };
        if let Some(key) = keyed::key(route, &incoming, &asked).map_err(Wrong::Service)? {
            let digest = keyed::digest(route, &incoming, &asking.principal);
            match front.service.keyed(asking.principal.org, &key, digest).map_err(Wrong::Service)? {
                Keyed::Again(reply) => {
                    return keyed::again(&reply).map(Answered::Before).ok_or(Wrong::Fault(Fault::Internal));
                }
                Keyed::First(request) => asking.call.claim = Some(request),
            }
        }
        let claim = asking.call.claim.clone().map(|claim| (claim, dispatch::acted_in(&asking, &asked)));
        let answer = dispatch::answer(front, asking, asked).await.map_err(Wrong::Service)?;
        Ok(Answered::Now(Box::new(answer), claim))
    };
    match answered.await {
        Ok(Answered::Before(reply)) => reply,
        Ok(Answered::Now(answer, claim)) => {
            let answer = *answer;
            let claim = claim.map(|(claim, org)| (keyed::about(&answer, org, claim.org()), claim));
            let decision = answer.decision();
            let context = EncodeContext {
                gateway_id: &front.config.gateway_id,
                simulated: front.service.is_simulated(),
                public_url: front.public_url(),
                now: front.service.now(),
                session: &named.said,
                found: named.found.as_deref(),
                request: &incoming,
                plan_active: named.found.as_ref().is_some_and(|found| front.service.has_active_plan(found.org)),
                may_manage,
            };
            let reply = match answer {
                Answer::DryRun(verdict) => Reply::json(StatusCode::OK, &dialect::dry_run(&verdict)),
                answer => (route.encode)(&context, answer),
            };
            let reply = match decision {
                Some(decision) => reply.with("x-decision-id", &decision.to_string()),
                None => reply,
            };
            if let Some((about, claim)) = claim
                && let Some(kept) =
                    if keyed::is_shown_once(route.operation, &reply) { Some(Vec::new()) } else { keyed::kept(&reply) }
                && let Err(error) = front.service.keep_reply(&claim, about, kept).await
            {
                // It was done, and whoever asks again is told that.
                tracing::error!(request = %request_id, error = &error as &dyn std::error::Error, "a reply was not kept");
            }
            reply
        }
        Err(Wrong::Fault(fault)) => route.dialect.fault(&fault),
        Err(Wrong::Problem(problem)) => route.dialect.problem(&problem),
        Err(Wrong::Service(error)) => {
            if let ServiceError::Store(_) = error {
                let error: &dyn std::error::Error = &error;
                tracing::error!(request = %request_id, operation = route.operation.name(), error, "an operation failed");
            }
            let told =
                Told { session: &named.said, found: named.found.as_deref(), request: &incoming, path: route.path };
            let reply = (route.refuse)(&error, &told);
            match error.decision() {
                Some(decision) => reply.with("x-decision-id", &decision.to_string()),
                None => reply,
            }
        }
    }
}

/// What a request comes to.
enum Answered {
    /// It was made before, under the same idempotency key.
    Before(Reply),
    /// It was done now, and may have taken its key.
    Now(Box<Answer>, Option<(Arc<RequestKey>, OrgId)>),
}

/// Why a known caller's request is not done.
enum Wrong {
    Fault(Fault),
    Problem(Problem),
    Service(ServiceError),
}

impl From<Fault> for Wrong {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Who asks, and for how long they may be believed.
struct Known {
    principal: Principal,
    until: Option<Timestamp>,
}

impl From<Principal> for Known {
    fn from(principal: Principal) -> Self {
        Self { principal, until: None }
    }
}

async fn authenticate(front: &Front, credential: &Credential) -> Result<Known, Fault> {
    let known = match credential {
        Credential::None => None,
        Credential::Key(key) => front.service.authenticate(key).ok(),
        Credential::KeyOrSessionToken(text) => {
            // What looks like a key is nothing else: a key that was revoked must not live on as a token.
            let token = || front.service.authenticate_session_token(text).ok();
            front.service.authenticate(text).ok().or_else(|| if text.starts_with(KEY_PREFIX) { None } else { token() })
        }
        // A token that fails is never tried as a key.
        Credential::Jwt(token) => match &front.users {
            // Keys may have to be fetched, for which all others would carry the room.
            Some(users) => return Box::pin(user(front, users, token)).await,
            None => None,
        },
    };
    known.map(Known::from).ok_or(Fault::Unauthenticated)
}

/// Who comes with a token that the identity provider has signed.
/// Source of the claims' names and meanings: the router's documentation of its authentication.
async fn user(front: &Front, users: &Jwks, token: &str) -> Result<Known, Fault> {
    let claims = match users.verify(token, front.service.now().as_millis()).await {
        Ok(claims) => claims,
        Err(JwtError::Keys(error)) => {
            let error: &dyn std::error::Error = &*error;
            tracing::error!(error, "the keys of the identity provider could not be had");
            return Err(Fault::NoKeys);
        }
        Err(error) => {
            tracing::debug!(%error, "a token was refused");
            return Err(Fault::Unauthenticated);
        }
    };
    let roles = match (claims.role.as_deref(), claims.org_role.as_deref()) {
        (Some("super_admin"), _) => UserRoles::Operator,
        (_, Some("owner" | "admin")) => UserRoles::Owner,
        (_, Some("member")) => UserRoles::Member,
        _ => UserRoles::None,
    };
    let found = front.service.user(claims.subject, claims.organization.as_deref(), roles);
    let principal = found.map_err(|_nowhere| Fault::NoOrganisation)?;
    Ok(Known { principal, until: Some(Timestamp::from_millis(claims.expires_at_ms)) })
}

/// The session that a request names otherwise than by its id.
#[derive(Default)]
struct Named {
    /// Its name as the request gave it.
    said: String,
    /// The session as it was when the request came.
    found: Option<Arc<Session>>,
}

/// Finds the session that a request names, in dialects whose names are not its ids.
fn locate(
    front: &Front,
    route: &Route,
    principal: &Principal,
    org: OrgId,
    incoming: &mut Incoming,
    named: &mut Named,
) -> Result<(), Fault> {
    let said = &mut named.said;
    let found = match route.session {
        SessionBy::Id => return Ok(()),
        SessionBy::InstanceId(read) => {
            *said = read(incoming)?;
            front.service.find_session(org, SessionName::InstanceId(said))
        }
        SessionBy::InstanceName => {
            incoming.param("instance").clone_into(said);
            front.service.find_session(org, SessionName::InstanceName(said))
        }
    };
    let id = found.as_ref().map(|session| session.id);
    if principal.session_scope.is_some() && id != principal.session_scope {
        // To whoever is bound to one session, no other is there; the token of another session is no credential here at all.
        let token = principal.kind == PrincipalKind::SessionToken;
        return Err(if token { Fault::Unauthenticated } else { Fault::UnknownSession { name: said.clone() } });
    }
    incoming.session = Some(id.ok_or_else(|| Fault::UnknownSession { name: said.clone() })?);
    named.found = found;
    Ok(())
}

/// The query parameters that some route of the native dialect knows.
const QUERY: [&str; 12] = [
    "answer",
    "async",
    "class",
    "confirmation",
    "cursor",
    "dry_run",
    "events",
    "format",
    "limit",
    "org",
    "session",
    "wait",
];

/// Whoever misspells `dry_run` must not have it done in earnest: a route of the native dialect that changes something takes only what it knows.
/// Clients of the other dialects send parameters that were never documented, so there only `dry_run` itself is looked at.
fn check_query(route: &Route, incoming: &Incoming) -> Result<(), Fault> {
    let row = route.operation.row();
    if !row.mutates {
        return Ok(());
    }
    let unknown = incoming.query.iter().find(|(name, _)| !QUERY.contains(&name.as_str()));
    if let Some((unknown, _)) = unknown.filter(|_| route.dialect == Dialect::Router) {
        return Err(Fault::Query(format!("unexpected query parameter {unknown:?}")));
    }
    if incoming.query.iter().filter(|(name, _)| name == "dry_run").count() > 1 {
        return Err(Fault::Query("dry_run must be given once".to_owned()));
    }
    match incoming.query("dry_run") {
        None | Some("false" | "0") => Ok(()),
        Some(_) if !incoming.flag("dry_run") => Err(Fault::Query("dry_run must be true or false".to_owned())),
        Some(_) => Ok(()),
    }
}

/// The confirmation that a request comes with: a token and what was typed, in the query or in headers, the same in every dialect.
fn confirmation(incoming: &Incoming) -> Result<Option<GivenToken>, Fault> {
    let given = |name: &str, header: &str| {
        let header = incoming.headers.get(header).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
        incoming.query(name).or(header).map(str::to_owned)
    };
    let (token, answer) = (given("confirmation", "portcullis-confirmation"), given("answer", "portcullis-answer"));
    let longer = |text: &Option<String>, max: usize| text.as_ref().is_some_and(|text| text.chars().count() > max);
    if longer(&token, 128) || longer(&answer, 1024) {
        return Err(Fault::Query("a confirmation has at most 128 characters, and an answer 1024".to_owned()));
    }
    Ok(token.map(|token| GivenToken { token: Secret::new(token), answer }))
}

async fn take_body(front: &Front, route: &Route, incoming: &mut Incoming, body: HyperBody) -> Result<(), Fault> {
    let max = match route.body {
        BodyBound::Json => front.config.json_bytes,
        BodyBound::Component => front.config.component_bytes,
    };
    incoming.body = read_body(body, &incoming.headers, max, front.config.body_timeout).await?;
    Ok(())
}

async fn read_body(body: HyperBody, headers: &HeaderMap, max: usize, timeout: Duration) -> Result<Bytes, Fault> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let announced = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max as u64) {
        return Err(Fault::TooLarge { max });
    }
    match tokio::time::timeout(timeout, Limited::new(body, max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Fault::TooLarge { max }),
        Ok(Err(_broken)) => Err(Fault::BrokenBody),
        Err(_elapsed) => Err(Fault::SlowBody),
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
