//! When a delivery is tried again.

use std::time::Duration;

use portcullis_core::webhook::RetryGrowth;
use proptest::prelude::*;

use super::*;

const USUAL: RetryPolicy = RetryPolicy { growth: RetryGrowth::Exponential, delay_seconds: 2, attempts: 15 };
const EVOLUTION: RetryPolicy = RetryPolicy { growth: RetryGrowth::Exponential, delay_seconds: 5, attempts: 10 };

/// The waits of a delivery that nobody ever takes, in milliseconds.
fn waits(format: EventFormat, retry: &RetryPolicy, failure: &Failure, random: u64) -> Vec<u128> {
    let mut waits = Vec::new();
    loop {
        let tried = u32::try_from(waits.len() + 1).unwrap();
        match after_failure(format, retry, tried, failure, random) {
            Next::Again { after } => waits.push(after.as_millis()),
            Next::Dead | Next::Disable => return waits,
        }
    }
}

fn status(status: u16, seconds: Option<u64>) -> Failure {
    Failure::Status { status, retry_after: seconds.map(Duration::from_secs) }
}

#[test]
fn waits_are_at_least_those_of_their_format() {
    let seconds = |format: EventFormat, retry: &RetryPolicy, random: u64| -> Vec<u128> {
        waits(format, retry, &Failure::NoAnswer, random).iter().map(|millis| millis / 1000).collect()
    };
    let doubled = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384];
    assert_eq!(seconds(EventFormat::Router, &USUAL, 0), doubled);
    assert_eq!(seconds(EventFormat::Wawp, &USUAL, 0), doubled);
    let constant = RetryPolicy { growth: RetryGrowth::Constant, delay_seconds: 3, attempts: 4 };
    assert_eq!(seconds(EventFormat::Router, &constant, 0), [3, 3, 3]);
    let linear = RetryPolicy { growth: RetryGrowth::Linear, ..constant };
    assert_eq!(seconds(EventFormat::Router, &linear, 0), [3, 6, 9]);
    assert_eq!(seconds(EventFormat::Standard, &USUAL, 0), [5, 300, 1800, 7200, 18_000, 36_000, 36_000]);
    assert_eq!(seconds(EventFormat::Evolution, &EVOLUTION, 0), [5, 8, 16, 32, 64, 128, 240, 240, 240]);
    assert_eq!(seconds(EventFormat::Evolution, &EVOLUTION, u64::MAX / 2), [5, 9, 19, 39, 79, 159, 299, 299, 299]);
    assert_eq!(seconds(EventFormat::Evolution, &EVOLUTION, u64::MAX), [5, 11, 23, 47, 95, 191, 300, 300, 300]);
}

#[test]
fn a_status_can_mean_something() {
    let check = |format: EventFormat, failure: &Failure, expected: Next| {
        assert_eq!(after_failure(format, &USUAL, 1, failure, 0), expected, "{}: {failure:?}", format.name());
    };
    let again = |seconds: u64| Next::Again { after: Duration::from_secs(seconds) };
    for format in FORMATS {
        check(format, &status(410, None), Next::Disable);
        check(format, &status(429, Some(60)), again(60));
        check(format, &status(503, Some(60)), again(60));
        check(format, &status(503, Some(u64::MAX)), Next::Again { after: MAX_WAIT });
        let own = after_failure(format, &USUAL, 1, &Failure::NoAnswer, 0);
        check(format, &status(503, Some(1)), own);
        check(format, &status(500, Some(60)), own);
        check(format, &status(302, None), own);
        for refused in [400, 401, 403, 404, 422] {
            let expected = if format == EventFormat::Evolution { Next::Dead } else { own };
            check(format, &status(refused, None), expected);
        }
    }
}

#[test]
fn the_receiver_is_asked_no_more_often_than_it_was_said() {
    let count = |format: EventFormat, retry: &RetryPolicy| waits(format, retry, &Failure::NoAnswer, 9).len() + 1;
    assert_eq!(count(EventFormat::Router, &USUAL), 15);
    assert_eq!(count(EventFormat::Evolution, &EVOLUTION), 10);
    assert_eq!(count(EventFormat::Standard, &USUAL), 8);
    let once = RetryPolicy { attempts: 1, ..USUAL };
    assert_eq!(count(EventFormat::Wawp, &once), 1);
}

#[test]
fn those_behind_a_delivery_wait_for_ten_seconds_at_most() {
    let check = |held: u64, after: u64, expected: bool| {
        assert_eq!(keeps_order(Duration::from_secs(held), Duration::from_secs(after)), expected, "{held} and {after}");
    };
    check(0, 2, true);
    check(2, 4, true);
    check(6, 4, true);
    check(6, 8, false);
    check(0, 11, false);
    assert!(!keeps_order(Duration::MAX, Duration::MAX));
}

#[test]
fn an_attempt_ends() {
    for format in FORMATS {
        let Timeouts { connect, whole } = timeouts(format);
        assert!(connect < whole && whole <= Duration::from_secs(30), "{}", format.name());
    }
    assert!(is_taken(200) && is_taken(202) && is_taken(299));
    assert!(!is_taken(199) && !is_taken(300) && !is_taken(0));
}

#[test]
fn a_wish_to_be_left_alone_is_seconds_or_a_date() {
    // A second before the date that the standard takes for its examples.
    let now = Timestamp::from_millis(784_111_776_000);
    let check = |header: &str, expected: Option<u64>| {
        assert_eq!(retry_after(header, now), expected.map(Duration::from_secs), "{header}");
    };
    check("120", Some(120));
    check(" 0 ", Some(0));
    check("99999999999999999999999999", Some(24 * 60 * 60));
    check("Sun, 06 Nov 1994 08:49:37 GMT", Some(1));
    check("Sunday, 06-Nov-94 08:49:37 GMT", Some(1));
    check("Sun Nov  6 08:49:37 1994", Some(1));
    check("Sun, 06 Nov 1994 08:49:30 GMT", Some(0));
    check("Mon, 07 Nov 2094 08:49:37 GMT", None);
    check("Sun, 07 Nov 2094 08:49:37 GMT", Some(24 * 60 * 60));
    check("Fri, 31 Dec 9999 23:59:59 GMT", Some(24 * 60 * 60));
    for nothing in ["", "soon", "-1", "1.5", "Sun, 06 Nov 1994", "Thu, 01 Jan -001 00:00:00 GMT"] {
        check(nothing, None);
    }
}

fn growths() -> impl Strategy<Value = RetryGrowth> {
    prop_oneof![Just(RetryGrowth::Constant), Just(RetryGrowth::Linear), Just(RetryGrowth::Exponential)]
}

fn failures() -> impl Strategy<Value = Failure> {
    let answered = (prop_oneof![Just(429), Just(503), Just(500), 300u16..600], proptest::option::of(any::<u64>()));
    prop_oneof![Just(Failure::NoAnswer), answered.prop_map(|(code, seconds)| status(code, seconds))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_wait_is_within_its_bounds(
        format in proptest::sample::select(FORMATS.as_slice()),
        growth in growths(),
        delay_seconds in 1u32..=3600,
        attempts in 1u32..=30,
        failure in failures(),
        random in any::<u64>(),
    ) {
        let retry = RetryPolicy { growth, delay_seconds, attempts };
        let waits = waits(format, &retry, &failure, random);
        prop_assert!(waits.len() < super::attempts(format, &retry) as usize);
        let least = match format {
            EventFormat::Router | EventFormat::Wawp => u128::from(delay_seconds) * 1000,
            EventFormat::Evolution | EventFormat::Standard => 5_000,
        };
        prop_assert!(waits.iter().all(|wait| (least..=MAX_WAIT.as_millis()).contains(wait)), "{:?}", waits);
        // The wish of a receiver is the same each time, so waits never get shorter.
        prop_assert!(waits.is_sorted(), "{:?}", waits);
    }

    #[test]
    fn no_header_is_too_strange_to_read(header in "\\PC*", now in any::<u32>()) {
        let wait = retry_after(&header, Timestamp::from_millis(u64::from(now)));
        prop_assert!(wait.is_none_or(|wait| wait <= MAX_WAIT));
    }
}
