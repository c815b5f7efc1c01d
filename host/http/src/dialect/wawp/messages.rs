//! Messages: a text to a chat, once for each `Idempotency-Key`, and the object that its sender reads.

use hyper::StatusCode;
use portcullis_core::message::INTERRUPTED;
use portcullis_core::operation::SendText;
use portcullis_core::{MessageState, OutgoingMessage, Session, Timestamp};
use portcullis_service::{Dispatched, Outcome};
use serde_json::{Value, json};

use super::{mismatch, params, problem, told};
use crate::asked::{Answer, Asked};
use crate::dialect::{Problem, common, dry_run};
use crate::exchange::{Incoming, Reply};
use crate::routes::EncodeContext;

/// The longest text of a message, in characters.
const MAX_TEXT: usize = 4096;
/// The longest user part of a JID, in bytes.
const MAX_USER: usize = 64;
/// The longest id of a message that is answered, in bytes.
const MAX_ID: usize = 200;

pub(super) fn send(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = params::session(incoming)?;
    let to = chat(&params::required(incoming, &["chatId"])?)?;
    let text = params::required(incoming, &["message", "text"])?;
    if text.chars().count() > MAX_TEXT {
        return Err(problem::invalid(format!("message must be at most {MAX_TEXT} characters")));
    }
    let reply_to = params::text(incoming, &["reply_to"])?.map(|id| answered(&id)).transpose()?;
    let send = SendText { reply_to, ..SendText::plain(session, to, text) };
    Ok(Asked::Send { send, key: idempotency_key(incoming)?, queue: false })
}

/// The JID of a chat. Digits alone are a user; a plus and spaces are what people write between them.
fn chat(text: &str) -> Result<String, Problem> {
    let wrong = || problem::invalid("chatId must be a phone number or a chat such as 628123456789@c.us or …@g.us");
    let clean: String = text.chars().filter(|c| *c != '+' && !c.is_whitespace()).collect();
    let (user, server) = clean.split_once('@').unwrap_or((&clean, "c.us"));
    let is_number = !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    let (fits, server) = match server {
        "c.us" | "s.whatsapp.net" => (is_number, "s.whatsapp.net"),
        "g.us" | "newsletter" | "lid" | "broadcast" => (!user.is_empty() && user.chars().all(is_plain), server),
        _ => (false, server),
    };
    if fits && user.len() <= MAX_USER { Ok(format!("{user}@{server}")) } else { Err(wrong()) }
}

/// The id of a message that is answered. Clients know it as `<from me>_<chat>_<id>`, and WhatsApp by its last part.
fn answered(text: &str) -> Result<String, Problem> {
    let mut parts = text.split('_');
    let id = match (parts.next(), parts.next(), parts.next()) {
        (Some("true" | "false"), Some(_chat), Some(id)) => id,
        _ => text,
    };
    let fits = !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(id.to_owned()) } else { Err(problem::invalid("reply_to must be the id of a message")) }
}

fn idempotency_key(incoming: &Incoming) -> Result<Option<String>, Problem> {
    common::idempotency_key(incoming).map_err(problem::invalid)
}

// === replies ===

/// The message object. Who asks again under the same key reads of the same message.
pub(super) fn sent(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Dispatched(dispatched) = answer else { return mismatch() };
    match dispatched {
        Dispatched::Done(done) => match &done.outcome {
            Outcome::DryRun(verdict) => Reply::json(StatusCode::OK, &dry_run(verdict)),
            Outcome::Sent(sent) => {
                // The chat was read from the same request before, and policy cannot change it.
                let asked = params::required(context.request, &["chatId"]).and_then(|text| chat(&text));
                match asked {
                    Ok(to) => Reply::json(StatusCode::CREATED, &message(context, &sent.id, sent.at, &to, &sent.text)),
                    Err(_) => mismatch(),
                }
            }
            _ => mismatch(),
        },
        Dispatched::Replayed(message) => replayed(context, &message),
        Dispatched::Queued { .. } => mismatch(),
    }
}

/// What became of the message that was asked for under the same key before.
fn replayed(context: &EncodeContext<'_>, known: &OutgoingMessage) -> Reply {
    // Of the first request only what became of it is told: another caller may have made it, to somebody else.
    let asked = params::required(context.request, &["chatId"]).and_then(|text| chat(&text));
    let said = params::required(context.request, &["message", "text"]);
    let (Ok(to), Ok(text)) = (asked, said) else { return mismatch() };
    match &known.state {
        MessageState::Sent { message: id, at } => {
            Reply::json(StatusCode::CREATED, &message(context, id, *at, &to, &text))
        }
        // WhatsApp has given it no id as yet, so it goes by the gateway's own.
        MessageState::Queued | MessageState::Sending => {
            let id = known.id.to_string();
            Reply::json(StatusCode::ACCEPTED, &message(context, &id, known.created_at, &to, &text))
        }
        MessageState::Failed { code } => told(&failed(code)),
    }
}

/// A message that was not sent, or may not have been, by the code that is remembered of it.
fn failed(code: &str) -> Problem {
    let problem = match code {
        "not_connected" => problem::not_connected("session is not connected"),
        "unknown_recipient" => problem::invalid("the recipient is not on WhatsApp"),
        INTERRUPTED => problem::upstream("the gateway ended while the message was being sent; it may have gone out"),
        _ => problem::upstream("WhatsApp did not take the message"),
    };
    problem.with_details(json!({ "reason": code }))
}

fn message(context: &EncodeContext<'_>, id: &str, at: Timestamp, to: &str, text: &str) -> Value {
    portcullis_webhook::wawp::sent(id, at, to, context.found.and_then(Session::linked_device), Some(text))
}

#[cfg(test)]
mod test {
    use portcullis_core::{MessageId, OrgId, Principal, SessionId};

    use super::super::params::test::asking;
    use super::super::view::test::context;
    use super::*;

    fn decoded(query: &str, body: &str) -> Result<SendText, String> {
        match send(&asking(query, body)) {
            Ok(Asked::Send { send, key: None, queue: false }) => Ok(send),
            Ok(asked) => panic!("{asked:?}"),
            Err(problem) => Err(problem.message),
        }
    }

    #[test]
    fn a_chat_is_a_number_or_a_jid() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(chat(text).ok().as_deref(), expected, "{text}");
        check("628123456789", Some("628123456789@s.whatsapp.net"));
        check("+62 812 3456 789", Some("628123456789@s.whatsapp.net"));
        check("628123456789@c.us", Some("628123456789@s.whatsapp.net"));
        check(" +628123456789@c.us ", Some("628123456789@s.whatsapp.net"));
        check("628123456789@s.whatsapp.net", Some("628123456789@s.whatsapp.net"));
        check("120363041234567890@g.us", Some("120363041234567890@g.us"));
        check("628123-1500000000@g.us", Some("628123-1500000000@g.us"));
        check("120363000@newsletter", Some("120363000@newsletter"));
        check("123123@lid", Some("123123@lid"));
        check("status@broadcast", Some("status@broadcast"));
        check("", None);
        check("+", None);
        check("@c.us", None);
        check("abc", None);
        check("abc@c.us", None);
        check("628@example.com", None);
        check("62/8@g.us", None);
        check("628@c.us@c.us", None);
        check(&"1".repeat(65), None);
    }

    #[test]
    fn an_answered_message_goes_by_the_last_part_of_its_id() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(answered(text).ok().as_deref(), expected, "{text}");
        check("3EB0A1", Some("3EB0A1"));
        check("false_628123456789@c.us_3EB0A1", Some("3EB0A1"));
        check("true_120363@g.us_3EB0A1_628@c.us", Some("3EB0A1"));
        check("true_628123456789@c.us_", None);
        check("a b", None);
        check(&"x".repeat(201), None);
    }

    #[test]
    fn a_text_is_in_one_of_two_fields_and_bounded() {
        let sent = |query: &str, body: &str| decoded(query, body).map(|send| send.text);
        assert_eq!(sent("chatId=628123456789&message=hi", ""), Ok("hi".to_owned()));
        assert_eq!(sent("chatId=628123456789&text=hi", ""), Ok("hi".to_owned()));
        assert_eq!(sent("", r#"{"chatId": 628123456789, "message": "hi"}"#), Ok("hi".to_owned()));
        let longest = "é".repeat(MAX_TEXT);
        assert_eq!(sent("chatId=628123456789", &json!({ "text": longest }).to_string()), Ok(longest.clone()));

        let refused = |query: &str, body: &str, expected: &str| {
            let why = decoded(query, body).unwrap_err();
            assert!(why.contains(expected), "{query} {body}: {why}");
        };
        refused("", "", "chatId is required");
        refused("chatId=628123456789", "", "message is required");
        refused("chatId=628123456789&message=", "", "message is required");
        refused("chatId=nobody&message=hi", "", "chatId must be");
        refused("chatId=628123456789&message=hi&reply_to=a%20b", "", "reply_to must be");
        refused("chatId=628123456789", &json!({ "text": format!("{longest}x") }).to_string(), "at most 4096");
    }

    /// Whoever guesses a key used to be told the message that it was used for. Now they are told what they asked for themselves.
    #[test]
    fn what_became_of_a_message_is_told_in_the_words_of_who_asks() {
        let request = asking("chatId=628555&message=hi", "");
        let context = EncodeContext { request: &request, ..context() };
        let known = |state: MessageState| OutgoingMessage {
            id: MessageId::from_bytes([7; 16]),
            org: OrgId::from_bytes([1; 16]),
            session: SessionId::from_bytes([5; 16]),
            asked_by: Principal::system(OrgId::from_bytes([1; 16])),
            request: None,
            content: SendText::plain(SessionId::from_bytes([5; 16]), "628777@s.whatsapp.net", "between others"),
            confirmed: None,
            state,
            created_at: Timestamp::from_millis(1_000),
            updated_at: Timestamp::from_millis(2_000),
        };
        let check = |state: MessageState, status: u16, field: &str, expected: Value| {
            let reply = replayed(&context, &known(state.clone()));
            let body: Value = serde_json::from_slice(&reply.body).unwrap();
            let text = body.to_string();
            assert!(!text.contains("628777") && !text.contains("between others"), "{text}");
            assert_eq!((reply.status.as_u16(), &body[field]), (status, &expected), "{state:?}: {body}");
        };
        let at = Timestamp::from_millis(1_999);
        let sent = MessageState::Sent { message: "3EB0A1".to_owned(), at };
        check(sent.clone(), 201, "id", json!("true_628555@c.us_3EB0A1"));
        check(sent, 201, "timestamp", json!(1));
        check(MessageState::Sending, 202, "ackName", json!("PENDING"));
        check(MessageState::Queued, 202, "body", json!("hi"));
        let failed = |code: &str| MessageState::Failed { code: code.to_owned() };
        check(failed("not_connected"), 404, "code", json!("invalid_session"));
        check(failed("unknown_recipient"), 400, "code", json!("invalid_parameter"));
        check(failed("send_refused"), 502, "code", json!("wawp_upstream_error"));
        check(failed(INTERRUPTED), 502, "reason", json!(INTERRUPTED));
    }
}
