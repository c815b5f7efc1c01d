//! Sessions and messages.

use std::time::Duration;

use hyper::StatusCode;
use portcullis_core::operation::{CreateSession, SendText, WhenPairing, WhenStopped, WhenUnpaired};
use portcullis_core::session::{PairingMethod, Settings};
use portcullis_core::{Labels, Operation, Secret, Session, SessionId, Status};
use portcullis_service::{Outcome, SimulatorAct};
use serde::Deserialize;
use serde_json::{Value, json};

use super::view::{self, SessionView};
use super::{decode, encode_problem, explain, mismatch};
use crate::asked::{Answer, Asked, WaitFor};
use crate::dialect::Problem;
use crate::exchange::{Incoming, Reply};
use crate::routes::EncodeContext;

/// The longest display name, in bytes.
const MAX_LABEL: usize = 200;
/// The longest text of a message, in characters.
const MAX_TEXT: usize = 4096;
/// How long a request for a code waits for the first one.
const CODE_WAIT: Duration = Duration::from_secs(5);
/// How long a delete waits for its receipt.
const DELETE_WAIT: Duration = Duration::from_secs(20);

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CreateBody {
    label: Option<String>,
    start: Option<bool>,
    auto_read: Option<bool>,
    presence_typing: Option<bool>,
    labels: Option<Labels>,
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
        },
        rate_policy: body.rate_policy,
        start: body.start.unwrap_or(false),
    });
    Ok(Asked::Operate { operation, then: WaitFor::Nothing })
}

pub(super) fn list(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Sessions { before: decode::cursor(incoming)?, limit: decode::limit(incoming) })
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
    operate(Operation::SessionRestart { session: session_id(incoming)?, when_unpaired: WhenUnpaired::Refuse })
}

pub(super) fn logout(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::SessionLogout { session: session_id(incoming)?, when_stopped: WhenStopped::ConnectToUnlink })
}

pub(super) fn restore(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::SessionRestore { session: session_id(incoming)? })
}

pub(super) fn qr(incoming: &Incoming) -> Result<Asked, Problem> {
    let operation = Operation::SessionQr { session: session_id(incoming)? };
    Ok(Asked::Operate { operation, then: WaitFor::PairingCode(CODE_WAIT) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PairingCodeBody {
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RatePolicyBody {
    policy: String,
}

pub(super) fn set_rate_policy(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = session_id(incoming)?;
    let body: RatePolicyBody = decode::body(incoming)?;
    decode::check_text("policy", &body.policy, 64)?;
    operate(Operation::SessionRatePolicy { session, slug: body.policy })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MessageBody {
    #[serde(rename = "type")]
    kind: Option<String>,
    to: Option<String>,
    text: Option<String>,
    reply_to: Option<String>,
}

/// The other kinds of message that the dialect knows.
const OTHER_KINDS: [&str; 9] =
    ["poll", "location", "contact", "image", "video", "audio", "document", "sticker", "album"];

pub(super) fn send(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = session_id(incoming)?;
    let kind: Value = decode::body(incoming)?;
    let kind = kind.get("type").and_then(Value::as_str).unwrap_or_default();
    // The kind comes first: the other kinds have fields that a text has not.
    match kind {
        "text" => {}
        "" => return Err(Problem::invalid("send type is required")),
        known if OTHER_KINDS.contains(&known) => {
            return Err(not_implemented(format!("messages of type '{known}' are not implemented")));
        }
        unknown => return Err(Problem::invalid(format!("unknown send type {unknown:?}"))),
    }
    if incoming.flag("async") {
        return Err(not_implemented("asynchronous sends are not implemented".to_owned()));
    }
    let body: MessageBody = decode::body(incoming)?;
    debug_assert_eq!(body.kind.as_deref(), Some("text"), "the kind was looked at above");
    let to = body.to.filter(|to| !to.is_empty()).ok_or_else(|| Problem::invalid("recipient 'to' is required"))?;
    let text = body.text.filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| Problem::invalid("text is required for type 'text'"))?;
    if text.chars().count() > MAX_TEXT {
        return Err(Problem::invalid(format!("text must be at most {MAX_TEXT} characters")));
    }
    check_jid("recipient 'to'", &to)?;
    if let Some(id) = &body.reply_to {
        decode::check_text("replyTo", id, 128)?;
    }
    operate(Operation::MessageSend(SendText { session, to, text, reply_to: body.reply_to }))
}

fn not_implemented(message: String) -> Problem {
    Problem::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", message)
}

fn check_jid(what: &'static str, jid: &str) -> Result<(), Problem> {
    let known = ["s.whatsapp.net", "g.us", "lid", "newsletter", "broadcast"];
    let fits = jid.split_once('@').is_some_and(|(user, server)| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        !user.is_empty() && user.len() <= 64 && user.chars().all(plain) && known.contains(&server)
    });
    if fits {
        Ok(())
    } else {
        Err(Problem::invalid(format!("{what} must be a JID such as 628123456789@s.whatsapp.net")))
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ScanBody {
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

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct DisconnectBody {
    seconds: Option<u32>,
}

pub(super) fn simulate_disconnect(incoming: &Incoming) -> Result<Asked, Problem> {
    let body: DisconnectBody = decode::optional_body(incoming)?;
    let outage = body.seconds.map(|seconds| Duration::from_secs(seconds.into()));
    simulate(incoming, SimulatorAct::Disconnect { outage })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiveBody {
    from: String,
    text: String,
}

pub(super) fn simulate_receive(incoming: &Incoming) -> Result<Asked, Problem> {
    let body: ReceiveBody = decode::body(incoming)?;
    check_jid("sender 'from'", &body.from)?;
    simulate(incoming, SimulatorAct::Receive { from: body.from, text: body.text })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitBody {
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

fn session_id(incoming: &Incoming) -> Result<SessionId, Problem> {
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
    let data = page.entries.iter().map(|session| json!(SessionView::of(session, context))).collect();
    Reply::json(StatusCode::OK, &view::list(data, next))
}

/// 204 once the session is gone; 202 while it waits to be deleted or is being deleted.
pub(super) fn deleted(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    match answer {
        Answer::Gone => Reply::empty(StatusCode::NO_CONTENT),
        Answer::Operated(done) => match (&done.outcome, &done.session) {
            (Outcome::DryRun(verdict), _) => dry_run(verdict),
            (_, Some(session)) => Reply::json(StatusCode::ACCEPTED, &SessionView::of(session, context)),
            (_, None) => mismatch(),
        },
        _ => mismatch(),
    }
}

pub(super) fn me(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Session(session) = answer else { return mismatch() };
    let Some(device) = session.linked_device() else {
        return encode_problem(&Problem::not_found("session is not paired"));
    };
    let mut body = json!({
        "sessionId": session.id,
        "status": view::status(&session),
        "waJid": device.jid,
        "phoneNumber": device.phone(),
        "connected": matches!(session.status, Status::Online { .. }),
    });
    view::set(&mut body, "waLid", device.lid.as_deref());
    Reply::json(StatusCode::OK, &body)
}

pub(super) fn qr_code(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    code(answer, PairingMethod::Qr, |code| json!({ "code": code.text, "expiresAt": code.expires_at }))
        .unwrap_or_else(|| encode_problem(&Problem::not_found("qr code not ready yet; subscribe to events (auth.qr)")))
}

pub(super) fn typed_code(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    code(answer, PairingMethod::Code, |code| json!({ "code": code.text, "expiresAt": code.expires_at }))
        .unwrap_or_else(|| encode_problem(&Problem::not_found("pairing code not ready yet")))
}

fn code(
    answer: Answer,
    wanted: PairingMethod,
    show: impl Fn(&portcullis_core::session::PairingCode) -> Value,
) -> Option<Reply> {
    let Answer::Operated(done) = answer else { return Some(mismatch()) };
    if let Outcome::DryRun(verdict) = &done.outcome {
        return Some(dry_run(verdict));
    }
    let session: &Session = done.session.as_deref()?;
    match &session.status {
        Status::Pairing { method, code: Some(code), .. } if *method == wanted => {
            // A code is a credential: no cache may keep it.
            Some(Reply::json(StatusCode::OK, &show(code)).with("cache-control", "no-store"))
        }
        _ => None,
    }
}

pub(super) fn rate_policy_of(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::RatePolicy { session, current, policies, used } = answer else { return mismatch() };
    let policies: Vec<_> = policies
        .iter()
        .map(|policy| json!({ "slug": policy.slug, "name": policy.name, "free": policy.free, "limits": view::limits(&policy.limits) }))
        .collect();
    let body = json!({
        "sessionId": session.id,
        "policy": current.slug,
        "limits": view::limits(&current.limits),
        "used": { "lastMinute": used.0, "today": used.1 },
        "policies": policies,
    });
    Reply::json(StatusCode::OK, &body)
}

pub(super) fn sent(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Operated(done) = answer else { return mismatch() };
    match &done.outcome {
        Outcome::DryRun(verdict) => dry_run(verdict),
        Outcome::Sent(sent) => Reply::json(
            StatusCode::OK,
            &json!({ "mode": "sync", "waMessageId": sent.id, "status": "sent", "timestamp": sent.at }),
        ),
        _ => mismatch(),
    }
}

fn dry_run(verdict: &portcullis_core::Verdict) -> Reply {
    Reply::json(StatusCode::OK, &json!({ "dry_run": true, "verdict": explain::verdict(verdict) }))
}
