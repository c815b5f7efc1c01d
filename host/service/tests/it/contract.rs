//! The rest of the contract at the service's boundary: logging out first, events that are told, operations that plugins ask for,
//! suspension, roll-outs, and how long decisions and paces are kept.

use std::time::Duration;

use portcullis_core::operation::WhenUnpaired;
use portcullis_core::{
    AuditEntry, AuditOutcome, Candidate, Capability, EventBody, FailureFold, Grant, Operation, OperationKind, OrgId,
    OutboxPlace, Principal, PrincipalKind, SessionId,
};
use portcullis_service::{BindingChange, Call, Done, ServiceError};
use portcullis_store::PlacedEvent;
use portcullis_testing::text::words;
use portcullis_testing::{ANSWER, DATA, Guest};
use serde_json::{Value, json};

use crate::guests;
use crate::world::{CHURN, START, World};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Where a list of follow-ups lies.
const LIST: u32 = 1024;

/// A gate that answers `extend` with one follow-up, of which these are the words; the first is its case.
fn extending(follow_up: &[u32]) -> Vec<u8> {
    let store = |(index, word): (usize, &u32)| {
        format!("(i32.store offset={} (i32.const {LIST}) (i32.const {word}))", index * 4)
    };
    let stores: String = follow_up.iter().enumerate().map(store).collect();
    Guest::gate(&format!("{stores} {}", words(&[6, 0, LIST, 1]))).data("no").named("extending").build()
}

/// Two versions of one plugin, which answers always the same.
fn versioned(answer: &[u32]) -> Vec<u8> {
    Guest::gate(&words(answer)).data("no").named("versioned").build()
}

fn allowing() -> Vec<u8> {
    versioned(&[0])
}

/// Denies with the code and the message `no`.
fn denying() -> Vec<u8> {
    versioned(&[1, 0, DATA, 2, DATA, 2])
}

/// Traps whenever it is asked.
fn trapping() -> Vec<u8> {
    Guest::gate("unreachable").named("trapping").build()
}

/// Sets limits that hold for a minute, and counts in `kv` how often it was asked; the count is in the limit of sends per minute.
fn pacing(per_minute: u32, valid_until: u64) -> Vec<u8> {
    // option<pacing>: some, then eight numbers, then the time.
    let answer = format!(
        "(i32.store8 (i32.const {ANSWER}) (i32.const 1))
         (i32.store offset=8 (i32.const {ANSWER}) (i32.const {per_minute}))
         (i64.store offset=40 (i32.const {ANSWER}) (i64.const {valid_until}))
         i32.const {ANSWER}"
    );
    let limits = format!("(func (export \"portcullis:policy/pace@0.1.0#limits\") (param i32) (result i32) {answer})");
    Guest { exports: vec!["describe", "pace"], body: limits, ..Guest::allowing() }.named("pacing").build()
}

impl World {
    async fn start(&self, session: SessionId) -> Result<Done, ServiceError> {
        self.execute(Operation::SessionStart { session, when_unpaired: WhenUnpaired::Pair }).await
    }

    /// The code of the denial of a start.
    async fn denial(&self, session: SessionId) -> String {
        match self.start(session).await {
            Err(ServiceError::Vetoed { denials, .. }) => denials[0].code.clone(),
            other => panic!("not denied: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stop_that_a_plugin_extends_logs_the_device_out_and_no_other_operation_can_be_extended_so() {
    let world = World::new().await;
    let session = world.online().await;
    world.bind(extending(&[0]), vec![], "{}").await;
    assert_eq!(world.denial(session).await, "follow_up_does_not_fit");
    world.execute(Operation::SessionStop { session }).await.unwrap();
    world.settle().await;
    let stopped = world.session(session).await.unwrap();
    assert!(stopped.linked_device().is_none(), "{:?}", stopped.status);
    // WhatsApp takes its time to say so.
    world.pass(Duration::from_secs(1)).await;
    assert!(world.events().contains(&"session.unlinked"), "{:?}", world.events());
    // A delete unlinks anyway.
    world.execute(Operation::SessionDelete { session }).await.unwrap();
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.status(session).await, "gone");
}

/// The whole way of a plugin that acts by itself: a fact is told, kept, waited for with a timer, and ends in an operation of the plugin's own.
#[tokio::test]
async fn a_cancelled_subscription_ends_in_the_deletion_that_the_plugin_asks_for() {
    let mut world = World::new().await;
    let (cancelled, kept) = (world.create().await, world.create().await);
    world.bind(CHURN.to_vec(), vec![], r#"{"grace":"P30D"}"#).await;
    world.tell("evt-1", "subscription.cancelled", cancelled).await;
    world.pass(29 * DAY).await;
    assert_eq!(world.status(cancelled).await, "stopped", "the grace is not over");
    world.crash().await;
    world.pass(2 * DAY).await;
    assert_eq!(world.status(cancelled).await, "gone");
    assert_eq!(world.status(kept).await, "stopped");
    let by_plugin = |entry: &AuditEntry| matches!(entry.actor, PrincipalKind::Plugin { depth: 1, .. });
    let entry = world.audit().await.into_iter().find(by_plugin).unwrap();
    assert_eq!((entry.operation, entry.outcome), (OperationKind::SessionDelete, AuditOutcome::Done));
}

#[tokio::test]
async fn a_renewal_takes_the_deletion_back_and_a_fact_told_twice_is_told_once() {
    let world = World::new().await;
    let session = world.create().await;
    world.bind(CHURN.to_vec(), vec![], r#"{"grace":"P30D"}"#).await;
    world.tell("evt-1", "subscription.cancelled", session).await;
    world.pass(10 * DAY).await;
    world.tell("evt-2", "subscription.renewed", session).await;
    world.tell("evt-1", "subscription.cancelled", session).await;
    world.pass(60 * DAY).await;
    assert_eq!(world.status(session).await, "stopped");
}

/// What a plugin asks for by itself is bounded by whoever granted it that.
#[tokio::test]
async fn a_plugin_can_do_no_more_than_who_granted_it() {
    let world = World::new().await;
    let session = world.create().await;
    let narrow = Principal { capabilities: [Capability::Plugins].into_iter().collect(), ..world.owner.clone() };
    world.seen_by(narrow).bind(CHURN.to_vec(), vec![], r#"{"grace":"P1D"}"#).await;
    world.tell("evt-1", "subscription.cancelled", session).await;
    world.pass(3 * DAY).await;
    assert_eq!(world.status(session).await, "stopped");
    let refused = |entry: &AuditEntry| entry.operation == OperationKind::SessionDelete;
    let entry = world.audit().await.into_iter().find(refused).unwrap();
    assert!(matches!(entry.outcome, AuditOutcome::Refused { .. } | AuditOutcome::Denied { .. }), "{entry:?}");
}

#[tokio::test]
async fn a_plugin_that_fails_too_often_is_suspended_where_it_fails_and_comes_back_with_a_change() {
    let world = World::new().await;
    let session = world.create().await;
    let binding = world.bind(trapping(), vec![OperationKind::SessionStart], "{}").await;
    for _ in 0..20 {
        assert_eq!(world.denial(session).await, "plugin_trap");
    }
    assert_eq!(world.denial(session).await, "plugin_suspended");
    assert!(world.events().contains(&"plugin.suspended"), "{:?}", world.events());
    assert!(world.binding(binding).await.suspension.is_some());
    // Its word for failures stands in for it.
    world
        .change_binding(binding, BindingChange { on_failure: Some(FailureFold::Allow), ..BindingChange::default() })
        .await;
    assert!(world.binding(binding).await.suspension.is_none());
    world.start(session).await.unwrap();
}

#[tokio::test]
async fn a_suspension_outlives_a_crash() {
    let mut world = World::new().await;
    let session = world.create().await;
    world.bind(trapping(), vec![OperationKind::SessionStart], "{}").await;
    for _ in 0..20 {
        world.denial(session).await;
    }
    world.crash().await;
    assert_eq!(world.denial(session).await, "plugin_suspended");
}

#[tokio::test]
async fn a_candidate_is_tried_in_the_shadow_then_on_a_share_and_its_divergence_is_counted() {
    let world = World::new().await;
    let binding = world.bind(allowing(), vec![OperationKind::SessionStart], "{}").await;
    let version = world.upload_version(denying()).await;
    let candidate = |percent| BindingChange {
        candidate: Some(Some(Candidate { version, settings: None, percent })),
        ..BindingChange::default()
    };
    let sessions: Vec<SessionId> = {
        let mut made = Vec::new();
        for _ in 0..20 {
            made.push(world.create().await);
        }
        made
    };
    let mut denied_at = Vec::new();
    for percent in [0, 50, 100] {
        world.change_binding(binding, candidate(percent)).await;
        let mut denied = 0;
        for session in &sessions {
            denied += u32::from(world.start(*session).await.is_err());
            world.execute(Operation::SessionStop { session: *session }).await.unwrap();
        }
        denied_at.push(denied);
    }
    assert_eq!((denied_at[0], denied_at[2]), (0, 20));
    assert!((3..=17).contains(&denied_at[1]), "half of the sessions are on the candidate's side: {denied_at:?}");
    let tally = world.binding(binding).await.tally.unwrap();
    assert_eq!((tally.asked, tally.diverged), (60, 60));
}

/// A pacing plugin of an organisation's own once lifted the limits of its plan: `high_throughput` and `unlimited` are refused to an
/// organisation without an active plan, but a plugin that answered zeros made every session unlimited.
#[tokio::test]
async fn an_organisations_own_pace_is_no_looser_than_its_plan_and_the_platforms_is_free() {
    let world = World::new().await;
    let session = world.online().await;
    let until = START.after(Duration::from_secs(3600)).as_millis();
    world.set_plan(false).await;
    // Nothing is bounded, it says.
    let own = world.bind(pacing(0, until), vec![], "{}").await;
    world.send(session).await.unwrap();
    let refused = world.send(session).await;
    assert!(
        matches!(refused, Err(ServiceError::Limited { .. })),
        "the usual policy has a gap between sends: {refused:?}"
    );
    // The plan opens them, and so does the platform.
    world.set_plan(true).await;
    world.send(session).await.unwrap();
    world.set_plan(false).await;
    world.unbind(own).await;
    world.platform().bind(pacing(0, until), vec![], "{}").await;
    world.send(session).await.unwrap();
}

#[tokio::test]
async fn a_pace_is_asked_once_as_long_as_it_holds_and_again_when_something_changed() {
    let world = World::new().await;
    let session = world.online().await;
    let until = START.after(Duration::from_secs(3600)).as_millis();
    let binding = world.bind(pacing(2, until), vec![], "{}").await;
    world.send(session).await.unwrap();
    world.send(session).await.unwrap();
    let limited = world.send(session).await;
    assert!(matches!(limited, Err(ServiceError::Limited { .. })), "{limited:?}");
    // Another version says something else; what the first one said no longer holds.
    let version = world.upload_version(pacing(3, until)).await;
    world.change_binding(binding, BindingChange { version: Some(version), ..BindingChange::default() }).await;
    world.send(session).await.unwrap();
}

/// A candidate that decided about some sessions and always failed once had the healthy version suspended that is bound:
/// failures were counted by binding, so the bound version was put out of work for all, and the candidate went on failing for its share.
#[tokio::test]
async fn a_candidate_that_fails_gives_its_share_back_and_the_bound_version_goes_on() {
    let world = World::new().await;
    let binding = world.bind(versioned(&[0]), vec![OperationKind::SessionStart], "{}").await;
    let trapping = Guest::gate("unreachable").named("versioned").build();
    let candidate = Candidate { version: world.upload_version(trapping).await, settings: None, percent: 50 };
    let tried = BindingChange { candidate: Some(Some(candidate)), ..BindingChange::default() };
    world.change_binding(binding, tried).await;
    let (mut ours, mut theirs) = (None, None);
    while ours.is_none() || theirs.is_none() {
        let session = world.create().await;
        *(if world.start(session).await.is_ok() { &mut ours } else { &mut theirs }) = Some(session);
    }
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    for _ in 0..20 {
        if world.start(theirs).await.is_ok() {
            break;
        }
    }
    world.execute(Operation::SessionStop { session: ours }).await.unwrap();
    world.start(ours).await.unwrap();
    world.start(theirs).await.unwrap();
    let state = world.binding(binding).await;
    assert!(state.suspension.is_none(), "the version that is bound never failed: {:?}", state.suspension);
    assert_eq!(state.candidate_suspension.map(|suspension| suspension.version), Some(2));

    let permit = world.permit(OperationKind::BindingUpdate, None).await;
    world.service.resume(&permit, binding, Call::default()).await.unwrap();
    assert!(world.binding(binding).await.candidate_suspension.is_none());
    world.execute(Operation::SessionStop { session: theirs }).await.unwrap();
    assert_eq!(world.denial(theirs).await, "plugin_trap");
}

/// The owner of a platform's plugin once learned only from the audit that it was suspended somewhere; the event went to the organisation alone.
#[tokio::test]
async fn whoever_runs_the_gateway_hears_that_a_platform_plugin_is_suspended_and_where() {
    let world = World::new().await;
    world.platform().bind(trapping(), vec![OperationKind::SessionStart], "{}").await;
    let session = world.create().await;
    for _ in 0..20 {
        world.denial(session).await;
    }
    let snapshot = world.store.snapshot().unwrap();
    let events = [world.org, OrgId::PLATFORM]
        .map(|org| snapshot.events_after(org, OutboxPlace::default(), 1_000).unwrap())
        .concat();
    let told: Vec<_> = events
        .into_iter()
        .filter_map(|PlacedEvent { event, .. }| match event.body {
            EventBody::PluginSuspended { plugin, version, org } => Some((event.org, plugin, version, org)),
            _ => None,
        })
        .collect();
    let told_to = |hearer| (hearer, "trapping".to_owned(), 1, world.org);
    assert_eq!(told, [told_to(world.org), told_to(OrgId::PLATFORM)]);
}

/// An organisation once read in its decisions what the platform's plugins had read: codes under the operator's secrets among it.
#[tokio::test]
async fn what_the_platforms_plugins_read_is_the_operators() {
    let world = World::new().await;
    let session = world.create().await;
    world.platform().bind(guests::reading(&[Grant::Kv]), vec![OperationKind::SessionStart], "{}").await;
    world.bind(allowing(), vec![OperationKind::SessionStart], "{}").await;
    world.start(session).await.unwrap();
    let links = async |seen: &World| -> Value {
        let record = seen.decisions().await.remove(0);
        serde_json::from_str::<Value>(&record.input.unwrap()).unwrap()["links"].take()
    };
    let operator = links(&world.seen_by(Principal::operator())).await;
    assert_eq!(operator[0]["settings"], "{}");
    assert_eq!(operator[0]["reads"].as_array().map(Vec::len), Some(1), "{operator}");
    let own = links(&world).await;
    assert_eq!((&own[0]["settings"], &own[0]["reads"]), (&Value::Null, &Value::Null));
    assert_eq!((&own[1]["settings"], &own[1]["reads"]), (&json!("{}"), &json!([])));
}
