//! `portcullis plugin build`: runs the project's tools, and checks what they made as an upload does.
//!
//! A Rust project is built by cargo; any other has a script `build` that writes the component to the path that it is given.
//! Either way the component ends up as `dist/<its own name>.wasm`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::args::Build;
use super::offline::Workshop;
use super::{inspect, offline};
use crate::{Failure, terminal};

/// Why no component was built.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    /// The folder has no files that tell what it is.
    #[error(
        "{} is no plugin's project: it has neither a Cargo.toml nor a script `build`; `portcullis plugin new NAME` makes one",
        .0.display()
    )]
    NoProject(PathBuf),
    /// A program is not there.
    #[error("{program} is needed to build this and is not there; {install}")]
    Missing {
        /// The program.
        program: String,
        /// What to do about it.
        install: &'static str,
    },
    /// A program could not be run.
    #[error("{program} could not be run")]
    Run {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program failed; it has said why itself.
    #[error("{program} failed; what it says is above")]
    Failed {
        /// The program.
        program: String,
    },
    /// rustc cannot make components.
    #[error(
        "rustc has no standard library for wasm32-unknown-unknown or wasm32-wasip2; `rustup target add wasm32-unknown-unknown` adds it"
    )]
    NoTarget,
    /// rustc makes modules and nothing makes components of them.
    #[error("rustc has no wasm-component-ld, which makes components; `cargo install wasm-component-ld` adds it")]
    NoLinker,
    /// cargo's description of the project lacks something.
    #[error("cargo says of no library in {} that it is a cdylib; set crate-type = [\"cdylib\", \"rlib\"] in [lib]", .0.display())]
    NoLibrary(PathBuf),
    /// What was built is not where it should be.
    #[error("{program} succeeded, but {} is not there", .file.display())]
    NoComponent {
        /// The program.
        program: String,
        /// Where the component should be.
        file: PathBuf,
    },
    /// The component could not be put in its place.
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
}

/// Builds a project's component.
pub(super) async fn build(arguments: &Build) -> Result<(), Failure> {
    let folder = &arguments.dir;
    let scratch = tempfile::tempdir()?;
    let made = match tools(folder)? {
        Tools::Cargo => rust(folder)?,
        Tools::Script => script(folder, scratch.path())?,
    };
    let (file, found) = keep(folder, &made, Workshop::with_cache()?).await?;
    let text = |field: &str| found[field].as_str().unwrap_or_default();
    let size = inspect::thousands(found["size"].as_u64().unwrap_or_default());
    terminal::say(&format!("{}  {size} bytes  {}  class {}", file.display(), text("digest"), text("class")));
    Ok(())
}

/// What builds a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tools {
    /// cargo, which makes components by itself.
    Cargo,
    /// A script of the project's own.
    Script,
}

/// What builds the project in a folder.
pub(super) fn tools(folder: &Path) -> Result<Tools, BuildError> {
    if folder.join("Cargo.toml").is_file() {
        return Ok(Tools::Cargo);
    }
    if folder.join("build").is_file() { Ok(Tools::Script) } else { Err(BuildError::NoProject(folder.to_owned())) }
}

/// Checks a component as an upload does and puts it into `dist` under the name that it gives itself.
pub(super) async fn keep(folder: &Path, made: &Path, workshop: Workshop) -> Result<(PathBuf, Value), Failure> {
    let offline = offline::admit(super::read(made)?, workshop).await?;
    // Shown as it can be typed.
    let dist = folder.strip_prefix(".").unwrap_or(folder).join("dist");
    let file = dist.join(format!("{}.wasm", offline.admitted.name));
    std::fs::create_dir_all(&dist)
        .and_then(|()| std::fs::write(&file, &offline.admitted.bytes))
        .map_err(|error| BuildError::Write(file.clone(), error))?;
    Ok((file, inspect::of(&offline)?))
}

/// Rust: one cargo command makes the component.
fn rust(folder: &Path) -> Result<PathBuf, Failure> {
    const INSTALL: &str = "https://rustup.rs installs Rust";
    let target = rust_target(folder)?;
    let metadata = said("cargo", ["metadata", "--no-deps", "--format-version", "1"], folder, INSTALL)?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let manifest = std::fs::canonicalize(folder.join("Cargo.toml"))?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let mut libraries = packages
        .filter(|package| package["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest))
        .flat_map(|package| package["targets"].as_array().into_iter().flatten())
        .filter(|target| {
            target["crate_types"].as_array().is_some_and(|types| types.iter().any(|kind| kind == "cdylib"))
        });
    let library = libraries.next().and_then(|library| library["name"].as_str());
    let library = library.ok_or_else(|| BuildError::NoLibrary(folder.to_owned()))?.replace('-', "_");
    let root = PathBuf::from(metadata["target_directory"].as_str().unwrap_or("target"));

    run("cargo", ["build", "--release", "--target", target], folder, INSTALL)?;
    built("cargo", root.join(target).join("release").join(format!("{library}.wasm")))
}

/// The target to build for: the one without WASI if it is there, because its components need less.
fn rust_target(folder: &Path) -> Result<&'static str, BuildError> {
    const INSTALL: &str = "https://rustup.rs installs Rust";
    // The compiler that cargo will use.
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let sysroot = said(&rustc, ["--print", "sysroot"], folder, INSTALL)?;
    let rustlib = Path::new(sysroot.trim()).join("lib/rustlib");
    let version = said(&rustc, ["-vV"], folder, INSTALL)?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let linker = "wasm-component-ld";
    if !rustlib.join(host).join("bin").join(linker).is_file() && !is_program(linker) {
        return Err(BuildError::NoLinker);
    }
    let targets = ["wasm32-unknown-unknown", "wasm32-wasip2"];
    let found = targets.into_iter().find(|target| rustlib.join(target).join("lib").is_dir());
    found.ok_or(BuildError::NoTarget)
}

/// Any other language: what the project's own script says.
fn script(folder: &Path, scratch: &Path) -> Result<PathBuf, Failure> {
    // The script would say less clearly that its tools are not there.
    let needs = [
        ("package.json", "npm", "https://nodejs.org installs Node.js with npm"),
        ("requirements.txt", "python3", "https://python.org installs Python; it needs its module venv as well"),
    ];
    for (mark, program, install) in needs {
        if folder.join(mark).is_file() && !is_program(program) {
            return Err(BuildError::Missing { program: program.to_owned(), install }.into());
        }
    }
    let made = scratch.join("plugin.wasm");
    run("bash", [OsStr::new("build"), made.as_os_str()], folder, "the project's script `build` is one for bash")?;
    built("the script `build`", made)
}

/// Runs a program that speaks for itself.
fn run(
    program: &str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    folder: &Path,
    install: &'static str,
) -> Result<(), BuildError> {
    let status = command(program, arguments, folder).status().map_err(|error| not_run(program, install, error))?;
    if status.success() { Ok(()) } else { Err(BuildError::Failed { program: program.to_owned() }) }
}

/// Runs a program for what it says on stdout.
fn said(
    program: &str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    folder: &Path,
    install: &'static str,
) -> Result<String, BuildError> {
    let output = command(program, arguments, folder)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| not_run(program, install, error))?;
    if !output.status.success() {
        return Err(BuildError::Failed { program: program.to_owned() });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn command(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command
}

fn not_run(program: &str, install: &'static str, source: std::io::Error) -> BuildError {
    let program = program.to_owned();
    if source.kind() == std::io::ErrorKind::NotFound {
        BuildError::Missing { program, install }
    } else {
        BuildError::Run { program, source }
    }
}

fn built(program: &str, file: PathBuf) -> Result<PathBuf, Failure> {
    if file.is_file() { Ok(file) } else { Err(BuildError::NoComponent { program: program.to_owned(), file }.into()) }
}

/// Whether a program is on the search path.
fn is_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}
