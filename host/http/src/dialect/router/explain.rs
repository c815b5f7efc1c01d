//! Decisions as people read them: data, and the *why* of it in sentences.

use portcullis_core::{Answer, Decision, DecisionRecord, FailureFold, Mode, Verdict};
use serde_json::{Value, json};

use super::view::{hex, set};

pub(super) fn decision(record: &DecisionRecord) -> Value {
    let mut view = json!({
        "id": record.id,
        "organizationId": record.org,
        "at": record.at,
        "actor": record.actor,
        "operation": record.operation.name(),
        "phase": if record.due_since.is_some() { "due" } else { "requested" },
        "verdict": verdict(&record.verdict),
        "why": why(record),
        "answers": record.answers.iter().map(answer).collect::<Vec<_>>(),
    });
    set(&mut view, "sessionId", record.session);
    set(&mut view, "dueSince", record.due_since);
    let input = record.input.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    view["replayable"] = json!(input.is_some());
    set(&mut view, "input", input);
    view
}

pub(super) fn verdict(verdict: &Verdict) -> Value {
    let mut view = json!({ "is": verdict.name() });
    match verdict {
        Verdict::Allowed(allowance) => {
            if !allowance.limits.is_empty() {
                view["limits"] = json!(allowance.limits);
            }
            if !allowance.follow_ups.is_empty() {
                let extensions = allowance.follow_ups.iter().map(|extension| camel(json!(extension)));
                view["followUps"] = extensions.collect();
            }
        }
        Verdict::Denied { denials } => view["denials"] = denials.iter().map(|veto| camel(json!(veto))).collect(),
        Verdict::ConfirmationRequired { prompts } => {
            view["prompts"] = prompts.iter().map(|prompt| camel(json!(prompt))).collect();
        }
        Verdict::Deferred { until, reason, plugin, .. } => {
            view["until"] = json!(until);
            view["reason"] = json!(reason);
            view["plugin"] = json!(plugin);
        }
    }
    view
}

fn answer(answer: &Answer) -> Value {
    let mut view = json!({
        "position": answer.position,
        "binding": answer.binding,
        "plugin": answer.plugin,
        "name": answer.plugin_name,
        "version": answer.version,
        "digest": format!("sha256:{}", hex(&answer.digest)),
        "mode": answer.mode,
        "onFailure": answer.on_failure,
        "fuel": answer.fuel,
        "micros": answer.micros,
        "memoryBytes": answer.memory,
    });
    match &answer.result {
        Ok(decision) => view["decision"] = camel(json!(decision)),
        Err(failure) => view["failure"] = json!(failure.code()),
    }
    view
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
