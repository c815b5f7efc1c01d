//! Portcullis's own words. The router's envelope and that of Standard Webhooks hold the same payloads under names of their own.
//!
//! Times are milliseconds since the epoch and what is unset is left out, as everywhere in the native dialect.

use std::sync::LazyLock;

use portcullis_core::{Device, EventBody, EventFormat, EventId, EventKind, OrgId, SessionId, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{Message, Telling, message_id, parts, posted};

/// The names of events in the router's format.
/// Source: the router's schema of events; those of Portcullis's own come last.
pub const EVENTS: [&str; 36] = [
    "session.status",
    "auth.qr",
    "auth.code",
    "message",
    "message.from_me",
    "message.edited",
    "message.revoked",
    "message.reaction",
    "message.status",
    "poll.vote",
    "poll.recap",
    "presence.update",
    "group.update",
    "group.participant",
    "chat.update",
    "contact.update",
    "call.incoming",
    "newsletter.update",
    "session.created",
    "session.passkey",
    "session.linked",
    "session.unlinked",
    "session.limited",
    "session.rate-policy",
    "session.settings",
    "session.labels",
    "session.delete-scheduled",
    "session.restored",
    "session.delete-cancelled",
    "session.deleting",
    "session.deleted",
    "plugin.suspended",
    "policy.denied",
    "plugin.event",
    "webhook.disabled",
    "fact",
];

/// The names of events in the format of Standard Webhooks, which are those of the kinds.
static STANDARD: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    EventKind::ALL.iter().filter(|kind| **kind != EventKind::WebhookTest).map(|kind| kind.name()).collect()
});

pub(crate) fn standard_names() -> &'static [&'static str] {
    &STANDARD
}

pub(crate) fn standard_parts(kind: EventKind) -> &'static [&'static str] {
    if kind == EventKind::WebhookTest {
        return &["webhook.test"];
    }
    STANDARD.iter().find(|name| **name == kind.name()).map(std::slice::from_ref).unwrap_or_default()
}

pub(crate) fn router_parts(kind: EventKind) -> &'static [&'static str] {
    match kind {
        EventKind::SessionCreated => &["session.created"],
        EventKind::StatusChanged => &["session.status"],
        EventKind::Qr => &["auth.qr"],
        EventKind::PairingCode => &["auth.code"],
        EventKind::Passkey => &["session.passkey"],
        // The router tells a linked device as the outcome of its code, which is not where one looks for it.
        EventKind::Linked => &["session.linked", "auth.code"],
        EventKind::Unlinked => &["session.unlinked"],
        EventKind::AccountLimited => &["session.limited"],
        EventKind::RatePolicyChanged => &["session.rate-policy"],
        EventKind::LabelsChanged => &["session.labels"],
        EventKind::SettingsChanged => &["session.settings"],
        EventKind::DeleteScheduled => &["session.delete-scheduled"],
        EventKind::Restored => &["session.restored"],
        EventKind::DeleteCancelled => &["session.delete-cancelled"],
        EventKind::Deleting => &["session.deleting"],
        EventKind::Deleted => &["session.deleted"],
        EventKind::PluginSuspended => &["plugin.suspended"],
        EventKind::PolicyDenied => &["policy.denied"],
        EventKind::MessageIn => &["message"],
        EventKind::MessageOut => &["message.from_me"],
        EventKind::MessageFailed | EventKind::MessageStatus => &["message.status"],
        EventKind::WebhookDisabled => &["webhook.disabled"],
        EventKind::WebhookTest => &["webhook.test"],
        EventKind::Fact => &["fact"],
        EventKind::PluginEvent => &["plugin.event"],
    }
}

/// The router's envelope.
#[derive(Serialize)]
struct Envelope<'a> {
    schema: &'static str,
    id: EventId,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
    organization: OrgId,
    timestamp: Timestamp,
    seq: u64,
    payload: &'a Value,
}

/// One part of an event in the router's format, which needs no endpoint: streams tell events in the same way.
#[must_use]
pub fn router(part: u8, telling: &Telling<'_>) -> Option<Message> {
    let event = telling.event;
    let name = parts(EventFormat::Router, event.body.kind()).get(usize::from(part))?;
    let payload = payload(name, telling)?;
    let id = message_id(event.id, part);
    let envelope = Envelope {
        schema: "v1",
        id,
        event: name,
        session: event.session,
        organization: event.org,
        timestamp: event.at,
        seq: telling.seq,
        payload: &payload,
    };
    posted(id, name, &envelope)
}

/// The envelope of Standard Webhooks.
#[derive(Serialize)]
struct StandardEnvelope<'a> {
    r#type: &'static str,
    timestamp: String,
    data: StandardData<'a>,
}

#[derive(Serialize)]
struct StandardData<'a> {
    id: EventId,
    organization: OrgId,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
    seq: u64,
    payload: &'a Value,
}

pub(crate) fn standard(part: u8, telling: &Telling<'_>) -> Option<Message> {
    let event = telling.event;
    let name = parts(EventFormat::Standard, event.body.kind()).get(usize::from(part))?;
    let payload = payload(name, telling)?;
    let data = StandardData {
        id: event.id,
        organization: event.org,
        session: event.session,
        seq: telling.seq,
        payload: &payload,
    };
    posted(event.id, name, &StandardEnvelope { r#type: name, timestamp: event.at.to_string(), data })
}

/// The router's word for a status by its stable name. What is being removed has none: other events tell of it.
#[must_use]
pub fn status_word(status: &str) -> Option<&'static str> {
    match status {
        "stopped" => Some("stopped"),
        "starting" => Some("starting"),
        "pairing" => Some("scan_qr_code"),
        // A short loss of the connection is no change to whoever uses it.
        "online" | "reconnecting" => Some("working"),
        "logged-out" => Some("logged_out"),
        "failed" => Some("failed"),
        _ => None,
    }
}

/// What is told of an event under a name; none if nothing has happened in these words.
fn payload(name: &str, telling: &Telling<'_>) -> Option<Value> {
    let event = telling.event;
    Some(match &event.body {
        EventBody::SessionCreated
        | EventBody::PasskeyRequested
        | EventBody::LabelsChanged
        | EventBody::SettingsChanged
        | EventBody::Restored
        | EventBody::Deleting
        | EventBody::Deleted => json!({}),
        EventBody::StatusChanged { from, to, cause, by } => {
            let (before, after) = (status_word(from), status_word(to)?);
            if before == Some(after) {
                return None;
            }
            set(
                json!({ "status": after }),
                [("previous", json!(before)), ("failure", json!(cause.map(|cause| cause.name()))), ("by", json!(by))],
            )
        }
        EventBody::PairingCodeIssued { method: _, code } => {
            let lives = u64::try_from(code.expires_at.since(event.at).as_millis()).unwrap_or(u64::MAX);
            json!({ "code": code.text.reveal(), "timeoutMs": lives })
        }
        EventBody::Linked { device } => linked(name, device),
        EventBody::Unlinked { unlink } => json!({ "unlink": unlink.name() }),
        EventBody::AccountLimited { limit } => {
            set(json!({ "code": limit.code, "since": limit.since }), [("until", json!(limit.until))])
        }
        EventBody::RatePolicyChanged { slug } => json!({ "policy": slug }),
        EventBody::DeleteScheduled { due, reason } => json!({ "deleteAt": due, "reason": reason }),
        EventBody::DeleteCancelled { code, reason } => json!({ "code": code, "reason": reason }),
        EventBody::PluginSuspended { plugin, version, org } => {
            json!({ "plugin": plugin, "version": version, "organization": org })
        }
        EventBody::PolicyDenied { operation, code } => json!({ "operation": operation, "code": code }),
        EventBody::MessageIn { message, from, sender, name: _, sent_at, text } => json!({
            "waMessageId": message,
            "chatJid": from,
            "senderJid": sender.as_ref().unwrap_or(from),
            "fromMe": false,
            "type": "text",
            "body": text,
            "hasMedia": false,
            "media": null,
            "timestamp": sent_at.unwrap_or(event.at),
        }),
        EventBody::MessageOut { message, to, delivery, text } => {
            let own = telling.device();
            let sent = json!({
                "waMessageId": message,
                "chatJid": to,
                "fromMe": true,
                "type": "text",
                "hasMedia": false,
                "media": null,
                "timestamp": event.at,
            });
            set(
                sent,
                [
                    ("senderJid", json!(own.map(|device| &device.jid))),
                    ("body", json!(text)),
                    ("outboxId", json!(delivery)),
                ],
            )
        }
        // What was never sent has no id of WhatsApp's.
        EventBody::MessageFailed { delivery, to, code } => json!({
            "chatJid": to,
            "messageIds": [],
            "outboxId": delivery,
            "status": "failed",
            "code": code,
            "timestamp": event.at,
        }),
        EventBody::MessageStatus { messages, chat, stage } => {
            json!({ "chatJid": chat, "messageIds": messages, "status": stage.name(), "timestamp": event.at })
        }
        EventBody::WebhookDisabled { webhook, why } => json!({ "webhook": webhook, "reason": why.name() }),
        EventBody::WebhookTest { webhook } => json!({ "webhook": webhook }),
        EventBody::Fact { id, name, json } => json!({ "id": id, "name": name, "data": parsed(json) }),
        EventBody::PluginEvent { plugin, name, json } => {
            json!({ "plugin": plugin, "name": name, "data": parsed(json) })
        }
    })
}

/// A linked device: as the router tells it under `auth.code`, and with what else is known under its own name.
fn linked(name: &str, device: &Device) -> Value {
    let linked = set(json!({ "jid": device.jid }), [("lid", json!(device.lid))]);
    if name == "auth.code" {
        return linked;
    }
    set(linked, [("phoneNumber", json!(device.phone())), ("pushName", json!(device.push_name))])
}

/// The object with what is known of these fields.
fn set<const N: usize>(object: Value, fields: [(&str, Value); N]) -> Value {
    let mut object = if let Value::Object(object) = object { object } else { Map::new() };
    let known = fields.into_iter().filter(|(_, value)| !value.is_null());
    object.extend(known.map(|(name, value)| (name.to_owned(), value)));
    Value::Object(object)
}

/// A document that was checked to be JSON when it came in.
fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}
