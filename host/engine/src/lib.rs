//! WhatsApp drivers behind one trait.
//!
//! An engine holds one *run* for each session that is connected or on its way there.
//! It is told what to do by [`Command`]s and tells what happened by [`Report`]s; it never changes a session and never decides anything.
//! Every run carries the attempt under which it was begun, so that the lifecycle can drop what a run that is over still has to say.
//!
//! There are two drivers: [`whatsapp`], which speaks to WhatsApp, and [`simulated`], which speaks to nobody.

pub mod simulated;
#[cfg(feature = "whatsapp")]
pub mod whatsapp;

use std::pin::Pin;

use portcullis_core::operation::Presence;
use portcullis_core::{Attempt, EngineFact, MessageStage, OrgId, Proxy, Secret, SessionId, Settings, Timestamp};

pub use simulated::Simulated;

/// A WhatsApp driver.
///
/// Time is an argument, as in the core: an engine that does things by time says when it wants to be asked again.
pub trait Engine: Send + Sync {
    /// The driver's name, as it is shown to people.
    fn name(&self) -> &'static str;

    /// Does, or begins to do, what a lifecycle effect asks for. What comes of it is reported.
    /// Blocks on the device store: call it off the async workers.
    fn perform(&self, command: Command, now: Timestamp);

    /// Every run there is.
    fn runs(&self) -> Vec<(SessionId, Attempt)>;

    /// The run of one session.
    fn run(&self, session: SessionId) -> Option<Attempt>;

    /// Takes the reports that are ready at `now`, oldest first.
    fn poll(&self, now: Timestamp) -> Vec<Report>;

    /// When [`Engine::poll`] will have something by time alone. To be asked again after every `perform` and `poll`.
    fn next_wake(&self) -> Option<Timestamp>;

    /// Says that what a report told is recorded. An engine that owes WhatsApp an answer to it may give it now.
    fn recorded(&self, _report: &Report) {}

    /// Ends every run, with all that it still has to keep. Nothing is reported of it.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    /// Completes when `poll` may have something that `next_wake` did not announce.
    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Sends a text through a run.
    fn send_text(
        &self,
        session: SessionId,
        attempt: Attempt,
        text: OutgoingText,
        now: Timestamp,
    ) -> Pin<Box<dyn Future<Output = Result<Sent, SendError>> + Send + '_>>;

    /// Asks WhatsApp which of these phone numbers it knows; the answers are in the order of the questions.
    fn check_numbers(
        &self,
        session: SessionId,
        attempt: Attempt,
        numbers: Vec<String>,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<NumberCheck>, SendError>> + Send + '_>>;

    /// Shows a chat, or everybody, what the account is doing.
    fn show_presence(
        &self,
        session: SessionId,
        attempt: Attempt,
        chat: Option<String>,
        presence: Presence,
    ) -> Pin<Box<dyn Future<Output = Result<(), SendError>> + Send + '_>>;

    /// The controls of a simulated phone and network, if this engine is simulated.
    fn simulator(&self) -> Option<&Simulated> {
        None
    }
}

/// Something for an engine to do, for one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Whose session it is.
    pub org: OrgId,
    /// The session.
    pub session: SessionId,
    /// What to do.
    pub task: Task,
}

/// What an engine can be told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Begin a run with the stored device.
    Launch {
        /// The run's attempt.
        attempt: Attempt,
        /// How it connects and behaves.
        setup: Box<Setup>,
    },
    /// Begin a run that waits to be linked.
    Pair {
        /// The run's attempt.
        attempt: Attempt,
        /// How it connects and behaves.
        setup: Box<Setup>,
        /// The phone number to link with a code; a QR code otherwise.
        phone: Option<Secret>,
    },
    /// End a run, keeping its credentials. A run that is not there has ended already.
    Halt {
        /// The run's attempt.
        attempt: Attempt,
    },
    /// Log the device out of WhatsApp, connecting if need be; forget its credentials; report `Unlinked`.
    Unlink {
        /// The attempt under which it is reported.
        attempt: Attempt,
        /// How it connects, if it has to.
        setup: Box<Setup>,
    },
    /// Behave in another way from now on, and connect in another way the next time. Without a run, there is nothing to do.
    Configure {
        /// The new way.
        setup: Box<Setup>,
    },
    /// Forget the device's credentials.
    Forget,
}

/// How a session connects and behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Through which proxy; directly without one.
    pub proxy: Option<Proxy>,
    /// How it behaves towards chats.
    pub settings: Settings,
}

/// Something that an engine has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whose session it is about.
    pub org: OrgId,
    /// The session.
    pub session: SessionId,
    /// What happened.
    pub body: ReportBody,
}

/// What an engine can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportBody {
    /// Something for the lifecycle.
    Fact(EngineFact),
    /// A text came in.
    TextIn(IncomingText),
    /// Messages that were sent have come further on their way.
    Progress(Progress),
}

/// A text to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingText {
    /// The recipient's JID.
    pub to: String,
    /// The text.
    pub text: String,
    /// The id of a message that it answers.
    pub reply_to: Option<String>,
    /// JIDs of people who are mentioned.
    pub mentions: Vec<String>,
    /// Whether everybody in the group is mentioned.
    pub mention_all: bool,
    /// Whether links in the text get a preview.
    pub link_preview: bool,
}

/// What WhatsApp says of one phone number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberCheck {
    /// The number that was asked about.
    pub number: String,
    /// The account's JID; none if there is no such account.
    pub jid: Option<String>,
}

/// A text that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingText {
    /// WhatsApp's id of the message.
    pub id: String,
    /// The JID of the chat: the sender's, or the group's.
    pub from: String,
    /// Who wrote it, a JID, if the chat has more than one who might have.
    pub sender: Option<String>,
    /// What the sender calls themselves.
    pub name: Option<String>,
    /// When it was sent, as WhatsApp says.
    pub at: Timestamp,
    /// The text.
    pub text: String,
}

/// How far messages are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// WhatsApp's ids of the messages.
    pub messages: Vec<String>,
    /// The JID of the chat that they are in.
    pub chat: String,
    /// How far they are.
    pub stage: MessageStage,
}

/// A text that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// WhatsApp's id of the message.
    pub id: String,
    /// When it was accepted.
    pub at: Timestamp,
}

/// Why a text was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no such run, or it is not connected.
    #[error("live WhatsApp client is not available for this session")]
    NotConnected,
    /// WhatsApp refused the message.
    #[error("WhatsApp refused the message")]
    Refused,
    /// WhatsApp knows no such account or group.
    #[error("the recipient is not on WhatsApp")]
    UnknownRecipient,
    /// WhatsApp has limited what the account may send.
    #[error("WhatsApp limits what this account may send at the moment")]
    Limited,
    /// The message was handed over, and WhatsApp did not confirm it in time. It may arrive all the same.
    #[error("WhatsApp did not confirm the message in time; it may have been sent")]
    Unconfirmed,
}

#[cfg(test)]
#[cfg_attr(not(feature = "whatsapp"), allow(dead_code, reason = "the simulated engine needs little of it"))]
mod test;
