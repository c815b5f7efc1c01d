//! Who asks, and with what: the credential of a request, and its body as far as its caller may send one.
//!
//! Who asks comes before what is asked: a stranger learns nothing about sessions, ids and the form of bodies.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::HeaderMap;
use hyper::body::{Body as _, Incoming as HyperBody};
use portcullis_core::{OperationKind, Principal, Timestamp};
use portcullis_net::{Jwks, JwtError};
use portcullis_service::{KEY_PREFIX, UserRoles};

use crate::Front;
use crate::dialect::{Credential, Dialect, Fault};
use crate::exchange::Incoming;
use crate::routes::{BodyBound, Route};

/// The largest body of somebody who has not said who they are, in bytes.
const STRANGERS_BODY: usize = 64 * 1024;

/// Who asks, and with what.
pub(crate) async fn admit(
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
