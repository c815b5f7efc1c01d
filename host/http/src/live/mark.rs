//! Marks: how far a client has come, in the words in which it gives that back.

use std::fmt;
use std::str::FromStr;

use portcullis_core::{EventId, OutboxPlace};

/// From where on a client wants to be told what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// From behind an event.
    Event(EventId),
    /// From behind what a stream has told under this mark.
    Mark(Mark),
}

/// How far a stream has told: all parts of the event at a place, or its parts up to one.
///
/// `7` is all of the event at place 7, and `7.0` is its first part, where another one follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) place: OutboxPlace,
    /// The last part that was told, if there are more.
    pub(crate) part: Option<u8>,
}

impl Mark {
    /// Everything up to a place was told.
    pub(crate) fn whole(place: OutboxPlace) -> Self {
        Self { place, part: None }
    }

    /// The last place of which everything was told.
    pub(crate) fn behind(self) -> OutboxPlace {
        match self.part {
            None => self.place,
            Some(_) => OutboxPlace(self.place.0.saturating_sub(1)),
        }
    }

    /// Whether a part of an event was told by then.
    pub(crate) fn covers(self, place: OutboxPlace, part: u8) -> bool {
        place < self.place || place == self.place && self.part.is_none_or(|told| part <= told)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            None => write!(f, "{}", self.place),
            Some(part) => write!(f, "{}.{part}", self.place),
        }
    }
}

/// A text that no stream has given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the id of an event, or an id that a stream has given out")]
pub(crate) struct NoMark;

impl FromStr for Since {
    type Err = NoMark;

    fn from_str(text: &str) -> Result<Self, NoMark> {
        if text.starts_with(EventId::PREFIX) {
            return text.parse().map(Self::Event).map_err(|_| NoMark);
        }
        let (place, part) = match text.split_once('.') {
            None => (text, None),
            Some((place, part)) => (place, Some(part)),
        };
        // A number has no sign, which Rust's would.
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !plain(place) || !part.is_none_or(plain) {
            return Err(NoMark);
        }
        let place = OutboxPlace(place.parse().map_err(|_| NoMark)?);
        let part = part.map(str::parse).transpose().map_err(|_| NoMark)?;
        Ok(Self::Mark(Mark { place, part }))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_given_out() {
        for (text, place, part) in [("0", 0, None), ("7", 7, None), ("7.0", 7, Some(0)), ("7.12", 7, Some(12))] {
            let mark = Mark { place: OutboxPlace(place), part };
            assert_eq!(text.parse(), Ok(Since::Mark(mark)), "{text}");
            assert_eq!(mark.to_string(), text);
        }
        for text in ["", "+7", "-1", "7.", ".7", "7.256", "7.0.0", "evt_7", " 7", "99999999999999999999"] {
            assert_eq!(text.parse::<Since>(), Err(NoMark), "{text:?}");
        }
    }

    #[test]
    fn a_mark_covers_what_was_told() {
        let check = |mark: &str, place: u64, part: u8, covered: bool| {
            let Ok(Since::Mark(mark)) = mark.parse() else { panic!("{mark}") };
            assert_eq!(mark.covers(OutboxPlace(place), part), covered, "{mark} and {place}.{part}");
        };
        check("7", 7, 1, true);
        check("7", 8, 0, false);
        check("7.0", 6, 1, true);
        check("7.0", 7, 0, true);
        check("7.0", 7, 1, false);
    }
}
