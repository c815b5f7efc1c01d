//! Places for streams, which hold their connections for long: so many in all, for each organisation, for each caller, and for each session's links.
//!
//! A link needs no key, so whoever holds one must not be able to keep everybody else from theirs; and no key can take all that
//! its organisation has.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::StatusCode;
use portcullis_core::{OrgId, PrincipalKind, SessionId};
use serde_json::json;

use crate::dialect::Problem;

/// Of all places, an organisation gets one in so many.
const ORG_SHARE: usize = 8;
/// How many may look at one session's link at once.
const PER_LINK: usize = 8;
/// How many streams one key or person has at once.
const PER_CALLER: usize = 32;
/// After how many seconds it is worth asking again.
const AGAIN: u64 = 5;

/// The places.
pub(crate) struct StreamPlaces {
    taken: Arc<Mutex<Taken>>,
    in_all: usize,
}

#[derive(Default)]
struct Taken {
    in_all: usize,
    by_org: HashMap<OrgId, usize>,
    by_seat: HashMap<Seat, usize>,
}

/// Who sits in a place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Seat {
    /// Somebody with a link to a session.
    Link(SessionId),
    /// A key, a person or the operator, by the words of the audit.
    Caller(String),
}

impl Seat {
    pub(crate) fn of(caller: &PrincipalKind) -> Self {
        Self::Caller(caller.to_string())
    }

    fn bound(&self) -> usize {
        match self {
            Self::Link(_) => PER_LINK,
            Self::Caller(_) => PER_CALLER,
        }
    }
}

/// Which bound is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Gateway,
    Org,
    Link,
    Caller,
}

impl Full {
    /// What whoever gets no place is told.
    pub(crate) fn problem(self) -> Problem {
        let (status, code, message) = match self {
            Self::Gateway => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "too many streams are open"),
            Self::Org => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many streams of the organisation are open")
            }
            Self::Link => (StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many streams of this link are open"),
            Self::Caller => (StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many streams of this caller are open"),
        };
        Problem::new(status, code, message).with_details(json!({ "reason": "too_many_streams" })).after(AGAIN)
    }
}

/// A place; it is given back when this is dropped.
pub(crate) struct StreamPlace {
    taken: Arc<Mutex<Taken>>,
    org: OrgId,
    seat: Seat,
}

impl StreamPlaces {
    pub(crate) fn new(in_all: usize) -> Self {
        Self { taken: Arc::default(), in_all }
    }

    /// Takes a place, unless one of the bounds is reached.
    pub(crate) fn enter(&self, org: OrgId, seat: Seat) -> Result<StreamPlace, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |places: Option<&usize>| places.copied().unwrap_or_default();
        if taken.in_all >= self.in_all {
            return Err(Full::Gateway);
        }
        if count(taken.by_org.get(&org)) >= self.in_all.div_ceil(ORG_SHARE) {
            return Err(Full::Org);
        }
        if count(taken.by_seat.get(&seat)) >= seat.bound() {
            return Err(if matches!(seat, Seat::Link(_)) { Full::Link } else { Full::Caller });
        }
        taken.in_all += 1;
        *taken.by_org.entry(org).or_default() += 1;
        *taken.by_seat.entry(seat.clone()).or_default() += 1;
        Ok(StreamPlace { taken: Arc::clone(&self.taken), org, seat })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.in_all -= 1;
        give_back(&mut taken.by_org, &self.org);
        give_back(&mut taken.by_seat, &self.seat);
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
        let places = StreamPlaces::new(320);
        let (one, other) = (OrgId::from_bytes([1; 16]), OrgId::from_bytes([2; 16]));
        let link = |byte| Seat::Link(SessionId::from_bytes([byte; 16]));
        let key = |name: &str| Seat::Caller(name.to_owned());
        let all = |org, seat: &Seat| {
            let mut taken = Vec::new();
            loop {
                match places.enter(org, seat.clone()) {
                    Ok(place) => taken.push(place),
                    Err(full) => return (taken, full),
                }
            }
        };
        let (linked, full) = all(one, &link(1));
        assert_eq!((linked.len(), full), (PER_LINK, Full::Link));
        let (called, full) = all(one, &key("a"));
        assert_eq!((called.len(), full), (PER_CALLER, Full::Org), "an organisation has its share");
        drop(linked);
        assert_eq!(places.enter(one, key("a")).err(), Some(Full::Caller), "a caller has a bound of their own");
        assert!(places.enter(one, key("b")).is_ok());
        assert!(places.enter(other, link(2)).is_ok(), "the others have theirs");
        drop(called);
        let taken = places.taken.lock().expect("nobody panicked");
        assert_eq!((taken.in_all, taken.by_org.len(), taken.by_seat.len()), (0, 0, 0));
    }
}
