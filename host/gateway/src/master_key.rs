//! Where the master key comes from: a file, an environment variable, or what a command says.
//!
//! The text is wiped from memory once it is a key, and the key once the store is open. What cannot be wiped is the environment of
//! the process: whoever may look at the process sees it there. A file or a command is better.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use portcullis_service::NextMasterKey;
use portcullis_store::{MasterKey, MasterKeys, OpenError};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::config::MasterKeySection;

/// How long a command may take, and how much it may say.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_SAID: usize = 4096;

/// Where a master key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// In a file that nobody else may read.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
    /// In what a command writes to its standard output.
    Command(Vec<String>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Env(name) => write!(f, "the environment variable {name}"),
            // Its arguments may be secret.
            Self::Command(words) => write!(f, "the command {}", words.first().map_or("", String::as_str)),
        }
    }
}

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// The file does not serve.
    #[error(transparent)]
    File(#[from] OpenError),
    /// The variable is not there, or is no text.
    #[error("{0}, which is to hold the master key, is not set")]
    Unset(Source),
    /// What was found is no key.
    #[error("{0} does not hold 64 hexadecimal characters and nothing else")]
    Malformed(Source),
    /// The command cannot be run.
    #[error("{0}, which is to say the master key, cannot be run")]
    Run(Source, #[source] io::Error),
    /// The command took too long.
    #[error("{0}, which is to say the master key, did not end within {PATIENCE:?}")]
    Late(Source),
    /// The command failed.
    #[error("{0}, which is to say the master key, ended with {1}")]
    Failed(Source, ExitStatus),
    /// The command said too much.
    #[error("{0}, which is to say the master key, says more than that")]
    TooMuch(Source),
}

impl Source {
    /// The key as it is there now.
    pub(crate) async fn read(&self) -> Result<MasterKey, SourceError> {
        let text = match self {
            Self::File(path) => return Ok(MasterKey::read(path)?),
            Self::Env(name) => Zeroizing::new(std::env::var(name).map_err(|_| SourceError::Unset(self.clone()))?),
            Self::Command(words) => {
                let said = timeout(PATIENCE, self.run(words)).await;
                said.map_err(|_elapsed| SourceError::Late(self.clone()))??
            }
        };
        MasterKey::parse(&text).ok_or_else(|| SourceError::Malformed(self.clone()))
    }

    /// What a command says. It is run as it is, by no shell, and killed when this is dropped.
    async fn run(&self, words: &[String]) -> Result<Zeroizing<String>, SourceError> {
        let failed = |error| SourceError::Run(self.clone(), error);
        let (program, arguments) = words.split_first().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let mut said = Zeroizing::new(String::with_capacity(MOST_SAID + 1));
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MOST_SAID as u64 + 1).read_to_string(&mut said).await.map_err(failed)?;
        }
        if said.len() > MOST_SAID {
            return Err(SourceError::TooMuch(self.clone()));
        }
        let status = child.wait().await.map_err(failed)?;
        if status.success() { Ok(said) } else { Err(SourceError::Failed(self.clone(), status)) }
    }
}

/// The keys with which the store can be opened.
pub(crate) async fn keys(section: &MasterKeySection) -> Result<MasterKeys, SourceError> {
    let Some(source) = section.source() else { return Ok(MasterKeys::Own) };
    let first = source.read().await;
    let Some(next) = section.next() else { return Ok(MasterKeys::Given(vec![first?])) };
    // While there are two, one of them is enough.
    match (first, next.read().await) {
        (Ok(first), Ok(next)) => Ok(MasterKeys::Given(vec![first, next])),
        (Ok(key), Err(error)) | (Err(error), Ok(key)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "one of the two master keys was not found");
            Ok(MasterKeys::Given(vec![key]))
        }
        (Err(error), Err(_)) => Err(error),
    }
}

/// Where the service finds another master key when it is to be changed.
pub(crate) fn next(section: &MasterKeySection) -> Option<NextMasterKey> {
    let source = section.next().or_else(|| section.source())?;
    Some(NextMasterKey::new(move || {
        let source = source.clone();
        async move { source.read().await.map_err(|error| error.to_string()) }
    }))
}

#[cfg(test)]
mod test {
    use super::*;

    async fn said(words: &[&str]) -> Result<MasterKey, SourceError> {
        Source::Command(words.iter().map(|word| (*word).to_owned()).collect()).read().await
    }

    #[tokio::test]
    async fn a_command_says_a_key_and_nothing_else() {
        let key = "0123456789abcdef".repeat(4);
        assert!(said(&["echo", &key]).await.is_ok());
        // No shell looks at the words.
        assert!(matches!(said(&["echo", &format!("{key}; true")]).await, Err(SourceError::Malformed(_))));
        assert!(matches!(said(&["echo", "$KEY"]).await, Err(SourceError::Malformed(_))));
        assert!(matches!(said(&["false"]).await, Err(SourceError::Failed(..))));
        assert!(matches!(said(&["no-such-command-anywhere"]).await, Err(SourceError::Run(..))));
        assert!(matches!(said(&["yes"]).await, Err(SourceError::TooMuch(_))));
        assert!(matches!(said(&[]).await, Err(SourceError::Run(..))));
    }

    #[tokio::test]
    async fn a_variable_that_is_not_there_is_named() {
        let error = Source::Env("PORTCULLIS_NO_SUCH_VARIABLE".to_owned()).read().await.expect_err("unset");
        assert!(error.to_string().contains("PORTCULLIS_NO_SUCH_VARIABLE"), "{error}");
    }
}
