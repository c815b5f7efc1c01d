//! One hash over everything that goes into the build of a plugin.
//!
//! ```text
//! plugins/<name>   Cargo.toml and src
//! plugins/sdk      Cargo.toml and src
//! wit/<contract>   the whole folder
//! Cargo.lock       name, version and checksum of every package that is reachable from the plugin's
//! Cargo.toml       the build profile; the versions and features of those packages; the inherited version and edition
//! FLAGS            the compiler flags
//! ```
//!
//! The toolchain is no source: it stands beside the hash in the manifest.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};
use toml::{Table, Value};

use crate::lock::Lock;
use crate::{ADDITION, CONTRACT, FLAGS, ManifestError, read};

/// SHA-256, in hex, of everything under `root` that goes into the build of `plugin`.
///
/// # Errors
///
/// A source cannot be read, or the lock file does not know the plugin.
pub fn source_hash(root: &Path, plugin: &str) -> Result<String, ManifestError> {
    let mut hash = SourceHash(Sha256::new());
    let plugins = root.join("plugins");
    for package in [plugin, "sdk"] {
        let folder = plugins.join(package);
        hash.part(&format!("{package}/Cargo.toml"), &read(&folder.join("Cargo.toml"))?);
        hash.folder(&format!("{package}/src"), &folder.join("src"))?;
    }
    for version in [CONTRACT, ADDITION] {
        hash.folder("wit", &root.join("wit").join(version))?;
    }

    let lock = parse::<Lock>(&root.join("Cargo.lock"))?;
    let closure = lock.closure(&format!("portcullis-{plugin}"))?;
    let workspace = parse::<Table>(&root.join("Cargo.toml"))?;
    let setting = |path: &[&str]| lookup(&workspace, path).map(canonical).unwrap_or_default();
    for locked in &closure {
        hash.part("locked", locked.identity().as_bytes());
        hash.part("dependency", setting(&["workspace", "dependencies", &locked.name]).as_bytes());
    }
    for path in [
        ["workspace", "package", "version"].as_slice(),
        &["workspace", "package", "edition"],
        &["profile", "release"],
        &["profile", "plugin"],
    ] {
        hash.part(&path.join("."), setting(path).as_bytes());
    }
    for flag in FLAGS {
        hash.part("flag", flag.as_bytes());
    }
    Ok(hex(&hash.0.finalize()))
}

/// SHA-256 in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A hash of named parts. Names and contents carry their lengths, so that no two lists of parts give the same bytes.
struct SourceHash(Sha256);

impl SourceHash {
    fn part(&mut self, name: &str, content: &[u8]) {
        for bytes in [name.as_bytes(), content] {
            self.0.update((bytes.len() as u64).to_be_bytes());
            self.0.update(bytes);
        }
    }

    /// All files below a folder, by name.
    fn folder(&mut self, name: &str, folder: &Path) -> Result<(), ManifestError> {
        let cannot_read = |cause| ManifestError::Read { path: folder.to_owned(), cause };
        let mut entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(cannot_read)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = format!("{name}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().map_err(cannot_read)?.is_dir() {
                self.folder(&name, &entry.path())?;
            } else {
                self.part(&name, &read(&entry.path())?);
            }
        }
        Ok(())
    }
}

/// Reads a TOML file.
fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ManifestError> {
    let text =
        String::from_utf8(read(path)?).map_err(|cause| ManifestError::NotText { path: path.to_owned(), cause })?;
    toml::from_str(&text).map_err(|cause| ManifestError::ParseToml { path: path.to_owned(), cause })
}

/// The value at a path of keys.
fn lookup<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let value = table.get(*first)?;
    if rest.is_empty() { Some(value) } else { lookup(value.as_table()?, rest) }
}

/// A value as text that depends neither on how the file is laid out nor on the order of its keys.
fn canonical(value: &Value) -> String {
    match value {
        Value::Table(table) => {
            let mut entries =
                table.iter().map(|(key, value)| format!("{key:?}:{}", canonical(value))).collect::<Vec<_>>();
            entries.sort();
            format!("{{{}}}", entries.join(","))
        }
        Value::Array(values) => format!("[{}]", values.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::String(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(time) => time.to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let hash = |parts: &[(&str, &str)]| {
            let mut hash = SourceHash(Sha256::new());
            for (name, content) in parts {
                hash.part(name, content.as_bytes());
            }
            hex(&hash.0.finalize())
        };
        assert_ne!(hash(&[("ab", "c")]), hash(&[("a", "bc")]));
        assert_ne!(hash(&[("a", "b"), ("c", "d")]), hash(&[("a", "bcd")]));
        assert_eq!(hash(&[("a", "b")]), hash(&[("a", "b")]));
    }

    #[test]
    fn a_digest_is_lower_case_hex() {
        assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let text = |toml: &str| canonical(&Value::Table(toml::from_str(toml).expect("a table")));
        assert_eq!(text("a = 1\nb = [true, \"x\"]"), r#"{"a":1,"b":[true,"x"]}"#);
        assert_eq!(text("a = 1\nb = 2"), text("# first b\nb = 2\na = 1"));
    }

    #[test]
    fn settings_are_found_by_their_path() {
        let table = toml::from_str::<Table>("[profile.plugin]\nlto = \"fat\"").expect("a table");
        assert_eq!(lookup(&table, &["profile", "plugin", "lto"]).and_then(Value::as_str), Some("fat"));
        assert_eq!(lookup(&table, &["profile", "release"]), None);
    }
}
