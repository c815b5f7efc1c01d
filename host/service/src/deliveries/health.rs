//! How a receiver fares: how much it is given at once, and when it is left alone.
//!
//! A receiver that answers well gets twice as much at once each time, one that fails on end or takes its time half as much. After many
//! failures on end it rests, ever longer, and is then tried with one delivery: what it does not take costs neither
//! it nor anybody else much.

use std::time::Duration;

use portcullis_core::{Line, OrgId, OutboxPlace, Timestamp};

use crate::Service;

/// How much a receiver is given at once, at most.
const WIDEST: usize = 64;
/// How many failures on end have a receiver given less: one that fails now and then is not overburdened.
const SEVERAL: u32 = 3;
/// How many failures on end make a receiver rest.
const ENOUGH: u32 = 10;
/// The first and the longest rest.
const RESTS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// A receiver that takes longer than this is given less.
const SLOW: Duration = Duration::from_secs(2);

/// How a receiver fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Health {
    /// How much it is given at once.
    pub(super) width: usize,
    /// Until when it is left alone.
    pub(super) rests_until: Timestamp,
    /// How often it has failed on end.
    failures: u32,
    /// How far its line has looked. What is before that and not kept as such was not for it.
    pub(super) looked_through: OutboxPlace,
}

impl Default for Health {
    fn default() -> Self {
        Self { width: 4, rests_until: Timestamp::default(), failures: 0, looked_through: OutboxPlace::default() }
    }
}

impl Health {
    /// It has taken something.
    pub(super) fn took(&mut self, time: Duration) {
        self.failures = 0;
        self.rests_until = Timestamp::default();
        self.width = if time > SLOW { (self.width / 2).max(1) } else { (self.width * 2).min(WIDEST) };
    }

    /// It has not, and may have said for how long it wants to be left alone.
    pub(super) fn failed(&mut self, now: Timestamp, wished: Option<Duration>, scale: f64) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= SEVERAL {
            self.width = (self.width / 2).max(1);
        }
        let beyond = self.failures.saturating_sub(ENOUGH);
        let own = (self.failures >= ENOUGH).then(|| {
            let doubled = RESTS.0.saturating_mul(1_u32 << beyond.min(10));
            doubled.min(RESTS.1).mul_f64(scale)
        });
        if let Some(rest) = own.into_iter().chain(wished.map(|wish| wish.mul_f64(scale))).max() {
            self.rests_until = self.rests_until.max(now.after(rest));
        }
        if self.failures >= ENOUGH {
            self.width = 1;
        }
    }

    fn is_well(&self) -> bool {
        self.failures == 0 && self.rests_until == Timestamp::default()
    }
}

impl Service {
    pub(super) fn health(&self, org: OrgId, line: Line) -> Health {
        let health = self.deliveries.health.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        health.get(&(org, line)).copied().unwrap_or_default()
    }

    /// How far a line has looked already.
    pub(crate) fn looked_through(&self, org: OrgId, line: Line) -> OutboxPlace {
        self.health(org, line).looked_through
    }

    /// Remembers how a receiver fares, if there is anything to remember.
    pub(super) fn keep_health(&self, org: OrgId, line: Line, health: Health, through: OutboxPlace) {
        let mut known = self.deliveries.health.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if health.is_well() && health.looked_through <= through {
            known.remove(&(org, line));
        } else {
            known.insert((org, line), health);
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);
    const QUICK: Duration = Duration::from_millis(5);

    #[test]
    fn who_answers_well_is_given_more_and_who_does_not_less() {
        let mut health = Health::default();
        (0..10).for_each(|_| health.took(QUICK));
        assert_eq!(health.width, WIDEST);
        health.took(SLOW * 2);
        assert_eq!(health.width, WIDEST / 2);
        (0..5).for_each(|_| health.failed(NOW, None, 1.0));
        assert_eq!(
            (health.width, health.rests_until),
            (4, Timestamp::default()),
            "a few failures are no reason to rest"
        );
    }

    #[test]
    fn who_fails_on_end_rests_ever_longer_and_is_well_again_at_once() {
        let mut health = Health::default();
        let rest = |health: &mut Health| {
            health.rests_until = Timestamp::default();
            health.failed(NOW, None, 1.0);
            health.rests_until.since(NOW)
        };
        let rests: Vec<_> = (0..20).map(|_| rest(&mut health).as_secs()).collect();
        assert_eq!(rests[..ENOUGH as usize - 1], [0; 9]);
        assert_eq!(rests[9..], [5, 10, 20, 40, 80, 160, 300, 300, 300, 300, 300]);
        health.took(QUICK);
        assert!(health.is_well());
    }

    #[test]
    fn who_wants_to_be_left_alone_is() {
        let mut health = Health::default();
        health.failed(NOW, Some(Duration::from_secs(90)), 1.0);
        assert_eq!(health.rests_until, NOW.after(Duration::from_secs(90)));
        health.failed(NOW, Some(Duration::from_secs(3)), 1.0);
        assert_eq!(health.rests_until, NOW.after(Duration::from_secs(90)), "a shorter wish takes nothing back");
    }
}
