//! Sessions and messages.

use std::time::Duration;

use hyper::StatusCode;
use portcullis_core::operation::{CreateSession, WhenPairing, WhenStopped, WhenUnpaired};
use portcullis_core::session::{FailureCause, PairingCode, PairingMethod, Settings};
use portcullis_core::{Labels, Operation, Secret, Session, SessionId, Status};
use portcullis_service::{Outcome, SimulatorAct};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::view::{self, CodeView, DeletionView, MeView, RatePolicyView, SessionView};
use super::{decode, mismatch, told};
use crate::asked::{Answer, Asked, WaitFor};
use crate::dialect::{self, Problem};
use crate::exchange::{Incoming, Reply};
use crate::openapi::schema::{JID, LabelsOf, PHONE, PLAIN, PolicyOf};
use crate::routes::EncodeContext;

/// More sessions than any organisation has.
const ALL: usize = 100_000;
/// The longest display name, in bytes.
const MAX_LABEL: usize = 200;
/// How long a request for a code waits for the first one.
const CODE_WAIT: Duration = Duration::from_secs(5);
/// How long a delete waits for its receipt.
const DELETE_WAIT: Duration = Duration::from_secs(20);

#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CreateBody {
    #[schemars(length(max = MAX_LABEL), regex(pattern = PLAIN))]
    label: Option<String>,
    start: Option<bool>,
    auto_read: Option<bool>,
    presence_typing: Option<bool>,
    #[schemars(with = "Option<LabelsOf>")]
    labels: Option<Labels>,
    #[schemars(with = "Option<PolicyOf>")]
    rate_policy: Option<String>,
}

pub(super) fn create(incoming: &Incoming) -> Result<Asked, Problem> {
    let body: CreateBody = decode::body(incoming)?;
    if let Some(label) = &body.label {
        decode::check_text("label", label, MAX_LABEL)?;
    }
    let usual = Settings::default();
    let operation = Operation::SessionCreate(CreateSession {
        display_name: body.label,
        instance_name: None,
        labels: body.labels.unwrap_or_default(),
        settings: Settings {
            auto_read: body.auto_read.unwrap_or(usual.auto_read),
            presence_typing: body.presence_typing.unwrap_or(usual.presence_typing),
            ..usual
        },
        rate_policy: body.rate_policy,
        start: body.start.unwrap_or(false),
        ..CreateSession::default()
    });
    Ok(Asked::Operate { operation, then: WaitFor::Nothing })
}

pub(super) fn list(incoming: &Incoming) -> Result<Asked, Problem> {
    // Clients of the dialect know no pages of sessions; who asks for pages gets them.
    if incoming.query("limit").is_none() && incoming.query("cursor").is_none() {
        return Ok(Asked::Sessions { before: None, limit: ALL });
    }
    Ok(Asked::Sessions { before: decode::cursor(incoming)?, limit: decode::limit(incoming) })
}

/// The operator's own listing across organisations.
pub(super) fn list_all(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::AllSessions { before: decode::cursor(incoming)?, limit: decode::limit(incoming) })
}

pub(super) fn get(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Session { session: session_id(incoming)? })
}

pub(super) fn delete(incoming: &Incoming) -> Result<Asked, Problem> {
    let operation = Operation::SessionDelete { session: session_id(incoming)? };
    Ok(Asked::Operate { operation, then: WaitFor::Gone(DELETE_WAIT) })
}

pub(super) fn start(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::SessionStart { session: session_id(incoming)?, when_unpaired: WhenUnpaired::Refuse })
}

pub(super) fn stop(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::SessionStop { session: session_id(incoming)? })
}

pub(super) fn restart(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::SessionRestart {
        session: session_id(incoming)?,
        when_unpaired: WhenUnpaired::Refuse,
        when_stopped: WhenStopped::Connect,
    })
}

pub(super) fn logout(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::SessionLogout { session: session_id(incoming)?, when_stopped: WhenStopped::Connect })
}

pub(super) fn restore(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::SessionRestore { session: session_id(incoming)? })
}

/// The forms in which a QR code can be had.
pub(super) const QR_FORMATS: [&str; 4] = ["raw", "png", "svg", "data-url"];

pub(super) fn qr(incoming: &Incoming) -> Result<Asked, Problem> {
    if incoming.query("format").is_some_and(|format| !QR_FORMATS.contains(&format)) {
        return Err(Problem::malformed(&[format!("format must be one of {}", QR_FORMATS.join(", "))]));
    }
    let operation = Operation::SessionQr { session: session_id(incoming)? };
    Ok(Asked::Operate { operation, then: WaitFor::PairingCode(CODE_WAIT) })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PairingCodeBody {
    #[schemars(required, regex(pattern = PHONE))]
    phone: Option<String>,
}

pub(super) fn pairing_code(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = session_id(incoming)?;
    let body: PairingCodeBody = decode::body(incoming)?;
    let phone = body.phone.filter(|phone| !phone.is_empty()).ok_or_else(|| Problem::invalid("phone is required"))?;
    let operation = Operation::SessionPairingCode {
        session,
        phone: Secret::new(check_phone(&phone)?),
        when_pairing: WhenPairing::Refuse,
    };
    Ok(Asked::Operate { operation, then: WaitFor::PairingCode(CODE_WAIT) })
}

/// E.164 digits; a leading plus is forgiven.
fn check_phone(phone: &str) -> Result<&str, Problem> {
    let digits = phone.strip_prefix('+').unwrap_or(phone);
    if (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(digits)
    } else {
        Err(Problem::invalid("phone must be 7 to 15 digits with the country code"))
    }
}

pub(super) fn labels(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = session_id(incoming)?;
    let labels: Labels = decode::body(incoming)?;
    portcullis_core::label::check(&labels).map_err(|error| Problem::invalid(error.to_string()))?;
    operate(Operation::SessionLabels { session, labels })
}

pub(super) fn rate_policy(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::RatePolicy { session: session_id(incoming)? })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RatePolicyBody {
    #[schemars(with = "PolicyOf")]
    policy: String,
}

pub(super) fn set_rate_policy(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = session_id(incoming)?;
    let body: RatePolicyBody = decode::body(incoming)?;
    decode::check_text("policy", &body.policy, 64)?;
    operate(Operation::SessionRatePolicy { session, slug: body.policy })
}

#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct ScanBody {
    #[schemars(regex(pattern = PHONE))]
    phone: Option<String>,
}

pub(super) fn simulate_scan(incoming: &Incoming) -> Result<Asked, Problem> {
    let body: ScanBody = decode::optional_body(incoming)?;
    let phone = body.phone.as_deref().map(check_phone).transpose()?.map(str::to_owned);
    simulate(incoming, SimulatorAct::Scan { phone })
}

pub(super) fn simulate_unlink(incoming: &Incoming) -> Result<Asked, Problem> {
    simulate(incoming, SimulatorAct::Unlink)
}

#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct DisconnectBody {
    seconds: Option<u32>,
}

pub(super) fn simulate_disconnect(incoming: &Incoming) -> Result<Asked, Problem> {
    let body: DisconnectBody = decode::optional_body(incoming)?;
    let outage = body.seconds.map(|seconds| Duration::from_secs(seconds.into()));
    simulate(incoming, SimulatorAct::Disconnect { outage })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReceiveBody {
    #[schemars(regex(pattern = JID))]
    from: String,
    text: String,
}

pub(super) fn simulate_receive(incoming: &Incoming) -> Result<Asked, Problem> {
    let body: ReceiveBody = decode::body(incoming)?;
    decode::check_jid("sender 'from'", &body.from)?;
    simulate(incoming, SimulatorAct::Receive { from: body.from, text: body.text })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitBody {
    #[schemars(length(max = 64), regex(pattern = PLAIN))]
    code: String,
}

pub(super) fn simulate_limit(incoming: &Incoming) -> Result<Asked, Problem> {
    let body: LimitBody = decode::body(incoming)?;
    decode::check_text("code", &body.code, 64)?;
    simulate(incoming, SimulatorAct::Limit { code: body.code })
}

fn simulate(incoming: &Incoming, act: SimulatorAct) -> Result<Asked, Problem> {
    Ok(Asked::Simulate { session: session_id(incoming)?, act })
}

fn operate(operation: Operation) -> Result<Asked, Problem> {
    Ok(Asked::Operate { operation, then: WaitFor::Nothing })
}

pub(super) fn session_id(incoming: &Incoming) -> Result<SessionId, Problem> {
    decode::path_id(incoming, "id", "session")
}

// === replies ===

pub(super) fn created(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Operated(done) = answer else { return mismatch() };
    if let Outcome::DryRun(verdict) = &done.outcome {
        return dry_run(verdict);
    }
    match &done.session {
        Some(session) => Reply::json(StatusCode::CREATED, &SessionView::of(session, context)),
        None => mismatch(),
    }
}

pub(super) fn session(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    match answer {
        Answer::Session(session) => Reply::json(StatusCode::OK, &SessionView::of(&session, context)),
        Answer::Operated(done) => match (&done.outcome, &done.session) {
            (Outcome::DryRun(verdict), _) => dry_run(verdict),
            (_, Some(session)) => Reply::json(StatusCode::OK, &SessionView::of(session, context)),
            (_, None) => mismatch(),
        },
        _ => mismatch(),
    }
}

pub(super) fn listed(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Sessions(page) = answer else { return mismatch() };
    let next = page.entries.last().filter(|_| page.more).map(|session| session.id.to_string());
    let data = page.entries.iter().map(|session| SessionView::of(session, context));
    Reply::json(StatusCode::OK, &view::list(data, next))
}

/// 204 once the session is gone; 202 while it waits to be deleted or is being deleted.
pub(super) fn deleted(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    match answer {
        Answer::Gone(_) => Reply::empty(StatusCode::NO_CONTENT),
        Answer::Operated(done) => match (&done.outcome, &done.session) {
            (Outcome::DryRun(verdict), _) => dry_run(verdict),
            (_, Some(session)) => Reply::json(StatusCode::ACCEPTED, &DeletionView::of(session)),
            (_, None) => mismatch(),
        },
        _ => mismatch(),
    }
}

pub(super) fn me(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Session(session) = answer else { return mismatch() };
    match MeView::of(&session) {
        Some(body) => Reply::json(StatusCode::OK, &body),
        None => told(&Problem::not_found("session is not paired")),
    }
}

pub(super) fn qr_code(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    code(answer, PairingMethod::Qr, |code| picture(context.request.query("format").unwrap_or_default(), code))
        .unwrap_or_else(|| told(&Problem::not_found("qr code not ready yet; subscribe to events (auth.qr)")))
}

pub(super) fn typed_code(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    code(answer, PairingMethod::Code, |code| Reply::json(StatusCode::OK, &CodeView::of(code, None)))
        .unwrap_or_else(|| told(&Problem::not_found("pairing code not ready yet")))
}

/// A QR code in the form that was asked for.
fn picture(format: &str, code: &PairingCode) -> Reply {
    let text = code.text.reveal();
    let drawn = match format {
        "png" => portcullis_qr::png(text).map(|bytes| Reply::text(StatusCode::OK, "image/png", bytes)),
        "svg" => portcullis_qr::svg(text).map(|svg| Reply::text(StatusCode::OK, "image/svg+xml", svg)),
        "data-url" => {
            portcullis_qr::data_url(text).map(|image| Reply::json(StatusCode::OK, &CodeView::of(code, Some(image))))
        }
        _ => return Reply::json(StatusCode::OK, &CodeView::of(code, None)),
    };
    drawn.unwrap_or_else(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "a QR code could not be drawn");
        mismatch()
    })
}

fn code(answer: Answer, wanted: PairingMethod, show: impl Fn(&PairingCode) -> Reply) -> Option<Reply> {
    let Answer::Operated(done) = answer else { return Some(mismatch()) };
    if let Outcome::DryRun(verdict) = &done.outcome {
        return Some(dry_run(verdict));
    }
    let session: &Session = done.session.as_deref()?;
    match &session.status {
        Status::Pairing { method, code: Some(code), .. } if *method == wanted => {
            // A code is a credential: no cache may keep it.
            Some(show(code).with("cache-control", "no-store"))
        }
        Status::Failed { cause, .. } => Some(told(&no_code(*cause))),
        _ => None,
    }
}

/// The pairing has failed, so that there will be no code.
fn no_code(cause: FailureCause) -> Problem {
    let (status, code, message) = match cause {
        FailureCause::PairingRefused => {
            (StatusCode::BAD_REQUEST, "validation_error", "WhatsApp does not link a device to this number")
        }
        _ => (StatusCode::CONFLICT, "conflict", "the pairing has failed; start it anew"),
    };
    Problem::new(status, code, message).with_details(json!({ "reason": "pairing_failed", "failure": cause.name() }))
}

pub(super) fn rate_policy_of(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::RatePolicy { session, current, policies, used, plan_active: _ } = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &RatePolicyView::of(session.id, &current, policies, used))
}

fn dry_run(verdict: &portcullis_core::Verdict) -> Reply {
    Reply::json(StatusCode::OK, &dialect::dry_run(verdict))
}
