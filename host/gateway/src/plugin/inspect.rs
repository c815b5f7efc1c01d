//! `portcullis plugin inspect`: what a component is, what it needs, and what it says of itself.

use std::path::Path;

use serde_json::{Map, Value, json};
use wasmparser::{Encoding, Parser, Payload};

use super::args::Inspect;
use super::offline::{self, Offline, Workshop};
use super::sign;
use crate::{Failure, terminal};

const PAGE_BYTES: u64 = 64 << 10;

/// Says it to the terminal.
pub(super) async fn inspect(arguments: &Inspect) -> Result<(), Failure> {
    let found = look(&arguments.file, Workshop::new()?).await?;
    terminal::say(&if arguments.json { format!("{found:#}") } else { sheet(&found) });
    Ok(())
}

/// Everything about the component in a file.
pub(super) async fn look(file: &Path, workshop: Workshop) -> Result<Value, Failure> {
    let bytes = super::read(file)?;
    let offline = offline::admit(bytes, workshop).await?;
    let signature = match sign::find_signature(file, &offline.admitted.bytes) {
        Ok(found) => found.map(|signature| json!({ "publicKey": signature.public_key })),
        Err(error) => Some(json!({ "problem": error.to_string() })),
    };
    let mut found = of(&offline)?;
    found["signature"] = json!(signature);
    Ok(found)
}

/// Everything about a component, but for its signature.
pub(super) fn of(offline: &Offline) -> Result<Value, Failure> {
    let admitted = &offline.admitted;
    let needs = Needs::read(&admitted.bytes)?;
    let describe = &admitted.description;
    Ok(json!({
        "name": admitted.name,
        "version": admitted.declared_version,
        "description": describe,
        "digest": format!("sha256:{}", super::digest(&admitted.bytes)),
        "size": admitted.size,
        "contract": admitted.contract,
        "class": offline.class.name(),
        "exports": admitted.exports,
        "imports": needs.imports,
        "hooks": admitted.hooks.iter().map(|hook| hook.name()).collect::<Vec<_>>(),
        "events": admitted.events,
        "wants": admitted.wants,
        "settingsSchema": admitted.settings_schema.as_deref().map(serde_json::from_str::<Value>).transpose()?,
        "memories": needs.memories,
        "memoryBytes": needs.memory_bytes,
        "tables": needs.tables,
        "tableElements": needs.table_elements,
        "compileMillis": u64::try_from(offline.took.as_millis()).unwrap_or(u64::MAX),
    }))
}

/// What a component imports, and what its modules need at their beginning.
#[derive(Debug, Default)]
struct Needs {
    imports: Vec<String>,
    memories: u64,
    memory_bytes: u64,
    tables: u64,
    table_elements: u64,
}

impl Needs {
    fn read(bytes: &[u8]) -> Result<Self, Failure> {
        let mut needs = Self::default();
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::Version { encoding: Encoding::Module, .. } => {}
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        needs.imports.push(import?.name.name.to_owned());
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        needs.memories += 1;
                        needs.memory_bytes += memory?.initial.saturating_mul(PAGE_BYTES);
                    }
                }
                Payload::TableSection(section) => {
                    for table in section {
                        needs.tables += 1;
                        needs.table_elements += table?.ty.initial;
                    }
                }
                _ => {}
            }
        }
        Ok(needs)
    }
}

/// What was found, for people.
pub(super) fn sheet(found: &Value) -> String {
    let text = |field: &str| found[field].as_str().unwrap_or_default();
    let number = |field: &str| found[field].as_u64().unwrap_or_default();
    let list = |field: &str, none: &str| {
        let words: Vec<_> = found[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if words.is_empty() { none.to_owned() } else { words.join(", ") }
    };
    let (contract, wasi): (Vec<_>, Vec<_>) = found["imports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .partition(|name| name.starts_with("portcullis:"));
    let or_none = |names: &[&str]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let mut lines = vec![format!("{} {}: {}", text("name"), text("version"), text("description"))];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<10}{value}"));
    line("digest", text("digest").to_owned());
    line("size", format!("{} bytes", thousands(number("size"))));
    line("class", text("class").to_owned());
    line("contract", format!("portcullis:policy@{}", text("contract")));
    line("exports", list("exports", "nothing"));
    line("imports", or_none(&contract));
    line("wasi", or_none(&wasi));
    line("hooks", list("hooks", "every operation"));
    line("events", list("events", "none"));
    let wants = found["wants"].as_array().map(Vec::as_slice).unwrap_or_default();
    if wants.is_empty() {
        line("wants", "no grants".to_owned());
    }
    for want in wants {
        let (grant, why) = (want["grant"].as_str().unwrap_or_default(), want["why"].as_str().unwrap_or_default());
        line("wants", format!("{grant}: {why}"));
    }
    line("settings", settings(&found["settingsSchema"]));
    line("memory", format!("{} bytes at first, in {}", thousands(number("memoryBytes")), number("memories")));
    line("tables", format!("{} elements at first, in {}", thousands(number("tableElements")), number("tables")));
    line("compiled", format!("in {} ms", number("compileMillis")));
    let signature = &found["signature"];
    line(
        "signature",
        match (signature["publicKey"].as_str(), signature["problem"].as_str()) {
            (Some(key), _) => format!("valid, by the key {key}"),
            (None, Some(problem)) => problem.to_owned(),
            (None, None) => "none lies beside it".to_owned(),
        },
    );
    lines.join("\n")
}

/// The names of the settings that a schema knows.
fn settings(schema: &Value) -> String {
    if schema.is_null() {
        return "no schema".to_owned();
    }
    let names = |properties: &Map<String, Value>| properties.keys().cloned().collect::<Vec<_>>().join(", ");
    schema["properties"].as_object().map(names).filter(|names| !names.is_empty()).unwrap_or_else(|| "any".to_owned())
}

/// A number with a comma before every three digits.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut told = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            told.push(',');
        }
        told.push(digit);
    }
    told
}
