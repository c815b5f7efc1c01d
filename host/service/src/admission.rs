//! Back-pressure: how many operations may be under way, for each organisation and in all.
//!
//! Who finds no place is told so at once and when to come back; nothing queues without bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_core::OrgId;

/// The places of operations under way.
pub(crate) struct Places {
    taken: Mutex<Taken>,
    in_all: u32,
}

#[derive(Default)]
struct Taken {
    in_all: u32,
    by_org: HashMap<OrgId, u32>,
}

/// A place; it is given back when this is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    org: OrgId,
}

/// There is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// The organisation uses all of its own.
    #[error("the organisation has too many operations under way")]
    Org,
    /// All are used.
    #[error("the gateway has too many operations under way")]
    Gateway,
}

impl Places {
    /// `in_all` places.
    pub(crate) fn new(in_all: u32) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), in_all })
    }

    /// Takes a place for an organisation that may have `quota`.
    pub(crate) fn enter(self: &Arc<Self>, org: OrgId, quota: u32) -> Result<Place, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.in_all >= self.in_all {
            return Err(Full::Gateway);
        }
        let ours = taken.by_org.entry(org).or_default();
        if *ours >= quota {
            return Err(Full::Org);
        }
        *ours += 1;
        taken.in_all += 1;
        Ok(Place { places: Arc::clone(self), org })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.in_all -= 1;
        if let Some(ours) = taken.by_org.get_mut(&self.org) {
            *ours -= 1;
            // The map holds only organisations that have something under way.
            if *ours == 0 {
                taken.by_org.remove(&self.org);
            }
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn one_organisation_cannot_take_the_places_of_another() {
        let places = Places::new(3);
        let (a, b) = (OrgId::from_bytes([1; 16]), OrgId::from_bytes([2; 16]));
        let first = places.enter(a, 2).unwrap();
        let _second = places.enter(a, 2).unwrap();
        assert_eq!(places.enter(a, 2).err(), Some(Full::Org));
        let _third = places.enter(b, 2).unwrap();
        assert_eq!(places.enter(b, 2).err(), Some(Full::Gateway));
        drop(first);
        assert!(places.enter(b, 2).is_ok());
        assert!(places.enter(a, 2).is_ok());
    }
}
