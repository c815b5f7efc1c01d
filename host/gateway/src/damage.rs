//! Data that is damaged beyond what redb expects of a file: it asserts then, where it has errors for everything else.
//!
//! Nobody who runs a gateway should have to read a panic to learn that a disk is failing. So this is the one place that looks at panics:
//! while data is opened or verified, any panic means that it is damaged; while the gateway starts, one of redb's own does. The program ends
//! then and says so. Later, what was being done fails, as by any other fault of the store, and the log says why.

use std::panic::PanicHookInfo;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::terminal;

/// Whether data is being opened or verified.
static LOOKING: AtomicBool = AtomicBool::new(false);
/// Whether the gateway starts with it.
static STARTING: AtomicBool = AtomicBool::new(false);
/// Where that data is.
static DIRECTORY: Mutex<String> = Mutex::new(String::new());

/// The data cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the data file in {0} is damaged; restore a backup of the directory")]
struct Damaged(String);

/// Looks at panics from now on.
pub(crate) fn watch() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let of_redb = is_of_redb(panic);
        if LOOKING.load(Ordering::Acquire) || (of_redb && STARTING.load(Ordering::Acquire)) {
            let directory = DIRECTORY.lock().map_or_else(|_| String::new(), |directory| directory.clone());
            let _: ExitCode = terminal::fail(&Damaged(directory));
            std::process::exit(1);
        }
        if of_redb {
            tracing::error!("the data file is damaged; stop the gateway and run `portcullis check`");
        } else {
            usual(panic);
        }
    }));
}

/// Opens or verifies what is in a directory.
pub(crate) fn looking<T>(directory: &Path, look: impl FnOnce() -> T) -> T {
    if let Ok(mut known) = DIRECTORY.lock() {
        known.clear();
        known.push_str(&directory.display().to_string());
    }
    LOOKING.store(true, Ordering::Release);
    let seen = look();
    LOOKING.store(false, Ordering::Release);
    seen
}

/// The gateway starts, until this is dropped.
pub(crate) struct Starting;

impl Starting {
    pub(crate) fn begin() -> Self {
        STARTING.store(true, Ordering::Release);
        Self
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        STARTING.store(false, Ordering::Release);
    }
}

fn is_of_redb(panic: &PanicHookInfo<'_>) -> bool {
    panic.location().is_some_and(|location| location.file().contains("/redb-"))
}
