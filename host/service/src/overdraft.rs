//! Overdrafts: a plugin that wants to keep, to be woken for or to ask for more than it may.
//!
//! Only the writer knows how much a plugin has, so an overdraft shows when an operation is committed. It is the plugin's failure
//! and nobody else's: its binding's `onFailure` stands for its answer, and the operation is settled without what it wanted besides.

use portcullis_core::{Answer, BindingId, Decision, FollowUp, Hook, KvChange, PluginFailure, PluginId};
use portcullis_store::CommitError;

use crate::ruling::{Case, Question, Ruling};
use crate::{Service, ServiceError};

/// A plugin's quota that a commit would go beyond.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Overdraft {
    plugin: PluginId,
    of: Share,
}

/// What a plugin has a share of in each organisation.
#[derive(Debug, Clone, Copy)]
enum Share {
    Keys,
    Timers,
    Requests,
}

impl Overdraft {
    /// The overdraft for which a commit was refused.
    pub(crate) fn of(error: &CommitError) -> Option<Self> {
        match *error {
            CommitError::KvQuota { plugin } => Some(Self { plugin, of: Share::Keys }),
            CommitError::TimerQuota { plugin } => Some(Self { plugin, of: Share::Timers }),
            CommitError::RequestQuota { plugin } => Some(Self { plugin, of: Share::Requests }),
            _ => None,
        }
    }

    /// The bindings whose answers want more of it. A binding of the same plugin that wants none has not failed.
    fn at_fault(self, ruling: &Ruling) -> Vec<BindingId> {
        let keeps = |id: BindingId| {
            ruling.kv.iter().any(|(binding, access)| *binding == id && matches!(access.change, KvChange::Put { .. }))
        };
        let is_at_fault = |answer: &&Answer| {
            !answer.shadow
                && answer.plugin == self.plugin
                && match (self.of, &answer.result) {
                    (Share::Keys, Ok(_)) => keeps(answer.binding),
                    (Share::Timers, Ok(Decision::Extend { follow_ups })) => {
                        follow_ups.iter().any(|follow_up| matches!(follow_up, FollowUp::SetTimer { .. }))
                    }
                    (Share::Requests, Ok(Decision::Extend { follow_ups })) => {
                        follow_ups.iter().any(|follow_up| matches!(follow_up, FollowUp::Request { .. }))
                    }
                    _ => false,
                }
        };
        let answers = ruling.record.as_ref().map_or(&[][..], |record| &record.answers);
        answers.iter().filter(is_at_fault).map(|answer| answer.binding).collect()
    }
}

impl Service {
    /// Takes the answers that overdraw for failures. At least one answer fails each time, so a ruling is overdrawn
    /// no more often than it has answers.
    pub(crate) async fn overdrawn(
        &self,
        question: &Question,
        case: &Case,
        ruling: &mut Ruling,
        overdraft: Overdraft,
    ) -> Result<(), ServiceError> {
        let bindings = overdraft.at_fault(ruling);
        if bindings.is_empty() {
            return Err(ServiceError::Contention);
        }
        let (org, plugin, failure) = (question.org, overdraft.plugin, PluginFailure::Quota);
        tracing::error!(target: "plugin", %org, %plugin, "{failure}");
        let links = self.links(Hook::Gate, question, case);
        for link in links.iter().filter(|link| !link.shadow && bindings.contains(&link.binding.id)) {
            self.count_failure(org, link, failure).await;
        }
        ruling.failing(question, &bindings, failure);
        Ok(())
    }
}
