//! The settings of the plugin, read and checked, and the limits that they come to.

use portcullis_sdk::{Form, Limit, Limitation, Problem, Window};

/// Deletes in any 60 seconds, unless the settings say otherwise.
const DEFAULT_PER_MINUTE: u64 = 10;

/// Deletes in any 60 minutes, unless the settings say otherwise.
const DEFAULT_PER_HOUR: u64 = 100;

/// The most that either may be.
const MOST: u64 = 10_000;

/// Both windows look at the same counter, so a delete is counted once and is seen by both.
const COUNTER: &str = "deletes";

const MINUTE: u64 = 60 * 1000;
const HOUR: u64 = 60 * MINUTE;

/// What the settings say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Deletes in any 60 seconds.
    per_minute: u64,
    /// Deletes in any 60 minutes.
    per_hour: u64,
}

impl Rules {
    /// Reads the settings.
    pub(crate) fn parse(json: &str) -> Result<Self, Vec<Problem>> {
        let mut form = Form::parse(json)?;
        let rules = Self {
            per_minute: number(&mut form, "perMinute", DEFAULT_PER_MINUTE),
            per_hour: number(&mut form, "perHour", DEFAULT_PER_HOUR),
        };
        form.finish()?;
        Ok(rules)
    }

    /// The bounds that a delete has to keep to.
    pub(crate) fn limitation(self) -> Limitation {
        let limit = |window, max| Limit { counter: COUNTER.to_owned(), window: Window::Sliding(window), max };
        Limitation {
            limits: vec![limit(MINUTE, self.per_minute), limit(HOUR, self.per_hour)],
            message: format!(
                "this organisation deletes at most {} a minute and {} an hour",
                sessions(self.per_minute),
                self.per_hour
            ),
        }
    }
}

/// Takes a number out of the form, and notes if it is out of bounds.
fn number(form: &mut Form, name: &str, default: u64) -> u64 {
    let number = form.take::<u64>(name).unwrap_or(default);
    if !(1..=MOST).contains(&number) {
        form.problem(format!("/{name}"), format!("write a whole number from 1 to {MOST}"));
    }
    number
}

fn sessions(count: u64) -> String {
    if count == 1 { "1 session".to_owned() } else { format!("{count} sessions") }
}

#[cfg(test)]
mod test {
    use super::*;

    fn check_settings(json: &str, per_minute: u64, per_hour: u64) {
        assert_eq!(Rules::parse(json), Ok(Rules { per_minute, per_hour }), "{json}");
    }

    fn check_problems(json: &str, expected: &[&str]) {
        let problems = Rules::parse(json).expect_err("wrong settings");
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, expected, "{json}");
    }

    #[test]
    fn what_is_not_set_is_ten_a_minute_and_a_hundred_an_hour() {
        check_settings("", 10, 100);
        check_settings("{}", 10, 100);
        check_settings(r#"{"perMinute": 3}"#, 3, 100);
        check_settings(r#"{"perHour": 7}"#, 10, 7);
        check_settings(r#"{"perMinute": 1, "perHour": 10000}"#, 1, 10_000);
    }

    #[test]
    fn problems_name_their_fields() {
        check_problems(r#"{"perMinute": 0}"#, &["/perMinute"]);
        check_problems(r#"{"perHour": 10001}"#, &["/perHour"]);
        check_problems(r#"{"perMinute": -1, "perHour": "many"}"#, &["/perMinute", "/perHour"]);
        check_problems(r#"{"perMinute": 2.5}"#, &["/perMinute"]);
        check_problems(r#"{"perDay": 3}"#, &["/perDay"]);
        check_problems("[]", &[""]);
    }

    #[test]
    fn both_windows_look_at_one_counter() {
        let limits = Rules { per_minute: 2, per_hour: 5 }.limitation().limits;
        let limit = |window, max| Limit { counter: "deletes".to_owned(), window: Window::Sliding(window), max };
        assert_eq!(limits, [limit(60_000, 2), limit(3_600_000, 5)]);
    }

    #[test]
    fn the_sentence_names_both_numbers() {
        let message = |per_minute, per_hour| Rules { per_minute, per_hour }.limitation().message;
        assert_eq!(message(10, 100), "this organisation deletes at most 10 sessions a minute and 100 an hour");
        assert_eq!(message(1, 2), "this organisation deletes at most 1 session a minute and 2 an hour");
    }
}
