//! Asking policy: the chain's answers, the second round after an amendment, and the record of it all.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_core::confirmation::{self, Given, Rejected};
use portcullis_core::errand::MAX_DEPTH;
use portcullis_core::verdict::fold_confirmed;
use portcullis_core::verdict::{Allowance, Amendment, Veto};
use portcullis_core::{
    Answer, AuditEntry, AuditId, AuditOutcome, BindingId, DecisionId, DecisionRecord, ErrandId, FirstRound, FollowUp,
    Hook, KvAccess, Labels, MessageId, Operation, OperationKind, Org, OrgId, Permit, PluginFailure, Principal,
    PrincipalKind, RequestId, Session, SessionId, Timestamp, Verdict,
};
use portcullis_net::Outbound;
use portcullis_policy::{Ask, ChainRun, Confirmed, Link};
use portcullis_store::{Snapshot, TallyChange};

use crate::confirming::GivenToken;
use crate::observing::Told;
use crate::outcome::{Call, Caller, Noted};
use crate::reads::OrgReads;
use crate::replies::RequestKey;
use crate::turns::Turn;
use crate::{Service, ServiceError, chain, mint};

/// The code of the denial of an operation that its amendments did not settle.
const CODE_UNSETTLED: &str = "amendments_did_not_settle";
/// The code of the denial of an operation that a patch does not fit.
const CODE_UNFIT_PATCH: &str = "patch_does_not_fit";
/// The code of the denial of an operation that a follow-up does not fit.
const CODE_UNFIT_FOLLOW_UP: &str = "follow_up_does_not_fit";
/// The code of the denial of an operation whose follow-up is too far from any caller's operation.
const CODE_TOO_DEEP: &str = "request_too_deep";

/// For how long a request waits for plugins that are not at hand: longer than kept code takes to be read, and no longer than callers are patient.
const LOAD_PATIENCE: Duration = Duration::from_secs(5);

/// What is being asked, fixed once for all re-runs of one operation: its decision id and seed never change, and its time only if it waited.
pub(crate) struct Question {
    pub(crate) decision: DecisionId,
    pub(crate) now: Timestamp,
    pub(crate) seed: u64,
    pub(crate) request: Option<RequestId>,
    pub(crate) principal: Principal,
    pub(crate) org: OrgId,
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
    /// The component that is uploaded with it, if it is an upload.
    pub(crate) component: Option<Arc<Vec<u8>>>,
    /// The idempotency key that the commit which does it takes.
    pub(crate) claim: Option<Arc<RequestKey>>,
    /// Set with its line of the audit.
    pub(crate) noted: Noted,
    /// The confirmation that came with it, to be looked at.
    pub(crate) confirmation: Option<GivenToken>,
    /// What was confirmed when it was first asked for, if that is remembered.
    pub(crate) confirmed: Option<Given>,
    /// The errand that it carries out; the commit that ends it takes the errand out.
    pub(crate) errand: Option<ErrandId>,
    /// Whether observers are told how it ended by a commit that was made.
    pub(crate) told: Told,
    /// Its place in the line of those who wait for the same session, from when it had to wait until it is counted.
    pub(crate) turn: Mutex<Option<Turn>>,
}

impl Question {
    /// A question that nobody waits for.
    pub(crate) fn new(org: OrgId, principal: Principal, operation: Operation, now: Timestamp) -> Self {
        Self {
            decision: mint::id(DecisionId::new, now),
            now,
            seed: mint::seed(),
            request: None,
            principal,
            org,
            operation,
            due_since: None,
            dry_run: false,
            patience: now,
            caller: None,
            message: None,
            component: None,
            claim: None,
            noted: Noted::default(),
            confirmation: None,
            confirmed: None,
            errand: None,
            told: Told::default(),
            turn: Mutex::default(),
        }
    }

    /// What a caller asks.
    pub(crate) fn asked(permit: &Permit, operation: Operation, call: Call, now: Timestamp) -> Self {
        Self {
            request: call.request,
            dry_run: call.dry_run,
            caller: call.caller,
            confirmation: call.confirmation,
            claim: call.claim,
            noted: call.noted,
            ..Self::new(permit.target().org, permit.principal().clone(), operation, now)
        }
    }

    /// A line of the audit about it; `session` is the one that it makes.
    pub(crate) fn audit(
        &self,
        outcome: AuditOutcome,
        decision: Option<DecisionId>,
        session: Option<SessionId>,
    ) -> AuditEntry {
        AuditEntry {
            id: mint::id(AuditId::new, self.now),
            org: self.org,
            at: self.now,
            actor: self.principal.kind.clone(),
            request: self.request,
            operation: self.operation.kind(),
            session: session.or_else(|| self.operation.session()),
            subject: None,
            outcome,
            decision,
        }
    }

    /// How many plugin requests lie between it and a caller's operation.
    pub(crate) fn depth(&self) -> u8 {
        match self.principal.kind {
            PrincipalKind::Plugin { depth, .. } => depth,
            _ => 0,
        }
    }
}

/// A message that is remembered while it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Tracked {
    pub(crate) id: MessageId,
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
    /// By which webhooks and proxies are reached, if anything goes out at all.
    pub(crate) way_out: Option<Outbound>,
}

impl Case {
    /// The link of a binding of the chain.
    pub(crate) fn link_of(&self, binding: BindingId) -> Option<Link> {
        self.chain.iter().find(|link| link.binding.id == binding && !link.shadow).cloned()
    }
}

/// What policy says to one question in one case.
pub(crate) struct Ruling {
    pub(crate) verdict: Verdict,
    /// The operation with all amendments.
    pub(crate) operation: Operation,
    /// What plugins whose answers count have read and written, each under its binding.
    pub(crate) kv: Vec<(BindingId, KvAccess)>,
    /// The record; none if no plugin was asked.
    pub(crate) record: Option<DecisionRecord>,
    /// The confirmation with which it was asked, if one was given that counts.
    pub(crate) given: Option<Given>,
    /// Why the confirmation that was given does not count.
    pub(crate) rejected: Option<Rejected>,
    /// What plugins ask the caller back.
    pub(crate) questions: Vec<confirmation::Question>,
    /// How candidates answered beside what is bound.
    pub(crate) tallies: Vec<TallyChange>,
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
                given: None,
                rejected: None,
                questions: Vec::new(),
                tallies: Vec::new(),
            });
        }
        let (given, rejected) = match self.given(question, case)? {
            Ok(given) => (given, None),
            Err(rejected) => (None, Some(rejected)),
        };
        let first = self.ask(&links, question, case, question.operation.clone(), given.as_ref()).await;
        let verdict = fold_confirmed(&first.run.answers, answered(given.as_ref()));
        let (first, round, verdict) = match &verdict {
            Verdict::Allowed(allowance) | Verdict::Deferred { allowance, .. } if !allowance.patches.is_empty() => {
                self.second_round(&links, question, case, &allowance.patches, first, given.as_ref()).await
            }
            _ => (None, first, verdict),
        };
        let verdict = refuse_unfit(verdict, question);
        for answers in first.iter().map(|first| &first.answers).chain([&round.run.answers]) {
            self.count_failures(question.org, &links, answers).await;
        }
        let tallies = tallies(&links, first.as_ref().map_or(&[], |first| &first.answers), &round.run.answers);
        let record = record(question, first, &round, &verdict);
        Ok(Ruling {
            verdict,
            operation: round.operation,
            record: Some(record),
            given,
            rejected,
            questions: confirmation::Question::all_of(&round.run.answers),
            tallies,
            kv: round.run.kv,
        })
    }

    /// After an amendment every gate is asked again about the final operation, and only this round's answers stand.
    /// What is kept of the round before comes first; nothing if its patches do not fit, and so was the only one.
    async fn second_round(
        &self,
        links: &[Link],
        question: &Question,
        case: &Case,
        patches: &[Amendment],
        first: Round,
        given: Option<&Given>,
    ) -> (Option<FirstRound>, Round, Verdict) {
        let mut amended = question.operation.clone();
        for Amendment { plugin, patch } in patches {
            match patch.apply(&amended) {
                Some(next) => amended = next,
                None => {
                    let message = format!("the plugin {plugin} answered with a patch for another operation");
                    return (None, first, denied(plugin.clone(), CODE_UNFIT_PATCH, message));
                }
            }
        }
        let second = self.ask(links, question, case, amended.clone(), given).await;
        let verdict = fold_last(&second.run.answers, &amended, given);
        let (input, answers) = (first.run.input(), first.run.answers);
        (Some(FirstRound { input, answers, patches: patches.to_vec() }), second, verdict)
    }

    async fn ask(
        &self,
        links: &[Link],
        question: &Question,
        case: &Case,
        operation: Operation,
        given: Option<&Given>,
    ) -> Round {
        let confirmed = given.map(|given| Confirmed { at: given.at, answer: given.answer.clone() });
        let ask = Ask { confirmed, ..question.ask(case) };
        self.load_for_request(links, &case.snapshot).await;
        let reads = Arc::new(OrgReads {
            snapshot: Arc::clone(&case.snapshot),
            org: question.org,
            now: question.now,
            outbound: None,
        });
        let run = self.runtime.gate(links, &ask, &operation, reads).await;
        self.log(question.org, &run.logs);
        Round { operation, run }
    }

    /// Has the components of these links at hand, as far as a request can wait for that.
    /// What takes longer goes on without it, and answers as unavailable until it is there.
    pub(crate) async fn load_for_request(&self, links: &[Link], snapshot: &Arc<Snapshot>) {
        let loading = self.load(links, snapshot);
        if tokio::time::timeout(LOAD_PATIENCE, loading).await.is_err() {
            tracing::warn!(waited = ?LOAD_PATIENCE, "a plugin is still being made ready; nobody waits for it any longer");
        }
    }

    /// Has the components of these links at hand. One that cannot be loaded answers as unavailable when it is asked.
    pub(crate) async fn load(&self, links: &[Link], snapshot: &Arc<Snapshot>) {
        for link in links {
            let (owner, digest) = (link.binding.org, link.version.digest);
            let snapshot = Arc::clone(snapshot);
            let bytes = move || snapshot.component(owner, digest).ok().flatten();
            if let Err(error) = self.runtime.load(digest, link.version.class, bytes).await {
                let plugin = link.version.plugin;
                tracing::warn!(%plugin, error = &error as &dyn std::error::Error, "a plugin could not be loaded");
            }
        }
    }

    /// The links that are asked at `hook`.
    pub(crate) fn links(&self, hook: Hook, question: &Question, case: &Case) -> Vec<Link> {
        // Nobody is asked about the platform's own plugins: one that fails could not be taken away any more.
        let is_house_matter = question.org == OrgId::PLATFORM && question.operation.kind().is_about_plugins();
        if case.chain.is_empty() || is_house_matter {
            return Vec::new();
        }
        let none = Labels::new();
        let labels = match (&case.session, &question.operation) {
            (Some(session), _) => &session.labels,
            (None, Operation::SessionCreate(create)) => &create.labels,
            (None, _) => &none,
        };
        // What is about no session is dealt out anew for every decision.
        let session = question.operation.session();
        let id = session.map_or_else(|| question.decision.to_bytes(), |session| session.to_bytes());
        chain::asked(&case.chain, hook, question.operation.kind(), labels, id)
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

fn record(question: &Question, first_round: Option<FirstRound>, round: &Round, verdict: &Verdict) -> DecisionRecord {
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
        first_round,
        verdict: verdict.clone(),
        stopped: None,
    }
}

impl Ruling {
    /// The same ruling, had the plugins of these bindings failed in its last round: what they wanted besides is dropped,
    /// and what stands for their answers is folded anew.
    pub(crate) fn failing(&mut self, question: &Question, bindings: &[BindingId], failure: PluginFailure) {
        let Some(record) = &mut self.record else { return };
        for answer in record.answers.iter_mut().filter(|answer| !answer.shadow && bindings.contains(&answer.binding)) {
            answer.result = Err(failure);
        }
        self.kv.retain(|(binding, _)| !bindings.contains(binding));
        self.questions = confirmation::Question::all_of(&record.answers);
        self.verdict = refuse_unfit(fold_last(&record.answers, &self.operation, self.given.as_ref()), question);
        record.verdict.clone_from(&self.verdict);
    }
}

/// Folds the last round, whose patches must leave the operation as it is by now.
fn fold_last(answers: &[Answer], operation: &Operation, given: Option<&Given>) -> Verdict {
    let mut verdict = fold_confirmed(answers, answered(given));
    if let Verdict::Allowed(allowance) | Verdict::Deferred { allowance, .. } = &mut verdict {
        if let Some(veto) = unsettled(&allowance.patches, operation) {
            return veto;
        }
        allowance.patches.clear();
    }
    verdict
}

/// A patch of the second round that still changes something is a disagreement between plugins.
fn unsettled(patches: &[Amendment], amended: &Operation) -> Option<Verdict> {
    let still = patches.iter().find(|amendment| amendment.patch.apply(amended).as_ref() != Some(amended))?;
    let message = format!("the plugin {} keeps changing the operation", still.plugin);
    Some(denied(still.plugin.clone(), CODE_UNSETTLED, message))
}

/// Follow-ups that cannot be done deny the operation: doing it without them would not be what the plugin decided.
fn refuse_unfit(verdict: Verdict, question: &Question) -> Verdict {
    let (Verdict::Allowed(allowance) | Verdict::Deferred { allowance, .. }) = &verdict else { return verdict };
    let (kind, depth) = (question.operation.kind(), question.depth());
    let unfit = allowance.follow_ups.iter().find_map(|extension| match &extension.follow_up {
        FollowUp::LogOutFirst if !matches!(kind, OperationKind::SessionStop | OperationKind::SessionDelete) => {
            let why = format!(
                "the plugin {} wants to log out before an operation that is no stop or delete",
                extension.plugin
            );
            Some((extension.plugin.clone(), CODE_UNFIT_FOLLOW_UP, why))
        }
        FollowUp::Request { .. } if depth >= MAX_DEPTH => {
            let why =
                format!("the plugin {} asks for more after {MAX_DEPTH} requests of plugins in a row", extension.plugin);
            Some((extension.plugin.clone(), CODE_TOO_DEEP, why))
        }
        FollowUp::LogOutFirst
        | FollowUp::Request { .. }
        | FollowUp::EmitEvent { .. }
        | FollowUp::SetTimer { .. }
        | FollowUp::CancelTimer { .. }
        | FollowUp::SetLabel { .. }
        | FollowUp::RemoveLabel { .. }
        | FollowUp::SetRatePolicy { .. } => None,
    });
    match unfit {
        Some((plugin, code, why)) => denied(plugin, code, why),
        None => verdict,
    }
}

/// What was confirmed.
fn answered(given: Option<&Given>) -> &[confirmation::Question] {
    given.map_or(&[], |given| &given.questions)
}

/// How candidates compare with what is bound: one tally for each that was asked beside it. Who answers otherwise in either round diverges.
fn tallies(links: &[Link], first: &[Answer], last: &[Answer]) -> Vec<TallyChange> {
    let differ = |answers: &[Answer], binding: BindingId| {
        let answer = |shadow| answers.iter().find(|answer| answer.binding == binding && answer.shadow == shadow);
        Some(answer(true)?.result != answer(false)?.result)
    };
    let tally = |shadow: &Answer| {
        let diverged = differ(last, shadow.binding)? | differ(first, shadow.binding).unwrap_or(false);
        let link = links.iter().find(|link| link.binding.id == shadow.binding)?;
        let candidate_version = link.binding.candidate.as_ref()?.version;
        Some(TallyChange { binding: shadow.binding, candidate_version, diverged })
    };
    last.iter().filter(|answer| answer.shadow).filter_map(tally).collect()
}

fn denied(plugin: String, code: &str, message: String) -> Verdict {
    Verdict::Denied { denials: vec![Veto { plugin, code: code.to_owned(), message, retry_after: None, failure: None }] }
}
