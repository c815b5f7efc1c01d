//! Slots for requests that are on their way. Each holds a connection and the memory of what is sent and answered.
//!
//! An organisation has never more than half of what is free, so that receivers who take their time take nobody else's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_core::OrgId;
use tokio::sync::Notify;

/// How many requests are on their way at once.
const IN_ALL: usize = 1_024;
/// How many of them are one organisation's, at most.
const OF_ORG: usize = 128;

/// The slots.
#[derive(Default)]
pub(super) struct Slots {
    taken: Mutex<Taken>,
    freed: Notify,
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
    /// A slot, as soon as there is one.
    pub(super) async fn take(self: &Arc<Self>, org: OrgId) -> Slot {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Whoever looks is in the line before, so that no slot becomes free unseen.
            freed.as_mut().enable();
            if let Some(slot) = self.try_take(org) {
                return slot;
            }
            freed.await;
        }
    }

    fn try_take(self: &Arc<Self>, org: OrgId) -> Option<Slot> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let held = taken.by_org.get(&org).copied().unwrap_or_default();
        let free = IN_ALL.saturating_sub(taken.in_all);
        // One slot is everybody's: an organisation that has none gets one, whatever the others hold.
        if held > 0 && held >= (free / 2).clamp(1, OF_ORG) {
            return None;
        }
        taken.in_all += 1;
        *taken.by_org.entry(org).or_default() += 1;
        Some(Slot { slots: Arc::clone(self), org })
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
        drop(taken);
        self.slots.freed.notify_waiters();
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn org(number: u128) -> OrgId {
        OrgId::from_bytes(number.to_be_bytes())
    }

    #[test]
    fn everybody_has_a_slot_and_nobody_has_all() {
        let slots = Arc::new(Slots::default());
        let take_all = |org| std::iter::from_fn(|| slots.try_take(org)).collect::<Vec<_>>();
        let first = take_all(org(1));
        assert_eq!(first.len(), OF_ORG);
        let mut held = vec![first];
        for greedy in 2..2_000 {
            held.push(take_all(org(greedy)));
        }
        assert!(held.iter().all(|slots| !slots.is_empty()), "an organisation got none");
        assert_eq!(take_all(org(9_999)).len(), 1);
        held.clear();
        assert_eq!(slots.taken.lock().unwrap().in_all, 0);
        assert!(slots.taken.lock().unwrap().by_org.is_empty());
    }
}
