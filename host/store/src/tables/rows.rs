//! Rows and their keys: tables of a transaction that open when they are used, and spans of keys that begin alike.

use std::cell::OnceCell;
use std::ops::{Bound, RangeBounds};

use portcullis_core::{OrgId, SessionId};
use redb::{AccessGuard, ReadableTable, Table, WriteTransaction};

use super::Definition;
use crate::error::StoreFault;

/// What a table of a write transaction gives back.
type Value<'a> = AccessGuard<'a, &'static [u8]>;
/// A span of its rows.
type Range<'a> = redb::Range<'a, &'static [u8], &'static [u8]>;
/// A table of a write transaction once it is open.
type Opened<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

/// A table of a write transaction. Most commits use few of the tables, and each that is opened has to be closed again.
pub(crate) struct Rows<'txn> {
    transaction: &'txn WriteTransaction,
    definition: Definition,
    table: OnceCell<Opened<'txn>>,
}

impl<'txn> Rows<'txn> {
    /// The table that a definition names, which is not open yet.
    pub(super) fn of(transaction: &'txn WriteTransaction, definition: Definition) -> Self {
        Self { transaction, definition, table: OnceCell::new() }
    }

    /// The value under a key.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value<'_>>, StoreFault> {
        Ok(self.opened()?.get(key)?)
    }

    /// The rows of a span, in order.
    pub(crate) fn range<'a>(&self, span: impl RangeBounds<&'a [u8]> + 'a) -> Result<Range<'_>, StoreFault> {
        Ok(self.opened()?.range(span)?)
    }

    /// Puts a value under a key; the one that was there.
    pub(crate) fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<Option<Value<'_>>, StoreFault> {
        Ok(self.opened_mut()?.insert(key, value)?)
    }

    /// Takes a row out; its value.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Result<Option<Value<'_>>, StoreFault> {
        Ok(self.opened_mut()?.remove(key)?)
    }

    /// Takes those rows of a span out that are not to be kept.
    pub(crate) fn retain_in<'a>(
        &mut self,
        span: impl RangeBounds<&'a [u8]> + 'a,
        mut keep: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), StoreFault> {
        Ok(self.opened_mut()?.retain_in(span, |key, _| keep(key))?)
    }

    /// The table itself, which is made if it is not there.
    pub(crate) fn opened(&self) -> Result<&Opened<'txn>, StoreFault> {
        if self.table.get().is_none() {
            let opened = self.transaction.open_table(self.definition)?;
            return Ok(self.table.get_or_init(|| opened));
        }
        Ok(self.table.get().expect("it was there a moment ago"))
    }

    fn opened_mut(&mut self) -> Result<&mut Opened<'txn>, StoreFault> {
        self.opened()?;
        Ok(self.table.get_mut().expect("it was opened a moment ago"))
    }
}

/// The bytes that stand for "no session" in keys. No session has them, because a ULID of time zero is never made.
pub(crate) const NO_SESSION: [u8; 16] = [0; 16];

/// A key from its parts.
pub(crate) fn key(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// The part of a key that names a session or none.
pub(crate) fn session_part(session: Option<SessionId>) -> [u8; 16] {
    session.map_or(NO_SESSION, SessionId::to_bytes)
}

/// The session that a part of a key names.
pub(crate) fn session_of(part: [u8; 16]) -> Option<SessionId> {
    (part != NO_SESSION).then(|| SessionId::from_bytes(part))
}

/// The `N` bytes of a key or head from `at` on; `None` if it is too short.
pub(crate) fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// The number in the 8 bytes from `at` on.
pub(crate) fn number(bytes: &[u8], at: usize) -> Option<u64> {
    part(bytes, at).map(u64::from_be_bytes)
}

/// The organisation that begins a key.
pub(crate) fn org_of(key: &[u8]) -> Option<OrgId> {
    part(key, 0).map(OrgId::from_bytes)
}

/// A span of keys.
pub(crate) type Span<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// All keys that begin with some bytes.
pub(crate) struct Prefix {
    start: Vec<u8>,
    /// The first key after them all; `None` if the prefix is all ones.
    end: Option<Vec<u8>>,
}

impl Prefix {
    pub(crate) fn new(parts: &[&[u8]]) -> Self {
        let start = key(parts);
        let mut end = start.clone();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self { start, end: Some(end) };
            }
        }
        Self { start, end: None }
    }

    /// What they begin with.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.start
    }

    pub(crate) fn span(&self) -> Span<'_> {
        (Bound::Included(&self.start), self.upper())
    }

    /// Those after `key`, or all.
    pub(crate) fn after<'a>(&'a self, key: Option<&'a [u8]>) -> Span<'a> {
        (key.map_or(Bound::Included(&self.start[..]), Bound::Excluded), self.upper())
    }

    /// Those before `key`, or all.
    pub(crate) fn before<'a>(&'a self, key: Option<&'a [u8]>) -> Span<'a> {
        (Bound::Included(&self.start), key.map_or_else(|| self.upper(), Bound::Excluded))
    }

    /// Those at `key` and later.
    pub(crate) fn from<'a>(&'a self, key: &'a [u8]) -> Span<'a> {
        (Bound::Included(key), self.upper())
    }

    /// Those after all of them; none if the prefix is all ones.
    pub(crate) fn beyond(&self) -> Span<'_> {
        let start = self.end.as_deref().map_or(Bound::Excluded(&[u8::MAX; 64][..]), Bound::Included);
        (start, Bound::Unbounded)
    }

    fn upper(&self) -> Bound<&[u8]> {
        self.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded)
    }
}

/// Removes every row whose key begins with these bytes.
pub(crate) fn remove_prefix(rows: &mut Rows<'_>, prefix: &Prefix) -> Result<(), StoreFault> {
    rows.retain_in(prefix.span(), |_| false)
}

/// A key and a value, or the beginning of one.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// Copies of the keys and the first `head` bytes of the values that begin with these bytes.
pub(crate) fn heads(rows: &Rows<'_>, prefix: &Prefix, head: usize) -> Result<Vec<Pair>, StoreFault> {
    let mut found = Vec::new();
    for row in rows.range(prefix.span())? {
        let (key, value) = row?;
        let value = value.value();
        found.push((key.value().to_vec(), value[..head.min(value.len())].to_vec()));
    }
    Ok(found)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        let prefix = Prefix::new(&[&[1, 0xff]]);
        assert_eq!(prefix.span(), (Bound::Included(&[1, 0xff][..]), Bound::Excluded(&[2][..])));
        assert_eq!(Prefix::new(&[&[0xff, 0xff]]).span().1, Bound::Unbounded);
    }
}
