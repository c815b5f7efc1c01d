//! What a failed attempt comes to: another one, none, or an endpoint that is told nothing any more.
//!
//! Every wait is at least what its format promises, and random beyond that, so that endpoints that failed together
//! are not tried together again.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use portcullis_core::webhook::RetryGrowth;
use portcullis_core::{EventFormat, RetryPolicy, Timestamp};

/// The most time for which a delivery that fails holds up those behind it. Then it is put aside, and they go on.
pub const HOLD: Duration = Duration::from_secs(10);
/// The longest wait before another attempt, also if the receiver wants a longer one.
pub const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The waits of Standard Webhooks' well-known schedule, in seconds.
const STANDARD: [u32; 7] = [5, 300, 1800, 7200, 18_000, 36_000, 36_000];
/// The least and the longest wait in the Evolution format, in milliseconds.
const EVOLUTION: (u64, u64) = (5_000, 300_000);
/// The statuses after which the Evolution format tries no more: the receiver understood and does not want it.
const EVOLUTION_FINAL: [u16; 5] = [400, 401, 403, 404, 422];
/// After this many doublings waits grow no more.
const MAX_DOUBLINGS: u32 = 30;

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The receiver answered something else than a 2xx.
    Status {
        /// What it answered.
        status: u16,
        /// How long it wants to be left alone, from its `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// There was no answer, or none in time.
    NoAnswer,
}

/// How a delivery goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is tried again.
    Again {
        /// After how long.
        after: Duration,
    },
    /// It is not tried again.
    Dead,
    /// The receiver is gone for good, and its endpoint with it.
    Disable,
}

/// The bounds of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the connection.
    pub connect: Duration,
    /// For everything, from the name to the answer's last byte.
    pub whole: Duration,
}

/// Whether a receiver with this answer has taken a delivery.
#[must_use]
pub fn is_taken(status: u16) -> bool {
    (200..300).contains(&status)
}

/// How often a delivery is tried in all.
#[must_use]
pub fn attempts(format: EventFormat, retry: &RetryPolicy) -> u32 {
    match format {
        EventFormat::Standard => 8,
        EventFormat::Router | EventFormat::Wawp | EventFormat::Evolution => retry.attempts,
    }
}

/// How a delivery goes on after so many attempts, of which the last one failed like this. Any 64 bits will do for `random`.
#[must_use]
pub fn after_failure(format: EventFormat, retry: &RetryPolicy, attempts: u32, failure: &Failure, random: u64) -> Next {
    let (status, wished) = match failure {
        Failure::Status { status, retry_after } => (Some(*status), *retry_after),
        Failure::NoAnswer => (None, None),
    };
    if status == Some(410) {
        return Next::Disable;
    }
    let is_final = format == EventFormat::Evolution && status.is_some_and(|status| EVOLUTION_FINAL.contains(&status));
    if is_final || attempts >= self::attempts(format, retry) {
        return Next::Dead;
    }
    let own = wait(format, retry, attempts.max(1), random);
    let wished = wished.filter(|_| matches!(status, Some(429 | 503))).unwrap_or_default();
    Next::Again { after: own.max(wished).min(MAX_WAIT) }
}

/// The wait after the n-th attempt.
fn wait(format: EventFormat, retry: &RetryPolicy, n: u32, random: u64) -> Duration {
    let first = u64::from(retry.delay_seconds) * 1000;
    let grown = match retry.growth {
        RetryGrowth::Constant => first,
        RetryGrowth::Linear => first.saturating_mul(u64::from(n)),
        RetryGrowth::Exponential => first.saturating_mul(1 << (n - 1).min(MAX_DOUBLINGS)),
    };
    Duration::from_millis(match format {
        EventFormat::Router | EventFormat::Wawp => jitter(grown, grown / 5, random),
        EventFormat::Evolution => {
            let (least, most) = EVOLUTION;
            let capped = grown.clamp(least, most);
            jitter(capped / 5 * 4, capped / 5 * 2, random).clamp(least, most)
        }
        EventFormat::Standard => {
            let step = usize::try_from(n - 1).unwrap_or(usize::MAX).min(STANDARD.len() - 1);
            let millis = u64::from(STANDARD[step]) * 1000;
            jitter(millis, millis / 10, random)
        }
    })
}

/// The least, and a random part of the span beyond it.
fn jitter(least: u64, span: u64, random: u64) -> u64 {
    let beyond = (u128::from(span) * u128::from(random)) >> 64;
    least.saturating_add(u64::try_from(beyond).unwrap_or(span))
}

/// Whether those behind a delivery still wait for it: it has held them up for so long, and is tried again after so much more.
#[must_use]
pub fn keeps_order(held: Duration, after: Duration) -> bool {
    held.saturating_add(after) <= HOLD
}

/// The bounds of an attempt.
#[must_use]
pub fn timeouts(format: EventFormat) -> Timeouts {
    let whole = if format == EventFormat::Evolution { 30 } else { 15 };
    Timeouts { connect: Duration::from_secs(5), whole: Duration::from_secs(whole) }
}

/// How long a `Retry-After` asks for: seconds, or the time until a date in one of the three forms that HTTP has known; a day at most.
#[must_use]
pub fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let text = header.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // What does not fit is as long as anything.
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(MAX_WAIT));
    }
    let at = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]
        .into_iter()
        .find_map(|form| DateTime::strptime(form, text).ok())?;
    // The last days of the calendar are no points in time, and far away.
    let Ok(at) = at.to_zoned(TimeZone::UTC) else { return Some(MAX_WAIT) };
    let at = Timestamp::from_millis(u64::try_from(at.timestamp().as_millisecond()).unwrap_or_default());
    Some(at.since(now).min(MAX_WAIT))
}
