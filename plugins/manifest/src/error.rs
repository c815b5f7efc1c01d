//! Why a manifest could not be made or read, and how one can be wrong.

use std::path::PathBuf;

use thiserror::Error;

/// What went wrong while a manifest was made or read.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// A file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// A manifest could not be encoded.
    #[error("cannot encode the manifest")]
    Encode {
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
    /// A file is no manifest.
    #[error("{} is not a manifest", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
    /// A file is not the TOML that cargo writes or reads.
    #[error("{} is not valid", path.display())]
    ParseToml {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: toml::de::Error,
    },
    /// A file is not text.
    #[error("{} is not UTF-8", path.display())]
    NotText {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::string::FromUtf8Error,
    },
    /// The lock file does not know a package.
    #[error("the lock file has no package {package}")]
    NotLocked {
        /// Which, as it was asked for.
        package: String,
    },
}

/// A difference between the manifest and what is so.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// Other plugins ship than the manifest lists.
    #[error("the manifest lists other plugins than those that ship")]
    Plugins,
    /// Other flags are in use than the manifest says.
    #[error("the manifest lists other compiler flags than those in use")]
    Flags,
    /// The sources have changed since the build.
    #[error("the sources of {plugin} have changed since it was built")]
    Sources {
        /// Whose.
        plugin: String,
    },
    /// The file is not the one that was built.
    #[error("the file of {plugin} is not the one in the manifest")]
    File {
        /// Whose.
        plugin: String,
    },
    /// The component is for another version of the contract.
    #[error("{plugin} is built against another version of the contract")]
    Contract {
        /// Which.
        plugin: String,
    },
    /// The same toolchain built other bytes.
    #[error("a new build of {plugin} gives other bytes")]
    Bytes {
        /// Of which.
        plugin: String,
    },
}
