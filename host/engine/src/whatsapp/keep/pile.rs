//! The net effect of changes that are not durable yet.

use std::collections::BTreeMap;

use portcullis_core::DeviceChange;

/// How many rows may wait.
const ROWS: usize = 1_024;
/// How many bytes of names and values may wait.
const BYTES: usize = 256 * 1_024;

/// Changes of rows by kind and name: only the last one of each row is kept.
#[derive(Default)]
pub(super) struct Pile {
    kinds: BTreeMap<u8, Heap>,
    rows: usize,
    bytes: usize,
}

/// Changes of one kind's rows.
#[derive(Default, Clone)]
pub(super) struct Heap {
    /// All rows go, before those here are put.
    pub(super) emptied: bool,
    /// The value of a row, or none if the row goes.
    pub(super) rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Pile {
    /// Puts one change on top.
    pub(super) fn add(&mut self, change: DeviceChange) {
        match change {
            DeviceChange::Put { kind, name, value } => self.set(kind, name, Some(value)),
            DeviceChange::Remove { kind, name } => self.set(kind, name, None),
            DeviceChange::RemoveAll { kind } => self.empty(kind),
            DeviceChange::Clear => (0..=u8::MAX).for_each(|kind| self.empty(kind)),
        }
    }

    /// Puts all changes of a newer pile on top.
    pub(super) fn cover(&mut self, newer: Self) {
        for (kind, heap) in newer.kinds {
            if heap.emptied {
                self.empty(kind);
            }
            for (name, value) in heap.rows {
                self.set(kind, name, value);
            }
        }
    }

    /// What this pile says of a row: `None` if nothing, `Some(None)` if that it is not there.
    pub(super) fn says(&self, kind: u8, name: &[u8]) -> Option<Option<&[u8]>> {
        let heap = self.kinds.get(&kind)?;
        match heap.rows.get(name) {
            Some(value) => Some(value.as_deref()),
            None => heap.emptied.then_some(None),
        }
    }

    /// What this pile says of a kind, on top of what is said of it already.
    pub(super) fn says_of(&self, kind: u8, below: &mut Heap) {
        let Some(heap) = self.kinds.get(&kind) else { return };
        if heap.emptied {
            *below = heap.clone();
        } else {
            below.rows.extend(heap.rows.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
    }

    /// The changes, in an order in which they come to the same.
    pub(super) fn changes(&self) -> Vec<DeviceChange> {
        let mut changes = Vec::with_capacity(self.rows + 1);
        for (kind, heap) in &self.kinds {
            let kind = *kind;
            if heap.emptied {
                changes.push(DeviceChange::RemoveAll { kind });
            }
            changes.extend(heap.rows.iter().filter(|(_, value)| value.is_some() || !heap.emptied).map(
                |(name, value)| match value.clone() {
                    Some(value) => DeviceChange::Put { kind, name: name.clone(), value },
                    None => DeviceChange::Remove { kind, name: name.clone() },
                },
            ));
        }
        changes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Whether it is time to make room.
    pub(super) fn is_full(&self) -> bool {
        self.rows >= ROWS || self.bytes >= BYTES
    }

    /// How many bytes of names and values wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn set(&mut self, kind: u8, name: Vec<u8>, value: Option<Vec<u8>>) {
        let length = name.len();
        let size = |value: &Option<Vec<u8>>| length + value.as_ref().map_or(0, Vec::len);
        self.bytes += size(&value);
        match self.kinds.entry(kind).or_default().rows.insert(name, value) {
            Some(older) => self.bytes -= size(&older),
            None => self.rows += 1,
        }
    }

    fn empty(&mut self, kind: u8) {
        let heap = self.kinds.entry(kind).or_default();
        self.rows -= heap.rows.len();
        let size = |(name, value): (&Vec<u8>, &Option<Vec<u8>>)| name.len() + value.as_ref().map_or(0, Vec::len);
        self.bytes -= heap.rows.iter().map(size).sum::<usize>();
        *heap = Heap { emptied: true, rows: BTreeMap::new() };
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn put(kind: u8, name: &str, value: &str) -> DeviceChange {
        DeviceChange::Put { kind, name: name.into(), value: value.into() }
    }

    fn remove(kind: u8, name: &str) -> DeviceChange {
        DeviceChange::Remove { kind, name: name.into() }
    }

    fn pile(changes: impl IntoIterator<Item = DeviceChange>) -> Pile {
        let mut pile = Pile::default();
        changes.into_iter().for_each(|change| pile.add(change));
        pile
    }

    #[test]
    fn only_the_last_change_of_a_row_is_kept() {
        let pile = pile([put(1, "a", "1"), put(1, "b", "22"), put(1, "a", "333"), remove(1, "b"), put(2, "a", "4")]);
        assert_eq!(pile.changes(), [put(1, "a", "333"), remove(1, "b"), put(2, "a", "4")]);
        assert_eq!((pile.rows, pile.bytes), (3, 4 + 1 + 2));
        assert_eq!(pile.says(1, b"a"), Some(Some(&b"333"[..])));
        assert_eq!(pile.says(1, b"b"), Some(None));
        assert_eq!((pile.says(1, b"c"), pile.says(3, b"a")), (None, None));
    }

    #[test]
    fn emptying_a_kind_hides_what_was_before_and_nothing_after() {
        let all = DeviceChange::RemoveAll { kind: 1 };
        let pile = pile([put(1, "a", "1"), put(2, "a", "2"), all.clone(), put(1, "b", "3"), remove(1, "c")]);
        assert_eq!(pile.changes(), [all, put(1, "b", "3"), put(2, "a", "2")]);
        assert_eq!((pile.says(1, b"a"), pile.says(1, b"z")), (Some(None), Some(None)));
        assert_eq!(pile.says(1, b"b"), Some(Some(&b"3"[..])));
    }

    #[test]
    fn a_newer_pile_covers_an_older_one() {
        let all = DeviceChange::RemoveAll { kind: 2 };
        let mut older = pile([put(1, "a", "old"), put(1, "b", "old"), put(2, "a", "old")]);
        older.cover(pile([put(1, "a", "new"), all.clone(), put(2, "c", "new")]));
        assert_eq!(older.changes(), [put(1, "a", "new"), put(1, "b", "old"), all, put(2, "c", "new")]);
        assert_eq!((older.rows, older.bytes), (3, 12));
    }

    #[test]
    fn a_pile_is_full_of_rows_or_of_bytes() {
        let many = pile((0..ROWS).map(|row| put(1, &row.to_string(), "")));
        assert!(many.is_full());
        assert!(!pile((1..ROWS).map(|row| put(1, &row.to_string(), ""))).is_full());
        assert!(pile([put(1, "", &"x".repeat(BYTES))]).is_full());
        let mut emptied = many;
        emptied.add(DeviceChange::Clear);
        assert!(!emptied.is_full() && !emptied.is_empty());
        assert_eq!(emptied.says(77, b"whatever"), Some(None));
    }
}
