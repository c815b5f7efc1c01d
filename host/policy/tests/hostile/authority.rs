//! Attacks on authority: what was not granted, what belongs to others, and the world outside.

use portcullis_core::Grant;
use portcullis_testing::text::{
    CONFLICT, INVALID, KV, NOT_FOUND, NOT_GRANTED, Probe, RESULT, SECRETS, SESSIONS, data, exporting, zero,
};
use portcullis_testing::{DATA, Guest};

use crate::attack::{Asked, Attack, End, attack, check};

/// Calls of every function that needs a grant, each of which leaves an error behind so many bytes.
fn everything(probe: Probe, error: u32) -> Probe {
    let key = "(i32.const 2048) (i32.const 4)";
    let none = "(i32.const 0) (i64.const 0)";
    probe
        .refused(&format!("(call $get {key} (i32.const {RESULT}))"), 8, error)
        .refused(&format!("(call $set {key} {key} {none} (i32.const {RESULT}))"), 4, error)
        .refused(&format!("(call $swap {key} {none} {key} {none} (i32.const {RESULT}))"), 4, error)
        .refused(&format!("(call $remove {key} (i32.const {RESULT}))"), 4, error)
        .refused(
            &format!("(call $list {key} (i32.const 0) (i32.const 0) (i32.const 0) (i32.const {RESULT}))"),
            4,
            error,
        )
        .refused(&format!("(call $session {key} (i32.const {RESULT}))"), 8, error)
        .refused(&format!("(call $sessions (i32.const 0) (i32.const 0) (i32.const 0) (i32.const {RESULT}))"), 4, error)
        .refused(&format!("(call $count (i32.const 0) (i32.const 0) (i32.const {RESULT}))"), 8, error)
        .refused(&format!("(call $usage {key} {none} (i32.const {RESULT}))"), 8, error)
        .refused(&format!("(call $hmac {key} {key} (i32.const {RESULT}))"), 4, error)
}

#[tokio::test]
async fn what_is_not_granted_is_refused() {
    let imports = format!("{KV} {SESSIONS} {SECRETS}");
    let gate = everything(Probe::default(), NOT_GRANTED).gate(&imports).data("keys");
    let others: [Attack; 3] = [
        attack("everything without a grant", &gate, End::ALLOWED).granted(&[]),
        attack("everything with grants of other things", &gate, End::ALLOWED).granted(&[Grant::Http, Grant::Lifecycle]),
        // Without a binding there are no grants, whatever the plugin will have once it is bound.
        attack(
            "reads while settings are judged",
            &exporting(
                "settings",
                &["validate"],
                "i32 i32",
                &format!(
                    "(call $get (i32.const {DATA}) (i32.const 1) (i32.const {RESULT}))
                    (if (i32.load8_u offset=8 (i32.const {RESULT})) (then (unreachable))) {}",
                    zero()
                ),
            )
            .importing(KV)
            .data("k"),
            End::Answers,
        )
        .asking(Asked::Settings),
    ];
    check(&others).await;
}

/// What is granted opens what is the plugin's own and its organisation's; everything else is not there, however it is named.
#[tokio::test]
async fn names_of_others_name_nothing() {
    let texts = [
        "sess_01HF7YAT00A0A0A0A0A0A0A0A0",
        "org_01HF7YAT00A0A0A0A0A0A0A0A0",
        "../../data",
        "\0",
        "",
        "sess_",
        "plug_01HF7YAT00A0A0A0A0A0A0A0A0",
    ];
    let mut probe = Probe::default();
    let mut all = String::new();
    for text in texts {
        let at = DATA + u32::try_from(all.len()).unwrap();
        let name = format!("(i32.const {at}) (i32.const {})", text.len());
        all.push_str(text);
        probe = probe.refused(&format!("(call $session {name} (i32.const {RESULT}))"), 8, NOT_FOUND);
        // A secret has a name, if nothing else.
        let error = if text.is_empty() { INVALID } else { NOT_FOUND };
        probe = probe.refused(&format!("(call $hmac {name} {name} (i32.const {RESULT}))"), 4, error);
    }
    // A key in the name of a session that is not there.
    let key = format!("session:{}:k", texts[0]);
    let named = format!("(i32.const {}) (i32.const {})", DATA + u32::try_from(all.len()).unwrap(), key.len());
    all.push_str(&key);
    let none = "(i32.const 0) (i64.const 0)";
    let nothing = "(i32.const 2048) (i32.const 0)";
    let long = "(i32.const 8192) (i32.const 257)";
    let probe = probe
        .refused(&format!("(call $get {named} (i32.const {RESULT}))"), 8, NOT_FOUND)
        .refused(&format!("(call $set {named} {nothing} {none} (i32.const {RESULT}))"), 4, NOT_FOUND)
        .refused(&format!("(call $remove {named} (i32.const {RESULT}))"), 4, NOT_FOUND)
        .refused(&format!("(call $get {nothing} (i32.const {RESULT}))"), 8, INVALID)
        .refused(&format!("(call $get {long} (i32.const {RESULT}))"), 8, INVALID)
        .refused(&format!("(call $set {long} {nothing} {none} (i32.const {RESULT}))"), 4, INVALID)
        .refused(&format!("(call $list {long} (i32.const 0) (i32.const 0) (i32.const 0) (i32.const {RESULT}))"), 4, INVALID)
        .refused(
            &format!("(call $set (i32.const {DATA}) (i32.const 4) {nothing} (i32.const 1) (i64.const 1) (i32.const {RESULT}))"),
            4,
            INVALID,
        )
        .refused(
            &format!("(call $swap (i32.const {DATA}) (i32.const 4) (i32.const 1) (i64.const 9) {nothing} {none} (i32.const {RESULT}))"),
            4,
            CONFLICT,
        )
        .refused(&format!("(call $usage (i32.const {DATA}) (i32.const 4) {none} (i32.const {RESULT}))"), 8, INVALID)
        .refused(
            &format!("(call $sessions (i32.const 1) (i32.const {DATA}) (i32.const 4) (i32.const {RESULT}))"),
            4,
            INVALID,
        );
    let guest = probe
        .gate(&format!("{KV} {SESSIONS} {SECRETS}"))
        .with(&data(DATA, all.as_bytes()))
        .with(&data(8192, "x".repeat(300).as_bytes()));
    check(&[attack("names of others, and names that are none", &guest, End::ALLOWED)]).await;
}

/// WASI is linked for guests whose language needs it, and leads nowhere.
#[tokio::test]
async fn there_is_no_world_outside() {
    let environment = "
        (import \"wasi:cli/environment@0.2.6\" \"get-environment\" (func $environment (param i32)))
        (import \"wasi:cli/environment@0.2.6\" \"get-arguments\" (func $arguments (param i32)))
        (import \"wasi:cli/environment@0.2.6\" \"initial-cwd\" (func $directory (param i32)))";
    let files = "(import \"wasi:filesystem/preopens@0.2.6\" \"get-directories\" (func $directories (param i32)))
        (import \"wasi:filesystem/types@0.2.6\" \"[method]descriptor.open-at\"
            (func $open (param i32 i32 i32 i32 i32 i32 i32)))";
    let network = "
        (import \"wasi:sockets/instance-network@0.2.6\" \"instance-network\" (func $network (result i32)))
        (import \"wasi:sockets/ip-name-lookup@0.2.6\" \"resolve-addresses\" (func $resolve (param i32 i32 i32 i32)))
        (import \"wasi:sockets/tcp-create-socket@0.2.6\" \"create-tcp-socket\" (func $tcp (param i32 i32)))
        (import \"wasi:sockets/udp-create-socket@0.2.6\" \"create-udp-socket\" (func $udp (param i32 i32)))";
    let stdin = "
        (import \"wasi:cli/stdin@0.2.6\" \"get-stdin\" (func $stdin (result i32)))
        (import \"wasi:io/streams@0.2.6\" \"[method]input-stream.blocking-read\" (func $read (param i32 i64 i32)))";
    let exit = "(import \"wasi:cli/exit@0.2.6\" \"exit\" (func $exit (param i32)))";
    let random = "(import \"wasi:random/random@0.2.6\" \"get-random-bytes\" (func $random (param i64 i32)))";
    let zero_at = |call: &str, offset: u32| {
        format!("(block (result i32) {call} (i32.eqz (i32.load offset={offset} (i32.const {RESULT}))))")
    };
    // An error whose one payload is the case with this number.
    let fails = |call: &str, code: u32| {
        format!(
            "(block (result i32) {call} (i32.and
                (i32.load8_u (i32.const {RESULT}))
                (i32.eq (i32.load8_u offset=4 (i32.const {RESULT})) (i32.const {code}))))"
        )
    };
    let gate = |steps: &[String], imports: &str| {
        let probe = steps.iter().fold(Probe::default(), |probe, step| probe.step(step));
        probe.gate(imports).data("example.com/etc/passwd")
    };
    let denied = 1;
    let attacks = [
        attack(
            "variables, arguments and a directory",
            &gate(
                &[
                    zero_at(&format!("(call $environment (i32.const {RESULT}))"), 4),
                    zero_at(&format!("(call $arguments (i32.const {RESULT}))"), 4),
                    format!("(block (result i32) (call $directory (i32.const {RESULT})) (i32.eqz (i32.load8_u (i32.const {RESULT}))))"),
                ],
                environment,
            ),
            End::ALLOWED,
        ),
        attack(
            "directories",
            &gate(&[zero_at(&format!("(call $directories (i32.const {RESULT}))"), 4)], files),
            End::ALLOWED,
        ),
        attack(
            "a file by a directory that nobody gave",
            &Guest::gate(&format!(
                "(call $open (i32.const 1) (i32.const 1) (i32.const {DATA}) (i32.const 11) (i32.const 0) (i32.const 1) (i32.const {RESULT})) {}",
                zero()
            ))
            .importing(files)
            .data("/etc/passwd"),
            End::BAD_OUTPUT,
        ),
        attack(
            "sockets and names of hosts",
            &gate(
                &[
                    fails(&format!("(call $tcp (i32.const 0) (i32.const {RESULT}))"), denied),
                    fails(&format!("(call $tcp (i32.const 1) (i32.const {RESULT}))"), denied),
                    fails(&format!("(call $udp (i32.const 0) (i32.const {RESULT}))"), denied),
                    format!(
                        "(block (result i32)
                            (call $resolve (call $network) (i32.const {DATA}) (i32.const 11) (i32.const {RESULT}))
                            (i32.load8_u (i32.const {RESULT})))"
                    ),
                ],
                network,
            ),
            End::ALLOWED,
        ),
        attack(
            "the keyboard",
            &gate(
                &[format!(
                    "(block (result i32)
                        (call $read (call $stdin) (i64.const -1) (i32.const {RESULT}))
                        (i32.and
                            (i32.load8_u (i32.const {RESULT}))
                            (i32.eq (i32.load8_u offset=4 (i32.const {RESULT})) (i32.const 1))))"
                )],
                stdin,
            ),
            End::ALLOWED,
        ),
        attack("an exit", &Guest::gate("(call $exit (i32.const 0)) unreachable").importing(exit), End::TRAP),
        attack("an exit with an error", &Guest::gate("(call $exit (i32.const 1)) unreachable").importing(exit), End::TRAP),
        attack(
            "more chance than there is",
            &Guest::gate(&format!("(call $random (i64.const -1) (i32.const {RESULT})) {}", zero())).importing(random),
            End::BAD_OUTPUT,
        ),
    ];
    check(&attacks).await;
}
