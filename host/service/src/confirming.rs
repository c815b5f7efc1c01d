//! Confirmations: a caller is asked back with a one-time token, and repeats the request with it.
//!
//! The token holds for exactly what was asked ([`Confirmation`] says for what), and is used up in the commit of the operation.
//! A token that does not count is not an error: policy is asked again, and the caller told why with the new question.

use std::borrow::Cow;
use std::time::Duration;

use portcullis_core::confirmation::{Given, Rejected};
use portcullis_core::verdict::Prompt;
use portcullis_core::{
    AuditOutcome, Binding, BindingId, Confirmation, Operation, PluginId, PluginVersion, Secret, Session, Timestamp,
    confirmation,
};
use portcullis_store::{Commit, Expectation, Quota, QuotaKind, Write};
use sha2::{Digest, Sha256};

use crate::ruling::{Case, Question, Ruling};
use crate::undecided::Unsettled;
use crate::{Service, ServiceError, mint};

/// What a token begins with.
const PREFIX: &str = "conf_";
/// The longest time that a caller gets, whatever a plugin says.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// How many questions may be open in an organisation.
const MOST_OPEN: u32 = 10_000;

/// A token that a caller gives, and what they typed.
#[derive(Debug, Clone)]
pub struct GivenToken {
    /// The token.
    pub token: Secret,
    /// What they typed, if anything.
    pub answer: Option<String>,
}

impl Service {
    /// The confirmation that a question comes with, if it counts.
    pub(crate) fn given(
        &self,
        question: &Question,
        case: &Case,
    ) -> Result<Result<Option<Given>, Rejected>, ServiceError> {
        let Some(given) = &question.confirmation else { return Ok(Ok(question.confirmed.clone())) };
        let hash = hash(&given.token);
        let Some(asked) = case.snapshot.confirmation(question.org, &hash)? else { return Ok(Err(Rejected::Unknown)) };
        let intent = case.session.as_ref().map(|session| &session.intent);
        let (session, digest) = (question.operation.session(), digest(&question.operation));
        let asker = &question.principal.kind;
        Ok(asked.take(asker, &digest, session, intent, given.answer.clone(), question.now).and_then(|given| {
            // Another version of a plugin may mean something else by the same words.
            let is_same = |asked: &confirmation::Question| {
                case.chain.iter().any(|link| link.binding.id == asked.binding && link.version.digest == asked.digest)
            };
            if given.questions.iter().all(is_same) { Ok(Some(given)) } else { Err(Rejected::Changed) }
        }))
    }

    /// Asks the caller back: the commit remembers what was asked, and the error says it.
    pub(crate) async fn ask_back(
        &self,
        question: &Question,
        mut commit: Commit,
        ruling: &Ruling,
        prompts: &[Prompt],
        session: Option<&Session>,
    ) -> Unsettled {
        let decision = commit.decision.as_ref().map(|record| record.id);
        let refused = AuditOutcome::Refused { code: "confirmation_required".to_owned() };
        commit.audit.push(question.audit(refused, decision, None));
        let token = Secret::new(format!("{PREFIX}{:032x}{:032x}", mint::random(), mint::random()));
        let latest = question.now.after(LONGEST);
        let expires = prompts.iter().map(|prompt| prompt.expires).min().map_or(latest, |at| at.min(latest));
        // What nobody is there to answer is not worth remembering.
        let answerable = question.errand.is_none() && question.due_since.is_none();
        if answerable {
            commit.writes.push(Write::PutConfirmation(Confirmation {
                hash: hash(&token),
                org: question.org,
                session: question.operation.session(),
                asker: question.principal.kind.clone(),
                operation: digest(&question.operation),
                intent: session.map(|session| session.intent.clone()),
                questions: ruling.questions.clone(),
                expires,
            }));
            commit.quotas.push(Quota { of: QuotaKind::Confirmations, max: MOST_OPEN });
        }
        self.end_errand(question, &mut commit);
        match self.write(commit, question.depth()).await {
            Ok(_) => {
                question.told.set();
                question.noted.set();
                ServiceError::ConfirmationRequired {
                    decision: question.decision,
                    prompts: prompts.to_vec(),
                    token: answerable.then_some(token),
                    rejected: ruling.rejected,
                }
                .into()
            }
            Err(error) => error.into(),
        }
    }
}

/// Uses a confirmation up in the commit of what it confirms.
pub(crate) fn use_up(question: &Question, ruling: &Ruling, commit: &mut Commit) {
    if let (Some(given), Some(_)) = (&question.confirmation, &ruling.given) {
        let hash = hash(&given.token);
        commit.expect.push(Expectation::Confirmation(hash));
        commit.writes.push(Write::RemoveConfirmation(hash));
    }
}

fn hash(token: &Secret) -> [u8; 32] {
    Sha256::digest(token.reveal().as_bytes()).into()
}

/// What an operation is, in one number: every field of it counts that somebody asked for.
fn digest(operation: &Operation) -> [u8; 32] {
    // Operations are made of strings, numbers, lists and maps with string keys, which always serialise.
    Sha256::digest(serde_json::to_vec(&*as_asked(operation)).unwrap_or_default()).into()
}

/// An operation without what is made up anew for every request: whoever repeats one could never confirm it otherwise.
fn as_asked(operation: &Operation) -> Cow<'_, Operation> {
    let never = Timestamp::default();
    Cow::Owned(match operation {
        Operation::PluginUpload(version) => {
            let plugin = PluginId::from_bytes([0; 16]);
            Operation::PluginUpload(Box::new(PluginVersion {
                plugin,
                uploaded_at: never,
                ..PluginVersion::clone(version)
            }))
        }
        Operation::BindingCreate(binding) => {
            let (id, binding) = (BindingId::from_bytes([0; 16]), Binding::clone(binding));
            Operation::BindingCreate(Box::new(Binding { id, created_at: never, updated_at: never, ..binding }))
        }
        // Its generation says only how often it was changed; what it is to be is in the other fields.
        Operation::BindingUpdate(binding) => {
            let binding = Binding { generation: 0, updated_at: never, ..Binding::clone(binding) };
            Operation::BindingUpdate(Box::new(binding))
        }
        _ => return Cow::Borrowed(operation),
    })
}
