//! What lies in `plugins/dist` is what the sources of this checkout give, and a difference would be seen.
//!
//! The tests build nothing: they compare hashes. If the first one fails, run `plugins/build` and commit `plugins/dist`.

use std::fs;
use std::path::Path;

use portcullis_manifest::{Manifest, Mismatch, SHIPPED, check_bytes, check_dist, dist_folder};
use tempfile::TempDir;

#[test]
fn the_shipped_components_match_their_manifest_and_their_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mismatches = check_dist(&root).expect("plugins/dist has a manifest");
    assert_eq!(mismatches, [], "run plugins/build and commit plugins/dist");
}

#[test]
fn a_change_of_any_source_is_seen() {
    for (path, plugins) in [
        ("plugins/grace-delete/src/lib.rs", ["grace-delete"].as_slice()),
        ("plugins/rate-ladder/Cargo.toml", &["rate-ladder"]),
        ("plugins/sdk/src/lib.rs", &SHIPPED),
        ("wit/0.1.0/types.wit", &SHIPPED),
        ("wit/0.1.1/http.wit", &SHIPPED),
    ] {
        let checkout = checkout();
        write(checkout.path(), path, "changed");
        let expected = plugins.iter().map(|plugin| Mismatch::Sources { plugin: (*plugin).to_owned() });
        assert_eq!(check_dist(checkout.path()).expect("a manifest"), expected.collect::<Vec<_>>(), "{path}");
    }
}

#[test]
fn of_the_lock_file_and_the_workspace_only_what_is_used_counts() {
    let checkout = checkout();
    let root = checkout.path();
    write(root, "Cargo.lock", &lock().replace("\"cc\"", "\"dd\""));
    write(root, "Cargo.toml", &WORKSPACE.replace("redb = \"4\"", "redb = \"5\""));
    assert_eq!(check_dist(root).expect("a manifest"), []);

    write(root, "Cargo.lock", &lock().replace("\"bb\"", "\"dd\""));
    assert_eq!(check_dist(root).expect("a manifest").len(), SHIPPED.len());
    write(root, "Cargo.lock", &lock());
    write(root, "Cargo.toml", &WORKSPACE.replace("\"fat\"", "\"off\""));
    assert_eq!(check_dist(root).expect("a manifest").len(), SHIPPED.len());
    write(root, "Cargo.toml", &WORKSPACE.replace("serde = \"1\"", "serde = \"1.1\""));
    assert_eq!(check_dist(root).expect("a manifest").len(), SHIPPED.len());
}

#[test]
fn another_file_is_seen() {
    let checkout = checkout();
    write(checkout.path(), "plugins/dist/rate-ladder.wasm", "other bytes");
    let expected = Mismatch::File { plugin: "rate-ladder".to_owned() };
    assert_eq!(check_dist(checkout.path()).expect("a manifest"), [expected]);
}

#[test]
fn bytes_are_only_compared_with_the_same_toolchain() {
    let checkout = checkout();
    let root = checkout.path();
    let dist = dist_folder(root);
    assert_eq!(check_bytes(root, &dist, "rustc 1").expect("a manifest"), Some(Vec::new()));
    write(root, "plugins/dist/grace-delete.wasm", "other bytes");
    let expected = Mismatch::Bytes { plugin: "grace-delete".to_owned() };
    assert_eq!(check_bytes(root, &dist, "rustc 1").expect("a manifest"), Some(vec![expected]));
    assert_eq!(check_bytes(root, &dist, "rustc 2").expect("a manifest"), None);
}

/// What the lock file holds besides the plugins.
const OTHERS: &str = r#"
    [[package]]
    name = "redb"
    version = "4.0.0"
    checksum = "cc"

    [[package]]
    name = "serde"
    version = "1.0.0"
    checksum = "bb"
"#;

/// A lock file in which every plugin needs `serde`.
fn lock() -> String {
    let plugin = |name: &&str| {
        format!("[[package]]\nname = \"portcullis-{name}\"\nversion = \"0.1.0\"\ndependencies = [\"serde\"]\n")
    };
    SHIPPED.iter().map(plugin).chain([OTHERS.to_owned()]).collect()
}

const WORKSPACE: &str = r#"
    [workspace.dependencies]
    redb = "4"
    serde = "1"

    [profile.plugin]
    lto = "fat"
"#;

/// A small checkout whose components match its sources.
fn checkout() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path();
    for package in SHIPPED.into_iter().chain(["sdk"]) {
        write(root, &format!("plugins/{package}/Cargo.toml"), "the manifest");
        write(root, &format!("plugins/{package}/src/lib.rs"), "the code");
    }
    for plugin in SHIPPED {
        write(root, &format!("plugins/dist/{plugin}.wasm"), "the component");
    }
    write(root, "wit/0.1.0/types.wit", "the contract");
    write(root, "wit/0.1.1/http.wit", "more of it");
    write(root, "Cargo.lock", &lock());
    write(root, "Cargo.toml", WORKSPACE);
    let dist = dist_folder(root);
    Manifest::describe(root, &dist, "rustc 1").and_then(|manifest| manifest.store(&dist)).expect("a manifest");
    folder
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder");
    fs::write(path, text).expect("a file");
}
