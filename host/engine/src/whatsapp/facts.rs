//! What the client's events mean. Nothing happens here.

use std::time::Duration;

use portcullis_core::session::{AccountLimit, FailureCause};
use portcullis_core::{Device, Fact, MessageStage, Secret, Timestamp};
use whatsapp_rust::Jid;
use whatsapp_rust::types::events::{ConnectFailureReason, Event, EventInterest, EventKind, Receipt};
use whatsapp_rust::types::presence::ReceiptType;

use crate::Progress;

/// What an event means to its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A QR code is to be shown for so long.
    Qr {
        /// Its text.
        text: Secret,
        /// How long it lives.
        lives: Duration,
    },
    /// There are no more QR codes.
    QrExhausted,
    /// A code to type is to be shown for so long.
    Code {
        /// The code.
        text: Secret,
        /// How long it lives.
        lives: Duration,
    },
    /// The code to type is worth nothing any more, and another one may be asked for.
    CodeSpent,
    /// WhatsApp has linked the device; nothing of it is kept yet.
    Linked,
    /// WhatsApp asks for a passkey.
    Passkey,
    /// The connection is up.
    Up,
    /// The connection is down, and the client works on it.
    Down,
    /// The account calls itself something else now.
    Named,
    /// The device is linked no more.
    LoggedOut,
    /// The client has ended, and does not come back.
    Over {
        /// Why.
        cause: FailureCause,
        /// How long that lasts, if WhatsApp says so.
        lasts: Option<Duration>,
    },
    /// Messages have come further.
    Progress(Progress),
    /// Nothing.
    Nothing,
}

/// The events that runs hear of. The client makes no others.
pub(super) fn interest() -> EventInterest {
    EventInterest::of(&[
        EventKind::Connected,
        EventKind::Disconnected,
        EventKind::PairSuccess,
        EventKind::PairError,
        EventKind::LoggedOut,
        EventKind::PairingQrCode,
        EventKind::PairingCode,
        EventKind::PairingCodeRefresh,
        EventKind::PairingCodeError,
        EventKind::PairingQrCodesExhausted,
        EventKind::ClientOutdated,
        EventKind::Messages,
        EventKind::Receipt,
        EventKind::ServerAck,
        EventKind::IncomingCall,
        EventKind::SelfPushNameUpdated,
        EventKind::StreamReplaced,
        EventKind::TemporaryBan,
        EventKind::ConnectFailure,
        EventKind::PairPasskeyRequest,
        EventKind::PairPasskeyError,
    ])
}

/// What `event` means.
pub(super) fn meaning(event: &Event) -> Meaning {
    match event {
        Event::Connected(_) => Meaning::Up,
        Event::Disconnected(_) => Meaning::Down,
        Event::PairSuccess(_) => Meaning::Linked,
        Event::PairingQrCode(qr) => Meaning::Qr { text: Secret::new(&qr.code), lives: qr.timeout },
        Event::PairingQrCodesExhausted(_) => Meaning::QrExhausted,
        Event::PairingCode(code) => Meaning::Code { text: Secret::new(&code.code), lives: code.timeout },
        Event::PairingCodeRefresh(_) => Meaning::CodeSpent,
        // Without a rejection, nobody has refused anything: who asked for the code hears why there is none.
        Event::PairingCodeError(error) if error.rejection.is_none() => Meaning::Nothing,
        Event::PairError(_) | Event::PairingCodeError(_) | Event::PairPasskeyError(_) => {
            Meaning::Over { cause: FailureCause::PairingRefused, lasts: None }
        }
        Event::PairPasskeyRequest(_) => Meaning::Passkey,
        Event::SelfPushNameUpdated(_) => Meaning::Named,
        // The account is locked, and the device is linked still.
        Event::LoggedOut(out) if out.reason == ConnectFailureReason::AccountLocked => {
            Meaning::Over { cause: FailureCause::ConnectionRefused, lasts: None }
        }
        Event::LoggedOut(_) => Meaning::LoggedOut,
        Event::StreamReplaced(_) => Meaning::Over { cause: FailureCause::Replaced, lasts: None },
        Event::TemporaryBan(ban) => {
            // A ban that lasts no time at all is one of which nobody has said when it ends.
            let lasts = ban.expire.to_std().ok().filter(|lasts| !lasts.is_zero());
            Meaning::Over { cause: FailureCause::Banned, lasts }
        }
        Event::ClientOutdated(_) => Meaning::Over { cause: FailureCause::ClientOutdated, lasts: None },
        // The client tries these again by itself.
        Event::ConnectFailure(failure) if failure.reason.should_reconnect() => Meaning::Nothing,
        Event::ConnectFailure(_) => Meaning::Over { cause: FailureCause::ConnectionRefused, lasts: None },
        Event::Receipt(receipt) => progress(receipt).map_or(Meaning::Nothing, Meaning::Progress),
        _ => Meaning::Nothing,
    }
}

/// How far a receipt says that messages are, if they are the account's own and somebody else says it.
fn progress(receipt: &Receipt) -> Option<Progress> {
    if receipt.source.is_from_me || receipt.message_ids.is_empty() {
        return None;
    }
    let stage = match receipt.r#type {
        ReceiptType::Delivered => MessageStage::Delivered,
        ReceiptType::Read => MessageStage::Read,
        ReceiptType::Played => MessageStage::Played,
        _ => return None,
    };
    Some(Progress { messages: receipt.message_ids.clone(), chat: bare(&receipt.source.chat), stage })
}

/// What a refusal of a message means to the account, if it is more than a matter of this message.
///
/// 463: who has never written to the account may not be written to; the account may be kept from new chats for a while.
/// 475: the account has begun as many chats as it may for now.
pub(super) fn limit(code: &str, now: Timestamp) -> Option<Fact> {
    matches!(code, "463" | "475")
        .then(|| Fact::Limited { limit: AccountLimit { code: code.to_owned(), until: None, since: now } })
}

/// The device as the lifecycle knows it: the account, and not which of its devices this one is.
pub(super) fn device(pn: &Jid, lid: Option<&Jid>, push_name: &str) -> Device {
    Device {
        jid: bare(pn),
        lid: lid.filter(|lid| !lid.user.is_empty()).map(bare),
        push_name: Some(push_name).filter(|name| !name.is_empty()).map(str::to_owned),
    }
}

/// A JID without the part that tells the devices of an account apart.
pub(super) fn bare(jid: &Jid) -> String {
    jid.to_non_ad().to_string()
}

/// The time, as the machine has it. What WhatsApp's codes and bans last is measured in this time, whatever clock the rest of
/// the gateway goes by.
pub(super) fn now() -> Timestamp {
    Timestamp::from_millis(u64::try_from(whatsapp_rust::wacore::time::now_millis()).unwrap_or_default())
}

#[cfg(test)]
mod test;
