//! The manifest of the shipped plugins: which component was built from which sources, by what.
//!
//! `plugins/build` writes `plugins/dist/<name>.wasm` and `plugins/dist/manifest.json` through this crate's binary.
//! A component carries two hashes, because bytes differ between toolchains while sources do not:
//!
//! ```text
//! digest      SHA-256 of the file                     compared with a new build where the toolchain is the manifest's
//! sourceHash  SHA-256 of all that goes into a build   compared everywhere, without building anything: see `source`
//! ```
//!
//! [`check_dist`] needs no compiler and no cargo, and is a test of this crate: a change of sources without a new build fails everywhere.

mod error;
mod lock;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use error::{ManifestError, Mismatch};
pub use source::source_hash;

/// The plugins that ship. The plugin `x` is the package `portcullis-x` in `plugins/x`.
pub const SHIPPED: [&str; 7] =
    ["churn", "confirm-delete", "delete-quota", "grace-delete", "name-rules", "office-hours", "rate-ladder"];

/// The version of the contract that the shipped plugins are built against.
pub const CONTRACT: &str = "0.1.0";

/// What was added to the contract compatibly, which the SDK has as well.
pub(crate) const ADDITION: &str = "0.1.1";

/// The compiler flags of a build, with placeholders for directories.
///
/// The remapped prefixes keep the name of every directory out of the bytes.
/// A file below several of them takes the last.
pub const FLAGS: [&str; 4] = [
    "--remap-path-prefix={cargo-home}=/cargo",
    "--remap-path-prefix={registry}=/registry",
    "--remap-path-prefix={std}=/rustc/{commit}",
    "--remap-path-prefix={root}=/portcullis",
];

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// The shipped components, in the order of [`SHIPPED`].
    pub plugins: Vec<Component>,
    /// The compiler, cargo and linker that built them.
    pub toolchain: String,
    /// The compiler flags, with placeholders for directories.
    pub flags: Vec<String>,
}

/// One built component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Component {
    /// The plugin's name.
    pub name: String,
    /// The component's file, beside the manifest.
    pub file: String,
    /// SHA-256 of the file, in hex.
    pub digest: String,
    /// The file's size in bytes.
    pub size: u64,
    /// SHA-256 of its sources, in hex; see [`source_hash`].
    pub source_hash: String,
    /// The version of the contract that it is built against.
    pub contract: String,
}

impl Manifest {
    /// Describes the components that lie in `dist`, built by `toolchain` from the sources under `root`.
    ///
    /// # Errors
    ///
    /// A component or a source cannot be read.
    pub fn describe(root: &Path, dist: &Path, toolchain: &str) -> Result<Self, ManifestError> {
        let component = |name: &&str| {
            let file = file_name(name);
            let bytes = read(&dist.join(&file))?;
            Ok(Component {
                name: (*name).to_owned(),
                digest: source::sha256(&bytes),
                size: bytes.len() as u64,
                source_hash: source_hash(root, name)?,
                contract: CONTRACT.to_owned(),
                file,
            })
        };
        Ok(Self {
            plugins: SHIPPED.iter().map(component).collect::<Result<_, ManifestError>>()?,
            toolchain: toolchain.to_owned(),
            flags: FLAGS.map(str::to_owned).to_vec(),
        })
    }

    /// Reads the manifest that lies in `dist`.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is no manifest.
    pub fn load(dist: &Path) -> Result<Self, ManifestError> {
        let path = manifest_path(dist);
        serde_json::from_slice(&read(&path)?).map_err(|cause| ManifestError::Parse { path, cause })
    }

    /// Writes the manifest into `dist`.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn store(&self, dist: &Path) -> Result<(), ManifestError> {
        let path = manifest_path(dist);
        let mut text = serde_json::to_vec_pretty(self).map_err(|cause| ManifestError::Encode { cause })?;
        text.push(b'\n');
        fs::write(&path, text).map_err(|cause| ManifestError::Write { path, cause })
    }

    /// The manifest's entry for a plugin.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Option<&Component> {
        self.plugins.iter().find(|component| component.name == name)
    }
}

/// The file of a plugin's component.
#[must_use]
pub fn file_name(plugin: &str) -> String {
    format!("{plugin}.wasm")
}

/// Where the built components of a checkout lie.
#[must_use]
pub fn dist_folder(root: &Path) -> PathBuf {
    root.join("plugins").join("dist")
}

/// Compares the shipped components and the sources under `root` with the manifest.
///
/// # Errors
///
/// The manifest, a component or a source cannot be read.
pub fn check_dist(root: &Path) -> Result<Vec<Mismatch>, ManifestError> {
    let dist = dist_folder(root);
    let manifest = Manifest::load(&dist)?;
    let found = Manifest::describe(root, &dist, &manifest.toolchain)?;

    let mut mismatches = Vec::new();
    if manifest.flags != found.flags {
        mismatches.push(Mismatch::Flags);
    }
    if manifest.plugins.iter().map(|component| component.name.as_str()).ne(SHIPPED) {
        mismatches.push(Mismatch::Plugins);
    }
    for (listed, found) in found.plugins.iter().filter_map(|found| Some((manifest.plugin(&found.name)?, found))) {
        let plugin = || found.name.clone();
        if listed.source_hash != found.source_hash {
            mismatches.push(Mismatch::Sources { plugin: plugin() });
        }
        if listed.digest != found.digest || listed.size != found.size || listed.file != found.file {
            mismatches.push(Mismatch::File { plugin: plugin() });
        }
        if listed.contract != found.contract {
            mismatches.push(Mismatch::Contract { plugin: plugin() });
        }
    }
    Ok(mismatches)
}

/// Compares a new build in `built` with the manifest of the checkout at `root`, byte for byte.
/// Only a build by the manifest's own toolchain can be compared: none says that this one was not.
///
/// # Errors
///
/// The manifest or a component cannot be read.
pub fn check_bytes(root: &Path, built: &Path, toolchain: &str) -> Result<Option<Vec<Mismatch>>, ManifestError> {
    let manifest = Manifest::load(&dist_folder(root))?;
    if manifest.toolchain != toolchain {
        return Ok(None);
    }
    let mut mismatches = Vec::new();
    for component in &manifest.plugins {
        if source::sha256(&read(&built.join(&component.file))?) != component.digest {
            mismatches.push(Mismatch::Bytes { plugin: component.name.clone() });
        }
    }
    Ok(Some(mismatches))
}

fn manifest_path(dist: &Path) -> PathBuf {
    dist.join("manifest.json")
}

fn read(path: &Path) -> Result<Vec<u8>, ManifestError> {
    fs::read(path).map_err(|cause| ManifestError::Read { path: path.to_owned(), cause })
}
