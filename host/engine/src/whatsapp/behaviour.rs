//! How a session behaves by itself, as its settings say. Nothing here is worth failing for: what cannot be done is left.
//!
//! The history of the account is never asked for, whatever the settings say: nothing in the gateway would keep it.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_core::Settings;
use whatsapp_rust::types::call::{CallAction, IncomingCall};
use whatsapp_rust::types::events::InboundMessage;
use whatsapp_rust::types::message::MessageCategory;
use whatsapp_rust::wacore::proto_helpers::MessageBuilderExt;
use whatsapp_rust::wacore_binary::JidExt;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::{Client, Jid};

/// Messages of one chat, and of one sender where it has several, that are to be marked as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    chat: Jid,
    sender: Option<Jid>,
    ids: Vec<String>,
}

/// What of `batch` is to be marked as read.
pub(super) fn read(batch: &[InboundMessage], settings: &Settings) -> Vec<Reading> {
    let mut readings: BTreeMap<(String, Option<String>), Reading> = BTreeMap::new();
    for InboundMessage { info, .. } in batch {
        let source = &info.source;
        if source.is_from_me || info.category != MessageCategory::Empty {
            continue;
        }
        let is_read = match (source.chat.is_status_broadcast(), source.chat.is_group()) {
            (true, _) => settings.read_status,
            (false, true) => settings.auto_read && !settings.ignore_groups,
            (false, false) => settings.auto_read,
        };
        if !is_read {
            continue;
        }
        let has_senders =
            source.chat.is_group() || source.chat.is_status_broadcast() || source.chat.is_broadcast_list();
        let sender = has_senders.then(|| source.sender.to_non_ad());
        let key = (source.chat.to_string(), sender.as_ref().map(Jid::to_string));
        let reading = readings.entry(key);
        let reading = reading.or_insert_with(|| Reading { chat: source.chat.clone(), sender, ids: Vec::new() });
        reading.ids.push(info.id.clone());
    }
    readings.into_values().collect()
}

/// Marks messages as read.
pub(super) async fn mark(client: &Arc<Client>, readings: Vec<Reading>) {
    for Reading { chat, sender, ids } in readings {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let _ = client.mark_as_read(&chat, sender.as_ref(), &ids).await;
    }
}

/// Shows the account as it is to be shown from the beginning of a connection on. Without a name, WhatsApp cannot be told.
pub(super) async fn show(client: &Arc<Client>, settings: &Settings) {
    let presence = client.presence();
    let _ = match settings.always_online {
        true => presence.set_available().await,
        // The client shows itself as available when it learns the account's name.
        false => presence.set_unavailable().await,
    };
}

/// Whether a call is to be refused.
pub(super) fn refuses(call: &IncomingCall, settings: &Settings) -> bool {
    settings.reject_calls && !call.offline && matches!(call.action, CallAction::Offer { .. })
}

/// Refuses a call, and says why if the settings have a text for it.
pub(super) async fn refuse(client: &Arc<Client>, call: &IncomingCall, settings: &Settings) {
    if client.voip().reject(call).await.is_err() || settings.rejected_call_text.is_empty() {
        return;
    }
    let caller = match &call.action {
        // Whole groups are not answered.
        CallAction::Offer { group_jid: Some(_), .. } => return,
        CallAction::Offer { caller_pn: Some(number), .. } => number.to_non_ad(),
        _ => call.from.to_non_ad(),
    };
    let _ = client.send_message(caller, wa::Message::text(&settings.rejected_call_text)).await;
}

#[cfg(test)]
mod test {
    use whatsapp_rust::types::message::{MessageInfo, MessageSource};
    use whatsapp_rust::wacore::chrono;

    use super::*;

    const ADA: &str = "15550000001@s.whatsapp.net";
    const GROUP: &str = "120363000000000001@g.us";

    fn jid(text: &str) -> Jid {
        text.parse().unwrap()
    }

    fn inbound(id: &str, chat: &str, sender: &str) -> InboundMessage {
        let source = MessageSource { chat: jid(chat), sender: jid(sender), ..Default::default() };
        let info = MessageInfo { id: id.to_owned(), source, ..Default::default() };
        InboundMessage::builder().message(Arc::new(wa::Message::text("hi"))).info(Arc::new(info)).build()
    }

    fn check(settings: &Settings, expected: &[(&str, Option<&str>, &[&str])]) {
        let batch = [
            inbound("A", ADA, ADA),
            inbound("B", GROUP, "15550000002:3@s.whatsapp.net"),
            inbound("C", ADA, ADA),
            inbound("D", "status@broadcast", ADA),
        ];
        let found: Vec<_> = read(&batch, settings)
            .into_iter()
            .map(|reading| (reading.chat.to_string(), reading.sender.map(|sender| sender.to_string()), reading.ids))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(chat, sender, ids)| {
                let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
                ((*chat).to_owned(), sender.map(str::to_owned), ids)
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn messages_are_marked_as_read_chat_by_chat() {
        let settings = Settings { auto_read: true, read_status: true, ..Settings::default() };
        let bob = Some("15550000002@s.whatsapp.net");
        check(&settings, &[(GROUP, bob, &["B"]), (ADA, None, &["A", "C"]), ("status@broadcast", Some(ADA), &["D"])]);
    }

    #[test]
    fn nothing_is_marked_that_the_settings_do_not_want() {
        let settings = Settings { auto_read: false, read_status: false, ..Settings::default() };
        check(&settings, &[]);
        check(&Settings { read_status: true, ..settings.clone() }, &[("status@broadcast", Some(ADA), &["D"])]);
        check(&Settings { auto_read: true, ignore_groups: true, ..settings }, &[(ADA, None, &["A", "C"])]);
    }

    #[test]
    fn a_call_is_refused_when_it_begins_and_the_settings_say_so() {
        let call = |action, offline| {
            let at = chrono::DateTime::from_timestamp(1, 0).unwrap();
            IncomingCall::builder()
                .from(jid(ADA))
                .stanza_id("S".into())
                .timestamp(at)
                .offline(offline)
                .action(action)
                .build()
        };
        let offer = CallAction::Offer {
            call_id: "C".into(),
            call_creator: jid(ADA),
            caller_pn: None,
            caller_country_code: None,
            device_class: None,
            joinable: false,
            is_video: false,
            audio: Vec::new(),
            group_jid: None,
        };
        let over = CallAction::Terminate {
            call_id: "C".into(),
            call_creator: jid(ADA),
            reason: None,
            duration: None,
            audio_duration: None,
        };
        let refusing = Settings { reject_calls: true, ..Settings::default() };
        assert!(refuses(&call(offer.clone(), false), &refusing));
        assert!(!refuses(&call(offer.clone(), true), &refusing), "it rang while nobody was there");
        assert!(!refuses(&call(over, false), &refusing));
        assert!(!refuses(&call(offer, false), &Settings::default()));
    }
}
