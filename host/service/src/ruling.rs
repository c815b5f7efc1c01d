//! Asking policy: the chain's answers, the second round after an amendment, and the record of it all.

use std::sync::{Arc, Mutex};

use portcullis_core::verdict::{Allowance, Amendment, Veto};
use portcullis_core::{
    BindingId, DecisionId, DecisionRecord, DeliveryId, FollowUp, Hook, KvAccess, Labels, Operation, Org, PluginId,
    Principal, RequestId, Session, Timestamp, Verdict, fold,
};
use portcullis_policy::{Ask, ChainRun, Link};
use portcullis_store::Snapshot;

use crate::execute::Caller;
use crate::reads::OrgReads;
use crate::turns::Turn;
use crate::{Service, ServiceError, chain};

/// The code of the denial of an operation that its amendments did not settle.
const CODE_UNSETTLED: &str = "amendments_did_not_settle";
/// The code of the denial of an operation that a patch does not fit.
const CODE_UNFIT_PATCH: &str = "patch_does_not_fit";
/// The code of the denial of an operation with a follow-up that this version of the host does not do.
const CODE_UNSUPPORTED_FOLLOW_UP: &str = "follow_up_unsupported";

/// What is being asked, fixed once for all re-runs of one operation: its decision id and seed never change, and its time only if it waited.
pub(crate) struct Question {
    pub(crate) decision: DecisionId,
    pub(crate) now: Timestamp,
    pub(crate) seed: u64,
    pub(crate) request: Option<RequestId>,
    pub(crate) principal: Principal,
    pub(crate) org: portcullis_core::OrgId,
    pub(crate) operation: Operation,
    /// Set if the operation was deferred and is due: since when it has been wanted.
    pub(crate) due_since: Option<Timestamp>,
    pub(crate) dry_run: bool,
    /// Until when the asker waits for a rate limit; a time that is not after `now` means not at all.
    pub(crate) patience: Timestamp,
    /// Who waits for the answer; none if nobody does. An asker who is gone is not waited for any more.
    pub(crate) caller: Option<Caller>,
    /// The message that it carries out, if that is remembered.
    pub(crate) message: Option<Tracked>,
    /// Its place in the line of those who wait for the same session, from when it had to wait until it is counted.
    pub(crate) turn: Mutex<Option<Turn>>,
}

/// A message that is remembered while it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Tracked {
    pub(crate) id: DeliveryId,
    /// The caller's idempotency key, which is taken with the message.
    pub(crate) key: Option<String>,
    /// When it was queued, if it was; it is a row already then.
    pub(crate) queued_at: Option<Timestamp>,
}

/// Everything that a decision is made on, read at one point in time.
pub(crate) struct Case {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) org: Arc<Org>,
    pub(crate) session: Option<Arc<Session>>,
    /// The bindings that work for the organisation, as of the snapshot or later.
    pub(crate) chain: Arc<Vec<Link>>,
}

impl Case {
    /// The plugin of a binding of the chain.
    pub(crate) fn plugin_of(&self, binding: BindingId) -> Option<PluginId> {
        self.chain.iter().find(|link| link.binding.id == binding).map(|link| link.binding.plugin)
    }
}

/// What policy says to one question in one case.
pub(crate) struct Ruling {
    pub(crate) verdict: Verdict,
    /// The operation with all amendments.
    pub(crate) operation: Operation,
    /// What plugins whose answers count have read and written.
    pub(crate) kv: Vec<KvAccess>,
    /// The record; none if no plugin was asked.
    pub(crate) record: Option<DecisionRecord>,
}

impl Service {
    /// Asks the chain.
    pub(crate) async fn rule(&self, question: &Question, case: &Case) -> Result<Ruling, ServiceError> {
        let links = self.links(Hook::Gate, question, case);
        if links.is_empty() {
            return Ok(Ruling {
                verdict: Verdict::Allowed(Allowance::default()),
                operation: question.operation.clone(),
                kv: Vec::new(),
                record: None,
            });
        }
        let first = self.ask(&links, question, case, question.operation.clone()).await;
        let verdict = fold(&first.run.answers);
        let (round, verdict) = match &verdict {
            Verdict::Allowed(allowance) | Verdict::Deferred { allowance, .. } if !allowance.patches.is_empty() => {
                self.second_round(&links, question, case, &allowance.patches, first).await
            }
            _ => (first, verdict),
        };
        let verdict = refuse_unsupported(verdict);
        let record = record(question, &round, &verdict);
        Ok(Ruling { verdict, operation: round.operation, kv: round.run.kv, record: Some(record) })
    }

    /// After an amendment every gate is asked again about the final operation, and only this round's answers stand.
    async fn second_round(
        &self,
        links: &[Link],
        question: &Question,
        case: &Case,
        patches: &[Amendment],
        first: Round,
    ) -> (Round, Verdict) {
        let mut amended = question.operation.clone();
        for Amendment { plugin, patch } in patches {
            match patch.apply(&amended) {
                Some(next) => amended = next,
                None => {
                    let message = format!("the plugin {plugin} answered with a patch for another operation");
                    return (first, denied(plugin.clone(), CODE_UNFIT_PATCH, message));
                }
            }
        }
        let second = self.ask(links, question, case, amended.clone()).await;
        let verdict = match fold(&second.run.answers) {
            Verdict::Allowed(mut allowance) => match unsettled(&allowance.patches, &amended) {
                Some(veto) => veto,
                None => {
                    allowance.patches.clear();
                    Verdict::Allowed(allowance)
                }
            },
            Verdict::Deferred { until, reason, plugin, mut allowance } => {
                match unsettled(&allowance.patches, &amended) {
                    Some(veto) => veto,
                    None => {
                        allowance.patches.clear();
                        Verdict::Deferred { until, reason, plugin, allowance }
                    }
                }
            }
            other => other,
        };
        (second, verdict)
    }

    async fn ask(&self, links: &[Link], question: &Question, case: &Case, operation: Operation) -> Round {
        let ask = question.ask(case);
        self.load(links, &case.snapshot).await;
        let reads = Arc::new(OrgReads { snapshot: Arc::clone(&case.snapshot), org: question.org, now: question.now });
        let run = self.runtime.gate(links, &ask, &operation, reads).await;
        crate::follow::log(question.org, &run.logs);
        Round { operation, run }
    }

    /// Has the components of these links at hand. One that cannot be loaded answers as unavailable when it is asked.
    pub(crate) async fn load(&self, links: &[Link], snapshot: &Arc<Snapshot>) {
        for link in links {
            let (owner, digest) = (link.binding.org, link.version.digest);
            let snapshot = Arc::clone(snapshot);
            let bytes = move || snapshot.component(owner, digest).ok().flatten();
            if let Err(error) = self.runtime.load(digest, bytes).await {
                let plugin = link.version.plugin;
                tracing::warn!(%plugin, error = &error as &dyn std::error::Error, "a plugin could not be loaded");
            }
        }
    }

    /// The links that are asked at `hook`.
    pub(crate) fn links(&self, hook: Hook, question: &Question, case: &Case) -> Vec<Link> {
        if case.chain.is_empty() {
            return Vec::new();
        }
        let none = Labels::new();
        let labels = match (&case.session, &question.operation) {
            (Some(session), _) => &session.labels,
            (None, Operation::SessionCreate(create)) => &create.labels,
            (None, _) => &none,
        };
        chain::asked(&case.chain, hook, question.operation.kind(), labels)
    }
}

impl Question {
    /// What plugins are shown.
    pub(crate) fn ask(&self, case: &Case) -> Ask {
        Ask {
            decision: self.decision,
            now: self.now,
            seed: self.seed,
            due_since: self.due_since,
            confirmed: None,
            principal: self.principal.clone(),
            org: Arc::clone(&case.org),
            session: case.session.clone(),
            dry_run: self.dry_run,
        }
    }
}

/// One asking of the whole chain.
struct Round {
    operation: Operation,
    run: ChainRun,
}

fn record(question: &Question, round: &Round, verdict: &Verdict) -> DecisionRecord {
    DecisionRecord {
        id: question.decision,
        org: question.org,
        session: question.operation.session(),
        at: question.now,
        seed: question.seed,
        actor: question.principal.kind.clone(),
        operation: question.operation.kind(),
        due_since: question.due_since,
        input: round.run.input(),
        answers: round.run.answers.clone(),
        verdict: verdict.clone(),
    }
}

/// A patch of the second round that still changes something is a disagreement between plugins.
fn unsettled(patches: &[Amendment], amended: &Operation) -> Option<Verdict> {
    let still = patches.iter().find(|amendment| amendment.patch.apply(amended).as_ref() != Some(amended))?;
    let message = format!("the plugin {} keeps changing the operation", still.plugin);
    Some(denied(still.plugin.clone(), CODE_UNSETTLED, message))
}

/// Follow-ups that this version of the host cannot do deny the operation: doing it without them would not be what the plugin decided.
fn refuse_unsupported(verdict: Verdict) -> Verdict {
    let (Verdict::Allowed(allowance) | Verdict::Deferred { allowance, .. }) = &verdict else { return verdict };
    let unsupported = allowance.follow_ups.iter().find_map(|extension| match &extension.follow_up {
        FollowUp::LogOutFirst => Some((extension.plugin.clone(), "log-out-first")),
        FollowUp::Request { .. } => Some((extension.plugin.clone(), "request")),
        FollowUp::EmitEvent { .. }
        | FollowUp::SetTimer { .. }
        | FollowUp::CancelTimer { .. }
        | FollowUp::SetLabel { .. }
        | FollowUp::RemoveLabel { .. }
        | FollowUp::SetRatePolicy { .. } => None,
    });
    match unsupported {
        Some((plugin, follow_up)) => {
            let message =
                format!("the plugin {plugin} asks for the follow-up {follow_up}, which this gateway cannot do yet");
            denied(plugin, CODE_UNSUPPORTED_FOLLOW_UP, message)
        }
        None => verdict,
    }
}

fn denied(plugin: String, code: &str, message: String) -> Verdict {
    Verdict::Denied { denials: vec![Veto { plugin, code: code.to_owned(), message, retry_after: None, failure: None }] }
}
