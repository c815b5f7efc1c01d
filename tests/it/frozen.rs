//! Released versions of the policy contract never change: plugins that were built against them are out there.

use std::fmt::Write as _;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};

/// The SHA-256 of every released folder: over each file's name, length and bytes, in the order of the names.
/// A new version is a new row; a row that has to change is a change that plugins cannot survive, and belongs into `wit/PENDING_CHANGES.md`.
const RELEASED: &[(&str, &str)] = &[
    ("0.1.0", "4a17840b2349bd17092ce94221ac3a86d7118b8f7ddd0e3541b202fcb3004ecc"),
    ("0.1.1", "95d1da6eb045a92a571c14a22d1e024b17296ea55c2002ef982df5428e445ce8"),
];

#[test]
fn released_versions_of_the_contract_are_as_they_were() {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    for (version, expected) in RELEASED {
        let mut files: Vec<_> =
            std::fs::read_dir(wit.join(version)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let mut hash = Context::new(&SHA256);
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            hash.update(file.file_name().unwrap().as_encoded_bytes());
            hash.update(&u64::try_from(bytes.len()).unwrap().to_be_bytes());
            hash.update(&bytes);
        }
        let found = hash.finish().as_ref().iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
        assert_eq!(found, *expected, "wit/{version} has changed");
    }
    // What has a folder is released.
    let folders = std::fs::read_dir(&wit).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.path().is_dir());
    let mut names: Vec<_> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, RELEASED.iter().map(|(version, _)| (*version).to_owned()).collect::<Vec<_>>());
}
