//! `portcullis plugin new`: a project that builds, tests and can be put to work before a line of it is changed.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::args::{Language, New};
use super::template;
use crate::{Failure, terminal};

/// Why no project was written.
#[derive(Debug, thiserror::Error)]
enum NewError {
    /// Something is there already.
    #[error("{} is there already, and not empty; choose another folder with --dir", .0.display())]
    Occupied(PathBuf),
    /// A file could not be written.
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
}

/// Writes a project and says what to do next.
pub(super) fn new(arguments: &New) -> Result<(), Failure> {
    let folder = arguments.dir.clone().unwrap_or_else(|| PathBuf::from(&arguments.name));
    let written = write(&folder, &arguments.name, arguments.lang)?;
    terminal::say(&format!("{written} files in {}; next:", folder.display()));
    terminal::say(&format!("  cd {}", folder.display()));
    for (command, what) in next(arguments.lang) {
        terminal::say(&format!("  {command:<26}  # {what}"));
    }
    Ok(())
}

/// A name that a component may give itself, and that is a package's name in every language as well.
pub(super) fn name(text: &str) -> Result<String, String> {
    let in_alphabet = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
    if !begins || text.len() > 64 || !text.chars().all(in_alphabet) || text.ends_with('-') {
        return Err(
            "a plugin's name has 1 to 64 characters of a-z, 0-9 and '-', and begins with a letter, such as keep-vip"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// Writes the files of a project into a folder that is new or empty; says how many there are.
pub(super) fn write(folder: &Path, name: &str, language: Language) -> Result<usize, Failure> {
    let occupied = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if occupied || folder.is_file() {
        return Err(NewError::Occupied(folder.to_owned()).into());
    }
    let files = template::files(language, name);
    let count = files.len();
    for (path, bytes) in files {
        let path = folder.join(path);
        // The one program among them.
        let mode = if path.ends_with("build") { 0o755 } else { 0o644 };
        let make = |path: &Path| {
            path.parent().map(std::fs::create_dir_all).transpose()?;
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true).mode(mode).open(path)?.write_all(&bytes)
        };
        make(&path).map_err(|error| NewError::Write(path.clone(), error))?;
    }
    Ok(count)
}

/// The commands to go on with, and what they are for.
fn next(language: Language) -> Vec<(&'static str, &'static str)> {
    let mut next = match language {
        Language::Rust => vec![("cargo test", "the unit tests, natively")],
        Language::Js | Language::Python | Language::C => vec![],
    };
    next.push(("portcullis plugin build", "the component, in dist"));
    next.push(("portcullis plugin test", "what the fixtures say, asked of the component"));
    next
}
