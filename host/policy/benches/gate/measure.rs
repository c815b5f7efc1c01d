//! Measuring in turns.

use std::time::{Duration, Instant};

/// How often each side has its turn.
const TURNS: u32 = 100;
/// About how long a turn takes.
const TURN: Duration = Duration::from_millis(20);

/// How long `work` takes.
pub(crate) fn time(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Measures both sides in turns and prints a line of the table: how long one call of each takes, and the ratio.
pub(crate) fn compare(name: &str, goal: Option<f64>, mut raw: impl FnMut(), mut policy: impl FnMut()) -> f64 {
    // The first call of each pays for what later ones find warm; the next ones say how many fit a turn.
    (0..3).for_each(|_| policy());
    let once = time(|| (0..3).for_each(|_| raw())) / 3;
    let calls = u32::try_from(TURN.as_nanos() / once.as_nanos().max(1)).unwrap_or(1).clamp(1, 10_000);
    let (mut raws, mut policies) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        raws.push(time(|| (0..calls).for_each(|_| raw())) / calls);
        policies.push(time(|| (0..calls).for_each(|_| policy())) / calls);
    }
    let (raw, policy) = (median(raws), median(policies));
    let ratio = policy.as_secs_f64() / raw.as_secs_f64();
    let goal = goal.map(|goal| format!(" (goal <= {goal})")).unwrap_or_default();
    println!("{name:<44} {raw:>12.2?} {policy:>12.2?} {ratio:>7.2}{goal}");
    ratio
}

/// Bytes of memory that this process holds.
pub(crate) fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
