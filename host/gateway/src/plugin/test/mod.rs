//! What an author's commands do without a gateway and without a toolchain: components from `plugins/dist` stand for built ones.

mod projects;
mod signing;
mod trials;

use std::path::{Path, PathBuf};

use portcullis_policy::Compiler;
use serde_json::json;
use tempfile::TempDir;

use super::offline::Workshop;
use super::{inspect, new, template};

/// The component of a plugin that ships.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/dist").join(format!("{name}.wasm"))
}

/// Compiles what is trusted, and keeps nothing.
fn workshop() -> Workshop {
    Workshop { compiler: Compiler::InProcess, cache: None }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn a_component_says_what_it_is_and_what_it_needs() {
    let mut found = inspect::look(&shipped("grace-delete"), workshop()).await.unwrap();
    // These change with every build.
    for (field, value) in
        [("digest", json!("sha256:<digest>")), ("size", json!(1_234_567)), ("compileMillis", json!(7))]
    {
        assert!(!found[field].is_null());
        found[field] = value;
    }
    found["tableElements"] = json!(77);
    expect_test::expect_file!["golden/inspect.txt"].assert_eq(&format!("{}\n\n{found:#}\n", inspect::sheet(&found)));
}

#[tokio::test]
async fn what_no_gateway_takes_says_why() {
    let folder = folder();
    let file = folder.path().join("x.wasm");
    let check = async |bytes: &[u8], code: &str| {
        std::fs::write(&file, bytes).unwrap();
        let error = inspect::look(&file, workshop()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("no gateway takes this component: {code}"));
        assert!(error.source().is_some_and(|why| why.to_string().len() > 20));
    };
    check(b"garbage", "not_a_component").await;
    check(b"\0asm\x01\0\0\0", "not_a_component").await;
    check(b"\0asm\x0d\0\x01\0", "no_exports").await;
    let nowhere = inspect::look(&folder.path().join("nowhere"), workshop()).await.unwrap_err();
    assert!(nowhere.to_string().starts_with("cannot read "), "{nowhere}");
}

#[test]
fn the_sdk_of_a_project_is_the_repositorys() {
    let read = |path: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let table = |path: &str| read(path).parse::<toml::Table>().unwrap();
    let (workspace, sdk) = (table("../../Cargo.toml"), table("../../plugins/sdk/Cargo.toml"));
    let standalone = table("templates/sdk.Cargo.toml");
    let own = sdk["dependencies"].as_table().unwrap();
    assert_eq!(
        own.keys().collect::<Vec<_>>(),
        standalone["dependencies"].as_table().unwrap().keys().collect::<Vec<_>>()
    );
    for (name, dependency) in standalone["dependencies"].as_table().unwrap() {
        let pinned = &workspace["workspace"]["dependencies"][name];
        let version = |value: &toml::Value| value.get("version").unwrap_or(value).as_str().unwrap().to_owned();
        assert_eq!(version(pinned), version(dependency), "{name}");
        assert_eq!(pinned.get("features"), dependency.get("features"), "{name}");
    }
    for field in ["edition", "rust-version", "license", "version"] {
        assert_eq!(standalone["package"][field], workspace["workspace"]["package"][field], "{field}");
    }
}
