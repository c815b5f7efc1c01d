//! Lengths of time as settings write them.

use core::fmt;

use serde::de::{Deserialize, Deserializer, Error};

/// A length of time: an ISO 8601 duration in weeks, days, hours, minutes and whole seconds, such as `PT72H` or `P1DT12H`.
///
/// A day is 24 hours. Months and years have no fixed length and are refused. Read one with [`Form::take`](crate::Form::take):
///
/// ```
/// use portcullis_sdk::{Duration, Form};
///
/// let mut form = Form::parse(r#"{"grace": "PT72H"}"#)?;
/// let grace = form.take::<Duration>("grace").unwrap_or_else(|| Duration::constant("P1D"));
/// assert_eq!((grace.millis(), grace.to_string().as_str()), (259_200_000, "PT72H"));
/// # Ok::<(), Vec<portcullis_sdk::Problem>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duration {
    text: String,
    seconds: u64,
}

impl Duration {
    /// Reads a duration.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for whoever wrote it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        seconds(text).map(|seconds| Self { text: text.to_owned(), seconds })
    }

    /// A duration that the plugin itself has written.
    ///
    /// # Panics
    ///
    /// It is none.
    #[must_use]
    pub fn constant(text: &'static str) -> Self {
        Self::parse(text).expect("a constant of the plugin's is a duration")
    }

    /// Its length in milliseconds.
    #[must_use]
    pub fn millis(&self) -> u64 {
        self.seconds.saturating_mul(1000)
    }

    /// Its length in seconds.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.seconds
    }
}

impl fmt::Display for Duration {
    /// As it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The seconds of each unit, in the order in which they are written. What comes after the `T` is told apart by its place.
const UNITS: [(char, bool, u64); 5] =
    [('W', false, 7 * 86_400), ('D', false, 86_400), ('H', true, 3_600), ('M', true, 60), ('S', true, 1)];

fn seconds(text: &str) -> Result<u64, &'static str> {
    const FORM: &str = "write an ISO 8601 duration such as PT72H or P3D";
    const TOO_LONG: &str = "the duration is too long";

    let mut rest = text.strip_prefix('P').ok_or(FORM)?;
    let (mut total, mut timed, mut next) = (0_u64, false, 0);
    if rest.is_empty() {
        return Err(FORM);
    }
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix('T').filter(|time| !timed && !time.is_empty()) {
            (rest, timed) = (time, true);
        }
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(FORM)?;
        let (number, unit) = rest.split_at(digits);
        let letter = unit.chars().next().ok_or(FORM)?;
        if number.is_empty() {
            return Err(FORM);
        }
        if !timed && matches!(letter, 'Y' | 'M') {
            return Err("months and years differ in length: write weeks, days, hours, minutes and seconds");
        }
        if matches!(letter, '.' | ',') {
            return Err("write a whole number of seconds");
        }
        let known = UNITS[next..].iter().position(|unit| (unit.0, unit.1) == (letter, timed)).ok_or(FORM)?;
        next += known + 1;
        let number: u64 = number.parse().map_err(|_| TOO_LONG)?;
        let part = number.checked_mul(UNITS[next - 1].2).ok_or(TOO_LONG)?;
        total = total.checked_add(part).ok_or(TOO_LONG)?;
        rest = &unit[letter.len_utf8()..];
    }
    Ok(total)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn durations_are_read_down_to_seconds() {
        for (text, expected) in [
            ("PT72H", 72 * 3600),
            ("P3D", 72 * 3600),
            ("P1W", 7 * 86_400),
            ("P1W2D", 9 * 86_400),
            ("PT90S", 90),
            ("PT0S", 0),
            ("PT5M", 300),
            ("P1DT2H3M4S", 86_400 + 2 * 3600 + 3 * 60 + 4),
            ("P365D", 365 * 86_400),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_has_no_fixed_length_or_another_form_is_refused() {
        for text in [
            "",
            "P",
            "PT",
            "P1DT",
            "T1H",
            "72h",
            "3 days",
            "-PT5S",
            "PT-5S",
            "PT0.5S",
            "PT0,5S",
            "P1M",
            "P1Y",
            "P1H",
            "PT1D",
            "PT1W",
            "PT1S1M",
            "PT1H1H",
            "PTT1H",
            "PT1HT1M",
            "pt1h",
            "P1",
            "PT1",
            "PTH",
            "PT1é",
            "P\u{661}D",
            "PT1H ",
            "PT18446744073709551616S",
            "P18446744073709551615W",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_for_people() {
        assert!(Duration::parse("P1M").expect_err("a month").contains("months and years"));
        assert!(Duration::parse("PT1.5S").expect_err("a half").contains("whole number"));
        let error = serde_json::from_str::<Duration>("\"soon\"").expect_err("no duration");
        assert!(error.to_string().contains("ISO 8601"), "{error}");
        assert!(serde_json::from_str::<Duration>("5").is_err());
    }
}
