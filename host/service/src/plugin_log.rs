//! The plugins' log: what plugins wrote lately, and the host's word for what ended their calls.
//!
//! It is kept in memory and goes with the process; what has to outlive that is in the decisions.
//! Every line is in the gateway's own log as well, under the target `plugin`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use portcullis_core::{BindingId, OperationKind, OrgId, Permit, PluginId, Timestamp};
use portcullis_policy::{LogLevel, LogLine};

use crate::queries::expect;
use crate::{Service, ServiceError};

/// The most bytes of the lines that are kept of one plugin.
const LOG_BYTES: usize = 64 << 10;
/// The most plugins whose lines are kept.
const LOGS: usize = 512;

/// A line of a plugin's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginLogLine {
    /// When it was written.
    pub at: Timestamp,
    /// In whose operation.
    pub org: OrgId,
    /// Through which binding.
    pub binding: BindingId,
    /// How much it matters.
    pub level: LogLevel,
    /// The line, at most 1 KiB.
    pub message: String,
}

/// The logs of all plugins.
#[derive(Default)]
pub(crate) struct PluginLogs {
    logs: Mutex<HashMap<PluginId, Lines>>,
}

#[derive(Default)]
struct Lines {
    lines: VecDeque<PluginLogLine>,
    bytes: usize,
}

impl PluginLogs {
    fn write(&self, plugin: PluginId, line: PluginLogLine) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if !logs.contains_key(&plugin) && logs.len() >= LOGS {
            // The one that has been quiet for longest makes room.
            let last = |lines: &Lines| lines.lines.back().map(|line| line.at);
            if let Some(quiet) = logs.iter().min_by_key(|(_, lines)| last(lines)).map(|(plugin, _)| *plugin) {
                logs.remove(&quiet);
            }
        }
        let log = logs.entry(plugin).or_default();
        log.bytes += weight(&line);
        log.lines.push_back(line);
        while log.bytes > LOG_BYTES {
            let Some(oldest) = log.lines.pop_front() else { return };
            log.bytes -= weight(&oldest);
        }
    }

    fn read(&self, plugin: PluginId) -> Vec<PluginLogLine> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.get(&plugin).map(|log| log.lines.iter().rev().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn forget(&self, plugin: PluginId) {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).remove(&plugin);
    }
}

/// A line counts with what it takes beside its text, so that many short ones are bounded, too.
fn weight(line: &PluginLogLine) -> usize {
    size_of::<PluginLogLine>() + line.message.len()
}

impl Service {
    /// Keeps what plugins wrote during a call.
    pub(crate) fn log(&self, org: OrgId, lines: &[LogLine]) {
        for line in lines {
            let (plugin, message) = (line.plugin, line.message.as_str());
            match line.level {
                LogLevel::Debug => tracing::debug!(target: "plugin", %org, %plugin, "{message}"),
                LogLevel::Info => tracing::info!(target: "plugin", %org, %plugin, "{message}"),
                LogLevel::Warn => tracing::warn!(target: "plugin", %org, %plugin, "{message}"),
                LogLevel::Error => tracing::error!(target: "plugin", %org, %plugin, "{message}"),
            }
            let LogLine { binding, level, message, .. } = line.clone();
            self.plugin_logs.write(plugin, PluginLogLine { at: self.now(), org, binding, level, message });
        }
    }

    /// What an organisation's own plugin wrote lately, newest first: at most 64 KiB since the gateway began.
    ///
    /// # Errors
    /// If there is no such plugin, or the store cannot be read.
    pub fn plugin_log(&self, permit: &Permit, plugin: PluginId) -> Result<Vec<PluginLogLine>, ServiceError> {
        expect(permit, OperationKind::PluginRead)?;
        self.own_plugin(permit, plugin)?;
        Ok(self.plugin_logs.read(plugin))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn line(at: u64, length: usize) -> PluginLogLine {
        PluginLogLine {
            at: Timestamp::from_millis(at),
            org: OrgId::from_bytes([1; 16]),
            binding: BindingId::from_bytes([1; 16]),
            level: LogLevel::Info,
            message: "x".repeat(length),
        }
    }

    fn plugin(number: usize) -> PluginId {
        PluginId::from_bytes(u128::try_from(number).unwrap().to_be_bytes())
    }

    #[test]
    fn the_newest_lines_of_a_plugin_are_kept() {
        let logs = PluginLogs::default();
        for at in 0..1_000 {
            logs.write(plugin(1), line(at, 1_000));
        }
        let kept = logs.read(plugin(1));
        assert_eq!(kept[0].at, Timestamp::from_millis(999));
        assert!((40..=65).contains(&kept.len()), "{}", kept.len());
        for at in 0..100_000 {
            logs.write(plugin(1), line(at, 0));
        }
        assert!(logs.read(plugin(1)).len() < 1_000);
    }

    #[test]
    fn the_plugin_that_has_been_quiet_for_longest_makes_room() {
        let logs = PluginLogs::default();
        for number in 0..LOGS {
            logs.write(plugin(number), line(u64::try_from(number).unwrap(), 1));
        }
        logs.write(plugin(0), line(1_000, 1));
        logs.write(plugin(LOGS), line(1_001, 1));
        let kept = |number| logs.read(plugin(number)).len();
        assert_eq!([kept(0), kept(1), kept(2), kept(LOGS)], [2, 0, 1, 1]);
    }
}
