//! Places for streams, which hold their connections for long: so many in all, for each organisation, and for each session's links.
//!
//! A link needs no key, so whoever holds one must not be able to keep everybody else from theirs.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_core::{OrgId, SessionId};

/// Of all places, an organisation gets one in so many.
const ORG_SHARE: usize = 8;
/// How many may look at one session's link at once.
const PER_LINK: usize = 8;

/// The places.
pub(crate) struct StreamPlaces {
    taken: Arc<Mutex<Taken>>,
    in_all: usize,
}

#[derive(Default)]
struct Taken {
    in_all: usize,
    by_org: HashMap<OrgId, usize>,
    by_link: HashMap<SessionId, usize>,
}

/// A place; it is given back when this is dropped.
pub(crate) struct StreamPlace {
    taken: Arc<Mutex<Taken>>,
    org: OrgId,
    link: Option<SessionId>,
}

impl StreamPlaces {
    pub(crate) fn new(in_all: usize) -> Self {
        Self { taken: Arc::default(), in_all }
    }

    /// Takes a place for an organisation, and for the link to a session if it is one; none if one of the bounds is reached.
    pub(crate) fn enter(&self, org: OrgId, link: Option<SessionId>) -> Option<StreamPlace> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |places: Option<&usize>| places.copied().unwrap_or_default();
        let full = taken.in_all >= self.in_all
            || count(taken.by_org.get(&org)) >= self.in_all.div_ceil(ORG_SHARE)
            || link.is_some_and(|link| count(taken.by_link.get(&link)) >= PER_LINK);
        if full {
            return None;
        }
        taken.in_all += 1;
        *taken.by_org.entry(org).or_default() += 1;
        if let Some(link) = link {
            *taken.by_link.entry(link).or_default() += 1;
        }
        Some(StreamPlace { taken: Arc::clone(&self.taken), org, link })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.in_all -= 1;
        give_back(&mut taken.by_org, &self.org);
        if let Some(link) = &self.link {
            give_back(&mut taken.by_link, link);
        }
    }
}

fn give_back<K: Eq + Hash>(places: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = places.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            places.remove(key);
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn nobody_takes_the_places_of_others_and_every_place_comes_back() {
        let places = StreamPlaces::new(80);
        let (one, other) = (OrgId::from_bytes([1; 16]), OrgId::from_bytes([2; 16]));
        let session = |byte| Some(SessionId::from_bytes([byte; 16]));
        let link: Vec<_> = (0..20).map_while(|_| places.enter(one, session(1))).collect();
        assert_eq!(link.len(), PER_LINK, "one link has its own bound");
        let rest: Vec<_> = (0..20).map_while(|_| places.enter(one, None)).collect();
        assert_eq!(link.len() + rest.len(), 10, "an organisation has its share");
        assert!(places.enter(other, session(2)).is_some(), "the others have theirs");
        drop((link, rest));
        assert!(places.enter(one, session(1)).is_some());
        let taken = places.taken.lock().expect("nobody panicked");
        assert_eq!((taken.in_all, taken.by_org.len(), taken.by_link.len()), (0, 0, 0));
    }
}
