//! What bytes claim to be, before anything is compiled: one component of a known contract version that imports nothing unknown.
//!
//! Only names are read here. Whether the types behind them fit is found out when the component is linked and described.

use wasmparser::{ComponentExternalKind, Encoding, Parser, Payload};

use crate::{ADDITION, AdmissionError, CONTRACT, SERVED};

/// The namespace of the contract's interfaces.
const PACKAGE: &str = "portcullis:policy/";

/// What a plugin may import from the contract, and the version that it came in; `types` are only types.
const IMPORTS: [(&str, &str); 6] = [
    ("types", CONTRACT),
    ("log", CONTRACT),
    ("kv", CONTRACT),
    ("sessions", CONTRACT),
    ("secrets", CONTRACT),
    ("http", ADDITION),
];

/// What a plugin may export of the contract.
const EXPORTS: [&str; 6] = ["describe", "settings", "gate", "observer", "timer", "pace"];

/// The interfaces of WASI 0.2 that link, all of them to nothing outside.
const WASI: [&str; 27] = [
    "cli/environment",
    "cli/exit",
    "cli/stderr",
    "cli/stdin",
    "cli/stdout",
    "cli/terminal-input",
    "cli/terminal-output",
    "cli/terminal-stderr",
    "cli/terminal-stdin",
    "cli/terminal-stdout",
    "clocks/monotonic-clock",
    "clocks/wall-clock",
    "filesystem/preopens",
    "filesystem/types",
    "io/error",
    "io/poll",
    "io/streams",
    "random/insecure",
    "random/insecure-seed",
    "random/random",
    "sockets/instance-network",
    "sockets/ip-name-lookup",
    "sockets/network",
    "sockets/tcp",
    "sockets/tcp-create-socket",
    "sockets/udp",
    "sockets/udp-create-socket",
];

/// What a component is by its names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The version of the contract that it was built for.
    pub(crate) contract: String,
    /// The interfaces of the contract that it exports, in the order of the contract.
    pub(crate) exports: Vec<String>,
}

/// Reads the shape of `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Result<Shape, AdmissionError> {
    let (imports, exports) = names(bytes)?;
    let mut found = Found::default();
    for name in &imports {
        found.import(name)?;
    }
    for name in &exports {
        found.export(name)?;
    }
    if found.exports.is_empty() {
        return Err(AdmissionError::NoExports);
    }
    let exports: Vec<String> =
        EXPORTS.iter().filter(|export| found.exports.contains(export)).map(|export| (*export).to_owned()).collect();
    if !exports.iter().any(|export| export == "describe") {
        return Err(AdmissionError::NoDescribe);
    }
    let contract = if found.needs_addition { ADDITION } else { CONTRACT };
    Ok(Shape { contract: contract.to_owned(), exports })
}

/// The names that the outermost component imports and exports.
fn names(bytes: &[u8]) -> Result<(Vec<String>, Vec<String>), AdmissionError> {
    let malformed = |error: wasmparser::BinaryReaderError| AdmissionError::Malformed { why: error.to_string() };
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0_usize;
    if !bytes.starts_with(b"\0asm") {
        return Err(AdmissionError::NotAComponent { what: "not WebAssembly at all" });
    }
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(AdmissionError::NotAComponent { what: "a core module" });
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(malformed)?;
                    if export.kind == ComponentExternalKind::Instance {
                        exports.push(export.name.name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

#[derive(Default)]
struct Found<'a> {
    exports: Vec<&'a str>,
    /// Whether it imports what came later than the rest.
    needs_addition: bool,
}

impl<'a> Found<'a> {
    fn import(&mut self, name: &'a str) -> Result<(), AdmissionError> {
        let unknown = || AdmissionError::UnknownImport { name: shown(name) };
        if let Some(named) = of_contract(name)? {
            self.needs_addition |= named.1 == ADDITION;
            return if IMPORTS.contains(&named) { Ok(()) } else { Err(unknown()) };
        }
        let wasi = name.strip_prefix("wasi:").and_then(|name| name.split_once("@0.2."));
        match wasi {
            Some((interface, _)) if WASI.contains(&interface) => Ok(()),
            _ => Err(unknown()),
        }
    }

    fn export(&mut self, name: &'a str) -> Result<(), AdmissionError> {
        // Exports that the contract does not know are nobody's business; only the version has to be right.
        if let Some((interface, CONTRACT)) = of_contract(name)?
            && EXPORTS.contains(&interface)
        {
            self.exports.push(interface);
        }
        Ok(())
    }
}

/// The interface of the contract that `name` names, if it names one, and its version, which is one that is served.
fn of_contract(name: &str) -> Result<Option<(&str, &str)>, AdmissionError> {
    let Some(interface) = name.strip_prefix(PACKAGE) else { return Ok(None) };
    let (interface, version) = interface.split_once('@').unwrap_or((interface, ""));
    if version != CONTRACT && version != ADDITION {
        return Err(AdmissionError::UnknownContract { found: shown(version), served: SERVED });
    }
    Ok(Some((interface, version)))
}

/// A name of the guest's choosing, cut to what fits a message.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(128).collect()
}
