//! Attacks by answers that are in order, one by one: what they come to is bounded, and nothing in them is believed.

use portcullis_core::{Decision, FollowUp, LimitCheck, Patch, Timestamp, Window};
use portcullis_testing::text::{bytes, data, saying};
use portcullis_testing::{DATA, Guest};

use crate::attack::{End, attack, check};
use crate::bed::{NOW, plugin_id};

const NEVER: [u32; 2] = [u32::MAX, u32::MAX];

fn halves(millis: u64) -> [u32; 2] {
    let low = u32::try_from(millis & 0xffff_ffff).unwrap();
    [low, u32::try_from(millis >> 32).unwrap()]
}

/// An answer with one limit on a counter of this name.
fn limit(counter: &str, window: [u32; 4], max: [u32; 2]) -> Guest {
    let len = u32::try_from(counter.len()).unwrap();
    let record = [&[DATA, len], window.as_slice(), &max].concat();
    saying(&[5, 0, 4096, 1, DATA, 0]).with(&data(4096, &bytes(&record))).with(&data(DATA, counter.as_bytes()))
}

fn sliding(millis: u64) -> [u32; 4] {
    let [low, high] = halves(millis);
    [0, 0, low, high]
}

#[tokio::test]
async fn counters_and_windows_are_bounded() {
    let counted = |counter: &str, window, max| {
        let counter = format!("plugin:{}:{counter}", plugin_id());
        let limits = vec![LimitCheck { counter, window, max }];
        End::Decides(Decision::Limit { limits, message: String::new() })
    };
    let day = 24 * 60 * 60 * 1000;
    let attacks = [
        attack("a window of nothing", &limit("c", sliding(0), [1, 0]), End::BAD_OUTPUT),
        attack("a window of more than a day", &limit("c", sliding(day + 1), [1, 0]), End::BAD_OUTPUT),
        attack("a window without end", &limit("c", sliding(u64::MAX), [1, 0]), End::BAD_OUTPUT),
        attack("no counter", &limit("", sliding(1000), [1, 0]), End::BAD_OUTPUT),
        attack("a counter of 129 bytes", &limit(&"c".repeat(129), sliding(1000), [1, 0]), End::BAD_OUTPUT),
        attack("a counter with nothing in it", &limit("c\0", sliding(1000), [1, 0]), End::BAD_OUTPUT),
        attack("a limit of none", &limit("c", sliding(1000), [0, 0]), counted("c", Window::Sliding(1000), 0)),
        attack("a limit of all", &limit("c", [1, 0, 0, 0], NEVER), counted("c", Window::UtcDay, u64::MAX)),
        attack(
            "a counter of another plugin's",
            &limit("plugin:plug_01HF7YAT00A0A0A0A0A0A0A0A0:c", sliding(1000), [1, 0]),
            counted("plugin:plug_01HF7YAT00A0A0A0A0A0A0A0A0:c", Window::Sliding(1000), 1),
        ),
    ];
    check(&attacks).await;
}

#[tokio::test]
async fn points_in_time_are_ones_that_there_are() {
    let defer = |[low, high]: [u32; 2]| saying(&[2, 0, low, high, DATA, 0]);
    let confirm = |[low, high]: [u32; 2]| saying(&[4, 0, DATA, 0, low, high]);
    let timer =
        saying(&[6, 0, 4096, 1]).with(&data(4096, &bytes(&[2, 0, DATA, 1, NEVER[0], NEVER[1], DATA, 0]))).data("k");
    let attacks = [
        attack(
            "a deferral without end",
            &defer(NEVER),
            End::Decides(Decision::Defer { until: Timestamp::MAX, reason: String::new() }),
        ),
        attack("a deferral to the past", &defer([1, 0]), End::ALLOWED),
        attack("a deferral to now", &defer(halves(NOW.as_millis())), End::ALLOWED),
        attack("a question that nobody can answer any more", &confirm([1, 0]), End::BAD_OUTPUT),
        attack(
            "a question for ever",
            &confirm(NEVER),
            End::Decides(Decision::Confirm { prompt: String::new(), expires: Timestamp::MAX, answer: None }),
        ),
        attack(
            "a timer at the end of time",
            &timer,
            End::Decides(Decision::Extend {
                follow_ups: vec![FollowUp::SetTimer { key: "k".into(), at: Timestamp::MAX, payload: String::new() }],
            }),
        ),
    ];
    check(&attacks).await;
}

/// No form of a patch names a kind or a target; one for another operation is told apart when it is applied, which denies.
#[tokio::test]
async fn patches_cannot_say_more_than_their_form() {
    let text = |case: u32, text: &str| {
        saying(&[3, 0, case, DATA, u32::try_from(text.len()).unwrap()]).with(&data(DATA, text.as_bytes()))
    };
    let labels = |first: &str, second: &str| {
        let (a, b) = (u32::try_from(first.len()).unwrap(), u32::try_from(second.len()).unwrap());
        let list = bytes(&[DATA, a, DATA, 0, DATA + a, b, DATA, 0]);
        saying(&[3, 0, 1, 4096, 2]).with(&data(4096, &list)).with(&data(DATA, format!("{first}{second}").as_bytes()))
    };
    let amended = |patch| End::Decides(Decision::Amend { patch });
    let patch = Patch::SessionRatePolicy { slug: "strict".into() };
    let message = Patch::MessageSend { text: "a\0b".into() };
    assert_eq!(patch.apply(&crate::bed::delete()), None, "a patch for another operation was applied");
    let attacks = [
        attack("a patch for another operation", &text(2, "strict"), amended(patch)),
        attack("a text for a delete", &text(3, "a\0b"), amended(message)),
        attack("a rate policy that is no word", &text(2, "a b"), End::BAD_OUTPUT),
        attack("one label twice", &labels("a", "a"), End::BAD_OUTPUT),
        attack("a label that is no word", &labels("a", "b c"), End::BAD_OUTPUT),
    ];
    check(&attacks).await;
}
