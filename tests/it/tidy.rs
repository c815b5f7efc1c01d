//! What the sources hold to: the floors of the house, who may name what, and that nothing public is undocumented.
//!
//! These rules are read from the files, so that none of them needs a build of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use portcullis_core::{Capability, Refusal};
use portcullis_http::route_table;
use toml::Table;

/// The floor of every crate in `host/`; dependencies point down only.
const FLOORS: [(&str, u8); 10] = [
    ("core", 0),
    ("net", 0),
    ("qr", 0),
    ("store", 1),
    ("policy", 1),
    ("engine", 1),
    ("webhook", 1),
    ("service", 2),
    ("http", 3),
    ("gateway", 4),
];

/// Which crates alone may name a dependency.
const NAMED_BY: [(&str, &[&str]); 4] =
    [("redb", &["store"]), ("wasmtime", &["policy"]), ("hyper", &["http", "net"]), ("whatsapp", &["engine"])];

/// The most lines that a file has.
const MAX_LINES: usize = 520;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust file under these folders, as a path from the root, with its text.
fn sources(folders: &[&str]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

fn all_sources() -> BTreeMap<String, String> {
    sources(&["host", "plugins", "tests"])
}

fn manifest(name: &str) -> Table {
    read(&format!("host/{name}/Cargo.toml")).parse().unwrap()
}

/// The names in a section of a manifest.
fn dependencies(manifest: &Table, section: &str) -> Vec<String> {
    manifest.get(section).and_then(|section| section.as_table()).into_iter().flat_map(Table::keys).cloned().collect()
}

fn host_crates() -> BTreeSet<String> {
    let entries = fs::read_dir(root().join("host")).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().is_dir());
    folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn floor(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(known, _)| *known == name).map(|(_, floor)| *floor)
}

#[test]
fn every_crate_of_the_house_has_a_floor() {
    let floors = FLOORS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(host_crates(), floors);
    for name in host_crates() {
        let package = manifest(&name)["package"]["name"].as_str().unwrap().to_owned();
        assert_eq!(package, format!("portcullis-{name}"));
    }
}

#[test]
fn dependencies_point_down() {
    for (name, from) in FLOORS {
        let manifest = manifest(name);
        for section in ["dependencies", "build-dependencies"] {
            for dependency in dependencies(&manifest, section) {
                let Some(to) = dependency.strip_prefix("portcullis-") else { continue };
                let to = floor(to).unwrap_or_else(|| panic!("{name} depends on {to}, which is outside of the house"));
                assert!(to < from, "{name} depends on {dependency}, which is not below it");
            }
        }
    }
}

#[test]
fn a_dependency_is_named_by_its_crate_alone() {
    for name in host_crates() {
        let manifest = manifest(&name);
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for dependency in dependencies(&manifest, section) {
                for (named, by) in NAMED_BY {
                    let is_named = dependency == named || dependency.starts_with(&format!("{named}-"));
                    assert!(!is_named || by.contains(&name.as_str()), "{name} names {dependency}");
                }
            }
        }
    }
}

#[test]
fn what_belongs_to_one_crate_is_nowhere_else() {
    let rules = [
        ("begin_write", "host/store/"),
        ("std::env::", "host/gateway/"),
        ("TcpStream::connect", "host/net/"),
        ("unsafe {", "host/policy/src/trusted.rs"),
    ];
    for (path, text) in sources(&["host"]) {
        let is_test = ["/tests/", "/benches/", "/test/"].iter().any(|folder| path.contains(folder));
        for (word, place) in rules {
            assert!(is_test || path.starts_with(place) || !text.contains(word), "{path} has {word}");
        }
    }
}

/// Nothing outside of the lifecycle moves a session.
#[test]
fn only_the_lifecycle_moves_a_session() {
    for (path, text) in sources(&["host"]) {
        let is_test = ["/test/", "/test.rs", "/tests/", "/benches/"].iter().any(|part| path.contains(part));
        if is_test || path.starts_with("host/core/src/lifecycle/") {
            continue;
        }
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for field in [".status = Status::", ".intent = Intent::"] {
            assert!(!text.contains(field), "{path} has {field}");
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_is_short_enough_to_read() {
    for (path, text) in all_sources() {
        assert!(text.starts_with("//! "), "{path} does not begin with what it is");
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{path} has {lines} lines");
        assert!(!path.ends_with("utils.rs") && !path.ends_with("helpers.rs"), "{path} is named for nothing");
        assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{path} does not end with one line break");
        for (number, line) in text.lines().enumerate() {
            assert!(line.trim_end() == line, "{path}:{} ends in white space", number + 1);
        }
    }
}

#[test]
fn tests_are_all_run_and_never_wait() {
    // Put together here, so that this file does not hold what it looks for.
    let banned = [["#[", "ignore"], ["#[", "should_panic"], ["thread::", "sleep"]].map(|parts| parts.concat());
    let waits = ["time::", "sleep("].concat();
    for (path, text) in all_sources() {
        for banned in &banned {
            assert!(!text.contains(banned.as_str()), "{path} has {banned}");
        }
        let is_test = path.starts_with("tests/") || path.contains("/test/") || path.contains("/tests/");
        // Long runs and benchmarks live in real time, as their gateways do; what they assert is no time.
        let lives = ["tests/src/", "tests/benches/"].iter().any(|folder| path.starts_with(folder));
        let may_wait = lives || path == "tests/it/gateway.rs";
        assert!(!is_test || may_wait || !text.contains(&waits), "{path} waits");
        for after in text.split("#[cfg(test)]\n").skip(1) {
            let declared = after.lines().map(str::trim).find(|line| !line.starts_with("#["));
            let module = declared.and_then(|line| line.rsplit_once("mod ")).map(|(_, name)| name);
            let name = module.map(|name| name.trim_end_matches([';', ' ', '{']));
            assert!(name.is_none_or(|name| name == "test"), "{path} calls a test module {name:?}");
        }
    }
}

/// The string literals in every `fn code` of the house: the stable codes.
fn codes() -> BTreeSet<String> {
    let mut codes: BTreeSet<String> = Refusal::ALL.iter().map(|refusal| refusal.code().to_owned()).collect();
    for (path, text) in sources(&["host/core/src", "host/policy/src", "host/service/src"]) {
        for after in text.split("fn code(").skip(1) {
            // A method of an implementation ends at its own closing brace.
            let body = after.split("\n    }\n").next().unwrap_or_default();
            codes.extend(literals(body));
        }
        for after in text.split("const CODE_").skip(1) {
            let line = after.lines().next().unwrap_or_default();
            codes.extend(literals(line));
        }
        assert!(!path.contains("/http/"));
    }
    codes
}

fn literals(text: &str) -> impl Iterator<Item = String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned)
}

#[test]
fn every_stable_code_is_documented() {
    let documented = read("docs/errors.md");
    let codes = codes();
    assert!(codes.len() > 45, "the codes were not found: {codes:?}");
    for code in codes {
        let is_word = code.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(is_word, "{code:?} is no code");
        assert!(documented.contains(&format!("`{code}`")), "docs/errors.md does not explain `{code}`");
    }
}

#[test]
fn every_code_of_the_envelope_is_documented() {
    let documented = read("docs/errors.md");
    let mut found = BTreeSet::new();
    for (path, text) in sources(&["host/http/src"]) {
        if path.starts_with("host/http/src/dialect/evolution/") {
            // Its envelope has the reason of the status where others have a code.
            continue;
        }
        let words: Vec<_> = text.split_whitespace().collect();
        for pair in words.windows(2) {
            let is_status = pair[0].contains("(StatusCode::") && pair[0].ends_with(',') && !pair[0].contains("text(");
            let code = pair[1].strip_prefix('"').and_then(|code| code.split('"').next());
            // Evolution has no codes: what stands there in its dialect is a sentence.
            let is_word = |code: &&str| code.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if let (true, Some(code)) = (is_status, code.filter(is_word)) {
                found.insert(code.to_owned());
            }
        }
    }
    assert!(found.len() >= 10, "the codes were not found: {found:?}");
    for code in found {
        assert!(documented.contains(&format!("`{code}`")), "docs/errors.md does not explain `{code}`");
    }
}

#[test]
fn every_route_is_documented_with_what_it_needs() {
    let documented = read("docs/api.md");
    for route in route_table() {
        let path = route.path.strip_prefix("/api/v1").unwrap_or(&route.path);
        let (path, action) =
            path.split_once(':').map_or((path, String::new()), |(path, act)| (path, format!(":{act}")));
        let names = |line: &&str| {
            let mut spans = line.split('`').skip(1).step_by(2);
            let is_path = |span: &str| {
                let named = span.trim_start_matches(|c: char| c.is_ascii_uppercase() || c == ' ');
                let named = named.split([':', '?']).next().unwrap_or_default();
                named == path
            };
            line.contains(&route.method) && line.contains(&action) && spans.any(is_path)
        };
        let what = format!("{} {}", route.method, route.path);
        let line = documented.lines().find(names).unwrap_or_else(|| panic!("docs/api.md does not explain {what}"));
        let needed = match route.operation.row().capability {
            Capability::Operate => "operator",
            capability => capability.name(),
        };
        let said = line.split(" | ").nth(1);
        assert!(said.is_none_or(|said| said == needed), "docs/api.md says that {what} needs {said:?}");
    }
}
