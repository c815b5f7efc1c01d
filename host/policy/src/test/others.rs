//! The questions besides gates: settings, observers, events, timers and rate limits; and plugins that had to make room.

use std::sync::Arc;

use portcullis_core::{EventId, FollowUp, PluginFailure};
use portcullis_testing::{ANSWER, Guest};

use super::{NOW, Snapshot, answer, ask, bind, config, delete, org_id, runtime};
use crate::{Event, Outcome, PaceUsage, Runtime, RuntimeConfig, SettingsError};

/// Leaves these words at [`ANSWER`] and its address on the stack.
fn words(words: &[u32]) -> String {
    let store = |(index, word): (usize, &u32)| {
        format!("(i32.store offset={} (i32.const {ANSWER}) (i32.const {word}))", index * 4)
    };
    let stores: String = words.iter().enumerate().map(store).collect();
    format!("{stores} i32.const {ANSWER}")
}

/// A guest whose function of this interface leaves these words.
fn exporting(interface: &'static str, functions: &[&str], params: &str, answer: &[u32]) -> Guest {
    let answer = words(answer);
    let function = |function: &&str| {
        format!(
            "(func (export \"portcullis:policy/{interface}@0.1.0#{function}\") (param {params}) (result i32) {answer})"
        )
    };
    Guest { exports: vec!["describe", interface], body: functions.iter().map(function).collect(), ..Guest::allowing() }
}

/// One follow-up, of the first kind, read from memory that is all zeros.
const ONE_FOLLOW_UP: [u32; 2] = [8192, 1];

#[tokio::test]
async fn observers_are_told_and_answer_with_follow_ups() {
    let runtime = runtime();
    let link = bind(&runtime, &exporting("observer", &["after", "on-event"], "i32", &ONE_FOLLOW_UP)).await;
    let links = [link, bind(&runtime, &Guest::allowing()).await];
    let reads = Arc::new(Snapshot::default());
    let after = runtime.observe(&links, &ask(), &delete(), &Outcome::Deferred(NOW), reads.clone()).await;
    let event = Event {
        id: EventId::from_bytes([1; 16]),
        name: "subscription.cancelled".into(),
        at: NOW,
        session: None,
        json: "{}".into(),
    };
    let on_event = runtime.observe_event(&links, &ask(), &event, reads).await;
    for observed in [after, on_event] {
        // The gate among the links is no observer and has nothing to say.
        assert_eq!(observed.len(), 1);
        assert_eq!(observed[0].result, Ok(vec![FollowUp::LogOutFirst]));
    }
}

#[tokio::test]
async fn too_many_follow_ups_break_the_contract() {
    let runtime = runtime();
    let link = bind(&runtime, &exporting("timer", &["fired"], "i32", &[8192, 17])).await;
    let fired = runtime.fire_timer(&link, &ask(), "key", "payload", Arc::new(Snapshot::default())).await;
    assert_eq!(fired.result, Err(PluginFailure::BadOutput));
    assert!(fired.logs[0].message.contains("more than 16"), "{:?}", fired.logs);
}

#[tokio::test]
async fn a_timer_fires_and_a_plugin_without_timers_is_unavailable() {
    let runtime = runtime();
    let reads = Arc::new(Snapshot::default());
    let link = bind(&runtime, &exporting("timer", &["fired"], "i32", &ONE_FOLLOW_UP)).await;
    let fired = runtime.fire_timer(&link, &ask(), "key", "payload", reads.clone()).await;
    assert_eq!(fired.result, Ok(vec![FollowUp::LogOutFirst]));
    let link = bind(&runtime, &Guest::allowing()).await;
    let fired = runtime.fire_timer(&link, &ask(), "key", "payload", reads).await;
    assert_eq!(fired.result, Err(PluginFailure::Unavailable));
}

#[tokio::test]
async fn limits_are_given_or_left_to_the_named_policy() {
    let runtime = runtime();
    let usage = PaceUsage { sends_last_minute: 1, sends_today: 2, ..PaceUsage::default() };
    let some = [1, 0, 11, 12, 13, 14, 15, 16, 17, 18, 5, 0];
    let link = bind(&runtime, &exporting("pace", &["limits"], "i32", &some)).await;
    let pacing = runtime.pace(&link, &ask(), usage, Arc::new(Snapshot::default())).await.unwrap().unwrap();
    assert_eq!((pacing.limits.send_message_per_minute, pacing.limits.check_daily_cap), (11, 18));
    assert_eq!(pacing.valid_until.as_millis(), 5);
    let link = bind(&runtime, &exporting("pace", &["limits"], "i32", &[0])).await;
    assert_eq!(runtime.pace(&link, &ask(), usage, Arc::new(Snapshot::default())).await, Ok(None));
}

#[tokio::test]
async fn settings_are_json_and_what_the_plugin_accepts() {
    let runtime = runtime();
    let check = async |guest: &Guest, settings: &str| {
        let link = bind(&runtime, guest).await;
        runtime.validate_settings(&link.version, settings, org_id()).await
    };
    let content = exporting("settings", &["validate"], "i32 i32", &[0]);
    let choosy = exporting("settings", &["validate"], "i32 i32", &[1, 8192, 2]);
    assert_eq!(check(&Guest::allowing(), "{}").await, Ok(()));
    assert_eq!(check(&content, "{}").await, Ok(()));
    assert!(matches!(check(&choosy, "{}").await, Err(SettingsError::Refused { problems }) if problems.len() == 2));
    assert!(matches!(check(&content, "{").await, Err(SettingsError::NotJson { .. })));
    let large = format!("\"{}\"", "x".repeat(64 << 10));
    assert!(matches!(check(&content, &large).await, Err(SettingsError::TooLarge { .. })));
}

#[tokio::test]
async fn the_plugin_that_was_asked_longest_ago_makes_room() {
    let runtime = Runtime::new(RuntimeConfig { loaded_plugins: 2, ..config() }).unwrap();
    let guest = |name: &str| Guest { name: name.into(), ..Guest::allowing() };
    let first = bind(&runtime, &guest("first")).await;
    let second = bind(&runtime, &guest("second")).await;
    assert!(answer(&runtime, &first).await.result.is_ok());
    let third = bind(&runtime, &guest("third")).await;
    assert!(answer(&runtime, &first).await.result.is_ok());
    assert!(answer(&runtime, &third).await.result.is_ok());
    assert_eq!(answer(&runtime, &second).await.result, Err(PluginFailure::Unavailable));
}
