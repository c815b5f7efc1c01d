//! Messages: sent while the caller waits, or queued; once for each `Idempotency-Key`.

use hyper::StatusCode;
use portcullis_core::operation::SendText;
use portcullis_core::{MessageId, MessageState};
use portcullis_service::{Dispatched, Outcome};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::sessions::session_id;
use super::view::{MessageView, SentView};
use super::{decode, mismatch};
use crate::asked::{Answer, Asked};
use crate::dialect::{Problem, common, dry_run};
use crate::exchange::{Incoming, Reply};
use crate::openapi::schema::{JID, PLAIN, TextKind};
use crate::routes::EncodeContext;

/// The longest text of a message, in characters.
const MAX_TEXT: usize = 4096;
/// The most people who are mentioned in one message.
const MAX_MENTIONS: usize = 100;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MessageBody {
    #[serde(rename = "type")]
    #[schemars(with = "TextKind", required)]
    kind: Option<String>,
    #[schemars(required, regex(pattern = JID))]
    to: Option<String>,
    #[schemars(required, length(min = 1, max = MAX_TEXT))]
    text: Option<String>,
    #[schemars(length(max = 128), regex(pattern = PLAIN))]
    reply_to: Option<String>,
    #[serde(default)]
    #[schemars(length(max = MAX_MENTIONS), inner(regex(pattern = JID)))]
    mentions: Vec<String>,
}

/// The other kinds of message that the dialect knows.
const OTHER_KINDS: [&str; 9] =
    ["poll", "location", "contact", "image", "video", "audio", "document", "sticker", "album"];

pub(super) fn send(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = session_id(incoming)?;
    let document: Value = decode::body(incoming)?;
    let kind = document.get("type").and_then(Value::as_str).unwrap_or_default();
    // The kind comes first: the other kinds have fields that a text has not.
    match kind {
        "text" => {}
        "" => return Err(Problem::invalid("send type is required")),
        known if OTHER_KINDS.contains(&known) => {
            check_other(known, &document)?;
            let message = format!("messages of type '{known}' are not implemented");
            return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", message));
        }
        unknown => return Err(Problem::invalid(format!("unknown send type {unknown:?}"))),
    }
    let body: MessageBody = decode::body(incoming)?;
    debug_assert_eq!(body.kind.as_deref(), Some("text"), "the kind was looked at above");
    let to = body.to.filter(|to| !to.is_empty()).ok_or_else(|| Problem::invalid("recipient 'to' is required"))?;
    let text = body.text.filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| Problem::invalid("text is required for type 'text'"))?;
    if text.chars().count() > MAX_TEXT {
        return Err(Problem::invalid(format!("text must be at most {MAX_TEXT} characters")));
    }
    decode::check_jid("recipient 'to'", &to)?;
    if let Some(id) = &body.reply_to {
        decode::check_text("replyTo", id, 128)?;
    }
    if body.mentions.len() > MAX_MENTIONS {
        return Err(Problem::invalid(format!("mentions must name at most {MAX_MENTIONS} people")));
    }
    body.mentions.iter().try_for_each(|jid| decode::check_jid("each of mentions", jid))?;
    let send = SendText { reply_to: body.reply_to, mentions: body.mentions, ..SendText::plain(session, to, text) };
    Ok(Asked::Send { send, key: idempotency_key(incoming)?, queue: asynchronous(incoming)? })
}

/// What a message of another kind must be. That this gateway cannot send it is told only of one that could be sent.
/// Source of the texts: the router's validation of sends.
fn check_other(kind: &str, document: &Value) -> Result<(), Problem> {
    let filled = |field: &Value| field.as_str().is_some_and(|text| !text.is_empty());
    let within = |field: &str, most: f64| document[field].as_f64().is_some_and(|at| (-most..=most).contains(&at));
    let demand = |holds: bool, message: &str| if holds { Ok(()) } else { Err(Problem::invalid(message)) };
    demand(filled(&document["to"]), "recipient 'to' is required")?;
    match kind {
        "poll" => {
            let options = document["options"].as_array().map_or(0, Vec::len) as u64;
            let selectable = &document["selectableCount"];
            demand(filled(&document["name"]), "name is required for type 'poll'")?;
            demand(options >= 2, "poll requires at least 2 options")?;
            let fits = selectable.is_null() || selectable.as_u64().is_some_and(|count| count <= options);
            demand(fits, "selectableCount must be between 0 and the number of options")
        }
        "location" => {
            demand(within("latitude", 90.0), "latitude must be between -90 and 90")?;
            demand(within("longitude", 180.0), "longitude must be between -180 and 180")
        }
        "contact" => {
            let contact = &document["contact"];
            demand(contact.is_object(), "contact is required for type 'contact'")?;
            let named = filled(&contact["name"]) && filled(&contact["phone"]);
            demand(filled(&contact["vcard"]) || named, "contact requires either a vcard or both name and phone")
        }
        media => {
            let given = &document["media"];
            demand(given.is_object(), &format!("media is required for type '{media}'"))?;
            let one = filled(&given["data"]) != filled(&given["url"]);
            demand(one, &format!("provide exactly one of media.data or media.url for type '{media}'"))
        }
    }
}

fn idempotency_key(incoming: &Incoming) -> Result<Option<String>, Problem> {
    common::idempotency_key(incoming).map_err(Problem::invalid)
}

fn asynchronous(incoming: &Incoming) -> Result<bool, Problem> {
    match incoming.query("async") {
        None | Some("false" | "0") => Ok(false),
        Some(_) if incoming.flag("async") => Ok(true),
        Some(_) => Err(Problem::malformed(&["async must be true or false".to_owned()])),
    }
}

pub(super) fn get(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = session_id(incoming)?;
    let message: MessageId = decode::path_id(incoming, "message", "message")?;
    Ok(Asked::Message { session, message })
}

// === replies ===

pub(super) fn sent(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Dispatched(dispatched) = answer else { return mismatch() };
    match dispatched {
        Dispatched::Done(done) => match &done.outcome {
            Outcome::DryRun(verdict) => Reply::json(StatusCode::OK, &dry_run(verdict)),
            Outcome::Sent(sent) => Reply::json(StatusCode::OK, &SentView::sent(&sent.id, sent.at)),
            _ => mismatch(),
        },
        Dispatched::Queued { message, .. } => Reply::json(StatusCode::ACCEPTED, &SentView::queued(message)),
        // What became of the message that was asked for under the same key before.
        Dispatched::Replayed(message) => {
            let under_way = matches!(message.state, MessageState::Queued | MessageState::Sending);
            let status = if under_way { StatusCode::ACCEPTED } else { StatusCode::OK };
            Reply::json(status, &SentView::replayed(&message))
        }
    }
}

pub(super) fn message(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Message(message) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &MessageView::of(&message))
}
