//! What a run has found.

use std::fmt;
use std::time::Duration;

use super::Options;
use super::receiver::{Counts, Receiver};

/// What a run has found.
#[derive(Debug)]
pub struct Report {
    options: Options,
    kills: usize,
    /// Events that were acknowledged to a caller.
    pub acknowledged: usize,
    /// Events that the store has in the end.
    pub recorded: usize,
    /// Events that a receiver never took, counted for each receiver.
    pub lost: usize,
    /// Events that were told under another id than the store's, or under several.
    pub ids_changed: usize,
    /// Events that were told for the first time out of the order of their session.
    pub out_of_order: usize,
    /// What is wrong with the data, in words.
    pub findings: Vec<String>,
    is_stuck: bool,
    receivers: Vec<Counts>,
    took: Duration,
    peak: u64,
}

impl Report {
    pub(super) fn new(
        options: &Options,
        kills: usize,
        acknowledged: usize,
        took: Duration,
        peak: u64,
        is_stuck: bool,
    ) -> Self {
        Self {
            options: options.clone(),
            kills,
            acknowledged,
            recorded: 0,
            lost: 0,
            ids_changed: 0,
            out_of_order: 0,
            findings: Vec::new(),
            is_stuck,
            receivers: Vec::new(),
            took,
            peak,
        }
    }

    pub(super) fn add(&mut self, receiver: &Receiver) {
        let counts = receiver.counts();
        self.ids_changed += counts.ids_changed;
        self.out_of_order += counts.out_of_order;
        self.receivers.push(counts);
    }

    /// Whether everything is as it is promised.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let wrong = self.lost + self.ids_changed + self.out_of_order + self.findings.len();
        wrong == 0 && !self.is_stuck && self.acknowledged >= self.options.events && self.recorded >= self.acknowledged
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { sessions, seed, .. } = self.options;
        writeln!(f, "seed {seed}, {sessions} sessions, {} kills, {:.1} s", self.kills, self.took.as_secs_f64())?;
        writeln!(f, "events acknowledged  {}", self.acknowledged)?;
        writeln!(f, "events recorded      {}", self.recorded)?;
        for (name, counts) in ["steady", "failing"].into_iter().zip(&self.receivers) {
            let Counts { attempts, taken, again, .. } = counts;
            writeln!(f, "{name} receiver: {attempts} attempts, {taken} events taken, {again} of them again")?;
        }
        writeln!(f, "lost                 {}", self.lost)?;
        writeln!(f, "ids changed          {}", self.ids_changed)?;
        writeln!(f, "out of order         {}", self.out_of_order)?;
        writeln!(f, "findings in the data {}", self.findings.len())?;
        for finding in self.findings.iter().take(10) {
            writeln!(f, "  {finding}")?;
        }
        writeln!(f, "most memory          {} MiB", self.peak)?;
        write!(f, "{}", if self.is_good() { "good" } else { "NOT GOOD" })
    }
}
