//! `portcullis backup` and `portcullis restore`.
//!
//! A file appears under its name when all of it is there and durable, and never before: until then it has another name, which ends
//! in `.part`. The key file is taken after the data, so that it has a key for everything in the backup that was not erased since.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use portcullis_core::Clock;
use portcullis_net::Download;
use portcullis_service::SystemClock;
use portcullis_store::{BackupInfo, MasterKey, Restored, inspect_backup};

use crate::administration::Api;
use crate::cli::{Backup, Remote, Restore};
use crate::config::Config;
use crate::{Failure, boot, check, terminal};

/// What every key file begins with.
const KEY_FILE: &[u8; 8] = b"PCLSKEYS";

/// Takes a backup of a running gateway.
pub(crate) async fn back_up(remote: &Remote, arguments: Backup) -> Result<(), Failure> {
    let gateway = Api::new(remote)?;
    let Backup { to, keys } = arguments;
    if to.exists() {
        return Err(format!("{} is there already; a backup replaces nothing", to.display()).into());
    }
    if let Some(keys) = &keys {
        check_keys(keys, &to)?;
    }
    let draft = Draft::take(gateway.download("/api/v1/admin/backup").await?, &to).await?;
    let path = draft.path.clone();
    let info: BackupInfo = tokio::task::spawn_blocking(move || inspect_backup(&path)).await??;
    draft.name()?;
    terminal::say(&format!("{}: {} rows in {} tables", to.display(), info.rows, info.tables));
    if let Some(keys) = keys {
        Draft::take(gateway.download("/api/v1/admin/backup/keys").await?, &keys).await?.name()?;
        terminal::say(&format!("{}: the key file, which the backup cannot be read without", keys.display()));
    }
    Ok(())
}

/// Whether the key file can have this name: what is there is overwritten, and must be nothing but an older copy of one.
fn check_keys(keys: &Path, to: &Path) -> Result<(), Failure> {
    if keys == to {
        return Err("the backup and the key file are two files; --to and --keys must differ".into());
    }
    let mut begins = [0; 8];
    match File::open(keys) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => io::Read::read_exact(&mut opened?, &mut begins).unwrap_or_default(),
    }
    if begins != *KEY_FILE {
        return Err(format!("{} is no key file, and only an older key file is replaced", keys.display()).into());
    }
    let beside = keys.parent().unwrap_or_else(|| Path::new("")).join("portcullis.redb");
    if beside.exists() {
        return Err(format!("{} belongs to the data beside it; a copy goes elsewhere", keys.display()).into());
    }
    Ok(())
}

/// A file that does not have its name yet. It is removed if it never gets it.
struct Draft {
    path: PathBuf,
    to: PathBuf,
    file: Option<File>,
}

impl Draft {
    /// Writes an answer into a file beside `to`.
    async fn take(mut answer: Download, to: &Path) -> Result<Self, Failure> {
        let mut path = to.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let cannot = |error: io::Error| format!("cannot write {}: {error}", to.display());
        // What a backup left that was killed goes first: it may be longer, and others may have been allowed to read it.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot(error).into()),
            _ => {}
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(cannot)?;
        let mut draft = Self { path, to: to.to_owned(), file: Some(file) };
        while let Some(piece) = answer.next().await? {
            if let Some(file) = &mut draft.file {
                file.write_all(&piece).map_err(cannot)?;
            }
        }
        Ok(draft)
    }

    /// Gives the file its name, durably, and overwrites what had that name before where it lies.
    fn name(mut self) -> Result<(), Failure> {
        let name = || -> io::Result<()> {
            if let Some(file) = &self.file {
                file.sync_all()?;
            }
            let before = File::options().write(true).open(&self.to).ok();
            fs::rename(&self.path, &self.to)?;
            let directory = self.to.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
            if let Some(before) = before {
                // An older key file holds the keys of what was erased since.
                let length = usize::try_from(before.metadata()?.len()).map_err(io::Error::other)?;
                before.write_all_at(&vec![0; length], 0)?;
                before.sync_all()?;
            }
            Ok(())
        };
        name().map_err(|error| format!("cannot write {}: {error}", self.to.display()))?;
        self.file = None;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes a new data directory from a backup.
pub(crate) async fn restore(arguments: Restore) -> Result<(), Failure> {
    boot::start_log_quietly();
    let Restore { from, keys, data_dir, config, master_key } = arguments;
    let source = Config::of(&data_dir, config)?.master_key.source();
    let keeps_key = source.is_none();
    let master = match (master_key, source) {
        (Some(path), _) => MasterKey::read(&path)?,
        (None, Some(source)) => source.read().await?,
        (None, None) => {
            return Err(
                "say with --master-key where a copy of the master key is, or with --config where the gateway finds it"
                    .into(),
            );
        }
    };
    let now = SystemClock::default().now();
    let to = data_dir.clone();
    let restored =
        tokio::task::spawn_blocking(move || portcullis_store::restore(&from, &keys, &to, &master, keeps_key, now))
            .await??;
    say(&data_dir, &restored);
    check::say(&restored.report)
}

fn say(data_dir: &Path, restored: &Restored) {
    let Restored { backup, orgs, sessions, dropped_orgs, dropped_sessions, dropped_with_orgs, report: _ } = restored;
    terminal::say(&format!(
        "{}: {orgs} organisations and {sessions} sessions, as of {} ms since the epoch",
        data_dir.display(),
        backup.made_at.as_millis()
    ));
    for org in dropped_orgs {
        terminal::say(&format!("dropped {org} with everything it owned: its key is gone, it was erased since"));
    }
    for (org, session) in dropped_with_orgs {
        terminal::say(&format!("dropped {session}, which went with {org}"));
    }
    for (org, session) in dropped_sessions {
        terminal::say(&format!("dropped {session} of {org}: its key is gone, it was erased since"));
    }
    let sessions = dropped_sessions.len() + dropped_with_orgs.len();
    let dropped = format!("{} organisations and {sessions} sessions", dropped_orgs.len());
    terminal::say(&format!("{dropped} dropped because their keys are gone; the audit says so of each"));
    terminal::say(
        "what was revoked, changed or delivered since the backup is as it was then: look at the API keys before you start",
    );
}
