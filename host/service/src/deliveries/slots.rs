//! Slots for requests that are on their way. Each holds a connection and the memory of what is sent and answered.
//!
//! Nobody waits for a slot: a line begins as much as it gets slots for, and asks again when something of its own comes back.
//! So that this is soon, a line that has none gets one whatever the others hold, and beyond that never more than
//! half of what its organisation has left, which is never more than half of what is left in all. Receivers who take
//! their time take nobody else's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_core::OrgId;

/// How many requests are on their way at once, but for the first of every line.
const IN_ALL: usize = 1_024;
/// How many of them are one organisation's.
const OF_ORG: usize = 256;

/// The slots.
#[derive(Default)]
pub(super) struct Slots {
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    in_all: usize,
    by_org: HashMap<OrgId, usize>,
}

/// A slot; it is free again when this is dropped.
pub(super) struct Slot {
    slots: Arc<Slots>,
    org: OrgId,
}

impl Slots {
    /// A slot for a line that holds so many, if it may have one more.
    pub(super) fn take(self: &Arc<Self>, org: OrgId, held_by_line: usize) -> Option<Slot> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_org = taken.by_org.get(&org).copied().unwrap_or_default();
        let left_in_all = IN_ALL.saturating_sub(taken.in_all);
        let left_of_org = OF_ORG.saturating_sub(of_org);
        if held_by_line > 0 && (held_by_line >= left_of_org / 2 || of_org >= left_in_all / 2) {
            return None;
        }
        Some(self.given(&mut taken, org))
    }

    /// A slot for what waits for nobody.
    pub(super) fn take_anyway(self: &Arc<Self>, org: OrgId) -> Slot {
        self.given(&mut self.taken.lock().unwrap_or_else(PoisonError::into_inner), org)
    }

    fn given(self: &Arc<Self>, taken: &mut Taken, org: OrgId) -> Slot {
        taken.in_all += 1;
        *taken.by_org.entry(org).or_default() += 1;
        Slot { slots: Arc::clone(self), org }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.in_all -= 1;
        if let Some(held) = taken.by_org.get_mut(&self.org) {
            *held -= 1;
            if *held == 0 {
                taken.by_org.remove(&self.org);
            }
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn org(number: u128) -> OrgId {
        OrgId::from_bytes(number.to_be_bytes())
    }

    /// All that a line gets.
    fn line(slots: &Arc<Slots>, org: OrgId) -> Vec<Slot> {
        let mut held = Vec::new();
        while let Some(slot) = slots.take(org, held.len()) {
            held.push(slot);
        }
        held
    }

    /// Sixty receivers that hung took every slot of their organisation, and its other receivers waited for half a minute.
    #[test]
    fn every_line_has_a_slot_and_none_has_all_of_its_organisation() {
        let slots = Arc::new(Slots::default());
        let held: Vec<_> = (0..100).map(|_| line(&slots, org(1))).collect();
        let sizes: Vec<_> = held.iter().map(Vec::len).collect();
        assert_eq!(sizes[..6], [85, 57, 38, 25, 17, 11]);
        assert!(sizes[6..].iter().all(|size| (1..=8).contains(size)), "{sizes:?}");
        assert!(line(&slots, org(2)).len() > 64, "another organisation has its own");
    }

    #[test]
    fn no_organisation_has_all() {
        let slots = Arc::new(Slots::default());
        let mut held = Vec::new();
        for greedy in 0..2_000 {
            let more = line(&slots, org(greedy));
            assert!(!more.is_empty(), "an organisation got none");
            held.push(more);
        }
        assert_eq!(line(&slots, org(9_999)).len(), 1);
        held.clear();
        assert_eq!(slots.taken.lock().unwrap().in_all, 0);
        assert!(slots.taken.lock().unwrap().by_org.is_empty());
    }
}
