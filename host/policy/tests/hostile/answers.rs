//! Answers that are not of the contract's types: addresses, cases, texts and numbers that cannot be.

use portcullis_core::{Decision, FollowUp};
use portcullis_testing::text::{before, bytes, core, data, describe, exporting, realloc, saying, words};
use portcullis_testing::{DATA, Guest, Strings, wrap};

use crate::attack::{Asked, Attack, End, attack, check, upload};

#[tokio::test]
async fn what_is_no_value_is_refused() {
    let deny = |code: &'static str, len: u32| saying(&[1, 0, DATA, len, DATA, 0]).data(code);
    let attacks = [
        attack("a case that there is not", &saying(&[99]), End::BAD_OUTPUT),
        attack("an answer beside the memory", &Guest::gate("i32.const -8"), End::BAD_OUTPUT),
        attack("an answer over the end of the memory", &Guest::gate("i32.const 262140"), End::BAD_OUTPUT),
        attack("an answer at an odd address", &Guest::gate("i32.const 513"), End::BAD_OUTPUT),
        attack("a text beside the memory", &saying(&[1, 0, 0x7fff_0000, 4]), End::BAD_OUTPUT),
        attack("a text at the end of addresses", &saying(&[1, 0, u32::MAX, u32::MAX]), End::BAD_OUTPUT),
        attack("a text that is not UTF-8", &deny("\\ff\\fe", 2), End::BAD_OUTPUT),
        attack("half of a character", &deny("\\c3", 1), End::BAD_OUTPUT),
        attack("a surrogate", &deny("\\ed\\a0\\80", 3), End::BAD_OUTPUT),
        attack("an overlong nothing", &deny("\\c0\\80", 2), End::BAD_OUTPUT),
        attack("an option that is neither", &saying(&[1, 0, DATA, 1, DATA, 0, 7]).data("x"), End::BAD_OUTPUT),
        attack("a patch that there is not", &saying(&[3, 0, 9]), End::BAD_OUTPUT),
        attack("a window that there is not", &limit(&[9, 0, 0, 0, 1, 0]), End::BAD_OUTPUT),
        attack("a follow-up that there is not", &saying(&[6, 0, 4096, 1]).with(&data(4096, &[99])), End::BAD_OUTPUT),
        attack(
            "settings judged by no case",
            &exporting("settings", &["validate"], "i32 i32", &words(&[9])),
            End::BAD_OUTPUT,
        )
        .asking(Asked::Settings),
        attack("limits by no case", &exporting("pace", &["limits"], "i32", &words(&[9])), End::BAD_OUTPUT)
            .asking(Asked::Pace),
    ];
    check(&attacks).await;
}

/// An answer with one limit: its counter is `x`, and its window and maximum are these words.
fn limit(rest: &[u32; 6]) -> Guest {
    let record = [&[DATA, 1], rest.as_slice()].concat();
    saying(&[5, 0, 4096, 1, DATA, 1]).data("x").with(&data(4096, &bytes(&record)))
}

#[tokio::test]
async fn words_for_people_and_machines_keep_to_their_alphabets() {
    let deny = |code: &str, message: &str| {
        let (code_len, message_len) = (u32::try_from(code.len()).unwrap(), u32::try_from(message.len()).unwrap());
        saying(&[1, 0, 4096, code_len, 8192, message_len])
            .with(&data(4096, code.as_bytes()))
            .with(&data(8192, message.as_bytes()))
    };
    let denied = |code: &str, message: &str| {
        End::Decides(Decision::Deny { code: code.into(), message: message.into(), retry_after: None })
    };
    let attacks = [
        attack("no code", &deny("", "no"), End::BAD_OUTPUT),
        attack("a code of 65 characters", &deny(&"x".repeat(65), "no"), End::BAD_OUTPUT),
        attack("a code with a line break", &deny("no\r\nX-Evil: 1", "no"), End::BAD_OUTPUT),
        attack("a code with nothing in it", &deny("n\0o", "no"), End::BAD_OUTPUT),
        attack("a code in capitals", &deny("NO", "no"), End::BAD_OUTPUT),
        attack("a code of letters that look like ours", &deny("pl\u{443}gin", "no"), End::BAD_OUTPUT),
        attack("a code that is one of ours", &deny("plugin_fuel", "no"), denied("plugin_fuel", "no")),
        attack("a code of the gateway's", &deny("not_found", "no"), denied("not_found", "no")),
        attack(
            "a message with control characters",
            &deny("no", "a\0b\r\nSet-Cookie: c\u{1b}[31m\u{9b}d"),
            denied("no", "a b  Set-Cookie: c [31m d"),
        ),
    ];
    check(&attacks).await;
}

/// A list of one follow-up with these words, and a text at [`DATA`].
fn following(follow_up: &[u32], text: &str) -> Guest {
    saying(&[6, 0, 4096, 1]).with(&data(4096, &bytes(follow_up))).with(&data(DATA, text.as_bytes()))
}

#[tokio::test]
async fn follow_ups_keep_to_their_bounds() {
    let len = |text: &str| u32::try_from(text.len()).unwrap();
    let event = |name: &str, json: &str| {
        let text = format!("{name}{json}");
        following(&[1, 0, DATA, len(name), DATA + len(name), len(json)], &text)
    };
    let timer = |key: &str| following(&[2, 0, DATA, len(key), 0, 0, DATA, 0], key);
    let label = |key: &str, value: &str| {
        following(&[4, 0, DATA, len(key), DATA + len(key), len(value)], &format!("{key}{value}"))
    };
    let attacks = [
        attack("an event that is no JSON", &event("e", "{"), End::BAD_OUTPUT),
        attack("an event of two documents", &event("e", "{}{}"), End::BAD_OUTPUT),
        attack("an event of nothing", &event("e", ""), End::BAD_OUTPUT),
        attack("an event nested a thousand times", &event("e", &"[".repeat(1000)), End::BAD_OUTPUT),
        attack(
            "an event nested and closed",
            &event("e", &format!("{}{}", "[".repeat(500), "]".repeat(500))),
            End::BAD_OUTPUT,
        ),
        attack("an event with half of a pair", &event("e", "\"\\ud800\""), End::BAD_OUTPUT),
        attack("an event with a number beyond all", &event("e", "1e999"), End::BAD_OUTPUT),
        attack("an event with a number that is none", &event("e", "[NaN]"), End::BAD_OUTPUT),
        attack("an event with a line break in its name", &event("e\n", "{}"), End::BAD_OUTPUT),
        attack("an event without a name", &event("", "{}"), End::BAD_OUTPUT),
        attack("a timer without a key", &timer(""), End::BAD_OUTPUT),
        attack("a timer with a key of 129 bytes", &timer(&"k".repeat(129)), End::BAD_OUTPUT),
        attack("a timer with nothing in its key", &timer("k\0"), End::BAD_OUTPUT),
        attack("a label without a key", &label("", "v"), End::BAD_OUTPUT),
        attack("a label with a line break", &label("k", "v\n"), End::BAD_OUTPUT),
        attack("a label of 256 bytes", &label("k", &"v".repeat(256)), End::BAD_OUTPUT),
        attack("a rate policy with a path", &following(&[6, 0, DATA, 5], "../up"), End::BAD_OUTPUT),
        attack("an operation without the grant", &request("session.delete", 0), End::BAD_OUTPUT),
        attack(
            "a timer in the past",
            &timer("k"),
            End::Decides(Decision::Extend {
                follow_ups: vec![FollowUp::SetTimer {
                    key: "k".into(),
                    at: portcullis_core::Timestamp::from_millis(0),
                    payload: String::new(),
                }],
            }),
        ),
    ];
    check(&attacks).await;
}

/// Asks for an operation by its name and the number of its detail's case; the session is the text `sess`.
fn request(name: &str, detail: u32) -> Guest {
    let len = u32::try_from(name.len()).unwrap();
    let mut follow_up = vec![7, 0, DATA, len, detail];
    follow_up.resize(17, 0);
    // The session's name, which is there.
    follow_up.extend([1, DATA + len, 4]);
    following(&follow_up, &format!("{name}sess"))
}

#[tokio::test]
async fn operations_that_are_asked_for_are_operations() {
    use portcullis_core::Grant;
    let ask = |name: &'static str, operation: &str, detail| {
        attack(name, &request(operation, detail), End::BAD_OUTPUT).granted(&[Grant::Lifecycle])
    };
    let attacks: [Attack; 5] = [
        ask("an operation that there is not", "session.explode", 0),
        ask("an operation of the operator's", "org.delete", 0),
        ask("a session that is no id", "session.delete", 0),
        ask("a detail of another operation", "session.delete", 5),
        ask("a detail as a document", "session.delete", 6),
    ];
    check(&attacks).await;
}

/// The format allows strings in UTF-16, so a plugin may use them; half of a pair is no text there either.
#[tokio::test]
async fn strings_in_another_encoding_are_read_or_refused() {
    let wide = |text: &[u16]| text.iter().flat_map(|unit| unit.to_le_bytes()).collect::<Vec<u8>>();
    let guest = |code: &[u16]| {
        let name: Vec<u16> = "guest".encode_utf16().collect();
        let record = bytes(&[256, 5, 320, 1]);
        let answer = bytes(&[1, 0, 1024, u32::try_from(code.len()).unwrap()]);
        let parts = [
            data(64, &record),
            data(256, &wide(&name)),
            data(320, &wide(&[u16::from(b'1')])),
            data(512, &answer),
            data(1024, &wide(code)),
            describe("i32.const 64"),
            before("i32.const 512"),
            realloc("i32.const 4096"),
        ];
        wrap(wat::parse_str(core(&parts.concat())).unwrap(), &["describe", "gate"], Strings::Utf16).unwrap()
    };
    let no = Decision::Deny { code: "no".into(), message: String::new(), retry_after: None };
    let attacks = [
        upload("a denial in UTF-16", guest(&[u16::from(b'n'), u16::from(b'o')]), End::Decides(no)),
        upload("half of a pair", guest(&[0xd800]), End::BAD_OUTPUT),
        upload("the other half first", guest(&[0xdc00, 0xd800]), End::BAD_OUTPUT),
    ];
    check(&attacks).await;
}
