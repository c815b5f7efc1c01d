//! Instances as this dialect shows them: three states, times in ISO 8601, and what is unset as `null`.

use portcullis_core::session::{PairingMethod, Settings};
use portcullis_core::{Intent, Proxy, Secret, Session, Status, Timestamp, Webhook};
use serde_json::{Map, Value, json};

use super::webhook::EVENTS;
use crate::routes::EncodeContext;

/// The only kind of instance that there is.
pub(super) const INTEGRATION: &str = "WHATSAPP-BAILEYS";

/// The dialect's word for a session's status. Whoever waits to be deleted is closed.
pub(super) fn state(session: &Session) -> &'static str {
    if matches!(session.intent, Intent::Removed { .. }) {
        return "close";
    }
    match session.status {
        Status::Starting { .. } | Status::Pairing { .. } | Status::Reconnecting { .. } => "connecting",
        Status::Online { .. } => "open",
        Status::Stopped | Status::LoggedOut { .. } | Status::Failed { .. } | Status::Removing { .. } => "close",
    }
}

/// A name and its state: `{"instance": {"instanceName", "state"}}`, with what Portcullis adds.
pub(super) fn instance_state(session: &Session) -> Value {
    let mut instance = json!({ "instanceName": session.names.instance_name, "state": state(session) });
    add_news(&mut instance, session);
    json!({ "instance": instance })
}

/// What a phone has to be shown or told at the moment; only a count as long as there is nothing.
pub(super) fn code(session: &Session) -> Value {
    let mut view = match &session.status {
        Status::Pairing { method: PairingMethod::Qr, code: Some(code), .. } => {
            let text = code.text.reveal();
            // A text that fits into no picture is still a text.
            json!({ "pairingCode": null, "code": text, "base64": portcullis_qr::data_url(text).ok(), "count": code.ordinal })
        }
        Status::Pairing { method: PairingMethod::Code, code: Some(code), .. } => {
            let typed = code.text.reveal().replace('-', "");
            json!({ "pairingCode": typed, "code": null, "base64": null, "count": code.ordinal })
        }
        _ => json!({ "count": 0 }),
    };
    add_news(&mut view, session);
    view
}

/// What clients of other gateways do not know: a deletion that is due, and a phone that asks for a passkey.
fn add_news(view: &mut Value, session: &Session) {
    if let Some(due) = session.delete_due() {
        view["deleteAt"] = json!(iso(due));
    }
    if matches!(session.status, Status::Pairing { method: PairingMethod::Passkey, .. }) {
        view["passkey"] = json!(true);
    }
}

/// A row of the list of instances. Credentials are for whoever may manage.
pub(super) fn row(session: &Session, context: &EncodeContext<'_>) -> Value {
    let device = session.linked_device();
    let reason = disconnection(session);
    let names = &session.names;
    let (created, updated) = (iso(session.created_at), iso(session.updated_at));
    let mut setting = settings(&session.settings, context.may_manage);
    setting.insert("id".to_owned(), json!(names.uuid));
    setting.insert("createdAt".to_owned(), json!(created));
    setting.insert("updatedAt".to_owned(), json!(updated));
    setting.insert("instanceId".to_owned(), json!(names.uuid));
    let proxy = session.proxy.as_ref().filter(|_| context.may_manage).map(|proxy| {
        let mut row = self::proxy(proxy);
        row["id"] = json!(names.uuid);
        row["createdAt"] = json!(created);
        row["updatedAt"] = json!(updated);
        row["instanceId"] = json!(names.uuid);
        row
    });
    let mut row = json!({
        "id": names.uuid,
        "name": names.instance_name,
        "connectionStatus": state(session),
        "ownerJid": device.map(|device| &device.jid),
        "profileName": device.and_then(|device| device.push_name.as_ref()),
        "profilePicUrl": null,
        "integration": INTEGRATION,
        "number": session.expected_phone,
        "businessId": null,
        "token": session.token.as_ref().filter(|_| context.may_manage).map(Secret::reveal),
        "clientName": context.gateway_id,
        "disconnectionReasonCode": reason.map(|(code, _)| code),
        "disconnectionObject": reason.map(|(_, word)| json!({ "reason": word }).to_string()),
        "disconnectionAt": reason.map(|_| &updated),
        "createdAt": created,
        "updatedAt": updated,
        "Chatwoot": null,
        "Proxy": proxy,
        "Rabbitmq": null,
        "Nats": null,
        "Sqs": null,
        "Websocket": null,
        "Setting": setting,
        "_count": { "Message": 0, "Contact": 0, "Chat": 0 },
    });
    add_news(&mut row, session);
    row
}

/// Why an instance is closed for good, as the number that clients of this dialect know.
fn disconnection(session: &Session) -> Option<(u16, &'static str)> {
    let cause = if let Status::Failed { cause, .. } = session.status { Some(cause) } else { None };
    portcullis_webhook::evolution::disconnection(session.status.name(), cause)
}

/// How an instance behaves, in this dialect's eight fields.
pub(super) fn settings(settings: &Settings, may_manage: bool) -> Map<String, Value> {
    let voice_token = if may_manage { settings.voice_token.reveal() } else { "" };
    let view = json!({
        "rejectCall": settings.reject_calls,
        "msgCall": settings.rejected_call_text,
        "groupsIgnore": settings.ignore_groups,
        "alwaysOnline": settings.always_online,
        "readMessages": settings.auto_read,
        "readStatus": settings.read_status,
        "syncFullHistory": settings.full_history,
        "wavoipToken": voice_token,
    });
    if let Value::Object(fields) = view { fields } else { Map::new() }
}

/// A proxy with its password.
pub(super) fn proxy(proxy: &Proxy) -> Value {
    json!({
        "enabled": true,
        "host": proxy.host,
        "port": proxy.port.to_string(),
        "protocol": proxy.protocol.name(),
        "username": proxy.username.as_deref().unwrap_or_default(),
        "password": proxy.password.as_ref().map_or("", Secret::reveal),
    })
}

/// A webhook of an instance with this UUID.
pub(super) fn webhook(webhook: &Webhook, instance_id: Option<&str>) -> Value {
    let spec = &webhook.spec;
    let headers: Map<String, Value> =
        spec.headers.iter().map(|(name, value)| (name.clone(), json!(value.reveal()))).collect();
    let all = spec.events.iter().any(|event| event == "*");
    let events: Vec<&str> = if all { EVENTS.to_vec() } else { spec.events.iter().map(String::as_str).collect() };
    json!({
        "id": webhook.id,
        "url": spec.url,
        "headers": if headers.is_empty() { Value::Null } else { Value::Object(headers) },
        "enabled": webhook.is_told(),
        "events": events,
        "webhookByEvents": spec.path_per_event,
        "webhookBase64": spec.inline_media,
        "createdAt": iso(webhook.created_at),
        "updatedAt": iso(webhook.updated_at),
        "instanceId": instance_id,
    })
}

/// A point in time as `2025-01-01T00:00:00.000Z`.
pub(super) fn iso(at: Timestamp) -> String {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    // A timestamp ends in the year 10889, which is beyond what this notation can say.
    let at = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

#[cfg(test)]
mod test {
    use portcullis_core::session::{Attempt, FailureCause, LoggedOutBy, PairingCode, RemovalStep};
    use portcullis_core::{Names, OrgId, SessionId, Unlink};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_735_689_600_000);

    fn session(status: Status) -> Session {
        let (id, org) = (SessionId::from_bytes([1; 16]), OrgId::from_bytes([2; 16]));
        Session { status, ..Session::new(id, org, Names::new(7, Some("t1".into())), NOW) }
    }

    fn pairing(method: PairingMethod, code: Option<PairingCode>) -> Status {
        Status::Pairing { attempt: Attempt::default(), method, code, deadline: NOW }
    }

    #[test]
    fn every_status_is_one_of_three_states() {
        let attempt = Attempt::default();
        for (status, expected) in [
            (Status::Stopped, "close"),
            (Status::Starting { attempt, deadline: NOW, tries: 0 }, "connecting"),
            (pairing(PairingMethod::Qr, None), "connecting"),
            (pairing(PairingMethod::Passkey, None), "connecting"),
            (Status::Online { attempt }, "open"),
            (Status::Reconnecting { attempt, since: NOW, tries: 1, deadline: NOW }, "connecting"),
            (Status::LoggedOut { by: LoggedOutBy::Phone, unlink: Unlink::Confirmed }, "close"),
            (Status::Failed { cause: FailureCause::Replaced, retry: None }, "close"),
            (Status::Removing { step: RemovalStep::Erase }, "close"),
        ] {
            assert_eq!(state(&session(status.clone())), expected, "{status:?}");
            assert_eq!(portcullis_webhook::evolution::state_word(status.name()), expected, "events say otherwise");
        }
        let due = Intent::Removed { due: NOW, reason: String::new(), since: NOW, was_running: true };
        let pending = Session { intent: due, ..session(Status::Online { attempt }) };
        let view = json!({ "instanceName": "t1", "state": "close", "deleteAt": "2025-01-01T00:00:00.000Z" });
        assert_eq!(instance_state(&pending), json!({ "instance": view }));
    }

    #[test]
    fn codes_are_shown_as_they_are_used() {
        let issued = |text: &str| Some(PairingCode { text: Secret::new(text), expires_at: NOW, ordinal: 3 });
        let shown = code(&session(pairing(PairingMethod::Qr, issued("2@x"))));
        assert_eq!((&shown["code"], &shown["count"]), (&json!("2@x"), &json!(3)));
        assert!(shown["base64"].as_str().is_some_and(|url| url.starts_with("data:image/png;base64,")));
        let typed = code(&session(pairing(PairingMethod::Code, issued("WZYE-H1YY"))));
        assert_eq!(typed, json!({ "pairingCode": "WZYEH1YY", "code": null, "base64": null, "count": 3 }));
        assert_eq!(code(&session(pairing(PairingMethod::Qr, None))), json!({ "count": 0 }));
        let asked = code(&session(pairing(PairingMethod::Passkey, None)));
        assert_eq!(asked, json!({ "count": 0, "passkey": true }));
    }

    #[test]
    fn times_are_in_iso_8601() {
        assert_eq!(iso(Timestamp::from_millis(1_735_689_600_007)), "2025-01-01T00:00:00.007Z");
        assert_eq!(iso(Timestamp::from_millis(0)), "1970-01-01T00:00:00.000Z");
        assert!(iso(Timestamp::MAX).ends_with('Z'));
    }
}
