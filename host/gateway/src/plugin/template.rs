//! The projects that `portcullis plugin new` writes, as they were built into the program.
//!
//! They are the examples in `plugins/examples`, which the gateway's own tests build and ask: one rule, in every language.
//! Nothing of Portcullis is on a registry, so each project brings the contract with it, and a Rust project the SDK too.

use super::args::Language;

/// A file of a project: its path and what is in it.
type File = (&'static str, &'static [u8]);

macro_rules! files {
    ($from:literal: $($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../", $from, "/", $path)))),*]
    };
}

const SHARED: &[File] = files!("templates":
    "fixtures/keeps-a-session-with-the-label.json",
    "fixtures/lets-a-session-go-whose-hold-is-lifted.json",
    "fixtures/lets-other-sessions-go.json",
    "fixtures/looks-for-the-label-of-its-settings.json",
    "fixtures/refuses-a-label-without-a-name.json",
);

const CONTRACT: &[File] = files!("../../wit/0.1.0": "host.wit", "plugin.wit", "types.wit", "worlds.wit");

/// What was added to it, which the SDK has a function for.
const ADDED: &[File] = files!("../../wit/0.1.1": "http.wit");

const SDK: &[File] = files!("../../plugins/sdk/src":
    "bindings.rs", "context.rs", "decision.rs", "duration.rs", "export.rs", "form.rs", "host.rs", "lib.rs", "sample.rs", "traits.rs",
);

/// The SDK's manifest outside of the repository's workspace.
const SDK_MANIFEST: &[u8] = include_bytes!("../../templates/sdk.Cargo.toml");

const RUST: &[File] = files!("templates/rust": ".cargo/config.toml", "Cargo.toml");
const RUST_SOURCE: &[File] = files!("../../plugins/examples/rust": "src/lib.rs", "src/settings.schema.json");
const JS: &[File] = files!("../../plugins/examples/js": "build", "legal_hold.js", "package.json", "wit/plugin.wit");
const PYTHON: &[File] =
    files!("../../plugins/examples/python": "build", "legal_hold.py", "requirements.txt", "wit/plugin.wit");
const C: &[File] = files!("../../plugins/examples/c":
    "build", "generated/plugin.c", "generated/plugin.h", "generated/plugin_component_type.o", "json.c", "json.h",
    "legal_hold.c", "requirements.txt", "wit/plugin.wit",
);

const GITIGNORE: &[u8] = include_bytes!("../../templates/gitignore");
const README: &str = include_str!("../../templates/README.md");
const RUST_README: &str = include_str!("../../templates/rust/README.md");
const JS_README: &str = include_str!("../../../../plugins/examples/js/README.md");
const PYTHON_README: &str = include_str!("../../../../plugins/examples/python/README.md");
const C_README: &str = include_str!("../../../../plugins/examples/c/README.md");

/// What an example says about its place in the repository, and what a project says instead.
pub(super) const MOVES: [(&str, &str); 6] = [
    (
        "The same rule lies beside this folder in JavaScript, Python and C; a test asks all four the same questions.",
        "A gate is a pure function of its context, its operation and what it reads: the same inputs give the same answer, years later.",
    ),
    (
        "Description::new(\"legal-hold-rust\", \"1.0.0\", ",
        "Description::new(env!(\"CARGO_PKG_NAME\"), env!(\"CARGO_PKG_VERSION\"), ",
    ),
    (
        "# The contract, as this repository has it. A project of its own keeps a copy.\n\
         if [[ -d ../../../wit/0.1.0 ]]; then\n    mkdir -p wit/deps/policy\n    cp ../../../wit/0.1.0/*.wit wit/deps/policy/\nfi\n",
        "",
    ),
    ("    mkdir -p wit/deps/policy && cp ../../../wit/0.1.0/*.wit wit/deps/policy/\n", ""),
    // Only the name that a component gives itself ends in its language.
    ("legal-hold-{language}", "{name}"),
    ("my-policy", "{name}"),
];

/// All files of a project in `language` for a plugin called `name`, with paths from its root.
pub(super) fn files(language: Language, name: &str) -> Vec<(String, Vec<u8>)> {
    let own = |path: &str, bytes: &[u8]| (path.to_owned(), adapted(bytes, language, name));
    let brought = |folder: &str, files: &[File]| -> Vec<(String, Vec<u8>)> {
        files.iter().map(|(path, bytes)| (format!("{folder}/{path}"), bytes.to_vec())).collect()
    };
    let (sources, notes): (&[&[File]], _) = match language {
        Language::Rust => (&[RUST, RUST_SOURCE], RUST_README),
        Language::Js => (&[JS], JS_README),
        Language::Python => (&[PYTHON], PYTHON_README),
        Language::C => (&[C], C_README),
    };
    let mut all: Vec<_> =
        sources.iter().chain([&SHARED]).flat_map(|files| files.iter()).map(|(path, bytes)| own(path, bytes)).collect();
    all.push(own("README.md", format!("{README}\n#{notes}").as_bytes()));
    all.push(own(".gitignore", GITIGNORE));
    match language {
        // The SDK finds the contract where it lies in the repository, too.
        Language::Rust => {
            all.extend(brought(&format!("portcullis/wit/{}", portcullis_policy::CONTRACT), CONTRACT));
            all.extend(brought("portcullis/wit/0.1.1", ADDED));
            all.extend(brought("portcullis/plugins/sdk/src", SDK));
            all.push(("portcullis/plugins/sdk/Cargo.toml".to_owned(), SDK_MANIFEST.to_vec()));
        }
        Language::Js | Language::Python | Language::C => all.extend(brought("wit/deps/policy", CONTRACT)),
    }
    all.sort();
    all
}

/// An example's file as it is outside of the repository.
fn adapted(bytes: &[u8], language: Language, name: &str) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(bytes) else { return bytes.to_vec() };
    let mut text = text.to_owned();
    for (from, to) in MOVES {
        text = text.replace(&from.replace("{language}", language.word()), &to.replace("{name}", name));
    }
    text.into_bytes()
}
