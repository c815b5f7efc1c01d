//! One attempt at one delivery: what is told is put into words, signed and sent, and what came of it is put down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::delivery::{ANSWER_KEPT, AttemptOutcome, Farewell};
use portcullis_core::{
    Delivered, Delivery, DeliveryAttempt, DeliveryKey, EventFormat, EventId, OrgId, Secret, SessionId, Timestamp,
    Webhook,
};
use portcullis_net::{HeaderName, HeaderValue, Limits, Method, OutboundRequest, Overlong};
use portcullis_store::{PlacedEvent, Snapshot};
use portcullis_webhook::{self as webhook, About, Telling};

use super::DeliveryConfig;
use super::requesting::Composing;
use super::slots::Slot;
use crate::{Service, ServiceError};

/// The shortest value of a header that is a credential.
const HIDDEN: usize = 6;

/// What is to be tried.
pub(super) struct Trial {
    pub(super) org: OrgId,
    pub(super) of: DeliveryKey,
    pub(super) session: Option<SessionId>,
    /// The receiver as it is now, if it is a webhook that is still there.
    pub(super) webhook: Option<Arc<Webhook>>,
    /// What is remembered of it, if anything is.
    pub(super) known: Option<Box<Delivery>>,
    /// What the line has read it in.
    pub(super) snapshot: Arc<Snapshot>,
    /// Its place among what is on its way.
    pub(super) slot: Slot,
}

/// What came of it.
pub(super) enum Tried {
    /// There is nothing to tell: it was erased, forgotten, or has no words in the receiver's format.
    Nothing,
    /// It was tried.
    Done(Box<Done>),
    /// It is given up without a try.
    Never(Box<Done>),
    /// It waits for as long, which is no failure.
    Later(Duration),
    /// The store failed, and nothing was tried.
    Unread,
}

/// An attempt, and what it leads to.
pub(super) struct Done {
    /// The id of the event, or the request's own.
    pub(super) id: EventId,
    /// When what was delivered came about.
    pub(super) at: Timestamp,
    pub(super) attempt: DeliveryAttempt,
    /// Whether the receiver has taken it; why not, otherwise.
    pub(super) result: Result<(), webhook::Failure>,
    /// In whose words it was told, and when that is to be tried again.
    pub(super) format: EventFormat,
}

impl Trial {
    /// Tries it.
    pub(super) async fn run(self, service: &Service) -> Tried {
        let Some(config) = &service.deliveries.config else { return Tried::Unread };
        let composed = match self.compose(service, config) {
            Ok(Some(Composing::Ready(composed))) => composed,
            Ok(Some(Composing::Later(wait))) => return Tried::Later(wait),
            Ok(Some(Composing::Never(why))) => return self.never(why, service.now()),
            Ok(None) => return Tried::Nothing,
            Err(error) => {
                tracing::error!(org = %self.org, error = &error as &dyn std::error::Error, "what is to be delivered could not be read");
                return Tried::Unread;
            }
        };
        let Composed { id, at, format, request, limits } = *composed;
        let began = service.now();
        let (outcome, result) = match request {
            Ok(request) => send(config, request, limits, service).await,
            Err(why) => (AttemptOutcome::Failed { error: why.to_owned() }, Err(webhook::Failure::NoAnswer)),
        };
        let took_ms = u64::try_from(service.now().since(began).as_millis()).unwrap_or(u64::MAX);
        drop(self.slot);
        let outcome = match &self.webhook {
            Some(webhook) => hide(outcome, &webhook.spec.headers),
            None => outcome,
        };
        let attempt = DeliveryAttempt { at: began, took_ms, outcome };
        Tried::Done(Box::new(Done { id, at, attempt, result, format }))
    }

    /// Something that is remembered is given up, and the reason is remembered like an attempt's.
    fn never(&self, why: &'static str, now: Timestamp) -> Tried {
        let Some(known) = &self.known else { return Tried::Nothing };
        let outcome = AttemptOutcome::Failed { error: why.to_owned() };
        let attempt = DeliveryAttempt { at: now, took_ms: 0, outcome };
        let result = Err(webhook::Failure::NoAnswer);
        Tried::Never(Box::new(Done { id: known.id, at: known.at, attempt, result, format: EventFormat::Standard }))
    }

    /// What is told of the session beside its event. One that was made just now is in the store, and nowhere else as yet.
    fn about(&self, service: &Service) -> Result<Option<About>, ServiceError> {
        let Some(session) = self.session else { return Ok(None) };
        if let Some(view) = service.views.get(self.org, session) {
            return Ok(Some(About::from(&*view)));
        }
        Ok(self.snapshot.session(self.org, session)?.as_ref().map(About::from))
    }

    /// What is to be done, if there is anything to tell.
    fn compose(&self, service: &Service, config: &DeliveryConfig) -> Result<Option<Composing>, ServiceError> {
        let what = self.known.as_ref().map(|known| &known.record.what);
        if let (Some(Delivered::Request(request)), Some(known)) = (what, &self.known) {
            return service.compose_request(config, self.org, known, request).map(Some);
        }
        let Some(placed) = self.snapshot.event_at(self.org, self.session, self.of.place)? else { return Ok(None) };
        let composed = match what {
            Some(Delivered::Farewell(Some(farewell))) => {
                let Farewell { webhook, names } = &**farewell;
                let about = About { names: names.clone(), device: None };
                // A receiver that is still there is told as it wants to be by now.
                let webhook = self.webhook.as_deref().unwrap_or(webhook);
                compose(webhook, self.of.part, &placed, Some(&about), service, config)
            }
            Some(Delivered::Event | Delivered::Farewell(None) | Delivered::Request(_)) | None => {
                let Some(webhook) = self.webhook.as_deref() else { return Ok(None) };
                let about = self.about(service)?;
                compose(webhook, self.of.part, &placed, about.as_ref(), service, config)
            }
        };
        Ok(composed.map(Box::new).map(Composing::Ready))
    }
}

/// A request that is ready to be sent.
pub(super) struct Composed {
    pub(super) id: EventId,
    pub(super) at: Timestamp,
    pub(super) format: EventFormat,
    /// The request; or a stable word for why there can be none.
    pub(super) request: Result<OutboundRequest, &'static str>,
    pub(super) limits: Limits,
}

fn compose(
    receiver: &Webhook,
    part: u8,
    placed: &PlacedEvent,
    about: Option<&About>,
    service: &Service,
    config: &DeliveryConfig,
) -> Option<Composed> {
    let format = receiver.spec.format;
    let telling = Telling {
        event: &placed.event,
        seq: placed.seq,
        about,
        server_url: config.server_url.as_deref(),
        engine: service.engine_name(),
    };
    let message = webhook::message(&receiver.spec, part, &telling)?;
    let request = webhook::request(receiver, &message, service.now());
    let request = request.map_err(|_unsigned| "unsigned").and_then(outbound);
    let webhook::Timeouts { connect, whole } = webhook::timeouts(format);
    let limits = limits(connect, whole.min(config.timeout));
    Some(Composed { id: placed.event.id, at: placed.event.at, format, request, limits })
}

/// What a request of this crate may take.
pub(super) fn limits(connect: Duration, whole: Duration) -> Limits {
    Limits { connect, head: whole, body_time: whole, whole, body: ANSWER_KEPT, overlong: Overlong::Cut }
}

fn outbound(request: webhook::Request) -> Result<OutboundRequest, &'static str> {
    let mut headers = Vec::with_capacity(request.headers.len());
    for (name, value) in &request.headers {
        headers.push(header(name, value.reveal())?);
    }
    Ok(OutboundRequest { method: Method::POST, url: request.url, headers, body: request.body.into() })
}

/// A header, whose value may be a secret.
pub(super) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_no_name| "invalid_header")?;
    let mut value = HeaderValue::from_str(value).map_err(|_no_value| "invalid_header")?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// A receiver may answer with what it was told. What its owner has it told in headers is a credential and not remembered.
fn hide(outcome: AttemptOutcome, headers: &BTreeMap<String, Secret>) -> AttemptOutcome {
    let AttemptOutcome::Answered { status, mut body } = outcome else { return outcome };
    for secret in headers.values().map(Secret::reveal).filter(|secret| secret.len() >= HIDDEN) {
        if body.contains(secret) {
            body = body.replace(secret, "…");
        }
    }
    AttemptOutcome::Answered { status, body }
}

async fn send(
    config: &DeliveryConfig,
    request: OutboundRequest,
    limits: Limits,
    service: &Service,
) -> (AttemptOutcome, Result<(), webhook::Failure>) {
    match config.outbound.send(request, limits).await {
        Ok(answer) => {
            let status = answer.status.as_u16();
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            let result = if webhook::is_taken(status) {
                Ok(())
            } else {
                let wished = answer.headers.get("retry-after").and_then(|wished| wished.to_str().ok());
                let retry_after = wished.and_then(|wished| webhook::retry_after(wished, service.now()));
                Err(webhook::Failure::Status { status, retry_after })
            };
            (AttemptOutcome::Answered { status, body }, result)
        }
        Err(error) => (AttemptOutcome::Failed { error: error.code().to_owned() }, Err(webhook::Failure::NoAnswer)),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    /// A receiver that answered with the request it got had its own key shown to whoever could list deliveries.
    #[test]
    fn an_answer_is_remembered_without_what_its_receiver_is_told_in_headers() {
        let headers = [("authorization", "Bearer opensesame"), ("x-part", "1")];
        let headers = headers.map(|(name, value)| (name.to_owned(), Secret::new(value))).into();
        let answered = |body: &str| AttemptOutcome::Answered { status: 500, body: body.to_owned() };
        let check = |said: &str, remembered: &str| assert_eq!(hide(answered(said), &headers), answered(remembered));
        check("part 1 is wrong", "part 1 is wrong");
        check(r#"{"headers": {"Authorization": "Bearer opensesame"}}"#, r#"{"headers": {"Authorization": "…"}}"#);
    }
}
