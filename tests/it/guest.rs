//! Plugins written by hand in WebAssembly text, which do what no honest plugin does.
//!
//! A guest is a core module in text; the component around it is made from the contract's WIT, as every toolchain makes it.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Where the answers of hand-written functions lie.
const ANSWER: u32 = 512;

/// A way to misbehave, or not to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Manner {
    Allow,
    Spin,
    Grow,
    Trap,
    Recurse,
    /// A case that the answer's type does not have.
    NoSuchCase,
    /// An address that is not in its memory.
    Nowhere,
    /// A denial without a code.
    NoCode,
    /// A denial whose message claims to be 200,000 bytes.
    Endless,
}

impl Manner {
    /// What its gate does, as the body of a function that leaves the address of its answer.
    fn body(self) -> String {
        match self {
            Self::Allow => format!("i32.const {ANSWER}"),
            Self::Spin => "(loop $again (br $again)) unreachable".to_owned(),
            Self::Grow => {
                "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable"
                    .to_owned()
            }
            Self::Trap => "unreachable".to_owned(),
            Self::Recurse => "(call $deep)".to_owned(),
            Self::NoSuchCase => format!("(i32.store8 (i32.const {ANSWER}) (i32.const 99)) i32.const {ANSWER}"),
            Self::Nowhere => "i32.const -8".to_owned(),
            Self::NoCode => format!("(i32.store8 (i32.const {ANSWER}) (i32.const 1)) i32.const {ANSWER}"),
            Self::Endless => format!(
                "(i32.store8 (i32.const {ANSWER}) (i32.const 1))
                (i32.store (i32.const {}) (i32.const 2048))
                (i32.store (i32.const {}) (i32.const 200000))
                i32.const {ANSWER}",
                ANSWER + 16,
                ANSWER + 20,
            ),
        }
    }

    /// The component of a plugin called `name` whose gate behaves like this.
    pub(crate) fn component(self, name: &str) -> Vec<u8> {
        encode(&core(name, &self.body()))
    }
}

/// A component in text.
pub(crate) fn component_text(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

fn core(name: &str, body: &str) -> String {
    // A description of 52 bytes at 64: name, version and description, and nothing for the rest.
    let record: String = [(256, name.len()), (320, 5), (336, 6), (0, 0), (0, 0), (0, 0)]
        .iter()
        .flat_map(|(at, len)| [*at, *len])
        .flat_map(|word: usize| u32::try_from(word).unwrap().to_le_bytes())
        .map(|byte| format!("\\{byte:02x}"))
        .collect();
    format!(
        "(module
            (memory (export \"memory\") 4)
            (global $heap (mut i32) (i32.const 65536))
            (data (i32.const 64) \"{record}\")
            (data (i32.const 256) \"{name}\")
            (data (i32.const 320) \"1.0.0\")
            (data (i32.const 336) \"a test\")
            (func (export \"cabi_realloc\") (param $old i32) (param $size i32) (param $align i32) (param $new i32)
                (result i32)
                (local $at i32)
                (local.set $at (i32.and
                    (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
                    (i32.sub (i32.const 0) (local.get $align))))
                (global.set $heap (i32.add (local.get $at) (local.get $new)))
                local.get $at)
            (func $deep (result i32) (i32.add (call $deep) (i32.const 1)))
            (func (export \"portcullis:policy/describe@0.1.0#describe\") (result i32) i32.const 64)
            (func (export \"portcullis:policy/gate@0.1.0#before\") (param i32) (result i32) {body}))"
    )
}

/// The component around a core module in text that exports a description and a gate.
fn encode(core: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/0.1.0")).unwrap();
    let world = "package test:guest;
        world guest {
            export portcullis:policy/describe@0.1.0;
            export portcullis:policy/gate@0.1.0;
        }";
    let package = resolve.push_str("guest.wit", world).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    let mut module = wat::parse_str(core).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    let mut encoder = ComponentEncoder::default();
    encoder.module(&module).unwrap();
    encoder.encode().unwrap()
}
