//! Why: what a recorded decision says, in sentences that a person can check one by one.
//!
//! ```text
//! who asked for what, when ─▶ how it ended ─▶ who amended it ─▶ what each plugin said, in the order of the chain, and what of it counted
//! ```
//!
//! Every sentence rests on the record alone, so it says the same years later. What was erased with its session is left out, not made up.

use crate::audit::{DecisionRecord, Stop};
use crate::rate::Window;
use crate::verdict::{Amendment, CODE_CONFLICTING_PATCHES, Prompt, Veto};
use crate::{Answer, Decision, FailureFold, FollowUp, Mode, OrgId, Patch, Verdict};

/// The sentences, in the order in which they are read.
#[must_use]
pub fn why(record: &DecisionRecord) -> Vec<String> {
    let mut sentences = vec![asked(record), ended(record)];
    if let Verdict::Denied { denials } = &record.verdict {
        sentences.extend(denials.iter().skip(1).map(also_denied));
    }
    if let Some(first) = &record.first_round {
        let amended = |by: &Amendment| format!("It was amended by {}: {}.", by.plugin, patched(&by.patch));
        sentences.extend(first.patches.iter().map(amended));
        sentences.push("The plugins were first asked about the operation as it was asked for.".to_owned());
        sentences.extend(in_order(&first.answers).map(|answer| said(answer, &uncounted(answer))));
        sentences.push("Then they were asked about the amended operation, and only these answers count.".to_owned());
    }
    sentences.extend(in_order(&record.answers).map(|answer| said(answer, &counted(answer, record))));
    sentences
}

fn in_order(answers: &[Answer]) -> impl Iterator<Item = &Answer> {
    let mut answers: Vec<&Answer> = answers.iter().collect();
    answers.sort_by_key(|answer| (answer.position, answer.shadow));
    answers.into_iter()
}

fn asked(record: &DecisionRecord) -> String {
    let what = match record.session {
        Some(session) => format!("{} of {session}", record.operation.name()),
        None => record.operation.name().to_owned(),
    };
    match record.due_since {
        None => format!("{} asked for {what} at {}.", record.actor, record.at),
        Some(since) => format!("{what} was due at {}; it has been wanted since {since}.", record.at),
    }
}

fn ended(record: &DecisionRecord) -> String {
    match (&record.stopped, &record.verdict) {
        (Some(Stop::Limited { plugin, retry_millis }), _) => {
            let whose =
                plugin.as_ref().map_or_else(|| "the rate policy".to_owned(), |plugin| format!("a limit of {plugin}"));
            format!(
                "Policy let it through, but {whose} was used up: it was refused, and there is room in {}.",
                span(*retry_millis)
            )
        }
        (Some(Stop::Refused { code }), Verdict::Deferred { plugin, until, .. }) => {
            format!("{plugin} put it off until {until}, but it was refused ({code}).")
        }
        (Some(Stop::Refused { code }), _) => format!("Policy let it through, but it was refused ({code})."),
        (None, Verdict::Allowed(_)) => "It was allowed.".to_owned(),
        (None, Verdict::Denied { denials }) => match denials.first() {
            Some(first) => format!("It was denied by {}", veto(first)),
            None => "It was denied.".to_owned(),
        },
        (None, Verdict::ConfirmationRequired { prompts }) => {
            format!("It waits for the caller to confirm{}", questions(prompts))
        }
        (None, Verdict::Deferred { until, reason, plugin, .. }) => {
            format!("It was put off until {until} by {plugin}, which named the latest time{}", because(reason))
        }
    }
}

fn also_denied(denial: &Veto) -> String {
    format!("It was also denied by {}", veto(denial))
}

/// Who denied it and with which words; the end of a sentence.
fn veto(veto: &Veto) -> String {
    match veto.failure {
        Some(_) => format!("{} ({}), which gave no answer: its binding denies then.", veto.plugin, veto.code),
        None if veto.code == CODE_CONFLICTING_PATCHES => {
            format!("the gateway ({}){}", veto.code, because(&veto.message))
        }
        None => format!("{} ({}){}", veto.plugin, veto.code, because(&veto.message)),
    }
}

fn questions(prompts: &[Prompt]) -> String {
    let ask = |prompt: &Prompt| {
        let typed = if prompt.answer.is_some() { ", which takes a typed answer" } else { "" };
        match prompt.prompt.as_str() {
            "" => format!("{} asks{typed}", prompt.plugin),
            text => format!("{} asks {text:?}{typed}", prompt.plugin),
        }
    };
    let questions: Vec<_> = prompts.iter().map(ask).collect();
    if questions.is_empty() { ".".to_owned() } else { format!(": {}.", questions.join("; ")) }
}

/// What one plugin said, and the sentence after it on what of that counted.
fn said(answer: &Answer, counted: &str) -> String {
    let place = u64::from(answer.position) + 1;
    let digest: String = answer.digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let signed = answer.signer.map_or_else(|| "unsigned".to_owned(), |signer| format!("signed by {signer}"));
    let whose = if answer.owner == OrgId::PLATFORM { "of the platform" } else { "of the organisation" };
    let who =
        format!("{place}. {} version {} {whose} (sha256:{digest}…, {signed})", answer.plugin_name, answer.version);
    let words = match &answer.result {
        Ok(decision) => decided(decision),
        Err(failure) => {
            let fold = match answer.on_failure {
                FailureFold::Deny => "denies",
                FailureFold::Allow => "allows",
            };
            format!("gave no answer because {failure} ({}); its binding {fold} then", failure.code())
        }
    };
    format!("{who} {words}.{counted}")
}

fn decided(decision: &Decision) -> String {
    match decision {
        Decision::Allow => "allowed it".to_owned(),
        Decision::Deny { code, message, retry_after } => {
            let again = retry_after.map(|seconds| format!(" (ask again in {})", span(seconds.saturating_mul(1000))));
            format!("denied it with {code}{}: {}", again.unwrap_or_default(), bare(message))
        }
        Decision::Defer { until, reason } => format!("put it off until {until}: {}", bare(reason)),
        Decision::Amend { patch } => format!("amended it: {}", patched(patch)),
        Decision::Confirm { prompt, answer, expires } => {
            let typed = if answer.is_some() { " by a typed answer" } else { "" };
            format!("asked for a confirmation{typed} until {expires}: {}", bare(prompt))
        }
        Decision::Limit { limits, .. } => {
            let bounds: Vec<_> = limits.iter().map(|check| bounds(&check.counter, check.window, check.max)).collect();
            format!("allowed it within bounds: {}", bounds.join(" and "))
        }
        Decision::Extend { follow_ups } => {
            let names: Vec<_> = follow_ups.iter().map(follow_up).collect();
            format!("allowed it and asked for more: {}", names.join(", "))
        }
    }
}

fn not(why: &str) -> String {
    format!(" That did not count, because {why}.")
}

/// A second sentence where the answer could not count in any round.
fn uncounted(answer: &Answer) -> String {
    match (answer.shadow, answer.mode) {
        (true, _) => not("the version is only tried in the shadow of the one that decides"),
        (false, Mode::Enforce) => String::new(),
        (false, _) => not("the binding only monitors"),
    }
}

/// A second sentence where the answer is not what happened.
fn counted(answer: &Answer, record: &DecisionRecord) -> String {
    if answer.shadow || answer.mode != Mode::Enforce {
        return uncounted(answer);
    }
    match (&answer.result, &record.verdict) {
        (Ok(Decision::Allow | Decision::Deny { .. }) | Err(_), _) => String::new(),
        (Ok(_), Verdict::Denied { .. }) => not("a denial overrides it"),
        (Ok(Decision::Confirm { .. }), _) => String::new(),
        (Ok(_), Verdict::ConfirmationRequired { .. }) => not("the caller has to confirm first"),
        (Ok(Decision::Defer { until, .. }), Verdict::Deferred { until: latest, .. }) if until < latest => {
            not("another plugin named a later time")
        }
        (Ok(Decision::Defer { .. }), Verdict::Deferred { plugin, .. }) if *plugin != answer.plugin_name => {
            not("a plugin before it named the same time")
        }
        // What still changed something would have been denied.
        (Ok(Decision::Amend { .. }), _) if record.first_round.is_some() => " That changed nothing more.".to_owned(),
        (Ok(_), _) => String::new(),
    }
}

fn bounds(counter: &str, window: Window, max: u64) -> String {
    let window = match window {
        Window::Sliding(millis) => format!("in {}", span(millis)),
        Window::UtcDay => "in a day (UTC)".to_owned(),
    };
    format!("{counter} (at most {max} {window})")
}

fn patched(patch: &Patch) -> String {
    match patch {
        Patch::SessionCreate { display_name, set_labels, remove_labels, rate_policy } => {
            let mut parts: Vec<String> = display_name.iter().map(|_| "another display name".to_owned()).collect();
            parts.extend(set_labels.keys().map(|key| format!("the label {key} set")));
            parts.extend(remove_labels.iter().map(|key| format!("the label {key} taken out")));
            parts.extend(rate_policy.iter().map(|slug| format!("the rate policy {slug}")));
            parts.join(", ")
        }
        Patch::SessionLabels { set, remove } => {
            let mut parts: Vec<String> = set.keys().map(|key| format!("the label {key} set")).collect();
            parts.extend(remove.iter().map(|key| format!("the label {key} taken out")));
            parts.join(", ")
        }
        Patch::SessionRatePolicy { slug } => format!("the rate policy {slug}"),
        Patch::MessageSend { .. } => "another text".to_owned(),
    }
}

fn follow_up(follow_up: &FollowUp) -> String {
    match follow_up {
        FollowUp::LogOutFirst => "log out first".to_owned(),
        FollowUp::EmitEvent { name, .. } => format!("tell the event {name}"),
        FollowUp::SetTimer { key, at, .. } => format!("set the timer {key} to {at}"),
        FollowUp::CancelTimer { key } => format!("cancel the timer {key}"),
        FollowUp::SetLabel { key, .. } => format!("set the label {key}"),
        FollowUp::RemoveLabel { key } => format!("take the label {key} off"),
        FollowUp::SetRatePolicy { slug } => format!("choose the rate policy {slug}"),
        FollowUp::Request { operation } => format!("ask for {}", operation.kind().name()),
    }
}

/// The end of a sentence that may have a reason.
fn because(reason: &str) -> String {
    match bare(reason) {
        "" => ".".to_owned(),
        reason => format!(": {reason}."),
    }
}

/// Somebody else's sentence without its dot, to go into one of ours.
fn bare(text: &str) -> &str {
    text.trim().trim_end_matches('.')
}

/// A time that people can read: the largest unit that divides it, else seconds.
fn span(millis: u64) -> String {
    let (unit, of) = match millis {
        0..1000 => return format!("{millis} ms"),
        _ if millis.is_multiple_of(3_600_000) => ("h", 3_600_000),
        _ if millis.is_multiple_of(60_000) => ("min", 60_000),
        _ => ("s", 1000),
    };
    format!("{} {unit}", millis.div_ceil(of))
}

#[cfg(test)]
mod test;
