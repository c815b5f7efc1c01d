//! A gateway as a process of its own, to be started, killed and started again on the same data.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

/// A gateway that runs, or was killed. It is killed when this is dropped.
pub struct Process {
    program: PathBuf,
    directory: tempfile::TempDir,
    engine: &'static str,
    child: Option<Child>,
}

/// Why a gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program cannot be started, or its directory cannot be made.
    #[error("cannot start the gateway")]
    Start(#[source] std::io::Error),
    /// It ended instead of listening.
    #[error("the gateway ended: {0}")]
    Ended(String),
}

impl Process {
    /// A gateway that is not started yet. `program` is an executable that becomes the gateway when it is called like one.
    ///
    /// # Errors
    /// If there is no place for its data.
    pub fn new(program: &Path, config: &str) -> Result<Self, ProcessError> {
        let directory = tempfile::tempdir().map_err(ProcessError::Start)?;
        std::fs::write(directory.path().join("config.toml"), config).map_err(ProcessError::Start)?;
        Ok(Self { program: program.to_owned(), directory, engine: "simulated", child: None })
    }

    /// The same with another engine than the simulated one.
    #[must_use]
    pub fn with_engine(self, engine: &'static str) -> Self {
        Self { engine, ..self }
    }

    /// Where it keeps everything.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The key of its operator; there is one once it was started.
    ///
    /// # Errors
    /// If there is none.
    pub fn operator_key(&self) -> Result<String, ProcessError> {
        let text = std::fs::read_to_string(self.data().join("operator-key")).map_err(ProcessError::Start)?;
        Ok(text.trim().to_owned())
    }

    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    /// If it does not come to that.
    pub async fn start(&mut self) -> Result<SocketAddr, ProcessError> {
        self.spawn()?;
        let child = self.child.as_mut().ok_or_else(|| ProcessError::Ended(String::new()))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(mut stderr)) = (stdout, stderr) else { return Err(ProcessError::Ended(String::new())) };
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).await.map_err(ProcessError::Start)?;
        let address = line.trim_end().strip_prefix("listening on http://").and_then(|text| text.parse().ok());
        let Some(address) = address else {
            let mut said = String::new();
            let _ = stderr.read_to_string(&mut said).await;
            return Err(ProcessError::Ended(said));
        };
        // What it says from now on goes nowhere, but somebody has to take it.
        tokio::spawn(async move { tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await });
        tokio::spawn(async move { tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await });
        Ok(address)
    }

    /// Starts it without waiting, to be killed while it starts.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn spawn(&mut self) -> Result<(), ProcessError> {
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--engine", self.engine, "--data-dir"])
            .arg(self.data())
            .arg("--config")
            .arg(self.directory.path().join("config.toml"))
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        self.child = Some(command.spawn().map_err(ProcessError::Start)?);
        Ok(())
    }

    /// Kills it as a crash would: no handler runs.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().await;
        }
    }

    /// Whether it has ended, by itself or killed.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// The most memory that this life of it has used, in MiB; 0 where the system does not say.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        self.said("VmHWM:") / 1024
    }

    /// The memory that it holds now, in MiB; 0 where the system does not say.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory_kib() / 1024
    }

    /// The memory that it holds now, in KiB; 0 where the system does not say.
    #[must_use]
    pub fn memory_kib(&self) -> u64 {
        self.said("VmRSS:")
    }

    /// How many threads it has now; 0 where the system does not say.
    #[must_use]
    pub fn threads(&self) -> u64 {
        self.counted("task")
    }

    /// How many files and sockets it has open now; 0 where the system does not say.
    #[must_use]
    pub fn open_files(&self) -> u64 {
        self.counted("fd")
    }

    fn said(&self, name: &str) -> u64 {
        let Some(id) = self.child.as_ref().and_then(Child::id) else { return 0 };
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
    }

    fn counted(&self, folder: &str) -> u64 {
        let Some(id) = self.child.as_ref().and_then(Child::id) else { return 0 };
        std::fs::read_dir(format!("/proc/{id}/{folder}")).map_or(0, |entries| entries.count() as u64)
    }
}
