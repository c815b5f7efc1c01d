//! Texts, and what else of a chat there is: whom WhatsApp knows, and what the account is seen doing.

use hyper::StatusCode;
use portcullis_core::operation::{Presence, SendText};
use portcullis_core::{MessageState, Operation, Session};
use portcullis_service::{Dispatched, Outcome};
use portcullis_webhook::evolution::Sent;
use serde_json::{Map, Value, json};

use super::schema::{self, Field, Kind, List, Schema};
use super::{instance_session, jid, mismatch, operate, problem};
use crate::asked::{Answer, Asked};
use crate::dialect::{Dialect, Problem, common};
use crate::exchange::{Incoming, Reply};
use crate::routes::EncodeContext;

/// The longest text of a message, in characters.
const MAX_TEXT: usize = 4096;
/// The longest number or JID, in bytes.
const MAX_NUMBER: usize = 128;
/// How long typing can be shown before an answer, which must come in time, in milliseconds.
const MAX_DELAY: u64 = 30_000;

/// The words for presences.
pub(super) const PRESENCES: &[&str] = &["unavailable", "available", "composing", "recording", "paused"];

const MENTIONED: List = List {
    of: Kind::Pattern("^\\d+", |text| text.starts_with(|c: char| c.is_ascii_digit())),
    count: (1, 1024),
    unique: true,
    said: Some("\"mentioned\" must be an array of numeric strings"),
};
const NUMBERS: List = List {
    of: Kind::Text,
    count: (1, 50),
    unique: true,
    said: Some("\"numbers\" must be an array of numeric strings"),
};
const QUOTED_KEY: Schema =
    &[Field::required("id", Kind::Text), Field::new("remoteJid", Kind::Text), Field::new("fromMe", Kind::Flag)];
const QUOTED: Schema = &[Field::new("key", Kind::Object(QUOTED_KEY)), Field::new("message", Kind::Map)];
const TEXT: Schema = &[
    Field::required("number", Kind::Text).or_say("Invalid format"),
    Field::required("text", Kind::Text),
    Field::new("delay", Kind::Integer).or_say("Enter a value in milliseconds"),
    Field::new("linkPreview", Kind::Flag),
    Field::new("quoted", Kind::Object(QUOTED)),
    Field::new("mentionsEveryOne", Kind::Flag),
    Field::new("mentioned", Kind::List(&MENTIONED)),
];
const CHECK: Schema = &[Field::required("numbers", Kind::List(&NUMBERS))];
const PRESENCE: Schema = &[
    Field::required("number", Kind::Text).or_say("Invalid format"),
    Field::required("presence", Kind::Choice(PRESENCES)),
    Field::required("delay", Kind::Integer).or_say("Enter a value in milliseconds"),
];

pub(super) fn send(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = instance_session(incoming)?;
    let body = schema::read(incoming, TEXT)?;
    let text = schema::filled(&body, "text").ok_or_else(|| problem::bad("Text is required"))?;
    if text.chars().count() > MAX_TEXT {
        return Err(problem::bad(format!("\"text\" must be at most {MAX_TEXT} characters")));
    }
    let mentions = schema::texts(&body, "mentioned").unwrap_or_default().into_iter().map(mentioned);
    let send = SendText {
        reply_to: quoted(&body)?,
        mentions: mentions.collect::<Result<_, _>>()?,
        mention_all: schema::flag(&body, "mentionsEveryOne"),
        typing_millis: delay(&body)?,
        link_preview: body.get("linkPreview").and_then(Value::as_bool).unwrap_or(true),
        ..SendText::plain(session, recipient(&body)?, text)
    };
    let key = common::idempotency_key(incoming).map_err(problem::bad)?;
    Ok(Asked::Send { send, key, queue: false })
}

/// Who is written to. What cannot be a JID is nobody's number.
fn recipient(body: &Map<String, Value>) -> Result<String, Problem> {
    let number = schema::text(body, "number").unwrap_or_default();
    if number.len() > MAX_NUMBER {
        return Err(problem::bad(format!("\"number\" must be at most {MAX_NUMBER} bytes")));
    }
    let jid = jid::from_number(number);
    if jid::is_plausible(&jid) { Ok(jid) } else { Err(problem::nobody(number)) }
}

fn mentioned(number: &str) -> Result<String, Problem> {
    let jid = jid::from_number(number);
    let fits = number.len() <= MAX_NUMBER && jid::is_plausible(&jid);
    if fits { Ok(jid) } else { Err(problem::bad("\"mentioned\" must be an array of numeric strings")) }
}

fn quoted(body: &Map<String, Value>) -> Result<Option<String>, Problem> {
    let key = schema::object(body, "quoted").and_then(|quoted| schema::object(quoted, "key"));
    let id = key.and_then(|key| schema::filled(key, "id"));
    let fits = id.is_none_or(|id| id.len() <= MAX_NUMBER && id.chars().all(|c| c.is_ascii_graphic()));
    if fits { Ok(id.map(str::to_owned)) } else { Err(problem::bad("\"quoted.key.id\" is no id of a message")) }
}

/// A delay in milliseconds; a negative one is none.
fn delay(body: &Map<String, Value>) -> Result<u32, Problem> {
    let asked = body.get("delay").and_then(Value::as_f64).unwrap_or_default().max(0.0);
    if asked > MAX_DELAY as f64 {
        return Err(problem::bad(format!("\"delay\" must be at most {MAX_DELAY} milliseconds")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and between the bounds")]
    Ok(asked as u32)
}

pub(super) fn check_numbers(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = instance_session(incoming)?;
    let body = schema::read(incoming, CHECK)?;
    let mut numbers: Vec<String> = Vec::new();
    for number in schema::texts(&body, "numbers").unwrap_or_default() {
        let person = phone_of(number).ok_or_else(|| problem::bad(format!("{number:?} is no phone number")))?;
        // Several ways of writing one number are one question.
        if !numbers.contains(&person) {
            numbers.push(person);
        }
    }
    operate(Operation::NumberCheck { session, numbers })
}

/// The digits of a person's number.
fn phone_of(number: &str) -> Option<String> {
    let jid = jid::from_number(number);
    let (user, server) = jid.split_once('@')?;
    let is_phone = server == "s.whatsapp.net" && user.len() <= 17 && user.bytes().all(|byte| byte.is_ascii_digit());
    (is_phone && !user.is_empty()).then(|| user.to_owned())
}

pub(super) fn show_presence(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = instance_session(incoming)?;
    let body = schema::read(incoming, PRESENCE)?;
    let (chat, hold_millis) = (Some(recipient(&body)?), delay(&body)?);
    operate(Operation::PresenceSet { session, chat, presence: presence(&body), hold_millis })
}

/// The presence in a checked body.
pub(super) fn presence(body: &Map<String, Value>) -> Presence {
    let word = schema::text(body, "presence").unwrap_or_default();
    Presence::ALL.into_iter().find(|presence| presence.name() == word).unwrap_or(Presence::Available)
}

// === replies ===

#[expect(clippy::needless_pass_by_value, reason = "an encoder of the table takes its answer")]
pub(super) fn sent(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let body = schema::again(context.request);
    let (id, at, text) = match &answer {
        Answer::Dispatched(Dispatched::Done(done)) => match &done.outcome {
            // Policy may have changed the text.
            Outcome::Sent(sent) => (sent.id.clone(), sent.at, Some(sent.text.as_str())),
            Outcome::DryRun(verdict) => return problem::dry_run(verdict),
            _ => return mismatch(),
        },
        // Of the first request under the same key only what became of it is told: another caller may have made it.
        Answer::Dispatched(Dispatched::Replayed(known)) => match &known.state {
            MessageState::Sent { message, at } => (message.clone(), *at, schema::text(&body, "text")),
            MessageState::Queued | MessageState::Sending => {
                (known.id.to_string(), known.created_at, schema::text(&body, "text"))
            }
            MessageState::Failed { code } => return Dialect::Evolution.problem(&not_sent(code, &body)),
        },
        _ => return mismatch(),
    };
    let session = context.found;
    let to = jid::from_number(schema::text(&body, "number").unwrap_or_default());
    let view = portcullis_webhook::evolution::sent(&Sent {
        id: &id,
        to: &to,
        at,
        own: session.and_then(Session::linked_device),
        text,
        context: context_info(&body),
        instance_id: session.map(|session| session.names.uuid.as_str()),
    });
    Reply::json(StatusCode::CREATED, &view)
}

/// A message that was not sent, or may not have been, by the code that is remembered of it.
fn not_sent(code: &str, body: &Map<String, Value>) -> Problem {
    match code {
        "not_connected" => problem::bad("Error: Connection Closed"),
        "unknown_recipient" => problem::nobody(schema::text(body, "number").unwrap_or_default()),
        code => problem::bad(format!("Error: the message was not sent ({code})")),
    }
}

/// What a message answers, and whom it mentions; null if nothing and nobody.
fn context_info(body: &Map<String, Value>) -> Value {
    let mut info = Map::new();
    if let Ok(Some(id)) = quoted(body) {
        info.insert("stanzaId".to_owned(), json!(id));
    }
    if let Some(mentioned) = schema::texts(body, "mentioned") {
        let jids: Vec<String> = mentioned.into_iter().map(jid::from_number).collect();
        info.insert("mentionedJid".to_owned(), json!(jids));
    }
    if info.is_empty() { Value::Null } else { Value::Object(info) }
}

pub(super) fn checked(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Operated(done) = answer else { return mismatch() };
    let found = match &done.outcome {
        Outcome::Checked(found) => found,
        Outcome::DryRun(verdict) => return problem::dry_run(verdict),
        _ => return mismatch(),
    };
    let body = schema::again(context.request);
    let row = |number: &str| {
        let asked = jid::from_number(number);
        let known = found.iter().find(|check| check.number == jid::user(&asked)).and_then(|check| check.jid.as_ref());
        json!({ "jid": known.unwrap_or(&asked), "exists": known.is_some(), "number": number })
    };
    let rows: Vec<Value> = schema::texts(&body, "numbers").unwrap_or_default().into_iter().map(row).collect();
    Reply::json(StatusCode::OK, &rows)
}

pub(super) fn presence_shown(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Operated(done) = answer else { return mismatch() };
    match &done.outcome {
        Outcome::DryRun(verdict) => problem::dry_run(verdict),
        _ => {
            let shown = presence(&schema::again(context.request));
            Reply::json(StatusCode::CREATED, &json!({ "presence": shown.name() }))
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn delays_are_bounded() {
        let check = |asked: Value, expected: Option<u32>| {
            let body = json!({ "delay": asked });
            assert_eq!(delay(body.as_object().unwrap()).ok(), expected, "{asked}");
        };
        check(json!(1200), Some(1200));
        check(json!(30_000), Some(30_000));
        check(json!(-5), Some(0));
        check(json!(30_001), None);
        check(json!(1e300), None);
        assert_eq!(delay(&Map::new()).ok(), Some(0));
    }

    #[test]
    fn only_people_can_be_checked() {
        assert_eq!(phone_of("+62 812 3456 789").as_deref(), Some("628123456789"));
        assert_eq!(phone_of("628123456789@s.whatsapp.net").as_deref(), Some("628123456789"));
        for nobody in ["", "nobody", "120363025246125486@g.us", "123@lid", "x@s.whatsapp.net"] {
            assert_eq!(phone_of(nobody), None, "{nobody}");
        }
    }

    #[test]
    fn presences_are_those_of_the_core() {
        assert_eq!(Presence::ALL.map(Presence::name).as_slice(), PRESENCES);
    }
}
