//! What `portcullis plugin` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum Plugin {
    /// Write a new plugin: a project that builds, with a small policy, settings, a unit test and fixtures.
    New(New),
    /// Build a project's component into its folder `dist`, and check it as the gateway does at an upload.
    Build(Build),
    /// Ask a built component what the fixtures say, offline and within the gateway's own bounds.
    Test(Test),
    /// Say what a component is, what it needs and what it says of itself.
    Inspect(Inspect),
    /// Make a key that signs plugins, and print the public key that belongs to it.
    Keygen(Keygen),
    /// Sign a component; the signature is left beside it.
    Sign(Sign),
    /// Upload a component to a running gateway, and bind it if asked to.
    Push(Push),
    /// List the plugins of a running gateway.
    List {
        /// The organisation to act in.
        #[arg(long)]
        org: Option<String>,
    },
}

/// Who made a component, as a running gateway knows them.
#[derive(Debug, Subcommand)]
pub(crate) enum Publisher {
    /// Let the signatures of a key count.
    Create {
        /// What people call whoever has the key.
        name: String,
        /// The public key, as `portcullis plugin keygen` printed it.
        #[arg(long)]
        public_key: String,
        /// The organisation to act in.
        #[arg(long)]
        org: Option<String>,
    },
    /// List the publishers.
    List {
        /// The organisation to act in.
        #[arg(long)]
        org: Option<String>,
    },
    /// Let the signatures of a publisher no longer count.
    Delete {
        /// The publisher.
        id: String,
        /// The organisation to act in.
        #[arg(long)]
        org: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct New {
    /// The plugin's name: 1 to 64 characters of a-z, 0-9 and '-', beginning with a letter.
    #[arg(value_parser = super::new::name)]
    pub(crate) name: String,
    /// The language to write it in.
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    pub(crate) lang: Language,
    /// Where to put it; a folder of the plugin's name unless told otherwise.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
}

/// The languages that there is a project for. Any other that makes components can be used as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// Small and fast; the only one with an SDK of its own.
    Rust,
    /// JavaScript, with componentize-qjs.
    Js,
    /// Python, with componentize-py.
    Python,
    /// C, with zig and wit-bindgen.
    C,
}

impl Language {
    /// The word on the command line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Js => "js",
            Self::Python => "python",
            Self::C => "c",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The project.
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// A project, whose component was built before, or a component.
    #[arg(default_value = ".")]
    pub(crate) target: PathBuf,
    /// Where the fixtures are; `fixtures` in the project, or beside the component, unless told otherwise.
    #[arg(long)]
    pub(crate) fixtures: Option<PathBuf>,
    /// Write what the component answers into the fixtures as what is expected from now on.
    #[arg(long)]
    pub(crate) bless: bool,
    /// Make fixtures of a recorded decision (the answer to `GET /api/v1/decisions/{id}`), and test only those.
    #[arg(long, value_name = "FILE")]
    pub(crate) from_decision: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The component.
    pub(crate) file: PathBuf,
    /// As a JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// Where to write the key; only its owner can read it.
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// The component.
    pub(crate) file: PathBuf,
    /// The key, from `portcullis plugin keygen`. Not to be mixed up with `--key`, which opens the gateway.
    #[arg(long, value_name = "KEYFILE")]
    pub(crate) with: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The component.
    pub(crate) file: PathBuf,
    /// The organisation to act in; needed with the operator's key unless the plugin is for the whole platform.
    #[arg(long)]
    pub(crate) org: Option<String>,
    /// Sign it with this key. Without it, a signature that lies beside the component is sent along.
    #[arg(long, value_name = "KEYFILE")]
    pub(crate) sign: Option<PathBuf>,
    /// Who signs, as the gateway knows them; found by the public key unless told.
    #[arg(long)]
    pub(crate) publisher: Option<String>,
    /// How much the plugin may use; JavaScript and Python need `large`.
    #[arg(long, value_enum)]
    pub(crate) class: Option<Class>,
    /// Put it to work: its one binding gets this version, and if there is none, one is made.
    #[arg(long)]
    pub(crate) bind: bool,
    #[command(flatten)]
    pub(crate) binding: Binding,
}

/// What a binding is to be; what is not said stays as it is, or gets its default.
#[derive(Debug, Args)]
pub(crate) struct Binding {
    /// Whether its answers count. A new binding only monitors unless told otherwise.
    #[arg(long, value_enum, requires = "bind")]
    pub(crate) mode: Option<Mode>,
    /// Its settings, a file with a JSON document.
    #[arg(long, value_name = "FILE", requires = "bind")]
    pub(crate) settings: Option<PathBuf>,
    /// What it may use of what it wants: kv, sessions, secrets, http, lifecycle.
    #[arg(long, value_delimiter = ',', requires = "bind")]
    pub(crate) grant: Option<Vec<String>>,
    /// To which hosts it may send requests, with the grant http: api.example.org, or *.example.org for all below one.
    #[arg(long, value_name = "HOST", value_delimiter = ',', requires = "bind")]
    pub(crate) http_host: Option<Vec<String>>,
    /// What stands for an answer that did not come.
    #[arg(long, value_enum, requires = "bind")]
    pub(crate) on_failure: Option<OnFailure>,
    /// Which binding gets the version, if the plugin has several.
    #[arg(long, value_name = "ID", requires = "bind")]
    pub(crate) binding: Option<String>,
}

/// How much a plugin may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Class {
    /// What compiled languages need.
    Standard,
    /// What languages with a runtime of their own need.
    Large,
}

impl Class {
    /// The word on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Large => "large",
        }
    }
}

/// Whether a binding's answers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// They do.
    Enforce,
    /// They are recorded and otherwise ignored.
    Monitor,
    /// The plugin is not asked.
    Off,
}

impl Mode {
    /// The word on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
            Self::Off => "off",
        }
    }
}

/// What stands for an answer that did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFailure {
    /// The operation is denied.
    Deny,
    /// The operation goes on.
    Allow,
}

impl OnFailure {
    /// The word on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}
