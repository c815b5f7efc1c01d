//! `portcullis plugin new`.

use std::collections::BTreeSet;

use super::super::args::Language;
use super::*;

const LANGUAGES: [Language; 4] = [Language::Rust, Language::Js, Language::Python, Language::C];

/// The files below a folder of the repository, with paths from there.
fn listed(path: &str) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    let mut found = BTreeSet::new();
    let mut open = vec![root.clone()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if [".venv", "node_modules", "__pycache__", "deps"].contains(&name.as_str()) || name.ends_with(".wasm") {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(&root).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found
}

#[test]
fn a_project_has_these_files() {
    let mut lists = String::new();
    for language in LANGUAGES {
        lists.push_str(&format!("=== {} ===\n", language.word()));
        for (path, _) in template::files(language, "keep-court") {
            lists.push_str(&format!("{path}\n"));
        }
    }
    expect_test::expect_file!["golden/new.txt"].assert_eq(&lists);
}

#[test]
fn nothing_of_what_is_brought_is_left_out() {
    let has = |language: Language| -> BTreeSet<String> {
        template::files(language, "keep-court").into_iter().map(|(path, _)| path).collect()
    };
    let check = |language, from: &str, to: &str| {
        let missing: Vec<_> = listed(from)
            .into_iter()
            .map(|path| format!("{to}{path}"))
            .filter(|path| !has(language).contains(path))
            .collect();
        assert!(missing.is_empty(), "{} is without {missing:?}", language.word());
    };
    check(Language::Rust, "plugins/sdk/src", "portcullis/plugins/sdk/src/");
    check(Language::Rust, "wit/0.1.0", "portcullis/wit/0.1.0/");
    check(Language::Rust, "wit/0.1.1", "portcullis/wit/0.1.1/");
    check(Language::Rust, "plugins/examples/rust/src", "src/");
    for language in [Language::Js, Language::Python, Language::C] {
        check(language, "wit/0.1.0", "wit/deps/policy/");
        check(language, &format!("plugins/examples/{}", language.word()), "");
    }
}

#[test]
fn a_project_has_its_own_name_and_nothing_of_the_repositorys() {
    let mut moved = BTreeSet::new();
    for language in LANGUAGES {
        let mut named = 0;
        for (path, bytes) in template::files(language, "keep-court") {
            let Ok(text) = String::from_utf8(bytes) else { continue };
            named += text.matches("keep-court").count();
            // The SDK's own path to the contract is right in a project as well.
            if path.starts_with("portcullis/") {
                continue;
            }
            for word in ["my-policy", "../../../", "lies beside this folder"] {
                assert!(!text.contains(word), "{path} in {} has {word}", language.word());
            }
            assert!(!text.contains(&format!("legal-hold-{}", language.word())), "{path}");
        }
        assert!(named >= 3, "{} is not named", language.word());
        let examples = format!("plugins/examples/{}", language.word());
        for path in listed(&examples) {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(&examples).join(path);
            let Ok(text) = std::fs::read_to_string(file) else { continue };
            let has = |(from, _): &&(&str, &str)| text.contains(&from.replace("{language}", language.word()));
            moved.extend(template::MOVES.iter().filter(has).map(|(from, _)| *from));
        }
    }
    // Each of them still stands for something; the last one is about the templates' own files.
    assert_eq!(moved.len(), template::MOVES.len() - 1, "{moved:?}");
}

#[test]
fn a_project_is_written_only_where_nothing_is() {
    let folder = folder();
    let project = folder.path().join("keep-court");
    let written = new::write(&project, "keep-court", Language::Js).unwrap();
    assert_eq!(written, template::files(Language::Js, "keep-court").len());
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(project.join("build")).unwrap().permissions());
    assert_eq!(mode & 0o111, 0o111, "the script can be run");
    let before = std::fs::read(project.join("package.json")).unwrap();
    let again = new::write(&project, "other", Language::Js).unwrap_err();
    assert!(
        again.to_string().ends_with("is there already, and not empty; choose another folder with --dir"),
        "{again}"
    );
    assert_eq!(std::fs::read(project.join("package.json")).unwrap(), before);
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    new::write(&file, "other", Language::Js).unwrap_err();
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    new::write(&empty, "other", Language::Rust).unwrap();
}

#[test]
fn a_name_is_one_in_every_language() {
    for good in ["a", "keep-court", "k9", &"a".repeat(64)] {
        assert_eq!(new::name(good).as_deref(), Ok(good));
    }
    for bad in ["", "Keep", "9k", "-a", "a-", "a_b", "a.b", "a/b", "é", &"a".repeat(65)] {
        let why = new::name(bad).unwrap_err();
        assert!(why.contains("1 to 64 characters"), "{bad}: {why}");
    }
}
