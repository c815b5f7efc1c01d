//! The gateway as a process: started on a port of its choice, asked through its command line, stopped in every way there is.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use crate::client::Client;

/// The program.
const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis-it");
/// How often [`eventually`] looks before it gives up, and how long it waits in between.
const LOOKS: u32 = 600;
const PAUSE: Duration = Duration::from_millis(50);

/// A gateway, running unless it was stopped. It is killed when dropped.
pub(crate) struct Gateway {
    directory: TempDir,
    config: Option<PathBuf>,
    engine: &'static str,
    log: &'static str,
    process: Child,
    pub(crate) address: SocketAddr,
    /// What it wrote to stderr, over all of its lives.
    stderr: Arc<Mutex<String>>,
    /// The operator's key.
    pub(crate) operator_key: String,
}

impl Gateway {
    /// A gateway with an empty data directory.
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same, but a send that is over its limit is refused at once.
    pub(crate) async fn impatient() -> Self {
        Self::start_with("[limits]\nsend_patience_ms = 0\n").await
    }

    /// The same with a configuration file.
    pub(crate) async fn start_with(config: &str) -> Self {
        Self::start_as("simulated", config, "warn").await
    }

    /// One with the engine that speaks to WhatsApp, which has this server; `more` follows in the section of the engine.
    pub(crate) async fn on_whatsapp(server: &str, more: &str) -> Self {
        Self::start_as("whatsapp", &whatsapp(server, more), "warn").await
    }

    /// The same with everything in its log that there is to log.
    pub(crate) async fn loud_on_whatsapp(server: &str) -> Self {
        Self::start_as("whatsapp", &whatsapp(server, ""), "trace").await
    }

    async fn start_as(engine: &'static str, config: &str, log: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        std::fs::write(&file, config).unwrap();
        let stderr = Arc::default();
        let (process, address) = serve((engine, log), &directory.path().join("data"), Some(&file), &stderr).await;
        let operator_key = std::fs::read_to_string(directory.path().join("data/operator-key")).unwrap();
        let operator_key = operator_key.trim().to_owned();
        Self { directory, config: Some(file), engine, log, process, address, stderr, operator_key }
    }

    /// Tries to start it again on the same data, which must not succeed; what it says.
    pub(crate) async fn refuses_to_start(&self) -> String {
        let mut command = program();
        command.args(["serve", "--listen", "127.0.0.1:0", "--engine", self.engine, "--data-dir"]).arg(self.data());
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        let output = command.output().await.unwrap();
        assert!(!output.status.success(), "it started");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Starts it again on the same data.
    pub(crate) async fn restart(&mut self) {
        (self.process, self.address) =
            serve((self.engine, self.log), &self.data(), self.config.as_deref(), &self.stderr).await;
    }

    /// Ends it as a crash of the machine's would: no handler runs.
    pub(crate) async fn kill(&mut self) {
        self.process.start_kill().unwrap();
        self.process.wait().await.unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.process.wait().await.unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Runs `check` on its data, which must not be in use.
    pub(crate) async fn check(&self) -> Output {
        program().args(["check", "--data-dir"]).arg(self.data()).output().await.unwrap()
    }

    /// Asserts that the data of a gateway that has ended, in whatever way, is sound.
    pub(crate) async fn assert_sound(&self) {
        let checked = self.check().await;
        let (said, why) = (String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
        assert!(checked.status.success() && said.contains(", 0 findings"), "{said}{why}");
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.beside("data")
    }

    /// A path beside its data.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// A client with the operator's key.
    pub(crate) fn operator(&self) -> Client {
        Client::new(self.address, Some(&self.operator_key))
    }

    /// A client with no key.
    pub(crate) fn stranger(&self) -> Client {
        Client::new(self.address, None)
    }

    /// Runs the program's command line against this gateway.
    pub(crate) async fn command(&self, key: &str, arguments: &[&str]) -> Output {
        program()
            .args(arguments)
            .env("PORTCULLIS_URL", format!("http://{}", self.address))
            .env("PORTCULLIS_KEY", key)
            .output()
            .await
            .unwrap()
    }

    /// The same, for a command that must succeed: what it printed.
    pub(crate) async fn say(&self, key: &str, arguments: &[&str]) -> String {
        let output = self.command(key, arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

#[expect(clippy::print_stdout, reason = "the output of a test that fails is where its reader looks first")]
impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the gateway said:\n{}", self.stderr());
        }
    }
}

/// The configuration of a gateway whose WhatsApp is `server`.
fn whatsapp(server: &str, more: &str) -> String {
    format!("[whatsapp]\nserver = \"{server}\"\nversion = \"2.3000.1026131876\"\n{more}\n")
}

/// The program, with nothing of the tests' environment that it would read.
pub(crate) fn program() -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .env_remove("PORTCULLIS_URL")
        .env_remove("PORTCULLIS_KEY")
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn serve(
    (engine, log): (&str, &str),
    data: &Path,
    config: Option<&Path>,
    stderr: &Arc<Mutex<String>>,
) -> (Child, SocketAddr) {
    let mut command = program();
    command.env("RUST_LOG", log);
    let listen = format!("{}:0", own_address());
    command.args(["serve", "--listen", &listen, "--engine", engine, "--data-dir"]).arg(data);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    tokio::spawn(keep(process.stderr.take().unwrap(), Arc::clone(stderr)));
    let mut stdout = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).await.unwrap();
    let Some(address) = line.trim_end().strip_prefix("listening on http://") else {
        let status = process.wait().await.unwrap();
        panic!("the gateway ended with {status}: {}", stderr.lock().unwrap());
    };
    // A program that finds its stdout closed would fail for a reason that is the test's own.
    tokio::spawn(keep(stdout.into_inner(), Arc::default()));
    (process, address.parse().unwrap())
}

/// An address of the loopback network that no other gateway of this run has.
///
/// The story: a client of a gateway that had just been killed reached another test's gateway, which had been given the same port,
/// and took its 401 for an answer.
fn own_address() -> Ipv4Addr {
    static STARTED: AtomicU16 = AtomicU16::new(1);
    let [high, low] = STARTED.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let run = u8::try_from(std::process::id() % 200).unwrap_or_default();
    Ipv4Addr::new(127, run + 1, high, low)
}

async fn keep(from: impl AsyncRead + Unpin, to: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut kept = to.lock().unwrap();
        kept.push_str(&line);
        kept.push('\n');
    }
}

/// Looks again and again until there is something to see.
///
/// A process in real time cannot be stepped, so this is the one place of the tests that waits.
/// How long it waits decides nothing: only that it happens at all, within a bound that no busy machine reaches.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..LOOKS {
        if let Some(seen) = look().await {
            return seen;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("{what} did not happen");
}
