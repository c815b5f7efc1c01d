//! Wawp's words, which are those of WAHA with an older form of `session.status` spread over the envelope.
//!
//! Everything about a session is `session.status`, also a new code to scan. Users are on `c.us`.

use portcullis_core::session::LoggedOutBy;
use portcullis_core::{Device, EventBody, EventId, EventKind, MessageStage, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{Message, Telling, message_id, posted};

/// The names of events.
pub const EVENTS: [&str; 25] = [
    "session.status",
    "message",
    "message.any",
    "message.reaction",
    "message.ack",
    "message.revoked",
    "message.edited",
    "group.v2.join",
    "group.v2.leave",
    "group.v2.update",
    "group.v2.participants",
    "presence.update",
    "poll.vote",
    "poll.vote.failed",
    "chat.archive",
    "call.received",
    "call.accepted",
    "call.rejected",
    "label.upsert",
    "label.deleted",
    "label.chat.added",
    "label.chat.deleted",
    "event.response",
    "event.response.failed",
    "engine.event",
];

/// Nothing is told as `engine.event`, so `*` need not leave it out.
pub(crate) fn parts(kind: EventKind) -> &'static [&'static str] {
    match kind {
        EventKind::StatusChanged | EventKind::Qr | EventKind::Passkey | EventKind::Deleted => &["session.status"],
        EventKind::MessageIn => &["message", "message.any"],
        EventKind::MessageOut => &["message.any"],
        EventKind::MessageFailed | EventKind::MessageStatus => &["message.ack"],
        // Nobody subscribes to it: it is told to whoever is tried out.
        EventKind::WebhookTest => &["webhook.test"],
        EventKind::SessionCreated
        | EventKind::PairingCode
        | EventKind::Linked
        | EventKind::Unlinked
        | EventKind::AccountLimited
        | EventKind::RatePolicyChanged
        | EventKind::LabelsChanged
        | EventKind::SettingsChanged
        | EventKind::DeleteScheduled
        | EventKind::Restored
        | EventKind::DeleteCancelled
        | EventKind::Deleting
        | EventKind::PluginSuspended
        | EventKind::PolicyDenied
        | EventKind::WebhookDisabled
        | EventKind::Fact
        | EventKind::PluginEvent => &[],
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    id: EventId,
    timestamp: Timestamp,
    session: &'a str,
    metadata: Map<String, Value>,
    engine: &'static str,
    event: &'static str,
    payload: Value,
    me: Option<Value>,
    environment: Value,
    instance_id: &'a str,
    #[serde(flatten)]
    flat: Option<Flat>,
}

/// What older receivers read of a `session.status`, beside the envelope.
#[derive(Serialize)]
struct Flat {
    status: &'static str,
    /// In seconds.
    ts: u64,
    /// A picture of the code to scan, as a data URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    qr: Option<String>,
}

pub(crate) fn message(part: u8, telling: &Telling<'_>) -> Option<Message> {
    let event = telling.event;
    let name = parts(event.body.kind()).get(usize::from(part))?;
    // Who cannot be told which session it was can do nothing with the rest.
    let about = telling.about?;
    let own = telling.device();
    let (payload, flat) = match &event.body {
        EventBody::StatusChanged { from, to, cause: _, by } => {
            let status = status_word(to, *by)?;
            if status_word(from, None) == Some(status) {
                return None;
            }
            status_of(telling, status, None)
        }
        EventBody::PairingCodeIssued { method: _, code } => {
            // A text that fits into no picture is told without one; whoever asks gets the text.
            status_of(telling, "SCAN_QR_CODE", portcullis_qr::data_url(code.text.reveal()).ok())
        }
        EventBody::PasskeyRequested => {
            let (mut payload, flat) = status_of(telling, "SCAN_QR_CODE", None);
            payload["passkey"] = json!(true);
            (payload, flat)
        }
        EventBody::Deleted => status_of(telling, "DELETED", None),
        EventBody::MessageIn { message, from, sender, name: _, sent_at, text } => {
            (received(message, sent_at.unwrap_or(event.at), (from, sender.as_deref()), own, text), None)
        }
        EventBody::MessageOut { message, to, text, .. } => (sent(message, event.at, to, own, text.as_deref()), None),
        EventBody::MessageFailed { delivery, to, .. } => {
            (acknowledged(&[delivery.to_string()], to, MessageStage::Failed), None)
        }
        EventBody::MessageStatus { messages, chat, stage } => (acknowledged(messages, chat, *stage), None),
        EventBody::WebhookTest { webhook } => (json!({ "webhook": webhook }), None),
        _ => return None,
    };
    let id = message_id(event.id, part);
    let envelope = Envelope {
        id,
        timestamp: event.at,
        session: &about.names.wawp_name,
        metadata: Map::new(),
        engine: telling.engine,
        event: name,
        payload,
        me: own.map(me),
        environment: json!({ "version": env!("CARGO_PKG_VERSION"), "engine": telling.engine, "tier": "PLUS" }),
        instance_id: &about.names.instance_id,
        flat,
    };
    posted(id, name, &envelope)
}

/// The dialect's word for a status by its stable name. What is being removed has none until it is gone.
#[must_use]
pub fn status_word(status: &str, logged_out_by: Option<LoggedOutBy>) -> Option<&'static str> {
    match (status, logged_out_by) {
        ("stopped", _) => Some("STOPPED"),
        ("starting" | "reconnecting", _) => Some("STARTING"),
        // An engine that is unlinked by the API waits for a scan.
        ("pairing", _) | ("logged-out", Some(LoggedOutBy::Api)) => Some("SCAN_QR_CODE"),
        ("online", _) => Some("WORKING"),
        ("failed" | "logged-out", _) => Some("FAILED"),
        _ => None,
    }
}

fn status_of(telling: &Telling<'_>, status: &'static str, qr: Option<String>) -> (Value, Option<Flat>) {
    let at = telling.event.at;
    let payload = json!({
        "name": telling.about.map(|about| &about.names.wawp_name),
        "status": status,
        "statuses": [{ "status": status, "timestamp": at }],
        "data": null,
    });
    (payload, Some(Flat { status, ts: at.as_millis() / 1000, qr }))
}

/// Who a session is linked as.
#[must_use]
pub fn me(device: &Device) -> Value {
    json!({ "id": user(&device.jid), "lid": device.lid, "pushName": device.push_name })
}

/// A JID as this dialect writes it: users are on `c.us`, and their devices are not told apart.
#[must_use]
pub fn user(jid: &str) -> String {
    match jid.split_once('@') {
        Some((user, "s.whatsapp.net")) => format!("{}@c.us", user.split(':').next().unwrap_or_default()),
        _ => jid.to_owned(),
    }
}

/// The object of a text that was sent through the gateway, as its sender and its receivers read it.
#[must_use]
pub fn sent(id: &str, at: Timestamp, to: &str, own: Option<&Device>, text: Option<&str>) -> Value {
    let chat = user(to);
    let serialized = format!("true_{chat}_{id}");
    json!({
        "id": serialized,
        "timestamp": at.as_millis() / 1000,
        "from": own.map(|device| user(&device.jid)),
        "fromMe": true,
        "source": "api",
        "to": chat,
        "participant": null,
        "body": text,
        "hasMedia": false,
        "media": null,
        "ack": 0,
        "ackName": "PENDING",
        "vCards": [],
        "_data": { "id": { "fromMe": true, "remote": chat, "id": id, "_serialized": serialized } },
    })
}

fn received(id: &str, at: Timestamp, from: (&str, Option<&str>), own: Option<&Device>, text: &str) -> Value {
    let (chat, sender) = (user(from.0), from.1.map(user));
    let serialized = format!("false_{chat}_{id}");
    json!({
        "id": serialized,
        "timestamp": at.as_millis() / 1000,
        "from": chat,
        "fromMe": false,
        "source": "app",
        "to": own.map(|device| user(&device.jid)),
        "participant": sender,
        "author": sender,
        "body": text,
        "hasMedia": false,
        "media": null,
        "ack": 2,
        "ackName": "DEVICE",
        "location": null,
        "replyTo": null,
        "vCards": [],
        "_data": { "id": { "fromMe": false, "remote": chat, "id": id, "_serialized": serialized } },
    })
}

/// How far messages are. The dialect tells it of one; all of them are told beside it.
fn acknowledged(ids: &[String], chat: &str, stage: MessageStage) -> Value {
    let chat = user(chat);
    let ids: Vec<String> = ids.iter().map(|id| format!("true_{chat}_{id}")).collect();
    let (ack, name) = match stage {
        MessageStage::Failed => (-1, "ERROR"),
        MessageStage::Sent => (1, "SERVER"),
        MessageStage::Delivered => (2, "DEVICE"),
        MessageStage::Read => (3, "READ"),
        MessageStage::Played => (4, "PLAYED"),
    };
    json!({
        "id": ids.first(),
        "ids": ids,
        "from": chat,
        "participant": null,
        "fromMe": true,
        "ack": ack,
        "ackName": name,
    })
}
