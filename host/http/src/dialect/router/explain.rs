//! Decisions as people read them: data, and the *why* of it in sentences.

use portcullis_core::{
    Answer, BindingId, Decision, DecisionId, DecisionRecord, FailureFold, Mode, OperationKind, OrgId, PluginFailure,
    PluginId, PrincipalKind, SessionId, Timestamp, Verdict,
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
    /// The verdict in a sentence, then a sentence for each plugin.
    why: Vec<String>,
    answers: Vec<AnswerView<'a>>,
    /// Whether the plugins can be asked again with the same input.
    replayable: bool,
    /// What the plugins saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Open>")]
    input: Option<Value>,
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
        let input = record.input.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
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
            why: why(record),
            answers: record.answers.iter().map(AnswerView::of).collect(),
            replayable: input.is_some(),
            input,
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

/// What the answers of a chain fold to, in the words that all dialects share.
pub(crate) fn verdict(verdict: &Verdict) -> VerdictView {
    match verdict {
        Verdict::Allowed(allowance) => VerdictView::Allowed {
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
    #[schemars(with = "ModeOf")]
    mode: Mode,
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
            mode: answer.mode,
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
fn camel(record: Value) -> Value {
    let Value::Object(fields) = record else { return record };
    let renamed = |name: String| match name.split_once('_') {
        Some((first, rest)) => format!("{first}{}{}", rest[..1].to_ascii_uppercase(), &rest[1..]),
        None => name,
    };
    fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (renamed(name), value)).collect()
}

/// One sentence for the verdict, then one for each plugin.
fn why(record: &DecisionRecord) -> Vec<String> {
    let operation = record.operation.name();
    let first = match &record.verdict {
        Verdict::Allowed(_) => format!("{operation} was allowed."),
        Verdict::Denied { denials } => match denials.first() {
            // The words of a plugin are erased with the session that they were about.
            Some(veto) if veto.message.is_empty() => format!("{operation} was denied by {}.", veto.plugin),
            Some(veto) => format!("{operation} was denied by {}: {}", veto.plugin, sentence(&veto.message)),
            None => format!("{operation} was denied."),
        },
        Verdict::ConfirmationRequired { .. } => format!("{operation} waits for a confirmation."),
        Verdict::Deferred { until, reason, plugin, .. } => {
            format!(
                "{operation} was deferred by {plugin} until {} (ms since the epoch){}",
                until.as_millis(),
                if reason.is_empty() { ".".to_owned() } else { format!(": {}", sentence(reason)) }
            )
        }
    };
    std::iter::once(first).chain(record.answers.iter().map(why_answer)).collect()
}

fn why_answer(answer: &Answer) -> String {
    let who = format!("{} version {}", answer.plugin_name, answer.version);
    let said = match &answer.result {
        Ok(Decision::Allow) => "allowed it".to_owned(),
        Ok(Decision::Deny { code, message, .. }) => format!("denied it with {code}: {}", message.trim_end_matches('.')),
        Ok(Decision::Defer { until, .. }) => format!("deferred it until {} (ms since the epoch)", until.as_millis()),
        Ok(Decision::Amend { .. }) => "amended it".to_owned(),
        Ok(Decision::Confirm { .. }) => "asked for a confirmation".to_owned(),
        Ok(Decision::Limit { limits, .. }) => format!("bound it to {} limits", limits.len()),
        Ok(Decision::Extend { follow_ups }) => format!("allowed it with {} follow-ups", follow_ups.len()),
        Err(failure) => {
            let fold = match answer.on_failure {
                FailureFold::Deny => "denies",
                FailureFold::Allow => "allows",
            };
            format!("gave no answer ({failure}), which {fold} it")
        }
    };
    match answer.mode {
        Mode::Enforce => format!("{who} {said}."),
        Mode::Monitor | Mode::Off => format!("{who} {said}, which does not count because it only monitors."),
    }
}

fn sentence(text: &str) -> String {
    if text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}
