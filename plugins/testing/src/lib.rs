//! Plugins written by hand in WebAssembly text, for tests and benchmarks.
//!
//! A guest is a core module in text; the component around it is made from the contract's WIT, as every toolchain makes it.
//! Such guests can do what no honest plugin does, and need no compiler for wasm.

pub mod text;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Where the answers of hand-written functions lie.
pub const ANSWER: u32 = 512;
/// Where [`Guest::data`] lies.
pub const DATA: u32 = 2048;

/// The parts of WASI that hand-written guests call, as far as they call them.
const WASI: &str = include_str!("wasi.wit");

/// The interfaces of WASI that every hand-written guest may import.
const WASI_IMPORTS: [&str; 13] = [
    "wasi:io/streams",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:random/random",
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:filesystem/preopens",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp-create-socket",
];

/// A guest in the making.
#[derive(Clone)]
pub struct Guest {
    /// The interfaces of the contract that it exports.
    pub exports: Vec<&'static str>,
    /// Imports of the core module, as text.
    pub imports: String,
    /// Functions, globals and so on of the core module, as text.
    pub body: String,
    /// Text at [`DATA`].
    pub data: String,
    /// Its name.
    pub name: String,
    /// The grants that it wants, each with the reason.
    pub wants: Vec<(&'static str, &'static str)>,
}

impl Guest {
    /// A guest that describes itself and exports a gate with this body, which leaves the address of its answer.
    #[must_use]
    pub fn gate(body: &str) -> Self {
        let before =
            format!("(func (export \"portcullis:policy/gate@0.1.0#before\") (param $args i32) (result i32) {body})");
        Self {
            exports: vec!["describe", "gate"],
            imports: String::new(),
            body: before,
            data: String::new(),
            name: "guest".into(),
            wants: Vec::new(),
        }
    }

    /// A guest that allows everything.
    #[must_use]
    pub fn allowing() -> Self {
        Self::gate(&format!("i32.const {ANSWER}"))
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// The same that wants these grants, each for a reason.
    #[must_use]
    pub fn wanting(mut self, wants: &[(&'static str, &'static str)]) -> Self {
        self.wants = wants.to_vec();
        self
    }

    /// The same with more in its core module.
    #[must_use]
    pub fn with(mut self, body: &str) -> Self {
        self.body.push_str(body);
        self
    }

    /// The same with imports.
    #[must_use]
    pub fn importing(mut self, imports: &str) -> Self {
        self.imports.push_str(imports);
        self
    }

    /// The same with text at [`DATA`].
    #[must_use]
    pub fn data(mut self, data: &str) -> Self {
        self.data = data.to_owned();
        self
    }

    /// The component.
    ///
    /// # Panics
    ///
    /// The text is not a module, or has not the functions of what it exports.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        encode(&self.core(), &self.exports)
    }

    fn core(&self) -> String {
        let Self { imports, body, data, name, wants, .. } = self;
        let describe = if self.exports.contains(&"describe") {
            "(func (export \"portcullis:policy/describe@0.1.0#describe\") (result i32) i32.const 64)"
        } else {
            ""
        };
        let bytes = |words: Vec<usize>| -> String {
            let bytes =
                words.into_iter().flat_map(|word| u32::try_from(word).expect("addresses are small").to_le_bytes());
            bytes.map(|byte| format!("\\{byte:02x}")).collect()
        };
        // A description of 60 bytes at 64: name, version and description, no schema, hooks and events, and what it wants.
        let record = bytes(vec![256, name.len(), 320, 5, 336, 6, 0, 0, 0, 0, 0, 0, 0, 352, wants.len()]);
        // The texts of its wants lie one after the other.
        let (mut texts, mut wanted) = (String::new(), Vec::new());
        for text in wants.iter().flat_map(|(grant, why)| [grant, why]) {
            wanted.extend([128 + texts.len(), text.len()]);
            texts.push_str(text);
        }
        assert!(texts.len() <= 128 && wanted.len() <= 40, "there is no room for so many wants");
        let wanted = bytes(wanted);
        format!(
            "(module
                {imports}
                (memory (export \"memory\") 4)
                (global $heap (mut i32) (i32.const 65536))
                (data (i32.const 64) \"{record}\")
                (data (i32.const 128) \"{texts}\")
                (data (i32.const 352) \"{wanted}\")
                (data (i32.const 256) \"{name}\")
                (data (i32.const 320) \"1.0.0\")
                (data (i32.const 336) \"a test\")
                (data (i32.const {DATA}) \"{data}\")
                (func (export \"cabi_realloc\") (param $old i32) (param $size i32) (param $align i32) (param $new i32)
                    (result i32)
                    (local $at i32)
                    (local.set $at (i32.and
                        (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
                        (i32.sub (i32.const 0) (local.get $align))))
                    (global.set $heap (i32.add (local.get $at) (local.get $new)))
                    local.get $at)
                {describe}
                {body})"
        )
    }
}

/// The component around a core module in text that exports these interfaces of the contract.
///
/// # Panics
///
/// The text is not a module, or has not the functions of these interfaces.
#[must_use]
pub fn encode(core: &str, exports: &[&str]) -> Vec<u8> {
    let module = wat::parse_str(core).expect("the core module is valid text");
    wrap(module, exports, Strings::Utf8).expect("the module has the functions of its exports")
}

/// How the strings of a guest are encoded in its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strings {
    /// As every toolchain of plugins does.
    Utf8,
    /// As nobody does.
    Utf16,
}

/// The component around a core module that exports these interfaces of the contract, if it is one.
///
/// # Errors
///
/// In the encoder's words, what the module lacks.
///
/// # Panics
///
/// The contract's WIT has no such interface.
pub fn wrap(mut module: Vec<u8>, exports: &[&str], strings: Strings) -> Result<Vec<u8>, String> {
    let mut resolve = Resolve::default();
    // What was added to the contract is only imported by guests that call it.
    for version in ["0.1.0", "0.1.1"] {
        let contract = format!("{}/../../wit/{version}", env!("CARGO_MANIFEST_DIR"));
        resolve.push_dir(contract).expect("the contract is valid WIT");
    }
    let exports: String = exports.iter().map(|name| format!("export portcullis:policy/{name}@0.1.0;")).collect();
    let imports: String = WASI_IMPORTS.iter().map(|name| format!("import {name}@0.2.6;")).collect();
    let world = format!(
        "package test:guest;
        world guest {{
            include portcullis:policy/imports@0.1.0;
            include portcullis:policy/requesting@0.1.1;
            {imports}
            {exports}
        }}
        {WASI}"
    );
    let package = resolve.push_str("guest.wit", &world).expect("the world is valid WIT");
    let world = resolve.select_world(&[package], Some("guest")).expect("there is one world");
    let encoding = match strings {
        Strings::Utf8 => StringEncoding::UTF8,
        Strings::Utf16 => StringEncoding::UTF16,
    };
    embed_component_metadata(&mut module, &resolve, world, encoding, false).map_err(|error| format!("{error:#}"))?;
    let mut encoder = ComponentEncoder::default();
    encoder.module(&module).map_err(|error| format!("{error:#}"))?;
    encoder.encode().map_err(|error| format!("{error:#}"))
}
