//! The control port: what the library offers, for tests that run the server as a program. The crate's own text lists
//! the routes.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::error::ServerError;
use crate::faults::{Failure, Faults};
use crate::handshake::Certificate;
use crate::server::{Action, Controls};

/// How much a request may hold.
const MOST: usize = 1 << 20;

/// How long a request for the next state waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves requests for as long as the server is there.
pub(crate) async fn serve(controls: Controls, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { tokio::task::yield_now().await; continue };
                let controls = controls.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| respond(controls.clone(), request));
                    // A client that goes away in the middle has its reasons.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Why a request is not carried out.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("there is no such route")]
    Route,
    #[error("the body is not what this route takes: {0}")]
    Body(String),
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl Fault {
    fn status(&self) -> StatusCode {
        match self {
            Self::Route => StatusCode::NOT_FOUND,
            Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::Server(ServerError::NoDevice | ServerError::NoText | ServerError::NotOnWhatsApp) => {
                StatusCode::NOT_FOUND
            }
            Self::Server(ServerError::Qr | ServerError::Code) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Server(_) => StatusCode::CONFLICT,
        }
    }
}

async fn respond(controls: Controls, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match route(&controls, request).await {
        Ok(body) => (StatusCode::OK, body),
        Err(fault) => (fault.status(), json!({ "error": fault.to_string() })),
    };
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

async fn route(controls: &Controls, request: Request<Incoming>) -> Result<Value, Fault> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, MOST).collect().await.map_err(|_| Fault::Body("it does not end".to_owned()))?;
    let body = body.to_bytes();
    let path: Vec<&str> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    match (&parts.method, path.as_slice()) {
        (&Method::GET, ["state"]) => state(controls, parts.uri.query()).await,
        (&Method::POST, ["faults"]) => {
            controls.set_faults(read(&body)?);
            Ok(json!({}))
        }
        (&Method::DELETE, ["faults"]) => {
            controls.set_faults(Faults::default());
            Ok(json!({}))
        }
        (&Method::POST, ["certificate"]) => {
            let Shown { certificate } = read(&body)?;
            controls.rekey(certificate);
            Ok(json!({}))
        }
        (&Method::POST, ["phones"]) => {
            let Phone { number } = read(&body)?;
            controls.phone(number.0)?;
            Ok(json!({ "number": number.0 }))
        }
        (&Method::POST, ["groups"]) => {
            let Group { members } = read(&body)?;
            let members: Vec<u64> = members.into_iter().map(|member| member.0).collect();
            Ok(json!({ "group": controls.group(&members)? }))
        }
        (method, ["phones", number, what]) => {
            let number = number.parse().map_err(|_| Fault::Route)?;
            of_phone(controls, method, number, what, &body).await
        }
        (&Method::POST, ["devices", number, device, action]) => {
            let (Ok(number), Ok(device)) = (number.parse(), device.parse()) else { return Err(Fault::Route) };
            controls.act(number, device, named(action, &body)?)?;
            Ok(json!({}))
        }
        _ => Err(Fault::Route),
    }
}

async fn of_phone(controls: &Controls, method: &Method, number: u64, what: &str, body: &Bytes) -> Result<Value, Fault> {
    match (method, what) {
        (&Method::POST, "scan") => {
            let Scan { qr } = read(body)?;
            Ok(json!({ "device": controls.scan(number, &qr)? }))
        }
        (&Method::POST, "code") => {
            let Code { code } = read(body)?;
            Ok(json!({ "device": controls.code(number, &code).await? }))
        }
        (&Method::POST, "unlink") => {
            let Unlink { device } = read(body)?;
            Ok(json!({ "devices": controls.unlink(number, device)? }))
        }
        (&Method::POST, "spend") => {
            controls.spend_code(number)?;
            Ok(json!({}))
        }
        (&Method::POST, "call") => {
            let Call { from } = read(body)?;
            Ok(json!({ "id": controls.call(from.0, number)? }))
        }
        (&Method::POST, "send") => {
            let Send { from, device, text } = read(body)?;
            Ok(json!({ "id": controls.send(from.0, number, device, &text)? }))
        }
        (&Method::POST, "read") => {
            let Read { id } = read(body)?;
            controls.read(number, &id)?;
            Ok(json!({}))
        }
        (&Method::POST, "refuse") => {
            controls.refuse(number, Some(read::<Failure>(body)?))?;
            Ok(json!({}))
        }
        (&Method::DELETE, "refuse") => {
            controls.refuse(number, None)?;
            Ok(json!({}))
        }
        _ => Err(Fault::Route),
    }
}

/// The state at once, or as soon as it is newer than the version that the client has.
async fn state(controls: &Controls, query: Option<&str>) -> Result<Value, Fault> {
    let since = query.and_then(|query| query.strip_prefix("since="));
    if let Some(since) = since {
        let since = since.parse().map_err(|_| Fault::Body("since is a version".to_owned()))?;
        // Whoever waits in vain gets what there is, and asks again.
        let _ = tokio::time::timeout(PATIENCE, controls.changed(since)).await;
    }
    serde_json::to_value(controls.state()).map_err(|error| Fault::Body(error.to_string()))
}

/// An action by the last part of its path, with what it needs in the body.
fn named(action: &str, body: &Bytes) -> Result<Action, Fault> {
    let mut fields: Value = read(body)?;
    let object = fields.as_object_mut().ok_or_else(|| Fault::Body("it is not an object".to_owned()))?;
    object.insert("action".to_owned(), Value::from(action));
    serde_json::from_value(fields).map_err(|error| Fault::Body(error.to_string()))
}

/// A body that is not there is an empty object.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Fault> {
    let body = if body.is_empty() { b"{}" } else { &body[..] };
    serde_json::from_slice(body).map_err(|error| Fault::Body(error.to_string()))
}

/// A phone number, as a number or as digits.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "Value")]
struct Number(u64);

impl TryFrom<Value> for Number {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        let digits = |text: &str| text.trim_start_matches('+').parse().ok();
        value.as_u64().or_else(|| value.as_str().and_then(digits)).map(Self).ok_or("a phone number is digits")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Phone {
    number: Number,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    certificate: Certificate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scan {
    qr: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Code {
    code: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unlink {
    device: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    from: Number,
    device: Option<u16>,
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    from: Number,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    members: Vec<Number>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    id: String,
}
