//! Evolution's words. Endpoints subscribe to names in capitals, and are told others, in lower case with dots.

use std::borrow::Cow;

use portcullis_core::session::{FailureCause, PairingMethod};
use portcullis_core::{Device, EventBody, EventKind, MessageStage, Names, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{Message, Telling, message_id, posted};

/// The names of events to which endpoints subscribe, in the order in which errors list them.
pub const EVENTS: [&str; 31] = [
    "APPLICATION_STARTUP",
    "QRCODE_UPDATED",
    "MESSAGES_SET",
    "MESSAGES_UPSERT",
    "MESSAGES_EDITED",
    "MESSAGES_UPDATE",
    "MESSAGES_DELETE",
    "SEND_MESSAGE",
    "SEND_MESSAGE_UPDATE",
    "CONTACTS_SET",
    "CONTACTS_UPSERT",
    "CONTACTS_UPDATE",
    "PRESENCE_UPDATE",
    "CHATS_SET",
    "CHATS_UPSERT",
    "CHATS_UPDATE",
    "CHATS_DELETE",
    "GROUPS_UPSERT",
    "GROUP_UPDATE",
    "GROUP_PARTICIPANTS_UPDATE",
    "CONNECTION_UPDATE",
    "LABELS_EDIT",
    "LABELS_ASSOCIATION",
    "CALL",
    "TYPEBOT_START",
    "TYPEBOT_CHANGE_STATUS",
    "REMOVE_INSTANCE",
    "LOGOUT_INSTANCE",
    "INSTANCE_CREATE",
    "INSTANCE_DELETE",
    "STATUS_INSTANCE",
];

/// What is shown for the name of an account that has none.
const NAMELESS: &str = "Você";
/// The status of a connection that is as it should be.
const FINE: u16 = 200;
/// The status of a connection that was closed and can be opened again; also of pairing that nobody ended in time.
const CLOSED: u16 = 428;

pub(crate) fn parts(kind: EventKind) -> &'static [&'static str] {
    match kind {
        EventKind::SessionCreated => &["INSTANCE_CREATE"],
        EventKind::StatusChanged => &["CONNECTION_UPDATE", "STATUS_INSTANCE", "QRCODE_UPDATED"],
        EventKind::Qr | EventKind::PairingCode => &["QRCODE_UPDATED"],
        EventKind::Passkey => &["CONNECTION_UPDATE"],
        EventKind::Unlinked => &["LOGOUT_INSTANCE"],
        EventKind::Deleted => &["INSTANCE_DELETE", "REMOVE_INSTANCE"],
        EventKind::MessageIn => &["MESSAGES_UPSERT"],
        EventKind::MessageOut => &["SEND_MESSAGE"],
        EventKind::MessageFailed | EventKind::MessageStatus => &["MESSAGES_UPDATE"],
        // Nobody subscribes to it: it is told to whoever is tried out.
        EventKind::WebhookTest => &["WEBHOOK_TEST"],
        EventKind::Linked
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

/// The name under which an event is told to whoever subscribed to this one.
fn wire(name: &str) -> Option<&'static str> {
    Some(match name {
        "CONNECTION_UPDATE" => "connection.update",
        "INSTANCE_CREATE" => "instance.create",
        "INSTANCE_DELETE" => "instance.delete",
        "LOGOUT_INSTANCE" => "logout.instance",
        "MESSAGES_UPDATE" => "messages.update",
        "MESSAGES_UPSERT" => "messages.upsert",
        "QRCODE_UPDATED" => "qrcode.updated",
        "REMOVE_INSTANCE" => "remove.instance",
        "SEND_MESSAGE" => "send.message",
        "STATUS_INSTANCE" => "status.instance",
        "WEBHOOK_TEST" => "webhook.test",
        _ => return None,
    })
}

#[derive(Serialize)]
struct Envelope<'a> {
    event: &'static str,
    instance: &'a str,
    data: Value,
    destination: &'a str,
    date_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<&'a str>,
    server_url: &'a str,
    /// The instance's token. It is no secret any more once it stands in logs of receivers, so it is never told.
    apikey: Option<()>,
}

pub(crate) fn message(part: u8, telling: &Telling<'_>, url: &str) -> Option<Message> {
    let event = telling.event;
    let subscribed = parts(event.body.kind()).get(usize::from(part))?;
    let name = wire(subscribed)?;
    // Who cannot be told which instance it was can do nothing with the rest.
    let about = telling.about?;
    let envelope = Envelope {
        event: name,
        instance: &about.names.instance_name,
        data: data(subscribed, telling, &about.names, telling.device())?,
        destination: url,
        date_time: event.at.to_string(),
        sender: telling.device().map(|device| device.jid.as_str()),
        server_url: telling.server_url.unwrap_or_default(),
        apikey: None,
    };
    posted(message_id(event.id, part), name, &envelope)
}

fn data(name: &str, telling: &Telling<'_>, names: &Names, own: Option<&Device>) -> Option<Value> {
    let at = telling.event.at;
    let instance = &names.instance_name;
    Some(match &telling.event.body {
        EventBody::StatusChanged { from, to, cause, by: _ } => {
            return status_data(name, (from, to), *cause, names, own, at);
        }
        EventBody::SessionCreated => identity(names),
        EventBody::Deleted if name == "INSTANCE_DELETE" => identity(names),
        EventBody::Deleted | EventBody::Unlinked { .. } => Value::Null,
        EventBody::PairingCodeIssued { method, code } => {
            let text = code.text.reveal();
            let mut qrcode = match method {
                PairingMethod::Code => {
                    json!({ "pairingCode": text.replace('-', ""), "code": null, "base64": null })
                }
                PairingMethod::Qr | PairingMethod::Passkey => {
                    json!({ "pairingCode": null, "code": text, "base64": portcullis_qr::data_url(text).ok() })
                }
            };
            qrcode["instance"] = json!(instance);
            json!({ "qrcode": qrcode })
        }
        EventBody::PasskeyRequested => {
            json!({ "instance": instance, "state": "connecting", "statusReason": FINE, "passkey": true })
        }
        EventBody::MessageIn { message, from, sender, name, sent_at, text } => {
            received(message, sent_at.unwrap_or(at), (from, sender.as_deref(), name.as_deref()), text, names)
        }
        EventBody::MessageOut { message, to, text, .. } => sent(&Sent {
            id: message,
            to,
            at,
            own,
            text: text.as_deref(),
            context: Value::Null,
            instance_id: Some(&names.uuid),
        }),
        EventBody::MessageFailed { delivery, to, .. } => {
            updated(&[delivery.to_string()], to, MessageStage::Failed, names)
        }
        EventBody::MessageStatus { messages, chat, stage } => updated(messages, chat, *stage, names),
        EventBody::WebhookTest { webhook } => json!({ "webhook": webhook }),
        _ => return None,
    })
}

fn identity(names: &Names) -> Value {
    json!({ "instanceName": names.instance_name, "instanceId": names.uuid })
}

/// One change of status, of which up to three events tell.
fn status_data(
    name: &str,
    (from, to): (&str, &str),
    cause: Option<FailureCause>,
    names: &Names,
    own: Option<&Device>,
    at: Timestamp,
) -> Option<Value> {
    let instance = &names.instance_name;
    let is_expired = cause == Some(FailureCause::PairingExpired);
    let disconnection = disconnection(to, cause);
    match name {
        "QRCODE_UPDATED" => {
            let message = "QR code limit reached, please login again";
            is_expired.then(|| json!({ "message": message, "statusCode": 500 }))
        }
        "STATUS_INSTANCE" => {
            let (code, word) = disconnection?;
            Some(json!({
                "instance": instance,
                "status": "closed",
                "disconnectionAt": at.to_string(),
                "disconnectionReasonCode": code,
                "disconnectionObject": json!({ "reason": word }).to_string(),
            }))
        }
        _ => {
            let state = state_word(to);
            if state == state_word(from) {
                return None;
            }
            let mut update = Map::from_iter([("instance".to_owned(), json!(instance))]);
            update.insert("state".to_owned(), json!(if is_expired { "refused" } else { state }));
            let reason = match (state, disconnection) {
                ("close", Some((code, _))) => code,
                ("close", None) => CLOSED,
                _ => FINE,
            };
            update.insert("statusReason".to_owned(), json!(reason));
            if state == "open" {
                update.insert("wuid".to_owned(), json!(own.map(|device| &device.jid)));
                update.insert("profileName".to_owned(), json!(own.and_then(|device| device.push_name.as_ref())));
                update.insert("profilePictureUrl".to_owned(), Value::Null);
            }
            Some(Value::Object(update))
        }
    }
}

/// The dialect's word for a status by its stable name.
#[must_use]
pub fn state_word(status: &str) -> &'static str {
    match status {
        "starting" | "pairing" | "reconnecting" => "connecting",
        "online" => "open",
        _ => "close",
    }
}

/// Why an instance with this status is closed for good, as the number that clients of this dialect know, and as a word.
#[must_use]
pub fn disconnection(status: &str, cause: Option<FailureCause>) -> Option<(u16, &'static str)> {
    let Some(cause) = cause else { return (status == "logged-out").then_some((401, "logged-out")) };
    let code = match cause {
        FailureCause::Banned | FailureCause::ConnectionRefused => 403,
        FailureCause::ClientOutdated => 405,
        FailureCause::StartTimeout | FailureCause::Unreachable | FailureCause::ProxyUnreachable => 408,
        FailureCause::PairingExpired
        | FailureCause::PairingInterrupted
        | FailureCause::PairingRefused
        | FailureCause::ServerNotTrusted
        | FailureCause::StorageFailed => CLOSED,
        FailureCause::Replaced => 440,
    };
    Some((code, cause.name()))
}

/// A text that was sent, as far as its object tells of it.
pub struct Sent<'a> {
    /// WhatsApp's id of the message, or the gateway's own if it has none as yet.
    pub id: &'a str,
    /// To whom, a JID.
    pub to: &'a str,
    /// When.
    pub at: Timestamp,
    /// By which device.
    pub own: Option<&'a Device>,
    /// The text.
    pub text: Option<&'a str>,
    /// What it answers and whom it mentions; null if nothing and nobody.
    pub context: Value,
    /// The instance's id.
    pub instance_id: Option<&'a str>,
}

/// The object of a text that was sent through the gateway, as its sender and its receivers read it.
#[must_use]
pub fn sent(sent: &Sent<'_>) -> Value {
    json!({
        "key": { "remoteJid": sent.to, "fromMe": true, "id": sent.id },
        "pushName": sent.own.and_then(|device| device.push_name.as_deref()).unwrap_or(NAMELESS),
        "status": "PENDING",
        "message": { "conversation": sent.text },
        "contextInfo": sent.context,
        "messageType": "conversation",
        "messageTimestamp": sent.at.as_millis() / 1000,
        "instanceId": sent.instance_id,
        "source": "unknown",
    })
}

/// The object of a text that came in. What its sender calls itself is not known.
fn received(
    id: &str,
    at: Timestamp,
    (chat, sender, name): (&str, Option<&str>, Option<&str>),
    text: &str,
    names: &Names,
) -> Value {
    let mut key = json!({ "remoteJid": chat, "fromMe": false, "id": id });
    if let Some(sender) = sender {
        key["participant"] = json!(sender);
    }
    json!({
        "key": key,
        "pushName": name,
        "status": "DELIVERY_ACK",
        "message": { "conversation": text },
        "contextInfo": null,
        "messageType": "conversation",
        "messageTimestamp": at.as_millis() / 1000,
        "instanceId": names.uuid,
        "source": "unknown",
    })
}

/// How far messages are. The dialect tells it of one; all of them are told beside it.
fn updated(ids: &[String], chat: &str, stage: MessageStage, names: &Names) -> Value {
    let status = match stage {
        MessageStage::Failed => "ERROR",
        MessageStage::Sent => "SERVER_ACK",
        MessageStage::Delivered => "DELIVERY_ACK",
        MessageStage::Read => "READ",
        MessageStage::Played => "PLAYED",
    };
    let first: Cow<'_, str> = ids.first().map(String::as_str).unwrap_or_default().into();
    json!({
        "keyId": first,
        "messageId": first,
        "keyIds": ids,
        "remoteJid": chat,
        "fromMe": true,
        "participant": null,
        "status": status,
        "instanceId": names.uuid,
    })
}
