//! What the gateway counts of itself, as Prometheus reads it.
//!
//! Every label has a closed set of values: no id, name or path of anybody becomes one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use portcullis_core::{OperationKind, Timestamp};
use portcullis_service::Service;

use crate::Dialect;

/// The upper ends of the classes of answer times, in milliseconds.
const CLASSES: [u64; 10] = [1, 2, 5, 10, 25, 50, 100, 500, 2_500, 10_000];
/// Classes of status: 1xx to 5xx.
const STATUSES: usize = 5;

/// How many sets of counters there are. Threads that count in different sets do not wait for each other's memory.
const SETS: usize = 8;

/// The counters: what is told is the sum of all sets.
pub(crate) struct Meters {
    sets: [Counters; SETS],
    /// Requests of strangers, by dialect.
    strangers: Vec<AtomicU64>,
    /// In which second, and how many strangers ago, one was last written to the log.
    told: Mutex<(u64, u64)>,
}

/// One of many strangers, who stands for the others.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// How many there were since the last one that was told of, with this one.
    pub(crate) since: u64,
}

/// One set of counters, on memory of its own.
#[repr(align(128))]
struct Counters {
    /// Answers by dialect, operation and class of status, in this order.
    answers: Vec<AtomicU64>,
    /// Answers by dialect and class of time, with one more for what is slower than all.
    times: Vec<AtomicU64>,
    /// The sum of all answer times by dialect, in microseconds.
    time_sums: Vec<AtomicU64>,
}

impl Default for Meters {
    fn default() -> Self {
        let strangers = std::iter::repeat_with(AtomicU64::default).take(Dialect::ALL.len()).collect();
        Self { sets: std::array::from_fn(|_| Counters::default()), strangers, told: Mutex::default() }
    }
}

impl Default for Counters {
    fn default() -> Self {
        let zeros = |count: usize| std::iter::repeat_with(AtomicU64::default).take(count).collect();
        let dialects = Dialect::ALL.len();
        Self {
            answers: zeros(dialects * OperationKind::ALL.len() * STATUSES),
            times: zeros(dialects * (CLASSES.len() + 1)),
            time_sums: zeros(dialects),
        }
    }
}

/// The set in which the present thread counts.
fn own_set() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SET: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SETS;
    }
    SET.with(|set| *set)
}

impl Meters {
    /// Counts an answer.
    pub(crate) fn answered(&self, dialect: Dialect, kind: OperationKind, status: StatusCode, took: Duration) {
        self.sets[own_set()].answered(dialect, kind, status, took);
    }

    /// Counts a request whose caller nobody knows. One in a second is told of: a flood of them must not be a flood of anything else.
    pub(crate) fn turned_away(&self, dialect: Dialect, now: Timestamp) -> Option<Sample> {
        self.strangers[dialect as usize].fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.1 += 1;
        let second = now.as_millis() / 1000;
        if second <= told.0 {
            return None;
        }
        let since = std::mem::replace(&mut *told, (second, 0)).1;
        Some(Sample { since })
    }

    fn sum(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        self.sets.iter().map(|set| counter(set).load(Ordering::Relaxed)).sum()
    }
    /// All of it, in Prometheus's text format, version 0.0.4.
    pub(crate) fn text(&self, service: &Service) -> String {
        let mut text = String::with_capacity(16 * 1024);
        let write = &mut text;
        let _ = self.answers(write);
        let _ = self.times(write);
        let _ = self.strangers(write);
        let _ = sessions(write, &service.statuses());
        text
    }

    fn answers(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# HELP portcullis_requests_total Answered requests of known callers and strangers.")?;
        writeln!(text, "# TYPE portcullis_requests_total counter")?;
        for dialect in Dialect::ALL {
            for kind in OperationKind::ALL {
                for class in 0..STATUSES {
                    let count = self.sum(|set| &set.answers[answer_index(dialect as usize, *kind as usize, class)]);
                    // Thousands of lines that say zero help nobody.
                    if count > 0 {
                        let (dialect, operation, class) = (dialect.name(), kind.name(), class + 1);
                        writeln!(
                            text,
                            "portcullis_requests_total{{dialect=\"{dialect}\",operation=\"{operation}\",status=\"{class}xx\"}} {count}"
                        )?;
                    }
                }
            }
        }
        Ok(())
    }

    fn strangers(&self, text: &mut String) -> std::fmt::Result {
        const NAME: &str = "portcullis_unauthenticated_total";
        writeln!(text, "# HELP {NAME} Requests whose caller was not known, or no longer.\n# TYPE {NAME} counter")?;
        for dialect in Dialect::ALL {
            let count = self.strangers[dialect as usize].load(Ordering::Relaxed);
            writeln!(text, "{NAME}{{dialect=\"{}\"}} {count}", dialect.name())?;
        }
        Ok(())
    }

    fn times(&self, text: &mut String) -> std::fmt::Result {
        const NAME: &str = "portcullis_request_duration_seconds";
        writeln!(text, "# HELP {NAME} How long answers took.\n# TYPE {NAME} histogram")?;
        for dialect in Dialect::ALL {
            let (index, name) = (dialect as usize, dialect.name());
            let mut so_far = 0;
            for class in 0..=CLASSES.len() {
                so_far += self.sum(|set| &set.times[index * (CLASSES.len() + 1) + class]);
                let end = CLASSES.get(class).map_or_else(|| "+Inf".to_owned(), |end| seconds(end * 1000));
                writeln!(text, "{NAME}_bucket{{dialect=\"{name}\",le=\"{end}\"}} {so_far}")?;
            }
            let sum = seconds(self.sum(|set| &set.time_sums[index]));
            writeln!(text, "{NAME}_sum{{dialect=\"{name}\"}} {sum}\n{NAME}_count{{dialect=\"{name}\"}} {so_far}")?;
        }
        Ok(())
    }
}

impl Counters {
    fn answered(&self, dialect: Dialect, kind: OperationKind, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, STATUSES) - 1;
        self.answers[answer_index(dialect as usize, kind as usize, class)].fetch_add(1, Ordering::Relaxed);
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let class = CLASSES.iter().position(|end| millis < *end).unwrap_or(CLASSES.len());
        self.times[dialect as usize * (CLASSES.len() + 1) + class].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.time_sums[dialect as usize].fetch_add(micros, Ordering::Relaxed);
    }
}

fn answer_index(dialect: usize, kind: usize, class: usize) -> usize {
    (dialect * OperationKind::ALL.len() + kind) * STATUSES + class
}

fn seconds(micros: u64) -> String {
    let (whole, part) = (micros / 1_000_000, micros % 1_000_000);
    if part == 0 { whole.to_string() } else { format!("{whole}.{part:06}").trim_end_matches('0').to_owned() }
}

fn sessions(text: &mut String, statuses: &BTreeMap<&'static str, u64>) -> std::fmt::Result {
    writeln!(text, "# HELP portcullis_sessions Sessions by status.\n# TYPE portcullis_sessions gauge")?;
    for (status, count) in statuses {
        writeln!(text, "portcullis_sessions{{status=\"{status}\"}} {count}")?;
    }
    Ok(())
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn answers_are_counted_in_their_classes() {
        let meters = Meters::default();
        let took = Duration::from_micros(1500);
        meters.answered(Dialect::Wawp, OperationKind::SessionRead, StatusCode::OK, took);
        meters.answered(Dialect::Wawp, OperationKind::SessionRead, StatusCode::NOT_FOUND, took);
        let mut text = String::new();
        meters.answers(&mut text).expect("a string takes all text");
        meters.times(&mut text).expect("a string takes all text");
        for line in [
            "portcullis_requests_total{dialect=\"wawp\",operation=\"session.read\",status=\"2xx\"} 1",
            "portcullis_requests_total{dialect=\"wawp\",operation=\"session.read\",status=\"4xx\"} 1",
            "portcullis_request_duration_seconds_bucket{dialect=\"wawp\",le=\"0.001\"} 0",
            "portcullis_request_duration_seconds_bucket{dialect=\"wawp\",le=\"0.002\"} 2",
            "portcullis_request_duration_seconds_bucket{dialect=\"wawp\",le=\"+Inf\"} 2",
            "portcullis_request_duration_seconds_sum{dialect=\"wawp\"} 0.003",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn one_stranger_in_a_second_stands_for_all() {
        let meters = Meters::default();
        let at = |millis| meters.turned_away(Dialect::Router, Timestamp::from_millis(millis));
        assert_eq!(at(5_000), Some(Sample { since: 1 }));
        assert_eq!([at(5_001), at(5_999)], [None, None]);
        assert_eq!(at(6_000), Some(Sample { since: 3 }));
        let mut text = String::new();
        meters.strangers(&mut text).unwrap();
        assert!(text.contains("portcullis_unauthenticated_total{dialect=\"router\"} 4"), "{text}");
    }
}
