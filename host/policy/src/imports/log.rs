//! `log`: a plugin's lines, bounded in number and length.

use portcullis_core::PluginFailure;

use crate::LogLevel;
use crate::bindings::portcullis::policy::log::{Host, Level};
use crate::call::CallState;
use crate::failure::HostReadFailed;

/// The most lines of one call.
const LINES: usize = 64;
/// The most bytes of one line.
const LINE_BYTES: usize = 1024;

/// What one call has logged.
#[derive(Default)]
pub(crate) struct Log {
    lines: Vec<(LogLevel, String)>,
    dropped: usize,
}

impl Log {
    /// Adds a line, cut to what is kept; drops and counts it if there are too many.
    pub(crate) fn write(&mut self, level: LogLevel, message: &str) {
        if self.lines.len() >= LINES {
            self.dropped += 1;
            return;
        }
        let end = message.floor_char_boundary(LINE_BYTES);
        let line = message[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.lines.push((level, line));
    }

    /// Adds lines that are known to be lost.
    pub(crate) fn drop_lines(&mut self, count: usize) {
        self.dropped += count;
    }

    /// Adds why the call failed, for the plugin's author. This line always has a place.
    pub(crate) fn failure(&mut self, failure: PluginFailure, error: &wasmtime::Error) {
        if self.lines.len() >= LINES {
            self.lines.truncate(LINES - 1);
            self.dropped += 1;
        }
        if let Some(failed) = error.downcast_ref::<HostReadFailed>() {
            // What the store says is the operator's to know, not the plugin's.
            tracing::error!(error = %failed.0, "{failed}");
            return self.write(LogLevel::Error, &format!("{failure}: {failed}"));
        }
        self.write(LogLevel::Error, &format!("{failure}: {}", crate::compile::short(error)));
    }

    /// The lines, and one more that tells how many were dropped.
    pub(crate) fn into_lines(mut self) -> Vec<(LogLevel, String)> {
        if self.dropped > 0 {
            self.lines.push((LogLevel::Warn, format!("{} more lines were dropped", self.dropped)));
        }
        self.lines
    }
}

impl Host for CallState {
    fn write(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.spend(1)?;
        let level = match level {
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        self.log.write(level, &message);
        Ok(())
    }
}
