//! Amendments: every plugin is asked twice, and the record tells both rounds.

use portcullis_core::{
    Candidate, Decision, DecisionRecord, FailureFold, Operation, OperationKind, Patch, PluginFailure, PluginId,
    Verdict, why,
};
use portcullis_service::{BindingChange, Replay, Replayed};
use portcullis_testing::text::words;
use portcullis_testing::{DATA, Guest};
use serde_json::Value;

use crate::guests;
use crate::world::World;

const CHOICE: OperationKind = OperationKind::SessionRatePolicy;

/// A version of a plugin that has every session take this rate policy.
fn insisting(slug: &str) -> Vec<u8> {
    let length = u32::try_from(slug.len()).unwrap();
    Guest::gate(&words(&[3, 0, 2, DATA, length])).data(slug).named("insisting").build()
}

/// A version of the same plugin that leaves the choice alone.
fn content() -> Vec<u8> {
    Guest::allowing().named("insisting").build()
}

fn amended(slug: &str) -> Decision {
    Decision::Amend { patch: Patch::SessionRatePolicy { slug: slug.into() } }
}

/// Which policy the plugins of a round were asked about.
fn asked_about(input: Option<&String>) -> String {
    let input: Value = serde_json::from_str(input.unwrap()).unwrap();
    input["operation"]["detail"]["session-rate-policy"].as_str().unwrap().to_owned()
}

impl World {
    async fn last_decision(&self) -> DecisionRecord {
        self.decisions().await.remove(0)
    }

    async fn replay(&self, plugin: PluginId, version: Option<u32>) -> Replayed {
        let permit = self.permit(OperationKind::PluginReplay, None).await;
        self.service.replay_plugin(&permit, plugin, Replay { version, last: 10, ..Replay::default() }).await.unwrap()
    }
}

/// Of a decision with an amendment once only the second round was kept, in which nobody changes anything any more:
/// the record said neither what had been asked for nor who changed it.
#[tokio::test]
async fn a_decision_tells_what_was_asked_for_and_who_amended_it() {
    let world = World::new().await;
    let session = world.create().await;
    world.bind(insisting("strict"), vec![CHOICE], "{}").await;
    world.bind(guests::allowing(), vec![CHOICE], "{}").await;
    world.choose_policy(session, "standard_policy").await.unwrap();
    let record = world.last_decision().await;
    let first = record.first_round.as_ref().unwrap();
    assert_eq!(asked_about(first.input.as_ref()), "standard_policy");
    assert_eq!(asked_about(record.input.as_ref()), "strict");
    assert_eq!(first.answers[0].result, Ok(amended("strict")));
    assert_eq!((first.patches.len(), first.patches[0].plugin.as_str()), (1, "insisting"));
    assert!(matches!(&record.verdict, Verdict::Allowed(allowance) if allowance.patches.is_empty()));
    assert!(why(&record).contains(&"It was amended by insisting: the rate policy strict.".to_owned()));

    // Once nobody amends it there is one round.
    world.bind(guests::allowing(), vec![OperationKind::SessionQr], "{}").await;
    world.execute(Operation::SessionQr { session }).await.unwrap();
    assert_eq!(world.last_decision().await.first_round, None);
}

/// A dry run of an operation that would be amended said that it was allowed, and not that it would become another one;
/// and a candidate that amends nothing counted as one that answers the same, because it was compared in the second round only.
#[tokio::test]
async fn an_amendment_shows_in_dry_runs_and_in_the_comparison_with_a_candidate() {
    let world = World::new().await;
    let session = world.create().await;
    let binding = world.bind(insisting("strict"), vec![CHOICE], "{}").await;
    let choice = || Operation::SessionRatePolicy { session, slug: "standard_policy".to_owned() };
    let Ok(Verdict::Allowed(allowance)) = world.attempt(choice()).await else { panic!("not allowed") };
    assert_eq!(allowance.patches[0].patch, Patch::SessionRatePolicy { slug: "strict".into() });

    let candidate = Candidate { version: world.upload_version(content()).await, settings: None, percent: 0 };
    let tried = BindingChange { candidate: Some(Some(candidate)), ..BindingChange::default() };
    world.change_binding(binding, tried).await;
    world.execute(choice()).await.unwrap();
    let tally = world.binding(binding).await.tally.unwrap();
    assert_eq!((tally.asked, tally.diverged), (1, 1));
}

/// A plugin that fails over what is asked for, and not over what it becomes, was once never counted as failing.
#[tokio::test]
async fn failures_of_both_rounds_count() {
    let world = World::new().await;
    let session = world.create().await;
    let trapping = Guest::gate("unreachable").named("trapping").build();
    let failing = world.bind(trapping, vec![CHOICE], "{}").await;
    let lenient = BindingChange { on_failure: Some(FailureFold::Allow), ..BindingChange::default() };
    world.change_binding(failing, lenient).await;
    world.bind(insisting("strict"), vec![CHOICE], "{}").await;
    for _ in 0..10 {
        assert!(world.binding(failing).await.suspension.is_none());
        world.choose_policy(session, "standard_policy").await.unwrap();
    }
    assert!(world.binding(failing).await.suspension.is_some(), "ten operations are twenty failures");
    let first = world.last_decision().await.first_round.unwrap();
    assert_eq!(first.answers[0].result, Err(PluginFailure::Trap));
}

/// A replay once asked about the amended operation alone: a version that would amend otherwise, or not at all, looked as if it agreed.
#[tokio::test]
async fn a_replay_begins_with_what_was_asked_for() {
    let world = World::new().await;
    let session = world.create().await;
    let binding = world.bind(insisting("strict"), vec![CHOICE], "{}").await;
    let beside = world.bind(guests::allowing(), vec![CHOICE], "{}").await;
    world.choose_policy(session, "standard_policy").await.unwrap();
    let (insisting_one, quiet) = (world.plugin_of(binding), world.plugin_of(beside));
    let content = world.upload_version(content()).await;
    let other = world.upload_version(insisting("high_throughput")).await;

    let counts = |replayed: &Replayed| (replayed.asked, replayed.same, replayed.not_exact, replayed.changes.len());
    let check = async |plugin, version, expected: Option<Decision>| {
        let replayed = world.replay(plugin, version).await;
        let same = usize::from(expected.is_none());
        assert_eq!(counts(&replayed), (1, same, 0, 1 - same), "{:?}", replayed.changes);
        if let (Some(expected), Some(change)) = (expected, replayed.changes.first()) {
            assert_eq!((&change.before, &change.after), (&Some(Ok(amended("strict"))), &Ok(expected)));
        }
    };
    check(insisting_one, Some(1), None).await;
    check(quiet, None, None).await;
    check(insisting_one, Some(content), Some(Decision::Allow)).await;
    check(insisting_one, Some(other), Some(amended("high_throughput"))).await;
}
