//! Texts, as WhatsApp's clients write them to each other.

use portcullis_core::Timestamp;
use whatsapp_rust::Jid;
use whatsapp_rust::types::message::{EditAttribute, MessageCategory, MessageInfo};
use whatsapp_rust::wacore::proto_helpers::{MessageBuilderExt, MessageExt};
use whatsapp_rust::wacore_binary::JidExt;
use whatsapp_rust::waproto::buffa::MessageField;
use whatsapp_rust::waproto::whatsapp as wa;

use super::facts::bare;
use crate::{IncomingText, OutgoingText};

/// The message that carries `text`. Context (an answer, mentions) makes it another kind of message than a bare text is.
///
/// Of a message that is answered only the id is known here, so that the quote is empty: a phone that has the message shows it.
/// No link preview is made: it would mean to fetch what the link leads to.
pub(super) fn compose(text: &OutgoingText, to: &Jid, own: Option<&Jid>) -> wa::Message {
    let mentions_all = text.mention_all && to.is_group();
    if text.reply_to.is_none() && text.mentions.is_empty() && !mentions_all {
        return wa::Message::text(&text.text);
    }
    let mut context = wa::ContextInfo {
        mentioned_jid: text.mentions.clone(),
        non_jid_mentions: mentions_all.then_some(1),
        ..Default::default()
    };
    if let Some(id) = &text.reply_to {
        context.stanza_id = Some(id.clone());
        // In a chat of two, what is answered is the other's, or one's own if one writes to oneself. In a group nobody knows.
        let author = if to.is_group() { own.unwrap_or(to) } else { to };
        context.participant = Some(bare(author));
        context.quoted_message = MessageField::some(wa::Message::text(""));
    }
    wa::Message::text_with_context(&text.text, context)
}

/// The text that came in, if the message is one that somebody wrote to this account.
pub(super) fn text_in(message: &wa::Message, info: &MessageInfo) -> Option<IncomingText> {
    let source = &info.source;
    let chat = &source.chat;
    let is_written = !source.is_from_me
        && info.category == MessageCategory::Empty
        && info.edit == EditAttribute::Empty
        && !chat.is_status_broadcast()
        && !chat.is_newsletter();
    if !is_written {
        return None;
    }
    let text = message.text_content().filter(|text| !text.is_empty())?;
    let writer = known(&source.sender, source.sender_alt.as_ref());
    // What somebody writes to a list of people stands in the chat with them.
    let (from, sender) = match chat.is_group() {
        true => (bare(chat), Some(writer)),
        false => (writer, None),
    };
    Some(IncomingText {
        id: info.id.clone(),
        from,
        sender,
        name: Some(&info.push_name).filter(|name| !name.is_empty()).cloned(),
        at: Timestamp::from_millis(u64::try_from(info.timestamp.timestamp_millis()).unwrap_or_default()),
        text: text.to_owned(),
    })
}

/// Somebody's JID: with the phone number, if WhatsApp has told it.
fn known(jid: &Jid, other: Option<&Jid>) -> String {
    match other {
        Some(other) if jid.is_lid() && other.is_pn() => bare(other),
        _ => bare(jid),
    }
}

#[cfg(test)]
mod test {
    use whatsapp_rust::types::message::MessageSource;
    use whatsapp_rust::wacore::chrono;

    use super::*;

    const ADA: &str = "15550000001@s.whatsapp.net";
    const GROUP: &str = "120363000000000001@g.us";

    fn jid(text: &str) -> Jid {
        text.parse().unwrap()
    }

    fn outgoing() -> OutgoingText {
        OutgoingText {
            to: ADA.to_owned(),
            text: "hello".to_owned(),
            reply_to: None,
            mentions: Vec::new(),
            mention_all: false,
            link_preview: true,
        }
    }

    fn info(chat: &str, sender: &str) -> MessageInfo {
        let source = MessageSource {
            chat: jid(chat),
            sender: jid(sender),
            is_group: chat.ends_with("@g.us"),
            ..Default::default()
        };
        let timestamp = chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        MessageInfo { id: "A1".to_owned(), push_name: "Ada".to_owned(), source, timestamp, ..Default::default() }
    }

    #[test]
    fn a_bare_text_has_no_context_and_no_preview() {
        let message = compose(&outgoing(), &jid(ADA), None);
        assert_eq!(message.conversation.as_deref(), Some("hello"));
        assert!(message.extended_text_message.is_unset());
        // Everybody in a chat of two is mentioned anyway.
        let all = compose(&OutgoingText { mention_all: true, ..outgoing() }, &jid(ADA), None);
        assert!(all.extended_text_message.is_unset());
    }

    #[test]
    fn an_answer_names_the_message_and_its_author() {
        let text = OutgoingText { reply_to: Some("Q1".to_owned()), ..outgoing() };
        let message = compose(&text, &jid(ADA), None);
        let extended = message.extended_text_message.as_option().unwrap();
        let context = extended.context_info.as_option().unwrap();
        assert_eq!((extended.text.as_deref(), context.stanza_id.as_deref()), (Some("hello"), Some("Q1")));
        assert_eq!(context.participant.as_deref(), Some(ADA));
        assert!(context.quoted_message.is_set());
    }

    #[test]
    fn mentions_name_people_or_everybody_in_a_group() {
        let text = OutgoingText { mentions: vec![ADA.to_owned()], mention_all: true, ..outgoing() };
        let message = compose(&text, &jid(GROUP), None);
        let context = message.extended_text_message.as_option().unwrap().context_info.as_option().unwrap();
        assert_eq!(context.mentioned_jid, [ADA]);
        assert_eq!(context.non_jid_mentions, Some(1));
    }

    #[test]
    fn a_text_of_somebody_is_from_their_chat_and_a_text_in_a_group_from_the_groups() {
        let message = wa::Message::text("hi");
        let text = text_in(&message, &info(ADA, "15550000001:4@s.whatsapp.net")).unwrap();
        assert_eq!((text.from.as_str(), text.sender, text.name.as_deref()), (ADA, None, Some("Ada")));
        assert_eq!((text.id.as_str(), text.at.as_millis(), text.text.as_str()), ("A1", 1_700_000_000_000, "hi"));
        let text = text_in(&message, &info(GROUP, ADA)).unwrap();
        assert_eq!((text.from.as_str(), text.sender.as_deref()), (GROUP, Some(ADA)));
    }

    #[test]
    fn who_is_hidden_is_told_with_their_number_if_whatsapp_tells_it() {
        let message = wa::Message::text("hi");
        let mut info = info("9990001@lid", "9990001:2@lid");
        assert_eq!(text_in(&message, &info).unwrap().from, "9990001@lid");
        info.source.sender_alt = Some(jid("15550000001:2@s.whatsapp.net"));
        assert_eq!(text_in(&message, &info).unwrap().from, ADA);
    }

    #[test]
    fn what_nobody_wrote_to_the_account_is_no_text() {
        let message = wa::Message::text("hi");
        let check = |change: &dyn Fn(&mut MessageInfo), message: &wa::Message| {
            let mut info = info(ADA, ADA);
            change(&mut info);
            assert_eq!(text_in(message, &info), None);
        };
        check(&|info| info.source.is_from_me = true, &message);
        check(&|info| info.category = MessageCategory::Peer, &message);
        check(&|info| info.edit = EditAttribute::MessageEdit, &message);
        check(&|info| info.source.chat = Jid::status_broadcast(), &message);
        check(&|info| info.source.chat = Jid::newsletter("12036300000"), &message);
        check(&|_| {}, &wa::Message::default());
        check(&|_| {}, &wa::Message::text(""));
    }
}
