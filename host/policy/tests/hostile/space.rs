//! Attacks on space: memory, tables, instances, and what a guest can make the host hold for it.

use std::time::Duration;

use portcullis_core::{Grant, PluginFailure};
use portcullis_policy::{Runtime, RuntimeConfig};
use portcullis_testing::text::{
    CLOCK, KV, LOG, STDOUT, before, bytes, core, data, describe, description, for_ever, realloc, saying, times, zero,
};
use portcullis_testing::{DATA, Guest, encode};

use crate::attack::{Attack, End, attack, check, forget_peak, peak, resident, turn, upload};
use crate::bed::{MEMORY, admit, bind, config, gate};
use crate::guests::{CORE_INSTANCE, CORE_MODULE, Sections, leb, section};

const GROW: &str = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))";

#[tokio::test]
async fn memory_and_tables_end_at_their_bounds() {
    let attacks = [
        attack("growing to the end, and a trap", &Guest::gate(&format!("{GROW} unreachable")), End::MEMORY),
        attack("growing to the end, and an answer", &Guest::gate(&format!("{GROW} {}", zero())), End::ALLOWED),
        attack(
            "growing by everything at once",
            &Guest::gate("(i32.load (memory.grow (i32.const 65535)))"),
            End::MEMORY,
        ),
        attack(
            "using what was refused",
            &Guest::gate(&format!(
                "{GROW} (i32.store (i32.const 16777212) (i32.const 1)) (i32.load (i32.const 16777216))"
            )),
            End::MEMORY,
        ),
        attack(
            "growing a table to the end, and a trap",
            &Guest::gate(&for_ever(
                "(if (i32.eq (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)) (then (unreachable)))",
            ))
            .with("(table $t 0 funcref)"),
            End::TRAP,
        ),
        attack("growing in cabi_realloc", &grown_in_realloc(), End::MEMORY),
        upload(
            "a first memory larger than a call gets",
            encode(
                &format!("(module (memory (export \"memory\") 257) {} {})", description(), describe("i32.const 64")),
                &["describe"],
            ),
            End::Refused("too_many_resources"),
        ),
        upload(
            "a first memory of four gigabytes",
            encode(
                &format!("(module (memory (export \"memory\") 65536) {} {})", description(), describe("i32.const 64")),
                &["describe"],
            ),
            End::Refused("too_many_resources"),
        ),
        attack(
            "a table larger than a call gets",
            &Guest::allowing().with("(table 20001 funcref)"),
            End::Refused("too_many_resources"),
        ),
        attack(
            "a table of four billion",
            &Guest::allowing().with("(table 4294967295 funcref)"),
            End::Refused("too_many_resources"),
        ),
        attack(
            "five tables",
            &Guest::allowing().with(&"(table 1 funcref)".repeat(5)),
            End::Refused("too_many_resources"),
        ),
        attack(
            "a segment beside the memory",
            &Guest::allowing().with("(data (i32.const 16777215) \"xx\")"),
            End::Undescribed(PluginFailure::Trap),
        ),
        upload(
            "two memories that are too large together",
            with_modules(1, 254),
            End::Undescribed(PluginFailure::Memory),
        ),
        upload("five memories", with_modules(4, 1), End::Refused("too_many_resources")),
        upload("a hundred instances", with_modules(100, 0), End::Refused("too_many_resources")),
    ];
    check(&attacks).await;
}

/// Grows its memory by a page for every string that it is given, and then by all there is.
fn grown_in_realloc() -> Guest {
    let mut guest = Guest::gate(&zero());
    // The heap of the usual allocator begins where the memory ends after the loop.
    guest.body.push_str(&format!("(func $start {GROW} (global.set $heap (i32.const -65536))) (start $start)"));
    guest
}

/// A plugin beside which the component instantiates a module so many times, with a memory of so many pages.
fn with_modules(count: u32, pages: u32) -> Vec<u8> {
    let plugin = Guest::allowing().build();
    let memory = if pages == 0 { String::new() } else { format!("(memory {pages})") };
    let module = wat::parse_str(format!("(module {memory})")).unwrap();
    let index = Sections::of(&plugin).filter(|(id, _)| *id == CORE_MODULE).count();
    let instance = [&[0], leb(u32::try_from(index).unwrap()).as_slice(), &[0]].concat();
    let instances = [leb(count), instance.repeat(usize::try_from(count).unwrap())].concat();
    [plugin, section(CORE_MODULE, &module), section(CORE_INSTANCE, &instances)].concat()
}

#[tokio::test]
async fn an_allocator_that_lies_harms_nobody_else() {
    let lying = |name, body: &str, end| {
        let parts =
            format!("{} {} {} {}", description(), describe("i32.const 64"), before("i32.const 512"), realloc(body));
        upload(name, encode(&core(&parts), &["describe", "gate"]), end)
    };
    let attacks: Vec<Attack> = vec![
        lying("every string in one place", "i32.const 4096", End::ALLOWED),
        lying("strings over the description and the answer", "i32.const 0", End::ALLOWED),
        lying("strings beside the memory", "i32.const 65536", End::BAD_OUTPUT),
        lying("strings at the end of addresses", "i32.const -8", End::BAD_OUTPUT),
        lying("strings that reach over the end of the memory", "i32.const 65528", End::BAD_OUTPUT),
        lying("strings at odd addresses", "i32.const 4097", End::BAD_OUTPUT),
        lying("a trap", "unreachable", End::TRAP),
    ];
    check(&attacks).await;
}

#[tokio::test]
async fn answers_that_are_larger_than_the_bound_are_not_copied() {
    // A denial whose message has this length, or list with so many elements, wherever that may lie.
    let message = |len: u32| saying(&[1, 0, DATA, 1, DATA, len]).data("x");
    let list = |kind: u32, count: u32| saying(&[kind, 0, 4096, count]);
    let attacks = [
        attack("a message of 4,097 bytes", &message(4097), End::BAD_OUTPUT),
        attack("a message of 64 KiB and one", &message(65_537), End::BAD_OUTPUT),
        attack("a message of all memory", &message(200_000), End::BAD_OUTPUT),
        attack("a message of four gigabytes", &message(u32::MAX), End::BAD_OUTPUT),
        attack("seventeen follow-ups", &list(6, 17), End::BAD_OUTPUT),
        attack("a thousand follow-ups", &list(6, 1000), End::BAD_OUTPUT),
        attack("more follow-ups than fit any memory", &list(6, u32::MAX), End::BAD_OUTPUT),
        attack("a length that wraps around", &list(6, 0x0333_3334), End::BAD_OUTPUT),
        attack("seventeen limits", &list(5, 17), End::BAD_OUTPUT),
        attack("a million limits", &list(5, 1_000_000), End::BAD_OUTPUT),
        attack("one text as a hundred label keys", &one_text_many_times(100, 60_000), End::BAD_OUTPUT),
        attack("one text as a million label keys", &one_text_many_times(1_000_000, 60_000), End::BAD_OUTPUT),
    ];
    check(&attacks).await;
}

/// An amendment that removes so many labels, each named by the same text: small in the guest, large in the host.
fn one_text_many_times(count: u32, len: u32) -> Guest {
    let keys: Vec<u32> = (0..200).flat_map(|_| [0_u32, len]).collect();
    // Labels to set are at 12, and keys of labels to remove at 20.
    saying(&[3, 0, 1, 0, 0, 4096, count]).with(&data(4096, &bytes(&keys)))
}

#[tokio::test]
async fn floods_of_output_are_cut() {
    let lines = times(1000, "(call $log (i32.const 1) (i32.const 0) (i32.const 2000))");
    let gate = |body: &str| Guest::gate(&format!("(local $i i32) (local $out i32) {body} {}", zero()));
    let long = "(call $log (i32.const 1) (i32.const 0) (i32.const 65537))";
    let out = "(local.set $out (call $stdout))";
    let attacks = [
        attack("a thousand lines", &gate(&lines).importing(LOG), End::ALLOWED),
        attack("a line of 64 KiB and one", &gate(long).importing(LOG), End::BAD_OUTPUT),
        attack(
            "a flood of output",
            &gate(&format!(
                "{out} {}",
                times(1000, "(call $write (local.get $out) (i32.const 0) (i32.const 16384) (i32.const 4096))")
            ))
            .importing(STDOUT),
            End::ALLOWED,
        ),
        attack(
            "zeroes without end",
            &gate(&format!("{out} (call $zeroes (local.get $out) (i64.const -1) (i32.const 4096))")).importing(STDOUT),
            End::BAD_OUTPUT,
        ),
    ];
    check(&attacks).await;
}

/// What a flood of calls to the host may make it hold at the most, besides the guest's own memory.
const HOST_MEMORY: usize = 32 << 20;

#[tokio::test]
async fn no_flood_makes_the_host_hold_much() {
    let _turn = turn().await;
    let keys = "(i32.store (i32.const 4096) (i32.and (i32.const 0x7f7f7f7f) (i32.mul (local.get $i) (i32.const 65793))))
        (call $set (i32.const 4096) (i32.const 4) (i32.const 0) (i32.const 65000) (i32.const 0) (i64.const 0) (i32.const 8192))";
    let floods = [
        ("large values", times(2000, keys), KV),
        ("pollables", for_ever("(drop (call $after (i64.const 1)))"), CLOCK),
        ("output streams", for_ever("(drop (call $stdout))"), STDOUT),
        ("lines", for_ever("(call $log (i32.const 1) (i32.const 0) (i32.const 65000))"), LOG),
        (
            "keys of sessions that are not there",
            for_ever(
                "(local.set $i (i32.add (local.get $i) (i32.const 1)))
                (i32.store (i32.const 8216) (i32.add (i32.const 0x30303030) (i32.and (local.get $i) (i32.const 0x07070707))))
                (i32.store (i32.const 8220)
                    (i32.add (i32.const 0x30303030) (i32.and (i32.shr_u (local.get $i) (i32.const 3)) (i32.const 0x07070707))))
                (call $get (i32.const 8192) (i32.const 41) (i32.const 12288))",
            ),
            KV,
        ),
        (
            "reads of new keys",
            for_ever(
                "(i32.store (i32.const 4096) (i32.and (i32.const 0x7f7f7f7f) (local.tee $i (i32.add (local.get $i) (i32.const 1)))))
                (call $get (i32.const 4096) (i32.const 4) (i32.const 8192))",
            ),
            KV,
        ),
    ];
    // Off the request path a call may burn more fuel and time; a gate with as much stands for those.
    let runtime =
        Runtime::new(RuntimeConfig { gate_fuel: 200_000_000, gate_wall: Duration::from_secs(2), ..config() }).unwrap();
    for (name, body, imports) in floods {
        let guest = Guest::gate(&format!("(local $i i32) {body} {}", zero()))
            .importing(imports)
            .with(&data(8192, b"session:sess_01HF7YAT00A0A0A0A0A0A0A0A0:k"));
        let link = bind(admit(&runtime, guest.build()).await.unwrap(), &[Grant::Kv]);
        let before = resident();
        forget_peak();
        let run = gate(&runtime, &[link]).await;
        let held = peak().saturating_sub(before);
        println!("{name}: the host held {} MiB, and the answer was {:?}", held >> 20, run.answers[0].result);
        assert!(held <= HOST_MEMORY + MEMORY, "{name}: the host held {} MiB", held >> 20);
    }
}
