//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::plugin::{Plugin, Publisher};

/// A self-hosted gateway for WhatsApp sessions, governed by WebAssembly policies.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway.
    Serve(Serve),
    /// Play the main job with the simulated engine, in a temporary directory and with a clock of its own.
    Demo(Demo),
    /// Open the data of a stopped gateway and verify it.
    Check(Check),
    /// Take a backup of a running gateway.
    Backup(Backup),
    /// Make a new data directory from a backup.
    Restore(Restore),
    /// The master key of a running gateway.
    #[command(subcommand)]
    MasterKey(MasterKey),
    /// Make a new operator key for a stopped gateway; the old one opens nothing any more.
    OperatorKey(OperatorKey),
    /// Organisations of a running gateway.
    #[command(subcommand)]
    Org(Org),
    /// API keys of a running gateway.
    #[command(subcommand)]
    Key(Key),
    /// Write, build, test and sign plugins, and upload them to a running gateway.
    #[command(subcommand)]
    Plugin(Plugin),
    /// Who signs plugins, as a running gateway knows them.
    #[command(subcommand)]
    Publisher(Publisher),
    /// Sessions of a running gateway.
    #[command(subcommand)]
    Session(Session),
    /// What policy decided, as a running gateway recorded it.
    #[command(subcommand)]
    Decision(Decision),
    /// The audit: a copy of it, and whether a copy is what the gateway wrote.
    #[command(subcommand)]
    Audit(Audit),
    /// Receipts of what was erased.
    #[command(subcommand)]
    Receipt(ReceiptCommand),
}

/// Where the running gateway is, and who asks.
#[derive(Debug, Args)]
pub(crate) struct Remote {
    /// The gateway's address.
    #[arg(long, global = true, env = "PORTCULLIS_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// The key to come with.
    #[arg(
        long,
        global = true,
        env = "PORTCULLIS_KEY",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) key: String,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where everything is kept; made if it is not there.
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// The address to listen on; port 0 picks one. Loopback unless told otherwise.
    #[arg(long)]
    pub(crate) listen: Option<SocketAddr>,
    /// The WhatsApp engine.
    #[arg(long)]
    pub(crate) engine: Option<EngineKind>,
    /// A configuration file (TOML); arguments go before it.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
}

/// The engines that there are. Which of them a build has depends on its features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EngineKind {
    /// Speaks to WhatsApp.
    #[value(name = "whatsapp")]
    #[serde(rename = "whatsapp")]
    WhatsApp,
    /// Speaks to nobody: sessions are scanned and broken by hand.
    Simulated,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// End after the last step instead of staying up.
    #[arg(long)]
    pub(crate) exit: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Where the stopped gateway keeps everything.
    #[arg(long)]
    pub(crate) data_dir: PathBuf,
    /// The gateway's configuration file, if that says where the master key is.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct OperatorKey {
    /// Where the stopped gateway keeps everything.
    #[arg(long)]
    pub(crate) data_dir: PathBuf,
    /// The gateway's configuration file, if that says where the master key is.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to make; it must not be there.
    #[arg(long)]
    pub(crate) to: PathBuf,
    /// Also keep the key file here, in the place of the one that is there. Only the newest one should be kept.
    #[arg(long)]
    pub(crate) keys: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The backup.
    #[arg(long)]
    pub(crate) from: PathBuf,
    /// The newest copy of the key file.
    #[arg(long)]
    pub(crate) keys: PathBuf,
    /// Where to make the data directory; it must be empty, or not be there.
    #[arg(long)]
    pub(crate) data_dir: PathBuf,
    /// The configuration of the gateway that is to run on it, if that says where the master key is.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// A copy of the master key, if the gateway keeps it in its data directory.
    #[arg(long)]
    pub(crate) master_key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MasterKey {
    /// Change the master key; everything goes on meanwhile. The gateway makes the new one, or takes it from where its configuration says.
    Rotate,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Copy the audit of a running gateway to a new file, as JSON lines.
    Export {
        /// Whose audit; that of the key's organisation if it is left out.
        #[arg(long)]
        org: Option<String>,
        /// The file, which must not exist.
        #[arg(long)]
        to: PathBuf,
    },
    /// Verify a copy: that no line is missing, was changed or was added, and that the gateway has signed its end.
    Verify {
        /// The file.
        file: PathBuf,
        /// The gateway's public key, in base64; the one that the copy names if it is left out.
        #[arg(long)]
        public_key: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReceiptCommand {
    /// Show the receipt of a session that a running gateway has erased, or of an organisation.
    Show {
        /// The session's or the organisation's id.
        id: String,
        /// In which organisation; that of the key if it is left out.
        #[arg(long)]
        org: Option<String>,
    },
    /// Verify that a gateway has signed a receipt.
    Verify {
        /// A file that holds the receipt as the gateway shows it.
        file: PathBuf,
        /// The gateway's public key, in base64; the one that the file names if it is left out.
        #[arg(long)]
        public_key: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Org {
    /// Make an organisation and print its id.
    Create {
        /// Its name.
        name: String,
    },
    /// List the organisations.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key and print it, once.
    Create {
        /// Whose key it is to be.
        #[arg(long)]
        org: String,
        /// What it may do: read, send, manage, events, plugins, audit.
        #[arg(long, value_delimiter = ',', required = true)]
        capability: Vec<String>,
        /// What to call it.
        #[arg(long, default_value = "command line")]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Session {
    /// List the sessions.
    List {
        /// The organisation to act in; needed with the operator's key.
        #[arg(long)]
        org: Option<String>,
    },
    /// Make a session and print its id.
    Create {
        /// What to call it.
        #[arg(long)]
        label: Option<String>,
        /// Begin to pair at once.
        #[arg(long)]
        start: bool,
        /// The organisation to act in; needed with the operator's key.
        #[arg(long)]
        org: Option<String>,
    },
    /// Draw the session's QR code in the terminal.
    Qr {
        /// The session.
        id: String,
        /// The organisation to act in; needed with the operator's key.
        #[arg(long)]
        org: Option<String>,
    },
    /// Delete a session.
    Delete {
        /// The session.
        id: String,
        /// The one-time token, if a policy has asked for a confirmation.
        #[arg(long)]
        confirmation: Option<String>,
        /// What the policy asks to be typed.
        #[arg(long, requires = "confirmation")]
        answer: Option<String>,
        /// The organisation to act in; needed with the operator's key.
        #[arg(long)]
        org: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Decision {
    /// List decisions, the latest first.
    List {
        /// Only those about this session.
        #[arg(long)]
        session: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 20)]
        limit: u32,
        /// The organisation to act in; needed with the operator's key.
        #[arg(long)]
        org: Option<String>,
    },
    /// Print a decision as a JSON document: what was asked, what each plugin saw and answered, and why it came out as it did.
    Show {
        /// The decision.
        id: String,
        /// The organisation to act in; needed with the operator's key.
        #[arg(long)]
        org: Option<String>,
    },
}
