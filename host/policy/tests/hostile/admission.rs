//! Attacks by upload: what is no plugin is told so with a stable code, at once or once the compiler has looked.

use portcullis_core::PluginFailure;
use portcullis_policy::{Runtime, RuntimeConfig};
use portcullis_testing::text::{bytes, core, data, describe, description};
use portcullis_testing::{Guest, encode};

use crate::attack::{Attack, End, check, turn, upload};
use crate::bed::{admit, config};
use crate::guests::{COMPONENT, CORE_MODULE, CUSTOM, PREAMBLE, leb, section};

fn text(component: &str) -> Vec<u8> {
    wat::parse_str(component).unwrap()
}

fn refused(name: &'static str, component: Vec<u8>, code: &'static str) -> Attack {
    upload(name, component, End::Refused(code))
}

/// An empty instance under this name.
fn exporting(name: &str) -> String {
    format!("(instance $i) (export \"{name}\" (instance $i))")
}

const DESCRIBE: &str = "portcullis:policy/describe@0.1.0";

#[tokio::test]
async fn what_is_no_component_is_refused() {
    let plugin = Guest::allowing().build();
    let mut newer = plugin.clone();
    newer[4] = 0x0e;
    let mut longer = PREAMBLE.to_vec();
    longer.extend([CUSTOM, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    let attacks = [
        refused("nothing", vec![], "not_a_component"),
        refused("text", b"(component)".to_vec(), "not_a_component"),
        refused("a program", b"\x7fELF\x02\x01\x01".to_vec(), "not_a_component"),
        refused("the first four bytes", b"\0asm".to_vec(), "malformed_component"),
        refused("zeros", vec![0; 4096], "not_a_component"),
        refused("a core module", text("(module)"), "not_a_component"),
        refused("a format of the future", newer, "malformed_component"),
        refused("a section that is longer than the file", longer, "malformed_component"),
        refused("a plugin and then zeros", [plugin.as_slice(), &[0; 64]].concat(), "malformed_component"),
        refused("two plugins", [plugin.as_slice(), &plugin].concat(), "malformed_component"),
        refused("an empty component", PREAMBLE.to_vec(), "no_exports"),
        refused(
            "a plugin within a component",
            [PREAMBLE.as_slice(), &section(COMPONENT, &plugin)].concat(),
            "no_exports",
        ),
        refused("what is larger than may be", vec![0; (2 << 20) + 1], "payload_too_large"),
    ];
    check(&attacks).await;
}

#[tokio::test]
async fn what_does_not_keep_the_contract_is_refused() {
    let importing = |name: &str| text(&format!("(component (import \"{name}\" (instance)))"));
    let gate = "portcullis:policy/gate@0.1.0";
    let function = |name: &str, result: &str, value: &str| {
        text(&format!(
            "(component
                (core module $m (func (export \"f\") {result} {value}))
                (core instance $c (instantiate $m))
                (func $f (result s32) (canon lift (core func $c \"f\")))
                (instance $i (export \"{name}\" (func $f)))
                (export \"{DESCRIBE}\" (instance $i)))"
        ))
    };
    let attacks = [
        refused(
            "a later contract",
            text(&format!("(component {})", exporting("portcullis:policy/gate@0.2.0"))),
            "unknown_contract_version",
        ),
        refused(
            "an earlier contract",
            text(&format!("(component {})", exporting("portcullis:policy/gate@0.0.1"))),
            "unknown_contract_version",
        ),
        refused(
            "a contract of any version",
            text(&format!("(component {})", exporting("portcullis:policy/gate"))),
            "unknown_contract_version",
        ),
        refused("an import of a later contract", importing("portcullis:policy/kv@1.0.0"), "unknown_contract_version"),
        refused("requests over HTTP", importing("wasi:http/outgoing-handler@0.2.0"), "unknown_import"),
        refused("WASI 0.3", importing("wasi:clocks/monotonic-clock@0.3.0"), "unknown_import"),
        refused("a neural network", importing("wasi:nn/inference@0.2.0"), "unknown_import"),
        refused("a gate of somebody else's", importing(gate), "unknown_import"),
        refused("an import of nobody's", importing("foo:bar/baz"), "unknown_import"),
        refused("a function as an import", text("(component (import \"print\" (func)))"), "unknown_import"),
        refused("a component as an import", text("(component (import \"c\" (component)))"), "unknown_import"),
        refused("a module as an import", text("(component (import \"m\" (core module)))"), "unknown_import"),
        refused(
            "an import with a name of 90,000 bytes",
            importing(&format!("a:b/{}", "c".repeat(90_000))),
            "unknown_import",
        ),
        refused("an export of nobody's", text(&format!("(component {})", exporting("foo:bar/baz"))), "no_exports"),
        refused("a gate that says nothing of itself", text(&format!("(component {})", exporting(gate))), "no_describe"),
        refused(
            "describe without its function",
            text(&format!("(component {})", exporting(DESCRIBE))),
            "contract_mismatch",
        ),
        refused(
            "describe with another result",
            function("describe", "(result i32)", "i32.const 0"),
            "contract_mismatch",
        ),
        refused(
            "describe under another name",
            function("descripe", "(result i32)", "i32.const 0"),
            "contract_mismatch",
        ),
        refused(
            "a gate without its function",
            renamed(Guest::allowing().build(), "before", "beside"),
            "contract_mismatch",
        ),
        refused(
            "a function that the log does not have",
            text(&format!(
                "(component (import \"portcullis:policy/log@0.1.0\" (instance (export \"erase\" (func)))) {})",
                exporting(DESCRIBE)
            )),
            "contract_mismatch",
        ),
        refused(
            "a log of another type",
            text(&format!(
                "(component (import \"portcullis:policy/log@0.1.0\" (instance (export \"write\" (func (param \"x\" u8))))) {})",
                exporting(DESCRIBE)
            )),
            "contract_mismatch",
        ),
        refused(
            "one import twice",
            text(&format!(
                "(component (import \"portcullis:policy/log@0.1.0\" (instance)) (import \"portcullis:policy/log@0.1.0\" (instance)) {})",
                exporting(DESCRIBE)
            )),
            "invalid_component",
        ),
        refused(
            "one export twice",
            text(&format!(
                "(component (instance $i) (export \"{DESCRIBE}\" (instance $i)) (export \"{DESCRIBE}\" (instance $i)))"
            )),
            "invalid_component",
        ),
        refused(
            "an instance that there is not",
            text(&format!("(component (instance $i) (export \"{DESCRIBE}\" (instance 7)))")),
            "invalid_component",
        ),
    ];
    check(&attacks).await;
}

/// The component with every occurrence of a word replaced by one of its length.
fn renamed(mut component: Vec<u8>, word: &str, other: &str) -> Vec<u8> {
    assert_eq!(word.len(), other.len());
    for at in 0..component.len() - word.len() {
        if component[at..].starts_with(word.as_bytes()) {
            component[at..at + word.len()].copy_from_slice(other.as_bytes());
        }
    }
    component
}

/// Proposals that are switched off, and code that is not valid.
#[tokio::test]
async fn what_the_compiler_does_not_take_is_refused() {
    let with = |name, body: &str, end| upload(name, Guest::allowing().with(body).build(), end);
    let beside = |name, module: &str| {
        let module = wat::parse_str(module).unwrap();
        refused(name, [Guest::allowing().build(), section(CORE_MODULE, &module)].concat(), "invalid_component")
    };
    let attacks = [
        beside("a memory that threads share", "(module (memory 1 1 shared))"),
        beside("a memory of 64 bits", "(module (memory i64 1))"),
        refused(
            "two memories in a module",
            [
                Guest::allowing().build(),
                section(CORE_MODULE, &wat::parse_str("(module (memory 1) (memory 1))").unwrap()),
            ]
            .concat(),
            "too_many_resources",
        ),
        beside("a structure on a heap", "(module (type (struct (field i32))))"),
        beside("an exception", "(module (tag))"),
        beside("a function that leaves nothing where something is due", "(module (func (result i32)))"),
        beside("a call of a function that there is not", "(module (func call 7))"),
        beside("fifty thousand and one locals", &format!("(module (func {}))", "(local i64)".repeat(50_001))),
        beside("more parameters than there can be", &format!("(module (func {}))", "(param i32)".repeat(1001))),
        with("a start that traps", "(func $start unreachable) (start $start)", End::Undescribed(PluginFailure::Trap)),
        with(
            "a segment beside the table",
            "(table 1 funcref) (func $f) (elem (i32.const 1) $f)",
            End::Undescribed(PluginFailure::Trap),
        ),
    ];
    check(&attacks).await;
}

/// Bombs: small in the file, or at least within its bound, and large in whatever reads it.
#[tokio::test]
async fn bombs_do_not_go_off() {
    let nested = |depth: usize| {
        let mut component = PREAMBLE.to_vec();
        for _ in 0..depth {
            component = [PREAMBLE.as_slice(), &section(COMPONENT, &component)].concat();
        }
        component
    };
    let within = |content: Vec<u8>| [Guest::allowing().build(), content].concat();
    // A type section with so many empty functions; each is four bytes.
    let types = |count: u32| [leb(count), [0x40, 0, 1, 0].repeat(usize::try_from(count).unwrap())].concat();
    let functions = format!("(module {})", "(func)".repeat(100_000));
    let globals = format!("(module {})", "(global i32 (i32.const 0))".repeat(100_000));
    let exports: String = (0..20_000).map(|n| format!("(export \"e{n}\" (func 0))")).collect();
    let doubling: String = (1..30).map(|n| format!("(type $t{n} (tuple $t{} $t{}))", n - 1, n - 1)).collect();
    let module = |text: &str| section(CORE_MODULE, &wat::parse_str(text).unwrap());
    let attacks = [
        refused("components nested twenty times", nested(20), "no_exports"),
        refused("components nested two thousand times", nested(2000), "no_exports"),
        upload(
            "components nested two hundred times in a plugin",
            within(section(COMPONENT, &nested(200))),
            End::ALLOWED,
        ),
        refused(
            "a type that doubles thirty times",
            text(&format!("(component (type $t0 (tuple u64 u64)) {doubling} {})", exporting(DESCRIBE))),
            "invalid_component",
        ),
        upload("a hundred thousand types", within(section(7, &types(100_000))), End::ALLOWED),
        refused("a count of types that are not there", within(section(7, &leb(u32::MAX))), "invalid_component"),
        upload("a hundred thousand functions", within(module(&functions)), End::ALLOWED),
        refused("a hundred thousand globals", within(module(&globals)), "too_many_resources"),
        upload(
            "twenty thousand exports of a module",
            within(module(&format!("(module (func) {exports})"))),
            End::ALLOWED,
        ),
        upload(
            "a comment of a megabyte",
            within(section(CUSTOM, &[&[1, b'x'][..], &vec![0; 1 << 20]].concat())),
            End::ALLOWED,
        ),
        upload("a block in a block, ten thousand times", blocks(10_000), End::ALLOWED),
    ];
    check(&attacks).await;
}

fn blocks(depth: usize) -> Vec<u8> {
    Guest::allowing().with(&format!("(func {} {})", "block ".repeat(depth), "end ".repeat(depth))).build()
}

/// A plugin that is cut anywhere is no plugin, and says so without a panic.
#[tokio::test]
async fn a_plugin_that_is_cut_anywhere_is_refused() {
    let _turn = turn().await;
    let runtime = Runtime::new(config()).unwrap();
    let plugin = Guest::allowing().build();
    for len in (0..plugin.len()).step_by(7) {
        match admit(&runtime, plugin[..len].to_vec()).await {
            // Between two sections what is left is a component, too, and may be a plugin.
            Ok(admitted) => assert_eq!(admitted.exports[0], "describe", "cut after {len} bytes"),
            Err(error) => {
                let known =
                    ["not_a_component", "malformed_component", "no_exports", "no_describe", "invalid_component"];
                assert!(known.contains(&error.code()), "cut after {len} bytes: {error:?}");
            }
        }
    }
}

/// What a plugin says of itself ends up in lists, logs and headers.
#[tokio::test]
async fn descriptions_keep_to_their_bounds() {
    let guest = |record: &[u32], more: &str| {
        let mut words = vec![256, 5, 320, 1];
        words.resize(15, 0);
        words[..record.len()].copy_from_slice(record);
        Guest::allowing().with(&data(64, &bytes(&words))).with(more).build()
    };
    let say = |field: usize, text: &str| {
        let mut words = vec![256, 5, 320, 1];
        words.resize(15, 0);
        words[field] = 4096;
        words[field + 1] = u32::try_from(text.len()).unwrap();
        guest(&words, &data(4096, text.as_bytes()))
    };
    let schema = |text: &str| {
        guest(&[256, 5, 320, 1, 0, 0, 1, 4096, u32::try_from(text.len()).unwrap()], &data(4096, text.as_bytes()))
    };
    // A list of one text, and how many times it is named.
    let list = |field: usize, text: &str, count: u32| {
        let mut words = vec![256, 5, 320, 1];
        words.resize(15, 0);
        words[field] = 8192;
        words[field + 1] = count;
        let entry = [4096, u32::try_from(text.len()).unwrap()];
        let entries = bytes(&entry).repeat(usize::try_from(count).unwrap());
        guest(&words, &format!("{} {}", data(4096, text.as_bytes()), data(8192, &entries)))
    };
    let bad = |name, component| refused(name, component, "bad_description");
    let attacks = [
        bad("no name", say(0, "")),
        bad("a name of 65 characters", say(0, &"x".repeat(65))),
        bad("a name with a path", say(0, "../../etc/passwd")),
        bad("a name with a tag", say(0, "<script>")),
        bad("a version with a line break", say(2, "1\r\nX: y")),
        bad("a version of 65 characters", say(2, &"1".repeat(65))),
        bad("a description with escapes", say(4, "\u{1b}[2J")),
        bad("a description of two kilobytes", say(4, &"x".repeat(2048))),
        bad("a schema that is no JSON", schema("{")),
        bad("a schema that is a number", schema("7")),
        bad("a schema that is nested a thousand times", schema(&"[".repeat(1000))),
        bad("a hook that there is not", list(9, "session.explode", 1)),
        bad("a hook that nobody may have", list(9, "org.create", 1)),
        bad("an event with a space", list(11, "a b", 1)),
        bad("an event without a name", list(11, "", 1)),
        bad("sixty-five events", list(11, "a", 65)),
        upload(
            "a name that is not UTF-8",
            guest(&[4096, 2], &data(4096, &[0xff, 0xfe])),
            End::Undescribed(PluginFailure::BadOutput),
        ),
        upload(
            "a description of all memory",
            guest(&[256, 5, 320, 1, 0, 200_000], ""),
            End::Undescribed(PluginFailure::BadOutput),
        ),
        upload(
            "a list of hooks beside the memory",
            guest(&[256, 5, 320, 1, 0, 0, 0, 0, 0, 0x7fff_0000, 9], ""),
            End::Undescribed(PluginFailure::BadOutput),
        ),
        upload(
            "a description that traps",
            encode(&core(&format!("{} {}", description(), describe("unreachable"))), &["describe"]),
            End::Undescribed(PluginFailure::Trap),
        ),
    ];
    check(&attacks).await;
}

/// Bytes of a real plugin with one of them changed: whatever that makes of it, nobody panics.
#[tokio::test]
async fn a_plugin_with_any_byte_changed_is_a_plugin_or_is_refused() {
    let _turn = turn().await;
    let runtime = Runtime::new(RuntimeConfig { loaded_plugins: 1, ..config() }).unwrap();
    let plugin = Guest::allowing().build();
    for at in (0..plugin.len()).step_by(11) {
        for flip in [0x01, 0x80] {
            let mut changed = plugin.clone();
            changed[at] ^= flip;
            if let Err(error) = admit(&runtime, changed).await {
                assert_ne!(error.code(), "compile_failed", "byte {at} with {flip:#x}: {error:?}");
            }
        }
    }
}
