//! Hours of weekdays, in a fixed distance from UTC. There is no time zone database here, and no summer time.

use core::fmt;

use portcullis_sdk::Timestamp;

const MINUTE: u64 = 60 * 1000;
const DAY_MINUTES: u64 = 24 * 60;
/// The names of the days, from the first of the epoch on: it was a Thursday.
const NAMES: [&str; 7] = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
/// In which order people name them.
const WEEK: [usize; 7] = [4, 5, 6, 0, 1, 2, 3];

/// When the office is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hours {
    /// The days, in the order of [`NAMES`]; one at least.
    days: [bool; 7],
    /// Minutes since midnight; `from` lies before `to`.
    from: u64,
    to: u64,
    /// How far the office's clock is ahead of UTC, in minutes.
    ahead: i64,
}

impl Hours {
    /// Hours from one minute of the day to another.
    ///
    /// # Errors
    ///
    /// The field that is wrong, and why.
    pub(crate) fn new(days: &[String], from: &str, to: &str, offset: &str) -> Result<Self, Vec<(String, String)>> {
        let mut wrong = Vec::new();
        let mut open = [false; 7];
        for (index, day) in days.iter().enumerate() {
            match NAMES.iter().position(|name| name == day) {
                Some(known) => open[known] = true,
                None => wrong.push((format!("/days/{index}"), "write mon, tue, wed, thu, fri, sat or sun".to_owned())),
            }
        }
        if days.is_empty() {
            wrong.push(("/days".to_owned(), "one day is needed at least".to_owned()));
        }
        let mut time = |field: &str, text: &str| {
            minute(text).unwrap_or_else(|| {
                wrong.push((field.to_owned(), "write a time from 00:00 to 24:00".to_owned()));
                0
            })
        };
        let (from, to) = (time("/from", from), time("/to", to));
        let ahead = ahead(offset).unwrap_or_else(|| {
            wrong.push(("/utcOffset".to_owned(), "write a distance such as +07:00, from -14:00 to +14:00".to_owned()));
            0
        });
        if wrong.is_empty() && from >= to {
            wrong.push(("/to".to_owned(), "the hours end after they begin, on the same day".to_owned()));
        }
        if wrong.is_empty() { Ok(Self { days: open, from, to, ahead }) } else { Err(wrong) }
    }

    /// When the office opens next; none if it is open at `now`.
    pub(crate) fn next_opening(&self, now: Timestamp) -> Option<Timestamp> {
        let here = (now / MINUTE).saturating_add_signed(self.ahead);
        let (today, minute) = (here / DAY_MINUTES, here % DAY_MINUTES);
        let open = |day: u64| self.days[usize::try_from(day % 7).unwrap_or_default()];
        if open(today) && (self.from..self.to).contains(&minute) {
            return None;
        }
        let later_today = u64::from(minute >= self.from);
        let day = (today + later_today..).find(|day| open(*day)).unwrap_or(today);
        Some((day * DAY_MINUTES + self.from).saturating_add_signed(-self.ahead) * MINUTE)
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open: Vec<_> = (0..7).filter(|place| self.days[WEEK[*place]]).collect();
        match (open.first(), open.last()) {
            _ if open.len() == 7 => f.write_str("every day")?,
            // Three days or more in a row are named by their ends.
            (Some(first), Some(last)) if open.len() > 2 && last - first + 1 == open.len() => {
                write!(f, "{} to {}", NAMES[WEEK[*first]], NAMES[WEEK[*last]])?;
            }
            _ => {
                let names: Vec<_> = open.iter().map(|place| NAMES[WEEK[*place]]).collect();
                f.write_str(&names.join(", "))?;
            }
        }
        let clock = |minutes: u64| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let sign = if self.ahead < 0 { '-' } else { '+' };
        let ahead = clock(self.ahead.unsigned_abs());
        write!(f, " from {} to {} (UTC{sign}{ahead})", clock(self.from), clock(self.to))
    }
}

/// The minute of the day that a time such as `09:30` names.
fn minute(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |text: &str| {
        (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse::<u64>().ok())?
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY_MINUTES).then_some(total)
}

/// How many minutes a distance such as `+07:00` is ahead of UTC.
fn ahead(text: &str) -> Option<i64> {
    let (sign, time) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(time), _) => (1, time),
        (_, Some(time)) => (-1, time),
        _ => return None,
    };
    let minutes = i64::try_from(minute(time)?).ok()?;
    (minutes <= 14 * 60).then_some(sign * minutes)
}

#[cfg(test)]
mod test {
    use super::*;

    /// 2026-01-01T00:00:00Z, a Thursday.
    const THURSDAY: u64 = 1_767_225_600_000;
    const HOUR: u64 = 60 * MINUTE;

    fn hours(days: &[&str], from: &str, to: &str, offset: &str) -> Hours {
        let days: Vec<_> = days.iter().map(|day| (*day).to_owned()).collect();
        Hours::new(&days, from, to, offset).expect("hours")
    }

    #[test]
    fn the_next_opening_is_today_tomorrow_or_after_the_weekend() {
        let week = hours(&["mon", "tue", "wed", "thu", "fri"], "09:00", "17:30", "+00:00");
        for (now, opening) in [
            (0, Some(9)),
            (9, None),
            (17, None),
            (18, Some(33)),
            (33, None),
            (42, Some(4 * 24 + 9)),
            (3 * 24 + 12, Some(4 * 24 + 9)),
        ] {
            let expected = opening.map(|hours| THURSDAY + hours * HOUR);
            assert_eq!(week.next_opening(THURSDAY + now * HOUR), expected, "{now} hours after Thursday's beginning");
        }
        assert_eq!(week.next_opening(THURSDAY + 9 * HOUR - 1), Some(THURSDAY + 9 * HOUR));
    }

    #[test]
    fn the_office_has_a_clock_of_its_own() {
        let jakarta = hours(&["thu"], "09:00", "17:00", "+07:00");
        assert_eq!(jakarta.next_opening(THURSDAY), Some(THURSDAY + 2 * HOUR));
        assert_eq!(jakarta.next_opening(THURSDAY + 2 * HOUR), None);
        assert_eq!(jakarta.next_opening(THURSDAY + 10 * HOUR), Some(THURSDAY + (2 + 7 * 24) * HOUR));
        // At midnight in London it is Wednesday evening in New York.
        let new_york = hours(&["wed"], "00:00", "24:00", "-05:00");
        assert_eq!(new_york.next_opening(THURSDAY + 5 * HOUR - 1), None);
        assert_eq!(new_york.next_opening(THURSDAY + 5 * HOUR), Some(THURSDAY + (6 * 24 + 5) * HOUR));
    }

    #[test]
    fn the_beginning_of_time_and_its_end_are_no_reason_to_fail() {
        let west = hours(&["mon"], "09:00", "17:00", "-14:00");
        assert!(west.next_opening(0).is_some());
        let east = hours(&["mon"], "09:00", "17:00", "+14:00");
        assert!(east.next_opening(253_402_300_799_000).is_some());
    }

    #[test]
    fn hours_are_said_for_people() {
        for (days, said) in [
            (["mon", "tue", "wed", "thu", "fri"].as_slice(), "mon to fri from 09:00 to 17:00 (UTC-03:30)"),
            (&["sun", "sat"], "sat, sun from 09:00 to 17:00 (UTC-03:30)"),
            (&["mon", "wed", "fri"], "mon, wed, fri from 09:00 to 17:00 (UTC-03:30)"),
            (&["thu", "fri", "sat", "sun", "mon", "tue", "wed"], "every day from 09:00 to 17:00 (UTC-03:30)"),
        ] {
            assert_eq!(hours(days, "09:00", "17:00", "-03:30").to_string(), said);
        }
    }

    #[test]
    fn what_is_no_time_is_told_by_its_field() {
        let fields = |days: &[&str], from: &str, to: &str, offset: &str| {
            let days: Vec<_> = days.iter().map(|day| (*day).to_owned()).collect();
            let wrong = Hours::new(&days, from, to, offset).expect_err("no hours");
            wrong.into_iter().map(|(field, _)| field).collect::<Vec<_>>()
        };
        assert_eq!(fields(&["mon", "monday"], "09:00", "17:00", "+00:00"), ["/days/1"]);
        assert_eq!(fields(&[], "09:00", "17:00", "+00:00"), ["/days"]);
        for time in ["9:00", "24:01", "09:60", "0900", "09:00:00", "", "-1:00", "+1:00"] {
            assert_eq!(fields(&["mon"], time, "17:00", "+00:00"), ["/from"], "{time}");
        }
        for offset in ["07:00", "+15:00", "Z", "+7", "", "++7:00"] {
            assert_eq!(fields(&["mon"], "09:00", "17:00", offset), ["/utcOffset"], "{offset}");
        }
        assert_eq!(fields(&["mon"], "17:00", "09:00", "+00:00"), ["/to"]);
    }
}
