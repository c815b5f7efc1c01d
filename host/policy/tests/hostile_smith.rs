//! Components that nobody wrote: generated modules in the form of a plugin, generated components, and plugins with damage.
//!
//! Each is uploaded and, if it is taken, asked. Whatever it is, the upload is refused with a code or the call ends as one of the documented failures,
//! nobody panics, and memory returns to its level. `PORTCULLIS_SMITH=100000` tries so many; a seed that went wrong is in the message, and `PORTCULLIS_SMITH_FROM` begins with it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

#[path = "hostile/bed.rs"]
mod bed;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use arbitrary::Unstructured;
use bed::{PLACES, admit, answer, bind, config, gate, load};
use portcullis_core::{Decision, Grant};
use portcullis_policy::{AdmissionError, Runtime, RuntimeConfig};
use portcullis_testing::{Guest, Strings, wrap};
use wasm_smith::{Component, Config, Module};
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

/// How many are tried unless the environment says otherwise.
const USUALLY: u64 = 400;

/// Which one is being tried, for whoever reads of a panic.
static SEED: AtomicU64 = AtomicU64::new(0);

#[tokio::test]
async fn whatever_is_uploaded_is_refused_or_ends_as_documented() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("PORTCULLIS_SMITH_FROM").unwrap_or(0);
    let count = number("PORTCULLIS_SMITH").unwrap_or(USUALLY);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("the seed is {}", SEED.load(Ordering::Relaxed));
        usual(panic);
    }));
    // A process that is ended by the system can say nothing any more.
    let seed_file = concat!(env!("CARGO_TARGET_TMPDIR"), "/smith-seed");

    let runtime = Runtime::new(RuntimeConfig { loaded_plugins: 2, ..config() }).unwrap();
    let honest = Guest::allowing().named("honest").build();
    let honest_link = bind(admit(&runtime, honest.clone()).await.unwrap(), &[]);
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    let mut level = 0;
    for seed in first..first + count {
        SEED.store(seed, Ordering::Relaxed);
        std::fs::write(seed_file, seed.to_string()).unwrap();
        let (kind, component) = generate(seed);
        let end = match component {
            Some(component) => attempt(&runtime, component).await,
            None => "could not be generated".to_owned(),
        };
        assert!(!end.contains("compile_failed"), "{kind} of seed {seed}: the compiler failed");
        *ends.entry(format!("{kind}: {end}")).or_default() += 1;
        if seed % 16 == 0 {
            load(&runtime, &honest_link, &honest).await;
            // As many as there are places, so that one that was not given back is missed.
            for _ in 0..PLACES {
                assert_eq!(answer(&runtime, &honest_link).await.result, Ok(Decision::Allow), "after seed {seed}");
            }
        }
        if seed == first + count / 2 {
            level = resident();
        }
    }
    for (end, times) in &ends {
        println!("{times:>7}  {end}");
    }
    let grown = resident().saturating_sub(level);
    assert!(grown < 96 << 20, "the second half of {count} left {} MiB behind", grown >> 20);
    let answered = |kind: &str| ends.iter().any(|(end, _)| end.starts_with(kind) && end.contains("answered"));
    // A test that never gets anything past the door tests the door only.
    assert!(count < USUALLY || answered("a module as a plugin"), "no generated plugin ever answered: {ends:?}");
}

/// Uploads the component and asks it; how that ended.
async fn attempt(runtime: &Runtime, component: Vec<u8>) -> String {
    let admitted = match admit(runtime, component).await {
        Ok(admitted) => admitted,
        Err(AdmissionError::DescribeFailed(failure)) => return format!("was not described ({})", failure.code()),
        Err(error) => return format!("was refused ({})", error.code()),
    };
    let has_gate = admitted.exports.iter().any(|export| export == "gate");
    let link = bind(admitted, &[Grant::Kv, Grant::Sessions]);
    if !has_gate {
        return "was taken without a gate".to_owned();
    }
    // A gate that was taken is asked: one that is passed over would fail open.
    let first = gate(runtime, std::slice::from_ref(&link)).await.answers.pop().expect("every gate is asked");
    let again = answer(runtime, &link).await;
    assert_eq!((&first.result, first.fuel), (&again.result, again.fuel), "the same question was answered differently");
    match first.result {
        Ok(_) => "answered".to_owned(),
        Err(failure) => format!("failed ({})", failure.code()),
    }
}

/// The component of this seed, and what kind it is.
fn generate(seed: u64) -> (&'static str, Option<Vec<u8>>) {
    let mut chance = Chance(seed);
    match seed % 8 {
        0..=3 => ("a module as a plugin", plugin(&mut chance)),
        4 => {
            let bytes = chance.bytes(2048);
            let component = Component::new(smith(), &mut Unstructured::new(&bytes)).ok().map(|made| made.to_bytes());
            if chance.below(8) == 0 {
                return ("a component", component);
            }
            // By itself it has none of the names that a plugin has, and the compiler would never see it.
            let within = |inner: Vec<u8>| [Guest::allowing().build(), vec![4], leb(inner.len()), inner].concat();
            ("a component within a plugin", component.map(within))
        }
        5 => ("a plugin with damage", Some(damaged(Guest::allowing().build(), &mut chance))),
        6 => ("a shipped plugin with damage", Some(damaged(shipped(&mut chance), &mut chance))),
        _ => ("a plugin with its sections in disorder", Some(disordered(&Guest::allowing().build(), &mut chance))),
    }
}

/// Small modules of the proposals that are switched on, so that most get past the compiler.
fn smith() -> Config {
    Config {
        max_instructions: 200,
        max_funcs: 20,
        max_types: 20,
        max_memory32_bytes: 16 << 20,
        max_table_elements: 1000,
        max_components: 3,
        max_modules: 3,
        allow_start_export: false,
        compact_imports_enabled: false,
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        reference_types_enabled: false,
        threads_enabled: false,
        wide_arithmetic_enabled: false,
        ..Config::default()
    }
}

/// A plugin whose gate, allocator and other functions are generated, and which describes itself honestly.
fn plugin(chance: &mut Chance) -> Option<Vec<u8>> {
    let shape = "(module
        (memory (export \"memory\") 1)
        (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) unreachable)
        (func (export \"portcullis:policy/describe@0.1.0#describe\") (result i32) unreachable)
        (func (export \"portcullis:policy/gate@0.1.0#before\") (param i32) (result i32) unreachable))";
    let imports = "(module
        (import \"portcullis:policy/log@0.1.0\" \"write\" (func (param i32 i32 i32)))
        (import \"portcullis:policy/kv@0.1.0\" \"get\" (func (param i32 i32 i32)))
        (import \"portcullis:policy/kv@0.1.0\" \"set\" (func (param i32 i32 i32 i32 i32 i64 i32)))
        (import \"portcullis:policy/sessions@0.1.0\" \"usage\" (func (param i32 i32 i32 i64 i32)))
        (import \"wasi:clocks/monotonic-clock@0.2.6\" \"subscribe-duration\" (func (param i64) (result i32)))
        (import \"wasi:io/poll@0.2.6\" \"[method]pollable.block\" (func (param i32))))";
    let config = Config {
        exports: Some(wat::parse_str(shape).unwrap()),
        available_imports: Some(wat::parse_str(imports).unwrap()),
        // The one that is exported comes on top of these.
        max_memories: 0,
        ..smith()
    };
    let bytes = chance.bytes(4096);
    let module = Module::new(config, &mut Unstructured::new(&bytes)).ok()?.to_bytes();
    let mut replaced = vec![("portcullis:policy/describe@0.1.0#describe", body(&describing()))];
    // Half of them hand out memory as they should, so that their gates are reached.
    if chance.below(2) == 0 {
        replaced.push(("cabi_realloc", body("(func (param i32 i32 i32 i32) (result i32) i32.const 4096)")));
    }
    wrap(with_bodies(&module, &replaced)?, &["describe", "gate"], Strings::Utf8).ok()
}

/// A function that writes a description into the first page and leaves its address.
fn describing() -> String {
    let store = |at: usize, word: u32| format!("(i32.store (i32.const {at}) (i32.const {word}))");
    let mut words = [0; 15];
    words[..4].copy_from_slice(&[256, 1, 256, 1]);
    let record: String = words.into_iter().enumerate().map(|(index, word)| store(64 + index * 4, word)).collect();
    format!("(func (result i32) {record} {} i32.const 64)", store(256, u32::from(b'x')))
}

/// The body of a function in text, which uses the first memory at the most.
fn body(function: &str) -> Vec<u8> {
    let module = wat::parse_str(format!("(module (memory 1) {function})")).unwrap();
    let mut bodies = Parser::new(0).parse_all(&module).filter_map(|payload| match payload.unwrap() {
        Payload::CodeSectionEntry(body) => Some(module[body.range()].to_vec()),
        _ => None,
    });
    bodies.next().unwrap()
}

/// The module with other bodies for the exported functions of these names.
fn with_bodies(module: &[u8], replaced: &[(&str, Vec<u8>)]) -> Option<Vec<u8>> {
    let (mut imported, mut exports, mut bodies, mut code) = (0, Vec::new(), Vec::new(), 0..0);
    for payload in Parser::new(0).parse_all(module) {
        match payload.unwrap() {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    imported += u32::from(matches!(import.unwrap().ty, TypeRef::Func(_) | TypeRef::FuncExact(_)));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.unwrap();
                    if export.kind == ExternalKind::Func {
                        exports.push((export.name, export.index));
                    }
                }
            }
            Payload::CodeSectionStart { range, .. } => code = range,
            Payload::CodeSectionEntry(body) => bodies.push(module[body.range()].to_vec()),
            _ => {}
        }
    }
    for (name, body) in replaced {
        let (_, index) = exports.iter().find(|(export, _)| export == name)?;
        // An import that is exported again has no body of its own.
        *bodies.get_mut(usize::try_from(index.checked_sub(imported)?).unwrap())? = body.clone();
    }
    let bodies: Vec<u8> = bodies.iter().flat_map(|body| [leb(body.len()), body.clone()].concat()).collect();
    let count =
        Parser::new(0).parse_all(module).filter(|payload| matches!(payload, Ok(Payload::CodeSectionEntry(_)))).count();
    let content = [leb(count), bodies].concat();
    // The section's id and length lie right before its content.
    let before = code.start - leb(code.len()).len() - 1;
    Some([&module[..before], &[10], leb(content.len()).as_slice(), &content, &module[code.end..]].concat())
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let seven = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        bytes.push(if number == 0 { seven } else { seven | 0x80 });
        if number == 0 {
            return bytes;
        }
    }
}

/// One of the plugins that ship.
fn shipped(chance: &mut Chance) -> Vec<u8> {
    let names = ["delete-quota", "grace-delete", "rate-ladder"];
    let name = names[chance.below(names.len())];
    std::fs::read(format!("{}/../../plugins/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Some bytes changed, put in, taken out or repeated.
fn damaged(mut bytes: Vec<u8>, chance: &mut Chance) -> Vec<u8> {
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len());
        match chance.below(8) {
            0..=2 => bytes[at] ^= 1 << chance.below(8),
            3 | 4 => bytes[at] = u8::try_from(chance.below(256)).unwrap(),
            5 => bytes.insert(at, u8::try_from(chance.below(256)).unwrap()),
            6 => drop(bytes.drain(at..(at + 1 + chance.below(8)).min(bytes.len()))),
            _ => {
                let some = bytes[at..(at + 1 + chance.below(64)).min(bytes.len())].to_vec();
                drop(bytes.splice(at..at, some));
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

/// Some sections taken out, repeated or put elsewhere.
fn disordered(component: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut ends = vec![8];
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.unwrap();
        match &payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(end) if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    ends.push(*end);
                }
            }
            _ if depth == 0 => ends.extend(payload.as_section().map(|(_, range)| range.end)),
            _ => {}
        }
    }
    let mut sections: Vec<&[u8]> = ends.windows(2).map(|ends| &component[ends[0]..ends[1]]).collect();
    for _ in 0..=chance.below(3) {
        let (from, to) = (chance.below(sections.len()), chance.below(sections.len()));
        match chance.below(3) {
            0 => drop(sections.remove(from)),
            1 => sections.insert(to, sections[from]),
            _ => sections.swap(from, to),
        }
    }
    [&component[..8], &sections.concat()].concat()
}

/// Chance that repeats itself (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count / 8).flat_map(|_| self.next().to_le_bytes()).collect()
    }
}

/// Bytes of memory that this process holds.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
