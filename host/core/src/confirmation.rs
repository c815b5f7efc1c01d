//! Confirmations: what a caller has been asked, kept until they answer.

use serde::{Deserialize, Serialize};

use crate::{Answer, BindingId, Decision, Intent, Mode, OrgId, PrincipalKind, SessionId, Timestamp};

/// One question to a caller, who answers it by repeating the request with the token.
///
/// It holds for exactly what was asked: who asked, what for, which plugins asked back and what was wanted of the session then.
/// A move of the session's status alone does not void it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// In whose organisation.
    pub org: OrgId,
    /// The session that the operation is about; the confirmation goes with it.
    pub session: Option<SessionId>,
    /// Who asked.
    pub asker: PrincipalKind,
    /// SHA-256 of the operation that was asked for.
    pub operation: [u8; 32],
    /// What was wanted of the session.
    pub intent: Option<Intent>,
    /// Every question, in the order of the chain. Never empty.
    pub questions: Vec<Question>,
    /// Until when it can be answered: the earliest end of the questions.
    pub expires: Timestamp,
}

/// A confirmation that was given: what was asked, and what was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// When.
    pub at: Timestamp,
    /// What the caller typed, if anything.
    pub answer: Option<String>,
    /// What they were asked. Never empty.
    pub questions: Vec<Question>,
}

/// Why a confirmation that was given does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Nobody was asked under this token, or it has been used.
    #[error("the token is not known, or has been used")]
    Unknown,
    /// The time to answer has passed.
    #[error("the token has expired")]
    Expired,
    /// The token is for another request, another caller or another session.
    #[error("the token is for another request")]
    OtherRequest,
    /// Somebody wanted something else of the session meanwhile, or another version of the plugin asks now.
    #[error("what was to be confirmed has changed since")]
    Changed,
    /// Something else was to be typed.
    #[error("the answer is not what was to be typed")]
    WrongAnswer,
}

impl Rejected {
    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Unknown => "confirmation_unknown",
            Self::Expired => "confirmation_expired",
            Self::OtherRequest => "confirmation_of_another_request",
            Self::Changed => "confirmation_outdated",
            Self::WrongAnswer => "confirmation_wrong_answer",
        }
    }
}

impl Confirmation {
    /// Whether `answer`, given `now` by `asker` for this operation on a session of which `intent` is wanted, confirms.
    ///
    /// # Errors
    /// Why it does not.
    pub fn take(
        self,
        asker: &PrincipalKind,
        operation: &[u8; 32],
        session: Option<SessionId>,
        intent: Option<&Intent>,
        answer: Option<String>,
        now: Timestamp,
    ) -> Result<Given, Rejected> {
        if self.expires <= now {
            return Err(Rejected::Expired);
        }
        if self.asker != *asker || self.operation != *operation || self.session != session {
            return Err(Rejected::OtherRequest);
        }
        if self.intent.as_ref() != intent {
            return Err(Rejected::Changed);
        }
        let typed = answer.as_deref().map(str::trim);
        if self.questions.iter().any(|question| question.answer.is_some() && question.answer.as_deref() != typed) {
            return Err(Rejected::WrongAnswer);
        }
        Ok(Given { at: now, answer, questions: self.questions })
    }
}

/// What one plugin asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The binding through which it asked.
    pub binding: BindingId,
    /// SHA-256 of its component.
    pub digest: [u8; 32],
    /// What it asked.
    pub prompt: String,
    /// What has to be typed, if anything.
    pub answer: Option<String>,
}

impl Question {
    /// What a plugin asked with this answer of its own.
    #[must_use]
    pub fn of(asking: &Answer, prompt: &str, answer: Option<&String>) -> Self {
        Self { binding: asking.binding, digest: asking.digest, prompt: prompt.to_owned(), answer: answer.cloned() }
    }

    /// Every question of a round that counts, in the order of the chain.
    #[must_use]
    pub fn all_of(answers: &[Answer]) -> Vec<Self> {
        let mut asking: Vec<&Answer> =
            answers.iter().filter(|answer| answer.mode == Mode::Enforce && !answer.shadow).collect();
        asking.sort_by_key(|answer| answer.position);
        let question = |answer: &Answer| match &answer.result {
            Ok(Decision::Confirm { prompt, answer: typed, .. }) => Some(Self::of(answer, prompt, typed.as_ref())),
            _ => None,
        };
        asking.into_iter().filter_map(question).collect()
    }
}
