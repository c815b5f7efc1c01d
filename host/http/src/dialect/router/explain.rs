//! Decisions as people read them: data, and the *why* of it in sentences.

use portcullis_core::{
    Answer, BindingId, DecisionId, DecisionRecord, FailureFold, FirstRound, Mode, OperationKind, OrgId, PluginFailure,
    PluginId, PrincipalKind, PublisherId, SessionId, Stop, Timestamp, Verdict, why,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::view::sha256;
use crate::openapi::schema::{ActorOf, DigestOf, FailureFoldOf, Id, Millis, ModeOf, Open, OperationOf};

/// One run of the policy chain, as it was recorded.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Decision")]
pub(super) struct DecisionView<'a> {
    #[schemars(with = "Id<DecisionId>")]
    id: DecisionId,
    #[schemars(with = "Id<OrgId>")]
    organization_id: OrgId,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<SessionId>>")]
    session_id: Option<SessionId>,
    #[schemars(with = "Millis")]
    at: Timestamp,
    #[schemars(with = "ActorOf")]
    actor: &'a PrincipalKind,
    #[schemars(with = "OperationOf")]
    operation: OperationKind,
    phase: Phase,
    /// Since when it was put off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Millis>")]
    due_since: Option<Timestamp>,
    verdict: VerdictView,
    /// How it ended: the word for the verdict, or `limited` or `refused` if the operation was not done although policy let it through.
    ended: &'static str,
    /// What it was refused with, if it was refused although policy let it through.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_with: Option<&'a str>,
    /// Who asked for what, how it ended, and what each plugin said, in sentences.
    why: Vec<String>,
    /// Every plugin's answer; after an amendment, to the operation as it was amended.
    answers: Vec<AnswerView<'a>>,
    /// The round before, if plugins amended the operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_round: Option<FirstRoundView<'a>>,
    /// Whether the plugins can be asked again with the same input.
    replayable: bool,
    /// What the plugins saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Open>")]
    input: Option<Value>,
}

/// What was asked about the operation as it was asked for, before plugins amended it. Of its answers only the amendments count.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "FirstRound")]
struct FirstRoundView<'a> {
    answers: Vec<AnswerView<'a>>,
    /// Who amended what, in the order in which it was applied.
    #[schemars(with = "Vec<Open>")]
    patches: Vec<Value>,
    /// What the plugins saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Open>")]
    input: Option<Value>,
}

impl<'a> FirstRoundView<'a> {
    fn of(round: &'a FirstRound) -> Self {
        Self {
            answers: round.answers.iter().map(AnswerView::of).collect(),
            patches: camels(&round.patches),
            input: parsed(round.input.as_deref()),
        }
    }
}

fn parsed(input: Option<&str>) -> Option<Value> {
    serde_json::from_str(input?).ok()
}

/// When policy was asked.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DecisionPhase")]
enum Phase {
    /// When somebody asked for the operation.
    Requested,
    /// When what had been put off was due.
    Due,
}

impl<'a> DecisionView<'a> {
    pub(super) fn of(record: &'a DecisionRecord) -> Self {
        let input = parsed(record.input.as_deref());
        let first_round = record.first_round.as_ref().map(FirstRoundView::of);
        Self {
            id: record.id,
            organization_id: record.org,
            session_id: record.session,
            at: record.at,
            actor: &record.actor,
            operation: record.operation,
            phase: if record.due_since.is_some() { Phase::Due } else { Phase::Requested },
            due_since: record.due_since,
            verdict: verdict(&record.verdict),
            ended: record.ending(),
            refused_with: match &record.stopped {
                Some(Stop::Refused { code }) => Some(code),
                Some(Stop::Limited { .. }) => Some("rate_limited"),
                None => None,
            },
            why: why(record),
            answers: record.answers.iter().map(AnswerView::of).collect(),
            replayable: input.is_some() && first_round.as_ref().is_none_or(|first| first.input.is_some()),
            input,
            first_round,
        }
    }
}

/// What the answers of a chain fold to. What is below its fields is in the words of the policy contract.
#[derive(Serialize, JsonSchema)]
#[serde(tag = "is", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[schemars(rename = "Verdict")]
pub(crate) enum VerdictView {
    /// Go on.
    Allowed {
        /// What would be amended first; only a dry run says it here.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[schemars(with = "Vec<Open>")]
        patches: Vec<Value>,
        /// Counters to check and count.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[schemars(with = "Vec<Open>")]
        limits: Vec<Value>,
        /// What is done besides.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[schemars(with = "Vec<Open>")]
        follow_ups: Vec<Value>,
    },
    /// Do not.
    Denied {
        /// Every denial, in the order of the chain.
        #[schemars(with = "Vec<Open>")]
        denials: Vec<Value>,
    },
    /// Go on once the caller has confirmed.
    ConfirmationRequired {
        /// Every question, in the order of the chain.
        #[schemars(with = "Vec<Open>")]
        prompts: Vec<Value>,
    },
    /// Not yet.
    Deferred {
        /// When.
        #[schemars(with = "Millis")]
        until: Timestamp,
        /// Why, in the words of the plugin.
        reason: String,
        /// The plugin's name.
        plugin: String,
    },
}

/// What a dry run says: the verdict, but for what a caller has to type, which the question itself tells if it is not to be a secret.
pub(crate) fn tried(of: &Verdict) -> VerdictView {
    let mut view = verdict(of);
    if let VerdictView::ConfirmationRequired { prompts } = &mut view {
        for prompt in prompts.iter_mut().filter_map(Value::as_object_mut) {
            let answer = prompt.remove("answer");
            prompt.insert("answerRequired".to_owned(), json!(answer.is_some()));
        }
    }
    view
}

/// What the answers of a chain fold to, in the words that all dialects share.
pub(crate) fn verdict(verdict: &Verdict) -> VerdictView {
    match verdict {
        Verdict::Allowed(allowance) => VerdictView::Allowed {
            patches: camels(&allowance.patches),
            limits: allowance.limits.iter().map(|limit| json!(limit)).collect(),
            follow_ups: camels(&allowance.follow_ups),
        },
        Verdict::Denied { denials } => VerdictView::Denied { denials: camels(denials) },
        Verdict::ConfirmationRequired { prompts } => VerdictView::ConfirmationRequired { prompts: camels(prompts) },
        Verdict::Deferred { until, reason, plugin, .. } => {
            VerdictView::Deferred { until: *until, reason: reason.clone(), plugin: plugin.clone() }
        }
    }
}

/// One plugin's answer: a decision, or the code of its failure.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PluginAnswer")]
struct AnswerView<'a> {
    /// Its place in the chain.
    position: u32,
    #[schemars(with = "Id<BindingId>")]
    binding: BindingId,
    #[schemars(with = "Id<PluginId>")]
    plugin: PluginId,
    /// The plugin's name.
    name: &'a str,
    version: u32,
    #[schemars(with = "DigestOf")]
    digest: String,
    /// Whose signature the version came with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id<PublisherId>>")]
    signer: Option<PublisherId>,
    #[schemars(with = "ModeOf")]
    mode: Mode,
    /// Whether it was only asked beside the version that decided.
    shadow: bool,
    #[schemars(with = "FailureFoldOf")]
    on_failure: FailureFold,
    /// Units of fuel used.
    fuel: u64,
    /// Microseconds of wall time used.
    micros: u64,
    /// The most bytes of linear memory held.
    memory_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Open>")]
    decision: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
}

impl<'a> AnswerView<'a> {
    fn of(answer: &'a Answer) -> Self {
        Self {
            position: answer.position,
            binding: answer.binding,
            plugin: answer.plugin,
            name: &answer.plugin_name,
            version: answer.version,
            digest: sha256(&answer.digest),
            signer: answer.signer,
            mode: answer.mode,
            shadow: answer.shadow,
            on_failure: answer.on_failure,
            fuel: answer.fuel,
            micros: answer.micros,
            memory_bytes: answer.memory,
            decision: answer.result.as_ref().ok().map(|decision| camel(json!(decision))),
            failure: answer.result.as_ref().err().map(|failure: &PluginFailure| failure.code()),
        }
    }
}

/// What only was to be tried.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DryRun")]
pub(crate) struct DryRunView {
    pub(crate) dry_run: bool,
    pub(crate) verdict: VerdictView,
}

fn camels(records: &[impl Serialize]) -> Vec<Value> {
    records.iter().map(|record| camel(json!(record))).collect()
}

/// The core's own form of a record with this dialect's names: `retry_after` becomes `retryAfter`, and what is unset is left out.
/// Only the record's own fields are renamed; what is below them may have keys of the caller's.
pub(super) fn camel(record: Value) -> Value {
    let Value::Object(fields) = record else { return record };
    let renamed = |name: String| match name.split_once('_') {
        Some((first, rest)) => format!("{first}{}{}", rest[..1].to_ascii_uppercase(), &rest[1..]),
        None => name,
    };
    fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (renamed(name), value)).collect()
}
