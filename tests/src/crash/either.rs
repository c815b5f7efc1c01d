//! Values of which a call that was not answered leaves more than one possible.

use std::fmt::Debug;

/// What a value may be. Usually that is one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Either<T>(Vec<T>);

impl<T: Clone + PartialEq + Debug> Either<T> {
    pub(super) fn of(value: T) -> Self {
        Self(vec![value])
    }

    /// It is this, for certain.
    pub(super) fn set(&mut self, value: T) {
        self.0 = vec![value];
    }

    /// It is this, or what it was.
    pub(super) fn or(&mut self, value: T) {
        if !self.0.contains(&value) {
            self.0.push(value);
        }
    }

    /// Everything that it can be becomes something else; or, if that is not certain, may become it.
    pub(super) fn change(&mut self, certain: bool, to: impl Fn(&T) -> Option<T>) {
        let after: Vec<T> = self.0.iter().map(|value| to(value).unwrap_or_else(|| value.clone())).collect();
        if certain {
            self.0.clear();
        }
        after.into_iter().for_each(|value| self.or(value));
    }

    /// As [`Either::set`] or [`Either::or`].
    pub(super) fn put(&mut self, certain: bool, value: T) {
        if certain { self.set(value) } else { self.or(value) }
    }

    /// What it is, if that is certain.
    pub(super) fn sure(&self) -> Option<&T> {
        if let [value] = &self.0[..] { Some(value) } else { None }
    }

    pub(super) fn may_be(&self, wanted: impl Fn(&T) -> bool) -> bool {
        self.0.iter().any(wanted)
    }

    /// Keeps what fits to what was seen; false, and nothing changes, if nothing does.
    pub(super) fn narrow(&mut self, fits: impl Fn(&T) -> bool) -> bool {
        let left: Vec<T> = self.0.iter().filter(|value| fits(value)).cloned().collect();
        let fits = !left.is_empty();
        if fits {
            self.0 = left;
        }
        fits
    }
}
