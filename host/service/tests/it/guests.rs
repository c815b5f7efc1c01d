//! Small plugins that the tests bind. The layouts are those of the canonical ABI for the contract's types.

use portcullis_core::{Grant, SessionId};
use portcullis_testing::text::{KV, RESULT, words, zero};
use portcullis_testing::{ANSWER, DATA, Guest};

/// Allows everything.
pub(crate) fn allowing() -> Vec<u8> {
    Guest::allowing().named("allowing").build()
}

/// One of many plugins with the same name that allow everything.
pub(crate) fn numbered(number: u32) -> Vec<u8> {
    Guest::allowing().named("numbered").with(&format!("(func $number (result i32) i32.const {number})")).build()
}

/// Denies everything, with the code and the message `no`.
pub(crate) fn denying() -> Vec<u8> {
    let store = |at: u32, value: u32| format!("(i32.store (i32.const {}) (i32.const {value}))", ANSWER + at);
    let denial: String = [(8, DATA), (12, 2), (16, DATA), (20, 2)].map(|(at, value)| store(at, value)).concat();
    let body = format!("(i32.store8 (i32.const {ANSWER}) (i32.const 1)) {denial} i32.const {ANSWER}");
    Guest::gate(&body).data("no").named("denying").build()
}

/// Allows everything, and chooses a rate policy for the session besides.
pub(crate) fn choosing(slug: &str) -> Vec<u8> {
    const LIST: u32 = 1024;
    let body = format!(
        "(i32.store8 (i32.const {ANSWER}) (i32.const 6))
         (i32.store (i32.const {}) (i32.const {LIST})) (i32.store (i32.const {}) (i32.const 1))
         (i32.store8 (i32.const {LIST}) (i32.const 6))
         (i32.store (i32.const {}) (i32.const {DATA})) (i32.store (i32.const {}) (i32.const {}))
         i32.const {ANSWER}",
        ANSWER + 8,
        ANSWER + 12,
        LIST + 8,
        LIST + 12,
        slug.len(),
    );
    Guest::gate(&body).data(slug).named("choosing").build()
}

/// Puts off whatever is asked by so many milliseconds from now.
pub(crate) fn putting_off(millis: u32) -> Vec<u8> {
    let body = format!(
        "(i32.store8 (i32.const {ANSWER}) (i32.const 2))
         (i64.store offset=8 (i32.const {ANSWER}) (i64.add (i64.load offset=16 (local.get $args)) (i64.const {millis})))
         i32.const {ANSWER}"
    );
    Guest::gate(&body).named(&format!("putting-off-{millis}")).build()
}

/// The same guest, whose description wants a grant.
pub(crate) fn wanting(grant: &'static str, guest: Guest) -> Guest {
    guest.wanting(&[(grant, "it has a reason")])
}

/// A version of a plugin that wants these grants. Its gate reads a key, and denies if it may not.
pub(crate) fn reading(wants: &[Grant]) -> Vec<u8> {
    let wants: Vec<_> = wants.iter().map(|grant| (grant.name(), "it has a reason")).collect();
    let read = format!("(call $get (i32.const {DATA}) (i32.const 2) (i32.const {RESULT}))");
    let (denied, allowed) = (words(&[1, 0, DATA, 2, DATA, 2]), zero());
    let answer =
        format!("{read} (if (result i32) (i32.load8_u (i32.const {RESULT})) (then {denied}) (else {allowed}))");
    Guest::gate(&answer).importing(KV).data("no").named("reading").wanting(&wants).build()
}

/// Sets the timer `t` in every call, for long ago.
pub(crate) fn timing() -> Vec<u8> {
    const LIST: u32 = 1024;
    let words_of_timer = [2, 0, DATA, 1, 0, 0, DATA, 1];
    let store = |(index, word): (usize, &u32)| {
        format!("(i32.store offset={} (i32.const {LIST}) (i32.const {word}))", index * 4)
    };
    let stores: String = words_of_timer.iter().enumerate().map(store).collect();
    Guest::gate(&format!("{stores} {}", words(&[6, 0, LIST, 1]))).data("t").named("timing").build()
}

/// Asks in every call for a stop of the session.
pub(crate) fn asking(session: SessionId) -> Vec<u8> {
    const LIST: u32 = 1024;
    let id = session.to_string();
    let length = u32::try_from(id.len()).unwrap();
    // A request: the operation's name, no detail in thirteen words, and the session.
    let words_of_request = [7, 0, DATA, 12].into_iter().chain([0; 13]).chain([1, DATA + 12, length]);
    let stores: String = words_of_request
        .enumerate()
        .map(|(index, word)| format!("(i32.store offset={} (i32.const {LIST}) (i32.const {word}))", index * 4))
        .collect();
    let guest = Guest::gate(&format!("{stores} {}", words(&[6, 0, LIST, 1]))).data(&format!("session.stop{id}"));
    wanting("lifecycle", guest).named("asking").build()
}
