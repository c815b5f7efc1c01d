//! Plugins written by hand in WebAssembly text, which do what no honest plugin does.

use portcullis_testing::{ANSWER, Guest};

/// A function that calls itself until the stack is used up.
const DEEP: &str = "(func $deep (result i32) (i32.add (call $deep) (i32.const 1)))";

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
        Guest::gate(&self.body()).with(DEEP).named(name).build()
    }
}

/// A component in text.
pub(crate) fn component_text(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}
