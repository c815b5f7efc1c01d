//! Folding: how the answers of a chain become one verdict.
//!
//! Deny overrides everything and all denials are reported.
//! Otherwise any confirmation asks, the latest deferral wins, limits and follow-ups add up, and patches apply in the order of the chain.
//! The verdict depends on the places of the plugins in the chain and never on the order in which they finished.

use serde::{Deserialize, Serialize};

use crate::confirmation::Question;
use crate::{
    Answer, BindingId, Decision, FailureFold, FollowUp, Labels, LimitCheck, Mode, Patch, PluginFailure, Timestamp,
};

/// The code of the denial that stands for two patches of one round that contradict each other.
pub const CODE_CONFLICTING_PATCHES: &str = "conflicting_patches";

/// The code of the denial that stands for two questions of one round that want different answers to be typed.
pub const CODE_CONFLICTING_QUESTIONS: &str = "conflicting_questions";

/// What a chain says, folded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Verdict {
    /// Go on.
    Allowed(Allowance),
    /// Do not.
    Denied {
        /// Every denial, in the order of the chain; the first is the one in the response. Never empty.
        denials: Vec<Veto>,
    },
    /// Go on once the caller has confirmed.
    ConfirmationRequired {
        /// Every confirmation that is asked, in the order of the chain. Never empty.
        prompts: Vec<Prompt>,
    },
    /// Not yet.
    Deferred {
        /// When; the latest that any plugin named.
        until: Timestamp,
        /// Why, in the words of the plugin that named it.
        reason: String,
        /// The plugin that named it.
        plugin: String,
        /// What else the chain asks for.
        allowance: Allowance,
    },
}

/// What goes with an operation that may go on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Allowance {
    /// Counters to check and count in the commit.
    pub limits: Vec<Limit>,
    /// Patches, in the order of the chain.
    pub patches: Vec<Amendment>,
    /// Follow-ups, in the order of the chain.
    pub follow_ups: Vec<Extension>,
}

/// One plugin's denial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Veto {
    /// The plugin's name.
    pub plugin: String,
    /// Its stable code.
    pub code: String,
    /// Its sentence.
    pub message: String,
    /// After how many seconds asking again may help.
    pub retry_after: Option<u64>,
    /// Set if the plugin failed and its binding denies then.
    pub failure: Option<PluginFailure>,
}

/// One plugin's question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// The plugin's name.
    pub plugin: String,
    /// What to ask.
    pub prompt: String,
    /// Until when it can be answered.
    pub expires: Timestamp,
    /// What has to be typed, if anything.
    pub answer: Option<String>,
}

/// One plugin's limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The plugin's name.
    pub plugin: String,
    /// The binding, under which the counter is kept.
    pub binding: BindingId,
    /// The counter.
    pub check: LimitCheck,
    /// The sentence for the caller whom it stops.
    pub message: String,
}

/// One plugin's patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amendment {
    /// The plugin's name.
    pub plugin: String,
    /// The patch.
    pub patch: Patch,
}

/// One plugin's follow-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// The plugin's name.
    pub plugin: String,
    /// The binding.
    pub binding: BindingId,
    /// The follow-up.
    pub follow_up: FollowUp,
}

impl Verdict {
    /// The stable word for the verdict.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Allowed(_) => "allowed",
            Self::Denied { .. } => "denied",
            Self::ConfirmationRequired { .. } => "confirmation-required",
            Self::Deferred { .. } => "deferred",
        }
    }
}

/// Folds the answers of one round, which may come in any order.
#[must_use]
pub fn fold(answers: &[Answer]) -> Verdict {
    fold_confirmed(answers, &[])
}

/// As [`fold`], once the caller has confirmed: these questions, asked again, count as `allow`.
#[must_use]
pub fn fold_confirmed(answers: &[Answer], confirmed: &[Question]) -> Verdict {
    let mut counted: Vec<&Answer> =
        answers.iter().filter(|answer| answer.mode == Mode::Enforce && !answer.shadow).collect();
    counted.sort_by_key(|answer| answer.position);

    let mut denials = Vec::new();
    let mut prompts = Vec::new();
    let mut deferral: Option<(Timestamp, String, String)> = None;
    let mut allowance = Allowance::default();
    for answer in counted {
        let plugin = || answer.plugin_name.clone();
        match &answer.result {
            Ok(Decision::Allow) => {}
            Ok(Decision::Deny { code, message, retry_after }) => denials.push(Veto {
                plugin: plugin(),
                code: code.clone(),
                message: message.clone(),
                retry_after: *retry_after,
                failure: None,
            }),
            Ok(Decision::Defer { until, reason }) => {
                if deferral.as_ref().is_none_or(|(latest, ..)| until > latest) {
                    deferral = Some((*until, reason.clone(), plugin()));
                }
            }
            Ok(Decision::Amend { patch }) => {
                allowance.patches.push(Amendment { plugin: plugin(), patch: patch.clone() });
            }
            Ok(Decision::Confirm { prompt, expires, answer: typed }) => {
                if !confirmed.contains(&Question::of(answer, prompt, typed.as_ref())) {
                    prompts.push(Prompt {
                        plugin: plugin(),
                        prompt: prompt.clone(),
                        expires: *expires,
                        answer: typed.clone(),
                    });
                }
            }
            Ok(Decision::Limit { limits, message }) => allowance.limits.extend(limits.iter().map(|check| Limit {
                plugin: plugin(),
                binding: answer.binding,
                check: check.clone(),
                message: message.clone(),
            })),
            Ok(Decision::Extend { follow_ups }) => {
                allowance.follow_ups.extend(follow_ups.iter().map(|follow_up| Extension {
                    plugin: plugin(),
                    binding: answer.binding,
                    follow_up: follow_up.clone(),
                }));
            }
            Err(failure) => match answer.on_failure {
                FailureFold::Allow => {}
                FailureFold::Deny => denials.push(Veto {
                    plugin: plugin(),
                    code: failure.code().to_owned(),
                    message: failure.to_string(),
                    retry_after: None,
                    failure: Some(*failure),
                }),
            },
        }
    }
    if let Some(conflict) = conflicting_patches(&allowance.patches) {
        denials.push(conflict);
    }
    if let Some(conflict) = conflicting_prompts(&prompts) {
        denials.push(conflict);
    }
    if !denials.is_empty() {
        return Verdict::Denied { denials };
    }
    if !prompts.is_empty() {
        return Verdict::ConfirmationRequired { prompts };
    }
    match deferral {
        Some((until, reason, plugin)) => Verdict::Deferred { until, reason, plugin, allowance },
        None => Verdict::Allowed(allowance),
    }
}

/// Nobody can type two answers at once.
fn conflicting_prompts(prompts: &[Prompt]) -> Option<Veto> {
    let mut typed = prompts.iter().filter(|prompt| prompt.answer.is_some());
    let first = typed.next()?;
    let other = typed.find(|prompt| prompt.answer != first.answer)?;
    Some(Veto {
        plugin: other.plugin.clone(),
        code: CODE_CONFLICTING_QUESTIONS.to_owned(),
        message: format!("the plugins {} and {} ask for different answers to be typed", first.plugin, other.plugin),
        retry_after: None,
        failure: None,
    })
}

/// Two patches of one round conflict if they set one field to two values.
fn conflicting_patches(patches: &[Amendment]) -> Option<Veto> {
    let contradict = |a: &Patch, b: &Patch| match (a, b) {
        (
            Patch::SessionCreate { display_name: n1, set_labels: s1, remove_labels: r1, rate_policy: p1 },
            Patch::SessionCreate { display_name: n2, set_labels: s2, remove_labels: r2, rate_policy: p2 },
        ) => differ(n1.as_ref(), n2.as_ref()) || differ(p1.as_ref(), p2.as_ref()) || labels_differ((s1, r1), (s2, r2)),
        (Patch::SessionLabels { set: s1, remove: r1 }, Patch::SessionLabels { set: s2, remove: r2 }) => {
            labels_differ((s1, r1), (s2, r2))
        }
        (Patch::SessionRatePolicy { slug: a }, Patch::SessionRatePolicy { slug: b }) => a != b,
        (Patch::MessageSend { text: a }, Patch::MessageSend { text: b }) => a != b,
        // Patches for different kinds cannot both fit the operation; applying them finds that out.
        _ => false,
    };
    for (index, first) in patches.iter().enumerate() {
        for second in &patches[index + 1..] {
            if contradict(&first.patch, &second.patch) {
                let message = format!(
                    "the plugins {} and {} change the same field to different values",
                    first.plugin, second.plugin
                );
                return Some(Veto {
                    plugin: second.plugin.clone(),
                    code: CODE_CONFLICTING_PATCHES.to_owned(),
                    message,
                    retry_after: None,
                    failure: None,
                });
            }
        }
    }
    None
}

/// Whether one of two changes of labels sets what the other sets to something else, or takes out.
fn labels_differ((s1, r1): (&Labels, &[String]), (s2, r2): (&Labels, &[String])) -> bool {
    s1.iter().any(|(key, value)| differ(Some(value), s2.get(key)) || r2.contains(key))
        || s2.keys().any(|key| r1.contains(key))
}

fn differ<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a != b)
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;
    use crate::{OrgId, PluginId};

    fn answer(position: u32, mode: Mode, on_failure: FailureFold, result: Result<Decision, PluginFailure>) -> Answer {
        Answer {
            position,
            binding: BindingId::from_bytes([1; 16]),
            owner: OrgId::from_bytes([1; 16]),
            plugin: PluginId::from_bytes([1; 16]),
            plugin_name: format!("p{position}"),
            version: 1,
            digest: [0; 32],
            signer: None,
            mode,
            shadow: false,
            on_failure,
            result,
            fuel: 0,
            micros: 0,
            memory: 0,
        }
    }

    fn enforced(position: u32, decision: Decision) -> Answer {
        answer(position, Mode::Enforce, FailureFold::Deny, Ok(decision))
    }

    fn deny(code: &str) -> Decision {
        Decision::Deny { code: code.into(), message: "no".into(), retry_after: None }
    }

    fn defer(millis: u64) -> Decision {
        Decision::Defer { until: Timestamp::from_millis(millis), reason: format!("{millis}") }
    }

    #[test]
    fn deny_overrides_and_all_denials_are_reported_in_order_of_the_chain() {
        let verdict = fold(&[enforced(2, deny("b")), enforced(0, defer(5)), enforced(1, deny("a"))]);
        let Verdict::Denied { denials } = verdict else { panic!("not denied: {verdict:?}") };
        assert_eq!(denials.iter().map(|veto| veto.code.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn the_latest_deferral_wins() {
        let verdict = fold(&[enforced(0, defer(5)), enforced(1, defer(9)), enforced(2, defer(7))]);
        assert!(
            matches!(verdict, Verdict::Deferred { until, ref plugin, .. } if until == Timestamp::from_millis(9) && plugin == "p1")
        );
    }

    #[test]
    fn a_monitoring_plugin_changes_nothing() {
        let verdict = fold(&[answer(0, Mode::Monitor, FailureFold::Deny, Ok(deny("a")))]);
        assert_eq!(verdict, Verdict::Allowed(Allowance::default()));
    }

    #[test]
    fn a_failure_folds_as_its_binding_says() {
        let failed = |fold_to| answer(0, Mode::Enforce, fold_to, Err(PluginFailure::Fuel));
        assert_eq!(fold(&[failed(FailureFold::Allow)]), Verdict::Allowed(Allowance::default()));
        let Verdict::Denied { denials } = fold(&[failed(FailureFold::Deny)]) else { panic!("not denied") };
        assert_eq!((denials[0].code.as_str(), denials[0].failure), ("plugin_fuel", Some(PluginFailure::Fuel)));
    }

    #[test]
    fn conflicting_patches_are_a_denial_that_names_the_plugins() {
        let slug = |slug: &str| Decision::Amend { patch: Patch::SessionRatePolicy { slug: slug.into() } };
        let Verdict::Denied { denials } = fold(&[enforced(0, slug("a")), enforced(1, slug("b"))]) else {
            panic!("not denied")
        };
        assert_eq!(denials[0].code, CODE_CONFLICTING_PATCHES);
        assert!(denials[0].message.contains("p0") && denials[0].message.contains("p1"));
        assert!(matches!(fold(&[enforced(0, slug("a")), enforced(1, slug("a"))]), Verdict::Allowed(_)));
    }

    fn any_decision() -> impl Strategy<Value = Decision> {
        prop_oneof![
            Just(Decision::Allow),
            "[a-c]".prop_map(|code| deny(&code)),
            (0u64..5).prop_map(defer),
            "[a-b]".prop_map(|slug| Decision::Amend { patch: Patch::SessionRatePolicy { slug } }),
            "[a-b]".prop_map(|value| Decision::Amend {
                patch: Patch::SessionLabels { set: Labels::from([("k".into(), value)]), remove: vec![] }
            }),
            Just(Decision::Confirm { prompt: "sure?".into(), expires: Timestamp::from_millis(1), answer: None }),
            Just(Decision::Extend { follow_ups: vec![FollowUp::LogOutFirst] }),
        ]
    }

    fn any_answer() -> impl Strategy<Value = (Mode, FailureFold, Result<Decision, PluginFailure>)> {
        (
            prop_oneof![4 => Just(Mode::Enforce), 1 => Just(Mode::Monitor)],
            prop_oneof![Just(FailureFold::Deny), Just(FailureFold::Allow)],
            prop_oneof![6 => any_decision().prop_map(Ok), 1 => Just(Err(PluginFailure::Trap))],
        )
    }

    proptest! {
        #[test]
        fn the_order_of_completion_never_matters(
            (chain, shuffled) in prop::collection::vec(any_answer(), 0..8).prop_flat_map(|answers| {
                let chain: Vec<_> = (0..).zip(answers).map(|(i, (mode, on_failure, result))| answer(i, mode, on_failure, result)).collect();
                (Just(chain.clone()), Just(chain).prop_shuffle())
            })
        ) {
            prop_assert_eq!(fold(&chain), fold(&shuffled));
        }

        #[test]
        fn a_denial_anywhere_is_a_denial(answers in prop::collection::vec(any_answer(), 0..6), at in 0u32..6) {
            let mut chain: Vec<_> = (0..).zip(answers).map(|(i, (mode, on_failure, result))| answer(i * 2, mode, on_failure, result)).collect();
            chain.push(enforced(at * 2 + 1, deny("x")));
            prop_assert!(matches!(fold(&chain), Verdict::Denied { .. }), "a denial was lost");
        }
    }
}
