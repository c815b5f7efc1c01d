//! What a run has found.

use std::fmt;
use std::time::Duration;

use super::Options;
use super::journal::{Counts, Fault};

/// How many of each kind of fault are shown.
const SHOWN: usize = 8;

/// What a run has found.
#[derive(Debug)]
pub struct Report {
    pub(super) options: Options,
    /// How often the gateway was killed, and how often of that while it was starting.
    pub(super) kills: (usize, usize),
    /// How often its data was looked at in between.
    pub(super) looks: usize,
    pub(super) counts: Counts,
    pub(super) faults: Vec<(Fault, String)>,
    pub(super) took: Duration,
}

impl Report {
    /// Whether everything is as it is promised.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.faults.is_empty() && self.kills.0 >= self.options.kills && self.counts.acknowledged > 0
    }

    /// How often the gateway was killed.
    #[must_use]
    pub fn kills(&self) -> usize {
        self.kills.0
    }

    /// How many operations were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.counts.acknowledged
    }

    fn count(&self, of: Fault) -> usize {
        self.faults.iter().filter(|(fault, _)| *fault == of).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { acknowledged, refused, unanswered, .. } = self.counts;
        let Counts { replayed, shown, erased, replies_lost, in_flight, .. } = self.counts;
        writeln!(f, "seed {}, {:.1} s", self.options.seed, self.took.as_secs_f64())?;
        writeln!(f, "kills                   {}, {} of them while starting", self.kills.0, self.kills.1)?;
        writeln!(f, "looks at the data       {}", self.looks)?;
        writeln!(f, "operations acknowledged {acknowledged}")?;
        writeln!(f, "operations refused      {refused}")?;
        writeln!(f, "operations unanswered   {unanswered}")?;
        writeln!(f, "replayed the same       {replayed}")?;
        writeln!(f, "  shown once            {shown}")?;
        writeln!(f, "  erased since          {erased}")?;
        writeln!(f, "  still under way       {in_flight}")?;
        writeln!(f, "replies lost            {replies_lost}")?;
        for (name, of) in [
            ("lost", Fault::Lost),
            ("duplicated", Fault::Duplicated),
            ("torn", Fault::Torn),
            ("stuck", Fault::Stuck),
            ("findings", Fault::Finding),
        ] {
            writeln!(f, "{name:<23} {}", self.count(of))?;
            for (_, what) in self.faults.iter().filter(|(fault, _)| *fault == of).take(SHOWN) {
                writeln!(f, "  {what}")?;
            }
        }
        write!(f, "{}", if self.is_good() { "good" } else { "NOT GOOD" })
    }
}
