//! What the service asks of a connected session: to send a text, to look numbers up, to show what the account is doing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::operation::Presence;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use whatsapp_rust::request::IqError;
use whatsapp_rust::wacore_binary::JidExt;
use whatsapp_rust::{Client, ClientError, Jid, PresenceError, SendOptions};

use super::facts::{self, bare};
use super::line::Line;
use super::message;
use crate::{NumberCheck, OutgoingText, SendError, Sent};

/// Sends a text and waits until WhatsApp has taken it, until `patience` is over.
pub(super) async fn send(line: Arc<Line>, text: OutgoingText, patience: Duration) -> Result<Sent, SendError> {
    let client = connected(&line)?;
    let crew = line.crew().ok_or(SendError::NotConnected)?;
    let end = Instant::now() + patience;
    let (tell, told) = oneshot::channel();
    let sending = Box::pin(deliver(line, client, text, end));
    // A caller who goes away must not cut a message off half-way, when its keys are used and nothing has left. The end of the
    // client does that, after it has waited for those who are in the middle of something.
    let begun = crew.begin(async move {
        let _ = tell.send(sending.await);
    });
    if begun.is_none() {
        return Err(SendError::NotConnected);
    }
    match timeout_at(end, told).await {
        Ok(Ok(result)) => result,
        // The task was ended with the client, or it takes too long.
        Ok(Err(_)) | Err(_) => Err(SendError::Unconfirmed),
    }
}

/// Sends a text. The answer is waited for until `end`, and no longer than the connection lasts.
async fn deliver(line: Arc<Line>, client: Arc<Client>, text: OutgoingText, end: Instant) -> Result<Sent, SendError> {
    let to = recipient(&text.to)?;
    if !to.is_group() {
        let devices = client.signal().get_user_devices(std::slice::from_ref(&to)).await;
        // Who has no device has no account. That it could not be found out is for the sending to say.
        if devices.is_ok_and(|devices| devices.is_empty()) {
            return Err(SendError::UnknownRecipient);
        }
    }
    let id = client.generate_message_id();
    let message = message::compose(&text, &to, client.pn().as_ref());
    // Nothing has left: if the connection was lost meanwhile, there is nobody who could answer.
    let mut awaited = line.acks.expect(&id).ok_or(SendError::NotConnected)?;
    let options = SendOptions::default().with_message_id(&id);
    if let Err(error) = client.send_message_with_options(to, message, options).await {
        return Err(failure(&error));
    }
    let answer = awaited.answer_by(end).await.ok_or(SendError::Unconfirmed)?;
    let now = facts::now();
    match answer.error.as_deref() {
        None => Ok(Sent { id, at: answer.at.unwrap_or(now) }),
        Some("404") => Err(SendError::UnknownRecipient),
        Some(code) => match facts::limit(code, now) {
            Some(limited) => {
                line.voice.fact(limited);
                Err(SendError::Limited)
            }
            None => Err(SendError::Refused),
        },
    }
}

/// Asks WhatsApp which numbers it knows.
pub(super) async fn check(
    line: &Line,
    numbers: Vec<String>,
    patience: Duration,
) -> Result<Vec<NumberCheck>, SendError> {
    let client = connected(line)?;
    let jids: Vec<Jid> = numbers.iter().map(|number| Jid::pn(digits(number))).collect();
    let contacts = client.contacts();
    let asked = timeout_at(Instant::now() + patience, contacts.is_on_whatsapp(&jids)).await;
    let found = match asked {
        Ok(Ok(found)) => found,
        Ok(Err(whatsapp_rust::features::ContactError::Iq(error))) => return Err(unanswered(&error)),
        Ok(Err(_)) => return Err(SendError::Refused),
        Err(_) => return Err(SendError::Unconfirmed),
    };
    let mut known: HashMap<String, String> = HashMap::new();
    for result in found.into_iter().filter(|result| result.is_registered) {
        let number = result.pn_jid.as_ref().unwrap_or(&result.jid);
        known.insert(number.user.to_string(), bare(number));
    }
    let answers = numbers.into_iter().map(|number| {
        let jid = known.get(&digits(&number)).cloned();
        NumberCheck { number, jid }
    });
    Ok(answers.collect())
}

/// Shows a chat, or everybody, what the account is doing.
pub(super) async fn show(line: &Line, chat: Option<String>, presence: Presence) -> Result<(), SendError> {
    use whatsapp_rust::ChatStateType;

    let client = connected(line)?;
    let chat = chat.as_deref().map(recipient).transpose()?;
    let state = match presence {
        Presence::Composing => ChatStateType::Composing,
        Presence::Recording => ChatStateType::Recording,
        Presence::Paused => ChatStateType::Paused,
        Presence::Available | Presence::Unavailable => {
            let _turn = line.showing.lock().await;
            let everybody = client.presence();
            let shown = match presence {
                Presence::Available => everybody.set_available().await,
                _ => everybody.set_unavailable().await,
            };
            return shown.map_err(|error| unshown(&error));
        }
    };
    // Nobody types for everybody.
    let Some(chat) = chat else { return Err(SendError::UnknownRecipient) };
    client.chatstate().send(&chat, state).await.map_err(|_| SendError::NotConnected)
}

fn connected(line: &Line) -> Result<Arc<Client>, SendError> {
    let client = line.client().filter(|client| client.is_connected() && client.is_logged_in());
    client.ok_or(SendError::NotConnected)
}

/// A JID to which a text can be sent: somebody's, or a group's.
fn recipient(to: &str) -> Result<Jid, SendError> {
    let jid: Jid = to.parse().map_err(|_| SendError::UnknownRecipient)?;
    let is_somebody = (jid.is_pn() || jid.is_lid() || jid.is_group()) && !jid.user.is_empty();
    if is_somebody { Ok(jid.to_non_ad()) } else { Err(SendError::UnknownRecipient) }
}

fn digits(number: &str) -> String {
    number.chars().filter(char::is_ascii_digit).collect()
}

/// Why a message was not sent, or may not have been.
fn failure(error: &whatsapp_rust::SendError) -> SendError {
    use whatsapp_rust::SendError as Error;
    match error {
        // Nothing has left: the client asks for a connection before it writes to it.
        Error::NotLoggedIn | Error::Client(ClientError::NotConnected | ClientError::NotLoggedIn) => {
            SendError::NotConnected
        }
        // Before the message, the client asks who has which devices; without an answer it does not send.
        Error::Iq(error) | Error::Client(ClientError::Iq(error)) => unanswered(error),
        Error::InvalidRequest(_) => SendError::Refused,
        // It broke while it was written to.
        Error::Client(_) => SendError::Unconfirmed,
        _ => SendError::Refused,
    }
}

/// What it means that a question was not answered.
fn unanswered(error: &IqError) -> SendError {
    match error {
        IqError::ServerError { code: 404, .. } => SendError::UnknownRecipient,
        IqError::ServerError { .. } | IqError::EncodeError(_) | IqError::ParseError(_) => SendError::Refused,
        _ => SendError::NotConnected,
    }
}

/// Why everybody is not shown what the account is doing.
fn unshown(error: &PresenceError) -> SendError {
    match error {
        // WhatsApp wants the account's name with it, which the phone has not told yet.
        PresenceError::PushNameEmpty => SendError::Refused,
        _ => SendError::NotConnected,
    }
}
