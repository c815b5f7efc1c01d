//! How many rows of each kind an organisation has, or a plugin in it, so that a quota is one look and not a count.

use portcullis_core::OrgId;

use crate::commit::QuotaKind;
use crate::error::StoreFault;
use crate::tables::{Rows, part};

/// How many rows of each kind an organisation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts([u32; QuotaKind::ALL.len()]);

impl Counts {
    pub(crate) fn read(rows: &Rows<'_>, org: OrgId) -> Result<Self, StoreFault> {
        Ok(rows.get(&org.to_bytes()[..])?.map_or_else(Self::default, |row| Self::parse(row.value())))
    }

    /// The counts of a row; kinds that it does not know are counted from zero.
    pub(crate) fn parse(value: &[u8]) -> Self {
        let mut counts = Self::default().0;
        for (count, bytes) in counts.iter_mut().zip(value.chunks_exact(4)) {
            *count = bytes.try_into().map_or(0, u32::from_be_bytes);
        }
        Self(counts)
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.map(u32::to_be_bytes).concat()
    }

    pub(crate) fn of(self, kind: QuotaKind) -> u32 {
        self.0[kind as usize]
    }

    pub(crate) fn add(&mut self, kind: QuotaKind, new: bool) {
        self.0[kind as usize] += u32::from(new);
    }

    pub(crate) fn take(&mut self, kind: QuotaKind) {
        self.0[kind as usize] = self.0[kind as usize].saturating_sub(1);
    }

    pub(crate) fn write(self, rows: &mut Rows<'_>, org: OrgId) -> Result<(), StoreFault> {
        if self == Self::default() {
            rows.remove(&org.to_bytes()[..])?;
        } else {
            rows.insert(&org.to_bytes()[..], &self.bytes()[..])?;
        }
        Ok(())
    }
}

/// How many of a kind a plugin has in an organisation; `owner` is its key in a table that counts them.
pub(crate) fn held(rows: &Rows<'_>, owner: &[u8]) -> Result<u32, StoreFault> {
    Ok(rows.get(owner)?.and_then(|row| part(row.value(), 0)).map_or(0, u32::from_be_bytes))
}

/// Counts so many more, or fewer, for a plugin; who has none has no row.
pub(crate) fn add(rows: &mut Rows<'_>, owner: &[u8], more: i32) -> Result<(), StoreFault> {
    match held(rows, owner)?.saturating_add_signed(more) {
        0 => rows.remove(owner)?,
        left => rows.insert(owner, &left.to_be_bytes())?,
    };
    Ok(())
}
